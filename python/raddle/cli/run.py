"""``raddle run``: install raddle, then run a program in this process as the interpreter itself would have.

The steps of CPython's own start (Modules/main.c, Python/pythonrun.c) are repeated: a fresh ``__main__``,
``sys.argv``, ``sys.path[0]``, and the end of a program by return, exception, ``SystemExit`` or Ctrl-C. What
the program can still see of raddle is a handful of frames below its first one; tracebacks are printed without
them.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib import BuiltinImporter
from _frozen_importlib_external import MAGIC_NUMBER, PathFinder, SourceFileLoader, SourcelessFileLoader
from collections.abc import Callable
from types import CodeType, ModuleType, TracebackType

from raddle.cli import USAGE_ERROR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple, NoReturn

    from raddle._install import Installation
else:
    from raddle._named_tuple import NamedTuple

__all__ = ["Options", "run"]

FAILED = 1  # the exit status of a program that an exception ended


class Options(NamedTuple):
    """A command line, understood."""

    kind: str
    """``"file"``, ``"m"`` or ``"c"``."""
    program: str
    """Path (``-`` is standard input), module or code."""
    arguments: list[str]
    on_deadlock: str
    on_stall: str
    report: str | None
    """Where reports go; None: standard error."""
    explain: bool


class Refused(Exception):
    """The program cannot be started; the text says why."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Start(NamedTuple):
    """What has to be known about a program before it runs."""

    argv0: str
    path0: str | None
    """What goes to the front of ``sys.path``; None: nothing."""
    names: dict[str, Any]
    """What ``__main__`` has beside the names that every program finds there."""
    load: Callable[[], CodeType | None]
    """Makes the code to execute, or fails as the program would. None: it has been executed already."""
    module: str = ""
    """What ``runpy`` is to find and execute instead."""


def run(options: Options) -> int:
    """Run the program that the options name, with raddle installed; ``sys.path`` has no program's folder yet.

    Returns:
        The exit status: 0 for a program that came to its end.
    Raises:
        SystemExit: the program raised it, or an exception ended the program and has been printed.
        KeyboardInterrupt: it ended the program and has been printed; now the interpreter ends by SIGINT.
    """
    loaded = set(sys.modules)
    try:
        start = _find(options)
        _install(options)
    except Refused as error:
        _write(f"{error}\n")
        return error.status
    _become(start, options.arguments)
    _uncover(start.path0, set(sys.modules) - loaded)
    failure = None
    try:
        if start.module:
            import runpy

            runpy._run_module_as_main(start.module, start.argv0 == "-m")  # type: ignore[attr-defined]
        else:
            code = start.load()
            if code is not None:
                exec(code, vars(sys.modules["__main__"]))
    except SystemExit:
        raise
    except BaseException as error:
        failure = error
    try:
        if failure is not None:
            _end_by(failure)
    finally:
        # The interpreter takes these names back when a file ends, unless it ends by SystemExit.
        for name in ("__file__", "__cached__"):
            if name in start.names:
                vars(sys.modules["__main__"]).pop(name, None)
    return 0


def _install(options: Options) -> None:
    try:
        from raddle import deadlock, install

        deadlock.enable(
            on_deadlock=options.on_deadlock, on_stall=options.on_stall, sites=True, report=options.report
        )
        done = install()
    except ImportError as error:
        raise Refused(
            f"raddle run: raddle's extension cannot be loaded: {error}\n"
            f"Install raddle for this interpreter: {sys.executable} -m pip install --force-reinstall raddle",
            FAILED,
        ) from None
    except OSError as error:
        raise Refused(
            f"raddle run: cannot write reports to {options.report!r}: {error}", USAGE_ERROR
        ) from None
    if options.explain:
        _write(_explanation(done))


def _explanation(done: Installation) -> str:
    from raddle import __version__

    lines = [f"raddle {__version__} replaced {len(done.replaced)} names of the standard library:"]
    lines += [f"    {name}" for name in done.replaced]
    lines.append("raddle will replace the names of these modules when they are imported:")
    lines += [f"    {name}" for name in done.awaited]
    lines.append(
        f"raddle could not reach, because they were bound before it was installed: {len(done.missed)}"
    )
    lines += [f"    {sentence}" for sentence in done.missed]
    return "\n".join(lines) + "\n"


# How each kind of program starts


def _find(options: Options) -> Start:
    """Look the program up, as far as that runs none of its code."""
    here = None if sys.flags.safe_path else ""
    if options.kind == "m":
        path0 = here if here is None else _cwd()
        return Start("-m", path0, {}, _nothing, options.program)
    if options.kind == "c":
        return Start("-c", here, {}, lambda: _compile_argument(options.program))
    if options.program == "-":
        return Start("-", here, {"__file__": "<stdin>", "__cached__": None}, _compile_stdin)
    path = os.path.join(_cwd(), options.program)  # as the interpreter has it: not normalised
    if _holds_modules(path):
        return Start(options.program, path, {}, _nothing, "__main__")
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        text = f"raddle: can't open file {path!r}: [Errno {error.errno}] {error.strerror}"
        raise Refused(text, USAGE_ERROR) from None
    compiled = path.endswith(".pyc") or data[:4] == MAGIC_NUMBER
    loader = (SourcelessFileLoader if compiled else SourceFileLoader)("__main__", path)
    names = {"__loader__": loader, "__file__": path, "__cached__": None}
    path0 = here if here is None else os.path.dirname(os.path.realpath(path))
    return Start(options.program, path0, names, lambda: _compile_file(data, path, compiled))


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:  # the folder is gone
        return ""


def _holds_modules(path: str) -> bool:
    """Whether modules can be imported from it: a directory or a zip file."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False


def _become(start: Start, arguments: list[str]) -> None:
    """Make ``__main__``, ``sys.argv`` and ``sys.path`` the program's."""
    main = ModuleType("__main__")
    names = vars(main)
    names["__loader__"] = BuiltinImporter
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    names["__builtins__"] = sys.modules["builtins"]
    names.update(start.names)
    sys.modules["__main__"] = main
    sys.argv[:] = [start.argv0, *arguments]
    if start.path0 is not None:
        sys.path.insert(0, start.path0)


def _uncover(path0: str | None, loaded: set[str]) -> None:
    """Forget modules that raddle has loaded and the program has its own of, under the same name beside it."""
    if path0 is None:
        return
    for name in loaded - {"raddle", "threading"}:  # the interpreter itself asks for threading when it ends
        if "." not in name and PathFinder.find_spec(name, [path0]) is not None:
            for known in list(sys.modules):
                if known == name or known.startswith(name + "."):
                    del sys.modules[known]


def _nothing() -> None:
    pass


def _compile_file(data: bytes, path: str, compiled: bool) -> CodeType:
    if not compiled:
        return compile(data, path, "exec", dont_inherit=True)
    if data[:4] != MAGIC_NUMBER:
        raise RuntimeError("Bad magic number in .pyc file")
    import marshal

    code: CodeType = marshal.loads(data[16:])
    return code


def _compile_argument(source: str) -> CodeType:
    source += "\n"
    code = compile(source, "<string>", "exec", dont_inherit=True)
    if sys.version_info >= (3, 13):
        # Tracebacks show the lines of -c. What the first argument is depends on the patch version.
        import linecache

        key: Any = code if hasattr(linecache, "_interactive_cache") else "<string>"
        linecache._register_code(key, source, "<string>")  # type: ignore[attr-defined]
    return code


def _compile_stdin() -> CodeType | None:
    if sys.stdin is None:
        return None
    if not sys.stdin.isatty():
        return compile(sys.stdin.buffer.read(), "<stdin>", "exec", dont_inherit=True)
    import code

    code.interact(local=vars(sys.modules["__main__"]), exitmsg="")
    return None


# How a program ends by an exception


def _end_by(error: BaseException) -> NoReturn:
    """Print the exception as the interpreter does, without the frames of this file, and end the same way."""
    error.__traceback__ = _outside(error.__traceback__)
    _print(error)
    if type(error) is KeyboardInterrupt:
        _end_by_sigint()
    raise SystemExit(FAILED)


def _outside(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_globals is globals():
        trace = trace.tb_next
    return trace


def _print(error: BaseException) -> None:
    """What ``PyErr_Print`` does with an exception that is not ``SystemExit``."""
    shown = (type(error), error, error.__traceback__)
    sys.last_type, sys.last_value, sys.last_traceback = shown
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    if not hasattr(sys, "excepthook"):
        _write("sys.excepthook is missing\n")
        sys.__excepthook__(*shown)
        return
    sys.audit("sys.excepthook", sys.excepthook, *shown)
    failure = None
    try:
        sys.excepthook(*shown)
    except SystemExit:
        raise
    except BaseException as problem:
        failure = problem
    if failure is not None:
        failure.__traceback__ = _outside(failure.__traceback__)
        _write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(failure), failure, failure.__traceback__)
        _write("\nOriginal exception was:\n")
        sys.__excepthook__(*shown)


def _write(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text)


def _end_by_sigint() -> NoReturn:
    """Let the interpreter see the interrupt: after everything else it ends the process by SIGINT."""
    kept = {name: getattr(sys, name) for name in _HOOK_NAMES if hasattr(sys, name)}

    def say_nothing(*_: object) -> None:
        del sys.excepthook
        for name, value in kept.items():
            setattr(sys, name, value)

    sys.excepthook = say_nothing
    raise KeyboardInterrupt


_HOOK_NAMES = ("excepthook", "last_exc", "last_type", "last_value", "last_traceback")
