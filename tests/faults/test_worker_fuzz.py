"""Workers that send anything: the pool's process gets an error or ignores it; it never hangs, panics or asks for
memory of the worker's choosing."""

import mmap
import os
import pickle
import socket
import subprocess
import sys
import time
from queue import Full

import pytest
import raddle.concurrent.futures  # noqa: F401 - tells the extension what futures are
from raddle import _raddle
from raddle.multiprocessing import _workers  # noqa: F401 - tells the extension how messages are read
from raddle.multiprocessing._pickling import decode
from raddle.queue import ShutDown

from tools import DEADLINE, rng_for, scaled

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open")

READY = 2 << 3


class FakeWorker:
    """A process that only lives, and this test in its place at the other end of its channels."""

    def __init__(self, workers):
        (self.slot,) = workers.want(1)
        self.process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"])
        ours, theirs = socket.socketpair()
        file = _raddle.channel_memory(2, 0, 0)
        self.file = os.dup(file)
        self.channel = _raddle.Channel(
            os.dup(file), theirs.detach(), 0, 1, print, lambda tag, data: bytes(data), True
        )
        workers.enlist(self.slot, self.process.pid, file, ours.detach())

    def scribble(self, rng):
        """Random bytes at random places of the shared memory, headers and rings."""
        with mmap.mmap(self.file, 0) as memory:
            for _ in range(rng.randrange(1, 40)):
                at = rng.choice([rng.randrange(8192), rng.randrange(len(memory))])
                data = rng.choice([rng.randbytes(8), b"\xff" * 8, bytes(8), b"\x00" * 7 + b"\x80"])
                memory[at : at + len(data)] = data[: len(memory) - at]

    def end(self):
        self.process.kill()
        self.process.wait()
        os.close(self.file)
        self.channel.close()


def fetch_until_died(workers, limit):
    """The events until the worker's death; what was lost with it."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        what, *details = workers.news()
        if what == "died":
            return details
        if what == "start":
            workers.give_up(*details)
    raise AssertionError("no death was told")


@pytest.mark.parametrize("scribbles", [False, True])
def test_anything(scribbles):
    rng = rng_for(f"workers send anything, scribbles={scribbles}")
    for _ in range(scaled(40, soak=2000)):
        workers = _raddle.Workers(1)
        workers.dispatch()
        worker = FakeWorker(workers)
        tasks = [_raddle.pickle_task(print, (rng.randbytes(rng.randrange(200)),), {}) for _ in range(3)]
        futures = [workers.submit(task) for task in tasks]
        try:
            worker.channel.send(READY, bytes(16))
            data = worker.channel.receive()
            for _ in range(rng.randrange(6)):
                number = rng.choice([data[-8:], rng.randbytes(8), bytes(8)])
                worker.channel.send(
                    rng.randrange(64),
                    rng.randbytes(rng.randrange(300)) + rng.choice([bytes(8), b"\xff" * 8, b""]) + number,
                )
            if rng.randrange(2):
                worker.channel.send(rng.randrange(64), rng.randbytes(rng.randrange(16)))
            if scribbles:
                worker.scribble(rng)
                try:
                    worker.channel.send(rng.randrange(64), data[-8:], False)
                except (OSError, Full, ShutDown):
                    pass
            time.sleep(0.001)
        finally:
            worker.end()
        slot, pid, lost, *_ = fetch_until_died(workers, DEADLINE)
        assert (slot, pid) == (worker.slot, worker.process.pid)
        for future in lost:
            _raddle.end_taken(future, None)
        for future in workers.drop_all():
            _raddle.end_taken(future, None)
        # Whatever came of them, they have come to an end, or the task was never taken from the line.
        for future in futures:
            if future.done() and not future.cancelled():
                future.exception(0)
        workers.close()
        while (news := workers.news())[0] != "over":
            if news[0] == "start":
                workers.give_up(news[1])
        workers.join()


class _Rest:
    """What a server leaves to Python, without replies that have to be pickled."""

    def __init__(self):
        self.told = []

    def reply(self, tail, result):
        self.told.append(("reply", tail[8:]))

    def raised(self, tail, error):
        self.told.append(("raised", tail[8:]))

    def unreadable(self, tail, error):
        self.told.append(("unreadable", tail[8:]))

    def refused(self, error):
        raise AssertionError(error)


def test_tasks_of_any_bytes():
    """A task that is no task is unreadable, or calls something harmless; the server goes on with the next."""
    rng = rng_for("tasks of any bytes")
    name = b"\x80\x04\x8c\x08builtins\x8c\x03abs\x93."
    file = _raddle.channel_memory(2, 0, 0)
    ours, theirs = socket.socketpair()
    sender = _raddle.Channel(os.dup(file), ours.detach(), 1, 0, bytes, lambda tag, data: bytes(data), True)
    channel = _raddle.Channel(file, theirs.detach(), 0, 1, pickle.loads, decode, True)
    rest = _Rest()
    server = _raddle.Server(channel, pickle.loads, decode, rest, KeyError)
    sent = scaled(500, soak=20_000)
    for number in range(1, sent + 1):
        args = _raddle.plain_dumps((rng.choice([5, -3, "no number", None]),))
        task = bytearray(args + name + len(name).to_bytes(4, "little"))
        for _ in range(rng.randrange(3)):
            task[rng.randrange(len(task))] = rng.randrange(128)
        task = task[rng.choice([0, 0, rng.randrange(len(task))]) :]
        # The tag of a call, the one of a call with buffers, and those that a worker does not know.
        sender.send(rng.choice([4, 4, 4, 5, 3, 6, 7]), bytes(task) + number.to_bytes(8, "little"))
    sender.send(1 << 3, bytes(8))
    server.serve()
    assert server.running == 0
    replies = [sender.receive_bytes_of() for _ in range(sender.statistics()[0])]
    numbers = [int.from_bytes(tail, "little") for _, tail in rest.told]
    numbers += [int.from_bytes(reply[-8:], "little") for reply in replies]
    assert sorted(numbers) == list(range(1, sent + 1))
    kinds = {what for what, _ in rest.told}
    assert {"raised", "unreadable"} <= kinds
    assert replies
