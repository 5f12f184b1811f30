"""One scenario of pool_scenarios.py on one library: its tasks, the ledger they write, what is kept and what broken.

So workers are found, and executions counted, without asking the library.
"""

import contextlib
import faulthandler
import gc
import os
import random
import re
import signal
import time
from collections import deque

import pool_adapters
from pool_tasks import step

from tools import wait_until

WORKERS = 3

#: Seconds: that an answer may take, and after which nothing is expected any more.
PROMISED, PATIENCE = 2.0, 5.0

LARGE = 16_000_000

#: What the error of a task says whose worker has ended.
DIED = r"died|killed|terminat|expired|lost|abrupt|exit"
#: What the error of something says that cannot be pickled, or unpickled.
PICKLE = r"pickl|missing 1 required"
#: What errors say where the system had no descriptor, or no memory.
LIMIT = r"too many open files|no space|cannot allocate|memory|enospc|emfile|broken|died|lost|expired|terminat"
#: What a task may say whose worker could not begin.
INITIALIZER = r"broken|initializer|cancel|shut ?down|" + DIED

#: Outcomes, from worst to best; the table's words.
OUTCOMES = {
    "crash": "the program itself died",
    "hang": "no answer, and no new task is done either",
    "lost": "a task without an answer, while others go on",
    "doubled": "a task ran twice",
    "wrong": "a wrong result, or none where there should have been an error",
    "breaks": "other tasks failed, or the pool is of no use afterwards",
    "orphan": "processes were left behind",
    "zombie": "dead children were not waited for",
    "leak": "descriptors or files were left behind",
    "unnamed": "an error that does not say what happened",
    "slow": f"as it should be, but later than {PROMISED:g} s",
    "ok": "right results, or an error that names the cause",
    "n/a": "the library does not offer it",
}


class Broken(Exception):
    """The scenario found one of OUTCOMES."""

    def __init__(self, outcome, detail):
        assert outcome in OUTCOMES
        super().__init__(outcome, detail)
        self.outcome, self.detail = outcome, detail


# The process tree


def parents():
    """pid: (parent's pid, state) of all processes."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except OSError:
                continue
            found[int(name)] = int(parent), state.decode()
    return found


def descendants(root):
    """pid: state of all below `root`."""
    known, found, below = parents(), {}, {root}
    while below:
        below = {pid for pid, (parent, _) in known.items() if parent in below}
        found.update((pid, known[pid][1]) for pid in below)
    return found


# A run


def said_by(error):
    cause = f" from {said_by(error.__cause__)}" if error.__cause__ else ""
    return f"{type(error).__name__}: {error}{cause}"


def check_said(error, expected):
    """The error, or its cause, says what the pattern wants."""
    if isinstance(error, Broken):
        raise error
    if not re.search(expected, said_by(error), re.I):
        raise Broken("unnamed", said_by(error)[:160])


class Task:
    """A task that was submitted: what it must give, or the pattern that its error must match, or may."""

    def __init__(self, number, right, must=None, may=None):
        self.number, self.right, self.must, self.may = number, right, must, may
        self.handle = self.error = self.value = None
        self.late = False


class Ledger:
    """What the tasks have written so far. Reading takes no descriptor beyond the one it is made with."""

    def __init__(self, file):
        self.file, self.offset = file, 0
        #: By task: the process that runs it. Processes that began one lately. Tasks that began more than once.
        self.pids, self.recent, self.again = {}, deque(maxlen=100), []

    def look(self):
        """Reads what has been added."""
        text = os.pread(self.file, 1 << 24, self.offset)
        text = text[: text.rfind(b"\n") + 1]
        self.offset += len(text)
        for line in text.splitlines():
            event, number, pid = line.split()
            if event == b"begin":
                if int(number) in self.pids:
                    self.again.append(int(number))
                self.pids[int(number)] = int(pid)
                self.recent.appendleft(int(pid))

    def workers(self):
        """Living processes that have run a task lately."""
        self.look()
        alive = descendants(os.getpid())
        return [pid for pid in dict.fromkeys(self.recent) if alive.get(pid, "Z") not in "ZX"]


class Run:
    """One scenario on one pool library."""

    def __init__(self, adapter, seed, folder, scale):
        self.adapter, self.scale = adapter, scale
        self.rng = random.Random(seed)
        self.path = os.path.join(folder, "ledger")
        self.ledger = Ledger(os.open(self.path, os.O_RDONLY | os.O_CREAT))
        self.faulted = time.monotonic()
        self.numbers = self.pools = 0

    def scaled(self, count, most):
        return min(most, max(1, round(count * self.scale)))

    def pool(self, **options):
        self.pools += 1
        return self.adapter(WORKERS, **options)

    def fault(self):
        """The clock of the promise starts."""
        self.faulted = time.monotonic()

    # Tasks

    def submit(self, pool, func=step, *args, right=None, must=None, may=None):
        number = self.numbers
        self.numbers += 1
        task = Task(number, number * number if right is None else right, must, may)
        try:
            task.handle = pool.submit(func, self.path, number, *args)
        except Exception as error:
            task.error = error
        return task

    def fetch(self, pool, task, timeout):
        """Waits for the task and keeps what it gave."""
        if task.handle is None:
            return
        try:
            task.value = pool.result(task.handle, timeout)
        except pool_adapters.Late:
            task.late = True
        except BaseException as error:  # a CancelledError of old is no Exception
            if isinstance(error, (Broken, KeyboardInterrupt)):
                raise
            task.error = error

    def settle(self, pool, tasks, failures=None):
        """All tasks have to be as promised, with at most so many failures of those that may fail."""
        spent = self.collect(pool, tasks)
        self.judge(pool, tasks, failures)
        if spent > PROMISED:
            raise Broken("slow", f"{spent:.1f} s")

    def collect(self, pool, tasks):
        """Waits for all of them; seconds since the fault."""
        end = time.monotonic() + PATIENCE
        for task in tasks:
            self.fetch(pool, task, max(0.05, end - time.monotonic()))
        return time.monotonic() - self.faulted

    def judge(self, pool, tasks, failures=None):
        late = [task for task in tasks if task.late]
        if late:
            faulthandler.dump_traceback()
            probe = self.submit(pool)
            self.fetch(pool, probe, PATIENCE / 2)
            works = not probe.late and probe.error is None
            raise Broken("lost" if works else "hang", f"{len(late)} of {len(tasks)} tasks without an answer")
        for task in tasks:
            expected = task.must or task.may
            if task.error is None and (task.must or task.value != task.right):
                raise Broken("wrong", f"task {task.number} gave {str(task.value)[:80]}")
            if task.error is not None and not expected:
                raise Broken("breaks", f"another task: {said_by(task.error)[:160]}")
            if task.error is not None:
                check_said(task.error, expected)
        self.check_once()
        failed = sum(task.error is not None for task in tasks if not task.must)
        if failures is not None and failed > failures:
            raise Broken("breaks", f"{failed} tasks failed, {failures} at most had to")

    def good(self, pool, count=8):
        """The pool is of use: these tasks have nothing to do with the fault."""
        self.settle(pool, [self.submit(pool) for _ in range(count)])

    # What the tasks wrote

    def check_once(self):
        self.ledger.look()
        if self.ledger.again:
            raise Broken("doubled", f"tasks that ran twice: {self.ledger.again[:5]}")

    def where(self, task):
        """The process that runs the task, once it does."""

        def begun():
            self.ledger.look()
            return self.ledger.pids.get(task.number)

        try:
            return wait_until(begun, "the task runs", PATIENCE)
        except AssertionError:
            raise Broken("hang", "a task does not begin") from None

    def warm(self, pool):
        """All workers have run something, and are idle."""
        before, seen = self.numbers, set()
        end = time.monotonic() + PATIENCE
        while len(seen) < WORKERS and time.monotonic() < end:
            self.fault()
            self.settle(pool, [self.submit(pool, step, 0.05) for _ in range(WORKERS)])
            here = {self.ledger.pids.get(number) for number in range(before, self.numbers)}
            seen = here & set(self.ledger.workers())
        return sorted(seen)

    def kill(self, pid, how=signal.SIGKILL):
        self.fault()
        os.kill(pid, how)


@contextlib.contextmanager
def no_longer_than(seconds, doing):
    """The block has to end in time. Where it waits without listening to signals, the runner's limit is left."""

    def late(signum, frame):
        faulthandler.dump_traceback()
        raise Broken("hang", f"{doing} does not end")

    previous = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextlib.contextmanager
def closing(run, pool, how="wait"):
    """Closes the pool behind the block, if that went well, and has that take no longer than promised."""
    yield pool
    begin = time.monotonic()
    with no_longer_than(PATIENCE, f"closing ({how})"):
        pool.close(how)
    if time.monotonic() - begin > PROMISED:
        raise Broken("slow", f"closing took {time.monotonic() - begin:.1f} s")


# What must not be left


def descriptors():
    return set(os.listdir("/proc/self/fd"))


def settled(condition, seconds=PROMISED):
    try:
        wait_until(condition, timeout=seconds)
    except AssertionError:
        return False
    return True


def check_clean(before, allowed=0):
    """No dead child that nobody waits for, and at most so many descriptors more than before."""

    def dead_children():
        return [pid for pid, (parent, state) in parents().items() if parent == os.getpid() and state in "ZX"]

    if not settled(lambda: not dead_children()):
        raise Broken("zombie", f"dead children: {len(dead_children())}")
    check_descriptors(before, allowed)


def check_descriptors(before, allowed=0):
    def left():
        gc.collect()
        found = {}
        for name in descriptors() - before:
            with contextlib.suppress(OSError):  # the one of the listing itself
                found[name] = os.readlink(f"/proc/self/fd/{name}")
        return found

    if not settled(lambda: len(left()) <= allowed):
        raise Broken("leak", f"{len(left())} descriptors: {sorted(left().values())}"[:120])
