"""threading.Lock on both implementations."""

import threading

import pytest
from lock_cases import LockCases

from tools import Crew, check_signature, in_thread


class TestLock(LockCases):
    kind = "Lock"

    @pytest.mark.parametrize("args, kwargs", [((1,), {}), ((), {"a": 1}), ((1, 2), {"a": 1, "b": 2})])
    def test_constructor_refuses_arguments(self, make, args, kwargs):
        with pytest.raises(TypeError):
            make(*args, **kwargs)

    def test_constructor_signature(self, make, reference):
        check_signature(make, reference, extra=["name"])

    def test_cannot_be_subclassed(self, make, lock):
        with pytest.raises(TypeError):
            type("Derived", (make,), {})
        with pytest.raises(TypeError):
            type("Derived", (type(lock),), {})

    def test_locked(self, lock):
        assert lock.locked() is False
        lock.acquire()
        assert lock.locked() is True
        assert in_thread(lock.locked) is True
        lock.release()
        assert lock.locked() is False
        with pytest.raises(TypeError):
            lock.locked(1)

    def test_locked_inside_with(self, lock):
        with lock:
            assert lock.locked() is True
        assert lock.locked() is False

    def test_old_names(self, lock):
        assert lock.acquire_lock() is True
        assert lock.locked_lock() is True
        assert lock.acquire_lock(False) is False
        assert lock.release_lock() is None
        assert lock.locked() is False

    def test_is_not_reentrant(self, lock):
        lock.acquire()
        assert lock.acquire(False) is False
        assert lock.acquire(timeout=0.01) is False

    def test_second_acquire_of_one_thread_waits_for_another(self, lock):
        def work():
            lock.acquire()
            lock.acquire()

        with Crew(work) as crew:
            crew.wait_until_blocked()
            lock.release()
        assert lock.locked()

    @pytest.mark.parametrize("rounds", [0, 1, 3])
    def test_release_of_a_free_lock(self, lock, rounds):
        for _ in range(rounds):
            lock.acquire()
            lock.release()
        with pytest.raises(RuntimeError, match=r"^release unlocked lock$"):
            lock.release()
        with pytest.raises(RuntimeError, match=r"^release unlocked lock$"):
            lock.__exit__(None, None, None)
        assert lock.acquire(False) is True

    def test_error_type_is_thread_error(self, impl, lock):
        with pytest.raises(impl.threading.ThreadError):
            lock.release()

    def test_any_thread_may_release(self, lock):
        lock.acquire()
        in_thread(lock.release)
        assert lock.locked() is False
        in_thread(lock.acquire)
        lock.release()
        assert lock.locked() is False

    def test_with_whose_lock_was_released_inside(self, lock):
        with pytest.raises(RuntimeError, match="release unlocked lock"), lock:
            lock.release()

    def test_with_whose_lock_changed_hands(self, lock):
        with lock:
            lock.release()
            in_thread(lock.acquire)
        assert lock.locked() is False

    def test_state_after_timeout(self, lock):
        lock.acquire()
        assert lock.acquire(timeout=0.01) is False
        lock.release()
        assert lock.locked() is False
        assert lock.acquire(blocking=False) is True

    def test_handover_chain(self, impl):
        """Each thread opens the next one's gate: 50 locks used as semaphores."""
        gates = [impl.threading.Lock() for _ in range(50)]
        for gate in gates:
            gate.acquire()
        order = []

        def run(number):
            gates[number].acquire()
            order.append(number)
            if number + 1 < len(gates):
                gates[number + 1].release()

        threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(50)]
        for thread in threads:
            thread.start()
        gates[0].release()
        for thread in threads:
            thread.join(20)
        assert order == list(range(50))
