"""Objects to bytes and back, as multiprocessing does it, without copying what is large.

The pickler is ``multiprocessing.reduction.ForkingPickler``, so that what programs have registered with it counts. Two
things differ from ``ForkingPickler.dumps``: a pickler is used again, and what it writes is kept in pieces, so that a
large bytes object is not copied into a larger one. For queues, large buffers (of protocol 5) stay outside of the
pickle.
"""

from __future__ import annotations

import copyreg
import pickle
import struct
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler

TYPE_CHECKING = False  # as type checkers know it; children load this module, and typing takes long
if TYPE_CHECKING:
    from typing import Any

__all__ = ["BUFFERS", "PICKLE", "decode", "dump_parts", "dump_with_buffers", "loads"]

#: The tags of messages, as the extension knows them; those of bytes and strings are its own.
PICKLE = 0
BUFFERS = 3

#: Buffers from this size on stay outside of the pickle, in bytes.
LARGE = 64 * 1024
#: Where a buffer may begin in a message, in bytes.
ALIGNMENT = 64

loads: Callable[[Any], Any] = pickle.loads

# The standard library's own dumps; a program may have put another in its place.
_forking: Any = ForkingPickler
_STANDARD_DUMPS = _forking.dumps.__func__


class _Parts(list):  # type: ignore[type-arg]
    """What a pickler writes, piece by piece."""

    write = list.append


class _Reducers(dict):  # type: ignore[type-arg]
    """A dispatch table that is always up to date: what is registered later counts too."""

    def __missing__(self, cls: type) -> Any:
        try:
            return _forking._extra_reducers[cls]
        except KeyError:
            return copyreg.dispatch_table[cls]


class _Picklers:
    """Picklers that are not in use. One that is has been taken out: pickling may pickle, in any thread."""

    def __init__(self, protocol: int | None, *, buffers: bool) -> None:
        self._protocol = protocol
        self._buffers = buffers
        self._idle: list[tuple[Any, _Parts, list[Any]]] = []

    def _new(self) -> tuple[Any, _Parts, list[Any]]:
        parts, buffers = _Parts(), []

        def outside(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < LARGE:
                return True
            buffers.append(raw)
            return False

        options = (True, outside) if self._buffers else ()
        pickler = ForkingPickler(parts, self._protocol, *options)
        pickler.dispatch_table = _Reducers()
        return pickler, parts, buffers

    def dump(self, obj: Any) -> tuple[list[Any], list[Any]]:
        """The pieces of its pickle, and the buffers outside of it."""
        try:
            entry = self._idle.pop()
        except IndexError:
            entry = self._new()
        pickler, parts, buffers = entry
        # After an error the pickler is left to be freed.
        pickler.dump(obj)
        result = parts[:], buffers[:]
        parts.clear()
        buffers.clear()
        pickler.clear_memo()
        self._idle.append(entry)
        return result


_plain = _Picklers(None, buffers=False)
_with_buffers = _Picklers(5, buffers=True)


def dump_parts(obj: Any) -> list[Any]:
    """The pieces of the pickle of an object, in the protocol that ``ForkingPickler.dumps`` uses."""
    if _forking.dumps.__func__ is not _STANDARD_DUMPS:
        return [ForkingPickler.dumps(obj)]
    return _plain.dump(obj)[0]


def dump_with_buffers(obj: Any) -> tuple[int, list[Any]]:
    """The tag and the pieces of a message that ``decode`` makes the object of again."""
    if _forking.dumps.__func__ is not _STANDARD_DUMPS:
        return PICKLE, [ForkingPickler.dumps(obj)]
    parts, buffers = _with_buffers.dump(obj)
    if not buffers:
        return PICKLE, parts
    sizes = [sum(len(part) for part in parts), *(buffer.nbytes for buffer in buffers)]
    head = struct.pack(f"<{1 + len(sizes)}Q", len(buffers), *sizes)
    message = [head, *parts]
    at = len(head) + sizes[0]
    for buffer in buffers:
        message += [bytes(-at % ALIGNMENT), buffer]
        at += -at % ALIGNMENT + buffer.nbytes
    return BUFFERS, message


def decode(tag: int, data: Any) -> Any:
    """The object in a message with this tag. The buffers in it become part of the object: nothing is copied.

    Raises:
        ValueError: the message is none that ``dump_with_buffers`` makes.
    """
    message = memoryview(data)
    if tag != BUFFERS or len(message) < 16:
        raise ValueError("a message that this version of raddle does not know")
    count = int.from_bytes(message[:8], "little")
    start = 8 * (count + 2)
    if start > len(message):
        raise ValueError("a message that is shorter than it says")
    sizes = struct.unpack_from(f"<{count + 1}Q", message, 8)
    at = start + sizes[0]
    text = message[start:at]
    buffers = []
    for size in sizes[1:]:
        at += -at % ALIGNMENT
        buffers.append(message[at : at + size])
        at += size
    if at != len(message):
        raise ValueError("a message that is not as long as it says")
    return pickle.loads(text, buffers=buffers)
