"""Queues, pipes and locks between processes, which are forked for each sample and not timed.

An operation is one message: put by one process and got by another, or sent to a child and back. What is timed begins
when all children are ready, and ends when all messages have arrived. The CPU time is that of the parent alone.
"""

import multiprocessing

from .harness import check, mark, row, since

_fork = multiprocessing.get_context("fork")

SMALL = b"x" * 100
#: The same with something to pickle.
RECORD = {"id": 12345, "name": "x" * 30, "values": [1.5, 2.5], "ok": True}
LARGE = bytes(range(250)) * 4000


def _child(target, *args):
    """A forked child that reports when it is ready and when it is done."""
    mine, theirs = _fork.Pipe()

    def run():
        theirs.send("ready")
        theirs.recv()
        target(*args)
        theirs.send("done")

    process = _fork.Process(target=run, daemon=True)
    process.start()
    theirs.close()
    check(mine.recv() == "ready", "the child does not start")
    return process, mine


def _end(children):
    for process, end in children:
        process.join(10)
        check(process.exitcode == 0, "the child does not end")
        end.close()


def _put(queue, message, n):
    for _ in range(n):
        queue.put(message)


def _get(queue, message, n):
    size = len(message)
    for _ in range(n):
        check(len(queue.get()) == size, "another message")


def _through(queue, message, n, pairs):
    """Every pair writes and reads n/pairs messages; the first writer is this process."""
    share = n // pairs
    readers = [_child(_get, queue, message, share) for _ in range(pairs)]
    writers = [_child(_put, queue, message, share) for _ in range(pairs - 1)]
    start = mark()
    for _, end in readers + writers:
        end.send("go")
    _put(queue, message, share)
    for _, end in readers:
        check(end.recv() == "done", "a reader failed")
    spent = since(start)
    _end(readers + writers)
    queue.close()
    return spent


@row("processes.queue_small", "process Queue, 100 B, 1 writer and 1 reader", needs=["ProcessQueue"], target=5)
def queue_small(impl, n):
    """queue.put(100 bytes); queue.get() in a child"""
    return _through(impl.ProcessQueue(), SMALL, n, 1)


@row("processes.queue_record", "process Queue, small dict, 1 writer and 1 reader", needs=["ProcessQueue"])
def queue_record(impl, n):
    """The same with a dict that has to be pickled."""
    return _through(impl.ProcessQueue(), RECORD, n, 1)


@row("processes.queue_2x2", "process Queue, 100 B, 2 writers and 2 readers", needs=["ProcessQueue"], target=5)
def queue_2x2(impl, n):
    """Two processes put, two others get."""
    return _through(impl.ProcessQueue(), SMALL, n, 2)


@row("processes.queue_large", "process Queue, 1 MB, 1 writer and 1 reader", needs=["ProcessQueue"], target=3)
def queue_large(impl, n):
    """A megabyte of bytes a message."""
    return _through(impl.ProcessQueue(), LARGE, n, 1)


def _echo(end, n):
    for _ in range(n):
        end.send_bytes(end.recv_bytes())


def _round_trips(impl, message, n):
    mine, theirs = impl.ProcessPipe()
    children = [_child(_echo, theirs, n)]
    start = mark()
    children[0][1].send("go")
    for _ in range(n):
        mine.send_bytes(message)
        check(len(mine.recv_bytes()) == len(message), "another message")
    spent = since(start)
    check(children[0][1].recv() == "done", "the child failed")
    _end(children)
    mine.close()
    theirs.close()
    return spent


@row("processes.pipe_small", "Pipe round trip, 100 B", needs=["ProcessPipe"], target=2)
def pipe_small(impl, n):
    """send_bytes and recv_bytes; a child sends everything back"""
    return _round_trips(impl, SMALL, n)


@row("processes.pipe_large", "Pipe round trip, 1 MB", needs=["ProcessPipe"], target=3)
def pipe_large(impl, n):
    """The same with a megabyte."""
    return _round_trips(impl, LARGE, n)


@row("processes.lock", "process Lock, acquire and release", needs=["ProcessLock"], target=1)
def lock(impl, n):
    """lock.acquire(); lock.release() while nobody else wants it"""
    mine = impl.ProcessLock()
    acquire, release = mine.acquire, mine.release
    start = mark()
    for _ in range(n):
        acquire()
        release()
    return since(start)


@row("processes.rlock_with", "process RLock, with", needs=["ProcessRLock"], target=1)
def rlock_with(impl, n):
    """with rlock: pass"""
    mine = impl.ProcessRLock()
    start = mark()
    for _ in range(n):
        with mine:
            pass
    return since(start)


def _answer(asked, answered, n):
    for _ in range(n):
        asked.acquire()
        answered.release()


@row("processes.handover", "process Semaphore, there and back", needs=["ProcessSemaphore"], target=1)
def handover(impl, n):
    """Release one and acquire the other; a child does the opposite."""
    asked, answered = impl.ProcessSemaphore(0), impl.ProcessSemaphore(0)
    children = [_child(_answer, asked, answered, n)]
    start = mark()
    children[0][1].send("go")
    for _ in range(n):
        asked.release()
        answered.acquire()
    spent = since(start)
    check(children[0][1].recv() == "done", "the child failed")
    _end(children)
    return spent


def _take_turns(condition, turn, me, n):
    with condition:
        for _ in range(n):
            while turn.value != me:
                condition.wait()
            turn.value = 1 - me
            condition.notify()


@row("processes.condition", "process Condition, two take turns", needs=["ProcessCondition"], target=1)
def condition(impl, n):
    """Wait for one's turn, give it to the child, notify; the child does the same."""
    shared, turn = impl.ProcessCondition(), _fork.Value("i", 0, lock=False)
    children = [_child(_take_turns, shared, turn, 1, n)]
    start = mark()
    children[0][1].send("go")
    _take_turns(shared, turn, 0, n)
    check(children[0][1].recv() == "done", "the child failed")
    spent = since(start)
    _end(children)
    return spent
