"""What queues between processes have in common, and what ``connection.wait`` knows them by."""

from __future__ import annotations

from raddle.multiprocessing._pickling import PICKLE, dump_with_buffers

TYPE_CHECKING = False  # as type checkers know it; children load this module, and typing takes long
if TYPE_CHECKING:
    from typing import Any

    from raddle import _raddle

__all__ = ["End", "InSharedMemory"]


class End:
    """What programs that reach into a queue find as ``_reader`` and ``_writer``: a connection as far as they need."""

    def __init__(self, channel: _raddle.Channel) -> None:
        self._channel = channel
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed or self._channel.closed

    def close(self) -> None:
        self._closed = True

    def fileno(self) -> int:
        self._check()
        return self._channel.select()

    def poll(self, timeout: float | None = 0.0) -> bool:
        self._check()
        return self._channel.poll(timeout)

    def recv(self) -> Any:
        self._check()
        return self._channel.receive()

    def send(self, obj: Any) -> None:
        self._check()
        self._channel.send(*dump_with_buffers(obj))

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        self._check()
        data = self._channel.receive_bytes_of(maxlength)
        if data is None:
            raise OSError("bad message length")
        return bytes(data)

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        self._check()
        view = memoryview(buf).cast("B")
        self._channel.send(PICKLE, view[offset : None if size is None else offset + size])

    def _check(self) -> None:
        if self._closed:
            raise OSError("handle is closed")


class InSharedMemory:
    """What the three kinds of queue have in common."""

    _channel: _raddle.Channel
    #: Where processes that have the queue say what they wait for.
    _arena: _raddle.Arena | None

    def _attach(self, channel: _raddle.Channel, arena: _raddle.Arena | None) -> None:
        self._channel, self._arena = channel, arena
        self._reader = End(channel)
        self._writer = End(channel)

    def fileno(self) -> int:
        """A descriptor for select() and its kin: readable while there is something to get.

        It may tell of an item that another process takes first. After ``shutdown()`` it stays readable.

        Raises:
            OSError: the queue is closed in this process.
        """
        return self._channel.select()
