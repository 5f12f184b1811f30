"""raddle.cancel: tokens and deadlines, and the waits and checks in which a task learns that it is to stop."""

import asyncio
import concurrent.futures
import gc
import threading
import time
import weakref

import pytest

from tools import RADDLE, Crew, Stopwatch, in_thread, outcome, wait_until, wait_until_blocked

cancel = pytest.importorskip("raddle.cancel")

#: Seconds within which a task that waits has to be raised in.
SOON = 0.2


@pytest.fixture
def make(raddle):
    pools = []

    def make(*args, **kwargs):
        pools.append(raddle.futures.ThreadPoolExecutor(*args, **kwargs))
        return pools[-1]

    yield make
    for pool in pools:
        pool.shutdown(wait=False, cancel_futures=True)
        for thread in list(pool._threads):
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture
def gate():
    event = threading.Event()
    yield event
    event.set()


def worker_of(pool):
    [thread] = pool._threads
    return thread


#: Never set: what keeps daemon threads alive.
END = threading.Event()


def spin():
    """A task that computes, and checks."""
    while True:
        cancel.check()


def locked():
    lock = RADDLE.threading.Lock()
    lock.acquire()
    return lock


def owned():
    """An RLock that another thread has."""
    lock = RADDLE.threading.RLock()
    taken = threading.Event()
    threading.Thread(target=lambda: (lock.acquire(), taken.set(), END.wait()), daemon=True).start()
    assert taken.wait(20)
    return lock


def full_queue():
    queue = RADDLE.queue.Queue(1)
    queue.put(1)
    return queue


def wait_in(condition, timeout=None):
    with condition:
        condition.wait(timeout)


def enter(thing):
    with thing:
        pass


#: Each kind of wait: makes what is waited for, and waits for it.
WAITS = {
    "Lock.acquire": (locked, lambda lock: lock.acquire()),
    "Lock.acquire timed": (locked, lambda lock: lock.acquire(timeout=1000)),
    "with Lock": (locked, enter),
    "RLock.acquire": (owned, lambda lock: lock.acquire()),
    "with RLock": (owned, enter),
    "Condition.wait": (RADDLE.threading.Condition, wait_in),
    "Condition.wait timed": (RADDLE.threading.Condition, lambda condition: wait_in(condition, 1000)),
    "Semaphore.acquire": (lambda: RADDLE.threading.Semaphore(0), lambda semaphore: semaphore.acquire()),
    "Event.wait": (RADDLE.threading.Event, lambda event: event.wait()),
    "Event.wait timed": (RADDLE.threading.Event, lambda event: event.wait(1000)),
    "Barrier.wait": (lambda: RADDLE.threading.Barrier(2), lambda barrier: barrier.wait()),
    "Queue.get": (RADDLE.queue.Queue, lambda queue: queue.get()),
    "Queue.get timed": (RADDLE.queue.Queue, lambda queue: queue.get(timeout=1000)),
    "Queue.put": (full_queue, lambda queue: queue.put(1)),
    "Queue.join": (full_queue, lambda queue: queue.join()),
    "SimpleQueue.get": (RADDLE.queue.SimpleQueue, lambda queue: queue.get()),
    "Thread.join": (lambda: None, lambda _: daemon().join()),
    "Future.result": (RADDLE.futures.Future, lambda future: future.result()),
    "Future.result timed": (RADDLE.futures.Future, lambda future: future.result(1000)),
    "Future.exception": (RADDLE.futures.Future, lambda future: future.exception()),
    "wait": (RADDLE.futures.Future, lambda future: RADDLE.futures.wait([future])),
    "as_completed": (RADDLE.futures.Future, lambda future: list(RADDLE.futures.as_completed([future]))),
    "sleep": (lambda: None, lambda _: cancel.sleep(1000)),
}


def daemon():
    thread = RADDLE.threading.Thread(target=END.wait, daemon=True)
    thread.start()
    return thread


class TestToken:
    def test_new(self):
        token = cancel.Token()
        assert (token.cancelled, token.remaining) == (False, None)
        assert token.check() is None

    def test_cancel(self):
        token = cancel.Token()
        for _ in range(2):
            assert token.cancel() is None
            assert token.cancelled is True
        with pytest.raises(cancel.Cancelled) as caught:
            token.check()
        assert type(caught.value) is cancel.Cancelled
        assert str(caught.value) == "the task was asked to stop"

    def test_timeout(self):
        token = cancel.Token(timeout=0.05)
        assert 0 < token.remaining <= 0.05
        assert not token.cancelled
        wait_until(lambda: token.cancelled, "its time is up")
        assert token.remaining == 0
        with pytest.raises(cancel.DeadlineExceeded):
            token.check()

    @pytest.mark.parametrize("timeout", [0, -1])
    def test_no_time(self, timeout):
        assert cancel.Token(timeout=timeout).cancelled

    @pytest.mark.parametrize("timeout", ["1", float("nan")])
    def test_wrong_timeout(self, timeout):
        with pytest.raises((TypeError, ValueError)):
            cancel.Token(timeout=timeout)

    @pytest.mark.parametrize("make", [lambda token: token.child(), lambda token: cancel.Token(parent=token)])
    def test_child(self, make):
        parent = cancel.Token()
        child = make(parent)
        other = make(parent)
        child.cancel()
        assert [token.cancelled for token in (parent, child, other)] == [False, True, False]
        parent.cancel()
        assert other.cancelled
        assert make(parent).cancelled

    def test_child_has_the_earlier_deadline(self):
        parent = cancel.Token(timeout=100)
        assert parent.child(timeout=1000).remaining <= 100
        assert parent.child(timeout=1).remaining <= 1
        assert parent.child().remaining <= 100
        assert parent.remaining > 50

    def test_deep_family(self):
        tokens = [cancel.Token()]
        for _ in range(1000):
            tokens.append(tokens[-1].child())
        tokens[0].cancel()
        assert tokens[-1].cancelled

    def test_wrong_parent(self):
        with pytest.raises(TypeError, match=r"raddle\.cancel\.Token"):
            cancel.Token(parent=5)

    def test_is_released(self):
        parent = cancel.Token()
        child = parent.child()
        references = [weakref.ref(parent), weakref.ref(child)]
        del parent
        assert references[0]() is not None
        del child
        gc.collect()
        assert [reference() for reference in references] == [None, None]

    def test_exceptions(self):
        assert issubclass(cancel.Cancelled, concurrent.futures.CancelledError)
        assert issubclass(cancel.DeadlineExceeded, cancel.Cancelled)
        assert issubclass(cancel.DeadlineExceeded, TimeoutError)

    def test_outside_of_tasks(self):
        assert cancel.current() is None
        assert cancel.check() is None
        with Stopwatch() as watch:
            cancel.sleep(0.02)
        assert watch.seconds >= 0.02

    @pytest.mark.parametrize("seconds", ["1", None])
    def test_sleep_that_makes_no_sense(self, seconds):
        with pytest.raises((TypeError, ValueError)):
            cancel.sleep(seconds)

    def test_names(self):
        for name in cancel.__all__:
            assert getattr(cancel, name)


class TestBeforeItBegins:
    def test_token_cancelled_before_the_submit(self, make):
        pool, token, ran = make(1), cancel.Token(), []
        token.cancel()
        future = pool.options(token=token).submit(ran.append, 1)
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(20)
        assert future.cancelled()
        assert ran == []

    def test_token_cancelled_in_line(self, make, gate):
        pool, token, ran = make(1), cancel.Token(), []
        pool.submit(gate.wait, 20)
        future = pool.options(token=token).submit(ran.append, 1)
        other = pool.submit(ran.append, 2)
        token.cancel()
        gate.set()
        other.result(20)
        assert (future.cancelled(), ran) == (True, [2])

    def test_late_in_line(self, make, gate):
        pool, ran = make(1), []
        pool.submit(gate.wait, 20)
        future = pool.options(timeout=0.02).submit(ran.append, 1)
        time.sleep(0.03)
        gate.set()
        with pytest.raises(cancel.DeadlineExceeded):
            future.result(20)
        assert (future.cancelled(), ran) == (False, [])

    def test_cancel_of_the_future(self, make, gate):
        pool = make(1)
        pool.submit(gate.wait, 20)
        future = pool.submit(int)
        assert future.cancel(running=True) is True
        assert future._state == "CANCELLED"

    def test_wrong_token(self, make):
        with pytest.raises(TypeError, match=r"token must be a raddle\.cancel\.Token"):
            make(1).options(token=5)

    def test_options_without_any(self, make):
        pool = make(1)
        assert pool.options().submit(pow, 2, 5).result(20) == 32
        assert pool.options(timeout=20).submit(int, "11", base=2).result(20) == 3


class TestWhileItWaits:
    @pytest.mark.parametrize("kind", WAITS)
    @pytest.mark.parametrize("how", ["token", "parent", "future", "deadline"])
    def test_is_raised_in(self, make, kind, how):
        new, wait = WAITS[kind]
        pool, thing, parent = make(1), new(), cancel.Token()
        token = parent.child()
        seen = []

        def task():
            try:
                wait(thing)
            except BaseException as error:
                seen.append((type(error), time.monotonic()))
                raise

        if how == "deadline":
            end = time.monotonic() + 0.1
            future = pool.options(timeout=0.1).submit(task)
        else:
            future = pool.options(token=token).submit(task)
            wait_until(lambda: pool._threads, "it is started")
            wait_until_blocked(worker_of(pool))
            end = time.monotonic()
            if how == "future":
                assert future.cancel(running=True) is True
            else:
                {"token": token, "parent": parent}[how].cancel()
        kind = cancel.DeadlineExceeded if how == "deadline" else cancel.Cancelled
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(20)
        [(raised, when)] = seen
        assert raised is kind
        assert -0.01 < when - end < SOON
        assert future.cancelled() is (how != "deadline")
        if how == "deadline":
            assert type(future.exception()) is cancel.DeadlineExceeded
        # The worker and what was waited for are whole.
        assert pool.submit(int).result(20) == 0

    def test_what_was_waited_for_is_whole(self, make):
        pool, lock = make(1), locked()
        future = pool.submit(lock.acquire)
        wait_until(lambda: pool._threads, "it is started")
        wait_until_blocked(worker_of(pool))
        assert future.cancel(running=True, timeout=20) is True
        lock.release()
        assert lock.acquire(False)
        condition = RADDLE.threading.Condition()
        future = pool.submit(wait_in, condition)
        wait_until_blocked(worker_of(pool))
        assert future.cancel(running=True, timeout=20) is True
        assert condition.acquire(False)
        condition.release()
        queue = full_queue()
        future = pool.submit(queue.put, 2)
        wait_until_blocked(worker_of(pool))
        assert future.cancel(running=True, timeout=20) is True
        assert (queue.get(), queue.qsize()) == (1, 0)

    def test_wait_that_comes_afterwards(self, make, gate):
        """A task that was asked while it computed is raised in at its next wait, also one that need not block long."""
        pool, begun = make(1), threading.Event()

        def task():
            begun.set()
            gate.wait(20)  # The standard library's: knows nothing of it.
            RADDLE.threading.Event().wait(1000)

        future = pool.submit(task)
        assert begun.wait(20)
        assert future.cancel(running=True) is True
        assert not future.done()
        gate.set()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(20)

    def test_a_wait_that_has_what_it_wants_goes_on(self, make, gate):
        """Only waits that would block are ended: what is there may be taken."""
        pool, begun, lock = make(1), threading.Event(), RADDLE.threading.Lock()

        def task():
            begun.set()
            gate.wait(20)
            with lock:
                return "done"

        future = pool.submit(task)
        assert begun.wait(20)
        future.cancel(running=True)
        gate.set()
        assert future.result(20) == "done"

    def test_many_at_once(self, make):
        pool, token = make(10), cancel.Token()
        futures = [pool.options(token=token).submit(cancel.sleep, 1000) for _ in range(30)]
        wait_until(lambda: pool.stats().running == 10, "ten run")
        with Stopwatch() as watch:
            token.cancel()
            assert RADDLE.futures.wait(futures, 20).not_done == set()
        assert watch.seconds < 5
        assert all(future.cancelled() for future in futures)

    def test_of_other_tasks_nothing_is_felt(self, make):
        pool, token = make(2), cancel.Token()
        event = RADDLE.threading.Event()
        other = pool.submit(event.wait, 20)
        stopped = pool.options(token=token).submit(event.wait, 20)
        wait_until(lambda: pool.stats().running == 2, "both run")
        wait_until_blocked(*pool._threads)
        token.cancel()
        wait_until(stopped.done, "it has stopped")
        assert not other.done()
        event.set()
        assert other.result(20) is True

    def test_next_task_of_the_worker_feels_nothing(self, make):
        pool = make(1)
        for _ in range(20):
            future = pool.submit(cancel.sleep, 1000)
            wait_until(future.running, "it runs")
            future.cancel(running=True)
            next_one = pool.submit(RADDLE.threading.Event().wait, 0.001)
            assert next_one.result(20) is False
            assert future.cancelled()


class TestWhileItComputes:
    @pytest.mark.parametrize("how", ["token", "future", "deadline"])
    def test_check(self, make, how):
        pool, token = make(1), cancel.Token()
        if how == "deadline":
            future = pool.options(timeout=0.05).submit(spin)
        else:
            future = pool.options(token=token).submit(spin)
            wait_until(future.running, "it runs")
            future.cancel(running=True) if how == "future" else token.cancel()
        with Stopwatch() as watch, pytest.raises(concurrent.futures.CancelledError):
            future.result(20)
        assert watch.seconds < 5
        assert future.cancelled() is (how != "deadline")

    def test_current(self, make):
        pool, token = make(1), cancel.Token()

        def task():
            return cancel.current()

        mine = pool.options(token=token).submit(task).result(20)
        assert isinstance(mine, cancel.Token)
        assert mine is not token
        token.cancel()
        assert mine.cancelled
        assert isinstance(pool.submit(task).result(20), cancel.Token)
        assert cancel.current() is None

    def test_current_can_be_handed_on(self, make):
        """A task passes its token to tasks of its own: they stop with it."""
        pool = make(2)

        def outer():
            inner = pool.options(token=cancel.current()).submit(cancel.sleep, 1000)
            box.append(inner)
            cancel.sleep(1000)

        box = []
        future = pool.submit(outer)
        wait_until(lambda: box, "the inner one is submitted")
        wait_until(lambda: pool.stats().running == 2, "both run")
        assert future.cancel(running=True, timeout=20) is True
        wait_until(box[0].cancelled, "the inner one has stopped")

    def test_remaining(self, make):
        remaining = make(1).options(timeout=100).submit(lambda: cancel.current().remaining).result(20)
        assert 50 < remaining <= 100

    def test_threads_of_a_task_are_no_tasks(self, make):
        assert make(1).submit(in_thread, cancel.current).result(20) is None

    def test_nested_tasks_have_their_own(self, make):
        """A task that a waiting worker runs is not the one that waits."""
        pool = make(1)

        def inner():
            return cancel.current()

        def outer():
            before = cancel.current()
            got = pool.submit(inner).result()
            return before is cancel.current(), got is before

        assert pool.options(timeout=100).submit(outer).result(20) == (True, False)


class TestAnswers:
    """What a task does with having been asked."""

    def test_with_a_timeout(self, make):
        pool = make(1)
        future = pool.submit(cancel.sleep, 1000)
        wait_until(future.running, "it runs")
        assert future.cancel(running=True, timeout=20) is True
        assert future.cancelled()

    def test_one_that_does_not_hear(self, make, gate):
        pool = make(1)
        future = pool.submit(gate.wait, 20)
        wait_until(future.running, "it runs")
        with Stopwatch() as watch:
            assert future.cancel(running=True, timeout=0.05) is False
        assert 0.05 <= watch.seconds < 5
        assert future.running()
        gate.set()
        assert future.result(20) is True
        assert not future.cancelled()

    def test_one_that_is_over(self, make):
        future = make(1).submit(int)
        assert future.result(20) == 0
        assert future.cancel(running=True) is False
        assert future.cancel(running=True, timeout=1) is False

    def test_a_plain_future_cannot_be_asked(self, raddle):
        future = raddle.futures.Future()
        future.set_running_or_notify_cancel()
        assert future.cancel(running=True) is False

    def test_not_asked_without_running(self, make, gate):
        pool = make(1)
        future = pool.submit(lambda: gate.wait(20) and cancel.check())
        wait_until(future.running, "it runs")
        assert future.cancel() is False
        assert future.cancel(running=False) is False
        gate.set()
        assert future.result(20) is None

    def test_one_that_cleans_up(self, make):
        pool, cleaned = make(1), []

        def task():
            try:
                cancel.sleep(1000)
            finally:
                cleaned.append(1)

        future = pool.submit(task)
        wait_until(future.running, "it runs")
        assert future.cancel(running=True, timeout=20) is True
        assert cleaned == [1]

    def test_one_that_goes_on(self, make):
        """It swallows the exception: its result counts."""

        def task():
            try:
                cancel.sleep(1000)
            except cancel.Cancelled:
                return "went on"

        pool = make(1)
        future = pool.submit(task)
        wait_until(future.running, "it runs")
        assert future.cancel(running=True, timeout=20) is False
        assert (future.result(20), future.cancelled()) == ("went on", False)

    def test_one_that_raises_something_else(self, make):
        def task():
            try:
                cancel.sleep(1000)
            except cancel.Cancelled:
                raise OSError("no") from None

        pool = make(1)
        future = pool.submit(task)
        wait_until(future.running, "it runs")
        assert future.cancel(running=True, timeout=20) is False
        assert type(future.exception(20)) is OSError

    def test_cancelled_raised_without_having_been_asked(self, make):
        """An error as any other: nobody has cancelled this task."""
        future = make(1).submit(fail_with, concurrent.futures.CancelledError())
        assert type(future.exception(20)) is concurrent.futures.CancelledError
        assert not future.cancelled()

    def test_callbacks_and_waiters_are_told(self, make):
        pool, seen = make(1), []
        future = pool.submit(cancel.sleep, 1000)
        future.add_done_callback(lambda each: seen.append(each.cancelled()))
        with (
            Crew(lambda: outcome(lambda: future.result(20))) as results,
            Crew(lambda: RADDLE.futures.wait([future], 20).done) as waits,
            Crew(lambda: concurrent.futures.wait([future], 20).done) as standard,
        ):
            for crew in (results, waits, standard):
                crew.wait_until_blocked()
            future.cancel(running=True)
        assert results.results == [("raised", "CancelledError")]
        assert waits.results == standard.results == [{future}]
        wait_until(lambda: seen == [True], "the callback was called")

    def test_asyncio_sees_it(self, make):
        pool = make(1)

        async def main():
            future = pool.submit(cancel.sleep, 1000)
            wrapped = asyncio.wrap_future(future)
            asyncio.get_running_loop().call_later(0.02, lambda: future.cancel(running=True))
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(wrapped, 20)

        asyncio.run(main())

    def test_tokens_and_tasks_are_released(self, make):
        class Thing:
            pass

        pool, token, thing = make(1), cancel.Token(), Thing()
        future = pool.options(token=token).submit(lambda _: cancel.sleep(1000), thing)
        wait_until(future.running, "it runs")
        token.cancel()
        wait_until(future.done, "it has stopped")
        references = [weakref.ref(each) for each in (token, thing, future)]
        del token, thing, future
        wait_until(
            lambda: gc.collect() + 1 and not any(reference() for reference in references), "all is gone"
        )


def fail_with(error):
    raise error


class TestRaces:
    def test_cancel_at_the_beginning_and_at_the_end(self, make):
        """Whenever it comes, the future ends, and the pool goes on."""
        pool = make(2)
        for number in range(300):
            token = cancel.Token()
            future = pool.options(token=token).submit(cancel.sleep, 0.0003)
            if number % 3 == 0:
                time.sleep(0.0002)
            answer = future.cancel(running=True) if number % 2 else token.cancel()
            assert concurrent.futures.wait([future], 20).not_done == set()
            if answer is False:
                assert not future.cancelled()
        assert pool.submit(int).result(20) == 0

    def test_by_many_threads(self, make):
        pool = make(2)
        for _ in range(30):
            future = pool.submit(cancel.sleep, 1000)
            wait_until(future.running, "it runs")
            with Crew(lambda future=future: future.cancel(running=True, timeout=20), 4) as crew:
                pass
            assert crew.results == [True] * 4
