"""queue.PriorityQueue on both implementations."""

import dataclasses
import heapq
import random

import pytest
from queue_cases import QueueCases, ShutdownCases


@dataclasses.dataclass(order=True)
class Job:
    priority: int
    text: str = dataclasses.field(compare=False)


class TestPriorityQueue(QueueCases):
    kind = "PriorityQueue"

    @staticmethod
    def order(items):
        return sorted(items)

    def test_is_a_queue(self, impl, cls):
        assert issubclass(cls, impl.queue.Queue)

    def test_container_is_a_heap(self, cls):
        queue = cls()
        assert type(queue.queue) is list
        for item in (5, 3, 4, 1, 2):
            queue.put(item)
        heap = []
        for item in (5, 3, 4, 1, 2):
            heapq.heappush(heap, item)
        assert queue.queue == heap
        assert queue.queue[0] == 1

    def test_changed_by_hand_and_made_a_heap_again(self, cls):
        queue = cls()
        for item in (5, 3, 4, 1, 2):
            queue.put(item)
        with queue.mutex:
            queue.queue[:] = [-item for item in queue.queue if item != 3]
            heapq.heapify(queue.queue)
        assert [queue.get() for _ in range(4)] == [-5, -4, -2, -1]

    def test_pairs(self, cls):
        queue = cls()
        for pair in [(2, "b"), (1, "z"), (2, "a"), (1, "y")]:
            queue.put(pair)
        assert [queue.get() for _ in range(4)] == [(1, "y"), (1, "z"), (2, "a"), (2, "b")]

    def test_equal_ones_come_in_the_order_of_the_heap(self, cls, reference):
        """Not first in, first out: exactly as heapq would have it."""
        ours, other = cls(), reference()
        rng = random.Random(7)
        for i in range(200):
            job = Job(rng.randrange(5), str(i))
            ours.put(job)
            other.put(job)
            if i % 3 == 2:
                assert ours.get() is other.get()
        while not other.empty():
            assert ours.get() is other.get()

    def test_only_less_than_is_asked(self, cls):
        class Only:
            def __init__(self, value):
                self.value = value

            def __lt__(self, other):
                return self.value < other.value

        queue = cls()
        for value in (3, 1, 2):
            queue.put(Only(value))
        assert [queue.get().value for _ in range(3)] == [1, 2, 3]

    def test_random(self, cls):
        rng = random.Random(11)
        queue, heap = cls(), []
        for _ in range(2000):
            if heap and rng.random() < 0.45:
                assert queue.get() == heapq.heappop(heap)
            else:
                item = rng.randrange(500)
                queue.put(item)
                heapq.heappush(heap, item)
        assert queue.queue == heap

    def test_items_that_cannot_be_compared(self, cls):
        queue = cls()
        queue.put(1)
        with pytest.raises(TypeError, match="'<' not supported"):
            queue.put("x")
        assert queue.unfinished_tasks == 1
        queue.put(2)

    def test_comparison_that_raises_on_put(self, cls):
        class Touchy:
            def __init__(self, value):
                self.value = value

            def __lt__(self, other):
                if other.value == 13 or self.value == 13:
                    raise ZeroDivisionError
                return self.value < other.value

        queue = cls()
        queue.put(Touchy(2))
        with pytest.raises(ZeroDivisionError):
            queue.put(Touchy(13))
        assert queue.unfinished_tasks == 1
        assert queue.queue[0].value == 2
        assert not queue.mutex.locked()

    def test_comparison_that_raises_on_get(self, cls):
        class Touchy:
            armed = False

            def __init__(self, value):
                self.value = value

            def __lt__(self, other):
                if Touchy.armed:
                    raise ZeroDivisionError
                return self.value < other.value

        queue = cls()
        for value in range(5):
            queue.put(Touchy(value))
        Touchy.armed = True
        with pytest.raises(ZeroDivisionError):
            queue.get()
        Touchy.armed = False
        assert not queue.mutex.locked()
        before = queue.qsize()
        queue.put(Touchy(9))
        assert queue.qsize() == before + 1

    def test_comparison_result_is_judged_by_truth(self, cls):
        class Odd(int):
            def __lt__(self, other):
                return [1] if int(self) < int(other) else []

        queue = cls()
        for value in (3, 1, 2):
            queue.put(Odd(value))
        assert [queue.get() for _ in range(3)] == [1, 2, 3]

    def test_nan_does_no_harm(self, cls):
        queue = cls()
        for value in (1.0, float("nan"), 0.5, 2.0):
            queue.put(value)
        assert sorted(str(queue.get()) for _ in range(4)) == ["0.5", "1.0", "2.0", "nan"]


class TestPriorityQueueShutdown(ShutdownCases):
    kind = "PriorityQueue"
