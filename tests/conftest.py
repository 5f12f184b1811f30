"""Settings of all tests: time limit with stack dumps, seeds, marks, and the two implementations."""

import faulthandler
import fnmatch
import os
import signal
import sys

import pytest

import tools

TIME_LIMIT = float(
    os.environ.get("RADDLE_TIME_LIMIT", "60")
)  # Seconds for one test; a mark of its own overrides it.

MARKS = {
    "fork": "forks the process",
    "signals": "sends signals to itself or to a child",
    "stress": "random schedules; scaled by RADDLE_STRESS",
}

#: Tests that cannot pass: pattern of node id, whether it holds on this Python, the test functions, whether
#: they can be run at all (a hang cannot), reason. An unexpected pass is a failure.
EXPECTED_FAILURES = [
    (
        "*test_stress_signals.py::test_*stdlib-Thread.join*",
        sys.version_info < (3, 13),
        {"test_keyboard_interrupt", "test_handler_that_raises"},
        True,
        "before 3.13, Thread.join left by an exception takes the thread for ended (_wait_for_tstate_lock)",
    ),
    (
        "*test_stress_signals.py::test_*stdlib-SimpleQueue.get*",
        True,
        {"test_deadline_stays_under_signals"},
        False,
        "a signal just before its deadline makes _queue.SimpleQueue.get wait for ever (now and then)",
    ),
    # Where raddle differs on purpose, or for now: docs/ say so to users.
    (
        "*raddle*",
        True,
        {"test_shallow_copy", "test_shallow_copy_shares_the_lock", "test_shallow_copy_has_the_items"},
        True,
        "copying is refused as pickling is: a copy could not share the waiters",
    ),
    (
        "*raddle*",
        True,
        {
            "test_hook_set_on_the_instance",
            "test_hook_patched_on_the_class",
            "test_hook_added_to_a_subclass_later",
        },
        True,
        "hooks are looked for on the type, once, when a queue is made",
    ),
    (
        "*raddle*",
        True,
        {"test_type_is_immutable"},
        False,
        "install() says in which module the types are; run, the test would leave its attribute behind",
    ),
    *(
        (
            f"*test_simple_queue.py*raddle-{timeout}*",
            True,
            {"test_odd_timeouts"},
            True,
            "a time-out that cannot be is an error of a call that has to wait, as for Queue.get",
        )
        for timeout in ("nan", "inf", "-inf", "1e+100", "1180591620717411303424")
    ),
    (
        "*test_simple_queue.py*raddle*",
        True,
        {"test_no_attributes_on_the_type_itself"},
        True,
        "SimpleQueue takes attributes, as Queue does",
    ),
    (
        "*raddle*",
        True,
        {"test_acquire_and_release_are_those_of_the_lock"},
        True,
        "a condition's acquire and release are methods that call the lock's",
    ),
    (
        "*raddle*",
        True,
        {"test_main_thread", "test_thread_not_made_by_threading", "test_isinstance_of_standard_threads"},
        True,
        "threads of the standard library are instances of raddle's Thread only after install()",
    ),
    (
        "*raddle*",
        True,
        {"test_pending_one_looks_like_a_running_thread"},
        True,
        "a pending timer has no thread yet, and so no ident",
    ),
]


def pytest_configure(config):
    for name, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=False)
    # A shell starts what it puts in the background with SIGINT ignored, and programs inherit that from us.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header(config):
    return f"RADDLE_SEED={tools.SEED} RADDLE_STRESS={tools.STRESS:g}"


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIME_LIMIT, method="thread"))
        for pattern, holds, functions, runs, reason in EXPECTED_FAILURES:
            if (
                holds
                and {item.originalname, item.name} & functions
                and fnmatch.fnmatchcase(item.nodeid, pattern)
            ):
                item.add_marker(pytest.mark.xfail(reason=reason, run=runs, strict=True))


@pytest.fixture(params=["stdlib", "raddle"])
def impl(request):
    """Both sides in turn: has the modules `threading`, `queue`, `sched` and `futures` of one of them as attributes."""
    return {"stdlib": tools.STDLIB, "raddle": tools.RADDLE}[request.param]


@pytest.fixture
def raddle():
    """raddle alone, for what goes beyond the standard library."""
    return tools.RADDLE


@pytest.fixture
def rng(request):
    """A random generator that belongs to this test; its seed is in the captured output of a failure."""
    return tools.rng_for(request.node.nodeid.rpartition("/")[2])
