"""Random programs of several threads, whose truth is known before they run; and their execution by raddle.

A program is a plan. Each of its threads takes some resources, waits for all the others to have theirs, and then does
one last thing: it waits for a resource or for another thread, or it runs (until all is over) and ends. Whoever gets
what it waits for gives everything back and ends.

The truth is played, not searched for in a graph: running threads end, those with a deadline give up and end, what they
give back lets others end, and so on until nothing moves. Who is left is stuck for ever. Among these, the deadlocks are
the groups that wait for each other (each reaches each by "waits for something that only these can give").

The execution checks the play as well: whoever is not stuck must end, whoever is stuck must not.
"""

import _thread
import random
import time
from typing import NamedTuple

#: Kinds of resources and how sure a detector may be of them.
RLOCK, CONDITION, LOCK, SEMAPHORE, QUEUE, FEED, GATE, HAND = (
    "RLock",
    "Condition",
    "Lock",
    "Semaphore",
    "Queue",  # full: waits are puts, users are consumers
    "Feed",  # an empty bounded queue: waits are gets, users are producers
    "Gate",  # a lock that another thread releases, and has been seen to
    "Hand",  # a semaphore like that
)
_PROVEN = {RLOCK, CONDITION}


class Resource(NamedTuple):
    """Something to wait for. `users`: who can end a wait for it, by the number of the thread."""

    kind: str
    users: tuple[int, ...]


class Last(NamedTuple):
    """The last thing a thread does."""

    verb: str
    """"run", "wait" for a resource, "timed" (the same with a deadline) or "join"."""
    target: int = -1
    """The number of a resource or a thread."""
    delay: float = 0.0
    """Seconds before it, so that any of the waits may come last."""


class Program(NamedTuple):
    """A plan: the resources, and for each thread its last deed."""

    resources: list[Resource]
    lasts: list[Last]
    raw: frozenset
    """Threads that are not started through `Thread`."""


class Truth(NamedTuple):
    """What must come out."""

    stuck: frozenset
    deadlocks: dict
    """Sets of threads, each with whether it is proven."""


def make(rng: random.Random) -> Program:
    """A program of two to six threads. About half of them deadlock."""
    count = rng.choice((2, 2, 3, 3, 3, 4, 4, 5, 6))
    threads = range(count)
    resources = []
    for number in range(rng.randint(1, count + 2)):
        kind = rng.choice(
            (RLOCK, RLOCK, RLOCK, LOCK, LOCK, CONDITION, SEMAPHORE, SEMAPHORE, QUEUE, QUEUE, FEED, GATE, HAND)
        )
        most = min(3, count) if kind in (SEMAPHORE, QUEUE, FEED) else 1
        # Mostly spread, so that cycles are likely.
        users = {rng.randrange(count) if rng.random() < 0.3 else number % count}
        while len(users) < most and rng.random() < 0.4:
            users.add(rng.randrange(count))
        resources.append(Resource(kind, tuple(sorted(users))))
    raw = frozenset(thread for thread in threads if rng.random() < 0.1)
    lasts, taken = [], set()
    for thread in threads:
        delay = rng.random() * 0.05 if rng.random() < 0.5 else 0.0
        verb = rng.choices(("wait", "join", "timed", "run"), (70, 15, 6, 9))[0]
        target = -1
        if verb == "join":
            others = [other for other in threads if other != thread and other not in raw]
            target = rng.choice(others) if others else -1
        elif verb in ("wait", "timed"):
            able = [
                number
                for number, resource in enumerate(resources)
                if _may_wait(thread, resource, count)
                and not (resource.kind in (QUEUE, FEED) and number in taken)
            ]
            if able:
                target = rng.choice(able)
                taken.add(target)
        lasts.append(Last(verb if target >= 0 else "run", target, delay))
    return Program(resources, lasts, raw)


def _may_wait(thread, resource, count):
    """A re-entrant lock of its own does not block it; a gate needs a thread besides the one that waits."""
    if resource.kind in (RLOCK, CONDITION):
        return thread not in resource.users
    return True


def truth(program: Program) -> Truth:
    """Plays the program to its end."""
    left = set(range(len(program.lasts)))
    moved = True
    while moved:
        gone = {thread for thread in left if _can_end(program, thread, left)}
        moved = bool(gone)
        left -= gone
    stuck = frozenset(left)
    waits = {thread: _wakers(program, thread) for thread in stuck}
    return Truth(stuck, {group: proven for group, proven in _groups(program, waits)})


def _wakers(program, thread):
    """Those who can end its wait."""
    last = program.lasts[thread]
    return (last.target,) if last.verb == "join" else program.resources[last.target].users


def _can_end(program, thread, left):
    last = program.lasts[thread]
    if last.verb in ("run", "timed"):
        return True
    if last.verb == "wait" and program.resources[last.target].kind in (GATE, HAND):
        return True  # the program's own opener, who runs, opens it at the end
    return any(waker not in left for waker in _wakers(program, thread))


def _groups(program, waits):
    """The sets of stuck threads that reach each other, if their rules make a deadlock of them."""
    reach = {}
    for start in waits:
        seen, open_ = set(), [start]
        while open_:
            for waker in waits[open_.pop()]:
                if waker not in seen:
                    seen.add(waker)
                    open_.append(waker)
        reach[start] = seen
    groups = {
        frozenset(other for other in reach[start] if start in reach[other])
        for start in waits
        if start in reach[start]
    }
    for group in groups:
        kinds = {
            "join" if program.lasts[t].verb == "join" else program.resources[program.lasts[t].target].kind
            for t in group
        }
        if len(group) == 1:
            continue  # waits for its own plain lock or permit: handed over, for all that is known
        if FEED in kinds and QUEUE not in kinds:
            continue  # anybody may put something into an empty queue
        yield group, kinds <= _PROVEN | {"join"}


def after(program: Program, raised) -> Truth:
    """The truth once these threads have got an error instead of what they waited for."""
    lasts = [Last("run") if thread in raised else last for thread, last in enumerate(program.lasts)]
    return truth(program._replace(lasts=lasts))


# Execution, in the process of the tests' children.


class Running:
    """A program on raddle's threads. Everything that keeps its phases apart is the standard library's."""

    def __init__(self, number, program, raddle, std, over):
        self.number, self.program, self.over = number, program, over
        self.threading, self.queue, self.std = raddle.threading, raddle.queue, std
        self.objects = [self._make(place, resource) for place, resource in enumerate(program.resources)]
        self.ready = std.Barrier(len(program.lasts) + 1)
        self.go = std.Event()
        self.ended, self.raised, self.failed = set(), {}, []
        self.threads = {}

    def name(self, thread):
        return f"program {self.number} thread {thread}"

    def object_name(self, place):
        return f"program {self.number} {self.program.resources[place].kind} {place}"

    def _make(self, place, resource):
        threading, name = self.threading, self.object_name(place)
        if resource.kind in (QUEUE, FEED):
            return self.queue.Queue(1, name=name)
        if resource.kind == CONDITION:
            return threading.Condition(threading.RLock(name=name))
        if resource.kind in (SEMAPHORE, HAND):
            made = threading.Semaphore(len(resource.users), name=name)
        else:
            made = getattr(threading, "RLock" if resource.kind == RLOCK else "Lock")(name=name)
        if resource.kind in (GATE, HAND):
            # Seen once to be released by another thread.
            made.acquire()
            other = self.std.Thread(target=made.release)
            other.start()
            other.join()
        else:
            # Seen once to be released by its taker: until then it might be a gate, which is not accused.
            made.acquire()
            made.release()
        return made

    def start(self):
        """Starts the threads and returns when each has what it is to have."""
        for thread in range(len(self.program.lasts)):
            if thread in self.program.raw:
                _thread.start_new_thread(self._work, (thread,))
            else:
                self.threads[thread] = self.threading.Thread(
                    target=self._work, args=(thread,), name=self.name(thread), daemon=True
                )
        for thread in self.threads.values():
            thread.start()
        self.ready.wait(60)

    def _work(self, thread):
        self.std.current_thread().name = self.name(thread)
        try:
            self._take(thread)
            self.ready.wait(60)
            self.go.wait(60)
            self._last(thread)
        except BaseException as error:
            if type(error).__name__ == "DeadlockError":
                self.raised[thread] = frozenset(party.thread_name for party in error.report.parties)
            else:
                self.failed.append(repr(error))
        try:
            self._give_back(thread)
        except BaseException as error:
            self.failed.append(repr(error))
        self.ended.add(thread)

    def _take(self, thread):
        for item, resource in zip(self.objects, self.program.resources, strict=True):
            if thread not in resource.users:
                continue
            if resource.kind in (QUEUE, FEED):
                # Seen to use it, on both sides.
                item.put(0, timeout=60)
                item.get(timeout=60)
            else:
                assert item.acquire(timeout=60)

    def fill(self):
        """Main, before the last deeds: it has used the queue as well, and is no consumer."""
        for item, resource in zip(self.objects, self.program.resources, strict=True):
            if resource.kind == QUEUE:
                item.put(0, timeout=60)

    def _last(self, thread):
        last = self.program.lasts[thread]
        if last.delay:
            time.sleep(last.delay)
        if last.verb == "run":
            self.over.wait(120)
        elif last.verb == "join":
            self.threads[last.target].join()
        else:
            resource, item = self.program.resources[last.target], self.objects[last.target]
            timeout = {"timeout": 1.5} if last.verb == "timed" else {}
            try:
                if resource.kind == QUEUE:
                    item.put(1, **timeout)
                elif resource.kind == FEED:
                    item.get(**timeout)
                elif item.acquire(**timeout):
                    item.release()
            except (self.queue.Full, self.queue.Empty):
                pass

    def _give_back(self, thread):
        for item, resource in zip(self.objects, self.program.resources, strict=True):
            if thread not in resource.users:
                continue
            if resource.kind == QUEUE:
                try:
                    item.get_nowait()
                except self.queue.Empty:
                    pass
            elif resource.kind == FEED:
                try:
                    item.put_nowait(1)
                except self.queue.Full:
                    pass
            elif resource.kind not in (GATE, HAND):
                item.release()

    def open(self):
        """The opener, at the end: releases what others than their takers release."""
        for item, resource in zip(self.objects, self.program.resources, strict=True):
            if resource.kind in (GATE, HAND):
                item.release()

    def holds(self, thread):
        """The names of what it holds while it waits, as far as holds are kept."""
        return sorted(
            self.object_name(place)
            for place, resource in enumerate(self.program.resources)
            if thread in resource.users and resource.kind not in (QUEUE, FEED, HAND)
        )

    def wanted(self, thread):
        """The name of what it waits for."""
        last = self.program.lasts[thread]
        return self.name(last.target) if last.verb == "join" else self.object_name(last.target)
