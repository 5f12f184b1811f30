"""Progress bars for ``as_completed`` and ``map``, by whatever library is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

_T = TypeVar("_T")


def track(items: Iterator[_T], total: int | None, progress: Any) -> Iterator[_T]:
    """Pass the items on and show how many there have been.

    Raises:
        ImportError: no library that shows bars is installed. TypeError, ValueError: ``progress`` names none.
    """
    if callable(progress):
        return _call(items, total, progress)
    if progress is not True and progress not in ("tqdm", "rich"):
        if not isinstance(progress, str):
            raise TypeError(f"progress must be a bool, a str or a function, not {type(progress).__name__}")
        raise ValueError(f"progress must be True, 'tqdm' or 'rich', not {progress!r}")
    bar = _bar(progress)
    return bar(items, total)


def _bar(progress: Any) -> Callable[[Iterator[_T], int | None], Iterator[_T]]:
    if progress in (True, "tqdm"):
        try:
            from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]
        except ImportError:
            if progress != True:  # noqa: E712 - "tqdm" was asked for by name
                raise
        else:
            return lambda items, total: iter(tqdm(items, total=total))
    try:
        from rich.progress import track as rich_track  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise ImportError("progress needs tqdm or rich: pip install tqdm", name="tqdm") from None
    return lambda items, total: iter(rich_track(items, total=total, description=""))


def _call(
    items: Iterator[_T], total: int | None, progress: Callable[[int, int | None], object]
) -> Iterator[_T]:
    for count, item in enumerate(items, 1):
        progress(count, total)
        yield item
