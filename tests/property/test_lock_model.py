"""Semaphores, locks and events against sequential models; the locks with three threads under command."""

import queue
import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tools import DEADLINE


def attempt(call):
    try:
        return call()
    except Exception as error:
        return type(error).__name__


class Actor:
    """A thread that runs one call after the other and hands back what came of it."""

    def __init__(self):
        self.calls, self.results = queue.SimpleQueue(), queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while (call := self.calls.get()) is not None:
            self.results.put(attempt(call))

    def do(self, call):
        self.calls.put(call)
        return self.results.get(timeout=DEADLINE)

    def stop(self):
        self.calls.put(None)
        self.thread.join(DEADLINE)


class SemaphoreMachine(RuleBasedStateMachine):
    impl = None
    kind = None

    @initialize(value=st.integers(0, 4))
    def make(self, value):
        self.semaphore = getattr(self.impl.threading, self.kind)(value)
        self.value = value
        self.limit = value if self.kind == "BoundedSemaphore" else 10**9

    @rule(how=st.sampled_from(["block", "timeout", "negative"]))
    def acquire(self, how):
        call = {
            "block": lambda: self.semaphore.acquire(False),
            "timeout": lambda: self.semaphore.acquire(timeout=0),
            "negative": lambda: self.semaphore.acquire(timeout=-1),
        }[how]
        assert attempt(call) is (self.value > 0)
        self.value = max(0, self.value - 1)

    @rule(count=st.integers(-1, 4))
    def release(self, count):
        result = attempt(lambda: self.semaphore.release(count))
        if count < 1 or self.value + count > self.limit:
            assert result == "ValueError"
        else:
            assert result is None
            self.value += count

    @invariant()
    def same(self):
        if hasattr(self, "semaphore"):
            assert self.semaphore._value == self.value


class EventMachine(RuleBasedStateMachine):
    impl = None

    @initialize()
    def make(self):
        self.event = self.impl.threading.Event()
        self.flag = False

    @rule(change=st.sampled_from(["set", "clear"]))
    def change(self, change):
        assert getattr(self.event, change)() is None
        self.flag = change == "set"

    @rule(timeout=st.sampled_from([0, -1, 0.0005]))
    def wait(self, timeout):
        assert self.event.wait(timeout) is self.flag

    @invariant()
    def same(self):
        if hasattr(self, "event"):
            assert self.event.is_set() is self.flag


class LockMachine(RuleBasedStateMachine):
    """Owner and count of a lock; the actors live for the whole test."""

    impl = None
    kind = None
    actors = ()

    @initialize(through_condition=st.booleans())
    def make(self, through_condition):
        self.lock = getattr(self.impl.threading, self.kind)()
        self.door = self.impl.threading.Condition(self.lock) if through_condition else self.lock
        self.owner, self.count = None, 0

    @rule(who=st.integers(0, 2), how=st.sampled_from(["block", "timeout", "short"]))
    def acquire(self, who, how):
        call = {
            "block": lambda: self.door.acquire(False),
            "timeout": lambda: self.door.acquire(timeout=0),
            "short": lambda: self.door.acquire(True, 0.0005),
        }[how]
        free = self.owner is None or (self.kind == "RLock" and self.owner == who)
        assert self.actors[who].do(call) is free
        if free:
            self.owner = who
            self.count += 1

    @rule(who=st.integers(0, 2))
    def release(self, who):
        allowed = self.owner == who if self.kind == "RLock" else self.owner is not None
        assert self.actors[who].do(self.door.release) == (None if allowed else "RuntimeError")
        if allowed:
            self.count -= 1
            if not self.count:
                self.owner = None

    @rule(who=st.integers(0, 2))
    def with_block(self, who):
        if self.owner is not None and not (self.kind == "RLock" and self.owner == who):
            return  # It would wait.

        def enter():
            with self.door as got:
                return got

        assert self.actors[who].do(enter) is True

    @rule(who=st.integers(0, 2))
    def reset(self, who):
        self.actors[who].do(self.lock._at_fork_reinit)
        self.owner, self.count = None, 0

    @rule(who=st.integers(0, 2))
    def save_and_restore(self, who):
        if self.kind != "RLock" or self.owner != who:
            return
        actor = self.actors[who]
        state = actor.do(self.lock._release_save)
        assert actor.do(self.lock._is_owned) is False
        assert actor.do(lambda: self.lock._acquire_restore(state)) is None

    @rule(who=st.integers(0, 2))
    def wait_a_moment(self, who):
        """A timed wait gives all levels away and takes them back."""
        if self.door is self.lock:
            return
        held = self.owner == who if self.kind == "RLock" else self.owner is not None
        if self.kind == "Lock" and held and self.owner != who:
            return  # A plain lock cannot tell that another thread holds it.
        result = self.actors[who].do(lambda: self.door.wait(0.0005))
        assert result == (False if held else "RuntimeError")

    @invariant()
    def same(self):
        if not hasattr(self, "lock"):
            return
        if self.kind == "Lock":
            assert self.lock.locked() is (self.owner is not None)
        else:
            for who, actor in enumerate(self.actors):
                assert actor.do(self.lock._is_owned) is (self.owner == who)
                assert actor.do(self.lock._recursion_count) == (self.count if self.owner == who else 0)


@pytest.fixture
def actors():
    actors = [Actor() for _ in range(3)]
    yield actors
    for actor in actors:
        actor.stop()


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_semaphore(impl, kind):
    run_state_machine_as_test(type("Machine", (SemaphoreMachine,), {"impl": impl, "kind": kind}))


def test_event(impl):
    run_state_machine_as_test(type("Machine", (EventMachine,), {"impl": impl}))


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_lock(impl, kind, actors):
    run_state_machine_as_test(type("Machine", (LockMachine,), {"impl": impl, "kind": kind, "actors": actors}))
