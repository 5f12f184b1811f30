"""Futures and thread pools: the names of the standard library's ``concurrent.futures``, on raddle's core.

``Future`` and ``ThreadPoolExecutor`` are Rust types below subclasses of the standard library's, so that ``isinstance``,
``asyncio.wrap_future``, ``loop.set_default_executor`` and ``concurrent.futures.wait`` take them. ``Executor``, the
exceptions and ``ProcessPoolExecutor`` are the standard library's own objects.

Beyond the standard library, see ``ThreadPoolExecutor``: bounded submission, the submitter's context, tasks that wait
for tasks of their own pool, deadlines and cancelling (``raddle.cancel``), statistics, and no exception is lost.
"""

from __future__ import annotations

import concurrent.futures as _std
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Executor,
    InvalidStateError,
    ProcessPoolExecutor,
)
from typing import Any

from raddle.concurrent.futures._base import Future, as_completed, wait
from raddle.concurrent.futures.thread import BrokenThreadPool, PoolStats, ThreadPoolExecutor

TimeoutError = TimeoutError

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
    "PoolStats",
    "ProcessPoolExecutor",
    "ThreadPoolExecutor",
    "TimeoutError",
    "as_completed",
    "wait",
]


def __getattr__(name: str) -> Any:
    # What newer Pythons have besides (InterpreterPoolExecutor), and private names that real programs read.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_std, name)
