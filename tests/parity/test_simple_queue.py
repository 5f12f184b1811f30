"""queue.SimpleQueue on both implementations."""

import copy
import gc
import pickle
import sys
import threading
import weakref
from unittest import mock

import pytest

from tools import STDLIB, Crew, Stopwatch, check_signature, outcome

INF = float("inf")
NAN = float("nan")


class TestSimpleQueue:
    @pytest.fixture
    def cls(self, impl):
        return impl.queue.SimpleQueue

    @pytest.fixture
    def queue(self, cls):
        return cls()

    @pytest.fixture
    def empty(self, impl):
        return impl.queue.Empty

    def test_first_in_first_out(self, queue):
        for i in range(2000):
            assert queue.put(i) is None
        assert [queue.get() for _ in range(2000)] == list(range(2000))

    def test_interleaved(self, queue):
        got = []
        for i in range(1000):
            queue.put(2 * i)
            queue.put(2 * i + 1)
            got.append(queue.get())
        while not queue.empty():
            got.append(queue.get_nowait())
        assert got == list(range(2000))

    def test_sizes(self, queue):
        assert (queue.qsize(), queue.empty()) == (0, True)
        queue.put(1)
        queue.put_nowait(2)
        assert (queue.qsize(), queue.empty()) == (2, False)
        queue.get()
        queue.get_nowait()
        assert (queue.qsize(), queue.empty()) == (0, True)

    def test_put_ignores_block_and_timeout(self, queue):
        queue.put(1, False)
        queue.put(2, True, -1)
        queue.put(3, block="x", timeout="y")
        queue.put(item=4, timeout=None)
        assert [queue.get() for _ in range(4)] == [1, 2, 3, 4]

    def test_empty(self, queue, empty):
        for call in (
            lambda: queue.get(False),
            lambda: queue.get(block=False),
            lambda: queue.get_nowait(),
            lambda: queue.get(timeout=0),
            lambda: queue.get(True, 0.01),
            lambda: queue.get(timeout=0.01),
        ):
            with pytest.raises(empty):
                call()

    def test_error_type_is_the_standard_one(self, empty):
        import queue as standard

        assert empty is standard.Empty

    def test_get_waits_for_a_put(self, queue):
        with Crew(queue.get, 4) as crew:
            crew.wait_until_blocked()
            for i in range(4):
                queue.put(i)
        assert sorted(crew.results) == [0, 1, 2, 3]

    def test_timed_get_gets_it_in_time(self, queue):
        with Crew(lambda: queue.get(timeout=15)) as crew:
            crew.wait_until_blocked()
            queue.put(1)
        assert crew.results == [1]

    def test_timeout_expires(self, queue, empty):
        with Stopwatch() as watch, pytest.raises(empty):
            queue.get(timeout=0.05)
        assert 0.045 <= watch.seconds < 5

    @pytest.mark.parametrize("timeout", [-1, -0.5, -(2**20)], ids=repr)
    def test_negative_timeout(self, queue, timeout):
        with pytest.raises(ValueError, match=r"^'timeout' must be a non-negative number$"):
            queue.get(timeout=timeout)
        queue.put(1)
        with pytest.raises(ValueError):
            queue.get(True, timeout)
        assert queue.get(False, timeout) == 1

    @pytest.mark.parametrize("timeout", [NAN, INF, -INF, 1e100, 2**70, "1", [], object(), 1j], ids=repr)
    def test_odd_timeouts(self, queue, timeout):
        other = STDLIB.queue.SimpleQueue()
        assert outcome(lambda: queue.get(timeout=timeout)) == outcome(lambda: other.get(timeout=timeout))
        queue.put(1)
        other.put(1)
        assert outcome(lambda: queue.get(timeout=timeout)) == outcome(lambda: other.get(timeout=timeout))

    @pytest.mark.parametrize("block", [0, "", None, [], 1, "x", 1.5, 2**40], ids=repr)
    def test_odd_block(self, queue, block):
        other = STDLIB.queue.SimpleQueue()
        queue.put(1)
        other.put(1)
        assert outcome(lambda: queue.get(block)) == outcome(lambda: other.get(block))
        if not block:
            assert outcome(lambda: queue.get(block)) == outcome(lambda: other.get(block))

    def test_wrong_arguments(self, cls, queue):
        for call in (
            lambda: cls(1),
            lambda: cls(maxsize=1),
            lambda: queue.put(),
            lambda: queue.put(1, True, None, 4),
            lambda: queue.put(1, wait=True),
            lambda: queue.put_nowait(),
            lambda: queue.get(True, None, 1),
            lambda: queue.get_nowait(1),
            lambda: queue.qsize(1),
        ):
            with pytest.raises(TypeError):
                call()

    def test_has_no_tasks_and_no_bound(self, queue):
        for name in ("task_done", "join", "full", "maxsize", "mutex"):
            assert not hasattr(queue, name)

    def test_signatures(self, cls):
        for name in ("put", "get", "put_nowait", "get_nowait", "qsize", "empty"):
            check_signature(getattr(cls, name), getattr(STDLIB.queue.SimpleQueue, name))
            check_signature(getattr(cls(), name), getattr(STDLIB.queue.SimpleQueue(), name))

    # Threads

    def test_producers_and_consumers(self, queue):
        got = []

        def consume():
            while (item := queue.get()) is not None:
                got.append(item)

        def produce(base):
            for i in range(500):
                queue.put(base + i)

        with Crew(consume, 3):
            crews = [Crew(produce, args=(base,)) for base in (0, 1000, 2000)]
            for crew in crews:
                crew.__enter__()
            for crew in crews:
                crew.__exit__(None, None, None)
            for _ in range(3):
                queue.put(None)
        assert sorted(got) == [base + i for base in (0, 1000, 2000) for i in range(500)]

    def test_order_of_one_producer(self, queue):
        got = []

        def consume():
            while (item := queue.get()) is not None:
                got.append(item)

        with Crew(consume):
            for i in range(3000):
                queue.put(i)
            queue.put(None)
        assert got == list(range(3000))

    def test_getters_with_timeouts(self, queue, empty):
        def work():
            for _ in range(200):
                while True:
                    try:
                        queue.get(timeout=0.001)
                        break
                    except empty:
                        pass

        with Crew(work, 3):
            for i in range(600):
                queue.put(i)
        assert queue.empty()

    # Re-entry

    def test_put_from_a_finalizer_within_put_and_get(self, cls):
        """Garbage that puts into the very queue whose put or get sets it free."""
        queue = cls()
        made, freed = 0, []

        class Bomb:
            def __init__(self, number):
                self.number = number
                self.cycle = self

            def __del__(self):
                freed.append(self.number)
                queue.put(("dead", self.number))

        thresholds = gc.get_threshold()
        gc.set_threshold(5)
        try:
            for made in range(300):
                Bomb(made)
                queue.put(("live", made))
                queue.get()
        finally:
            gc.set_threshold(*thresholds)
        gc.collect()
        left = [queue.get_nowait() for _ in range(queue.qsize())]
        assert len(freed) == made + 1
        assert len(left) == made + 1

    # The object

    def test_no_attributes_on_the_type_itself(self, queue):
        with pytest.raises(AttributeError):
            queue.colour = "red"

    def test_subclass(self, cls):
        class Derived(cls):
            def __init__(self, label):
                super().__init__()
                self.label = label

            def put(self, item, block=True, timeout=None):
                super().put((self.label, item))

        queue = Derived("mine")
        queue.put(1)
        assert queue.get() == ("mine", 1)
        assert isinstance(queue, cls)

    def test_patched_subclass(self, cls):
        class Derived(cls):
            pass

        queue = Derived()
        with mock.patch.object(queue, "get", return_value="fake"):
            assert queue.get() == "fake"
        queue.put(1)
        assert queue.get() == 1

    def test_weakref(self, cls):
        queue = cls()
        reference = weakref.ref(queue)
        assert reference() is queue
        del queue
        assert reference() is None

    def test_drops_what_it_hands_out(self, queue):
        class Payload:
            pass

        payload = Payload()
        reference = weakref.ref(payload)
        before = sys.getrefcount(payload)
        for _ in range(50):
            queue.put(payload)
            queue.get()
        assert sys.getrefcount(payload) == before
        queue.put(payload)
        del payload
        assert reference() is not None
        queue.get()
        assert reference() is None

    def test_drops_its_items_when_it_dies(self, cls):
        class Payload:
            pass

        queue, payload = cls(), Payload()
        reference = weakref.ref(payload)
        queue.put(payload)
        del queue, payload
        assert reference() is None

    def test_cycle_through_an_item(self, cls):
        class Derived(cls):
            pass

        for kind in (cls, Derived):
            queue = kind()
            reference = weakref.ref(queue)
            queue.put([queue])
            del queue
            gc.collect()
            assert reference() is None

    def test_cannot_be_copied(self, queue):
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot pickle"):
                duplicate(queue)

    def test_alias(self, cls):
        alias = cls[int]
        assert alias.__origin__ is cls
        assert type(alias()) is cls

    def test_is_no_container(self, queue):
        assert queue
        for call in (lambda: len(queue), lambda: iter(queue), lambda: 1 in queue):
            with pytest.raises(TypeError):
                call()

    def test_repr(self, cls, queue):
        assert "SimpleQueue object at 0x" in repr(queue)
        assert cls.__name__ == "SimpleQueue"

    def test_leaves_no_thread_behind(self, cls):
        before = threading.enumerate()
        for _ in range(10):
            cls().put(1)
        assert threading.enumerate() == before
