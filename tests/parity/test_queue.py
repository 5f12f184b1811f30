"""queue.Queue and queue.LifoQueue on both implementations."""

import collections

import pytest
from queue_cases import QueueCases, ShutdownCases

from tools import Crew


class TestQueue(QueueCases):
    kind = "Queue"

    def test_container_is_a_deque(self, cls):
        queue = cls()
        assert type(queue.queue) is collections.deque
        queue.put(1)
        with queue.mutex:
            queue.queue.appendleft(0)
            queue.unfinished_tasks += 1
            queue.not_empty.notify()
        assert [queue.get(), queue.get()] == [0, 1]

    def test_first_in_first_out_over_many(self, cls):
        queue = cls()
        for i in range(5000):
            queue.put(i)
        assert [queue.get() for _ in range(5000)] == list(range(5000))

    def test_order_between_two_threads(self, cls):
        queue = cls(4)
        got = []

        def consume():
            for _ in range(1000):
                got.append(queue.get())

        with Crew(consume):
            for i in range(1000):
                queue.put(i)
        assert got == list(range(1000))

    def test_any_object(self, cls):
        queue = cls()
        items = [None, (), "x", object(), 1.5, queue, ValueError]
        for item in items:
            queue.put(item)
        for item in items:
            assert queue.get() is item

    def test_items_removed_by_hand(self, cls):
        queue = cls()
        for i in range(5):
            queue.put(i)
        with queue.mutex:
            queue.queue.remove(2)
            queue.queue.rotate(1)
        assert [queue.get() for _ in range(4)] == [4, 0, 1, 3]

    def test_container_with_a_bound_of_its_own(self, cls):
        class Ring(cls):
            def _init(self, maxsize):
                self.queue = collections.deque(maxlen=3)

        queue = Ring()
        for i in range(5):
            queue.put(i)
        assert [queue.get() for _ in range(3)] == [2, 3, 4]


class TestLifoQueue(QueueCases):
    kind = "LifoQueue"

    @staticmethod
    def order(items):
        return list(items)[::-1]

    def test_is_a_queue(self, impl, cls):
        assert issubclass(cls, impl.queue.Queue)

    def test_container_is_a_list(self, cls):
        queue = cls()
        assert type(queue.queue) is list
        queue.put(1)
        with queue.mutex:
            queue.queue.insert(0, 0)
        assert [queue.get(), queue.get()] == [1, 0]

    def test_last_in_first_out_over_many(self, cls):
        queue = cls()
        for i in range(5000):
            queue.put(i)
        assert [queue.get() for _ in range(5000)] == list(range(4999, -1, -1))


class TestQueueShutdown(ShutdownCases):
    kind = "Queue"

    def test_order_is_kept(self, cls, closed):
        queue = cls()
        for i in range(5):
            queue.put(i)
        queue.shutdown()
        assert [queue.get() for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(closed):
            queue.get()


class TestLifoQueueShutdown(ShutdownCases):
    kind = "LifoQueue"
