"""Child process of test_random_programs.py: runs programs SEED:FROM to SEED:TO-1 at once, and tells what was wrong.

usage: random_batch.py SEED FROM TO report|raise
"""

import json
import os
import random
import sys
import threading as std
import time

import raddle
import raddle.deadlock
import raddle.queue
import raddle.threading
from random_programs import Running, after, make, truth

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tools import wait_until

#: Seconds after which nothing new may come: the timed waits are over, and the last looks taken.
SETTLED = 2.0


class Arrivals:
    """Where reports go: notes when."""

    def __init__(self):
        self.times = {}

    def write(self, text):
        self.times.setdefault(text[:-1], time.monotonic())

    def flush(self):
        pass


def names_of(run, groups):
    return {frozenset(map(run.name, group)): proven for group, proven in groups.items()}


def main(seed, first, beyond, on_deadlock):
    arrivals = Arrivals()
    raddle.deadlock.enable(on_deadlock=on_deadlock, on_stall="ignore", report=arrivals)
    over = std.Event()
    wrong = []
    runs = [
        Running(number, make(random.Random(f"{seed}:{number}")), raddle, std, over)
        for number in range(first, beyond)
    ]
    truths = {run.number: truth(run.program) for run in runs}
    for run in runs:
        run.start()
        run.fill()
    began = time.monotonic()
    for run in runs:
        run.go.set()

    expected = {
        group: proven for run in runs for group, proven in names_of(run, truths[run.number].deadlocks).items()
    }
    while len(raddle.deadlock.reports()) < len(expected) and time.monotonic() < began + 20:
        time.sleep(0.02)
    time.sleep(max(0.0, began + SETTLED - time.monotonic()))
    over.set()
    for run in runs:
        run.open()

    # Who is not stuck ends; who is stuck does not.
    for run in runs:
        final = after(run.program, run.raised)
        able = set(range(len(run.program.lasts))) - final.stuck
        try:
            wait_until(lambda able=able, run=run: able <= run.ended, "all who can end have", 20)
        except AssertionError:
            wrong.append([run.number, f"the play says that {sorted(able - run.ended)} end, and they do not"])
    time.sleep(0.1)
    found = {group(report): report.proven for report in raddle.deadlock.find()}
    reported, late = {}, []
    for report in raddle.deadlock.reports():
        parties = group(report)
        number = int(report.parties[0].thread_name.split()[1])
        if parties in reported:
            wrong.append([number, f"reported twice: {sorted(parties)}"])
        reported[parties] = report.proven
        late.append(arrivals.times[str(report)] - max(party.since for party in report.parties))
        run = runs[number - first]
        for party in report.parties:
            thread = int(party.thread_name.split()[-1])
            if sorted(hold.object.name for hold in party.holds) != run.holds(thread):
                wrong.append([number, f"{party.thread_name} holds {party.holds}, not {run.holds(thread)}"])
            if party.waits_for is None or party.waits_for.name != run.wanted(thread):
                wrong.append(
                    [number, f"{party.thread_name} waits for {party.waits_for}, not {run.wanted(thread)}"]
                )

    for run in runs:
        number = run.number
        plan, final = (
            names_of(run, truths[number].deadlocks),
            names_of(run, after(run.program, run.raised).deadlocks),
        )
        told = {parties: proven for parties, proven in reported.items() if number_of(parties) == number}
        seen = {parties: proven for parties, proven in found.items() if number_of(parties) == number}
        if on_deadlock == "report" and told != plan:
            wrong.append([number, f"reported {shown(told)}, true is {shown(plan)}"])
        if on_deadlock == "raise":
            proven = {parties: True for parties, sure in plan.items() if sure}
            if not {**proven, **final}.items() <= told.items() <= plan.items():
                wrong.append([number, f"reported {shown(told)}, true is {shown(plan)}"])
            if sorted(map(sorted, run.raised.values())) != sorted(map(sorted, proven)):
                wrong.append([number, f"raised {run.raised}, proven is {shown(proven)}"])
            if any(run.name(thread) not in parties for thread, parties in run.raised.items()):
                wrong.append([number, f"raised in others than parties: {run.raised}"])
        if on_deadlock == "report" and run.raised:
            wrong.append([number, f"raised unasked: {run.raised}"])
        if seen != final:
            wrong.append([number, f"find() says {shown(seen)}, true is {shown(final)}"])
        if stuck := run.ended & after(run.program, run.raised).stuck:
            wrong.append([number, f"the play says that {sorted(stuck)} are stuck, and they have ended"])
        wrong += [[number, error] for error in run.failed]
    sizes = [len(parties) for parties in expected]
    print(json.dumps({"wrong": wrong, "late": late, "deadlocks": len(expected), "sizes": sizes}))


def group(report):
    return frozenset(party.thread_name for party in report.parties)


def number_of(parties):
    return int(min(parties).split()[1])


def shown(groups):
    return {
        ", ".join(sorted(name.split()[-1] for name in parties)): proven for parties, proven in groups.items()
    }


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
