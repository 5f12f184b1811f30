"""concurrent.futures.Future: states, ends, callbacks, waits, and what real programs read of its inside."""

import asyncio
import concurrent.futures
import gc
import itertools
import logging
import pickle
import sys
import threading
import time
import traceback
import weakref

import pytest
from object_cases import ObjectCases

from tools import Crew, Stopwatch, check_signature, in_thread, wait_until, wait_until_blocked


class Odd(BaseException):
    """An exception that is no Exception."""


@pytest.fixture
def future(impl):
    return impl.futures.Future()


def running(future):
    assert future.set_running_or_notify_cancel() is True
    return future


def cancelled(future):
    assert future.cancel() is True
    return future


def notified(future):
    cancelled(future)
    assert future.set_running_or_notify_cancel() is False
    return future


def finished(future, value=42):
    future.set_result(value)
    return future


def failed(future, error=None):
    future.set_exception(OSError("no") if error is None else error)
    return future


#: State: how a new future comes to it.
STATES = {
    "PENDING": lambda future: future,
    "RUNNING": running,
    "CANCELLED": cancelled,
    "CANCELLED_AND_NOTIFIED": notified,
    "FINISHED": finished,
}


class TestObject(ObjectCases):
    module = "futures"
    kind = "Future"
    methods = (
        "add_done_callback",
        "cancel",
        "cancelled",
        "done",
        "exception",
        "result",
        "running",
        "set_exception",
        "set_result",
        "set_running_or_notify_cancel",
    )
    patched = "result"

    def test_method_signatures(self, cls, thing, reference):
        for name in self.methods:
            extra = ("running", "timeout") if name == "cancel" else ()
            check_signature(getattr(cls, name), getattr(reference, name), extra)


class TestStates:
    @pytest.mark.parametrize("state", STATES)
    def test_questions(self, future, state):
        STATES[state](future)
        assert future._state == state
        assert future.running() is (state == "RUNNING")
        assert future.cancelled() is state.startswith("CANCELLED")
        assert future.done() is (state not in ("PENDING", "RUNNING"))

    @pytest.mark.parametrize("state", STATES)
    def test_cancel(self, future, state):
        STATES[state](future)
        cancels = state not in ("RUNNING", "FINISHED")
        assert future.cancel() is cancels
        assert future.cancel() is cancels
        assert future.cancelled() is cancels

    @pytest.mark.parametrize("state", ["RUNNING", "CANCELLED_AND_NOTIFIED", "FINISHED"])
    def test_begun_twice(self, future, state, caplog):
        STATES[state](future)
        with pytest.raises(RuntimeError, match=r"^Future in unexpected state$"):
            future.set_running_or_notify_cancel()
        [record] = caplog.records
        assert record.levelno == logging.CRITICAL
        assert f"in unexpected state: {state}" in record.getMessage()
        assert future._state == state

    @pytest.mark.parametrize("state", ["CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"])
    @pytest.mark.parametrize("method, value", [("set_result", 1), ("set_exception", ValueError())])
    def test_ended_twice(self, impl, future, state, method, value):
        STATES[state](future)
        with pytest.raises(impl.futures.InvalidStateError) as caught:
            getattr(future, method)(value)
        assert str(caught.value) == f"{state}: {future!r}"
        assert future._state == state
        if state == "FINISHED":
            assert future.result() == 42
            assert future.exception() is None

    @pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
    def test_result(self, future, state):
        finished(STATES[state](future), "value")
        assert future.result() == "value"
        assert future.exception() is None
        assert future._state == "FINISHED"

    @pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
    def test_exception(self, future, state):
        error = OSError("no")
        failed(STATES[state](future), error)
        assert future.exception() is error
        with pytest.raises(OSError) as caught:
            future.result()
        assert caught.value is error

    @pytest.mark.parametrize("state", ["CANCELLED", "CANCELLED_AND_NOTIFIED"])
    @pytest.mark.parametrize("method", ["result", "exception"])
    def test_waiting_for_a_cancelled_one(self, impl, future, state, method):
        STATES[state](future)
        for timeout in (None, 0, 10):
            with pytest.raises(impl.futures.CancelledError):
                getattr(future, method)(timeout)

    def test_none_as_exception(self, future):
        future.set_exception(None)
        assert future.done()
        assert future.result() is None
        assert future.exception() is None

    def test_exception_that_is_no_exception_object(self, future):
        """Taken as it is: only result() fails on it."""
        future.set_exception(KeyError)
        assert future.exception() is KeyError
        with pytest.raises(KeyError):
            future.result()

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), Odd()])
    def test_base_exceptions(self, future, error):
        future.set_exception(error)
        assert future.exception() is error
        with pytest.raises(type(error)) as caught:
            future.result()
        assert caught.value is error

    @pytest.mark.parametrize("value", [None, (), Exception("a value"), sys])
    def test_any_value(self, future, value):
        future.set_result(value)
        assert future.result() is value
        assert future.exception() is None

    def test_future_of_itself(self, impl):
        future = impl.futures.Future()
        future.set_result(future)
        assert future.result() is future
        reference = weakref.ref(future)
        del future
        gc.collect()
        assert reference() is None

    def test_keyword_arguments(self, impl):
        assert finished(impl.futures.Future()).result(timeout=0) == 42
        assert finished(impl.futures.Future()).exception(timeout=None) is None
        future = impl.futures.Future()
        future.set_result(result=1)
        assert future.result() == 1
        future = impl.futures.Future()
        future.set_exception(exception=None)
        assert future.done()
        seen = []
        future.add_done_callback(fn=seen.append)
        assert seen == [future]

    @pytest.mark.parametrize(
        "call", ["set_result()", "cancel(1)", "result(1, 2)", "done(1)", "add_done_callback()"]
    )
    def test_wrong_arguments(self, future, call):
        with pytest.raises(TypeError):
            eval(f"future.{call}")

    def test_no_arguments(self, impl):
        with pytest.raises(TypeError):
            impl.futures.Future(1)


class TestRepr:
    @pytest.mark.parametrize(
        "make, text",
        [
            (STATES["PENDING"], "pending"),
            (STATES["RUNNING"], "running"),
            (STATES["CANCELLED"], "cancelled"),
            (STATES["CANCELLED_AND_NOTIFIED"], "cancelled"),
            (finished, "finished returned int"),
            (lambda future: finished(future, None), "finished returned NoneType"),
            (failed, "finished raised OSError"),
        ],
    )
    def test_text(self, future, make, text):
        make(future)
        assert repr(future) == f"<Future at {id(future):#x} state={text}>"

    def test_of_a_subclass(self, impl):
        class Promise(impl.futures.Future):
            pass

        assert repr(Promise()).startswith("<Promise at 0x")

    def test_does_not_recurse(self, impl):
        future = impl.futures.Future()
        future.set_result([future])
        assert "returned list" in repr(future)


class TestWaits:
    @pytest.mark.parametrize("method", ["result", "exception"])
    @pytest.mark.parametrize("timeout", [0, -1, 0.0, 0.02])
    def test_timeout(self, impl, future, method, timeout):
        with Stopwatch() as watch, pytest.raises(impl.futures.TimeoutError) as caught:
            getattr(future, method)(timeout)
        assert watch.seconds >= timeout
        assert type(caught.value) is TimeoutError
        assert future._state == "PENDING"

    def test_wrong_timeout(self, future):
        with pytest.raises(TypeError):
            future.result("1")

    @pytest.mark.parametrize("timeout", [None, 20])
    @pytest.mark.parametrize("end", ["result", "exception", "cancel"])
    def test_wakes_all(self, impl, future, timeout, end):
        def wait():
            try:
                return future.result(timeout)
            except (OSError, impl.futures.CancelledError) as error:
                return type(error).__name__

        with Crew(wait, 4) as crew:
            crew.wait_until_blocked()
            {"result": finished, "exception": failed, "cancel": cancelled}[end](future)
        expected = {"result": 42, "exception": "OSError", "cancel": "CancelledError"}[end]
        assert crew.results == [expected] * 4

    def test_waiters_of_both_methods(self, future):
        with Crew(future.result, 2) as results, Crew(future.exception, 2) as exceptions:
            results.wait_until_blocked()
            exceptions.wait_until_blocked()
            future.set_result(1)
        assert (results.results, exceptions.results) == ([1, 1], [None, None])

    def test_a_deadline_that_was_not_needed(self, future):
        with Crew(lambda: future.result(20)) as crew:
            crew.wait_until_blocked()
            with Stopwatch() as watch:
                future.set_result(5)
                crew.wait_finished(1)
        assert watch.seconds < 5
        assert crew.results == [5]


class TestTracebacks:
    def test_of_the_place_that_raised(self, future):
        def culprit():
            raise OSError("no")

        try:
            culprit()
        except OSError as error:
            future.set_exception(error)
        with pytest.raises(OSError) as caught:
            future.result()
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[-1] == "culprit"
        assert names[0] == "test_of_the_place_that_raised"

    def test_cause_and_context_stay(self, future):
        error, cause, context = OSError(), KeyError(), ValueError()
        error.__cause__, error.__context__ = cause, context
        future.set_exception(error)
        with pytest.raises(OSError) as caught:
            future.result()
        assert (caught.value.__cause__, caught.value.__context__) == (cause, context)

    def test_goes_with_its_traceback(self, impl):
        class Tracked(Exception):
            pass

        def use():
            future, error = impl.futures.Future(), Tracked()
            future.set_exception(error)
            try:
                future.result()
            except Tracked:
                return weakref.ref(error), weakref.ref(future)

        references = use()
        gc.collect()
        assert [reference() for reference in references] == [None, None]


def _callback(future):
    future.add_done_callback(lambda _, future=future: None)


def _result(future):
    future.set_result([future])


def _result_that_is_filled_later(future):
    result = {}
    future.set_result(result)
    result["future"] = future


def _result_by_hand(future):
    future._state, future._result = "FINISHED", [future]


def _exception(future):
    error = ValueError()
    error.future = future
    future.set_exception(error)
    future.exception()


def _attribute(future):
    future.set_running_or_notify_cancel()
    future.mine = future


def _attribute_of_a_finished_one(future):
    future.set_result(1)
    future.mine = future


def _dictionary(future):
    vars(future)["mine"] = future


def _new_dictionary(future):
    future.__dict__ = {"mine": future}


def _waiters(future):
    future._waiters.append(future)


def _condition(future):
    future._condition.mine = future


def _new_condition(future):
    condition = threading.Condition()
    condition.mine = future
    future._condition = condition


class TestGarbage:
    @pytest.mark.parametrize(
        "tie",
        [
            _callback,
            _result,
            _result_that_is_filled_later,
            _result_by_hand,
            _exception,
            _attribute,
            _attribute_of_a_finished_one,
            _dictionary,
            _new_dictionary,
            _waiters,
            _condition,
            _new_condition,
        ],
    )
    @pytest.mark.parametrize("used", [False, True], ids=["new", "again"])
    def test_a_cycle_is_collected(self, impl, tie, used):
        if used:
            # Memory of a future that has gone.
            impl.futures.Future().set_result(1)
        future = impl.futures.Future()
        tie(future)
        reference = weakref.ref(future)
        del future
        gc.collect()
        assert reference() is None

    def test_attributes_are_not_those_of_an_earlier_one(self, impl):
        for value in range(3):
            future = impl.futures.Future()
            assert vars(future).get("mine") is None
            future.mine = value
            assert vars(future)["mine"] == future.mine == value
            del future.mine
            assert not hasattr(future, "mine")

    def test_attributes_of_subclasses(self, impl):
        class Mine(impl.futures.Future):
            def __setattr__(self, name, value):
                object.__setattr__(self, name, value)
                super().__setattr__(f"{name}_too", value)

        future = Mine()
        future.x = future
        assert future.x is future.x_too
        reference = weakref.ref(future)
        del future
        gc.collect()
        assert reference() is None

    def test_attribute_that_cannot_be_set(self, impl):
        with pytest.raises(TypeError):
            setattr(impl.futures.Future(), 1, 2)
        with pytest.raises(TypeError):
            impl.futures.Future().__dict__ = 1


class TestCallbacks:
    @pytest.mark.parametrize("end", [finished, failed, cancelled])
    def test_in_order_with_the_future(self, future, end):
        seen = []
        for number in range(5):
            future.add_done_callback(lambda each, number=number: seen.append((each, number, each.done())))
        assert seen == []
        end(future)
        assert seen == [(future, number, True) for number in range(5)]

    def test_only_once(self, future):
        seen = []
        future.add_done_callback(seen.append)
        future.cancel()
        future.cancel()
        future.set_running_or_notify_cancel()
        assert seen == [future]

    def test_the_same_one_twice(self, future):
        seen = []
        future.add_done_callback(seen.append)
        future.add_done_callback(seen.append)
        finished(future)
        assert seen == [future, future]

    @pytest.mark.parametrize("state", ["CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"])
    def test_added_to_one_that_is_over(self, future, state):
        STATES[state](future)
        seen = []
        future.add_done_callback(lambda each: seen.append((each, threading.get_ident())))
        assert seen == [(future, threading.get_ident())]

    def test_run_by_the_thread_that_ends_it(self, future):
        seen = []
        future.add_done_callback(lambda _: seen.append(threading.get_ident()))
        ident = in_thread(lambda: (finished(future), threading.get_ident())[1])
        assert seen == [ident]

    def test_return_value_is_ignored(self, future):
        assert future.add_done_callback(lambda _: 5) is None
        assert finished(future).result() == 42

    @pytest.mark.parametrize("over", [False, True])
    def test_that_raises(self, future, over, caplog):
        def bad(_):
            raise OSError("from the callback")

        seen = []
        if over:
            finished(future)
        future.add_done_callback(bad)
        future.add_done_callback(seen.append)
        if not over:
            finished(future)
        assert seen == [future]
        assert future.result() == 42
        [record] = caplog.records
        assert (record.name, record.levelno) == ("concurrent.futures", logging.ERROR)
        assert record.getMessage() == f"exception calling callback for {future!r}"
        assert record.exc_info[0] is OSError
        assert traceback.extract_tb(record.exc_info[2])[-1].name == "bad"

    @pytest.mark.parametrize("over", [False, True])
    def test_that_raises_what_is_no_exception(self, future, over, caplog):
        """Goes to the one who ends the future, or adds the callback; the future is over all the same."""

        def bad(_):
            raise Odd

        if over:
            finished(future)
            with pytest.raises(Odd):
                future.add_done_callback(bad)
        else:
            future.add_done_callback(bad)
            with pytest.raises(Odd):
                finished(future)
        assert future.result() == 42
        assert not caplog.records

    def test_added_by_a_callback(self, future):
        seen = []

        def first(each):
            seen.append("first")
            each.add_done_callback(lambda _: seen.append("inner"))

        future.add_done_callback(first)
        future.add_done_callback(lambda _: seen.append("second"))
        finished(future)
        assert seen == ["first", "inner", "second"]

    def test_that_waits(self, future):
        seen = []
        future.add_done_callback(lambda each: seen.append(each.result()))
        finished(future)
        assert seen == [42]

    def test_that_cancels_and_ends_again(self, impl, future):
        seen = []

        def again(each):
            seen.append(each.cancel())
            with pytest.raises(impl.futures.InvalidStateError):
                each.set_result(2)

        future.add_done_callback(again)
        finished(future)
        assert (seen, future.result()) == ([False], 42)

    def test_what_is_no_function(self, future, caplog):
        future.add_done_callback(None)
        finished(future)
        assert [record.exc_info[0] for record in caplog.records] == [TypeError]

    def test_are_released(self, impl):
        class Callback:
            def __call__(self, future):
                pass

        future, callback = impl.futures.Future(), Callback()
        reference = weakref.ref(callback)
        future.add_done_callback(callback)
        del callback
        assert reference() is not None
        del future
        gc.collect()
        assert reference() is None

    def test_added_while_another_thread_ends_it(self, impl):
        """Each is called exactly once, whoever comes first."""
        for _ in range(200):
            future, seen = impl.futures.Future(), []
            start = threading.Barrier(2)

            def add(future=future, seen=seen, start=start):
                start.wait()
                for number in range(5):
                    future.add_done_callback(lambda _, number=number: seen.append(number))

            with Crew(add) as crew:
                start.wait()
                finished(future)
            assert crew.errors == []
            assert sorted(seen) == list(range(5))


class TestInside:
    """What programs and the standard library's own code read and write."""

    @pytest.mark.parametrize("state", STATES)
    def test_state_can_be_written(self, future, state):
        future._state = state
        assert future._state == state
        assert future.done() is (state not in ("PENDING", "RUNNING"))

    def test_result_and_exception(self, impl, future):
        assert (future._result, future._exception) == (None, None)
        finished(future)
        assert (future._result, future._exception) == (42, None)
        error = OSError()
        other = failed(impl.futures.Future(), error)
        assert (other._result, other._exception) == (None, error)

    def test_condition_is_one(self, future):
        condition = future._condition
        assert future._condition is condition
        with condition:
            assert not in_thread(condition.acquire, False)

    def test_ends_wait_for_the_condition(self, future):
        """Whoever has the condition sees the future stand still."""
        with Crew(lambda: finished(future)) as crew:
            crew.join()
        other = type(future)()
        with other._condition, Crew(lambda: finished(other)) as crew:
            crew.wait_until_blocked()
            assert not other.done()
            other._condition.release()
            crew.join()
            other._condition.acquire()
        assert other.result() == 42

    @pytest.mark.parametrize("end", [finished, failed, cancelled])
    def test_condition_is_notified(self, future, end):
        def wait():
            with future._condition:
                return future._condition.wait(20)

        with Crew(wait) as crew:
            crew.wait_until_blocked()
            end(future)
        assert crew.results == [True]

    def test_waiters(self, future):
        told = []

        class Waiter:
            def add_result(self, each):
                told.append(("result", each))

            def add_exception(self, each):
                told.append(("exception", each))

            def add_cancelled(self, each):
                told.append(("cancelled", each))

        others = [type(future)() for _ in range(2)]
        for each in (future, *others):
            assert each._waiters == []
            with each._condition:
                each._waiters.append(Waiter())
        finished(future)
        failed(others[0])
        others[1].cancel()
        assert told == [("result", future), ("exception", others[0])]
        others[1].set_running_or_notify_cancel()
        assert told[2:] == [("cancelled", others[1])]

    def test_done_callbacks(self, future):
        assert future._done_callbacks == []
        future.add_done_callback(print)
        future.add_done_callback(repr)
        assert future._done_callbacks == [print, repr]

    def test_filled_by_hand(self, future):
        """As the standard library's own tests make futures."""
        future._state = "FINISHED"
        future._result = 7
        assert future.result() == 7
        other = type(future)()
        other._state = "FINISHED"
        other._exception = error = OSError()
        assert other.exception() is error
        with pytest.raises(OSError):
            other.result()

    def test_filled_by_hand_under_the_condition(self, future):
        """A waiter sees it only after the lock was given back, with the value."""
        with Crew(lambda: future.result(20)) as crew:
            crew.wait_until_blocked()
            with future._condition:
                future._state = "FINISHED"
                time.sleep(0.01)
                future._result = 9
                future._condition.notify_all()
        assert crew.results == [9]


class TestTypes:
    def test_is_a_standard_future(self, future):
        assert isinstance(future, concurrent.futures.Future)
        assert isinstance(future, concurrent.futures._base.Future)

    def test_is_generic(self, impl):
        assert impl.futures.Future[int].__origin__ is impl.futures.Future

    def test_subclass(self, impl):
        class Promise(impl.futures.Future):
            def __init__(self, name):
                super().__init__()
                self.name = name

            def set_result(self, result):
                super().set_result((self.name, result))

        promise = Promise("one")
        seen = []
        promise.add_done_callback(seen.append)
        promise.set_result(1)
        assert promise.result() == ("one", 1)
        assert seen == [promise]
        assert promise in impl.futures.wait([promise]).done

    def test_subclass_that_overrides_waits(self, impl):
        class Lazy(impl.futures.Future):
            def result(self, timeout=None):
                if not self.done():
                    self.set_result("made when asked")
                return super().result(timeout)

        assert Lazy().result() == "made when asked"

    def test_is_not_pickled(self, future):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="pickle"):
                pickle.dumps(future, protocol)

    def test_hash_is_identity(self, impl):
        one, two = impl.futures.Future(), impl.futures.Future()
        assert one != two
        assert len({one, two, one}) == 2

    def test_signature_of_the_class(self, impl):
        check_signature(impl.futures.Future, concurrent.futures.Future)


class TestMemory:
    """Futures whose memory is used again for the next, and how they go."""

    def test_nothing_is_left_of_the_one_before(self, impl):
        for _ in range(3):
            future = impl.futures.Future()
            assert future._state == "PENDING" and not hasattr(future, "mark") and not future._done_callbacks
            assert weakref.getweakrefcount(future) == 0
            future.mark = future.add_done_callback(id)
            gone = weakref.ref(future)
            future.set_exception(OSError())
            del future
            assert gone() is None
        assert impl.futures.Future().cancel()

    def test_goes_while_the_collector_runs(self, impl):
        futures = [impl.futures.Future() for _ in range(1_000)]
        for one, other in itertools.pairwise(futures):
            one.set_result([other])
        futures[-1].set_result(futures)
        gone = weakref.ref(futures[500])
        del futures, one, other
        gc.collect()
        assert gone() is None
        assert impl.futures.Future().done() is False

    def test_a_long_chain(self, impl):
        future = impl.futures.Future()
        gone = weakref.ref(future)
        for number in range(100_000):
            outer = impl.futures.Future()
            outer.set_result(future if number % 3 else (future,))
            future = outer
        del outer
        assert gone() is not None
        del future
        assert gone() is None

    def test_finalizers_make_futures(self, impl):
        class Last:
            def __del__(self):
                made.append(impl.futures.Future())

        made = []
        for _ in range(100):
            future = impl.futures.Future()
            future.set_result(Last())
            del future
        assert len(made) == 100 and len(set(map(id, made))) == 100
        assert all(one._state == "PENDING" for one in made)

    def test_slots_of_subclasses(self, impl):
        class Sub(impl.futures.Future):
            __slots__ = ("extra",)

        extra = type("Extra", (), {})()
        gone = weakref.ref(extra)
        future = Sub()
        future.extra = extra
        future.set_result(1)
        del extra
        assert gone() is not None and future.result() == 1
        del future
        assert gone() is None

    def test_init_that_was_replaced(self, impl, monkeypatch):
        calls = []
        init = impl.futures.Future.__init__
        monkeypatch.setattr(impl.futures.Future, "__init__", lambda self: calls.append(self) or init(self))
        future = impl.futures.Future()
        assert calls == [future] and future._state == "PENDING"
        monkeypatch.undo()
        assert impl.futures.Future().done() is False and len(calls) == 1

    def test_class_of_an_instance_is_changed(self, impl):
        class Sub(impl.futures.Future):
            pass

        future = impl.futures.Future()
        try:
            future.__class__ = Sub
        except TypeError:
            pytest.skip("not on this Python")
        future.set_result(3)
        assert future.result() == 3
        del future
        assert type(impl.futures.Future()) is impl.futures.Future


class TestAsyncio:
    def test_wrap_future(self, future):
        async def main():
            wrapped = asyncio.wrap_future(future)
            threading.Timer(0.01, future.set_result, [5]).start()
            return await asyncio.wait_for(wrapped, 20)

        assert asyncio.run(main()) == 5

    def test_wrapped_exception(self, future):
        async def main():
            wrapped = asyncio.wrap_future(future)
            threading.Timer(0.01, future.set_exception, [OSError("no")]).start()
            with pytest.raises(OSError, match="no"):
                await asyncio.wait_for(wrapped, 20)

        asyncio.run(main())

    def test_cancelling_the_wrapper_cancels(self, future):
        async def main():
            wrapped = asyncio.wrap_future(future)
            wrapped.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wrapped

        asyncio.run(main())
        assert future.cancelled()

    def test_cancelling_is_seen_by_the_wrapper(self, future):
        async def main():
            wrapped = asyncio.wrap_future(future)
            future.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(wrapped, 20)

        asyncio.run(main())

    def test_run_coroutine_threadsafe(self, impl):
        """asyncio makes a future of its own; ours waits beside it."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        mine = finished(impl.futures.Future())
        theirs = asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01, 3), loop)
        done, not_done = impl.futures.wait([mine, theirs], 20)
        assert ({each.result() for each in done}, not_done) == ({42, 3}, set())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


class TestThreads:
    def test_one_of_many_ends_it(self, impl):
        """set_result, set_exception and cancel from many threads: one succeeds, and all see its end."""
        for _ in range(100):
            future = impl.futures.Future()
            start = threading.Barrier(6)
            seen = []
            future.add_done_callback(seen.append)

            def end(number, future=future, start=start):
                start.wait()
                if number % 3 == 2:
                    return "cancelled" if future.cancel() else None
                try:
                    if number % 3:
                        future.set_result(number)
                    else:
                        future.set_exception(OSError(number))
                except impl.futures.InvalidStateError:
                    return None
                return number

            numbers = iter(range(6))
            with Crew(lambda numbers=numbers, end=end: end(next(numbers)), 6) as crew:
                pass
            winners = [each for each in crew.results if each is not None]
            assert seen == [future]
            if future.cancelled():
                assert set(winners) == {"cancelled"}
            else:
                [winner] = winners
                assert winner == (future.exception().args[0] if future.exception() else future.result())

    def test_waiting_thread_is_blocked(self, impl, future):
        thread = impl.threading.Thread(target=future.result, daemon=True)
        thread.start()
        wait_until_blocked(thread)
        finished(future)
        thread.join(20)
        wait_until(lambda: not thread.is_alive(), "the waiter has ended")
