"""Rows, rounds and figures: how every bench of this folder is measured.

A row is one workload, a function `workload(impl, n)` that builds what it needs from the adapter `impl`, does the
operation n times and returns what `since(mark)` gives for the timed part. All contenders of a row run in turn, round
after round, in one process, and the order moves on by one place every round. A ratio compares two samples of the same
round, so that a slow second of the machine hits both sides; what is printed is the median of the rounds' ratios with
the smallest and the largest.

The number of operations is chosen per contender so that each sample takes about the same time: contenders differ by
a factor of a hundred and more. Workloads check their own result, and a wrong one fails the row.

What this does not do: it does not pin cores unless the row says so, does not touch the switch interval, and leaves out
no sample. The cyclic garbage collector is off inside a sample, as in `timeit`.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import gc
import importlib
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

#: Seconds after which one sample counts as hung: the process dumps all stacks and ends.
SAMPLE_LIMIT = 90.0

#: Adapters that take part in every row they have the needed types for, in the order of their turns.
CONTENDERS = ("stdlib", "raddle", "culsans", "aiologic", "simplequeue", "mp_threadpool", "faster_fifo")

#: What the reader sees for each adapter.
LABELS = {
    "stdlib": "stdlib",
    "raddle": "raddle",
    "raddle_sites": "raddle, sites kept",
    "culsans": "culsans",
    "aiologic": "aiologic",
    "simplequeue": "_queue.SimpleQueue",
    "mp_threadpool": "multiprocessing.pool.ThreadPool",
    "sequential": "one after the other",
    "faster_fifo": "faster-fifo",
    "mp_pool": "multiprocessing.Pool",
    "loky": "loky",
    "pebble": "pebble",
    "mpire": "mpire",
    "billiard": "billiard",
}

#: Adapter modules; the underscore keeps a module from shadowing the package it adapts.
MODULES = {
    "stdlib": "stdlib",
    "raddle": "raddle_",
    "raddle_sites": "raddle_sites",
    "culsans": "culsans_",
    "aiologic": "aiologic_",
    "simplequeue": "simplequeue",
    "mp_threadpool": "mp_threadpool",
    "sequential": "sequential",
    "faster_fifo": "faster_fifo_",
    "mp_pool": "mp_pool",
    "loky": "loky_",
    "pebble": "pebble_",
    "mpire": "mpire_",
    "billiard": "billiard_",
}

#: Packages that need not be there.
PEERS = {"raddle", "culsans", "aiologic", "faster_fifo", "loky", "pebble", "mpire", "billiard"}

#: Subjects in the order they are run and printed; each is a module of this package.
SUBJECTS = (
    "locks",
    "queues",
    "handover",
    "events",
    "timers",
    "sched_",
    "threads",
    "futures",
    "processes",
    "pools",
    "idle",
    "memory",
)

Workload = Callable[[Any, int], "tuple[float, float]"]


class WrongResult(Exception):
    """A workload ended with a result that cannot be right."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    subject: str
    workload: Workload
    #: Names the adapters must have; contenders without one of them sit this row out.
    needs: tuple[str, ...]
    #: The ratio to reach; None means "no slower than the baseline".
    target: float | None = None
    #: "speed": ns per operation; "cpu": CPU ns per operation; "idle": CPU µs per thread and second; "memory": bytes.
    kind: str = "speed"
    #: Operations per sample: at least, at most, and always a multiple of `step`.
    least: int = 10
    most: int = 50_000_000
    step: int = 10
    #: Rounds at most in one process, for rows whose samples cannot be short.
    rounds: int | None = None
    #: A sample is made of so many runs, the contenders' in turn: for what varies from second to second by more than
    #: contenders differ.
    slices: int = 1
    #: Operations per sample under --quick.
    quick: int = 20
    #: Run pinned to this many cores, each thread to one of them; or wherever the system likes (None).
    cores: int | None = None
    #: Fewer CPUs than this and the row is left out.
    needs_cpus: int = 1
    #: Contenders, when they are not the usual ones.
    contenders: tuple[str, ...] = CONTENDERS
    baseline: str = "stdlib"
    measured: str = "raddle"
    #: One thread that never waits: timed by the CPU clock, which the machine's other processes disturb less.
    solo: bool = False
    #: Every sample in a process of its own (idle, memory).
    own_process: bool = False


ROWS: dict[str, Row] = {}


def row(name: str, title: str, **options: Any) -> Callable[[Workload], Workload]:
    """Register a workload as a row; may be stacked to register it twice with different options."""

    def register(workload: Workload) -> Workload:
        if name in ROWS:
            raise ValueError(f"two rows are called {name}")
        subject = workload.__module__.rpartition(".")[2]
        needs = options.pop("needs", ())
        ROWS[name] = Row(name, title, subject, workload, tuple(needs), **options)
        return workload

    return register


def load_rows() -> dict[str, Row]:
    """Import every subject and return its rows, in order."""
    for subject in SUBJECTS:
        importlib.import_module(f"{__package__}.{subject}")
    order = {subject: place for place, subject in enumerate(SUBJECTS)}
    return dict(sorted(ROWS.items(), key=lambda entry: order[entry[1].subject]))


def load_adapter(name: str) -> ModuleType | None:
    """The adapter, or None when the package behind it is not installed."""
    try:
        return importlib.import_module(f"{__package__}.adapters.{MODULES[name]}")
    except ModuleNotFoundError as missing:
        if missing.name and missing.name.split(".")[0] in PEERS:
            return None
        raise


def same_objects(one: Row) -> bool:
    """Whether what the row measures is, on both sides, the very same object: nothing to win or lose."""
    base, ours = load_adapter(one.baseline), load_adapter(one.measured)
    if base is ours or ours is None:
        return False
    return bool(one.needs) and all(getattr(base, need) is getattr(ours, need) for need in one.needs)


def contenders_of(one: Row) -> dict[str, ModuleType]:
    """Adapters that are installed and have what the row needs, in the order of their turns."""
    found = {}
    for name in one.contenders:
        adapter = load_adapter(name)
        if adapter is not None and all(hasattr(adapter, need) for need in one.needs):
            found[name] = adapter
    return found


# Timing inside workloads


def mark() -> tuple[float, float]:
    """Wall and CPU clock now; the CPU clock counts all threads of the process."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    """Wall and CPU seconds since `start`."""
    wall, cpu = time.perf_counter(), time.process_time()
    return wall - start[0], cpu - start[1]


def check(condition: bool, what: str) -> None:
    """Fail the row unless `condition`."""
    if not condition:
        raise WrongResult(what)


#: Whether the row being measured wants each thread on a core of its own.
_spread = False


def together(*bodies: Callable[[], None]) -> tuple[float, float]:
    """Run each body in a thread of the standard library; time from the common start to the last join.

    The threads are the standard library's for every contender, so that only the primitive under test differs.
    In a row for several cores, each is pinned to a core of its own, in turn.
    """
    cores = sorted(os.sched_getaffinity(0)) if _spread and hasattr(os, "sched_getaffinity") else []
    ready = threading.Semaphore(0)
    go = threading.Event()
    failures: list[BaseException] = []

    def shell(body: Callable[[], None], place: int) -> None:
        if cores:
            os.sched_setaffinity(0, {cores[place % len(cores)]})  # 0: the calling thread
        ready.release()
        go.wait()
        try:
            body()
        except BaseException as failure:
            failures.append(failure)

    threads = [
        threading.Thread(target=shell, args=(body, place), daemon=True) for place, body in enumerate(bodies)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        ready.acquire()
    start = mark()
    go.set()
    for thread in threads:
        thread.join(SAMPLE_LIMIT / 2)
    spent = since(start)
    if failures:
        raise failures[0]
    check(not any(thread.is_alive() for thread in threads), "threads did not end")
    return spent


# Samples and rounds


def sample(one: Row, adapter: ModuleType, n: int) -> tuple[float, float]:
    """One timed run of n operations."""
    global _spread
    _spread = (one.cores or 1) > 1
    before = getattr(adapter, "before", None)
    after = getattr(adapter, "after", None)
    gc.collect()
    gc.disable()
    faulthandler.dump_traceback_later(SAMPLE_LIMIT, exit=True, file=sys.__stderr__)
    try:
        if before is not None:
            before()
        try:
            return one.workload(adapter, n)
        finally:
            if after is not None:
                after()
    finally:
        faulthandler.cancel_dump_traceback_later()
        gc.enable()


def _round_to(n: float, one: Row) -> int:
    steps = max(1, round(n / one.step))
    return max(one.least, min(one.most, steps * one.step))


#: How often a row is run before its first sample where its number of operations is fixed.
WARM_UPS = 2


def calibrate(one: Row, adapter: ModuleType, seconds: float) -> int:
    """Operations that take about `seconds`; the runs it needs also warm the interpreter's inline caches."""
    n = one.least
    if n == one.most:
        for _ in range(WARM_UPS):  # as those that are calibrated have been run by then
            sample(one, adapter, n)
        return n
    while True:
        wall, _ = sample(one, adapter, n)
        if wall >= seconds / 4 or n >= one.most:
            return _round_to(n * seconds / max(wall, 1e-9), one)
        n = _round_to(min(n * 20.0, max(n * 2.0, n * seconds / max(wall, 1e-9))), one)


def measure(one: Row, rounds: int, seconds: float, quick: bool) -> dict[str, dict[str, Any]]:
    """All rounds of one row: for each contender its values (see Row.kind) and CPU ns per operation, one per round."""
    adapters = contenders_of(one)
    sizes = {}
    for name, adapter in adapters.items():
        sizes[name] = one.quick if quick else calibrate(one, adapter, seconds)
    result: dict[str, dict[str, Any]] = {
        name: {"operations": sizes[name], "values": [], "cpu": []} for name in adapters
    }
    names = list(adapters)
    for turn in range(min(rounds, one.rounds or rounds)):
        first = turn % len(names)
        order = names[first:] + names[:first]
        slices = 1 if quick else one.slices
        runs = [(name, sample(one, adapters[name], sizes[name])) for _ in range(slices) for name in order]
        for name in order:
            wall, cpu = (sum(spent[of] for whose, spent in runs if whose == name) for of in (0, 1))
            n = sizes[name] * slices
            value = (cpu if one.solo or one.kind == "cpu" else wall) / n * 1e9
            check(
                math.isfinite(value) and (value > 0 or one.kind == "cpu"),
                f"{name} took {value} ns per operation",
            )
            result[name]["values"].append(value)
            result[name]["cpu"].append(cpu / n * 1e9)
    return result


# Figures


@dataclasses.dataclass(frozen=True)
class Figure:
    """A ratio over the rounds: above 1 means the second contender is better than the first."""

    median: float
    low: float
    high: float
    #: A quarter of the rounds reached this.
    upper: float

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.low)}..{short(self.high)})"


def short(value: float) -> str:
    """A ratio with as many digits as it deserves."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def figure(baseline: list[float], other: list[float]) -> Figure | None:
    """The ratio baseline/other, round by round; None where there is nothing to compare."""
    ratios = [a / b for a, b in zip(baseline, other, strict=False) if a > 0 and b > 0]
    if not ratios:
        return None
    upper = sorted(ratios)[-((len(ratios) + 3) // 4)]
    return Figure(statistics.median(ratios), min(ratios), max(ratios), upper)


#: A row without a target may be this far below 1 and still counts as equal: the machine's noise. Down to 0.9 it does
#: where a quarter of the rounds reached 1.
EQUAL = 0.96

#: CPU µs per thread and second that an idle wait may cost beyond the standard library's: a wait that looks around
#: once stays below, one that polls ten times a second does not.
IDLE_SLACK = 40.0


def verdict(record: dict[str, Any]) -> str:
    """ "reached", "missed", "no slower", "slower", "same object", or "" where there is nothing to judge."""
    contenders = record["contenders"]
    if record["baseline"] not in contenders or record["measured"] not in contenders:
        return ""
    base, ours = contenders[record["baseline"]]["values"], contenders[record["measured"]]["values"]
    if not base or not ours:
        return ""
    if record["kind"] == "idle":
        over = statistics.median(ours) - statistics.median(base)
        return "no more CPU" if over <= IDLE_SLACK else "more CPU"
    if record["kind"] == "memory" and record["target"] is None:
        return "no larger" if statistics.median(ours) <= statistics.median(base) / EQUAL else "larger"
    if record.get("same") and record["target"] is None:
        return "same object"
    ratio = figure(base, ours)
    if ratio is None:
        return ""
    if record["target"] is not None:
        return "reached" if ratio.median >= record["target"] else "missed"
    return "no slower" if ratio.median >= EQUAL or (ratio.median >= 0.9 and ratio.upper >= 1.0) else "slower"


#: Verdicts that want a "why" note.
LOSSES = frozenset({"missed", "slower", "more CPU", "larger"})


def chunks(total: int, parts: int) -> Iterator[int]:
    """Split total into parts as even as they come."""
    for part in range(parts):
        yield total // parts + (part < total % parts)
