"""Contexts and processes: the standard library's, with raddle's locks, queues and pipes, and a fourth start method.

``"warm"`` starts processes as ``"forkserver"`` does, by a server that has one thread, but the server has loaded the
parent's modules and ends with it: see ``_warm``. The other three are the standard library's; a forkserver has loaded
ahead what its children need to run ``__main__``. The start method is one for both packages: setting it here sets it
there.
"""

from __future__ import annotations

import os
import sys
import time
from multiprocessing import context as _std
from multiprocessing.context import (
    AuthenticationError,
    BufferTooShort,
    ProcessError,
    TimeoutError,
    assert_spawning,
    get_spawning_popen,
    set_spawning_popen,
)
from multiprocessing.process import BaseProcess

TYPE_CHECKING = False  # as type checkers know it; children load this module, and typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from raddle.multiprocessing.connection import Connection
    from raddle.multiprocessing.pool import Pool
    from raddle.multiprocessing.queues import JoinableQueue, Queue, SimpleQueue
    from raddle.multiprocessing.synchronize import (
        Barrier,
        BoundedSemaphore,
        Condition,
        Event,
        Lock,
        RLock,
        Semaphore,
    )

__all__ = [
    "AuthenticationError",
    "BufferTooShort",
    "DefaultContext",
    "ForkContext",
    "ForkProcess",
    "ForkServerContext",
    "ForkServerProcess",
    "Process",
    "ProcessError",
    "SpawnContext",
    "SpawnProcess",
    "TimeoutError",
    "WarmContext",
    "WarmProcess",
    "assert_spawning",
    "get_spawning_popen",
    "set_spawning_popen",
]


# Processes


class _Process(BaseProcess):
    """What all processes have."""

    #: Where ``start()`` was called, as "file:line"; not there in the child.
    started_at: str

    def start(self) -> None:
        """Start the child process; returns when it has been started, which says nothing of how far it is.

        Raises:
            AssertionError: started before, or this is a daemonic process.
            OSError: the system has no process, memory or descriptors for it.
            Exception: whatever pickling raises, but for "fork".
        Note:
            As the standard library's. "fork" in a process with threads works, and warns from 3.12 on, as there.
        """
        super().start()
        caller = sys._getframe(1)
        self.started_at = f"{caller.f_code.co_filename}:{caller.f_lineno}"

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process has ended, at most ``timeout`` seconds.

        Raises:
            AssertionError: not started, or not a child of this process.
            ValueError: closed.
        Note:
            Waits without the GIL; Ctrl-C interrupts. Other processes that have the child's descriptors do not matter.
        """
        process: Any = self
        popen, core = process._popen, sys.modules.get("raddle._raddle")
        # Through the door, if it has been loaded: then the thread's state tells what it waits for.
        if (
            core is not None
            and popen is not None
            and popen.returncode is None
            and process._parent_pid == os.getpid()
            and (timeout is None or timeout > 0)
        ):
            timeout = _wait_for_end(core, process, popen, timeout)
        super().join(timeout)


def _wait_for_end(core: Any, process: Any, popen: Any, timeout: float | None) -> float | None:
    """Wait through the door; how long there is still to wait."""
    if popen.method == "forkserver":
        if core.wait_readable([popen.sentinel], timeout, process):
            popen.poll()
        return 0
    # The sentinel of our own child may also be open in its children, and that of a warm one is written by a server,
    # which may have been stopped.
    try:
        descriptor = os.pidfd_open(popen.pid)
    except OSError:
        return timeout
    begin = time.monotonic()
    try:
        if core.wait_readable([descriptor], timeout, process):
            popen.poll(0 if timeout is None else os.WNOHANG)
    finally:
        os.close(descriptor)
    # A warm process's server has to tell of the end, and may be busy.
    return 0 if timeout is None else max(0, timeout - (time.monotonic() - begin))


class ForkProcess(_Process, _std.ForkProcess):
    """A process that is forked."""


class SpawnProcess(_Process, _std.SpawnProcess):
    """A process with a new interpreter.

    Note:
        What the child has loaded before anything of the program is frozen: see ``gc.freeze()``, and ``gc.unfreeze()``.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from raddle.multiprocessing import spawn

        spawn.freeze_children()
        return _std.SpawnProcess._Popen(process_obj)


class ForkServerProcess(_Process, _std.ForkServerProcess):
    """A process that is forked by a server."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from raddle.multiprocessing import _ahead

        _ahead.preload_in_forkserver()
        return _std.ForkServerProcess._Popen(process_obj)


class WarmProcess(_Process):
    """A process that is forked by a server which has loaded the parent's modules, and that dies with its parent.

    Note:
        As with "forkserver", what the parent passes is pickled and the child loads ``__main__`` anew. The child is
        killed when this process ends, by whatever means. If the server is killed, the next start makes another; the
        exit code of a child that outlives it is 255.
    """

    _start_method = "warm"

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from raddle.multiprocessing._warm import Popen

        return Popen(process_obj)


class Process(_Process, _std.Process):
    """A process with the start method that is set."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        return _default_context.get_context().Process._Popen(process_obj)

    @staticmethod
    def _after_fork() -> Any:
        return _default_context.get_context().Process._after_fork()


# Contexts


class _Own(_std.BaseContext):
    """What a context makes that is raddle's own."""

    def Pipe(self, duplex: bool = True) -> tuple[Connection, Connection]:
        """Two connections, each of which receives what the other sends."""
        from raddle.multiprocessing.connection import Pipe

        return Pipe(duplex)

    def Queue(self, maxsize: int = 0, *, max_bytes: int = 0) -> Queue:
        """A queue for processes; ``max_bytes`` bounds what its items take, in bytes."""
        from raddle.multiprocessing.queues import Queue

        return Queue(maxsize, ctx=self.get_context(), max_bytes=max_bytes)

    def JoinableQueue(self, maxsize: int = 0, *, max_bytes: int = 0) -> JoinableQueue:
        """A queue for processes with ``task_done()`` and ``join()``."""
        from raddle.multiprocessing.queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context(), max_bytes=max_bytes)

    def SimpleQueue(self) -> SimpleQueue:
        """A queue for processes with the least there can be."""
        from raddle.multiprocessing.queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def Lock(self) -> Lock:
        """A lock that any process and thread may release; taken over from a process that has ended."""
        from raddle.multiprocessing.synchronize import Lock

        return Lock(ctx=self.get_context())

    def RLock(self) -> RLock:
        """A re-entrant lock; taken over from a process that has ended."""
        from raddle.multiprocessing.synchronize import RLock

        return RLock(ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> Semaphore:
        """A number of units."""
        from raddle.multiprocessing.synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> BoundedSemaphore:
        """A number of units that is never more than at first."""
        from raddle.multiprocessing.synchronize import BoundedSemaphore

        return BoundedSemaphore(value, ctx=self.get_context())

    def Condition(self, lock: Any = None) -> Condition:
        """A condition variable, with a Lock or RLock: by default an RLock of its own."""
        from raddle.multiprocessing.synchronize import Condition

        return Condition(lock, ctx=self.get_context())

    def Event(self) -> Event:
        """A flag to wait for."""
        from raddle.multiprocessing.synchronize import Event

        return Event(ctx=self.get_context())

    def Barrier(
        self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None
    ) -> Barrier:
        """A point that so many threads of any processes wait for each other at."""
        from raddle.multiprocessing.synchronize import Barrier

        return Barrier(parties, action, timeout, ctx=self.get_context())

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> Pool:
        """A pool of worker processes."""
        from raddle.multiprocessing.pool import Pool

        return Pool(processes, initializer, initargs, maxtasksperchild, context=self._of_pools())

    def get_context(self, method: str | None = None) -> Any:
        """This context, or the one with this start method: "fork", "spawn", "forkserver" or "warm".

        Raises:
            ValueError: there is no such method.
        """
        return self if method is None else _of(super().get_context(method))

    def _of_pools(self) -> Any:
        """The context that a pool's workers are started with; None: the pool decides."""
        return self


class ForkContext(_Own, _std.ForkContext):
    """Children are forked."""

    Process = ForkProcess


class SpawnContext(_Own, _std.SpawnContext):
    """Children are new interpreters."""

    Process = SpawnProcess


class ForkServerContext(_Own, _std.ForkServerContext):
    """Children are forked by a server that has one thread."""

    Process = ForkServerProcess


class _Warm(_std.BaseContext):
    """The start method "warm" with the standard library's objects, as its own contexts have them."""

    _name = "warm"
    Process = WarmProcess

    def set_forkserver_preload(self, module_names: Iterable[str]) -> None:
        """Let the server load these modules, instead of those that this process has imported.

        Args:
            module_names: may hold "__main__", which is never loaded otherwise. What cannot be imported is left out, and
                so is what starts threads or opens files when it is imported.
        Raises:
            TypeError: not strings.
        Note:
            Takes effect with the next start. Children that run are not affected.
        """
        from raddle.multiprocessing import _warm

        _warm.set_preload(module_names)


class WarmContext(_Own, _Warm):
    """Children are forked by a server that has one thread and the parent's modules, and die with their parent."""


class DefaultContext(_Own, _std.DefaultContext):
    """The context of the package: its start method is the standard library's package's."""

    Process = Process
    _chosen = False

    def __init__(self) -> None:
        """Takes nothing over: the start method is looked up when it is needed."""

    def get_context(self, method: str | None = None) -> Any:
        return _of(_std._default_context.get_context(method))

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Set how processes are started from now on: "fork", "spawn", "forkserver" or "warm".

        Raises:
            RuntimeError: it has been set, and ``force`` is false.
            ValueError: there is no such method.
        """
        _std._default_context.set_start_method(method, force)
        self._chosen = method is not None
        if method == "warm":
            # Children of any start method are told the default, and the standard library does not know this one.
            from raddle.multiprocessing import spawn

            spawn.tell_children()

    def get_start_method(self, allow_none: bool = False) -> Any:
        return _std._default_context.get_start_method(allow_none)

    def get_all_start_methods(self) -> list[str]:
        """The standard library's, default first: "warm" is not among them, as programs rely on what the others are."""
        return _std._default_context.get_all_start_methods()

    def set_forkserver_preload(self, module_names: Iterable[str]) -> None:
        self.get_context().set_forkserver_preload(module_names)

    def chosen_method(self) -> str | None:
        """The start method that the program has set; None if it has not, and the system's default is taken.

        One that was set through the standard library counts if it is another than the default.
        """
        actual: Any = getattr(_std._default_context, "_actual_context", None)
        if self._chosen or (actual is not None and actual is not _std._default_context._default_context):  # type: ignore[attr-defined]
            return None if actual is None else str(actual.get_start_method())
        return None

    def _of_pools(self) -> Any:
        return None


_concrete: dict[str, _Own] = {
    context._name: context for context in (ForkContext(), SpawnContext(), ForkServerContext(), WarmContext())
}
_default_context = DefaultContext()

# Where the standard library looks a start method up: of a child too, when it begins.
_std._concrete_contexts.setdefault("warm", _Warm())  # type: ignore[attr-defined]


def _of(context: Any) -> Any:
    """raddle's context for one of the standard library's."""
    return _concrete[context._name]
