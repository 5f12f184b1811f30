"""``Future``, ``wait`` and ``as_completed``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import _base as _std
from concurrent.futures._base import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    DoneAndNotDoneFutures,
    InvalidStateError,
)
from typing import TYPE_CHECKING, Any, TypeVar

import raddle.cancel  # noqa: F401 - tells the extension what to raise in tasks that are to stop
from raddle import _raddle

__all__ = ["Future", "as_completed", "wait"]

_T = TypeVar("_T")

if TYPE_CHECKING:
    # To a type checker it is the standard library's future, whose methods say the same as the core's.
    class _Core: ...
else:
    _Core = _raddle.Future


class Future(_Core, _std.Future[_T]):
    """The result of a task, to come: a subtype of ``concurrent.futures.Future``.

    Follows CPython's. Waits are interrupted by Ctrl-C, and a wait that can never end is reported. A callback runs in a
    copy of the context in which it was added. ``cancel(running=True)`` asks a task that runs to stop: see
    ``raddle.cancel``.

    Attributes:
        submitted_at: where the task was submitted, as (file, line, function); None for a future that is no pool's.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        submitted_at: tuple[str, int, str] | None

        def cancel(self, *, running: bool = False, timeout: float | None = None) -> bool: ...


def wait(
    fs: Iterable[_std.Future[_T]], timeout: float | None = None, return_when: str = ALL_COMPLETED
) -> DoneAndNotDoneFutures[_T]:
    """Wait for futures, raddle's and the standard library's, at most ``timeout`` seconds.

    Returns:
        Two sets: ``done`` and ``not_done``.
    Raises:
        ValueError: ``return_when`` is none of FIRST_COMPLETED, FIRST_EXCEPTION and ALL_COMPLETED.
    Note:
        Blocks with the GIL released. In a task, futures of its own pool that have not begun are run instead.
    """
    done = set(fs)
    if return_when not in (FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED):
        raise ValueError(f"Invalid return condition: {return_when!r}")
    not_done = _raddle.futures_wait(done, timeout, return_when)
    return DoneAndNotDoneFutures(done, not_done)


def as_completed(
    fs: Iterable[_std.Future[_T]], timeout: float | None = None, *, progress: Any = None
) -> Iterator[_std.Future[_T]]:
    """Give futures as they come to their end, each once.

    Args:
        fs: futures, raddle's or the standard library's; doubles count once.
        timeout: seconds from the first ``next()``; None is no limit.
        progress: True, "tqdm" or "rich" shows a bar through that library; a function is called with the number of
            futures given out and that of all.
    Raises:
        TimeoutError: by ``next()``, if some are not over in time.
    """
    futures = set(fs)
    total = len(futures)
    found: Iterator[_std.Future[_T]] = _raddle.futures_as_completed(futures, timeout)
    if progress:
        from raddle.concurrent.futures._progress import track

        return track(found, total, progress)
    return found


def _callback_failed(future: _std.Future[Any], error: BaseException) -> None:
    _std.LOGGER.error(
        "exception calling callback for %r", future, exc_info=(type(error), error, error.__traceback__)
    )


def _never_looked_at(error: BaseException, place: tuple[str, int, str] | None) -> None:
    where = f"at {place[0]}:{place[1]} in {place[2]}" if place else "at a place that is not known"
    _std.LOGGER.error(
        "the exception of a task submitted %s was never looked at",
        where,
        exc_info=(type(error), error, error.__traceback__),
    )


_raddle.set_future_names(Future, CancelledError, InvalidStateError, _callback_failed, _never_looked_at)
