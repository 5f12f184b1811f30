"""Runs one scenario of pool_scenarios.py on one library and judges how it ends.

    python tests/faults/pool_runner.py SCENARIO LIBRARY [--seed N] [--scale N]

prints {"outcome": ..., "detail": ..., "seconds": ..., "seed": ...}. The scenario runs in a session of its own, below
this process, which adopts what it leaves behind (PR_SET_CHILD_SUBREAPER); with a temporary folder of its own and, where
the system lets us mount, a small /dev/shm of its own. Whatever is there 2 s after the scenario's process has ended was
left behind, and is killed.
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from pool_run import PROMISED, descendants, settled  # noqa: E402

#: Seconds for one scenario at scale 1, and for each step of the scale beyond.
LIMIT, LIMIT_STEP = 40, 15

PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000


def own_shared_memory():
    """Puts a small file system of this process and its children over /dev/shm; False where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNS if user == 0 else CLONE_NEWNS | CLONE_NEWUSER):
        return False
    if user:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            Path(f"/proc/self/{name}").write_text(text)
    return not (
        libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
        or libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=256m")
    )


def files(folder):
    return {str(path) for path in Path(folder).rglob("*") if not path.is_dir()}


def reap():
    """Waits for adopted children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def left_behind():
    reap()
    return {pid: state for pid, state in descendants(os.getpid()).items() if state not in "ZX"}


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80]
    except OSError:
        return "?"


def judge(name, library, seed, scale, folder):
    """Outcome and detail of the scenario, from what it says itself and from what is left of it."""
    temporary = Path(folder, "tmp")
    temporary.mkdir()
    own = own_shared_memory()
    shared_before = files("/dev/shm")
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join(
            [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    with open(Path(folder, "err"), "wb") as err, open(Path(folder, "out"), "wb") as out:
        line = [
            sys.executable,
            "-X",
            "faulthandler",
            HERE / "pool_scenarios.py",
            name,
            library,
            seed,
            folder,
            scale,
        ]
        process = subprocess.Popen(
            [*map(str, line)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
            start_new_session=True,
        )
        limit = LIMIT + LIMIT_STEP * scale
        ended = None
        try:
            process.wait(limit)
            ended = time.time()
        except subprocess.TimeoutExpired:
            pass
    told = [
        json.loads(line)
        for line in Path(folder, "out").read_text().splitlines()
        if line.startswith('{"outcome"')
    ]
    found = told[-1] if told else None
    if process.returncode is None:
        return "hang", f"{found['detail'] if found else ''} the program does not end".strip()
    killed = bool(found) and found.get("killed", False)
    if found is None or process.returncode != (-signal.SIGKILL if killed else 0):
        last = Path(folder, "err").read_text(errors="replace").strip().splitlines()[-1:]
        return "crash", f"exit {process.returncode} {' '.join(last)}"[:200]
    if found["outcome"] != "ok":
        return found["outcome"], found["detail"]
    if ended - found["when"] > PROMISED:
        return "slow", f"the program ended {ended - found['when']:.1f} s after its last line"
    if not settled(lambda: not left_behind(), PROMISED):
        left = left_behind()
        return "orphan", f"{len(left)} left, the first: {command_of(min(left))}"
    if found.get("ended"):
        lines = Path(folder, "ledger").read_text().split("\n")
        ended = sum(line.startswith("end ") for line in lines) - 3  # of the pools before
        if ended != found["ended"]:
            return "lost", f"{ended} of {found['ended']} tasks were done"
    said = Path(folder, "err").read_text(errors="replace")
    if "raddle: " in said and not killed:
        return "wrong", f"a false report: {said[said.index('raddle: ') :].splitlines()[0]}"[:200]
    left_files = files(temporary) | (files("/dev/shm") - shared_before if own else set())
    if left_files:
        return "leak", f"files: {', '.join(sorted(left_files))}"[:200]
    return "ok", found["detail"]


def kill_the_rest():
    while left := left_behind():
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario")
    parser.add_argument("library")
    parser.add_argument("--seed", default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument(
        "--errors", action="store_true", help="print what the scenario wrote to standard error"
    )
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="raddle-faults-") as folder:
        try:
            outcome, detail = judge(options.scenario, options.library, options.seed, options.scale, folder)
        finally:
            kill_the_rest()
        if options.errors:
            sys.stderr.write(Path(folder, "err").read_text(errors="replace"))
    seconds = round(time.monotonic() - begin, 2)
    print(json.dumps({"outcome": outcome, "detail": detail, "seconds": seconds, "seed": options.seed}))


if __name__ == "__main__":
    main()
