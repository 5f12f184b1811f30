"""culsans: queues for threads and event loops at once, in pure Python over aiologic. Only its sync side is used."""

import culsans


class Queue(culsans.Queue):
    put = culsans.Queue.sync_put
    get = culsans.Queue.sync_get


class LifoQueue(culsans.LifoQueue):
    put = culsans.LifoQueue.sync_put
    get = culsans.LifoQueue.sync_get


class PriorityQueue(culsans.PriorityQueue):
    put = culsans.PriorityQueue.sync_put
    get = culsans.PriorityQueue.sync_get


UnboundedQueue = Queue


class Subclass(Queue):
    """A subclass that adds nothing."""


def Slot():
    """A queue of one place."""
    return Queue(1)
