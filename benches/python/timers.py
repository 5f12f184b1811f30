"""Timer: armed and cancelled, and fired."""

import threading
from itertools import repeat

from .harness import SAMPLE_LIMIT, check, mark, row, since


def _nothing():
    pass


@row("timer.cancel", "Timer create+start+cancel", needs=["Timer"], target=100, quick=20)
def cancel(impl, n):
    """A timeout that is not needed after all. The standard library's threads are joined after the clock stops."""
    make = impl.Timer
    made = []
    start = mark()
    for _ in repeat(None, n):
        timer = make(3600.0, _nothing)
        timer.start()
        timer.cancel()
        made.append(timer)
    spent = since(start)
    for timer in made:
        timer.join(SAMPLE_LIMIT / 2)
    check(not any(timer.is_alive() for timer in made), "a cancelled timer is still alive")
    return spent


@row("timer.fire", "Timer create+start, all due at once, until the last has fired", needs=["Timer"], quick=20)
def fire(impl, n):
    """An interval of zero; the clock stops when the last callback has run."""
    done = threading.Event()
    fired = 0
    guard = threading.Lock()

    def count():
        nonlocal fired
        with guard:
            fired += 1
            if fired == n:
                done.set()

    make = impl.Timer
    start = mark()
    for _ in repeat(None, n):
        make(0.0, count).start()
    check(done.wait(SAMPLE_LIMIT / 2), "timers did not fire")
    return since(start)
