"""concurrent.futures.ThreadPoolExecutor: submitting, workers, map, shutdown, and the programs around it."""

import asyncio
import concurrent.futures
import contextvars
import gc
import inspect
import itertools
import logging
import pickle
import re
import sys
import threading
import time
import traceback
import weakref

import pytest

from tools import (
    Crew,
    Stopwatch,
    assert_matches,
    check_child,
    check_signature,
    outcome,
    run_child,
    wait_until,
    wait_until_blocked,
)


class Odd(BaseException):
    """An exception that is no Exception."""


@pytest.fixture
def make(impl):
    """Makes pools, which are shut down after the test."""
    pools = []

    def make(*args, **kwargs):
        pools.append(impl.futures.ThreadPoolExecutor(*args, **kwargs))
        return pools[-1]

    yield make
    for pool in pools:
        pool.shutdown(wait=False, cancel_futures=True)
    threads = [thread for pool in pools for thread in pool._threads]
    pools.clear()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def gate():
    """Holds tasks back: they call `gate.wait`. Opened after the test."""
    event = threading.Event()
    yield event
    event.set()


def occupied(pool, gate, count=1):
    """The pool, with this many workers kept busy until the gate opens."""
    begun = threading.Semaphore(0)
    futures = [pool.submit(lambda: begun.release() or gate.wait(20)) for _ in range(count)]
    for _ in futures:
        assert begun.acquire(timeout=20)
    return futures


def fail(error):
    raise error


class TestConstructor:
    def test_default_number_of_workers(self, make):
        assert make()._max_workers == concurrent.futures.ThreadPoolExecutor()._max_workers

    @pytest.mark.parametrize("number", [0, -1, -100])
    def test_too_few_workers(self, make, number):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            make(number)

    def test_initializer_that_is_no_function(self, make):
        with pytest.raises(TypeError, match="initializer must be a callable"):
            make(1, initializer=5)

    def test_no_such_argument(self, make):
        with pytest.raises(TypeError):
            make(no_such=1)

    def test_by_keywords(self, make):
        pool = make(max_workers=2, thread_name_prefix="p", initializer=int, initargs=("1",))
        assert pool.submit(int).result() == 0

    def test_signature(self, impl):
        extra = [
            "context",
            "idle_timeout",
            "max_pending",
            "nested",
            "on_full",
            "submit_timeout",
        ]
        ours = impl.futures.ThreadPoolExecutor
        names = [name for name in inspect.signature(ours).parameters if name not in extra]
        assert names == ["max_workers", "thread_name_prefix", "initializer", "initargs"]

    @pytest.mark.parametrize("name", ["submit", "shutdown"])
    def test_method_signatures(self, impl, name):
        reference = getattr(concurrent.futures.ThreadPoolExecutor, name)
        check_signature(getattr(impl.futures.ThreadPoolExecutor, name), reference)

    def test_is_a_standard_pool(self, make):
        pool = make(1)
        assert isinstance(pool, concurrent.futures.ThreadPoolExecutor)
        assert isinstance(pool, concurrent.futures.Executor)
        assert isinstance(pool.submit(int), concurrent.futures.Future)

    def test_no_worker_before_the_first_task(self, make):
        before = threading.active_count()
        pool = make(4)
        assert (threading.active_count(), len(pool._threads)) == (before, 0)


class TestSubmit:
    def test_result(self, make):
        assert make(1).submit(pow, 2, 10).result(20) == 1024

    def test_arguments(self, make):
        def task(*args, **kwargs):
            return args, kwargs

        pool = make(1)
        assert pool.submit(task).result() == ((), {})
        assert pool.submit(task, 1, 2).result() == ((1, 2), {})
        assert pool.submit(task, a=1).result() == ((), {"a": 1})
        assert pool.submit(task, 1, b=2, fn=3, self=4).result() == ((1,), {"b": 2, "fn": 3, "self": 4})
        assert pool.submit(task, *range(50), **{f"k{n}": n for n in range(50)}).result() == (
            tuple(range(50)),
            {f"k{n}": n for n in range(50)},
        )

    @pytest.mark.parametrize("argument", [(), (1, 2), None, [3], "four", {"a": 5}, ("a",)])
    def test_the_only_argument(self, make, argument):
        """Kept without a tuple, it is not taken for one."""

        class Thing:
            def method(self, *args, **kwargs):
                return args, kwargs

        pool, thing = make(1), Thing()
        expected = (argument,), {}
        assert pool.submit(thing.method, argument).result(20) == expected
        assert list(pool.map(thing.method, [argument])) == [expected]
        assert list(pool.map(thing.method, [argument], [argument])) == [((argument, argument), {})]
        assert pool.submit(Thing.method, thing, argument).result(20) == expected
        assert pool.submit(thing.method, key=argument).result(20) == ((), {"key": argument})

    def test_the_only_argument_goes_with_its_task(self, make):
        class Thing:
            pass

        pool, thing = make(1), Thing()
        reference = weakref.ref(thing)
        future = pool.submit(id, thing)
        del thing
        future.result(20)
        wait_until(lambda: reference() is None, "the argument has gone")

    def test_without_a_function(self, make):
        with pytest.raises(TypeError):
            make(1).submit()

    def test_function_by_keyword(self, make):
        with pytest.raises(TypeError):
            make(1).submit(fn=int)

    def test_what_is_no_function(self, make):
        future = make(1).submit(5)
        with pytest.raises(TypeError, match="not callable"):
            future.result(20)

    def test_methods_classes_and_builtins(self, make):
        pool = make(2)
        items = []
        assert pool.submit(items.append, 1).result(20) is None
        assert items == [1]
        assert pool.submit(str, b"a", encoding="ascii").result(20) == "a"
        assert pool.submit("a-b".split, "-").result(20) == ["a", "b"]

    @pytest.mark.parametrize(
        "error", [OSError("no"), KeyboardInterrupt(), SystemExit(3), GeneratorExit(), StopIteration(1), Odd()]
    )
    def test_exception(self, make, error):
        pool = make(1)
        future = pool.submit(fail, error)
        assert future.exception(20) is error
        with pytest.raises(type(error)) as caught:
            future.result()
        assert caught.value is error
        assert pool.submit(int).result(20) == 0

    def test_traceback_of_the_task(self, make):
        def outer():
            inner()

        def inner():
            raise OSError("no")

        error = make(1).submit(outer).exception(20)
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert names[-2:] == ["outer", "inner"]
        with pytest.raises(OSError) as caught:
            fail(error)
        assert "in inner" in "".join(traceback.format_exception(caught.value))

    def test_exception_of_an_exception(self, make):
        def task():
            try:
                raise KeyError("first")
            except KeyError as error:
                raise OSError("second") from error

        error = make(1).submit(task).exception(20)
        assert isinstance(error.__cause__, KeyError)

    def test_order_with_one_worker(self, make):
        pool, order = make(1), []
        for number in range(200):
            pool.submit(order.append, number)
        pool.shutdown()
        assert order == list(range(200))

    def test_all_workers_at_once(self, make):
        pool = make(5)
        barrier = threading.Barrier(5)
        futures = [pool.submit(barrier.wait, 20) for _ in range(5)]
        assert sorted(future.result(20) for future in futures) == list(range(5))

    def test_running_and_pending(self, make, gate):
        pool = make(1)
        [first] = occupied(pool, gate)
        second = pool.submit(int)
        assert (first.running(), second.running(), second.done()) == (True, False, False)
        gate.set()
        assert second.result(20) == 0
        assert not second.running()

    def test_cancel(self, make, gate):
        pool = make(1)
        [first] = occupied(pool, gate)
        ran = []
        second, third = pool.submit(ran.append, 2), pool.submit(ran.append, 3)
        assert not first.cancel()
        assert second.cancel()
        gate.set()
        third.result(20)
        assert ran == [3]
        assert second.cancelled()
        wait_until(lambda: second._state == "CANCELLED_AND_NOTIFIED", "the worker has come past it")

    def test_of_a_result_from_a_callback(self, make):
        pool, seen = make(1), []
        done = threading.Event()

        def again(future):
            seen.append(future.result())
            if len(seen) < 20:
                pool.submit(int, str(len(seen))).add_done_callback(again)
            else:
                done.set()

        pool.submit(int).add_done_callback(again)
        assert done.wait(20)
        assert seen == list(range(20))

    def test_from_tasks(self, make):
        pool, done = make(2), threading.Semaphore(0)

        def task(depth):
            if depth:
                pool.submit(task, depth - 1)
                pool.submit(task, depth - 1)
            else:
                done.release()

        pool.submit(task, 7)
        for _ in range(2**7):
            assert done.acquire(timeout=20)

    def test_from_many_threads(self, make):
        pool = make(3)
        with Crew(lambda: [pool.submit(int, n) for n in range(200)], 5) as crew:
            pass
        assert [[each.result(20) for each in futures] for futures in crew.results] == [list(range(200))] * 5

    @pytest.mark.parametrize("error", [OSError("no"), Odd()])
    def test_worker_survives_a_callback_that_raises(self, make, error, caplog, monkeypatch):
        monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
        pool = make(1)
        gate = threading.Event()
        future = pool.submit(gate.wait, 20)
        future.add_done_callback(lambda _: fail(error))
        gate.set()
        assert future.result(20) is True
        if isinstance(error, Exception):
            assert pool.submit(int).result(20) == 0

    def test_what_the_task_held_is_released(self, make):
        class Thing:
            pass

        pool, thing = make(1), Thing()
        reference = weakref.ref(thing)
        future = pool.submit(lambda argument: 5, thing)
        del thing
        assert future.result(20) == 5
        wait_until(lambda: reference() is None, "the argument is gone")

    def test_result_is_not_held_by_the_worker(self, make):
        class Thing:
            pass

        pool = make(1)
        future = pool.submit(Thing)
        reference = weakref.ref(future.result(20))
        del future
        wait_until(lambda: reference() is None, "the result is gone")

    def test_exceptions_go_with_their_futures(self, make):
        """And with them their tracebacks, and what the frames had."""

        class Thing:
            pass

        class Bad(Exception):
            pass

        def task(thing):
            raise Bad(thing)

        pool, references = make(1), []
        for _ in range(10):
            thing = Thing()
            future = pool.submit(task, thing)
            references += [weakref.ref(thing), weakref.ref(future), weakref.ref(future.exception(20))]
        del thing, future
        pool.shutdown()
        gc.collect()
        assert [reference for reference in references if reference() is not None] == []

    def test_exceptions_do_not_pile_up(self, impl):
        check_child(
            impl.pool_prelude
            + """
import gc
class Bad(Exception):
    pass
def task():
    raise Bad
pool = futures.ThreadPoolExecutor(1)
for _ in range(20):
    pool.submit(task).exception()
for _ in range(3):
    # The worker is through with all that came before.
    pool.submit(int).result()
gc.collect()
print(sum(type(each) is Bad for each in gc.get_objects()))
""",
            out="0\n",
        )

    @pytest.mark.parametrize(
        "task",
        [
            "def task(): pool.submit(task)",
            # Without any Python code.
            "task = functools.partial(pool.submit); task.__setstate__((pool.submit, (task,), {}, {}))",
        ],
    )
    def test_tasks_without_end_let_other_threads_run(self, impl, task):
        """The main thread gives the interpreter away a hundred times, and has to get it again each time."""
        check_child(
            impl.pool_prelude
            + f"""
import functools, os, time
pool = futures.ThreadPoolExecutor(1)
{task}
task()
for _ in range(100):
    time.sleep(0.0001)
os._exit(0)
"""
        )

    def test_argument_of_a_cancelled_task_goes_with_its_future(self, make, gate):
        class Thing:
            pass

        pool, thing = make(1), Thing()
        occupied(pool, gate)
        reference = weakref.ref(thing)
        future = pool.submit(print, thing)
        del thing
        assert future.cancel()
        del future
        gate.set()
        pool.shutdown()
        gc.collect()
        assert reference() is None

    @pytest.mark.parametrize("kept", ["argument", "result", "callback", "waited_for", "interrupted"])
    def test_cycle_through_a_task_is_collected(self, impl, make, gate, kept):
        class Box(list):
            pass

        pool, box = make(1), Box()
        occupied(pool, gate)
        box.append(pool.submit(lambda box: box if kept == "result" else None, box))
        reference = weakref.ref(box)
        if kept == "callback":
            box[0].add_done_callback(lambda _, box=box: None)
        elif kept == "interrupted":
            box.append(impl.futures.as_completed(box[:], timeout=0))
            with pytest.raises(impl.futures.TimeoutError):
                next(box[1])
        gate.set()
        if kept == "waited_for":
            box.append(impl.futures.wait(box[:]))
        pool.submit(int).result()
        del box
        gc.collect()
        assert reference() is None


class TestWorkers:
    def test_names(self, make):
        pool = make(3, thread_name_prefix="crew")
        barrier = threading.Barrier(3)

        def name():
            barrier.wait(20)
            return threading.current_thread().name

        names = {future.result(20) for future in [pool.submit(name) for _ in range(3)]}
        assert names == {"crew_0", "crew_1", "crew_2"}

    def test_default_names_count_pools(self, make):
        def name():
            return threading.current_thread().name

        names = [make(1).submit(name).result(20) for _ in range(3)]
        numbers = [int(re.fullmatch(r"ThreadPoolExecutor-(\d+)_0", name)[1]) for name in names]
        assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]

    def test_are_no_daemons(self, make):
        assert make(1).submit(lambda: threading.current_thread().daemon).result(20) is False

    def test_are_threads_that_threading_knows(self, make):
        pool = make(1)
        thread = pool.submit(threading.current_thread).result(20)
        assert isinstance(thread, threading.Thread)
        assert thread in threading.enumerate()
        assert pool._threads == {thread}

    def test_idle_ones_are_used_again(self, make):
        pool = make(10)
        for _ in range(20):
            pool.submit(int).result(20)
            wait_until_blocked(*pool._threads)
        assert len(pool._threads) == 1

    def test_one_for_each_task_until_there_are_enough(self, make, gate):
        pool = make(3)
        occupied(pool, gate, 3)
        pool.submit(int)
        pool.submit(int)
        assert len(pool._threads) == 3

    def test_more_for_more_at_once(self, make, gate):
        pool = make(20)
        occupied(pool, gate, 7)
        assert len(pool._threads) == 7

    @pytest.mark.parametrize("warm", [0, 1, 2, 5])
    def test_a_burst_gets_all_of_them(self, make, warm):
        """Tasks that wait for each other: there must be as many workers as there may be."""
        for _ in range(5):
            pool = make(8)
            for _ in range(warm):
                pool.submit(int)
            if warm:
                pool.submit(int).result(20)
            barrier = threading.Barrier(8)
            futures = [pool.submit(barrier.wait, 5) for _ in range(8)]
            assert sorted(future.result(20) for future in futures) == list(range(8))

    def test_thread_locals_stay(self, make):
        pool, local = make(1), threading.local()

        def count():
            local.number = getattr(local, "number", 0) + 1
            return local.number

        assert [pool.submit(count).result(20) for _ in range(3)] == [1, 2, 3]

    def test_wait_asleep(self, make):
        pool = make(2)
        pool.submit(int).result(20)
        wait_until_blocked(*pool._threads)
        before = time.thread_time(), time.process_time()
        time.sleep(0.1)
        assert time.process_time() - before[1] < 0.05


class TestInitializer:
    def test_runs_in_each_worker_first(self, make):
        local, started = threading.local(), []

        def initialize(value):
            local.value = value
            started.append(threading.current_thread().name)

        pool = make(3, initializer=initialize, initargs=("set",))
        barrier = threading.Barrier(3)

        def task():
            barrier.wait(20)
            return local.value

        assert [future.result(20) for future in [pool.submit(task) for _ in range(3)]] == ["set"] * 3
        assert len(started) == len(set(started)) == 3

    def test_sets_a_context_variable(self, make):
        variable = contextvars.ContextVar("variable", default="default")
        pool = make(1, initializer=variable.set, initargs=("set",))
        assert [pool.submit(variable.get).result(20) for _ in range(3)] == ["set"] * 3

    @pytest.mark.parametrize("error", [OSError("no"), Odd()])
    def test_that_fails(self, impl, make, error, caplog):
        may_fail = threading.Event()

        def initialize():
            may_fail.wait(20)
            raise error

        pool = make(2, initializer=initialize)
        futures = [pool.submit(int) for _ in range(5)]
        may_fail.set()
        for future in futures:
            with pytest.raises(impl.futures.BrokenExecutor) as caught:
                future.result(20)
            assert type(caught.value) is concurrent.futures.thread.BrokenThreadPool
        wait_until(
            lambda: outcome(lambda: pool.submit(int)) == ("raised", "BrokenThreadPool"), "it is broken"
        )
        with pytest.raises(concurrent.futures.thread.BrokenThreadPool, match="initializer failed"):
            pool.submit(int)
        assert pool._broken
        pool.shutdown()
        record = caplog.records[0]
        assert (record.name, record.levelno) == ("concurrent.futures", logging.CRITICAL)
        assert record.getMessage() == "Exception in initializer:"
        assert record.exc_info[1] is error

    def test_that_fails_in_the_second_worker(self, make, gate, caplog):
        first = []

        def initialize():
            if first:
                raise OSError("no")
            first.append(1)

        pool = make(2, initializer=initialize)
        [busy] = occupied(pool, gate)
        waiting = pool.submit(int)
        with pytest.raises(concurrent.futures.BrokenExecutor):
            waiting.result(20)
        gate.set()
        assert busy.result(20) is True
        pool.shutdown()


class TestMap:
    def test_results_in_order(self, make):
        def task(number):
            time.sleep((5 - number) * 0.002)
            return number

        assert list(make(5).map(task, range(5))) == list(range(5))

    def test_several_iterables(self, make):
        assert list(make(2).map(pow, [2, 3, 4], itertools.count(1))) == [2, 9, 64]
        assert list(make(2).map(pow, [2, 3], [])) == []

    def test_no_iterable(self, make):
        assert list(make(2).map(int)) == []

    def test_submits_at_once(self, make):
        pool, ran = make(2), []
        iterator = pool.map(ran.append, range(10))
        pool.shutdown()
        assert sorted(ran) == list(range(10))
        assert list(iterator) == [None] * 10

    def test_is_an_iterator(self, make):
        iterator = make(1).map(int, "12")
        assert iter(iterator) is iterator
        assert next(iterator) == 1
        assert next(iterator) == 2
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(iterator)

    def test_error_comes_at_its_place(self, make):
        iterator = make(2).map(lambda n: 1 // n, [1, 0, 1])
        assert next(iterator) == 1
        with pytest.raises(ZeroDivisionError):
            next(iterator)
        with pytest.raises(StopIteration):
            next(iterator)

    def test_error_cancels_what_has_not_begun(self, make, gate):
        pool, ran = make(1), []

        def task(number):
            if number == 0:
                raise OSError("no")
            gate.wait(20)
            ran.append(number)

        iterator = pool.map(task, range(10))
        with pytest.raises(OSError):
            next(iterator)
        gate.set()
        pool.shutdown()
        assert ran in ([], [1])

    def test_timeout(self, impl, make, gate):
        pool = make(1)
        iterator = pool.map(lambda n: n and gate.wait(20), [0, 1, 2], timeout=0.1)
        assert next(iterator) == 0
        with Stopwatch() as watch, pytest.raises(impl.futures.TimeoutError):
            next(iterator)
        assert watch.seconds < 10
        gate.set()

    def test_timeout_counts_from_the_call(self, impl, make, gate):
        iterator = make(1).map(gate.wait, [20], timeout=0.05)
        time.sleep(0.1)
        with Stopwatch() as watch, pytest.raises(impl.futures.TimeoutError):
            next(iterator)
        assert watch.seconds < 0.04

    @pytest.mark.parametrize("timeout", [0, -1])
    def test_no_time(self, impl, make, gate, timeout):
        with pytest.raises(impl.futures.TimeoutError):
            list(make(1).map(gate.wait, [20], timeout=timeout))

    def test_no_time_but_done(self, make):
        pool = make(1)
        iterator = pool.map(int, "12", timeout=0)
        pool.shutdown()
        assert outcome(lambda: list(iterator)) == ("returned", [1, 2])

    @pytest.mark.parametrize("chunksize", [1, 7, 1000])
    def test_chunksize_has_no_effect(self, make, chunksize):
        assert list(make(2).map(int, "123", chunksize=chunksize)) == [1, 2, 3]

    def test_dropped_early(self, make, gate):
        """What has not begun is cancelled when the iterator goes."""
        pool, ran, begun = make(1), [], threading.Event()

        def task(number):
            if number:
                begun.set()
                gate.wait(20)
            ran.append(number)
            return number

        iterator = pool.map(task, range(10))
        assert next(iterator) == 0
        assert begun.wait(20)
        del iterator
        gc.collect()
        gate.set()
        pool.shutdown()
        assert ran == [0, 1]

    def test_closed_early(self, make, gate):
        pool, ran = make(1), []
        iterator = pool.map(lambda n: (n and gate.wait(20), ran.append(n)), range(10))
        next(iterator)
        iterator.close()
        with pytest.raises(StopIteration):
            next(iterator)
        gate.set()
        pool.shutdown()
        assert ran in ([0], [0, 1])

    def test_never_started(self, make):
        """A generator that never ran cancels nothing."""
        pool, ran = make(1), []
        pool.map(ran.append, range(10))
        gc.collect()
        pool.shutdown()
        assert ran == list(range(10))

    def test_iterable_that_raises(self, make):
        def arguments():
            yield 1
            raise OSError("no")

        pool, ran = make(1), []
        with pytest.raises(OSError, match="no"):
            pool.map(ran.append, arguments())
        pool.shutdown()
        assert ran == [1]

    def test_what_is_no_iterable(self, make):
        with pytest.raises(TypeError):
            make(1).map(int, 5)

    def test_after_shutdown(self, make):
        pool = make(1)
        pool.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.map(int, "1")

    def test_cancelled_by_shutdown(self, impl, make, gate):
        pool = make(1)
        occupied(pool, gate)
        iterator = pool.map(int, "12")
        pool.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(impl.futures.CancelledError):
            next(iterator)

    def test_results_are_not_kept(self, make):
        class Thing:
            pass

        for thing in make(1).map(lambda _: Thing(), range(5)):
            reference = weakref.ref(thing)
            del thing
            wait_until(lambda reference=reference: reference() is None, "the result is gone")

    def test_goes_with_its_frames(self, make):
        """The error's traceback does not keep the iterator and the other futures."""

        class Thing:
            pass

        things = [Thing() for _ in range(5)]
        references = [weakref.ref(thing) for thing in things]
        pool = make(1)
        with pytest.raises(OSError):
            # The others may run before they are cancelled.
            for _ in pool.map(lambda thing: thing is things[0] and fail(OSError("no")), things):
                pass
        pool.shutdown()
        things.clear()
        gc.collect()
        assert [reference() for reference in references] == [None] * 5

    def test_used_by_two_threads(self, make):
        """One at a time; the other is told so, as with a generator."""
        gate = threading.Event()
        iterator = make(1).map(gate.wait, [20])
        with Crew(lambda: next(iterator)) as crew:
            crew.wait_until_blocked()
            with pytest.raises(ValueError):
                next(iterator)
            gate.set()
        assert crew.results == [True]


@pytest.fixture
def buffered(impl):
    if not impl.is_raddle and sys.version_info < (3, 14):
        pytest.skip("the standard library has it from 3.14 on")


@pytest.mark.usefixtures("buffered")
class TestMapWithBuffersize:
    @pytest.mark.parametrize("size", [1, 2, 10, 1000])
    def test_results(self, make, size):
        assert list(make(2).map(int, map(str, range(50)), buffersize=size)) == list(range(50))

    def test_infinite_iterable(self, make):
        results = make(2).map(lambda a, b: a * b, itertools.count(), itertools.count(), buffersize=3)
        assert list(itertools.islice(results, 100)) == [n * n for n in range(100)]

    @pytest.mark.parametrize("size", [1, 3])
    def test_reads_no_further_ahead(self, make, size):
        read = []

        def arguments():
            for number in itertools.count():
                read.append(number)
                yield number

        results = make(1).map(int, arguments(), buffersize=size)
        assert len(read) == size
        for number in range(10):
            assert next(results) == number
            assert len(read) == size + number + 1

    def test_empty(self, make):
        assert list(make(1).map(int, [], buffersize=2)) == []

    @pytest.mark.parametrize(
        "size, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)]
    )
    def test_wrong_size(self, make, size, error):
        with pytest.raises(error, match="buffersize must be"):
            make(1).map(int, "1", buffersize=size)

    def test_none_submits_all(self, make):
        pool = make(1)
        results = pool.map(int, "123", buffersize=None)
        pool.shutdown()
        assert list(results) == [1, 2, 3]

    def test_iterable_that_raises_later(self, make, gate):
        pool, ran, begun = make(1), [], threading.Event()

        def arguments():
            yield from range(3)
            raise OSError("no")

        def task(number):
            begun.set()
            gate.wait(20)
            ran.append(number)

        results = pool.map(task, arguments(), buffersize=3)
        assert begun.wait(20)
        with pytest.raises(OSError):
            next(results)
        gate.set()
        pool.shutdown()
        assert ran == [0]

    def test_pool_that_is_gone(self, impl):
        """What was submitted is given out; no more is, and the iterable is not read on."""
        pool = impl.futures.ThreadPoolExecutor(1)
        results = pool.map(int, itertools.count(), buffersize=3)
        thread = next(iter(pool._threads))
        del pool
        gc.collect()
        assert list(results) == [0, 1, 2]
        thread.join(20)
        assert not thread.is_alive()

    def test_pool_that_was_shut_down(self, make):
        pool = make(1)
        results = pool.map(int, itertools.count(), buffersize=3)
        pool.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            next(results)

    def test_dropped_early(self, make, gate):
        pool, ran, begun = make(1), [], threading.Event()

        def task(number):
            if number:
                begun.set()
                gate.wait(20)
            ran.append(number)

        results = pool.map(task, itertools.count(), buffersize=4)
        next(results)
        assert begun.wait(20)
        del results
        gate.set()
        pool.shutdown()
        assert ran == [0, 1]


class TestShutdown:
    def test_waits_for_all(self, make):
        pool, ran = make(2), []
        for number in range(20):
            pool.submit(lambda number=number: (time.sleep(0.001), ran.append(number)))
        pool.shutdown()
        assert sorted(ran) == list(range(20))
        assert not any(thread.is_alive() for thread in pool._threads)

    def test_does_not_wait(self, make, gate):
        pool = make(1)
        [future] = occupied(pool, gate)
        pool.shutdown(wait=False)
        assert not future.done()
        gate.set()
        assert future.result(20) is True

    @pytest.mark.parametrize("wait", [True, False])
    def test_refuses_tasks(self, make, wait):
        pool = make(1)
        pool.shutdown(wait=wait)
        with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
            pool.submit(int)

    def test_twice(self, make):
        pool = make(1)
        pool.submit(int)
        pool.shutdown()
        pool.shutdown()
        pool.shutdown(wait=False, cancel_futures=True)

    def test_cancel_futures(self, make, gate):
        pool = make(1)
        [running] = occupied(pool, gate)
        waiting = [pool.submit(int) for _ in range(10)]
        pool.shutdown(wait=False, cancel_futures=True)
        assert all(future.cancelled() for future in waiting)
        assert pool._work_queue.qsize() <= 1  # The standard library wakes a worker with a None.
        gate.set()
        assert running.result(20) is True

    def test_cancel_futures_is_by_keyword(self, make):
        with pytest.raises(TypeError):
            make(1).shutdown(True, True)

    def test_cancelled_ones_call_back_and_wake(self, impl, make, gate):
        pool, seen = make(1), []
        occupied(pool, gate)
        waiting = pool.submit(int)
        waiting.add_done_callback(lambda future: seen.append(future.cancelled()))
        with Crew(lambda: outcome(lambda: waiting.result(20))) as crew:
            crew.wait_until_blocked()
            pool.shutdown(wait=False, cancel_futures=True)
        assert crew.results == [("raised", "CancelledError")]
        assert seen == [True]

    def test_tasks_in_line_still_run(self, make, gate):
        pool = make(1)
        occupied(pool, gate)
        waiting = [pool.submit(int, n) for n in range(10)]
        pool.shutdown(wait=False)
        gate.set()
        assert [future.result(20) for future in waiting] == list(range(10))

    def test_never_used(self, make):
        make(3).shutdown()

    def test_with_statement(self, impl):
        with impl.futures.ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(time.sleep, 0.001) for _ in range(10)]
        assert all(future.done() for future in futures)
        with pytest.raises(RuntimeError):
            pool.submit(int)

    def test_with_statement_that_raises(self, impl):
        with pytest.raises(OSError), impl.futures.ThreadPoolExecutor(2) as pool:
            future = pool.submit(time.sleep, 0.001)
            raise OSError
        assert future.done()

    def test_by_a_task(self, make):
        pool = make(2)

        def task():
            pool.shutdown(wait=False)
            return outcome(lambda: pool.submit(int))

        assert pool.submit(task).result(20) == ("raised", "RuntimeError")

    def test_waiting_by_a_task_of_its_own(self, make):
        pool = make(1)
        with pytest.raises(RuntimeError, match="cannot join current thread"):
            pool.submit(pool.shutdown).result(20)

    def test_by_a_callback(self, make):
        pool = make(1)
        future = pool.submit(int)
        future.add_done_callback(lambda _: pool.shutdown(wait=False))
        assert future.result(20) == 0

    def test_wakes_idle_workers(self, make):
        pool = make(3)
        barrier = threading.Barrier(3)
        for _ in range(3):
            pool.submit(barrier.wait, 20)
        wait_until_blocked(*pool._threads)
        threads = list(pool._threads)
        pool.shutdown(wait=False)
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()

    def test_from_many_threads(self, make):
        pool = make(2)
        futures = [pool.submit(time.sleep, 0.001) for _ in range(20)]
        with Crew(pool.shutdown, 5):
            pass
        assert all(future.done() for future in futures)


class TestDropped:
    def test_workers_go(self, impl):
        pool = impl.futures.ThreadPoolExecutor(3)
        barrier = threading.Barrier(4)
        for _ in range(3):
            pool.submit(barrier.wait, 20)
        barrier.wait(20)
        threads = list(pool._threads)
        del pool
        gc.collect()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()

    def test_tasks_in_line_still_run(self, impl):
        gate = threading.Event()
        pool = impl.futures.ThreadPoolExecutor(1)
        pool.submit(gate.wait, 20)
        futures = [pool.submit(int, n) for n in range(10)]
        del pool
        gc.collect()
        gate.set()
        assert [future.result(20) for future in futures] == list(range(10))

    def test_in_a_cycle(self, impl):
        pool = impl.futures.ThreadPoolExecutor(1)
        pool.myself = pool
        [thread] = [pool.submit(threading.current_thread).result(20)]
        reference = weakref.ref(pool)
        del pool
        gc.collect()
        assert reference() is None
        thread.join(20)
        assert not thread.is_alive()

    def test_unused(self, impl):
        reference = weakref.ref(impl.futures.ThreadPoolExecutor(1))
        gc.collect()
        assert reference() is None

    def test_after_shutdown_without_waiting(self, impl):
        gate = threading.Event()
        pool = impl.futures.ThreadPoolExecutor(1)
        future = pool.submit(gate.wait, 20)
        pool.shutdown(wait=False)
        reference = weakref.ref(pool)
        del pool
        gc.collect()
        assert reference() is None
        gate.set()
        assert future.result(20) is True

    def test_by_its_own_task(self, impl):
        """The last reference is the task's."""
        gate = threading.Event()
        pool = impl.futures.ThreadPoolExecutor(1)
        future = pool.submit(lambda pool: gate.wait(20), pool)
        [thread] = pool._threads
        del pool
        gc.collect()
        gate.set()
        assert future.result(20) is True
        thread.join(20)
        assert not thread.is_alive()


class TestInside:
    def test_work_queue(self, make, gate):
        pool = make(1)
        assert (pool._work_queue.qsize(), pool._work_queue.empty()) == (0, True)
        occupied(pool, gate)
        futures = [pool.submit(int) for _ in range(3)]
        assert (pool._work_queue.qsize(), pool._work_queue.empty()) == (3, False)
        gate.set()
        futures[-1].result(20)
        assert pool._work_queue.empty()

    def test_work_items_taken_by_hand(self, impl, make, gate):
        pool, ran = make(1), []
        occupied(pool, gate)
        futures = [pool.submit(ran.append, n) for n in range(2)]
        item = pool._work_queue.get_nowait()
        assert item.future is futures[0]
        item.run()
        assert ran == [0]
        assert futures[0].done()
        item = pool._work_queue.get_nowait()
        assert item.future is futures[1]
        if not futures[1].done():
            item.future.cancel() or item.run()
        with pytest.raises(impl.queue.Empty):
            pool._work_queue.get_nowait()

    def test_attributes(self, make):
        pool = make(3, "prefix", int, ("1",))
        assert pool._max_workers == 3
        assert pool._thread_name_prefix == "prefix"
        assert (pool._initializer, pool._initargs) == (int, ("1",))
        assert (pool._shutdown, pool._broken, pool._threads) == (False, False, set())
        with pool._shutdown_lock:
            pass
        pool.shutdown()
        assert pool._shutdown is True

    def test_workers_are_in_the_table_of_the_exit_handler(self, make):
        pool = make(1)
        thread = pool.submit(threading.current_thread).result(20)
        assert thread in concurrent.futures.thread._threads_queues

    def test_more_workers_afterwards(self, make, gate):
        pool = make(1)
        occupied(pool, gate)
        pool._max_workers = 2
        assert pool.submit(int).result(20) == 0

    def test_attributes_of_users(self, make):
        pool = make(1)
        pool.colour = "red"
        assert vars(pool)["colour"] == "red"

    def test_is_not_pickled(self, make):
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(make(1))


class TestSubclasses:
    def test_constructor(self, impl):
        class Pool(impl.futures.ThreadPoolExecutor):
            def __init__(self, name):
                super().__init__(max_workers=2, thread_name_prefix=name)
                self.name = name

        with Pool("mine") as pool:
            assert pool.submit(lambda: threading.current_thread().name).result(20) == "mine_0"
        assert pool.name == "mine"

    def test_submit_overridden(self, impl):
        """map goes through it."""

        class Pool(impl.futures.ThreadPoolExecutor):
            submitted = 0

            def submit(self, fn, /, *args, **kwargs):
                self.submitted += 1
                future = super().submit(fn, *args, **kwargs)
                future.number = self.submitted
                return future

        with Pool(2) as pool:
            assert list(pool.map(int, "123")) == [1, 2, 3]
            assert pool.submitted == 3
            assert pool.submit(int).number == 4

    def test_submit_patched_on_the_instance(self, make):
        pool = make(1)
        original, seen = pool.submit, []

        def submit(fn, *args, **kwargs):
            seen.append(args)
            return original(fn, *args, **kwargs)

        pool.submit = submit
        assert list(pool.map(int, "12")) == [1, 2]
        assert seen == [("1",), ("2",)]

    def test_shutdown_overridden(self, impl):
        class Pool(impl.futures.ThreadPoolExecutor):
            def shutdown(self, *args, **kwargs):
                self.told = (args, kwargs)
                super().shutdown(*args, **kwargs)

        with Pool(1) as pool:
            pool.submit(int)
        assert pool.told == ((), {"wait": True})

    def test_map_overridden(self, impl):
        class Pool(impl.futures.ThreadPoolExecutor):
            def map(self, fn, *iterables, **kwargs):
                return list(super().map(fn, *iterables, **kwargs))

        with Pool(1) as pool:
            assert pool.map(int, "12", timeout=20) == [1, 2]

    def test_constructor_not_called(self, impl):
        class Pool(impl.futures.ThreadPoolExecutor):
            def __init__(self):
                pass

        with pytest.raises((AttributeError, RuntimeError)):
            Pool().submit(int)

    def test_executor_of_its_own(self, impl):
        """Executor itself is a base for other executors: its map and its with statement use submit and shutdown."""

        class Direct(impl.futures.Executor):
            ended = False

            def submit(self, fn, /, *args, **kwargs):
                future = impl.futures.Future()
                future.set_running_or_notify_cancel()
                try:
                    future.set_result(fn(*args, **kwargs))
                except Exception as error:
                    future.set_exception(error)
                return future

            def shutdown(self, wait=True, *, cancel_futures=False):
                self.ended = True

        with Direct() as executor:
            assert list(executor.map(int, "12")) == [1, 2]
        assert executor.ended


class TestAsyncio:
    def test_run_in_executor(self, make):
        pool = make(2)

        async def main():
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(pool, pow, 2, 5) == 32
            with pytest.raises(OSError):
                await loop.run_in_executor(pool, fail, OSError("no"))
            calls = [loop.run_in_executor(pool, int, n) for n in range(100)]
            return await asyncio.gather(*calls)

        assert asyncio.run(main()) == list(range(100))

    def test_default_executor(self, impl):
        pool = impl.futures.ThreadPoolExecutor(2, thread_name_prefix="mine")

        async def main():
            loop = asyncio.get_running_loop()
            loop.set_default_executor(pool)
            name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
            assert name.startswith("mine_")
            return await asyncio.to_thread(pow, 2, 5)

        assert asyncio.run(main()) == 32
        # asyncio.run has shut it down, and waited.
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(int)
        assert not any(thread.is_alive() for thread in pool._threads)

    def test_to_thread_takes_the_context(self, impl):
        variable = contextvars.ContextVar("variable")

        async def main():
            asyncio.get_running_loop().set_default_executor(impl.futures.ThreadPoolExecutor(1))
            variable.set("of the task")
            return await asyncio.to_thread(variable.get)

        assert asyncio.run(main()) == "of the task"

    def test_cancelled_before_it_began(self, make, gate):
        pool = make(1)
        occupied(pool, gate)
        ran = []

        async def main():
            future = asyncio.get_running_loop().run_in_executor(pool, ran.append, 1)
            future.cancel()
            with pytest.raises(asyncio.CancelledError):
                await future

        asyncio.run(main())
        gate.set()
        pool.shutdown()
        assert ran == []

    def test_wait_for_gives_up_on_a_running_one(self, make, gate):
        pool = make(1)

        async def main():
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(pool, gate.wait, 20), 0.05)

        asyncio.run(main())

    def test_submit_from_the_loop_and_wrap(self, make):
        pool = make(2)

        async def main():
            return await asyncio.wrap_future(pool.submit(pow, 2, 5))

        assert asyncio.run(main()) == 32


class TestExit:
    """The interpreter ends: what is in line runs first, as with the standard library."""

    def test_pending_work_runs(self, impl):
        check_child(
            impl.pool_prelude
            + "import time\n"
            + "pool = futures.ThreadPoolExecutor(2)\n"
            + "for n in range(20): pool.submit(lambda n=n: (time.sleep(0.005), print(n)))\n"
            + "print('main ends')",
        )

    def test_order_of_the_end(self, impl):
        out = check_child(
            impl.pool_prelude
            + "import time, atexit\n"
            + "atexit.register(print, 'atexit')\n"
            + "pool = futures.ThreadPoolExecutor(1)\n"
            + "for n in range(5): pool.submit(lambda n=n: (time.sleep(0.02), print('task', n)))\n"
            + "print('main ends')",
        )
        assert out.split("\n") == ["main ends", *(f"task {n}" for n in range(5)), "atexit", ""]

    def test_submit_at_exit(self, impl):
        out = check_child(
            impl.pool_prelude
            + "import atexit\n"
            + "pool = futures.ThreadPoolExecutor(1)\n"
            + "pool.submit(int).result()\n"
            + "def late():\n"
            + "    try: pool.submit(int)\n"
            + "    except RuntimeError as error: print(error)\n"
            + "atexit.register(late)",
        )
        assert_matches("^cannot schedule new futures after (interpreter )?shutdown\n$", out)

    def test_submit_by_a_task_at_exit(self, impl):
        out = check_child(
            impl.pool_prelude
            + "import time\n"
            + "pool = futures.ThreadPoolExecutor(1)\n"
            + "def late():\n"
            + "    while True:\n"
            + "        time.sleep(0.001)\n"
            + "        try: pool.submit(int)\n"
            + "        except RuntimeError as error: return print(error)\n"
            + "pool.submit(late)",
        )
        assert_matches("^cannot schedule new futures after (interpreter )?shutdown\n$", out)

    def test_first_submit_at_exit(self, impl):
        out = check_child(
            impl.pool_prelude
            + "import atexit\n"
            + "pool = futures.ThreadPoolExecutor(1)\n"
            + "def late():\n"
            + "    try: pool.submit(int)\n"
            + "    except RuntimeError as error: print(error)\n"
            + "atexit.register(late)",
        )
        assert out == "cannot schedule new futures after interpreter shutdown\n"

    def test_workers_that_sleep(self, impl):
        check_child(
            impl.pool_prelude
            + "pool = futures.ThreadPoolExecutor(3)\n"
            + "for n in range(10): pool.submit(int).result()\n"
            + "print('main ends')",
            out="main ends\n",
        )

    def test_exit_code(self, impl):
        done = run_child(
            impl.pool_prelude
            + "pool = futures.ThreadPoolExecutor(3)\n"
            + "import sys, time\n"
            + "for n in range(10): pool.submit(time.sleep, 0.001)\n"
            + "sys.exit(7)"
        )
        assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


class TestNames:
    def test_all(self, impl):
        names = set(concurrent.futures.__all__) - {"InterpreterPoolExecutor"}
        assert names <= set(impl.futures.__all__)
        for name in names:
            assert getattr(impl.futures, name)

    def test_shared_objects(self, impl):
        for name in (
            "ALL_COMPLETED",
            "FIRST_COMPLETED",
            "FIRST_EXCEPTION",
            "BrokenExecutor",
            "CancelledError",
            "Executor",
            "InvalidStateError",
            "TimeoutError",
        ):
            assert getattr(impl.futures, name) is getattr(concurrent.futures, name)

    def test_star_import(self, impl):
        namespace = {}
        exec(f"from {impl.futures.__name__} import *", namespace)
        assert namespace["ThreadPoolExecutor"] is impl.futures.ThreadPoolExecutor

    def test_no_such_name(self, impl):
        with pytest.raises(AttributeError):
            impl.futures.no_such_name  # noqa: B018

    def test_module_of_the_pool(self, impl):
        name = impl.futures.__name__
        module = __import__(f"{name}.thread", fromlist=["thread"])
        assert module.ThreadPoolExecutor is impl.futures.ThreadPoolExecutor
        assert module.BrokenThreadPool is concurrent.futures.thread.BrokenThreadPool
