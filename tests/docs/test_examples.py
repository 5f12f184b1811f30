"""The example programs: each runs, prints exactly what it promises, and ends."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TIME_LIMIT = 30  # seconds for one program; all but a few need less than one

CHAPTERS = [*range(1, 23), 22]

PRINTED = {
    "ch01_processes_and_threads.py": """
        in one list: ['Ann', 'Ben', 'Cleo']
        processes: 1 threads: 3
        another process has the same number: False
        its list: ['Dora'] - ours has Dora: False
        """,
    "ch02_two_ways_to_create.py": """
        greeter: Good morning, Ann
        greeter: Good morning, Ben
        summer: 5050
        direct call: 55, ran in MainThread, started: False
        """,
    "ch03_life_cycle.py": """
        before start(): new
        waiting: blocked in Event.wait on the bell
        waiting: blocked in Lock.acquire on the door
        seen from inside: running
        after its end: dead
        start() again: threads can only be started once
        """,
    "ch04_join.py": """
        ['soup is ready', 'soup is served']
        after join(timeout=0.05) still baking: True
        after join() still baking: False
        a thread cannot join itself: cannot join current thread
        a thread cannot join a thread not started: cannot join thread before it is started
        """,
    "ch05_daemon.py": """
        daemons: ticker True - main False
        too late: cannot set daemon status of active thread
        the main thread ends
        the report is finished; the ticker is still alive: True
        """,
    "ch06_sleep.py": """
        no nap was cut short: True
        three naps took less than two in a row: True
        woken by the alarm: True - long before the timeout: True
        """,
    "ch07_locks.py": """
        without a lock: two withdrawals of 300 from 1000 leave 700
        with a lock:    two withdrawals of 300 from 1000 leave 400
        after the transfer: {'ann': 300, 'ben': 200}
        refused: ann has only 300 - the lock is free again: True
        the lock 'account' is held by MainThread - that is us: True
        waiting for it: 1
        """,
    "ch08_deadlock.py": """
        in one order: ['Ann', 'Ben'] have eaten
        with a timeout: ['Ann', 'Ben'] gave up and nobody hangs
        with detection: 1 thread got a DeadlockError, 1 has eaten
        the report is proven: True
          Ann held the knife and waited for the fork
          Ben held the fork and waited for the knife
        it says where, and what to do: True True
        """,
    "ch09_condition.py": """
        entries: 120 balance: 0
        in turns: True
        nobody deposits any more: False
        """,
    "ch10_queues.py": """
        Queue         [3, 1, 2]
        LifoQueue     [2, 1, 3]
        PriorityQueue [1, 2, 3]
        pages read: 15 - each once: True
        Ann's in order: True
        full
        full
        empty
        put: 5 got: [0, 1, 2] then: [3, 4]
        """,
    "ch11_event.py": """
        before the signal: 0 runners have left
        after the signal: ['Ann', 'Ben', 'Cleo'] have left
        set: True - a late wait returns at once: True
        cleared: wait(timeout=0.02) returns False
        ping pong ping pong ping pong
        """,
    "ch12_thread_pool.py": """
        rye running: True - spelt running: False - spelt done: False
        cancel rye: False - cancel spelt: True True
        True True
        after the end of the pool: cannot schedule new futures after shutdown
        callbacks: [45, 4950]
        map: [1024, 27, 16]
        exception: ValueError
        taken: 2 - 2 tasks wait for a worker already
        asked to stop: True
        ended by CancelledError
        its time was up: DeadlineExceeded
        the pool goes on
        logged: ['ValueError'] True
        """,
    "ch13_local.py": """
        ['Ann: done', 'Ben: done', 'Cleo: done']
        the main thread has a user: False
        counted: [11, 12, 13] - in the main thread: 10
        """,
    "ch14_timer.py": """
        pending: True - a Timer is a Thread: True
        fired: True - alive: False
        cancelled: alive: False
        ticks: [1, 2, 3]
        pending timers: 10000 - threads of the process below 10: True
        pending timers: 0
        """,
    "ch15_sched.py": """
        events: 5
         8.0 h  work
        12.0 h  bell, priority 1
        12.0 h  lunch, priority 2
        12.0 h  dessert, priority 2, entered later
        left: True
        an event that is gone cannot be cancelled: ValueError
        hours between rounds: [2.0, 2.0]
        on the real clock: [0.02, 0.04, 0.06]
        """,
    "ch16_fork.py": """
        child:  fork() gave 0, the counter is 101
        parent: the child ended with 3 and the counter is 1
        child:  threads ['MainThread']
        parent: threads ['MainThread', 'helper']
        parent: the child says forty-two
        """,
    "ch17_process.py": """
        before start: False None None
        after join:   False True 0
        result: ('clerk', 6)
        sum by exit code: 6
        introduces itself: ('child', True, 'MainProcess', True)
        still there: True ['sleeper']
        waiter: blocked in Process.join for sleeper
        ended by SIGTERM
        """,
    "ch18_start_methods.py": """
        set: warm
        again: context has already been set
        not said   a server's child note: as the file says
        fork       my child         note: changed by the parent
        spawn      my child         note: as the file says
        forkserver a server's child note: as the file says
        warm       a server's child note: as the file says
        a lambda: True
        warm is quicker than spawn: True
        """,
    "ch19_how_many.py": """
        1 ms computing and  0 ms waiting, 4 cores: 4 threads
        1 ms computing and  1 ms waiting, 4 cores: 8 threads
        1 ms computing and  9 ms waiting, 4 cores: 40 threads
        1 ms computing and 99 ms waiting, 4 cores: 400 threads
        ask: 20 done, 0 failed, 0 pending
        compute: 20 done, 0 failed, 0 pending
        asking waits most of its time: True
        it wants more workers than computing: True
        eight threads took less than that: True
        the same results: True
        threads computed here: True
        processes did elsewhere: True
        the pool has grown: True - within its bounds: True
        """,
    "ch20_process_pool.py": """
        apply: [1, 2, 4, 7, 14, 28]
        map: [1, 2, 2, 3, 2, 4, 2, 4, 3, 4]
        starmap: ['2 x 3 = 6', '4 x 5 = 20']
        in another process: True
        vowels in 'threads': 2 - words: 19
        callbacks: [0, 1, 2, 4, 5] - [ValueError('not this one')]
        the others: [[1, 2, 3, 6], [1, 2, 3, 4, 6, 12], [1, 7], [1, 3, 9]]
        the one: accident ended by SIGKILL
        afterwards: [1, 2, 3]
        """,
    "ch22_process_pool.py": """
        primes below 20,000: 2262
        map: [25, 21]
        died: die SIGKILL True
        beside it: 168
        tried again: the second time
        took too long
        stopped: True
        cancelled while it ran
        and still: 25
        """,
    "ch22_futures.py": """
        /         4000 bytes
        /rust     8000 bytes
        /python  18000 bytes
        the same pages: True - sooner: True
        asked for: ['/', '/rust', '/python']
        arrived:   ['/python', '/', '/rust']
        done: True - not done: True
        late: TimeoutError - done: False
        in the end: ('/slow', 100)
        missing: True 404
        state: False False False
        callback: hello
        state: True hello
        awaited: 8000 [4000, 4000]
        """,
    "ch21_queue_and_pipe.py": """
        list: []
        queue: ['saw the garden', 'saw the kitchen']
        translated: {'one': 'eins', 'three': 'drei', 'two': 'zwei'}
        answer: HELLO
        answer: ANY NEWS?
        within five seconds: True b'goodbye'
        the other end is closed
        """,
}

TOUR = ("tour_deadlock.py", "tour_stall.py")


def run(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=TIME_LIMIT,
    )


def lines(text):
    """The text without the margin that all its lines have."""
    margin = re.match(r"\n( *)", text)[1]
    return [line.removeprefix(margin) for line in text.strip("\n").splitlines()[:-1]]


@pytest.mark.parametrize("under", [(), ("-m", "raddle", "run")], ids=["python", "raddle run"])
@pytest.mark.parametrize("name", PRINTED)
def test_prints_what_it_promises(name, under):
    done = run(*under, EXAMPLES / name)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.splitlines() == lines(PRINTED[name])


def test_every_chapter_has_one():
    files = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert files == sorted([*PRINTED, *TOUR])
    assert [int(name[2:4]) for name in sorted(PRINTED)] == CHAPTERS


@pytest.mark.parametrize("name", [*PRINTED, *TOUR])
def test_says_what_it_shows_and_how_to_run_it(name):
    text = ast.get_docstring(ast.parse((EXAMPLES / name).read_text(encoding="utf-8")))
    assert f"examples/{name}" in text
    if name in PRINTED:
        assert text.startswith(f"Chapter {int(name[2:4])}: ")
        assert "Shows" in text or "An account that" in text


def place(name, code):
    """File and line of the only line that reads so, as tracebacks write it."""
    source = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    (number,) = [n for n, line in enumerate(source, 1) if line.strip() == code]
    return f'{name}", line {number}'


def test_tour_deadlock():
    """One transfer is refused, the other is made, and the report says who, where, and what to do."""
    done = run("-m", "raddle", "run", EXAMPLES / "tour_deadlock.py")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"has paid", done.stdout)) == 1
    assert re.search(r"^balances: (70 130|150 50)$", done.stdout, re.M)
    assert "DeadlockError" in done.stderr and "raddle: stall" not in done.stderr
    for words in ("Ann-to-Ben", "Ben-to-Ann"):
        assert words in done.stderr
    for code in ("with payer.lock:", "with payee.lock:"):
        assert place("tour_deadlock.py", code) in done.stderr


def test_tour_stall():
    done = run("-m", "raddle", "run", "--on-stall", "exit", EXAMPLES / "tour_stall.py")
    assert done.returncode == 75, (done.stdout, done.stderr)
    assert done.stdout == "the shop is closed\n"
    assert "stall" in done.stderr.lower() and "DeadlockError" not in done.stderr
    assert re.search(r"packer-[12]", done.stderr) and "Queue.get" in done.stderr
    assert place("tour_stall.py", "while (number := orders.get()) is not CLOSED:") in done.stderr


@pytest.mark.parametrize("name", TOUR)
def test_tour_is_plain(name):
    """These programs show what happens to code that knows nothing of raddle."""
    tree = ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= {"threading", "queue"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
