"""Futures and thread pools: alone, in ping-pong, in bursts, and with pages fetched from a server."""

import asyncio
import http.client
import threading
from itertools import repeat

from .harness import SAMPLE_LIMIT, check, mark, row, since
from .pages import PageServer

#: Tasks of a burst, calls of a map, futures of an as_completed; one operation is one of them.
BURST, CALLS, FUTURES = 20_000, 100_000, 50_000

#: Workers where a row does not say.
WORKERS = 4

#: Workers that fetch 1,000 pages, and the pages that the sequential contender fetches in their place.
FETCHERS, SOME = 100, 20


def _nothing():
    pass


def _ignore(future):
    pass


@row("futures.set_result", "Future create+set+result", needs=["Future"], target=25, solo=True)
def set_result(impl, n):
    """What a pool does for each task, without the task."""
    make = impl.Future
    start = mark()
    for _ in repeat(None, n):
        future = make()
        future.set_result(None)
        future.result()
    return since(start)


@row("futures.callback", "Future create+set+result, with a callback", needs=["Future"], target=20, solo=True)
def callback(impl, n):
    """As `set_result`, with a callback that is called by set_result()."""
    make = impl.Future
    start = mark()
    for _ in repeat(None, n):
        future = make()
        future.add_done_callback(_ignore)
        future.set_result(None)
        future.result()
    return since(start)


def _ping_pong(impl, n, workers):
    with impl.ThreadPoolExecutor(workers) as pool:
        # All workers are there before the clock starts.
        impl.wait([pool.submit(_nothing) for _ in range(10 * workers)])
        submit = pool.submit
        start = mark()
        for _ in repeat(None, n):
            submit(_nothing).result()
        return since(start)


@row("futures.pingpong1", "submit().result() in turn, 1 worker", needs=["ThreadPoolExecutor"], target=4)
def one_worker(impl, n):
    """There and back between two threads."""
    return _ping_pong(impl, n, 1)


@row("futures.pingpong4", "submit().result() in turn, 4 workers", needs=["ThreadPoolExecutor"], target=4)
def four_workers(impl, n):
    """The same, where the pool may choose among four workers that sleep."""
    return _ping_pong(impl, n, 4)


@row(
    "futures.pingpong4_pinned",
    "submit().result() in turn, 4 workers, one core",
    needs=["ThreadPoolExecutor"],
    cores=1,
)
def four_workers_one_core(impl, n):
    """The same on one core, where a worker that spins keeps the others from running."""
    return _ping_pong(impl, n, 4)


@row(
    "futures.burst",
    "20,000 submits, then wait, per task",
    needs=["ThreadPoolExecutor", "wait"],
    target=30,
    least=BURST,
    most=BURST,
    step=1,
    quick=200,
    rounds=3,
)
def burst(impl, n):
    """The pool is new: its workers are started within the time."""
    with impl.ThreadPoolExecutor(WORKERS) as pool:
        submit = pool.submit
        start = mark()
        done = impl.wait([submit(_nothing) for _ in repeat(None, n)])
        spent = since(start)
    check(len(done.done) == n and not done.not_done, "not all tasks are done")
    return spent


@row(
    "futures.map",
    "map of 100,000 no-ops, per call",
    needs=["ThreadPoolExecutor"],
    target=30,
    least=CALLS,
    most=CALLS,
    step=1,
    quick=200,
    rounds=1,
)
def map_calls(impl, n):
    """All results are taken, in order."""
    with impl.ThreadPoolExecutor(WORKERS) as pool:
        start = mark()
        results = list(pool.map(abs, range(n)))
        spent = since(start)
    check(len(results) == n and results[-1] == n - 1, "map gave other results")
    return spent


@row(
    "futures.as_completed",
    "as_completed over 50,000 that a pool completes meanwhile, per future",
    needs=["ThreadPoolExecutor", "as_completed"],
    target=10,
    least=FUTURES,
    most=FUTURES,
    step=1,
    quick=200,
    rounds=1,
)
def completed(impl, n):
    """The clock starts when all are submitted and none has begun: the workers wait at a gate until then."""
    gate = threading.Event()
    with impl.ThreadPoolExecutor(WORKERS) as pool:
        for _ in range(WORKERS):
            pool.submit(gate.wait)
        futures = [pool.submit(_nothing) for _ in range(n)]
        start = mark()
        gate.set()
        count = 0
        for _ in impl.as_completed(futures, timeout=SAMPLE_LIMIT):
            count += 1
        spent = since(start)
    check(count == n, f"as_completed gave {count} of {n} futures")
    return spent


@row("futures.pool", "ThreadPoolExecutor created, one task, shut down", needs=["ThreadPoolExecutor"], quick=5)
def pool_life(impl, n):
    """A pool for a single task: a thread is started and joined for it."""
    make = impl.ThreadPoolExecutor
    start = mark()
    for _ in repeat(None, n):
        with make(WORKERS) as pool:
            pool.submit(_nothing)
    return since(start)


@row("futures.asyncio", "await loop.run_in_executor(pool)", needs=["ThreadPoolExecutor", "Future"])
def in_event_loop(impl, n):
    """One at a time, from an event loop of the standard library."""

    async def calls(pool):
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(pool, _nothing)
        start = mark()
        for _ in repeat(None, n):
            await loop.run_in_executor(pool, _nothing)
        return since(start)

    with impl.ThreadPoolExecutor(WORKERS) as pool:
        return asyncio.run(calls(pool))


# Pages of 100 ms each, from a server on the loopback interface


def _fetch(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SAMPLE_LIMIT / 2)
    try:
        connection.request("GET", "/")
        return len(connection.getresponse().read())
    finally:
        connection.close()


def _download(impl, pages, workers):
    """One page after the other where the adapter has no pool."""
    with PageServer() as server:
        start = mark()
        if hasattr(impl, "ThreadPoolExecutor"):
            with impl.ThreadPoolExecutor(workers) as pool:
                sizes = list(pool.map(_fetch, [server.port] * pages))
        else:
            sizes = [_fetch(server.port) for _ in range(pages)]
        spent = since(start)
    check(sizes == [server.size] * pages, "pages are missing or short")
    return spent


_PAGES = {"baseline": "sequential", "contenders": ("sequential", "stdlib", "raddle"), "step": 1}


@row(
    "futures.pages3",
    "3 pages of 100 ms, 5 threads against one by one",
    target=2.2,  # the tutorial's chapter 22: 0.354 s against 0.161 s
    least=1,
    most=1,
    quick=1,
    rounds=1,
    **_PAGES,
)
def three_pages(impl, n):
    """One operation is the three pages."""
    check(n == 1, "the row is for one operation")
    return _download(impl, 3, 5)


@row(
    "futures.pages1000",
    "1,000 pages of 100 ms, 100 threads against one by one, per page",
    least=1_000,
    most=1_000,
    quick=5,
    rounds=1,
    **_PAGES,
)
def thousand_pages(impl, n):
    """One after the other, a thousand would take 100 seconds: some are fetched, and the rest is multiplication."""
    some = n if hasattr(impl, "ThreadPoolExecutor") else min(n, SOME)
    wall, cpu = _download(impl, some, FETCHERS)
    return wall * n / some, cpu * n / some
