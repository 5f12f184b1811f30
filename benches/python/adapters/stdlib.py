"""The baseline: threading, queue, sched, concurrent.futures and multiprocessing of the running interpreter."""

from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from multiprocessing import Condition as ProcessCondition
from multiprocessing import Lock as ProcessLock
from multiprocessing import Pipe as ProcessPipe
from multiprocessing import Pool as ProcessPool
from multiprocessing import Queue as ProcessQueue
from multiprocessing import RLock as ProcessRLock
from multiprocessing import Semaphore as ProcessSemaphore
from multiprocessing import get_context
from queue import LifoQueue, PriorityQueue, Queue, SimpleQueue
from sched import scheduler
from threading import (
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
quick_method = "fork"
server_method = "forkserver"


def Slot():
    """A queue of one place."""
    return Queue(1)


class Subclass(Queue):
    """A subclass that adds nothing."""


Overriding = overriding(Queue)


def put_all(queue, items):
    """One put per item: there is no batch."""
    for item in items:
        queue.put(item)


def get_all(queue, n):
    """One get per item."""
    return [queue.get() for _ in range(n)]
