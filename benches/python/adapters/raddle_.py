"""raddle's mirrors, imported beside the untouched standard library: nothing is installed."""

from raddle.concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from raddle.multiprocessing import Condition as ProcessCondition
from raddle.multiprocessing import Lock as ProcessLock
from raddle.multiprocessing import Pipe as ProcessPipe
from raddle.multiprocessing import Pool as ProcessPool
from raddle.multiprocessing import Queue as ProcessQueue
from raddle.multiprocessing import RLock as ProcessRLock
from raddle.multiprocessing import Semaphore as ProcessSemaphore
from raddle.multiprocessing import get_context
from raddle.queue import LifoQueue, PriorityQueue, Queue, SimpleQueue
from raddle.sched import scheduler
from raddle.threading import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Event,
    Lock,
    RLock,
    Semaphore,
    Thread,
    Timer,
    local,
)

from ._shapes import overriding

UnboundedQueue = Queue

#: The start method that has a pool ready soonest, and the one with a server to fork from.
quick_method = server_method = "warm"


def Slot():
    """A queue of one place."""
    return Queue(1)


class Subclass(Queue):
    """A subclass that adds nothing."""


Overriding = overriding(Queue)


def put_all(queue, items):
    """All of them in one call."""
    queue.put_many(items)


def get_all(queue, n):
    """Whatever is there, until n have come."""
    items = queue.get_many(n)
    while len(items) < n:
        items += queue.get_many(n - len(items))
    return items
