"""Queues and pipes between processes under faults: kills, stops, limits, exits, forks, leaks.

The core's own tests (crates/raddle/tests/ipc.rs) kill processes at random instants by the thousand. Here the same is
done to Python programs, and what surrounds a queue in Python fails.

RADDLE_STRESS=30, as `make chaos` has it, makes it 10,800 kills of readers and writers of queues.
"""

import gc
import os
import queue
import random
import signal
import threading
import time

import pytest
import raddle.multiprocessing as mp

from tools import (
    DEADLINE,
    Stopwatch,
    check_child,
    killed,
    rng_for,
    run_child,
    scaled,
    started,
    wait_until,
    wait_until_blocked,
)

pytestmark = [pytest.mark.stress, pytest.mark.fork, pytest.mark.timeout(900)]

fork = mp.get_context("fork")


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def mappings():
    with open("/proc/self/maps") as file:
        return len(file.readlines())


def shared_files():
    """What is in /dev/shm but for the standard library's semaphores and segments, of other programs too."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith(("sem.mp-", "psm_"))}


def body(number):
    """Something whose size and contents follow from the number."""
    size = number * 7919 % 3000 if number % 40 else 150_000
    return {"number": number, "text": b"%d." % number * (size // 8)}


def write_for_ever(line, who):
    number = 0
    while True:
        line.put((who, number, body(number)))
        number += 1


def read_for_ever(line, seen):
    while True:
        who, number, found = line.get()
        assert found == body(number)
        seen.put((who, number))


def drain(line, wait=0.0):
    items = []
    while True:
        try:
            items.append(line.get(wait > 0, wait))
        except queue.Empty:
            return items


class TestKills:
    @pytest.mark.parametrize("bound", [0, 5])
    def test_writers(self, bound):
        """Each writer's items come whole, in order and without a gap, whatever happens to it."""
        rng = rng_for(f"writers {bound}")
        line = fork.Queue(bound)
        following = {}
        for round_ in range(scaled(60, 5000)):
            writers = [started(fork, write_for_ever, line, (round_, at)) for at in range(2)]
            end = time.monotonic() + rng.uniform(0.0, 0.02)
            items = []
            while time.monotonic() < end:
                try:
                    items.append(line.get(timeout=0.002))
                except queue.Empty:
                    pass
            for writer in writers:
                killed(writer)
            items += drain(line)
            for who, number, found in items:
                assert number == following.get(who, 0)
                assert found == body(number)
                following[who] = number + 1
            with Stopwatch() as watch:
                line.put("works")
                assert line.get(timeout=2) == "works"
            assert watch.seconds < 2
            assert line.empty()

    def test_readers(self):
        """Nothing comes twice; each killed reader costs at most the items between taking one and noting it."""
        rng = rng_for("readers")
        line, seen = fork.Queue(20), fork.Queue()
        sent = kills = 0
        for _ in range(scaled(60, 5000)):
            readers = [started(fork, read_for_ever, line, seen) for _ in range(2)]
            end = time.monotonic() + rng.uniform(0.0, 0.02)
            while time.monotonic() < end:
                try:
                    line.put(("me", sent, body(sent)), timeout=0.002)
                    sent += 1
                except queue.Full:
                    pass
            for reader in readers:
                killed(reader)
                kills += 1
            for _, number, found in drain(line):
                assert found == body(number)
                seen.put(("me", number))
        numbers = [number for _, number in drain(seen)]
        assert len(numbers) == len(set(numbers))
        assert sent - kills <= len(numbers) <= sent

    def test_a_sleeping_reader_is_woken_after_another_was_killed(self):
        line, seen = fork.Queue(), fork.Queue()
        readers = [started(fork, read_for_ever, line, seen) for _ in range(3)]
        for reader in readers:
            wait_until_blocked(reader.pid, pid=reader.pid)
        killed(readers.pop())
        for number in range(30):
            line.put(("me", number, body(number)))
        assert sorted(seen.get(timeout=DEADLINE)[1] for _ in range(30)) == list(range(30))
        for reader in readers:
            killed(reader)

    def test_pipes(self):
        """The other end learns of a kill, after what had been sent."""
        rng = rng_for("pipes")
        for _ in range(scaled(40, 3000)):
            mine, theirs = fork.Pipe()
            writer = started(fork, send_for_ever, theirs)
            theirs.close()
            stop = threading.Timer(rng.uniform(0, 0.02), os.kill, (writer.pid, signal.SIGKILL))
            stop.start()
            expected = 0
            while True:
                try:
                    number, found = mine.recv()
                except EOFError:
                    break
                assert (number, found) == (expected, body(number))
                expected += 1
            stop.join()
            writer.join(DEADLINE)
            mine.close()

    def test_a_sender_to_a_killed_reader_is_told(self):
        mine, theirs = fork.Pipe()
        reader = started(fork, time.sleep, 1000)
        theirs.close()
        sender_ended = []

        def send():
            with pytest.raises(BrokenPipeError):
                while True:
                    mine.send_bytes(bytes(300_000))
            sender_ended.append(time.monotonic())

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        wait_until(lambda: mine._channel.statistics() is not None and not sender_ended)
        time.sleep(0.05)
        killed(reader)
        sender.join(2)
        assert sender_ended


def send_for_ever(end):
    number = 0
    while True:
        end.send((number, body(number)))
        number += 1


class TestStops:
    def test_a_stopped_writer(self):
        """Timed calls end in time; all goes on once it is killed."""
        rng = rng_for("stops")
        line = fork.Queue()
        for round_ in range(scaled(20, 500)):
            writer = started(fork, write_for_ever, line, round_)
            time.sleep(rng.uniform(0, 0.01))
            os.kill(writer.pid, signal.SIGSTOP)
            with Stopwatch() as watch:
                drain(line, 0.02)
                try:
                    line.put("in between", timeout=0.1)
                except queue.Full:
                    pass  # it was stopped inside put()
                line.empty(), line.qsize()
            assert watch.seconds < 20
            killed(writer)
            drain(line)
            line.put("works", timeout=2)
            assert line.get(timeout=2) == "works"


class TestEnds:
    def test_a_child_that_has_put_much_may_be_joined_first(self):
        for method in mp.get_all_start_methods():
            ctx = mp.get_context(method)
            line = ctx.Queue()
            child = started(ctx, line_put_much, line)
            child.join(DEADLINE)
            assert child.exitcode == 0
            assert len(line.get(timeout=1)) == 10_000_000
            assert line.get(timeout=1) == "last"

    def test_exit_without_farewell(self):
        line = fork.Queue()
        child = started(fork, put_and_vanish, line)
        child.join(DEADLINE)
        assert [line.get(timeout=1) for _ in range(100)] == list(range(100))

    def test_interrupted(self):
        for method, held in [("get", False), ("put", True)]:
            line = fork.Queue(1)
            if held:
                line.put(0)
            timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            start = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                line.put(1) if method == "put" else line.get()
            assert time.monotonic() - start < 1
            timer.join()

    def test_interpreter_exit_beside_a_waiting_thread(self):
        code = """
import threading, raddle.multiprocessing as mp
line, (one, other) = mp.Queue(), mp.Pipe()
line.put(1); line.get()
for call in (line.get, other.recv):
    threading.Thread(target=call, daemon=True).start()
import time; time.sleep(0.1)
print("out")
"""
        check_child(code, out="out\n")

    def test_shutdown_wakes_all_processes(self):
        line = fork.Queue(1)
        children = [started(fork, until_shut_down, line) for _ in range(3)]
        for child in children:
            wait_until_blocked(child.pid, pid=child.pid)
        line.shutdown()
        for child in children:
            child.join(DEADLINE)
            assert child.exitcode == 7


def line_put_much(line):
    line.put("x" * 10_000_000)
    line.put("last")


def put_and_vanish(line):
    for number in range(100):
        line.put(number)
    os._exit(0)


def until_shut_down(line):
    try:
        line.get()
    except mp.ShutDown:
        os._exit(7)


class TestTasks:
    def test_many_report_at_once_and_nothing_comes_any_more(self):
        """Whoever finds the lock busy waits for the lock, not for another item."""
        line, ready = fork.JoinableQueue(), fork.Barrier(4)

        def report(count):
            for _ in range(count):
                line.get()
            ready.wait()
            for _ in range(count):
                line.task_done()

        count = scaled(15_000, 200_000)
        for _ in range(4 * count):
            line.put(0)
        workers = [started(fork, report, count) for _ in range(4)]
        for worker in workers:
            worker.join(DEADLINE)
            assert worker.exitcode == 0
        with Stopwatch() as watch:
            line.join()
        assert watch.seconds < DEADLINE
        with pytest.raises(ValueError, match="too many times"):
            line.task_done()


class TestLimits:
    def test_no_descriptor_is_free(self):
        code = """
import os, resource, raddle.multiprocessing as mp
mp.Queue().put(1)
mp.Pipe()
before = len(os.listdir("/proc/self/fd"))
for free in range(6):
    limit = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + free, 20000))
    made = []
    try:
        while True:
            made += mp.Pipe() if free % 2 else (mp.Queue(),)
    except OSError as error:
        assert error.errno == 24, error
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 20000))
    del made
    import gc; gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before, (free, os.listdir("/proc/self/fd"), before)
print("fine")
"""
        check_child(code, out="fine\n")

    def test_no_memory(self):
        code = """
import resource, raddle.multiprocessing as mp
line, (one, other) = mp.Queue(), mp.Pipe()
line.put("before")
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
for call in (line.put, one.send):
    try:
        call(bytes(5_000_000))
    except OSError as error:
        assert error.errno == 27, error
    else:
        raise AssertionError("it went")
line.put("after")
one.send("well")
print(line.get(), line.get(), other.recv())
"""
        check_child(code, out="before after well\n")

    def test_damaged_memory_is_an_error(self):
        rng = rng_for("damage")
        for _ in range(scaled(100, 3000)):
            line = fork.Queue()
            for number in range(rng.randrange(20)):
                line.put(number)
            damage(line._channel.file(), rng)
            for call in (lambda q=line: q.get(timeout=0.001), lambda q=line: q.put(1, timeout=0.001)):
                for _ in range(3):
                    try:
                        call()
                    except (OSError, queue.Empty, queue.Full, mp.ShutDown):
                        pass
                    except Exception as error:  # a pickle that was changed
                        assert "internal error" not in str(error)
            line.close()


def damage(file, rng):
    with open(f"/proc/self/fd/{file}", "r+b", buffering=0) as memory:
        for _ in range(rng.randrange(1, 6)):
            memory.seek(rng.choice([rng.randrange(640), 65536 + rng.randrange(500)]))
            memory.write(random.Random(rng.random()).randbytes(rng.choice([1, 4, 8])))


class TestForks:
    def test_fork_while_threads_use_it(self):
        """A child forked at any moment can use the queue, and so can the parent."""
        code = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")
import raddle.multiprocessing as mp
line, stop = mp.Queue(), threading.Event()
def churn():
    while not stop.is_set():
        line.put(b"x" * 300_000)
        line.get()
threads = [threading.Thread(target=churn, daemon=True) for _ in range(3)]
[thread.start() for thread in threads]
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if not pid:
        try:
            line.put(b"child")
            line.get(timeout=10)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
[thread.join(10) for thread in threads]
assert not any(thread.is_alive() for thread in threads)
print(line.qsize())
"""
        check_child(code, scaled(40, 2000), out="0\n", timeout=120)


class TestLeaks:
    def test_nothing_is_left_behind(self):
        def use():
            for kind in (mp.Queue, mp.JoinableQueue, mp.SimpleQueue):
                line = kind()
                for size in (10, 100_000, 3_000_000):
                    line.put(bytes(size))
                    line.get()
                line.close()
            one, other = mp.Pipe()
            one.send(bytes(500_000))
            other.recv()
            other.close()

        use()
        gc.collect()
        open_before, shared_before = descriptors(), shared_files()
        maps_before = mappings()
        for _ in range(scaled(60)):
            use()
        gc.collect()
        assert descriptors() == open_before
        assert shared_files() <= shared_before
        assert mappings() <= maps_before + 5

    def test_a_backlog_gives_its_memory_back(self):
        line = fork.Queue()

        def held():
            return os.stat(f"/proc/self/fd/{line._channel.file()}").st_blocks * 512

        for _ in range(100):
            line.put(bytes(500_000))
        assert held() > 40_000_000
        drain(line)
        for number in range(600):
            line.put(number)
            line.get()
        assert held() < 1_000_000

    def test_the_killed_leave_nothing(self):
        before = shared_files()
        code = """
import os, signal, raddle.multiprocessing as mp
line, ends = mp.Queue(), mp.Pipe()
line.put(bytes(1_000_000))
os.kill(os.getpid(), signal.SIGKILL)
"""
        assert run_child(code).returncode == -signal.SIGKILL
        assert shared_files() <= before
