"""`raddle run` and `install()` with processes: programs end as under `python`, and every child has raddle too."""

import pytest
from cli_processes import python, raddle_run, same

import tools

pytestmark = pytest.mark.fork

METHODS = ("fork", "spawn", "forkserver")

PROGRAM = """
import multiprocessing
import sys
import threading


class Clerk(multiprocessing.Process):
    def __init__(self, work, results):
        super().__init__(name="clerk")
        self.work, self.results = work, results

    def run(self):
        self.results.put((self.name, self.work, __name__ in ("__main__", "__mp_main__"), sys.argv))


def fail():
    raise ValueError("no good")


def leave(code):
    sys.exit(code)


def nested(method, results):
    child = multiprocessing.get_context(method).Process(target=results.put, args=("grandchild",))
    child.start()
    child.join()


if __name__ == "__main__":
    method = sys.argv[1]
    multiprocessing.set_start_method(method)
    results = multiprocessing.Queue()
    clerk = Clerk("files", results)
    clerk.start()
    print(results.get())
    clerk.join()
    for target, args in ((fail, ()), (leave, (7,)), (nested, (method, results))):
        child = multiprocessing.Process(target=target, args=args, name=target.__name__)
        child.start()
        child.join()
        print(target.__name__, child.exitcode)
    print(results.get())
    with multiprocessing.Pool(2) as pool:
        print(pool.map(abs, range(-3, 3)))
    one, other = multiprocessing.Pipe()
    child = multiprocessing.Process(target=other.send, args=({"a": 1},))
    child.start()
    print(one.recv())
    child.join()
    print(multiprocessing.get_start_method(), multiprocessing.active_children())
"""

KINDS = """
import multiprocessing, sys

def kinds(results):
    import threading, queue, concurrent.futures
    from raddle import deadlock
    import raddle.threading, raddle.queue, raddle.concurrent.futures
    results.put([threading.Lock is raddle.threading.Lock, queue.Queue is raddle.queue.Queue,
                 concurrent.futures.Future is raddle.concurrent.futures.Future,
                 type(results).__module__, type(multiprocessing.current_process()).__module__,
                 deadlock._settings.on_deadlock, deadlock._settings.on_stall])

if __name__ == "__main__":
    for method in sys.argv[1:]:
        context = multiprocessing.get_context(method)
        results = context.Queue()
        child = context.Process(target=kinds, args=(results,))
        child.start()
        print(*results.get())
        child.join()
"""


@pytest.mark.parametrize("method", METHODS)
def test_file(tmp_path, method):
    (tmp_path / "program.py").write_text(PROGRAM)
    ended = same(tmp_path / "program.py", method)
    assert ended.code == 0 and "('clerk', 'files', True" in ended.out and "fail 1\nleave 7\n" in ended.out


@pytest.mark.parametrize("method", METHODS)
def test_module_and_package(tmp_path, method):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "program.py").write_text(PROGRAM)
    (tmp_path / "package" / "__main__.py").write_text("from package.program import *\nprint(fail.__module__)")
    assert "leave 7" in same("-m", "package.program", method, cwd=tmp_path).out
    assert same("-m", "package", method, cwd=tmp_path).out == "package.program\n"


def test_warm(tmp_path):
    """python has no such method: the same program, with the imports that it takes."""
    (tmp_path / "program.py").write_text(PROGRAM)
    ended = raddle_run(tmp_path / "program.py", "warm")
    expected = same(tmp_path / "program.py", "forkserver")
    assert ended.out == expected.out.replace("forkserver", "warm")
    assert ended.code == 0


def test_children_have_what_the_parent_has(tmp_path):
    (tmp_path / "program.py").write_text(KINDS)
    methods = [*METHODS, "warm"]
    ended = raddle_run(tmp_path / "program.py", *methods)
    line = "True True True raddle.multiprocessing.queues raddle.multiprocessing.context raise report"
    assert (ended.out.splitlines(), ended.err, ended.code) == ([line] * 4, "", 0)
    other = raddle_run("--on-deadlock", "report", "--on-stall", "exit", tmp_path / "program.py", *methods)
    assert other.out.splitlines() == [line.replace("raise report", "report exit")] * 4


def test_installed_after_the_servers_were_started(tmp_path):
    (tmp_path / "program.py").write_text(
        """
import raddle, sys
import raddle.multiprocessing as mp

def tell(queue):
    import threading
    queue.put(threading.Lock is __import__("raddle.threading").threading.Lock)

if __name__ == "__main__":
    for install in (False, True, False):
        raddle.install() if install else raddle.uninstall()
        for method in ("spawn", "forkserver", "warm"):
            context = mp.get_context(method)
            queue = context.Queue()
            child = context.Process(target=tell, args=(queue,))
            child.start()
            print(queue.get(), end=" ")
            child.join()
"""
    )
    ended = python(tmp_path / "program.py")
    assert (ended.out.split(), ended.err) == (["False"] * 3 + ["True"] * 3 + ["False"] * 3, "")


@pytest.mark.parametrize("order", ["package first", "mirror first", "imported before"])
def test_install(order):
    code = {
        "package first": "raddle.install(); import multiprocessing, raddle.multiprocessing as ours",
        "mirror first": "raddle.install(); import raddle.multiprocessing as ours, multiprocessing",
        "imported before": "import multiprocessing; raddle.install(); import raddle.multiprocessing as ours",
    }[order]
    tools.check_child(
        f"import raddle; {code}"
        + """
import multiprocessing.connection, multiprocessing.pool, multiprocessing.synchronize, threading
names = "Process Queue JoinableQueue SimpleQueue Pipe Pool get_context set_start_method Lock RLock Semaphore"
for name in [*names.split(), "BoundedSemaphore", "Condition", "Event", "Barrier", "Value", "Array"]:
    assert getattr(multiprocessing, name) == getattr(ours, name), name
assert multiprocessing.connection.wait is ours.connection.wait
assert multiprocessing.Barrier(1).wait() == 0
assert multiprocessing.pool.ThreadPool(1).map(abs, [-1]) == [1]
done = raddle.install()
assert "multiprocessing.Process" in done.replaced
assert not any("multiprocessing" in sentence.split()[0] for sentence in done.missed), done.missed
raddle.uninstall()
assert multiprocessing.Process is not ours.Process
assert "raddle" not in repr(multiprocessing.Queue)
"""
    )


def test_a_program_without_processes_loads_nothing():
    tools.check_child(
        "import raddle, sys; raddle.install(); assert 'multiprocessing' not in sys.modules;"
        "assert 'raddle.multiprocessing' not in sys.modules"
    )
