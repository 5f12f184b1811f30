"""Programs that look like a hang and are none: never accused, neither of a deadlock nor of a stall.

Each runs for some seconds with everything turned on: a proven deadlock would raise, a stall would end the process, any
report would be on standard error. Each ends by itself and says so. Where it matters that a thread is late, it sleeps:
the sleep is the program's slowness, not an order of events.
"""

import pytest

#: Longer than it takes to believe a likely deadlock, and to look for the last time.
SLOW = 1.2

SAFE = {
    # A plain lock is also a signal: taken by one thread, released by another.
    "gate": """
gate = threading.Lock()
gate.acquire()
def open_it():
    time.sleep(SLOW)
    gate.release()
threads = [threading.Thread(target=gate.acquire), threading.Thread(target=open_it)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "gate of a semaphore": """
gate = threading.Semaphore(1)
gate.acquire()
def open_it():
    time.sleep(SLOW)
    gate.release()
threads = [threading.Thread(target=gate.acquire), threading.Thread(target=open_it)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "gate that has opened before": """
gate = threading.Lock()
for _ in range(3):
    gate.acquire()
    def open_it():
        time.sleep(SLOW / 2)
        gate.release()
    opener = threading.Thread(target=open_it)
    opener.start()
    gate.acquire()
    gate.release()
    opener.join()
""",
    "two gates, each held by the one who waits at the other": """
first, second = threading.Lock(), threading.Lock()
for gate in (first, second):  # both are signals, as everybody could see
    gate.acquire()
    threading.Thread(target=gate.release).start()
    gate.acquire()
    gate.release()
def work(mine, other):
    mine.acquire()
    both.wait()
    other.acquire()
    other.release()
both = threading.Barrier(3)
threads = [threading.Thread(target=work, args=pair) for pair in ((first, second), (second, first))]
for thread in threads: thread.start()
both.wait()
time.sleep(SLOW)
first.release()
second.release()
for thread in threads: thread.join()
""",
    "ping-pong with two locks": """
ping, pong = threading.Lock(), threading.Lock()
pong.acquire()
def play(mine, other):
    for n in range(4):
        mine.acquire()
        time.sleep(SLOW / 3)
        other.release()
threads = [threading.Thread(target=play, args=pair) for pair in ((ping, pong), (pong, ping))]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "hand-over chain": """
links = [threading.Lock() for _ in range(6)]
for link in links: link.acquire()
def pass_on(n):
    links[n].acquire()
    time.sleep(SLOW / 4)
    links[n + 1].release()
threads = [threading.Thread(target=pass_on, args=(n,)) for n in range(5)]
for thread in threads: thread.start()
time.sleep(SLOW)
links[0].release()
for thread in threads: thread.join()
""",
    "ring of hand-overs": """
links = [threading.Lock() for _ in range(4)]
for link in links: link.acquire()
def work(n):
    for _ in range(5):
        links[n].acquire()
        time.sleep(SLOW / 10)
        links[(n + 1) % 4].release()
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
time.sleep(SLOW)
links[0].release()
for thread in threads: thread.join()
""",
    "a lock taken by a thread that has ended": """
lock, guard = threading.Lock(), threading.RLock()
ended = threading.Thread(target=lock.acquire)
ended.start()
ended.join()
def waits_for_signal():
    with guard:
        lock.acquire()
def waits_for_guard():
    wait_until(lambda: guard.owner, "the guard is held")
    with guard: pass
first = threading.Thread(target=waits_for_signal)
first.start()
# Idents are given out again: among these is one that has the ident of the thread that took the lock.
others = [threading.Thread(target=waits_for_guard) for _ in range(8)]
for thread in others: thread.start()
time.sleep(SLOW)
lock.release()
for thread in (first, *others): thread.join()
""",
    "a lock whose taker's ident belongs to another": """
lock, guard = threading.Lock(), threading.RLock()
taker = threading.Thread(target=lock.acquire)
taker.start()
taker.join()
ready = std.Event()
def waits_for_guard():
    ready.wait()
    with guard: pass
others = []
while not any(thread.ident == taker.ident for thread in others) and len(others) < 50:
    others.append(threading.Thread(target=waits_for_guard))
    others[-1].start()
def waits_for_signal():
    with guard:
        ready.set()
        lock.acquire()
first = threading.Thread(target=waits_for_signal)
first.start()
time.sleep(SLOW)
lock.release()
for thread in (first, *others): thread.join()
""",
    # A semaphore whose permits are given back by others than those who took them.
    "semaphore as a signal": """
done = threading.Semaphore(0)
def work():
    time.sleep(SLOW)
    done.release()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for _ in threads: done.acquire()
for thread in threads: thread.join()
""",
    "throttle: one submits, workers give back": """
permits = threading.Semaphore(2)
def task():
    time.sleep(SLOW)
    permits.release()
threads = []
for _ in range(4):
    permits.acquire()
    threads.append(threading.Thread(target=task))
    threads[-1].start()
for thread in threads: thread.join()
""",
    "throttle: two submit, workers give back": """
permits = threading.Semaphore(2)
threads = []
both = threading.Barrier(2)
def task():
    time.sleep(SLOW)
    permits.release()
def submit():
    for _ in range(2):
        permits.acquire()
        threads.append(threading.Thread(target=task))
        threads[-1].start()
        both.wait()
submitters = [threading.Thread(target=submit) for _ in range(2)]
for thread in submitters: thread.start()
for thread in submitters: thread.join()
for thread in list(threads): thread.join()
""",
    "bounded buffer of two semaphores": """
room, items, buffer = threading.Semaphore(2), threading.Semaphore(0), []
def produce():
    for n in range(6):
        room.acquire()
        buffer.append(n)
        items.release()
def consume():
    for _ in range(6):
        items.acquire()
        time.sleep(SLOW / 4)
        buffer.pop()
        room.release()
threads = [threading.Thread(target=work) for work in (produce, consume)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    # Cycles with a wait in them that ends by itself.
    "timed waits": """
a, b = threading.RLock(), threading.RLock()
both = threading.Barrier(2)
def work(first, second):
    with first:
        both.wait()
        if second.acquire(timeout=SLOW):
            second.release()
threads = [threading.Thread(target=work, args=pair) for pair in ((a, b), (b, a))]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "one timed wait among two": """
a, b = threading.RLock(), threading.RLock()
both = threading.Barrier(2)
def patient():
    with a:
        both.wait()
        with b: pass
def hasty():
    with b:
        both.wait()
        assert not a.acquire(timeout=SLOW)
threads = [threading.Thread(target=patient), threading.Thread(target=hasty)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "tries again and again": """
a, b = threading.RLock(), threading.RLock()
end = time.monotonic() + 2 * SLOW
def work(first, second):
    while time.monotonic() < end:
        with first:
            if second.acquire(timeout=0.05):
                second.release()
            elif second.acquire(blocking=False):
                second.release()
threads = [threading.Thread(target=work, args=pair) for pair in ((a, b), (b, a))]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "joins with a timeout": """
a = threading.RLock()
def work():
    with a: pass
with a:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(SLOW)
    assert thread.is_alive()
thread.join()
""",
    "put with a timeout": """
q, a = queue.Queue(1), threading.RLock()
def consume():
    q.get()
    with a: pass
    q.get()
consumer = threading.Thread(target=consume)
consumer.start()
q.put(1)
wait_until(q.empty, "the first is consumed")
with a:
    q.put(2)
    try:
        q.put(3, timeout=SLOW)
    except queue.Full:
        pass
consumer.join()
""",
    # Contention that is only slow.
    "long holds": """
lock = threading.RLock()
def work():
    with lock:
        time.sleep(SLOW / 2)
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "long holds in one order": """
locks = [threading.RLock() for _ in range(3)] + [threading.Lock() for _ in range(2)]
def work(n):
    for lock in locks[n % 3:]:
        lock.acquire()
    time.sleep(SLOW / 4)
    for lock in reversed(locks[n % 3:]):
        lock.release()
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "hot locks in one order": """
import random
rng = random.Random(7)
locks = [(threading.RLock, threading.Lock, threading.Semaphore)[n % 3]() for n in range(6)]
end = time.monotonic() + 2 * SLOW
found = []
def work(seed):
    rng = random.Random(seed)
    while time.monotonic() < end:
        chosen = sorted(rng.sample(range(6), 3))
        for n in chosen: locks[n].acquire()
        if rng.random() < 0.1: time.sleep(0.002)
        for n in reversed(chosen): locks[n].release()
threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
for thread in threads: thread.start()
while any(thread.is_alive() for thread in threads):
    found += deadlock.find()
    time.sleep(0.0005)
assert not found, found
""",
    "a lock that goes round": """
lock = threading.RLock()
end = time.monotonic() + 2 * SLOW
def work():
    while time.monotonic() < end:
        with lock: time.sleep(0.03)
threads = [threading.Thread(target=work) for _ in range(10)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "condition ping-pong": """
condition, turn = threading.Condition(), [0]
def play(me):
    for _ in range(4):
        with condition:
            condition.wait_for(lambda: turn[0] == me)
            time.sleep(SLOW / 4)
            turn[0] = 1 - me
            condition.notify_all()
threads = [threading.Thread(target=play, args=(n,)) for n in (0, 1)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "two conditions on one lock": """
lock = threading.Lock()
full, empty = threading.Condition(lock), threading.Condition(lock)
items = []
def produce():
    for n in range(4):
        with empty:
            empty.wait_for(lambda: not items)
            items.append(n)
            full.notify()
def consume():
    for _ in range(4):
        with full:
            full.wait_for(lambda: items)
            time.sleep(SLOW / 2)
            items.pop()
            empty.notify()
threads = [threading.Thread(target=work) for work in (produce, consume)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "waits for a notification with another lock held": """
guard, condition = threading.RLock(), threading.Condition()
def waiter():
    with guard, condition:
        condition.wait()
def victim():
    with guard: pass
def notifier():
    time.sleep(SLOW)
    with condition: condition.notify()
threads = [threading.Thread(target=work) for work in (waiter, victim, notifier)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    # Queues.
    "slow consumer": """
q = queue.Queue(1)
def consume():
    for _ in range(4):
        time.sleep(SLOW / 2)
        q.get()
consumer = threading.Thread(target=consume)
consumer.start()
for n in range(4): q.put(n)
consumer.join()
""",
    "late producer, main joins the consumer": """
q = queue.Queue(1)
def consume():
    for _ in range(3): q.get()
def produce():
    time.sleep(SLOW)
    q.put(2)
    q.put(3)
q.put(1)  # main has produced, and will no more
threads = [threading.Thread(target=consume), threading.Thread(target=produce)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "late consumer of a full queue": """
q = queue.Queue(1)
def consume():
    time.sleep(SLOW)
    for _ in range(3): q.get()
def produce():
    for n in range(3): q.put(n)
threads = [threading.Thread(target=produce), threading.Thread(target=consume)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "relay of consumers": """
q = queue.Queue(1)
def consume(before):
    if before: before.join()
    time.sleep(SLOW / 2)
    q.get()
thread = None
threads = []
for _ in range(4):
    thread = threading.Thread(target=consume, args=(thread,))
    thread.start()
    threads.append(thread)
for n in range(4): q.put(n)
for thread in threads: thread.join()
""",
    "pipeline with a slow end": """
q, r = queue.Queue(1), queue.Queue(1)
def middle():
    for _ in range(5): r.put(q.get())
def end():
    for _ in range(5):
        time.sleep(SLOW / 3)
        r.get()
threads = [threading.Thread(target=middle), threading.Thread(target=end)]
for thread in threads: thread.start()
for n in range(5): q.put(n)
for thread in threads: thread.join()
""",
    "request and answer": """
requests, answers = queue.Queue(1), queue.Queue(1)
def serve():
    for _ in range(4):
        request = requests.get()
        time.sleep(SLOW / 3)
        answers.put(request)
server = threading.Thread(target=serve)
server.start()
for n in range(4):
    requests.put(n)
    assert answers.get() == n
server.join()
""",
    "workers wait for work, main for the workers": """
q = queue.Queue(2)
def work():
    while q.get() is not None: time.sleep(0.01)
def feed():
    for n in range(4): q.put(n)
    time.sleep(SLOW)
    for _ in workers: q.put(None)
workers = [threading.Thread(target=work) for _ in range(4)]
threads = [threading.Thread(target=feed), *workers]
for thread in threads: thread.start()
for thread in reversed(threads): thread.join()
""",
    "task_done and join": """
q = queue.Queue()
def work():
    for _ in range(3):
        q.get()
        time.sleep(SLOW / 2)
        q.task_done()
threading.Thread(target=work).start()
for n in range(3): q.put(n)
q.join()
""",
    # What keeps the GIL, or goes in and out of it.
    "a C call that keeps the GIL": """
lock = threading.RLock()
def hog():
    with lock:
        end = time.monotonic() + SLOW
        while time.monotonic() < end: sum(range(3_000_000))
def victim():
    with lock: pass
threads = [threading.Thread(target=hog), *(threading.Thread(target=victim) for _ in range(3))]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "everybody waits for a C call": """
event = threading.Event()
def hog():
    for _ in range(4): str(7 ** 40_000)
    sum(range(20_000_000))
    event.set()
threads = [threading.Thread(target=event.wait) for _ in range(4)]
for thread in threads: thread.start()
sys.set_int_max_str_digits(0)
threading.Thread(target=hog).start()
event.wait()
for thread in threads: thread.join()
""",
    # Threads that come and go.
    "threads that start threads": """
def work(depth):
    time.sleep(SLOW / 4)
    if depth:
        thread = threading.Thread(target=work, args=(depth - 1,))
        thread.start()
        thread.join()
thread = threading.Thread(target=work, args=(5,))
thread.start()
thread.join()
""",
    "joined by many": """
late = threading.Thread(target=time.sleep, args=(SLOW,))
late.start()
threads = [threading.Thread(target=late.join) for _ in range(5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "a thread that joins while it is joined for another": """
a = threading.RLock()
def first():
    with a: time.sleep(SLOW)
def second():
    with a: pass
    one.join()
one, two = threading.Thread(target=first), threading.Thread(target=second)
one.start()
two.start()
two.join()
""",
    "a holder that is replaced": """
lock, event = threading.Lock(), threading.Event()
def work(n):
    with lock: time.sleep(SLOW / 5)
for n in range(5):
    threads = [threading.Thread(target=work, args=(n,)) for _ in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
""",
    "main waits for an event that a timer sets": """
event = threading.Event()
threading.Timer(SLOW, event.set).start()
event.wait()
""",
    "timers that start timers": """
event = threading.Event()
def tick(n):
    if n: threading.Timer(SLOW / 4, tick, (n - 1,)).start()
    else: event.set()
tick(6)
event.wait()
""",
    "barrier with a late party": """
barrier = threading.Barrier(4)
threads = [threading.Thread(target=barrier.wait) for _ in range(3)]
for thread in threads: thread.start()
time.sleep(SLOW)
barrier.wait()
for thread in threads: thread.join()
""",
    # A signal handler is somebody who may release.
    "a signal handler that releases": """
import signal
lock = threading.Lock()
signal.signal(signal.SIGALRM, lambda *_: lock.release())
lock.acquire()
signal.setitimer(signal.ITIMER_REAL, SLOW)
lock.acquire()
""",
    "a handler for the lock that a thread waits for": """
import signal
lock = threading.Lock()
signal.signal(signal.SIGALRM, lambda *_: lock.release())
lock.acquire()
thread = threading.Thread(target=lock.acquire)
thread.start()
signal.setitimer(signal.ITIMER_REAL, SLOW)
thread.join()
""",
    "a thread of the standard library that releases": """
lock = threading.Lock()
lock.acquire()
def release():
    time.sleep(SLOW)
    lock.release()
std.Thread(target=release).start()
lock.acquire()
""",
}

#: Under `install()`: what the standard library makes of its own modules' parts.
INSTALLED = {
    "an idle pool": """
pool = concurrent.futures.ThreadPoolExecutor(4)
assert list(pool.map(str, range(4))) == list("0123")
time.sleep(2 * SLOW)
pool.shutdown()
""",
    "a pool that is waited for": """
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    futures = [pool.submit(time.sleep, SLOW) for _ in range(4)]
    concurrent.futures.wait(futures)
""",
    "a pool that waits for a future of nobody": """
future = concurrent.futures.Future()
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    waiting = [pool.submit(future.result) for _ in range(2)]
    time.sleep(SLOW)
    future.set_result(1)
""",
    "a pool left alone at exit": """
pool = concurrent.futures.ThreadPoolExecutor(3)
pool.submit(time.sleep, SLOW)
pool.submit(str)
""",
    "a pool of processes": """
if __name__ == "__main__":
    import multiprocessing
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(time.sleep, SLOW).result() is None
""",
    "an event loop and its threads": """
import asyncio
async def main():
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(loop.run_in_executor(None, time.sleep, SLOW) for _ in range(3)))
    await asyncio.sleep(SLOW)
asyncio.run(main())
""",
    "subprocess with a pipe": """
import subprocess
program = f"import time; time.sleep({SLOW}); print(1)"
done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30)
assert done.stdout == b"1\\n"
""",
    "logging by a queue": """
import logging.handlers
q = queue.Queue()
listener = logging.handlers.QueueListener(q, logging.NullHandler())
listener.start()
time.sleep(SLOW)
listener.stop()
""",
    "a server of sockets": """
import socketserver, socket
class Echo(socketserver.StreamRequestHandler):
    def handle(self): self.wfile.write(self.rfile.readline())
with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with socket.create_connection(server.server_address) as client:
        time.sleep(SLOW)
        client.sendall(b"hello\\n")
        assert client.recv(10) == b"hello\\n"
    server.shutdown()
    thread.join()
""",
}

EVERYTHING = {"on_deadlock": "raise", "on_stall": "exit"}


def check_safe(program):
    program.end()
    assert program.err.text == "" and program.out.text == "safe\n", str(program)


@pytest.mark.parametrize("case", SAFE)
def test_safe(app, case):
    after = "assert not deadlock.reports() and not deadlock.find()\nsay('safe')\n"
    source = f"enable()\nSLOW = {SLOW}\n{SAFE[case]}\n{after}"
    with app(source, EVERYTHING) as program:
        check_safe(program)


@pytest.mark.parametrize("case", INSTALLED)
def test_safe_when_installed(app, case):
    source = (
        "import raddle\nraddle.install()\nenable()\n"
        f"import concurrent.futures, queue, threading\nSLOW = {SLOW}\n{INSTALLED[case]}\n"
        "if __name__ == '__main__':\n    assert not deadlock.reports()\n    say('safe')\n"
    )
    with app(source, EVERYTHING) as program:
        check_safe(program)
