"""``multiprocessing.spawn`` with two differences: children are told that raddle is installed, and end sooner.

What a parent tells a child that does not share its memory begins with what is to be done before anything of the
program runs: see ``get_preparation_data``. A new interpreter freezes what it has loaded by then: ``get_command_line``.
"""

from __future__ import annotations

import sys
from multiprocessing import spawn as _std

TYPE_CHECKING = False  # as type checkers know it; children load this module, and typing takes long
if TYPE_CHECKING:
    from typing import Any

globals().update({name: value for name, value in vars(_std).items() if not name.startswith("__")})

__all__ = [*_std.__all__]

_get_preparation_data = _std.get_preparation_data
_get_command_line = _std.get_command_line

_LOAD = "from multiprocessing.spawn import spawn_main; "
_FREEZE = "__import__('gc').freeze()"
_IS_NEW = "'--multiprocessing-fork' in sys.argv"


class _First:
    """Executes a program text where it is unpickled: with nothing but builtins, as ``sys.path`` may not be ours yet."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.text,)


def get_preparation_data(name: str) -> dict[str, Any]:
    """What a child has to know before it gets its process object; see ``multiprocessing.spawn``.

    Its first entry makes the child do as this process has done: know the start method "warm", install raddle. A new
    interpreter freezes that too; a server's child may have loaded something of the program.
    """
    data = _get_preparation_data(name)
    text = f"import sys; sys.path[:] = {data['sys_path']!r}\n{for_child()}\n{_IS_NEW} and {_FREEZE}"
    return {"raddle": _First(text), **data}


def get_command_line(**kwds: Any) -> list[Any]:
    """The command that starts a child; see ``multiprocessing.spawn``.

    Before anything of the program is loaded, the child moves the objects of the standard library's modules to where the
    garbage collector does not look (``gc.freeze()``). None of them is garbage before the interpreter ends, and every
    full collection looks at each: the last ones, at that end, take a tenth of the life of a short process.
    """
    line: list[Any] = _get_command_line(**kwds)
    # The interpreter's path is bytes; a frozen program has no code here.
    return [
        f"{_LOAD}{_FREEZE}; {part[len(_LOAD) :]}"
        if isinstance(part, str) and part.startswith(_LOAD)
        else part
        for part in line
    ]


def for_child() -> str:
    """What a child runs to have of raddle what this process has."""
    lines = ["import raddle.multiprocessing.context"]
    install: Any = sys.modules.get("raddle._install")
    if install is not None and install.is_installed():
        deadlock: Any = sys.modules["raddle.deadlock"]
        settings = deadlock._for_child()
        if settings is not None:
            lines += ["import raddle.deadlock", f"raddle.deadlock.enable(**{settings!r})"]
        lines.append("raddle.install()")
    return "\n".join(lines)


def tell_children() -> None:
    """Let the standard library's start methods use this module's ``get_preparation_data``."""
    _std.get_preparation_data = get_preparation_data


def freeze_children() -> None:
    """Let the standard library's start method "spawn" use this module's ``get_command_line``."""
    _std.get_command_line = get_command_line


def __getattr__(name: str) -> Any:
    return getattr(_std, name)
