"""Interpreter exits with daemon threads blocked in every kind of wait, looping, and in timers.

The exit code and the output must be those of a program without threads. `RADDLE_EXITS` of them; 10,000 are the soak.
"""

import concurrent.futures
import os
import subprocess

import pytest

from tools import check_exit, rng_for, run_child, scaled

EXITS = int(os.environ.get("RADDLE_EXITS", "60"))

pytestmark = [pytest.mark.stress, pytest.mark.timeout(7200)]

SETUP = """
import sys, time
def daemon(target):
    threading.Thread(target=target, daemon=True).start()
def forever(step):
    def loop():
        while True:
            step()
    return loop
held, held_r = threading.Lock(), threading.RLock()
held.acquire(); held_r.acquire()
never, nothing, full = threading.Event(), queue.Queue(), queue.Queue(1)
full.put(0)
shared = queue.Queue()
simple = queue.SimpleQueue()
condition = threading.Condition()
def wait_in(timeout=None):
    with condition:
        condition.wait(timeout)
def enter(lock):
    with lock:
        pass
def timer(seconds, function):
    each = threading.Timer(seconds, function)
    each.daemon = True
    each.start()
def rearm():
    try:
        timer(0.0005, rearm)
    except RuntimeError:
        pass  # No new threads at shutdown.
def calendar():
    each = sched.scheduler()
    each.enter(1000, 1, print)
    return each
"""

#: What daemon threads do while the main thread leaves.
DAEMONS = [
    "daemon(held.acquire)",
    "daemon(lambda: held.acquire(timeout=1000))",
    "daemon(lambda: enter(held))",
    "daemon(held_r.acquire)",
    "daemon(lambda: enter(held_r))",
    "daemon(wait_in)",
    "daemon(lambda: wait_in(1000))",
    "daemon(forever(lambda: wait_in(0.0001)))",
    "daemon(threading.Semaphore(0).acquire)",
    "daemon(never.wait)",
    "daemon(lambda: never.wait(1000))",
    "daemon(forever(lambda: never.wait(0.0001)))",
    "daemon(threading.Barrier(2).wait)",
    "daemon(nothing.get)",
    "daemon(lambda: nothing.get(timeout=1000))",
    "daemon(lambda: full.put(1))",
    "daemon(full.join)",
    "daemon(queue.SimpleQueue().get)",
    "daemon(queue.LifoQueue().get)",
    "daemon(queue.PriorityQueue().get)",
    "daemon(threading.main_thread().join) if sys.version_info >= (3, 13) else None",
    "daemon(calendar().run)",
    "daemon(forever(lambda: (shared.put(1), shared.get())))",
    "daemon(forever(lambda: (simple.put(1), simple.get())))",
    "daemon(forever(lambda: enter(threading.Lock())))",
    "daemon(forever(lambda: enter(condition)))",
    "daemon(forever(lambda: time.sleep(0)))",
    "daemon(forever(lambda: None))",
    "timer(1000, print)",
    "timer(0, forever(lambda: None))",
    "timer(0, never.wait)",
    "rearm()",
    "[timer(0.0002 * i, int) for i in range(50)]",
]

#: How the main thread leaves: code, exit code, last line on stderr.
ENDS = [
    ("", 0, ""),
    ("sys.exit()", 0, ""),
    ("sys.exit(7)", 7, ""),
    ("raise SystemExit('leaving')", 1, "leaving"),
    ("1 / 0", 1, "ZeroDivisionError: division by zero"),
    ("threading.Thread(target=time.sleep, args=(0.002,)).start()", 0, ""),
    ("import atexit; atexit.register(lambda: (shared.put(1), never.is_set(), enter(condition)))", 0, ""),
    ("held.release(); held_r.release()", 0, ""),
    ("never.set(); nothing.put(1)", 0, ""),
]


def run_one(impl, number):
    rng = rng_for(f"{impl} exit {number}")
    daemons = rng.sample(DAEMONS, rng.randrange(1, 7))
    end, code, last = rng.choice(ENDS)
    pause = rng.choice(["", "time.sleep(0.001)", "time.sleep(0.01)"])
    program = "\n".join([impl.prelude + SETUP, *daemons, pause, "print('main ends')", end])
    check_exit(program, code, last)


def test_random_exits(impl):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: run_one(impl, number), range(EXITS)))


@pytest.mark.parametrize("daemon", DAEMONS)
def test_each_kind_once(raddle, daemon):
    program = [raddle.prelude + SETUP, daemon, "time.sleep(0.01)", "print('main ends')"]
    done = run_child("\n".join(program))
    assert (done.returncode, done.stdout, done.stderr) == (0, "main ends\n", "")


def test_daemon_timer_while_the_interpreter_ends(impl):
    """From 3.12 on no thread can be started by then: nobody waits for a daemon, and nothing is to be said."""
    code = "import atexit, time\ntimer(0.05, int)\natexit.register(time.sleep, 0.3)\n"
    done = run_child(impl.prelude + SETUP + code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_daemon_timer_after_the_interpreter_has_ended(impl):
    """The process is held up behind the interpreter's end, in C, until the timer is long due."""
    code = """
import ctypes
timer(0.25, int)
ctypes.pythonapi.Py_AtExit(ctypes.cast(ctypes.CDLL(None).getchar, ctypes.c_void_p))
print('main ends')
"""
    with subprocess.Popen(["sleep", "0.8"], stdout=subprocess.PIPE) as holds_up:
        done = run_child(impl.prelude + SETUP + code, stdin=holds_up.stdout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "main ends\n", "")


def test_finalizers_at_exit(impl):
    """Objects of the module's own namespace that use the primitives while it is torn down."""
    code = (
        SETUP
        + """
class Last:
    def __init__(self, *calls):
        self.calls = calls
    def __del__(self):
        for call in self.calls:
            call()
lock, event = threading.Lock(), threading.Event()
semaphore, simple_queue = threading.Semaphore(), queue.SimpleQueue()
last = Last(lock.acquire, lock.release, event.set, semaphore.release, lambda: simple_queue.put(1))
last.me = last
print('main ends')
"""
    )
    for _ in range(scaled(3)):
        done = run_child(impl.prelude + code)
        assert (done.returncode, done.stdout, done.stderr) == (0, "main ends\n", "")
