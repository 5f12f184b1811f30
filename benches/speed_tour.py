"""Six rows of the benches in about ten seconds, for `make demo`: measured here and now, beside the standard library.

python benches/speed_tour.py
"""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benches.python import harness
from benches.python.report import readable

ROWS = (
    ("lock.pair", "Lock: acquire and release"),
    ("queue.pair", "Queue: put and get"),
    ("queue.4x4", "Queue: 4 producers, 4 consumers"),
    ("handover.event", "Event: wake the other thread"),
    ("timer.cancel", "Timer: create, start, cancel"),
    ("sched.cancel", "sched: cancel one of 20,000"),
)

ROUNDS, SECONDS = 5, 0.08


def main() -> int:
    """Measure and print."""
    rows = harness.load_rows()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"Speed, measured now: CPython {platform.python_version()}, {cpus} CPUs, "
        f"median of {ROUNDS} interleaved rounds\n"
    )
    print(f"  {'':<34}{'stdlib':>12}{'raddle':>12}   times as fast")
    for name, title in ROWS:
        one = dataclasses.replace(rows[name], contenders=("stdlib", "raddle"))
        found = harness.measure(one, ROUNDS, SECONDS, quick=False)
        if "raddle" not in found:
            print("raddle is not installed for this interpreter", file=sys.stderr)
            return 1
        samples = [found[contender]["values"] for contender in ("stdlib", "raddle")]
        base, ours = (readable({"kind": "speed"}, statistics.median(values)) for values in samples)
        ratio = harness.figure(*samples)
        print(
            f"  {title:<34}{base:>12}{ours:>12}   {harness.short(ratio.median):>8}",
            flush=True,
        )
    print("\nAll rows, peers and spread: python -m benches.python")
    return 0


if __name__ == "__main__":
    sys.exit(main())
