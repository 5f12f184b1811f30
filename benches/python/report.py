"""What the runner prints: a header, a table in text or Markdown, and the notes on rows that raddle loses."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

from .harness import LABELS, LOSSES, SUBJECTS, figure, short, verdict

HERE = Path(__file__).resolve().parent


def header() -> dict[str, Any]:
    """Everything a reader needs to judge the figures, or to repeat them."""
    packages = {}
    for name in ("raddle", "culsans", "aiologic"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            # A build in the source tree has a module and no metadata.
            module = sys.modules.get(name)
            packages[name] = getattr(module, "__version__", None)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return {
        "python": platform.python_version(),
        "build": " ".join(platform.python_build()) + ", " + platform.python_compiler(),
        "gil": gil,
        "packages": packages,
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "load": load,
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, timeout=20)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return (
            commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
            if commit
            else "none yet"
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def header_text(head: dict[str, Any]) -> str:
    """The header as lines of text."""
    load = f", load {head['load']:.1f}" if head["load"] is not None else ""
    packages = ", ".join(f"{name} {version or 'not installed'}" for name, version in head["packages"].items())
    return (
        f"Python {head['python']} ({head['build']}{'' if head['gil'] else ', free-threaded'})\n"
        f"{packages}\n"
        f"{head['cpu']}, {head['cpus']} CPUs, {head['system']}{load}; commit {head['commit']}; {head['date']}"
    )


def reasons(language: str = "en") -> dict[str, str]:
    """The notes of why.toml."""
    with open(HERE / "why.toml", "rb") as file:
        notes = tomllib.load(file).get(language, {})
    return {name: " ".join(str(text).split()) for name, text in notes.items()}


def unit(record: dict[str, Any]) -> str:
    """Unit of the row's values."""
    return {"speed": "ns", "cpu": "ns CPU", "idle": "µs/s", "memory": "bytes"}[record["kind"]]


def amount(value: float) -> str:
    """A value with three digits, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def readable(record: dict[str, Any], value: float) -> str:
    """A value with the unit that suits its size."""
    if record["kind"] in ("speed", "cpu"):
        beside = " CPU" if record["kind"] == "cpu" else ""
        for name, size in (("ms", 1e6), ("µs", 1e3)):
            if value >= size:
                return f"{amount(value / size)} {name}{beside}"
    return f"{amount(value)} {unit(record)}"


def values(record: dict[str, Any], name: str) -> list[float]:
    """The contender's values, one per round; empty where it did not take part."""
    contender = record["contenders"].get(name)
    return contender["values"] if contender else []


def median_of(record: dict[str, Any], name: str) -> float | None:
    """The contender's median value."""
    found = values(record, name)
    return statistics.median(found) if found else None


def ratio(record: dict[str, Any], name: str | None = None) -> Any:
    """The contender's ratio to the row's baseline as a Figure, or None."""
    return figure(values(record, record["baseline"]), values(record, name or record["measured"]))


def cpu_ratio(record: dict[str, Any]) -> Any:
    """The ratio of CPU time per operation, as a Figure: above 1, raddle spends less."""
    contenders = record["contenders"]
    if record["baseline"] not in contenders or record["measured"] not in contenders:
        return None
    return figure(contenders[record["baseline"]]["cpu"], contenders[record["measured"]]["cpu"])


def target(record: dict[str, Any]) -> str:
    """The target as text."""
    return "" if record["target"] is None else f"{record['target']:,g}"


def best_peer(record: dict[str, Any]) -> tuple[str, float] | None:
    """The quickest contender that is neither the baseline nor raddle, and its median ratio."""
    ranked = []
    for name in record["contenders"]:
        if name in (record["baseline"], record["measured"], "raddle", "raddle_sites"):
            continue
        found = ratio(record, name)
        if found is not None:
            ranked.append((found.median, name))
    return (max(ranked)[1], max(ranked)[0]) if ranked else None


def line(record: dict[str, Any]) -> str:
    """One row as text."""
    if record.get("failed"):
        return f"{record['title']:<68} FAILED: {record['failed']}"
    base, ours = median_of(record, record["baseline"]), median_of(record, record["measured"])
    text = f"{record['title']:<68} {amount(base) if base is not None else '-':>11} "
    text += f"{amount(ours) if ours is not None else '-':>11} {unit(record):<8}"
    if record["kind"] == "idle":
        text += f"{'':<27} {verdict(record):<11}"
    else:
        found = ratio(record)
        text += f"{str(found) if found else '-':<27} "
        wanted = target(record)
        text += f"{verdict(record)}{f' ({wanted})' if wanted else ''}"
        if record["kind"] == "speed" and not record["solo"]:
            cpu = cpu_ratio(record)
            text += f"; CPU {short(cpu.median)}" if cpu else ""
    peers = []
    for name in record["contenders"]:
        if name in (record["baseline"], record["measured"]):
            continue
        value = median_of(record, name)
        found = ratio(record, name)
        if value is None:
            continue
        peers.append(
            f"{LABELS[name]} {amount(value) if record['kind'] == 'idle' or found is None else short(found.median)}"
        )
    return text + (f"  [{', '.join(peers)}]" if peers else "")


def columns() -> str:
    """The heading over `line`."""
    heading = f"{'':<68} {'baseline':>11} {'raddle':>11} {'':<8}{'ratio (min..max)':<27} "
    return heading + "verdict (target); ratio of CPU time  [peers]"


def notes(records: list[dict[str, Any]]) -> list[str]:
    """One line for every row that raddle loses, with its reason where why.toml has one."""
    known = reasons()
    return [
        f"{record['title']}: {verdict(record)}. {known.get(record['name'], 'Why: not yet known.')}"
        for record in records
        if verdict(record) in LOSSES
    ]


def text_report(result: dict[str, Any]) -> str:
    """The whole result as text."""
    lines = [header_text(result["header"]), "", columns()]
    for subject in SUBJECTS:
        lines += [line(record) for record in result["rows"] if record["subject"] == subject]
    lost = notes(result["rows"])
    if lost:
        lines += ["", "Lost:"] + [f"  {one}" for one in lost]
    return "\n".join(lines)


def markdown_report(result: dict[str, Any]) -> str:
    """The whole result as a Markdown table."""
    lines = [f"    {one}" for one in header_text(result["header"]).splitlines()]
    lines += [
        "",
        "| | stdlib | raddle | ratio (min..max) | target | | best peer |",
        "|---|--:|--:|--:|--:|---|---|",
    ]
    for record in result["rows"]:
        if record.get("failed"):
            lines.append(f"| {record['title']} | | | | | failed | |")
            continue
        base, ours = median_of(record, record["baseline"]), median_of(record, record["measured"])
        peer = best_peer(record)
        lines.append(
            f"| {record['title']} | {readable(record, base) if base is not None else ''} "
            f"| {readable(record, ours) if ours is not None else ''} "
            f"| {ratio(record) or '' if record['kind'] != 'idle' else ''} | {target(record)} | {verdict(record)} "
            f"| {f'{LABELS[peer[0]]} {short(peer[1])}' if peer else ''} |"
        )
    lost = notes(result["rows"])
    if lost:
        lines += [""] + [f"- {one}" for one in lost]
    return "\n".join(lines)
