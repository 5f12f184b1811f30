"""The shared memory of locks, in which processes also say what they wait for: what a process has of it."""

from __future__ import annotations

import os
import threading as _threading
from multiprocessing import process as _process
from multiprocessing import reduction as _reduction
from weakref import WeakValueDictionary

from raddle import _raddle

TYPE_CHECKING = False  # as type checkers know it; children load this module, and typing takes long
if TYPE_CHECKING:
    from typing import Any

#: All arenas that this process has, by device and inode: one that comes twice is mapped once.
_arenas: WeakValueDictionary[tuple[int, int], _raddle.Arena] = WeakValueDictionary()
_current: _raddle.Arena | None = None


def _key(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _known(arena: _raddle.Arena) -> _raddle.Arena:
    return _arenas.setdefault(_key(arena.file()), arena)


def in_arena(make: Any) -> tuple[_raddle.Arena, Any]:
    """What ``make(arena)`` makes in the first arena that has room, and that arena."""
    global _current
    while True:
        arena = _current
        if arena is not None:
            try:
                return arena, make(arena)
            except LookupError:  # full
                pass
        _current = _known(_raddle.Arena())


def for_rows() -> _raddle.Arena | None:
    """An arena in which processes that are given it say what they wait for: the newest.

    None if there is no memory or descriptor for one: what they wait for is not told then.
    """
    try:
        return in_arena(lambda arena: None)[0]
    except OSError:
        return None


def _reduce_arena(arena: _raddle.Arena) -> Any:
    return _rebuild_arena, (_reduction.DupFd(arena.file()),)


def _rebuild_arena(file: Any) -> _raddle.Arena:
    fd = file.detach()
    known = _arenas.get(_key(fd))
    if known is not None:
        os.close(fd)
        return known
    return _known(_raddle.Arena(fd))


# What pickles an arena does so within a process that is being started only; it is one object there, and one descriptor.
_reduction.ForkingPickler.register(_raddle.Arena, _reduce_arena)


def _describe(ident: int) -> tuple[str, list[_raddle.Arena]]:
    """What others are told of a thread of this process, and where."""
    thread = _threading._active.get(ident)  # type: ignore[attr-defined]
    name = thread.name if thread is not None else f"thread {ident}"
    # In the row of a table, which has 64 bytes for it.
    return f"{_process.current_process().name[-40:]}|{name[-20:]}", list(_arenas.values())


_raddle.set_describe(_describe)
