"""threading.Event on both implementations."""

import copy
import threading

import pytest
from object_cases import ObjectCases

from tools import Crew, Stopwatch, assert_matches, in_thread

INF = float("inf")


class TestEvent(ObjectCases):
    kind = "Event"
    methods = ("is_set", "set", "clear", "wait")
    patched = "wait"

    @pytest.fixture
    def event(self, cls):
        return cls()

    def test_set_and_clear(self, event):
        seen = [event.is_set()]
        for change in (event.set, event.set, event.clear, event.clear, event.set):
            assert change() is None
            seen.append(event.is_set())
        assert seen == [False, True, True, False, False, True]

    def test_wait_for_a_set_one(self, event):
        event.set()
        assert event.wait() is True
        assert event.wait(0) is True
        assert event.wait(timeout=5) is True

    def test_set_wakes_all(self, event):
        with Crew(lambda: (event.wait(), event.wait()), 5) as crew:
            crew.wait_until_blocked()
            assert crew.results == []
            event.set()
        assert crew.results == [(True, True)] * 5

    def test_several_rounds(self, event):
        for _ in range(5):
            with Crew(event.wait, 3) as crew:
                crew.wait_until_blocked()
                event.set()
            assert crew.results == [True] * 3
            event.clear()

    def test_cleared_before_the_waiter_runs(self, event):
        """Who waited when it was set has seen it set."""
        with Crew(lambda: event.wait(20), 5) as crew:
            crew.wait_until_blocked()
            event.set()
            event.clear()
        assert crew.results == [True] * 5
        assert event.is_set() is False

    def test_timeout_expires(self, event):
        with Stopwatch() as watch:
            assert event.wait(0.05) is False
        assert 0.045 <= watch.seconds < 5
        assert event.wait(timeout=0.01) is False

    def test_timeout_in_threads(self, event):
        with Crew(lambda: event.wait(0.02), 5) as crew:
            pass
        assert crew.results == [False] * 5

    def test_set_before_the_timeout(self, event):
        with Crew(lambda: event.wait(15), 2) as crew:
            crew.wait_until_blocked()
            event.set()
        assert crew.results == [True, True]

    @pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.5, -1e100, -INF, False, float("nan")], ids=repr)
    def test_no_time_at_all(self, event, timeout):
        assert event.wait(timeout) is False
        event.set()
        assert event.wait(timeout) is True

    @pytest.mark.parametrize("timeout", [1e100, INF, threading.TIMEOUT_MAX * 2], ids=repr)
    def test_timeout_too_large(self, event, timeout):
        with pytest.raises(OverflowError):
            event.wait(timeout)
        event.set()
        assert event.wait(timeout) is True

    @pytest.mark.parametrize("timeout", ["1", [], object(), 1j], ids=["str", "list", "object", "complex"])
    def test_timeout_that_is_no_number(self, event, timeout):
        with pytest.raises(TypeError):
            event.wait(timeout)
        event.set()
        assert event.wait(timeout) is True

    def test_wrong_arguments(self, event):
        for call in (
            lambda: event.set(1),
            lambda: event.clear(1),
            lambda: event.is_set(1),
            lambda: event.wait(1, 2),
        ):
            with pytest.raises(TypeError):
                call()
        with pytest.raises(TypeError):
            event.wait(seconds=1)

    def test_isSet(self, event):
        with pytest.warns(DeprecationWarning, match=r"use is_set\(\)"):
            assert event.isSet() is False
        event.set()
        with pytest.warns(DeprecationWarning):
            assert event.isSet() is True

    def test_repr(self, event):
        assert_matches(r"^<(raddle\.)?threading\.Event at 0x[0-9a-f]+: unset>", repr(event))
        event.set()
        assert_matches(r"^<(raddle\.)?threading\.Event at 0x[0-9a-f]+: set>", repr(event))

    def test_is_no_context_manager(self, event):
        with pytest.raises((TypeError, AttributeError)), event:
            pass

    def test_shallow_copy(self, event):
        event.set()
        twin = copy.copy(event)
        assert twin.is_set() is True

    def test_overrides(self, cls):
        calls = []

        class Derived(cls):
            def set(self):
                calls.append("set")
                super().set()

        event = Derived()
        event.set()
        assert event.is_set()
        assert calls == ["set"]

    def test_at_fork_reinit(self, event):
        """Its condition works on a plain lock, and does so again when reset while held."""
        with event._cond:
            assert event._cond.acquire(False) is False
        event._cond.acquire()
        event._at_fork_reinit()
        with event._cond:
            assert event._cond.acquire(False) is False

    def test_at_fork_reinit_keeps_the_flag(self, event):
        event.set()
        event._at_fork_reinit()
        assert event.is_set() is True
        event.clear()
        assert in_thread(event.wait, 0.01) is False

    def test_ping_pong(self, cls):
        there, back = cls(), cls()
        log = []

        def answer():
            for i in range(200):
                there.wait()
                there.clear()
                log.append(i)
                back.set()

        with Crew(answer):
            for _ in range(200):
                there.set()
                back.wait()
                back.clear()
        assert log == list(range(200))

    def test_second_thread_sees_what_was_written_before(self, event):
        box = []

        def work():
            event.wait()
            return list(box)

        with Crew(work, 3) as crew:
            box.append(1)
            event.set()
        assert crew.results == [[1]] * 3
