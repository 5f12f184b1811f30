"""sched.scheduler on both implementations."""

import copy
import datetime
import fractions
import gc
import inspect
import pickle
import threading
import time
import weakref
from unittest import mock

import pytest

from tools import STDLIB, Crew, Stopwatch, check_child, check_signature


class Clock:
    """A time that only delays move on; keeps a log of them."""

    def __init__(self, now=0):
        self.now = now
        self.delays = []

    def time(self):
        return self.now

    def sleep(self, seconds):
        self.delays.append(seconds)
        if seconds:
            self.now += seconds


class SlowClock:
    """A time that a test moves on; who sleeps past it is held up until then."""

    def __init__(self):
        self.condition = threading.Condition()
        self.now = self.limit = 0
        self.sleeping = False

    def time(self):
        with self.condition:
            return self.now

    def sleep(self, seconds):
        with self.condition:
            end = self.now + seconds
            while self.limit < end:
                self.now = self.limit
                self.sleeping = True
                self.condition.notify_all()
                assert self.condition.wait(20)
            self.sleeping = False
            self.now = end

    def advance(self, seconds):
        """Moves on, and returns when the scheduler sleeps again."""
        with self.condition:
            self.limit += seconds
            self.sleeping = False
            self.condition.notify_all()
            assert self.condition.wait_for(lambda: self.sleeping, 20)


class TestScheduler:
    @pytest.fixture
    def cls(self, impl):
        return impl.sched.scheduler

    @pytest.fixture
    def clock(self):
        return Clock()

    @pytest.fixture
    def scheduler(self, cls, clock):
        return cls(clock.time, clock.sleep)

    def test_events_without_end_let_other_threads_run(self, impl):
        """The main thread gives the interpreter away a hundred times; the events are made of builtins."""
        check_child(
            impl.prelude
            + """
import functools, os, time
scheduler = sched.scheduler()
event = functools.partial(scheduler.enter)
event.__setstate__((scheduler.enter, (0, 0, event), {}, {}))
event()
threading.Thread(target=scheduler.run).start()
for _ in range(100):
    time.sleep(0.0001)
os._exit(0)
"""
        )

    # Construction

    def test_signatures(self, cls):
        check_signature(cls, STDLIB.sched.scheduler)
        for name in ("enter", "enterabs", "cancel", "empty", "run"):
            ours, reference = getattr(cls, name), getattr(STDLIB.sched.scheduler, name)
            if name.startswith("enter"):
                # The default of kwargs is a private marker.
                assert list(_parameters(ours)) == list(_parameters(reference))
            else:
                check_signature(ours, reference)

    def test_defaults(self, cls):
        scheduler = cls()
        assert scheduler.timefunc is time.monotonic
        assert scheduler.delayfunc is time.sleep
        scheduler = cls(delayfunc=print, timefunc=max)
        assert (scheduler.timefunc, scheduler.delayfunc) == (max, print)

    def test_event_type(self, impl):
        event = impl.sched.Event
        assert event._fields == ("time", "priority", "sequence", "action", "argument", "kwargs")
        assert issubclass(event, tuple)
        assert event.__name__ == "Event"

    def test_event_of_enter(self, impl, clock, scheduler):
        clock.now = 10
        event = scheduler.enter(5, 2, print, (1, 2), {"a": 3})
        assert isinstance(event, impl.sched.Event)
        assert (event.time, event.priority, event.action) == (15, 2, print)
        assert (event.argument, event.kwargs) == ((1, 2), {"a": 3})
        assert len(event) == 6
        assert event[0] == 15
        when, priority, _, action, argument, kwargs = event
        assert (when, priority, action, argument, kwargs) == (15, 2, print, (1, 2), {"a": 3})

    def test_defaults_of_an_event(self, scheduler):
        one, two = scheduler.enter(1, 1, print), scheduler.enter(1, 1, print)
        assert (one.argument, one.kwargs) == ((), {})
        assert one.kwargs is not two.kwargs
        assert one.sequence < two.sequence

    def test_keywords(self, scheduler):
        one = scheduler.enter(delay=1, priority=2, action=print, argument=("x",), kwargs={"end": ""})
        two = scheduler.enterabs(time=1, priority=2, action=print, argument=("x",), kwargs={"end": ""})
        assert (one.time, two.time) == (1, 1)

    def test_wrong_arguments(self, scheduler):
        for call in (
            lambda: scheduler.enter(1, 1),
            lambda: scheduler.enterabs(),
            lambda: scheduler.enter(1, 1, print, (), {}, 1),
            lambda: scheduler.cancel(),
            lambda: scheduler.run(True, 1),
        ):
            with pytest.raises(TypeError):
                call()
        assert scheduler.empty()

    # Order

    def test_order_of_time(self, clock, scheduler):
        log = []
        for delay in (5, 1, 4, 2, 3):
            scheduler.enter(delay, 1, lambda x: log.append((x, clock.now)), (delay,))
        scheduler.run()
        assert log == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]

    def test_order_of_priority(self, scheduler):
        log = []
        for priority in (2, 5, 3, 1, 4, 1, -1):
            scheduler.enterabs(7, priority, log.append, (priority,))
        scheduler.run()
        assert log == [-1, 1, 1, 2, 3, 4, 5]

    def test_order_of_insertion(self, scheduler):
        log = []
        for i in range(100):
            scheduler.enterabs(7, 1, log.append, (i,))
        scheduler.run()
        assert log == list(range(100))

    def test_actions_are_never_compared(self, scheduler):
        class Silent:
            def __call__(self):
                pass

            def __lt__(self, other):
                raise AssertionError("compared")

            __gt__ = __eq__ = __lt__
            __hash__ = None

        for _ in range(10):
            scheduler.enterabs(1, 1, Silent(), (Silent(),) * 0)
        scheduler.run()

    def test_arguments_reach_the_action(self, scheduler):
        log = []

        def action(*args, **kwargs):
            log.append((args, kwargs))

        scheduler.enter(1, 1, action)
        scheduler.enter(2, 1, action, (1, 2))
        scheduler.enter(3, 1, action, argument=("a",), kwargs={"b": 3})
        scheduler.enter(4, 1, action, [5])
        scheduler.run()
        assert log == [((), {}), ((1, 2), {}), (("a",), {"b": 3}), ((5,), {})]

    def test_times_of_other_kinds(self, cls):
        start = datetime.datetime(2000, 1, 1)
        for now, step in (
            (fractions.Fraction(1, 3), fractions.Fraction(1, 3)),
            (start, datetime.timedelta(seconds=1)),
        ):
            log = []
            clock = Clock(now)
            scheduler = cls(clock.time, clock.sleep)
            scheduler.enter(step * 2, 1, log.append, (2,))
            scheduler.enter(step, 1, log.append, (1,))
            scheduler.run()
            assert log == [1, 2]
            assert clock.now == now + step * 2

    def test_large_and_exact_times(self, scheduler, clock):
        log = []
        base = 10**18
        clock.now = base
        for i in (3, 1, 2):
            scheduler.enterabs(base + i, 1, log.append, (i,))
        scheduler.run()
        assert log == [1, 2, 3]
        assert clock.delays == [1, 0, 1, 0, 1, 0]

    def test_times_that_cannot_be_compared(self, scheduler):
        scheduler.enterabs(1, 1, print)
        with pytest.raises(TypeError):
            scheduler.enterabs("2", 1, print)

    def test_priorities_of_other_kinds(self, scheduler):
        log = []
        for priority in ("b", "a", "c"):
            scheduler.enterabs(1, priority, log.append, (priority,))
        scheduler.run()
        assert log == ["a", "b", "c"]

    # Delays

    def test_delays(self, clock, scheduler):
        scheduler.enter(3, 1, int)
        scheduler.enter(5, 1, int)
        scheduler.run()
        assert clock.delays == [3, 0, 2, 0]

    def test_events_of_the_past_run_at_once(self, clock, scheduler):
        log = []
        clock.now = 100
        scheduler.enterabs(50, 1, log.append, (1,))
        scheduler.enter(-10, 1, log.append, (2,))
        scheduler.run()
        assert log == [1, 2]
        assert clock.delays == [0, 0]

    def test_delay_that_returns_early_is_repeated(self, cls):
        clock = Clock()

        def nap(seconds):
            clock.delays.append(seconds)
            clock.now += min(seconds, 1)

        log = []
        scheduler = cls(clock.time, nap)
        scheduler.enter(3, 1, log.append, (1,))
        scheduler.run()
        assert log == [1]
        assert clock.delays == [3, 2, 1, 0]

    def test_real_time(self, cls):
        log = []
        scheduler = cls(time.monotonic, time.sleep)
        start = time.monotonic()
        for delay in (0.06, 0.02, 0.04):
            scheduler.enter(delay, 1, lambda: log.append(time.monotonic() - start))
        with Stopwatch() as watch:
            assert scheduler.run() is None
        assert 0.055 <= watch.seconds < 5
        for took, delay in zip(log, (0.02, 0.04, 0.06), strict=True):
            assert took >= delay - 0.002

    def test_default_clock(self, cls):
        log = []
        scheduler = cls()
        scheduler.enter(0.01, 1, log.append, (1,))
        scheduler.enterabs(time.monotonic() + 0.02, 1, log.append, (2,))
        scheduler.run()
        assert log == [1, 2]

    def test_functions_changed_later(self, cls):
        scheduler = cls(None, None)
        clock = Clock()
        scheduler.timefunc, scheduler.delayfunc = clock.time, clock.sleep
        scheduler.enter(2, 1, int)
        scheduler.run()
        assert clock.delays == [2, 0]

    # run(False)

    def test_run_without_blocking(self, clock, scheduler):
        log = []
        assert scheduler.run(blocking=False) is None
        scheduler.enter(0, 1, log.append, (0,))
        scheduler.enter(5, 1, log.append, (5,))
        assert scheduler.run(False) == 5
        assert log == [0]
        clock.now = 3
        assert scheduler.run(False) == 2
        clock.now = 5
        assert scheduler.run(False) is None
        assert log == [0, 5]
        assert clock.delays == [0, 0]

    # The queue

    def test_empty(self, scheduler):
        assert scheduler.empty() is True
        scheduler.enter(1, 1, print)
        assert scheduler.empty() is False
        scheduler.run(False)
        assert scheduler.empty() is False

    def test_queue(self, scheduler):
        assert scheduler.queue == []
        events = {delay: scheduler.enter(delay, 1, print) for delay in (5, 1, 2, 4, 3)}
        assert scheduler.queue == [events[delay] for delay in (1, 2, 3, 4, 5)]
        assert type(scheduler.queue) is list
        scheduler.queue.clear()
        assert len(scheduler.queue) == 5
        with pytest.raises(AttributeError):
            scheduler.queue = []

    # cancel

    def test_cancel(self, scheduler):
        log = []
        events = [scheduler.enter(delay, 1, log.append, (delay,)) for delay in (1, 2, 3, 4, 5)]
        assert scheduler.cancel(events[0]) is None
        scheduler.cancel(events[4])
        scheduler.cancel(events[2])
        assert scheduler.queue == [events[1], events[3]]
        scheduler.run()
        assert log == [2, 4]

    def test_cancel_of_what_is_not_there(self, cls, scheduler, clock):
        event = scheduler.enter(1, 1, int)
        scheduler.cancel(event)
        with pytest.raises(ValueError):
            scheduler.cancel(event)
        done = scheduler.enter(1, 1, int)
        scheduler.run()
        with pytest.raises(ValueError):
            scheduler.cancel(done)
        other = cls(clock.time, clock.sleep)
        foreign = scheduler.enter(99, 99, int)
        with pytest.raises(ValueError):
            other.cancel(foreign)
        for wrong in (None, 1, "x", (), object()):
            with pytest.raises(ValueError):
                scheduler.cancel(wrong)
        assert scheduler.queue == [foreign]

    def test_cancel_takes_the_right_one_of_equals(self, scheduler):
        log = []
        scheduler.enterabs(1, 1, log.append, ("a",))
        event = scheduler.enterabs(1, 1, log.append, ("b",))
        scheduler.enterabs(1, 1, log.append, ("c",))
        scheduler.cancel(event)
        scheduler.run()
        assert log == ["a", "c"]

    def test_cancel_by_an_equal_event(self, scheduler):
        event = scheduler.enter(1, 1, print, ("x",))
        scheduler.cancel(event._replace())
        assert scheduler.empty()

    def test_cancel_many(self, scheduler):
        log = []
        events = [scheduler.enterabs((i * 7919) % 1009, i % 3, log.append, (i,)) for i in range(1000)]
        for event in events[::2]:
            scheduler.cancel(event)
        expected = [
            event.argument[0]
            for event in sorted(events[1::2], key=lambda e: (e.time, e.priority, e.sequence))
        ]
        assert [event.argument[0] for event in scheduler.queue] == expected
        scheduler.run()
        assert log == expected

    # Actions that change things

    def test_action_enters_and_cancels(self, scheduler):
        log = []

        def first():
            log.append("first")
            scheduler.cancel(victim)
            scheduler.enter(1, 1, log.append, ("entered",))

        scheduler.enter(1, 1, first)
        victim = scheduler.enter(3, 1, log.append, ("victim",))
        scheduler.enter(5, 1, log.append, ("last",))
        scheduler.run()
        assert log == ["first", "entered", "last"]

    def test_action_that_raises(self, scheduler):
        log = []
        scheduler.enter(1, 1, log.append, (1,))
        scheduler.enter(2, 1, lambda: 1 / 0)
        scheduler.enter(3, 1, log.append, (3,))
        with pytest.raises(ZeroDivisionError):
            scheduler.run()
        assert log == [1]
        assert len(scheduler.queue) == 1
        scheduler.run()
        assert log == [1, 3]

    def test_delay_that_raises(self, cls):
        clock = Clock()
        fail = mock.Mock(side_effect=ZeroDivisionError)
        scheduler = cls(clock.time, fail)
        scheduler.enter(1, 1, int)
        with pytest.raises(ZeroDivisionError):
            scheduler.run()
        assert len(scheduler.queue) == 1
        scheduler.delayfunc = clock.sleep
        scheduler.run()
        assert scheduler.empty()

    def test_delay_that_enters_an_earlier_event(self, cls):
        clock = Clock()
        log = []

        def sleep(seconds):
            if seconds == 10:
                scheduler.enter(1, 1, log.append, ("early",))
            else:
                clock.sleep(seconds)

        scheduler = cls(clock.time, sleep)
        scheduler.enter(10, 1, log.append, ("late",))
        scheduler.run()
        assert log == ["early", "late"]
        assert clock.delays == [1, 0, 9, 0]

    def test_run_inside_an_action(self, scheduler):
        log = []
        scheduler.enter(1, 1, lambda: (log.append("outer"), scheduler.run(), log.append("outer ends")))
        scheduler.enter(2, 1, log.append, ("inner",))
        scheduler.run()
        assert log == ["outer", "inner", "outer ends"]

    def test_periodic_by_hand(self, scheduler, clock):
        log = []

        def tick():
            log.append(clock.now)
            if len(log) < 5:
                scheduler.enter(10, 1, tick)

        scheduler.enter(10, 1, tick)
        scheduler.run()
        assert log == [10, 20, 30, 40, 50]

    # Threads

    def test_enter_while_another_thread_runs_it(self, cls):
        clock, log = SlowClock(), []
        scheduler = cls(clock.time, clock.sleep)
        scheduler.enter(1, 1, log.append, (1,))
        scheduler.enter(3, 1, log.append, (3,))
        with Crew(scheduler.run):
            clock.advance(1)
            assert log == [1]
            for when in (4, 5, 2):
                scheduler.enterabs(when, 1, log.append, (when,))
            clock.advance(2)
            assert log == [1, 2, 3]
            clock.advance(1)
            assert log == [1, 2, 3, 4]
            with clock.condition:
                clock.limit += 1000
                clock.condition.notify_all()
        assert log == [1, 2, 3, 4, 5]
        assert clock.time() == 5

    def test_cancel_while_another_thread_runs_it(self, cls):
        clock, log = SlowClock(), []
        scheduler = cls(clock.time, clock.sleep)
        events = {when: scheduler.enterabs(when, 1, log.append, (when,)) for when in (1, 2, 4, 5, 3)}
        with Crew(scheduler.run):
            clock.advance(1)
            assert log == [1]
            scheduler.cancel(events[2])
            scheduler.cancel(events[5])
            clock.advance(1)
            assert log == [1]
            clock.advance(1)
            assert log == [1, 3]
            with clock.condition:
                clock.limit += 1000
                clock.condition.notify_all()
        assert log == [1, 3, 4]

    def test_two_threads_run_it(self, cls):
        log = []
        scheduler = cls(time.monotonic, time.sleep)
        for i in range(200):
            scheduler.enter(0.0001 * i, 1, log.append, (i,))
        with Crew(scheduler.run, 2):
            pass
        assert sorted(log) == list(range(200))

    def test_enter_from_many_threads(self, cls):
        clock, log = Clock(), []
        scheduler = cls(clock.time, clock.sleep)

        def work():
            for i in range(200):
                scheduler.enterabs(i, 1, log.append, (i,))

        with Crew(work, 4):
            pass
        scheduler.run()
        assert log == sorted(list(range(200)) * 4)

    # The object

    def test_subclass(self, cls):
        log = []

        class Derived(cls):
            def __init__(self, *args, label):
                super().__init__(*args)
                self.label = label

            def enterabs(self, *args, **kwargs):
                log.append(args[0])
                return super().enterabs(*args, **kwargs)

        clock = Clock()
        scheduler = Derived(clock.time, clock.sleep, label="mine")
        scheduler.enter(4, 1, int)
        assert (scheduler.label, log) == ("mine", [4])
        scheduler.run()
        assert scheduler.empty()

    def test_attributes_weakref_and_cycles(self, cls, scheduler):
        scheduler.colour = "red"
        assert vars(scheduler)["colour"] == "red"
        other = cls()
        other.enter(1, 1, other.run)
        reference = weakref.ref(other)
        del other
        gc.collect()
        assert reference() is None

    def test_cancelled_event_is_dropped(self, scheduler):
        class Payload:
            pass

        payload = Payload()
        reference = weakref.ref(payload)
        event = scheduler.enter(1, 1, print, (payload,))
        del payload
        scheduler.cancel(event)
        del event
        gc.collect()
        assert reference() is None

    def test_cannot_be_pickled(self, scheduler):
        for duplicate in (copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot pickle"):
                duplicate(scheduler)

    def test_patching(self, cls, scheduler):
        with mock.patch.object(cls, "run", return_value="fake"):
            assert scheduler.run() == "fake"
        with mock.patch.object(scheduler, "enter", return_value="fake"):
            assert scheduler.enter() == "fake"


def _parameters(obj):
    return inspect.signature(obj).parameters
