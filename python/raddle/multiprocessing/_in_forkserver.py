"""Imported by the standard library's forkserver only: does there what its children would do otherwise.

What the server is to import is all that it is told, so the path of ``__main__`` comes as one more name (``told``). No
module has such a name, and the server goes on without it.
"""

from __future__ import annotations

import sys

from raddle.multiprocessing import _ahead

_SIGN = f"{__name__}:"


def told(main_path: str | None) -> list[str]:
    """The names for the server to import."""
    return [__name__] if main_path is None else [__name__, _SIGN + main_path]


def _begin() -> None:
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == ("multiprocessing.forkserver", "main"):
            for name in frame.f_locals.get("preload") or ():
                if name.startswith(_SIGN):
                    _ahead.compile_main(name[len(_SIGN) :])
            _ahead.look_at_folders()
            return


_begin()
