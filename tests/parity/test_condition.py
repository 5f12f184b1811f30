"""threading.Condition on both implementations."""

# ruff: noqa: B023 - the functions made in a loop run within their lap.

import copy
import threading

import pytest
from object_cases import ObjectCases

from tools import Crew, Stopwatch, assert_matches, in_thread, wait_until, wait_until_blocked

INF = float("inf")


class TestCondition(ObjectCases):
    kind = "Condition"
    methods = ("wait", "wait_for", "notify", "notify_all")
    patched = "notify"

    @pytest.fixture
    def cond(self, cls):
        return cls()

    # The lock

    def test_makes_an_rlock(self, cond):
        assert cond.acquire() is True
        assert cond.acquire() is True
        assert in_thread(cond.acquire, False) is False
        assert cond.release() is None
        cond.release()
        assert in_thread(lambda: cond.acquire(False) and cond.release()) is None

    @pytest.mark.parametrize("given", ["position", "keyword"])
    def test_takes_a_lock(self, impl, cls, given):
        lock = impl.threading.Lock()
        cond = cls(lock) if given == "position" else cls(lock=lock)
        cond.acquire()
        assert lock.locked()
        cond.release()
        lock.acquire()
        assert cond.acquire(False) is False
        assert cond.acquire(timeout=0.01) is False
        lock.release()
        with cond as taken:
            assert taken is True
            assert lock.locked()
        assert not lock.locked()

    def test_two_conditions_on_one_lock(self, impl, cls):
        lock = impl.threading.Lock()
        full, empty = cls(lock), cls(lock)
        with full:
            empty.notify()
            full.notify_all()
        order = []

        def work():
            with full:
                full.wait()
                order.append("full")
                empty.notify()

        with Crew(work) as crew:
            crew.wait_until_blocked()
            with empty:
                full.notify()
                assert empty.wait(15) is True
                order.append("empty")
        assert order == ["full", "empty"]

    def test_lock_api(self, cond):
        with pytest.raises(ValueError):
            cond.acquire(False, 1)
        with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
            cond.release()
        assert cond._is_owned() is False
        with cond:
            assert cond._is_owned() is True
            assert in_thread(cond._is_owned) is False

    def test_with_gives_back_after_an_exception(self, cond):
        with pytest.raises(ZeroDivisionError), cond:
            raise ZeroDivisionError
        assert in_thread(cond.acquire, False) is True

    def test_is_owned_of_a_plain_lock(self, impl, cls):
        cond = cls(impl.threading.Lock())
        assert cond._is_owned() is False
        with cond:
            assert cond._is_owned() is True

    # Without the lock

    def test_wait_without_the_lock(self, impl, cls, cond):
        for each in (cond, cls(impl.threading.Lock())):
            with pytest.raises(RuntimeError, match=r"^cannot wait on un-acquired lock$"):
                each.wait()
            with pytest.raises(RuntimeError, match=r"^cannot wait on un-acquired lock$"):
                each.wait(timeout=0)
            with pytest.raises(RuntimeError, match=r"^cannot wait on un-acquired lock$"):
                each.wait_for(lambda: False)
            assert each.wait_for(lambda: True) is True

    def test_notify_without_the_lock(self, impl, cls, cond):
        for each in (cond, cls(impl.threading.Lock())):
            for call in (each.notify, each.notify_all, lambda: each.notify(2)):
                with pytest.raises(RuntimeError, match=r"^cannot notify on un-acquired lock$"):
                    call()

    def test_lock_of_another_thread_does_not_count(self, cond):
        go, done = threading.Event(), threading.Event()

        def hold():
            with cond:
                go.set()
                done.wait()

        with Crew(hold):
            go.wait()
            with pytest.raises(RuntimeError):
                cond.notify()
            with pytest.raises(RuntimeError):
                cond.wait()
            done.set()

    # Waiting and waking

    def waiters(self, cond, size, timeout=None):
        def work():
            with cond:
                return cond.wait(timeout)

        return Crew(work, size)

    def test_notify_nobody(self, cond):
        with cond:
            assert cond.notify() is None
            assert cond.notify(5) is None
            assert cond.notify(n=0) is None
            assert cond.notify_all() is None

    def test_a_notification_is_not_kept(self, cond):
        with cond:
            cond.notify_all()
            assert cond.wait(0.02) is False

    def test_wait_returns_true(self, cond):
        with self.waiters(cond, 1) as crew:
            crew.wait_until_blocked()
            with cond:
                cond.notify()
        assert crew.results == [True]

    def test_notify_wakes_as_many_as_told(self, cond):
        with self.waiters(cond, 6) as crew:
            crew.wait_until_blocked()
            left = 6
            for step in (1, 2, 3):
                with cond:
                    cond.notify(step)
                crew.wait_finished(6 - left + step)
                left -= step
                wait_until(lambda: sum(t.is_alive() for t in crew.threads) == left, f"{left} are left")
                wait_until_blocked(*(t for t in crew.threads if t.is_alive()))
                assert len(crew.results) == 6 - left
        assert crew.results == [True] * 6

    @pytest.mark.parametrize("count", [0, -1, -100])
    def test_notify_of_none(self, cond, count):
        with self.waiters(cond, 2) as crew:
            crew.wait_until_blocked()
            with cond:
                cond.notify(count)
            crew.wait_until_blocked()
            assert crew.results == []
            with cond:
                cond.notify(100)

    def test_notify_all_wakes_all(self, cond):
        with self.waiters(cond, 5) as crew:
            crew.wait_until_blocked()
            with cond:
                cond.notify_all()
        assert crew.results == [True] * 5

    def test_the_longest_waiter_is_woken_first(self, cond):
        order = []

        def work(number):
            with cond:
                cond.wait()
                order.append(number)

        threads = []
        for number in range(5):
            thread = threading.Thread(target=work, args=(number,), daemon=True)
            thread.start()
            wait_until_blocked(thread)
            threads.append(thread)
        for number in range(5):
            with cond:
                cond.notify()
            wait_until(lambda: len(order) > number, "the next one is awake")
        assert order == [0, 1, 2, 3, 4]
        for thread in threads:
            thread.join(20)

    def test_nobody_runs_before_the_lock_is_free(self, cond):
        with self.waiters(cond, 3) as crew:
            crew.wait_until_blocked()
            with cond:
                cond.notify_all()
                crew.wait_until_blocked()
                assert crew.results == []
        assert crew.results == [True] * 3

    def test_wait_gives_the_lock_away_and_takes_it_back(self, cond):
        def work():
            with cond:
                cond.wait()
                return in_thread(cond.acquire, False)

        with Crew(work) as crew:
            crew.wait_until_blocked()
            assert cond.acquire(timeout=10)
            cond.notify()
            cond.release()
        assert crew.results == [False]

    def test_wait_gives_all_levels_away(self, cond):
        def work():
            with cond, cond, cond:
                cond.wait()
                levels = 0
                while cond._is_owned():
                    cond.release()
                    levels += 1
                for _ in range(levels):
                    cond.acquire()
                return levels

        with Crew(work) as crew:
            crew.wait_until_blocked()
            with cond:
                cond.notify()
        assert crew.results == [3]

    def test_new_waiter_does_not_eat_an_old_notification(self, cond):
        with self.waiters(cond, 2) as crew:
            crew.wait_until_blocked()
            with cond:
                cond.notify(2)
                assert cond.wait(0.02) is False
        assert crew.results == [True, True]

    # Timeouts

    def test_timeout_expires(self, cond):
        with cond:
            with Stopwatch() as watch:
                assert cond.wait(0.05) is False
            assert cond._is_owned()
        assert 0.045 <= watch.seconds < 5

    def test_timeout_by_keyword(self, cond):
        with cond:
            assert cond.wait(timeout=0.01) is False

    @pytest.mark.parametrize("timeout", [0, 0.0, -0.0, -1, -0.5, -1e100, -INF, False, float("nan")], ids=repr)
    def test_no_time_at_all(self, cond, timeout):
        with cond:
            assert cond.wait(timeout) is False
            assert cond._is_owned()

    @pytest.mark.parametrize("timeout", [1e100, INF, threading.TIMEOUT_MAX * 2], ids=repr)
    def test_timeout_too_large(self, cond, timeout):
        with cond:
            with pytest.raises(OverflowError):
                cond.wait(timeout)
            assert cond._is_owned()

    @pytest.mark.parametrize("timeout", ["1", [], object(), 1j], ids=["str", "list", "object", "complex"])
    def test_timeout_that_is_no_number(self, cond, timeout):
        with cond:
            with pytest.raises(TypeError):
                cond.wait(timeout)
            assert cond._is_owned()

    def test_notified_before_the_timeout(self, cond):
        with self.waiters(cond, 2, timeout=15) as crew:
            crew.wait_until_blocked()
            with cond:
                cond.notify_all()
        assert crew.results == [True, True]

    def test_timed_out_waiter_takes_no_notification(self, cond):
        with self.waiters(cond, 1) as crew:
            crew.wait_until_blocked()
            with cond:
                for _ in range(10):
                    assert cond.wait(0.001) is False
                cond.notify()
        assert crew.results == [True]

    # wait_for

    def test_wait_for_returns_the_value(self, cond):
        values = iter([0, "", None, [1]])

        def work():
            with cond:
                return cond.wait_for(lambda: next(values))

        with Crew(work) as crew:
            for _ in range(3):
                crew.wait_until_blocked()
                with cond:
                    cond.notify()
        assert crew.results == [[1]]

    def test_wait_for_what_is_true_already(self, cond):
        with cond:
            assert cond.wait_for(lambda: 7) == 7
            assert cond.wait_for(predicate=lambda: 7, timeout=0) == 7

    def test_wait_for_with_timeout(self, cond):
        with cond:
            with Stopwatch() as watch:
                assert cond.wait_for(lambda: False, timeout=0.05) is False
            assert 0.045 <= watch.seconds < 5
            assert cond.wait_for(lambda: [], 0.01) == []
            assert cond.wait_for(lambda: None, timeout=-1) is None

    def test_wait_for_counts_the_whole_time(self, cond):
        """Notifications do not start the time anew."""
        stop = threading.Event()

        def disturb():
            while not stop.is_set():
                with cond:
                    cond.notify_all()

        with Crew(disturb):
            with cond, Stopwatch() as watch:
                assert cond.wait_for(lambda: False, timeout=0.1) is False
            stop.set()
        assert 0.095 <= watch.seconds < 10

    def test_wait_for_whose_predicate_raises(self, cond):
        with cond:
            with pytest.raises(ZeroDivisionError):
                cond.wait_for(lambda: 1 / 0)
            assert cond._is_owned()

    def test_wait_for_uses_an_overridden_wait(self, cls):
        calls = []

        class Derived(cls):
            def wait(self, timeout=None):
                calls.append(timeout)
                return False

        cond = Derived()
        with cond:
            assert cond.wait_for(lambda: len(calls) >= 2) is True
        assert calls == [None, None]

    def test_notify_all_uses_an_overridden_notify(self, cls):
        calls = []

        class Derived(cls):
            def notify(self, n=1):
                calls.append(n)

        cond = Derived()
        with cond:
            cond.notify_all()
        assert calls == [0]

    # Old names

    def test_notifyAll(self, cond):
        with cond, pytest.warns(DeprecationWarning, match=r"use notify_all\(\)"):
            cond.notifyAll()

    # Locks of the user's own

    def test_lock_written_in_python(self, impl, cls):
        class Own:
            def __init__(self):
                self.inner = impl.threading.Lock()
                self.log = []

            def acquire(self, blocking=True, timeout=-1):
                self.log.append("acquire")
                return self.inner.acquire(blocking, timeout)

            def release(self):
                self.log.append("release")
                self.inner.release()

            def __enter__(self):
                self.acquire()
                return "entered"

            def __exit__(self, *exc_info):
                self.release()

        lock = Own()
        cond = cls(lock)
        with pytest.raises(RuntimeError):
            cond.notify()
        with self.waiters(cond, 2) as crew:
            crew.wait_until_blocked()
            with cond as entered:
                assert entered == "entered"
                cond.notify_all()
        assert crew.results == [True, True]
        assert lock.log.count("acquire") >= 5
        assert not lock.inner.locked()

    def test_lock_with_the_hooks_of_condition(self, impl, cls):
        log = []

        class Hooked:
            def __init__(self):
                self.inner = impl.threading.RLock()
                self.acquire, self.release = self.inner.acquire, self.inner.release

            def __enter__(self):
                return self.inner.__enter__()

            def __exit__(self, *exc_info):
                return self.inner.__exit__(*exc_info)

            def _release_save(self):
                log.append("release_save")
                return "ticket", self.inner._release_save()

            def _acquire_restore(self, state):
                log.append("acquire_restore")
                assert state[0] == "ticket"
                self.inner._acquire_restore(state[1])

            def _is_owned(self):
                log.append("is_owned")
                return self.inner._is_owned()

        cond = cls(Hooked())
        with cond, cond:
            assert cond.wait(0.01) is False
            cond.notify()
        assert [x for x in log if x != "is_owned"] == ["release_save", "acquire_restore"]
        assert "is_owned" in log

    def test_over_a_semaphore(self, impl, cls):
        cond = cls(impl.threading.Semaphore(1))
        with self.waiters(cond, 1) as crew:
            crew.wait_until_blocked()
            with cond:
                cond.notify()
        assert crew.results == [True]

    def test_over_another_condition(self, cls):
        cond = cls(cls())
        with self.waiters(cond, 1) as crew:
            crew.wait_until_blocked()
            with cond:
                cond.notify()
        assert crew.results == [True]

    # The object

    def test_repr(self, cond):
        assert_matches(r"^<Condition\(<unlocked .*RLock.* at 0x[0-9a-f]+>, 0\)>$", repr(cond))
        with self.waiters(cond, 2) as crew:
            crew.wait_until_blocked()
            assert_matches(r", 2\)>$", repr(cond))
            with cond:
                assert_matches(r"^<Condition\(<locked ", repr(cond))
                cond.notify_all()
        assert_matches(r", 0\)>$", repr(cond))

    def test_acquire_and_release_are_those_of_the_lock(self, impl, cls):
        lock = impl.threading.Lock()
        cond = cls(lock)
        assert cond.acquire == lock.acquire
        assert cond.release == lock.release

    def test_shallow_copy_shares_the_lock(self, cond):
        twin = copy.copy(cond)
        with cond:
            assert in_thread(twin.acquire, False) is False
            twin.notify()

    def test_at_fork_reinit(self, cond):
        cond.acquire()
        cond._at_fork_reinit()
        assert in_thread(lambda: cond.acquire(False) and cond.release()) is None
        with cond:
            cond.notify_all()
            assert cond.wait(0.01) is False

    def test_ping_pong(self, cond):
        turn = 0

        def play(me):
            nonlocal turn
            for _ in range(200):
                with cond:
                    while turn % 2 != me:
                        cond.wait()
                    turn += 1
                    cond.notify()

        with Crew(play, args=(0,)), Crew(play, args=(1,)):
            pass
        assert turn == 400
