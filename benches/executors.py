"""Which executor, and how many workers: throughput against the number of workers, for tasks that wait more or less.

    python -m benches.executors             four minutes; writes docs/executors.svg and the tables of docs/executors.md
    python -m benches.executors --quick     a smoke run in seconds; writes nothing

A task computes, in a loop of Python, and waits, in `time.sleep`; its share of waiting is that of a task alone. Threads
of raddle, threads of the standard library and processes of the standard library take turns, round after round; kept is
the best round, since other processes of the machine can only slow one down. All workers are there before the clock
starts.

Beside the curves: what the formula says, (waiting + computing) / computing x cores, as
`pool.stats().recommended_workers` of a pool with one worker, and where a pool ends up that chooses the number itself,
with `max_workers=(1, 256)`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import math
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from raddle.concurrent.futures import ThreadPoolExecutor

from .drawing import STYLE, ceiling, curve, point, where
from .python import report

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "docs" / "executors.md", ROOT / "docs" / "executors.svg"

#: Seconds that a task computes and waits, by its share of waiting in percent.
TASKS = {0: (0.002, 0.0), 50: (0.002, 0.002), 90: (0.001, 0.009), 99: (0.0002, 0.0198)}

THREADS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PROCESSES = (1, 2, 4, 8, 16)

#: Seconds of one sample, and of the run in which a pool finds its number; the least and most workers it may choose.
SAMPLE, ADAPTING = 0.4, 4.0
BOUNDS = (1, THREADS[-1])

COLOURS = {"raddle": "blue", "stdlib": "orange", "processes": "green"}
SERIES = {"raddle": "threads, raddle", "stdlib": "threads, stdlib", "processes": "processes, stdlib"}


class Result(NamedTuple):
    """What was measured of one share of waiting."""

    #: Tasks a second, by contender and number of workers.
    rates: dict[str, dict[int, float]]
    #: What a pool of one worker recommends.
    formula: int
    #: The workers of a pool that chooses their number, and its tasks a second.
    chosen: tuple[int, float]


def loop(turns: int) -> None:
    """Compute."""
    for _ in range(turns):
        pass


def task(turns: int, seconds: float) -> None:
    """Compute, then wait."""
    loop(turns)
    if seconds:
        time.sleep(seconds)


def turns_per_second() -> float:
    """Turns of the loop in a second of processor time, when nothing disturbs them."""
    turns = 20_000
    best = math.inf
    for _ in range(300):
        start = time.thread_time()
        loop(turns)
        best = min(best, time.thread_time() - start)
    return turns / best


def rate(
    pool: Any, workers: int, warm: Callable[[Any, int], None], percent: int, turns: int, seconds: float
) -> float:
    """Tasks a second of a pool that is new, and that is shut down afterwards."""
    compute, wait = TASKS[percent]
    number = max(2 * workers, round(seconds * min(workers / (compute + wait), 1.5 / compute)))
    with pool:
        warm(pool, workers)
        start = time.perf_counter()
        for future in [pool.submit(task, turns, wait) for _ in range(number)]:
            future.result()
        return number / (time.perf_counter() - start)


def all_threads(pool: Any, workers: int) -> None:
    """Let every worker of a pool of threads start."""
    barrier = threading.Barrier(workers)
    for future in [pool.submit(barrier.wait) for _ in range(workers)]:
        future.result()


def all_processes(pool: Any, workers: int) -> None:
    """Let every worker process start: nobody gets two of these."""
    for future in [pool.submit(time.sleep, 0.2) for _ in range(workers)]:
        future.result()


def measure(percent: int, speed: float, rounds: int, quick: bool) -> Result:
    """All contenders at all numbers of workers; `speed` is that of the loop."""
    compute, wait = TASKS[percent]
    turns = round(speed * compute)
    seconds = 0.01 if quick else SAMPLE
    context = multiprocessing.get_context("forkserver")
    threads, processes = (THREADS[:3], PROCESSES[:1]) if quick else (THREADS, PROCESSES)
    rates: dict[str, dict[int, float]] = {name: {} for name in SERIES}

    def note(name: str, workers: int, found: float) -> None:
        rates[name][workers] = max(found, rates[name].get(workers, 0.0))

    for _ in range(rounds):
        for workers in threads:
            note(
                "raddle",
                workers,
                rate(ThreadPoolExecutor(workers), workers, all_threads, percent, turns, seconds),
            )
            std = concurrent.futures.ThreadPoolExecutor(workers)
            note("stdlib", workers, rate(std, workers, all_threads, percent, turns, seconds))
        for workers in processes:
            std = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context)
            note("processes", workers, rate(std, workers, all_processes, percent, turns, seconds))

    with ThreadPoolExecutor(1) as alone:
        for future in [
            alone.submit(task, turns, wait) for _ in range(3 if quick else round(0.6 / (compute + wait)))
        ]:
            future.result()
        formula = alone.stats().recommended_workers or 1
    return Result(rates, formula, follow(turns, wait, 0.05 if quick else ADAPTING))


def follow(turns: int, wait: float, seconds: float) -> tuple[int, float]:
    """Keep a pool busy that chooses its workers: their median number in the second half of the time, tasks a second."""
    with ThreadPoolExecutor(BOUNDS, max_pending=1_000) as pool:
        begin = time.perf_counter()
        half, done, seen = begin + seconds / 2, 0, []
        while time.perf_counter() < begin + seconds:
            pool.submit(task, turns, wait)
            if time.perf_counter() > half:
                stats = pool.stats()
                if not seen:
                    half, done = time.perf_counter(), stats.done
                seen.append(stats.workers)
        found = (pool.stats().done - done) / (time.perf_counter() - half)
        pool.shutdown(cancel_futures=True)
        return round(statistics.median(seen)), found


def overheads(rounds: int, quick: bool) -> dict[str, float]:
    """Microseconds of submit, run and result of a task that does nothing, in a burst; the best round."""
    context = multiprocessing.get_context("forkserver")
    number = 50 if quick else 5_000
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, pool, warm in (
            ("raddle", ThreadPoolExecutor(2), all_threads),
            ("stdlib", concurrent.futures.ThreadPoolExecutor(2), all_threads),
            ("processes", concurrent.futures.ProcessPoolExecutor(2, mp_context=context), all_processes),
        ):
            with pool:
                warm(pool, 2)
                start = time.perf_counter()
                for future in [pool.submit(abs, 1) for _ in range(number)]:
                    future.result()
                spent = (time.perf_counter() - start) / number * 1e6
            best[name] = min(spent, best.get(name, math.inf))
    return best


# The picture

WIDTH, HEIGHT = 860, 690
PANEL_WIDTH, PANEL_HEIGHT = 345, 215


def star(x: float, y: float, radius: float) -> str:
    """The corners of a star with five points."""
    corners = [
        (x + size * math.sin(place * math.pi / 5), y - size * math.cos(place * math.pi / 5))
        for place, size in enumerate([radius, radius * 0.42] * 5)
    ]
    return " ".join(f"{cx:.1f},{cy:.1f}" for cx, cy in corners)


def panel(left: float, top: float, percent: int, found: Result) -> list[str]:
    """One diagram: tasks a second over workers, for one share of waiting."""
    highest = ceiling(max(max(rates.values()) for rates in found.rates.values()))
    across = max(math.log2(THREADS[-1]), math.log2(max(found.formula, found.chosen[0])))

    def x_of(workers: float) -> float:
        return left + math.log2(workers) / across * PANEL_WIDTH

    def y_of(tasks: float) -> float:
        return top + PANEL_HEIGHT * (1 - min(tasks / highest, 1.0))

    compute, wait = TASKS[percent]
    title = f"{percent} % waiting: computes {compute * 1e3:g} ms, waits {wait * 1e3:g} ms"
    out = [f'<text class="ink title" x="{left}" y="{top - 14}">{title}</text>']
    for part in range(5):
        y = top + PANEL_HEIGHT * part / 4
        label = f"{highest * (1 - part / 4):,.0f}"
        out.append(f'<path class="grid" d="M{left} {y:.1f}h{PANEL_WIDTH}"/>')
        out.append(f'<text class="pale" text-anchor="end" x="{left - 6}" y="{y + 4:.1f}">{label}</text>')
    for workers in THREADS:
        x = x_of(workers)
        bottom = top + PANEL_HEIGHT
        out.append(f'<path class="grid" d="M{x:.1f} {bottom}v5"/>')
        out.append(f'<text class="pale" text-anchor="middle" x="{x:.1f}" y="{bottom + 18}">{workers}</text>')
    x = x_of(found.formula)
    end = x > left + PANEL_WIDTH * 0.75
    out.append(f'<path class="violet line" d="M{x:.1f} {top}v{PANEL_HEIGHT}"/>')
    anchor, shift = ("end", -5) if end else ("start", 5)
    words = f"formula: {found.formula}"
    y = top + PANEL_HEIGHT - 8
    out.append(f'<text class="violet" text-anchor="{anchor}" x="{x + shift:.1f}" y="{y}">{words}</text>')
    for name in reversed(SERIES):
        points = [(x_of(workers), y_of(tasks)) for workers, tasks in found.rates[name].items()]
        out += curve(COLOURS[name], points)
    x, y = x_of(found.chosen[0]), y_of(found.chosen[1])
    out.append(f'<polygon class="blue" points="{star(x, y, 10)}" fill-opacity="0.35"/>')
    return out


def picture(results: dict[int, Result], head: dict[str, Any]) -> str:
    """The four diagrams as SVG."""
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img">',
        "<title>Tasks a second against the number of workers, for four shares of waiting</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        '<text class="ink title" x="60" y="26">Tasks a second (upwards) against the number of workers</text>',
    ]
    x = 60.0
    for name, label in SERIES.items():
        out += [f'<path class="{COLOURS[name]} line" d="M{x} 46h34"/>', point(COLOURS[name], x + 17, 46)]
        out.append(f'<text class="ink" x="{x + 40}" y="50">{label}</text>')
        x += 165
    out.append(
        f'<path class="violet line" d="M{x} 46h34"/><text class="ink" x="{x + 40}" y="50">formula</text>'
    )
    x += 100
    out.append(f'<polygon class="blue" points="{star(x + 10, 46, 10)}" fill-opacity="0.35"/>')
    out.append(f'<text class="ink" x="{x + 26}" y="50">max_workers={BOUNDS}</text>')
    for place, (percent, found) in enumerate(results.items()):
        left = 60 + (place % 2) * (PANEL_WIDTH + 75)
        top = 100 + (place // 2) * (PANEL_HEIGHT + 75)
        out += panel(left, top, percent, found)
    out.append(f'<text class="pale" x="60" y="{HEIGHT - 14}">{where(head)}</text>')
    return "\n".join([*out, "</svg>", ""])


# The tables


def table(results: dict[int, Result], costs: dict[str, float], head: dict[str, Any]) -> str:
    """What the page says about this run."""
    lines = [
        f"Measured on {head['date']} at commit {head['commit']}: {head['cpu']}, {head['cpus']} CPUs, {head['system']}, "
        f"CPython {head['python']}, load {head['load']:.0f} before it began. Tasks a second, the best round.",
        "",
        f"| waiting | formula | threads, raddle: 1 worker | best | near the formula | chosen in {BOUNDS} "
        "| threads, stdlib: best | processes: best |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]

    def best(rates: dict[int, float]) -> str:
        workers = max(rates, key=rates.__getitem__)
        return f"{rates[workers]:,.0f} ({workers})"

    for percent, found in results.items():
        threads = found.rates["raddle"]
        near = min(threads, key=lambda workers: abs(math.log(workers / found.formula)))
        lines.append(
            f"| {percent} % | {found.formula} | {threads[1]:,.0f} | {best(threads)} | {threads[near]:,.0f} ({near}) "
            f"| {found.chosen[1]:,.0f} ({found.chosen[0]}) | {best(found.rates['stdlib'])} "
            f"| {best(found.rates['processes'])} |"
        )
    lines += [
        "",
        "A task that does nothing, submitted in a burst, from submit() to result(): "
        + ", ".join(f"{SERIES[name]} {cost:,.1f} µs" for name, cost in costs.items())
        + ".",
    ]
    return "\n".join(lines)


def insert(text: str) -> None:
    """Put the tables between the markers of the page."""
    begin, end = "<!-- executors:begin -->", "<!-- executors:end -->"
    whole = PAGE.read_text(encoding="utf-8")
    before, rest = whole.split(begin)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benches.executors", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes nothing")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    head = report.header()
    speed = turns_per_second()
    results = {}
    for percent in TASKS:
        results[percent] = found = measure(percent, speed, rounds, options.quick)
        workers, tasks = found.chosen
        print(
            f"{percent} % waiting; formula {found.formula}; chosen in {BOUNDS}: {workers} ({tasks:,.0f} tasks/s)"
        )
        for name, rates in found.rates.items():
            print(f"  {SERIES[name]:18}", *(f"{workers}: {tasks:,.0f}" for workers, tasks in rates.items()))
        sys.stdout.flush()
    text = table(results, overheads(rounds, options.quick), head)
    print("\n" + text)
    if options.json:
        options.json.write_text(
            json.dumps({"header": head, "results": results}, indent=1) + "\n", encoding="utf-8"
        )
    if not options.quick:
        PICTURE.write_text(picture(results, head), encoding="utf-8")
        insert(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
