"""Locks that were held by another thread when a process was forked: nobody in the child will ever release them."""

import os
import pickle
import subprocess
import sys
import threading

import pytest

pytestmark = [pytest.mark.fork, pytest.mark.timeout(60)]

PROGRAM = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")
import raddle.threading, raddle.deadlock
from raddle.deadlock import DeadlockError

def hold(lock):
    "Another thread takes it and keeps it."
    taken = raddle.threading.Event()
    def run():
        lock.acquire()
        taken.set()
        time.sleep(60)
    raddle.threading.Thread(target=run, daemon=True).start()
    taken.wait()

def in_child(body, seconds=10):
    "What a forked child prints, and how it ends."
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            body()
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
        finally:
            os._exit(0)
    end = time.monotonic() + seconds
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            print("hangs")
            return
        time.sleep(0.005)
"""


def run(tmp_path, body):
    """What the program prints on standard output and standard error."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM + body)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("make", ["Lock()", "RLock()", "Semaphore()", "Condition()"])
def test_raised_where_that_was_asked_for(tmp_path, make):
    out, err = run(
        tmp_path,
        f"""
raddle.deadlock.enable(on_deadlock="raise")
lock = raddle.threading.{make}
hold(lock)
begin = time.monotonic()
in_child(lock.acquire)
print("soon", time.monotonic() - begin < 2)
""",
    )
    first, last = out.splitlines()
    assert first.startswith("DeadlockError 'MainThread' waits for")
    assert "held by a thread that stayed in the parent process when this one was forked" in first
    assert "program.py" in first
    if "Semaphore" not in make:
        assert "taken at File" in first
        assert "program.py" in first.split("taken at")[1]
    assert last == "soon True"
    assert err.count("raddle: deadlock: ") == 1
    assert "by a thread that stayed in the parent" in err
    assert "Advice: start the process by" in err


def test_only_told_otherwise(tmp_path):
    out, err = run(tmp_path, "lock = raddle.threading.RLock()\nhold(lock)\nin_child(lock.acquire, 1.5)\n")
    assert out == "hangs\n"
    assert err.count("raddle: deadlock: ") == 1


def test_not_told_where_ignored(tmp_path):
    out, err = run(
        tmp_path,
        "raddle.deadlock.enable(on_deadlock='ignore', on_stall='ignore')\n"
        "lock = raddle.threading.Lock()\nhold(lock)\nin_child(lock.acquire, 1.5)\n",
    )
    assert (out, err) == ("hangs\n", "")


def test_those_who_wait_for_the_waiter(tmp_path):
    """The child has threads of its own: one waits for what was left behind, and the main thread for that one."""
    out, err = run(
        tmp_path,
        """
raddle.deadlock.enable(on_deadlock="raise")
lock = raddle.threading.RLock()
hold(lock)
def body():
    def wait():
        try:
            lock.acquire()
        except DeadlockError as error:
            print("raised in the thread")
    # The first new thread gets the stack of the one that was left, and with it its identity, as in CPython.
    raddle.threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
    thread = raddle.threading.Thread(target=wait)
    thread.start()
    thread.join()
    print("joined", flush=True)
in_child(body)
""",
    )
    assert out == "raised in the thread\njoined\n"
    assert err.count("deadlock: ") == 1


ENDS = {
    "the forking thread has it": ("lock.acquire()", "lock.release(); lock.acquire(); print('taken')"),
    "another thread of the child releases it": (
        "hold(lock)",
        "t = raddle.threading.Thread(target=lambda: (time.sleep(1), lock.release())); t.start();"
        " lock.acquire(); t.join(); print('taken')",
    ),
    "a thread unknown to raddle releases it": (
        "hold(lock)",
        "import _thread; _thread.start_new_thread(lambda: (time.sleep(1), lock.release()), ());"
        " lock.acquire(); print('taken')",
    ),
    "a thread of the child has it": (
        "",
        "taken = raddle.threading.Event();"
        " t = raddle.threading.Thread(target=lambda: (lock.acquire(), taken.set(), time.sleep(1), lock.release()));"
        " t.start(); taken.wait(); lock.acquire(); t.join(); print('taken')",
    ),
    "it was made anew": ("hold(lock)", "lock._at_fork_reinit(); lock.acquire(); print('taken')"),
    "the wait has an end": ("hold(lock)", "print('taken' if not lock.acquire(timeout=1) else 'what')"),
}


@pytest.mark.parametrize("how", ENDS)
def test_no_false_report(tmp_path, how):
    before, body = ENDS[how]
    out, err = run(
        tmp_path,
        f"""
raddle.deadlock.enable(on_deadlock="raise")
lock = raddle.threading.Lock()
{before}
def body():
    {body}
    sys.stdout.flush()
in_child(body)
""",
    )
    assert (out, err) == ("taken\n", "")


POOL = """
import concurrent.futures, logging, multiprocessing, os, sys, time
import threading
import raddle.deadlock

LOCKS = [threading.Lock(), threading.RLock()]

def locked(number):
    with LOCKS[number]:
        return number

def logged():
    logging.getLogger().warning("hello")
    return "logged"

def main():
    handler = logging.StreamHandler(open(os.devnull, "w"))
    logging.getLogger().addHandler(handler)
    taken, give_back = threading.Event(), threading.Event()
    def hold():
        with LOCKS[0], LOCKS[1], handler.lock:
            taken.set()
            give_back.wait()
    threading.Thread(target=hold, daemon=True).start()
    taken.wait()
    begin = time.monotonic()
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        futures = [pool.submit(locked, 0), pool.submit(locked, 1), pool.submit(logged), pool.submit(os.getpid)]
        for future in futures[:2]:
            error = future.exception(10)
            assert type(error) is raddle.deadlock.DeadlockError, error
            print(error)
            assert error.report.kind == "deadlock" and error.report.proven and len(error.report.parties) == 1
        print(futures[2].result(10), futures[3].result(10) != os.getpid())
    print("soon", time.monotonic() - begin < 2)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        try:
            pool.apply(locked, (0,))
        except raddle.deadlock.DeadlockError as error:
            print("Pool:", error)
    give_back.set()

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("options", [[], ["--on-deadlock=report"]])
def test_tasks_of_a_pool_fail_with_it(tmp_path, options):
    """Standard library's names, under `raddle run`: whatever becomes of deadlocks elsewhere, a task's is its error."""
    path = tmp_path / "program.py"
    path.write_text(POOL)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "raddle", "run", *options, path],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stdout
    for line in (*lines[:2], lines[4].removeprefix("Pool: ")):
        assert line.startswith("'MainThread' waits for"), line
        assert "held by a thread that stayed in the parent process when this one was forked" in line, line
    assert lines[2:4] == ["logged True", "soon True"]


def test_pickled(raddle_deadlock_error):
    error = raddle_deadlock_error
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert str(copy.report) == str(error.report)
    assert [party.thread_name for party in copy.report.parties] == [
        party.thread_name for party in error.report.parties
    ]
    assert all(isinstance(party.waits_for, str) for party in copy.report.parties)


@pytest.fixture
def raddle_deadlock_error():
    import raddle.deadlock
    from raddle.threading import RLock, Thread

    raddle.deadlock.enable(on_deadlock="raise", report=os.devnull)
    locks, barrier, errors = [RLock(), RLock()], threading.Barrier(2), []

    def take(first, second):
        with first:
            barrier.wait(20)
            try:
                with second:
                    pass
            except raddle.deadlock.DeadlockError as error:
                errors.append(error)

    threads = [Thread(target=take, args=(locks[i], locks[1 - i])) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    raddle.deadlock.enable()
    return errors[0]
