"""Chapter 3: the life of a thread: new, ready, running, blocked, dead.

Shows `Thread.state`, which raddle adds: the state by name and, while a thread is blocked, what it waits for
and how. The state "ready" lies between start() and the first instruction; it is too short to be caught for
certain, so it is only named here.

Run it with:  python examples/ch03_life_cycle.py
"""

import time

from raddle.threading import Event, Lock, Thread, current_thread


def wait_for_state(thread, state):
    """A thread changes its state when it gets to it; look until it has."""
    deadline = time.monotonic() + 10
    while thread.state != state:
        assert time.monotonic() < deadline, f"{thread.name} is {thread.state}"
        time.sleep(0.001)


door = Lock(name="the door")
bell = Event(name="the bell")
seen_inside = []


def visit():
    seen_inside.append(str(current_thread().state))
    bell.wait()
    with door:
        pass


visitor = Thread(target=visit, name="visitor")
print("before start():", visitor.state)

with door:
    visitor.start()
    wait_for_state(visitor, "blocked")
    state = visitor.state
    print("waiting:", state, "in", state.kind, "on", state.on.name)

    bell.set()
    while visitor.state.on is not door:
        time.sleep(0.001)
    print("waiting:", visitor.state, "in", visitor.state.kind, "on", visitor.state.on.name)

visitor.join()
print("seen from inside:", *seen_inside)
print("after its end:", visitor.state)

try:
    visitor.start()
except RuntimeError as error:
    print("start() again:", error)
