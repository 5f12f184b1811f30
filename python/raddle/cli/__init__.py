"""The command line: ``raddle`` and ``python -m raddle``. Argument parsing and printing only.

Nothing is imported but ``sys`` as long as the command line can be understood: see ``main``. This file has to
be readable by Pythons that raddle does not support, to say so.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["main"]

USAGE = "usage: raddle run [options] PROGRAM [arguments]; raddle --help says more"

HELP = """\
usage: raddle run [options] PROGRAM [arguments]

Run a Python program on raddle's primitives. Its threads, locks and queues are
raddle's without a change to its code, and if it hangs it says why.

PROGRAM is what python takes:
  app.py, a directory or a zip file with a __main__.py, or - for standard input
  -m module
  -c code

options:
  --on-deadlock raise|report  when threads wait for each other in a circle:
                              raise DeadlockError in one of them (the default),
                              or report it and leave them blocked
  --on-stall report|exit      when every thread is blocked and nobody is left
                              to wake one: report it (the default), or report
                              it and end the process with status 75
  --report FILE               write reports to FILE, not to standard error
  --explain                   say on standard error what was replaced, and what
                              could not be reached, before the program starts
  -h, --help                  show this text
  --version                   show raddle's version

Arguments after PROGRAM are the program's. Options of the interpreter go to the
interpreter: python -W error -m raddle run app.py
"""

# Options with a value, and the values each takes; None: any.
CHOICES = {
    "--on-deadlock": ("raise", "report"),
    "--on-stall": ("report", "exit"),
    "--report": None,
}
FLAGS = ("--explain", "--help", "--version")
INTERPRETER_FLAGS = "bBdEiIOPqRsStuvVWxX?"

USAGE_ERROR = 2


class UsageError(Exception):
    """The command line cannot be understood; the text says what and what to do."""


def main(arguments: "list[str] | None" = None) -> int:
    """Do what the command line says; ``raddle run`` does not return before its program has ended.

    Args:
        arguments: the command line without the program's name; ``sys.argv[1:]`` if None.
    Returns:
        The exit status. Programs under ``raddle run`` leave by ``SystemExit`` or ``KeyboardInterrupt`` where
        they end so.
    Note:
        ``raddle run`` takes over the process: ``sys.argv``, ``sys.path[0]`` and ``__main__`` become the
        program's.
    """
    if sys.version_info < (3, 11) or sys.implementation.name != "cpython":
        _complain(
            f"raddle needs CPython 3.11 or later; this is {sys.implementation.name} "
            f"{sys.version.split()[0]} ({sys.executable})"
        )
        return USAGE_ERROR
    if arguments is None:
        arguments = sys.argv[1:]
    try:
        command, rest = _command(arguments)
        if command == "run":
            options = _parse_run(rest)
            if options is not None:
                # The folder that the interpreter put first for raddle's own start. Nothing may be imported
                # from there: a queue.py beside the program would take the standard library's place in raddle.
                if not sys.flags.safe_path:
                    del sys.path[:1]
                from raddle.cli.run import Options, run

                return run(Options(*options))
            command = "--help"
    except UsageError as error:
        _complain(f"{error}\n{USAGE}")
        return USAGE_ERROR
    if command == "--version":
        from raddle import __version__

        print("raddle", __version__)
    else:
        sys.stdout.write(HELP)
    return 0


def _command(arguments: "list[str]") -> "tuple[str, list[str]]":
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return "--help", []
    if arguments[0] in ("--version", "run"):
        return arguments[0], arguments[1:]
    kind = "option" if arguments[0].startswith("-") else "command"
    hint = _near(arguments[0], ("run", "--help", "--version"))
    if not hint and arguments[0].endswith(".py"):
        hint = f"; to run a program: raddle run {arguments[0]}"
    raise UsageError(f"raddle: unknown {kind} {arguments[0]!r}{hint}")


def _parse_run(arguments: "list[str]") -> "tuple[Any, ...] | None":
    """The fields of ``raddle.cli.run.Options``; None if help was asked for."""
    found = {}  # type: dict[str, str]
    explain = False
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            if not rest:
                break
            return _options(found, explain, "file", rest[0], rest[1:])
        if word == "-" or not word.startswith("-"):
            return _options(found, explain, "file", word, rest)
        if word[:2] in ("-m", "-c"):
            value = word[2:]
            if not value and not rest:
                what = "a module's name" if word == "-m" else "code"
                raise UsageError(f"raddle run: {word} needs {what}")
            return _options(found, explain, word[1], value or rest.pop(0), rest)
        if word in ("-h", "--help"):
            return None
        if word == "--explain":
            explain = True
            continue
        name, equals, value = word.partition("=")
        if name not in CHOICES:
            raise UsageError(f"raddle run: unknown option {name!r}{_hint(name)}")
        if not equals:
            if not rest:
                raise UsageError(f"raddle run: {name} needs a value{_allowed(name)}")
            value = rest.pop(0)
        choices = CHOICES[name]
        if (choices is not None and value not in choices) or not value:
            hint = _near(value, choices or ())
            raise UsageError(f"raddle run: {name} cannot be {value!r}{_allowed(name)}{hint}")
        found[name] = value
    raise UsageError("raddle run: no program given")


def _options(
    found: "dict[str, str]", explain: bool, kind: str, program: str, arguments: "list[str]"
) -> "tuple[Any, ...]":
    on_deadlock = found.get("--on-deadlock", "raise")
    on_stall = found.get("--on-stall", "report")
    return kind, program, arguments, on_deadlock, on_stall, found.get("--report"), explain


def _allowed(name: str) -> str:
    choices = CHOICES[name]
    return "; it takes {}".format(" or ".join(choices)) if choices else " (a file to write to)"


def _hint(word: str) -> str:
    near = _near(word, (*CHOICES, *FLAGS))
    if not near and len(word) > 1 and word[1] in INTERPRETER_FLAGS:
        return f"; options of the interpreter go to the interpreter: python {word} -m raddle run ..."
    return near


def _near(word: str, known: "tuple[str, ...]") -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")
