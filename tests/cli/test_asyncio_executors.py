"""asyncio's own tests that touch executors, with raddle's thread pool as the default executor.

What passes on the standard library has to pass under `install()`, and where asyncio gave calls to the standard
library's pool it gives them to raddle's.
"""

import concurrent.futures
import importlib.util
import json
import os

import pytest
from cli_processes import python

pytestmark = [
    pytest.mark.fork,
    pytest.mark.skipif(
        importlib.util.find_spec("test.test_asyncio") is None,
        reason="this Python came without its own tests of asyncio",
    ),
]

_SUITE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "asyncio_suite.py")

#: Files of test.test_asyncio in which some tests use executors, and which of their tests to run where others take long.
FILES = {
    "test_base_events": (),
    "test_events": (
        "*executor*",
        "*_local_addr*",
        "*_datagram_endpoint_sock",
        "*_dual_stack",
        "*_new_process",
    ),
    "test_futures": ("*wrap_future*", "*callback*"),
    "test_sendfile": ("*fallback*", "*ssl*"),
    "test_sock_lowlevel": ("*connect*",),
    "test_streams": (),
    "test_tasks": ("*threadsafe*",),
    "test_threads": (),
    "test_unix_events": (),
}


def outcomes(which, out, name):
    ended = python(_SUITE, which, out, name, *FILES[name], timeout=90)
    assert ended.code == 0, ended.err
    return json.loads(out.read_text())


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", FILES)
def test_asyncio_s_own(name, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(2) as both:
        standard, found = both.map(
            lambda which: outcomes(which, tmp_path / which, name), ("python", "raddle")
        )
    expected = {test: pools for test, (outcome, pools) in standard.items() if outcome == "passed"}
    bad = {test: found[test][0] for test in expected if found[test][0] != "passed"}
    assert not bad, "\n\n".join(f"{test}: {outcome}" for test, outcome in bad.items())
    on_raddle = {test: [f"raddle.{module}" for module in pools] for test, pools in expected.items()}
    assert {test: found[test][1] for test in expected} == on_raddle
    assert any(on_raddle.values())
