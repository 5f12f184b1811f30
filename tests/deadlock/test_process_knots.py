"""Processes that all wait: through queues, pipes, joins, semaphores and locks, and threads within them."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tools import wait_until

pytestmark = [pytest.mark.fork, pytest.mark.timeout(120)]

PRELUDE = """
import os, signal, sys, threading as std, time
import raddle.deadlock
import raddle.multiprocessing as mp
import raddle.threading as threading

ctx = mp.get_context(sys.argv[1])
raddle.deadlock.enable(report=sys.argv[2])

def told(count=1, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end and open(sys.argv[2]).read().count("raddle: ") < count:
        time.sleep(0.01)
"""


class Program:
    """A program under test: it runs until it ends or is killed, with all its children."""

    def __init__(self, directory, source, method="fork"):
        self.path, self.report = directory / "app.py", directory / "report.txt"
        self.report.touch()
        self.path.write_text(PRELUDE + source)
        self._program = subprocess.Popen(
            [sys.executable, str(self.path), method, str(self.report)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self):
        return self._program.stdout.readline().strip()

    def told(self):
        return self.report.read_text().split("raddle: ")[1:]

    def wait_told(self, count=1, afterwards=1.2):
        """What is told; no more comes."""
        wait_until(lambda: len(self.told()) >= count, f"{count} reports", 20)
        time.sleep(afterwards)
        assert len(self.told()) == count, self.told()
        return self.told()

    def wait_ended(self, seconds=30):
        out, errors = self._program.communicate(timeout=seconds)
        assert self._program.returncode == 0, errors
        return out

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        try:
            os.killpg(self._program.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._program.communicate()


@pytest.fixture
def app(tmp_path):
    return lambda source, method="fork": Program(tmp_path, source, method)


def waits(text):
    """Process, thread, what it waits for, call."""
    found = re.findall(r"Thread '(.*)' of process '(.*)' \(pid \d+\) waits for (.*)\n    in (\S+),", text)
    plain = re.compile(r" \(pid \d+\)|(?<=\.py):\d+")
    return sorted((process, thread, plain.sub("", what), call) for thread, process, what, call in found)


METHODS = ["fork", "spawn", "forkserver", "warm"]

PUTS_TOO_MUCH = """
def produce(queue):
    for number in range(10):
        queue.put(number)

if __name__ == "__main__":
    queue = ctx.Queue(3)
    child = ctx.Process(target=produce, args=(queue,), name="producer")
    child.start()
    child.join()
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_join_of_who_puts_into_a_full_queue(app, method):
    with app(PUTS_TOO_MUCH, method) as program:
        (text,) = program.wait_told()
    assert text.startswith("likely deadlock of processes: 2 processes wait for each other\n"), text
    assert waits(text) == [
        ("MainProcess", "MainThread", "the end of process 'producer'", "Process.join"),
        ("producer", "MainThread", "room in Queue 'app.py'", "Queue.put"),
    ]
    lines = program.path.read_text().splitlines()
    for call in ("child.join()", "queue.put(number)"):
        line = lines.index(next(line for line in lines if line.strip() == call)) + 1
        assert f'at File "{program.path}", line {line}\n' in text, text
    made = lines.index("    queue = ctx.Queue(3)") + 1
    assert f"room in Queue 'app.py:{made}'" in text, text
    assert "Advice: get what the joined process puts before joining it, or give the queue room." in text


@pytest.mark.parametrize("method", METHODS)
def test_all_wait_for_items_that_nobody_puts(app, method):
    source = """
def consume(queue):
    queue.get()

if __name__ == "__main__":
    queue = ctx.Queue()
    children = [ctx.Process(target=consume, args=(queue,), name=f"consumer{at}") for at in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
"""
    with app(source, method) as program:
        (text,) = program.wait_told()
    assert text.startswith(
        "stall of processes: every thread of 3 processes is blocked, and nobody else is left"
    ), text
    assert waits(text) == [
        ("MainProcess", "MainThread", "the end of process 'consumer0'", "Process.join"),
        ("consumer0", "MainThread", "an item of Queue 'app.py'", "Queue.get"),
        ("consumer1", "MainThread", "an item of Queue 'app.py'", "Queue.get"),
    ]


#: Each is left alone with a wait that only a process could end which has ended, or which waits too.
STALLS = {
    "all producers have gone": (
        """
def die(queue):
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    queue = ctx.Queue()
    child = ctx.Process(target=die, args=(queue,))
    child.start()
    child.join()
    queue.get()
""",
        [("MainProcess", "Queue.get")],
    ),
    "simple": (
        """
if __name__ == "__main__":
    ctx.SimpleQueue().get()
""",
        [("MainProcess", "Queue.get")],
    ),
    "tasks that are never done": (
        """
def take(queue):
    queue.get()  # and ends without task_done()

if __name__ == "__main__":
    queue = ctx.JoinableQueue()
    queue.put(1)
    child = ctx.Process(target=take, args=(queue,))
    child.start()
    queue.join()
""",
        [("MainProcess", "Queue.join")],
    ),
    "a pipe whose other end is here too": (
        """
if __name__ == "__main__":
    here, there = ctx.Pipe()
    here.recv()
""",
        [("MainProcess", "Connection.recv")],
    ),
    "both wait for an answer": (
        """
def answer(connection):
    connection.recv()

if __name__ == "__main__":
    here, there = ctx.Pipe()
    ctx.Process(target=answer, args=(there,), name="answers").start()
    here.recv()
""",
        [("MainProcess", "Connection.recv"), ("answers", "Connection.recv")],
    ),
    "a semaphore": (
        """
def take(units):
    units.acquire()

if __name__ == "__main__":
    units = ctx.Semaphore(0)
    child = ctx.Process(target=take, args=(units,), name="takes")
    child.start()
    child.join()
""",
        [("MainProcess", "Process.join"), ("takes", "Semaphore.acquire")],
    ),
    "a condition": (
        """
def wait(condition):
    with condition:
        condition.wait()

if __name__ == "__main__":
    condition = ctx.Condition()
    child = ctx.Process(target=wait, args=(condition,), name="waits")
    child.start()
    child.join()
""",
        [("MainProcess", "Process.join"), ("waits", "Condition.wait")],
    ),
    "threads within": (
        """
def consume(queue):
    lock = threading.Lock()
    def hold():
        with lock:
            queue.get()
    holder = threading.Thread(target=hold, name="holder")
    holder.start()
    while not lock.locked():
        time.sleep(0.01)
    with lock:
        pass

if __name__ == "__main__":
    queue = ctx.Queue()
    child = ctx.Process(target=consume, args=(queue,), name="consumer")
    child.start()
    child.join()
""",
        [("MainProcess", "Process.join"), ("consumer", "Queue.get")],
    ),
}


@pytest.mark.parametrize("name", STALLS)
def test_stalls(app, name):
    source, expected = STALLS[name]
    with app(source) as program:
        (text,) = program.wait_told()
    assert text.startswith("stall of processes: every thread of "), text
    assert [(process, call) for process, _, _, call in waits(text)] == expected, text


CIRCLES = {
    "two full queues": (
        """
def fill(mine, others):
    for _ in range(3):
        others.put(0)
    mine.get()

if __name__ == "__main__":
    one, other = ctx.Queue(2), ctx.Queue(2)
    ctx.Process(target=fill, args=(one, other), name="child").start()
    fill(other, one)
""",
        [("MainProcess", "Queue.put"), ("child", "Queue.put")],
        "get before you put, give the queue room, or put with a timeout.",
    ),
    "a large message over a pipe": (
        """
def send(connection):
    connection.send_bytes(bytes(3 << 20))

if __name__ == "__main__":
    here, there = ctx.Pipe()
    child = ctx.Process(target=send, args=(there,), name="sender")
    child.start()
    child.join()
""",
        [("MainProcess", "Process.join"), ("sender", "Connection.send")],
        "get what the joined process puts before joining it, or give the queue room.",
    ),
}


@pytest.mark.parametrize("name", CIRCLES)
def test_likely_deadlocks(app, name):
    source, expected, advice = CIRCLES[name]
    with app(source) as program:
        (text,) = program.wait_told()
    assert text.startswith("likely deadlock of processes: 2 processes wait for each other\n"), text
    assert [(process, call) for process, _, _, call in waits(text)] == expected, text
    assert f"Advice: {advice}" in text


MIXED = """
def other(first, second, ready, go):
    raddle.deadlock.enable(report=sys.argv[2], on_deadlock="raise")
    with second:
        ready.release()
        go.acquire()
        with first:
            pass

if __name__ == "__main__":
    raddle.deadlock.enable(report=sys.argv[2], on_deadlock="raise")
    first = ctx.RLock()
    second = ctx.RLock()
    inner, has_inner, has_first = threading.RLock(name="inner"), threading.Event(), threading.Event()
    ready, go = ctx.Semaphore(0), ctx.Semaphore(0)

    def outside():
        with inner:
            has_inner.set()
            has_first.wait()
            go.release()
            with second:
                pass

    def inside():
        has_inner.wait()
        with first:
            has_first.set()
            with inner:
                pass

    child = ctx.Process(target=other, args=(first, second, ready, go), name="child")
    child.start()
    ready.acquire()
    raised = []
    def guarded(run):
        try:
            run()
        except raddle.deadlock.DeadlockError:
            raised.append(run)
    threads = [threading.Thread(target=guarded, args=(run,), name=run.__name__) for run in (outside, inside)]
    for thread in threads:
        thread.start()
    {beside}
    for thread in threads:
        thread.join()
    child.join()
    print(len(raised) + (child.exitcode != 0))
"""


@pytest.mark.parametrize("beside", ["pass", "std.Thread(target=time.sleep, args=(1.5,)).start()"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_circle_through_a_lock_of_threads_is_proven_and_raised_in_one(app, method, beside):
    """Whether other threads run or not."""
    with app(MIXED.replace("{beside}", beside), method) as program:
        assert program.wait_ended() == "1\n"
        texts = program.told()
    assert len(texts) == 2
    for text in texts:
        assert text.startswith("deadlock of processes: 3 threads wait for each other\n"), text
        assert [(process, thread, call) for process, thread, _, call in waits(text)] == [
            ("MainProcess", "inside", "RLock.acquire"),
            ("MainProcess", "outside", "RLock.acquire"),
            ("child", "MainThread", "RLock.acquire"),
        ], text
        assert "holds RLock 'inner'" in text and "waits for RLock 'inner'" in text


def test_a_joined_process_whose_main_thread_joins_a_thread(app):
    source = """
def child(lock):
    def take():
        with lock:
            pass
    thread = threading.Thread(target=take, name="takes")
    thread.start()
    thread.join()

if __name__ == "__main__":
    lock = ctx.Lock()
    process = ctx.Process(target=child, args=(lock,), name="child")
    with lock:
        process.start()
        process.join()
"""
    with app(source) as program:
        texts = program.wait_told(2)
    for text in texts:
        assert text.startswith("likely deadlock of processes: 3 threads wait for each other\n"), text
        assert ("child", "MainThread", "the end of thread 'takes'", "Thread.join") in waits(text), text


QUIET = {
    "a slow producer": """
def produce(queue):
    time.sleep(2)
    queue.put(1)

if __name__ == "__main__":
    queue = ctx.Queue()
    child = ctx.Process(target=produce, args=(queue,))
    child.start()
    queue.get()
    child.join()
""",
    "a deadline": """
def get(queue):
    try:
        queue.get(timeout=2)
    except mp.queues.Empty:
        pass

if __name__ == "__main__":
    import raddle.multiprocessing.queues
    queue = ctx.Queue()
    child = ctx.Process(target=get, args=(queue,))
    child.start()
    child.join()
""",
    "a thread that sleeps, of the standard library's": """
if __name__ == "__main__":
    queue = ctx.Queue()
    def put():
        time.sleep(2)
        queue.put(1)
    std.Thread(target=put).start()
    queue.get()
""",
    "a timer": """
if __name__ == "__main__":
    queue = ctx.Queue()
    threading.Timer(2, queue.put, (1,)).start()
    queue.get()
""",
    "a signal handler": """
if __name__ == "__main__":
    queue = ctx.Queue()
    signal.signal(signal.SIGUSR1, lambda *_: queue.put(1))
    std.Thread(target=print).start()
    os.system(f"(sleep 2; kill -USR1 {os.getpid()}) &")
    queue.get()
""",
    "an alarm that ends the process": """
def wait(queue):
    signal.alarm(2)
    queue.get()

if __name__ == "__main__":
    queue = ctx.Queue()
    child = ctx.Process(target=wait, args=(queue,))
    child.start()
    child.join()
""",
    "a process that multiprocessing does not know": """
if __name__ == "__main__":
    queue = ctx.Queue()
    if os.fork() == 0:
        time.sleep(2)
        queue.put(1)
        os._exit(0)
    queue.get()
""",
    "a process that has the queue and does not use it yet": """
def other(queue):
    time.sleep(2)
    queue.put(1)

def get(queue):
    queue.get()

if __name__ == "__main__":
    queue = ctx.Queue()
    ctx.Process(target=other, args=(queue,)).start()
    child = ctx.Process(target=get, args=(queue,))
    child.start()
    child.join()
""",
    "a reader over an ordinary pipe": """
def other(queue, fd):
    os.read(fd, 1)
    queue.put(1)

if __name__ == "__main__":
    queue = ctx.Queue()
    reader, writer = os.pipe()
    child = ctx.Process(target=other, args=(queue, reader))
    child.start()
    os.system(f"(sleep 2; echo x) >&{writer} &") if os.set_inheritable(writer, True) is None else None
    queue.get()
    child.join()
""",
    "a stopped process": """
def get(queue, go):
    go.release()
    queue.get()

if __name__ == "__main__":
    queue, go = ctx.Queue(), ctx.Semaphore(0)
    child = ctx.Process(target=get, args=(queue, go))
    child.start()
    go.acquire()
    time.sleep(0.7)
    os.kill(child.pid, signal.SIGSTOP)
    os.system(f"(sleep 2; kill -KILL {child.pid}) &")
    child.join()
""",
    "ping and pong, slowly": """
def echo(there, back):
    while (item := there.get()) is not None:
        time.sleep(0.3)
        back.put(item)

if __name__ == "__main__":
    there, back = ctx.Queue(1), ctx.Queue(1)
    child = ctx.Process(target=echo, args=(there, back))
    child.start()
    for item in range(5):
        there.put(item)
        back.get()
    there.put(None)
    child.join()
""",
}


@pytest.mark.parametrize("name", QUIET)
def test_what_goes_on_is_not_told(app, name):
    with app(QUIET[name]) as program:
        program.wait_ended()
        assert program.told() == []


def test_idle_workers_are_not_told_of(app):
    """Workers that wait for work while their parent does something else."""
    source = """
def work(tasks, results):
    for task in iter(tasks.get, None):
        results.put(task)

if __name__ == "__main__":
    tasks, results = ctx.Queue(), ctx.Queue()
    workers = [ctx.Process(target=work, args=(tasks, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    time.sleep(2)
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        worker.join()
"""
    with app(source) as program:
        program.wait_ended()
        assert program.told() == []


def test_a_killed_party_ends_the_hang_or_leaves_another(app):
    """What is left after a kill is told of again if it hangs, with those who are left, and is not if it does not."""
    source = """
def get(queue, name):
    queue.get()

if __name__ == "__main__":
    queue = ctx.Queue()
    children = [ctx.Process(target=get, args=(queue, at), name=f"p{at}") for at in range(2)]
    for child in children:
        child.start()
    print(*(child.pid for child in children), flush=True)
    for child in children:
        child.join()
"""
    with app(source) as program:
        pids = [int(pid) for pid in program.line().split()]
        program.wait_told()
        os.kill(pids[0], signal.SIGKILL)
        text = program.wait_told(2)[1]
        assert [(process, call) for process, _, _, call in waits(text)] == [
            ("MainProcess", "Process.join"),
            ("p1", "Queue.get"),
        ], text
        os.kill(pids[1], signal.SIGKILL)
        program.wait_ended()
        assert len(program.told()) == 2


def test_on_stall_exit(app):
    source = """
if __name__ == "__main__":
    raddle.deadlock.enable(report=sys.argv[2], on_stall="exit")
    ctx.Queue().get()
"""
    with app(source) as program:
        program._program.wait(20)
        assert program._program.returncode == 75
        assert len(program.told()) == 1


def test_ignored(app):
    source = """
if __name__ == "__main__":
    raddle.deadlock.enable(report=sys.argv[2], on_stall="ignore", on_deadlock="ignore")
    ctx.Queue().get()
"""
    with app(source) as program:
        time.sleep(4)
        assert program.told() == []


def test_kills_at_any_moment_leave_nothing_wrong_behind(app):
    """Children are killed about when they post what they wait for; a stall that is there afterwards is found."""
    source = """
import random, subprocess

def get(queue):
    queue.get()

if __name__ == "__main__":
    print(seed := int(os.environ["RADDLE_SEED"]), flush=True)
    rng = random.Random(seed)
    queue = ctx.Queue()
    for _ in range(40):
        children = [ctx.Process(target=get, args=(queue,), name=f"killed{at}") for at in range(2)]
        for child in children:
            child.start()
            # By a process that has nothing of this one's: this one waits meanwhile.
            subprocess.Popen(["sh", "-c", f"sleep {rng.uniform(0.04, 0.14)}; kill -KILL {child.pid}"])
        for child in children:
            child.join()
    print("left alone", flush=True)
    queue.get()
"""
    with app(source) as program:
        program.line()
        wait_until(lambda: program.line() == "left alone", "the last get", 60)
        assert program.told() == []
        (text,) = program.wait_told()
    assert [(process, call) for process, _, _, call in waits(text)] == [("MainProcess", "Queue.get")], text


@pytest.mark.parametrize("method", ["fork", "warm"])
def test_a_thread_that_the_process_ends_with(app, method):
    """The main thread of the child has ended; its other thread has not."""
    source = """
def child(queue):
    threading.Thread(target=queue.get, name="getter").start()

if __name__ == "__main__":
    queue = ctx.Queue()
    process = ctx.Process(target=child, args=(queue,), name="child")
    process.start()
    process.join()
"""
    with app(source, method) as program:
        (text,) = program.wait_told()
    assert [(process, thread, call) for process, thread, _, call in waits(text)] == [
        ("MainProcess", "MainThread", "Process.join"),
        ("child", "getter", "Queue.get"),
    ], text
