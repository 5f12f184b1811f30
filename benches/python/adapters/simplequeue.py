"""_queue.SimpleQueue, the standard library's queue in C, where rows about queue.Queue can do with an unbounded FIFO."""

from _queue import SimpleQueue as UnboundedQueue

__all__ = ["Slot", "UnboundedQueue"]

Slot = UnboundedQueue
