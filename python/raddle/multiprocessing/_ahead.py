"""What a server that forks processes does once, and each of its children would have to do otherwise.

A child runs ``__main__`` anew. For that it loads modules, looks at the folders of ``sys.path``, and compiles the
program. A server can do all of it, without running any of the program's code.
"""

from __future__ import annotations

import os
import pkgutil  # noqa: F401 - loaded by runpy when it runs a file, and slow
import runpy
import sys
from _frozen_importlib_external import PathFinder
from multiprocessing import forkserver as _forkserver
from multiprocessing import spawn
from types import CodeType

TYPE_CHECKING = False  # as type checkers know it; children load this module, and typing takes long
if TYPE_CHECKING:
    from typing import Any

__all__ = ["compile_main", "look_at_folders", "preload_in_forkserver"]

#: What runpy reads of a file, by what the file was then.
_compiled: dict[tuple[Any, ...], Any] = {}

_runpy: Any = runpy
_read: Any = getattr(runpy, "_get_code_from_file", None)


def _mark(path: str) -> tuple[Any, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def compile_main(path: str) -> None:
    """Compile the file of a program, for a child that runs it with ``runpy``. Without effect if that fails."""
    mark = _mark(path)
    code: CodeType | None = getattr(_read, "__code__", None)
    if mark is None or code is None:
        return
    # (fname) from 3.13 on, (run_name, fname) before.
    arguments = {"run_name": "__mp_main__", "fname": path}
    try:
        _compiled[mark] = _read(*[arguments[name] for name in code.co_varnames[: code.co_argcount]])
    except Exception:
        return
    _runpy._get_code_from_file = _look_up
    # No folder or archive: runpy need not try.
    sys.path_importer_cache.setdefault(path, None)


def _look_up(*arguments: Any) -> Any:
    found = _compiled.get(_mark(arguments[-1]) or ())
    return _read(*arguments) if found is None else found


def look_at_folders() -> None:
    """Let the finders of ``sys.path`` read their folders: they keep what they have seen while that does not change."""
    PathFinder.find_spec("raddle._there_is_no_such_module")


#: What workers of a pool load, if this process has.
_FOR_POOLS = ("raddle.multiprocessing._worker",)
#: What a child that installs raddle loads for it.
_FOR_INSTALL = (
    "raddle._install",
    "raddle.sched",
    "raddle.concurrent.futures",
    "raddle.multiprocessing.connection",
)


#: What the standard library's forkserver loads to do all of it.
_IN_FORKSERVER = "raddle.multiprocessing._in_forkserver"


def preload_in_forkserver() -> None:
    """Let the standard library's forkserver do all of it, if it is not running yet.

    What the server is to import is all that it is told, so the path of ``__main__`` goes as one more name. No module
    has such a name, and the server goes on without it.
    """
    server: Any = _forkserver._forkserver
    modules = getattr(server, "_preload_modules", None)
    if isinstance(modules, list) and _IN_FORKSERVER not in modules:
        install: Any = sys.modules.get("raddle._install")
        more = _FOR_INSTALL if install is not None and install.is_installed() else ()
        workers = [name for name in _FOR_POOLS if name in sys.modules]
        main_path: Any = spawn.get_preparation_data("").get("init_main_from_path")
        told = [] if main_path is None else [f"{_IN_FORKSERVER}:{main_path}"]
        server._preload_modules = [*modules, _IN_FORKSERVER, *told, *workers, *more]
