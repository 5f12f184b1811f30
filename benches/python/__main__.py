"""Run the Python benches: standard library, raddle and peers side by side.

From the root of the repository, with the interpreter raddle is installed in:

    python -m benches.python                    everything, some eight minutes
    python -m benches.python --quick            a smoke run: every row once and small; figures mean nothing
    python -m benches.python --only queue       rows whose name or subject starts with this
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import harness, report
from .harness import Row

ROOT = Path(__file__).resolve().parents[2]

#: Wall seconds per sample.
SAMPLE_SECONDS = 0.06

#: Processes that a row's rounds are spread over: where code and objects happen to lie differs from one to the next.
PROCESSES = 3

#: Seconds an idle row waits in one sample; under --quick the second figure.
IDLE_SECONDS, QUICK_IDLE_SECONDS = 1.0, 0.1


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.python", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="every row once, tiny sizes: a test that the benches run"
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="rows or subjects that start with NAME; repeatable"
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds per row (default 9; 1 with --quick)")
    parser.add_argument(
        "--seconds", type=float, default=SAMPLE_SECONDS, help="seconds per sample (default %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample here")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown at the end")
    parser.add_argument("--list", action="store_true", help="print the rows' names and stop")
    parser.add_argument("--pin-one", action="store_true", help="run on one core whatever the row says")
    parser.add_argument("--rows", help=argparse.SUPPRESS)  # child: measure these rows, one JSON line each
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # child: one row of one contender
    options = parser.parse_args()
    if options.repeat is None:
        options.repeat = 1 if options.quick else 9
    if options.repeat < 1:
        parser.error("--repeat must be at least 1")
    return options


def selected(rows: dict[str, Row], only: list[str] | None) -> list[Row]:
    """The rows asked for."""
    if not only:
        return list(rows.values())
    return [
        one
        for one in rows.values()
        if any(one.name.startswith(name) or one.subject.strip("_") == name for name in only)
    ]


def record_of(one: Row, contenders: dict[str, Any], failed: str | None = None) -> dict[str, Any]:
    """A row as it goes into the JSON file."""
    record = {
        "name": one.name,
        "title": one.title,
        "subject": one.subject,
        "kind": one.kind,
        "target": one.target,
        "baseline": one.baseline,
        "measured": one.measured,
        "cores": one.cores,
        "solo": one.solo,
        "same": harness.same_objects(one),
        "contenders": contenders,
    }
    if failed:
        record["failed"] = failed
    return record


# In the children


def pin(cores: int | None) -> None:
    """Keep this process on that many cores."""
    if cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])


def measure_rows(options: argparse.Namespace, rows: dict[str, Row]) -> None:
    """Child: measure the rows named, all of them for the same number of cores, and print one JSON line each."""
    names = options.rows.split(",")
    pin(1 if options.pin_one else rows[names[0]].cores)
    for name in names:
        one = rows[name]
        try:
            record = record_of(one, harness.measure(one, options.repeat, options.seconds, options.quick))
        except Exception as failure:
            record = record_of(one, {}, f"{type(failure).__name__}: {failure}")
        print(json.dumps(record), flush=True)
    os._exit(0)


def measure_one(options: argparse.Namespace, rows: dict[str, Row]) -> None:
    """Child: one sample of a row that wants a process of its own."""
    name, contender = options.one
    one = rows[name]
    adapter = harness.load_adapter(contender)
    n = one.quick if options.quick else one.least
    value, beside = one.workload(adapter, n, QUICK_IDLE_SECONDS if options.quick else IDLE_SECONDS)
    print(json.dumps([n, value, beside]), flush=True)
    os._exit(0)


# In the parent


def command(options: argparse.Namespace, rounds: int, *extra: str) -> list[str]:
    """The command line of a child."""
    line = [
        sys.executable,
        "-m",
        "benches.python",
        "--repeat",
        str(rounds),
        "--seconds",
        str(options.seconds),
    ]
    return line + ["--quick"] * options.quick + ["--pin-one"] * options.pin_one + list(extra)


def run_shared(options: argparse.Namespace, group: list[Row], rounds: int):
    """Yield the records of rows that share one process; a row that kills the process is marked and the rest go on."""
    left = list(group)
    while left:
        with subprocess.Popen(
            command(options, rounds, "--rows", ",".join(one.name for one in left)),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            for line in child.stdout:
                record = json.loads(line)
                left.pop(0)
                yield record
        if left:
            yield record_of(left.pop(0), {}, f"the process ended with code {child.returncode}")
            if child.returncode == 0:
                raise RuntimeError("the child stopped early")


def merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One record of the rounds of several processes; failed if one of them failed."""
    for part in parts:
        if part.get("failed"):
            return part
    whole = parts[0]
    for part in parts[1:]:
        for name, contender in part["contenders"].items():
            for series in ("values", "cpu"):
                whole["contenders"][name][series] += contender[series]
    return whole


def run_separate(options: argparse.Namespace, rows: list[Row]):
    """Yield the records of rows whose every sample has its own process."""
    tasks = [
        (one, name, turn)
        for turn in range(min(options.repeat, 3))
        for one in rows
        for name in harness.contenders_of(one)
    ]

    def sample(task: tuple[Row, str, int]) -> tuple[int, float, float]:
        one, name, _ = task
        done = subprocess.run(
            command(options, 1, "--one", one.name, name),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=harness.SAMPLE_LIMIT,
        )
        if done.returncode or not done.stdout:
            last = done.stderr.strip().rpartition("\n")[2]
            raise RuntimeError(f"{name}: exit code {done.returncode}: {last}")
        return tuple(json.loads(done.stdout))

    found: dict[str, dict[str, Any]] = {one.name: {} for one in rows}
    failed: dict[str, str] = {}
    # These samples read clocks and counters of their own process, so that running side by side does not disturb them.
    with concurrent.futures.ThreadPoolExecutor(2 if options.quick else 6) as pool:
        for task, outcome in [(task, pool.submit(sample, task)) for task in tasks]:
            one, name, _ = task
            try:
                n, value, beside = outcome.result()
            except Exception as failure:
                failed[one.name] = str(failure)
                continue
            entry = found[one.name].setdefault(name, {"operations": n, "values": [], "beside": []})
            entry["values"].append(value)
            entry["beside"].append(beside)
    for one in rows:
        yield record_of(one, found[one.name], failed.get(one.name))


def records(options: argparse.Namespace, rows: list[Row]):
    """Yield every row's record as it comes."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fitting = [one for one in rows if cpus >= one.needs_cpus]
    shared = [one for one in fitting if not one.own_process]
    groups: dict[tuple[str, int | None], list[Row]] = {}
    for one in shared:
        groups.setdefault((one.subject, one.cores), []).append(one)
    processes = min(PROCESSES, options.repeat)
    for group in groups.values():
        passes = [
            list(run_shared(options, group, rounds)) for rounds in harness.chunks(options.repeat, processes)
        ]
        for parts in zip(*passes, strict=True):
            yield merged(parts)
    yield from run_separate(options, [one for one in fitting if one.own_process])


def main() -> int:
    """The command."""
    options = arguments()
    rows = harness.load_rows()
    if options.rows:
        measure_rows(options, rows)
    if options.one:
        measure_one(options, rows)
    chosen = selected(rows, options.only)
    if options.list or not chosen:
        print("\n".join(rows))
        return 0 if options.list else 2
    if harness.load_adapter("raddle") is None:
        print(f"raddle is not installed for {sys.executable}", file=sys.stderr)
        return 2
    result: dict[str, Any] = {
        "header": report.header(),
        "quick": options.quick,
        "rounds": options.repeat,
        "rows": [],
    }
    print(report.header_text(result["header"]))
    print(
        "a smoke run: the figures mean nothing"
        if options.quick
        else f"{options.repeat} rounds, {options.seconds} s a sample"
    )
    print("ratio = baseline/raddle within a round, above 1 is better for raddle\n")
    print(report.columns(), flush=True)
    for record in records(options, chosen):
        result["rows"].append(record)
        print(report.line(record), flush=True)
    order = {name: place for place, name in enumerate(rows)}
    result["rows"].sort(key=lambda record: order[record["name"]])
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        print("\n" + report.markdown_report(result))
    failed = [record for record in result["rows"] if record.get("failed")]
    missing = [
        record["name"]
        for record in result["rows"]
        if not failed and record["measured"] not in record["contenders"]
    ]
    if options.quick:
        print(
            f"{len(result['rows'])} rows ran, {len(failed)} failed"
            + (f"; raddle is missing in {missing}" if missing else "")
        )
    elif not options.markdown:
        print("\n".join(["", "Lost:"] + [f"  {one}" for one in report.notes(result["rows"])]))
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
