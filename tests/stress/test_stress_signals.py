"""Signals in every kind of wait: they get through at once, deadlines stay, and nothing is lost by them."""

import contextlib
import signal
import threading

import pytest

from tools import DEADLINE, Child, Crew, Stopwatch, check_child, interrupted, scaled, wait_until_blocked

pytestmark = [pytest.mark.stress, pytest.mark.signals, pytest.mark.timeout(600)]

SETUP = """
import os, signal, sys, time
lock, rlock, condition = threading.Lock(), threading.RLock(), threading.Condition()
plain = threading.Condition(threading.Lock())
semaphore, event, barrier = threading.Semaphore(0), threading.Event(), threading.Barrier(2)
empty, full, simple = queue.Queue(), queue.Queue(1), queue.SimpleQueue()
full.put(0)
gate, taken = threading.Event(), threading.Event()
def hold():
    lock.acquire()
    with rlock:
        taken.set()
        gate.wait()
holder = threading.Thread(target=hold, daemon=True)
holder.start()
taken.wait()
calendar = sched.scheduler()
calendar.enter(1000, 1, print)
def enter(each):
    with each:
        raise AssertionError("entered")
def wait_in(each, timeout=None):
    with each:
        each.wait(timeout)
def wait_for_in(each):
    with each:
        each.wait_for(lambda: False)
"""

#: The wait, and what must hold after it was interrupted.
WAITS = {
    "Lock.acquire": ("lock.acquire()", "lock.locked()"),
    "Lock.acquire timed": ("lock.acquire(timeout=1000)", "lock.locked()"),
    "with Lock": ("enter(lock)", "lock.locked()"),
    "RLock.acquire": ("rlock.acquire()", "not rlock._is_owned()"),
    "RLock.acquire timed": ("rlock.acquire(True, 1000)", "not rlock._is_owned()"),
    "with RLock": ("enter(rlock)", "not rlock._is_owned()"),
    "Condition.wait": ("wait_in(condition)", "not condition._is_owned() and condition.acquire(False)"),
    "Condition.wait timed": (
        "wait_in(condition, 1000)",
        "not condition._is_owned() and condition.acquire(False)",
    ),
    "Condition.wait plain": ("wait_in(plain)", "plain.acquire(False)"),
    "Condition.wait_for": ("wait_for_in(condition)", "condition.acquire(False)"),
    "Semaphore.acquire": ("semaphore.acquire()", "semaphore._value == 0"),
    "Semaphore.acquire timed": ("semaphore.acquire(timeout=1000)", "semaphore._value == 0"),
    "with Semaphore": ("enter(semaphore)", "semaphore._value == 0"),
    "Event.wait": ("event.wait()", "not event.is_set()"),
    "Event.wait timed": ("event.wait(1000)", "not event.is_set()"),
    "Barrier.wait": ("barrier.reset() or barrier.wait()", "True"),
    "Barrier.wait timed": ("barrier.reset() or barrier.wait(1000)", "True"),
    "Queue.get": ("empty.get()", "empty.empty() and not empty.mutex.locked()"),
    "Queue.get timed": ("empty.get(timeout=1000)", "empty.empty() and not empty.mutex.locked()"),
    "Queue.put": ("full.put(1)", "full.qsize() == 1 and not full.mutex.locked()"),
    "Queue.put timed": ("full.put(1, timeout=1000)", "full.qsize() == 1 and not full.mutex.locked()"),
    "Queue.join": ("full.join()", "full.unfinished_tasks == 1 and not full.mutex.locked()"),
    "SimpleQueue.get": ("simple.get()", "simple.empty()"),
    "SimpleQueue.get timed": ("simple.get(timeout=1000)", "simple.empty()"),
    "Thread.join": ("holder.join()", "holder.is_alive()"),
    "Thread.join timed": ("holder.join(1000)", "holder.is_alive()"),
    "scheduler.run": ("calendar.run()", "len(calendar.queue) == 1"),
}


@pytest.mark.parametrize("name", WAITS)
def test_keyboard_interrupt(impl, name):
    delays = interrupted(impl.prelude + SETUP, *WAITS[name], rounds=scaled(3, soak=50))
    assert sorted(delays)[len(delays) // 2] < 0.2, delays


def test_interrupt_while_a_condition_takes_its_lock_back(raddle):
    """The exception comes out of wait() with the lock held, as the with statement around it must find it."""
    program = """
def main():
    with condition:
        try:
            condition.wait()
        finally:
            print("owned", condition._is_owned(), flush=True)
def notify_and_keep():
    with condition:
        condition.notify()
        print("notified", flush=True)
        sys.stdin.readline()
def later():
    event.wait()
    notify_and_keep()
threading.Thread(target=later, daemon=True).start()
threading.Thread(target=lambda: (time.sleep(0.05), event.set()), daemon=True).start()
try:
    main()
except KeyboardInterrupt:
    print("interrupted", condition._is_owned(), condition.acquire(timeout=5), flush=True)
"""
    with Child(raddle.prelude + SETUP + program) as child:
        assert child.line() == "notified"
        child.interrupt_when_blocked()
        wait_until_blocked(child.process.pid, pid=child.process.pid)
        child.tell("go on")
        assert child.line() == "owned True"
        assert child.line() == "interrupted False True"
        assert child.process.wait(DEADLINE) == 0


@pytest.mark.parametrize("name", [name for name in WAITS if "timed" not in name])
def test_handler_that_raises(impl, name):
    """Any exception of a handler comes out of the wait, not only KeyboardInterrupt."""
    wait, check = WAITS[name]
    code = f"""
class Alarm(Exception):
    pass
def on_alarm(signum, frame):
    raise Alarm
signal.signal(signal.SIGALRM, on_alarm)
for _ in range({scaled(2, soak=20)}):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        {wait}
    except Alarm:
        pass
    else:
        raise AssertionError("the wait has ended")
print(bool({check}))
"""
    check_child(impl.prelude + SETUP + code, out="True\n", options=["-W", "ignore"])


@contextlib.contextmanager
def drizzle(interval=0.004):
    """A handler that does nothing, called all the time."""
    calls = []
    before = signal.signal(signal.SIGALRM, lambda signum, frame: calls.append(1))
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    try:
        yield calls
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


TIMED = {
    "Lock": lambda impl, t: taken(impl.threading.Lock()).acquire(timeout=t),
    "Condition": lambda impl, t: taken(impl.threading.Condition()).wait(t),
    "Semaphore": lambda impl, t: impl.threading.Semaphore(0).acquire(timeout=t),
    "Event": lambda impl, t: impl.threading.Event().wait(t),
    "Barrier": lambda impl, t: swallow(impl.threading.BrokenBarrierError, impl.threading.Barrier(2).wait, t),
    "Queue.get": lambda impl, t: swallow(impl.queue.Empty, impl.queue.Queue().get, True, t),
    "Queue.put": lambda impl, t: swallow(impl.queue.Full, filled(impl.queue.Queue(1)).put, 1, True, t),
    "SimpleQueue.get": lambda impl, t: swallow(impl.queue.Empty, impl.queue.SimpleQueue().get, True, t),
    "Thread.join": lambda impl, t: join_blocked(impl, t),
    "scheduler.run": lambda impl, t: run_scheduler(impl, t),
}


def taken(lock):
    lock.acquire()
    return lock


def filled(queue):
    queue.put(0)
    return queue


def swallow(error, call, *args):
    with pytest.raises(error):
        call(*args)


def join_blocked(impl, timeout):
    gate = threading.Event()
    thread = impl.threading.Thread(target=gate.wait, daemon=True)
    thread.start()
    thread.join(timeout)
    assert thread.is_alive()
    gate.set()
    thread.join()


def run_scheduler(impl, timeout):
    scheduler = impl.sched.scheduler()
    scheduler.enter(timeout, 1, int)
    scheduler.run()


@pytest.mark.parametrize("name", TIMED)
def test_deadline_stays_under_signals(impl, name):
    with drizzle() as calls, Stopwatch() as watch:
        assert not TIMED[name](impl, 0.2)
    assert 0.195 <= watch.seconds < 3
    assert len(calls) > 5


RELEASES = {
    "Lock": lambda impl: (lock := taken(impl.threading.Lock()), lock.acquire, lock.release),
    "Semaphore": lambda impl: (s := impl.threading.Semaphore(0), s.acquire, s.release),
    "Event": lambda impl: (e := impl.threading.Event(), e.wait, e.set),
    "Condition": lambda impl: (c := impl.threading.Condition(), lambda: wait_in(c), lambda: notify_in(c)),
    "Queue.get": lambda impl: (q := impl.queue.Queue(), q.get, lambda: q.put(1)),
    "LifoQueue.get": lambda impl: (q := impl.queue.LifoQueue(), q.get, lambda: q.put(1)),
    "PriorityQueue.get": lambda impl: (q := impl.queue.PriorityQueue(), q.get, lambda: q.put(1)),
    "Queue.put": lambda impl: (q := filled(impl.queue.Queue(1)), lambda: q.put(1) is None, q.get_nowait),
    "Queue.join": lambda impl: (q := filled(impl.queue.Queue(1)), lambda: q.join() is None, q.task_done),
    "SimpleQueue.get": lambda impl: (q := impl.queue.SimpleQueue(), q.get, lambda: q.put(1)),
    "Thread.join": lambda impl: join_of_gated(impl),
}


def wait_in(condition):
    with condition:
        return condition.wait()


def notify_in(condition):
    with condition:
        condition.notify()


def join_of_gated(impl):
    gate = threading.Event()
    thread = impl.threading.Thread(target=gate.wait)
    thread.start()
    return thread, lambda: thread.join() is None, gate.set


@pytest.mark.parametrize("name", RELEASES)
def test_handler_that_ends_the_wait(impl, name):
    """The main thread waits for what its own signal handler brings."""
    for _ in range(scaled(2)):
        _, wait, release = RELEASES[name](impl)
        before = signal.signal(signal.SIGUSR2, lambda signum, frame, release=release: release())
        main = threading.main_thread()

        def send(main=main):
            wait_until_blocked(main.native_id)
            signal.pthread_kill(main.ident, signal.SIGUSR2)

        try:
            with Crew(send):
                assert wait()
        finally:
            signal.signal(signal.SIGUSR2, before)
