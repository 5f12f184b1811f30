"""Processes, and what goes between them: ``multiprocessing`` with raddle's locks, queues and pipes, and faster starts.

``Process``, ``Pool``, the locks and what is made of them, the queues, ``Pipe`` and ``get_context`` are raddle's own;
``Value`` and ``Array`` are the standard library's with raddle's locks. All other names are the standard library's
objects, and so are the submodules that are not here. The start method is shared with it.
"""

from __future__ import annotations

import multiprocessing as _std

from raddle.multiprocessing import context as context

TYPE_CHECKING = False  # as type checkers know it; children load this module, and typing takes long
if TYPE_CHECKING:
    from multiprocessing import *  # noqa: F403
    from typing import Any

    from raddle.queue import ShutDown

_default = context._default_context

#: The standard library's names that are raddle's here.
_OWN = (
    "Array",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Pipe",
    "Pool",
    "Process",
    "Queue",
    "RLock",
    "Semaphore",
    "SimpleQueue",
    "Value",
    "get_all_start_methods",
    "get_context",
    "get_start_method",
    "set_start_method",
)

globals().update({name: getattr(_std, name) for name in _std.__all__})
globals().update({name: getattr(_default, name) for name in _OWN})

__all__ = [*_std.__all__, "ShutDown"]

_SUBMODULES = ("connection", "context", "pool", "queues", "spawn", "synchronize")


def __getattr__(name: str) -> Any:
    if name == "ShutDown":
        # A child that has no queue need not load what comes with them.
        from raddle.queue import ShutDown

        return ShutDown
    import importlib

    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    try:
        return getattr(_std, name)
    except AttributeError:
        pass
    try:
        # A submodule of the standard library's package that nobody has imported so far.
        return importlib.import_module(f"multiprocessing.{name}")
    except ModuleNotFoundError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_std)})
