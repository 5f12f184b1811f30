"""Python's concurrency stack rebuilt in Rust: drop-in, fast, and able to say why a program hangs.

Three ways in, from least to most:

* ``from raddle.threading import Lock``: mirror modules, at the standard library's paths after ``raddle.``;
* ``raddle.install()`` rebinds the names of the standard modules in this process;
* ``raddle run app.py`` installs before any of the program's code runs.

``import raddle`` alone loads no mirror and no extension: each is loaded when first asked for.
"""

TYPE_CHECKING = False  # as type checkers know it; typing itself is not worth loading here
if TYPE_CHECKING:
    from raddle import cancel as cancel
    from raddle import concurrent as concurrent
    from raddle import deadlock as deadlock
    from raddle import multiprocessing as multiprocessing
    from raddle import queue as queue
    from raddle import sched as sched
    from raddle import threading as threading
    from raddle._install import Installation
    from raddle.deadlock import DeadlockError

__all__ = ["DeadlockError", "__version__", "install", "uninstall"]

__version__ = "0.1.0"

_MIRRORS = ("cancel", "concurrent", "deadlock", "multiprocessing", "queue", "sched", "threading")


def install() -> "Installation":
    """Rebind the names of the standard modules to raddle's objects, in this process.

    Returns:
        What was replaced and what could not be reached: see ``Installation``. A second call changes nothing
        and returns the same object.
    Raises:
        ImportError: the extension cannot be loaded, for instance in a sub-interpreter; nothing was replaced.
    Note:
        Objects made earlier stay the standard library's. A forked child has the installation from its parent.
    """
    from raddle._install import install

    return install()


def uninstall() -> None:
    """Give the standard modules their own objects back. Does nothing where ``install()`` did not run.

    Note:
        Objects made in between stay raddle's and keep working.
    """
    from raddle._install import uninstall

    uninstall()


if not TYPE_CHECKING:  # where the names are known

    def __getattr__(name):
        if name in _MIRRORS:
            import importlib

            return importlib.import_module("raddle." + name)
        if name == "DeadlockError":
            from raddle.deadlock import DeadlockError

            return DeadlockError
        raise AttributeError("module 'raddle' has no attribute " + repr(name))


def __dir__() -> "list[str]":
    return sorted({*globals(), *_MIRRORS, "DeadlockError"})
