"""Signal handlers, finalizers, weakref and gc callbacks that call release, set, notify and put at any point.

The standard library promises this of SimpleQueue.put alone; raddle of all of it. Each program runs in a
child, so that a deadlock fails one test.
"""

import pytest

from tools import SEED, check_child, scaled

pytestmark = [pytest.mark.stress, pytest.mark.signals, pytest.mark.timeout(600)]

SETUP = """
import gc, random, signal, sys, time, weakref
from tools import signal_storm
rng = random.Random(int(sys.argv[1]))
seconds = float(sys.argv[2])
fifo, lifo, heap, simple = queue.Queue(), queue.LifoQueue(), queue.PriorityQueue(), queue.SimpleQueue()
bounded = queue.Queue(2)
lock, rlock, event = threading.Lock(), threading.RLock(), threading.Event()
semaphore, condition = threading.Semaphore(0), threading.Condition()
counts = dict.fromkeys(["put", "got", "released", "acquired"], 0)
number = 0

def put_somewhere():
    global number
    number += 1
    rng.choice(QUEUES).put(number)
    counts["put"] += 1

def release():
    semaphore.release()
    counts["released"] += 1

def notify():
    with condition:
        condition.notify()

ACTIONS = [put_somewhere, release, event.set, event.clear, notify]
QUEUES = [fifo, lifo, heap, simple]

def act():
    rng.choice(ACTIONS)()

def work():
    # What is interrupted at any point.
    each = rng.choice(QUEUES)
    choice = rng.randrange(9)
    if choice == 0:
        put_somewhere()
    elif choice == 1:
        try:
            each.get_nowait()
            counts["got"] += 1
        except queue.Empty:
            pass
    elif choice == 2:
        try:
            each.get(timeout=0.001)
            counts["got"] += 1
        except queue.Empty:
            pass
    elif choice == 3:
        with lock, rlock, rlock:
            each.qsize()
    elif choice == 4:
        event.wait(0.0005)
        event.set()
    elif choice == 5:
        release()
        if semaphore.acquire(timeout=0.0005):
            counts["acquired"] += 1
    elif choice == 6:
        with condition:
            condition.notify_all()
            condition.wait(0.0005)
    elif choice == 7:
        timer = threading.Timer(1000, print)
        timer.daemon = True
        timer.start()
        timer.cancel()
        timer.join()
    else:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

def settle():
    for each in QUEUES:
        while not each.empty():
            each.get_nowait()
            counts["got"] += 1
    while semaphore.acquire(False):
        counts["acquired"] += 1
    assert counts["put"] == counts["got"], counts
    assert counts["released"] == counts["acquired"], counts
    assert lock.acquire(False) and rlock.acquire(False) and condition.acquire(False)
    print("settled")
"""


def run(impl, body, seconds=1.0):
    print(f"RADDLE_SEED={SEED}")
    program = impl.prelude + SETUP + body
    check_child(program, SEED, min(60, seconds * scaled(1)), out="settled\n", timeout=120 + 60 * scaled(1))


def test_signal_handlers(raddle):
    run(
        raddle,
        """
with signal_storm(act, 0.0002, random.Random(rng.random())):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        work()
settle()
""",
    )


def test_signal_handlers_beside_other_threads(raddle):
    """Counters of the main thread only; the others keep the primitives contended."""
    run(
        raddle,
        """
stop = []
sys.setswitchinterval(0.0005)
def churn():
    while not stop:
        with lock:
            with rlock:
                pass
        with condition:
            condition.notify_all()
        event.set()
        bounded.put(1)
        bounded.get()
        for each in QUEUES:
            each.qsize(), each.empty()
threads = [threading.Thread(target=churn) for _ in range(2)]
for thread in threads:
    thread.start()
with signal_storm(act, 0.0005, random.Random(rng.random())):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        work()
stop.append(1)
for thread in threads:
    thread.join()
settle()
""",
    )


def test_finalizers(raddle):
    """Cycles collected at any allocation, whose finalizers put, release, set and notify."""
    run(
        raddle,
        """
class Garbage:
    def __init__(self):
        self.me = self
    def __del__(self):
        act()
gc.set_threshold(7, 2, 2)
end = time.monotonic() + seconds
while time.monotonic() < end:
    Garbage()
    work()
gc.collect()
gc.set_threshold(700, 10, 10)
gc.collect()
settle()
""",
    )


def test_finalizers_of_the_items(raddle):
    """Items that put, release, set and notify when a queue lets go of them."""
    run(
        raddle,
        """
class Item(int):
    armed = True
    def __del__(self):
        if Item.armed and self % 2:
            act()
def put_somewhere():
    global number
    number += 1
    rng.choice(QUEUES).put(Item(number))
    counts["put"] += 1
ACTIONS[0] = put_somewhere
end = time.monotonic() + seconds
while time.monotonic() < end:
    work()
Item.armed = False
settle()
""",
    )


def test_weakref_callbacks(raddle):
    run(
        raddle,
        """
class Garbage:
    pass
references = []
gc.set_threshold(7, 2, 2)
end = time.monotonic() + seconds
while time.monotonic() < end:
    one = Garbage()
    one.me = one
    references.append(weakref.ref(one, lambda _: act()))
    del one
    work()
    del references[:-100]
gc.set_threshold(700, 10, 10)
references.clear()
settle()
""",
    )


def test_gc_callbacks(raddle):
    run(
        raddle,
        """
busy = []
def callback(phase, info):
    if not busy:
        busy.append(1)
        act()
        busy.pop()
gc.callbacks.append(callback)
gc.set_threshold(7, 2, 2)
end = time.monotonic() + seconds
while time.monotonic() < end:
    work()
gc.callbacks.clear()
settle()
""",
    )


def test_simple_queue_put(impl):
    """The one case that both promise."""
    body = """
QUEUES[:] = [simple]
ACTIONS[:] = [put_somewhere]
def work():
    if rng.random() < 0.5:
        put_somewhere()
    else:
        try:
            simple.get(timeout=rng.choice([0, 0.001]))
            counts["got"] += 1
        except queue.Empty:
            pass
class Garbage:
    def __init__(self):
        self.me = self
    def __del__(self):
        act()
gc.set_threshold(50, 2, 2)
with signal_storm(act, 0.0005, random.Random(rng.random())):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        Garbage()
        work()
gc.set_threshold(700, 10, 10)
gc.collect()
settle()
"""
    run(impl, body)


def test_handlers_that_raise_leave_nothing_locked(raddle):
    """Exceptions at any point of any call: afterwards everything can still be used."""
    run(
        raddle,
        """
class Alarm(Exception):
    pass
def fail():
    raise Alarm
def on_alarm(signum, frame):
    signal.setitimer(signal.ITIMER_REAL, max(1e-4, rng.expovariate(2000)))
    raise Alarm
signal.signal(signal.SIGALRM, on_alarm)
end = time.monotonic() + seconds
calls = [lambda: fifo.put(1), lambda: fifo.get(timeout=0.001), lambda: bounded.put(1, timeout=0.001),
         lambda: bounded.get(timeout=0.001), lambda: heap.put(1), lambda: heap.get(timeout=0.001),
         lambda: simple.put(1), lambda: simple.get(timeout=0.001), event.set, event.clear,
         lambda: event.wait(0.001), lambda: fifo.put_many([1, 2, 3]),
         lambda: fifo.get_many(2, timeout=0.001), semaphore.release,
         lambda: semaphore.acquire(timeout=0.001)]
while time.monotonic() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
        while True:
            try:
                rng.choice(calls)()
            except (queue.Empty, queue.Full):
                pass
    except Alarm:
        pass
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
for each in (fifo, bounded, heap):
    assert each.mutex.acquire(timeout=5)
    each.mutex.release()
    with each.mutex:
        each.queue.clear()
    each.put(1, timeout=5)
    assert each.get(timeout=5) == 1
while not simple.empty():
    simple.get_nowait()
simple.put(1)
assert simple.get(timeout=5) == 1
thread = threading.Thread(target=event.wait, args=(5,))
thread.start()
event.set()
thread.join(5)
assert not thread.is_alive()
print("settled")
""",
    )
