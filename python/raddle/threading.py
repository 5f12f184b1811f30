"""Threads, locks and timers: the names of the standard library's ``threading``, on raddle's core.

Everything that ``threading`` exports on the running Python is here under the same name. Lock, RLock, Condition,
Semaphore, BoundedSemaphore, Event and Barrier are Rust types; Thread is a subtype of ``threading.Thread`` whose start
and joins go through raddle's door; Timer is a Thread that costs a heap entry
until it is due. ``local`` is the interpreter's own C type: a raddle one cannot be faster (``benches``, row ``local``).

Beyond the standard library: every object has ``name``, ``waiters`` and ``longest_wait``, locks have ``owner``, threads
have ``state``, and ``snapshot()`` tells of all threads what they hold and what they wait for.
"""

from __future__ import annotations

import atexit as _atexit
import os as _os
import sys as _sys
import threading as _std
import types as _types
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Iterator as _Iterator
from threading import (  # by name for type checkers; what the running Python has comes with the star below
    TIMEOUT_MAX,
    BrokenBarrierError,
    ExceptHookArgs,
    ThreadError,
    current_thread,
    excepthook,
    get_ident,
    get_native_id,
    getprofile,
    gettrace,
    local,
    main_thread,
    setprofile,
    settrace,
    stack_size,
)

TYPE_CHECKING = False  # as type checkers know it
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:
    from threading import *  # noqa: F403

    from raddle._named_tuple import NamedTuple

from raddle import _originals, _raddle  # noqa: E402
from raddle._raddle import (  # noqa: E402
    Barrier,
    BoundedSemaphore,
    Condition,
    Event,
    Lock,
    RLock,
    Semaphore,
)

if TYPE_CHECKING:
    __all__ = [
        "TIMEOUT_MAX",
        "Barrier",
        "BoundedSemaphore",
        "BrokenBarrierError",
        "Condition",
        "Event",
        "ExceptHookArgs",
        "Hold",
        "Lock",
        "RLock",
        "Semaphore",
        "Thread",
        "ThreadError",
        "ThreadSnapshot",
        "ThreadState",
        "Timer",
        "active_count",
        "current_thread",
        "enumerate",
        "excepthook",
        "get_ident",
        "get_native_id",
        "getprofile",
        "gettrace",
        "local",
        "main_thread",
        "setprofile",
        "settrace",
        "snapshot",
        "stack_size",
    ]
else:
    __all__ = [*_std.__all__, "Hold", "ThreadSnapshot", "ThreadState", "snapshot"]

_StdThread = _originals.Thread
_std_enumerate = _std.enumerate
_std_active_count = _std.active_count
_active: dict[int, Any] = _std._active  # type: ignore[attr-defined]
_limbo: dict[_StdThread, _StdThread] = _std._limbo  # type: ignore[attr-defined]
__excepthook__ = _std.__excepthook__

# From 3.13 on a thread is a handle of the interpreter; before, a lock that is released when it is gone.
_HANDLES = _sys.version_info >= (3, 13)
#: The name of the standard module's function that starts a thread: a debugger, or gevent, puts its own there.
_START = "_start_joinable_thread" if _HANDLES else "_start_new_thread"

#: Set when the interpreter exits and has waited for its threads: a timer started from then on gets its thread at once,
#: or the error that there is none.
_exited = False


class ThreadState(str):
    """Where a thread is in its life: "new", "ready", "running", "blocked" or "dead".

    A blocked thread's state also says what it waits for.

    Attributes:
        on: the object waited for; None unless blocked.
        kind: the call that waits, such as "Lock.acquire" or "Thread.join"; None unless blocked.
        since: when the wait began, in seconds of ``time.monotonic()``; None unless blocked.
        timed: whether the wait ends by itself.
    """

    __slots__ = ("kind", "on", "since", "timed")

    on: Any
    kind: str | None
    since: float | None
    timed: bool

    def __new__(cls, name: str, waiting: tuple[str, Any, float, bool] | None = None) -> ThreadState:
        self = super().__new__(cls, name)
        self.kind, self.on, self.since, self.timed = waiting or (None, None, None, False)
        return self


class Hold(NamedTuple):
    """Something a thread holds."""

    object: Any
    site: str | None
    """Where it was taken, as "file:line"; None unless acquire sites are kept (see ``raddle.deadlock.enable``)."""


class ThreadSnapshot(NamedTuple):
    """One thread, at one instant."""

    name: str
    ident: int | None
    native_id: int | None
    daemon: bool
    thread: _StdThread
    state: ThreadState
    holds: list[Hold]
    waits_for: ThreadState | None
    """The state again if the thread is blocked, else None."""

    def __repr__(self) -> str:
        text = f"<{self.name!r}{' daemon' * self.daemon} {self.state}"
        if self.state.since is not None:
            text += f" for {_monotonic() - self.state.since:.2f}s in {self.state.kind} on {self.state.on!r}"
        for hold in self.holds:
            text += f", holds {hold.object!r}" + (f" taken at {hold.site}" if hold.site else "")
        return f"{text}>"


class Thread(_StdThread):
    """A thread of control: a subtype of ``threading.Thread`` that tells its state.

    Follows CPython's ``threading.Thread``, of which it replaces start, bootstrap and join.
    ``join()`` waits with the GIL released; Ctrl-C interrupts it, and a join that can never end is reported.
    """

    _record: _raddle.ThreadRecord | None = None

    # The standard library's own, of which the last three are some versions'.
    _initialized: bool
    _started: Event
    _is_stopped: bool
    _tstate_lock: Any
    _handle: Any

    @property
    def state(self) -> ThreadState:
        """Where the thread is in its life, and what it waits for if it is blocked."""
        return _state_of(self)

    def start(self) -> None:
        """Start the thread, and wait the microseconds until it runs: it comes before any thread started later.

        Raises:
            RuntimeError: it was started before, ``__init__`` was not called, or the system has no thread left.
        """
        if not self._initialized:
            raise RuntimeError("thread.__init__() not called")
        if self._record is not None or self._started.is_set():
            raise RuntimeError("threads can only be started once")
        self._launch()
        self._wait_for_start()

    def _launch(self) -> None:
        """Start the thread, without waiting until it runs."""
        record = _raddle.ThreadRecord()
        start = getattr(_std, _START)
        native = isinstance(start, _types.BuiltinFunctionType)
        try:
            self._become(record, native)
            if native:
                bootstrap = self._bootstrap  # type: ignore[attr-defined]
                if _HANDLES:
                    _sys.audit("_thread.start_joinable_thread", bootstrap, int(self.daemon), record)
                else:
                    _sys.audit("_thread.start_new_thread", bootstrap, (), None)
                record.start(bootstrap)
            else:
                self._launch_by(start, record)
        except BaseException:
            # Not where a signal handler raised between the start and this line: then the thread lives.
            if not native or record.life() == "new":
                with _std._active_limbo_lock:  # type: ignore[attr-defined]
                    _limbo.pop(self, None)
                record.end()
                self._record = None
            raise

    def _wait_for_start(self) -> None:
        """Wait until the launched thread runs.

        Before it says so, it takes a lock of the standard library's (not from 3.13 on). If somebody has that, it may be
        the calling thread, in the middle of another start or a join, if this is a finalizer or a signal handler: then
        the wait would have no end. If it is another thread, not waiting does no harm.
        """
        lock = getattr(_std, "_shutdown_locks_lock", None)
        if self._record is not None and (lock is None or not lock.locked()):
            self._record.wait_for(self._started)

    def _become(self, record: _raddle.ThreadRecord, native: bool) -> None:
        """From now on the record is this thread's; the interpreter waits for it at exit."""
        self._record = record
        record.belong(self)
        if native and _HANDLES:
            self._handle = record
        if not self.daemon:
            record.keep()
        # The standard library's own, made by `Thread.__init__`, is a condition in Python; nobody has seen it yet.
        self._started = Event()
        with _std._active_limbo_lock:  # type: ignore[attr-defined]
            _limbo[self] = self

    def _launch_by(self, start: Callable[..., object], record: _raddle.ThreadRecord) -> None:
        """Start it as the standard library does, by the function that a debugger, say, has put in place of its own."""
        record.ready()

        def bootstrap() -> None:
            record.adopt()
            try:
                self._bootstrap()  # type: ignore[attr-defined]
            finally:
                record.end()

        if _HANDLES:
            start(bootstrap, handle=self._handle, daemon=self.daemon)
        else:
            start(bootstrap, ())

    if _HANDLES:

        def _after_fork(self, new_ident: int | None = None) -> None:
            if self._handle is not self._record:
                super()._after_fork(new_ident)  # type: ignore[misc]
            else:
                self._started._at_fork_reinit()

    else:

        def _stop(self) -> None:
            if self._tstate_lock is None and not self._is_stopped:
                # It ended before it could say that it ran.
                self._is_stopped = True
                return
            super()._stop()  # type: ignore[misc]

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, at most ``timeout`` seconds; ``is_alive()`` then tells which it was.

        Raises:
            RuntimeError: it was not started, or is the calling thread.
        """
        record = self._record
        if record is None or not self._initialized:
            return super().join(timeout)
        if self is _active.get(get_ident()):
            raise RuntimeError("cannot join current thread")
        if record.join(timeout):
            self._finish()

    def _finish(self) -> None:
        """The thread has run; wait for the interpreter to be through with it, which is a matter of microseconds."""
        if _HANDLES:
            self._handle.join(None)
        elif self._tstate_lock is not None:
            self._wait_for_tstate_lock()  # type: ignore[attr-defined]
        else:
            self._is_stopped = True

    def is_alive(self) -> bool:
        """Whether the thread has been started and has not ended."""
        record = self._record
        if record is None:
            return super().is_alive()
        if record.life() != "dead":
            return True
        if _HANDLES:
            return not self._handle.is_done() and super().is_alive()
        if self._tstate_lock is None:
            self._is_stopped = True
        return super().is_alive()


class Timer(Thread):
    """Calls a function after a number of seconds, in a thread of its own, unless cancelled before.

    Until it is due, a timer is an entry in a heap that all timers of the process share; the thread is made then. It
    looks like the thread it will be: ``is_alive``, ``join``, ``daemon``, ``name``. A subclass with a ``run`` of its own
    has its thread from the start. Follows CPython's ``threading.Timer``.
    """

    # Most of a Thread is only made when somebody looks (``__getattr__``): a million of these have to be cheap.
    _initialized = True
    _ticket = 0
    _cancelled = False
    _fired = False
    _gate: Event | None = None
    # Asking the instance's dictionary instead would make one: a fifth of what a timer costs.
    #: Whether the rest of the Thread has been made.
    _whole = False
    #: Whether ``finished`` has been made, or set by the program.
    _watched = False

    def __init__(
        self,
        interval: float,
        function: Callable[..., object],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.interval = interval
        self.function = function
        self.args = args if args is not None else []
        self.kwargs = kwargs if kwargs is not None else {}
        try:
            self._daemonic = _active[get_ident()]._daemonic
        except (KeyError, AttributeError):
            self._daemonic = _std.current_thread().daemon

    def __getattr__(self, name: str) -> Any:
        """Makes the rest of the Thread when some of it is looked for."""
        fields = self.__dict__
        if "_started" in fields or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        daemonic = fields.get("_daemonic")
        # Given, it is not asked of the calling thread, which may be the service thread and no Thread.
        super().__init__(name=fields.get("_name"), daemon=daemonic)
        self._whole = True
        if self._ticket:
            self._started.set()
        return getattr(self, name)

    @property
    def finished(self) -> Any:
        """An event: the timer has called its function or was cancelled. Setting it cancels."""
        fields = self.__dict__
        event = fields.get("finished")
        if event is None:
            event = fields.setdefault("finished", _Finished(self))
            # In this order: whoever cancels meanwhile sees the mark, or is seen here.
            self._watched = True
            if self._cancelled:
                event.set()
        return event

    @finished.setter
    def finished(self, event: Any) -> None:
        self.__dict__["finished"] = event
        self._watched = True

    def start(self) -> None:
        """Start counting. Never waits.

        Raises:
            RuntimeError: it was started before.
        """
        if self._ticket or self._record is not None:
            raise RuntimeError("threads can only be started once")
        interval = self.interval
        if type(self).run is not Timer.run or _exited or interval is None:
            self._started.is_set()  # the whole Thread is needed now
            return super().start()
        if not interval <= TIMEOUT_MAX:
            if interval > TIMEOUT_MAX:
                raise OverflowError("timeout value is too large")
            raise ValueError("Invalid value NaN (not a number)")
        self._ticket = _raddle.timer_add(self, interval)
        if self._cancelled:
            self._withdraw()
        if self._whole:
            self._started.set()

    def cancel(self) -> None:
        """Stop the timer if it has not called its function yet. Never waits; any thread may call it."""
        self._cancelled = True
        if self._watched:
            self.finished.set()
        else:
            self._withdraw()

    def _withdraw(self) -> None:
        """Out of the heap; who joins it goes on."""
        self._cancelled = True
        if self._ticket:
            _raddle.timer_cancel(self._ticket)
        if self._gate is not None:
            self._gate.set()

    def run(self) -> None:
        """Wait if it is not due yet, then call the function unless cancelled."""
        if not self._fired:
            self.finished.wait(self.interval)
        if not self.finished.is_set():
            self.function(*self.args, **self.kwargs)
        self.finished.set()

    def _fire(self, record: _raddle.ThreadRecord | None) -> bool:
        """Called when the timer is due, in the thread that is its own then; whether it is to run.

        Without a record there is no such thread, and the caller tells the error.
        """
        try:
            if self._cancelled or (self._watched and self.finished.is_set()):
                return False
            if record is None:
                raise RuntimeError("can't start new thread")
            self._name  # noqa: B018 - makes the Thread
            self._become(record, native=True)
            return True
        finally:
            self._fired = True
            if self._gate is not None:
                self._gate.set()

    def _waits(self) -> bool:
        """Whether it is started and neither due nor cancelled."""
        return self._ticket != 0 and _raddle.timer_is_pending(self._ticket)

    @property
    def state(self) -> ThreadState:
        """As ``Thread.state``; a timer that counts is "ready"."""
        if self._record is None and self._ticket:
            return ThreadState("ready" if self._waits() else "dead")
        return _state_of(self)

    def __repr__(self) -> str:
        if self._record is None and self._ticket and not self.is_alive():
            return f"<{type(self).__name__}({self.name}, stopped{' daemon' * self.daemon})>"
        return super().__repr__()

    def is_alive(self) -> bool:
        """Whether it has been started, and is neither cancelled nor through with its function."""
        if self._ticket:
            if self._waits():
                return True
            if self._record is None:
                # Cancelled, or in the instant between being due and having its thread.
                return not self._cancelled and not self._fired
        return super().is_alive()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has called its function or was cancelled, at most ``timeout`` seconds."""
        if self._ticket and self._record is None:
            if self._gate is None:
                self._gate = Event()
            # The gate is there before the look: whoever takes the timer out afterwards opens it.
            if self._waits() or (not self._fired and not self._cancelled):
                deadline = None if timeout is None else _monotonic() + timeout
                if not self._gate.wait(timeout):
                    return
                if deadline is not None:
                    timeout = max(deadline - _monotonic(), 0)
            if self._record is None:
                return
        super().join(timeout)


class _Finished(Event):
    """A Timer's ``finished``: setting it by hand takes the timer out of the heap, as cancelling does."""

    def __init__(self, timer: Timer) -> None:
        super().__init__()
        self._timer: Timer | None = timer

    def set(self) -> None:
        super().set()
        # Said once, and each is freed without the other's help: a timer that has run needs no garbage collection.
        timer, self._timer = self._timer, None
        if timer is not None:
            timer._withdraw()


def enumerate() -> list[_StdThread]:
    """All threads that are alive, timers to come included."""
    return [*_std_enumerate(), *_raddle.timers()]


def active_count() -> int:
    """How many threads are alive, timers to come included."""
    return _std_active_count() + _raddle.timer_count()


def _monotonic() -> float:
    import time

    return time.monotonic()


def _state_of(thread: _StdThread) -> ThreadState:
    record = getattr(thread, "_record", None)
    if record is not None:
        waiting = record.waiting()
        life = record.life()
        return ThreadState("blocked", waiting) if waiting and life == "running" else ThreadState(life)
    if thread.is_alive():
        waiting = _raddle.threads().get(thread.ident or 0)
        return ThreadState("blocked", waiting) if waiting else ThreadState("running")
    return ThreadState("dead" if thread.ident is not None else "new")


def snapshot() -> list[ThreadSnapshot]:
    """All threads that are alive: their state, what they hold and where they took it, what they wait for.

    Note:
        Blocks nobody: each thread is looked at for a moment, one after the other, while the others run.
    """
    held: dict[int, list[Hold]] = {}
    for ident, item, site in _raddle.holds():
        held.setdefault(ident, []).append(Hold(item, site and f"{site[0]}:{site[1]}"))
    found = []
    for thread in _std_enumerate():
        state = _state_of(thread)
        found.append(
            ThreadSnapshot(
                thread.name,
                thread.ident,
                thread.native_id,
                thread.daemon,
                thread,
                state,
                held.get(thread.ident or -1, []),
                state if state.on is not None or state.kind else None,
            )
        )
    return found


def _to_wait_for() -> list[_StdThread | _raddle.ThreadRecord]:
    """Raddle's threads that keep the process alive, and the timers that will."""
    timers = [timer for timer in _raddle.timers() if not timer.daemon]
    return [*timers, *_raddle.keepers()]


def _wait_for_threads() -> None:
    """At exit, before the interpreter waits for its threads itself: wait for raddle's, through the door."""
    while (alive := _to_wait_for()) or _raddle.timer_is_serving() or _raddle.keeper_is_leaving():
        for thread in alive:
            thread.join()
        if not alive:
            # A timer is between the heap and its thread, or a thread between its run and its end: for some
            # microseconds, in which joining cannot reach it.
            _raddle.yield_now()
    _close_timers()


def _close_timers() -> None:
    """Nothing fires any more: the thread that serves timers must not meet an interpreter that is no longer there."""
    global _exited
    _exited = True
    _raddle.timer_close()
    while _raddle.timer_is_serving():
        _raddle.yield_now()


# After the callbacks of the program's own, which were registered later as a rule.
_atexit.register(_close_timers)


if _HANDLES:
    _std_thread_shutdown = _std._thread_shutdown  # type: ignore[attr-defined]

    def _thread_shutdown() -> None:
        try:
            _wait_for_threads()
        finally:
            _std_thread_shutdown()

    _std._thread_shutdown = _thread_shutdown  # type: ignore[attr-defined]
else:

    class _ExitLock:
        """Stands for all of raddle's threads among the locks that ``threading._shutdown`` takes one after the other."""

        def locked(self) -> bool:
            return True

        def acquire(self) -> bool:
            _wait_for_threads()
            return True

        def release(self) -> None:
            pass

    class _ShutdownLocks(set):  # type: ignore[type-arg]
        """The locks that the interpreter takes at exit: before all others the one that waits through the door."""

        _exit = _ExitLock()

        def __iter__(self) -> _Iterator[Any]:
            locks = list(super().__iter__())
            if _to_wait_for() or _raddle.timer_is_serving():
                locks.insert(0, self._exit)
            return iter(locks)

    _std._shutdown_locks = _ShutdownLocks(_std._shutdown_locks)  # type: ignore[attr-defined]


def _after_fork_in_child() -> None:
    """Only the calling thread is left; it may be any, and is the main thread from now on."""
    _raddle.after_fork_in_child()
    if not _HANDLES:
        # The standard library has just made a new set.
        _std._shutdown_locks = _ShutdownLocks(_std._shutdown_locks)  # type: ignore[attr-defined]


_os.register_at_fork(
    before=_raddle.before_fork,
    after_in_parent=_raddle.after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)


_PLACED = (
    "Condition",
    "Semaphore",
    "BoundedSemaphore",
    "Event",
    "Barrier",
    "Thread",
    "Timer",
    "RLock",
    "Lock",
    "enumerate",
    "active_count",
)


def _name_module(module: str) -> None:
    """Says where the types live: in ``threading`` while they are installed there, as repr and tracebacks show it."""
    for name in _PLACED:
        globals()[name].__module__ = module


def _count() -> int:
    """What ``_thread._count()`` is under ``install()``: the interpreter counts only threads that it has started."""
    return _originals.count() + _raddle.threads_running()


def _installed() -> None:
    _name_module("threading")


def _uninstalled() -> None:
    _name_module(__name__)


class _Mirror(_types.ModuleType):
    """Names that a program may set, and that the standard module's own code reads."""

    @property
    def excepthook(self) -> Callable[[Any], object]:
        """Called for an exception that a thread does not catch; setting it sets ``threading.excepthook``."""
        return _std.excepthook

    @excepthook.setter
    def excepthook(self, hook: Callable[[Any], object]) -> None:
        _std.excepthook = hook


del globals()["excepthook"]
_sys.modules[__name__].__class__ = _Mirror


def __getattr__(name: str) -> Any:
    # Private names that real programs read: the standard module's.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_std, name)


# Locks made by these files are named by the line that called them.
_raddle.setup(
    [
        _os.path.dirname(_os.path.abspath(__file__)) + _os.sep,
        *(
            module.__file__
            for name in ("threading", "queue", "sched")
            if (module := _sys.modules.get(name)) and module.__file__
        ),
    ]
)

# Detection is on wherever raddle's threads are: it is the door that calls it.
import raddle.deadlock as _deadlock  # noqa: E402
