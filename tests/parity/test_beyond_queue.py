"""put_many, get_many, and what user code called from inside a queue may do to it."""

import threading
import time

import pytest

from tools import DEADLINE, Crew, Stopwatch, wait_until

KINDS = ["Queue", "LifoQueue", "PriorityQueue"]


@pytest.fixture(params=KINDS)
def cls(request, raddle):
    return getattr(raddle.queue, request.param)


class TestPutMany:
    def test_returns_the_number(self, cls):
        queue = cls()
        assert queue.put_many([3, 1, 2]) == 3
        assert queue.put_many(iter("")) == 0
        assert queue.put_many(i for i in range(4)) == 4
        assert (queue.qsize(), queue.unfinished_tasks) == (7, 7)
        assert sorted(queue.get() for _ in range(7)) == [0, 1, 1, 2, 2, 3, 3]

    def test_order_is_that_of_single_puts(self, cls):
        one, many = cls(), cls()
        items = [5, 3, 9, 1, 7, 3]
        for item in items:
            one.put(item)
        many.put_many(items)
        assert list(many.queue) == list(one.queue)
        assert [many.get() for _ in items] == [one.get() for _ in items]

    def test_wakes_as_many_getters_as_items(self, cls):
        queue = cls()
        with Crew(queue.get, 5) as crew:
            crew.wait_until_blocked()
            queue.put_many([1, 2, 3])
            crew.wait_finished(3)
            queue.put_many([4, 5])
        assert sorted(crew.results) == [1, 2, 3, 4, 5]

    def test_waits_for_room(self, cls):
        queue = cls(2)
        with Crew(lambda: queue.put_many(range(5))) as crew:
            crew.wait_until_blocked()
            assert queue.qsize() == 2
            got = [queue.get(timeout=DEADLINE) for _ in range(5)]
        assert crew.results == [5]
        assert sorted(got) == [0, 1, 2, 3, 4]

    def test_full_without_blocking(self, raddle, cls):
        queue = cls(3)
        with pytest.raises(raddle.queue.Full) as error:
            queue.put_many(range(10), block=False)
        assert error.value.count == 3
        assert queue.qsize() == 3
        with pytest.raises(raddle.queue.Full) as error:
            queue.put_many([1], False)
        assert error.value.count == 0

    def test_full_after_a_timeout(self, raddle, cls):
        queue = cls(3)
        with Stopwatch() as watch, pytest.raises(raddle.queue.Full) as error:
            queue.put_many(range(10), timeout=0.05)
        assert 0.045 <= watch.seconds < 5
        assert error.value.count == 3
        assert queue.unfinished_tasks == 3

    def test_negative_timeout(self, cls):
        with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
            cls(1).put_many([1], timeout=-1)

    def test_shut_down(self, raddle, cls):
        queue = cls()
        queue.shutdown()
        with pytest.raises(raddle.queue.ShutDown) as error:
            queue.put_many([1, 2])
        assert error.value.count == 0

    def test_shut_down_on_the_way(self, raddle, cls):
        queue = cls(2)

        def work():
            with pytest.raises(raddle.queue.ShutDown) as error:
                queue.put_many(range(5))
            return error.value.count

        with Crew(work) as crew:
            crew.wait_until_blocked()
            queue.shutdown()
        assert crew.results == [2]
        assert queue.qsize() == 2

    def test_iterable_that_raises(self, cls):
        def items():
            yield 1
            yield 2
            raise ZeroDivisionError

        queue = cls()
        with pytest.raises(ZeroDivisionError):
            queue.put_many(items())
        assert queue.qsize() == queue.unfinished_tasks
        assert not queue.mutex.locked()
        queue.put(3)

    def test_iterable_that_uses_the_queue(self, cls):
        queue = cls()

        def items():
            yield 1
            queue.put(10)
            yield 2
            assert queue.qsize() >= 1

        assert queue.put_many(items()) == 2
        assert sorted(queue.get() for _ in range(3)) == [1, 2, 10]

    def test_what_is_no_iterable(self, cls):
        with pytest.raises(TypeError):
            cls().put_many(5)

    def test_hooks_of_a_subclass(self, cls):
        log = []

        class Traced(cls):
            def _put(self, item):
                log.append(item)
                super()._put(item)

        queue = Traced()
        queue.put_many([1, 2, 3])
        assert log == [1, 2, 3]

    def test_exactly_once(self, cls):
        queue = cls(7)
        got = []

        def consume():
            while True:
                items = queue.get_many(5)
                got.extend(item for item in items if item < 10**6)
                if any(item >= 10**6 for item in items):
                    surplus = [item for item in items if item >= 10**6][1:]
                    if surplus:
                        queue.put_many(surplus)
                    return

        with Crew(consume, 3):
            crews = [Crew(queue.put_many, args=(range(base, base + 300),)) for base in (0, 300, 600)]
            for crew in crews:
                crew.__enter__()
            for crew in crews:
                crew.__exit__(None, None, None)
            # A LIFO queue hands these out first: let the others go before.
            wait_until(queue.empty, "all is taken")
            queue.put_many([10**6, 10**6, 10**6])
        assert sorted(got) == list(range(900))


class TestGetMany:
    def test_takes_all(self, cls):
        queue = cls()
        queue.put_many([1, 2, 3])
        items = queue.get_many()
        assert isinstance(items, list)
        assert sorted(items) == [1, 2, 3]
        assert queue.empty()
        assert queue.unfinished_tasks == 3

    def test_order_is_that_of_single_gets(self, cls):
        one, many = cls(), cls()
        for item in (5, 3, 9, 1):
            one.put(item)
            many.put(item)
        assert many.get_many() == [one.get() for _ in range(4)]

    def test_at_most(self, cls):
        queue = cls()
        queue.put_many(range(5))
        assert len(queue.get_many(2)) == 2
        assert len(queue.get_many(max_items=2)) == 2
        assert len(queue.get_many(10)) == 1

    def test_waits_for_the_first_only(self, cls):
        queue = cls()
        with Crew(lambda: queue.get_many(3)) as crew:
            crew.wait_until_blocked()
            queue.put(1)
        assert crew.results == [[1]]

    def test_empty(self, raddle, cls):
        queue = cls()
        with pytest.raises(raddle.queue.Empty):
            queue.get_many(block=False)
        with Stopwatch() as watch, pytest.raises(raddle.queue.Empty):
            queue.get_many(timeout=0.05)
        assert 0.045 <= watch.seconds < 5

    def test_negative_timeout(self, cls):
        with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
            cls().get_many(timeout=-1)

    def test_shut_down(self, raddle, cls):
        queue = cls()
        queue.put_many([1, 2])
        queue.shutdown()
        assert sorted(queue.get_many()) == [1, 2]
        with pytest.raises(raddle.queue.ShutDown):
            queue.get_many()

    def test_makes_room_for_all_it_took(self, cls):
        queue = cls(3)
        queue.put_many([1, 2, 3])
        with Crew(lambda: queue.put(4), 3) as crew:
            crew.wait_until_blocked()
            assert len(queue.get_many()) == 3
        assert queue.qsize() == 3

    def test_hooks_of_a_subclass(self, cls):
        log = []

        class Traced(cls):
            def _get(self):
                item = super()._get()
                log.append(item)
                return item

        queue = Traced()
        queue.put_many([1, 2, 3])
        assert queue.get_many() == log
        assert len(log) == 3

    def test_hook_that_fails_loses_nothing(self, cls):
        class Fails(cls):
            left = 2

            def _get(self):
                if not self.left:
                    raise ZeroDivisionError
                self.left -= 1
                return super()._get()

        queue = Fails()
        queue.put_many([1, 2, 3])
        try:
            taken = queue.get_many()
        except ZeroDivisionError:
            taken = []
            assert queue.qsize() == 3, "items taken before the failure are lost"
        queue.left = 10
        assert sorted(taken + [queue.get() for _ in range(queue.qsize())]) == [1, 2, 3]


class Item:
    """Compared by value; runs `hook` first, once for each time it is armed."""

    hook = None

    def __init__(self, value):
        self.value = value

    def __lt__(self, other):
        hook, Item.hook = Item.hook, None
        if hook is not None:
            hook()
        return self.value < other.value


class TestComparisons:
    @pytest.fixture(autouse=True)
    def disarm(self):
        yield
        Item.hook = None

    @pytest.fixture
    def queue(self, raddle):
        queue = raddle.queue.PriorityQueue()
        for value in range(10):
            queue.put(Item(value))
        return queue

    def drain(self, queue):
        return sorted(queue.get_nowait().value for _ in range(queue.qsize()))

    @pytest.mark.parametrize("outer", ["put", "get"])
    @pytest.mark.parametrize("inner", ["put", "get_nowait", "qsize", "empty", "full", "task_done"])
    def test_that_use_the_queue(self, queue, outer, inner):
        """No hang, no item lost and none twice, whether the inner call succeeds or is refused."""
        there = set(range(10))
        refused = []

        def hook():
            try:
                if inner == "put":
                    queue.put(Item(100))
                    there.add(100)
                elif inner == "get_nowait":
                    there.remove(queue.get_nowait().value)
                else:
                    getattr(queue, inner)()
            except RuntimeError as error:
                refused.append(error)

        def work():
            Item.hook = hook
            if outer == "put":
                queue.put(Item(50))
                there.add(50)
            else:
                there.remove(queue.get().value)

        with Crew(work):
            pass
        assert self.drain(queue) == sorted(there)
        assert not queue.mutex.locked()

    @pytest.mark.parametrize("outer", ["put", "get"])
    def test_that_raise(self, queue, outer):
        def hook():
            raise ZeroDivisionError

        Item.hook = hook
        with pytest.raises(ZeroDivisionError):
            queue.put(Item(50)) if outer == "put" else queue.get()
        # heapq would have kept the item of a failed put, and lost that of a failed get.
        assert (queue.qsize(), queue.unfinished_tasks) == (10, 10)
        assert not queue.mutex.locked()
        queue.put(Item(60))
        assert self.drain(queue) == [*range(10), 60]

    def test_that_block(self, queue):
        """Others wait for the comparison to end, and then all goes on."""
        inside, gate = threading.Event(), threading.Event()
        Item.hook = lambda: (inside.set(), gate.wait())
        with Crew(lambda: queue.put(Item(50))):
            inside.wait(DEADLINE)
            with Crew(lambda: (queue.put(Item(60)), queue.get().value), 3) as others:
                gate.set()
        assert sorted(result[1] for result in others.results) == [0, 1, 2]
        assert self.drain(queue) == [3, 4, 5, 6, 7, 8, 9, 50, 60, 60, 60]

    def test_that_switch_threads(self, raddle):
        """Comparisons that give the GIL away each time."""

        class Slow(int):
            def __lt__(self, other):
                time.sleep(0)
                return int(self) < int(other)

        queue, got = raddle.queue.PriorityQueue(8), []

        def produce(base):
            for i in range(100):
                queue.put(Slow(base + i))

        def consume():
            for _ in range(100):
                got.append(int(queue.get()))

        crews = [Crew(produce, args=(base,)) for base in (0, 100, 200)] + [Crew(consume) for _ in range(3)]
        for crew in crews:
            crew.__enter__()
        for crew in crews:
            crew.__exit__(None, None, None)
        assert sorted(got) == list(range(300))


class TestReentry:
    def test_finalizer_that_puts(self, raddle, cls):
        """An item that dies inside the queue's own call puts another one."""
        queue = cls()

        class Last:
            def __init__(self, value):
                self.value = value

            def __lt__(self, other):
                return True

            def __del__(self):
                if self.value:
                    queue.put(Last(self.value - 1))

        queue.put(Last(20))
        for _ in range(20):
            queue.get()
        assert queue.qsize() == 1
        queue.get()
        assert queue.empty()

    def test_finalizer_that_puts_at_shutdown(self, raddle, cls):
        queue, refused = cls(), []

        class Last:
            def __lt__(self, other):
                return True

            def __del__(self):
                try:
                    queue.put(1)
                except raddle.queue.ShutDown:
                    refused.append(1)

        for _ in range(5):
            queue.put(Last())
        queue.shutdown(immediate=True)
        assert len(refused) == 5
        assert queue.empty()
