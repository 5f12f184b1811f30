"""threading.Thread and the functions about threads, on both implementations."""

# ruff: noqa: B023 - the functions made in a loop run within their lap.

import _thread
import asyncio
import contextvars
import copy
import ctypes
import gc
import io
import os
import pickle
import signal
import sys
import threading
import time
import weakref
from unittest import mock

import pytest

from tools import (
    STDLIB,
    Crew,
    Stopwatch,
    assert_matches,
    check_child,
    check_signature,
    outcome,
    run_child,
    wait_until,
    wait_until_blocked,
)

NAN = float("nan")


def nothing():
    pass


class TestThread:
    @pytest.fixture
    def cls(self, impl):
        return impl.threading.Thread

    @pytest.fixture
    def blocked(self, cls):
        """A thread that runs until the end of the test, and what ends it."""
        end = threading.Event()
        thread = cls(target=end.wait, daemon=True)
        thread.start()
        yield thread
        end.set()
        thread.join(20)

    # Constructor

    def test_signatures(self, cls):
        reference = STDLIB.threading.Thread
        check_signature(cls, reference)
        for name in ("start", "run", "join", "is_alive", "isDaemon", "setDaemon", "getName", "setName"):
            check_signature(getattr(cls, name), getattr(reference, name))

    def test_is_the_standard_thread_to_others(self, cls):
        assert issubclass(cls, threading.Thread)
        assert cls.__name__ == "Thread"

    @pytest.mark.parametrize("args", [(), [], (1,), [1], (1, 2), [1, 2, 3]], ids=repr)
    def test_args(self, cls, args):
        got = []
        thread = cls(target=lambda *a: got.append(a), args=args)
        thread.start()
        thread.join()
        assert got == [tuple(args)]

    def test_kwargs(self, cls):
        got = []
        for kwargs in ({"a": 1}, {}, None):
            thread = cls(target=lambda *a, **k: got.append((a, k)), args=(0,), kwargs=kwargs)
            thread.start()
            thread.join()
        assert got == [((0,), {"a": 1}), ((0,), {}), ((0,), {})]

    def test_all_by_position(self, cls):
        got = []
        thread = cls(None, lambda *a, **k: got.append((a, k)), "named", (1,), {"b": 2})
        assert thread.name == "named"
        thread.start()
        thread.join()
        assert got == [((1,), {"b": 2})]

    def test_group_must_be_none(self, cls):
        with pytest.raises(AssertionError):
            cls(group=1)

    def test_daemon_by_keyword_only(self, cls):
        with pytest.raises(TypeError):
            cls(None, None, None, (), None, True)

    def test_default_arguments_are_not_shared(self, cls):
        one, two = cls(target=nothing), cls(target=nothing)
        assert one._kwargs is not two._kwargs

    def test_without_target(self, cls):
        thread = cls()
        thread.start()
        assert thread.join() is None

    def test_target_that_is_false(self, cls):
        class Target:
            ran = False

            def __bool__(self):
                return False

            def __call__(self):
                self.ran = True

        target = Target()
        thread = cls(target=target)
        thread.start()
        thread.join()
        assert target.ran

    # Name

    def test_names(self, cls):
        assert cls(name="hello").name == "hello"
        assert cls(name=123).name == "123"
        assert cls(target=nothing, name="mine").name == "mine"
        assert_matches(r"^Thread-\d+$", cls().name)
        assert_matches(r"^Thread-\d+$", cls(name="").name)
        assert_matches(r"^Thread-\d+ \(nothing\)$", cls(target=nothing).name)
        assert_matches(r"^Thread-\d+$", cls(target=mock.Mock(spec=[])).name)

    def test_numbers_go_on(self, cls):
        numbers = [int(cls().name.partition("-")[2]) for _ in range(3)]
        assert numbers == list(range(numbers[0], numbers[0] + 3))

    def test_name_can_be_set(self, cls, blocked):
        thread = cls()
        thread.name = "other"
        assert thread.name == "other"
        thread.name = 5
        assert thread.name == "5"
        blocked.name = "while running"
        assert "while running" in [t.name for t in threading.enumerate()]

    # Start and join

    def test_runs_in_another_thread(self, impl, cls):
        got = []
        thread = cls(target=lambda: got.append((impl.threading.get_ident(), impl.threading.get_native_id())))
        assert (thread.ident, thread.native_id) == (None, None)
        thread.start()
        thread.join()
        assert got == [(thread.ident, thread.native_id)]
        assert thread.ident != impl.threading.get_ident()

    def test_ident_is_there_when_start_returns(self, cls):
        for _ in range(50):
            thread = cls(target=nothing)
            thread.start()
            assert isinstance(thread.ident, int) and thread.ident > 0
            assert isinstance(thread.native_id, int) and thread.native_id > 0
            thread.join()

    def test_start_returns_none(self, cls):
        thread = cls()
        assert thread.start() is None
        thread.join()

    def test_start_twice(self, cls):
        thread = cls()
        thread.start()
        with pytest.raises(RuntimeError, match=r"^threads can only be started once$"):
            thread.start()
        thread.join()
        with pytest.raises(RuntimeError, match=r"^threads can only be started once$"):
            thread.start()

    def test_join_before_start(self, cls):
        thread = cls()
        with pytest.raises(RuntimeError, match=r"^cannot join thread before it is started$"):
            thread.join()
        with pytest.raises(RuntimeError, match=r"^cannot join thread before it is started$"):
            thread.join(0.1)

    def test_join_of_itself(self, impl, cls):
        with pytest.raises(RuntimeError, match=r"^cannot join current thread$"):
            impl.threading.current_thread().join()
        errors = []

        def work():
            try:
                thread.join()
            except RuntimeError as error:
                errors.append(str(error))

        thread = cls(target=work)
        thread.start()
        thread.join()
        assert errors == ["cannot join current thread"]

    def test_join_many_times(self, cls):
        thread = cls()
        thread.start()
        for timeout in (None, 0, 1, -1, None):
            assert thread.join(timeout) is None

    def test_join_waits(self, cls):
        gate, log = threading.Event(), []

        def work():
            gate.wait()
            log.append("worker")

        thread = cls(target=work)
        thread.start()
        with Crew(lambda: (thread.join(), log.append("joiner")), 3) as crew:
            crew.wait_until_blocked()
            assert log == []
            gate.set()
        assert log == ["worker", "joiner", "joiner", "joiner"]

    def test_join_times_out(self, blocked):
        with Stopwatch() as watch:
            assert blocked.join(0.05) is None
        assert 0.045 <= watch.seconds < 5
        assert blocked.is_alive()
        assert blocked.join(timeout=0.01) is None

    @pytest.mark.parametrize("timeout", [0, -1, -0.5, -1e100, False, -float("inf")], ids=repr)
    def test_join_with_no_time_at_all(self, blocked, timeout):
        assert blocked.join(timeout) is None
        assert blocked.is_alive()

    @pytest.mark.parametrize("timeout", [NAN, 1e100, float("inf"), "1", [], 1j], ids=repr)
    def test_join_with_odd_timeouts(self, blocked, timeout):
        end = threading.Event()
        reference = threading.Thread(target=end.wait, daemon=True)
        reference.start()
        try:
            assert outcome(lambda: blocked.join(timeout)) == outcome(lambda: reference.join(timeout))
        finally:
            end.set()

    def test_join_ends_in_time(self, cls):
        gate = threading.Event()
        thread = cls(target=gate.wait)
        thread.start()
        with Crew(lambda: thread.join(15)) as crew:
            crew.wait_until_blocked()
            gate.set()
        assert not thread.is_alive()

    def test_two_threads_cannot_join_themselves_by_way_of_main(self, cls):
        gate = threading.Event()
        first = cls(target=gate.wait)
        second = cls(target=first.join)
        first.start()
        second.start()
        wait_until_blocked(second)
        gate.set()
        second.join()
        assert not first.is_alive()

    # Life

    def test_is_alive(self, cls):
        gate = threading.Event()
        thread = cls(target=gate.wait)
        assert thread.is_alive() is False
        thread.start()
        assert thread.is_alive() is True
        gate.set()
        thread.join()
        assert thread.is_alive() is False

    def test_is_alive_ends_without_join(self, cls):
        thread = cls()
        thread.start()
        wait_until(lambda: not thread.is_alive(), "the thread has ended")

    def test_enumerate(self, impl, cls, blocked):
        thread = cls()
        assert thread not in impl.threading.enumerate()
        assert blocked in impl.threading.enumerate()
        assert blocked in threading.enumerate()
        assert impl.threading.active_count() == len(impl.threading.enumerate())
        thread.start()
        thread.join()
        assert thread not in impl.threading.enumerate()

    def test_current_thread(self, impl, cls):
        got = []
        thread = cls(target=lambda: got.append((impl.threading.current_thread(), threading.current_thread())))
        thread.start()
        thread.join()
        assert got == [(thread, thread)]

    def test_main_thread(self, impl, cls):
        main = impl.threading.main_thread()
        assert main is threading.main_thread()
        assert main.name == "MainThread"
        assert main.ident == impl.threading.get_ident()
        assert main.is_alive()
        assert main.daemon is False
        assert isinstance(main, cls)
        assert_matches(r"^<_MainThread\(MainThread, started \d+\)>$", repr(main))

    def test_thread_not_made_by_threading(self, impl):
        got = []
        _thread.start_new_thread(lambda: got.append(impl.threading.current_thread()), ())
        wait_until(lambda: got, "the foreign thread has run")
        (dummy,) = got
        assert isinstance(dummy, impl.threading.Thread)
        assert dummy.daemon is True
        assert_matches(r"^Dummy-\d+$", dummy.name)

    def test_isinstance_of_standard_threads(self, cls):
        """What enumerate() returns passes for a Thread, whoever made it."""
        with Crew(nothing) as crew:
            pass
        assert isinstance(crew.threads[0], cls)
        assert not isinstance(object(), cls)

    def test_repr(self, cls):
        gate = threading.Event()
        thread = cls(target=gate.wait, name="worker")
        assert repr(thread) == "<Thread(worker, initial)>"
        thread.start()
        assert_matches(r"^<Thread\(worker, started \d+\)>$", repr(thread))
        gate.set()
        thread.join()
        assert_matches(r"^<Thread\(worker, stopped \d+\)>$", repr(thread))
        daemon = cls(name="d", daemon=True)
        assert repr(daemon) == "<Thread(d, initial daemon)>"
        daemon.start()
        daemon.join()
        assert_matches(r"^<Thread\(d, stopped daemon \d+\)>$", repr(daemon))

    def test_repr_of_a_subclass(self, cls):
        class Worker(cls):
            pass

        assert repr(Worker(name="w")) == "<Worker(w, initial)>"

    # daemon

    def test_daemon(self, cls):
        assert cls().daemon is False
        assert cls(daemon=True).daemon is True
        assert cls(daemon=False).daemon is False
        assert cls(daemon=None).daemon is False
        thread = cls()
        thread.daemon = True
        assert thread.daemon is True

    def test_daemon_is_inherited(self, cls):
        got = []
        thread = cls(target=lambda: got.append((cls().daemon, cls(daemon=False).daemon)), daemon=True)
        thread.start()
        thread.join()
        assert got == [(True, False)]

    def test_daemon_after_start(self, impl, cls, blocked):
        with pytest.raises(RuntimeError, match=r"^cannot set daemon status of active thread$"):
            blocked.daemon = False
        with pytest.raises(RuntimeError):
            impl.threading.current_thread().daemon = True
        thread = cls()
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError):
            thread.daemon = True

    def test_old_names(self, cls):
        thread = cls(name="old")
        with pytest.warns(DeprecationWarning, match="get the daemon attribute"):
            assert thread.isDaemon() is False
        with pytest.warns(DeprecationWarning, match="set the daemon attribute"):
            thread.setDaemon(True)
        assert thread.daemon is True
        with pytest.warns(DeprecationWarning, match="get the name attribute"):
            assert thread.getName() == "old"
        with pytest.warns(DeprecationWarning, match="set the name attribute"):
            thread.setName("new")
        assert thread.name == "new"

    # Subclasses

    def test_run_of_a_subclass(self, cls):
        class Worker(cls):
            def __init__(self, number):
                super().__init__(name=f"worker {number}")
                self.number = number
                self.square = None

            def run(self):
                self.square = self.number**2

        workers = [Worker(i) for i in range(5)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.square for worker in workers] == [0, 1, 4, 9, 16]

    def test_subclass_that_forgets_init(self, cls):
        class Worker(cls):
            def __init__(self):
                pass

        with pytest.raises(RuntimeError, match=r"^thread.__init__\(\) not called$"):
            Worker().start()
        with pytest.raises(RuntimeError, match=r"^Thread.__init__\(\) not called$"):
            Worker().join()

    def test_subclass_with_mixin(self, cls):
        class Mixin:
            def __init__(self, *args, extra, **kwargs):
                super().__init__(*args, **kwargs)
                self.extra = extra

        class Worker(Mixin, cls):
            pass

        got = []
        worker = Worker(target=got.append, args=(1,), extra="x")
        worker.start()
        worker.join()
        assert (got, worker.extra) == ([1], "x")

    def test_overridden_start_and_join(self, cls):
        log = []

        class Worker(cls):
            def start(self):
                log.append("start")
                super().start()

            def join(self, timeout=None):
                log.append("join")
                super().join(timeout)

        worker = Worker(target=log.append, args=("run",))
        worker.start()
        worker.join()
        assert log == ["start", "run", "join"]

    def test_run_set_on_the_instance(self, cls):
        log = []
        thread = cls()
        thread.run = lambda: log.append("mine")
        thread.start()
        thread.join()
        assert log == ["mine"]

    def test_run_patched_on_the_class(self, cls):
        log = []
        with mock.patch.object(cls, "run", lambda self: log.append("patched")):
            thread = cls()
            thread.start()
            thread.join()
        assert log == ["patched"]

    def test_start_patched(self, cls):
        with mock.patch.object(cls, "start", autospec=True) as start:
            thread = cls()
            thread.start()
        start.assert_called_once_with(thread)
        assert not thread.is_alive()

    def test_run_called_directly(self, cls):
        log = []
        thread = cls(target=log.append, args=(1,))
        thread.run()
        assert log == [1]
        assert thread.is_alive() is False
        assert not hasattr(thread, "_target")

    # Exceptions

    def test_excepthook_gets_the_facts(self, impl, cls, monkeypatch):
        got = []
        monkeypatch.setattr(impl.threading, "excepthook", lambda args: got.append(args))
        thread = cls(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        (args,) = got
        assert args.exc_type is ZeroDivisionError
        assert isinstance(args.exc_value, ZeroDivisionError)
        assert args.exc_traceback is args.exc_value.__traceback__
        assert args.thread is thread
        assert isinstance(args, impl.threading.ExceptHookArgs)
        del args, got[:]

    def test_excepthook_set_on_the_standard_module(self, cls, monkeypatch):
        got = []
        monkeypatch.setattr(threading, "excepthook", lambda args: got.append(args.exc_type))
        thread = cls(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        assert got == [ZeroDivisionError]

    def test_default_excepthook(self, impl, cls, monkeypatch):
        monkeypatch.setattr(impl.threading, "excepthook", impl.threading.__excepthook__)
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        thread = cls(target=lambda: 1 / 0, name="failing")
        thread.start()
        thread.join()
        text = stream.getvalue()
        assert text.startswith("Exception in thread failing:\nTraceback (most recent call last):\n")
        assert text.rstrip().endswith("ZeroDivisionError: division by zero")

    def test_excepthook_called_by_hand(self, impl, monkeypatch):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        try:
            raise ValueError("by hand")
        except ValueError as error:
            args = impl.threading.ExceptHookArgs((type(error), error, error.__traceback__, None))
            impl.threading.__excepthook__(args)
        assert f"Exception in thread {threading.get_ident()}:\n" in stream.getvalue()
        assert "ValueError: by hand" in stream.getvalue()

    def test_excepthook_that_fails(self, impl, cls, monkeypatch):
        def hook(args):
            raise ValueError("the hook failed")

        stream = io.StringIO()
        monkeypatch.setattr(impl.threading, "excepthook", hook)
        monkeypatch.setattr(sys, "stderr", stream)
        failures = []
        monkeypatch.setattr(sys, "excepthook", lambda kind, value, traceback: failures.append(str(value)))
        thread = cls(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        assert stream.getvalue() == "Exception in threading.excepthook:\n"
        assert failures == ["the hook failed"]

    def test_system_exit_ends_the_thread_only(self, impl, cls, monkeypatch):
        got = []
        monkeypatch.setattr(impl.threading, "excepthook", impl.threading.__excepthook__)
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        thread = cls(target=sys.exit, args=(1,))
        thread.start()
        thread.join()
        assert (stream.getvalue(), got) == ("", [])

    def test_bare_raise_in_a_new_thread(self, cls):
        got = []

        def work():
            try:
                raise
            except RuntimeError as error:
                got.append(str(error))

        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            thread = cls(target=work)
            thread.start()
            thread.join()
        assert got == ["No active exception to reraise"]

    def test_recursion_error(self, impl, cls, monkeypatch):
        got = []
        monkeypatch.setattr(impl.threading, "excepthook", lambda args: got.append(args.exc_type))

        def dive():
            dive()

        thread = cls(target=dive)
        thread.start()
        thread.join()
        assert got == [RecursionError]

    def test_asynchronous_exception(self, cls):
        got, started = [], threading.Event()

        class Stop(Exception):
            pass

        def work():
            try:
                started.set()
                while True:
                    time.sleep(0.001)
            except Stop:
                got.append("stopped")

        thread = cls(target=work, daemon=True)
        thread.start()
        started.wait()
        assert (
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Stop))
            == 1
        )
        thread.join(20)
        assert got == ["stopped"]

    # Memory

    def test_target_is_dropped_after_the_run(self, cls):
        class Payload:
            pass

        payload = Payload()
        reference = weakref.ref(payload)
        thread = cls(target=lambda x, y: None, args=(payload,), kwargs={"y": payload})
        del payload
        thread.start()
        thread.join()
        gc.collect()
        assert reference() is None
        assert not hasattr(thread, "_target")

    def test_target_that_refers_to_its_thread(self, cls):
        class Job:
            def __init__(self):
                self.thread = cls(target=self.work, args=(self,), kwargs={"me": self})

            def work(self, other, me):
                pass

        job = Job()
        reference = weakref.ref(job)
        job.thread.start()
        job.thread.join()
        gc.disable()
        try:
            del job
            assert reference() is None
        finally:
            gc.enable()

    def test_ended_threads_can_die(self, cls):
        thread = cls()
        reference = weakref.ref(thread)
        thread.start()
        thread.join()
        del thread
        gc.collect()
        assert reference() is None

    def test_unstarted_threads_can_die(self, cls):
        reference = weakref.ref(cls(target=nothing))
        gc.collect()
        assert reference() is None

    def test_running_thread_lives_without_a_reference(self, cls):
        gate, log = threading.Event(), []

        def work():
            gate.wait()
            log.append(1)

        thread = cls(target=work)
        thread.start()
        reference = weakref.ref(thread)
        del thread
        gc.collect()
        assert reference() is not None
        gate.set()
        wait_until(lambda: log and reference() is None, "it has ended and is gone")

    def test_attributes(self, cls):
        thread = cls()
        thread.colour = "red"
        assert vars(thread)["colour"] == "red"
        assert thread == thread
        assert thread != cls()
        assert len({thread, thread}) == 1

    def test_cannot_be_pickled(self, cls):
        for duplicate in (copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot pickle"):
                duplicate(cls())

    # What a new thread starts with

    def test_context_variables_are_fresh(self, cls):
        variable = contextvars.ContextVar("variable", default="fresh")
        seen = []

        def work():
            seen.append(variable.get())
            variable.set("stale")

        for _ in range(5):
            thread = cls(target=work)
            thread.start()
            thread.join()
        assert seen == ["fresh"] * 5

    def test_locals_are_fresh(self, impl, cls):
        local = impl.threading.local()
        seen = []

        def work():
            seen.append(getattr(local, "value", "fresh"))
            local.value = "stale"

        for _ in range(5):
            thread = cls(target=work)
            thread.start()
            thread.join()
        assert seen == ["fresh"] * 5

    def test_event_loop_is_fresh(self, cls):
        seen = []

        async def main():
            await asyncio.sleep(0)
            return asyncio.get_running_loop()

        def work():
            seen.append(asyncio._get_running_loop())
            seen.append(asyncio.run(main()).is_closed())

        for _ in range(3):
            thread = cls(target=work)
            thread.start()
            thread.join()
        assert seen == [None, True] * 3

    @pytest.mark.signals
    def test_signal_mask_is_that_of_the_starter(self, cls):
        seen = []

        def spoil():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])

        def look():
            seen.append(signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, []))

        for target in (spoil, look):
            thread = cls(target=target)
            thread.start()
            thread.join()
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        try:
            thread = cls(target=look)
            thread.start()
            thread.join()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        assert seen == [False, True]

    def test_affinity_is_that_of_the_starter(self, cls):
        everywhere = os.sched_getaffinity(0)
        seen = []
        for target in (
            lambda: os.sched_setaffinity(0, {min(everywhere)}),
            lambda: seen.append(os.sched_getaffinity(0)),
        ):
            thread = cls(target=target)
            thread.start()
            thread.join()
        assert seen == [everywhere]

    def test_stack_size(self, impl, cls):
        assert impl.threading.stack_size() == 0
        for size in (256 * 1024, 1024 * 1024):
            assert impl.threading.stack_size(size) == 0
            try:
                got = []
                thread = cls(target=lambda: got.append(sum(range(100))))
                thread.start()
                thread.join()
                assert got == [4950]
                assert impl.threading.stack_size() == size
            finally:
                impl.threading.stack_size(0)
        for wrong in (-1, 1, 4095):
            with pytest.raises(ValueError):
                impl.threading.stack_size(wrong)

    def test_stack_size_is_the_threads(self, impl, cls):
        """A thread with a large stack holds a recursion that a small one would not."""
        impl.threading.stack_size(64 * 1024 * 1024)
        got = []
        try:
            thread = cls(target=lambda: got.append(_thread_stack_bytes()))
            thread.start()
            thread.join()
        finally:
            impl.threading.stack_size(0)
        assert got[0] >= 60 * 1024 * 1024

    # Tracing

    def test_trace_function(self, impl, cls):
        names = []

        def tracer(frame, event, arg):
            names.append(frame.f_code.co_name)

        before = impl.threading.gettrace()
        impl.threading.settrace(tracer)
        try:
            assert impl.threading.gettrace() is tracer
            thread = cls(target=nothing)
            thread.start()
            thread.join()
        finally:
            impl.threading.settrace(before)
        assert "nothing" in names
        del names[:]
        thread = cls(target=nothing)
        thread.start()
        thread.join()
        assert names == []

    def test_profile_function(self, impl, cls):
        names = []

        def profiler(frame, event, arg):
            names.append((event, frame.f_code.co_name))

        before = impl.threading.getprofile()
        impl.threading.setprofile(profiler)
        try:
            assert impl.threading.getprofile() is profiler
            thread = cls(target=nothing)
            thread.start()
            thread.join()
        finally:
            impl.threading.setprofile(before)
        assert ("call", "nothing") in names

    def test_trace_function_of_one_thread_stays_there(self, cls):
        seen = []

        def spoil():
            sys.settrace(lambda *args: None)
            sys.setprofile(lambda *args: None)

        for target in (spoil, lambda: seen.append((sys.gettrace(), sys.getprofile()))):
            thread = cls(target=target)
            thread.start()
            thread.join()
        assert seen == [(None, None)]

    def test_run_is_seen_by_the_tracer(self, impl, cls):
        events = []

        class Worker(cls):
            def run(self):
                self.value = 1

        def tracer(frame, event, arg):
            if frame.f_code.co_name == "run":
                events.append(event)
                return tracer
            return None

        before = impl.threading.gettrace()
        impl.threading.settrace(tracer)
        try:
            worker = Worker()
            worker.start()
            worker.join()
        finally:
            impl.threading.settrace(before)
        assert events == ["call", "line", "return"]

    def test_frames_of_all_threads(self, blocked):
        wait_until_blocked(blocked)
        frame = sys._current_frames()[blocked.ident]
        names = []
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        assert names
        assert "run" in names or "wait" in names

    # Many

    def test_many_at_once(self, impl, cls):
        lock = impl.threading.Lock()
        count = 0

        def work():
            nonlocal count
            with lock:
                count += 1

        threads = [cls(target=work) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert count == 100

    def test_started_by_threads(self, cls):
        log = []

        def work(depth):
            log.append(depth)
            if depth:
                child = cls(target=work, args=(depth - 1,))
                child.start()
                child.join()

        thread = cls(target=work, args=(20,))
        thread.start()
        thread.join()
        assert log == list(range(20, -1, -1))


class TestProcessOfThreads:
    """What takes a process of its own: exit and fork."""

    def test_exit_waits_for_threads(self, impl):
        check_child(
            impl.prelude
            + """
import time
gate = threading.Event()
def work():
    gate.wait()
    print("worker")
thread = threading.Thread(target=work)
thread.start()
threading.Thread(target=lambda: (time.sleep(0.05), gate.set())).start()
print("main")
""",
            out="main\nworker\n",
        )

    def test_exit_does_not_wait_for_daemons(self, impl):
        check_child(
            impl.prelude
            + """
gate = threading.Event()
for target in (gate.wait, threading.Lock, lambda: gate.wait(1000)):
    threading.Thread(target=target, daemon=True).start()
print("main")
""",
            out="main\n",
        )

    def test_exit_code_with_threads(self, impl):
        done = run_child(
            impl.prelude
            + """
import sys
gate = threading.Event()
threading.Thread(target=gate.wait, daemon=True).start()
threading.Thread(target=lambda: print("worker")).start()
sys.exit(7)
"""
        )
        assert (done.returncode, done.stdout, done.stderr) == (7, "worker\n", "")

    def test_error_in_a_thread_leaves_the_exit_code(self, impl):
        done = run_child(
            impl.prelude + "t = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()\nprint('on')"
        )
        assert (done.returncode, done.stdout) == (0, "on\n")
        assert "Exception in thread Thread-1 (<lambda>):" in done.stderr
        assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")

    def test_atexit_functions_see_no_threads(self, impl):
        check_child(
            impl.prelude
            + """
import atexit
done = []
atexit.register(lambda: print("atexit", done))
threading.Thread(target=lambda: done.append(1)).start()
""",
            out="atexit [1]\n",
        )

    @pytest.mark.fork
    def test_fork_leaves_one_thread(self, impl):
        check_child(
            impl.prelude
            + """
import os, warnings
warnings.simplefilter("ignore")
gate = threading.Event()
other = threading.Thread(target=gate.wait, name="other")
other.start()
pid = os.fork()
if pid == 0:
    names = threading.current_thread().name, threading.main_thread().name
    print(threading.active_count(), *names, other.is_alive())
    other.join()
    new = threading.Thread(target=lambda: print("new"))
    new.start()
    new.join()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
gate.set()
other.join()
""",
            out="1 MainThread MainThread False\nnew\n0\n",
        )

    @pytest.mark.fork
    def test_fork_in_a_thread_makes_it_the_main_one(self, impl):
        check_child(
            impl.prelude
            + """
import os, warnings
warnings.simplefilter("ignore")
def work():
    pid = os.fork()
    if pid == 0:
        me = threading.current_thread()
        print(me.name, me is threading.main_thread(), me.ident == threading.get_ident())
        print(threading.active_count())
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
thread = threading.Thread(target=work, name="forker")
thread.start()
thread.join()
print(threading.main_thread().name)
""",
            out="forker True True\n1\n0\nMainThread\n",
        )


def _thread_stack_bytes():
    """Size of the calling thread's stack as the C library tells it."""
    libc = ctypes.CDLL(None)
    attributes = (ctypes.c_char * 128)()
    libc.pthread_self.restype = ctypes.c_ulong
    if libc.pthread_getattr_np(ctypes.c_ulong(libc.pthread_self()), ctypes.byref(attributes)):
        raise OSError("pthread_getattr_np")
    size = ctypes.c_size_t()
    libc.pthread_attr_getstacksize(ctypes.byref(attributes), ctypes.byref(size))
    libc.pthread_attr_destroy(ctypes.byref(attributes))
    return size.value
