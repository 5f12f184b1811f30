"""Futures and thread pools: the names of the standard library's ``concurrent.futures``, on raddle's core.

``Future`` and ``ThreadPoolExecutor`` are Rust types below subclasses of the standard library's, so that ``isinstance``,
``asyncio.wrap_future``, ``loop.set_default_executor`` and ``concurrent.futures.wait`` take them. ``Executor``, the
exceptions are the standard library's own objects. ``ProcessPoolExecutor`` is loaded when it is first asked for.

Beyond the standard library, see ``ThreadPoolExecutor``: bounded submission, the submitter's context, tasks that wait
for tasks of their own pool, deadlines and cancelling (``raddle.cancel``), statistics, and no exception is lost.
"""

from __future__ import annotations

import concurrent.futures as _std
import importlib
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Executor,
    InvalidStateError,
)
from typing import TYPE_CHECKING, Any

from raddle.concurrent.futures._base import Future, as_completed, wait
from raddle.concurrent.futures.thread import BrokenThreadPool, PoolStats, ThreadPoolExecutor

if TYPE_CHECKING:
    from raddle.concurrent.futures.process import (
        MemoryLimitExceeded,
        ProcessPoolExecutor,
        ProcessPoolStats,
        UnpicklingFailed,
        WorkerDied,
    )

TimeoutError = TimeoutError

_OF_PROCESSES = (
    "MemoryLimitExceeded",
    "ProcessPoolExecutor",
    "ProcessPoolStats",
    "UnpicklingFailed",
    "WorkerDied",
)

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "BrokenThreadPool",
    "CancelledError",
    "Executor",
    "Future",
    "InvalidStateError",
    "MemoryLimitExceeded",
    "PoolStats",
    "ProcessPoolExecutor",
    "ProcessPoolStats",
    "ThreadPoolExecutor",
    "TimeoutError",
    "UnpicklingFailed",
    "WorkerDied",
    "as_completed",
    "wait",
]


def __getattr__(name: str) -> Any:
    if name in _OF_PROCESSES:
        module = importlib.import_module("raddle.concurrent.futures.process")
        found = globals()[name] = getattr(module, name)
        return found
    # What newer Pythons have besides (InterpreterPoolExecutor), and private names that real programs read.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_std, name)
