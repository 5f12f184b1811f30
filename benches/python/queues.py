"""Queues: put and get in one thread, between threads, bounded, subclassed, in batches."""

import random
from itertools import repeat

from .harness import check, chunks, mark, row, since, together

#: Seed of the priorities; the same for every contender.
SEED = 10


def _pairs(queue, n):
    start = mark()
    for _ in repeat(None, n // 5):
        queue.put(1)
        queue.get()
        queue.put(1)
        queue.get()
        queue.put(1)
        queue.get()
        queue.put(1)
        queue.get()
        queue.put(1)
        queue.get()
    return since(start)


@row("queue.pair", "Queue put+get, one thread", needs=["UnboundedQueue"], solo=True, target=30)
def pair(impl, n):
    """queue.put(1); queue.get()"""
    return _pairs(impl.UnboundedQueue(), n)


@row("queue.subclass", "Queue put+get, empty Python subclass", needs=["Subclass"], solo=True)
def subclass(impl, n):
    """class Q(Queue): pass"""
    return _pairs(impl.Subclass(), n)


@row(
    "queue.overriding", "Queue put+get, subclass with its own _put and _get", needs=["Overriding"], solo=True
)
def overriding(impl, n):
    """The four hooks in Python."""
    queue = impl.Overriding()
    spent = _pairs(queue, n)
    queue.put("last")
    check(list(queue.items) == ["last"], "the hooks were not used")
    return spent


@row("queue.lifo", "LifoQueue put+get, one thread", needs=["LifoQueue"], solo=True)
def lifo(impl, n):
    """The same on a stack."""
    return _pairs(impl.LifoQueue(), n)


@row("queue.simple", "SimpleQueue put+get, one thread (stdlib: C)", needs=["SimpleQueue"], solo=True)
def simple(impl, n):
    """The standard library's is in C already."""
    return _pairs(impl.SimpleQueue(), n)


@row(
    "queue.priority",
    "PriorityQueue put+get, 1,000 items inside",
    needs=["PriorityQueue"],
    solo=True,
    least=100,
)
def priority(impl, n):
    """Random integers through a heap that stays at a thousand."""
    rng = random.Random(SEED)
    queue = impl.PriorityQueue()
    for _ in range(1000):
        queue.put(rng.randrange(1 << 30))
    coming = [rng.randrange(1 << 30) for _ in range(n)]
    start = mark()
    for number in coming:
        queue.put(number)
        queue.get()
    spent = since(start)
    left = [queue.get() for _ in range(1000)]
    check(left == sorted(left), "items came out of order")
    return spent


@row(
    "queue.nowait",
    "Queue put_nowait+get_nowait",
    needs=["Queue"],
    solo=True,
    contenders=("stdlib", "raddle", "culsans"),
)
def nowait(impl, n):
    """The calls that never block."""
    queue = impl.Queue()
    start = mark()
    for _ in repeat(None, n):
        queue.put_nowait(1)
        queue.get_nowait()
    return since(start)


@row(
    "queue.task_done",
    "Queue put+get+task_done",
    needs=["Queue"],
    solo=True,
    contenders=("stdlib", "raddle", "culsans"),
)
def task_done(impl, n):
    """The worker's loop, without the work."""
    queue = impl.Queue()
    start = mark()
    for _ in repeat(None, n):
        queue.put(1)
        queue.get()
        queue.task_done()
    spent = since(start)
    check(queue.unfinished_tasks == 0, "tasks are left over")
    return spent


@row("queue.new", "Queue()", needs=["Queue"], solo=True, contenders=("stdlib", "raddle", "culsans"))
def new(impl, n):
    """Creation."""
    make = impl.Queue
    start = mark()
    for _ in repeat(None, n):
        make()
    return since(start)


def _through(queue, n, producers, consumers):
    sums = []

    def produce(numbers):
        def run():
            put = queue.put
            for number in numbers:
                put(number)

        return run

    def consume(turns):
        def run():
            get = queue.get
            total = 0
            for _ in repeat(None, turns):
                total += get()
            sums.append(total)

        return run

    # Consumers first, as programs start their workers before there is work.
    bodies, begin = [consume(turns) for turns in chunks(n, consumers)], 0
    for turns in chunks(n, producers):
        bodies.append(produce(range(begin, begin + turns)))
        begin += turns
    spent = together(*bodies)
    check(sum(sums) == n * (n - 1) // 2, "items were lost or doubled")
    return spent


@row(
    "queue.1x1", "Queue, 1 producer and 1 consumer", needs=["UnboundedQueue"], target=25, least=500, quick=200
)
def one_by_one(impl, n):
    """Two threads, no bound."""
    return _through(impl.UnboundedQueue(), n, 1, 1)


@row(
    "queue.4x4",
    "Queue, 4 producers and 4 consumers",
    needs=["UnboundedQueue"],
    target=40,
    least=500,
    quick=200,
)
def four_by_four(impl, n):
    """Eight threads, no bound."""
    return _through(impl.UnboundedQueue(), n, 4, 4)


@row(
    "queue.bounded_pinned",
    "Queue(16), 1 producer and 1 consumer, one core",
    needs=["Queue"],
    least=500,
    quick=200,
    cores=1,
)
@row("queue.bounded", "Queue(16), 1 producer and 1 consumer", needs=["Queue"], target=3, least=500, quick=200)
def bounded(impl, n):
    """Both sides have to wait for each other."""
    return _through(impl.Queue(16), n, 1, 1)


@row(
    "queue.batch",
    "100 items in and out (raddle: put_many, get_many)",
    needs=["put_all"],
    solo=True,
    least=1,
    step=1,
    quick=5,
)
def batch(impl, n):
    """A batch per operation; the standard library has one call per item."""
    queue = impl.UnboundedQueue()
    items = list(range(100))
    start = mark()
    for _ in repeat(None, n):
        impl.put_all(queue, items)
        out = impl.get_all(queue, 100)
    spent = since(start)
    check(out == items, "the batch came out changed")
    return spent
