"""What `raddle run` does about a hang: its options, seen from outside."""

import signal

import pytest
from cli_processes import RADDLE_RUN, Talk, command_line, raddle_run

from tools import wait_until

#: Each thread holds one lock and waits for the other's, for certain. Lines count: the tests name some.
DEADLOCK = """\
import threading
left, right = threading.RLock(), threading.RLock()
each_has_one = threading.Barrier(2)
def work(first, second):
    with first:
        each_has_one.wait()
        with second:
            print("both", flush=True)
threads = [threading.Thread(target=work, args=pair, name=name)
           for name, pair in (("one", (left, right)), ("two", (right, left)))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("end", flush=True)
"""

#: Where the locks are taken, as tracebacks write it.
LINES = ('app.py", line 5', 'app.py", line 7')

DEADLOCK_OF_MAIN = DEADLOCK.replace(
    "    thread.start()\n",
    "    thread.start() if thread.name == 'one' else work(right, left)\n",
)

STALL = """\
import threading
print("begin", flush=True)
threading.Event().wait()
print("end", flush=True)
"""


@pytest.fixture
def app(tmp_path):
    def write(source):
        (tmp_path / "app.py").write_text(source)
        return tmp_path

    return write


class TestDeadlock:
    @pytest.mark.parametrize(
        "options", [[], ["--on-deadlock", "raise"], ["--on-deadlock=raise"]], ids=" ".join
    )
    def test_raise(self, options, app):
        """One thread gets the error, so the other can go on."""
        ended = raddle_run(*options, "app.py", cwd=app(DEADLOCK))
        assert (ended.code, ended.out) == (0, "both\nend\n"), ended.err
        assert "DeadlockError" in ended.err and "Exception in thread" in ended.err
        for word in ("one", "two", *LINES):
            assert word in ended.err
        assert "stall" not in ended.err, ended.err

    def test_raise_in_a_thread_or_in_the_main_thread(self, app):
        ended = raddle_run("app.py", cwd=app(DEADLOCK_OF_MAIN))
        assert "DeadlockError" in ended.err and "both\n" in ended.out
        if "Exception in thread" in ended.err:
            assert ended.code == 0 or "cannot join thread before it is started" in ended.err
        else:
            assert ended.code == 1 and ended.err.count("Traceback") == 1

    def test_report(self, app):
        """The threads stay blocked; the process lives until it is stopped."""
        folder = app(DEADLOCK)
        command = command_line("--on-deadlock", "report", "--report", "hang.txt", "app.py", under=RADDLE_RUN)
        with Talk(command, cwd=folder) as talk:
            report = folder / "hang.txt"
            wait_until(lambda: report.exists() and LINES[1] in report.read_text(), "the report is written")
            assert talk.process.poll() is None
            talk.process.send_signal(signal.SIGTERM)
            ended = talk.end()
        assert (ended.code, ended.out) == (-signal.SIGTERM, "")
        assert "DeadlockError" not in ended.err and LINES[1] not in ended.err

    def test_report_file_belongs_to_the_folder_of_the_start(self, app):
        """A program may go elsewhere."""
        folder = app("import os\nos.chdir('/')\n" + DEADLOCK)
        assert raddle_run("--report", "hang.txt", "app.py", cwd=folder).code == 0
        assert 'app.py", line 9' in (folder / "hang.txt").read_text()

    @pytest.mark.signals
    def test_interrupt(self, app):
        """Ctrl-C ends a deadlocked program as it ends any other."""
        folder = app(DEADLOCK_OF_MAIN)
        command = command_line("--on-deadlock", "report", "--report", "hang.txt", "app.py", under=RADDLE_RUN)
        with Talk(command, cwd=folder) as talk:
            report = folder / "hang.txt"
            wait_until(lambda: report.exists() and LINES[1] in report.read_text(), "the report is written")
            talk.process.send_signal(signal.SIGINT)
            ended = talk.end()
        assert ended.code == -signal.SIGINT, ended
        assert ended.err.endswith("KeyboardInterrupt\n"), ended.err


class TestStall:
    def test_exit(self, app):
        ended = raddle_run("--on-stall", "exit", "app.py", cwd=app(STALL))
        assert (ended.code, ended.out) == (75, "begin\n"), ended.err
        assert "stall" in ended.err.lower() and "MainThread" in ended.err and 'app.py", line 3' in ended.err

    @pytest.mark.parametrize("options", [[], ["--on-stall", "report"]], ids=" ".join)
    def test_report(self, options, app):
        folder = app(STALL)
        command = command_line(*options, "--report", "hang.txt", "app.py", under=RADDLE_RUN)
        with Talk(command, cwd=folder) as talk:
            talk.wait_for("begin")
            report = folder / "hang.txt"
            wait_until(
                lambda: report.exists() and 'app.py", line 3' in report.read_text(), "the report is written"
            )
            assert talk.process.poll() is None
            talk.process.kill()
            ended = talk.end()
        assert (ended.out, ended.err) == ("", "")

    @pytest.mark.parametrize(
        "wait",
        [
            "import os; os.read(0, 1)",
            "import signal; signal.pause()",
            "import time; time.sleep(1000)",
            "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import sys; sys.stdin.read()'])",
        ],
    )
    def test_other_waiting_is_no_stall(self, wait, app):
        """The main thread would set the event after some input, a signal, a sleep, or a child's end."""
        source = (
            "import threading\n"
            "event = threading.Event()\n"
            "threading.Thread(target=event.wait, daemon=True).start()\n"
            f"print('ready', flush=True)\n{wait}\nevent.set()\n"
        )
        command = command_line("--on-stall", "exit", "app.py", under=RADDLE_RUN)
        with Talk(command, cwd=app(source)) as talk:
            talk.wait_for("ready")
            with pytest.raises(Exception, match="timed out"):
                talk.process.wait(timeout=3)  # three times the time in which a hang is reported
            talk.process.kill()
            assert talk.end().err == ""


def test_program_that_does_not_hang_is_not_reported(app):
    source = """\
import queue, threading
q = queue.Queue(1)
lock = threading.RLock()
def put():
    for i in range(200):
        with lock:
            pass
        q.put(i)
    q.put(None)
threading.Thread(target=put).start()
count = 0
while q.get() is not None:
    count += 1
print(count)
"""
    assert raddle_run("--on-stall", "exit", "app.py", cwd=app(source)) == (0, "200\n", "")


def test_reports_do_not_pollute_standard_output(app):
    ended = raddle_run("--on-stall", "exit", "app.py", cwd=app(STALL), env={"PYTHONUNBUFFERED": "1"})
    assert ended.out == "begin\n" and "stall" in ended.err.lower()
