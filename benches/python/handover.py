"""Hand-over: two threads wake each other in turn; one operation is one wake-up.

Measured with each thread pinned to a core of its own; with both pinned to one core, where spinning can only hurt;
wherever the system puts them, which often is one core as well, since the GIL lets only one run; and on a machine whose
cores are all busy with other processes, where a thread that yields while it spins may lose its core for a time slice.
"""

import contextlib
import os
import subprocess
import sys
from itertools import repeat

from .harness import check, row, together

_TWO = {"target": 8, "least": 100, "step": 2, "quick": 100, "needs_cpus": 2, "cores": 2}
_FREE = {"least": 100, "step": 2, "quick": 100, "needs_cpus": 2}
_ONE = {"target": 3, "least": 100, "step": 2, "quick": 100, "cores": 1}


@row("handover.event_pinned", "hand-over by Event, one core", needs=["Event"], **_ONE)
@row("handover.event_free", "hand-over by Event, placed by the system", needs=["Event"], **_FREE)
@row("handover.event", "hand-over by Event, two cores", needs=["Event"], **_TWO)
def by_event(impl, n):
    """set, wait, clear."""
    ping, pong = impl.Event(), impl.Event()

    def first():
        for _ in repeat(None, n // 2):
            ping.set()
            pong.wait()
            pong.clear()

    def second():
        for _ in repeat(None, n // 2):
            ping.wait()
            ping.clear()
            pong.set()

    spent = together(first, second)
    check(not ping.is_set() and not pong.is_set(), "an event is left set")
    return spent


@contextlib.contextmanager
def _busy_machine():
    """As many processes that only burn CPU as there are cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    burn = "print(flush=True)\nwhile True: pass"
    processes = []
    try:
        for _ in range(cores):
            processes.append(subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE))
        for process in processes:
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


#: Here a sample has to be long: others take time slices of 3 to 4 ms from it, by chance.
_BUSY = {"least": 4_000, "most": 4_000, "step": 2, "quick": 20, "rounds": 2, "slices": 4}


@row(
    "handover.event_busy", "hand-over by Event, all cores busy with other processes", needs=["Event"], **_BUSY
)
def by_event_busy(impl, n):
    """The same while others want the cores."""
    with _busy_machine():
        return by_event(impl, n)


@row(
    "handover.queue_busy",
    "hand-over by Queue(1), all cores busy with other processes",
    needs=["Slot"],
    **_BUSY,
)
def by_queue_busy(impl, n):
    """The same while others want the cores."""
    with _busy_machine():
        return by_queue(impl, n)


@row("handover.condition_pinned", "hand-over by Condition, one core", needs=["Condition"], **_ONE)
@row("handover.condition_free", "hand-over by Condition, placed by the system", needs=["Condition"], **_FREE)
@row("handover.condition", "hand-over by Condition, two cores", needs=["Condition"], **_TWO)
def by_condition(impl, n):
    """Wait until it is my turn, pass the turn on, notify."""
    condition = impl.Condition()
    turn = 0

    def body(me):
        def run():
            nonlocal turn
            for _ in repeat(None, n // 2):
                with condition:
                    while turn % 2 != me:
                        condition.wait()
                    turn += 1
                    condition.notify()

        return run

    spent = together(body(0), body(1))
    check(turn == n, "turns were lost")
    return spent


@row("handover.semaphore_pinned", "hand-over by Semaphore, one core", needs=["Semaphore"], **_ONE)
@row("handover.semaphore_free", "hand-over by Semaphore, placed by the system", needs=["Semaphore"], **_FREE)
@row("handover.semaphore", "hand-over by Semaphore, two cores", needs=["Semaphore"], **_TWO)
def by_semaphore(impl, n):
    """release yours, acquire mine."""
    ping, pong = impl.Semaphore(0), impl.Semaphore(0)

    def first():
        for _ in repeat(None, n // 2):
            ping.release()
            pong.acquire()

    def second():
        for _ in repeat(None, n // 2):
            ping.acquire()
            pong.release()

    return together(first, second)


@row("handover.queue_pinned", "hand-over by Queue(1), one core", needs=["Slot"], **_ONE)
@row("handover.queue_free", "hand-over by Queue(1), placed by the system", needs=["Slot"], **_FREE)
@row("handover.queue", "hand-over by Queue(1), two cores", needs=["Slot"], **_TWO)
def by_queue(impl, n):
    """One item there, one item back."""
    there, back = impl.Slot(), impl.Slot()
    heard = 0

    def first():
        nonlocal heard
        for number in range(n // 2):
            there.put(number)
            heard += back.get()

    def second():
        for _ in repeat(None, n // 2):
            back.put(there.get())

    spent = together(first, second)
    half = n // 2
    check(heard == half * (half - 1) // 2, "items were lost")
    return spent


@row("handover.barrier_pinned", "Barrier of 2, one core", needs=["Barrier"], least=100, quick=50, cores=1)
@row(
    "handover.barrier_free",
    "Barrier of 2, placed by the system",
    needs=["Barrier"],
    least=100,
    quick=50,
    needs_cpus=2,
)
@row(
    "handover.barrier",
    "Barrier of 2, two cores",
    needs=["Barrier"],
    least=100,
    quick=50,
    needs_cpus=2,
    cores=2,
)
def by_barrier(impl, n):
    """Two threads meet n times; one operation is one meeting."""
    barrier = impl.Barrier(2)

    def body():
        for _ in repeat(None, n):
            barrier.wait()

    return together(body, body)
