"""Tools shared by all tests: crews of threads, waiting without sleeping for order, child processes, seeds.

Nothing here imports raddle; a test asks for an implementation through the `impl` fixture of conftest.py.
"""

import contextlib
import importlib
import inspect
import os
import random
import re
import select
import signal
import subprocess
import sys
import threading
import time

#: Seconds after which a wait for something that must happen counts as a hang.
DEADLINE = float(os.environ.get("RADDLE_DEADLINE", "20"))

#: Scale of the stress tests: 1 keeps the folder under two minutes, a soak run takes 50 or more.
STRESS = float(os.environ.get("RADDLE_STRESS", "1"))

#: The seed of this test run: printed by conftest.py, repeated with RADDLE_SEED.
SEED = int(os.environ.get("RADDLE_SEED") or int.from_bytes(os.urandom(4), "big"))

#: What the children of this run get, so that they draw the same numbers.
os.environ["RADDLE_SEED"] = str(SEED)


def rng_for(label):
    """A generator of its own for the test named `label`; prints what repeats it."""
    print(f"RADDLE_SEED={SEED} ({label})")
    return random.Random(f"{SEED}:{label}")


def scaled(count, soak=None):
    """`count` at the default scale, growing with RADDLE_STRESS, at most `soak`."""
    number = max(1, round(count * STRESS))
    return number if soak is None else min(number, soak)


class Implementation:
    """One of the two sides of a parity test: the standard library, or raddle's mirrors of it."""

    def __init__(self, name):
        self.name = name
        self._root = {"stdlib": "", "raddle": "raddle."}[name]

    def __repr__(self):
        return self.name

    def __getattr__(self, name):
        if name in ("threading", "queue", "sched", "multiprocessing"):
            return importlib.import_module(self._root + name)
        if name == "futures":
            return importlib.import_module(self._root + "concurrent.futures")
        raise AttributeError(name)

    @property
    def is_raddle(self):
        return self.name == "raddle"

    @property
    def prelude(self):
        """The first line of a child program."""
        source = "from raddle " if self.is_raddle else ""
        return f"{source}import threading, queue, sched\n"

    @property
    def pool_prelude(self):
        """The same for a program that uses pools."""
        return f"{self.prelude}from {self._root}concurrent import futures\n"


STDLIB = Implementation("stdlib")
RADDLE = Implementation("raddle")


# Waiting


def wait_until(condition, what="the condition", timeout=None):
    """Polls until `condition()` is true and returns its value; fails after the deadline."""
    end = time.monotonic() + (DEADLINE if timeout is None else timeout)
    pause = 0.0002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"waited in vain until {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.01)


def _task_marks(tid, pid="self"):
    """State letter and number of context switches of an OS thread, or None if it has gone."""
    try:
        with open(f"/proc/{pid}/task/{tid}/status") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields["State"][0], fields["voluntary_ctxt_switches"], fields["nonvoluntary_ctxt_switches"]


def wait_until_blocked(*threads, pid="self", timeout=None):
    """Returns when every one of `threads` (Thread objects or native ids) is asleep in the operating system.

    Asleep is: sleeping, and not scheduled once in four looks 4 ms apart. A thread that waits for the GIL is
    scheduled every switch interval, a spinning one is running, so neither is taken for a blocked one.
    """
    end = time.monotonic() + (DEADLINE if timeout is None else timeout)
    for thread in threads:
        looks, last = 0, None
        while looks < 4:
            tid = thread if isinstance(thread, int) else thread.native_id
            marks = None if tid is None else _task_marks(tid, pid)
            if (
                marks is None
                and not isinstance(thread, int)
                and thread.ident is not None
                and not thread.is_alive()
            ):
                raise AssertionError(f"{thread} has ended, it was expected to block")
            if isinstance(thread, int) and (marks is None or marks[0] in "ZX"):
                raise AssertionError(f"thread {thread} has ended, it was expected to block")
            looks = looks + 1 if marks is not None and marks == last and marks[0] == "S" else 0
            last = marks
            if time.monotonic() >= end:
                raise AssertionError(f"{thread} never blocked: {marks}")
            time.sleep(0.004)


class Stopwatch:
    """Measures its block: `with Stopwatch() as watch: ...`, then `watch.seconds`."""

    def __enter__(self):
        self.start = time.monotonic()
        return self

    def __exit__(self, *exc_info):
        self.seconds = time.monotonic() - self.start


# Threads


class Crew:
    """Threads that all run one function; joined on exit, their exceptions raised there.

    `results` holds what they returned, in the order of finishing. The threads are daemons, so that a hang
    fails one test and not the whole run.
    """

    def __init__(self, func, size=1, *, args=(), thread=threading.Thread):
        self.func = func
        self.args = args
        self.results = []
        self.errors = []
        self.begun = 0
        self.threads = [thread(target=self._work, name=f"crew-{i}", daemon=True) for i in range(size)]

    def _work(self):
        self.begun += 1
        try:
            self.results.append(self.func(*self.args))
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def wait_until_blocked(self):
        wait_until_blocked(*self.threads)

    def wait_finished(self, count):
        wait_until(
            lambda: len(self.results) + len(self.errors) >= count, f"{count} of the crew have finished"
        )

    def join(self):
        end = time.monotonic() + DEADLINE
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))
        alive = [thread.name for thread in self.threads if thread.is_alive()]
        assert not alive, f"still running: {alive}"

    def __exit__(self, kind, error, traceback):
        if kind is not None:
            return  # The block has failed already: its exception says more than a join that cannot end.
        self.join()
        if self.errors:
            raise self.errors[0]


def in_thread(func, *args, thread=threading.Thread):
    """Runs `func` in a thread of its own; returns its result or raises its exception."""
    with Crew(func, args=args, thread=thread) as crew:
        pass
    return crew.results[0]


# Comparing


def outcome(call):
    """What a call did, in a form that can be compared: ("returned", value) or ("raised", type name)."""
    try:
        return "returned", call()
    except Exception as error:
        return "raised", type(error).__name__


def signature_of(obj):
    """The signature, or None where the object has none to tell."""
    try:
        return inspect.signature(obj)
    except (ValueError, TypeError):
        return None


def check_signature(ours, reference, extra=()):
    """Same parameters, kinds and defaults; `ours` may add the parameters named in `extra`, after the others.

    `self` may be positional-only, as it is in every method that is not written in Python.
    """
    expected, got = signature_of(reference), signature_of(ours)
    if expected is None:
        return
    assert got is not None, f"no signature, expected {expected}"

    def facts(parameter):
        kind = None if parameter.name == "self" else parameter.kind
        return parameter.name, kind, parameter.default

    expected = [facts(parameter) for parameter in expected.parameters.values()]
    got = [facts(parameter) for parameter in got.parameters.values() if parameter.name not in extra]
    assert got == expected


def assert_matches(pattern, text):
    assert re.search(pattern, text), f"{text!r} does not match {pattern!r}"


# Child processes


def child_environment(extra=None):
    """The environment of a child: it finds this module, and writes without a buffer."""
    path = os.pathsep.join(
        filter(None, [os.path.dirname(os.path.abspath(__file__)), os.environ.get("PYTHONPATH")])
    )
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(extra or {})}


def run_child(code, *argv, timeout=None, env=None, options=(), stdin=subprocess.DEVNULL):
    """Runs a program text in a fresh interpreter; returns a CompletedProcess with text output.

    A child that outlives the time limit is told to dump its stacks, and the test fails with them.
    """
    command = [sys.executable, "-X", "faulthandler", *options, "-c", code, *map(str, argv)]
    child = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(env),
    )
    try:
        out, err = child.communicate(timeout=DEADLINE if timeout is None else timeout)
    except subprocess.TimeoutExpired:
        # What it forked may be what hangs, and has its standard output.
        signal_all(child.pid, signal.SIGABRT)
        try:
            out, err = child.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            signal_all(child.pid, signal.SIGKILL)
            out, err = child.communicate()
        raise AssertionError(
            f"the child hangs\n--- stdout\n{out}\n--- stderr\n{err}\n--- program\n{code}"
        ) from None
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def signal_all(pid, number):
    """Sends a signal to a process and all that it started, and that those started: the youngest first."""
    children = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            # A thread may end meanwhile; the process is to be sent the signal all the same.
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as file:
                children += map(int, file.read().split())
    for child in children:
        signal_all(child, number)
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def check_child(code, *argv, out=None, **options):
    """Runs a child that must exit 0 with nothing on stderr; returns its stdout (compared to `out`)."""
    done = run_child(code, *argv, **options)
    assert (done.returncode, done.stderr) == (0, ""), (
        f"exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{code}"
    )
    if out is not None:
        assert done.stdout == out
    return done.stdout


def check_exit(program, code, last):
    """Runs a program that leaves threads behind: its output, exit code and last line of stderr are as without them."""
    done = run_child(program, timeout=60)
    lines = done.stderr.rstrip().splitlines()
    assert (done.returncode, done.stdout) == (code, "main ends\n"), f"{done}\n{program}"
    assert (lines[-1] if lines else "") == last, f"{done.stderr}\n{program}"
    assert "Fatal" not in done.stderr
    if code != 1:
        assert not lines


def reap(pid, number):
    """Waits for a forked child; ends this process with a message where it hangs or fails."""
    end = time.monotonic() + 25
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            sys.exit(f"child {number} hangs")
        time.sleep(0.0005)
    code = os.waitstatus_to_exitcode(status)
    if code:
        sys.exit(f"child {number} ended with {code}")


class Child:
    """A child process whose lines are read one at a time, each with a deadline."""

    def __init__(self, program):
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(),
        )
        self.pending = b""

    def line(self):
        end = time.monotonic() + DEADLINE
        while b"\n" not in self.pending:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            if not ready:
                self.process.send_signal(signal.SIGABRT)
                raise AssertionError(
                    "the child is silent\n" + self.process.communicate(timeout=5)[1].decode()
                )
            chunk = os.read(self.process.stdout.fileno(), 4096)
            if not chunk:
                raise AssertionError("the child has ended\n" + self.process.communicate()[1].decode())
            self.pending += chunk
        line, _, self.pending = self.pending.partition(b"\n")
        return line.decode()

    def tell(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def interrupt_when_blocked(self):
        """Sends SIGINT once the main thread sleeps in the system; returns when that was."""
        wait_until_blocked(self.process.pid, pid=self.process.pid)
        now = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        return now

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self.process.wait()


# Signals

#: A program that waits, is interrupted, and waits again.
_INTERRUPTED = """
def wait():
    {wait}
print("ready", flush=True)
for _ in range({rounds}):
    try:
        wait()
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
    else:
        print("the wait has ended", flush=True)
print(bool({check}), flush=True)
{after}
"""


def interrupted(setup, wait, check, *, rounds, after="", prints=None):
    """Interrupts `wait` in a child, after `setup`; returns the seconds that each interrupt took to get through.

    Afterwards `check` must hold, and the statements `after` must print `prints` if that is given.
    """
    program = setup + _INTERRUPTED.format(wait=wait, check=check, rounds=rounds, after=after)
    delays = []
    with Child(program) as child:
        assert child.line() == "ready"
        for _ in range(rounds):
            sent = child.interrupt_when_blocked()
            answer = child.line()
            assert answer != "the wait has ended"
            delays.append(float(answer) - sent)
        assert child.line() == "True"
        if prints is not None:
            assert child.line() == prints
            assert child.process.wait(DEADLINE) == 0
    return delays


@contextlib.contextmanager
def signal_storm(handler, mean, rng):
    """Calls `handler` from SIGALRM at random moments, about `mean` seconds apart, in the main thread."""

    stopped = False

    def on_alarm(signum, frame):
        handler()
        if not stopped:
            signal.setitimer(signal.ITIMER_REAL, max(1e-5, rng.expovariate(1 / mean)))

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, mean)
    try:
        yield
    finally:
        stopped = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# Processes of multiprocessing


def started(ctx, target, *args):
    """A daemon process that runs ``target(*args)``."""
    process = ctx.Process(target=target, args=args, daemon=True)
    process.start()
    return process


def ended(process):
    """The exit code of a process that has to end by itself."""
    process.join(DEADLINE)
    if process.exitcode is None:
        process.kill()
        raise AssertionError("the child hangs")
    return process.exitcode


def killed(process, how=signal.SIGKILL):
    """Kill a process and wait for it."""
    os.kill(process.pid, how)
    process.join(DEADLINE)
    assert process.exitcode == -how
    process.close()
