"""Cancelling tasks that run: tokens, deadlines, and the waits and checks that honour them.

A task of a raddle pool is asked to stop by ``future.cancel(running=True)``, by the token it was submitted under
(``pool.options(token=...)``) or by its deadline (``pool.options(timeout=...)``). It learns of that in its next wait of
raddle's (a lock, a queue, an event, a join, another future, ``raddle.cancel.sleep``), at once if it waits already, and
where it calls ``check()``. ``Cancelled`` is raised there; a task that lets it out ends as a cancelled future, one whose
time is up as a future that raised ``DeadlineExceeded``.

Nothing interrupts a task that neither waits nor checks: no thread can be stopped from outside without breaking what
it holds.
"""

from __future__ import annotations

from concurrent.futures import CancelledError

from raddle import _raddle
from raddle._raddle import Token

__all__ = ["Cancelled", "DeadlineExceeded", "Token", "check", "current", "sleep"]


class Cancelled(CancelledError):
    """Raised in a task that was asked to stop."""

    _said = "the task was asked to stop"

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or (self._said,)))


class DeadlineExceeded(Cancelled, TimeoutError):
    """Raised in a task whose time is up."""

    _said = "the task's time is up"


def current() -> Token | None:
    """The token of the task that the calling thread runs; None outside of tasks. Never waits."""
    return _raddle.cancel_current()


def check() -> None:
    """Raise if the calling thread runs a task that was asked to stop. Never waits; costs some nanoseconds.

    Raises:
        Cancelled: the task was cancelled. DeadlineExceeded: its time is up.
    """
    _raddle.cancel_check()


def sleep(seconds: float) -> None:
    """Sleep, with the GIL released; a task that is asked to stop wakes up and is raised in.

    Raises:
        Cancelled: as ``check``. ValueError: ``seconds`` is not a number.
    """
    _raddle.cancel_sleep(seconds)


_raddle.set_cancel_names(Cancelled, DeadlineExceeded)
