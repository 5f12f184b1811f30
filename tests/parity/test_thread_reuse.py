"""Threads that run one after the other: nothing of one run is seen by the next, whoever's thread it is."""

import _thread
import contextvars
import ctypes
import gc
import os
import signal
import sys
import threading
import time
import weakref

import pytest

from tools import check_child, run_child, wait_until

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about Linux's threads")


def run(cls, function):
    """What the function returns in a thread of its own."""
    got = []
    thread = cls(target=lambda: got.append(function()))
    thread.start()
    thread.join()
    return got[0]


class TestEachRunIsNew:
    @pytest.fixture
    def cls(self, impl):
        return impl.threading.Thread

    def test_local(self, impl, cls):
        data = impl.threading.local()

        def look():
            before = getattr(data, "x", None)
            data.x = 1
            return before

        assert [run(cls, look) for _ in range(5)] == [None] * 5

    def test_local_is_freed_before_join_returns(self, impl, cls):
        class Thing:
            pass

        data, things = impl.threading.local(), []

        def work():
            data.thing = Thing()
            things.append(weakref.ref(data.thing))

        for _ in range(20):
            run(cls, work)
            assert things[-1]() is None

    def test_finalizer_of_a_local_may_use_threads(self, impl, cls):
        log = []

        class Thing:
            def __del__(self):
                with impl.threading.Lock():
                    log.append(impl.threading.get_ident())

        data = impl.threading.local()

        def work():
            data.thing = Thing()
            return impl.threading.get_ident()

        idents = [run(cls, work) for _ in range(3)]
        assert log == idents

    def test_context_variables(self, cls):
        variable = contextvars.ContextVar("variable", default=0)

        def look():
            before = variable.get()
            variable.set(1)
            return before

        assert [run(cls, look) for _ in range(3)] == [0, 0, 0]

    def test_trace_and_profile_functions(self, cls):
        def look():
            before = sys.gettrace(), sys.getprofile()
            sys.settrace(lambda *args: None)
            sys.setprofile(lambda *args: None)
            return before

        assert [run(cls, look) for _ in range(3)] == [(None, None)] * 3

    def test_exception_being_handled(self, cls):
        def look():
            before = sys.exc_info()[0]
            try:
                raise ValueError
            except ValueError:
                return before

        assert [run(cls, look) for _ in range(3)] == [None] * 3

    def test_asynchronous_exception_of_an_ended_thread_goes_nowhere(self, cls):
        ident = run(cls, _thread.get_ident)
        set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
        assert set_exception(ctypes.c_ulong(ident), ctypes.py_object(KeyError)) == 0
        assert run(cls, lambda: sum(range(10000))) == 49995000

    def test_the_interpreter_knows_which_thread_it_is(self, cls):
        def look():
            return threading.get_ident() in sys._current_frames(), threading.current_thread().native_id

        def native():
            return True, threading.get_native_id()

        for _ in range(3):
            assert run(cls, look)[0]
        thread = cls(target=lambda: seen.append(native()[1]))
        seen = []
        thread.start()
        thread.join()
        assert seen == [thread.native_id]
        assert thread.ident not in sys._current_frames()

    def test_callbacks_from_c(self, cls):
        """They take the interpreter by PyGILState_Ensure, which must find the thread's own state."""
        compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
        data = threading.local()

        def look():
            data.mine = 1
            numbers = (ctypes.c_int * 3)(3, 1, 2)
            order = compare(lambda a, b: (a[0] > b[0]) - (a[0] < b[0]) if data.mine else 0)
            ctypes.CDLL(None).qsort(numbers, 3, ctypes.sizeof(ctypes.c_int), order)
            return list(numbers)

        assert [run(cls, look) for _ in range(3)] == [[1, 2, 3]] * 3

    @linux
    def test_name_niceness_and_processors_are_the_starters(self, cls):
        comm = "/proc/thread-self/comm"

        def look():
            with open(comm) as file:
                name = file.read().strip()
            return name, os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)

        def change():
            with open(comm, "w") as file:
                file.write("changed")
            os.setpriority(os.PRIO_PROCESS, 0, 7)
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

        before = look()
        run(cls, change)
        assert [run(cls, look) for _ in range(3)] == [before] * 3
        processors = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {max(processors)})
            assert run(cls, look)[2] == {max(processors)}
        finally:
            os.sched_setaffinity(0, processors)
        assert run(cls, look)[2] == processors

    def test_signal_mask_is_the_starters(self, cls):
        def look():
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
            return signal.SIGUSR1 in before, signal.SIGUSR2 in before

        assert run(cls, look) == (False, False)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        try:
            assert run(cls, look) == (True, False)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        assert run(cls, look) == (False, False)

    def test_exit_code_and_output_of_an_exception_in_bootstrap(self, impl):
        """What escapes even the hook for exceptions goes to sys.unraisablehook, and SystemExit nowhere."""
        texts = []
        for error in ("KeyError(1)", "SystemExit(3)"):
            done = run_child(
                f"""
import sys
import {impl.threading.__name__} as threading
def hook(args):
    sys.stderr.write(args.err_msg.partition("<")[0] + "/" + args.exc_type.__name__)
sys.unraisablehook = hook
class Thread(threading.Thread):
    def _bootstrap(self):
        try:
            super()._bootstrap()
        finally:
            raise {error}
thread = Thread(target=int)
thread.start()
thread.join()
print("end")
"""
            )
            assert (done.returncode, done.stdout) == (0, "end\n")
            texts.append(done.stderr)
        assert texts[0].startswith("Exception ignored in thread started by") and texts[0].endswith(
            "/KeyError"
        )
        assert texts[1] == ""

    def test_threads_that_exist_have_different_numbers(self, cls):
        """In the kernel too, though they have ended."""
        threads = []
        for _ in range(30):
            thread = cls(target=int)
            thread.start()
            thread.join()
            threads.append(thread)
        assert len({thread.native_id for thread in threads} | {threading.get_native_id()}) == 31

    @linux
    def test_start_that_fails(self, impl, cls):
        check_child(
            f"""
import gc, resource, weakref
import {impl.threading.__name__} as threading
class Target:
    def __call__(self):
        pass
threading.stack_size(1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
target = Target()
for _ in range(3):
    thread = threading.Thread(target=target)
    try:
        thread.start()
    except RuntimeError as error:
        assert str(error) == "can't start new thread", error
    else:
        raise AssertionError("it started")
    assert threading.enumerate() == [threading.main_thread()]
    assert not thread.is_alive() and thread.ident is None
threading.stack_size(0)
thread = threading.Thread(target=target)
thread.start()
thread.join()
gone = weakref.ref(target)
del thread, target
gc.collect()
assert gone() is None
"""
        )

    def test_a_timer_is_freed_when_it_has_run(self, impl):
        timer = impl.threading.Timer(0, int)
        gone = weakref.ref(timer)
        timer.start()
        timer.join()
        del timer
        gc.collect()
        assert gone() is None

    def test_threads_are_freed(self, cls):
        gone = []
        for _ in range(50):
            thread = cls(target=int)
            gone.append(weakref.ref(thread))
            thread.start()
            thread.join()
            del thread
        gc.collect()
        assert [ref for ref in gone if ref() is not None] == []


@linux
class TestForks:
    """CPython warns of a fork beside other threads from 3.12 on: threads that have ended are none."""

    PROGRAM = """
import os, sys, warnings
import {module} as threading
warnings.simplefilter("error")
threads_of_the_system = lambda: len(os.listdir("/proc/self/task"))
def burst(n):
    threads = [threading.Thread(target=int) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""

    def test_no_warning_once_all_are_joined(self, impl):
        check_child(
            self.PROGRAM.format(module=impl.threading.__name__)
            + """
for round in range(60):
    burst(1 + round % 8)
    pid = os.fork()
    if not pid:
        burst(3)
        os._exit(7)
    assert os.waitpid(pid, 0)[1] >> 8 == 7
"""
        )

    def test_child_of_a_thread_ends_with_it(self, impl):
        """The thread that forked is the child's only one, and the process ends as it does."""
        check_child(
            self.PROGRAM.format(module=impl.threading.__name__)
            + """
import time, threading as standard
warnings.simplefilter("ignore")
took = []
def work():
    pid = os.fork()
    if pid:
        start = time.monotonic()
        assert os.waitpid(pid, 0)[1] == 0
        took.append(time.monotonic() - start)
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert took[0] < 0.7, took
"""
        )

    def test_fork_beside_threads_that_start_and_end(self, impl):
        check_child(
            self.PROGRAM.format(module=impl.threading.__name__)
            + """
warnings.simplefilter("ignore")
stop = False
def churn():
    while not stop:
        burst(3)
churners = [threading.Thread(target=churn) for _ in range(2)]
for thread in churners:
    thread.start()
for _ in range(40):
    pid = os.fork()
    if not pid:
        burst(3)
        os._exit(7)
    assert os.waitpid(pid, 0)[1] >> 8 == 7
stop = True
for thread in churners:
    thread.join()
"""
        )

    #: A function that is called before a fork, after raddle's own.
    BEFORE = """
import os, threading as standard, time, warnings
warnings.simplefilter("ignore")
os.register_at_fork(before=lambda: before())
from raddle import threading
def fork():
    pid = os.fork()
    if not pid:
        os._exit(7)
    assert os.waitpid(pid, 0)[1] >> 8 == 7
"""

    def test_no_thread_begins_during_a_fork(self):
        """The interpreter's list of threads would be locked in the child if one did."""
        check_child(
            self.BEFORE
            + """
go, began, seen = standard.Event(), standard.Event(), []
def before():
    go.set()
    time.sleep(0.3)
    seen.append(began.is_set())
def start():
    go.wait()
    threading.Thread(target=began.set).start()
starter = threading.Thread(target=start)
starter.start()
fork()
starter.join()
assert began.wait(10)
assert seen == [False]
"""
        )

    def test_a_fork_that_waits_for_a_new_thread(self):
        """It comes a second late, since nobody knows that the fork waits for it."""
        check_child(
            self.BEFORE
            + """
ran = []
def before():
    thread = threading.Thread(target=ran.append, args=(1,))
    thread.start()
    thread.join()
fork()
assert ran == [1]
"""
        )


class TestIdleThreads:
    """raddle keeps threads of the operating system for a while."""

    @pytest.fixture
    def raddle(self):
        return pytest.importorskip("raddle._raddle")

    def test_the_same_thread_of_the_system_runs_the_next(self, raddle):
        from raddle.threading import Thread

        run(Thread, int)
        natives = {run(Thread, threading.get_native_id) for _ in range(50)}
        assert len(natives) == 1
        assert raddle.threads_idle() >= 1

    def test_they_go_after_a_while(self, raddle):
        from raddle.threading import Thread

        native = run(Thread, threading.get_native_id)
        wait_until(lambda: not os.path.exists(f"/proc/self/task/{native}"), "the idle thread has gone")

    def test_one_with_a_stack_of_its_own_is_not_kept(self, raddle):
        from raddle.threading import Thread, stack_size

        stack_size(512 * 1024)
        try:
            native = run(Thread, threading.get_native_id)
            assert run(Thread, threading.get_native_id) != native
        finally:
            stack_size(0)

    def test_a_replaced_start_function_is_called(self, raddle, monkeypatch):
        """Debuggers replace it, to be told of new threads."""
        from raddle.threading import Thread

        name = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"
        original, calls = getattr(threading, name), []

        def start(function, *args, **kwargs):
            calls.append(function)
            return original(function, *args, **kwargs)

        monkeypatch.setattr(threading, name, start)
        thread = Thread(target=time.sleep, args=(0.01,))
        thread.start()
        assert thread.is_alive()
        thread.join()
        assert not thread.is_alive() and len(calls) == 1

    def test_signal_for_nobody_waits_for_whoever_takes_it(self):
        """A signal that the living threads block is not delivered to a thread that has ended."""
        check_child(
            """
import os, signal
from raddle import threading
thread = threading.Thread(target=int)
thread.start()
thread.join()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.kill(os.getpid(), signal.SIGUSR1)
assert signal.sigtimedwait([signal.SIGUSR1], 20).si_signo == signal.SIGUSR1
"""
        )
