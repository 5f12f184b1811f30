"""Random programs of several processes, whose end is known: `random_processes.py SEED:NUMBER METHOD REPORT` runs one.

A program is a tree of threads with a script each: the first thread of the parent starts all processes and joins them at
the end, the first thread of each process starts its other threads and joins them. Each queue has one thread that puts
and one that gets, so that what becomes of a program does not depend on who is when: a play of the scripts tells which
threads end, and whether what is left is blocked for ever.

| step | |
|---|---|
| `("put", queue)`, `("get", queue)` | of a process queue, bounded or not, or over a pipe |
| `("done", queue)`, `("tasks", queue)` | `task_done()`, and `join()` of the queue by who puts |
| `("pause", seconds)` | sleeps: nothing may be told meanwhile |
| `("late", seconds)` | waits for an item of a queue that nobody puts into, with a deadline |
| `("die",)` | the process is killed |
"""

import json
import os
import random
import signal
import sys
import time
from queue import Empty
from typing import NamedTuple


class Channel(NamedTuple):
    kind: str
    """"queue", "joinable", "simple" or "pipe"."""
    size: int
    """The most items; 0: any number."""


class Plan(NamedTuple):
    channels: list
    scripts: dict
    """Of each thread (process, number): its steps. Process 0 is the parent."""


def make(rng):
    """A random program."""
    threads = [(0, 0)]
    for process in range(rng.randint(0, 1), rng.randint(2, 4)):
        threads += [(process, number) for number in range(0 if process else 1, rng.choice((1, 1, 2, 3)))]
    channels, scripts = [], {thread: [] for thread in threads}
    flows = []
    for _ in range(rng.randint(1, 5)):
        kind = rng.choice(("queue", "queue", "joinable", "simple", "pipe"))
        size = rng.choice((0, 1, 1, 2)) if kind in ("queue", "joinable") else 0
        flows.append((len(channels), rng.choice(threads), rng.choice(threads)))
        channels.append(Channel(kind, size))
    # Every message that is put is got, in an order in which that can be: then some steps are lost or change places.
    for _ in range(rng.randint(2, 10)):
        at, giver, taker = rng.choice(flows)
        scripts[giver].append(("put", at))
        scripts[taker].append(("get", at))
        if channels[at].kind == "joinable":
            scripts[taker].append(("done", at))
            if rng.random() < 0.3:
                scripts[giver].append(("tasks", at))
    for steps in scripts.values():
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
            if len(steps) > 1 and rng.random() < 0.5:
                at = rng.randrange(len(steps) - 1)
                steps[at], steps[at + 1] = steps[at + 1], steps[at]
            elif steps:
                del steps[rng.randrange(len(steps))]
    for thread, steps in scripts.items():
        if rng.random() < 0.25:
            step = rng.choice((("pause", rng.choice((0.2, 1.5))), ("late", rng.choice((0.3, 1.7)))))
            steps.insert(rng.randint(0, len(steps)), step)
        if thread[0] and sum(process == thread[0] for process, _ in threads) == 1 and rng.random() < 0.15:
            steps.insert(rng.randint(0, len(steps)), ("die",))
    return Plan(channels, scripts)


def truth(plan):
    """The threads that are blocked for ever, with what each waits for; threads of processes that have ended are not."""
    steps = {thread: iter(steps) for thread, steps in plan.scripts.items()}
    now = {thread: next(script, ("end",)) for thread, script in steps.items()}
    items, open_tasks = [0] * len(plan.channels), [0] * len(plan.channels)
    taken = dict.fromkeys(((thread, at) for thread in now for at in range(len(plan.channels))), 0)
    ended, dead = set(), set()

    def can(thread, step):
        process, number = thread
        if step[0] == "get":
            return items[step[1]] > 0
        if step[0] == "put":
            return not plan.channels[step[1]].size or items[step[1]] < plan.channels[step[1]].size
        if step[0] == "tasks":
            return open_tasks[step[1]] == 0
        if step == ("end",) and number == 0:
            others = {other for other in now if other[0] == process and other[1]}
            if process == 0:
                others |= {other for other in now if other[1] == 0 and other[0]}
            return others <= ended | {other for other in now if other[0] in dead}
        return True

    moved = True
    while moved:
        moved = False
        for thread, step in list(now.items()):
            if thread in ended or thread[0] in dead or not can(thread, step):
                continue
            moved = True
            if step[0] == "put":
                items[step[1]] += 1
                open_tasks[step[1]] += 1
            elif step[0] == "get":
                items[step[1]] -= 1
                taken[thread, step[1]] += 1
            elif step[0] == "done":
                if taken[thread, step[1]] == 0:
                    # task_done() may have been called too many times: the thread would end there, with an error.
                    raise Unsuitable
                taken[thread, step[1]] -= 1
                open_tasks[step[1]] -= 1
            elif step == ("die",):
                dead.add(thread[0])
                continue
            elif step == ("end",):
                ended.add(thread)
                continue
            now[thread] = next(steps[thread], ("end",))
    return {thread: step for thread, step in now.items() if thread not in ended and thread[0] not in dead}


class Unsuitable(Exception):
    """What becomes of this program depends on who is when, or it fails."""


def plan_of(name):
    """The first suitable program of this name, and its truth."""
    rng = random.Random(name)
    while True:
        plan = make(rng)
        try:
            return plan, truth(plan)
        except Unsuitable:
            continue


# The program


def use(channel, what):
    """One step with a queue, or a pipe: its two ends."""
    if isinstance(channel, tuple):
        reader, writer = channel
        return writer.send(None) if what == "put" else reader.recv()
    if what == "put":
        return channel.put(None)
    return getattr(channel, {"get": "get", "done": "task_done", "tasks": "join"}[what])()


def play(plan, process, objects, never):
    """One process's part."""
    import raddle.threading as threading

    def run(number):
        for step in plan.scripts[process, number]:
            what = step[0]
            if what == "pause":
                time.sleep(step[1])
            elif what == "late":
                try:
                    never.get(timeout=step[1])
                except Empty:
                    pass
            elif what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                use(objects[step[1]], what)

    others = [
        threading.Thread(target=run, args=(number,), name=f"t{number}")
        for at, number in plan.scripts
        if at == process and number
    ]
    for other in others:
        other.start()
    run(0)
    for other in others:
        other.join()


def child(name, process, objects, never, report):
    import raddle.deadlock

    raddle.deadlock.enable(report=report)
    play(plan_of(name)[0], process, objects, never)


def main(name, method, report):
    import raddle.deadlock
    import raddle.multiprocessing as mp

    raddle.deadlock.enable(report=report)
    plan, _ = plan_of(name)
    ctx = mp.get_context(method)
    made = {
        "queue": ctx.Queue,
        "joinable": ctx.JoinableQueue,
        "simple": lambda size: ctx.SimpleQueue(),
        "pipe": lambda size: ctx.Pipe(False),
    }
    objects = [made[channel.kind](channel.size) for channel in plan.channels]
    never = ctx.Queue()
    processes = sorted({process for process, _ in plan.scripts} - {0})
    children = [
        ctx.Process(target=child, args=(name, process, objects, never, report), name=f"p{process}")
        for process in processes
    ]
    for one in children:
        one.start()
    print(
        json.dumps({process: one.pid for process, one in zip(processes, children, strict=True)}), flush=True
    )
    play(plan, 0, objects, never)
    for one in children:
        one.join()
    print("ended", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
