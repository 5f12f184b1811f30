"""scheduler.every: periodic events without drift; and cancelling in a large heap."""

import math
import operator
import random
import time

import pytest
from test_sched import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def scheduler(raddle, clock):
    return raddle.sched.scheduler(clock.time, clock.sleep)


class TestEvery:
    def test_period(self, clock, scheduler):
        log = []

        def tick():
            log.append(clock.now)
            if len(log) == 5:
                handle.cancel()

        handle = scheduler.every(10, tick)
        scheduler.run()
        assert log == [10, 20, 30, 40, 50]
        assert scheduler.empty()

    def test_does_not_drift(self, clock, scheduler):
        log = []

        def tick():
            log.append(clock.now)
            clock.now += 3
            if len(log) == 5:
                handle.cancel()

        handle = scheduler.every(10, tick)
        scheduler.run()
        assert log == [10, 20, 30, 40, 50]

    def test_start(self, clock, scheduler):
        log = []

        def tick():
            log.append(clock.now)
            if len(log) == 3:
                handle.cancel()

        handle = scheduler.every(10, tick, start=5)
        scheduler.run()
        assert log == [5, 15, 25]

    def test_arguments(self, scheduler):
        log = []

        def tick(*args, **kwargs):
            log.append((args, kwargs))
            handle.cancel()

        handle = scheduler.every(1, tick, (1, 2), {"a": 3})
        scheduler.run()
        assert log == [((1, 2), {"a": 3})]

    def test_priority(self, scheduler):
        log = []

        def tick(name):
            log.append(name)
            if len(log) >= 4:
                first.cancel()
                second.cancel()

        second = scheduler.every(1, tick, ("second",), priority=2)
        first = scheduler.every(1, tick, ("first",), priority=1)
        scheduler.run()
        assert log == ["first", "second", "first", "second"]

    def test_among_single_events(self, clock, scheduler):
        log = []
        handle = scheduler.every(10, log.append, ("tick",))
        scheduler.enter(15, 1, log.append, ("single",))
        scheduler.enter(35, 1, handle.cancel)
        scheduler.run()
        assert log == ["tick", "single", "tick", "tick"]

    def test_cancel_before_the_first(self, scheduler):
        log = []
        handle = scheduler.every(10, log.append, (1,))
        handle.cancel()
        scheduler.run()
        assert log == []
        assert scheduler.empty()

    def test_action_that_raises_does_not_end_the_series(self, clock, scheduler):
        log = []

        def tick():
            log.append(clock.now)
            if len(log) == 1:
                raise ZeroDivisionError
            handle.cancel()

        handle = scheduler.every(10, tick)
        with pytest.raises(ZeroDivisionError):
            scheduler.run()
        scheduler.run()
        assert log == [10, 20]

    def test_shows_in_the_queue(self, scheduler):
        handle = scheduler.every(10, print)
        (event,) = scheduler.queue
        assert event.time == 10
        handle.cancel()
        assert scheduler.queue == []

    def test_the_scheduler_cancels_it_too(self, raddle, clock, scheduler):
        """As an event: once, and only its own. From the action as well, when no event of it is there but the next."""
        log = []

        def tick():
            log.append(clock.now)
            if len(log) == 3:
                scheduler.cancel(handle)

        handle = scheduler.every(10, tick)
        with pytest.raises(ValueError):
            raddle.sched.scheduler(clock.time, clock.sleep).cancel(handle)
        scheduler.run()
        assert log == [10, 20, 30] and handle.cancelled
        with pytest.raises(ValueError):
            scheduler.cancel(handle)

    @pytest.mark.parametrize("thing", [None, 1, "event", (), object()])
    def test_what_is_no_event_is_not_there(self, scheduler, thing):
        scheduler.every(10, print)
        with pytest.raises(ValueError, match="not in list"):
            scheduler.cancel(thing)

    @pytest.mark.parametrize("interval", [0, -1, -0.5])
    def test_interval_must_be_positive(self, scheduler, interval):
        with pytest.raises(ValueError):
            scheduler.every(interval, print)
        assert scheduler.empty()

    def test_real_time(self, raddle):
        log = []
        scheduler = raddle.sched.scheduler()
        start = time.monotonic()

        def tick():
            log.append(time.monotonic() - start)
            if len(log) == 10:
                handle.cancel()

        handle = scheduler.every(0.01, tick)
        scheduler.run()
        assert len(log) == 10
        for number, took in enumerate(log, 1):
            assert took >= 0.01 * number - 0.002


class Moment:
    """A time that counts how often any is compared."""

    compared = 0

    def __init__(self, at):
        self.at = at

    def _compare(op):
        def method(self, other):
            Moment.compared += 1
            return op(self.at, other.at)

        return method

    __lt__, __le__, __gt__, __ge__ = map(_compare, (operator.lt, operator.le, operator.gt, operator.ge))
    __eq__, __ne__ = map(_compare, (operator.eq, operator.ne))
    __hash__ = None


class TestCancel:
    @pytest.mark.parametrize("order", ["first to last", "last to first", "at random"])
    def test_few_events_are_looked_at(self, raddle, order):
        size = 20_000
        scheduler = raddle.sched.scheduler()
        events = [scheduler.enterabs(Moment(at), 1, print) for at in range(size)]
        if order == "last to first":
            events.reverse()
        elif order == "at random":
            random.Random(1).shuffle(events)
        for event in events[: size // 2]:
            before = Moment.compared
            scheduler.cancel(event)
            assert Moment.compared - before <= 2 * math.log2(size) + 2
        assert sorted(event.time.at for event in scheduler.queue) == sorted(
            event.time.at for event in events[size // 2 :]
        )
