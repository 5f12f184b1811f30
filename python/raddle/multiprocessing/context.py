"""Contexts: the standard library's, with raddle's queues and pipes.

Processes, start methods and everything else are the standard library's; setting the start method here sets it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from multiprocessing import context as _std
from multiprocessing.context import (
    AuthenticationError,
    BufferTooShort,
    Process,
    ProcessError,
    TimeoutError,
    assert_spawning,
    get_spawning_popen,
    set_spawning_popen,
)
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raddle.multiprocessing.connection import Connection
    from raddle.multiprocessing.pool import Pool
    from raddle.multiprocessing.queues import JoinableQueue, Queue, SimpleQueue

__all__ = [
    "AuthenticationError",
    "BufferTooShort",
    "DefaultContext",
    "ForkContext",
    "ForkServerContext",
    "Process",
    "ProcessError",
    "SpawnContext",
    "TimeoutError",
    "assert_spawning",
    "get_spawning_popen",
    "set_spawning_popen",
]


class _Channels(_std.BaseContext):
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
        """This context, or the one with this start method."""
        return self if method is None else _of(super().get_context(method))

    def _of_pools(self) -> Any:
        """The context that a pool's workers are started with; None: the pool decides."""
        return self


class ForkContext(_Channels, _std.ForkContext):
    """Children are forked."""


class SpawnContext(_Channels, _std.SpawnContext):
    """Children are new interpreters."""


class ForkServerContext(_Channels, _std.ForkServerContext):
    """Children are forked by a server that has one thread."""


class DefaultContext(_Channels, _std.DefaultContext):
    """The context of the package: its start method is the standard library's package's."""

    def __init__(self) -> None:
        """Takes nothing over: the start method is looked up when it is needed."""

    def get_context(self, method: str | None = None) -> Any:
        return _of(_std._default_context.get_context(method))

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        _std._default_context.set_start_method(method, force)

    def get_start_method(self, allow_none: bool = False) -> Any:
        return _std._default_context.get_start_method(allow_none)

    def get_all_start_methods(self) -> list[str]:
        return _std._default_context.get_all_start_methods()

    def _of_pools(self) -> Any:
        return None


_concrete: dict[str, _Channels] = {
    context._name: context for context in (ForkContext(), SpawnContext(), ForkServerContext())
}
_default_context = DefaultContext()


def _of(context: Any) -> Any:
    """raddle's context for one of the standard library's."""
    return _concrete[context._name]
