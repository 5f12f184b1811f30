"""Chapter 15: a schedule of events.

Shows that events run in the order of their times, those of one time by priority and then as entered;
cancelling; a clock of one's own, with which a day passes at once; and raddle's every(), which repeats without
drifting.

Run it with:  python examples/ch15_sched.py
"""

import time
from itertools import pairwise

from raddle.sched import scheduler
from raddle.threading import Thread


class Clock:
    """A clock that is only moved by waiting for it."""

    def __init__(self):
        self.now = 0.0

    def time(self):
        return self.now

    def sleep(self, seconds):
        self.now += max(0.0, seconds)


clock = Clock()
day = scheduler(clock.time, clock.sleep)
HOUR = 3600


def note(text):
    print(f"{clock.now / HOUR:4.1f} h  {text}")


day.enterabs(12 * HOUR, 2, note, argument=("lunch, priority 2",))
day.enterabs(12 * HOUR, 1, note, argument=("bell, priority 1",))
day.enterabs(12 * HOUR, 2, note, argument=("dessert, priority 2, entered later",))
day.enter(8 * HOUR, 1, note, kwargs={"text": "work"})
nap = day.enter(13 * HOUR, 1, note, argument=("a nap that is cancelled",))
print("events:", len(day.queue))
day.cancel(nap)
day.run()
print("left:", day.empty())
try:
    day.cancel(nap)
except ValueError:
    print("an event that is gone cannot be cancelled: ValueError")

# Every two hours, three times. The action takes half an hour; the next beginning is not put off by that.
begun = []


def inspect():
    begun.append(clock.now / HOUR)
    clock.now += HOUR / 2
    if len(begun) == 3:
        rounds.cancel()


clock.now = 0.0
rounds = day.every(2 * HOUR, inspect)
day.run()
gaps = [after - before for before, after in pairwise(begun)]
print("hours between rounds:", gaps)

# On the real clock, in a thread: run() waits for each event, whatever the order in which they were entered.
order = []
real = scheduler(time.monotonic, time.sleep)
for delay in (0.06, 0.02, 0.04):
    real.enter(delay, 1, order.append, argument=(delay,))
worker = Thread(target=real.run)
worker.start()
worker.join()
print("on the real clock:", order)
