"""``Pipe`` and its connections in shared memory, and ``wait``.

A connection is a subtype of the standard library's. Its descriptor is one end of a pair of sockets, over which no
message goes: it is there to be selected, to tell when the other end is gone, and to hand descriptors over. Listeners
and clients, and the connections that they make, are the standard library's own.
"""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Iterable
from multiprocessing import connection as _std
from multiprocessing import context as _context
from multiprocessing import reduction as _reduction
from multiprocessing.connection import Client, Listener, answer_challenge, deliver_challenge

from raddle import _raddle
from raddle.multiprocessing._arena import for_rows
from raddle.multiprocessing._ends import End, InSharedMemory
from raddle.multiprocessing._pickling import PICKLE, decode, dump_parts, loads

TYPE_CHECKING = False  # as type checkers know it; children load this module, and typing takes long
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Client", "Connection", "Listener", "Pipe", "answer_challenge", "deliver_challenge", "wait"]

#: How many bytes may be on their way in one direction before a sender waits. A larger message goes alone.
CAPACITY = 1 << 20


class Connection(_std.Connection):
    """One end of a ``Pipe()``.

    Note:
        Any number of threads, and any number of processes that share the end: messages stay whole. Usable in a forked
        child. Pickled as the standard library's. Follows CPython 3.13 ``multiprocessing.connection.Connection``, with
        one difference: what ``send_bytes`` writes cannot be read from the descriptor by other means.
    """

    def __init__(
        self, handle: int, file: int, lane: int, readable: bool = True, writable: bool = True
    ) -> None:
        self._handle: int | None = None
        self._channel = _raddle.Channel(file, handle, lane, 1 - lane, loads, decode)
        super().__init__(handle, readable, writable)
        self._lane = lane
        #: Where processes that have the pipe say what they wait for, where that was handed over with it.
        self._arena: _raddle.Arena | None = None

    def _close(self, *_: Any) -> None:
        self._channel.close()

    def fileno(self) -> int:
        """A descriptor for select() and its kin: readable while there is something to receive, and at the end."""
        self._check_closed()  # type: ignore[attr-defined]
        return self._channel.select()

    def send(self, obj: Any) -> None:
        """Send an object. Waits, without the GIL, while a megabyte is on its way.

        Raises:
            BrokenPipeError: the other end is closed everywhere.
            OSError: this end is closed or read-only, or there is no memory for the message.
        """
        self._check_closed()  # type: ignore[attr-defined]
        self._check_writable()  # type: ignore[attr-defined]
        if not self._channel.send_plain(obj, bare=False):
            self._channel.send(PICKLE, dump_parts(obj))

    def recv(self) -> Any:
        """Receive an object, waiting for one without the GIL.

        Raises:
            EOFError: nothing is left, and the other end is closed everywhere.
            OSError: this end is closed or write-only.
        """
        self._check_closed()  # type: ignore[attr-defined]
        self._check_readable()  # type: ignore[attr-defined]
        return self._channel.receive()

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Receive a message as it was sent by ``send_bytes``.

        Args:
            maxlength: the most bytes to accept.
        Raises:
            OSError: it is longer; the connection cannot be read from any more.
            EOFError: nothing is left, and the other end is closed everywhere.
        """
        self._check_closed()  # type: ignore[attr-defined]
        self._check_readable()  # type: ignore[attr-defined]
        if maxlength is not None and maxlength < 0:
            raise ValueError("negative maxlength")
        data = self._channel.receive_bytes_of(maxlength)
        if data is None:
            self._bad_message_length()  # type: ignore[attr-defined]
            raise AssertionError("it raises")
        return data

    def recv_bytes_into(self, buf: Any, offset: int = 0) -> int:
        """Receive a message into a writable buffer; how many bytes it had.

        Args:
            offset: where in the buffer to begin, in bytes.
        Raises:
            BufferTooShort: there is not enough room; its argument is the message.
        """
        self._check_closed()  # type: ignore[attr-defined]
        self._check_readable()  # type: ignore[attr-defined]
        with memoryview(buf) as view:
            if offset < 0:
                raise ValueError("negative offset")
            if offset > view.nbytes:
                raise ValueError("offset too large")
            received = self._channel.receive_into(view, offset)
        if isinstance(received, int):
            return received
        raise _context.BufferTooShort(received)

    def _send_bytes(self, buf: Any) -> None:
        self._channel.send(PICKLE, buf)

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO | None:
        data = self._channel.receive_bytes_of(maxsize)
        if data is None:
            return None
        buffer = io.BytesIO()
        buffer.write(data)
        return buffer

    def _poll(self, timeout: float | None) -> bool:
        return self._channel.poll(timeout)


def _rebuild(
    handle: Any, file: Any, lane: int, readable: bool, writable: bool, arena: _raddle.Arena | None
) -> Connection:
    connection = Connection(handle.detach(), file.detach(), lane, readable, writable)
    connection._arena = arena
    return connection


def _reduce(connection: Connection) -> tuple[Any, ...]:
    connection._check_closed()  # type: ignore[attr-defined]
    channel = connection._channel
    handle, file = _reduction.DupFd(channel.bell()), _reduction.DupFd(channel.file())
    # To a process that runs, it goes alone: that one has an arena of its own program, or need not be told of.
    arena = connection._arena if _context.get_spawning_popen() is not None else None
    return _rebuild, (handle, file, connection._lane, connection.readable, connection.writable, arena)


_reduction.register(Connection, _reduce)


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Two connections, each of which receives what the other sends.

    Args:
        duplex: false for one direction: the first can only receive, the second only send.
    Raises:
        OSError: no descriptors are free, or no memory.
    """
    ends = [end.detach() for end in socket.socketpair()]
    made: list[Connection] = []
    files: list[int] = []
    try:
        files.append(_raddle.channel_memory(2, 0, CAPACITY))
        files.append(os.dup(files[0]))
        for lane in (0, 1):
            # From here on both descriptors are the connection's.
            handle, file = ends.pop(0), files.pop(0)
            made.append(Connection(handle, file, lane, duplex or lane == 0, duplex or lane == 1))
            made[lane]._arena = for_rows()
    except BaseException:
        for descriptor in ends + files:
            os.close(descriptor)
        raise
    made[0]._channel.name_here()
    return made[0], made[1]


def wait(object_list: Iterable[Any], timeout: float | None = None) -> list[Any]:
    """Wait until some of the objects are ready: something can be received, or the end has come.

    Args:
        object_list: connections and queues of raddle, connections of the standard library, sockets, sentinels of
            processes, anything with a ``fileno()``, and descriptors.
        timeout: the longest wait, in seconds; None waits without limit.
    Returns:
        Those that are ready, in their order; none if the time is up.
    Note:
        Waits without the GIL; Ctrl-C interrupts.
    """
    objects = list(object_list)
    limit = None if timeout is None else time.monotonic() + timeout
    descriptors = [item if isinstance(item, int) else item.fileno() for item in objects]
    while True:
        ready = [objects[at] for at in _raddle.wait_readable(descriptors, timeout)]
        # A descriptor may tell of a message that another process has taken meanwhile.
        sure = [item for item in ready if _is_ready(item)]
        if sure:
            return sure
        if limit is not None:
            timeout = limit - time.monotonic()
            if timeout <= 0:
                return []


def _is_ready(item: Any) -> bool:
    return not isinstance(item, Connection | End | InSharedMemory) or item._channel.poll(0)
