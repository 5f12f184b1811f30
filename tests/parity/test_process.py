"""Processes: the same in the standard library and in raddle, with each start method."""

import multiprocessing as std
import multiprocessing.connection
import os
import signal
import subprocess
import sys

import process_programs as programs
import pytest

from tools import (
    DEADLINE,
    RADDLE,
    STDLIB,
    Implementation,
    Stopwatch,
    assert_matches,
    child_environment,
    wait_until,
    wait_until_blocked,
)

pytestmark = [
    pytest.mark.fork,
    # The tests' time limit is kept by a thread.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

SIDES = [(STDLIB, method) for method in ("fork", "spawn", "forkserver")]
SIDES += [(RADDLE, method) for method in ("fork", "spawn", "forkserver", "warm")]


@pytest.fixture(params=SIDES, ids=lambda side: f"{side[0]}-{side[1]}")
def side(request):
    return request.param


@pytest.fixture
def mp(side):
    return side[0].multiprocessing


@pytest.fixture
def method(side):
    return side[1]


@pytest.fixture
def context(mp, method):
    return mp.get_context(method)


@pytest.fixture
def pipe(mp):
    ends = mp.Pipe()
    yield ends
    for end in ends:
        end.close()


def receive(end):
    assert end.poll(DEADLINE)
    return end.recv()


class TestEnds:
    @pytest.mark.parametrize(
        ("how", "code"),
        [
            ("return", 0),
            ("exit", 7),
            ("exit nothing", 0),
            ("exit text", 1),
            ("raise", 1),
            ("interrupt", 1),
            ("_exit", 3),
            ("kill", -signal.SIGKILL),
            ("abort", -signal.SIGABRT),
        ],
    )
    def test_exit_code(self, context, method, how, code, capfd):
        child = context.Process(target=programs.end_by, args=(how,), name="Ann")
        assert child.exitcode is None
        child.start()
        child.join(DEADLINE)
        assert child.exitcode == code
        assert not child.is_alive()
        said = capfd.readouterr().err
        if method == "forkserver":
            return  # its children have the standard error that the server was started with
        if how == "raise":
            assert_matches(r"^Process Ann:\nTraceback", said)
            assert_matches(r"ValueError: no good\n$", said)
        elif how == "exit text":
            assert said == "that is all\n"
        elif how != "interrupt":
            assert said == ""

    @pytest.mark.parametrize(("way", "number"), [("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)])
    def test_by_signal(self, context, way, number):
        child = context.Process(target=programs.sleep)
        child.start()
        assert child.is_alive() and child.exitcode is None
        getattr(child, way)()
        child.join(DEADLINE)
        assert child.exitcode == -number
        getattr(child, way)()  # no harm

    def test_nothing_is_left(self, context):
        child = context.Process(target=programs.nothing)
        child.start()
        pid = child.pid
        child.join()
        child.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    def test_what_is_registered_for_the_exit(self, context, side, tmp_path):
        child = context.Process(target=programs.write_at_exit, args=(str(tmp_path / "file"),))
        child.start()
        child.join()
        text = (tmp_path / "file").read_text()
        if side[1] == "warm" or sys.version_info >= (3, 13) or side[1] == "spawn":
            assert text == "run exit"
        else:
            assert text == "run "


class TestJoin:
    def test_timeout(self, context):
        child = context.Process(target=programs.sleep)
        child.start()
        with Stopwatch() as watch:
            child.join(0.05)
        assert child.is_alive() and 0.04 < watch.seconds < 5
        child.join(0)
        child.join(-1)
        assert child.is_alive()
        child.kill()
        child.join(DEADLINE)
        assert not child.is_alive()

    def test_again(self, context):
        child = context.Process(target=programs.nothing)
        child.start()
        for _ in range(3):
            child.join(DEADLINE)
            assert child.exitcode == 0

    def test_not_started(self, context):
        with pytest.raises(AssertionError, match="can only join a started process"):
            context.Process().join()

    def test_start_twice(self, context):
        child = context.Process(target=programs.nothing)
        child.start()
        with pytest.raises(AssertionError, match="cannot start a process twice"):
            child.start()
        child.join()

    def test_sentinel(self, context):
        child = context.Process(target=programs.sleep)
        with pytest.raises(ValueError, match="process not started"):
            _ = child.sentinel
        child.start()
        assert multiprocessing.connection.wait([child.sentinel], 0.02) == []
        child.kill()
        assert multiprocessing.connection.wait([child.sentinel], DEADLINE) == [child.sentinel]
        child.join()

    def test_close(self, context):
        child = context.Process(target=programs.sleep)
        child.start()
        with pytest.raises(ValueError, match="Cannot close a process while it is still running"):
            child.close()
        child.kill()
        child.join()
        child.close()
        child.close()
        for ask in (child.join, child.is_alive, child.terminate, child.start, lambda: child.exitcode):
            with pytest.raises(ValueError, match="process object is closed"):
                ask()


class TestObject:
    def test_arguments(self, context, pipe):
        child = context.Process(None, programs.tell, None, (pipe[1], 1, "two"), {"three": 3})
        child.start()
        assert receive(pipe[0]) == ((1, "two"), {"three": 3})
        child.join()

    def test_attributes(self, context, mp):
        child = context.Process(name="Ben", daemon=True)
        assert (child.name, child.daemon, child.pid, child.ident) == ("Ben", True, None, None)
        child.name = "Bob"
        assert_matches(r"^<\w*Process name='Bob' parent=\d+ initial daemon>$", repr(child))
        child.start()
        assert child.pid == child.ident > 0
        with pytest.raises(AssertionError, match="process has already started"):
            child.daemon = False
        child.join()
        assert_matches(r"^<\w*Process name='Bob' pid=\d+ parent=\d+ stopped exitcode=0 daemon>$", repr(child))
        assert isinstance(child, std.process.BaseProcess)
        assert not mp.current_process().daemon

    def test_names(self, context):
        one, other = context.Process(), context.Process()
        kind = type(one).__name__
        assert_matches(rf"^{kind}-\d+$", one.name)
        assert int(other.name.rpartition("-")[2]) == int(one.name.rpartition("-")[2]) + 1

    def test_group(self, context):
        with pytest.raises(AssertionError, match="group argument must be None for now"):
            context.Process("group")

    def test_run_here(self, context):
        seen = []
        context.Process(target=seen.append, args=(1,)).run()
        assert seen == [1]

    def test_active_children(self, context, mp):
        child = context.Process(target=programs.sleep)
        child.start()
        assert child in mp.active_children()
        child.kill()
        wait_until(lambda: child not in mp.active_children(), "it is gone")

    def test_what_cannot_be_pickled(self, context, method):
        child = context.Process(target=lambda: None)
        if method == "fork":
            child.start()
            child.join()
            return
        before = os.listdir("/proc/self/fd")
        with pytest.raises(Exception, match="pickle"):
            child.start()
        assert len(os.listdir("/proc/self/fd")) <= len(before) + 2  # a tracker may have been started


class TestInside:
    def test_what_a_child_sees(self, side, method, pipe, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["program", "argument"])
        mp = side[0].multiprocessing
        child = mp.get_context(method).Process(
            target=programs.describe, args=(_Package(side[0].name), pipe[1]), name="Cleo"
        )
        child.start()
        seen = receive(pipe[0])
        child.join()
        assert seen == {
            "name": "Cleo",
            "pid": True,
            "daemon": False,
            "alive": True,
            "type": type(child).__name__,
            "identity": 1,
            "children": [],
            "parent name": "MainProcess",
            "parent pid": os.getpid(),
            "parent alive": True,
            "method": method,
            "path": sys.path,
            "argv": ["program", "argument"],
            "folder": str(tmp_path),
            "stdin": "",
            "interrupts": True,
        }

    def test_grandchildren(self, side, method, pipe):
        mp = side[0].multiprocessing
        child = mp.get_context(method).Process(
            target=programs.beget, args=(_Package(side[0].name), method, pipe[1])
        )
        child.start()
        assert receive(pipe[0]) == (("grandchild",), {})
        assert receive(pipe[0]) == 0
        child.join()
        assert child.exitcode == 0

    def test_daemons_have_no_children(self, side, context, pipe):
        child = context.Process(
            target=programs.beget_as_a_daemon, args=(_Package(side[0].name), pipe[1]), daemon=True
        )
        child.start()
        assert receive(pipe[0]) == "daemonic processes are not allowed to have children"
        child.join()

    def test_environment(self, context, method, pipe, monkeypatch):
        if method == "forkserver":
            pytest.skip("its children have the environment that the server was started with")
        monkeypatch.setenv("RADDLE_TEST_ENVIRONMENT", "first")
        for text in ("second", "third"):
            monkeypatch.setenv("RADDLE_TEST_ENVIRONMENT", text)
            child = context.Process(
                target=programs.tell_environment, args=("RADDLE_TEST_ENVIRONMENT", pipe[1])
            )
            child.start()
            assert receive(pipe[0]) == text
            child.join()


class _Package:
    """A package under test, in a child: modules cannot be pickled."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(Implementation(self._name).multiprocessing, name)


class TestTogether:
    def test_queue(self, context):
        results = context.Queue()
        children = [
            context.Process(target=programs.sum_up, args=(range(count), results)) for count in range(4)
        ]
        for child in children:
            child.start()
        assert sorted(results.get(timeout=DEADLINE) for _ in children) == [0, 0, 1, 3]
        for child in children:
            child.join(DEADLINE)
            assert child.exitcode == 0

    def test_lock_and_value(self, context):
        lock, total = context.Lock(), context.Value("i", 0, lock=False)
        children = [context.Process(target=programs.add_up, args=(lock, total, 200)) for _ in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join(DEADLINE)
        assert total.value == 600

    def test_barrier_and_event(self, context, pipe):
        barrier, event = context.Barrier(2), context.Event()
        child = context.Process(target=programs.meet, args=(barrier, event, pipe[1]))
        child.start()
        barrier.wait(DEADLINE)
        event.set()
        assert receive(pipe[0]) == "met"
        child.join()

    def test_many(self, context):
        children = [context.Process(target=programs.nothing) for _ in range(12)]
        for child in children:
            child.start()
        for child in children:
            child.join(DEADLINE)
        assert [child.exitcode for child in children] == [0] * 12


MAIN = """
import sys, time
{prelude}

class Clerk(mp.get_context(sys.argv[1]).Process):
    def __init__(self, work):
        super().__init__()
        self.work = work
    def run(self):
        print(self.work, __name__ == "__main__" or __name__ == "__mp_main__", flush=True)

def greet(name):
    time.sleep(0.1)
    print("hello", name, flush=True)

if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    clerk = Clerk("files")
    clerk.start()
    clerk.join()
    ctx.Process(target=time.sleep, args=(1000,), daemon=True).start()
    ctx.Process(target=greet, args=("Dora",)).start()
    print("the end", flush=True)
"""


class TestPrograms:
    """Whole programs: functions and classes of `__main__`, and the interpreter's exit with children alive."""

    def program(self, tmp_path, side, text=MAIN):
        path = tmp_path / "program.py"
        path.write_text(text.format(prelude=f"import {side[0]._root}multiprocessing as mp"))
        return path

    def run(self, path, *argv):
        return subprocess.run(
            [sys.executable, str(path), *argv],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            env=child_environment(),
        )

    def test_functions_of_main_and_the_exit(self, side, method, tmp_path):
        done = self.run(self.program(tmp_path, side), method)
        assert (done.stdout, done.stderr, done.returncode) == (
            "files True\nthe end\nhello Dora\n",
            "",
            0,
        )

    def test_one_that_forgot_to_ask(self, side, method, tmp_path):
        """Without `if __name__ == "__main__"` a child that runs `__main__` anew says what is wrong, and ends."""
        if method == "fork":
            pytest.skip("a forked child does not run it")
        text = (
            "{prelude}\ndef f(): pass\n"
            f'p = mp.get_context("{method}").Process(target=f)\np.start()\np.join()\nprint(p.exitcode)\n'
        )
        done = self.run(self.program(tmp_path, side, text))
        assert done.stdout == "1\n" and done.returncode == 0
        assert "before the\n        current process has finished its bootstrapping phase" in done.stderr

    def test_start_method_is_set(self, side, method, tmp_path):
        text = """
{prelude}
def tell():
    print(mp.get_start_method(), type(mp.current_process()).__name__, flush=True)
if __name__ == "__main__":
    import sys
    mp.set_start_method(sys.argv[1])
    try:
        mp.set_start_method("fork")
    except RuntimeError as error:
        print(error)
    child = mp.Process(target=tell)
    child.start()
    child.join()
    # A default that the standard library does not know is no trouble for children of another kind.
    child = mp.get_context("spawn").Process(target=tell)
    child.start()
    child.join()
"""
        done = self.run(self.program(tmp_path, side, text), method)
        assert done.stderr == ""
        assert done.stdout.splitlines() == [
            "context has already been set",
            f"{method} Process",
            "spawn SpawnProcess",
        ]


class TestBeyond:
    """What only raddle has."""

    @pytest.fixture(params=["fork", "spawn", "forkserver", "warm"])
    def context(self, request):
        return RADDLE.multiprocessing.get_context(request.param)

    def test_a_grandchild_does_not_hold_up_a_join(self, context, pipe):
        child = context.Process(target=programs.leave_a_grandchild, args=(pipe[1],))
        child.start()
        assert receive(pipe[0]) == "left"
        with Stopwatch() as watch:
            child.join(10)
        assert child.exitcode == 0 and watch.seconds < 5

    @pytest.fixture
    def pipe(self):
        return RADDLE.multiprocessing.Pipe()

    def test_where_it_was_started(self, context):
        child = context.Process(target=programs.nothing)
        child.start()
        child.join()
        assert_matches(r"test_process\.py:\d+$", child.started_at)

    def test_a_thread_that_joins_says_so(self, context):
        child = context.Process(target=programs.sleep)
        child.start()
        thread = RADDLE.threading.Thread(target=child.join)
        thread.start()
        wait_until_blocked(thread)
        state = thread.state
        assert state == "blocked"
        assert (state.kind, state.on) == ("Process.join", child)
        child.kill()
        thread.join(DEADLINE)
        assert not thread.is_alive()


class TestFrozenChildren:
    """New interpreters leave what they load before the program out of collections."""

    @pytest.fixture
    def told(self):
        def told(target, method="spawn"):
            ours, theirs = RADDLE.multiprocessing.Pipe()
            child = RADDLE.multiprocessing.get_context(method).Process(target=target, args=(theirs,))
            child.start()
            found = receive(ours)
            child.join(DEADLINE)
            assert child.exitcode == 0
            return found

        return told

    def test_the_programs_own_is_collected(self, told):
        frozen, enabled, there, collected, tracked = told(programs.tell_of_collector)
        assert frozen > 5000
        assert (enabled, there, collected, tracked) == (True, True, True, True)

    @pytest.mark.parametrize("method", ["fork", "forkserver"])
    def test_no_other_children(self, told, method):
        assert told(programs.tell_of_collector, method)[0] < 1000  # 3.12 has some from the beginning

    def test_where_raddle_is_installed(self):
        """Children install it; of those that a server forks, nothing is frozen."""
        text = f"""
import sys
sys.path.append({os.path.dirname(__file__)!r})
import raddle
raddle.install()
import multiprocessing, process_programs
for method in ("spawn", "forkserver"):
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context(method)
    child = context.Process(target=process_programs.tell_of_collector, args=(theirs,))
    child.start()
    frozen, *rest = ours.recv()
    print(method, frozen > 5000, *rest)
    child.join()
"""
        command = [sys.executable, "-c", text]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
        expected = "spawn True True True True True\nforkserver False True True True True\n"
        assert (done.stdout, done.stderr) == (expected, "")

    def test_nothing_is_left_in_main(self):
        """A program without a file keeps the command's module as its `__main__`."""
        text = f"""
import sys
sys.path.append({os.path.dirname(__file__)!r})
import process_programs
from raddle.multiprocessing import Pipe, get_context
ours, theirs = Pipe()
child = get_context("spawn").Process(target=process_programs.tell_names_of_main, args=(theirs,))
child.start()
print(ours.recv())
child.join()
"""
        command = [sys.executable, "-c", text]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert (done.stdout, done.stderr) == ("['spawn_main']\n", "")

    def test_a_frozen_programs_command_is_left(self, monkeypatch):
        spawn = RADDLE.multiprocessing.spawn
        monkeypatch.setattr(sys, "frozen", True, raising=False)
        line = spawn.get_command_line(tracker_fd=3, pipe_handle=4)
        assert line == spawn._get_command_line(tracker_fd=3, pipe_handle=4)
        assert line[1:] == ["--multiprocessing-fork", "tracker_fd=3", "pipe_handle=4"]
