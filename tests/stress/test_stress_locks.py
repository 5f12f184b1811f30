"""Locks, conditions, semaphores, events, barriers, threads, timers, scheduler under random schedules."""

# ruff: noqa: B023 - the functions made in a loop run within their lap.

import sys
import threading
import time

import pytest

from tools import DEADLINE, Crew, rng_for, scaled, wait_until

pytestmark = [pytest.mark.stress, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True, params=[0.005, 1e-5], ids=["calm", "hasty"])
def switching(request):
    """The interpreter's usual switch interval, and one that switches all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(before)


def run(*crews):
    for crew in crews:
        crew.__enter__()
    for crew in crews:
        crew.__exit__(None, None, None)


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_exclusion_with_timeouts(impl, kind):
    lock = getattr(impl.threading, kind)()
    inside, total, taken = [], 0, [0] * 5

    def work(number):
        nonlocal total
        rng = rng_for(f"{kind} {number}")
        for _ in range(scaled(150)):
            way = rng.randrange(4)
            if way == 0:
                got = lock.acquire()
            elif way == 1:
                got = lock.acquire(timeout=rng.random() * 0.002)
            elif way == 2:
                got = lock.acquire(False)
            else:
                got = lock.__enter__()
            if not got:
                continue
            depth = rng.randrange(3) if kind == "RLock" else 0
            for _ in range(depth):
                assert lock.acquire(timeout=rng.choice([-1, 0, 1]))
            inside.append(number)
            value = total
            if rng.random() < 0.1:
                time.sleep(0.0001)
            assert inside == [number]
            inside.pop()
            total = value + 1
            taken[number] += 1
            for _ in range(depth + 1):
                lock.release()

    run(*(Crew(work, args=(i,)) for i in range(5)))
    assert total == sum(taken)
    assert lock.acquire(False) is True


@pytest.mark.parametrize("lock_kind", ["Lock", "RLock"])
def test_notifications_are_not_lost(impl, lock_kind):
    """Credits handed out by notify: takers with and without a deadline, every credit used once."""
    condition = impl.threading.Condition(getattr(impl.threading, lock_kind)())
    credits, used, total = 0, [], scaled(400)

    def give(seed):
        nonlocal credits
        rng = rng_for(f"giver {seed}")
        left = total
        while left:
            count = min(rng.randrange(1, 4), left)
            with condition:
                credits += count
                condition.notify(count)
            left -= count
            if rng.random() < 0.2:
                time.sleep(0.0002)

    def take(seed):
        nonlocal credits
        rng = rng_for(f"taker {seed}")
        mine = 0
        while mine < total // 2:
            with condition:
                while not credits:
                    condition.wait(rng.choice([None, 0.0005, 0.002, 5]))
                credits -= 1
                mine += 1
        used.append(mine)

    run(*(Crew(take, args=(i,)) for i in range(4)), *(Crew(give, args=(i,)) for i in range(2)))
    assert credits == 0
    assert sum(used) == total // 2 * 4


def test_notify_wakes_no_more_than_told(impl, rng):
    condition = impl.threading.Condition()
    woken, told, stop = [], 0, []

    def wait(seed):
        mine = rng_for(f"waiter {seed}")
        while not stop:
            with condition:
                if condition.wait(mine.random() * 0.002):
                    woken.append(1)

    crews = [Crew(wait, args=(i,)) for i in range(4)]
    for crew in crews:
        crew.__enter__()
    for _ in range(scaled(300)):
        with condition:
            count = rng.randrange(1, 3)
            condition.notify(count)
            told += count
        time.sleep(rng.random() * 0.001)
    stop.append(1)
    for crew in crews:
        crew.__exit__(None, None, None)
    assert len(woken) <= told


def test_notify_all_reaches_every_waiter(impl):
    """A generation counter moved on by one thread: nobody who waited for it is left behind."""
    condition = impl.threading.Condition()
    generation, waiting = 0, 0
    laps = scaled(120)

    def follow():
        nonlocal waiting
        seen = 0
        while seen < laps:
            with condition:
                waiting += 1
                while generation == seen:
                    condition.wait()
                seen += 1

    def lead():
        nonlocal generation, waiting
        for _ in range(laps):
            wait_until(lambda: waiting == 4, "all followers wait")
            with condition:
                waiting = 0
                generation += 1
                condition.notify_all()

    run(Crew(follow, 4), Crew(lead))


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_tokens_are_kept(impl, kind):
    start = 3
    semaphore = getattr(impl.threading, kind)(start)
    inside = []

    def work(number):
        rng = rng_for(f"{kind} {number}")
        for _ in range(scaled(150)):
            way = rng.randrange(4)
            if way == 0:
                got = semaphore.acquire()
            elif way == 1:
                got = semaphore.acquire(timeout=rng.random() * 0.002)
            elif way == 2:
                got = semaphore.acquire(False)
            else:
                with semaphore:
                    inside.append(1)
                    assert len(inside) <= start
                    inside.pop()
                continue
            if got:
                inside.append(1)
                assert len(inside) <= start
                inside.pop()
                semaphore.release()

    run(*(Crew(work, args=(i,)) for i in range(6)))
    assert semaphore._value == start


def test_release_of_many_and_timeouts(impl):
    semaphore = impl.threading.Semaphore(0)
    total = scaled(600)
    taken = []

    def take(number):
        rng = rng_for(f"taker {number}")
        while len(taken) < total:
            if semaphore.acquire(timeout=rng.random() * 0.003):
                taken.append(1)

    def give():
        rng = rng_for("giver")
        left = total
        while left:
            count = min(left, rng.randrange(1, 6))
            semaphore.release(count)
            left -= count
            if rng.random() < 0.3:
                time.sleep(0.0003)

    run(*(Crew(take, args=(i,)) for i in range(4)), Crew(give))
    assert len(taken) == total
    assert semaphore._value == 0


def test_event_set_and_cleared_at_once(impl):
    """Who waits when it is set gets through, however soon it is cleared."""
    event = impl.threading.Event()
    laps = scaled(60)
    passed = [0] * 3

    def wait(number):
        for _ in range(laps):
            assert event.wait(DEADLINE) is True
            passed[number] += 1
            gate.wait()

    gate = threading.Barrier(4, timeout=DEADLINE)
    crews = [Crew(wait, args=(i,)) for i in range(3)]
    for crew in crews:
        crew.__enter__()
    for lap in range(laps):
        end = time.monotonic() + DEADLINE
        while min(passed) <= lap:
            event.set()
            event.clear()
            time.sleep(0)
            assert time.monotonic() < end
        gate.wait()
    for crew in crews:
        crew.__exit__(None, None, None)
    assert passed == [laps] * 3


def test_event_chain(impl):
    """A ring of events, one token: it goes round without being lost."""
    size, laps = 5, scaled(60)
    ring = [impl.threading.Event() for _ in range(size)]
    visits = []

    def stand(number):
        for _ in range(laps):
            ring[number].wait()
            ring[number].clear()
            visits.append(number)
            ring[(number + 1) % size].set()

    crews = [Crew(stand, args=(i,)) for i in range(size)]
    for crew in crews:
        crew.__enter__()
    ring[0].set()
    for crew in crews:
        crew.__exit__(None, None, None)
    assert visits == list(range(size)) * laps


def test_barrier_laps(impl):
    parties = 4
    laps = scaled(80)
    runs, places = [], [[] for _ in range(laps)]
    barrier = impl.threading.Barrier(parties, lambda: runs.append(1))

    def work(number):
        rng = rng_for(f"party {number}")
        for lap in range(laps):
            if rng.random() < 0.2:
                time.sleep(rng.random() * 0.0005)
            places[lap].append(barrier.wait(DEADLINE))
            assert len(runs) == lap + 1 or len(runs) == lap + 2

    run(*(Crew(work, args=(i,)) for i in range(parties)))
    assert all(sorted(place) == list(range(parties)) for place in places)
    assert len(runs) == laps


def test_barrier_broken_and_mended(impl, rng):
    """Timeouts, aborts and resets at random: everybody gets out, and the barrier still works."""
    barrier = impl.threading.Barrier(3)
    stop = threading.Event()

    def work(number):
        mine = rng_for(f"party {number}")
        while not stop.is_set():
            try:
                barrier.wait(mine.choice([0.0005, 0.005, 1]))
            except impl.threading.BrokenBarrierError:
                time.sleep(0)

    crews = [Crew(work, args=(i,)) for i in range(4)]
    for crew in crews:
        crew.__enter__()
    for _ in range(scaled(60)):
        time.sleep(rng.random() * 0.002)
        rng.choice([barrier.abort, barrier.reset, barrier.reset])()
    stop.set()
    barrier.abort()
    for crew in crews:
        crew.__exit__(None, None, None)
    barrier.reset()
    with Crew(lambda: barrier.wait(DEADLINE), 3) as crew:
        pass
    assert sorted(crew.results) == [0, 1, 2]


def test_threads_started_and_joined(impl, rng):
    count = 0
    lock = impl.threading.Lock()

    def work():
        nonlocal count
        with lock:
            count += 1

    def start_some(seed):
        mine = rng_for(f"starter {seed}")
        for _ in range(scaled(40)):
            threads = [impl.threading.Thread(target=work) for _ in range(mine.randrange(1, 4))]
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(mine.choice([None, 0, 0.001]))
                assert thread not in impl.threading.enumerate()
            with lock:
                started.append(len(threads))

    started = []
    run(*(Crew(start_some, args=(i,)) for i in range(3)))
    assert count == sum(started)


def test_timers_fired_or_cancelled(impl, rng):
    """A cancel races with the deadline: the function runs once or never, and the timer ends in any case."""
    ran = []
    timers = []
    for i in range(scaled(60)):
        timer = impl.threading.Timer(rng.random() * 0.01, ran.append, (i,))
        timer.start()
        timers.append(timer)
        if rng.random() < 0.5:
            time.sleep(rng.random() * 0.002)
            rng.choice(timers).cancel()
    for timer in timers:
        timer.join(DEADLINE)
        assert not timer.is_alive()
        assert timer.finished.is_set()
    assert len(ran) == len(set(ran))
    assert set(ran) <= set(range(len(timers)))


def test_scheduler_with_threads_that_enter_and_cancel(impl):
    scheduler = impl.sched.scheduler(time.monotonic, time.sleep)
    ran, kept, stop = [], [], threading.Event()
    lock = threading.Lock()

    def change(number):
        rng = rng_for(f"changer {number}")
        for i in range(scaled(100)):
            label = number * 10**6 + i
            event = scheduler.enter(rng.random() * 0.005, rng.randrange(3), ran.append, (label,))
            if rng.random() < 0.4:
                try:
                    scheduler.cancel(event)
                    continue
                except ValueError:
                    pass  # It has run.
            with lock:
                kept.append(label)

    def serve():
        while not stop.is_set() or not scheduler.empty():
            scheduler.run()
            time.sleep(0.0005)

    with Crew(serve):
        run(*(Crew(change, args=(i,)) for i in range(3)))
        stop.set()
    assert sorted(ran) == sorted(kept)
