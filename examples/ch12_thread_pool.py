"""Chapter 12: a thread pool: a few threads for many tasks.

Shows submit() and the states of a Future, callbacks, map() with its results in order, a pool that takes no more
tasks than it has room for, a task that is asked to stop while it runs, and an exception that nobody looked at.

Run it with:  python examples/ch12_thread_pool.py
"""

import logging

from raddle import cancel
from raddle.concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from raddle.queue import Full
from raddle.threading import Event, current_thread

# Two workers for three loaves: the third waits until a worker is free.

oven = Event(name="oven")


def bake(loaf):
    oven.wait()
    return f"{loaf} by {current_thread().name}"


with ThreadPoolExecutor(max_workers=2, thread_name_prefix="baker") as pool:
    rye, wheat, spelt = (pool.submit(bake, loaf) for loaf in ("rye", "wheat", "spelt"))
    while not wheat.running():
        pass
    print("rye running:", rye.running(), "- spelt running:", spelt.running(), "- spelt done:", spelt.done())
    print("cancel rye:", rye.cancel(), "- cancel spelt:", spelt.cancel(), spelt.cancelled())
    oven.set()
    print(rye.result().startswith("rye by baker_"), wheat.result().startswith("wheat by baker_"))
try:
    pool.submit(bake, "late loaf")
except RuntimeError as error:
    print("after the end of the pool:", error)


# A callback is called as soon as the result is there. Nobody has to wait for it.

received = []
with ThreadPoolExecutor(max_workers=2) as pool:
    for number in (10, 100):
        pool.submit(sum, range(number)).add_done_callback(lambda future: received.append(future.result()))
print("callbacks:", sorted(received))


# map() gives the results in the order of the arguments, whoever was first. Exceptions come with the results.

with ThreadPoolExecutor(max_workers=4) as pool:
    print("map:", list(pool.map(pow, (2, 3, 4), (10, 3, 2))))
    bad = pool.submit(int, "twelve")
    print("exception:", type(bad.exception()).__name__)


# A limit for tasks that wait: without one, a fast producer fills the memory. on_full says what happens instead.

gate = Event(name="gate")
with ThreadPoolExecutor(max_workers=1, max_pending=2, on_full="raise") as pool:
    first = pool.submit(gate.wait)
    while not first.running():
        pass
    taken = 0
    try:
        while True:
            pool.submit(abs, taken)
            taken += 1
    except Full as error:
        print("taken:", taken, "-", error)
    gate.set()


# A task that runs can be asked to stop: its next wait in raddle, or check(), raises.


def count_sheep():
    while True:
        cancel.sleep(0.01)


with ThreadPoolExecutor(max_workers=2) as pool:
    sheep = pool.submit(count_sheep)
    while not sheep.running():
        pass
    print("asked to stop:", sheep.cancel(running=True))
    try:
        sheep.result()
    except CancelledError as error:
        print("ended by", type(error).__name__)
    slow = pool.options(timeout=0.02).submit(count_sheep)
    wait([slow])
    print("its time was up:", type(slow.exception()).__name__)


# The exception of a task whose future nobody keeps is logged once, with the place of its submit().

heard = []


class Listener(logging.Handler):
    def emit(self, record):
        heard.append(record)


logger = logging.getLogger("concurrent.futures")
logger.addHandler(Listener())
logger.propagate = False
with ThreadPoolExecutor(max_workers=1) as pool:
    pool.submit(int, "nobody looks")
    pool.submit(print, "the pool goes on").result()
print(
    "logged:",
    [record.exc_info[0].__name__ for record in heard],
    "ch12_thread_pool.py" in heard[0].getMessage(),
)
