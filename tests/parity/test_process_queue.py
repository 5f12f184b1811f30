"""Queues between processes: the standard library's and raddle's behave alike."""

import io
import os
import pickle
import queue
import sys
import threading
import time

import pytest

from tools import DEADLINE, Stopwatch, check_signature, ended, started, wait_until, wait_until_blocked


def double(questions, answers):
    for number in iter(questions.get, None):
        answers.put(number * 2)


def put_all(target, items):
    for item in items:
        target.put(item)


def get_some(source, target, count):
    for _ in range(count):
        target.put((os.getpid(), source.get()))


def finish(tasks):
    for _ in iter(tasks.get, None):
        tasks.task_done()


class Refuses:
    """Cannot be pickled."""

    def __reduce__(self):
        raise AttributeError("not this one")


def explode():
    raise LookupError("not that one")


class Explodes:
    """Can be pickled, and not unpickled."""

    def __reduce__(self):
        return explode, ()


VALUES = [
    None,
    True,
    0,
    -(10**30),
    1.5,
    "",
    "text",
    "\ud800 alone",
    "ä€𝄞",
    b"",
    b"\0\1",
    bytearray(b"b"),
    [1, [2, {"three": (4,)}]],
    {1, 2},
    range(3),
    b"x" * 100_000,
    "y" * 300_000,
    list(range(50_000)),
]


class TestQueues:
    @pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
    def test_what_is_put_comes_out(self, impl, fork, kind):
        line = getattr(fork, kind)()
        # The standard library's SimpleQueue waits for a reader of what does not go into a pipe.
        for value in VALUES if impl.is_raddle or kind != "SimpleQueue" else VALUES[:-3]:
            line.put(value)
            found = line.get()
            assert found == value
            assert type(found) is type(value)

    @pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
    def test_goes_to_a_child_and_back(self, ctx, kind):
        questions, answers = getattr(ctx, kind)(), getattr(ctx, kind)()
        child = started(ctx, double, questions, answers)
        for number in range(50):
            questions.put(number)
        questions.put(None)
        assert [answers.get() for _ in range(50)] == [number * 2 for number in range(50)]
        assert ended(child) == 0

    def test_order_of_one_writer_is_kept(self, ctx):
        line = ctx.Queue()
        writers = [started(ctx, put_all, line, [(at, number) for number in range(200)]) for at in range(2)]
        found = [line.get(timeout=DEADLINE) for _ in range(400)]
        assert [ended(writer) for writer in writers] == [0, 0]
        for at in range(2):
            assert [number for who, number in found if who == at] == list(range(200))

    def test_each_item_goes_to_one_reader(self, fork):
        line, out = fork.Queue(), fork.Queue()
        readers = [started(fork, get_some, line, out, 100) for _ in range(3)]
        for number in range(300):
            line.put(number)
        found = [out.get(timeout=DEADLINE) for _ in range(300)]
        assert [ended(reader) for reader in readers] == [0, 0, 0]
        assert sorted(number for _, number in found) == list(range(300))

    def test_bound(self, fork):
        line = fork.Queue(2)
        line.put(1)
        assert (line.qsize(), line.full()) == (1, False)
        line.put(2)
        assert (line.qsize(), line.full()) == (2, True)
        for attempt in (
            lambda: line.put(3, False),
            lambda: line.put_nowait(3),
            lambda: line.put(3, True, 0.01),
            lambda: line.put(3, timeout=-1),
        ):
            with pytest.raises(queue.Full):
                attempt()
        assert wait_until(lambda: not line.empty())
        assert [line.get(), line.get()] == [1, 2]
        assert (line.qsize(), line.full()) == (0, False)

    def test_empty(self, fork):
        line = fork.Queue()
        assert line.empty()
        for attempt in (
            lambda: line.get(False),
            lambda: line.get_nowait(),
            lambda: line.get(True, 0.01),
            lambda: line.get(timeout=-1),
        ):
            with pytest.raises(queue.Empty):
                attempt()

    def test_timeout_is_kept(self, fork):
        line = fork.Queue()
        with Stopwatch() as watch, pytest.raises(queue.Empty):
            line.get(timeout=0.1)
        assert 0.09 < watch.seconds < 5

    def test_get_waits_for_a_thread_of_this_process(self, fork):
        line = fork.Queue()
        found = []
        waiter = threading.Thread(target=lambda: found.append(line.get()), daemon=True)
        waiter.start()
        wait_until_blocked(waiter)
        line.put("late")
        waiter.join(DEADLINE)
        assert found == ["late"]

    def test_put_waits_for_room(self, fork):
        line = fork.Queue(1)
        line.put(1)
        waiter = threading.Thread(target=line.put, args=(2,), daemon=True)
        waiter.start()
        wait_until_blocked(waiter)
        assert line.get() == 1
        waiter.join(DEADLINE)
        assert line.get(timeout=DEADLINE) == 2

    def test_closed(self, impl, fork):
        for line in (fork.Queue(), fork.JoinableQueue()):
            line.put(1)
            line.close()
            line.join_thread()
            for attempt in (lambda q=line: q.put(2), lambda q=line: q.get()):
                with pytest.raises(ValueError, match="is closed"):
                    attempt()
            with pytest.raises(OSError, match="is closed"):
                line.empty()
        unused = fork.Queue()
        unused.close()
        assert unused.empty()

    def test_join_thread_wants_a_closed_queue(self, fork):
        line = fork.Queue()
        with pytest.raises(AssertionError):
            line.join_thread()
        line.cancel_join_thread()

    def test_pickled_only_for_a_child(self, fork):
        for line in (fork.Queue(), fork.JoinableQueue(), fork.SimpleQueue()):
            with pytest.raises(RuntimeError, match="only be shared between processes through inheritance"):
                pickle.dumps(line)

    def test_what_cannot_be_pickled_is_told_and_dropped(self, fork, monkeypatch):
        said = io.StringIO()
        monkeypatch.setattr(sys, "stderr", said)
        line = fork.Queue(1)
        line.put(Refuses())
        line.put("next")
        assert line.get(timeout=DEADLINE) == "next"
        assert "not this one" in said.getvalue()

    def test_the_hook_for_what_cannot_be_pickled(self, impl, fork):
        told = []

        class Tells(type(fork.Queue())):
            @staticmethod
            def _on_queue_feeder_error(error, item):
                told.append((error, item))

        line = Tells(ctx=fork)
        bad = Refuses()
        line.put(bad)
        line.put(1)
        assert line.get(timeout=DEADLINE) == 1
        assert [(type(error), item) for error, item in told] == [(AttributeError, bad)]

    def test_simple_queue_raises_what_pickling_raises(self, fork):
        line = fork.SimpleQueue()
        with pytest.raises(AttributeError, match="not this one"):
            line.put(Refuses())
        assert line.empty()

    def test_what_cannot_be_unpickled_costs_itself(self, fork):
        for line in (fork.Queue(), fork.SimpleQueue()):
            line.put(Explodes())
            line.put("next")
            with pytest.raises(LookupError, match="not that one"):
                line.get()
            assert line.get() == "next"

    def test_task_done(self, ctx):
        tasks = ctx.JoinableQueue()
        for number in range(20):
            tasks.put(number)
        workers = [started(ctx, finish, tasks) for _ in range(2)]
        tasks.join()
        for _ in workers:
            tasks.put(None)
        assert [ended(worker) for worker in workers] == [0, 0]

    def test_task_done_too_often(self, fork):
        tasks = fork.JoinableQueue()
        tasks.put(1)
        tasks.get()
        tasks.task_done()
        with pytest.raises(ValueError, match="called too many times"):
            tasks.task_done()
        tasks.join()

    def test_is_selectable(self, fork):
        line = fork.Queue()
        from multiprocessing.connection import wait

        assert wait([line._reader], 0) == []
        line.put(1)
        assert wait([line._reader], DEADLINE) == [line._reader]
        assert line.get() == 1
        assert wait([line._reader], 0) == []

    def test_simple_queue_closed(self, fork):
        line = fork.SimpleQueue()
        line.close()
        assert line._reader.closed
        assert line._writer.closed
        with pytest.raises(OSError, match="closed"):
            line.put(1)

    def test_annotations(self, impl):
        assert impl.multiprocessing.queues.SimpleQueue[int]

    @pytest.mark.parametrize(
        ("kind", "method"),
        [
            (kind, method)
            for kind, methods in {
                "Queue": "put get put_nowait get_nowait qsize empty full close join_thread cancel_join_thread",
                "JoinableQueue": "task_done join",
                "SimpleQueue": "put get empty close",
            }.items()
            for method in methods.split()
        ],
    )
    def test_signatures(self, impl, kind, method):
        from multiprocessing import queues

        ours = getattr(getattr(impl.multiprocessing.queues, kind), method)
        check_signature(ours, getattr(getattr(queues, kind), method))

    def test_fork_keeps_what_is_there(self, fork):
        line, back = fork.Queue(), fork.Queue()
        line.put("before")
        wait_until(lambda: not line.empty())
        pid = os.fork()
        if pid == 0:
            try:
                back.put(line.get(timeout=DEADLINE))
                back.close()
                back.join_thread()
            finally:
                os._exit(0)
        assert back.get(timeout=DEADLINE) == "before"
        os.waitpid(pid, 0)
        assert line.empty()

    def test_block_false_wins(self, fork):
        """Over a timeout."""
        line = fork.Queue(1)
        line.put(1)
        start = time.monotonic()
        with pytest.raises(queue.Full):
            line.put(2, False, 30)
        assert time.monotonic() - start < 10
