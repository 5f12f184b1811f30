"""An event scheduler: the names of the standard library's ``sched``, on raddle's core.

Events are those of the standard library. Entering and running cost O(log n), and so does cancelling, which is O(n)
there; an event that is cancelled is given up at once. Times and priorities may be anything that compares: their
comparisons run without a lock held, so that they may raise, wait, or use the scheduler.

With the default functions, ``run()`` waits with the GIL released, Ctrl-C interrupts it, and an earlier event that
another thread enters meanwhile runs at its time and not after the wait.

Beyond the standard library: ``scheduler.every`` for what happens again and again.
"""

from __future__ import annotations

import time as _time
from collections.abc import Callable, Iterable, Mapping
from sched import Event

from raddle import _raddle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Event", "Periodic", "scheduler"]


class _Shown:
    """An attribute made when it is asked for, which an instance may replace."""

    def __init__(self, make: Callable[[Any], Any], *, keep: bool = False) -> None:
        self._make = make
        self._keep = keep
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = self._make(instance)
        return vars(instance).setdefault(self._name, value) if self._keep else value


class scheduler(_raddle.scheduler):
    """Runs functions at their times, in the thread that calls ``run()``.

    Args:
        timefunc: tells the time.
        delayfunc: waits as long as its argument says, in the same unit; is called with 0 after each event.
    Note:
        Any number of threads may use it. Follows CPython's ``sched.scheduler``; differs in that ``time.sleep`` as
        ``delayfunc`` is not really called, and that an event whose comparison raises is not entered.
    """

    __slots__ = ()

    def __init__(
        self, timefunc: Callable[[], Any] = _time.monotonic, delayfunc: Callable[[Any], object] = _time.sleep
    ) -> None:
        super().__init__(timefunc, delayfunc)

    def every(
        self,
        interval: Any,
        action: Callable[..., object],
        argument: Iterable[Any] = (),
        kwargs: Mapping[str, Any] = {},
        *,
        priority: Any = 0,
        start: Any = None,
    ) -> Periodic:
        """Run an action again and again, without drift: at ``start``, ``start + interval``, ``start + 2 * interval``...

        A run that comes late does not move those after it. If it comes later than the next one is due, the periods
        that were missed are skipped: it runs once for all of them, and next at the following due time.

        Args:
            interval: time between two runs.
            start: absolute time of the first run; one interval from now if None.
        Returns:
            A handle, whose ``cancel()`` ends the series.
        Raises:
            ValueError: the interval is not positive, or not finite.
        Note:
            The next event is entered before the action runs, so that an action that raises does not end the series.
            ``run()`` does not return while there is a series.
        """
        if not interval > interval * 0:
            raise ValueError(f"interval must be positive and finite, not {interval!r}")
        periodic = Periodic(self, interval, action, argument, kwargs, priority)
        periodic._start(self.timefunc() + interval if start is None else start)
        return periodic

    @_Shown
    def _queue(self) -> list[Event]:
        """A copy of the events; a list in their order is a heap too."""
        return self.queue

    def _make_lock(self) -> _raddle.RLock:
        """A lock for subclasses; the scheduler itself does not take it."""
        return _raddle.RLock()

    _lock = _Shown(_make_lock, keep=True)
    del _make_lock

    @_Shown
    def name(self) -> str:
        """Where it was created, as "file.py:LINE"."""
        name: str = _raddle.scheduler.name.__get__(self)
        return name


class Periodic:
    """What ``scheduler.every`` returns: a series of events, of which the next one is in the scheduler.

    Attributes:
        interval: time between two runs.
        event: the next event, or the last one there was.
        cancelled: whether the series has ended.
    """

    __slots__ = (
        "__weakref__",
        "_action",
        "_argument",
        "_due",
        "_first",
        "_kwargs",
        "_number",
        "_priority",
        "_scheduler",
        "cancelled",
        "event",
        "interval",
    )

    event: Event

    def __init__(
        self,
        scheduler: scheduler,
        interval: Any,
        action: Callable[..., object],
        argument: Iterable[Any],
        kwargs: Mapping[str, Any],
        priority: Any,
    ) -> None:
        self._scheduler = scheduler
        self.interval = interval
        self._action = action
        self._argument = argument
        self._kwargs = kwargs
        self._priority = priority
        self.cancelled = False

    def _start(self, first: Any) -> None:
        self._first = self._due = first
        self._number = 0
        self._enter()

    def cancel(self) -> None:
        """End the series. Does nothing if it has ended; a run that is under way goes on to its end."""
        self.cancelled = True
        try:
            self._scheduler.cancel(self.event)
        except ValueError:
            pass  # it runs now, or was cancelled

    def __call__(self, *argument: Any, **kwargs: Any) -> None:
        """One run, called by the scheduler."""
        if self.cancelled:
            return
        self._move_on(self._scheduler.timefunc())
        self._enter()
        self._action(*argument, **kwargs)

    def _move_on(self, now: Any) -> None:
        """To the first due time after the present one that is still to come."""
        self._number += 1
        due = self._first + self._number * self.interval
        if not due > now:
            self._number = max(self._number, int((now - self._first) // self.interval))
            due = self._first + self._number * self.interval
            step = 1
            while not due > now:  # once; more often only where floats are too coarse for the interval
                self._number += step
                step *= 2
                due = self._first + self._number * self.interval
        self._due = due

    def _enter(self) -> None:
        self.event = self._scheduler.enterabs(self._due, self._priority, self, self._argument, self._kwargs)
        if self.cancelled:  # meanwhile, by another thread that saw the event before this one
            self.cancel()

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled else f"next={self._due!r}"
        return f"<{type(self).__module__}.Periodic {self._action!r} interval={self.interval!r} {state}>"
