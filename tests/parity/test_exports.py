"""Every public name of threading, queue and sched, on both implementations."""

import inspect
import queue
import sched
import subprocess
import sys
import threading

import pytest

from tools import check_child, check_signature

MODULES = {"threading": threading, "queue": queue, "sched": sched}
NAMES = [(module, name) for module in MODULES for name in MODULES[module].__all__]
NAMES += [("sched", "Event"), ("threading", "currentThread"), ("threading", "activeCount")]
NAMES += [("threading", "__excepthook__"), ("threading", "_register_atexit")]

#: Names that raddle must hand on as they are: other code compares or catches them.
SAME = [
    ("threading", "get_ident"),
    ("threading", "get_native_id"),
    ("threading", "TIMEOUT_MAX"),
    ("threading", "ThreadError"),
    ("threading", "BrokenBarrierError"),
    ("threading", "ExceptHookArgs"),
    ("threading", "stack_size"),
    ("queue", "Empty"),
    ("queue", "Full"),
]


class TestExports:
    @pytest.mark.parametrize("module, name", NAMES, ids=".".join)
    def test_name_is_there(self, impl, module, name):
        assert hasattr(getattr(impl, module), name)

    @pytest.mark.parametrize("module", MODULES)
    def test_all_is_complete_and_true(self, impl, module):
        ours = getattr(impl, module)
        assert set(MODULES[module].__all__) <= set(ours.__all__)
        assert len(ours.__all__) == len(set(ours.__all__))
        for name in ours.__all__:
            getattr(ours, name)

    @pytest.mark.parametrize("module", MODULES)
    def test_star_import(self, impl, module):
        space = {}
        exec(f"from {getattr(impl, module).__name__} import *", space)
        assert set(MODULES[module].__all__) <= set(space)

    @pytest.mark.parametrize("module, name", SAME, ids=".".join)
    def test_name_is_the_standard_one(self, impl, module, name):
        assert getattr(getattr(impl, module), name) is getattr(MODULES[module], name) or name == "TIMEOUT_MAX"
        assert getattr(getattr(impl, module), name) == getattr(MODULES[module], name)

    def test_shutdown_error_is_the_standard_one_if_there_is_one(self, impl):
        if hasattr(queue, "ShutDown"):
            assert impl.queue.ShutDown is queue.ShutDown
        elif impl.is_raddle:
            assert issubclass(impl.queue.ShutDown, Exception)

    @pytest.mark.parametrize("module, name", NAMES, ids=".".join)
    def test_function_signature(self, impl, module, name):
        ours, reference = getattr(getattr(impl, module), name), getattr(MODULES[module], name)
        if inspect.isfunction(reference) and name != "RLock":
            check_signature(ours, reference)

    @pytest.mark.parametrize("module, name", NAMES, ids=".".join)
    def test_kind(self, impl, module, name):
        """A class stays a class; a factory may have become one."""
        ours, reference = getattr(getattr(impl, module), name), getattr(MODULES[module], name)
        assert callable(ours) == callable(reference)
        if isinstance(reference, type):
            assert isinstance(ours, type)
            if issubclass(reference, BaseException):
                assert ours.__mro__ == reference.__mro__

    @pytest.mark.parametrize("module, name", NAMES, ids=".".join)
    def test_documentation(self, impl, module, name):
        ours = getattr(getattr(impl, module), name)
        if callable(ours) and getattr(MODULES[module], name).__doc__:
            assert ours.__doc__

    def test_module_documentation(self, impl):
        for module in MODULES:
            assert getattr(impl, module).__doc__

    def test_old_functions(self, impl):
        with pytest.warns(DeprecationWarning, match=r"use current_thread\(\)"):
            assert impl.threading.currentThread() is threading.current_thread()
        with pytest.warns(DeprecationWarning, match=r"use active_count\(\)"):
            assert impl.threading.activeCount() == threading.active_count()

    def test_both_see_the_same_threads(self, impl):
        assert impl.threading.enumerate() == threading.enumerate()
        assert impl.threading.active_count() == threading.active_count()
        assert impl.threading.current_thread() is threading.current_thread()
        assert impl.threading.main_thread() is threading.main_thread()

    def test_hooks_are_shared(self, impl):
        def hook(*args):
            return None

        for set_, get in (("settrace", "gettrace"), ("setprofile", "getprofile")):
            before = getattr(impl.threading, get)()
            getattr(impl.threading, set_)(hook)
            try:
                assert getattr(threading, get)() is hook
            finally:
                getattr(impl.threading, set_)(before)

    def test_hooks_for_all_threads(self, impl):
        if sys.version_info < (3, 12):
            assert not hasattr(impl.threading, "setprofile_all_threads")
            return

        def hook(*args):
            return None

        before = threading.getprofile()
        impl.threading.setprofile_all_threads(hook)
        try:
            assert sys.getprofile() is hook
            assert threading.getprofile() is hook
        finally:
            impl.threading.setprofile_all_threads(before)
            sys.setprofile(None)

    def test_register_atexit(self, impl):
        code = """
import sys
threading._register_atexit(sys.stdout.write, "last ")
threading.Thread(target=sys.stdout.write, args=("worker ",)).start()
"""
        assert sorted(check_child(impl.prelude + code).split()) == ["last", "worker"]

    def test_import_says_nothing(self, impl):
        check_child(impl.prelude, out="", options=("-W", "error"))

    def test_import_starts_no_thread(self, impl):
        code = "import os; print(len(os.listdir('/proc/self/task')), threading.active_count())"
        check_child(impl.prelude + code, out="1 1\n")

    def test_children_of_the_process_start(self, impl):
        """Nothing of ours is in the way of fork and exec."""
        child = subprocess.run(
            [sys.executable, "-c", impl.prelude + "print('fine')"], capture_output=True, text=True, check=True
        )
        assert child.stdout == "fine\n"
