"""Stalls: every thread blocked for ever, by nobody in particular. Called so, no deadlock, and not killed unasked."""

import pathlib
import re
import signal
import time

import pytest
from hangs import WATCHED, reports_in

from tools import wait_until

RUN = ("-m", "raddle", "run")
RUN_AND_EXIT = (*RUN, "--on-stall", "exit")

#: Withdrawals wait for deposits and the other way round; there are more of one than of the other.
ACCOUNT = """
import threading

class Account:
    def __init__(self):
        self.balance, self.full, self.changed = 0, False, threading.Condition()
    def draw(self, amount):
        with self.changed:
            if not self.full:
                self.changed.wait()  # draw waits
            else:
                self.balance -= amount
                self.full = False
                self.changed.notify_all()
    def deposit(self, amount):
        with self.changed:
            if self.full:
                self.changed.wait()  # deposit waits
            else:
                self.balance += amount
                self.full = True
                self.changed.notify_all()

def repeat(action, times):
    for _ in range(times):
        action(800)

account = Account()
threading.Thread(name="drawer", target=repeat, args=(account.draw, 100)).start()
for name in ("first", "second", "third"):
    threading.Thread(name=f"{name} depositor", target=repeat, args=(account.deposit, 100)).start()
say("main is through")
"""

FULL_QUEUE = """
import queue
q = queue.Queue(2)  # makes q
q.put("one")
q.put("two")
closing()
q.put("three")  # waits
say("not reached")
"""


def check_stalls(program, *, lives=True):
    """A stall has been reported once, and no deadlock; the program is still there. Gives the text."""
    program.wait_for("^raddle: stall: ", err=True)
    program.wait_for("^  Advice: ", err=True)
    if lives:
        with pytest.raises(Exception, match="timed out"):
            program.process.wait(1.2)
    lines = reports_in(program.err.text)
    assert len(lines) == 1 and "blocked, not deadlocked" in lines[0], program.err.text
    assert "DeadlockError" not in program.err.text and "raddle: deadlock" not in program.err.text
    return program.err.text


class TestTutorial:
    def test_condition(self, app):
        """Chapter 9's program: whoever is left waits for a notification, main for the threads at exit."""
        with app(ACCOUNT, under=RUN) as program:
            text = check_stalls(program)
            assert "main is through\n" in program.out.text
            assert re.search(r"Thread '(first|second|third) depositor' waits for a notification", text)
            assert f'{program.path}", line {program.line("deposit waits")}' in text
            assert "Thread 'MainThread'" in text

    def test_full_queue(self, app):
        """Chapter 10's: the third put into a queue of two."""
        with app(FULL_QUEUE, under=RUN) as program:
            program.check_in_time()
            text = check_stalls(program)
            assert f"room in Queue '{program.name('makes q')}'" in text
            assert f'in Queue.put, at File "{program.path}", line {program.line("waits")}' in text
            assert "not reached" not in program.out.text

    @pytest.mark.parametrize("source", [ACCOUNT, FULL_QUEUE], ids=["condition", "full queue"])
    def test_exit_on_request(self, app, source):
        with app(source, under=RUN_AND_EXIT) as program:
            program.end(75)
            check_stalls(program, lives=False)

    def test_exit_by_the_interface(self, app):
        """What was printed before is not lost."""
        source = """
enable()
sys.stdout.write("still in the buffer")
threading.Event().wait()
"""
        with app(source, {"on_stall": "exit"}, env={"PYTHONUNBUFFERED": ""}) as program:
            program.end(75)
            assert program.out.text == "still in the buffer"
            check_stalls(program, lives=False)


#: What the only thread may wait for, for ever.
WAITS = {
    "Lock.acquire": "lock = threading.Lock(); lock.acquire(); closing(); lock.acquire()",
    "Condition.wait": "condition = threading.Condition(); condition.acquire(); closing(); condition.wait()",
    "Condition.wait_for": "condition = threading.Condition(); condition.acquire(); closing(); condition.wait_for(list)",
    "Semaphore.acquire": "permits = threading.Semaphore(0); closing(); permits.acquire()",
    "Semaphore.acquire of its own": "permits = threading.Semaphore(); permits.acquire(); closing(); permits.acquire()",
    "Event.wait": "closing(); threading.Event().wait()",
    "Barrier.wait": "closing(); threading.Barrier(2).wait()",
    "Queue.get": "closing(); queue.Queue().get()",
    "SimpleQueue.get": "closing(); queue.SimpleQueue().get()",
    "Queue.join": "q = queue.Queue(); q.put(1); closing(); q.join()",
    "Thread.join": "thread = threading.Thread(target=threading.Event().wait, daemon=True); thread.start()"
    "; closing(); thread.join()",
}


@pytest.mark.parametrize("kind", WAITS)
def test_every_kind_of_wait(app, kind):
    with app("enable()\n" + WAITS[kind] + "  # waits\n") as program:
        program.check_in_time()
        text = check_stalls(program)
        assert f'", line {program.line("waits")}' in text and "Thread 'MainThread' waits for" in text


#: Threads that neither raddle nor the interpreter has started; the second sees one only while it runs Python.
IN_C = """
import ctypes
libc, number, gate = ctypes.CDLL(None), ctypes.c_ulong(), ctypes.create_string_buffer(64)
libc.sem_init(gate, 0, 0)
kept = []
def start_in_c(function, argument):
    kept.append(function)
    assert libc.pthread_create(ctypes.byref(number), None, function, argument) == 0
"""


class TestEnded:
    """The threads have waited for long when the last one that ran ends."""

    SOURCE = """
enable()
event = threading.Event()
for n in range(3):
    threading.Thread(target=event.wait, name=f"waiter {n}", daemon=True).start()
stop = std.Event()
let_go = stop.set
def last():
    stop.wait(20)
    closing()
def opener():
    wait_until(lambda: is_blocked("MainThread"), "main waits")
    hold_on(1.5)  # all have looked for the last time
    let_go()
START
event.wait()
"""

    @pytest.mark.parametrize(
        "start",
        [
            "threading.Thread(target=last).start(); threading.Thread(target=opener).start()",
            "threading.Thread(target=last, daemon=True).start(); threading.Thread(target=opener).start()",
            "threading.Timer(2.5, closing).start()",
            "timer = threading.Timer(100, closing); timer.start()\n"
            "def cancel(): opener(); closing(); timer.cancel()\n"
            "threading.Thread(target=cancel).start()",
            "std.Thread(target=last).start(); std.Thread(target=opener).start()",
            "import _thread; _thread.start_new_thread(last, ()); _thread.start_new_thread(opener, ())",
            IN_C + "start_in_c(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: last()), None)\n"
            "threading.Thread(target=opener).start()",
            IN_C + "start_in_c(libc.sem_wait, gate)\nlet_go = lambda: (closing(), libc.sem_post(gate))\n"
            "threading.Thread(target=opener).start()",
        ],
        ids=[
            "thread",
            "daemon",
            "timer",
            "timer cancelled",
            "thread of the standard library",
            "by other means",
            "thread of C in Python",
            "thread of C",
        ],
    )
    def test_last_one(self, app, start):
        with app(self.SOURCE.replace("START", start)) as program:
            program.check_in_time()
            text = check_stalls(program)
            assert all(f"'{name}'" in text for name in ("MainThread", "waiter 0", "waiter 1", "waiter 2"))

    def test_program_that_has_ended_but_for_its_threads(self, app):
        """Main waits for them in the interpreter's exit."""
        source = """
import threading
event = threading.Event()
for n in range(2):
    threading.Thread(target=event.wait, name=f"waiter {n}").start()
say("main is through")
closing()
"""
        with app(source, under=RUN) as program:
            program.check_in_time()
            text = check_stalls(program)
            assert "main is through" in program.out.text
            assert all(f"'{name}'" in text for name in ("MainThread", "waiter 0", "waiter 1"))

    def test_program_that_has_ended_long_before(self, app):
        source = """
import threading
event = threading.Event()
threading.Thread(target=event.wait, name="waiter").start()
def last():
    hold_on(1.5)
    closing()
threading.Thread(target=last).start()
say("main is through")
"""
        with app(source, under=RUN) as program:
            program.check_in_time()
            assert "'waiter'" in check_stalls(program)

    def test_exit_then(self, app):
        source = "import threading\nthreading.Thread(target=threading.Event().wait, name='waiter').start()\n"
        with app(source, under=RUN_AND_EXIT) as program:
            program.end(75)
            check_stalls(program, lives=False)


def test_beside_idle_threads_of_a_library(app):
    """They sleep until one of the program's threads gives them work, as those of linear algebra do."""
    threads = "for _ in range(3): start_in_c(libc.sem_wait, gate)\n"
    with app(f"{IN_C}enable()\n{threads}closing()\nthreading.Event().wait()\n") as program:
        program.check_in_time()
        check_stalls(program)


class TestReport:
    def test_parties(self, app):
        """All threads are in it, with what they hold; a lock that nobody will release names its holder."""
        source = """
enable(report="hang.txt")
lock = threading.RLock(name="the lock")
event = threading.Event(name="the event")
def holder():
    with lock:  # holder takes
        ready()
        event.wait()  # holder waits
def victim():
    ready()
    lock.acquire()  # victim waits
party(holder)
wait_until(lambda: lock.owner, "it is held")
party(victim)
def teller():
    wait_until(lambda: is_blocked("MainThread"), "main waits")
threading.Thread(target=teller).start()
close("holder", "victim")
event.wait()  # main waits
"""
        with app(source) as program:
            file = pathlib.Path(program.path).with_name("hang.txt")
            wait_until(lambda: file.exists() and "Advice" in file.read_text(), "the report is written")
            text = file.read_text()
            assert text.startswith("raddle: stall: ") and "(3 threads; blocked, not deadlocked)" in text
            for comment in ("holder takes", "holder waits", "victim waits", "main waits"):
                assert f'File "{program.path}", line {program.line(comment)}' in text
            assert "held by thread 'holder'" in text and "Event 'the event'" in text
            assert program.err.text == ""

    @pytest.mark.parametrize("make", ["Lock", "RLock", "Semaphore"])
    def test_taken_by_one_who_has_ended(self, app, make):
        """Nobody of that name is there, but the line that took it is known. The party that waits may have its ident."""
        source = f"""
enable()
lock = threading.{make}(name="the lock")
def forgetful():
    lock.acquire()  # takes
def victim():
    closing()
    lock.acquire()  # waits
first = threading.Thread(target=forgetful)
first.start()
first.join()
{"" if make == "RLock" else "del first"}  # the same ident would get a re-entrant lock, as in CPython
second = threading.Thread(target=victim, name="victim")
second.start()
second.join()
"""
        with app(source) as program:
            program.check_in_time()
            text = check_stalls(program)
            place = f'File "{program.path}", line {program.line("takes")}'
            assert f"    held by a thread that has ended, taken at {place}\n" in text and "holds" not in text
            assert "Advice: release what a thread has taken before it ends" in text

    def test_ignored(self, app):
        with app("enable()\nthreading.Event().wait()", {"on_stall": "ignore"}) as program:
            program.check_lives_in_silence(1.5)

    def test_without_being_asked(self, app):
        with app("closing()\nthreading.Event().wait()") as program:
            program.check_in_time()
            check_stalls(program)

    @pytest.mark.fork
    def test_in_a_forked_child(self, app):
        """The parent's threads do not count."""
        source = """
enable()
def busy():
    while True: time.sleep(0.001)
threading.Thread(target=busy, daemon=True).start()
threading.Thread(target=threading.Event().wait, daemon=True).start()
pid = os.fork()
if pid == 0:
    threading.Event().wait()
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
        with app(source, {"on_stall": "exit"}) as program:
            program.end()
            assert program.out.text == "75\n"
            text = check_stalls(program, lives=False)
            assert "(1 thread; blocked, not deadlocked)" in text

    def test_in_reports(self, app):
        """The list has it when it is written."""
        source = """
class File:
    def write(self, text):
        [report] = deadlock.reports()
        names = [party.thread_name for party in report.parties]
        say(repr(report), report.kind, report.proven, names, str(report) + "\\n" == text)
    def flush(self): pass
enable(report=File())
threading.Event().wait()
"""
        with app(source) as program:
            program.wait_for(re.escape("<stall: MainThread> stall False ['MainThread'] True"))


class TestDeadlockIsNoStall:
    """Threads that deadlock while all others wait for them: one report, and the right name."""

    SOURCE = """
enable()
a, b = threading.RLock(), threading.RLock()
def one():
    with a:
        ready()
        with b: pass
def two():
    with b:
        ready()
        with a: pass
first, second = party(one), party(two)
def closer():
    wait_until(lambda: is_blocked("MainThread"), "main waits")
    close("one", "two")
threading.Thread(target=closer).start()
first.join()
second.join()
say("end")
"""

    @pytest.mark.parametrize("on_stall", ["report", "exit"])
    def test_reported(self, app, on_stall):
        with app(self.SOURCE, {"on_deadlock": "report", "on_stall": on_stall}) as program:
            program.check_in_time()
            with pytest.raises(Exception, match="timed out"):
                program.process.wait(WATCHED)
            [line] = reports_in(program.err.text)
            assert line.startswith("raddle: deadlock: 2 threads")

    @pytest.mark.parametrize("turn", range(4))
    def test_raised(self, app, turn):
        """It goes on: not for a moment was it a stall."""
        with app(self.SOURCE, {"on_deadlock": "raise", "on_stall": "exit"}) as program:
            program.end()
            [line] = reports_in(program.err.text)
            assert line.startswith("raddle: deadlock: 2 threads") and "end\n" in program.out.text


#: What keeps a program from being stalled although raddle's threads all wait: something outside may end it.
LIVE = {
    "timer": "threading.Timer(3, event.set).start()",
    "timer of an hour": "threading.Timer(3600, event.set).start()",
    "daemon timer": "timer = threading.Timer(3600, event.set); timer.daemon = True; timer.start()",
    "timer with a run of its own": (
        "class Own(threading.Timer):\n    def run(self): super().run()\nOwn(3600, event.set).start()"
    ),
    "sleep": "threading.Thread(target=lambda: (time.sleep(3600), event.set())).start()",
    "sleep of a daemon": "threading.Thread(target=lambda: (time.sleep(3600), event.set()), daemon=True).start()",
    "pipe": "r, w = os.pipe(); threading.Thread(target=lambda: (os.read(r, 1), event.set())).start()",
    "socket": (
        "import socket; ours, theirs = socket.socketpair()\n"
        "threading.Thread(target=lambda: (ours.recv(1), event.set())).start()"
    ),
    "select": (
        "import select; r, w = os.pipe()\n"
        "threading.Thread(target=lambda: (select.select([r], [], []), event.set())).start()"
    ),
    "child": (
        "import subprocess; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(8)'])\n"
        "threading.Thread(target=lambda: (child.wait(), event.set())).start()"
    ),
    "timed wait": "threading.Thread(target=lambda: (threading.Event().wait(3600), event.set())).start()",
    "timed acquire": (
        "lock = threading.Lock(); lock.acquire()\n"
        "threading.Thread(target=lambda: (lock.acquire(timeout=3600), event.set())).start()"
    ),
    "timed get": "threading.Thread(target=lambda: queue.Queue().get(timeout=3600)).start()",
    "timed join": (
        "other = threading.Thread(target=threading.Event().wait, daemon=True); other.start()\n"
        "threading.Thread(target=lambda: (other.join(3600), event.set())).start()"
    ),
    "busy daemon": (
        "def busy():\n    while True: time.sleep(0.01)\nthreading.Thread(target=busy, daemon=True).start()"
    ),
    "busy thread of the standard library": (
        "def busy():\n    while True: time.sleep(0.01)\nstd.Thread(target=busy, daemon=True).start()"
    ),
    "lock of the standard library": (
        "lock = std.Lock(); lock.acquire()\n"
        "std.Thread(target=lambda: (lock.acquire(), event.set()), daemon=True).start()"
    ),
    "thread of C that sleeps": IN_C + "start_in_c(libc.sleep, ctypes.c_void_p(3600))",
    "thread of C that reads": IN_C + "start_in_c(libc.getchar, None)",
    "thread of C that another process may wake": (
        IN_C + "libc.sem_init(gate, 1, 0); start_in_c(libc.sem_wait, gate)"
    ),
    "signal handler": "import signal; signal.signal(signal.SIGUSR1, lambda *_: event.set())",
    "interrupt handler": "import signal; signal.signal(signal.SIGINT, lambda *_: event.set())",
    "alarm": "import signal; signal.signal(signal.SIGALRM, lambda *_: event.set()); signal.alarm(3600)",
    "sched": (
        "from raddle import sched\n"
        "def later():\n    s = sched.scheduler(); s.enter(3600, 1, event.set); s.run()\n"
        "threading.Thread(target=later).start()"
    ),
    "selector loop": (
        "import asyncio; loop = asyncio.new_event_loop()\n"
        "threading.Thread(target=loop.run_forever, daemon=True).start()"
    ),
}


@pytest.mark.parametrize("live", LIVE)
def test_no_stall(app, live):
    source = f"enable()\nevent = threading.Event()\n{LIVE[live]}\nsay('ready')\nevent.wait()\n"
    with app(source, {"on_stall": "exit"}) as program:
        program.wait_for("^ready")
        program.check_lives_in_silence()


HANDLER = "import signal; signal.signal(signal.SIGUSR1, print)"
OUTSIDE = "std.Thread(target=time.sleep, args=(60,)).start()"


@pytest.mark.parametrize(
    ("kind", "live", "most"),
    # The end of a thread that raddle does not know may have to be looked for, now and then.
    [*((kind, HANDLER, 0) for kind in WAITS), ("Event.wait", OUTSIDE, 3), ("Barrier.wait", OUTSIDE, 3)],
)
def test_idle_waits_do_not_poll(app, kind, live, most):
    """Whatever a waiter looks for, it is found or not within a second; from then on it sleeps."""
    wait = WAITS[kind].replace("closing()", "say('ready')")
    with app(f"enable()\n{live}\n{wait}\n") as program:
        program.wait_for("^ready")
        status = pathlib.Path(f"/proc/{program.process.pid}/task/{program.process.pid}/status")

        def awoken():
            return int(re.search(r"^voluntary_ctxt_switches:\t(\d+)", status.read_text(), re.M)[1])

        time.sleep(1.5)
        before = awoken()
        time.sleep(1)
        assert awoken() - before <= most
        assert program.err.text == ""


def test_no_stall_while_main_reads(app):
    """Main is outside of raddle, its threads wait for work."""
    source = """
enable()
q = queue.Queue()
for _ in range(3): threading.Thread(target=q.get).start()
say("ready")
for _ in range(3): q.put(sys.stdin.readline())
"""
    with app(source, {"on_stall": "exit"}) as program:
        program.wait_for("^ready")
        program.check_lives_in_silence()
        program.process.stdin.write("1\n2\n3\n")
        program.process.stdin.flush()
        program.end()
        assert program.err.text == ""


@pytest.mark.signals
def test_handler_ends_the_wait(app):
    """The program that was not stalled goes on when its signal comes."""
    source = """
import signal
enable()
event = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: event.set())
say("ready")
event.wait()
"""
    with app(source, {"on_stall": "exit"}) as program:
        program.wait_for("^ready")
        program.check_lives_in_silence()
        program.process.send_signal(signal.SIGUSR1)
        program.end()
        assert program.err.text == ""


def test_two_stalls_are_two_reports(app):
    """One that somebody ends from outside (a debugger, say, or Ctrl-C in a handler of its own), and then the next."""
    source = """
enable()
for turn in range(2):
    say("turn", turn)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        say("interrupted", turn)
"""
    with app(source) as program:
        for turn in range(2):
            wait_until(lambda turn=turn: len(reports_in(program.err.text)) == turn + 1, f"stall {turn}")
            program.process.send_signal(signal.SIGINT)
            program.wait_for(f"^interrupted {turn}")
        program.end()
        assert len(reports_in(program.err.text)) == 2
