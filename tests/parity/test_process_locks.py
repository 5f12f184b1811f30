"""Locks, semaphores, conditions, events and barriers between processes: both implementations behave alike."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest

from tools import DEADLINE, Stopwatch, ended, started, wait_until

KINDS = ["Lock", "RLock", "Semaphore", "BoundedSemaphore"]


def add(lock, number, times):
    for _ in range(times):
        with lock:
            number.value += 1


def take_and_tell(lock, taken, go_on):
    lock.acquire()
    taken.release()
    go_on.acquire()
    lock.release()


def take(lock, taken):
    lock.acquire()
    taken.release()


def give_back(lock):
    lock.release()


def in_a_thread(function):
    """What a call in another thread gives or raises."""
    result = []

    def run():
        try:
            result.append(function())
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(DEADLINE)
    return result[0]


@pytest.mark.parametrize("kind", KINDS)
def test_mutual_exclusion(ctx, kind):
    lock, number = getattr(ctx, kind)(), ctx.Value("i", 0, lock=False)
    children = [started(ctx, add, lock, number, 300) for _ in range(3)]
    add(lock, number, 300)
    assert [ended(child) for child in children] == [0] * 3
    assert number.value == 1200


@pytest.mark.parametrize("kind", KINDS)
def test_a_wait_across_processes(ctx, kind):
    lock, taken, go_on = getattr(ctx, kind)(), ctx.Semaphore(0), ctx.Semaphore(0)
    child = started(ctx, take_and_tell, lock, taken, go_on)
    assert taken.acquire(timeout=DEADLINE)
    assert not lock.acquire(False)
    assert not lock.acquire(block=False)
    with Stopwatch() as watch:
        assert not lock.acquire(timeout=0.1)
    assert 0.09 <= watch.seconds < 5
    assert not lock.acquire(True, -1)
    go_on.release()
    assert lock.acquire(True, DEADLINE)
    assert ended(child) == 0
    lock.release()


def test_who_may_release(ctx):
    lock, taken = ctx.Lock(), ctx.Semaphore(0)
    lock.acquire()
    assert ended(started(ctx, give_back, lock)) == 0
    assert lock.acquire(timeout=DEADLINE)
    in_a_thread(lock.release)
    assert lock.acquire(False)
    lock.release()
    rlock = ctx.RLock()
    rlock.acquire()
    error = in_a_thread(rlock.release)
    assert (type(error), str(error)) == (
        AssertionError,
        "attempt to release recursive lock not owned by thread",
    )
    assert in_a_thread(lambda: rlock.acquire(False)) is False
    rlock.release()
    with pytest.raises(AssertionError, match="not owned by thread"):
        rlock.release()
    assert taken.get_value() == 0


def test_errors_and_counts(fork):
    lock = fork.Lock()
    with pytest.raises(ValueError, match=r"^semaphore or lock released too many times$"):
        lock.release()
    bounded = fork.BoundedSemaphore(2)
    with pytest.raises(ValueError, match=r"^semaphore or lock released too many times$"):
        bounded.release()
    assert bounded.acquire() and bounded.acquire() and not bounded.acquire(False)
    assert bounded.get_value() == 0
    bounded.release()
    assert (bounded.get_value(), bounded._semlock._count()) == (1, 1)
    semaphore = fork.Semaphore(3)
    semaphore.release()
    assert semaphore.get_value() == 4
    rlock = fork.RLock()
    assert rlock.acquire() and rlock.acquire() and rlock._semlock._count() == 2
    assert rlock._semlock._is_mine() and rlock._semlock._is_zero()
    rlock.release()
    assert not in_a_thread(lambda: rlock.acquire(False))
    rlock.release()
    assert in_a_thread(rlock._semlock._get_value) == 1
    for wrong in (-1, 2**31):
        with pytest.raises((ValueError, OSError, OverflowError)):
            fork.Semaphore(wrong)
    with pytest.raises(TypeError):
        lock.acquire(True, "soon")
    with pytest.raises(TypeError):
        lock.acquire(wait=True)


def test_attributes(fork):
    for kind, number, most in [
        ("Lock", 1, 1),
        ("RLock", 0, 1),
        ("BoundedSemaphore", 1, 1),
        ("Semaphore", 1, 2**31 - 1),
    ]:
        semlock = getattr(fork, kind)()._semlock
        assert (semlock.kind, semlock.maxvalue, semlock.name, type(semlock.handle)) == (
            number,
            most,
            None,
            int,
        )
        assert semlock.SEM_VALUE_MAX == 2**31 - 1


def test_reprs(fork):
    lock, rlock = fork.Lock(), fork.RLock()
    assert (repr(lock), repr(rlock)) == ("<Lock(owner=None)>", "<RLock(None, 0)>")
    with lock, rlock, rlock:
        assert (repr(lock), repr(rlock)) == ("<Lock(owner=MainProcess)>", "<RLock(MainProcess, 2)>")
        assert in_a_thread(lambda: repr(lock)) == "<Lock(owner=SomeOtherThread)>"
    assert repr(fork.Semaphore(3)) == "<Semaphore(value=3)>"
    assert repr(fork.BoundedSemaphore(3)) == "<BoundedSemaphore(value=3, maxvalue=3)>"
    assert repr(fork.Condition()) == "<Condition(<RLock(None, 0)>, 0)>"
    lock.acquire()
    child = started(fork, lambda: sys.exit(repr(lock) != "<Lock(owner=SomeOtherProcess)>"))
    assert ended(child) == 0


def test_pickling(ctx):
    for kind in [*KINDS, "Condition", "Event"]:
        with pytest.raises(RuntimeError, match="should only be shared between processes through inheritance"):
            pickle.dumps(getattr(ctx, kind)())


def test_a_forked_child_does_not_have_what_its_parent_has(fork):
    lock, rlock = fork.Lock(), fork.RLock()

    def child():
        assert not lock.acquire(False) and not rlock.acquire(False)
        assert rlock._semlock._count() == 0 and not rlock._semlock._is_mine()
        rlock_error = None
        try:
            rlock.release()
        except AssertionError as error:
            rlock_error = error
        assert rlock_error is not None
        lock.release()

    with rlock:
        lock.acquire()
        assert ended(started(fork, child)) == 0
        assert lock.acquire(False)


def wait_in(condition, ready, woken, timeout=None):
    with condition:
        ready.release()
        if condition.wait(timeout):
            woken.release()


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_condition(ctx, kind):
    condition, ready, woken = ctx.Condition(getattr(ctx, kind)()), ctx.Semaphore(0), ctx.Semaphore(0)
    children = [started(ctx, wait_in, condition, ready, woken) for _ in range(3)]
    for _ in children:
        assert ready.acquire(timeout=DEADLINE)
    with condition:
        condition.notify()
    assert woken.acquire(timeout=DEADLINE)
    assert not woken.acquire(timeout=0.1)
    with condition:
        condition.notify_all()
    assert woken.acquire(timeout=DEADLINE) and woken.acquire(timeout=DEADLINE)
    assert [ended(child) for child in children] == [0] * 3
    with condition:
        assert condition.wait(0.05) is False
        assert condition.wait_for(lambda: False, 0.05) is False
        assert condition.wait_for(lambda: 7) == 7
        condition.notify()
    with pytest.raises(AssertionError, match=r"^must acquire"):
        condition.wait()
    with pytest.raises(AssertionError, match=r"^lock is not owned$"):
        condition.notify()


def test_a_condition_of_a_held_rlock_gives_it_back_whole(fork):
    condition = fork.Condition()

    def child():
        with condition:
            condition.notify()

    with condition, condition:
        process = started(fork, child)
        assert condition.wait(DEADLINE)
        assert condition._lock._semlock._count() == 2
    assert ended(process) == 0


def set_event(event):
    event.set()


def wait_for_event(event, seen):
    if event.wait(DEADLINE):
        seen.release()


def test_event(ctx):
    event, seen = ctx.Event(), ctx.Semaphore(0)
    assert not event.is_set() and event.wait(0) is False and event.wait(0.05) is False
    children = [started(ctx, wait_for_event, event, seen) for _ in range(2)]
    assert ended(started(ctx, set_event, event)) == 0
    assert seen.acquire(timeout=DEADLINE) and seen.acquire(timeout=DEADLINE)
    assert [ended(child) for child in children] == [0, 0]
    event.set()
    assert event.is_set() and event.wait() is True
    event.clear()
    assert not event.is_set()
    event.clear()


def meet(barrier, places, rounds):
    for _ in range(rounds):
        places.put(barrier.wait(DEADLINE))


def test_barrier(ctx):
    barrier, places = ctx.Barrier(3), ctx.Queue()
    children = [started(ctx, meet, barrier, places, 4) for _ in range(2)]
    meet(barrier, places, 4)
    assert sorted(places.get(timeout=DEADLINE) for _ in range(12)) == [0] * 4 + [1] * 4 + [2] * 4
    assert [ended(child) for child in children] == [0, 0]
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(0.05)
    assert barrier.broken
    barrier.reset()
    assert (barrier.parties, barrier.n_waiting) == (3, 0)


def add_to_value(value, times):
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def test_values_and_arrays(ctx):
    value, array = ctx.Value("i", 0), ctx.Array("i", [1, 2, 3])
    children = [started(ctx, add_to_value, value, 200) for _ in range(2)]
    add_to_value(value, 200)
    assert [ended(child) for child in children] == [0, 0]
    assert (value.value, array[:]) == (600, [1, 2, 3])
    assert isinstance(value.get_lock(), type(ctx.RLock()))


def test_many_locks_take_few_descriptors(impl):
    """A child gets them all; so it does where the limit on descriptors is far below their number."""
    code = f"""
import resource, sys
import {impl.multiprocessing.__name__} as mp
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
def child(locks):
    for lock in locks:
        with lock:
            pass
if __name__ == "__main__":
    ctx = mp.get_context("spawn")
    locks = [ctx.Lock() for _ in range(1000)]
    process = ctx.Process(target=child, args=(locks,))
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"raddle-many-locks-{os.getpid()}.py")
    with open(path, "w") as file:
        file.write(code)
    try:
        assert subprocess.run([sys.executable, path], timeout=60).returncode == 0
    finally:
        os.unlink(path)


def test_a_signal_ends_a_wait(fork):
    class Enough(Exception):
        pass

    def handler(*_):
        raise Enough

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        for waited in (fork.Lock(), fork.Semaphore(0)):
            waited.acquire(False)
            timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            begin = time.monotonic()
            with pytest.raises(Enough):
                waited.acquire()
            assert time.monotonic() - begin < 0.1 + 0.2 + 1
            timer.join()
        event = fork.Event()
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises(Enough):
            event.wait()
        timer.join()
        event.set()
        assert event.wait(0)
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_threads_of_several_processes(ctx):
    lock, number = ctx.Lock(), ctx.Value("i", 0, lock=False)
    child = started(ctx, add_in_threads, lock, number)
    add_in_threads(lock, number)
    assert ended(child) == 0
    wait_until(lambda: number.value == 1200)


def add_in_threads(lock, number):
    threads = [threading.Thread(target=add, args=(lock, number, 200)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
