"""Pools of processes, Pool and ProcessPoolExecutor: the standard library's and raddle's behave alike."""

import concurrent.futures
import gc
import itertools
import multiprocessing
import os
import pickle
import time
import warnings

import pytest

from tools import DEADLINE, Stopwatch, check_child, run_child, wait_until

value_of_initializer = None


@pytest.fixture
def fork(impl):
    with warnings.catch_warnings():
        # From 3.12 on a fork beside threads warns; pools have some.
        warnings.simplefilter("ignore", DeprecationWarning)
        yield impl.multiprocessing.get_context("fork")


@pytest.fixture
def pool(fork):
    with fork.Pool(2) as made:
        yield made


@pytest.fixture
def executor(impl, fork):
    with impl.futures.ProcessPoolExecutor(2, fork) as made:
        yield made


def square(number):
    return number * number


def fail(text):
    raise ValueError(text)


def pause(seconds):
    time.sleep(seconds)
    return seconds


def pid_of(_=None):
    return os.getpid()


def remember(value):
    global value_of_initializer
    value_of_initializer = value


def remembered(_=None):
    return value_of_initializer


class NoPickle:
    def __reduce__(self):
        raise TypeError("this is not for pickling")


def unpicklable():
    return NoPickle()


def keywords(*args, **kwargs):
    return args, kwargs


def numbers_then_error(count):
    yield from range(count)
    raise KeyError("the iterable fails")


class TestPool:
    def test_it_is_a_pool(self, pool):
        assert isinstance(pool, multiprocessing.pool.Pool)
        assert len(pool._pool) == 2
        assert all(process.is_alive() and process.daemon for process in pool._pool)
        assert all("PoolWorker" in process.name for process in pool._pool)

    def test_every_start_method(self, ctx):
        with ctx.Pool(2, remember, ("ready",)) as pool:
            assert pool.map(square, range(20)) == [number * number for number in range(20)]
            assert pool.apply(remembered) == "ready"

    def test_apply(self, pool):
        assert pool.apply(square, (7,)) == 49
        assert pool.apply(keywords, (1,), {"two": 2}) == ((1,), {"two": 2})
        with pytest.raises(ValueError, match="as it is") as caught:
            pool.apply(fail, ("as it is",))
        assert type(caught.value.__cause__).__name__ == "RemoteTraceback"
        assert "in fail" in str(caught.value.__cause__)

    def test_map_keeps_the_order(self, pool):
        for chunksize in (None, 1, 3, 100):
            assert pool.map(square, range(50), chunksize) == [number**2 for number in range(50)]
        assert pool.map(square, []) == []
        assert pool.starmap(pow, [(2, 3), (3, 2)], 1) == [8, 9]

    def test_imap(self, pool):
        assert list(pool.imap(square, range(20))) == [number**2 for number in range(20)]
        assert list(pool.imap(square, range(20), 7)) == [number**2 for number in range(20)]
        assert sorted(pool.imap_unordered(square, range(20), 3)) == sorted(n**2 for n in range(20))
        results = pool.imap(pause, [0.5])
        with pytest.raises(multiprocessing.TimeoutError):
            results.next(0.01)
        assert results.next(DEADLINE) == 0.5
        with pytest.raises(StopIteration):
            results.next()
        with pytest.raises(ValueError, match="Chunksize must be 1"):
            pool.imap(square, [1], 0)

    def test_an_iterable_that_fails(self, pool):
        for imap in (pool.imap, pool.imap_unordered):
            results = imap(square, numbers_then_error(5))
            found = []
            with pytest.raises(KeyError, match="the iterable fails"):
                for item in results:
                    found.append(item)
            assert len(set(found)) == len(found) and set(found) <= {0, 1, 4, 9, 16}
        with pytest.raises(KeyError):
            pool.map(square, numbers_then_error(3))
        assert pool.apply(square, (3,)) == 9

    def test_results_to_come(self, pool):
        result = pool.apply_async(pause, (0.3,))
        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(0.01)
        result.wait(DEADLINE)
        assert result.ready() and result.successful() and result.get() == 0.3
        failed = pool.map_async(fail, ["a", "b"])
        failed.wait(DEADLINE)
        assert not failed.successful()
        with pytest.raises(ValueError):
            failed.get()

    def test_callbacks_come_before_the_result_is_ready(self, pool):
        got = []
        result = pool.map_async(square, range(4), callback=got.append)
        result.wait(DEADLINE)
        assert got == [[0, 1, 4, 9]]
        result = pool.apply_async(fail, ("x",), callback=got.append, error_callback=got.append)
        result.wait(DEADLINE)
        assert len(got) == 2 and isinstance(got[1], ValueError)
        assert pool.map_async(square, [], callback=got.append).get(DEADLINE) == []

    def test_what_cannot_be_pickled(self, pool):
        with pytest.raises(multiprocessing.pool.MaybeEncodingError, match="Error sending result"):
            pool.apply(unpicklable)
        with pytest.raises((pickle.PicklingError, TypeError)):
            pool.apply(square, (NoPickle(),))
        assert pool.apply(square, (2,)) == 4
        with pytest.raises(NotImplementedError, match="pool objects cannot be passed"):
            pickle.dumps(pool)

    def test_the_end(self, fork):
        pool = fork.Pool(2)
        with pytest.raises(ValueError, match="still running"):
            pool.join()
        result = pool.map_async(square, range(100))
        pool.close()
        with pytest.raises(ValueError, match="not running"):
            pool.apply(square, (1,))
        pool.join()
        assert result.get(DEADLINE) == [number**2 for number in range(100)]
        assert not any(process.is_alive() for process in pool._pool)

    def test_terminate(self, fork):
        pool = fork.Pool(2)
        workers = list(pool._pool)
        pool.map_async(pause, [100] * 4)
        with Stopwatch() as watch:
            pool.terminate()
            pool.join()
        assert watch.seconds < DEADLINE
        assert not any(process.is_alive() for process in workers)
        pool.terminate()

    @pytest.mark.parametrize("possible", [0, 2])
    def test_a_process_that_cannot_be_started(self, ctx, monkeypatch, possible):
        """There is no pool, and nothing of it."""
        started = []
        start = ctx.Process.start

        def scarce(process):
            if len(started) == possible:
                raise OSError("no more processes")
            start(process)
            started.append(process)

        monkeypatch.setattr(ctx.Process, "start", scarce)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="no more processes"):
            ctx.Pool(4)
        assert len(started) == possible and not any(process.is_alive() for process in started)
        del started[:]
        gc.collect()
        # The forkserver's, and the resource tracker's.
        assert len(os.listdir("/proc/self/fd")) <= before + 2

    def test_workers_are_replaced(self, fork):
        with fork.Pool(2, maxtasksperchild=3) as pool:
            pids = pool.map(pid_of, range(30), 1)
            assert len(set(pids)) >= 10
            assert max(pids.count(pid) for pid in pids) <= 3

    def test_wrong_arguments(self, fork):
        for wrong in ({"processes": 0}, {"processes": -1}, {"maxtasksperchild": 0}):
            with pytest.raises(ValueError):
                fork.Pool(**wrong)
        with pytest.raises(TypeError):
            fork.Pool(1, initializer=3)

    def test_a_pool_that_is_not_closed_warns(self, impl):
        code = f"""
import warnings
warnings.simplefilter("always")
from {impl.multiprocessing.__name__} import get_context
pool = get_context("fork").Pool(1)
assert pool.apply(abs, (-1,)) == 1
del pool
"""
        assert "unclosed running multiprocessing pool" in run_child(code).stderr


class TestExecutor:
    def test_it_is_an_executor(self, executor):
        assert isinstance(executor, concurrent.futures.ProcessPoolExecutor)
        future = executor.submit(square, 7)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result(DEADLINE) == 49
        assert concurrent.futures.wait([executor.submit(square, 1)], DEADLINE).not_done == set()
        assert set(executor._processes) == {process.pid for process in executor._processes.values()}

    def test_every_start_method(self, impl, ctx):
        with impl.futures.ProcessPoolExecutor(2, ctx, remember, ("ready",)) as executor:
            assert list(executor.map(square, range(20))) == [number**2 for number in range(20)]
            assert executor.submit(remembered).result(DEADLINE) == "ready"

    def test_exceptions(self, executor):
        future = executor.submit(fail, "as it is")
        error = future.exception(DEADLINE)
        assert isinstance(error, ValueError) and error.args == ("as it is",)
        assert "in fail" in str(error.__cause__)
        with pytest.raises(ValueError, match="as it is"):
            future.result()

    def test_map(self, executor):
        assert list(executor.map(pow, range(10), itertools.repeat(2))) == [n**2 for n in range(10)]
        assert list(executor.map(square, range(10), chunksize=4)) == [n**2 for n in range(10)]
        with pytest.raises(ValueError, match="chunksize"):
            executor.map(square, [1], chunksize=0)
        results = executor.map(pause, [0, 1], timeout=0.3)
        assert next(results) == 0
        with pytest.raises(TimeoutError):
            next(results)

    def test_callbacks(self, executor):
        got = []
        future = executor.submit(pause, 0.1)
        future.add_done_callback(lambda done: got.append(done.result()))
        future.result(DEADLINE)
        assert wait_until(lambda: got == [0.1])

    def test_as_completed(self, impl, executor):
        futures = [executor.submit(pause, seconds) for seconds in (0.4, 0)]
        done = list(impl.futures.as_completed(futures, DEADLINE))
        assert done == [futures[1], futures[0]]

    def test_cancel(self, impl, fork):
        with impl.futures.ProcessPoolExecutor(1, fork) as executor:
            futures = [executor.submit(pause, 0.2) for _ in range(8)]
            assert futures[-1].cancel() and futures[-1].cancelled()
            assert futures[0].result(DEADLINE) == 0.2
            assert not futures[0].cancel()

    def test_what_cannot_be_pickled(self, executor):
        assert isinstance(executor.submit(unpicklable).exception(DEADLINE), TypeError)
        assert executor.submit(square, NoPickle()).exception(DEADLINE) is not None
        assert executor.submit(square, 2).result(DEADLINE) == 4

    def test_an_initializer_that_fails(self, impl, fork):
        with impl.futures.ProcessPoolExecutor(1, fork, fail, ("never ready",)) as executor:
            future = executor.submit(square, 2)
            with pytest.raises(concurrent.futures.BrokenExecutor):
                future.result(DEADLINE)
            assert wait_until(lambda: executor._broken)
            with pytest.raises(concurrent.futures.BrokenExecutor):
                executor.submit(square, 2)

    def test_shutdown(self, impl, fork):
        executor = impl.futures.ProcessPoolExecutor(2, fork)
        futures = [executor.submit(square, number) for number in range(50)]
        executor.shutdown()
        assert [future.result() for future in futures] == [number**2 for number in range(50)]
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.submit(square, 1)
        executor = impl.futures.ProcessPoolExecutor(1, fork)
        futures = [executor.submit(pause, 0.2) for _ in range(20)]
        executor.shutdown(cancel_futures=True)
        assert futures[0].result() == 0.2 and futures[-1].cancelled()

    def test_the_interpreter_s_exit_waits_for_tasks(self, impl):
        code = f"""
from {impl.futures.__name__} import ProcessPoolExecutor
from multiprocessing import get_context
executor = ProcessPoolExecutor(1, get_context("fork"))
for number in range(3):
    executor.submit(print, number, flush=True)
"""
        assert check_child(code).split() == ["0", "1", "2"]

    def test_wrong_arguments(self, impl, fork):
        make = impl.futures.ProcessPoolExecutor
        for wrong in ({"max_workers": 0}, {"max_workers": -1}, {"max_tasks_per_child": 0}):
            with pytest.raises(ValueError):
                make(**wrong)
        with pytest.raises(TypeError):
            make(1, initializer=3)
        with pytest.raises(ValueError, match="incompatible"):
            make(1, fork, max_tasks_per_child=1)
