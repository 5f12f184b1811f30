"""The command line itself: help, options, and what it says when it cannot be understood."""

import os
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
from cli_processes import command_line, raddle, raddle_run, run


def fails(ended, *words, code=2):
    """One line that says what is wrong, and no traceback."""
    assert ended.code == code and ended.out == "", ended
    assert "Traceback" not in ended.err
    first = ended.err.splitlines()[0]
    assert all(word in first for word in words), first
    return ended


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["-h"], ["help"], ["run", "--help"], ["run", "-h"]], ids=" ".join
)
def test_help(arguments):
    ended = raddle(*arguments)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("usage: raddle run [options] PROGRAM [arguments]\n")
    for option in ("--on-deadlock", "--on-stall", "--report", "--explain", "-m module", "-c code"):
        assert option in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


def test_version():
    assert raddle("--version") == (0, f"raddle {metadata.version('raddle')}\n", "")


def test_script():
    """The installed command does what `python -m raddle` does."""
    script = Path(sysconfig.get_path("scripts")) / "raddle"
    assert run([script, "--version"]) == raddle("--version")
    assert run([script, "run", "-c", "import sys; print(sys.argv); sys.exit(3)", "x"]) == (
        3,
        "['-c', 'x']\n",
        "",
    )
    interrupted = "raise KeyboardInterrupt"
    assert run([script, "run", "-c", interrupted]) == run(command_line("-c", interrupted))


@pytest.mark.parametrize("name", ["types", "typing", "runpy", "queue"])
def test_script_beside_namesakes(name, tmp_path):
    """Nothing is imported from the current folder that the program does not ask for."""
    script = Path(sysconfig.get_path("scripts")) / "raddle"
    (tmp_path / f"{name}.py").write_text("raise SystemExit('a namesake was imported')\n")
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "app.py").write_text(f"import {name}\nprint({name}.__name__)\n")
    assert run([script, "run", "program/app.py"], cwd=tmp_path) == (0, f"{name}\n", "")


class TestErrors:
    def test_missing_file(self, tmp_path):
        expected = f"raddle: can't open file '{tmp_path}/no.py': [Errno 2] No such file or directory\n"
        assert raddle_run("no.py", cwd=tmp_path) == (2, "", expected)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_unreadable_file(self, tmp_path):
        (tmp_path / "app.py").touch(mode=0)
        fails(raddle_run("app.py", cwd=tmp_path), "raddle: can't open file", "[Errno 13]")

    def test_missing_module(self):
        fails(raddle_run("-m", "no_such_module"), "No module named no_such_module", code=1)

    def test_no_program(self):
        fails(raddle_run(), "no program given")
        fails(raddle_run("--explain"), "no program given")
        fails(raddle_run("--"), "no program given")

    @pytest.mark.parametrize(
        "given, meant",
        [
            ("--on-deadlok", "--on-deadlock"),
            ("--onstall", "--on-stall"),
            ("--explan", "--explain"),
            ("--reports=x", "--report"),
        ],
    )
    def test_unknown_option(self, given, meant):
        fails(
            raddle_run(given, "app.py"),
            f"unknown option '{given.partition('=')[0]}'",
            f"did you mean '{meant}'?",
        )

    def test_unknown_option_like_no_other(self):
        ended = fails(raddle_run("--xyz", "app.py"), "unknown option '--xyz'")
        assert "did you mean" not in ended.err

    def test_option_of_the_interpreter(self):
        fails(raddle_run("-u", "app.py"), "unknown option '-u'", "python -u -m raddle run")

    @pytest.mark.parametrize("option", ["--on-deadlock", "--on-stall", "--report"])
    def test_option_without_value(self, option):
        fails(raddle_run(option), f"{option} needs a value")
        fails(raddle_run(f"{option}=", "app.py"), f"{option} cannot be ''")

    @pytest.mark.parametrize("kind", ["-m", "-c"])
    def test_kind_without_program(self, kind):
        fails(raddle_run(kind), f"{kind} needs")

    def test_wrong_value(self):
        fails(
            raddle_run("--on-deadlock", "rais", "app.py"),
            "cannot be 'rais'",
            "raise or report",
            "did you mean 'raise'?",
        )
        fails(raddle_run("--on-stall=raise", "app.py"), "cannot be 'raise'", "report or exit")

    def test_unknown_command(self):
        fails(raddle("rum", "app.py"), "unknown command 'rum'", "did you mean 'run'?")
        fails(raddle("app.py"), "unknown command 'app.py'", "raddle run app.py")
        fails(raddle("--vresion"), "unknown option '--vresion'", "did you mean '--version'?")

    def test_report_that_cannot_be_written(self, tmp_path):
        ended = raddle_run("--report", "no/such/folder", "-c", "print(1)", cwd=tmp_path)
        fails(ended, "cannot write reports to 'no/such/folder'", "[Errno 2]")

    def test_unsupported_python(self):
        """The check must not need what it checks for: here it is told another version."""
        program = (
            "import sys; sys.version_info = (3, 10, 13, 'final', 0); import raddle.cli; "
            "sys.exit(raddle.cli.main(['run', 'app.py']))"
        )
        fails(run(command_line("-c", program)), "raddle needs CPython 3.11 or later; this is", sys.executable)

    def test_other_implementation(self):
        program = (
            "import sys; sys.implementation.name = 'pypy'; import raddle.cli; "
            "sys.exit(raddle.cli.main(['run', 'app.py']))"
        )
        fails(run(command_line("-c", program)), "raddle needs CPython 3.11 or later; this is pypy")

    def test_extension_that_cannot_be_loaded(self, tmp_path):
        """The sentence names the next step."""
        program = (
            "import sys; sys.modules['raddle._raddle'] = None; import raddle.cli; "
            "sys.exit(raddle.cli.main(['run', '-c', 'print(1)']))"
        )
        ended = fails(run(command_line("-c", program)), "raddle's extension cannot be loaded", code=1)
        assert "pip install" in ended.err


class TestExplain:
    def test_lists_what_was_replaced(self):
        ended = raddle_run("--explain", "-c", "print('program')")
        assert (ended.code, ended.out) == (0, "program\n")
        lines = ended.err.splitlines()
        assert lines[0].startswith("raddle ") and "names of the standard library" in lines[0]
        later = lines.index("raddle will replace the names of these modules when they are imported:")
        for name in ("threading.Lock", "threading.Thread", "threading.Timer"):
            assert f"    {name}" in lines[:later]
        for name in ("queue", "sched", "concurrent.futures", "multiprocessing"):
            assert f"    {name}" in lines[later:]

    def test_lists_what_was_missed(self, tmp_path):
        """A module that the interpreter loads at its start, before anything else, cannot be reached."""
        (tmp_path / "sitecustomize.py").write_text("import early\n")
        (tmp_path / "early.py").write_text("from queue import Queue as Early\n")
        ended = raddle_run(
            "--explain",
            "-c",
            "",
            env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        )
        assert ended.code == 0
        assert "    early.Early is still queue.Queue: bound before install()" in ended.err.splitlines()

    def test_is_silent_otherwise(self):
        assert raddle_run("-c", "pass") == (0, "", "")
