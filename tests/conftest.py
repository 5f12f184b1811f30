"""Settings of all tests: time limit with stack dumps, seeds, marks, and the two implementations."""

import faulthandler
import os
import signal

import pytest
import tools

TIME_LIMIT = float(os.environ.get("RADDLE_TIME_LIMIT", "60"))  # Seconds for one test; a mark of its own overrides it.

MARKS = {
    "fork": "forks the process",
    "signals": "sends signals to itself or to a child",
    "stress": "random schedules; scaled by RADDLE_STRESS",
}


def pytest_configure(config):
    for name, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=False)


def pytest_report_header(config):
    return f"RADDLE_SEED={tools.SEED} RADDLE_STRESS={tools.STRESS:g}"


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIME_LIMIT, method="thread"))


@pytest.fixture(params=["stdlib", "raddle"])
def impl(request):
    """Both sides in turn: has the modules `threading`, `queue` and `sched` of one of them as attributes."""
    return {"stdlib": tools.STDLIB, "raddle": tools.RADDLE}[request.param]


@pytest.fixture
def raddle():
    """raddle alone, for what goes beyond the standard library."""
    return tools.RADDLE


@pytest.fixture
def rng(request):
    """A random generator that belongs to this test; its seed is in the captured output of a failure."""
    return tools.rng_for(request.node.nodeid.rpartition("/")[2])
