"""Locks between processes under faults: kills of owners and waiters, forks, exits, damaged memory, no descriptors.

Seeds are printed; RADDLE_STRESS scales the number of kills.
"""

import gc
import mmap
import os
import random
import signal
import threading
import time
import warnings

import pytest
import raddle.multiprocessing as mp

from tools import DEADLINE, Stopwatch, check_child, ended, killed, rng_for, scaled, started, wait_until

pytestmark = [pytest.mark.stress, pytest.mark.fork, pytest.mark.timeout(600)]

METHODS = ["fork", "spawn", "forkserver", "warm"]
fork = mp.get_context("fork")


def hold(lock, held):
    lock.acquire()
    held.release()
    time.sleep(1000)


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
@pytest.mark.parametrize("method", METHODS)
def test_a_killed_owner_is_named_and_the_lock_goes_on(method, kind):
    ctx = mp.get_context(method)
    lock, held = getattr(ctx, kind)(), ctx.Semaphore(0)
    for how in ("before", "while"):
        child = started(ctx, hold, lock, held)
        pid = child.pid
        assert held.acquire(timeout=DEADLINE)
        if how == "before":
            killed(child)
        else:
            timer = threading.Timer(0.15, os.kill, (pid, signal.SIGKILL))
            timer.start()
        told = f"process {pid} has ended while it held this {kind}"
        with pytest.warns(RuntimeWarning, match=told), Stopwatch() as watch:
            assert lock.acquire()
        assert watch.seconds < 2
        lock.release()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with lock:
                pass


def test_who_does_not_wait_takes_nothing_over():
    """A lock that is never released tells who came first, as with the standard library."""
    lock, held = fork.Lock(), fork.Semaphore(0)
    child = started(fork, hold, lock, held)
    assert held.acquire(timeout=DEADLINE)
    assert not lock.acquire(False)
    killed(child)
    time.sleep(0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not lock.acquire(False)
    with pytest.warns(RuntimeWarning):
        assert lock.acquire(timeout=DEADLINE)


def test_a_warning_that_is_an_error_leaves_the_lock_free():
    lock, held = fork.Lock(), fork.Semaphore(0)
    child = started(fork, hold, lock, held)
    assert held.acquire(timeout=DEADLINE)
    killed(child)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            lock.acquire()
    assert repr(lock) == "<Lock(owner=None)>"
    assert lock.acquire(False)


def test_the_site_is_told():
    code = """
import os, signal, sys, time, warnings
import raddle.deadlock, raddle.multiprocessing as mp
raddle.deadlock.enable()
ctx = mp.get_context("fork")
lock, held = ctx.Lock(), ctx.Semaphore(0)
def child():
    with lock:                          # line 7
        held.release()
        time.sleep(1000)
process = ctx.Process(target=child)
process.start()
held.acquire()
process.kill()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with lock:                          # line 16
        pass
(told,) = caught
assert f"process {process.pid} " in str(told.message), told.message
assert f", taken at {__file__}:7: " in str(told.message), told.message
assert told.lineno == 16, told.lineno
"""
    path = f"/tmp/raddle-site-{os.getpid()}.py"
    with open(path, "w") as file:
        file.write(code.lstrip())
    try:
        check_child(f"import runpy; runpy.run_path({path!r}, run_name='__main__')")
    finally:
        os.unlink(path)


def count_up(lock, pair, seed):
    """Each critical section leaves two equal numbers; one that is killed in it may leave them different."""
    rng = random.Random(seed)
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with lock:
                pair[1] = pair[0] = max(pair[0], pair[1])
                pair[0] += 1
                if rng.random() < 0.01:
                    time.sleep(0)
                pair[1] += 1


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_kills_at_random_instants(kind):
    rng = rng_for(f"kills of {kind}")
    lock, pair = getattr(fork, kind)(), fork.Array("q", 2, lock=False)
    workers = [started(fork, count_up, lock, pair, rng.random()) for _ in range(4)]
    seen = 0
    for _ in range(scaled(150)):
        time.sleep(rng.random() * 0.004)
        at = rng.randrange(len(workers))
        killed(workers[at])
        workers[at] = started(fork, count_up, lock, pair, rng.random())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert lock.acquire(timeout=DEADLINE), "nobody gets the lock"
        assert abs(pair[0] - pair[1]) <= 1
        assert max(pair) >= seen
        seen = max(pair)
        lock.release()
    for worker in workers:
        killed(worker)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert lock.acquire(timeout=DEADLINE)
    assert seen > 0


def take_units(semaphore):
    while True:
        semaphore.acquire()


def test_killed_waiters_of_a_semaphore_cost_at_most_a_unit_each():
    rng = rng_for("semaphore waiters")
    semaphore = fork.Semaphore(0)
    for _ in range(scaled(60)):
        waiters = [started(fork, take_units, semaphore) for _ in range(2)]
        time.sleep(rng.random() * 0.01)
        semaphore.release()
        for waiter in waiters:
            killed(waiter)
        taken = 0
        while semaphore.acquire(False):
            taken += 1
        assert taken <= 1
    semaphore.release()
    assert semaphore.acquire(timeout=DEADLINE)


def wait_for_ever(condition, ready):
    with condition:
        ready.release()
        condition.wait()


def wait_and_tell(condition, ready, told):
    with condition:
        ready.release()
        condition.wait()
        told.release()


def test_a_notification_is_not_spent_on_a_killed_waiter():
    rng = rng_for("killed waiters of a condition")
    condition, ready, told = fork.Condition(), fork.Semaphore(0), fork.Semaphore(0)
    for _ in range(scaled(15)):
        doomed = [started(fork, wait_for_ever, condition, ready) for _ in range(3)]
        for _ in doomed:
            assert ready.acquire(timeout=DEADLINE)
        with condition:
            pass  # the last one waits
        lives = started(fork, wait_and_tell, condition, ready, told)
        assert ready.acquire(timeout=DEADLINE)
        rng.shuffle(doomed)
        for process in doomed:
            killed(process)
        with Stopwatch() as watch, condition:
            condition.notify()
        assert told.acquire(timeout=DEADLINE), "the notification went to a dead process"
        assert watch.seconds < 2
        assert ended(lives) == 0
    with condition:
        condition.notify_all()
        assert repr(condition).endswith(", 0)>")


def produce(condition, waiting, done):
    warnings.simplefilter("ignore")
    while True:
        with condition:
            if waiting.value < 100:
                waiting.value += 1
            condition.notify()


def consume(condition, waiting, done):
    warnings.simplefilter("ignore")
    while True:
        with condition:
            while waiting.value == 0:
                condition.wait()
            waiting.value -= 1
            done.value += 1


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_work_goes_on_while_those_who_wait_and_notify_are_killed(kind):
    rng = rng_for(f"kills around a condition with {kind}")
    condition = fork.Condition(getattr(fork, kind)())
    shared = condition, fork.Value("q", 0, lock=False), fork.Value("q", 0, lock=False)
    targets = [produce, produce, consume, consume]
    crew = [started(fork, target, *shared) for target in targets]
    for _ in range(scaled(60)):
        time.sleep(rng.random() * 0.01)
        at = rng.randrange(len(crew))
        killed(crew[at])
        crew[at] = started(fork, targets[at], *shared)
        before = shared[2].value
        wait_until(lambda before=before: shared[2].value > before)
    for process in crew:
        killed(process)


def toggle(event, rounds):
    for _ in range(rounds):
        event.set()
        event.clear()
    while True:
        event.set()
        event.clear()


def test_an_event_outlives_those_who_set_it():
    rng = rng_for("killed setters")
    event = fork.Event()
    for _ in range(scaled(40)):
        child = started(fork, toggle, event, 3)
        time.sleep(rng.random() * 0.02)
        killed(child)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            event.set()
            assert event.wait(DEADLINE)
            event.clear()
            assert not event.wait(0)


def test_a_process_that_exits_holding_is_taken_for_dead():
    lock = fork.Lock()
    assert ended(started(fork, lock.acquire)) == 0
    with pytest.warns(RuntimeWarning, match="has ended while it held this Lock"):
        assert lock.acquire(timeout=DEADLINE)


def test_a_stopped_owner_lives():
    lock, held = fork.Lock(), fork.Semaphore(0)
    child = started(fork, hold, lock, held)
    assert held.acquire(timeout=DEADLINE)
    os.kill(child.pid, signal.SIGSTOP)
    assert not lock.acquire(timeout=0.4)
    os.kill(child.pid, signal.SIGCONT)
    killed(child)


def test_ctrl_c_ends_a_wait():
    code = """
import os, signal, threading, time
import raddle.multiprocessing as mp
lock = mp.get_context("fork").{kind}()
{take}
for wait in ({wait}):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    begin = time.monotonic()
    try:
        wait()
    except KeyboardInterrupt:
        late = time.monotonic() - begin - 0.2
        assert late < 0.2, late
    else:
        raise AssertionError("not interrupted")
"""
    for kind, take, wait in [
        ("Lock", "lock.acquire()", "lock.acquire, lock.__enter__"),
        ("Semaphore", "lock.acquire()", "lock.acquire, lambda: lock.acquire(timeout=100)"),
        ("Event", "", "lock.wait,"),
        ("Condition", "lock.acquire()", "lock.wait, lambda: lock.wait(100)"),
    ]:
        check_child(code.format(kind=kind, take=take, wait=wait))


def test_exit_while_others_wait():
    """Daemon threads inside of every kind of wait, at the end of the interpreter."""
    check_child(
        """
import threading, time
import raddle.multiprocessing as mp
ctx = mp.get_context("fork")
lock, semaphore, event, condition, barrier = ctx.Lock(), ctx.Semaphore(0), ctx.Event(), ctx.Condition(), ctx.Barrier(2)
lock.acquire()
def wait():
    with condition:
        condition.wait()
for target in (lock.acquire, semaphore.acquire, event.wait, wait, barrier.wait):
    threading.Thread(target=target, daemon=True).start()
time.sleep(0.2)
"""
    )


def test_a_fork_while_a_thread_waits_and_another_holds():
    lock, condition = fork.Lock(), fork.Condition()

    def wait():
        with condition:
            condition.wait()

    lock.acquire()
    threads = [threading.Thread(target=target, daemon=True) for target in (lock.acquire, wait)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)

    def child():
        assert not lock.acquire(timeout=0.05)
        assert not condition._lock._semlock._is_mine()
        gc.collect()
        with condition:
            condition.notify()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert ended(started(fork, child)) == 0
    threads[1].join(DEADLINE)
    assert not threads[1].is_alive()
    lock.release()
    threads[0].join(DEADLINE)
    assert not threads[0].is_alive()


def test_nothing_is_left_behind():
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    def use():
        locks = [fork.Lock() for _ in range(500)]
        conditions = [fork.Condition() for _ in range(100)]
        for condition in conditions:
            with condition:
                condition.wait(0)
        return len(locks)

    use()
    gc.collect()
    before, files = descriptors(), set(os.listdir("/dev/shm"))
    for _ in range(5):
        use()
    gc.collect()
    assert descriptors() <= before + 1
    assert not {name for name in os.listdir("/dev/shm") if name.startswith("raddle")} - files


def test_no_descriptor_is_left():
    check_child(
        """
import os, resource
import raddle.multiprocessing as mp
from raddle.multiprocessing import synchronize
ctx = mp.get_context("fork")
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 2,) * 2)
kept = []
while True:
    try:
        kept.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        break
try:
    ctx.Lock()
except OSError as error:
    assert error.errno == 24, error
else:
    raise AssertionError("made without a descriptor")
os.close(kept.pop())
os.close(kept.pop())
lock = ctx.Lock()
with lock:
    pass
"""
    )


def scribble(fd, seed, seconds):
    """Writes random bytes to a file of locks, but for its size."""
    rng = random.Random(seed)
    size = os.fstat(fd).st_size
    end = time.monotonic() + seconds
    with mmap.mmap(fd, size) as memory:
        while time.monotonic() < end:
            for _ in range(2000):
                at = rng.randrange(min(size, 40_000) if rng.random() < 0.8 else size)
                memory[at] = rng.choice((0, 1, 2, 255, rng.randrange(256)))


def test_damaged_memory_breaks_nothing():
    """Another process writes nonsense to all of it: calls give what they give, or an error; none hangs or crashes."""
    rng = rng_for("damaged memory")
    for _ in range(scaled(3)):
        seed = rng.random()
        code = f"""
import os, random, sys, time, warnings
sys.path.insert(0, {os.path.dirname(__file__)!r}); sys.path.insert(0, {os.path.dirname(os.path.dirname(__file__))!r})
warnings.simplefilter("ignore")
import raddle.multiprocessing as mp
from test_lock_faults import scribble
ctx = mp.get_context("fork")
rng = random.Random({seed!r})
lock, rlock, semaphore, bounded = ctx.Lock(), ctx.RLock(), ctx.Semaphore(2), ctx.BoundedSemaphore(2)
condition, event = ctx.Condition(), ctx.Event()
with condition:
    condition.wait(0)
child = ctx.Process(target=scribble, args=(lock._arena.file(), rng.random(), 2.0))
child.start()
def quick(one):
    if one.acquire(timeout=0.01):
        try:
            one.release()
        except (ValueError, AssertionError):
            pass
def wait():
    if condition.acquire(timeout=0.01):
        try:
            condition.wait(0.01)
            condition.notify(rng.choice((1, 2, 10**6)))
        finally:
            try:
                condition.release()
            except (ValueError, AssertionError):
                pass
calls = 0
while child.is_alive():
    for one in (lock, rlock, semaphore, bounded):
        quick(one), repr(one), one._semlock._owner(), one._semlock._get_value()
    event.is_set(), repr(condition), ctx.Lock()
    # A condition takes its lock back for as long as that takes, and a wrong word may name a process that lives.
    quick(event._flag)
    condition._waiters.notify(3)
    waiter = condition._waiters.enlist()
    waiter.wait(0.001, None)
    del waiter
    calls += 1
assert calls > 3, calls
child.join()
assert child.exitcode == 0
"""
        check_child(code)


def test_a_file_that_is_none_of_ours_is_refused():
    from raddle import _raddle

    for make in (
        lambda: os.open("/dev/null", os.O_RDWR),
        lambda: os.memfd_create("other", os.MFD_ALLOW_SEALING),
    ):
        with pytest.raises(OSError):
            _raddle.Arena(make())
    arena = _raddle.Arena()
    with pytest.raises(OSError):
        os.truncate(arena.file(), 0)
    semlock = _raddle.SemLock.__new__(_raddle.SemLock)
    with pytest.raises(RuntimeError):
        semlock.acquire()
    with pytest.raises(RuntimeError):
        semlock._owner()
    for handle, kind, most in [(63, 0, 1), (2**32 - 1, 0, 1), (0, 2, 1), (0, 1, 0), (0, 1, 2**31)]:
        with pytest.raises(ValueError):
            _raddle.SemLock(arena, kind, 0, most, True, handle)
    with pytest.raises(ValueError):
        _raddle.Waiters(arena, 63)


def test_an_arena_that_is_full_makes_room_in_another():
    locks = [fork.Lock() for _ in range(200)]
    for lock in locks:
        assert lock.acquire(False)
    assert len({lock._arena.file() for lock in locks}) >= 3
    assert len({(lock._arena.file(), lock._semlock.handle) for lock in locks}) == 200
