"""Random programs of several processes with known truth: what hangs is told once, with all its waits, and nothing else.

`RADDLE_PROCESS_PROGRAMS` (24) of them, from `RADDLE_SEED`.
"""

import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import random_processes

import tools

PROGRAMS = int(os.environ.get("RADDLE_PROCESS_PROGRAMS", "24"))

#: Processes wait most of the time.
AT_ONCE = 4

#: How long a program may run, or take to be told of, in seconds: two cores, busy with others.
LIMIT = 30.0

#: How long a program that hangs is watched after it was told of: nothing else may be told.
AFTERWARDS = 1.5

_CALLS = {
    "put": ("Queue.put", "Connection.send"),
    "get": ("Queue.get", "Connection.recv"),
    "tasks": ("Queue.join",),
}


def told(path):
    return path.read_text().split("raddle: ")[1:] if path.exists() else []


def wrong_with(number, directory):
    """What is wrong with this program's run; None if nothing is, and whether it hung."""
    name, method = f"{tools.SEED}:{number}", ("fork", "spawn", "warm")[number % 3 if number % 4 == 0 else 0]
    plan, stuck = random_processes.plan_of(name)
    report = directory / f"report-{number}"
    command = [sys.executable, random_processes.__file__, name, method, str(report)]
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    end = time.monotonic() + LIMIT
    try:
        while program.poll() is None and not told(report) and time.monotonic() < end:
            time.sleep(0.02)
        if program.poll() is None:
            time.sleep(AFTERWARDS)
        found, hung = told(report), program.poll() is None
    finally:
        try:
            os.killpg(program.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    out, errors = program.communicate()
    what = f"random_processes.py {name} {method}\n{plan}\n{stuck}\n" + "\n".join(found) + out + errors
    if hung != bool(stuck):
        return f"hangs: {hung}\n{what}", hung
    if not stuck:
        return (None if not found and "ended" in out else f"ends, and is told of, or fails\n{what}"), False
    if len(found) != 1:
        return f"hangs, told {len(found)} times\n{what}", hung
    # All threads that wait for other processes; those that wait for threads of their own are not listed.
    waits = re.findall(r"Thread '(.*)' of process '(.*)' \(pid \d+\) .*\n    in (\S+),", found[0])
    expected = []
    for (process, thread), step in stuck.items():
        names = (
            "MainProcess" if process == 0 else f"p{process}",
            "MainThread" if thread == 0 else f"t{thread}",
        )
        if step[0] in _CALLS:
            expected.append((*names, _CALLS[step[0]][random_processes_kind(plan, step)]))
        elif process == 0 and thread == 0 and not any(at == 0 and other for at, other in stuck):
            expected.append((*names, "Process.join"))
    if sorted((process, thread, call) for thread, process, call in waits) != sorted(expected):
        return f"told of {waits} instead of {expected}\n{what}", hung
    return None, hung


def random_processes_kind(plan, step):
    """0: a queue, 1: a pipe."""
    return 1 if plan.channels[step[1]].kind == "pipe" else 0


@pytest.mark.stress
@pytest.mark.fork
@pytest.mark.timeout(60 + LIMIT * PROGRAMS / AT_ONCE, method="thread")
def test_random_processes(tmp_path):
    print(f"RADDLE_SEED={tools.SEED} RADDLE_PROCESS_PROGRAMS={PROGRAMS}")
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda number: wrong_with(number, tmp_path), range(PROGRAMS)))
    wrong = [what for what, _ in results if what]
    hung = sum(hung for _, hung in results)
    print(f"{PROGRAMS} programs, {hung} hung, {len(wrong)} wrong", *wrong, sep="\n\n")
    assert not wrong
    assert 0 < hung < PROGRAMS


def test_generator_makes_all_sorts():
    """Programs that end and that hang: in puts, gets, joins, in threads of one process and of several."""
    seen = set()
    for number in range(300):
        plan, stuck = random_processes.plan_of(f"sorts:{number}")
        seen.add("hangs" if stuck else "ends")
        seen |= {step[0] for step in stuck.values()}
        seen |= {step[0] for steps in plan.scripts.values() for step in steps}
        seen |= {"thread"} if any(thread and process for process, thread in stuck) else set()
        seen |= {channel.kind for channel in plan.channels}
    assert seen >= {"hangs", "ends", "put", "get", "done", "tasks", "pause", "late", "die", "end", "thread"}
    assert seen >= {"queue", "joinable", "simple", "pipe"}
