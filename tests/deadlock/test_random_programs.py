"""Random programs with known truth: every deadlock found, with its parties, in time, and nothing else.

`RADDLE_PROGRAMS` (2,000) of them, from `RADDLE_SEED`; each failure names the program, which `random_batch.py SEED N N+1
report` repeats. Half of the batches report, the other half raise.
"""

import concurrent.futures
import json
import os
import random

import pytest
from hangs import IN_TIME
from random_programs import (
    CONDITION,
    FEED,
    GATE,
    LOCK,
    QUEUE,
    RLOCK,
    SEMAPHORE,
    Last,
    Program,
    Resource,
    make,
    truth,
)

import tools

PROGRAMS = int(os.environ.get("RADDLE_PROGRAMS", "2000"))

#: Programs that run at once in one process.
BATCH = 125

#: Processes at a time.
AT_ONCE = 2

#: Seconds for a batch, most of which it waits.
TIME_LIMIT = 90

_HERE = os.path.dirname(os.path.abspath(__file__))


def run_batch(first):
    """Runs one batch in a child; gives what it told."""
    beyond = min(first + BATCH, PROGRAMS)
    on_deadlock = ("report", "raise")[first // BATCH % 2]
    arguments = [tools.SEED, first, beyond, on_deadlock]
    program = f"import runpy, sys; sys.path.insert(0, {_HERE!r}); runpy.run_module('random_batch', run_name='__main__')"
    done = tools.run_child(program, *arguments, timeout=TIME_LIMIT)
    repeat = f"random_batch.py {' '.join(map(str, arguments))}"
    assert (done.returncode, done.stderr) == (0, ""), (
        f"{repeat}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    told = json.loads(done.stdout)
    for number, what in told["wrong"]:
        plan = make(random.Random(f"{tools.SEED}:{number}"))
        print(
            f"random_batch.py {tools.SEED} {number} {number + 1} {on_deadlock}: {what}\n    {plan}\n    {truth(plan)}"
        )
    return told


@pytest.mark.stress
@pytest.mark.timeout(60 + TIME_LIMIT * (PROGRAMS // BATCH // AT_ONCE + 1), method="thread")
def test_random_programs():
    print(f"RADDLE_SEED={tools.SEED} RADDLE_PROGRAMS={PROGRAMS}")
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        told = list(pool.map(run_batch, range(0, PROGRAMS, BATCH)))
    wrong = sum(len(one["wrong"]) for one in told)
    late = sorted(seconds for one in told for seconds in one["late"])
    deadlocks, sizes = sum(one["deadlocks"] for one in told), [size for one in told for size in one["sizes"]]
    at = (
        {f"{share:.0%}": round(late[int(share * (len(late) - 1))], 3) for share in (0, 0.5, 0.9, 0.99, 1)}
        if late
        else {}
    )
    print(
        f"{PROGRAMS} programs, {deadlocks} deadlocks of up to {max(sizes, default=0)} threads, reported after {at} s"
    )
    assert not wrong, f"{wrong} wrong: see the output"
    assert deadlocks > PROGRAMS // 10 and len(set(sizes)) > 1
    # So many threads start at once that a core may be away for longer than a look: one in a hundred may be late.
    assert at["99%"] < IN_TIME, at


class TestTruth:
    """The play itself, where the answer is plain."""

    @staticmethod
    def deadlocks(resources, lasts):
        found = truth(Program(resources, lasts, frozenset()))
        return sorted(found.stuck), {
            tuple(sorted(group)): proven for group, proven in found.deadlocks.items()
        }

    def test_two_locks(self):
        lasts = [Last("wait", 1), Last("wait", 0)]
        assert self.deadlocks([Resource(RLOCK, (0,)), Resource(RLOCK, (1,))], lasts) == (
            [0, 1],
            {(0, 1): True},
        )
        assert self.deadlocks([Resource(LOCK, (0,)), Resource(CONDITION, (1,))], lasts) == (
            [0, 1],
            {(0, 1): False},
        )

    def test_deadline(self):
        lasts = [Last("wait", 1), Last("timed", 0)]
        assert self.deadlocks([Resource(RLOCK, (0,)), Resource(RLOCK, (1,))], lasts) == ([], {})

    def test_victim(self):
        lasts = [Last("wait", 1), Last("wait", 0), Last("wait", 0), Last("join", 2)]
        assert self.deadlocks([Resource(RLOCK, (0,)), Resource(RLOCK, (1,))], lasts) == (
            [0, 1, 2, 3],
            {(0, 1): True},
        )

    def test_one_of_two_holders_is_enough(self):
        resources = [Resource(SEMAPHORE, (0, 2)), Resource(RLOCK, (1,))]
        assert self.deadlocks(resources, [Last("wait", 1), Last("wait", 0), Last("run")]) == ([], {})
        both = [Last("wait", 1), Last("wait", 0), Last("wait", 1)]
        assert self.deadlocks(resources, both) == ([0, 1, 2], {(0, 1, 2): False})

    def test_joins(self):
        assert self.deadlocks([], [Last("join", 1), Last("join", 0)]) == ([0, 1], {(0, 1): True})

    def test_queues(self):
        full = [Resource(QUEUE, (0,)), Resource(QUEUE, (1,))]
        assert self.deadlocks(full, [Last("wait", 1), Last("wait", 0)]) == ([0, 1], {(0, 1): False})
        empty = [Resource(FEED, (0,)), Resource(FEED, (1,))]
        assert self.deadlocks(empty, [Last("wait", 1), Last("wait", 0)]) == ([0, 1], {})
        mixed = [Resource(QUEUE, (0,)), Resource(FEED, (1,))]
        assert self.deadlocks(mixed, [Last("wait", 1), Last("wait", 0)]) == ([0, 1], {(0, 1): False})

    def test_signals(self):
        gates = [Resource(GATE, (0,)), Resource(GATE, (1,))]
        assert self.deadlocks(gates, [Last("wait", 1), Last("wait", 0)]) == ([], {})

    def test_waits_for_itself(self):
        assert self.deadlocks([Resource(LOCK, (0,))], [Last("wait", 0), Last("run")]) == ([0], {})

    def test_generator_makes_all_sorts(self):
        """Deadlocks and safe programs, proven and likely, of two to five threads, with and without victims."""
        seen = set()
        for number in range(2000):
            program = make(random.Random(f"sorts:{number}"))
            found = truth(program)
            seen.add("safe" if not found.stuck else "stuck" if not found.deadlocks else "deadlock")
            for group, proven in found.deadlocks.items():
                seen |= {len(group), "proven" if proven else "likely"}
                seen |= {"victims"} if len(found.stuck) > len(group) else set()
            seen |= {"two"} if len(found.deadlocks) > 1 else set()
            seen |= {resource.kind for resource in program.resources} | {last.verb for last in program.lasts}
        assert seen >= {"safe", "stuck", "deadlock", "proven", "likely", "victims", "two", 2, 3, 4, 5}
        assert seen >= {RLOCK, CONDITION, LOCK, SEMAPHORE, QUEUE, FEED, GATE, "run", "wait", "timed", "join"}
