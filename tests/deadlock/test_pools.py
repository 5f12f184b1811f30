"""Pools whose workers wait for what only they could do, tasks that wait for each other: reported, with the submits."""

import re
import textwrap

import pytest
from hangs import reports_in

SETUP = """
from raddle.concurrent import futures
enable()
"""

#: Both workers wait for tasks that only they could run.
STARVED = """
pool = futures.ThreadPoolExecutor(2, "pool", nested=False)
both = std.Barrier(2)
def outer():
    both.wait()
    inner = pool.submit(int)  # submits the inner one
    closing()
    {wait}  # waits
for _ in range(2):
    pool.submit(outer)  # submits the outer one
tell()
"""

WAITS = {
    "result": "inner.result()",
    "exception": "inner.exception()",
    "wait": "futures.wait([inner])",
    "as_completed": "list(futures.as_completed([inner]))",
    "map": "list(pool.map(int, '12'))",
}


def the_report(program, names):
    """The only report, which came in time and names these threads."""
    program.check_in_time()
    [report] = program.told()["reports"]
    assert report["kind"] == "deadlock"
    assert sorted(report["parties"]) == sorted(names), report["text"]
    assert reports_in(program.err.text) == report["text"].splitlines()[:1]
    start = "raddle: deadlock: " if report["proven"] else "raddle: likely deadlock: "
    assert report["text"].startswith(start)
    assert report["advice"]
    return report


def mentions(program, report, comment):
    """The text names the place."""
    place = f'File "{program.path}", line {program.line(comment)}'
    assert place in report["text"], report["text"]


class TestStarvation:
    @pytest.mark.parametrize("wait", WAITS)
    def test_all_workers_wait(self, app, wait):
        with app(SETUP + STARVED.format(wait=WAITS[wait])) as program:
            report = the_report(program, ["pool_0", "pool_1"])
            for party in report["parties"].values():
                assert party["kind"] == "Future.result"
                assert party["site"] == program.at("waits")
            mentions(program, report, "waits")
            if wait in ("result", "exception"):
                mentions(program, report, "submits the inner one")

    def test_a_pool_of_one(self, app):
        source = """
pool = futures.ThreadPoolExecutor(1, "pool", nested=False)
def outer():
    inner = pool.submit(int)  # submits the inner one
    closing()
    inner.result()  # waits
pool.submit(outer)  # submits the outer one
tell()
"""
        with app(SETUP + source) as program:
            report = the_report(program, ["pool_0"])
            mentions(program, report, "submits the inner one")
            mentions(program, report, "waits")
            assert re.search("nested|more workers|another pool", report["advice"])

    def test_waiters_outside_of_the_pool_are_no_parties(self, app):
        source = """
pool = futures.ThreadPoolExecutor(1, "pool", nested=False)
def outer():
    inner = pool.submit(int)
    closing()
    inner.result()
future = pool.submit(outer)
party(future.result, name="outside")
tell()
"""
        with app(SETUP + source) as program:
            the_report(program, ["pool_0"])

    def test_two_pools_that_wait_for_each_other(self, app):
        """The task of each waits for one in the line of the other. nested=True does not help here."""
        source = """
a, b = futures.ThreadPoolExecutor(1, "a"), futures.ThreadPoolExecutor(1, "b")
both = std.Barrier(2)
def work(other):
    both.wait()
    inner = other.submit(int)  # submits the inner one
    both.wait()
    closing()
    inner.result()  # waits
a.submit(work, b)
b.submit(work, a)
tell()
"""
        with app(SETUP + source) as program:
            report = the_report(program, ["a_0", "b_0"])
            mentions(program, report, "submits the inner one")

    def test_room_in_its_own_line(self, app):
        source = """
pool = futures.ThreadPoolExecutor(1, "pool", max_pending=1, nested=False)
def outer():
    pool.submit(int)
    closing()
    pool.submit(int)  # waits
pool.submit(outer)
tell()
"""
        with app(SETUP + source) as program:
            report = the_report(program, ["pool_0"])
            assert report["parties"]["pool_0"]["kind"] == "Executor.submit"
            mentions(program, report, "waits")


class TestCircles:
    def test_two_tasks(self, app):
        source = """
pool = futures.ThreadPoolExecutor(2, "pool")
both, box = std.Barrier(3), []
def task(other):
    both.wait()
    closing()
    box[other].result()  # waits
box.append(pool.submit(task, 1))  # submits the first
box.append(pool.submit(task, 0))  # submits the second
both.wait()
tell()
"""
        with app(SETUP + source) as program:
            report = the_report(program, ["pool_0", "pool_1"])
            for each in ("submits the first", "submits the second", "waits"):
                mentions(program, report, each)

    def test_its_own_future(self, app):
        source = """
pool = futures.ThreadPoolExecutor(2, "pool")
box, filled = [], std.Event()
def task():
    filled.wait()
    closing()
    box[0].result()  # waits
box.append(pool.submit(task))  # submits
filled.set()
tell()
"""
        with app(SETUP + source) as program:
            report = the_report(program, ["pool_0"])
            mentions(program, report, "submits")
            mentions(program, report, "waits")

    @pytest.mark.parametrize("kind", ["Lock", "RLock"])
    def test_a_lock_that_the_waiter_holds(self, app, kind):
        source = f"""
pool = futures.ThreadPoolExecutor(1, "pool")
lock = threading.{kind}(name="stock")
def task():
    with lock:  # the task waits
        pass
def holder():
    with lock:  # takes
        future = pool.submit(task)  # submits
        wait_until(lambda: is_blocked("pool_0", "{kind}.acquire"), "the task is blocked")
        closing()
        future.result()  # the holder waits
party(holder)
tell()
"""
        with app(SETUP + source) as program:
            report = the_report(program, ["holder", "pool_0"])
            assert report["parties"]["holder"]["kind"] == "Future.result"
            assert report["parties"]["holder"]["site"] == program.at("the holder waits")
            assert report["parties"]["pool_0"]["site"] == program.at("the task waits")
            for each in ("submits", "takes"):
                mentions(program, report, each)
            assert report["proven"] is False or kind == "RLock"

    def test_a_join(self, app):
        """A task joins the thread that waits for its result."""
        source = """
pool = futures.ThreadPoolExecutor(1, "pool")
box, filled = [], std.Event()
def task():
    filled.wait()
    box[0].join()  # the task waits
def waiter():
    future = pool.submit(task)  # submits
    filled.set()
    wait_until(lambda: is_blocked("pool_0", "Thread.join"), "the task is blocked")
    closing()
    future.result()  # the waiter waits
box.append(party(waiter))
tell()
"""
        source = source.replace("box.append(party(waiter))", "started = party(waiter)\nbox.append(started)")
        with app(
            SETUP
            + source.replace(
                "filled.set()\n    wait", "wait_until(lambda: box, 'it is there')\n    filled.set()\n    wait"
            )
        ) as program:
            report = the_report(program, ["pool_0", "waiter"])
            mentions(program, report, "submits")


#: What looks like a hang, and is none, or cannot be told.
QUIET = {
    "a plain future": """
def wait():
    futures.Future().result()
party(wait)
""",
    "workers that wait for a plain future": """
pool, promise = futures.ThreadPoolExecutor(2), futures.Future()
for _ in range(2):
    pool.submit(promise.result)
pool.submit(int)
""",
    "a plain future among others": """
pool, promise = futures.ThreadPoolExecutor(1, nested=False), futures.Future()
pool.submit(lambda: futures.wait([pool.submit(int), promise], return_when="FIRST_COMPLETED"))
""",
    "waits with a timeout": """
pool = futures.ThreadPoolExecutor(1, nested=False)
pool.submit(lambda: pool.submit(int).result(1000))
""",
    "another worker that computes": """
pool = futures.ThreadPoolExecutor(2, nested=False)
def spin():
    while True:
        time.sleep(0.01)
pool.submit(spin)
pool.submit(lambda: pool.submit(int).result())
""",
    "room for one more worker": """
pool = futures.ThreadPoolExecutor(2, nested=False)
def outer():
    gate.wait()
    return pool.submit(time.sleep, 1000).result()
gate = std.Event()
pool.submit(outer)
gate.set()
""",
    "a task that runs long": """
pool = futures.ThreadPoolExecutor(1)
party(pool.submit(time.sleep, 1000).result, name="waiter")
""",
    "nested tasks": """
pool = futures.ThreadPoolExecutor(1)
def task(depth):
    time.sleep(0.1)
    if depth:
        pool.submit(task, depth - 1).result()
    else:
        time.sleep(1000)
pool.submit(task, 5)
""",
    "a lock that the waiter lets go": """
pool, lock = futures.ThreadPoolExecutor(1), threading.RLock()
def task():
    with lock:
        time.sleep(1000)
def holder():
    with lock:
        future = pool.submit(task)
        time.sleep(0.3)
    future.result()
party(holder)
""",
    "tasks with a deadline": """
from raddle import cancel
pool = futures.ThreadPoolExecutor(1, nested=False)
pool.options(timeout=1000).submit(lambda: pool.submit(int).result())
""",
    "idle workers and a full house": """
pool = futures.ThreadPoolExecutor(2)
list(pool.map(int, "1234"))
""",
}


def test_nothing_is_said(app):
    """All of them in one program, which is watched for the time of one."""
    cases = [
        f"def case_{number}():  # {name}\n" + textwrap.indent(source, "    ") + f"\ncase_{number}()\n"
        for number, (name, source) in enumerate(QUIET.items())
    ]
    with app(SETUP + "".join(cases) + "say('all hang')\nthreading.Event().wait(1000)\n") as program:
        program.wait_for("^all hang")
        program.check_lives_in_silence()


def test_cancelled_by_hand_the_program_goes_on(app):
    """A report is no end: whoever reads it may cancel what is waited for."""
    source = """
pool = futures.ThreadPoolExecutor(1, "pool", nested=False)
box = []
def outer():
    box.append(pool.submit(int))
    closing()
    try:
        return box[0].result()
    except futures.CancelledError:
        return "cancelled"
future = pool.submit(outer)
wait_until(deadlock.reports, "it is reported")
box[0].cancel()
say("got", future.result())
"""
    with app(SETUP + source) as program:
        program.wait_for("^got cancelled")
        program.end()
