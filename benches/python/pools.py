"""Pools of processes, and the start of processes.

A pool is made anew for each sample, outside of the timed part unless the row says otherwise, and all its workers have
run something before the clock starts. The CPU time is that of the parent alone.
"""

import json
import multiprocessing
import os
import subprocess
import sys
from collections import deque
from itertools import repeat
from pathlib import Path

from .harness import SAMPLE_LIMIT, check, mark, row, since

try:
    import numpy
except ImportError:  # the rows with arrays are left out
    numpy = None

WORKERS = 2

#: Tasks of a burst that are under way at any time; calls of a map; bytes of a large argument or result.
OUTSTANDING, CALLS, LARGE = 64, 20_000, 64_000_000

_POOLS = {
    "contenders": ("stdlib", "raddle", "mp_pool", "loky", "pebble", "mpire", "billiard"),
    "step": 1,
    "least": 1,
}

#: What a worker keeps between tasks, so that rows on results do not measure how these are made.
_kept = {}


def _nothing():
    pass


def _meet(barrier):
    barrier.wait(30)


def _warm(pool):
    """Every worker has begun: tasks that take 20 ms, more than there are workers."""
    for future in [pool.submit(_pause) for _ in range(2 * WORKERS)]:
        future.result()


def _pause():
    import time

    time.sleep(0.02)


@row(
    "pools.submit",
    "process pool, no-op tasks by submit, 64 under way, 2 workers",
    needs=["ProcessPoolExecutor"],
    target=10,
    **{**_POOLS, "least": 200},
    most=200_000,
    quick=100,
)
def submit(impl, n):
    """The oldest result is taken before the next task is submitted."""
    with impl.ProcessPoolExecutor(WORKERS) as pool:
        _warm(pool)
        submit, line = pool.submit, deque()
        start = mark()
        for _ in repeat(None, min(n, OUTSTANDING)):
            line.append(submit(_nothing))
        for _ in repeat(None, n - len(line)):
            line.popleft().result()
            line.append(submit(_nothing))
        while line:
            line.popleft().result()
        return since(start)


@row(
    "pools.map",
    "Pool.map of 20,000 no-ops, chunksize 1, 2 workers, per call",
    needs=["ProcessPool"],
    target=5,
    **{**_POOLS, "least": CALLS},
    most=CALLS,
    quick=200,
    rounds=5,
)
def map_calls(impl, n):
    """All results are taken, in order."""
    with impl.ProcessPool(WORKERS) as pool:
        pool.map(abs, range(200), chunksize=1)
        start = mark()
        results = pool.map(abs, range(n), chunksize=1)
        spent = since(start)
    check(len(results) == n and results[-1] == n - 1, "map gave other results")
    return spent


@row(
    "pools.executor_map",
    "ProcessPoolExecutor.map of 2,000 no-ops, 2 workers, per call",
    needs=["ProcessPoolExecutor"],
    **{**_POOLS, "least": 2000, "contenders": ("stdlib", "raddle", "loky")},
    most=2000,
    quick=200,
    rounds=5,
)
def executor_map(impl, n):
    """All results are taken, in order."""
    with impl.ProcessPoolExecutor(WORKERS) as pool:
        _warm(pool)
        start = mark()
        results = list(pool.map(abs, range(n)))
        spent = since(start)
    check(results == list(range(n)), "map gave other results")
    return spent


# Large arguments and results


def _last(blob):
    return int(blob[-1])


def _keep(make, size):
    _kept[0] = make(size)


def _give():
    return _kept[0]


def _filled(size):
    """A bytearray that is no page of zeros."""
    return bytearray(b"x") * size


def _array(size):
    return numpy.full(size, 120, dtype=numpy.uint8)


def _argument(impl, n, make):
    blob = make(LARGE)
    with impl.ProcessPoolExecutor(1) as pool:
        check(pool.submit(_last, blob).result() == 120, "another argument")
        start = mark()
        for _ in repeat(None, n):
            pool.submit(_last, blob).result()
        return since(start)


def _result(impl, n, make):
    with impl.ProcessPoolExecutor(1) as pool:
        pool.submit(_keep, make, LARGE).result()
        check(len(pool.submit(_give).result()) == LARGE, "another result")
        start = mark()
        for _ in repeat(None, n):
            pool.submit(_give).result()
        return since(start)


_LARGE = {**_POOLS, "needs": ["ProcessPoolExecutor"], "most": 20, "quick": 1, "rounds": 5}


@row("pools.bytes_argument", "process pool, 64 MB bytearray as argument", **_LARGE)
def bytes_argument(impl, n):
    """One at a time, to one worker."""
    return _argument(impl, n, _filled)


@row("pools.bytes_result", "process pool, 64 MB bytearray as result", **_LARGE)
def bytes_result(impl, n):
    """One at a time, from one worker, which has it already."""
    return _result(impl, n, _filled)


if numpy is not None:

    @row("pools.array_argument", "process pool, 64 MB NumPy array as argument", target=5, **_LARGE)
    def array_argument(impl, n):
        """As `bytes_argument`; pickle protocol 5 leaves the array's memory outside."""
        return _argument(impl, n, _array)

    @row("pools.array_result", "process pool, 64 MB NumPy array as result", target=5, **_LARGE)
    def array_result(impl, n):
        """As `bytes_result`."""
        return _result(impl, n, _array)


# From nothing to the first result


def _elsewhere(impl, what, method, n, installed=False):
    """See `starts.py`."""
    here = Path(__file__)
    contender = impl.__name__.rpartition(".")[2].strip("_")
    if installed and contender == "raddle":
        contender = "installed"
    done = subprocess.run(
        [sys.executable, str(here.with_name("starts.py")), contender, what, method, str(n)],
        env={**os.environ, "PYTHONPATH": str(here.parents[2])},
        capture_output=True,
        text=True,
        timeout=SAMPLE_LIMIT,
        check=False,
    )
    check(done.returncode == 0, done.stderr.strip().rpartition("\n")[2])
    return tuple(json.loads(done.stdout))


_STARTS = {"contenders": ("stdlib", "raddle"), "step": 1, "least": 1, "most": 100, "quick": 1, "slices": 4}


def _of_methods():
    """Rows for each start method, and for raddle's own beside forkserver."""
    for method in ("fork", "forkserver", "spawn", "server"):

        def start_join(impl, n, method=method):
            return _elsewhere(impl, "start_join", method, n)

        def first_result(impl, n, method=method):
            return _elsewhere(impl, "first_result", method, n)

        title = "forkserver, raddle's warm" if method == "server" else method
        needs = ["get_context", *["server_method"] * (method == "server")]
        target = 2 if method in ("forkserver", "server") else None
        row(f"pools.process_{method}", f"Process start+join, {title}", needs=needs, target=target, **_STARTS)(
            start_join
        )
        needs = [*needs, "ProcessPoolExecutor"]
        title = f"process pool, from its making to the first result, {title}"
        row(f"pools.first_{method}", title, needs=needs, **_STARTS)(first_result)
    for method in ("fork", "spawn"):

        def installed_start_join(impl, n, method=method):
            return _elsewhere(impl, "start_join", method, n, installed=True)

        title = f"Process start+join, {method}, after raddle.install()"
        row(f"pools.installed_{method}", title, needs=["get_context"], **_STARTS)(installed_start_join)


_of_methods()


def _import_and_meet(barrier):
    if numpy is not None:
        import numpy as imported

        check(imported is not None, "there is no numpy")
    barrier.wait(30)


@row(
    "pools.ready8",
    "8 workers that import NumPy are ready: fork, raddle with its own start method",
    needs=["quick_method", "get_context", "ProcessPoolExecutor"],
    target=0.77,  # within 1.3 times
    **{**_STARTS, "most": 5},
)
def ready(impl, n):
    """The parent has imported it. Ready is: eight tasks wait for each other, so that no worker takes two."""
    spent = [0.0, 0.0]
    for turn in range(n + 1):
        context = impl.get_context(impl.quick_method)
        barrier = multiprocessing.get_context("fork" if impl.quick_method == "fork" else "spawn").Barrier(8)
        start = mark()
        with impl.ProcessPoolExecutor(
            8, mp_context=context, initializer=_import_and_meet, initargs=(barrier,)
        ) as pool:
            for future in [pool.submit(_nothing) for _ in range(8)]:
                future.result()
            found = since(start)
        if turn:
            spent = [spent[0] + found[0], spent[1] + found[1]]
    return tuple(spent)


# What it is all for


def _count(limit):
    """Computes: primes below the limit."""
    return sum(
        all(number % divisor for divisor in range(2, int(number**0.5) + 1)) for number in range(2, limit)
    )


@row(
    "pools.computing",
    "computing in Python, 2 workers against one after the other",
    target=1.9,
    baseline="sequential",
    **{**_POOLS, "contenders": ("sequential", "stdlib", "raddle", "loky", "pebble")},
    most=1,
    quick=1,
    needs_cpus=2,
    slices=3,
)
def computing(impl, n):
    """One operation is sixteen tasks of some 30 ms."""
    check(n == 1, "the row is for one operation")
    limits = [20_000] * 16
    if not hasattr(impl, "ProcessPoolExecutor"):
        start = mark()
        counts = [_count(limit) for limit in limits]
        spent = since(start)
    else:
        with impl.ProcessPoolExecutor(WORKERS) as pool:
            _warm(pool)
            start = mark()
            counts = [future.result() for future in [pool.submit(_count, limit) for limit in limits]]
            spent = since(start)
    check(counts == [2262] * 16, "other primes")
    return spent
