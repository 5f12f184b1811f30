"""Forks while other threads lock, put and wait: everything works in the child."""

import pytest

from tools import SEED, check_child, run_child, scaled

pytestmark = [pytest.mark.stress, pytest.mark.fork, pytest.mark.timeout(1800)]

PROGRAM = """
import faulthandler, os, random, sys, time, traceback, warnings
from tools import reap
warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside threads.
sys.setswitchinterval(0.0002)
rounds, seed, shared = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "shared"
rng = random.Random(seed)
stop = False

lock, rlock, semaphore, event = threading.Lock(), threading.RLock(), threading.Semaphore(2), threading.Event()
condition, never = threading.Condition(), threading.Event()
fifo, lifo, heap, simple = queue.Queue(), queue.LifoQueue(3), queue.PriorityQueue(), queue.SimpleQueue()
starved, starved_simple = queue.Queue(), queue.SimpleQueue()
full = queue.Queue(1)
full.put(0)
empty_semaphore, unfinished = threading.Semaphore(0), queue.Queue()
unfinished.put(0)
mine, mine_r = threading.Lock(), threading.RLock()
deserted = threading.Condition()

def churn_locks():
    while not stop:
        with lock:
            with rlock, rlock:
                pass
        with condition:
            condition.notify_all()
        if semaphore.acquire(timeout=0.001):
            semaphore.release()
        event.set()
        event.clear()

def churn_queues():
    while not stop:
        for each in (fifo, lifo, heap, simple):
            each.put(1)
            each.get()

def churn_waits():
    while not stop:
        event.wait(0.001)
        with condition:
            condition.wait(0.001)

def wait_deserted():
    with deserted:
        deserted.wait()

blocked = [never.wait, starved.get, starved_simple.get, lambda: full.put(1), empty_semaphore.acquire,
           unfinished.join, lambda: mine.acquire(), lambda: mine_r.acquire(), wait_deserted]
mine.acquire()
mine_r.acquire()
for target in [churn_locks, churn_queues, churn_waits, *blocked]:
    threading.Thread(target=target, daemon=True).start()
timer = threading.Timer(3600, print)
timer.daemon = True
timer.start()

def use_everything():
    one = threading.Lock()
    assert one.acquire() and not one.acquire(False) and not one.acquire(timeout=0.001)
    one.release()
    with threading.RLock():
        pass
    box, ready, done = queue.Queue(1), threading.Event(), threading.Condition()
    meet, tokens, results = threading.Barrier(2), threading.Semaphore(0), []
    def work():
        ready.wait()
        box.put(1)
        box.put(2)
        tokens.acquire()
        meet.wait()
        with done:
            results.append(1)
            done.notify()
    thread = threading.Thread(target=work)
    thread.start()
    ready.set()
    assert [box.get(timeout=10), box.get(timeout=10)] == [1, 2]
    tokens.release()
    meet.wait(10)
    with done:
        assert done.wait_for(lambda: results, 10)
    thread.join(10)
    assert not thread.is_alive()
    for kind in (queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue):
        each = kind()
        each.put(1)
        assert each.get() == 1
        try:
            each.get(timeout=0.001)
        except queue.Empty:
            pass
        else:
            raise AssertionError(kind)
    fired = threading.Event()
    tick = threading.Timer(0.001, fired.set)
    tick.start()
    assert fired.wait(10)
    tick.join(10)
    log = []
    calendar = sched.scheduler()
    calendar.enter(0.001, 1, log.append, (1,))
    calendar.run()
    assert log == [1]
    local = threading.local()
    local.value = 1
    assert threading.active_count() == 1, threading.enumerate()

def use_what_others_used():
    # Whoever held or awaited these is gone; what is ours is still ours.
    for each in (fifo, heap, simple):
        size = each.qsize()
        each.put(-1)
        assert each.qsize() == size + 1
        for _ in range(size + 1):
            each.get(timeout=5)
    event.clear()
    assert event.wait(0.001) is False
    event.set()
    assert event.wait(5) is True
    for each in (lock, rlock, condition):
        if each.acquire(timeout=0.001):
            each.release()
    if semaphore.acquire(timeout=0.001):
        semaphore.release()
    # The waiters of the parent must not swallow what is meant for the living.
    starved.put(7)
    assert starved.get(timeout=5) == 7
    starved_simple.put(7)
    assert starved_simple.get(timeout=5) == 7
    assert full.get(timeout=5) == 0
    full.put(1, timeout=5)
    empty_semaphore.release()
    assert empty_semaphore.acquire(timeout=5)
    unfinished.get()
    unfinished.task_done()
    unfinished.join()
    mine.release()
    assert mine.acquire(timeout=5)
    mine_r.release()
    assert mine_r.acquire(timeout=5)
    got = []
    def wait():
        with deserted:
            got.append(deserted.wait(10))
    thread = threading.Thread(target=wait)
    thread.start()
    end = time.monotonic() + 10
    while not got and time.monotonic() < end:
        with deserted:
            deserted.notify()
        time.sleep(0.0005)
    thread.join(10)
    assert got == [True]
    assert (never.waiters, starved.mutex.locked()) == (0, False)
    timer.cancel()

def child():
    try:
        faulthandler.dump_traceback_later(15, exit=True)
        use_everything()
        if shared:
            use_what_others_used()
            use_everything()
        faulthandler.cancel_dump_traceback_later()
        code = 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)

waiting = []
for number in range(rounds):
    time.sleep(rng.random() * 0.001)
    pid = os.fork()
    if pid == 0:
        child()
    waiting.append((pid, number))
    if len(waiting) == 2:
        reap(*waiting.pop(0))
for pair in waiting:
    reap(*pair)
stop = True
print("reaped", rounds)
sys.stdout.flush()
"""


def run_forks(impl, rounds, shared):
    print(f"RADDLE_SEED={SEED}")
    out = check_child(impl.prelude + PROGRAM, rounds, SEED, shared, timeout=60 + rounds * 2)
    assert out == f"reaped {rounds}\n"


def test_new_objects_in_the_child(impl):
    run_forks(impl, scaled(150, soak=1000), "fresh")


def test_shared_objects_in_the_child(raddle):
    run_forks(raddle, scaled(700, soak=10_000), "shared")


def test_fork_from_a_thread(impl):
    """The forking thread is the child's main thread; all that it starts there works."""
    code = """
import os, sys, traceback, warnings
rounds = int(sys.argv[1])
warnings.simplefilter("ignore")
def work():
    for _ in range(rounds):
        pid = os.fork()
        if pid == 0:
            try:
                assert threading.current_thread() is threading.main_thread()
                box = queue.Queue()
                threading.Thread(target=box.put, args=(1,)).start()
                assert box.get(timeout=10) == 1
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
    print("done")
gate = threading.Event()
threading.Thread(target=gate.wait, daemon=True).start()
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    check_child(impl.prelude + code, scaled(30), out="done\n", timeout=120)


def test_child_that_exits_in_the_usual_way(impl):
    """sys.exit in the child: its own threads are waited for, those of the parent are not."""
    code = """
import os, sys, time, warnings
rounds = int(sys.argv[1])
warnings.simplefilter("ignore")
gate = threading.Event()
for _ in range(3):
    threading.Thread(target=gate.wait).start()
timer = threading.Timer(3600, print)
timer.start()
for number in range(rounds):
    pid = os.fork()
    if pid == 0:
        threading.Thread(target=time.sleep, args=(0.001,)).start()
        sys.exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
gate.set()
timer.cancel()
print("done")
"""
    check_child(impl.prelude + code, scaled(15), out="done\n", timeout=120)


def test_grandchildren(impl):
    code = """
import os, sys, warnings
warnings.simplefilter("ignore")
gate = threading.Event()
threading.Thread(target=gate.wait, daemon=True).start()
depth = 0
while depth < 5:
    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if depth == 0:
            print("code", code)
            sys.stdout.flush()
        os._exit(code)
    depth += 1
    box = queue.Queue()
    thread = threading.Thread(target=box.put, args=(depth,))
    thread.start()
    assert box.get(timeout=10) == depth
    thread.join()
    threading.Thread(target=gate.wait, daemon=True).start()
os._exit(depth)
"""
    done = run_child(impl.prelude + code)
    assert (done.returncode, done.stdout, done.stderr) == (5, "code 5\n", "")


@pytest.mark.parametrize("after", ["fired", "cancelled", "joined"])
def test_threads_of_raddle_s_own_are_gone_at_a_fork(impl, after):
    """No thread is there that the program would not have, and so no warning is given (from 3.12 on)."""
    code = """
import os, sys, warnings
warnings.simplefilter("error")
for _ in range(20):
    after = sys.argv[1]
    if after == "joined":
        thread = threading.Thread(target=len, args=("",))
    else:
        thread = threading.Timer(0.002 if after == "fired" else 1000, len, args=("",))
    thread.start()
    if after == "cancelled":
        thread.cancel()
    thread.join()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    threads = len(os.listdir("/proc/self/task"))
    # Of a thread that has been joined the system may know for an instant.
    assert threads == 1 or "raddle" not in sys.modules, threads
print("done")
"""
    done = run_child(impl.prelude + code, after)
    if not impl.is_raddle and "multi-threaded" in done.stderr:
        pytest.skip("the standard library's thread was not gone yet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
