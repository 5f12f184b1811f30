"""wait() and as_completed(), over futures of one implementation and over mixes of both."""

import concurrent.futures
import gc
import random
import threading
import time
import weakref

import pytest

from tools import RADDLE, STDLIB, Crew, Stopwatch, check_signature, wait_until_blocked


@pytest.fixture(params=["own", "other", "mixed"])
def make(request, impl):
    """Makes futures: of the implementation that waits, of the other, of both in turn."""
    other = STDLIB if impl.is_raddle else RADDLE
    kinds = {"own": [impl], "other": [other], "mixed": [impl, other]}[request.param]
    count = 0

    def make():
        nonlocal count
        count += 1
        return kinds[count % len(kinds)].futures.Future()

    return make


def finished(future, value=42):
    future.set_result(value)
    return future


def failed(future):
    future.set_exception(OSError("no"))
    return future


def cancelled(future):
    """Counts as done only once its executor knows."""
    future.cancel()
    return future


def notified(future):
    future.cancel()
    future.set_running_or_notify_cancel()
    return future


def end_all(futures, end=finished):
    for future in futures:
        end(future)


class TestWait:
    def test_all_done_already(self, impl, make):
        futures = [finished(make()), failed(make()), notified(make())]
        for when in ("FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"):
            done, not_done = impl.futures.wait(futures, return_when=when)
            assert (done, not_done) == (set(futures), set())

    def test_result_is_a_named_tuple(self, impl, make):
        future = finished(make())
        result = impl.futures.wait([future])
        assert type(result).__name__ == "DoneAndNotDoneFutures"
        assert (result.done, result.not_done) == ({future}, set())
        assert type(result.done) is type(result.not_done) is set

    def test_nothing(self, impl):
        for when in ("FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"):
            assert impl.futures.wait([], return_when=when) == (set(), set())

    def test_any_iterable_and_doubles(self, impl, make):
        future = finished(make())
        assert impl.futures.wait(iter([future, future])).done == {future}
        assert impl.futures.wait({future: 1}).done == {future}
        assert impl.futures.wait((future,)).done == {future}

    def test_all_completed(self, impl, make):
        futures = [make() for _ in range(6)]
        with Crew(lambda: impl.futures.wait(futures)) as crew:
            crew.wait_until_blocked()
            for future, end in zip(futures, [finished, failed, notified] * 2, strict=True):
                assert crew.results == []
                end(future)
        assert crew.results == [(set(futures), set())]

    @pytest.mark.parametrize("end", [finished, failed, notified])
    def test_first_completed(self, impl, make, end):
        futures = [make() for _ in range(4)]
        with Crew(lambda: impl.futures.wait(futures, return_when="FIRST_COMPLETED")) as crew:
            crew.wait_until_blocked()
            end(futures[2])
        assert crew.results == [({futures[2]}, set(futures) - {futures[2]})]

    def test_first_completed_with_one_done(self, impl, make):
        futures = [make(), finished(make())]
        with Stopwatch() as watch:
            done, not_done = impl.futures.wait(futures, 20, "FIRST_COMPLETED")
        assert (done, not_done) == ({futures[1]}, {futures[0]})
        assert watch.seconds < 10

    def test_first_exception(self, impl, make):
        futures = [make() for _ in range(4)]
        with Crew(lambda: impl.futures.wait(futures, return_when="FIRST_EXCEPTION")) as crew:
            crew.wait_until_blocked()
            finished(futures[0])
            notified(futures[1])
            wait_until_blocked(*crew.threads)
            assert crew.results == []
            failed(futures[2])
        assert crew.results == [(set(futures[:3]), {futures[3]})]

    def test_first_exception_with_one_failed(self, impl, make):
        futures = [make(), failed(make())]
        done, not_done = impl.futures.wait(futures, 20, "FIRST_EXCEPTION")
        assert (done, not_done) == ({futures[1]}, {futures[0]})

    def test_first_exception_without_any(self, impl, make):
        futures = [make() for _ in range(3)]
        with Crew(lambda: impl.futures.wait(futures, return_when="FIRST_EXCEPTION")) as crew:
            crew.wait_until_blocked()
            end_all(futures)
        assert crew.results == [(set(futures), set())]

    def test_cancelled_one_counts_when_its_executor_knows(self, impl, make):
        future = cancelled(make())
        assert impl.futures.wait([future], 0.02) == (set(), {future})
        with Crew(lambda: impl.futures.wait([future])) as crew:
            crew.wait_until_blocked()
            future.set_running_or_notify_cancel()
        assert crew.results == [({future}, set())]

    @pytest.mark.parametrize("timeout", [0, -1, 0.03])
    @pytest.mark.parametrize("when", ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
    def test_timeout(self, impl, make, timeout, when):
        futures = [make(), make()]
        with Stopwatch() as watch:
            assert impl.futures.wait(futures, timeout, when) == (set(), set(futures))
        assert max(timeout, 0) <= watch.seconds < 10

    def test_timeout_with_some_done(self, impl, make):
        futures = [make(), finished(make())]
        assert impl.futures.wait(futures, 0.02) == ({futures[1]}, {futures[0]})

    def test_leaves_nothing_behind(self, impl, make):
        futures = [make() for _ in range(3)]
        for _ in range(20):
            impl.futures.wait(futures, 0)
            impl.futures.wait(futures, 0.0001)
        assert [future._waiters for future in futures] == [[], [], []]
        end_all(futures)

    def test_wrong_condition(self, impl, make):
        with pytest.raises(ValueError, match="Invalid return condition: 'SOME'"):
            impl.futures.wait([make()], 0.01, "SOME")

    def test_what_is_no_future(self, impl):
        with pytest.raises((TypeError, AttributeError)):
            impl.futures.wait([5])
        with pytest.raises(TypeError):
            impl.futures.wait(5)

    def test_by_many_threads(self, impl, make):
        futures = [make() for _ in range(5)]
        with Crew(lambda: impl.futures.wait(futures), 4) as crew:
            crew.wait_until_blocked()
            end_all(futures)
        assert crew.results == [(set(futures), set())] * 4

    def test_of_many(self, impl, make):
        futures = [make() for _ in range(2000)]
        with Crew(lambda: impl.futures.wait(futures)) as crew:
            end_all(random.Random(1).sample(futures, len(futures)))
        assert crew.results == [(set(futures), set())]

    def test_signature(self, impl):
        check_signature(impl.futures.wait, concurrent.futures.wait)

    def test_does_not_order_by_state_only(self, impl, make):
        """Ended by hand, under its condition: seen by one who looks for the first time."""
        future = make()
        with future._condition:
            future._state = "FINISHED"
            future._result = 1
        assert impl.futures.wait([future], 20).done == {future}

    def test_ended_while_it_registers(self, impl, make):
        for _ in range(100):
            futures = [make() for _ in range(3)]
            start = threading.Barrier(2)

            def end(futures=futures, start=start):
                start.wait()
                end_all(futures)

            with Crew(end):
                start.wait()
                assert impl.futures.wait(futures, 20).not_done == set()


class TestAsCompleted:
    def test_done_ones_first(self, impl, make):
        futures = [make(), finished(make()), failed(make()), notified(make())]
        iterator = impl.futures.as_completed(futures)
        assert {next(iterator) for _ in range(3)} == set(futures[1:])
        finished(futures[0])
        assert list(iterator) == futures[:1]

    def test_in_order_of_completion(self, impl, make):
        futures = [make() for _ in range(20)]
        order = random.Random(2).sample(futures, 20)
        iterator = impl.futures.as_completed(futures)
        seen = []
        with Crew(lambda: seen.extend(iterator)) as crew:
            crew.wait_until_blocked()
            for future, end in zip(order, [finished, failed, notified, finished] * 5, strict=True):
                end(future)
        assert seen == order

    def test_nothing(self, impl):
        assert list(impl.futures.as_completed([])) == []

    def test_doubles_once(self, impl, make):
        future, other = finished(make()), make()
        iterator = impl.futures.as_completed([future, future, other, other])
        assert next(iterator) is future
        finished(other)
        assert list(iterator) == [other]

    def test_timeout(self, impl, make):
        futures = [finished(make()), make(), make()]
        iterator = impl.futures.as_completed(futures, 0.05)
        assert next(iterator) is futures[0]
        with (
            Stopwatch() as watch,
            pytest.raises(impl.futures.TimeoutError, match=r"^2 \(of 3\) futures unfinished$"),
        ):
            next(iterator)
        assert watch.seconds < 10
        with pytest.raises(StopIteration):
            next(iterator)

    def test_no_time(self, impl, make):
        done = finished(make())
        iterator = impl.futures.as_completed([done, make()], timeout=0)
        assert next(iterator) is done
        with pytest.raises(impl.futures.TimeoutError, match=r"^1 \(of 2\) futures unfinished$"):
            next(iterator)

    def test_no_time_but_all_done(self, impl, make):
        futures = {finished(make()) for _ in range(5)}
        assert set(impl.futures.as_completed(futures, 0)) == futures

    def test_time_counts_from_the_first_next(self, impl, make):
        future = make()
        iterator = impl.futures.as_completed([future], timeout=2)
        time.sleep(0.05)
        finished(future)
        assert next(iterator) is future

    def test_left_early(self, impl, make):
        futures = [make() for _ in range(3)]
        finished(futures[0])
        for future in impl.futures.as_completed(futures):
            assert future is futures[0]
            break
        gc.collect()
        assert [future._waiters for future in futures] == [[], [], []]
        end_all(futures[1:])

    def test_closed(self, impl, make):
        futures = [make(), finished(make())]
        iterator = impl.futures.as_completed(futures)
        next(iterator)
        iterator.close()
        assert list(iterator) == []
        assert futures[0]._waiters == []

    def test_is_an_iterator(self, impl, make):
        iterator = impl.futures.as_completed([finished(make())])
        assert iter(iterator) is iterator
        next(iterator)
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(iterator)

    def test_futures_are_not_kept(self, impl, make):
        """What was given out is not held by the iterator any more."""
        references = []
        for future in impl.futures.as_completed([finished(make(), n) for n in range(5)]):
            reference = weakref.ref(future)
            references.append(reference)
            del future
            assert reference() is None
        assert len(references) == 5

    def test_two_at_once(self, impl, make):
        futures = [make() for _ in range(10)]
        iterators = [impl.futures.as_completed(futures) for _ in range(2)]
        with Crew(lambda: list(iterators.pop())) as one, Crew(lambda: list(iterators.pop())) as two:
            one.wait_until_blocked()
            two.wait_until_blocked()
            end_all(futures)
        assert one.results == two.results == [futures]

    def test_of_many(self, impl, make):
        futures = [make() for _ in range(3000)]
        with Crew(lambda: set(impl.futures.as_completed(futures))) as crew:
            end_all(futures)
        assert crew.results == [set(futures)]

    def test_ended_by_who_iterates(self, impl, make):
        futures = [make() for _ in range(5)]
        finished(futures[0])
        seen = []
        for future in impl.futures.as_completed(futures, 20):
            seen.append(future)
            if len(seen) < 5:
                finished(futures[len(seen)])
        assert seen == futures

    def test_cost_of_many_that_come_one_by_one(self, impl):
        """Linear: four times as many cost about four times as much, not sixteen times."""

        def seconds(count):
            futures = [impl.futures.Future() for _ in range(count)]
            finished(futures[0])
            begun = time.thread_time()
            for number, _ in enumerate(impl.futures.as_completed(futures), 1):
                if number < count:
                    finished(futures[number])
            return time.thread_time() - begun

        seconds(1000)
        assert min(seconds(8000) for _ in range(3)) < 10 * min(seconds(2000) for _ in range(3))

    def test_cost_of_many_that_are_waited_for_one_by_one(self):
        """Where each has to be waited for: quadratic, it would take twenty times what the standard library takes."""

        def seconds(impl):
            futures = [impl.futures.Future() for _ in range(8_000)]
            iterator = impl.futures.as_completed(futures)

            def end():
                for future in futures:
                    finished(future)
                    time.sleep(1e-5)

            with Crew(end):
                begun = time.thread_time()
                assert sum(1 for _ in iterator) == len(futures)
                return time.thread_time() - begun

        assert seconds(RADDLE) < 10 * seconds(STDLIB)

    @pytest.mark.parametrize("what", [5, None])
    def test_what_is_no_iterable(self, impl, what):
        with pytest.raises(TypeError):
            next(impl.futures.as_completed(what))


class TestPools:
    """Both kinds of wait over tasks of both kinds of pool."""

    @pytest.fixture
    def pools(self):
        with STDLIB.futures.ThreadPoolExecutor(2) as one, RADDLE.futures.ThreadPoolExecutor(2) as two:
            yield one, two

    def test_wait(self, impl, pools):
        futures = [pools[n % 2].submit(int, n) for n in range(100)]
        assert impl.futures.wait(futures, 20) == (set(futures), set())

    def test_as_completed(self, impl, pools):
        futures = {pools[n % 2].submit(int, n): n for n in range(100)}
        seen = [(future.result(), futures[future]) for future in impl.futures.as_completed(futures, 20)]
        assert sorted(seen) == [(n, n) for n in range(100)]

    def test_first_exception(self, impl, pools):
        gate = threading.Event()
        blocked = [pool.submit(gate.wait, 20) for pool in pools]
        bad = [pool.submit(int, "no") for pool in pools]
        done, not_done = impl.futures.wait([*blocked, bad[0]], 20, "FIRST_EXCEPTION")
        assert (done, not_done) == ({bad[0]}, set(blocked))
        done, not_done = impl.futures.wait([*blocked, bad[1]], 20, "FIRST_EXCEPTION")
        assert (done, not_done) == ({bad[1]}, set(blocked))
        gate.set()

    def test_cancelled_in_line(self, impl, pools):
        """The workers get to know when they come to it."""
        for pool in pools:
            gate = threading.Event()
            busy = [pool.submit(gate.wait, 20) for _ in range(2)]
            waiting = pool.submit(int)
            assert waiting.cancel()
            with Crew(lambda waiting=waiting: impl.futures.wait([waiting], 20)) as crew:
                crew.wait_until_blocked()
                gate.set()
            assert crew.results == [({waiting}, set())]
            assert impl.futures.wait(busy, 20).not_done == set()
