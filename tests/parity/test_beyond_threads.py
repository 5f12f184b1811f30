"""Thread.state, snapshot(), and timers that share one thread."""

import os
import threading
import time

import pytest

from tools import Crew, assert_matches, in_thread, wait_until, wait_until_blocked


@pytest.fixture
def run(raddle):
    """Starts raddle threads that are joined after the test."""
    threads = []

    def start(target, **kwargs):
        thread = raddle.threading.Thread(target=target, daemon=True, **kwargs)
        thread.start()
        threads.append(thread)
        return thread

    yield start
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


class TestState:
    def test_life(self, raddle):
        gate = raddle.threading.Event()
        thread = raddle.threading.Thread(target=gate.wait)
        assert thread.state == "new"
        thread.start()
        wait_until_blocked(thread)
        assert thread.state == "blocked"
        gate.set()
        thread.join()
        assert thread.state == "dead"

    def test_running(self, raddle):
        seen = []
        thread = raddle.threading.Thread(target=lambda: seen.append(thread.state))
        thread.start()
        thread.join()
        assert seen == ["running"]

    def test_busy_thread_is_running_or_ready(self, raddle, run):
        stop = []

        def spin():
            while not stop:
                pass

        thread = run(spin)
        states = {str(thread.state) for _ in range(200)}
        stop.append(1)
        assert states <= {"running", "ready"}

    def test_is_text(self, raddle):
        state = raddle.threading.Thread().state
        assert isinstance(state, str)
        assert isinstance(state, raddle.threading.ThreadState)
        assert f"{state}" == "new"
        assert (state.on, state.kind, state.since, state.timed) == (None, None, None, False)

    def test_is_read_only(self, raddle):
        with pytest.raises(AttributeError):
            raddle.threading.Thread().state = "dead"

    def check(self, thread, on, kind, timed=False, before=0.0):
        wait_until_blocked(thread)
        state = thread.state
        assert state == "blocked"
        assert state.on is on
        assert state.kind == kind
        assert state.timed is timed
        assert before <= state.since <= time.monotonic()

    def test_on_a_lock(self, raddle, run):
        for kind in ("Lock", "RLock"):
            lock = getattr(raddle.threading, kind)()
            lock.acquire()
            before = time.monotonic()
            self.check(
                run(lambda lock=lock: lock.acquire() and lock.release()),
                lock,
                f"{kind}.acquire",
                before=before,
            )
            lock.release()

    def test_with_a_timeout(self, raddle, run):
        lock = raddle.threading.Lock()
        lock.acquire()
        self.check(run(lambda: lock.acquire(timeout=15) and lock.release()), lock, "Lock.acquire", timed=True)
        lock.release()

    def test_inside_with(self, raddle, run):
        lock = raddle.threading.Lock()

        def work():
            with lock:
                pass

        with lock:
            self.check(run(work), lock, "Lock.acquire")

    def test_on_a_condition(self, raddle, run):
        condition = raddle.threading.Condition()

        def work(timeout=None):
            with condition:
                condition.wait(timeout)

        self.check(run(work), condition, "Condition.wait")
        self.check(run(work, args=(15,)), condition, "Condition.wait", timed=True)
        with condition:
            condition.notify_all()

    def test_on_a_semaphore(self, raddle, run):
        semaphore = raddle.threading.Semaphore(0)
        self.check(run(semaphore.acquire), semaphore, "Semaphore.acquire")
        semaphore.release()

    def test_on_an_event(self, raddle, run):
        event = raddle.threading.Event()
        self.check(run(event.wait), event, "Event.wait")
        self.check(run(lambda: event.wait(15)), event, "Event.wait", timed=True)
        event.set()

    def test_on_a_barrier(self, raddle, run):
        barrier = raddle.threading.Barrier(2)
        self.check(run(barrier.wait), barrier, "Barrier.wait")
        barrier.wait()

    @pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue"])
    def test_on_a_queue(self, raddle, run, kind):
        queue = getattr(raddle.queue, kind)(1)
        self.check(run(queue.get), queue, "Queue.get")
        queue.put(1)
        wait_until(queue.empty, "it is taken")
        queue.put(2)
        self.check(run(lambda: queue.put(3)), queue, "Queue.put")
        queue.get()
        queue.get()
        self.check(run(queue.join), queue, "Queue.join")
        for _ in range(3):
            queue.task_done()

    def test_on_a_simple_queue(self, raddle, run):
        queue = raddle.queue.SimpleQueue()
        thread = run(queue.get)
        wait_until_blocked(thread)
        assert thread.state.on is queue
        assert thread.state.kind.endswith("Queue.get")
        queue.put(1)

    def test_on_a_join(self, raddle, run):
        gate = raddle.threading.Event()
        first = run(gate.wait)
        self.check(run(first.join), first, "Thread.join")
        gate.set()

    def test_on_a_scheduler(self, raddle, run):
        scheduler = raddle.sched.scheduler()
        event = scheduler.enter(0.3, 1, int)
        thread = run(scheduler.run)
        wait_until(lambda: thread.state == "blocked", "it waits for the event")
        assert thread.state.kind == "sched"
        assert event

    def test_ends_with_the_wait(self, raddle, run):
        lock, stop = raddle.threading.Lock(), []
        lock.acquire()

        def work():
            lock.acquire()
            while not stop:
                pass

        thread = run(work)
        wait_until_blocked(thread)
        lock.release()
        wait_until(lambda: thread.state in ("running", "ready"), "it runs again")
        assert thread.state.on is None
        stop.append(1)


class TestSnapshot:
    def find(self, raddle, thread):
        (entry,) = [entry for entry in raddle.threading.snapshot() if entry.thread is thread]
        return entry

    def test_names_every_thread(self, raddle, run):
        gate = threading.Event()
        run(gate.wait, name="ours")
        with Crew(gate.wait):
            assert {entry.thread for entry in raddle.threading.snapshot()} == set(threading.enumerate())
            gate.set()

    def test_facts(self, raddle, run):
        gate = raddle.threading.Event()
        thread = run(gate.wait, name="ours")
        wait_until_blocked(thread)
        entry = self.find(raddle, thread)
        assert (entry.name, entry.ident, entry.native_id) == ("ours", thread.ident, thread.native_id)
        assert (entry.daemon, entry.thread) == (True, thread)
        assert entry.state == "blocked"
        gate.set()

    def test_row_in_one_line(self, raddle, run):
        lock = raddle.threading.Lock(name="L")
        lock.acquire()
        thread = run(lambda: lock.acquire() and lock.release(), name="ours")
        wait_until_blocked(thread)
        held = r"<locked .* object 'L' owner='MainThread' waiters=1 longest_wait=\d+\.\d\ds at 0x\w+>"
        assert_matches(
            rf"^<'ours' daemon blocked for \d+\.\d\ds in Lock\.acquire on {held}>$",
            repr(self.find(raddle, thread)),
        )
        assert_matches(
            rf"^<'MainThread' running, holds {held}", repr(self.find(raddle, threading.current_thread()))
        )
        lock.release()

    def test_of_the_caller(self, raddle):
        entry = self.find(raddle, threading.current_thread())
        assert entry.state == "running"
        assert entry.waits_for is None

    def test_of_standard_threads(self, raddle):
        lock = raddle.threading.Lock(name="L")
        lock.acquire()
        with Crew(lambda: lock.acquire() and lock.release()) as crew:
            crew.wait_until_blocked()
            entry = self.find(raddle, crew.threads[0])
            assert entry.state == "blocked"
            assert entry.state.on is lock
            lock.release()

    def test_holds(self, raddle, run):
        one, two, gate = (
            raddle.threading.Lock(name="one"),
            raddle.threading.RLock(name="two"),
            raddle.threading.Event(),
        )

        def work():
            with one, two:
                gate.wait()

        thread = run(work)
        wait_until_blocked(thread)
        held = [hold.object for hold in self.find(raddle, thread).holds]
        assert len(held) == 2
        assert one in held
        assert two in held
        for hold in self.find(raddle, thread).holds:
            assert hold.site is None or isinstance(hold.site, str)
        gate.set()
        thread.join()
        assert self.find(raddle, threading.current_thread()).holds == []

    def test_waits_for(self, raddle, run):
        lock = raddle.threading.Lock(name="L")
        lock.acquire()
        before = time.monotonic()
        thread = run(lambda: lock.acquire(timeout=15) and lock.release())
        wait_until_blocked(thread)
        waits = self.find(raddle, thread).waits_for
        assert waits.on is lock
        assert waits.kind == "Lock.acquire"
        assert waits.timed is True
        assert before <= waits.since <= time.monotonic()
        lock.release()

    def test_keeps_nothing_alive(self, raddle):
        import gc
        import weakref

        thread = raddle.threading.Thread()
        thread.start()
        thread.join()
        raddle.threading.snapshot()
        reference = weakref.ref(thread)
        del thread
        gc.collect()
        assert reference() is None

    def test_from_many_threads_at_once(self, raddle):
        stop = threading.Event()
        lock = raddle.threading.Lock()

        def churn():
            while not stop.is_set():
                with lock:
                    raddle.threading.Thread(target=int).start()

        def look():
            for _ in range(100):
                for entry in raddle.threading.snapshot():
                    assert entry.state in ("new", "ready", "running", "blocked", "dead")

        with Crew(churn, 2):
            with Crew(look, 2):
                pass
            stop.set()


class TestThread:
    def test_only_one_start_wins(self, raddle):
        for _ in range(50):
            runs, refused = [], []
            thread = raddle.threading.Thread(target=runs.append, args=(1,))
            barrier = threading.Barrier(2)

            def start(thread=thread, refused=refused, barrier=barrier):
                barrier.wait()
                try:
                    thread.start()
                except RuntimeError as error:
                    refused.append(str(error))

            with Crew(start, 2):
                pass
            thread.join()
            assert runs == [1]
            assert refused == ["threads can only be started once"]

    def test_join_of_a_standard_thread_from_ours(self, raddle):
        gate = threading.Event()
        with Crew(gate.wait) as crew:
            joiner = raddle.threading.Thread(target=crew.threads[0].join)
            joiner.start()
            wait_until_blocked(joiner)
            gate.set()
            joiner.join(20)
        assert not joiner.is_alive()


class TestSharedTimerThread:
    def test_pending_timers_cost_no_thread(self, raddle):
        before = len(os.listdir("/proc/self/task"))
        timers = [raddle.threading.Timer(3600, int) for _ in range(2000)]
        for timer in timers:
            timer.start()
        try:
            assert len(os.listdir("/proc/self/task")) <= before + 4
            assert all(timer.is_alive() for timer in timers)
        finally:
            for timer in timers:
                timer.cancel()
        for timer in timers:
            timer.join()
        assert not set(timers) & set(threading.enumerate())

    def test_cancelled_timer_shows_as_stopped(self, raddle):
        timer = raddle.threading.Timer(3600, int)
        timer.name, timer.daemon = "tea", True
        timer.cancel()
        assert repr(timer) == "<Timer(tea, initial daemon)>"
        timer.start()
        assert repr(timer) == "<Timer(tea, stopped daemon)>" and not timer.is_alive()

    def test_cancelled_timer_is_freed_at_once(self, raddle):
        import gc
        import weakref

        class Payload:
            pass

        payload = Payload()
        reference = weakref.ref(payload)
        timer = raddle.threading.Timer(3600, print, [payload])
        timer.start()
        del payload
        timer.cancel()
        timer.join()
        del timer
        gc.collect()
        assert reference() is None

    def test_many_fire(self, raddle):
        log = []
        timers = [raddle.threading.Timer(0.001 * (i % 20), log.append, (i,)) for i in range(500)]
        for timer in timers:
            timer.start()
        for timer in timers:
            timer.join(20)
        assert sorted(log) == list(range(500))

    def test_earlier_timer_overtakes(self, raddle):
        late = raddle.threading.Timer(3600, int)
        late.start()
        log = []
        early = raddle.threading.Timer(0.02, log.append, (1,))
        early.start()
        early.join(20)
        assert log == [1]
        late.cancel()
        late.join()

    def test_waiting_timer_threads_use_no_time(self, raddle):
        timers = [raddle.threading.Timer(3600, int) for _ in range(100)]
        for timer in timers:
            timer.start()
        before = time.process_time()
        threading.Event().wait(0.3)
        assert time.process_time() - before < 0.1
        for timer in timers:
            timer.cancel()
            timer.join()

    def test_timer_in_a_thread_of_the_standard_library(self, raddle):
        log = []

        def work():
            timer = raddle.threading.Timer(0.01, log.append, (1,))
            timer.start()
            timer.join()

        in_thread(work)
        assert log == [1]
