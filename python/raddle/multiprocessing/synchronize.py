"""``Lock``, ``RLock``, ``Semaphore``, ``BoundedSemaphore``, ``Condition``, ``Event`` and ``Barrier`` between processes.

Subtypes of the standard library's, in anonymous shared memory that children inherit or are handed. A process may be
killed at any moment: a lock that it held is taken over by who waits for it next, with a ``RuntimeWarning``, and a
notification is never spent on a waiter that was killed.
"""

from __future__ import annotations

import sys
import time
import warnings
from multiprocessing import context as _context
from multiprocessing import synchronize as _std

import raddle.threading  # noqa: F401 - fork, exit and detection come with it
from raddle import _raddle
from raddle.multiprocessing._arena import in_arena

TYPE_CHECKING = False  # as type checkers know it; children load this module, and typing takes long
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]

RECURSIVE_MUTEX, SEMAPHORE = _std.RECURSIVE_MUTEX, _std.SEMAPHORE  # type: ignore[attr-defined]
SEM_VALUE_MAX: int = _raddle.SemLock.SEM_VALUE_MAX

# Locks and semaphores


def _on_recovered(semlock: _raddle.SemLock, pid: int, site: str | None) -> None:
    kind = "RLock" if semlock.kind == RECURSIVE_MUTEX else "Lock"
    where = f", taken at {site}" if site else " (raddle.deadlock.enable() keeps where it was taken)"
    # Called for acquire(), or for that by __enter__ here.
    level = 3 if sys._getframe(1).f_code is _SemLock.__enter__.__code__ else 2
    text = f"process {pid} has ended while it held this {kind}{where}: what it guards may be half done"
    warnings.warn(text, RuntimeWarning, stacklevel=level)


_raddle.set_on_recovered(_on_recovered)


class _SemLock(_std.SemLock):
    """What locks and semaphores have in common."""

    _is_fork_ctx = False
    _arena: _raddle.Arena
    _semlock: _raddle.SemLock

    def __init__(self, kind: int, value: int, maxvalue: int, *, ctx: Any = None, owned: bool = False) -> None:
        self._arena, self._semlock = in_arena(
            lambda arena: _raddle.SemLock(arena, kind, value, maxvalue, owned)
        )
        self._make_methods()

    def _make_methods(self) -> None:
        self.acquire = self._semlock.acquire  # type: ignore[method-assign]
        self.release = self._semlock.release  # type: ignore[method-assign]
        # A name of their own: a program may put others in place of those above, which `with` does not call.
        self._enter, self._exit = self._semlock.acquire, self._semlock.release

    def __enter__(self) -> bool:
        return self._enter()

    def __exit__(self, kind: object = None, error: object = None, traceback: object = None) -> None:
        self._exit()

    def __getstate__(self) -> Any:
        _context.assert_spawning(self)
        semlock = self._semlock
        return self._arena, semlock.handle, semlock.kind, semlock.maxvalue, semlock.owned

    def __setstate__(self, state: Any) -> None:
        self._arena, handle, kind, maxvalue, owned = state
        self._semlock = _raddle.SemLock(self._arena, kind, 0, maxvalue, owned, handle)
        self._make_methods()


class Semaphore(_SemLock, _std.Semaphore):
    """A number of units.

    Note:
        Any process and thread may release. A unit that a killed process had is lost. Waits go on without the GIL;
        Ctrl-C interrupts. Follows CPython's ``multiprocessing.Semaphore``.
    """

    def __init__(self, value: int = 1, *, ctx: Any = None) -> None:
        _SemLock.__init__(self, SEMAPHORE, value, SEM_VALUE_MAX, ctx=ctx)


class BoundedSemaphore(Semaphore, _std.BoundedSemaphore):
    """A Semaphore whose units never exceed the number it began with: releasing more is a ValueError."""

    def __init__(self, value: int = 1, *, ctx: Any = None) -> None:
        _SemLock.__init__(self, SEMAPHORE, value, value, ctx=ctx)


class Lock(_SemLock, _std.Lock):
    """A lock that any process and thread may release.

    Note:
        If the process that took it ends without a release, whoever waits for it next gets it, with a RuntimeWarning
        that names that process: what the lock guards may be half done; ``acquire(block=False)`` finds it taken. Not
        re-entrant, not fair. Waits go on without the GIL; Ctrl-C interrupts.
        Follows CPython's ``multiprocessing.Lock``.
    """

    def __init__(self, *, ctx: Any = None) -> None:
        _SemLock.__init__(self, SEMAPHORE, 1, 1, ctx=ctx, owned=True)


class RLock(_SemLock, _std.RLock):
    """A re-entrant lock, which only its owner may release.

    Note:
        As ``Lock`` if its owner's process ends. Follows CPython's ``multiprocessing.RLock``.
    """

    def __init__(self, *, ctx: Any = None) -> None:
        _SemLock.__init__(self, RECURSIVE_MUTEX, 1, 1, ctx=ctx, owned=True)


# Conditions, and what is made of them


class _Number:
    """Stands for a semaphore of the standard library's condition: only how many there are can be asked."""

    def __init__(self, get_value: Any) -> None:
        self.get_value = self._get_value = get_value
        self._semlock = self


def _nothing() -> int:
    return 0


class Condition(_std.Condition):
    """A condition variable with a Lock or RLock.

    Note:
        ``notify`` never waits, and passes over waiters that were killed; those who have waited longest come first.
        Follows CPython's ``multiprocessing.Condition``.
    """

    _lock: Any
    _waiters: _raddle.Waiters

    def __init__(self, lock: Any = None, *, ctx: Any = None) -> None:
        self._lock = lock or RLock(ctx=ctx)
        self._arena, self._waiters = in_arena(_raddle.Waiters)
        self._make_methods()

    def __getstate__(self) -> Any:
        _context.assert_spawning(self)
        return self._lock, self._arena, self._waiters.handle

    def __setstate__(self, state: Any) -> None:
        self._lock, self._arena, handle = state
        self._waiters = _raddle.Waiters(self._arena, handle)
        self._make_methods()

    def _make_methods(self) -> None:
        super()._make_methods()  # type: ignore[misc]
        # What programs that reach into a condition find.
        self._sleeping_count = _Number(self._waiters.waiting)
        self._woken_count = self._wait_semaphore = _Number(_nothing)

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait for a notification, at most ``timeout`` seconds, and take the lock again.

        Returns:
            False if there was no notification in time.
        Raises:
            AssertionError: the lock is not this thread's.
            OSError: 2,048 threads wait already.
        Note:
            As of the standard library, an exception in a signal handler may end it while the lock is another's.
        """
        semlock = self._lock._semlock
        assert semlock._is_mine(), "must acquire() condition before using wait()"
        waiter = self._waiters.enlist()
        count = semlock._count()
        for _ in range(count):
            self._lock.release()
        try:
            return waiter.wait(timeout, self)
        finally:
            for _ in range(count):
                self._lock.acquire()

    def notify(self, n: int = 1) -> None:
        """Wake those who have waited longest, at most ``n``. Never waits.

        Raises:
            AssertionError: the lock is not this thread's.
        """
        assert self._lock._semlock._is_mine(), "lock is not owned"
        self._waiters.notify(max(n, 0))

    def notify_all(self) -> None:
        """Wake all who wait. Never waits."""
        self.notify(sys.maxsize)


#: How long a waiter of an event waits before it looks whether a process was killed while it was setting it, in seconds.
_LOOK = 1.0


class Event(_std.Event):
    """A flag to wait for.

    Note:
        Follows CPython's ``multiprocessing.Event``. If a process is killed inside ``set()``, waiters of an event that
        was set go on within a second.
    """

    _cond: Any
    _flag: Any

    def __init__(self, *, ctx: Any = None) -> None:
        self._cond = Condition(Lock(ctx=ctx))
        self._flag = Semaphore(0, ctx=ctx)

    def is_set(self) -> bool:
        return not self._flag._semlock._is_zero()

    def set(self) -> None:
        """Set the flag and wake all who wait."""
        with self._cond:
            if not self.is_set():
                self._flag.release()
            self._cond.notify_all()

    def clear(self) -> None:
        """Take the flag back."""
        with self._cond:
            self._flag.acquire(False)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set, at most ``timeout`` seconds; whether it is."""
        if self.is_set():
            return True
        end = None if timeout is None else time.monotonic() + timeout
        with self._cond:
            while not self.is_set():
                left = _LOOK if end is None else min(end - time.monotonic(), _LOOK)
                if self._cond.wait(left) or (end is not None and time.monotonic() >= end):
                    break
            return self.is_set()


class Barrier(_std.Barrier):
    """A point that so many threads of any processes wait for each other at.

    Note:
        A party that was killed does not come any more: without a timeout the others wait on, as for the standard
        library's. Follows CPython's ``multiprocessing.Barrier``.
    """
