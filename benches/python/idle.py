"""What waiting costs: CPU time of threads that have nothing to do.

The first rows run each contender in a process of its own: eight threads block, the main thread sleeps for a second, and
the CPU clock of the process and its voluntary context switches tell what the second cost. The value is CPU µs per
thread and second of waiting. A wait that polls shows as switches; a wait that spins shows as microseconds. Rows that
say "first second" begin when the threads block, and count what an implementation does once per wait, such as raddle's
looks for a deadlock; the others begin a second later.

The last rows count the CPU time of waits that do end: a wake-up every 5 ms, which any spin before the sleep pays for,
and waits that time out after 5 ms.
"""

import resource
import threading
import time
from itertools import repeat

from .harness import SAMPLE_LIMIT, check, mark, row, since

_IDLE = {
    "kind": "idle",
    "own_process": True,
    "contenders": ("stdlib", "raddle", "culsans", "aiologic"),
    "least": 8,
    "quick": 8,
    "step": 1,
}


def _idle(n, seconds, wait, settle=True):
    """Block n threads in `wait`; (CPU µs, voluntary switches), both per thread and second.

    The threads never return: the process ends with os._exit after the figure is taken.
    """
    came = threading.Semaphore(0)

    def body():
        came.release()
        wait()

    for _ in range(n):
        threading.Thread(target=body, daemon=True).start()
    for _ in range(n):
        check(came.acquire(timeout=SAMPLE_LIMIT / 2), "a thread did not start")
    time.sleep(seconds if settle else 0.02)
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    start = mark()
    time.sleep(seconds)
    wall, cpu = since(start)
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - switches
    return cpu * 1e6 / n / wall, switches / n / wall


@row("idle.lock", "8 threads wait in Lock.acquire", needs=["Lock"], **_IDLE)
def lock(impl, n, seconds):
    one = impl.Lock()
    one.acquire()
    return _idle(n, seconds, one.acquire)


@row("idle.rlock", "8 threads wait in RLock.acquire", needs=["RLock"], **_IDLE)
def rlock(impl, n, seconds):
    one = impl.RLock()
    one.acquire()
    return _idle(n, seconds, one.acquire)


@row("idle.condition", "8 threads wait in Condition.wait", needs=["Condition"], **_IDLE)
def condition(impl, n, seconds):
    one = impl.Condition()

    def wait():
        with one:
            one.wait()

    return _idle(n, seconds, wait)


@row("idle.semaphore", "8 threads wait in Semaphore.acquire", needs=["Semaphore"], **_IDLE)
def semaphore(impl, n, seconds):
    return _idle(n, seconds, impl.Semaphore(0).acquire)


@row("idle.event", "8 threads wait in Event.wait", needs=["Event"], **_IDLE)
def event(impl, n, seconds):
    return _idle(n, seconds, impl.Event().wait)


@row("idle.event_first", "8 threads wait in Event.wait, first second", needs=["Event"], **_IDLE)
def event_first(impl, n, seconds):
    return _idle(n, seconds, impl.Event().wait, settle=False)


@row("idle.queue_first", "8 threads wait in Queue.get, first second", needs=["Queue"], **_IDLE)
def queue_first(impl, n, seconds):
    return _idle(n, seconds, impl.Queue().get, settle=False)


@row("idle.event_timed", "8 threads wait in Event.wait(60)", needs=["Event"], **_IDLE)
def event_timed(impl, n, seconds):
    one = impl.Event()
    return _idle(n, seconds, lambda: one.wait(60))


@row("idle.barrier", "8 threads wait in Barrier.wait", needs=["Barrier"], **_IDLE)
def barrier(impl, n, seconds):
    return _idle(n, seconds, impl.Barrier(n + 1).wait)


@row("idle.queue_get", "8 threads wait in Queue.get", needs=["Queue"], **_IDLE)
def queue_get(impl, n, seconds):
    return _idle(n, seconds, impl.Queue().get)


@row("idle.queue_put", "8 threads wait in Queue(1).put", needs=["Queue"], **_IDLE)
def queue_put(impl, n, seconds):
    one = impl.Queue(1)
    one.put(0)
    return _idle(n, seconds, lambda: one.put(1))


@row("idle.simplequeue", "8 threads wait in SimpleQueue.get", needs=["SimpleQueue"], **_IDLE)
def simplequeue(impl, n, seconds):
    return _idle(n, seconds, impl.SimpleQueue().get)


@row("idle.join", "8 threads wait in Thread.join", needs=["Thread"], **_IDLE)
def join(impl, n, seconds):
    forever = threading.Event()
    one = impl.Thread(target=forever.wait, daemon=True)
    one.start()
    return _idle(n, seconds, one.join)


@row("idle.timer", "8 Timers pending", needs=["Timer"], **_IDLE)
def timer(impl, n, seconds):
    def arm():
        one = impl.Timer(3600, print)
        one.daemon = True
        one.start()

    return _idle(n, seconds, arm)


@row("idle.sched", "8 threads wait in scheduler.run", needs=["scheduler"], **_IDLE)
def sched(impl, n, seconds):
    def wait():
        one = impl.scheduler()
        one.enter(3600, 1, print)
        one.run()

    return _idle(n, seconds, wait)


_PACE = 0.005


@row(
    "cpu.paced_event",
    "a wake-up by Event every 5 ms, CPU time per wake-up",
    needs=["Event"],
    kind="cpu",
    least=60,
    most=60,
    step=1,
    quick=10,
    slices=6,
)
def paced_event(impl, n):
    event = impl.Event()
    heard = 0

    def listen():
        nonlocal heard
        for _ in repeat(None, n):
            event.wait()
            event.clear()
            heard += 1

    return _paced(n, listen, event.set, lambda: heard)


@row(
    "cpu.paced_queue",
    "a wake-up by Queue every 5 ms, CPU time per wake-up",
    needs=["UnboundedQueue"],
    kind="cpu",
    least=60,
    most=60,
    step=1,
    quick=10,
    slices=6,
)
def paced_queue(impl, n):
    queue = impl.UnboundedQueue()
    heard = 0

    def listen():
        nonlocal heard
        for _ in repeat(None, n):
            heard += queue.get()

    return _paced(n, listen, lambda: queue.put(1), lambda: heard)


def _paced(n, listen, wake, heard):
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    time.sleep(_PACE)
    start = mark()
    for turn in range(1, n + 1):
        wake()
        time.sleep(_PACE)
        while heard() < turn:  # a busy machine: two wake-ups must not become one
            time.sleep(_PACE)
    spent = since(start)
    thread.join(SAMPLE_LIMIT / 2)
    check(heard() == n, "a wake-up was lost")
    return spent


@row(
    "cpu.timeouts",
    "Event.wait(0.005) that times out, CPU time per wait",
    needs=["Event"],
    kind="cpu",
    least=60,
    most=60,
    step=1,
    quick=10,
    slices=6,
)
def timeouts(impl, n):
    event = impl.Event()
    start = mark()
    for _ in repeat(None, n):
        event.wait(_PACE)
    return since(start)


@row(
    "cpu.timeouts_lock",
    "Lock.acquire(timeout=0.005) that times out, CPU time per wait",
    needs=["Lock"],
    kind="cpu",
    contenders=("stdlib", "raddle"),
    least=60,
    most=60,
    step=1,
    quick=10,
    slices=6,
)
def timeouts_lock(impl, n):
    lock = impl.Lock()
    lock.acquire()
    start = mark()
    for _ in repeat(None, n):
        lock.acquire(timeout=_PACE)
    return since(start)
