"""sched.scheduler: entering, running and cancelling many events."""

import random
import time

from .harness import check, mark, row, since

#: Seed of times and priorities; the same for every contender.
SEED = 15

#: Events that wait while some are cancelled.
PENDING = 20_000


def _never():
    raise AssertionError("a cancelled event ran")


@row(
    "sched.run",
    "sched enter+run of 50,000 events, per event",
    needs=["scheduler"],
    target=5,
    least=50_000,
    most=50_000,
    quick=1_000,
    step=1,
    rounds=1,
)
def enter_and_run(impl, n):
    """Times in the past, in random order; actions that only append."""
    return _enter_and_run(impl.scheduler(), n)


@row(
    "sched.run_engine",
    "sched enter+run of 50,000, empty delayfunc, per event",
    needs=["scheduler"],
    solo=True,
    least=50_000,
    most=50_000,
    quick=1_000,
    step=1,
)
def engine(impl, n):
    """The heap and the calls alone; time.sleep(0), called after every event, costs more than they do."""
    return _enter_and_run(impl.scheduler(time.monotonic, lambda seconds: None), n)


def _enter_and_run(scheduler, n):
    rng = random.Random(SEED)
    base = time.monotonic() - 10.0
    times = [base + rng.random() for _ in range(n)]
    ran = []
    note = ran.append
    start = mark()
    for when in times:
        scheduler.enterabs(when, 1, note, (when,))
    scheduler.run()
    spent = since(start)
    check(ran == sorted(times), "events ran out of order")
    return spent


@row(
    "sched.cancel",
    "sched cancel, 20,000 pending",
    needs=["scheduler"],
    solo=True,
    target=1000,
    least=10,
    most=PENDING // 2,
    step=1,
    quick=2,
)
def cancel(impl, n):
    """Random events out of 20,000; at most half of them, so that the scheduler stays full."""
    rng = random.Random(SEED)
    scheduler = impl.scheduler()
    base = time.monotonic() + 3600.0
    events = [scheduler.enterabs(base + rng.random(), 1, _never) for _ in range(PENDING)]
    chosen = rng.sample(events, n)
    start = mark()
    for event in chosen:
        scheduler.cancel(event)
    spent = since(start)
    check(len(scheduler.queue) == PENDING - n, "the wrong number of events is left")
    return spent
