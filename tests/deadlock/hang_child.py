"""Imported by the programs that hang, in a child process of a test.

A program's parties take what they hold, call `ready()`, and go into their last waits one after the other, in the order
that `close()` says: the last one closes the cycle and prints when. Whatever keeps the order is the standard library's
own, so that raddle sees nothing but the waits under test. The first argument of the program is what `enable()` gets.
"""

import json
import os
import sys
import threading as std
import time

from raddle import deadlock, queue, threading

from tools import wait_until

__all__ = [
    "ask",
    "close",
    "closing",
    "cross",
    "deadlock",
    "enable",
    "errors",
    "hold_on",
    "is_blocked",
    "os",
    "party",
    "queue",
    "ready",
    "say",
    "std",
    "sys",
    "tell",
    "threading",
    "time",
    "wait_until",
]

#: What DeadlockErrors have been raised, as (thread, names of the parties).
errors = []
_threads = {}
_ready = set()
_turns = {}
_last = [None]


def enable(**more):
    """`deadlock.enable()` with the options of the test."""
    deadlock.enable(**json.loads(sys.argv[1]), **more)


def say(*words):
    """Prints one line, whole, whatever the other threads print."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def closing():
    """Says that the next wait of this thread closes the cycle."""
    say("closing", repr(time.monotonic()))


def party(function, *args, name=None, thread=threading.Thread):
    """Starts a daemon thread named after its function; remembers the DeadlockError that ends it."""
    name = name or function.__name__

    def run():
        std.current_thread().name = name
        try:
            function(*args)
        except deadlock.DeadlockError as error:
            errors.append((name, sorted(party.thread_name for party in error.report.parties)))

    _turns[name] = std.Event()
    if thread is None:  # by other means
        import _thread

        _thread.start_new_thread(run, ())
        return None
    _threads[name] = thread(target=run, name=name, daemon=True)
    _threads[name].start()
    return _threads[name]


def ready():
    """The calling party holds what it has to; comes back when it may go into its last wait."""
    name = std.current_thread().name
    _ready.add(name)
    assert _turns[name].wait(20), f"{name} never had its turn"
    if _last[0] == name:
        closing()


def cross(one="one", two="two", locks=None):
    """Starts two parties, each of which takes one lock and then waits for the other's. Gives the locks."""

    def run(first, second):
        with first:
            ready()
            with second:
                pass

    a, b = locks or (threading.RLock(), threading.RLock())
    party(run, a, b, name=one)
    party(run, b, a, name=two)
    return a, b


def is_blocked(name, kind=None):
    """Whether the thread waits through raddle now."""
    return any(
        shot.name == name and shot.state == "blocked" and kind in (None, shot.state.kind)
        for shot in threading.snapshot()
    )


def close(*names, then_main=False):
    """Lets the parties go in this order, each when the one before it is blocked. The last one closes the cycle,
    unless it is the main thread that will."""
    wait_until(lambda: _ready >= set(names), f"{names} are ready, not only {_ready}")
    for name in names:
        if name == names[-1] and not then_main:
            _last[0] = name
            _turns[name].set()
        else:
            _turns[name].set()
            wait_until(lambda name=name: is_blocked(name), f"{name} is blocked")
    if then_main:
        closing()


def hold_on(seconds):
    """Gives a report that must not come the time to come."""
    time.sleep(seconds)


def _object(item):
    return None if item is None else [type(item).__name__, getattr(item, "name", None)]


def _report(report):
    return {
        "kind": report.kind,
        "proven": report.proven,
        "advice": report.advice,
        "text": str(report),
        "parties": {
            party.thread_name: {
                "ident": party.ident,
                "kind": party.kind,
                "waits_for": _object(party.waits_for),
                "site": party.site,
                "since": party.since,
                "holds": [[*_object(hold.object), hold.site] for hold in party.holds],
            }
            for party in report.parties
        },
    }


def ask():
    """What `deadlock.find()` says, as the parent gets it."""
    return [_report(report) for report in deadlock.find()]


def tell(count=1, stays=0.0, ended=(), **more):
    """Waits for this many reports and the end of these threads, then for reports too many, and tells the parent.

    `more` is told as well; what can be called is called at the end."""
    wait_until(lambda: len(deadlock.reports()) >= count, f"{count} reports")
    for name in ended:
        wait_until(lambda name=name: not _threads[name].is_alive(), f"{name} has ended")
    hold_on(stays)
    told = {
        "reports": [_report(report) for report in deadlock.reports()],
        "errors": errors,
        "ended": sorted(name for name, thread in _threads.items() if not thread.is_alive()),
        **{name: value() if callable(value) else value for name, value in more.items()},
    }
    say("told", json.dumps(told))
