"""``Queue``, ``JoinableQueue`` and ``SimpleQueue`` between processes, in shared memory.

Subtypes of the standard library's. There is no feeder thread: ``put`` pickles and writes in the calling thread. A
process that is killed at any moment costs at most the message that it was putting or getting.
"""

from __future__ import annotations

import os
from multiprocessing import context as _context
from multiprocessing import queues as _std
from multiprocessing import reduction as _reduction
from queue import Empty, Full

from raddle import _raddle
from raddle.multiprocessing._arena import for_rows
from raddle.multiprocessing._ends import InSharedMemory
from raddle.multiprocessing._pickling import decode, dump_with_buffers, loads
from raddle.queue import ShutDown

TYPE_CHECKING = False  # as type checkers know it; children load this module, and typing takes long
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "ShutDown", "SimpleQueue"]


def _open(file: int, bell: int) -> _raddle.Channel:
    return _raddle.Channel(file, bell, 0, -1, loads, decode)


def _new_channel(items: int, size: int) -> _raddle.Channel:
    """Called after the line of the program that makes it."""
    file = _raddle.channel_memory(1, items, size)
    try:
        bell = _raddle.channel_event()
    except BaseException:
        os.close(file)
        raise
    channel = _open(file, bell)
    channel.name_here()
    return channel


def _hand_over(queue: InSharedMemory) -> tuple[Any, Any, Any]:
    """The channel's two descriptors and its arena, to be pickled for a process that is being started."""
    channel = queue._channel
    return _reduction.DupFd(channel.file()), _reduction.DupFd(channel.bell()), queue._arena


class Queue(InSharedMemory, _std.Queue):  # type: ignore[type-arg]
    """A queue for any number of processes and threads: first come, first served.

    Args:
        maxsize: the most items at a time; without a bound if not positive.
        max_bytes: the most bytes of pickled items at a time; without a bound if 0. A larger item waits until the
            queue is empty.
        ctx: the context that it belongs to; use the ``Queue()`` of a context or of the package.
    Note:
        Pickled only while a process is being started, as the standard library's. Usable in a forked child. Survives the
        death of any process that uses it. Follows CPython 3.13 ``multiprocessing.Queue``; ``shutdown()``, ``max_bytes``
        and ``fileno()`` are additions.
    """

    def __init__(self, maxsize: int = 0, *, ctx: Any, max_bytes: int = 0) -> None:
        self._maxsize = maxsize
        self._ignore_epipe = False
        self._closed = False
        self._attach(_new_channel(max(maxsize, 0), max(max_bytes, 0)), for_rows())

    def __getstate__(self) -> Any:
        _context.assert_spawning(self)
        return self._maxsize, self._ignore_epipe, *_hand_over(self)

    def __setstate__(self, state: Any) -> None:
        self._maxsize, self._ignore_epipe, file, bell, arena = state
        self._closed = False
        self._attach(_open(file.detach(), bell.detach()), arena)

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item, waiting while the queue is full.

        The item is pickled here and now. If that fails the item is dropped and the standard library's hook is called,
        which prints the traceback: ``put`` raises nothing then, as there.

        Args:
            timeout: the longest wait, in seconds; None waits without limit.
        Raises:
            Full: there was no room in time, or ``block`` is false.
            ShutDown: the queue is shut down.
            ValueError: it is closed in this process.
            OSError: there is no memory for the item.
        Note:
            Waits without the GIL, and not at all if the queue has no bound. Ctrl-C interrupts.
        """
        if self._closed:
            self._refuse()
        channel = self._channel
        if channel.send_plain(obj, block, timeout):
            return
        try:
            tag, parts = dump_with_buffers(obj)
        except Exception as error:
            self._on_queue_feeder_error(error, obj)  # type: ignore[attr-defined]
            return
        channel.send(tag, parts, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next item, waiting while there is none.

        Args:
            timeout: the longest wait, in seconds; None waits without limit.
        Raises:
            Empty: nothing came in time, or nothing is there and ``block`` is false.
            ShutDown: the queue is shut down and empty.
            ValueError: it is closed in this process.
            OSError: another process has damaged the shared memory.
            Exception: whatever unpickling raises; that item is gone, and no other.
        Note:
            Waits without the GIL. Ctrl-C interrupts.
        """
        if self._closed:
            self._refuse()
        return self._channel.receive(block, timeout)

    def put_nowait(self, obj: Any) -> None:
        """``put(obj, block=False)``."""
        self.put(obj, False)

    def get_nowait(self) -> Any:
        """``get(block=False)``."""
        return self.get(False)

    def qsize(self) -> int:
        """How many items there are, exactly, at some moment during the call."""
        return self._channel.statistics()[0]

    def empty(self) -> bool:
        """Whether there are none."""
        return self._channel.statistics()[0] == 0

    def full(self) -> bool:
        """Whether there is no room for another item."""
        items, size, _, _ = self._channel.statistics()
        most_items, most_bytes = self._channel.limits()
        return (0 < most_items <= items) or (0 < most_bytes <= size)

    def shutdown(self, immediate: bool = False) -> None:
        """Refuse further items, in all processes. Whoever waits to put gets ShutDown; to get, once it is empty.

        Args:
            immediate: also drop what is in it; such items need no ``task_done()``.
        Note:
            As ``queue.Queue.shutdown`` of CPython 3.13, on every version.
        """
        self._channel.shut(immediate)

    def close(self) -> None:
        """This process will neither put nor get any more. What it has put stays."""
        self._closed = True
        # As in the standard library, a queue that nothing was put into here keeps its handles.
        if self._channel.used:
            self._channel.close()

    def join_thread(self) -> None:
        """Does nothing: there is no thread, and what was put has been written. The queue must be closed."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Does nothing: there is no thread that an exit would wait for."""

    def _refuse(self) -> NoReturn:
        raise ValueError(f"Queue {self!r} is closed")


class JoinableQueue(Queue, _std.JoinableQueue):  # type: ignore[type-arg]
    """A ``Queue`` that knows how many of its items are done."""

    def task_done(self) -> None:
        """The work on one item is done.

        Raises:
            ValueError: called more often than ``put()``.
        """
        if not self._channel.done():
            raise ValueError("task_done() called too many times")

    def join(self) -> None:
        """Wait until ``task_done()`` has been called for every item put. Without the GIL; Ctrl-C interrupts.

        Note:
            An item that a killed process had taken is never done: then this waits for ever, as the standard library's.
        """
        self._channel.join()


class SimpleQueue(InSharedMemory, _std.SimpleQueue):  # type: ignore[type-arg]
    """A queue with ``put``, ``get`` and ``empty`` only. Pickling errors come out of ``put``."""

    def __init__(self, *, ctx: Any) -> None:
        self._attach(_new_channel(0, 0), for_rows())

    def __getstate__(self) -> Any:
        _context.assert_spawning(self)
        return _hand_over(self)

    def __setstate__(self, state: Any) -> None:
        file, bell, arena = state
        self._attach(_open(file.detach(), bell.detach()), arena)

    def put(self, obj: Any) -> None:
        """Put an item. Never waits for a reader.

        Raises:
            OSError: the queue is closed in this process, or there is no memory for the item.
            Exception: whatever pickling raises; nothing was put then.
        """
        if not self._channel.send_plain(obj):
            self._channel.send(*dump_with_buffers(obj))

    def get(self) -> Any:
        """Take the next item, waiting while there is none. Without the GIL; Ctrl-C interrupts."""
        return self._channel.receive()

    def empty(self) -> bool:
        """Whether there is none."""
        return not self._channel.poll(0)

    def close(self) -> None:
        """This process will neither put nor get any more."""
        self._channel.close()
