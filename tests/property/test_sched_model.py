"""The scheduler against a sorted list, and real timers against their deadlines."""

import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tools import DEADLINE


class SchedulerMachine(RuleBasedStateMachine):
    impl = None

    @initialize()
    def make(self):
        self.now = 0
        self.log = []
        self.scheduler = self.impl.sched.scheduler(lambda: self.now, self.sleep)
        self.pending = []  # (time, priority, number, event), kept sorted.
        self.gone = []
        self.number = 0

    def sleep(self, seconds):
        self.now += seconds

    def note(self, number):
        self.log.append(number)

    def add(self, event, when, priority):
        self.pending.append((when, priority, self.number, event))
        self.pending.sort(key=lambda entry: entry[:3])
        self.number += 1

    @rule(delay=st.integers(-2, 12), priority=st.integers(-1, 2))
    def enter(self, delay, priority):
        self.add(self.scheduler.enter(delay, priority, self.note, (self.number,)), self.now + delay, priority)

    @rule(when=st.integers(0, 60), priority=st.integers(-1, 2))
    def enterabs(self, when, priority):
        event = self.scheduler.enterabs(when, priority, action=self.note, kwargs={"number": self.number})
        self.add(event, when, priority)

    @rule(which=st.integers(0, 1000), copy=st.booleans())
    def cancel(self, which, copy):
        if not self.pending:
            return
        entry = self.pending.pop(which % len(self.pending))
        self.scheduler.cancel(entry[3]._replace() if copy else entry[3])
        self.gone.append(entry[3])

    @rule(which=st.integers(0, 1000))
    def cancel_again(self, which):
        if not self.gone:
            return
        try:
            self.scheduler.cancel(self.gone[which % len(self.gone)])
        except ValueError:
            return
        raise AssertionError("an event that is not there was cancelled")

    @rule(step=st.integers(0, 8))
    def run_what_is_due(self, step):
        self.now += step
        before = len(self.log)
        due = [entry for entry in self.pending if entry[0] <= self.now]
        self.pending = self.pending[len(due) :]
        self.gone += [entry[3] for entry in due]
        result = self.scheduler.run(blocking=False)
        assert self.log[before:] == [entry[2] for entry in due]
        assert result == (self.pending[0][0] - self.now if self.pending else None)

    @rule()
    def run_all(self):
        before = len(self.log)
        expected = [entry[2] for entry in self.pending]
        last = max([self.now] + [entry[0] for entry in self.pending])
        self.gone += [entry[3] for entry in self.pending]
        self.pending = []
        assert self.scheduler.run() is None
        assert self.log[before:] == expected
        assert self.now == last

    @invariant()
    def same(self):
        if hasattr(self, "scheduler"):
            assert self.scheduler.queue == [entry[3] for entry in self.pending]
            assert self.scheduler.empty() is (not self.pending)


def test_scheduler(impl):
    run_state_machine_as_test(type("Machine", (SchedulerMachine,), {"impl": impl}))


PLANS = st.lists(
    st.tuples(
        st.integers(0, 40), st.sampled_from(["keep", "keep", "keep", "cancel at once", "cancel before start"])
    ),
    min_size=1,
    max_size=12,
)


def check_timers(impl, plan):
    lock, fired = threading.Lock(), {}
    timers = []
    for number, (delay, fate) in enumerate(plan):
        # Whom the test cancels gets a deadline that cannot come before the cancel.
        seconds = delay / 1000 if fate == "keep" else 1000 + delay

        def note(number=number):
            with lock:
                fired.setdefault(number, []).append(time.monotonic())

        timer = impl.threading.Timer(seconds, note)
        if fate == "cancel before start":
            timer.cancel()
        start = time.monotonic()
        timer.start()
        timers.append((timer, fate, start + seconds))
    for timer, fate, _ in timers:
        if fate == "cancel at once":
            timer.cancel()
    for timer, _, _ in timers:
        timer.join(DEADLINE)
        assert not timer.is_alive()
        assert timer.finished.is_set()
    for number, (_, fate, deadline) in enumerate(timers):
        if fate == "keep":
            (when,) = fired[number]
            assert deadline - 0.002 <= when < deadline + 5
        else:
            assert number not in fired


def test_timers(impl):
    @settings(max_examples=max(10, settings.default.max_examples // 3))
    @given(PLANS)
    def check(plan):
        check_timers(impl, plan)

    check()
