"""Threads or processes: how long, or how large, a task must be until a pool beats a plain loop.

    python -m benches.crossover             three minutes; writes docs/threads-or-processes.svg and that page's table
    python -m benches.crossover --quick     a smoke run in seconds; writes nothing

Two kinds of tasks. One computes in Python, in a loop, for a microsecond to a tenth of a second. The other computes in
C, with the GIL released: the SHA-256 of an argument of a kilobyte to 32 megabytes. The same number of tasks is done by
a plain loop in the main thread, and by pools with as many workers as there are cores: all tasks are submitted, then all
results are taken. In chunks: `map` with eight chunks in all.

Kept is the best round of each, since other processes of the machine can only slow one down; drawn is the loop's time
over the pool's. Where a curve crosses 1 for good, the pool begins to pay.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raddle.concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from .drawing import STYLE, curve, point, where
from .executors import loop, turns_per_second
from .python import report

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "docs" / "threads-or-processes.md", ROOT / "docs" / "threads-or-processes.svg"

#: Seconds that a task computes; bytes of an argument.
LENGTHS = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SIZES = (1_000, 4_000, 16_000, 64_000, 250_000, 1_000_000, 4_000_000, 16_000_000, 32_000_000)

#: Seconds that the loop should take, and bounds of the number of tasks.
SAMPLE, LEAST, MOST = 0.1, 4, 20_000

CHUNKS = 8

#: A gain below this is taken for noise.
NOISE = 1.25

SERIES = {
    "threads": ("orange", "threads, raddle"),
    "processes": ("blue", "processes, raddle"),
    "chunks": ("violet", "the same, in chunks"),
    "stdlib": ("green", "processes, stdlib"),
}

#: Times of the loop over those of a pool, by contender and length or size.
Ratios = dict[str, dict[float, float]]


class Panel(NamedTuple):
    """One diagram."""

    title: str
    ratios: Ratios
    label: Callable[[float], str]


def digest(blob: bytes) -> bytes:
    """Compute in C; the GIL is released for more than 2 KB."""
    return hashlib.sha256(blob).digest()


def each(pool: Any, func: Callable[[Any], Any], argument: Any, number: int) -> None:
    """One task a call."""
    for future in [pool.submit(func, argument) for _ in range(number)]:
        future.result()


def in_chunks(pool: Any, func: Callable[[Any], Any], argument: Any, number: int) -> None:
    """Many calls a task."""
    for _ in pool.map(func, [argument] * number, chunksize=math.ceil(number / CHUNKS)):
        pass


def plainly(_: Any, func: Callable[[Any], Any], argument: Any, number: int) -> None:
    """No pool."""
    for _ in range(number):
        func(argument)


def timed(how: Callable[..., None], *arguments: Any) -> float:
    """Seconds."""
    start = time.perf_counter()
    how(*arguments)
    return time.perf_counter() - start


def compare(
    pools: dict[str, Any],
    func: Callable[[Any], Any],
    cases: Sequence[tuple[float, Any, float]],
    rounds: int,
    seconds: float,
) -> Ratios:
    """The ratios of all contenders; a case is what stands on the axis, the argument, and a task's seconds, roughly."""
    ratios: Ratios = {name: {} for name in pools}
    for at, argument, length in cases:
        number = max(LEAST, min(MOST, round(seconds / length)))
        best = dict.fromkeys(["loop", *pools], math.inf)
        for _ in range(rounds):
            best["loop"] = min(best["loop"], timed(plainly, None, func, argument, number))
            for name, pool in pools.items():
                how = in_chunks if name == "chunks" else each
                best[name] = min(best[name], timed(how, pool, func, argument, number))
        for name in pools:
            ratios[name][at] = best["loop"] / best[name]
        print(
            f"  {at:>12g}", *(f"{name} {values[at]:6.2f}" for name, values in ratios.items()), f"x {number}"
        )
        sys.stdout.flush()
    return ratios


def measure(workers: int, rounds: int, quick: bool) -> tuple[Ratios, Ratios]:
    """Both kinds of tasks."""
    seconds = 0.001 if quick else SAMPLE
    lengths, sizes = (LENGTHS[:2], SIZES[:2]) if quick else (LENGTHS, SIZES)
    speed = turns_per_second()
    context = multiprocessing.get_context("forkserver")
    with (
        ProcessPoolExecutor(workers) as ours,
        concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as theirs,
        ThreadPoolExecutor(workers) as threads,
    ):
        pools = {"threads": threads, "processes": ours, "chunks": ours, "stdlib": theirs}
        for pool in pools.values():
            each(pool, time.sleep, 0.05, 3 * workers)
        print("computing in Python, by seconds")
        python = compare(
            pools, loop, [(length, round(speed * length), length) for length in lengths], rounds, seconds
        )
        del pools["chunks"]
        print("SHA-256, by bytes")
        cases = [(size, os.urandom(size), 1e-6 + size * 1e-9) for size in sizes]
        return python, compare(pools, digest, cases, rounds, seconds)


def crossing(ratios: dict[float, float]) -> float | None:
    """Where the curve rises above 1 for good: interpolated on logarithms; None where it does not, or gains little."""
    places = sorted(ratios)
    if ratios[places[-1]] <= 1 or max(ratios.values()) < NOISE:
        return None
    for below, above in zip(reversed(places[:-1]), reversed(places[1:]), strict=True):
        if ratios[below] <= 1:
            part = math.log(1 / ratios[below]) / math.log(ratios[above] / ratios[below])
            return math.exp(math.log(below) + part * math.log(above / below))
    return 0.0


def seconds_text(value: float) -> str:
    """A time with its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size * 0.999:
            return f"{value / size:.2g} {unit}"
    return f"{value * 1e6:.2g} µs"


def bytes_text(value: float) -> str:
    """A size with its unit."""
    for unit, size in (("MB", 1e6), ("KB", 1e3)):
        if value >= size:
            return f"{float(f'{value / size:.2g}'):g} {unit}"
    return f"{value:.0f} B"


# The picture

WIDTH, HEIGHT = 860, 400
PANEL_WIDTH, PANEL_HEIGHT, TOP = 345, 240, 100

#: Ratios at the bottom and the top, and the lines between.
LOWEST, LINES = 0.01, (0.01, 0.1, 0.5, 1.0, 2.0)
HIGHEST = 2.6


def draw(left: float, panel: Panel) -> list[str]:
    """One diagram; both axes are logarithmic."""
    places = sorted(panel.ratios["threads"])
    across = math.log(places[-1] / places[0])

    def x_of(value: float) -> float:
        return left + math.log(value / places[0]) / across * PANEL_WIDTH

    def y_of(ratio: float) -> float:
        inside = min(max(ratio, LOWEST), HIGHEST)
        return TOP + PANEL_HEIGHT * (1 - math.log(inside / LOWEST) / math.log(HIGHEST / LOWEST))

    out = [f'<text class="ink title" x="{left}" y="{TOP - 14}">{panel.title}</text>']
    for ratio in LINES:
        y = y_of(ratio)
        weight = ' stroke-width="2"' if ratio == 1 else ""
        out.append(f'<path class="grid" d="M{left} {y:.1f}h{PANEL_WIDTH}"{weight}/>')
        out.append(f'<text class="pale" text-anchor="end" x="{left - 6}" y="{y + 4:.1f}">{ratio:g}</text>')
    bottom = TOP + PANEL_HEIGHT
    for place in places[::2]:
        x = x_of(place)
        out.append(f'<path class="grid" d="M{x:.1f} {bottom}v5"/>')
        out.append(
            f'<text class="pale" text-anchor="middle" x="{x:.1f}" y="{bottom + 18}">{panel.label(place)}</text>'
        )
    for name in reversed(SERIES):
        if name in panel.ratios:
            points = [(x_of(place), y_of(ratio)) for place, ratio in sorted(panel.ratios[name].items())]
            out += curve(SERIES[name][0], points)
    return out


def picture(panels: Sequence[Panel], head: dict[str, Any]) -> str:
    """The diagrams as SVG."""
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img">',
        "<title>How many times as fast as a plain loop, by the length and by the size of a task</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        '<text class="ink title" x="60" y="26">How many times as fast as a plain loop</text>',
    ]
    x = 60.0
    for colour, label in SERIES.values():
        out += [f'<path class="{colour} line" d="M{x} 46h34"/>', point(colour, x + 17, 46)]
        out.append(f'<text class="ink" x="{x + 40}" y="50">{label}</text>')
        x += 185
    for place, panel in enumerate(panels):
        out += draw(60 + place * (PANEL_WIDTH + 75), panel)
    out.append(f'<text class="pale" x="60" y="{HEIGHT - 14}">{where(head)}</text>')
    return "\n".join([*out, "</svg>", ""])


# The table


def table(panels: Sequence[Panel], workers: int, head: dict[str, Any]) -> str:
    """What the page says about this run."""
    lines = [
        f"Measured on {head['date']} at commit {head['commit']}: {head['cpu']}, {head['cpus']} CPUs, {head['system']}, "
        f"CPython {head['python']}, load {head['load']:.0f} before it began; {workers} workers. Best rounds.",
        "",
        "| | " + " | ".join(f"{panel.title}: pays from | most gained" for panel in panels) + " |",
        "|---" + "|--:|--:" * len(panels) + "|",
    ]
    for name, (_, label) in SERIES.items():
        cells = []
        for panel in panels:
            ratios = panel.ratios.get(name)
            if ratios is None:
                cells += ["", ""]
                continue
            at = crossing(ratios)
            cells.append("never" if at is None else panel.label(at) if at else "always")
            cells.append(f"{max(ratios.values()):.2f} times")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benches.crossover", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes nothing")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="rounds (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    head = report.header()
    workers = head["cpus"]
    python, native = measure(workers, 1 if options.quick else options.rounds, options.quick)
    panels = (
        Panel("computing in Python", python, seconds_text),
        Panel("SHA-256 of an argument", native, bytes_text),
    )
    text = table(panels, workers, head)
    print("\n" + text)
    if options.json:
        figures = {"header": head, "python": python, "native": native}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if not options.quick:
        PICTURE.write_text(picture(panels, head), encoding="utf-8")
        begin, end = "<!-- crossover:begin -->", "<!-- crossover:end -->"
        before, rest = PAGE.read_text(encoding="utf-8").split(begin)
        PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
