"""Run the Python benches under two interpreters and write the speed table of the READMEs.

    python benches/readme_table.py --python python3.11 --python python3.13

`make bench` does all of it. Both interpreters need raddle, culsans and aiologic installed. The table goes between the
markers `<!-- bench:begin -->` and `<!-- bench:end -->` of README.md, and of README.zh-CN.md where it exists. In it are
the rows with a target, the memory rows, and every row that raddle loses on either interpreter; `--keep FOLDER` keeps
all rows and samples as JSON, and `--from A.json --from B.json` writes the table from such files.

`--core` runs the core's own benches in Rust instead and writes their table between the markers
`<!-- core:begin -->` and `<!-- core:end -->`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benches.python import report  # noqa: E402  the path comes first
from benches.python.harness import LABELS, LOSSES, short, verdict  # noqa: E402

MEMORY = ("memory.lock", "memory.event", "memory.queue", "memory.timer")

WORDS = {
    "en": {
        "measured": "Measured on {date} at commit {commit}: {cpu}, {cpus} CPUs, {system}, CPython {pythons}. "
        "Ratio to the standard library, above 1 is better for raddle: median over the rounds, and the smallest and "
        "largest round in brackets. Rows with “sites kept” compare raddle with itself.",
        "head": ["", "stdlib", "raddle", "target", "best peer"],
        "memory": "memory per object: {title}",
        "idle": "idle: {title} (CPU per thread and second)",
        "lost": "Rows that miss their target or fall behind the standard library:",
        "unknown": "why is not yet known.",
        "command": "Repeat with `{command}`.",
        "colon": ": ",
    },
    "zh": {
        "measured": "测量于 {date}，提交 {commit}：{cpu}，{cpus} 个 CPU，{system}，CPython {pythons}。"
        "数值是与标准库的比值，大于 1 表示 raddle 更好："
        "各轮的中位数，括号内为最小和最大的一轮。标有“记录获取位置”的行是 raddle 与自身的比较。",
        "head": ["", "标准库", "raddle", "目标", "最佳同类"],
        "memory": "每个对象的内存：{title}",
        "idle": "空闲：{title}（每线程每秒的 CPU 时间）",
        "lost": "未达目标或慢于标准库的行：",
        "unknown": "原因尚不清楚。",
        "command": "重新测量：`{command}`。",
        "colon": "：",
    },
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--python", action="append", default=[], metavar="PATH", help="an interpreter; given twice"
    )
    parser.add_argument(
        "--from",
        dest="files",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="JSON of an earlier run",
    )
    parser.add_argument("--core", action="store_true", help="the table of the core, in Rust")
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds per row")
    parser.add_argument("--quick", action="store_true", help="smoke run; nothing is written")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the JSON files here")
    parser.add_argument("--print", action="store_true", help="print the table instead of writing it")
    options = parser.parse_args()
    if not options.core and not options.python and not options.files:
        parser.error("give --python twice, --from or --core")
    return options


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The results of both interpreters, one after the other."""
    results = [json.loads(file.read_text(encoding="utf-8")) for file in options.files]
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for place, python in enumerate(options.python):
            file = folder.resolve() / f"bench{place}.json"
            line = [python, "-m", "benches.python", "--json", str(file)]
            line += ["--repeat", str(options.repeat)] if options.repeat else []
            done = subprocess.run(line + ["--quick"] * options.quick, cwd=ROOT, check=False)
            if done.returncode:
                sys.exit(f"the benches failed under {python}")
            results.append(json.loads(file.read_text(encoding="utf-8")))
    return results


def titles_zh() -> dict[str, str]:
    """Row titles in Chinese."""
    with open(ROOT / "benches" / "titles_zh.toml", "rb") as file:
        return tomllib.load(file)


def table(results: list[dict[str, Any]], language: str, command: str) -> str:
    """The text between the markers."""
    words = WORDS[language]
    names = titles_zh() if language == "zh" else {}
    versions = [".".join(result["header"]["python"].split(".")[:2]) for result in results]
    by_name = [{record["name"]: record for record in result["rows"]} for result in results]
    last = by_name[-1]

    def title(record: dict[str, Any]) -> str:
        plain = names.get(record["name"], record["title"])
        return words[record["kind"]].format(title=plain) if record["kind"] in ("memory", "idle") else plain

    head = words["head"]
    heading = [
        head[0],
        f"{head[1]} ({versions[-1]})",
        f"{head[2]} ({versions[-1]})",
        *versions,
        head[3],
        f"{head[4]} ({versions[-1]})",
    ]
    lines = ["| " + " | ".join(heading) + " |", "|---" + "|--:" * (len(heading) - 2) + "|---|"]
    lost = []
    for name, record in last.items():
        all_of_it = [rows[name] for rows in by_name if name in rows]
        losing = [one for one in all_of_it if verdict(one) in LOSSES]
        if losing:
            lost.append(record)
        if record["target"] is None and not losing and name not in MEMORY:
            continue
        ratios = []
        for rows in by_name:
            one = rows.get(name)
            found = report.ratio(one) if one and one["kind"] != "idle" else None
            text = f"**{short(found.median)}** ({short(found.low)}..{short(found.high)})" if found else ""
            ratios.append(text + (" ✗" if one and verdict(one) in LOSSES else ""))
        base, ours = (report.median_of(record, record[which]) for which in ("baseline", "measured"))
        amounts = [report.readable(record, value) if value is not None else "" for value in (base, ours)]
        peer = report.best_peer(record)
        lines.append(
            "| "
            + " | ".join(
                [
                    title(record),
                    *amounts,
                    *ratios,
                    report.target(record),
                    f"{LABELS[peer[0]]} {short(peer[1])}" if peer else "",
                ]
            )
            + " |"
        )
    first = results[-1]["header"]
    pythons = ", ".join(result["header"]["python"] for result in results)
    text = [
        words["measured"].format(**{**first, "pythons": pythons})
        + " "
        + words["command"].format(command=command),
        "",
        *lines,
    ]
    if lost:
        reasons = report.reasons(language)
        text += ["", words["lost"], ""]
        text += [
            f"- {title(record)}{words['colon']}{reasons.get(record['name'], words['unknown'])}"
            for record in lost
        ]
    return "\n".join(text)


CORE_WORDS = {
    "en": "Measured on {date}. Nanoseconds for one operation; in brackets how many times as fast raddle is: median "
    "(smallest..largest round). Repeat with `cargo run --release -p raddle-benches`.",
    "zh": "测量于 {date}。数值为每次操作的纳秒数；括号内是 raddle 快多少倍：中位数（最小..最大的一轮）。"
    "重新测量：`cargo run --release -p raddle-benches`。",
}


def core_table(lines: list[str], language: str) -> str:
    """The text between the core's markers, from the rows that the benches in Rust print."""
    date = datetime.date.today().isoformat()
    return "\n".join([CORE_WORDS[language].format(date=date), "", *lines])


def run_core(quick: bool) -> list[str]:
    """The rows of the core's benches, in Markdown."""
    line = ["cargo", "run", "-q", "--release", "-p", "raddle-benches", "--", "--markdown"]
    done = subprocess.run(line + ["--quick"] * quick, cwd=ROOT, check=True, capture_output=True, text=True)
    return [row for row in done.stdout.splitlines() if row.startswith("|")]


def insert(path: Path, name: str, text: str) -> bool:
    """Put the text between the markers of that name in the file; False where there is no such file."""
    if not path.exists():
        return False
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    whole = path.read_text(encoding="utf-8")
    if whole.count(begin) != 1 or whole.count(end) != 1:
        sys.exit(f"{path.name} needs the markers {begin} and {end}, once each")
    before, rest = whole.split(begin)
    after = rest.split(end)[1]
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
    return True


def main() -> None:
    """The command."""
    options = arguments()
    if options.core:
        rows = run_core(options.quick)
        part, texts = "core", {language: core_table(rows, language) for language in WORDS}
    else:
        results = run(options)
        part, texts = "bench", {language: table(results, language, "make bench") for language in WORDS}
    if options.print or options.quick:
        print("\n\n".join(texts.values()))
        return
    for name, language in (("README.md", "en"), ("README.zh-CN.md", "zh")):
        if insert(ROOT / name, part, texts[language]):
            print(f"wrote the table of {name}")


if __name__ == "__main__":
    main()
