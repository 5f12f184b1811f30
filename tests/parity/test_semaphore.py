"""threading.Semaphore and BoundedSemaphore on both implementations."""

# ruff: noqa: B023 - the functions made in a loop run within their lap.

import contextlib
import copy
import sys

import pytest
from object_cases import ObjectCases

from tools import STDLIB, Crew, Stopwatch, assert_matches, in_thread, outcome, wait_until, wait_until_blocked

INF = float("inf")


class SemaphoreCases(ObjectCases):
    methods = ("acquire", "release")
    patched = "acquire"

    # Value

    def test_value_is_one_unless_given(self, cls):
        semaphore = cls()
        assert semaphore._value == 1
        assert semaphore.acquire() is True
        assert semaphore._value == 0
        assert semaphore.acquire(False) is False

    @pytest.mark.parametrize("value", [0, 1, 2, 7, True, False, sys.maxsize])
    def test_value(self, cls, value):
        for semaphore in (cls(value), cls(value=value)):
            assert semaphore._value == value
            for _ in range(min(value, 10)):
                assert semaphore.acquire(False) is True
            assert semaphore.acquire(False) is (value > 10)

    @pytest.mark.parametrize("value", [-1, -5, -sys.maxsize, -(2**70)])
    def test_negative_value(self, cls, value):
        with pytest.raises(ValueError, match=r"^semaphore initial value must be >= 0$"):
            cls(value)
        with pytest.raises(ValueError):
            cls(value=value)

    @pytest.mark.parametrize("value", ["1", None, [], object()], ids=repr)
    def test_value_that_is_no_number(self, cls, value):
        with pytest.raises(TypeError):
            cls(value)

    def test_value_goes_down_and_up(self, cls):
        semaphore = cls(3)
        seen = []
        for _ in range(3):
            semaphore.acquire()
            seen.append(semaphore._value)
        for _ in range(3):
            assert semaphore.release() is None
            seen.append(semaphore._value)
        assert seen == [2, 1, 0, 1, 2, 3]

    # Taking

    def test_acquire_without_blocking(self, cls):
        semaphore = cls(2)
        results = [semaphore.acquire(False), semaphore.acquire(blocking=False), semaphore.acquire(blocking=0)]
        assert results == [True, True, False]
        semaphore.release()
        assert semaphore.acquire(False) is True

    def test_waiters_all_get_one(self, cls):
        semaphore = cls(1)
        semaphore.acquire()
        with Crew(lambda: semaphore.acquire() and semaphore.release(), 5) as crew:
            crew.wait_until_blocked()
            assert crew.results == []
            semaphore.release()
        assert crew.results == [None] * 5

    def test_never_more_inside_than_the_value(self, cls):
        semaphore = cls(3)
        inside, worst = [], []

        def work():
            for _ in range(100):
                with semaphore:
                    inside.append(1)
                    worst.append(len(inside))
                    inside.pop()

        with Crew(work, 8):
            pass
        assert max(worst) <= 3
        assert semaphore._value == 3

    def test_every_release_lets_one_through(self, cls):
        semaphore = cls(7)
        for _ in range(7):
            semaphore.acquire()
        with Crew(semaphore.acquire, 7) as crew:
            crew.wait_until_blocked()
            for count in range(1, 8):
                semaphore.release()
                crew.wait_finished(count)
                wait_until(lambda: sum(t.is_alive() for t in crew.threads) == 7 - count, "one has left")
                wait_until_blocked(*(t for t in crew.threads if t.is_alive()))
                assert len(crew.results) == count
        assert semaphore.acquire(False) is False

    def test_release_of_many(self, cls):
        semaphore = cls(7)
        for _ in range(7):
            semaphore.acquire()
        with Crew(semaphore.acquire, 7) as crew:
            crew.wait_until_blocked()
            assert semaphore.release(3) is None
            crew.wait_finished(3)
            wait_until(lambda: sum(t.is_alive() for t in crew.threads) == 4, "three have left")
            wait_until_blocked(*(t for t in crew.threads if t.is_alive()))
            assert len(crew.results) == 3
            semaphore.release(n=4)
        assert crew.results == [True] * 7
        assert semaphore._value == 0

    @pytest.mark.parametrize("count", [0, -1, -10, False])
    def test_release_of_none(self, cls, count):
        semaphore = cls(2)
        semaphore.acquire()
        with pytest.raises(ValueError, match=r"^n must be one or more$"):
            semaphore.release(count)
        assert semaphore._value == 1

    @pytest.mark.parametrize("count", ["1", None, []], ids=repr)
    def test_release_of_what_is_no_number(self, cls, count):
        semaphore = cls(2)
        with pytest.raises(TypeError):
            semaphore.release(count)
        assert semaphore._value == 2

    def test_any_thread_may_release(self, cls):
        semaphore = cls(1)
        in_thread(semaphore.acquire)
        semaphore.release()
        assert semaphore.acquire(False) is True

    # Timeouts

    def test_timeout_expires(self, cls):
        semaphore = cls(0)
        with Stopwatch() as watch:
            assert semaphore.acquire(timeout=0.05) is False
        assert 0.045 <= watch.seconds < 5
        assert semaphore.acquire(True, 0.01) is False
        assert semaphore._value == 0

    @pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.5, -1e100, -INF, False], ids=repr)
    def test_no_time_at_all(self, cls, timeout):
        semaphore = cls(1)
        assert semaphore.acquire(timeout=timeout) is True
        assert semaphore.acquire(timeout=timeout) is False

    def test_timeout_and_non_blocking_exclude_each_other(self, cls):
        semaphore = cls(1)
        for timeout in (1, 0, -1, 1.0, "x"):
            with pytest.raises(ValueError, match=r"^can't specify timeout for non-blocking acquire$"):
                semaphore.acquire(False, timeout)
        assert semaphore.acquire(False, None) is True

    @pytest.mark.parametrize("timeout", [1e100, INF], ids=repr)
    def test_timeout_too_large(self, cls, timeout):
        with pytest.raises(OverflowError):
            cls(0).acquire(timeout=timeout)
        assert cls(1).acquire(timeout=timeout) is True

    @pytest.mark.parametrize("timeout", ["1", [], object()], ids=["str", "list", "object"])
    def test_timeout_that_is_no_number(self, cls, timeout):
        semaphore = cls(0)
        with pytest.raises(TypeError):
            semaphore.acquire(timeout=timeout)
        assert semaphore._value == 0

    @pytest.mark.parametrize("blocking", [1, 0, 2, None, "", "x", 1.5, [], [0]], ids=repr)
    def test_odd_blocking(self, cls, reference, blocking):
        for value in (0, 1):
            if blocking and not value:
                continue  # It would wait.
            ours, other = cls(value), reference(value)
            assert outcome(lambda: ours.acquire(blocking)) == outcome(lambda: other.acquire(blocking))

    def test_released_before_the_timeout(self, cls):
        semaphore = cls(1)
        semaphore.acquire()
        with Crew(lambda: semaphore.acquire(timeout=15)) as crew:
            crew.wait_until_blocked()
            semaphore.release()
        assert crew.results == [True]

    def test_timed_out_waiter_takes_no_token(self, cls):
        semaphore = cls(1)
        semaphore.acquire()
        for _ in range(20):
            assert semaphore.acquire(timeout=0.001) is False
        semaphore.release()
        assert semaphore._value == 1
        assert semaphore.acquire(False) is True

    # with

    def test_with(self, cls):
        semaphore = cls(2)
        with semaphore as taken:
            assert taken is True
            assert semaphore._value == 1
            with semaphore:
                assert semaphore.acquire(False) is False
        assert semaphore._value == 2

    def test_with_gives_back_after_an_exception(self, cls):
        semaphore = cls(1)
        with pytest.raises(ZeroDivisionError), semaphore:
            raise ZeroDivisionError
        assert semaphore._value == 1

    def test_exit_stack(self, cls):
        semaphore = cls(3)
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(semaphore)
            assert semaphore._value == 0
        assert semaphore._value == 3

    def test_which_overrides_with_uses(self, cls):
        """`__enter__` is the `acquire` of the class; `__exit__` asks for `release` each time."""
        calls = []

        class Derived(cls):
            def acquire(self, *args, **kwargs):
                calls.append("acquire")
                return super().acquire(*args, **kwargs)

            def release(self, *args, **kwargs):
                calls.append("release")
                return super().release(*args, **kwargs)

        with Derived():
            pass
        assert calls == ["release"]

    # The object

    def test_shallow_copy(self, cls):
        semaphore = cls(2)
        twin = copy.copy(semaphore)
        assert twin._value == 2
        assert twin.acquire(False) is True

    def test_wrong_arguments(self, cls):
        semaphore = cls(1)
        for call in (
            lambda: semaphore.acquire(True, None, 1),
            lambda: semaphore.acquire(wait=True),
            lambda: semaphore.release(1, 2),
            lambda: semaphore.release(count=1),
        ):
            with pytest.raises(TypeError):
                call()
        assert semaphore._value == 1


class TestSemaphore(SemaphoreCases):
    kind = "Semaphore"

    def test_release_beyond_the_first_value(self, cls):
        semaphore = cls(1)
        semaphore.release()
        semaphore.release(10)
        assert semaphore._value == 12
        for _ in range(12):
            assert semaphore.acquire(False) is True
        assert semaphore.acquire(False) is False

    def test_release_before_anybody_waits(self, cls):
        semaphore = cls(0)
        semaphore.release(3)
        with Crew(semaphore.acquire, 3) as crew:
            pass
        assert crew.results == [True] * 3

    def test_repr(self, cls):
        semaphore = cls(3)
        assert_matches(r"^<(raddle\.)?threading\.Semaphore at 0x[0-9a-f]+: value=3>", repr(semaphore))
        semaphore.acquire()
        assert_matches(r"^<(raddle\.)?threading\.Semaphore at .*: value=2>", repr(semaphore))
        semaphore.release(2)
        assert_matches(r"^<(raddle\.)?threading\.Semaphore at .*: value=4>", repr(semaphore))

    def test_repr_of_a_subclass(self, cls):
        class Derived(cls):
            pass

        assert_matches(r"Derived at 0x[0-9a-f]+: value=1>$", repr(Derived()))

    def test_producer_and_consumer(self, cls):
        items, spaces, box, got = cls(0), cls(4), [], []

        def produce():
            for i in range(300):
                spaces.acquire()
                box.append(i)
                items.release()

        def consume():
            for _ in range(300):
                items.acquire()
                got.append(box.pop(0))
                spaces.release()

        with Crew(produce), Crew(consume):
            pass
        assert got == list(range(300))


class TestBoundedSemaphore(SemaphoreCases):
    kind = "BoundedSemaphore"

    def test_is_a_semaphore(self, impl, cls):
        assert issubclass(cls, impl.threading.Semaphore)

    def test_release_beyond_the_first_value(self, cls):
        for value in (0, 1, 3):
            semaphore = cls(value)
            with pytest.raises(ValueError, match=r"^Semaphore released too many times$"):
                semaphore.release()
            assert semaphore._value == value

    def test_release_of_many_is_all_or_nothing(self, cls):
        semaphore = cls(5)
        for _ in range(3):
            semaphore.acquire()
        with pytest.raises(ValueError):
            semaphore.release(4)
        assert semaphore._value == 2
        semaphore.release(3)
        assert semaphore._value == 5

    def test_limit_holds_between_threads(self, cls):
        for limit in range(1, 10):
            semaphore = cls(limit)
            with Crew(semaphore.acquire, limit):
                pass
            with Crew(semaphore.release, limit):
                pass
            with pytest.raises(ValueError):
                semaphore.release()

    def test_repr(self, cls):
        semaphore = cls(3)
        assert_matches(
            r"^<(raddle\.)?threading\.BoundedSemaphore at 0x[0-9a-f]+: value=3/3>", repr(semaphore)
        )
        semaphore.acquire()
        assert_matches(r"^<(raddle\.)?threading\.BoundedSemaphore at .*: value=2/3>", repr(semaphore))

    def test_initial_value(self, cls):
        assert cls(4)._initial_value == STDLIB.threading.BoundedSemaphore(4)._initial_value

    def test_excess_release_does_not_wake(self, cls):
        semaphore = cls(0)
        with Crew(lambda: semaphore.acquire(timeout=0.05)) as crew, pytest.raises(ValueError):
            semaphore.release()
        assert crew.results == [False]
