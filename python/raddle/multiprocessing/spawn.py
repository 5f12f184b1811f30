"""``multiprocessing.spawn`` with one difference: children are told that raddle is installed, and how.

What a parent tells a child that does not share its memory begins with what is to be done before anything of the
program runs: see ``get_preparation_data``.
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


class _First:
    """Executes a program text where it is unpickled: with nothing but builtins, as ``sys.path`` may not be ours yet."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.text,)


def get_preparation_data(name: str) -> dict[str, Any]:
    """What a child has to know before it gets its process object; see ``multiprocessing.spawn``.

    Its first entry makes the child do as this process has done: know the start method "warm", install raddle.
    """
    data = _get_preparation_data(name)
    text = f"import sys; sys.path[:] = {data['sys_path']!r}\n{for_child()}"
    return {"raddle": _First(text), **data}


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


def __getattr__(name: str) -> Any:
    return getattr(_std, name)
