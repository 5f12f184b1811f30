"""threading.Timer on both implementations."""

import threading
import time

import pytest

from tools import STDLIB, Stopwatch, assert_matches, check_child, check_signature, wait_until

LONG = 3600


class TestTimer:
    @pytest.fixture
    def cls(self, impl):
        return impl.threading.Timer

    def test_signatures(self, cls):
        check_signature(cls, STDLIB.threading.Timer)
        for name in ("cancel", "run", "start", "join", "is_alive"):
            check_signature(getattr(cls, name), getattr(STDLIB.threading.Timer, name))

    def test_fires_once_and_in_time(self, cls):
        log = []
        start = time.monotonic()
        timer = cls(0.05, lambda: log.append(time.monotonic() - start))
        timer.start()
        assert timer.join(20) is None
        assert len(log) == 1
        assert 0.045 <= log[0] < 5

    def test_arguments(self, cls):
        log = []
        for timer in (
            cls(0, lambda *a, **k: log.append((a, k))),
            cls(0, lambda *a, **k: log.append((a, k)), [1, 2]),
            cls(0, lambda *a, **k: log.append((a, k)), (1,), {"b": 2}),
            cls(interval=0, function=lambda *a, **k: log.append((a, k)), args=None, kwargs={"c": 3}),
        ):
            timer.start()
            timer.join()
        assert log == [((), {}), ((1, 2), {}), ((1,), {"b": 2}), ((), {"c": 3})]

    def test_attributes(self, impl, cls):
        function = lambda: None  # noqa: E731
        timer = cls(LONG, function)
        assert (timer.interval, timer.function, timer.args, timer.kwargs) == (LONG, function, [], {})
        assert isinstance(timer.finished, impl.threading.Event)
        assert not timer.finished.is_set()
        timer = cls(1, function, (1,), {"a": 1})
        assert (timer.args, timer.kwargs) == ((1,), {"a": 1})

    def test_default_arguments_are_not_shared(self, cls):
        one, two = cls(1, print), cls(1, print)
        one.args.append(1)
        one.kwargs["a"] = 1
        assert (two.args, two.kwargs) == ([], {})

    def test_wrong_arguments(self, cls):
        for call in (
            lambda: cls(),
            lambda: cls(1),
            lambda: cls(1, print, (), {}, 5),
            lambda: cls(1, print, daemon=True),
        ):
            with pytest.raises(TypeError):
                call()

    def test_is_a_thread(self, impl, cls):
        timer = cls(LONG, print)
        assert isinstance(timer, impl.threading.Thread)
        assert isinstance(timer, threading.Thread)
        assert_matches(r"^Thread-\d+$", timer.name)
        assert timer.daemon is False
        assert (timer.ident, timer.native_id, timer.is_alive()) == (None, None, False)
        assert_matches(r"^<Timer\(Thread-\d+, initial\)>$", repr(timer))

    def test_name_and_daemon_in_either_order(self, cls):
        for names in (("name", "daemon"), ("daemon", "name")):
            timer = cls(LONG, print)
            for name in names:
                setattr(timer, name, {"name": "pending", "daemon": True}[name])
            assert (timer.name, timer.daemon) == ("pending", True)

    def test_pending_one_looks_like_a_running_thread(self, impl, cls):
        timer = cls(LONG, print)
        timer.daemon = True
        timer.name = "pending"
        timer.start()
        try:
            assert timer.is_alive() is True
            assert isinstance(timer.ident, int)
            assert timer in impl.threading.enumerate()
            assert impl.threading.active_count() == len(impl.threading.enumerate())
            assert_matches(r"^<Timer\(pending, started daemon -?\d+\)>$", repr(timer))
            assert timer.join(0.01) is None
            assert timer.is_alive() is True
            with pytest.raises(RuntimeError, match=r"^cannot set daemon status of active thread$"):
                timer.daemon = False
        finally:
            timer.cancel()
        timer.join()
        assert timer.is_alive() is False
        assert timer not in impl.threading.enumerate()
        assert_matches(r"^<Timer\(pending, stopped daemon -?\d+\)>$", repr(timer))

    def test_start_twice(self, cls):
        timer = cls(LONG, print)
        timer.start()
        with pytest.raises(RuntimeError, match=r"^threads can only be started once$"):
            timer.start()
        timer.cancel()
        timer.join()
        with pytest.raises(RuntimeError, match=r"^threads can only be started once$"):
            timer.start()

    def test_join_before_start(self, cls):
        with pytest.raises(RuntimeError, match=r"^cannot join thread before it is started$"):
            cls(1, print).join()

    # cancel

    def test_cancel(self, cls):
        log = []
        timer = cls(LONG, log.append, (1,))
        timer.start()
        assert timer.cancel() is None
        with Stopwatch() as watch:
            timer.join()
        assert watch.seconds < 10
        assert log == []
        assert timer.finished.is_set()
        assert timer.is_alive() is False

    @pytest.mark.parametrize("interval", [0, LONG])
    def test_cancel_before_start(self, cls, interval):
        log = []
        timer = cls(interval, log.append, (1,))
        timer.cancel()
        timer.start()
        timer.join(20)
        assert not timer.is_alive()
        assert log == []

    def test_cancel_twice_and_too_late(self, cls):
        log = []
        timer = cls(0, log.append, (1,))
        timer.start()
        timer.join()
        timer.cancel()
        timer.cancel()
        assert log == [1]

    def test_cancel_from_its_own_function(self, cls):
        log = []
        timer = cls(0, lambda: log.append(timer.cancel()))
        timer.start()
        timer.join()
        assert log == [None]

    def test_setting_finished_by_hand_cancels(self, cls):
        log = []
        timer = cls(LONG, log.append, (1,))
        timer.start()
        timer.finished.set()
        timer.join()
        assert log == []

    def test_finished_after_firing(self, cls):
        during = []
        timer = cls(0, lambda: during.append(timer.finished.is_set()))
        timer.start()
        assert timer.finished.wait(20) is True
        timer.join()
        assert during == [False]

    def test_many_cancelled(self, cls):
        timers = [cls(LONG, print) for _ in range(100)]
        for timer in timers:
            timer.start()
        for timer in timers:
            timer.cancel()
        for timer in timers:
            timer.join()
        assert not any(timer.is_alive() for timer in timers)

    # Firing

    @pytest.mark.parametrize("interval", [0, 0.0, -1, -0.5, False])
    def test_no_interval(self, cls, interval):
        log = []
        timer = cls(interval, log.append, (1,))
        timer.start()
        timer.join()
        assert log == [1]

    def test_no_end(self, cls):
        """An interval of None waits for cancel()."""
        log = []
        timer = cls(None, log.append, (1,))
        timer.start()
        timer.join(0.02)
        assert timer.is_alive()
        timer.cancel()
        timer.join()
        assert log == []

    def test_function_runs_as_the_timer(self, impl, cls):
        log = []
        timer = cls(0, lambda: log.append((impl.threading.current_thread(), impl.threading.get_ident())))
        timer.start()
        timer.join()
        assert log == [(timer, timer.ident)]
        assert timer.ident != threading.get_ident()

    def test_order_of_deadlines(self, cls):
        log = []
        timers = [cls(delay, log.append, (delay,)) for delay in (0.25, 0.05, 0.35, 0.15)]
        for timer in timers:
            timer.start()
        for timer in timers:
            timer.join()
        assert log == [0.05, 0.15, 0.25, 0.35]

    def test_function_that_blocks_holds_up_no_other(self, cls):
        gate, log = threading.Event(), []
        slow = [cls(0, gate.wait) for _ in range(5)]
        for timer in slow:
            timer.start()
        quick = cls(0.02, log.append, ("quick",))
        quick.start()
        quick.join(20)
        assert log == ["quick"]
        assert all(timer.is_alive() for timer in slow)
        gate.set()
        for timer in slow:
            timer.join()

    def test_is_alive_while_the_function_runs(self, cls):
        gate, inside = threading.Event(), threading.Event()
        timer = cls(0, lambda: (inside.set(), gate.wait()))
        timer.start()
        inside.wait(20)
        assert timer.is_alive()
        assert timer in threading.enumerate()
        gate.set()
        timer.join()
        assert not timer.is_alive()

    def test_function_starts_the_next_timer(self, cls):
        log, done = [], threading.Event()

        def tick(left):
            log.append(left)
            if left:
                cls(0.001, tick, (left - 1,)).start()
            else:
                done.set()

        cls(0.001, tick, (5,)).start()
        assert done.wait(20)
        assert log == [5, 4, 3, 2, 1, 0]

    def test_join_from_its_own_function(self, cls):
        log = []

        def work():
            try:
                timer.join()
            except RuntimeError as error:
                log.append(str(error))

        timer = cls(0, work)
        timer.start()
        timer.join()
        assert log == ["cannot join current thread"]

    def test_function_changed_before_firing(self, cls):
        log = []
        timer = cls(0.02, None)
        timer.function, timer.args, timer.kwargs = log.append, ["late"], {}
        timer.start()
        timer.join()
        assert log == ["late"]

    def test_function_that_raises(self, impl, cls, monkeypatch):
        got = []
        monkeypatch.setattr(
            impl.threading, "excepthook", lambda args: got.append((args.exc_type, args.thread))
        )
        timer = cls(0, lambda: 1 / 0)
        timer.start()
        timer.join()
        assert got == [(ZeroDivisionError, timer)]
        log = []
        after = cls(0, log.append, (1,))
        after.start()
        after.join()
        assert log == [1]

    def test_daemon_is_inherited(self, impl, cls):
        got = []
        thread = impl.threading.Thread(target=lambda: got.append(cls(1, print).daemon), daemon=True)
        thread.start()
        thread.join()
        assert got == [True]

    # Subclasses

    def test_repeating_subclass(self, cls):
        class Repeating(cls):
            def run(self):
                while not self.finished.wait(self.interval):
                    self.function(*self.args, **self.kwargs)

        log = []
        timer = Repeating(0.002, log.append, (1,))
        timer.start()
        wait_until(lambda: len(log) >= 5, "it has fired five times")
        timer.cancel()
        timer.join()
        count = len(log)
        assert timer.is_alive() is False
        assert len(log) == count

    def test_subclass_with_its_own_init(self, cls):
        class Labelled(cls):
            def __init__(self, label, *args):
                super().__init__(*args)
                self.label = label
                self.daemon = True

        log = []
        timer = Labelled("mine", 0, log.append, (1,))
        timer.start()
        timer.join()
        assert (timer.label, log) == ("mine", [1])

    def test_subclass_with_its_own_cancel(self, cls):
        log = []

        class Noisy(cls):
            def cancel(self):
                log.append("cancel")
                super().cancel()

        timer = Noisy(LONG, print)
        timer.start()
        timer.cancel()
        timer.join()
        assert log == ["cancel"]

    def test_run_called_directly(self, cls):
        log = []
        timer = cls(0.01, log.append, (1,))
        timer.run()
        assert log == [1]
        assert timer.finished.is_set()

    # Exit

    def test_exit_waits_for_a_pending_timer(self, impl):
        code = impl.prelude + "threading.Timer(0.1, print, ['fired']).start()\nprint('main')"
        check_child(code, out="main\nfired\n")

    def test_exit_does_not_wait_for_a_daemon(self, impl):
        code = (
            impl.prelude
            + "t = threading.Timer(1000, print, ['fired'])\nt.daemon = True\nt.start()\nprint('main')"
        )
        check_child(code, out="main\n")

    def test_exit_with_a_cancelled_timer(self, impl):
        code = (
            impl.prelude + "t = threading.Timer(1000, print, ['fired'])\nt.start()\nt.cancel()\nprint('main')"
        )
        check_child(code, out="main\n")
