"""Runs a program under `python` and under `raddle run`, in processes of their own with a time limit."""

import os
import re
import signal
import subprocess
import sys
from typing import NamedTuple

import tools

#: Bytecode would make the second run of a module differ from the first; a time zone or locale may not matter.
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"}
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)

RADDLE_RUN = ("-m", "raddle", "run")


class Ended(NamedTuple):
    """What is left of a process."""

    code: int
    out: str
    err: str


def command_line(*arguments, options=(), under=()):
    return [sys.executable, *options, *under, *map(str, arguments)]


def run(command, *, stdin="", cwd=None, env=None, timeout=tools.DEADLINE, stdout=subprocess.PIPE):
    """Runs a command to its end; one that outlives the time limit dumps its stacks, and the test fails."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env={**ENVIRONMENT, **(env or {})},
        encoding="utf-8",
        errors="backslashreplace",
    )
    try:
        out, err = process.communicate(stdin, timeout)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        try:
            out, err = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
        raise AssertionError(f"{command} hangs\n--- stdout\n{out}\n--- stderr\n{err}") from None
    return Ended(process.returncode, out, err)


def python(*arguments, options=(), **how):
    """`python ARGUMENTS`."""
    return run(command_line(*arguments, options=options), **how)


def raddle_run(*arguments, options=(), **how):
    """`python -m raddle run ARGUMENTS`."""
    return run(command_line(*arguments, options=options, under=RADDLE_RUN), **how)


def raddle(*arguments, **how):
    """`python -m raddle ARGUMENTS`."""
    return run(command_line("-m", "raddle", *arguments), **how)


def same(*arguments, **how):
    """Runs both and compares everything but addresses; returns what they did."""
    expected, got = (_without_addresses(way(*arguments, **how)) for way in (python, raddle_run))
    assert got == expected, f"--- python\n{_shown(expected)}\n--- raddle run\n{_shown(got)}"
    return got


def _without_addresses(ended):
    return Ended(ended.code, *(text and re.sub(r"\b0x[0-9a-f]+", "0x...", text) for text in ended[1:]))


def _shown(ended):
    return f"exit {ended.code}\n{(ended.out or '')[-3000:]}\n{ended.err[-3000:]}"


class Talk:
    """A process that is spoken to while it runs: `with Talk(command) as talk: talk.wait_for("ready")`."""

    def __init__(self, command, **how):
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1", **how.pop("env", {})},
            **how,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def wait_for(self, line):
        """Reads standard output up to a line; the test's own time limit bounds it."""
        for got in self.process.stdout:
            if got.rstrip("\n") == line:
                return
        raise AssertionError(f"ended without {line!r}: {self.process.communicate()}")

    def end(self, timeout=tools.DEADLINE):
        out, err = self.process.communicate(timeout=timeout)
        return Ended(self.process.returncode, out, err)
