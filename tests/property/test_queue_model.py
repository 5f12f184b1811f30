"""Queues against a sequential model: random calls that never block, the result of each compared."""

import heapq

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

ITEMS = st.integers(-5, 5)


class Model:
    """What a queue of a kind does, in the simplest words."""

    def __init__(self, kind, maxsize):
        self.kind = kind
        self.maxsize = maxsize
        self.items = []
        self.unfinished = 0
        self.closed = False

    def full(self):
        return 0 < self.maxsize <= len(self.items)

    def put(self, item):
        if self.closed:
            return "ShutDown"
        if self.full():
            return "Full"
        if self.kind == "PriorityQueue":
            heapq.heappush(self.items, item)
        else:
            self.items.append(item)
        self.unfinished += 1
        return None

    def get(self):
        if not self.items:
            return "ShutDown" if self.closed else "Empty"
        if self.kind == "PriorityQueue":
            return heapq.heappop(self.items)
        return self.items.pop(-1 if self.kind == "LifoQueue" else 0)

    def put_many(self, items):
        count = 0
        for item in items:
            refusal = self.put(item)
            if refusal:
                return refusal, count
            count += 1
        # An empty batch asks nothing of an open queue; of a closed one it may.
        return count

    def get_many(self, most):
        first = self.get()
        if isinstance(first, str):
            return first
        taken = [first]
        while self.items and (most is None or len(taken) < most):
            taken.append(self.get())
        return taken

    def shutdown(self, immediate):
        self.closed = True
        if immediate:
            self.unfinished = max(0, self.unfinished - len(self.items))
            self.items.clear()


def attempt(call):
    try:
        return call()
    except Exception as error:
        count = getattr(error, "count", None)
        name = type(error).__name__
        return name if count is None else (name, count)


class QueueMachine(RuleBasedStateMachine):
    impl = None
    kind = None
    derived = False

    @initialize(maxsize=st.integers(-1, 6))
    def make(self, maxsize):
        cls = getattr(self.impl.queue, self.kind)
        if self.derived:
            cls = type("Derived", (cls,), {"_put": lambda self, item: super(type(self), self)._put(item)})
        self.queue = cls(maxsize)
        self.model = Model(self.kind, maxsize)
        self.can_close = hasattr(self.queue, "shutdown")
        self.can_batch = hasattr(self.queue, "put_many")

    @rule(item=ITEMS, how=st.sampled_from(["nowait", "block", "timeout"]))
    def put(self, item, how):
        call = {
            "nowait": lambda: self.queue.put_nowait(item),
            "block": lambda: self.queue.put(item, False),
            "timeout": lambda: self.queue.put(item, timeout=0),
        }[how]
        assert attempt(call) == self.model.put(item)

    @rule(how=st.sampled_from(["nowait", "block", "timeout"]))
    def get(self, how):
        call = {
            "nowait": lambda: self.queue.get_nowait(),
            "block": lambda: self.queue.get(False),
            "timeout": lambda: self.queue.get(timeout=0),
        }[how]
        assert attempt(call) == self.model.get()

    @precondition(lambda self: self.can_batch)
    @rule(items=st.lists(ITEMS, min_size=1, max_size=8), lazy=st.booleans())
    def put_many(self, items, lazy):
        source = iter(items) if lazy else items
        assert attempt(lambda: self.queue.put_many(source, block=False)) == self.model.put_many(items)

    @precondition(lambda self: self.can_batch)
    @rule(most=st.none() | st.integers(1, 8))
    def get_many(self, most):
        assert attempt(lambda: self.queue.get_many(most, block=False)) == self.model.get_many(most)

    @rule()
    def task_done(self):
        result = attempt(self.queue.task_done)
        if self.model.unfinished:
            self.model.unfinished -= 1
            assert result is None
        else:
            assert result == "ValueError"

    @rule(maxsize=st.integers(-1, 6))
    def change_maxsize(self, maxsize):
        self.queue.maxsize = self.model.maxsize = maxsize

    @precondition(lambda self: self.can_close and len(self.model.items) > 1)
    @rule(immediate=st.booleans())
    def shutdown(self, immediate):
        self.queue.shutdown(immediate)
        self.model.shutdown(immediate)

    @precondition(lambda self: not self.model.unfinished)
    @rule()
    def join(self):
        self.queue.join()

    @rule()
    def clear_by_hand(self):
        with self.queue.mutex:
            self.queue.queue.clear()
        self.model.items.clear()

    @invariant()
    def same(self):
        if not hasattr(self, "queue"):
            return
        model = self.model
        assert self.queue.qsize() == len(model.items)
        assert self.queue.empty() is (not model.items)
        assert self.queue.full() is model.full()
        assert self.queue.unfinished_tasks == model.unfinished
        assert list(self.queue.queue) == model.items
        if self.can_close:
            assert self.queue.is_shutdown is model.closed


class SimpleQueueMachine(RuleBasedStateMachine):
    impl = None

    @initialize()
    def make(self):
        self.queue = self.impl.queue.SimpleQueue()
        self.items = []

    @rule(item=ITEMS, nowait=st.booleans())
    def put(self, item, nowait):
        self.queue.put_nowait(item) if nowait else self.queue.put(item)
        self.items.append(item)

    @rule(how=st.sampled_from(["nowait", "block", "timeout"]))
    def get(self, how):
        call = {
            "nowait": lambda: self.queue.get_nowait(),
            "block": lambda: self.queue.get(False),
            "timeout": lambda: self.queue.get(timeout=0),
        }[how]
        assert attempt(call) == (self.items.pop(0) if self.items else "Empty")

    @invariant()
    def same(self):
        if hasattr(self, "queue"):
            assert self.queue.qsize() == len(self.items)
            assert self.queue.empty() is (not self.items)


@pytest.mark.parametrize("derived", [False, True], ids=["plain", "derived"])
@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue"])
def test_queue(impl, kind, derived):
    run_state_machine_as_test(
        type("Machine", (QueueMachine,), {"impl": impl, "kind": kind, "derived": derived})
    )


def test_simple_queue(impl):
    run_state_machine_as_test(type("Machine", (SimpleQueueMachine,), {"impl": impl}))
