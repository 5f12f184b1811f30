"""Deadlocks among processes: found in each of them, named with processes, threads and places, raised where proven."""

import os
import re
import subprocess
import sys

import pytest

from tools import run_child

pytestmark = [pytest.mark.fork, pytest.mark.timeout(120)]

PROGRAM = """
import os, sys, threading, time, warnings
import raddle.deadlock
import raddle.multiprocessing as mp

def told(count=1, seconds=3):
    end = time.monotonic() + seconds
    while len(raddle.deadlock.reports()) < count and time.monotonic() < end:
        time.sleep(0.01)
    return raddle.deadlock.reports()

def take(first, second, barrier, results, settings):
    raddle.deadlock.enable(**settings)
    with first:
        barrier.wait()
        begin = time.monotonic()
        try:
            with second:
                results.put(("went on", mp.current_process().name, None))
        except raddle.deadlock.DeadlockError as error:
            results.put(("raised", mp.current_process().name, str(error)))
    for report in raddle.deadlock.reports():
        results.put(("told", mp.current_process().name, str(report)))

def watch_and_tell(results):
    def run():
        for report in told():
            results.put(("told", mp.current_process().name, str(report)))
    threading.Thread(target=run, daemon=True).start()

def take_and_watch(first, second, barrier, results, settings):
    raddle.deadlock.enable(**settings)
    watch_and_tell(results)
    take(first, second, barrier, results, settings)
"""


def run(tmp_path, body, seconds=60):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM + body)
    return run_child(f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')", timeout=seconds)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "warm"])
def test_a_proven_one_is_told_by_both_and_raised_in_one(tmp_path, method):
    path = tmp_path / "program.py"
    path.write_text(
        PROGRAM
        + f"""
if __name__ == "__main__":
    ctx = mp.get_context({method!r})
    one, other = ctx.RLock(), ctx.RLock()
    barrier, results = ctx.Barrier(2), ctx.Queue()
    settings = dict(on_deadlock="raise", report=os.devnull)
    orders = [(one, other), (other, one)]
    children = [
        ctx.Process(target=take, args=(*order, barrier, results, settings), name=name)
        for order, name in zip(orders, ("left", "right"))
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(20)
        assert child.exitcode == 0, child
    found = []
    while not results.empty():
        found.append(results.get())
    assert sorted(what for what, _, _ in found) == ["raised", "told", "told", "went on"], found
    raised = next(entry for entry in found if entry[0] == "raised")
    assert raised[2].startswith("2 threads wait for each other: '"), raised
    assert {{name for what, name, _ in found if what == "told"}} == {{"left", "right"}}
    for what, name, text in found:
        if what == "told":
            print(text)
"""
    )
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=60, cwd=os.getcwd()
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout
    lines = path.read_text().splitlines()
    waits, takes = lines.index("            with second:") + 1, lines.index("    with first:") + 1
    for name in ("left", "right"):
        assert re.search(rf"Thread 'MainThread' of process '{name}' \(pid \d+\) waits for RLock '", text), (
            text
        )
    assert text.count(f'in RLock.acquire, at File "{path}", line {waits}') == 4, text
    assert text.count(f'taken at File "{path}", line {takes}') == 4, text
    assert "take the locks in one order everywhere, for instance RLock 'program.py:" in text
    assert "deadlock of processes: 2 threads wait for each other" in text and "likely" not in text


def test_a_likely_one_is_told_by_both_and_not_raised(tmp_path):
    done = run(
        tmp_path,
        """
if __name__ == "__main__":
    ctx = mp.get_context("fork")
    one, other = ctx.Lock(), ctx.Lock()
    barrier, results = ctx.Barrier(2), ctx.Queue()
    settings = dict(on_deadlock="raise", report=os.devnull)
    orders = [(one, other), (other, one)]
    children = [
        ctx.Process(target=take_and_watch, args=(*order, barrier, results, settings), name=name, daemon=True)
        for order, name in zip(orders, ("left", "right"))
    ]
    for child in children:
        child.start()
    found = [results.get(timeout=10) for _ in children]
    assert sorted(name for _, name, _ in found) == ["left", "right"], found
    for what, _, text in found:
        assert what == "told"
        assert text.startswith("raddle: likely deadlock of processes: 2 threads"), text
        assert "Likely, not proven: a plain Lock may be released by any process and thread." in text
    assert results.empty()
    one.release()  # as a Lock allows
    assert results.get(timeout=10)[0] == "went on"
""",
    )
    assert done.returncode == 0, done.stderr


def test_three_in_a_circle_and_one_beside_it(tmp_path):
    done = run(
        tmp_path,
        """
if __name__ == "__main__":
    ctx = mp.get_context("fork")
    locks = [ctx.RLock() for _ in range(3)]
    barrier, results = ctx.Barrier(4), ctx.Queue()
    settings = dict(on_deadlock="report", report=os.devnull)
    orders = [(locks[at], locks[(at + 1) % 3]) for at in range(3)] + [(ctx.Lock(), locks[0])]
    children = [
        ctx.Process(target=take_and_watch, args=(*order, barrier, results, settings), name=f"p{at}", daemon=True)
        for at, order in enumerate(orders)
    ]
    for child in children:
        child.start()
    found = [results.get(timeout=10) for _ in range(3)]
    assert sorted(name for _, name, _ in found) == ["p0", "p1", "p2"], found
    assert all("3 threads wait for each other" in text and "p3" not in text for _, _, text in found)
    time.sleep(1)
    assert results.empty()
    children[0].kill()  # its lock is taken over: the others go on, one after the other
    warnings.simplefilter("ignore")
    for _ in range(2):
        results.get(timeout=10)
    for child in children[1:]:
        child.join(10)
        assert child.exitcode == 0
""",
    )
    assert done.returncode == 0, done.stderr


def test_a_join_of_a_process_that_waits_for_what_the_joiner_has(tmp_path):
    done = run(
        tmp_path,
        """
def child(lock, results):
    raddle.deadlock.enable(report=os.devnull)
    watch_and_tell(results)
    with lock:
        pass

if __name__ == "__main__":
    raddle.deadlock.enable(report=os.devnull)
    ctx = mp.get_context("fork")
    lock, results = ctx.Lock(), ctx.Queue()
    process = ctx.Process(target=child, args=(lock, results), name="joined")
    with lock:
        process.start()
        threading.Timer(4, process.kill).start()
        process.join()
    texts = [str(report) for report in raddle.deadlock.reports()] + [results.get(timeout=5)[2]]
    assert len(texts) == 2, texts
    for text in texts:
        assert "waits for the end of process 'joined' (pid" in text, text
        assert "Process.join" in text and "holds Lock 'program.py:" in text
        assert "Advice: release what the joined process needs before joining it." in text
""",
    )
    assert done.returncode == 0, done.stderr


def test_what_is_no_deadlock_is_not_told(tmp_path):
    done = run(
        tmp_path,
        """
def hold(lock, seconds, held):
    with lock:
        held.release()
        time.sleep(seconds)

def open_later(gate, seconds):
    time.sleep(seconds)
    gate.release()

def wait_in_time(first, second, barrier):
    with first:
        barrier.wait()
        second.acquire(timeout=1.5)

if __name__ == "__main__":
    raddle.deadlock.enable(report=os.devnull)
    ctx = mp.get_context("fork")
    lock, held = ctx.RLock(), ctx.Semaphore(0)
    child = ctx.Process(target=hold, args=(lock, 1.0, held))
    child.start()
    held.acquire()
    with lock:  # a long wait
        pass
    child.join()
    one, other, barrier = ctx.RLock(), ctx.RLock(), ctx.Barrier(2)
    child = ctx.Process(target=wait_in_time, args=(other, one, barrier))
    child.start()
    wait_in_time(one, other, barrier)  # a circle with deadlines
    child.join()
    child = ctx.Process(target=hold, args=(lock, 1.0, held))
    child.start()
    child.join()  # holds nothing that the child needs
    gate = ctx.Lock()
    gate.acquire()
    child = ctx.Process(target=open_later, args=(gate, 1.0))
    child.start()
    gate.acquire()  # a Lock that it has, which another process releases
    child.join()
    assert raddle.deadlock.reports() == []
""",
    )
    assert done.returncode == 0, done.stderr


def test_a_party_that_is_killed_breaks_the_circle(tmp_path):
    done = run(
        tmp_path,
        """
if __name__ == "__main__":
    ctx = mp.get_context("fork")
    one, other = ctx.RLock(), ctx.RLock()
    barrier, results = ctx.Barrier(2), ctx.Queue()
    settings = dict(on_deadlock="report", report=os.devnull)
    orders = [(one, other), (other, one)]
    children = [ctx.Process(target=take, args=(*order, barrier, results, settings)) for order in orders]
    for child in children:
        child.start()
    time.sleep(1)
    children[0].kill()
    assert results.get(timeout=5)[0] == "went on"
    children[1].join(5)
    assert children[1].exitcode == 0
""",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_raddle_run_raises_in_an_unmodified_program(tmp_path, method):
    path = tmp_path / "transfer.py"
    path.write_text(
        f"""
import multiprocessing

def transfer(payer, payee, both):
    with payer:
        both.wait()
        with payee:
            pass

if __name__ == "__main__":
    ctx = multiprocessing.get_context({method!r})
    ann, ben, both = ctx.RLock(), ctx.RLock(), ctx.Barrier(2)
    children = [
        ctx.Process(target=transfer, args=(ann, ben, both)),
        ctx.Process(target=transfer, args=(ben, ann, both)),
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print(sorted(child.exitcode for child in children))
"""
    )
    command = [sys.executable, "-m", "raddle", "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=os.getcwd())
    assert (done.returncode, done.stdout) == (0, "[0, 1]\n"), done.stderr
    assert done.stderr.count("raddle: deadlock of processes: 2 threads wait for each other") == 2, done.stderr
    assert done.stderr.count("raddle.deadlock.DeadlockError: 2 threads wait for each other: '") == 1, (
        done.stderr
    )
