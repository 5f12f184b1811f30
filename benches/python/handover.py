"""Hand-over: two threads wake each other in turn; one operation is one wake-up.

Measured twice: wherever the system puts the threads, and pinned to one core, where spinning can only hurt.
The CPU time of these rows is kept too (in the JSON file), because a spin buys latency with it.
"""

from itertools import repeat

from .harness import check, row, together

_WIDE = {"target": 8, "least": 100, "step": 2, "quick": 100, "needs_cpus": 2}
_ONE = {"target": 3, "least": 100, "step": 2, "quick": 100, "cores": 1}


@row("handover.event_pinned", "hand-over by Event, one core", needs=["Event"], **_ONE)
@row("handover.event", "hand-over by Event", needs=["Event"], **_WIDE)
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


@row("handover.condition_pinned", "hand-over by Condition, one core", needs=["Condition"], **_ONE)
@row("handover.condition", "hand-over by Condition", needs=["Condition"], **_WIDE)
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
@row("handover.semaphore", "hand-over by Semaphore", needs=["Semaphore"], **_WIDE)
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
@row("handover.queue", "hand-over by Queue(1)", needs=["Slot"], **_WIDE)
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
@row("handover.barrier", "Barrier of 2", needs=["Barrier"], least=100, quick=50, needs_cpus=2)
def by_barrier(impl, n):
    """Two threads meet n times; one operation is one meeting."""
    barrier = impl.Barrier(2)

    def body():
        for _ in repeat(None, n):
            barrier.wait()

    return together(body, body)
