"""Event, Semaphore and Condition without a wait, and notify with threads that wait."""

import threading
import time
from itertools import repeat

from .harness import SAMPLE_LIMIT, check, mark, row, since


@row("event.set_clear", "Event set+clear", needs=["Event"], solo=True, target=20)
def set_clear(impl, n):
    """Nobody waits."""
    event = impl.Event()
    start = mark()
    for _ in repeat(None, n // 5):
        event.set()
        event.clear()
        event.set()
        event.clear()
        event.set()
        event.clear()
        event.set()
        event.clear()
        event.set()
        event.clear()
    spent = since(start)
    check(not event.is_set(), "the event is left set")
    return spent


@row("event.is_set", "Event is_set", needs=["Event"], solo=True)
def is_set(impl, n):
    """What a worker's loop asks at every turn."""
    event = impl.Event()
    event.set()
    start = mark()
    for _ in repeat(None, n // 10):
        event.is_set()
        event.is_set()
        event.is_set()
        event.is_set()
        event.is_set()
        event.is_set()
        event.is_set()
        event.is_set()
        event.is_set()
        event.is_set()
    return since(start)


@row("event.wait_set", "Event wait, already set", needs=["Event"], solo=True)
def wait_set(impl, n):
    """Nothing to wait for."""
    event = impl.Event()
    event.set()
    start = mark()
    for _ in repeat(None, n // 5):
        event.wait()
        event.wait()
        event.wait()
        event.wait()
        event.wait()
    return since(start)


@row("event.new", "Event()", needs=["Event"], solo=True)
def new_event(impl, n):
    """Creation."""
    make = impl.Event
    start = mark()
    for _ in repeat(None, n):
        make()
    return since(start)


def _pairs(semaphore, n):
    start = mark()
    for _ in repeat(None, n // 5):
        semaphore.acquire()
        semaphore.release()
        semaphore.acquire()
        semaphore.release()
        semaphore.acquire()
        semaphore.release()
        semaphore.acquire()
        semaphore.release()
        semaphore.acquire()
        semaphore.release()
    return since(start)


@row("semaphore.pair", "Semaphore acquire+release", needs=["Semaphore"], solo=True, target=20)
def semaphore_pair(impl, n):
    """One permit, nobody else."""
    return _pairs(impl.Semaphore(1), n)


@row("semaphore.bounded", "BoundedSemaphore acquire+release", needs=["BoundedSemaphore"], solo=True)
def bounded_pair(impl, n):
    """The same with an upper bound."""
    return _pairs(impl.BoundedSemaphore(1), n)


@row("semaphore.with", "with Semaphore", needs=["Semaphore"], solo=True)
def semaphore_with(impl, n):
    """with semaphore: pass"""
    semaphore = impl.Semaphore(2)
    start = mark()
    for _ in repeat(None, n):
        with semaphore:
            pass
    return since(start)


@row("condition.notify", "Condition notify, nobody waits", needs=["Condition"], solo=True, target=3)
def notify(impl, n):
    """The lock is held, as it must be."""
    condition = impl.Condition()
    with condition:
        start = mark()
        for _ in repeat(None, n // 5):
            condition.notify()
            condition.notify()
            condition.notify()
            condition.notify()
            condition.notify()
        return since(start)


@row("condition.with", "with Condition", needs=["Condition"], solo=True)
def condition_with(impl, n):
    """with condition: pass"""
    condition = impl.Condition()
    start = mark()
    for _ in repeat(None, n):
        with condition:
            pass
    return since(start)


def _with_waiters(impl, n, wake):
    """Time `wake` while n threads wait; the lock is held for all of it."""
    condition = impl.Condition()
    waiting = woken = 0

    def body():
        nonlocal waiting, woken
        with condition:
            waiting += 1
            condition.wait()
            woken += 1

    threads = [threading.Thread(target=body, daemon=True) for _ in range(n)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + SAMPLE_LIMIT / 2
    while True:
        with condition:
            # A thread counts itself under the lock and gives the lock up only inside wait().
            if waiting == n:
                start = mark()
                wake(condition)
                spent = since(start)
                break
        check(time.monotonic() < deadline, "threads did not come to wait")
        time.sleep(0.001)
    for thread in threads:
        thread.join(SAMPLE_LIMIT / 2)
    check(woken == n, f"{n - woken} waiters were not woken")
    return spent


_CROWD = {"needs": ["Condition"], "least": 100, "most": 100, "step": 1, "quick": 100}


@row("condition.notify_waiters", "Condition notify, 100 threads wait", target=3, **_CROWD)
def notify_waiters(impl, n):
    """One notify per waiter."""

    def wake(condition):
        for _ in repeat(None, n):
            condition.notify()

    return _with_waiters(impl, n, wake)


@row("condition.notify_all", "Condition notify_all of 100, per thread", **_CROWD)
def notify_all(impl, n):
    """One notify_all; the figure is per waiter."""
    return _with_waiters(impl, n, lambda condition: condition.notify_all())
