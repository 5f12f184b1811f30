"""aiologic: primitives for threads and event loops at once. Its green_* methods are the blocking ones.

Its Event is set once; REvent is the one with clear(). Its barriers come the same way.
"""

import aiologic


class Lock(aiologic.Lock):
    acquire = aiologic.Lock.green_acquire
    release = aiologic.Lock.green_release


class RLock(aiologic.RLock):
    acquire = aiologic.RLock.green_acquire
    release = aiologic.RLock.green_release


class Semaphore(aiologic.Semaphore):
    acquire = aiologic.Semaphore.green_acquire
    release = aiologic.Semaphore.green_release


class BoundedSemaphore(aiologic.BoundedSemaphore):
    acquire = aiologic.BoundedSemaphore.green_acquire
    release = aiologic.BoundedSemaphore.green_release


Condition = aiologic.Condition
Event = aiologic.REvent
Barrier = aiologic.RBarrier


class SimpleQueue(aiologic.SimpleQueue):
    get = aiologic.SimpleQueue.green_get


class LifoQueue(aiologic.LifoQueue):
    put = aiologic.LifoQueue.green_put
    get = aiologic.LifoQueue.green_get


class PriorityQueue(aiologic.PriorityQueue):
    put = aiologic.PriorityQueue.green_put
    get = aiologic.PriorityQueue.green_get


class _Queue(aiologic.Queue):
    put = aiologic.Queue.green_put
    get = aiologic.Queue.green_get


def Queue(maxsize=0):
    """A queue with the standard library's reading of maxsize: 0 is no bound."""
    return _Queue(maxsize=maxsize) if maxsize > 0 else _Queue()


UnboundedQueue = _Queue


def Slot():
    """A queue of one place."""
    return _Queue(maxsize=1)
