"""Queues that a program reaches into: the standard library's algorithm, over raddle's lock and conditions.

A queue is opened when a program reads ``queue``, ``mutex`` or a condition of it, or when a subclass overrides
``_init``, ``_put``, ``_get`` or ``_qsize``. From then on its items are in ``self.queue``, a deque or a list that the
program may change while it holds ``self.mutex``, and each call ends up here. The functions are called by the extension.
"""

from __future__ import annotations

import queue as _std
from collections import deque
from heapq import heapify, heappop, heappush

from raddle import _raddle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The module of the exceptions, `raddle.queue`; it sets this, as it imports this module.
errors: Any = None


def _parts(self: Any) -> dict[str, Any]:
    """Gives the queue its lock, conditions and counts."""
    fields: dict[str, Any] = self.__dict__
    mutex = _raddle.Lock(name=f"{type(self).__name__}.mutex")
    fields["mutex"] = mutex
    fields["not_empty"] = _raddle.Condition(mutex)
    fields["not_full"] = _raddle.Condition(mutex)
    fields["all_tasks_done"] = _raddle.Condition(mutex)
    fields["unfinished_tasks"] = 0
    fields["is_shutdown"] = False
    return fields


def init(self: Any, maxsize: Any) -> None:
    """``__init__`` of a subclass with hooks of its own."""
    _parts(self)
    self._init(maxsize)


def open_queue(self: Any, items: list[Any], unfinished: int, is_shutdown: bool) -> None:
    """Takes over the items of a queue that was not open so far."""
    fields = _parts(self)
    fields["unfinished_tasks"] = unfinished
    fields["is_shutdown"] = is_shutdown
    hook_init(self, 0)
    if isinstance(self, _raddle.PriorityQueue):
        heapify(items)
    self.queue.extend(items)


def hook_init(self: Any, maxsize: Any) -> None:
    self.queue = [] if isinstance(self, (_raddle.LifoQueue, _raddle.PriorityQueue)) else deque()


def hook_put(self: Any, item: Any) -> None:
    if isinstance(self, _raddle.PriorityQueue):
        heappush(self.queue, item)
    else:
        self.queue.append(item)


def hook_get(self: Any) -> Any:
    if isinstance(self, _raddle.PriorityQueue):
        return heappop(self.queue)
    if isinstance(self, _raddle.LifoQueue):
        return self.queue.pop()
    return self.queue.popleft()


def hook_qsize(self: Any) -> int:
    return len(self.queue)


def _now() -> float:
    """By the standard module's clock, which a program's tests may have replaced."""
    return _std.time()  # type: ignore[attr-defined,no-any-return]


# The parts are read from the instance's dictionary: its attributes of the same names have to ask first whether the
# queue is open. A program that replaces one replaces it there.


def put(self: Any, item: Any, block: bool, timeout: float | None) -> None:
    parts = self.__dict__
    not_full = parts["not_full"]
    with not_full:
        if parts["is_shutdown"]:
            raise errors.ShutDown
        maxsize = self.maxsize
        if maxsize > 0 and self._qsize() >= maxsize:
            deadline = None if timeout is None else _now() + timeout
            while self._qsize() >= self.maxsize:
                remaining = None if deadline is None else deadline - _now()
                if not block or (remaining is not None and remaining <= 0.0):
                    raise errors.Full
                not_full.wait(remaining)
                if parts["is_shutdown"]:
                    raise errors.ShutDown
        self._put(item)
        parts["unfinished_tasks"] += 1
        parts["not_empty"].notify()


def get(self: Any, block: bool, timeout: float | None) -> Any:
    parts = self.__dict__
    not_empty = parts["not_empty"]
    with not_empty:
        if not self._qsize():
            deadline = None if timeout is None else _now() + timeout
            while not self._qsize():
                if parts["is_shutdown"]:
                    raise errors.ShutDown
                remaining = None if deadline is None else deadline - _now()
                if not block or (remaining is not None and remaining <= 0.0):
                    raise errors.Empty
                not_empty.wait(remaining)
        item = self._get()
        parts["not_full"].notify()
        return item


def task_done(self: Any) -> None:
    parts = self.__dict__
    with parts["all_tasks_done"]:
        unfinished = parts["unfinished_tasks"] - 1
        if unfinished < 0:
            raise ValueError("task_done() called too many times")
        parts["unfinished_tasks"] = unfinished
        if unfinished == 0:
            parts["all_tasks_done"].notify_all()


def join(self: Any) -> None:
    parts = self.__dict__
    with parts["all_tasks_done"]:
        while parts["unfinished_tasks"]:
            parts["all_tasks_done"].wait()


def qsize(self: Any) -> int:
    with self.__dict__["mutex"]:
        size: int = self._qsize()
        return size


def empty(self: Any) -> bool:
    with self.__dict__["mutex"]:
        return not self._qsize()


def full(self: Any) -> bool:
    with self.__dict__["mutex"]:
        is_full: bool = 0 < self.maxsize <= self._qsize()
        return is_full


def shutdown(self: Any, immediate: bool) -> None:
    parts = self.__dict__
    with parts["mutex"]:
        parts["is_shutdown"] = True
        if immediate:
            while self._qsize():
                self._get()
                if parts["unfinished_tasks"] > 0:
                    parts["unfinished_tasks"] -= 1
            parts["all_tasks_done"].notify_all()
        parts["not_empty"].notify_all()
        parts["not_full"].notify_all()
