"""`raddle.install()` and `raddle.uninstall()`, each in an interpreter of its own."""

import sys

import pytest

from tools import check_child, run_child


def test_import_is_cheap():
    """`import raddle` loads no mirror, no extension and nothing of the standard library."""
    check_child(
        """
import sys
before = set(sys.modules)
import raddle
print(sorted(set(sys.modules) - before))
""",
        out="['raddle']\n",
    )


def test_every_exported_name_is_there():
    check_child(
        """
from raddle import *
import raddle
assert all(hasattr(raddle, name) for name in raddle.__all__)
assert {*raddle.__all__, "threading", "queue", "sched", "deadlock"} <= set(dir(raddle))
assert raddle.DeadlockError is raddle.deadlock.DeadlockError
assert raddle.threading.__name__ == "raddle.threading"
try:
    raddle.nothing
except AttributeError as error:
    print(error)
""",
        out="module 'raddle' has no attribute 'nothing'\n",
    )


def test_version_is_the_distribution_s():
    check_child("import raddle, importlib.metadata as m; assert raddle.__version__ == m.version('raddle')")


MUST = {
    "threading": [
        *(
            "Lock",
            "RLock",
            "Condition",
            "Semaphore",
            "BoundedSemaphore",
            "Event",
            "Barrier",
            "Timer",
            "Thread",
            "_CRLock",
        ),
    ],
    "queue": ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"],
    "sched": ["scheduler"],
}


@pytest.mark.parametrize("module", MUST)
def test_names_are_the_mirror_s(module):
    check_child(
        f"""
import {module} as standard, raddle
import raddle.{module} as mirror
before = dict(vars(standard))
done = raddle.install()
for name in {MUST[module]}:
    assert getattr(standard, name) is not before[name], name
    assert getattr(standard, name) is getattr(mirror, name.replace("_CRLock", "RLock")), name
    assert f"{module}.{{name}}" in done.replaced, name
changed = {{f"{module}.{{name}}" for name, value in vars(standard).items() if before.get(name) is not value}}
assert changed == {{name for name in done.replaced if name.startswith("{module}.")}}, changed
"""
    )


def test_names_of_newer_pythons_are_added():
    check_child(
        """
import queue, raddle
raddle.install()
assert queue.ShutDown is raddle.queue.ShutDown
q = queue.Queue()
q.shutdown()
try:
    q.get()
except queue.ShutDown:
    pass
new = not hasattr(__import__("sys"), "_is_gil_enabled")  # before 3.13
raddle.uninstall()
assert hasattr(queue, "ShutDown") != new
"""
    )


def test_what_the_standard_library_makes_afterwards_is_raddle_s():
    check_child(
        """
import raddle
raddle.install()
import logging, concurrent.futures, socketserver, multiprocessing.dummy, threading
assert type(logging.Handler().lock) is raddle.threading.RLock
assert type(concurrent.futures.Future()._condition) is raddle.threading.Condition
assert type(concurrent.futures.ThreadPoolExecutor()) is raddle.concurrent.futures.ThreadPoolExecutor
assert issubclass(multiprocessing.dummy.DummyProcess, raddle.threading.Thread)
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    assert list(pool.map(abs, [-1, 2])) == [1, 2]
    assert all(isinstance(t, raddle.threading.Thread) for t in pool._threads)
"""
    )


def test_modules_not_yet_loaded_are_replaced_when_they_are():
    check_child(
        """
import sys, raddle
done = raddle.install()
assert not {"queue", "sched", "raddle.queue", "raddle.sched"} & set(sys.modules)
assert {"queue", "sched"} < set(done.awaited) and "threading" not in done.awaited
assert not any(name.startswith(("queue.", "sched.")) for name in done.replaced)
import queue, sched
assert queue.Queue is raddle.queue.Queue and "queue.Queue" in done.replaced
assert sched.scheduler is raddle.sched.scheduler and "sched.scheduler" in done.replaced
assert not {"queue", "sched"} & set(done.awaited)
raddle.uninstall()
assert queue.Queue is not raddle.queue.Queue and sched.scheduler is not raddle.sched.scheduler
"""
    )


@pytest.mark.parametrize("first", ["queues", "connection", "synchronize", "pool", "managers"])
def test_modules_of_multiprocessing_may_be_loaded_in_any_order(first):
    check_child(
        f"""
import raddle
raddle.install()
import multiprocessing.{first}, raddle.multiprocessing.{first}
import multiprocessing.connection, raddle.multiprocessing.connection
assert multiprocessing.connection.wait is raddle.multiprocessing.connection.wait
assert type(multiprocessing.Queue()) is raddle.multiprocessing.queues.Queue
"""
    )


def test_rlock_function_taken_earlier_follows():
    check_child(
        """
from threading import RLock
import raddle
done = raddle.install()
assert type(RLock()) is raddle.threading.RLock
assert not any("__main__.RLock" in sentence for sentence in done.missed)
"""
    )


def test_twice_is_once():
    check_child(
        """
import raddle, threading
first = raddle.install()
lock = threading.Lock
assert raddle.install() is first and threading.Lock is lock
"""
    )


def test_from_many_threads_at_once():
    check_child(
        """
import raddle, threading
from raddle import _originals
results = []
gate = _originals.Barrier(8)
def work():
    gate.wait()
    results.append(raddle.install())
threads = [_originals.Thread(target=work) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
assert len({id(r) for r in results}) == 1 and len(results) == 8
"""
    )


class TestUninstall:
    def test_everything_is_as_before(self):
        check_child(
            """
import threading, queue, sched, raddle
raddle.threading, raddle.queue, raddle.sched
modules = (threading, queue, sched)
before = [dict(vars(m)) for m in modules]
bases = [c.__bases__ for c in (threading._MainThread, threading._DummyThread)]
for _ in range(3):
    raddle.install()
    assert threading.Lock is raddle.threading.Lock
    raddle.uninstall()
    assert [vars(m) for m in modules] == before
    assert [c.__bases__ for c in (threading._MainThread, threading._DummyThread)] == bases
"""
        )

    def test_without_installation(self):
        check_child("import raddle; raddle.uninstall()")

    def test_what_others_have_rebound_stays(self):
        check_child(
            """
import raddle, threading
raddle.install()
threading.Lock = list
raddle.uninstall()
assert threading.Lock is list and threading.Thread.__module__ == "threading"
"""
        )

    def test_objects_made_in_between_keep_working(self):
        check_child(
            """
import raddle, threading, queue
raddle.install()
lock, q = threading.RLock(), queue.Queue()
done = threading.Event()
t = threading.Thread(target=done.wait)
t.start()
raddle.uninstall()
with lock:
    q.put(1)
assert q.get() == 1
done.set()
t.join()
assert t not in threading.enumerate()
"""
        )


class TestThreads:
    def test_main_thread(self):
        check_child(
            """
import raddle
raddle.install()
import threading
main = threading.main_thread()
assert isinstance(main, threading.Thread) and main is threading.current_thread()
assert main.is_alive() and main.name == "MainThread" and not main.daemon
assert main in threading.enumerate() and main.ident == threading.get_ident()
"""
        )

    def test_thread_that_python_did_not_start(self):
        check_child(
            """
import raddle
raddle.install()
import threading, _thread
seen = []
done = threading.Event()
def work():
    seen.append(threading.current_thread())
    done.set()
_thread.start_new_thread(work, ())
done.wait()
assert isinstance(seen[0], threading.Thread) and isinstance(seen[0], threading._DummyThread), seen
"""
        )

    def test_standard_thread_made_earlier(self):
        check_child(
            """
import threading
go = threading.Event()
early = threading.Thread(target=go.wait)
early.start()
import raddle
raddle.install()
assert early in threading.enumerate() and early.is_alive()
go.set()
early.join()
assert not early.is_alive()
"""
        )

    def test_class_made_earlier_still_works(self):
        check_child(
            """
import threading
class Early(threading.Thread):
    def __init__(self):
        threading.Thread.__init__(self, name="early")
    def run(self):
        self.result = threading.current_thread() is self
class Ticker(threading.Timer):
    pass
import raddle
done = raddle.install()
early = Early(); early.start(); early.join()
assert early.result and early.name == "early"
fired = threading.Event()
Ticker(0.001, fired.set).start()
fired.wait()
assert "__main__.Early still derives from threading.Thread: defined before install()" in done.missed
assert "__main__.Ticker still derives from threading.Timer: defined before install()" in done.missed
assert "__main__.Ticker still derives from threading.Thread: defined before install()" not in done.missed
"""
        )


@pytest.mark.fork
def test_forked_child_has_it():
    check_child(
        """
import os, raddle, sys
raddle.install()
import threading, queue
if not (pid := os.fork()):
    assert threading.Lock is raddle.threading.Lock and raddle.install().replaced
    q = queue.Queue()
    t = threading.Thread(target=q.put, args=(1,))
    t.start(); t.join()
    assert q.get() == 1 and isinstance(threading.main_thread(), threading.Thread)
    raddle.uninstall()
    assert threading.Lock is not raddle.threading.Lock
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    )


class TestMissed:
    SOURCE = """
import collections, dataclasses, functools, threading, queue
from threading import Lock as L, Event, RLock
from queue import Queue

def make(kind=threading.Lock, *, other=threading.Condition, fine=RLock, none=None):
    pass

class Holder:
    lock_class = threading.Lock
    factory = staticmethod(threading.Semaphore)

    class Inner:
        queue_class = queue.LifoQueue

    def method(self, gate=threading.Barrier):
        pass

@dataclasses.dataclass
class Record:
    lock: object = dataclasses.field(default_factory=threading.Lock)

per_key = collections.defaultdict(threading.Lock)
"""
    SENTENCES = (
        "early.L is still threading.Lock: bound before install()",
        "early.Event is still threading.Event: bound before install()",
        "early.Queue is still queue.Queue: bound before install()",
        "the default of 'kind' in early.make() is still threading.Lock: bound before install()",
        "the default of 'other' in early.make() is still threading.Condition: bound before install()",
        "early.Holder.lock_class is still threading.Lock: bound before install()",
        "early.Holder.factory is still threading.Semaphore: bound before install()",
        "early.Holder.Inner.queue_class is still queue.LifoQueue: bound before install()",
        "the default of 'gate' in early.Holder.method() is still threading.Barrier: bound before install()",
        "the default factory of the field early.Record.lock is still threading.Lock: bound before install()",
        "the default factory of early.per_key is still threading.Lock: bound before install()",
    )

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "early.py").write_text(self.SOURCE)
        return tmp_path

    def missed(self, folder, then=""):
        program = f"""
import sys
sys.path.insert(0, {str(folder)!r})
import early, raddle
done = raddle.install()
{then}
print(*done.missed, sep="\\n")
"""
        return check_child(program).splitlines()

    def test_sentences(self, folder):
        missed = self.missed(folder)
        assert sorted(s for s in missed if "early." in s) == sorted(self.SENTENCES)
        assert missed == sorted(missed)

    def test_nothing_of_raddle_and_of_the_owners(self, folder):
        for sentence in self.missed(folder):
            for owner in ("raddle", "threading", "queue", "sched", "_thread", "_queue"):
                assert (
                    f"{owner}."
                    not in sentence.partition(" is still ")[0].partition(" still ")[0].split("early")[0]
                )

    def test_modules_loaded_later_are_fine(self, folder):
        (folder / "late.py").write_text(self.SOURCE)
        assert not any("late" in s for s in self.missed(folder, "import late"))

    def test_modules_are_not_kept_alive(self, folder):
        check_child(
            f"""
import gc, sys, weakref
sys.path.insert(0, {str(folder)!r})
import early, raddle
done = raddle.install()
ref = weakref.ref(early)
del early, sys.modules["early"]
gc.collect()
assert ref() is None
done.missed
"""
        )

    def test_lazy_modules_stay_lazy(self, folder):
        check_child(
            f"""
import importlib.util, sys
sys.path.insert(0, {str(folder)!r})
spec = importlib.util.find_spec("early")
spec.loader = importlib.util.LazyLoader(spec.loader)
module = importlib.util.module_from_spec(spec)
sys.modules["early"] = module
spec.loader.exec_module(module)
import raddle
raddle.install().missed
assert type(module) is not type(sys)
"""
        )

    def test_odd_things_in_sys_modules(self):
        check_child(
            """
import sys
class Odd:
    def __getattr__(self, name): raise RuntimeError(name)
    def __eq__(self, other): raise RuntimeError
    __hash__ = None
sys.modules["odd"] = Odd()
sys.modules["none"] = None
odd = Odd()
import raddle
done = raddle.install()
done.missed
print(repr(done).partition(":")[0])
""",
            out="<raddle.Installation\n",
        )


IN_SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import raddle
raddle.install()
child = interpreters.create()
failed = interpreters.{run}(child, '''
import threading
before = dict(vars(threading))
import raddle
try:
    raddle.install()
except ImportError as error:
    assert "main interpreter only" in str(error), error
else:
    raise SystemExit("installed")
assert vars(threading) == before
''')
assert not failed, failed
interpreters.destroy(child)
"""


def test_subinterpreter():
    """The extension belongs to the main interpreter; elsewhere there is a clear error and nothing is
    changed."""
    run = "exec" if sys.version_info >= (3, 13) else "run_string"
    check_child(IN_SUBINTERPRETER.replace("{run}", run))


def test_failure_leaves_everything_as_it_was():
    done = run_child(
        """
import sys, threading, queue, sched
import raddle.threading
before = dict(vars(threading)), dict(vars(queue))
sys.modules["raddle.sched"] = None
try:
    raddle.install()
except ImportError as error:
    print(error)
assert (vars(threading), vars(queue)) == before
del sys.modules["raddle.sched"]
raddle.install()
assert threading.Lock is raddle.threading.Lock
"""
    )
    assert done.returncode == 0, done.stderr
    assert "raddle.sched" in done.stdout
