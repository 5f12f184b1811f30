"""`raddle run` behaves as `python`: the same program, both ways, must print the same and end the same."""

import signal
import textwrap
import zipfile

import pytest
from cli_processes import RADDLE_RUN, Talk, command_line, python, raddle_run, same

from tools import wait_until_blocked

PROGRAMS = {
    "arguments": """
        import sys
        print(sys.argv[1:], sys.flags)
    """,
    "namespace": """
        '''The docstring.'''
        import sys
        print(list(globals()), __doc__)
        print(__name__, __package__, __spec__, __annotations__, __builtins__)
        print(globals().get("__file__"), globals().get("__cached__"), type(__loader__), sys.path[0])
        print(getattr(__loader__, "name", None), getattr(__loader__, "path", None))
        print(sys.modules["__main__"].__dict__ is globals())
    """,
    "main_is_importable": """
        import __main__
        x = 1
        print(__main__.x, __main__)
    """,
    "no_future_leaks_in": """
        def f(x: print("annotations are evaluated")): pass
        print(f.__annotations__)
    """,
    "exception": """
        def f():
            raise ValueError("broken")
        f()
    """,
    "exception_chain": """
        def f():
            try:
                {}["key"]
            except KeyError as error:
                raise RuntimeError("second") from error
        try:
            f()
        except RuntimeError:
            raise OSError(2, "third")
    """,
    "exception_group": """
        def f():
            raise ValueError(1)
        try:
            f()
        except ValueError as error:
            raise ExceptionGroup("several", [error, TypeError(2)])
    """,
    "exception_with_note": """
        error = LookupError("x")
        error.add_note("a note")
        raise error
    """,
    "exception_in_import": "import no_such_module_here",
    "exception_in_callback": "sorted([2, 1], key=lambda x: x.nothing)",
    "exception_shown_by_hand": """
        import traceback
        try:
            1 / 0
        except ZeroDivisionError:
            traceback.print_exc()
    """,
    "syntax_error": "x = 1\nif x\n    pass\n",
    "indentation_error": "if 1:\npass\n",
    "syntax_error_in_compile": "compile('a b', 'name', 'exec')",
    "exit_number": "import sys; sys.exit(3)",
    "exit_big_number": "import sys; sys.exit(256 + 7)",
    "exit_negative": "import sys; sys.exit(-1)",
    "exit_text": "import sys; sys.exit('a last word')",
    "exit_none": "import sys; sys.exit(None)",
    "exit_object": "import sys; sys.exit(['an', 'object'])",
    "exit_subclass": """
        class Leave(SystemExit): pass
        raise Leave(5)
    """,
    "exit_quit": "quit(4)",
    "exit_at_once": "import os; print('lost?', flush=True); os._exit(9)",
    "exit_in_thread": """
        import sys, threading
        t = threading.Thread(target=sys.exit, args=(3,))
        t.start(); t.join()
        print("unharmed")
    """,
    "interrupt": """
        def f():
            raise KeyboardInterrupt
        f()
    """,
    "interrupt_subclass": """
        class Stop(KeyboardInterrupt): pass
        raise Stop("only the class itself ends a process by SIGINT")
    """,
    "threads_counted": """
        import _thread, os, threading
        gate, counts = threading.Event(), []
        count = lambda: counts.append((_thread._count(), threading.active_count()))
        count()
        threads = [threading.Thread(target=gate.wait) for _ in range(3)]
        for thread in threads: thread.start()
        count()
        timer = threading.Timer(0, count)
        timer.start(); timer.join()
        inside = threading.Thread(target=count)
        inside.start(); inside.join()
        gate.set()
        for thread in threads: thread.join()
        if os.fork() == 0:
            last = threading.Thread(target=count)
            last.start(); last.join()
            print(counts)
            os._exit(0)
        os.wait()
        print(counts)
    """,
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "excepthook": """
        import sys, traceback
        def hook(kind, value, trace):
            print(kind, value, [frame.name for frame in traceback.extract_tb(trace)], sys.exc_info())
        sys.excepthook = hook
        def f():
            raise ValueError("seen by the hook")
        f()
    """,
    "excepthook_fails": """
        import sys
        def hook(*args):
            raise RuntimeError("the hook itself")
        sys.excepthook = hook
        raise ValueError("the program")
    """,
    "excepthook_exits": """
        import sys
        sys.excepthook = lambda *args: sys.exit(11)
        raise ValueError
    """,
    "excepthook_missing": """
        import sys
        del sys.excepthook
        raise ValueError
    """,
    "excepthook_none": """
        import sys
        sys.excepthook = None
        raise ValueError
    """,
    "excepthook_of_interrupt": """
        import atexit, sys
        def hook(kind, value, trace):
            print("hook", kind, trace.tb_lineno)
        sys.excepthook = hook
        atexit.register(lambda: print(sys.excepthook is hook, sys.last_type, sys.last_value.args))
        raise KeyboardInterrupt("text")
    """,
    "last_exception": """
        import atexit, sys
        def last():
            print(sys.last_type, sys.last_value, sys.last_traceback.tb_lineno)
            print(getattr(sys, "last_exc", None) is (sys.last_value if sys.version_info >= (3, 12) else None))
        atexit.register(last)
        raise ValueError("remembered")
    """,
    "end_in_order": """
        import atexit, threading, time
        atexit.register(print, "atexit")
        class Last:
            def __del__(self): print("globals cleared")
        last = Last()
        go = threading.Event()
        def work():
            go.wait()
            threading.main_thread().join()
            print("thread", threading.main_thread().is_alive())
        threading.Thread(target=work).start()
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        print("main ends")
        go.set()
    """,
    "end_in_order_after_failure": """
        import atexit, threading
        atexit.register(print, "atexit")
        main_ends = threading.Event()
        def work():
            main_ends.wait()
            threading.main_thread().join()
            print("thread")
        threading.Thread(target=work).start()
        main_ends.set()
        raise ValueError("main fails")
    """,
    "file_name_at_the_end": """
        import atexit, sys
        atexit.register(lambda: print("__file__" in globals(), "__cached__" in globals()))
        if len(sys.argv) > 99: sys.exit()
    """,
    "file_name_after_exit": """
        import atexit, sys
        atexit.register(lambda: print("__file__" in globals(), "__cached__" in globals()))
        sys.exit(1)
    """,
    "file_name_after_failure": """
        import atexit, sys
        atexit.register(lambda: print("__file__" in globals(), "__cached__" in globals()))
        raise ValueError
    """,
    "failure_in_atexit": """
        import atexit
        def f(): raise ValueError("late")
        atexit.register(f)
    """,
    "deprecation_in_main": """
        import warnings
        warnings.warn("shown in __main__ only", DeprecationWarning)
        def f(): warnings.warn("from f", UserWarning, stacklevel=2)
        f()
    """,
    "standard_input": """
        import sys
        print(repr(input()), repr(sys.stdin.readline()), repr(sys.stdin.read()))
    """,
    "pickle_of_main": """
        import pickle
        class Point:
            def __init__(self, x): self.x = x
        def f(): return 1
        data = pickle.dumps([Point(2), f])
        point, g = pickle.loads(data)
        print(b"__main__" in data, point.x, g is f)
    """,
    "inspect": """
        import inspect, sys
        def f():
            return 1
        try:
            print(inspect.getsource(f))
        except OSError as error:
            print(error)
        print(sys._getframe().f_code.co_name, sys._getframe().f_code.co_filename, f.__module__)
    """,
    "main_thread": """
        import threading
        main = threading.main_thread()
        print(main is threading.current_thread(), isinstance(main, threading.Thread), main.name, main.daemon)
        print(threading.active_count(), threading.enumerate() == [main])
    """,
    "fork": """
        import os, sys, threading
        read, write = os.pipe()
        if not (pid := os.fork()):
            done = []
            t = threading.Thread(target=done.append, args=(1,))
            t.start(); t.join()
            os.write(write, repr(done).encode())
            sys.exit(6)
        print(os.read(read, 100), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """,
    "many_lines": "for i in range(20000): print(i)",
    "unicode": "print('h\\u00e9\\u4e2d', '\\U0001f9f5')",
    "subprocess": """
        import subprocess, sys
        print(subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout)
    """,
}


def _program(name):
    return textwrap.dedent(PROGRAMS[name]).lstrip("\n")


@pytest.mark.parametrize("name", PROGRAMS)
class TestEveryWayToStart:
    STDIN = "first\nsecond\nthird\nfourth"

    def test_file(self, name, tmp_path):
        (tmp_path / "app.py").write_text(_program(name), encoding="utf-8")
        same("app.py", "one", "--explain", "-x", cwd=tmp_path, stdin=self.STDIN)

    def test_module(self, name, tmp_path):
        (tmp_path / "app.py").write_text(_program(name), encoding="utf-8")
        same("-m", "app", "one", "--explain", "-x", cwd=tmp_path, stdin=self.STDIN)

    def test_code(self, name, tmp_path):
        same("-c", _program(name), "one", "--explain", "-x", cwd=tmp_path, stdin=self.STDIN)

    def test_standard_input(self, name, tmp_path):
        same("-", "one", "--explain", "-x", cwd=tmp_path, stdin=_program(name))


WHERE = """
import sys
print(__file__, __spec__, __package__, __cached__, sys.argv, sys.path[0])
raise ValueError("with a traceback")
"""


class TestPaths:
    """However the path is spelled, `__file__`, `sys.argv[0]` and `sys.path[0]` are as under python."""

    @pytest.mark.parametrize(
        "path", ["app.py", "./app.py", "folder/../app.py", "folder/inner.py", "link.py", "far/app.py"]
    )
    def test_spelling(self, path, tmp_path):
        (tmp_path / "folder").mkdir()
        for name in ("app.py", "folder/inner.py"):
            (tmp_path / name).write_text(WHERE)
        (tmp_path / "link.py").symlink_to("folder/inner.py")
        (tmp_path / "far").symlink_to(tmp_path / "folder")
        (tmp_path / "folder" / "app.py").symlink_to("../app.py")
        same(path, cwd=tmp_path)

    def test_absolute(self, tmp_path):
        (tmp_path / "app.py").write_text(WHERE)
        same(tmp_path / "app.py", cwd="/")

    def test_not_ascii(self, tmp_path):
        (tmp_path / "héllo 中.py").write_text(WHERE)
        same("héllo 中.py", cwd=tmp_path)

    def test_without_suffix(self, tmp_path):
        (tmp_path / "app").write_text("#!/usr/bin/env python\n" + WHERE)
        same("app", cwd=tmp_path)

    @pytest.mark.parametrize("path", ["app", "./app", "app/"])
    def test_directory(self, path, tmp_path):
        (tmp_path / "app").mkdir()
        (tmp_path / "app" / "__main__.py").write_text("import beside" + WHERE)
        (tmp_path / "app" / "beside.py").write_text("print('beside')")
        same(path, "x", cwd=tmp_path)

    def test_zip_file(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
            archive.writestr("__main__.py", "import beside" + WHERE)
            archive.writestr("beside.py", "print('beside', __file__)")
        same("app.zip", "x", cwd=tmp_path)

    def test_zip_file_with_interpreter_line(self, tmp_path):
        with open(tmp_path / "app", "wb") as file:
            file.write(b"#!/usr/bin/env python3\n")
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("__main__.py", WHERE)
        same("app", cwd=tmp_path)

    def test_directory_without_main(self, tmp_path):
        (tmp_path / "app").mkdir()
        same("app", cwd=tmp_path)

    @pytest.mark.parametrize("name", ["app.pyc", "app"])
    def test_bytecode(self, name, tmp_path):
        (tmp_path / "app.py").write_text(
            "import sys\nprint(__file__, type(__loader__), sys.path[0])\nprint(1 / 0)\n"
        )
        compiled = python("-c", f"import py_compile; py_compile.compile('app.py', {name!r})", cwd=tmp_path)
        assert compiled.code == 0, compiled.err
        same(name, cwd=tmp_path)

    def test_bytecode_of_another_version(self, tmp_path):
        (tmp_path / "app.pyc").write_bytes(b"\0\0\r\n" + bytes(100))
        same("app.pyc", cwd=tmp_path)

    def test_pipe(self, tmp_path):
        same("/dev/stdin", "x", stdin="import sys; print(sys.argv, __file__)", cwd=tmp_path)

    @pytest.mark.parametrize(
        "data", ["# coding: latin-1\nprint('\xe9')\n".encode("latin-1"), b"\xef\xbb\xbfprint('bom')\n"]
    )
    def test_encoding(self, data, tmp_path):
        (tmp_path / "app.py").write_bytes(data)
        assert same("app.py", cwd=tmp_path).code == 0

    def test_empty_file(self, tmp_path):
        (tmp_path / "app.py").write_bytes(b"")
        assert same("app.py", cwd=tmp_path) == (0, "", "")


class TestModules:
    @pytest.fixture
    def folder(self, tmp_path):
        package = tmp_path / "package"
        package.mkdir()
        (package / "__init__.py").write_text("print('package', __name__)\n")
        (package / "__main__.py").write_text("from . import part\n" + WHERE)
        (package / "part.py").write_text("print('part', __name__, __package__)\n")
        (package / "broken.py").write_text("a b\n")
        (tmp_path / "plain").mkdir()
        (tmp_path / "plain" / "__init__.py").write_text("")
        return tmp_path

    @pytest.mark.parametrize(
        "name",
        [
            "package",
            "package.__main__",
            "package.part",
            "package.broken",
            "package.none",
            "plain",
            "none",
            ".part",
            "sys",
        ],
    )
    def test_module(self, name, folder):
        same("-m", name, "x", "-y", cwd=folder)

    def test_attached(self, folder):
        same("-mpackage", "x", cwd=folder)

    def test_of_the_standard_library(self, folder):
        same("-m", "json.tool", stdin='{"a":   1}', cwd=folder)

    def test_unittest(self, folder):
        (folder / "test_it.py").write_text(
            "import unittest, sys\n"
            "class T(unittest.TestCase):\n"
            "    def test_one(self): sys.stderr.write('%s\\n' % sys.argv)\n"
        )
        got = raddle_run("-m", "unittest", "-v", "test_it", cwd=folder)
        assert got.code == 0 and "['python -m unittest'" in got.err and "OK" in got.err


class TestCode:
    def test_attached(self):
        same("-cimport sys; print(sys.argv)", "x")

    def test_empty(self):
        assert same("-c", "") == (0, "", "")

    def test_open_block(self):
        same("-c", "if 1:")

    def test_line_continues_at_the_end(self):
        same("-c", "def f():\n  return 1\nprint(f())")


class TestInterpreterOptions:
    PROGRAM = """
import sys, warnings
print(sys.flags, sys.path[0], sys.warnoptions, sys._xoptions)
assert False, "unless -O"
warnings.warn("an error under -W error")
"""

    @pytest.mark.parametrize(
        "options",
        [["-O"], ["-W", "error"], ["-X", "utf8=0"], ["-u"], ["-B"], ["-P"], ["-s"], ["-E"], ["-b"], ["-q"]],
        ids=" ".join,
    )
    @pytest.mark.parametrize("kind", ["file", "code", "module"])
    def test_option(self, options, kind, tmp_path):
        (tmp_path / "app.py").write_text(self.PROGRAM)
        # -P takes the current folder from sys.path: the module is not found then, and python says so.
        arguments = {"file": ["app.py"], "code": ["-c", self.PROGRAM], "module": ["-m", "app"]}[kind]
        same(*arguments, options=options, cwd=tmp_path)

    def test_safe_path_by_environment(self, tmp_path):
        (tmp_path / "app.py").write_text(self.PROGRAM)
        same("app.py", env={"PYTHONSAFEPATH": "1"}, cwd=tmp_path)


class TestNamesakes:
    """A module beside the program wins over the standard library's, for the program; raddle is not confused
    by it."""

    @pytest.mark.parametrize("name", ["queue", "sched", "heapq", "linecache", "random"])
    def test_beside_the_program(self, name, tmp_path):
        (tmp_path / "program").mkdir()
        (tmp_path / "program" / "app.py").write_text(f"import {name}\nprint({name}.WHO)\n")
        (tmp_path / "program" / f"{name}.py").write_text("WHO = 'the namesake'\n")
        assert same(tmp_path / "program" / "app.py", cwd="/").code == 0

    @pytest.mark.parametrize("name", ["queue", "sched", "threading", "heapq", "difflib"])
    def test_in_the_current_folder(self, name, tmp_path):
        """Of what `python -m` itself imports from there before raddle's first line, nothing can be said
        here."""
        (tmp_path / "program").mkdir()
        (tmp_path / "program" / "app.py").write_text(
            f"import {name}\nprint({name}.__name__, hasattr({name}, 'WHO'))\n"
        )
        (tmp_path / f"{name}.py").write_text(
            "WHO = 'the namesake'\nraise SystemExit('a namesake was imported')\n"
        )
        assert same("program/app.py", cwd=tmp_path).code == 0


class TestStreams:
    def test_full_device(self, tmp_path):
        (tmp_path / "app.py").write_text("print('no room')")
        with open("/dev/full", "w") as full:
            assert same("app.py", cwd=tmp_path, stdout=full).code == 120

    def test_bytes_of_standard_input(self, tmp_path):
        (tmp_path / "app.py").write_text("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])")
        assert same("app.py", cwd=tmp_path, stdin="abc\n\0def").out == "fed\0\ncba"


THREAD_FAILS = """
import threading
def work():
    raise ValueError("in a thread")
thread = threading.Thread(target=work, name="worker")
thread.start()
thread.join()
"""


def test_failure_in_a_thread(tmp_path):
    """The frames below the program's function are the standard library's or raddle's; all else is the
    same."""
    (tmp_path / "app.py").write_text(THREAD_FAILS)
    expected, got = python("app.py", cwd=tmp_path), raddle_run("app.py", cwd=tmp_path)
    cut = expected.err.index(f'  File "{tmp_path}/app.py"')
    assert got.err.startswith("Exception in thread worker:\nTraceback (most recent call last):\n")
    assert got.err.endswith(expected.err[cut:])
    assert (got.code, got.out) == (expected.code, expected.out)


MULTIPROCESSING = """
import multiprocessing, sys
print("top level of", __name__, flush=True)

def square(x):
    return x * x

def child(queue):
    queue.put((__name__, square(7), sys.argv))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    print(queue.get(), flush=True)
    process.join()
    print(process.exitcode, flush=True)
    with context.Pool(1) as pool:
        print(pool.map(square, range(4)), flush=True)
"""


@pytest.mark.parametrize(
    "kind, method",
    # A main module in a directory cannot be imported again by python's own children either.
    [(k, m) for k in ("file", "module") for m in ("spawn", "fork", "forkserver")] + [("directory", "fork")],
)
def test_multiprocessing(kind, method, tmp_path):
    """A child imports the main module again, and finds the functions that were pickled by its name."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text(MULTIPROCESSING)
    (tmp_path / "app.py").write_text(MULTIPROCESSING)
    program = {"file": ["app.py"], "module": ["-m", "app"], "directory": ["app"]}[kind]
    assert same(*program, method, cwd=tmp_path).code == 0


INTERRUPTED = {
    "sleep": "import time; ready(); time.sleep(1000)",
    "lock": "import threading; lock = threading.Lock(); lock.acquire(); ready(); lock.acquire()",
    "loop": "ready()\nwhile True: pass",
    "read": "import os; ready(); os.read(0, 1)",
}


@pytest.mark.signals
@pytest.mark.parametrize("name", INTERRUPTED)
def test_interrupted_from_outside(name, tmp_path):
    """Ctrl-C while a program waits: same traceback, same end by SIGINT."""
    source = "def ready(): print('ready', flush=True)\n" + INTERRUPTED[name] + "\n"
    (tmp_path / "app.py").write_text(source)
    ends = []
    for under in ((), RADDLE_RUN):
        with Talk(command_line("app.py", under=under), cwd=tmp_path) as talk:
            talk.wait_for("ready")
            if name != "loop":
                wait_until_blocked(talk.process.pid, pid=talk.process.pid)
            talk.process.send_signal(signal.SIGINT)
            code, out, err = talk.end()
            # Where in its loop a program was is a matter of luck.
            ends.append((code, out, err.splitlines()[-1] if name == "loop" else err))
    assert ends[0] == ends[1]
    assert ends[1][0] == -signal.SIGINT


@pytest.mark.signals
def test_interrupted_while_waiting_for_threads(tmp_path):
    """Ctrl-C after the main module's end, while a thread that is no daemon still runs."""
    (tmp_path / "app.py").write_text(
        "import threading, time, os\n"
        "def work():\n"
        "    threading.main_thread().join()\n"
        "    print('ready', flush=True)\n"
        "    os.read(0, 1)\n"
        "threading.Thread(target=work).start()\n"
    )
    ends = []
    for under in ((), RADDLE_RUN):
        with Talk(command_line("app.py", under=under), cwd=tmp_path) as talk:
            talk.wait_for("ready")
            wait_until_blocked(talk.process.pid, pid=talk.process.pid)
            talk.process.send_signal(signal.SIGINT)
            end = talk.end()
            ends.append((end.code, end.out, end.err.splitlines()[-1:]))
    assert ends[0] == ends[1]


def test_frames_below_the_program_are_few(tmp_path):
    """They count for the recursion limit."""
    (tmp_path / "app.py").write_text(
        "import sys\nd, f = 0, sys._getframe()\nwhile f := f.f_back: d += 1\nprint(d)\n"
    )
    assert int(raddle_run("app.py", cwd=tmp_path).out) <= 5


def test_two_dashes_end_the_options(tmp_path):
    (tmp_path / "-odd.py").write_text("import sys; print(sys.argv)")
    assert raddle_run("--", "-odd.py", "x", cwd=tmp_path).out == "['-odd.py', 'x']\n"
