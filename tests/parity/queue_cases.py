"""What Queue, LifoQueue and PriorityQueue have in common, and what shutdown() does to each."""

# ruff: noqa: B023 - the functions made in a loop run within their lap.

import copy
import gc
import queue as standard
import sys
import threading
import time
import weakref
from unittest import mock

import pytest
from object_cases import ObjectCases

from tools import RADDLE, STDLIB, Crew, Stopwatch, in_thread, wait_until

INF = float("inf")


class QueueCases(ObjectCases):
    module = "queue"
    methods = ("put", "get", "put_nowait", "get_nowait", "qsize", "empty", "full", "task_done", "join")
    patched = "put"

    @staticmethod
    def order(items):
        """How this kind hands the items out again."""
        return list(items)

    @pytest.fixture
    def errors(self, impl):
        return impl.queue

    # Items

    def test_order(self, cls):
        queue = cls()
        items = [111, 333, 222, 444, 0]
        for item in items:
            assert queue.put(item) is None
        assert [queue.get() for _ in items] == self.order(items)

    def test_order_in_batches(self, cls):
        queue = cls()
        for i in range(100):
            queue.put((i * 7919) % 101)
        taken = [queue.get() for _ in range(50)]
        for i in range(50):
            queue.put((i * 31) % 53)
        taken += [queue.get() for _ in range(100)]
        assert sorted(taken) == sorted(
            [(i * 7919) % 101 for i in range(100)] + [(i * 31) % 53 for i in range(50)]
        )
        assert queue.empty()

    def test_sizes(self, cls):
        queue = cls(3)
        seen = []
        for i in range(3):
            seen.append((queue.qsize(), queue.empty(), queue.full()))
            queue.put(i)
        seen.append((queue.qsize(), queue.empty(), queue.full()))
        assert seen == [(0, True, False), (1, False, False), (2, False, False), (3, False, True)]

    @pytest.mark.parametrize("maxsize", [0, -1, -100, 1, 5, 2**40, -(2**40), True, False], ids=repr)
    def test_maxsize(self, cls, maxsize):
        for queue in (cls(maxsize), cls(maxsize=maxsize)):
            assert queue.maxsize == maxsize
            for i in range(5 if maxsize <= 0 else min(maxsize, 5)):
                queue.put_nowait(i)
            assert queue.full() is (0 < maxsize <= 5)

    def test_maxsize_that_is_no_number_shows_at_once_or_at_use(self, cls):
        for maxsize in ("3", [], object()):
            with pytest.raises(TypeError):
                cls(maxsize).put(1)

    def test_maxsize_can_be_changed(self, cls, errors):
        queue = cls(3)
        for i in range(3):
            queue.put(i)
        queue.maxsize = 5
        assert not queue.full()
        queue.put(3)
        queue.maxsize = 2
        assert queue.full()
        with pytest.raises(errors.Full):
            queue.put_nowait(9)
        queue.get()
        queue.get()
        with pytest.raises(errors.Full):
            queue.put(9, timeout=0.01)
        queue.get()
        queue.put(9)
        queue.maxsize = 0
        for i in range(10):
            queue.put_nowait(i)

    def test_full_and_empty(self, cls, errors):
        queue = cls(2)
        for call in (
            lambda: queue.get(False),
            lambda: queue.get(block=False),
            lambda: queue.get_nowait(),
            lambda: queue.get(timeout=0.01),
            lambda: queue.get(True, 0.01),
            lambda: queue.get(timeout=0),
        ):
            with pytest.raises(errors.Empty):
                call()
        queue.put(1)
        queue.put(2)
        for call in (
            lambda: queue.put(3, False),
            lambda: queue.put(3, block=False),
            lambda: queue.put_nowait(3),
            lambda: queue.put(3, timeout=0.01),
            lambda: queue.put(3, True, 0.01),
            lambda: queue.put(item=3, timeout=0),
        ):
            with pytest.raises(errors.Full):
                call()
        assert queue.qsize() == 2

    def test_error_types_are_the_standard_ones(self, errors):
        import queue as standard

        assert errors.Empty is standard.Empty
        assert errors.Full is standard.Full

    # Blocking

    def test_get_waits_for_a_put(self, cls):
        queue = cls()
        with Crew(queue.get) as crew:
            crew.wait_until_blocked()
            queue.put(7)
        assert crew.results == [7]

    def test_put_waits_for_a_get(self, cls):
        queue = cls(1)
        queue.put(1)
        with Crew(lambda: queue.put(2)) as crew:
            crew.wait_until_blocked()
            assert queue.get() == 1
        assert queue.get() == 2

    def test_many_getters(self, cls):
        queue = cls()
        with Crew(queue.get, 5) as crew:
            crew.wait_until_blocked()
            for i in range(5):
                queue.put(i)
        assert sorted(crew.results) == [0, 1, 2, 3, 4]

    def test_many_putters(self, cls):
        queue = cls(1)
        queue.put(0)
        with Crew(lambda: queue.put(threading.get_ident()), 5) as crew:
            crew.wait_until_blocked()
            for _ in range(6):
                queue.get()
        assert queue.empty()

    def test_one_put_wakes_one_getter(self, cls):
        queue = cls()
        with Crew(queue.get, 3) as crew:
            crew.wait_until_blocked()
            for count in (1, 2, 3):
                queue.put(count)
                crew.wait_finished(count)
                assert len(crew.results) == count

    def test_timed_get_gets_it_in_time(self, cls):
        queue = cls()
        with Crew(lambda: queue.get(timeout=15)) as crew:
            crew.wait_until_blocked()
            queue.put(1)
        assert crew.results == [1]

    def test_timed_put_gets_in_in_time(self, cls):
        queue = cls(1)
        queue.put(1)
        with Crew(lambda: queue.put(2, timeout=15)) as crew:
            crew.wait_until_blocked()
            queue.get()
        assert queue.get() == 2

    def test_timeouts_expire(self, cls, errors):
        queue = cls(1)
        with Stopwatch() as watch, pytest.raises(errors.Empty):
            queue.get(timeout=0.05)
        assert 0.045 <= watch.seconds < 5
        queue.put(1)
        with Stopwatch() as watch, pytest.raises(errors.Full):
            queue.put(2, timeout=0.05)
        assert 0.045 <= watch.seconds < 5

    def test_timed_out_getter_takes_nothing(self, cls, errors):
        queue = cls()
        for _ in range(10):
            with pytest.raises(errors.Empty):
                queue.get(timeout=0.001)
        queue.put(1)
        assert queue.qsize() == 1
        assert queue.get_nowait() == 1

    # Odd arguments

    @pytest.mark.parametrize("timeout", [-1, -0.5, -1e100, -INF], ids=repr)
    def test_negative_timeout(self, cls, timeout):
        queue = cls(1)
        with pytest.raises(ValueError, match=r"^'timeout' must be a non-negative number$"):
            queue.put(1, timeout=timeout)
        with pytest.raises(ValueError, match=r"^'timeout' must be a non-negative number$"):
            queue.get(timeout=timeout)
        assert queue.empty()

    def test_timeouts_that_nobody_looks_at(self, cls, errors):
        reached_into = cls()
        assert not reached_into.queue
        for unbounded in (cls(), reached_into):
            for timeout in (-1, "x", INF, object()):
                unbounded.put(1, timeout=timeout)
        queue = cls(1)
        queue.put(1, False, -1)
        with pytest.raises(errors.Full):
            queue.put(2, False, "x")
        assert queue.get(False, -1) == 1
        with pytest.raises(errors.Empty):
            queue.get(False, "x")

    @pytest.mark.parametrize("timeout", ["1", [], object(), 1j], ids=["str", "list", "object", "complex"])
    def test_timeout_that_is_no_number(self, cls, timeout):
        queue = cls(1)
        with pytest.raises(TypeError):
            queue.get(timeout=timeout)
        queue.put(1)
        with pytest.raises(TypeError):
            queue.put(2, timeout=timeout)
        assert queue.get() == 1
        queue.put(3)

    @pytest.mark.parametrize("timeout", [1e100, INF], ids=repr)
    def test_timeout_too_large(self, cls, timeout):
        queue = cls(1)
        with pytest.raises(OverflowError):
            queue.get(timeout=timeout)
        queue.put(1, timeout=timeout)
        with pytest.raises(OverflowError):
            queue.put(2, timeout=timeout)
        assert queue.get(timeout=timeout) == 1

    @pytest.mark.parametrize("block", [0, "", None, [], 0.0], ids=repr)
    def test_block_is_judged_by_truth(self, cls, errors, block):
        queue = cls(1)
        with pytest.raises(errors.Empty):
            queue.get(block)
        queue.put(1, block)
        with pytest.raises(errors.Full):
            queue.put(2, block)

    def test_wrong_arguments(self, cls):
        queue = cls()
        for call in (
            lambda: queue.put(),
            lambda: queue.put(1, True, None, 1),
            lambda: queue.put(1, wait=True),
            lambda: queue.get(True, None, 1),
            lambda: queue.get(item=1),
            lambda: queue.get_nowait(1),
            lambda: queue.put_nowait(),
            lambda: queue.qsize(1),
            lambda: queue.task_done(1),
            lambda: queue.join(timeout=1),
        ):
            with pytest.raises(TypeError):
                call()
        assert queue.empty()

    # Tasks

    def test_task_done(self, cls):
        queue = cls()
        with pytest.raises(ValueError, match=r"^task_done\(\) called too many times$"):
            queue.task_done()
        queue.put(1)
        queue.put(2)
        assert queue.unfinished_tasks == 2
        queue.get()
        assert queue.unfinished_tasks == 2
        assert queue.task_done() is None
        assert queue.unfinished_tasks == 1
        queue.task_done()
        with pytest.raises(ValueError):
            queue.task_done()

    def test_join_of_an_idle_queue(self, cls):
        queue = cls()
        assert queue.join() is None
        queue.put(1)
        queue.get()
        queue.task_done()
        queue.join()

    def test_join_waits_for_all_tasks(self, cls):
        queue = cls()
        for i in range(3):
            queue.put(i)
        with Crew(queue.join, 2) as crew:
            for _ in range(3):
                crew.wait_until_blocked()
                assert crew.results == []
                queue.get()
                queue.task_done()
        assert crew.results == [None, None]

    def test_workers_and_join(self, cls):
        for _ in range(2):
            queue = cls()
            total = []

            def work():
                while True:
                    item = queue.get()
                    if item < 0:
                        queue.task_done()
                        return
                    total.append(item)
                    queue.task_done()

            with Crew(work, 4):
                for i in range(200):
                    queue.put(i)
                wait_until(lambda: len(total) == 200, "all items are worked off")
                queue.join()
                for _ in range(4):
                    queue.put(-1)
                queue.join()
            assert sorted(total) == list(range(200))

    # What programs reach for

    def test_inner_container(self, cls, reference):
        queue, other = cls(), reference()
        for item in (3, 1, 2):
            queue.put(item)
            other.put(item)
        assert type(queue.queue) is type(other.queue)
        assert list(queue.queue) == list(other.queue)
        assert len(queue.queue) == 3
        assert queue.queue[0] == other.queue[0]
        assert 2 in queue.queue
        assert [item * 2 for item in queue.queue] == [item * 2 for item in other.queue]

    def test_draining_by_hand(self, cls):
        queue = cls()
        for item in (1, 2, 3):
            queue.put(item)
        with queue.mutex:
            queue.queue.clear()
            queue.unfinished_tasks = 0
            queue.all_tasks_done.notify_all()
        assert queue.empty()
        assert queue.qsize() == 0
        queue.join()
        queue.put(9)
        assert queue.get() == 9

    def test_append_by_hand_wakes_a_getter(self, cls):
        queue = cls()
        with Crew(queue.get) as crew:
            crew.wait_until_blocked()
            with queue.not_empty:
                queue.queue.append(5)
                queue.unfinished_tasks += 1
                queue.not_empty.notify()
        assert crew.results == [5]
        queue.task_done()
        queue.join()

    def test_pop_by_hand_wakes_a_putter(self, cls):
        queue = cls(1)
        queue.put(1)
        with Crew(lambda: queue.put(2)) as crew:
            crew.wait_until_blocked()
            with queue.mutex:
                queue.queue.clear()
                queue.not_full.notify_all()
        assert queue.get() == 2

    def test_mutex_keeps_others_out(self, cls):
        queue = cls(5)
        queue.put(0)
        with (
            queue.mutex,
            Crew(lambda: (queue.get(), queue.put(1), queue.qsize(), queue.empty(), queue.full())) as crew,
        ):
            crew.wait_until_blocked()
            assert crew.results == []
            assert list(queue.queue) == [0]
            queue.mutex.release()
            crew.join()
            queue.mutex.acquire()
        assert crew.results == [(0, None, 1, False, False)]

    def test_conditions_share_the_mutex(self, cls):
        queue = cls()
        for condition in (queue.not_empty, queue.not_full, queue.all_tasks_done):
            with condition:
                assert queue.mutex.locked()
                assert in_thread(queue.mutex.acquire, False) is False
            assert not queue.mutex.locked()

    def test_clock_and_waits_of_a_test(self, cls, errors, monkeypatch):
        """A program's tests let time pass as they please: `queue.time` and the condition's `wait` are theirs."""
        queue = cls(1)
        queue.put(1)
        now, waits = [1e9], []

        def wait(timeout):
            waits.append(timeout)
            now[0] += timeout

        monkeypatch.setattr(standard, "time", lambda: now[0])
        monkeypatch.setattr(queue.not_full, "wait", wait)
        monkeypatch.setattr(queue.not_empty, "wait", wait)
        with pytest.raises(errors.Full):
            queue.put(2, timeout=1000)
        queue.get()
        with pytest.raises(errors.Empty):
            queue.get(timeout=2000)
        assert waits == [1000, 2000]

    def test_waiting_on_a_condition_by_hand(self, cls):
        """A program that waits until something was put, and leaves it there."""
        queue = cls()

        def look():
            with queue.not_empty:
                while not queue.queue:
                    queue.not_empty.wait()
                return queue.queue[0]

        with Crew(look) as crew:
            crew.wait_until_blocked()
            queue.put(4)
        assert crew.results == [4]
        assert queue.qsize() == 1

    def test_join_with_a_timeout_by_hand(self, cls):
        queue = cls()
        queue.put(1)
        with queue.all_tasks_done:
            assert queue.all_tasks_done.wait_for(lambda: not queue.unfinished_tasks, timeout=0.01) is False
        with Crew(queue.get):
            pass
        queue.task_done()
        with queue.all_tasks_done:
            assert queue.all_tasks_done.wait_for(lambda: not queue.unfinished_tasks, timeout=15) is True

    def test_container_replaced_by_hand(self, cls):
        queue = cls()
        queue.put(1)
        with queue.mutex:
            old, queue.queue = queue.queue, type(queue.queue)()
        assert list(old) == [1]
        assert queue.empty()
        queue.put(2)
        assert queue.get_nowait() == 2

    # Subclasses

    def test_hooks_are_used(self, cls):
        log = []

        class Traced(cls):
            def _init(self, maxsize):
                log.append(("init", maxsize))
                super()._init(maxsize)

            def _put(self, item):
                log.append(("put", item))
                super()._put(item)

            def _get(self):
                item = super()._get()
                log.append(("get", item))
                return item

        queue = Traced(4)
        queue.put(1)
        queue.put_nowait(2)
        taken = [queue.get(), queue.get_nowait()]
        assert taken == self.order([1, 2])
        assert log == [("init", 4), ("put", 1), ("put", 2), ("get", taken[0]), ("get", taken[1])]

    def test_qsize_hook_decides(self, cls, errors):
        class Odd(cls):
            size = 0

            def _qsize(self):
                return self.size

        queue = Odd(2)
        queue.put(1)
        queue.put(2)
        queue.put(3)
        assert (queue.qsize(), queue.empty(), queue.full()) == (0, True, False)
        with pytest.raises(errors.Empty):
            queue.get_nowait()
        queue.size = 2
        assert (queue.qsize(), queue.empty(), queue.full()) == (2, False, True)
        with pytest.raises(errors.Full):
            queue.put_nowait(4)
        assert queue.get() in (1, 2, 3)

    def test_container_of_the_subclass(self, cls):
        class Unique(cls):
            def _init(self, maxsize):
                self.queue = set()

            def _qsize(self):
                return len(self.queue)

            def _put(self, item):
                self.queue.add(item)

            def _get(self):
                return self.queue.pop()

        queue = Unique()
        for item in (1, 2, 1, 2, 3):
            queue.put(item)
        assert queue.qsize() == 3
        assert queue.queue == {1, 2, 3}
        assert {queue.get() for _ in range(3)} == {1, 2, 3}
        with Crew(queue.get) as crew:
            crew.wait_until_blocked()
            queue.put(8)
        assert crew.results == [8]

    def test_hooks_that_fail(self, cls):
        class Fails(cls):
            fail = ""

            def _put(self, item):
                if self.fail == "put":
                    raise ZeroDivisionError
                super()._put(item)

            def _get(self):
                if self.fail == "get":
                    raise ZeroDivisionError
                return super()._get()

        queue = Fails(3)
        queue.put(1)
        queue.fail = "put"
        for call in (lambda: queue.put(2), lambda: queue.put(2, False), lambda: queue.put(2, timeout=1)):
            with pytest.raises(ZeroDivisionError):
                call()
        assert (queue.qsize(), queue.unfinished_tasks) == (1, 1)
        queue.fail = "get"
        for call in (lambda: queue.get(), lambda: queue.get(False), lambda: queue.get(timeout=1)):
            with pytest.raises(ZeroDivisionError):
                call()
        assert (queue.qsize(), queue.unfinished_tasks) == (1, 1)
        queue.fail = ""
        assert queue.get() == 1
        queue.task_done()
        queue.join()

    def test_hook_that_fails_after_a_wait(self, cls):
        class Fails(cls):
            fail = False

            def _put(self, item):
                if self.fail:
                    raise ZeroDivisionError
                super()._put(item)

        queue = Fails(1)
        queue.put(1)
        queue.fail = True

        def work():
            with pytest.raises(ZeroDivisionError):
                queue.put(2)

        with Crew(work) as crew:
            crew.wait_until_blocked()
            queue.get()
        queue.fail = False
        queue.put(3)
        assert queue.get() == 3

    def test_hook_set_on_the_instance(self, cls):
        log = []
        queue = cls()
        original = queue._put
        queue._put = lambda item: (log.append(item), original(item))
        queue.put(1)
        assert log == [1]
        del queue._put
        queue.put(2)
        assert log == [1]
        assert queue.qsize() == 2

    def test_hook_patched_on_the_class(self, cls):
        log = []
        queue = cls()
        queue.put(0)
        with mock.patch.object(cls, "_put", lambda self, item: log.append(item)):
            queue.put(1)
        queue.put(2)
        assert log == [1]
        assert queue.qsize() == 2

    def test_hook_added_to_a_subclass_later(self, cls):
        class Derived(cls):
            pass

        queue = Derived()
        queue.put(1)
        log = []
        Derived._put = lambda self, item: (log.append(item), super(Derived, self)._put(item))
        queue.put(2)
        assert log == [2]
        del Derived._put
        queue.put(3)
        assert log == [2]
        assert queue.qsize() == 3

    def test_nowait_goes_through_put_and_get(self, cls):
        log = []

        class Derived(cls):
            def put(self, item, block=True, timeout=None):
                log.append(("put", item, block, timeout))
                super().put(item, block, timeout)

            def get(self, block=True, timeout=None):
                log.append(("get", block, timeout))
                return super().get(block, timeout)

        queue = Derived()
        queue.put_nowait(1)
        assert queue.get_nowait() == 1
        assert log == [("put", 1, False, None), ("get", False, None)]

    def test_hooks_run_under_the_mutex(self, cls):
        held = []

        class Derived(cls):
            def _put(self, item):
                held.append(self.mutex.locked())
                super()._put(item)

            def _get(self):
                held.append(self.mutex.locked())
                return super()._get()

        queue = Derived()
        queue.put(1)
        queue.get()
        assert held == [True, True]

    def test_extra_method_of_a_subclass(self, cls):
        class Peekable(cls):
            def peek(self):
                with self.mutex:
                    return self.queue[0]

        queue = Peekable()
        queue.put(3)
        assert queue.peek() == 3
        assert queue.get() == 3

    # The object

    def test_alias(self, cls):
        alias = cls[int]
        assert alias.__origin__ is cls
        assert alias.__args__ == (int,)
        queue = alias(3)
        assert type(queue) is cls
        assert queue.maxsize == 3

    def test_is_no_container(self, cls):
        queue = cls()
        assert queue
        for call in (lambda: len(queue), lambda: iter(queue), lambda: queue[0], lambda: 1 in queue):
            with pytest.raises(TypeError):
                call()

    def test_drops_what_it_hands_out(self, cls):
        class Payload:
            def __lt__(self, other):
                return id(self) < id(other)

        queue = cls()
        references = []
        for _ in range(5):
            payload = Payload()
            references.append(weakref.ref(payload))
            queue.put(payload)
        del payload
        assert all(reference() is not None for reference in references)
        for _ in range(5):
            queue.get()
        assert [reference() for reference in references] == [None] * 5

    def test_drops_its_items_when_it_dies(self, cls):
        class Payload:
            pass

        queue = cls()
        payload = Payload()
        reference = weakref.ref(payload)
        queue.put(payload)
        del queue, payload
        gc.collect()
        assert reference() is None

    def test_cycle_through_an_item(self, cls):
        queue = cls()
        reference = weakref.ref(queue)
        queue.put([queue])
        del queue
        gc.collect()
        assert reference() is None

    def test_reference_counts(self, cls):
        class Payload:
            pass

        payload = Payload()
        before = sys.getrefcount(payload)
        queue = cls()
        for _ in range(50):
            queue.put(payload)
            queue.get()
        assert sys.getrefcount(payload) == before

    def test_shallow_copy_has_the_items(self, cls):
        queue = cls()
        queue.put(1)
        twin = copy.copy(queue)
        assert twin.qsize() == 1
        assert twin.get() == 1

    def test_default_timeout_does_not_end(self, cls):
        queue = cls()
        with Crew(lambda: queue.get(True, None)) as crew:
            crew.wait_until_blocked()
            time.sleep(0.05)
            assert crew.results == []
            queue.put(1)
        assert crew.results == [1]


class ShutdownCases:
    """shutdown(): the standard library has it from 3.13 on, raddle on every version."""

    kind = None

    @pytest.fixture(params=["stdlib", "raddle"] if sys.version_info >= (3, 13) else ["raddle"])
    def impl(self, request):
        return {"stdlib": STDLIB, "raddle": RADDLE}[request.param]

    @pytest.fixture
    def cls(self, impl):
        return getattr(impl.queue, self.kind)

    @pytest.fixture
    def closed(self, impl):
        return impl.queue.ShutDown

    def test_flag(self, cls):
        queue = cls()
        assert queue.is_shutdown is False
        assert queue.shutdown() is None
        assert queue.is_shutdown is True

    def test_error_type(self, closed):
        assert issubclass(closed, Exception)
        assert closed.__name__ == "ShutDown"

    @pytest.mark.parametrize("immediate", [False, True])
    def test_empty(self, cls, closed, immediate):
        queue = cls()
        queue.shutdown(immediate)
        for call in (
            lambda: queue.put(1),
            lambda: queue.put_nowait(1),
            lambda: queue.put(1, timeout=1),
            lambda: queue.get(),
            lambda: queue.get_nowait(),
            lambda: queue.get(timeout=1),
        ):
            with pytest.raises(closed):
                call()
        assert (queue.qsize(), queue.empty()) == (0, True)

    def test_what_is_there_can_be_taken(self, cls, closed):
        queue = cls()
        queue.put(1)
        queue.put(2)
        queue.shutdown()
        with pytest.raises(closed):
            queue.put(3)
        assert {queue.get(), queue.get()} == {1, 2}
        with pytest.raises(closed):
            queue.get()
        assert queue.unfinished_tasks == 2
        queue.task_done()
        queue.task_done()
        queue.join()

    def test_immediate_throws_it_away(self, cls, closed):
        queue = cls()
        queue.put(1)
        queue.put(2)
        queue.get()
        queue.put(3)
        queue.shutdown(immediate=True)
        assert (queue.qsize(), queue.unfinished_tasks) == (0, 1)
        with pytest.raises(closed):
            queue.get(False)
        queue.task_done()
        queue.join()

    def test_immediate_after_gentle(self, cls, closed):
        queue = cls()
        queue.put(1)
        queue.shutdown()
        queue.shutdown(True)
        assert queue.empty()
        with pytest.raises(closed):
            queue.get()
        queue.shutdown()
        assert queue.is_shutdown

    def test_full_one(self, cls, closed):
        queue = cls(1)
        queue.put(1)
        queue.shutdown()
        with pytest.raises(closed):
            queue.put(2, False)
        with pytest.raises(closed):
            queue.put(2, timeout=0.01)
        assert queue.get() == 1

    @pytest.mark.parametrize("immediate", [False, True])
    @pytest.mark.parametrize("timeout", [None, 15])
    def test_frees_getters(self, cls, closed, immediate, timeout):
        queue = cls()

        def work():
            with pytest.raises(closed):
                queue.get(timeout=timeout)

        with Crew(work, 3) as crew:
            crew.wait_until_blocked()
            queue.shutdown(immediate)

    @pytest.mark.parametrize("immediate", [False, True])
    @pytest.mark.parametrize("timeout", [None, 15])
    def test_frees_putters(self, cls, closed, immediate, timeout):
        queue = cls(1)
        queue.put(1)

        def work():
            with pytest.raises(closed):
                queue.put(2, timeout=timeout)

        with Crew(work, 3) as crew:
            crew.wait_until_blocked()
            queue.shutdown(immediate)
        assert queue.qsize() == (0 if immediate else 1)

    def test_immediate_frees_joiners(self, cls):
        queue = cls()
        queue.put(1)
        with Crew(queue.join, 2) as crew:
            crew.wait_until_blocked()
            queue.shutdown(immediate=True)
        assert crew.results == [None, None]

    def test_gentle_keeps_joiners(self, cls):
        queue = cls()
        queue.put(1)
        with Crew(queue.join) as crew:
            crew.wait_until_blocked()
            queue.shutdown()
            crew.wait_until_blocked()
            assert crew.results == []
            queue.get()
            queue.task_done()

    def test_flag_cleared_by_hand_opens_it_again(self, cls):
        queue = cls()
        queue.shutdown()
        queue.is_shutdown = False
        queue.put(1)
        assert queue.get() == 1

    def test_with_hooks_of_a_subclass(self, cls, closed):
        log = []

        class Derived(cls):
            def _get(self):
                item = super()._get()
                log.append(item)
                return item

        queue = Derived()
        queue.put(1)
        queue.put(2)
        queue.shutdown(immediate=True)
        assert sorted(log) == [1, 2]
        with pytest.raises(closed):
            queue.get()

    def test_pending_get_of_the_last_item(self, cls, closed):
        """Two getters wait, one item comes and then the end: one gets it, the other one is told."""
        queue = cls()

        def work():
            try:
                return queue.get()
            except closed:
                return "closed"

        with Crew(work, 2) as crew:
            crew.wait_until_blocked()
            queue.put(1)
            queue.shutdown()
        assert sorted(map(str, crew.results)) == ["1", "closed"]
