"""Thread pools made and dropped, forked, interrupted, left at exit with work in line; random schedules on a model."""

import concurrent.futures
import contextlib
import gc
import sys
import threading
import time
import weakref

import pytest

from tools import (
    SEED,
    Crew,
    check_child,
    check_exit,
    interrupted,
    outcome,
    rng_for,
    run_child,
    scaled,
    wait_until,
)

pytestmark = [pytest.mark.stress, pytest.mark.timeout(1800)]


@contextlib.contextmanager
def quick_switches(interval=1e-5):
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def all_done(futures):
    return all(future.done() for future in futures)


class TestMany:
    """1,000 pools, made and destroyed with pending work."""

    COUNT = scaled(1000, soak=20_000)

    def test_shut_down(self, impl, rng):
        before = threading.active_count()
        for _ in range(self.COUNT // (1 if impl.is_raddle else 4)):
            pool = impl.futures.ThreadPoolExecutor(rng.randrange(1, 4))
            futures = [pool.submit(int, n) for n in range(rng.randrange(6))]
            cancel = rng.random() < 0.5
            pool.shutdown(wait=True, cancel_futures=cancel)
            assert all_done(futures)
            if not cancel:
                assert [future.result() for future in futures] == list(range(len(futures)))
        assert threading.active_count() == before

    def test_dropped(self, raddle, rng):
        before = threading.active_count()
        futures = []
        for number in range(self.COUNT):
            pool = raddle.futures.ThreadPoolExecutor(rng.randrange(1, 4))
            futures += [pool.submit(int, number) for _ in range(rng.randrange(4))]
            if rng.random() < 0.2:
                pool.me = pool
            if threading.active_count() > before + 50:
                gc.collect()
                wait_until(lambda: threading.active_count() <= before + 10, "workers have gone")
        del pool
        gc.collect()
        assert raddle.futures.wait(futures, 20).not_done == set()
        wait_until(lambda: threading.active_count() == before, "all workers have gone")

    def test_leave_no_memory(self, raddle):
        """Nothing keeps a pool that is gone: neither it, nor its futures, nor what the tasks had."""

        class Thing:
            pass

        references = []
        for _ in range(scaled(50)):
            thing = Thing()
            with raddle.futures.ThreadPoolExecutor(2) as pool:
                futures = [pool.submit(lambda thing: thing, thing) for _ in range(3)]
            references += [weakref.ref(each) for each in (thing, pool, *futures)]
            del thing, pool, futures
        gc.collect()
        assert [reference for reference in references if reference() is not None] == []


class TestSubmitsFromEverywhere:
    def test_against_shutdown(self, impl):
        """What submit() has accepted is done when shutdown(wait=True) returns, and shutdown returns."""
        with quick_switches():
            for _ in range(scaled(300, soak=20_000)):
                pool, accepted = impl.futures.ThreadPoolExecutor(3), []

                def submit(pool=pool, accepted=accepted):
                    for _ in range(5):
                        try:
                            accepted.append(pool.submit(int))
                        except RuntimeError as error:
                            assert "after shutdown" in str(error)

                with Crew(submit, 2):
                    pool.shutdown()
                    assert all_done(list(accepted))
                assert all_done(accepted)

    def test_from_many_threads_and_their_callbacks(self, impl):
        count, seen = scaled(300), []
        with quick_switches(1e-4), impl.futures.ThreadPoolExecutor(3) as pool:

            def callback(future):
                seen.append(future.result())
                if future.result() % 10 == 0:
                    pool.submit(int, future.result() + 1).add_done_callback(callback)

            def submit():
                for number in range(0, count * 10, 10):
                    pool.submit(int, number).add_done_callback(callback)

            with Crew(submit, 4):
                pass
            wait_until(lambda: len(seen) == 8 * count, "all have called back")
        assert sorted(seen) == sorted([n + more for n in range(0, count * 10, 10) for more in (0, 1)] * 4)

    # Fresh pools start a worker there, warm ones have theirs already.
    @pytest.mark.parametrize("pools", ["warm", "fresh"])
    def test_from_finalizers(self, raddle, pools):
        """Of objects in cycles, which the collector may finalize in the middle of anything."""
        out = check_child(
            raddle.pool_prelude
            + """
import gc, sys, weakref
pools = [futures.ThreadPoolExecutor(2) for _ in range(3)]
if sys.argv[2] == "warm":
    for pool in pools:
        both = threading.Barrier(2)
        futures.wait([pool.submit(both.wait) for _ in range(2)])
submitted = []
class Cycle:
    def __init__(self):
        self.me = self
    def __del__(self):
        submitted.append(pools[len(submitted) % 3].submit(int, 1))
def told(reference):
    submitted.append(pools[0].submit(int, 1))
class Plain:
    pass
references = []
gc.set_threshold(5)
def churn(count):
    for _ in range(count):
        Cycle()
        plain = Plain()
        plain.me = plain
        references.append(weakref.ref(plain, told))
        del plain
        pools[1].submit(int)
        with futures.ThreadPoolExecutor(1) as short:
            short.submit(int)
threads = [threading.Thread(target=churn, args=(int(sys.argv[1]),)) for _ in range(3)]
for thread in threads: thread.start()
churn(int(sys.argv[1]))
for thread in threads: thread.join()
gc.collect()
print(sum(future.result(20) for future in submitted) == len(submitted) > 0)
""",
            scaled(100),
            pools,
            timeout=20 + scaled(100) / 10,
        )
        assert out == "True\n"

    def test_from_a_finalizer_while_a_worker_is_started(self, raddle):
        """The finalizer submits the first task of another pool from inside of submit()."""
        check_child(
            raddle.pool_prelude
            + """
one, two = futures.ThreadPoolExecutor(1), futures.ThreadPoolExecutor(1)
results = []
class Prefix(str):
    def __format__(self, spec):
        results.append(two.submit(int, 2).result(10))
        return str(self)
one._crew.prefix = Prefix("one")
results.append(one.submit(int, 1).result(10))
print(results)
""",
            out="[2, 1]\n",
        )

    @pytest.mark.signals
    @pytest.mark.parametrize("pools", ["warm", "fresh"])
    def test_from_signal_handlers(self, raddle, pools):
        out = check_child(
            raddle.pool_prelude
            + """
import signal, sys, time
pool, submitted = futures.ThreadPoolExecutor(2), []
both = threading.Barrier(2)
futures.wait([pool.submit(both.wait) for _ in range(2)])
fresh = []
def handler(*args):
    submitted.append(pool.submit(int, 1))
    if len(submitted) % 5 == 0 and sys.argv[2] == "fresh":
        fresh.append(futures.ThreadPoolExecutor(1))
        submitted.append(fresh[-1].submit(int, 1))
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    mine = [pool.submit(int, 1) for _ in range(20)]
    futures.wait(mine)
    assert sum(pool.map(int, "1" * 20)) == 20
    with futures.ThreadPoolExecutor(3) as short:
        assert short.submit(int, 1).result() == 1
    assert sum(future.result() for future in futures.as_completed(mine)) == 20
signal.signal(signal.SIGALRM, signal.SIG_IGN)
print(sum(future.result(20) for future in submitted) == len(submitted) > 0)
""",
            min(1.5 * scaled(100) / 100, 60),
            pools,
            timeout=20 + min(1.5 * scaled(100) / 100, 60),
        )
        assert out == "True\n"

    def test_bounded_pool_with_submitters_that_give_up(self, raddle):
        """Time-outs of blocked submits, and cancels, at random: nobody is left waiting for room that is there."""
        pool = raddle.futures.ThreadPoolExecutor(2, max_pending=2, submit_timeout=0.0005)
        patient = raddle.futures.ThreadPoolExecutor(1, max_pending=1)
        count = scaled(300)

        def submit(number):
            refused = 0
            for _ in range(count):
                try:
                    future = pool.submit(time.sleep, 0.0003)
                except raddle.queue.Full:
                    refused += 1
                else:
                    if number % 2:
                        future.cancel()
            return refused

        numbers = iter(range(6))
        with (
            Crew(lambda: submit(next(numbers)), 6),
            Crew(lambda: [patient.submit(int) for _ in range(count)], 3),
        ):
            pass
        stats = pool.stats()
        pool.shutdown()
        patient.shutdown()
        assert stats.pending <= 2
        assert patient.stats().done == 3 * count


FORK = """
import faulthandler, os, random, sys, time, traceback, warnings
from tools import reap
warnings.simplefilter("ignore")
sys.setswitchinterval(0.0002)
rounds, seed = int(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)
stop = False
pool = futures.ThreadPoolExecutor(3)
bounded = futures.ThreadPoolExecutor(1, max_pending=2)
idle = futures.ThreadPoolExecutor(2)
idle.submit(int).result()
gate = threading.Event()
blocked = futures.ThreadPoolExecutor(1)
running = blocked.submit(gate.wait)
in_line = blocked.submit(int, 5)
before = pool.submit(int, 3)
before.result()

def churn():
    while not stop:
        futures.wait([pool.submit(int) for _ in range(10)])
        sum(pool.map(int, "111"))

def churn_bounded():
    while not stop:
        bounded.submit(int)

def churn_pools():
    while not stop:
        with futures.ThreadPoolExecutor(2) as short:
            short.submit(int)
            short.submit(int, "bad").exception()

for target in (churn, churn_bounded, churn_pools):
    threading.Thread(target=target, daemon=True).start()

def raises(call):
    try:
        call()
    except RuntimeError as error:
        assert "parent process" in str(error), error
    else:
        raise AssertionError("did not raise")

def child():
    try:
        faulthandler.dump_traceback_later(15, exit=True)
        assert before.result() == 3
        # Of the parent: they can never end here.
        for each in (running, in_line):
            raises(each.result)
            raises(each.exception)
            raises(lambda: futures.wait([each]))
            raises(lambda: next(futures.as_completed([each])))
        for each in (pool, bounded, idle, blocked):
            assert each.submit(int, 7).result(10) == 7
            assert list(each.map(int, "123")) == [1, 2, 3]
            mine = [each.submit(int, n) for n in range(5)]
            assert futures.wait(mine, 10).not_done == set()
            assert each.stats().workers >= 1
        with futures.ThreadPoolExecutor(2) as fresh:
            assert fresh.submit(int, 1).result(10) == 1
        for each in (pool, bounded, idle, blocked):
            each.shutdown()
        faulthandler.cancel_dump_traceback_later()
        code = 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)

for number in range(rounds):
    time.sleep(rng.random() * 0.002)
    pid = os.fork()
    if pid == 0:
        child()
    reap(pid, number)
stop = True
gate.set()
assert in_line.result(20) == 5
print("reaped", rounds)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.fork
class TestFork:
    @pytest.mark.parametrize("package", ["concurrent.futures", "raddle.concurrent.futures"])
    def test_while_a_worker_is_started_elsewhere(self, package):
        """By a thread that has the standard library's lock for it; this program has made no pool so far."""
        check_child(f"""
import faulthandler, os, threading, warnings, raddle.concurrent.futures
from concurrent.futures import thread
from {package} import ThreadPoolExecutor
from tools import reap
warnings.simplefilter("ignore")
held, go_on = threading.Event(), threading.Event()
def hold():
    with thread._global_shutdown_lock:
        held.set()
        go_on.wait(20)
holder = threading.Thread(target=hold)
holder.start()
assert held.wait(20)
pid = os.fork()
if pid == 0:
    faulthandler.dump_traceback_later(20, exit=True)
    assert ThreadPoolExecutor(1).submit(abs, -1).result(20) == 1
    os._exit(0)
go_on.set()
holder.join()
reap(pid, 0)
""")

    def test_while_pools_run(self, raddle):
        print(f"RADDLE_SEED={SEED}")
        rounds = scaled(60, soak=5000)
        out = check_child(raddle.pool_prelude + FORK, rounds, SEED, timeout=60 + rounds)
        assert out == f"reaped {rounds}\n"

    def test_by_a_task(self, raddle):
        """The worker that forks is the child's main thread, and no worker any more."""
        out = check_child(
            raddle.pool_prelude
            + """
import os, sys, warnings
warnings.simplefilter("ignore")
pool = futures.ThreadPoolExecutor(2)
def task():
    pid = os.fork()
    if pid == 0:
        try:
            code = pool.submit(int, 5).result(10)
        except BaseException as error:
            code = 1
            print(repr(error), file=sys.stderr)
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print([pool.submit(task).result(30) for _ in range(5)], pool.submit(int, 3).result(10))
"""
        )
        assert out == "[5, 5, 5, 5, 5] 3\n"

    def test_task_that_returns_in_the_child(self, raddle):
        """The child leaves the task, and the interpreter, in the usual way."""
        code = """
import os, sys, warnings
warnings.simplefilter("ignore")
pool = futures.ThreadPoolExecutor(1)
def task():
    return os.fork()
pid = pool.submit(task).result(10)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), pool.submit(int, 3).result(10))
"""
        done = run_child(raddle.pool_prelude + code)
        assert (done.returncode, done.stdout, done.stderr) == (0, "0 3\n", "")

    def test_child_that_exits_in_the_usual_way(self, raddle):
        """Work that the parent has in line neither runs in the child nor keeps it."""
        code = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
pool, gate = futures.ThreadPoolExecutor(1), threading.Event()
pool.submit(gate.wait)
pool.submit(print, "in line", flush=True)
pool.submit(int, "lost").add_done_callback(lambda future: future.exception())
for _ in range(5):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        sys.exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
gate.set()
"""
        done = run_child(raddle.pool_prelude + code)
        assert (done.returncode, done.stdout, done.stderr) == (0, "in line\n", "")

    def test_plain_futures_still_work(self, impl):
        check_child(
            impl.pool_prelude
            + """
import os, sys, warnings
warnings.simplefilter("ignore")
future = futures.Future()
waiter = threading.Thread(target=future.result, daemon=True)
waiter.start()
pid = os.fork()
if pid == 0:
    seen = []
    future.add_done_callback(seen.append)
    threading.Timer(0.01, future.set_result, [1]).start()
    os._exit(0 if (future.result(10), seen) == (1, [future]) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
future.set_result(2)
""",
            out="0\n",
        )


SETUP = """
import os, signal, sys, time
import threading as std
pool, gate = futures.ThreadPoolExecutor(2), std.Event()
running = [pool.submit(gate.wait) for _ in range(2)]
in_line = pool.submit(int, 5)
plain = futures.Future()
if hasattr(pool, "options"):
    full = futures.ThreadPoolExecutor(1, max_pending=1)
    full.submit(gate.wait)
    while full.stats().running < 1: time.sleep(0.001)
    full.submit(int)
def forgotten(*each):
    # The standard library leaves its waiters behind.
    return not hasattr(pool, "options") or all(future._waiters == [] for future in each)
"""

#: The wait, and what must hold after it was interrupted.
WAITS = {
    "result": ("in_line.result()", "not in_line.done() and forgotten(in_line)"),
    "result timed": ("in_line.result(1000)", "not in_line.done()"),
    "result of a plain future": ("plain.result()", "not plain.done()"),
    "exception": ("in_line.exception()", "not in_line.done()"),
    "wait": ("futures.wait([in_line, plain])", "forgotten(in_line, plain)"),
    "wait timed": ("futures.wait([in_line, plain], 1000)", "forgotten(in_line, plain)"),
    "wait for the first": (
        "futures.wait([in_line], return_when=futures.FIRST_COMPLETED)",
        "forgotten(in_line)",
    ),
    "as_completed": ("list(futures.as_completed([in_line, plain]))", "not in_line.done()"),
    "as_completed timed": ("list(futures.as_completed([in_line], 1000))", "not in_line.done()"),
    "map": ("list(pool.map(int, '12'))", "not in_line.done()"),
    "map timed": ("list(pool.map(int, '12', timeout=1000))", "not in_line.done()"),
    "shutdown": ("pool.shutdown(wait=True)", "pool._shutdown and not in_line.done()"),
}

#: Of raddle alone.
MORE_WAITS = {
    "submit": ("full.submit(int)", "full._work_queue.qsize() == 1"),
    "map of a full pool": ("full.map(int, '12')", "full._work_queue.qsize() == 1"),
    "map with buffersize": ("list(pool.map(int, '12', buffersize=1))", "not in_line.done()"),
    "wait for one that runs to stop": ("running[0].cancel(running=True, timeout=1000)", "True"),
}


@pytest.mark.signals
class TestInterrupts:
    def interrupt(self, impl, wait, check):
        after = "gate.set()\nprint(in_line.result(20), flush=True)"
        delays = interrupted(
            impl.pool_prelude + SETUP, wait, check, rounds=scaled(2, soak=50), after=after, prints="5"
        )
        assert min(delays) < 0.2, delays

    # Thread.join of the standard library, interrupted before 3.13, takes the thread for ended.
    @pytest.mark.parametrize("name", [name for name in WAITS if name != "shutdown"])
    def test_keyboard_interrupt(self, impl, name):
        self.interrupt(impl, *WAITS[name])

    @pytest.mark.parametrize("name", ["shutdown", *MORE_WAITS])
    def test_keyboard_interrupt_in_raddle(self, raddle, name):
        self.interrupt(raddle, *{**WAITS, **MORE_WAITS}[name])

    def test_at_random_moments(self, raddle):
        """Exceptions of a handler anywhere in submit, wait, map and shutdown: pools stay whole."""
        out = check_child(
            raddle.pool_prelude
            + """
import random, signal, sys, time
class Stop(Exception):
    pass
armed = False
def handler(*args):
    if armed:
        raise Stop
rng = random.Random(int(sys.argv[1]))
signal.signal(signal.SIGALRM, handler)
pool = futures.ThreadPoolExecutor(2)
bounded = futures.ThreadPoolExecutor(1, max_pending=1)
def work():
    futures.wait([pool.submit(int) for _ in range(10)])
    list(pool.map(int, "1" * 10))
    list(futures.as_completed([bounded.submit(int) for _ in range(5)]))
    pool.submit(int).result()
stopped = 0
for _ in range(int(sys.argv[2])):
    armed = True
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.expovariate(1 / 0.0004) + 1e-5)
        work()
        armed = False
    except Stop:
        armed = False
        stopped += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert pool.submit(int, 1).result(20) == 1
    assert bounded.submit(int, 1).result(20) == 1
pool.shutdown()
bounded.shutdown()
print(stopped > 0, pool.stats().pending, pool.stats().running, bounded.stats().running)
""",
            SEED,
            scaled(300, soak=20_000),
            timeout=60 + scaled(300) / 10,
        )
        assert out == "True 0 0 0\n"


#: What a program does with pools before it ends.
WORK = [
    "pool.submit(int).result()",
    "[pool.submit(int) for _ in range(50)]",
    "[pool.submit(time.sleep, 0.0005) for _ in range(10)]",
    "kept = [pool.submit(time.sleep, 0.002) for _ in range(3)]",
    "unread = pool.map(int, '123')",
    "half = pool.map(time.sleep, [0, 0.001, 0.001]); next(half)",
    "done = futures.as_completed([pool.submit(int) for _ in range(3)]); next(done)",
    "futures.ThreadPoolExecutor(2).submit(time.sleep, 0.001)",
    "daemon(lambda: submit_for_ever())",
    "daemon(lambda: futures.Future().result())",
    "daemon(lambda: futures.wait([futures.Future()]))",
    "daemon(lambda: list(futures.as_completed([futures.Future()])))",
    "daemon(lambda: outcome(lambda: [pool.submit(time.sleep, 0).result() for _ in range(10**6)]))",
    "pool.submit(int).add_done_callback(lambda future: outcome(lambda: pool.submit(int)))",
    "import atexit; atexit.register(lambda: outcome(lambda: pool.submit(int)))",
    "pool.me = pool",
    "pool.submit(pool.shutdown, False)",
    "pool.submit(int).cancel()",
    "future = futures.Future(); future.add_done_callback(print)",
]

ENDS = [
    ("", 0, ""),
    ("sys.exit(7)", 7, ""),
    ("raise SystemExit('leaving')", 1, "leaving"),
    ("1 / 0", 1, "ZeroDivisionError: division by zero"),
    ("pool.shutdown(wait=False)", 0, ""),
    ("pool.shutdown(wait=False, cancel_futures=True)", 0, ""),
    ("pool.shutdown()", 0, ""),
    ("del pool", 0, ""),
]

EXIT = """
import sys, time
def daemon(target):
    threading.Thread(target=target, daemon=True).start()
def outcome(call):
    try:
        call()
    except (RuntimeError, NameError):
        pass
def submit_for_ever():
    while True:
        try:
            pool.submit(int)
        except (RuntimeError, NameError):
            time.sleep(0.001)
pool = futures.ThreadPoolExecutor(2)
"""


class TestExit:
    def run_one(self, impl, number):
        rng = rng_for(f"{impl} pool exit {number}")
        work = rng.sample(WORK, rng.randrange(1, 5))
        end, code, last = rng.choice(ENDS)
        pause = rng.choice(["", "time.sleep(0.001)", "time.sleep(0.01)"])
        if end == "del pool":
            work = [
                each for each in work if "daemon" not in each and "atexit" not in each and "other" not in each
            ]
        if "shutdown" in end or any("shutdown" in each for each in work):
            work = ["pool.submit(int)", "pool.submit(time.sleep, 0.001)"]
        program = "\n".join([impl.pool_prelude + EXIT, *work, pause, "print('main ends')", end])
        check_exit(program, code, last)

    def test_random_exits(self, impl):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda number: self.run_one(impl, number), range(scaled(25, soak=10_000))))

    def test_pending_work_is_done(self, impl):
        """All of it, in the standard library and here."""
        for number in range(scaled(3)):
            out = check_child(
                impl.pool_prelude
                + "import os, time\n"
                + f"pool = futures.ThreadPoolExecutor({number % 3 + 1})\n"
                + "for n in range(50): pool.submit(lambda: (time.sleep(0.0005), os.write(1, b'x')))\n"
            )
            assert out == "x" * 50


class Model:
    """What a pool must have done, task by task."""

    def __init__(self):
        self.ran = {}
        self.lock = threading.Lock()

    def task(self, number, fails):
        with self.lock:
            assert number not in self.ran, "a task ran twice"
            self.ran[number] = True
        if fails:
            raise LookupError(number)
        return number


class TestRandomSchedules:
    @pytest.mark.parametrize("number", range(4))
    def test_against_a_model(self, impl, rng, number):
        """Submits, cancels, waits, maps, callbacks and shutdown at random from some threads at once."""
        for _ in range(scaled(8, soak=500)):
            self.one(impl, rng)

    def one(self, impl, rng):
        options = {}
        if impl.is_raddle:
            options = rng.choice(
                [{}, {"max_pending": 3}, {"nested": False}, {"idle_timeout": 0.0005}, {"context": False}]
            )
        pool = impl.futures.ThreadPoolExecutor(rng.randrange(1, 5), **options)
        model, called, numbers = Model(), [], iter(range(10**6))
        seeds = [rng.randrange(10**9) for _ in range(3)]
        print(f"seeds {seeds} options {options}")

        def act(seed):
            rng = rng_for(f"seed {seed}")
            mine = []
            for _ in range(40):
                kind = rng.random()
                if kind < 0.5 or not mine:
                    number, fails = next(numbers), rng.random() < 0.2
                    future = pool.submit(model.task, number, fails)
                    future.add_done_callback(called.append)
                    mine.append((number, fails, future))
                elif kind < 0.65:
                    rng.choice(mine)[2].cancel()
                elif kind < 0.8:
                    outcome(lambda: rng.choice(mine)[2].result(rng.choice([0, 0.0005, 20])))
                elif kind < 0.9:
                    some = [future for _, _, future in rng.sample(mine, min(len(mine), 5))]
                    when = rng.choice(["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
                    impl.futures.wait(some, rng.choice([0, 0.0005, 20]), when)
                else:
                    some = [future for _, _, future in rng.sample(mine, min(len(mine), 5))]
                    assert set(impl.futures.as_completed(some, 20)) == set(some)
            return mine

        with quick_switches(rng.choice([5e-3, 1e-4, 1e-5])):
            waiting = iter(seeds)
            with Crew(lambda: act(next(waiting)), 3) as crew:
                pass
            pool.shutdown(wait=True, cancel_futures=rng.random() < 0.3)
        everything = [each for mine in crew.results for each in mine]
        assert len(called) == len(everything)
        assert set(called) == {future for _, _, future in everything}
        for number, fails, future in everything:
            assert future.done()
            if future.cancelled():
                assert number not in model.ran
            else:
                assert number in model.ran
                if fails:
                    assert future.exception().args == (number,)
                else:
                    assert future.result() == number
        assert not any(thread.is_alive() for thread in pool._threads)
        if impl.is_raddle:
            stats = pool.stats()
            assert (stats.submitted, stats.pending, stats.running) == (len(everything), 0, 0)
            assert stats.done + stats.failed == len(model.ran)
