"""What Lock and RLock have in common; test_lock.py and test_rlock.py run these cases for their type."""

# ruff: noqa: B023 - the functions made in a loop run within their lap.

import _thread
import contextlib
import copy
import gc
import pickle
import threading
import weakref

import pytest

from tools import (
    STDLIB,
    Crew,
    Stopwatch,
    assert_matches,
    check_signature,
    in_thread,
    outcome,
    wait_until,
    wait_until_blocked,
)

NAN = float("nan")
INF = float("inf")


class LockCases:
    kind = None  # The name in `threading`.

    @pytest.fixture
    def make(self, impl):
        return getattr(impl.threading, self.kind)

    @pytest.fixture
    def lock(self, make):
        return make()

    @pytest.fixture
    def reference(self):
        return getattr(STDLIB.threading, self.kind)

    @contextlib.contextmanager
    def held_elsewhere(self, lock):
        """Another thread holds the lock during the block."""
        taken, give_back = threading.Event(), threading.Event()

        def hold():
            lock.acquire()
            taken.set()
            give_back.wait()
            lock.release()

        with Crew(hold):
            taken.wait()
            try:
                yield
            finally:
                give_back.set()

    # Taking and giving back

    def test_acquire_returns_true_and_release_returns_none(self, lock):
        assert lock.acquire() is True
        assert lock.release() is None

    def test_many_rounds(self, lock):
        for _ in range(1000):
            assert lock.acquire() is True
            lock.release()

    def test_acquire_without_blocking(self, lock):
        assert lock.acquire(False) is True
        lock.release()
        assert lock.acquire(blocking=False) is True
        lock.release()

    def test_acquire_without_blocking_while_held(self, lock):
        with self.held_elsewhere(lock):
            assert lock.acquire(False) is False
            assert lock.acquire(blocking=False) is False
            assert lock.acquire(0) is False
            assert lock.acquire(timeout=0) is False
            assert lock.acquire(True, 0) is False
            assert lock.acquire(False, -1) is False
        assert lock.acquire(False) is True

    def test_waiters_all_get_it(self, lock):
        lock.acquire()
        with Crew(lambda: (lock.acquire(), lock.release()), 5) as crew:
            crew.wait_until_blocked()
            assert crew.results == []
            lock.release()
        assert crew.results == [(True, None)] * 5

    def test_mutual_exclusion(self, lock):
        inside = []
        worst = []

        def work():
            for _ in range(200):
                with lock:
                    inside.append(1)
                    worst.append(len(inside))
                    inside.pop()

        with Crew(work, 4):
            pass
        assert max(worst) == 1
        assert len(worst) == 800

    def test_no_lost_update(self, lock):
        total = 0

        def work():
            nonlocal total
            for _ in range(500):
                lock.acquire()
                value = total
                total = value + 1
                lock.release()

        with Crew(work, 4):
            pass
        assert total == 2000

    def test_threads_not_made_by_threading(self, lock):
        done = []
        before = threading.enumerate()

        def work():
            lock.acquire()
            lock.release()
            done.append(1)

        for _ in range(15):
            _thread.start_new_thread(work, ())
        wait_until(lambda: len(done) == 15, "all foreign threads are through")
        assert threading.enumerate() == before

    def test_threads_of_the_same_implementation(self, impl, lock):
        lock.acquire()
        with Crew(lambda: lock.acquire() and lock.release(), 3, thread=impl.threading.Thread) as crew:
            crew.wait_until_blocked()
            lock.release()
        assert crew.results == [None] * 3

    # with

    def test_with_holds_it(self, lock):
        with lock:
            assert in_thread(lock.acquire, False) is False
        assert in_thread(lambda: lock.acquire(False) and lock.release()) is None

    def test_with_gives_true(self, lock):
        with lock as taken:
            assert taken is True

    def test_with_gives_back_after_an_exception(self, lock):
        with pytest.raises(ZeroDivisionError), lock:
            raise ZeroDivisionError
        assert in_thread(lock.acquire, False) is True

    def test_with_blocks(self, lock):
        order = []

        def work():
            with lock:
                order.append("worker")

        lock.acquire()
        with Crew(work) as crew:
            crew.wait_until_blocked()
            order.append("main")
            lock.release()
        assert order == ["main", "worker"]

    def test_context_methods_by_hand(self, lock):
        assert lock.__enter__() is True
        assert not lock.__exit__(None, None, None)
        assert type(lock).__enter__(lock) is True
        assert not type(lock).__exit__(lock, ValueError, ValueError("x"), None)

    def test_exit_stack(self, lock):
        with contextlib.ExitStack() as stack:
            assert stack.enter_context(lock) is True
            assert in_thread(lock.acquire, False) is False
        assert in_thread(lambda: lock.acquire(False) and lock.release()) is None

    def test_return_inside_with(self, lock):
        def leave():
            with lock:
                return "left"

        assert leave() == "left"
        assert in_thread(lambda: lock.acquire(False) and lock.release()) is None

    def test_saved_bound_methods(self, lock):
        acquire, release, enter, leave = lock.acquire, lock.release, lock.__enter__, lock.__exit__
        for _ in range(3):
            acquire()
            release()
            enter()
            leave(None, None, None)
        with lock:
            pass
        assert in_thread(lambda: acquire(False) and release()) is None

    # Timeouts

    def test_timeout_expires(self, lock):
        with self.held_elsewhere(lock), Stopwatch() as watch:
            assert lock.acquire(timeout=0.05) is False
        assert 0.045 <= watch.seconds < 5

    def test_timeout_given_by_position(self, lock):
        with self.held_elsewhere(lock), Stopwatch() as watch:
            assert lock.acquire(True, 0.05) is False
        assert 0.045 <= watch.seconds < 5

    def test_timeout_in_a_thread(self, lock):
        lock.acquire()
        assert in_thread(lock.acquire, True, 0.02) is False
        lock.release()
        assert in_thread(lambda: lock.acquire(True, 0.02) and lock.release()) is None

    def test_timed_acquire_gets_it_in_time(self, lock):
        lock.acquire()
        with Crew(lambda: lock.acquire(timeout=15)) as crew:
            crew.wait_until_blocked()
            lock.release()
        assert crew.results == [True]

    def test_timed_out_waiter_is_forgotten(self, lock):
        with self.held_elsewhere(lock):
            for _ in range(20):
                assert lock.acquire(timeout=0.001) is False
        assert lock.acquire(timeout=5) is True
        lock.release()
        assert in_thread(lambda: lock.acquire(False) and lock.release()) is None

    def test_longest_timeout(self, impl, lock):
        assert lock.acquire(timeout=impl.threading.TIMEOUT_MAX) is True
        lock.release()

    def test_timeout_and_non_blocking_exclude_each_other(self, lock):
        with pytest.raises(ValueError, match="can't specify a timeout for a non-blocking call"):
            lock.acquire(False, 1)
        with pytest.raises(ValueError, match="can't specify a timeout for a non-blocking call"):
            lock.acquire(blocking=False, timeout=0)

    @pytest.mark.parametrize("timeout", [-2, -0.5, -100, -1e-3])
    def test_negative_timeout(self, lock, reference, timeout):
        with pytest.raises(ValueError) as expected:
            reference().acquire(timeout=timeout)
        with pytest.raises(ValueError) as got:
            lock.acquire(timeout=timeout)
        assert str(got.value) == str(expected.value)

    def test_minus_one_waits_without_limit(self, lock):
        for timeout in (-1, -1.0):
            lock.acquire()
            with Crew(lambda: lock.acquire(True, timeout) and lock.release()) as crew:
                crew.wait_until_blocked()
                lock.release()

    @pytest.mark.parametrize("timeout", [1e100, INF, threading.TIMEOUT_MAX + 1, 2**70])
    def test_timeout_too_large(self, lock, timeout):
        with pytest.raises(OverflowError):
            lock.acquire(timeout=timeout)

    @pytest.mark.parametrize(
        "timeout", [NAN, -INF, -1e100, -(2**70), "1", b"1", None, 1j, [], object()], ids=repr
    )
    def test_odd_timeouts(self, lock, reference, timeout):
        assert outcome(lambda: lock.acquire(timeout=timeout)) == outcome(
            lambda: reference().acquire(timeout=timeout)
        )

    def test_timeout_objects(self, lock, reference):
        class Index:
            def __index__(self):
                return 0

        class Float:
            def __float__(self):
                return 0.0

        for timeout in (True, Index(), Float(), 0.0, -0.0):
            other = reference()
            got = outcome(lambda: lock.acquire(timeout=timeout))
            assert got == outcome(lambda: other.acquire(timeout=timeout)), timeout
            if got == ("returned", True):
                lock.release()

    @pytest.mark.parametrize(
        "blocking", [1, 0, 2, True, False, None, "", "x", 1.5, [], [1], 2**40, object()], ids=repr
    )
    def test_odd_blocking(self, lock, reference, blocking):
        assert outcome(lambda: lock.acquire(blocking)) == outcome(lambda: reference().acquire(blocking))

    def test_wrong_arguments(self, lock):
        for call in (
            lambda: lock.acquire(True, 1, 2),
            lambda: lock.acquire(wait=True),
            lambda: lock.acquire(True, blocking=True),
            lambda: lock.release(1),
            lambda: lock.release(x=1),
        ):
            with pytest.raises(TypeError):
                call()
        assert in_thread(lambda: lock.acquire(False) and lock.release()) is None

    # The object

    def test_repr(self, lock):
        pattern = r"^<%s .*\S object (.*)?at 0x[0-9a-f]+>$"
        assert_matches(pattern % "unlocked", repr(lock))
        with lock:
            assert_matches(pattern % "locked", repr(lock))
        assert_matches(pattern % "unlocked", repr(lock))

    def test_weakref(self, lock, make):
        other = make()
        died = []
        reference = weakref.ref(other, died.append)
        assert reference() is other
        del other
        gc.collect()
        assert reference() is None
        assert died == [reference]
        assert weakref.ref(lock) is weakref.ref(lock)

    def test_locked_one_can_die(self, make):
        lock = make()
        lock.acquire()
        reference = weakref.ref(lock)
        del lock
        gc.collect()
        assert reference() is None

    def test_is_hashable_and_equal_to_itself_only(self, lock, make):
        other = make()
        assert lock == lock
        assert lock != other
        assert len({lock, other, lock}) == 2

    def test_has_no_attributes_of_the_users(self, lock):
        with pytest.raises(AttributeError):
            lock.anything = 1
        with pytest.raises(AttributeError):
            lock.acquire = None

    def test_type_is_immutable(self, lock):
        with pytest.raises(TypeError):
            type(lock).anything = 1

    @pytest.mark.parametrize(
        "duplicate", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda f: f.__qualname__
    )
    def test_cannot_be_copied(self, lock, duplicate):
        with pytest.raises(TypeError, match="cannot pickle"):
            duplicate(lock)

    def test_is_true(self, lock):
        assert lock

    @pytest.mark.parametrize("name", ["acquire", "release", "_at_fork_reinit"])
    def test_signatures(self, lock, reference, name):
        check_signature(getattr(lock, name), getattr(reference(), name))

    def test_public_names(self, lock, reference):
        missing = {name for name in dir(reference()) if not name.startswith("__")} - set(dir(lock))
        assert not missing

    def test_methods_have_documentation(self, lock):
        for name in ("acquire", "release"):
            assert getattr(lock, name).__doc__

    # Fork

    def test_at_fork_reinit_of_a_free_lock(self, lock):
        lock._at_fork_reinit()
        assert lock.acquire(False) is True
        lock.release()

    def test_at_fork_reinit_of_a_held_lock(self, lock):
        lock.acquire()
        lock._at_fork_reinit()
        assert in_thread(lambda: lock.acquire(False) and lock.release()) is None
        assert lock.acquire(False) is True

    # Together

    def test_waiter_blocks_in_the_system(self, lock):
        """A waiter sleeps; it does not poll."""
        lock.acquire()
        with Crew(lambda: lock.acquire() and lock.release()) as crew:
            wait_until_blocked(*crew.threads)
            lock.release()

    def test_one_waiter_at_a_time(self, lock):
        lock.acquire()
        order = []
        gate = threading.Semaphore(0)

        def work():
            lock.acquire()
            order.append(1)
            gate.acquire()
            lock.release()

        with Crew(work, 3) as crew:
            crew.wait_until_blocked()
            lock.release()
            for count in (1, 2, 3):
                wait_until(lambda: len(order) >= count, f"{count} have had it")
                wait_until(
                    lambda: sum(thread.is_alive() for thread in crew.threads) == 4 - count, "one has left"
                )
                wait_until_blocked(*(thread for thread in crew.threads if thread.is_alive()))
                assert len(order) == count
                gate.release()
