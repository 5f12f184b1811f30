"""What raddle's pools of processes do beyond the standard library's."""

import array
import os
import pickle
import queue
import signal
import threading
import time

import pytest
import raddle.cancel
import raddle.multiprocessing
from raddle.concurrent.futures import (
    CancelledError,
    MemoryLimitExceeded,
    ProcessPoolExecutor,
    UnpicklingFailed,
    WorkerDied,
    wait,
)
from raddle.concurrent.futures.process import BrokenProcessPool

from tools import DEADLINE, Stopwatch, check_child, run_child, wait_until

METHODS = ["fork", "spawn", "forkserver", "warm"]

warm = raddle.multiprocessing.get_context("warm")


@pytest.fixture
def pool():
    with ProcessPoolExecutor(2, warm) as made:
        yield made


def pid_of(_=None):
    return os.getpid()


def pause(seconds):
    time.sleep(seconds)
    return seconds


def stubborn(seconds):
    """Does not end when it is asked to."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(end - time.monotonic())
        except BaseException:
            pass
    return "the end"


def die(how):
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), how)
    time.sleep(100)


def die_once(path):
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) == 1:
        os._exit(1)
    return os.path.getsize(path)


def take_memory(size):
    held = bytearray(size)
    time.sleep(100)
    return len(held)


def nested(number):
    with ProcessPoolExecutor(1, raddle.multiprocessing.get_context("fork")) as inner:
        return inner.submit(pow, number, 2).result(DEADLINE)


class LoadsNowhere:
    """Can be pickled, and not unpickled."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise LookupError("not to be had here")


def give_what_loads_nowhere():
    return LoadsNowhere()


class TestDeaths:
    @pytest.mark.parametrize("method", METHODS)
    def test_a_death_costs_one_task(self, method):
        with ProcessPoolExecutor(2, raddle.multiprocessing.get_context(method)) as pool:
            before = [pool.submit(pow, number, 2) for number in range(50)]
            lost = pool.submit(die, signal.SIGKILL)
            after = [pool.submit(pow, number, 2) for number in range(50)]
            with pytest.raises(WorkerDied) as caught:
                lost.result(DEADLINE)
            assert isinstance(caught.value, BrokenProcessPool)
            assert caught.value.signal == signal.SIGKILL and caught.value.task == "die"
            assert f"{caught.value.pid} that ran die was killed by SIGKILL" in str(caught.value)
            assert [future.result(DEADLINE) for future in before + after] == [n**2 for n in range(50)] * 2
            assert pool.stats().lost == 1

    def test_an_exit_code_is_told(self, pool):
        with pytest.raises(WorkerDied, match="exited with code 7") as caught:
            pool.submit(die, "exit").result(DEADLINE)
        assert caught.value.exitcode == 7 and caught.value.signal is None

    def test_pool_goes_on(self):
        with raddle.multiprocessing.get_context("fork").Pool(2) as pool:
            with pytest.raises(raddle.multiprocessing.pool.WorkerDied):
                pool.apply(die, (signal.SIGTERM,))
            assert pool.map(abs, range(-20, 0)) == list(range(20, 0, -1))
            wait_until(lambda: len(pool._pool) == 2, "the pool is full again")

    def test_retries(self, pool, tmp_path):
        assert pool.options(retries=1).submit(die_once, str(tmp_path / "once")).result(DEADLINE) == 2
        with pytest.raises(WorkerDied):
            pool.options(retries=2).submit(die, "exit").result(DEADLINE)
        assert pool.stats().retried == 3

    def test_idle_workers_that_die_are_replaced(self, pool):
        for _ in range(5):
            victims = {pool.submit(pid_of).result(DEADLINE)}
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            assert pool.submit(pow, 2, 3).result(DEADLINE) == 8

    def test_submitted_while_hope_is_given_up(self):
        """After the dispatcher has taken the tasks out that no worker will run, and before the pool says so."""
        pool = ProcessPoolExecutor(2, raddle.multiprocessing.get_context("fork"), os._exit, (4,))
        given_up, go_on = threading.Event(), threading.Event()
        tell = pool._crew.on_hopeless

        def on_hopeless(futures):
            given_up.set()
            go_on.wait(DEADLINE)
            tell(futures)

        pool._crew.on_hopeless = on_hopeless
        early = pool.submit(pow, 2, 2)
        assert given_up.wait(DEADLINE)
        late = pool.submit(pow, 2, 2)
        go_on.set()
        for future in (early, late):
            assert isinstance(future.exception(DEADLINE), BrokenProcessPool)
        with pytest.raises(BrokenProcessPool):
            pool.submit(pow, 2, 2)
        with Stopwatch() as clock:
            pool.shutdown(cancel_futures=True)
        assert clock.seconds < DEADLINE

    def test_a_worker_that_is_stopped_holds_nobody_up(self, pool):
        wait([pool.submit(pause, 0.05) for _ in range(4)], DEADLINE)
        victim = pool.submit(pid_of).result(DEADLINE)
        os.kill(victim, signal.SIGSTOP)
        try:
            futures = [pool.submit(pow, number, 2) for number in range(200)]
            not_done = wait(futures, 5).not_done
            assert len(not_done) <= 1
        finally:
            os.kill(victim, signal.SIGKILL)
        for future in not_done:
            assert future.exception(DEADLINE) is None or isinstance(future.exception(), WorkerDied)

    def test_workers_die_with_their_parent(self):
        code = """
import os, signal, time
from raddle.concurrent.futures import ProcessPoolExecutor
pool = ProcessPoolExecutor(2)
futures = [pool.submit(time.sleep, 1000) for _ in range(2)]
while len(pool._processes) < 2: time.sleep(0.01)
print(*pool._processes, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
        child = run_child(code)
        assert child.returncode == -signal.SIGKILL
        for pid in map(int, child.stdout.split()):
            wait_until(lambda pid=pid: has_ended(pid), "the worker is gone", 2)


def has_ended(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class TestStopping:
    def test_a_limit(self, pool):
        with Stopwatch() as watch, pytest.raises(raddle.cancel.DeadlineExceeded, match="time is up"):
            pool.options(timeout=0.2).submit(pause, 100).result(DEADLINE)
        assert 0.2 <= watch.seconds < DEADLINE
        assert pool.options(timeout=DEADLINE).submit(pause, 0).result(DEADLINE) == 0

    def test_a_limit_counts_from_when_the_task_runs(self):
        with ProcessPoolExecutor(1, warm) as pool:
            futures = [pool.options(timeout=1).submit(pause, 0.4) for _ in range(4)]
            assert [future.result(DEADLINE) for future in futures] == [0.4] * 4

    def test_a_task_that_does_not_end_is_killed(self, pool):
        pids = {pool.submit(pid_of).result(DEADLINE)}
        with pytest.raises(
            raddle.cancel.DeadlineExceeded, match=r"time of .*stubborn is up.*process \d+ was killed"
        ):
            pool.options(timeout=0.2).submit(stubborn, 100).result(DEADLINE)
        assert pool.submit(pow, 2, 2).result(DEADLINE) == 4
        assert pids

    def test_cancel_a_task_that_runs(self, pool):
        neighbour = pool.submit(pause, 1)
        future = pool.submit(pause, 100)
        assert wait_until(lambda: future.running())
        assert not future.cancel()
        time.sleep(0.2)
        with Stopwatch() as watch:
            assert future.cancel(running=True, timeout=DEADLINE)
        assert watch.seconds < DEADLINE
        with pytest.raises(CancelledError):
            future.result(DEADLINE)
        assert neighbour.result(DEADLINE) == 1
        assert not future.cancel(running=True) or future.cancelled()

    @pytest.mark.parametrize("method", METHODS)
    def test_cancel_a_task_whose_worker_is_starting(self, method):
        for _ in range(3):
            with ProcessPoolExecutor(1, raddle.multiprocessing.get_context(method)) as pool:
                future = pool.submit(stubborn, 100)
                wait_until(future.running, "it counts as running")
                assert future.cancel(running=True)
                with pytest.raises(CancelledError):
                    future.result(DEADLINE)
                assert pool.submit(pow, 2, 2).result(DEADLINE) == 4

    def test_memory(self):
        with ProcessPoolExecutor(1, warm, max_memory_per_worker=200 << 20) as pool:
            assert pool.submit(pow, 2, 2).result(DEADLINE) == 4
            with pytest.raises(MemoryLimitExceeded, match="more than max_memory_per_worker") as caught:
                pool.submit(take_memory, 400 << 20).result(DEADLINE)
            assert isinstance(caught.value, MemoryError)
            assert pool.submit(pow, 2, 3).result(DEADLINE) == 8


class TestBounds:
    def test_block(self):
        with ProcessPoolExecutor(1, warm, max_pending=2) as pool:
            futures = []
            for _ in range(10):
                futures.append(pool.submit(pause, 0.02))
                assert pool.stats().pending <= 2
            assert all(future.result(DEADLINE) == 0.02 for future in futures)

    def test_raise_and_timeout(self):
        for options in ({"on_full": "raise"}, {"submit_timeout": 0.05}):
            with ProcessPoolExecutor(1, warm, max_pending=1, **options) as pool:
                held = [pool.submit(pause, 0.5)]
                with pytest.raises(queue.Full, match="1 tasks wait"):
                    for _ in range(3):
                        held.append(pool.submit(pause, 0.5))

    def test_caller_runs(self):
        with ProcessPoolExecutor(1, warm, max_pending=1, on_full="caller_runs") as pool:
            pool.submit(pause, 0.5)
            pids = [pool.submit(pid_of).result(DEADLINE) for _ in range(1)]
            futures = [pool.submit(pause, 0.3) for _ in range(3)]
            assert os.getpid() in [pool.submit(pid_of).result(DEADLINE) for _ in range(3)] or pids
            assert all(future.result(DEADLINE) == 0.3 for future in futures)

    def test_drop_oldest(self):
        with ProcessPoolExecutor(1, warm, max_pending=1, on_full="drop_oldest") as pool:
            futures = [pool.submit(pause, 0.2) for _ in range(5)]
            assert futures[-1].result(DEADLINE) == 0.2
            assert any(future.cancelled() for future in futures)

    def test_resize(self):
        with ProcessPoolExecutor(1, warm) as pool:
            pool.resize(3)
            assert (
                len({future.result(DEADLINE) for future in [pool.submit(pid_and_pause) for _ in range(9)]})
                == 3
            )
            pool.resize(1)
            assert wait_until(lambda: pool.stats().workers == 1)
            with pytest.raises(ValueError):
                pool.resize(0)

    def test_idle_workers_end(self):
        with ProcessPoolExecutor(2, warm, idle_timeout=0.1) as pool:
            assert pool.submit(pow, 2, 2).result(DEADLINE) == 4
            assert wait_until(lambda: pool.stats().workers == 0)
            assert pool.submit(pow, 2, 3).result(DEADLINE) == 8

    def test_statistics(self):
        with ProcessPoolExecutor(1, warm) as pool:
            assert pool.stats().run_time_p50 is None
            assert pool.stats().recommended_workers is None
            futures = [pool.submit(pause, 0.1) for _ in range(4)]
            assert pool.submit(divmod, 1, 0).exception(DEADLINE) is not None
            assert all(future.done() for future in futures)
            stats = pool.stats()
            assert (stats.submitted, stats.done, stats.failed, stats.lost) == (5, 4, 1, 0)
            # Percentiles are right within an eighth.
            assert 0.085 < stats.run_time_p50 <= stats.run_time_p99 < DEADLINE
            assert 0.085 < stats.queue_wait_p50 <= stats.queue_wait_p99 < DEADLINE
            assert stats.queue_wait_p99 > 0.3
            assert stats.wall_per_task >= 0.08
            assert 0 < stats.cpu_per_task < stats.wall_per_task
            assert stats.recommended_workers > 1

    def test_waiting_for_a_core_is_no_waiting(self):
        """Four times as many workers as cores, which all compute."""
        cores = len(os.sched_getaffinity(0))
        with ProcessPoolExecutor(4 * cores, warm) as pool:
            for future in [pool.submit(compute, 0.1) for _ in range(8 * cores)]:
                future.result(DEADLINE)
            stats = pool.stats()
            assert stats.wall_per_task > 2 * stats.cpu_per_task
            assert stats.recommended_workers <= 2 * cores

    def test_max_tasks_per_child(self):
        with ProcessPoolExecutor(2, warm, max_tasks_per_child=2) as pool:
            pids = list(pool.map(pid_of, range(12)))
            assert max(pids.count(pid) for pid in pids) <= 2


def compute(seconds):
    """Takes so much processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def pid_and_pause():
    time.sleep(0.3)
    return os.getpid()


class TestPickling:
    def test_a_result_that_cannot_be_pickled_is_said_to_be_one(self, pool):
        with pytest.raises(TypeError, match="cannot pickle") as caught:
            pool.submit(threading.Lock).result(DEADLINE)
        assert caught.value.__notes__ == ["Raised when the result of the task was pickled, a 'lock'."]

    def test_what_cannot_be_unpickled_here(self, pool):
        future = pool.submit(give_what_loads_nowhere)
        with pytest.raises(UnpicklingFailed, match="not to be had here") as caught:
            future.result(DEADLINE)
        assert isinstance(caught.value, BrokenProcessPool) and isinstance(caught.value.__cause__, LookupError)
        assert future.exception() is caught.value
        assert pool.submit(pow, 2, 2).result(DEADLINE) == 4

    def test_what_cannot_be_unpickled_there(self, pool):
        with pytest.raises(UnpicklingFailed, match="not to be had here"):
            pool.submit(repr, LoadsNowhere()).result(DEADLINE)
        assert pool.submit(pow, 2, 2).result(DEADLINE) == 4

    def test_a_result_is_unpickled_once_by_who_asks(self, pool):
        future = pool.submit(dict, a=[1, 2])
        wait([future], DEADLINE)
        assert "not yet unpickled" in repr(future)
        assert future.result() is future.result()
        assert "returned dict" in repr(future)

    def test_large_buffers(self, pool):
        numbers = array.array("q", range(100_000))
        assert pool.submit(sum, numbers).result(DEADLINE) == sum(numbers)
        big = pool.submit(bytearray, 5_000_000).result(DEADLINE)
        assert len(big) == 5_000_000
        buffer = pool.submit(pickle.PickleBuffer, b"x" * 200_000)
        assert bytes(buffer.result(DEADLINE)) == b"x" * 200_000


class TestPrograms:
    def test_nested_pools(self):
        with raddle.multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(nested, range(4)) == [0, 1, 4, 9]

    def test_a_fork_beside_the_pool(self, pool):
        assert pool.submit(pow, 2, 2).result(DEADLINE) == 4
        pid = os.fork()
        if not pid:
            try:
                pool.submit(pow, 2, 2)
            except RuntimeError as error:
                os._exit(0 if "after a fork" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert pool.submit(pow, 2, 3).result(DEADLINE) == 8

    def test_threads_submit(self, pool):
        results = []

        def submit():
            results.extend(pool.submit(pow, number, 2).result(DEADLINE) for number in range(100))

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == sorted([number**2 for number in range(100)] * 4)

    def test_no_stall_is_reported_while_workers_work(self):
        code = """
import time
from raddle.concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(1) as pool:
    pool.submit(time.sleep, 1).result()
"""
        check_child(code)

    def test_map_ahead(self, pool):
        seen = []

        def numbers():
            for number in range(1000):
                seen.append(number)
                yield number

        results = pool.map(abs, numbers(), buffersize=5)
        assert next(results) == 0
        assert len(seen) <= 7
        assert sum(results) == sum(range(1, 1000))
