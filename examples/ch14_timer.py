"""Chapter 14: timers: a function called later.

Shows a Timer that fires, one that is cancelled, one that starts the next, and that pending timers cost no
thread of their own: ten thousand of them wait in one heap.

Run it with:  python examples/ch14_timer.py
"""

import os

from raddle.threading import Event, Thread, Timer

fired = Event()
timer = Timer(0.05, fired.set)
timer.start()
print("pending:", timer.is_alive(), "- a Timer is a Thread:", isinstance(timer, Thread))
fired.wait()
timer.join()
print("fired:", fired.is_set(), "- alive:", timer.is_alive())

never = Timer(60, print, args=("this is not printed",))
never.start()
never.cancel()
never.join()
print("cancelled: alive:", never.is_alive())

# A timer fires once. One that is to come again starts the next.
ticks = []
last_tick = Event()


def tick(number):
    ticks.append(number)
    if number < 3:
        Timer(0.02, tick, args=(number + 1,)).start()
    else:
        last_tick.set()


tick(1)
last_tick.wait()
print("ticks:", ticks)

# None of these will fire.
late = [Timer(3600, fired.set) for _ in range(10_000)]
for timer in late:
    timer.start()
threads = len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0
print(
    "pending timers:",
    sum(timer.is_alive() for timer in late),
    "- threads of the process below 10:",
    threads < 10,
)
for timer in late:
    timer.cancel()
for timer in late:
    timer.join()
print("pending timers:", sum(timer.is_alive() for timer in late))
