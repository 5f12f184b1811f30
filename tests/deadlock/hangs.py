"""Runs programs that hang, or must not be said to, in child processes: what they reported, and when."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import tools

#: A hang has to be reported so many seconds after the wait that closes it has begun.
IN_TIME = 1.0

#: Seconds that a program which must not be accused is watched: well beyond the last look of a waiter (0.8 s).
WATCHED = 2.5

_HERE = os.path.dirname(os.path.abspath(__file__))

#: The first line of every program.
PRELUDE = "from hang_child import *\n"


class Pipe:
    """The lines of a child's pipe, each with the moment of its arrival."""

    def __init__(self, file):
        self.lines = []
        self.thread = threading.Thread(target=self._read, args=(file,), daemon=True)
        self.thread.start()

    def _read(self, file):
        for line in file:
            self.lines.append((time.monotonic(), line))

    @property
    def text(self):
        return "".join(line for _, line in self.lines)

    def first(self, pattern):
        """Arrival and match of the first line with the pattern, or None."""
        for moment, line in list(self.lines):
            if match := re.search(pattern, line):
                return moment, match
        return None


class App:
    """A program in a child process: `with App(folder, source) as app: ...`. It is killed at the end if it lives."""

    def __init__(self, folder, source, options=None, *, under=(), env=None):
        self.path = os.path.join(folder, "app.py")
        self.source = source
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(source)
        path = os.pathsep.join(filter(None, [_HERE, os.path.dirname(_HERE), os.environ.get("PYTHONPATH")]))
        environment = {
            **tools.child_environment(),
            "PYTHONPATH": path,
            "PYTHONIOENCODING": "utf-8",
            **(env or {}),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", *under, self.path, json.dumps(options or {})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            env=environment,
            cwd=folder,
        )
        self.out, self.err = Pipe(self.process.stdout), Pipe(self.process.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.out, self.err):
            pipe.thread.join()
        self.process.stdin.close()

    def __str__(self):
        numbered = "".join(f"{number:4} {line}\n" for number, line in enumerate(self.source.splitlines(), 1))
        said = f"--- stdout\n{self.out.text}\n--- stderr\n{self.err.text}"
        return f"exit {self.process.poll()}\n{said}\n--- app.py\n{numbered}"

    def line(self, comment):
        """The number of the line that ends in this comment."""
        found = [n for n, line in enumerate(self.source.splitlines(), 1) if line.endswith(f"# {comment}")]
        assert len(found) == 1, f"{len(found)} lines end in # {comment}"
        return found[0]

    def at(self, comment):
        """The same, as reports have it."""
        return f"{self.path}:{self.line(comment)}"

    def name(self, comment):
        """The name of what the line makes."""
        return f"app.py:{self.line(comment)}"

    def wait_for(self, pattern, *, err=False, timeout=None):
        """Waits for a line; returns when it came, and the match."""
        pipe = self.err if err else self.out

        def look():
            if found := pipe.first(pattern):
                return found
            if self.process.poll() is not None:
                pipe.thread.join()
                return pipe.first(pattern) or "ended"
            return None

        try:
            found = tools.wait_until(look, f"{pattern!r} is printed", timeout)
        except AssertionError as error:
            self.process.send_signal(signal.SIGABRT)
            self.err.thread.join(5)
            raise AssertionError(f"{error}\n{self}") from None
        assert found != "ended", f"ended without {pattern!r}\n{self}"
        return found

    def end(self, code=0, timeout=tools.DEADLINE):
        """Waits for the end of the program."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.err.thread.join(5)
            raise AssertionError(f"does not end\n{self}") from None
        for pipe in (self.out, self.err):
            pipe.thread.join()
        assert self.process.returncode == code, str(self)

    def told(self):
        """What `tell()` of the program told."""
        return json.loads(self.wait_for("^told (.*)")[1][1])

    def closed(self):
        """When the closing wait began, on this machine's monotonic clock."""
        return float(self.wait_for("^closing (.*)")[1][1])

    def check_in_time(self, pattern="^raddle: "):
        """The first report came within a second of the closing wait."""
        late = self.wait_for(pattern, err=True)[0] - self.closed()
        assert 0 <= late < IN_TIME, f"{late:.3f} s late\n{self}"

    def check_lives_in_silence(self, seconds=WATCHED):
        """It still runs after so many seconds, and has not said a word on standard error."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            assert self.err.text == "", str(self)
        else:
            raise AssertionError(f"has ended\n{self}")


def reports_in(text):
    """The first lines of the reports in a text."""
    return re.findall(r"^raddle: .*", text, re.M)
