"""Queues between processes against a deque: random calls that never block."""

import multiprocessing.context
from collections import deque
from queue import Empty, Full

import pytest
import raddle.multiprocessing as mp
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from raddle.multiprocessing.connection import wait
from raddle.queue import ShutDown

ITEMS = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=50),
    st.binary(max_size=300),
    st.lists(st.floats(allow_nan=False), max_size=5),
    st.integers(0, 300_000).map(bytes),
    st.integers(0, 200_000).map(lambda size: ["x" * size, bytearray(size)]),
)


class Against(RuleBasedStateMachine):
    @initialize(maxsize=st.integers(0, 4), selected=st.booleans())
    def start(self, maxsize, selected):
        self.queue = mp.JoinableQueue(maxsize)
        self.maxsize = maxsize
        self.items = deque()
        self.unfinished = 0
        self.shut = None
        self.selected = selected
        if selected:
            self.queue.fileno()

    def call(self, call):
        try:
            return "returned", call()
        except (Empty, Full, ShutDown, ValueError) as error:
            return "raised", type(error)

    @rule(item=ITEMS)
    def put(self, item):
        found = self.call(lambda: self.queue.put_nowait(item))
        if self.shut is not None:
            assert found == ("raised", ShutDown)
        elif 0 < self.maxsize <= len(self.items):
            assert found == ("raised", Full)
        else:
            assert found == ("returned", None)
            self.items.append(item)
            self.unfinished += 1

    @rule(timeout=st.sampled_from([None, 0, -1, 0.001]))
    def get(self, timeout):
        found = self.call(lambda: self.queue.get(timeout is not None, timeout))
        if self.items:
            assert found == ("returned", self.items.popleft())
        else:
            assert found == ("raised", Empty if self.shut is None else ShutDown)

    @rule()
    def task_done(self):
        found = self.call(self.queue.task_done)
        if self.unfinished:
            self.unfinished -= 1
            assert found == ("returned", None)
        else:
            assert found == ("raised", ValueError)

    @rule(immediate=st.booleans(), rarely=st.integers(0, 9))
    def shutdown(self, immediate, rarely):
        if rarely:
            return
        self.queue.shutdown(immediate)
        self.shut = immediate or bool(self.shut)
        if self.shut:
            self.unfinished -= len(self.items)
            self.items.clear()

    @invariant()
    def counts(self):
        if not hasattr(self, "queue"):
            return
        assert self.queue.qsize() == len(self.items)
        assert self.queue.empty() == (not self.items)
        assert self.queue.full() == (0 < self.maxsize <= len(self.items))
        readable = bool(self.items) or self.shut is not None
        if self.selected:
            assert wait([self.queue], 0) == ([self.queue] if readable else [])
        if not self.unfinished:
            self.queue.join()

    def teardown(self):
        if hasattr(self, "queue"):
            self.queue.close()


@pytest.mark.timeout(600)
def test_against_a_deque():
    run_state_machine_as_test(Against)


def test_assert_spawning_is_the_standard_library_s():
    assert mp.context.assert_spawning is multiprocessing.context.assert_spawning
