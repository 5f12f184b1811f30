"""Pipes between processes: the standard library's and raddle's behave alike."""

import os
import pickle
import socket
import threading
from multiprocessing import reduction

import pytest

from tools import DEADLINE, check_signature, wait_until_blocked


@pytest.fixture
def pipe(impl):
    one, other = impl.multiprocessing.Pipe()
    yield one, other
    one.close()
    other.close()


def echo(end):
    while (value := end.recv()) is not ...:
        end.send(value)


def fill(end, size):
    view = memoryview(bytearray(os.urandom(size)))
    end.send_bytes(view)
    end.send_bytes(view[::-1].tobytes())


def hand_over(end):
    read, write = os.pipe()
    os.write(write, b"through")
    reduction.send_handle(end, read, os.getppid())
    os.close(write)


def take_and_answer(ends):
    end = ends.recv()
    end.send("here")
    end.close()


class TestPipes:
    def test_objects_there_and_back(self, ctx):
        mine, theirs = ctx.Pipe()
        child = ctx.Process(target=echo, args=(theirs,), daemon=True)
        child.start()
        theirs.close()
        for value in [1, "two", b"three", [4, {"five": 6.0}], None, b"x" * 3_000_000, "y" * 70_000]:
            mine.send(value)
            assert mine.poll(DEADLINE)
            assert mine.recv() == value
        mine.send(...)
        child.join(DEADLINE)
        assert child.exitcode == 0

    def test_one_direction(self, impl):
        reader, writer = impl.multiprocessing.Pipe(duplex=False)
        assert (reader.readable, reader.writable) == (True, False)
        assert (writer.readable, writer.writable) == (False, True)
        with pytest.raises(OSError, match="read-only"):
            reader.send(1)
        for attempt in (writer.recv, writer.poll, writer.recv_bytes):
            with pytest.raises(OSError, match="write-only"):
                attempt()
        writer.send(1)
        assert reader.recv() == 1
        writer.close()
        with pytest.raises(EOFError):
            reader.recv()
        reader.close()

    def test_parts_of_bytes(self, pipe):
        one, other = pipe
        one.send_bytes(b"0123456789", 2, 5)
        one.send_bytes(b"0123456789", 7)
        one.send_bytes(memoryview(b"abcd")[1:])
        one.send_bytes(b"")
        assert [other.recv_bytes() for _ in range(4)] == [b"23456", b"789", b"bcd", b""]
        for arguments, text in [
            ((b"x", -1), "offset is negative"),
            ((b"x", 2), "buffer length < offset"),
            ((b"x", 0, -1), "size is negative"),
            ((b"x", 0, 2), r"buffer length < offset \+ size"),
        ]:
            with pytest.raises(ValueError, match=text):
                one.send_bytes(*arguments)
        with pytest.raises(TypeError):
            one.send_bytes("text")

    def test_most_bytes(self, pipe):
        one, other = pipe
        one.send_bytes(b"12345")
        assert other.recv_bytes(5) == b"12345"
        with pytest.raises(ValueError, match="negative maxlength"):
            other.recv_bytes(-1)
        one.send_bytes(b"123456")
        with pytest.raises(OSError, match="bad message length"):
            other.recv_bytes(5)
        assert not other.readable

    def test_into_a_buffer(self, impl, pipe):
        one, other = pipe
        buffer = bytearray(b"----------")
        one.send_bytes(b"abc")
        assert other.recv_bytes_into(buffer) == 3
        one.send_bytes(b"abc")
        assert other.recv_bytes_into(buffer, 7) == 3
        assert buffer == b"abc----abc"
        one.send_bytes(b"too long for it")
        with pytest.raises(impl.multiprocessing.BufferTooShort) as caught:
            other.recv_bytes_into(buffer)
        assert caught.value.args == (b"too long for it",)
        one.send_bytes(b"next")
        with pytest.raises(ValueError, match="negative offset"):
            other.recv_bytes_into(buffer, -1)
        with pytest.raises(ValueError, match="offset too large"):
            other.recv_bytes_into(buffer, 11)
        assert other.recv_bytes() == b"next"

    def test_a_pickle_is_bytes(self, pipe):
        one, other = pipe
        one.send({"a": 1})
        assert pickle.loads(other.recv_bytes()) == {"a": 1}
        one.send_bytes(pickle.dumps([1, 2]))
        assert other.recv() == [1, 2]

    def test_poll(self, pipe):
        one, other = pipe
        assert not other.poll()
        assert not other.poll(0.01)
        assert not other.poll(-1)
        one.send(1)
        assert other.poll()
        assert other.poll(None)
        assert other.recv() == 1
        assert not other.poll()
        one.close()
        assert other.poll()
        with pytest.raises(EOFError):
            other.recv()

    def test_a_gone_reader(self, pipe):
        one, other = pipe
        other.close()
        with pytest.raises(BrokenPipeError):
            for _ in range(3):
                one.send(1)

    def test_what_was_sent_before_the_end(self, pipe):
        one, other = pipe
        for number in range(10):
            one.send(number)
        one.close()
        assert [other.recv() for _ in range(10)] == list(range(10))
        with pytest.raises(EOFError):
            other.recv()

    def test_closed(self, pipe):
        one, _ = pipe
        one.close()
        one.close()
        assert one.closed
        for attempt in (lambda: one.send(1), one.recv, one.poll, one.fileno, lambda: one.send_bytes(b"")):
            with pytest.raises(OSError, match="handle is closed"):
                attempt()

    def test_as_a_context(self, impl):
        one, other = impl.multiprocessing.Pipe()
        with one:
            one.send(1)
        assert one.closed
        assert other.recv() == 1
        other.close()

    def test_a_reader_waits(self, pipe):
        one, other = pipe
        found = []
        waiter = threading.Thread(target=lambda: found.append(other.recv()), daemon=True)
        waiter.start()
        wait_until_blocked(waiter)
        one.send("late")
        waiter.join(DEADLINE)
        assert found == ["late"]

    def test_a_waiting_reader_learns_of_the_end(self, pipe):
        one, other = pipe

        def receive():
            with pytest.raises(EOFError):
                other.recv()
            ends.append(True)

        ends = []
        waiter = threading.Thread(target=receive, daemon=True)
        waiter.start()
        wait_until_blocked(waiter)
        one.close()
        waiter.join(DEADLINE)
        assert ends == [True]

    def test_a_killed_writer_is_the_end(self, impl):
        fork = impl.multiprocessing.get_context("fork")
        mine, theirs = fork.Pipe()
        child = fork.Process(target=echo, args=(theirs,), daemon=True)
        child.start()
        theirs.close()
        mine.send(1)
        assert mine.recv() == 1
        child.kill()
        with pytest.raises((EOFError, ConnectionResetError)):
            mine.recv()
        child.join()

    def test_a_sender_waits_for_a_slow_reader(self, impl):
        fork = impl.multiprocessing.get_context("fork")
        mine, theirs = fork.Pipe()
        child = fork.Process(target=fill, args=(theirs, 3_000_000), daemon=True)
        child.start()
        theirs.close()
        first, second = mine.recv_bytes(), mine.recv_bytes()
        assert first == second[::-1]
        child.join(DEADLINE)
        assert child.exitcode == 0

    def test_is_sent_through_another(self, ctx):
        """A connection may be pickled at any time."""
        mine, theirs = ctx.Pipe()
        child = ctx.Process(target=take_and_answer, args=(theirs,), daemon=True)
        child.start()
        one, other = ctx.Pipe()
        mine.send(other)
        assert one.poll(DEADLINE)
        assert one.recv() == "here"
        child.join(DEADLINE)
        assert child.exitcode == 0

    def test_descriptors_are_handed_over(self, impl):
        fork = impl.multiprocessing.get_context("fork")
        mine, theirs = fork.Pipe()
        child = fork.Process(target=hand_over, args=(theirs,), daemon=True)
        child.start()
        received = reduction.recv_handle(mine)
        assert os.read(received, 10) == b"through"
        os.close(received)
        child.join(DEADLINE)
        assert child.exitcode == 0

    @pytest.mark.parametrize(
        "method",
        ["send", "recv", "send_bytes", "recv_bytes", "recv_bytes_into", "poll", "fileno", "close"],
    )
    def test_signatures(self, impl, pipe, method):
        from multiprocessing.connection import Connection

        check_signature(getattr(type(pipe[0]), method), getattr(Connection, method))


class TestWait:
    def test_a_mixture(self, impl):
        import multiprocessing as std

        wait = impl.multiprocessing.connection.wait
        fork = impl.multiprocessing.get_context("fork")
        one, other = impl.multiprocessing.Pipe()
        his, hers = std.Pipe()
        left, right = socket.socketpair()
        go = fork.Event()
        child = fork.Process(target=go.wait, daemon=True)
        child.start()
        everything = [other, hers, right, child.sentinel]
        assert wait(everything, 0) == []
        assert wait(everything, 0.02) == []
        one.send(1)
        assert wait(everything, DEADLINE) == [other]
        his.send(2)
        left.send(b"3")
        assert wait(everything, DEADLINE) == [other, hers, right]
        assert (other.recv(), hers.recv(), right.recv(1)) == (1, 2, b"3")
        assert wait(everything, 0) == []
        go.set()
        assert wait(everything, DEADLINE) == [child.sentinel]
        child.join()
        one.close()
        assert wait([other], DEADLINE) == [other]
        for end in (other, his, hers, left, right):
            end.close()

    def test_many_messages_are_told_of_until_they_are_taken(self, impl):
        wait = impl.multiprocessing.connection.wait
        one, other = impl.multiprocessing.Pipe()
        for _ in range(3):
            for number in range(5):
                one.send(number)
            for number in range(5):
                assert wait([other], DEADLINE) == [other]
                assert other.recv() == number
            assert wait([other], 0) == []
        one.close()
        other.close()
