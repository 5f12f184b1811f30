"""What can go wrong with a pool of processes: one function a fault, run in a process of its own by pool_runner.py.

A scenario makes a pool through an adapter (pool_adapters.py), does the damage, and returns where everything that was
promised has been kept: each task gave its right result or an error that names the cause, within PROMISED seconds of
the fault; no task ran twice; other tasks went on and so does the pool. Otherwise it raises Broken with one of the
outcomes of pool_run.py. Behind every scenario, main() looks for zombies and open descriptors, and pool_runner.py for
processes and files that are left.

Tasks write when they begin and end to a ledger, a file that is only appended to: what ran, how often, in which process.
So workers are found without asking the library, and whatever they are the children of.
"""

import contextlib
import gc
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections import deque

import pool_adapters
import pool_tasks
from pool_run import (
    DIED,
    INITIALIZER,
    LARGE,
    LIMIT,
    PATIENCE,
    PICKLE,
    PROMISED,
    WORKERS,
    Broken,
    Ledger,
    Run,
    check_clean,
    check_descriptors,
    check_said,
    closing,
    descendants,
    descriptors,
    no_longer_than,
)
from pool_tasks import (
    crash,
    exit_at_once,
    fail,
    hand_back,
    hog,
    leave,
    locked,
    logged,
    measure,
    produce,
    step,
)

from tools import wait_until

#: name: (title, function)
SCENARIOS = {}


def scenario(title, name=None, **fixed):
    def register(func):
        def run_it(run):
            return func(run, **fixed)

        SCENARIOS[name or func.__name__] = title, run_it
        return func

    return register


# Kills


@scenario("a worker is killed while idle")
def kill_idle(run):
    with closing(run, run.pool()) as pool:
        for _ in range(run.scaled(4, 50)):
            victims = run.warm(pool)
            run.kill(run.rng.choice(victims))
            run.good(pool)


@scenario("all workers are killed while idle")
def kill_all(run):
    with closing(run, run.pool()) as pool:
        for _ in range(run.scaled(5, 200)):
            for pid in run.warm(pool):
                run.kill(pid)
            run.good(pool)


@scenario("a worker is killed while it runs a task")
def kill_running(run):
    with closing(run, run.pool()) as pool:
        victim = run.submit(pool, step, 10.0, must=DIED)
        others = [run.submit(pool, step, 0.05) for _ in range(8)]
        pid = run.where(victim)
        run.kill(pid)
        run.settle(pool, [victim, *others])
        check_death(victim.error, pid, -signal.SIGKILL)
        run.good(pool)


def check_death(error, pid, exitcode):
    """raddle's own error says more; others have no such attributes."""
    if type(error).__module__.startswith("raddle"):
        found = error.pid, error.exitcode, error.signal
        expected = pid, exitcode, -exitcode if exitcode < 0 else None
        if found != expected:
            raise Broken("unnamed", f"WorkerDied has {found}, not {expected}")


def killed_at_random(run, pool, submit, expect):
    """Rounds of four tasks with much to carry, in each of which one worker is killed at a random instant."""
    for _ in range(run.scaled(6, 100)):
        victims = run.warm(pool)
        run.fault()
        killer = threading.Timer(run.rng.uniform(0, 0.1), run.kill, [run.rng.choice(victims)])
        killer.start()
        tasks = [submit() for _ in range(4)]
        for task in tasks:
            task.right = expect(task)
        killer.join()
        run.settle(pool, tasks, failures=1)
        run.good(pool, 4)


@scenario("a worker is killed while it reads large arguments")
def kill_reading(run):
    blob = b"a" + bytes(LARGE) + b"z"
    with closing(run, run.pool()) as pool:
        right = len(blob), b"a", b"z"
        killed_at_random(run, pool, lambda: run.submit(pool, measure, blob, may=DIED), lambda task: right)


@scenario("a worker is killed while it writes a large result")
def kill_writing(run):
    with closing(run, run.pool()) as pool:
        killed_at_random(
            run,
            pool,
            lambda: run.submit(pool, produce, LARGE, may=DIED),
            lambda task: bytes([task.number % 251]) * LARGE,
        )


@scenario("workers are killed at random instants under load")
def kill_load(run):
    """64 tasks are under way at any time; each kill may cost one."""
    wanted, kills = run.scaled(50, 1000), 0
    stop = threading.Event()
    failed = 0
    window = deque()

    def killer():
        nonlocal kills
        while kills < wanted and not stop.wait(run.rng.expovariate(1 / 0.012)):
            living = ledger.workers()
            if living:
                kills += 1
                try:
                    os.kill(run.rng.choice(living), signal.SIGKILL)
                except ProcessLookupError:
                    kills -= 1

    ledger = Ledger(run.ledger.file)  # of that thread
    with closing(run, run.pool()) as pool:
        run.warm(pool)
        thread = threading.Thread(target=killer, daemon=True)
        thread.start()
        try:
            while thread.is_alive() or window:
                while thread.is_alive() and len(window) < 64:
                    window.append(run.submit(pool, step, run.rng.choice((0, 0, 0.001, 0.005)), may=DIED))
                task = window.popleft()
                run.fault()
                run.fetch(pool, task, PATIENCE)
                failed += task.error is not None
                if failed > kills:
                    run.judge(pool, [task])
                    raise Broken(
                        "breaks", f"{failed} tasks failed of {kills} kills, then: {task.error}"[:200]
                    )
                try:
                    run.judge(pool, [task])
                except Broken as broken:
                    broken.detail += f", after {kills} kills"
                    raise
        finally:
            stop.set()
        thread.join()
        run.fault()
        run.good(pool, 20)
    return {"detail": f"{kills} kills, {failed} of {run.numbers} tasks failed"}


@scenario("a task calls os._exit()", "exit_in_task", func=leave, exitcode=3)
@scenario("a task has a segmentation fault", "segfault", func=crash, exitcode=-signal.SIGSEGV)
def death_from_within(run, func, exitcode):
    with closing(run, run.pool()) as pool:
        others = [run.submit(pool, step, 0.02) for _ in range(4)]
        victim = run.submit(pool, func, must=DIED)
        others += [run.submit(pool, step, 0.02) for _ in range(8)]
        run.fault()
        run.settle(pool, [victim, *others])
        check_death(victim.error, run.where(victim), exitcode)
        run.good(pool)


@scenario("a worker is stopped (SIGSTOP), later killed")
def stopped(run):
    with closing(run, run.pool()) as pool:
        victim = run.submit(pool, step, 0.3, must=DIED)
        others = [run.submit(pool, step, 0.02) for _ in range(6)]
        pid = run.where(victim)
        run.kill(pid, signal.SIGSTOP)
        run.settle(pool, others)
        run.good(pool)
        run.kill(pid)
        run.settle(pool, [victim])
        run.good(pool)


# What cannot be pickled


def one_bad_task(run, func, *args, must=PICKLE):
    with closing(run, run.pool()) as pool:
        for _ in range(2 * WORKERS):  # as often as there are workers, and more: each time may cost one
            run.fault()
            tasks = [run.submit(pool), run.submit(pool, func, *args, must=must), run.submit(pool)]
            run.settle(pool, tasks)
            run.good(pool, 4)


@scenario("an argument cannot be pickled")
def pickle_argument(run):
    one_bad_task(run, measure, pool_tasks.Unpicklable())


@scenario("a result cannot be pickled")
def pickle_result(run):
    one_bad_task(run, hand_back, pool_tasks.Unpicklable)


@scenario("an exception cannot be pickled")
def pickle_exception(run):
    one_bad_task(run, fail, pool_tasks.UnpicklableError)


@scenario("an argument cannot be unpickled by the worker")
def unpickle_argument(run):
    one_bad_task(run, measure, pool_tasks.Poison(os.getpid(), False))


@scenario("a result cannot be unpickled by the parent")
def unpickle_result(run):
    one_bad_task(run, hand_back, pool_tasks.PoisonMaker(os.getpid()))


@scenario("an exception cannot be unpickled by the parent")
def unpickle_exception(run):
    one_bad_task(run, fail, pool_tasks.two_arguments, must=PICKLE + "|TwoArgumentsError")


# Initializers


def initializer_scenarios():
    for what, func in (("raises", pool_tasks.raise_at_once), ("exits", exit_at_once)):
        for how in ("wait", "nowait", "cancel"):
            title = f"the initializer {what}; shutdown: {how}"
            scenario(title, f"initializer_{what}_{how}", func=func, how=how)(failing_initializer)


def failing_initializer(run, func, how):
    if how not in run.adapter.closes:
        raise Broken("n/a", f"it cannot be closed so: {how}")
    run.fault()
    pool = run.pool(initializer=func)
    tasks = [run.submit(pool, must=INITIALIZER) for _ in range(6)]
    if how == "wait":
        run.settle(pool, tasks)
        run.fault()
    try:
        with no_longer_than(PATIENCE, f"closing ({how})"):
            pool.close(how)
    except Exception as error:  # some tell it here
        check_said(error, INITIALIZER)
    if how != "wait":
        run.collect(pool, tasks)
        late = [task for task in tasks if task.late]
        if late:
            raise Broken("lost", f"{len(late)} of {len(tasks)} tasks without an answer after closing")
        run.judge(pool, tasks)
    if time.monotonic() - run.faulted > PROMISED:
        raise Broken("slow", f"{time.monotonic() - run.faulted:.1f} s")


initializer_scenarios()


# The program itself


@scenario("Ctrl-C to all processes during map")
def control_c(run):
    def interrupt():
        run.fault()
        os.killpg(0, signal.SIGINT)

    threading.Timer(0.5, interrupt).start()
    interrupted = False
    with no_longer_than(PATIENCE + 0.5, "Ctrl-C"):
        try:
            pool = run.pool()
            with pool.pool:
                pool.map(pool_tasks.Numbered(run.path), range(1000, 2000))
        except KeyboardInterrupt:
            interrupted = True
    spent = time.monotonic() - run.faulted
    if not interrupted:
        raise Broken("wrong", "map() ended as if nothing had happened")
    run.check_once()
    if spent > PROMISED:
        raise Broken("slow", f"{spent:.1f} s")


@scenario("the interpreter ends with tasks pending")
def exit_pending(run):
    pool = run.pool()
    for _ in range(30):
        run.submit(pool, step, 0.05)
    globals()["kept"] = pool  # alive at the end, as a global of a program is
    return {"ended": 30 if "finishes" in run.adapter.can else 0, "unclosed": True}


@scenario("a pool is dropped without being closed")
def dropped(run):
    pool = run.pool()
    run.warm(pool)
    workers = run.ledger.workers()
    pool = None
    gc.collect()

    def gone():
        alive = descendants(os.getpid())
        return not any(alive.get(pid, "Z") not in "ZX" for pid in workers)

    try:
        wait_until(gone, "the workers are gone", PROMISED)
    except AssertionError:
        raise Broken("orphan", f"workers live on in a program that goes on: {len(workers)}") from None


@scenario("a pool starts while a thread holds a lock that the tasks take", "lock_task", func=locked)
@scenario("a pool starts while a thread holds the logging lock", "lock_logging", func=logged)
def held_lock(run, func):
    """The lock is held until all is over; in the workers, nobody holds it."""
    handler = logging.StreamHandler(open(os.devnull, "w"))  # noqa: SIM115
    logging.getLogger().addHandler(handler)
    taken, give_back = threading.Event(), threading.Event()

    def hold():
        lock = pool_tasks.LOCK if func is locked else handler.lock
        with lock:
            taken.set()
            give_back.wait()

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    taken.wait()
    run.fault()
    with closing(run, run.pool()) as pool:
        run.settle(pool, [run.submit(pool, func) for _ in range(6)])
    give_back.set()
    holder.join()


@scenario("the parent is killed (-9), workers idle", "parent_killed_idle", pause=None)
@scenario("the parent is killed (-9), workers busy", "parent_killed_busy", pause=30.0)
def parent_killed(run, pause):
    pool = run.pool()
    run.warm(pool)
    if pause:
        for task in [run.submit(pool, step, pause) for _ in range(WORKERS)]:
            run.where(task)
    tell({"outcome": "ok", "detail": "", "killed": True})
    os.kill(os.getpid(), signal.SIGKILL)


@scenario("a task makes a pool of its own")
def pool_in_pool(run):
    with closing(run, run.pool()) as pool:
        tasks = [run.submit(pool, pool_tasks.nested, run.adapter.name, 0.0) for _ in range(2)]
        for task in tasks:
            task.right = sum((task.number + 1000 * n) ** 2 for n in (1, 2, 3))
        for task in tasks:
            run.fetch(pool, task, PATIENCE)
            if "daemonic" in str(task.error):
                raise Broken("n/a", str(task.error))
        run.judge(pool, tasks)


@scenario("the parent of a pool within a pool is killed (-9)")
def parent_killed_nested(run):
    pool = run.pool()
    task = run.submit(pool, pool_tasks.nested, run.adapter.name, 30.0)
    run.where(task)

    def inner():
        run.ledger.look()
        run.fetch(pool, task, 0.01)
        return any(number > 1000 for number in run.ledger.pids) or task.error

    wait_until(inner, "the inner pool runs", PATIENCE)
    if task.error:
        raise Broken("n/a" if "daemonic" in str(task.error) else "wrong", str(task.error))
    tell({"outcome": "ok", "detail": "", "killed": True})
    os.kill(os.getpid(), signal.SIGKILL)


@scenario("the program forks beside a pool, the child exits")
def fork_beside(run):
    import warnings

    warnings.simplefilter("ignore")
    with closing(run, run.pool()) as pool:
        run.warm(pool)
        for leave_by in (os._exit, sys.exit):
            run.fault()
            busy = [run.submit(pool, step, 0.05) for _ in range(6)]
            pid = os.fork()
            if not pid:
                signal.alarm(4)
                leave_by(0)
            status = os.waitpid(pid, 0)[1]
            if status:
                raise Broken("hang", f"the forked child does not end ({leave_by.__name__}): {status}")
            run.settle(pool, busy)
            run.good(pool)


# Limits


@scenario("a task takes more memory than its worker may")
def memory_limit(run):
    if "memory" not in run.adapter.can:
        raise Broken("n/a", "there is no such parameter")
    with closing(run, run.pool(memory=300_000_000)) as pool:
        run.fault()
        victim = run.submit(pool, hog, 600_000_000, must=r"memory")
        others = [run.submit(pool, step, 0.02) for _ in range(6)]
        run.settle(pool, [victim, *others])
        run.good(pool)


@scenario("the system gives a task no memory (RLIMIT_AS)", "memory_task", func=hog, size=900_000_000)
@scenario(
    "the system gives a worker no memory for an argument", "memory_argument", func=measure, size=300_000_000
)
def no_memory(run, func, size):
    with closing(run, run.pool(initializer=pool_tasks.limit_memory, initargs=(100_000_000,))) as pool:
        run.warm(pool)
        run.fault()
        # Where a worker maps the argument, it may have room for it after all.
        if func is hog:
            victim = run.submit(pool, hog, size, must=r"memory|" + DIED)
        else:
            victim = run.submit(pool, measure, bytes(size), right=(size, b"\0", b"\0"), may=r"memory|" + DIED)
        others = [run.submit(pool, step, 0.02) for _ in range(6)]
        run.settle(pool, [victim, *others])
        run.good(pool)


@contextlib.contextmanager
def descriptors_left(count):
    """So many are free, and no more: free numbers below the highest are filled."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    filler = [os.open(os.devnull, os.O_RDONLY) for _ in range(max(used) + 1 - len(used))]
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(descriptors()) - 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for file in filler:
            os.close(file)


@scenario("no descriptor is free when the pool starts")
def descriptors_start(run):
    before = descriptors()
    for free in range(0, 40, 1 if run.scale >= 10 else 3):
        run.fault()
        with descriptors_left(free):
            try:
                with no_longer_than(PATIENCE, f"the start with {free} free descriptors"):
                    pool = run.pool()
            except Exception as error:
                check_said(error, LIMIT)
                continue
            tasks = [run.submit(pool, step, may=LIMIT) for _ in range(3)]
            run.collect(pool, tasks)
        run.settle(pool, tasks)
        with no_longer_than(PATIENCE, f"closing after {free} free descriptors"):
            pool.close("wait")
        pool = tasks = None
    check_descriptors(before)
    with closing(run, run.pool()) as pool:
        run.fault()
        run.good(pool)


@scenario("no descriptor is free when a worker is to be replaced")
def descriptors_refill(run):
    with closing(run, run.pool()) as pool:
        victims = run.warm(pool)
        with descriptors_left(0):
            run.kill(victims[0])
            tasks = [run.submit(pool, step, 0.02, may=LIMIT) for _ in range(6)]
            run.collect(pool, tasks)
        run.settle(pool, tasks)
        run.fault()
        run.good(pool)


@scenario("/dev/shm is full")
def full_shm(run):
    if os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize > 1 << 30:
        raise Broken("n/a", "needs a /dev/shm of its own, and so the right to mount")
    with open("/dev/shm/filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    run.fault()
    try:
        pool = run.pool()
    except Exception as error:
        check_said(error, LIMIT)
        pool = None
    if pool is not None:
        tasks = [run.submit(pool, step, may=LIMIT) for _ in range(3)]
        tasks.append(
            run.submit(pool, measure, b"a" + bytes(LARGE), right=(LARGE + 1, b"a", b"\0"), may=LIMIT)
        )
        tasks.append(run.submit(pool, produce, LARGE, may=LIMIT))
        tasks[-1].right = bytes([tasks[-1].number % 251]) * LARGE
        run.settle(pool, tasks)
    os.unlink("/dev/shm/filler")
    if pool is not None:
        with closing(run, pool):
            run.fault()
            run.good(pool)


@scenario("pools come and go, closed in every way")
def come_and_go(run):
    for how in run.adapter.closes * run.scaled(1, 10):
        with closing(run, run.pool(), how) as pool:
            run.fault()
            run.good(pool)


# The process of a scenario


def tell(what):
    print(json.dumps({**what, "when": time.time()}), flush=True)


def main():
    name, adapter, seed, folder, scale = sys.argv[1:]
    run = Run(pool_adapters.load(adapter), seed, folder, float(scale))
    # What a library makes once and keeps, it has made after this: some do otherwise in a program with threads.
    # Where each pool leaves descriptors behind, that is said once, by the scenario "come_and_go".
    end = threading.Event()
    beside = threading.Thread(target=end.wait, daemon=True)
    for threaded in (False, True, False):
        if threaded:
            beside.start()
        elif beside.is_alive():
            end.set()
            beside.join()
        before = descriptors()
        with run.adapter(1) as pool:
            run.collect(pool, [run.submit(pool)])
        pool = None
        gc.collect()
    each = len(descriptors() - before) if name != "come_and_go" else 0
    run.pools = 0
    before = descriptors()
    found = {"outcome": "ok", "detail": ""}
    try:
        extra = SCENARIOS[name][1](run) or {}
        found.update(extra)
        if not extra.get("unclosed"):
            check_clean(before, each * run.pools)
    except Broken as broken:
        found = {"outcome": broken.outcome, "detail": broken.detail}
    tell(found)
    if found["outcome"] != "ok":
        os._exit(0)  # The harm is known; the end may hang, and the runner clears up.


if __name__ == "__main__":
    # The workers find the tasks in a module that they can import, whatever their start method.
    import pool_scenarios

    pool_scenarios.main()
