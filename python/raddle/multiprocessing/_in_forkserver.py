"""Imported by the standard library's forkserver only: does there what its children would do otherwise.

The path of ``__main__`` is among the names that the server was told to import: see ``_ahead.preload_in_forkserver``.
"""

from __future__ import annotations

import sys

from raddle.multiprocessing import _ahead


def _begin() -> None:
    sign = f"{__name__}:"
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == ("multiprocessing.forkserver", "main"):
            for name in frame.f_locals.get("preload") or ():
                if name.startswith(sign):
                    _ahead.compile_main(name[len(sign) :])
            break
    _ahead.look_at_folders()


_begin()
