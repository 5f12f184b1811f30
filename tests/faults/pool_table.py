"""The table of faults: every scenario of pool_scenarios.py on every library that is installed.

    python tests/faults/pool_table.py               writes docs/faults.md's table, with raddle's kills by the thousand
    python tests/faults/pool_table.py --quick       the short form; prints and writes nothing
    python tests/faults/pool_table.py --only kill --library raddle --library pool
    python tests/faults/pool_table.py --library raddle --json FILE    these anew, the others from FILE; writes the table

Ends with 1 where one of raddle's cells is not "ok".
"""

import argparse
import concurrent.futures
import datetime
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent)]

import pool_adapters  # noqa: E402
from pool_run import OUTCOMES  # noqa: E402
from pool_scenarios import SCENARIOS  # noqa: E402

PAGE = ROOT / "docs" / "faults.md"

#: 1,000 kills under load, and a hundred in each direction of large messages.
FULL = 20.0

FINE = ("ok", "n/a")


def run(name, library, seed, scale, errors=False):
    """The judgement of one scenario on one library: outcome, detail, seconds, seed.

    What is only slow is tried three times: other programs may have had the cores.
    """
    for _ in range(3):
        found = run_once(name, library, seed, scale, errors)
        if found["outcome"] != "slow":
            break
    return found


def run_once(name, library, seed, scale, errors):
    line = [
        sys.executable,
        HERE / "pool_runner.py",
        name,
        library,
        "--seed",
        str(seed),
        "--scale",
        f"{scale:g}",
    ]
    done = subprocess.run(
        [*map(str, line), *["--errors"] * errors], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the runner itself failed:\n{done.stderr}")
    return {**json.loads(done.stdout), "errors": done.stderr}


def everywhere(names, libraries, seed, scale, jobs):
    """{(scenario, library): judgement}; prints each as it comes."""
    found = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = {
            pool.submit(run, name, library, seed, scale if library.startswith("raddle") else 1.0): (
                name,
                library,
            )
            for name in names
            for library in libraries
        }
        for future in concurrent.futures.as_completed(running):
            name, library = running[future]
            one = found[name, library] = future.result()
            print(
                f"{name:26} {library:12} {one['outcome']:8} {one['seconds']:6.1f} s  {one['detail']}",
                flush=True,
            )
    return found


def version(adapter):
    try:
        return f"{adapter.title} {metadata.version(adapter.name)}"
    except metadata.PackageNotFoundError:
        return adapter.title


def cell(one):
    if one is None:
        return ""
    return one["outcome"] if one["outcome"] in FINE else f"**{one['outcome']}**"


def table(found, names, libraries):
    """Markdown: a row a scenario, a column a library."""
    heads = [version(pool_adapters.ADAPTERS[library]) for library in libraries]
    lines = [f"| | {' | '.join(heads)} |", "|---" + "|:-:" * len(heads) + "|"]
    for name in names:
        cells = [cell(found.get((name, library))) for library in libraries]
        lines.append(f"| {SCENARIOS[name][0]} | {' | '.join(cells)} |")
    kept = [sum(found[name, library]["outcome"] == "ok" for name in names) for library in libraries]
    lines.append(f"| kept, of {len(names)} | {' | '.join(map(str, kept))} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the short form; writes nothing")
    parser.add_argument("--only", default="", help="scenarios whose name has this in it; writes nothing")
    parser.add_argument("--library", action="append", help="may be given several times; writes nothing")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument(
        "--json", type=Path, help="all cells are kept here, and what is not run is taken from here"
    )
    parser.add_argument("--jobs", type=int, default=1, help="scenarios at a time")
    options = parser.parse_args()
    names = [name for name in SCENARIOS if options.only in name]
    libraries = [name for name in options.library or pool_adapters.ADAPTERS if pool_adapters.find(name)]
    print(f"seed {options.seed}, Python {platform.python_version()}: {', '.join(libraries)}", flush=True)
    found = everywhere(names, libraries, options.seed, 1.0 if options.quick else FULL, options.jobs)
    missed = [
        cell for cell, one in found.items() if cell[1].startswith("raddle") and one["outcome"] not in FINE
    ]
    if options.json:
        kept = json.loads(options.json.read_text()) if options.json.exists() else {}
        kept.update({" ".join(cell): {**one, "errors": ""} for cell, one in found.items()})
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
        found = {tuple(cell.split()): one for cell, one in kept.items()}
        names = list(SCENARIOS)
        libraries = [name for name in pool_adapters.ADAPTERS if (names[0], name) in found]
    text = table(found, names, libraries)
    print("\n" + text)
    if not options.quick and (options.json or not (options.only or options.library)):
        write(text, options.seed)
    sys.exit(f"not kept: {missed}" if missed else 0)


def write(text, seed):
    """Puts the table between the page's markers."""
    begin, end = "<!-- faults:begin -->", "<!-- faults:end -->"
    before, rest = PAGE.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    system = f"Linux {platform.release()}, CPython {platform.python_version()}"
    when = f"Measured on {datetime.date.today().isoformat()}, {system}"
    words = "".join(f"- {name}: {meaning}\n" for name, meaning in OUTCOMES.items())
    PAGE.write_text(
        f"{before}{begin}\n{when}, seed {seed}.\n\n{text}\n\n{words}{end}{after}", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
