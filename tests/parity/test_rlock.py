"""threading.RLock on both implementations."""

import sys
import warnings

import pytest
from lock_cases import LockCases

from tools import Crew, assert_matches, in_thread


class TestRLock(LockCases):
    kind = "RLock"

    def test_constructor_arguments(self, make):
        """Arguments were ever ignored; 3.13 warns of them."""
        if sys.version_info >= (3, 13):
            for args, kwargs in (((1,), {}), ((), {"a": 1}), ((1, 2), {"a": 1, "b": 2})):
                with pytest.warns(DeprecationWarning):
                    make(*args, **kwargs)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                lock = make(1)
            assert lock.acquire()

    def test_its_type_can_be_subclassed(self, make):
        class Counted(type(make())):
            def __init__(self, label):
                super().__init__()
                self.label = label

        lock = Counted("mine")
        assert lock.label == "mine"
        with lock, lock:
            assert in_thread(lock.acquire, False) is False
        assert in_thread(lambda: lock.acquire(False) and lock.release()) is None

    def test_overrides_in_a_subclass(self, make):
        calls = []

        class Traced(type(make())):
            def acquire(self, *args, **kwargs):
                calls.append("acquire")
                return super().acquire(*args, **kwargs)

            def __enter__(self):
                calls.append("enter")
                return super().__enter__()

        lock = Traced()
        with lock:
            lock.acquire()
            lock.release()
        assert calls == ["enter", "acquire"]

    def test_is_reentrant(self, lock):
        assert lock.acquire() is True
        assert lock.acquire() is True
        assert lock.acquire(False) is True
        assert lock.acquire(timeout=0.01) is True
        with lock as taken:
            assert taken is True
        for _ in range(4):
            assert in_thread(lock.acquire, False) is False
            lock.release()
        assert in_thread(lambda: lock.acquire(False) and lock.release()) is None

    def test_deep(self, lock):
        for _ in range(10_000):
            lock.acquire()
        for _ in range(10_000):
            assert lock._is_owned()
            lock.release()
        assert not lock._is_owned()

    @pytest.mark.parametrize("rounds", [0, 1, 2])
    def test_release_of_a_free_lock(self, lock, rounds):
        for _ in range(rounds):
            lock.acquire()
        for _ in range(rounds):
            lock.release()
        with pytest.raises(RuntimeError, match=r"^cannot release un-acquired lock$"):
            lock.release()
        with pytest.raises(RuntimeError, match=r"^cannot release un-acquired lock$"):
            lock.__exit__(None, None, None)
        assert lock.acquire(False) is True

    def test_only_the_owner_releases(self, lock):
        refusal = pytest.raises(RuntimeError, match=r"^cannot release un-acquired lock$")
        with self.held_elsewhere(lock), refusal:
            lock.release()
        assert lock.acquire(False) is True

    def test_is_owned(self, lock):
        assert lock._is_owned() is False
        with lock:
            assert lock._is_owned() is True
            assert in_thread(lock._is_owned) is False
            with lock:
                assert lock._is_owned() is True
            assert lock._is_owned() is True
        assert lock._is_owned() is False

    def test_recursion_count(self, lock):
        counts = [lock._recursion_count()]
        for _ in range(3):
            lock.acquire()
            counts.append(lock._recursion_count())
        assert in_thread(lock._recursion_count) == 0
        for _ in range(3):
            lock.release()
            counts.append(lock._recursion_count())
        assert counts == [0, 1, 2, 3, 2, 1, 0]
        with self.held_elsewhere(lock):
            assert lock._recursion_count() == 0

    def test_release_save_and_acquire_restore(self, lock):
        for _ in range(3):
            lock.acquire()
        state = lock._release_save()
        assert lock._is_owned() is False
        assert in_thread(lambda: lock.acquire(False) and lock.release()) is None
        assert lock._acquire_restore(state) is None
        assert lock._recursion_count() == 3
        for _ in range(3):
            lock.release()
        with pytest.raises(RuntimeError):
            lock.release()

    def test_acquire_restore_waits(self, lock):
        lock.acquire()
        state = lock._release_save()
        lock.acquire()

        def restore():
            # The count saved by one thread is taken over by another, as Condition does not forbid.
            lock.acquire()
            mine = lock._release_save()
            lock._acquire_restore(mine)
            lock.release()

        with Crew(restore) as crew:
            crew.wait_until_blocked()
            lock.release()
        lock._acquire_restore(state)
        lock.release()

    def test_release_save_of_a_free_lock(self, lock):
        with pytest.raises(RuntimeError, match=r"^cannot release un-acquired lock$"):
            lock._release_save()
        lock.acquire()
        lock.release()
        with pytest.raises(RuntimeError):
            lock._release_save()

    def test_at_fork_reinit_clears_the_count(self, lock):
        lock.acquire()
        lock.acquire()
        lock._at_fork_reinit()
        assert lock._is_owned() is False
        assert lock._recursion_count() == 0
        with pytest.raises(RuntimeError):
            lock.release()

    def test_repr_tells_the_count(self, lock):
        assert_matches(r"^<unlocked .*RLock object", repr(lock))
        lock.acquire()
        lock.acquire()
        assert_matches(r"^<locked .*RLock object .*count=2.* at 0x", repr(lock))

    def test_inner_release_wakes_nobody(self, lock):
        got = []

        def work():
            with lock:
                got.append(1)

        lock.acquire()
        lock.acquire()
        with Crew(work) as crew:
            crew.wait_until_blocked()
            lock.release()
            crew.wait_until_blocked()
            assert got == []
            lock.release()
        assert got == [1]

    def test_state_of_a_dead_owner(self, lock):
        """A thread that ends holding it leaves it held for ever."""
        in_thread(lock.acquire)
        assert lock.acquire(False) is False
        assert lock.acquire(timeout=0.01) is False

    def test_recursion_across_waits(self, lock):
        total = 0

        def work():
            nonlocal total
            for _ in range(100):
                with lock, lock, lock:
                    total += 1

        with Crew(work, 4):
            pass
        assert total == 400
        assert not lock._is_owned()
