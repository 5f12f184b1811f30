"""Bytes per object: growth of the process over many objects, each contender in a process of its own.

The value is the growth of resident anonymous memory (RssAnon) per object, and beside it that of VmData, where the
stacks of one thread per Timer show. Objects are held in a list that exists, with all its pages, before the first
reading.
"""

import threading

from .harness import check, row

_MANY = {
    "kind": "memory",
    "own_process": True,
    "contenders": ("stdlib", "raddle", "culsans", "aiologic", "mp_threadpool"),
    "least": 50_000,
    "quick": 2_000,
    "step": 1,
}


def _status():
    """RssAnon and VmData in bytes."""
    with open("/proc/self/status", encoding="ascii") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return tuple(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "VmData"))


def _growth(n, make):
    warm = [make() for _ in range(10)]
    kept = [None] * n
    before = _status()
    for place in range(n):
        kept[place] = make()
    after = _status()
    check(len(warm) == 10 and kept[-1] is not None, "the objects are gone")
    return (after[0] - before[0]) / n, (after[1] - before[1]) / n


@row("memory.lock", "Lock", needs=["Lock"], **_MANY)
def lock(impl, n, seconds):
    return _growth(n, impl.Lock)


@row("memory.rlock", "RLock", needs=["RLock"], **_MANY)
def rlock(impl, n, seconds):
    return _growth(n, impl.RLock)


@row("memory.condition", "Condition", needs=["Condition"], **_MANY)
def condition(impl, n, seconds):
    return _growth(n, impl.Condition)


@row("memory.semaphore", "Semaphore", needs=["Semaphore"], **_MANY)
def semaphore(impl, n, seconds):
    return _growth(n, impl.Semaphore)


@row("memory.event", "Event", needs=["Event"], **_MANY)
def event(impl, n, seconds):
    return _growth(n, impl.Event)


@row("memory.queue", "Queue", needs=["Queue"], **_MANY)
def queue(impl, n, seconds):
    return _growth(n, impl.Queue)


@row(
    "memory.queue_items",
    "an item in a Queue (a small integer)",
    needs=["UnboundedQueue"],
    **{**_MANY, "contenders": ("stdlib", "raddle", "culsans", "aiologic", "simplequeue"), "least": 1_000_000},
)
def queue_items(impl, n, seconds):
    one = impl.UnboundedQueue()
    for _ in range(10):
        one.put(7)
    before = _status()
    for _ in range(n):
        one.put(7)
    after = _status()
    check(one.get() == 7, "the items are gone")
    return (after[0] - before[0]) / n, (after[1] - before[1]) / n


@row("memory.timer", "pending Timer", needs=["Timer"], **{**_MANY, "least": 1_000, "quick": 100})
def timer(impl, n, seconds):
    def make():
        one = impl.Timer(3600, print)
        one.daemon = True
        one.start()
        return one

    return _growth(n, make)


@row("memory.future", "Future", needs=["Future"], **_MANY)
def future(impl, n, seconds):
    return _growth(n, impl.Future)


@row(
    "memory.task",
    "task that waits for a worker, with its Future",
    needs=["ThreadPoolExecutor"],
    target=2,
    **_MANY,
)
def task(impl, n, seconds):
    """One worker, which waits; the function and its argument are the same for all."""
    gate = threading.Event()
    with impl.ThreadPoolExecutor(1) as pool:
        pool.submit(gate.wait)
        growth = _growth(n, lambda: pool.submit(abs, 7))
        gate.set()
    return growth
