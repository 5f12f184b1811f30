"""Pools and futures beyond the standard library's: bounded, nested, with context, statistics, and no lost errors."""

import asyncio
import contextvars
import gc
import hashlib
import inspect
import itertools
import logging
import os
import resource
import subprocess
import sys
import threading
import time
import tracemalloc
from types import SimpleNamespace

import pytest

from tools import (
    Crew,
    Stopwatch,
    assert_matches,
    check_child,
    in_thread,
    outcome,
    run_child,
    scaled,
    wait_until,
    wait_until_blocked,
)

needs_gil = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="threads compute side by side"
)


@pytest.fixture
def make(raddle):
    """Makes pools, which are shut down after the test."""
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


def occupied(pool, gate, count=1):
    begun = threading.Semaphore(0)
    futures = [pool.submit(lambda: begun.release() or gate.wait(20)) for _ in range(count)]
    for _ in futures:
        assert begun.acquire(timeout=20)
    return futures


def fail(error):
    raise error


class TestBounded:
    @pytest.mark.parametrize("limit", [0, -1])
    def test_wrong_limit(self, make, limit):
        with pytest.raises(ValueError, match="max_pending must be greater than 0"):
            make(1, max_pending=limit)

    def test_wrong_policy(self, make):
        with pytest.raises(
            ValueError, match="on_full must be 'block', 'raise', 'caller_runs' or 'drop_oldest'"
        ):
            make(1, max_pending=1, on_full="wait")

    def test_no_limit(self, make, gate):
        pool = make(1)
        occupied(pool, gate)
        for _ in range(1000):
            pool.submit(int)
        assert pool.stats().pending == 1000

    def test_block(self, make, gate):
        pool = make(1, max_pending=2)
        occupied(pool, gate)
        pool.submit(int)
        pool.submit(int)
        with Crew(lambda: pool.submit(int, 7), 3) as crew:
            crew.wait_until_blocked()
            assert pool._work_queue.qsize() == 2
            gate.set()
        assert [future.result(20) for future in crew.results] == [7, 7, 7]

    def test_block_is_ended_by_a_cancelled_task(self, make, gate):
        pool = make(1, max_pending=1)
        occupied(pool, gate)
        waiting = pool.submit(int)
        with Crew(lambda: pool.submit(int, 7)) as crew:
            crew.wait_until_blocked()
            assert waiting.cancel()
        assert not crew.results[0].done()
        assert pool._work_queue.qsize() == 1

    def test_block_is_ended_by_shutdown(self, make, gate):
        pool = make(1, max_pending=1)
        occupied(pool, gate)
        pool.submit(int)
        with Crew(lambda: outcome(lambda: pool.submit(int)), 3) as crew:
            crew.wait_until_blocked()
            pool.shutdown(wait=False)
        assert crew.results == [("raised", "RuntimeError")] * 3

    def test_block_with_a_timeout(self, raddle, make, gate):
        pool = make(1, max_pending=1, submit_timeout=0.05)
        occupied(pool, gate)
        pool.submit(int)
        with (
            Stopwatch() as watch,
            pytest.raises(raddle.queue.Full, match="1 tasks wait for a worker already"),
        ):
            pool.submit(int)
        assert 0.05 <= watch.seconds < 5
        assert pool.stats().submitted == 2

    @pytest.mark.parametrize("timeout", [0, 0.0])
    def test_no_time_to_block(self, raddle, make, gate, timeout):
        pool = make(1, max_pending=1, submit_timeout=timeout)
        occupied(pool, gate)
        pool.submit(int)
        with pytest.raises(raddle.queue.Full):
            pool.submit(int)

    def test_raise(self, raddle, make, gate):
        pool = make(1, max_pending=2, on_full="raise")
        occupied(pool, gate)
        pool.submit(int)
        waiting = pool.submit(int)
        with pytest.raises(raddle.queue.Full):
            pool.submit(int)
        waiting.cancel()
        pool.submit(int)
        with pytest.raises(raddle.queue.Full):
            pool.submit(int)

    def test_caller_runs(self, make, gate):
        pool = make(1, max_pending=1, on_full="caller_runs")
        occupied(pool, gate)
        waiting = pool.submit(threading.get_ident)
        mine = pool.submit(threading.get_ident)
        assert mine.done()
        assert mine.result() == threading.get_ident()
        bad = pool.submit(fail, OSError("no"))
        assert type(bad.exception()) is OSError
        assert not waiting.done()
        gate.set()
        assert waiting.result(20) != threading.get_ident()

    def test_drop_oldest(self, make, gate):
        pool = make(1, max_pending=2, on_full="drop_oldest")
        occupied(pool, gate)
        seen, ran = [], []
        futures = [pool.submit(ran.append, n) for n in range(2)]
        futures[0].add_done_callback(seen.append)
        futures += [pool.submit(ran.append, n) for n in range(2, 5)]
        assert [future.cancelled() for future in futures] == [True, True, True, False, False]
        assert seen == [futures[0]]
        gate.set()
        pool.shutdown()
        assert ran == [3, 4]

    def test_drop_oldest_wakes_who_waits_for_it(self, raddle, make, gate):
        pool = make(1, max_pending=1, on_full="drop_oldest")
        occupied(pool, gate)
        waiting = pool.submit(int)
        with (
            Crew(lambda: outcome(lambda: waiting.result(20))) as results,
            Crew(lambda: raddle.futures.wait([waiting], 20).done) as waits,
        ):
            results.wait_until_blocked()
            waits.wait_until_blocked()
            pool.submit(int)
        assert results.results == [("raised", "CancelledError")]
        assert waits.results == [{waiting}]

    @pytest.mark.parametrize("policy", ["block", "caller_runs", "drop_oldest"])
    def test_never_more(self, make, policy):
        pool, limit, most = make(2, max_pending=5, on_full=policy), 5, 0
        ran = itertools.count()

        def submit():
            nonlocal most
            for _ in range(scaled(400)):
                pool.submit(next, ran)
                most = max(most, pool._work_queue.qsize())

        with Crew(submit, 4):
            pass
        pool.shutdown()
        assert most <= limit
        if policy != "drop_oldest":
            assert next(ran) == 4 * scaled(400)

    @pytest.mark.parametrize("policy", ["block", "caller_runs"])
    def test_under_map(self, make, policy):
        pool, most = make(2, max_pending=5, on_full=policy), []

        def task(number):
            most.append(pool._work_queue.qsize())
            return number

        count = scaled(2000)
        assert list(pool.map(task, range(count))) == list(range(count))
        assert max(most) <= 5

    def test_under_map_with_buffersize(self, make):
        pool = make(1, max_pending=2)
        assert list(pool.map(int, range(100), buffersize=10)) == list(range(100))

    def test_raise_under_map(self, raddle, make, gate):
        pool = make(1, max_pending=2, on_full="raise")
        occupied(pool, gate)
        with pytest.raises(raddle.queue.Full):
            pool.map(int, range(5))

    def test_tasks_that_submit(self, make):
        """A worker must not wait for room that only it could make."""
        pool, ran = make(1, max_pending=1), []

        def task(depth):
            ran.append(depth)
            for _ in range(2):
                if depth:
                    pool.submit(task, depth - 1)

        pool.submit(task, 6).result(20)
        wait_until(lambda: len(ran) == 2**7 - 1, "all have run")

    def test_a_million_submits(self, make):
        """Never more than 100 wait, seen after every submit, and memory stays flat."""
        pool = make(2, max_pending=100)
        submit, pending = pool.submit, pool._work_queue.qsize

        def rounds(number):
            most = 0
            for _ in range(number):
                submit(int)
                if (now := pending()) > most:
                    most = now
            return most

        def memory():
            """Bytes of the process, and objects of the interpreter."""
            gc.collect()
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize(), sys.getallocatedblocks()

        rounds(5_000)
        before = memory()
        assert rounds(1_000_000) <= 100
        wait_until(lambda: pool.stats().idle_workers == 2, "all have run")
        after = memory()
        assert after[0] - before[0] < 2_000_000, (before, after)
        assert after[1] - before[1] < 2_000, (before, after)
        assert (pool.stats().submitted, pool.stats().done) == (1_005_000, 1_005_000)

    def test_cancelled_tasks_do_not_pile_up(self, make, gate):
        """They wait for nothing: neither do they count, nor do they take memory for ever."""
        pool = make(1, max_pending=10)
        occupied(pool, gate)
        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(5000):
                assert pool.submit(int).cancel()
            current, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert pool._work_queue.qsize() == 0
        assert current < 300_000, current

    def test_queue_with_a_maxsize_in_its_place(self, raddle, make, gate):
        """How programs bound the standard library's pool."""
        pool = make(1)
        pool._work_queue = raddle.queue.Queue(2)
        occupied(pool, gate)
        pool.submit(int)
        pool.submit(int)
        with Crew(lambda: pool.submit(int)) as crew:
            crew.wait_until_blocked()
            gate.set()


VARIABLE = contextvars.ContextVar("VARIABLE", default="default")


@pytest.fixture
def context():
    """Runs a function in a context where the variable is set."""

    def run(value, function, *args):
        def inner():
            VARIABLE.set(value)
            return function(*args)

        return contextvars.copy_context().run(inner)

    return run


class TestContext:
    def test_follows_the_task(self, make, context):
        pool = make(1)
        futures = [context(n, pool.submit, VARIABLE.get) for n in range(5)]
        assert [future.result(20) for future in futures] == list(range(5))
        assert pool.submit(VARIABLE.get).result(20) == "default"

    def test_is_a_copy(self, make, context):
        pool = make(1)

        def submit():
            pool.submit(VARIABLE.set, "by the task").result(20)
            return VARIABLE.get(), pool.submit(VARIABLE.get).result(20)

        assert context("mine", submit) == ("mine", "mine")

    def test_as_it_is_at_the_submit(self, make, context, gate):
        pool = make(1)
        occupied(pool, gate)

        def submit():
            future = pool.submit(VARIABLE.get)
            VARIABLE.set("later")
            return future

        future = context("earlier", submit)
        gate.set()
        assert future.result(20) == "earlier"

    def test_follows_map(self, make, context):
        pool = make(2)
        assert context("mine", lambda: list(pool.map(lambda _: VARIABLE.get(), range(5)))) == ["mine"] * 5
        assert (
            context("mine", lambda: list(pool.map(lambda _: VARIABLE.get(), range(5), buffersize=2)))
            == ["mine"] * 5
        )

    def test_follows_options(self, make, context):
        pool = make(1)
        assert context("mine", pool.options(timeout=20).submit, VARIABLE.get).result(20) == "mine"

    def test_follows_nested_tasks(self, make, context):
        pool = make(1)

        def outer():
            VARIABLE.set("outer")
            return pool.submit(VARIABLE.get).result(20), VARIABLE.get()

        assert context("mine", pool.submit, outer).result(20) == ("outer", "outer")

    def test_follows_callbacks(self, make, context, gate):
        pool, seen = make(1), []
        [future] = occupied(pool, gate)
        for n in range(3):
            context(n, future.add_done_callback, lambda _: seen.append(VARIABLE.get()))
        gate.set()
        wait_until(lambda: seen == [0, 1, 2], "the callbacks have run")

    def test_follows_callbacks_of_a_plain_future(self, raddle, context):
        future, seen = raddle.futures.Future(), []
        context("mine", future.add_done_callback, lambda _: seen.append(VARIABLE.get()))
        context("theirs", future.set_result, 1)
        assert seen == ["mine"]

    def test_follows_the_caller_who_runs_it(self, make, context, gate):
        pool = make(1, max_pending=1, on_full="caller_runs")
        occupied(pool, gate)
        pool.submit(int)

        def submit():
            pool.submit(VARIABLE.set, "by the task").result()
            return VARIABLE.get()

        assert context("mine", submit) == "mine"

    def test_not_wanted(self, make, context, gate):
        pool, seen = make(1, context=False), []
        assert context("mine", pool.submit, VARIABLE.get).result(20) == "default"
        [future] = occupied(pool, gate)
        context("mine", future.add_done_callback, lambda _: seen.append(VARIABLE.get()))
        gate.set()
        wait_until(lambda: seen == ["default"], "the callback has run")

    def test_not_wanted_stays_with_the_thread(self, make):
        pool = make(1, context=False)
        pool.submit(VARIABLE.set, "by a task").result(20)
        assert pool.submit(VARIABLE.get).result(20) == "by a task"

    def test_set_by_the_initializer(self, make, context):
        pool = make(1, initializer=VARIABLE.set, initargs=("initial",))
        assert [context("mine", pool.submit, VARIABLE.get).result(20) for _ in range(3)] == ["initial"] * 3

    def test_initializer_that_sets_none(self, make, context):
        pool = make(1, initializer=int)
        assert [context("mine", pool.submit, VARIABLE.get).result(20) for _ in range(3)] == ["mine"] * 3

    def test_context_of_another_thread(self, make):
        pool = make(1)
        VARIABLE.set("of the main thread")
        try:
            assert in_thread(lambda: pool.submit(VARIABLE.get).result(20)) == "default"
        finally:
            VARIABLE.set("default")


class TestNested:
    @pytest.mark.parametrize("depth", [1, 10, 100])
    @pytest.mark.parametrize("how", ["result", "exception", "wait", "as_completed", "map"])
    def test_depth(self, raddle, make, depth, how):
        """A pool of one, and each task waits for the next."""
        pool = make(1)

        def task(left):
            if not left:
                return 0
            if how == "map":
                return next(pool.map(task, [left - 1])) + 1
            future = pool.submit(task, left - 1)
            if how == "exception":
                assert future.exception() is None
            elif how == "wait":
                assert raddle.futures.wait([future]).not_done == set()
            elif how == "as_completed":
                assert list(raddle.futures.as_completed([future])) == [future]
            return future.result() + 1

        assert pool.submit(task, depth).result(20) == depth

    def test_tree(self, make):
        pool = make(2)

        def fibonacci(n):
            if n < 2:
                return n
            one, two = pool.submit(fibonacci, n - 1), pool.submit(fibonacci, n - 2)
            return one.result() + two.result()

        assert pool.submit(fibonacci, 12).result(20) == 144

    def test_several_at_once(self, raddle, make):
        pool = make(1)

        def task():
            futures = [pool.submit(int, n) for n in range(50)]
            return sum(future.result() for future in raddle.futures.as_completed(futures))

        assert pool.submit(task).result(20) == sum(range(50))

    def test_first_of_several(self, raddle, make):
        pool = make(1)

        def task():
            futures = [pool.submit(int, n) for n in range(5)]
            done, not_done = raddle.futures.wait(futures, return_when="FIRST_COMPLETED")
            return len(done) >= 1, len(done) + len(not_done)

        assert pool.submit(task).result(20) == (True, 5)

    def test_error(self, make):
        pool = make(1)
        with pytest.raises(OSError, match="no"):
            pool.submit(lambda: pool.submit(fail, OSError("no")).result()).result(20)

    def test_of_another_pool(self, make):
        """Two pools of one, whose tasks wait for each other's: only the own line is helped with."""
        one, two = make(1), make(1)
        ident = one.submit(threading.get_ident).result(20)
        assert two.submit(lambda: one.submit(threading.get_ident).result()).result(20) == ident

    def test_with_a_timeout(self, make):
        """A task that has not begun is run, whatever the time: nobody else could."""
        pool = make(1)
        assert pool.submit(lambda: pool.submit(int, 5).result(timeout=1)).result(20) == 5

    def test_no_time_to_wait_runs_nothing(self, raddle, make):
        pool = make(1)

        def task():
            future = pool.submit(int)
            return outcome(lambda: future.result(timeout=0)), future.done()

        assert pool.submit(task).result(20) == (("raised", "TimeoutError"), False)

    def test_not_wanted(self, raddle, make):
        pool = make(1, nested=False)

        def task():
            future = pool.submit(int)
            return outcome(lambda: future.result(timeout=0.05)), future

        result, future = pool.submit(task).result(20)
        assert result == ("raised", "TimeoutError")
        assert future.result(20) == 0

    def test_not_wanted_in_wait(self, raddle, make):
        pool = make(1, nested=False)

        def task():
            future = pool.submit(int)
            return raddle.futures.wait([future], 0.05), future

        (done, not_done), future = pool.submit(task).result(20)
        assert (done, not_done) == (set(), {future})

    def test_runs_only_what_is_waited_for(self, make, gate):
        pool, ran = make(1), []

        def task():
            pool.submit(ran.append, "other")
            pool.submit(ran.append, "mine").result()
            return list(ran)

        assert pool.submit(task).result(20) == ["mine"]
        pool.shutdown()
        assert ran == ["mine", "other"]

    def test_by_a_thread_of_the_task(self, make):
        """A thread that a task starts is no worker: it waits until a worker has time."""
        pool = make(1)

        def task():
            future = pool.submit(int, 5)
            return future, in_thread(lambda: outcome(lambda: future.result(0.05)))

        future, result = pool.submit(task).result(20)
        assert result == ("raised", "TimeoutError")
        assert future.result(20) == 5


@pytest.fixture
def lost(caplog):
    """The messages about exceptions that nobody looked at."""

    def messages():
        return [record for record in caplog.records if "was never looked at" in record.getMessage()]

    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        yield messages


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


def submit_bad(pool):
    return pool.submit(fail, OSError("nobody saw me"))  # here


class TestLostExceptions:
    def test_is_logged_when_the_future_dies(self, make, lost):
        pool = make(1)
        future = submit_bad(pool)
        wait_until(future.done, "it is over")
        assert lost() == []
        del future
        wait_until(lambda: lost(), "it is logged")
        gc.collect()
        pool.shutdown()
        [record] = lost()
        assert (record.name, record.levelno) == ("concurrent.futures", logging.ERROR)
        place = f"{__file__}:{line_of(submit_bad, '# here')} in submit_bad"
        assert place in record.getMessage()
        assert record.exc_info[0] is OSError
        assert str(record.exc_info[1]) == "nobody saw me"
        assert record.exc_info[2] is not None

    @pytest.mark.parametrize(
        "look",
        [
            lambda future: outcome(future.result),
            lambda future: future.exception(),
            lambda future: future._exception,
            lambda future: future.add_done_callback(lambda each: each.exception()),
        ],
        ids=["result", "exception", "_exception", "callback"],
    )
    def test_is_not_logged_when_looked_at(self, make, lost, look):
        pool = make(1)
        future = submit_bad(pool)
        wait_until(future.done, "it is over")
        look(future)
        del future
        pool.shutdown()
        gc.collect()
        assert lost() == []

    def test_a_callback_that_does_not_look_is_no_look(self, make, lost):
        pool = make(1)
        future = submit_bad(pool)
        future.add_done_callback(lambda each: None)
        pool.shutdown()
        del future
        gc.collect()
        assert len(lost()) == 1

    def test_a_wait_is_no_look(self, raddle, make, lost):
        pool = make(1)
        future = submit_bad(pool)
        raddle.futures.wait([future], 20)
        assert list(raddle.futures.as_completed([future], 20)) == [future]
        pool.shutdown()
        del future
        gc.collect()
        assert len(lost()) == 1

    def test_map_that_is_read(self, make, lost):
        pool = make(1)
        with pytest.raises(OSError):
            list(pool.map(fail, [OSError("no")]))
        pool.shutdown()
        gc.collect()
        assert lost() == []

    def test_map_that_nobody_reads(self, make, lost):
        pool = make(1)
        iterator = pool.map(fail, [OSError("one"), OSError("two")])
        pool.shutdown()
        del iterator
        gc.collect()
        assert sorted(str(record.exc_info[1]) for record in lost()) == ["one", "two"]

    def test_asyncio_looks(self, make, lost):
        pool = make(1)

        async def main():
            with pytest.raises(OSError):
                await asyncio.get_running_loop().run_in_executor(pool, fail, OSError("no"))

        asyncio.run(main())
        pool.shutdown()
        gc.collect()
        assert lost() == []

    def test_cancelled_ones_have_none(self, make, lost, gate):
        pool = make(1)
        occupied(pool, gate)
        pool.submit(fail, OSError()).cancel()
        gate.set()
        pool.shutdown()
        gc.collect()
        assert lost() == []

    def test_futures_of_no_pool_are_their_makers(self, raddle, lost):
        future = raddle.futures.Future()
        future.set_exception(OSError())
        del future
        gc.collect()
        assert lost() == []

    def test_each_of_many_once(self, make, lost):
        pool = make(3)
        for number in range(200):
            pool.submit(fail, OSError(number))
        pool.shutdown()
        gc.collect()
        assert sorted(record.exc_info[1].args[0] for record in lost()) == list(range(200))

    def test_in_a_cycle(self, make, lost):
        pool = make(1)
        future = submit_bad(pool)
        future.myself = future
        pool.shutdown()
        del future
        gc.collect()
        assert len(lost()) == 1

    def test_each_although_memory_is_used_again(self, make, lost):
        with make(1) as pool:
            for _ in range(20):
                pool.submit(int, "x")
        gc.collect()
        assert len(lost()) == 20

    def test_exception_that_keeps_its_future(self, make, lost):
        """The exception's frame refers to the future: a cycle through what is lost."""
        pool = make(1)
        box = []

        def task():
            future = box[0]  # noqa: F841 - kept by the traceback
            raise OSError("no")

        gate = threading.Event()
        pool.submit(gate.wait, 20)
        box.append(pool.submit(task))
        gate.set()
        pool.shutdown()
        box.clear()
        gc.collect()
        assert len(lost()) == 1

    ALIVE = """
import sys, threading
def bad():
    raise OSError("nobody saw me")
pool = futures.ThreadPoolExecutor(1)
kept = pool.submit(bad)
{more}
"""

    @pytest.mark.parametrize(
        "more",
        [
            "",
            "pool.shutdown()",
            "kept = None",
            "kept.me = kept",
            "del kept, pool",
            "import raddle.cancel; sys.exit()",
        ],
    )
    def test_at_exit(self, raddle, more):
        done = run_child(raddle.pool_prelude + self.ALIVE.format(more=more))
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.count("OSError: nobody saw me") == 1, done.stderr
        assert done.stderr.count("was never looked at") == 1
        assert_matches(r"submitted at <string>:\d+ in <module>", done.stderr)

    def test_at_exit_when_looked_at(self, raddle):
        check_child(raddle.pool_prelude + self.ALIVE.format(more="kept.exception()"), out="")

    def test_logging_that_fails(self, make, monkeypatch):
        """An error of the log goes to the hook for errors that cannot be raised, and no further."""
        told = []
        monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_type))
        monkeypatch.setattr(logging.getLogger("concurrent.futures"), "error", lambda *args, **kwargs: 1 / 0)
        pool = make(1)
        future = submit_bad(pool)
        wait_until(future.done, "it is over")
        pool.shutdown()
        del future
        gc.collect()
        assert told == [ZeroDivisionError]


class TestSubmittedAt:
    def test_place(self, make):
        future = submit_bad(make(1))
        assert future.submitted_at == (__file__, line_of(submit_bad, "# here"), "submit_bad")
        future.exception(20)

    def test_of_a_plain_future(self, raddle):
        assert raddle.futures.Future().submitted_at is None

    def test_of_options(self, make):
        def submit(pool):
            return pool.options().submit(int)  # there

        future = submit(make(1))
        assert future.submitted_at[:2] == (__file__, line_of(submit, "# there"))


def test_a_pool_has_no_dict_of_its_own(make):
    """With one, each `pool.submit` takes the interpreter a search through it."""
    pool = make(1)
    assert pool.submit(abs, -1).result(20) == 1
    assert list(pool.map(abs, [-2])) == [2]
    held = gc.get_referents(pool)
    assert not any(type(one) is dict for one in held)
    assert vars(pool) == {}
    pool.label = "mine"
    assert vars(pool) == {"label": "mine"}


class TestStats:
    def test_before_any_work(self, make):
        stats = make(3).stats()
        counts = ("submitted", "pending", "running", "done", "failed", "workers", "idle_workers")
        assert [getattr(stats, name) for name in counts] == [0] * 7
        assert set(stats[7:]) == {None}

    def test_counts(self, make, gate):
        pool = make(2)
        occupied(pool, gate)
        for _ in range(3):
            pool.submit(int).result(20)
        pool.submit(fail, OSError()).exception(20)
        occupied(pool, gate)
        waiting = [pool.submit(int) for _ in range(4)]
        stats = pool.stats()
        assert (stats.submitted, stats.pending, stats.running) == (10, 4, 2)
        assert (stats.done, stats.failed) == (3, 1)
        assert (stats.workers, stats.idle_workers) == (2, 0)
        waiting[0].cancel()
        assert pool.stats().pending == 3
        gate.set()
        for future in waiting[1:]:
            future.result(20)
        wait_until(lambda: pool.stats().idle_workers == 2, "all sleep")
        stats = pool.stats()
        assert (stats.pending, stats.running, stats.done, stats.failed) == (0, 0, 8, 1)

    def test_cancelled_while_running_counts_as_failed(self, raddle, make):
        from raddle import cancel

        pool = make(1)
        begun = threading.Event()
        future = pool.submit(lambda: begun.set() or cancel.sleep(20))
        assert begun.wait(20)
        future.cancel(running=True, timeout=20)
        stats = pool.stats()
        assert (stats.done, stats.failed, stats.running) == (0, 1, 0)

    def test_times(self, make):
        pool = make(1)
        for _ in range(20):
            pool.submit(time.sleep, 0.01).result(20)
        gate = threading.Event()
        occupied(pool, gate)
        last = pool.submit(int)
        time.sleep(0.05)
        gate.set()
        last.result(20)
        stats = pool.stats()
        assert 0.008 < stats.run_time_p50 < 0.03
        assert stats.run_time_p50 <= stats.run_time_p99
        assert stats.queue_wait_p50 < 0.02
        assert stats.queue_wait_p99 > 0.03

    def test_waiting_tasks_want_more_workers(self, make):
        pool = make(1)
        for _ in range(20):
            pool.submit(time.sleep, 0.005).result(20)
        wait_until(lambda: pool.stats().idle_workers == 1, "it sleeps")
        stats = pool.stats()
        assert stats.cpu_per_task < stats.wall_per_task / 4
        assert stats.recommended_workers > 8

    def test_computing_tasks_want_one_worker_alone(self, make):
        pool = make(1)
        for _ in range(10):
            pool.submit(compute, 0.01).result(20)
        wait_until(lambda: pool.stats().idle_workers == 1, "it sleeps")
        stats = pool.stats()
        assert 0.005 < stats.cpu_per_task < 0.02
        assert stats.recommended_workers == 1

    @needs_gil
    @pytest.mark.parametrize("workers", [2, 8, 16])
    def test_waiting_for_the_gil_is_no_waiting(self, make, workers):
        """Seen from outside, each of them waits most of its time."""
        pool = make(workers)
        for future in [pool.submit(compute, 0.01) for _ in range(scaled(150))]:
            future.result(20)
        stats = pool.stats()
        assert stats.wall_per_task > 1.3 * stats.cpu_per_task
        assert stats.recommended_workers <= 2

    @needs_gil
    @pytest.mark.parametrize("workers", [1, 4, 20])
    def test_both(self, make, workers):
        """(50 + 5) / 5, one core: with too few workers, and with so many that they wait for each other."""
        pool = make(workers)
        for future in [pool.submit(compute_and_wait, 0.005, 0.05) for _ in range(20 * min(workers, 12))]:
            future.result(20)
        stats = pool.stats()
        # On a machine that others keep busy, the share of waiting is known less well.
        assert 8 <= stats.recommended_workers <= max(14, 0.7 * stats.wall_per_task / stats.cpu_per_task)

    @pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
    def test_computing_without_the_gil_wants_the_cores(self, make):
        data = bytes(2_000_000)
        alone, pool = make(1), make(24)
        for _ in range(20):
            alone.submit(sha_and_wait, data, 0.02).result(20)
        wait_until(lambda: alone.stats().idle_workers == 1, "it sleeps")
        one_core = alone.stats().recommended_workers

        # Where other programs leave it no second core, it rightly asks for no more.
        had_two = 0
        for _ in range(200):
            begin, used = time.monotonic(), time.process_time()
            for future in [pool.submit(sha_and_wait, data, 0.02) for _ in range(100)]:
                future.result(20)
            if pool.stats().recommended_workers > 1.4 * one_core:
                return
            had_two += time.process_time() - used > 1.4 * (time.monotonic() - begin)
            assert had_two < 20, (pool.stats(), one_core)
        pytest.skip("other programs had the second core")

    def test_waiting_for_a_core_is_no_waiting(self, make):
        """Other processes keep the cores busy; the task computes and would look like one that waits."""
        program = "import time\nend = time.time() + 60\nwhile time.time() < end: pass"
        cores = len(os.sched_getaffinity(0))
        others = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2 * cores)]
        try:
            pool = make(1)

            def waits_for_cores():
                for future in [pool.submit(compute, 0.02) for _ in range(10)]:
                    future.result(20)
                stats = pool.stats()
                return stats.wall_per_task > 1.5 * stats.cpu_per_task

            wait_until(waits_for_cores, "the cores are busy")
            stats = pool.stats()
            assert stats.recommended_workers <= max(1, 0.5 * stats.wall_per_task / stats.cpu_per_task)
        finally:
            for other in others:
                other.kill()
                other.wait()

    def test_measured_although_the_last_work_was_short(self, make):
        """What begins after a short burst is measured as well."""
        pool = make(1)
        for _ in range(40):
            pool.submit(int).result(20)
            wait_until(lambda: pool.stats().idle_workers == 1, "it sleeps")
        for future in [pool.submit(compute, 0.01) for _ in range(20)]:
            future.result(20)
        wait_until(lambda: pool.stats().idle_workers == 1, "it sleeps")
        assert pool.stats().cpu_per_task > 0.002

    def test_fields(self, raddle, make):
        stats = make(1).stats()
        assert isinstance(stats, raddle.futures.PoolStats)
        assert stats._asdict()["submitted"] == 0


def compute(seconds):
    """Takes so much processor time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def compute_and_wait(seconds, waiting):
    compute(seconds)
    time.sleep(waiting)


def sha_and_wait(data, waiting):
    """Computes without the GIL."""
    hashlib.sha256(data).digest()
    time.sleep(waiting)


class TestAuto:
    def test_bounds(self, make):
        pool = make("auto")
        assert 1 <= pool._max_workers <= 32

    @pytest.mark.parametrize("bounds", [(0, 1), (2, 1), (-1, 5)])
    def test_wrong_bounds(self, make, bounds):
        with pytest.raises(ValueError):
            make(bounds)

    def test_wrong_text(self, make):
        with pytest.raises(ValueError, match="'auto'"):
            make("many")

    def test_waiting_tasks_get_more(self, make):
        """600 sleeps of 10 ms take 3 s with two workers."""
        pool = make((2, 16))
        futures = [pool.submit(time.sleep, 0.01) for _ in range(300)]
        most = 0
        while not all(future.done() for future in futures):
            most = max(most, pool.stats().workers)
            time.sleep(0.005)
        assert most > 4

    def test_computing_tasks_get_fewer_again(self, make):
        pool = make((2, 16))
        for future in [pool.submit(time.sleep, 0.01) for _ in range(300)]:
            future.result(20)
        before = pool._max_workers
        assert before > 4

        def settled():
            for future in [pool.submit(compute, 0.003) for _ in range(30)]:
                future.result(20)
            return pool._max_workers < before and pool.stats().workers < before

        wait_until(settled, "it has shrunk")

    def test_sleeping_tasks_get_all_there_may_be(self, make):
        pool = make((1, 16))

        def grown():
            for future in [pool.submit(time.sleep, 0.01) for _ in range(100)]:
                future.result(20)
            return pool._max_workers == 16

        wait_until(grown, "it has all workers")

    @needs_gil
    def test_computing_tasks_get_one_and_keep_it(self, make):
        """Two at first, to see what they wait for."""
        pool = make((1, 24))

        def settled():
            for future in [pool.submit(compute, 0.01) for _ in range(20)]:
                future.result(20)
            return pool._max_workers == 1

        wait_until(settled, "one is left")
        for _ in range(5):
            for future in [pool.submit(compute, 0.01) for _ in range(20)]:
                future.result(20)
            assert pool._max_workers <= 2

    @needs_gil
    def test_both_get_what_the_formula_says(self, make):
        pool = make((1, 64))
        seen = []

        def settled():
            for future in [pool.submit(compute_and_wait, 0.002, 0.02) for _ in range(100)]:
                future.result(20)
            seen.append(pool._max_workers)
            return len(seen) >= 5 and all(6 <= most <= 15 for most in seen[-3:])

        wait_until(settled, "it is about 11")

    def test_never_beyond_its_bounds(self, make):
        pool = make((2, 3))
        for future in [pool.submit(time.sleep, 0.002) for _ in range(100)]:
            future.result(20)
            assert 2 <= pool._max_workers <= 3
            assert pool.stats().workers <= 3


class TestIdleTimeout:
    def test_workers_leave(self, make):
        pool = make(3, idle_timeout=0.02)
        barrier = threading.Barrier(3)
        for _ in range(3):
            pool.submit(barrier.wait, 20)
        wait_until(lambda: pool.stats().workers == 0, "they have left")
        assert pool.submit(int).result(20) == 0

    def test_none_stays_for_ever(self, make):
        pool = make(1)
        pool.submit(int).result(20)
        time.sleep(0.1)
        assert pool.stats().workers == 1

    def test_are_forgotten(self, make):
        pool = make(1, idle_timeout=0.001)
        for _ in range(10):
            pool.submit(int).result(20)
            wait_until(lambda: pool.stats().workers == 0, "it has left")
        assert len(pool._threads) <= 2

    def test_no_task_is_left(self, make):
        """Tasks that come at the moment when workers leave."""
        pool = make(2, idle_timeout=0.0005)
        for _ in range(scaled(300)):
            assert pool.submit(int).result(20) == 0
            time.sleep(0.0005)


class TestProgress:
    def test_function_under_as_completed(self, raddle):
        future = [raddle.futures.Future() for _ in range(3)]
        for each in future:
            each.set_result(1)
        seen = []
        iterator = raddle.futures.as_completed(future, progress=lambda *args: seen.append(args))
        assert set(iterator) == set(future)
        assert seen == [(1, 3), (2, 3), (3, 3)]

    def test_function_under_map(self, make):
        seen = []
        results = make(1).map(int, "123", progress=lambda *args: seen.append(args))
        assert list(results) == [1, 2, 3]
        assert seen == [(1, 3), (2, 3), (3, 3)]

    def test_length_that_is_not_known(self, make):
        seen = []
        results = make(1).map(int, iter("12"), progress=lambda *args: seen.append(args))
        assert list(results) == [1, 2]
        assert seen == [(1, None), (2, None)]

    def test_function_that_raises(self, make):
        with pytest.raises(ZeroDivisionError):
            list(make(1).map(int, "12", progress=lambda count, total: 1 / 0))

    @pytest.mark.parametrize("progress", [False, None])
    def test_none(self, raddle, progress):
        assert list(raddle.futures.as_completed([], progress=progress)) == []

    def test_library_that_is_not_known(self, raddle, make):
        for call in (
            lambda: make(1).map(int, "1", progress="bar"),
            lambda: raddle.futures.as_completed([], progress="bar"),
        ):
            with pytest.raises(ValueError, match="progress must be"):
                list(call())
        with pytest.raises(TypeError, match="progress must be"):
            list(make(1).map(int, "1", progress=5))

    def test_tqdm(self, make, monkeypatch):
        """Whatever tqdm there is gets the iterator and the length."""
        seen = []

        def tqdm(items, total):
            seen.append(total)
            return items

        monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(auto=SimpleNamespace(tqdm=tqdm)))
        monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=tqdm))
        for progress in (True, "tqdm"):
            assert list(make(1).map(int, "123", progress=progress)) == [1, 2, 3]
        assert seen == [3, 3]

    def test_real_tqdm(self, make, capsys):
        pytest.importorskip("tqdm")
        assert list(make(1).map(int, "123", progress="tqdm")) == [1, 2, 3]
        assert "3/3" in capsys.readouterr().err

    def test_no_library(self, make, monkeypatch):
        for name in ("tqdm", "tqdm.auto", "rich", "rich.progress"):
            monkeypatch.setitem(sys.modules, name, None)
        for progress in (True, "tqdm", "rich"):
            with pytest.raises(ImportError):
                list(make(1).map(int, "1", progress=progress))


class TestShutdown:
    def test_waiters_of_what_it_cancels_go_on(self, raddle, make, gate):
        """The standard library leaves those who wait() for a task that shutdown has cancelled asleep."""
        pool = make(1)
        occupied(pool, gate)
        waiting = [pool.submit(int) for _ in range(3)]
        with (
            Crew(lambda: raddle.futures.wait(waiting, 20).not_done) as waits,
            Crew(lambda: set(raddle.futures.as_completed(waiting, 20))) as iterates,
        ):
            waits.wait_until_blocked()
            iterates.wait_until_blocked()
            pool.shutdown(wait=False, cancel_futures=True)
        assert waits.results == [set()]
        assert iterates.results == [set(waiting)]

    def test_again_by_a_callback_of_what_it_cancels(self, raddle):
        """Callbacks run without any lock of the pool."""
        check_child(
            raddle.pool_prelude
            + "gate, pool = threading.Event(), futures.ThreadPoolExecutor(1)\n"
            + "pool.submit(gate.wait)\n"
            + "pool.submit(int).add_done_callback(lambda _: pool.shutdown(wait=False))\n"
            + "pool.shutdown(wait=False, cancel_futures=True)\n"
            + "print('cancelled')\n"
            + "gate.set()",
            out="cancelled\n",
            timeout=10,
        )

    def test_waiting_worker_is_blocked(self, make):
        pool = make(1)
        pool.submit(int).result(20)
        [thread] = pool._threads
        wait_until_blocked(thread)
        assert thread.state == "blocked"
