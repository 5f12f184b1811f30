"""``Pool``: worker processes and the many ways to give them work.

A subtype of ``multiprocessing.pool.Pool`` with its methods. The workers are those of ``ProcessPoolExecutor`` in
``raddle.concurrent.futures``: one that dies costs the task that it ran, which raises ``WorkerDied``.
"""

from __future__ import annotations

import builtins
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from itertools import islice, starmap
from multiprocessing import TimeoutError, util
from multiprocessing import pool as _std
from multiprocessing.pool import CLOSE, INIT, RUN, TERMINATE
from typing import Any, TypeVar

from raddle import _raddle
from raddle.concurrent.futures._base import Future
from raddle.multiprocessing import _worker
from raddle.multiprocessing._workers import (
    Crew,
    MemoryLimitExceeded,
    UnpicklingFailed,
    WorkerDied,
    failed,
    pool_context,
)
from raddle.threading import Condition, Event, Lock, Thread

__all__ = [
    "ApplyResult",
    "AsyncResult",
    "IMapIterator",
    "IMapUnorderedIterator",
    "MapResult",
    "MaybeEncodingError",
    "MemoryLimitExceeded",
    "Pool",
    "RemoteTraceback",
    "ThreadPool",
    "UnpicklingFailed",
    "WorkerDied",
]

_T = TypeVar("_T")

_private: Any = _std
ExceptionWithTraceback = _private.ExceptionWithTraceback
MaybeEncodingError = _private.MaybeEncodingError
RemoteTraceback = _private.RemoteTraceback

# What futures raise when their time is up; multiprocessing has an exception of its own.
_Late = builtins.TimeoutError


def _map_chunk(fn: Callable[..., _T], chunk: tuple[Any, ...]) -> list[_T]:
    return list(map(fn, chunk))


def _star_chunk(fn: Callable[..., _T], chunk: tuple[Any, ...]) -> list[_T]:
    return list(starmap(fn, chunk))


class ApplyResult:
    """The result of a task, to come. Usable from any thread.

    It is ready when its callback, if it has one, has returned.
    """

    def __init__(
        self,
        pool: Pool,
        futures: list[Future[Any]],
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        self._pool: Pool | None = pool
        self._futures = futures
        self._left = len(futures)
        self._callback = callback
        self._error_callback = error_callback
        self._event: Event | None = None
        if callback is not None or error_callback is not None:
            self._event = Event()
            self._counting = Lock()
            for future in futures:
                future.add_done_callback(self._one_is_done)
            if not futures:
                self._all_are_done()

    def _one_is_done(self, _: object) -> None:
        with self._counting:
            self._left -= 1
            if self._left:
                return
        self._all_are_done()

    def _all_are_done(self) -> None:
        try:
            error = self._error()
            if error is None:
                if self._callback is not None:
                    self._callback(self._gather())
            elif self._error_callback is not None:
                self._error_callback(error)
        finally:
            assert self._event is not None
            self._event.set()

    def _error(self) -> BaseException | None:
        for future in self._futures:
            error = CancelledError() if future.cancelled() else future.exception()
            if error is not None:
                return error
        return None

    def ready(self) -> bool:
        """Whether the task is over."""
        if self._event is not None:
            return self._event.is_set()
        return all(future.done() for future in self._futures)

    def successful(self) -> bool:
        """Whether the task ended without an exception.

        Raises:
            ValueError: it is not over.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error() is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task is over, at most ``timeout`` seconds. Blocks with the GIL released."""
        if self._event is not None:
            self._event.wait(timeout)
            return
        limit = None if timeout is None else time.monotonic() + timeout
        for future in self._futures:
            left = None if limit is None else max(0.0, limit - time.monotonic())
            try:
                future.exception(left)
            except CancelledError:
                pass
            except _Late:
                return

    def get(self, timeout: float | None = None) -> Any:
        """The result, waited for at most ``timeout`` seconds; or the exception of the task is raised.

        Raises:
            multiprocessing.TimeoutError: it is not over in time.
            WorkerDied: its worker died.
            concurrent.futures.CancelledError: the pool was terminated.
        """
        if timeout is None and self._event is None:
            return self._gather()
        self.wait(timeout)
        if not self.ready():
            raise TimeoutError
        return self._gather()

    def _gather(self) -> Any:
        """The result, waited for; or the exception, once all parts are over."""
        self._pool = None
        parts: list[Any] = []
        error: BaseException | None = None
        for future in self._futures:
            try:
                parts.append(future.result())
            except BaseException as raised:
                if not future.done() or not (future.cancelled() or raised is future.exception()):
                    raise  # a signal handler's
                error = error or raised
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self._join(parts)

    def _join(self, parts: list[Any]) -> Any:
        return parts[0]


AsyncResult = ApplyResult


class MapResult(ApplyResult):
    """The results of tasks that are chunks of a list, to come."""

    def _join(self, parts: list[Any]) -> list[Any]:
        return [item for part in parts for item in part]


class EachResult(MapResult):
    """The same, of tasks that are one item each."""

    def _join(self, parts: list[Any]) -> list[Any]:
        return parts


class IMapIterator:
    """Results in the order of their arguments, as they come."""

    def __init__(self, pool: Pool, chunksize: int = 1) -> None:
        self._pool: Pool | None = pool
        self._in_chunks = chunksize > 1
        self._changed = Condition(Lock())
        self._futures: deque[Future[Any]] = deque()
        self._items: deque[Any] = deque()
        self._over = False

    # The feeding side

    def _put(self, future: Future[Any]) -> None:
        with self._changed:
            self._futures.append(future)
            self._changed.notify()

    def _end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    # The taking side

    def _take(self, limit: float | None) -> Future[Any]:
        """The next future, done."""
        with self._changed:
            while not self._futures:
                if self._over:
                    self._pool = None
                    raise StopIteration
                if not self._changed.wait(_left(limit)) and not self._futures and not self._over:
                    raise TimeoutError
            future = self._futures[0]
        try:
            future.exception(_left(limit))
        except CancelledError:
            pass
        except _Late:
            raise TimeoutError from None
        with self._changed:
            self._futures.popleft()
        return future

    def __iter__(self) -> Iterator[Any]:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """The next result, waited for at most ``timeout`` seconds.

        Raises:
            StopIteration: there are no more.
            multiprocessing.TimeoutError: it does not come in time.
        """
        if not self._items:
            result = self._take(None if timeout is None else time.monotonic() + timeout).result()
            if not self._in_chunks:
                return result
            self._items.extend(result)
        return self._items.popleft()

    def __next__(self) -> Any:
        return self.next()


class IMapUnorderedIterator(IMapIterator):
    """Results as they come."""

    def __init__(self, pool: Pool, chunksize: int = 1) -> None:
        super().__init__(pool, chunksize)
        self._running = 0

    def _put(self, future: Future[Any]) -> None:
        with self._changed:
            self._running += 1
        future.add_done_callback(self._done)

    def _done(self, future: Any) -> None:
        with self._changed:
            self._running -= 1
            self._futures.append(future)
            self._changed.notify_all()

    def _take(self, limit: float | None) -> Future[Any]:
        with self._changed:
            while not self._futures:
                if self._over and not self._running:
                    self._pool = None
                    raise StopIteration
                if not self._changed.wait(_left(limit)) and not self._futures:
                    raise TimeoutError
            return self._futures.popleft()


def _left(limit: float | None) -> float | None:
    return None if limit is None else max(0.0, limit - time.monotonic())


# To a type checker, results are none of the standard library's, whose methods they have.
_Base: Any = _std.Pool


class Pool(_Base):  # type: ignore[misc]
    """Worker processes: a subtype of ``multiprocessing.pool.Pool``.

    Args:
        processes: how many; None is the number of cores that this process may use.
        initializer, initargs: called in each worker when it starts. If it raises, all tasks fail with
            ``BrokenProcessPool``.
        maxtasksperchild: tasks after which a worker is replaced; None is never.
        context: how processes are started; use the ``Pool()`` of a context or of the package.
    Raises:
        ValueError, TypeError: an argument that makes no sense.
    Note:
        Follows CPython's. A worker that dies is replaced, and its task raises ``WorkerDied``. All workers die with the
        process that has the pool. Workers may have children. In a forked child the pool raises RuntimeError.
    """

    _wrap_exception = True

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        self._state = INIT
        if processes is None:
            processes = getattr(os, "process_cpu_count", os.cpu_count)() or 1
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._ctx = context or pool_context()
        self._processes = processes
        self._maxtasksperchild = maxtasksperchild
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._crew = Crew(
            self._ctx,
            processes,
            _worker.OfPool,
            initializer=initializer,
            initargs=self._initargs,
            tasks_per_worker=maxtasksperchild or 0,
            prepare=_prepare,
            lasting=False,
        )
        try:
            self._crew.begin(processes)
        except BaseException:
            _terminate(self._crew)
            raise
        self._terminate = util.Finalize(self, _terminate, args=(self._crew,), exitpriority=15)
        self._state = RUN

    def __del__(self, _warn: Any = warnings.warn, RUN: Any = RUN) -> None:
        if self._state == RUN:
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)

    @property
    def _pool(self) -> list[Any]:
        return list(self._crew.processes.values())

    def _repopulate_pool(self) -> None:
        """As real programs call it, to have missing workers started at once."""
        self._crew.grow(self._processes)

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    def _submit(self, fn: Any, args: Any, kwds: Any, about: Any = None) -> Future[Any]:
        try:
            task = _raddle.pickle_task(fn, args, kwds, about)
            if self._crew.broken:
                raise WorkerDied(reason=self._crew.broken)
        except Exception as error:
            return failed(error)
        return self._crew.submit(task)

    def apply(
        self,
        func: Callable[..., _T],
        args: Iterable[Any] = (),
        kwds: Any = {},  # noqa: B006 - as in the standard library, and not changed
    ) -> _T:
        """``func(*args, **kwds)`` in a worker, waited for."""
        result: _T = self.apply_async(func, args, kwds).get()
        return result

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Any = {},  # noqa: B006
        callback: Any = None,
        error_callback: Any = None,
    ) -> ApplyResult:
        """``func(*args, **kwds)`` in a worker; its result, to come.

        Args:
            callback, error_callback: called with the result, or with the exception, by a thread of the pool.
        """
        self._check_running()
        future = self._submit(func, tuple(args), dict(kwds))
        return ApplyResult(self, [future], callback, error_callback)

    def _chunks(
        self, run: Any, func: Any, iterable: Iterable[Any], chunksize: int | None, callbacks: tuple[Any, Any]
    ) -> MapResult:
        self._check_running()
        items: Any = iterable if hasattr(iterable, "__len__") else list(iterable)
        if chunksize is None:
            chunksize, extra = divmod(len(items), self._processes * 4)
            chunksize += bool(extra)
        chunksize = max(chunksize, 1)
        if chunksize == 1:
            return EachResult(self, self._crew.submit_each(func, items, star=run is _star_chunk), *callbacks)
        source = iter(items)
        chunks = iter(lambda: tuple(islice(source, chunksize)), ())
        futures = [self._submit(run, (func, chunk), {}, func) for chunk in chunks]
        return MapResult(self, futures, *callbacks)

    def map(
        self, func: Callable[[Any], _T], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[_T]:
        """``func`` of each item, in the workers; the results in their order."""
        results: list[_T] = self._chunks(_map_chunk, func, iterable, chunksize, (None, None)).get()
        return results

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> MapResult:
        """As ``map``; the results, to come."""
        return self._chunks(_map_chunk, func, iterable, chunksize, (callback, error_callback))

    def starmap(
        self, func: Callable[..., _T], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[_T]:
        """``func(*item)`` of each item."""
        results: list[_T] = self._chunks(_star_chunk, func, iterable, chunksize, (None, None)).get()
        return results

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> MapResult:
        """As ``starmap``; the results, to come."""
        return self._chunks(_star_chunk, func, iterable, chunksize, (callback, error_callback))

    def imap(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator:
        """``func`` of each item; an iterator over the results in their order.

        The iterable is read by a thread of its own. If it raises, the iterator does so behind the results.
        """
        results = IMapIterator(self, chunksize)
        self._feed(results, func, iterable, chunksize)
        return results

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapUnorderedIterator:
        """As ``imap``, in the order in which the results come."""
        results = IMapUnorderedIterator(self, chunksize)
        self._feed(results, func, iterable, chunksize)
        return results

    def _feed(self, results: IMapIterator, func: Any, iterable: Iterable[Any], chunksize: int) -> None:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        source = iter(iterable)
        crew = self._crew
        feeder = Thread(
            target=_feed, args=(self._submit, crew, results, func, source, chunksize), daemon=True
        )
        crew.feeders.add(feeder)
        feeder.start()

    def close(self) -> None:
        """Take no more work; workers end when what is there is done."""
        util.debug("closing pool")
        if self._state == RUN:
            self._state = CLOSE
            crew = self._crew
            if any(feeder.is_alive() for feeder in list(crew.feeders)):
                # What imap() reads is part of what is there.
                Thread(target=_close_later, args=(crew,), daemon=True).start()
            else:
                crew.close()

    def terminate(self) -> None:
        """End the workers at once, and with them what they run. Tasks that are not over are cancelled."""
        util.debug("terminating pool")
        self._state = TERMINATE
        self._terminate()

    def join(self) -> None:
        """Wait until the workers have ended. Blocks with the GIL released.

        Raises:
            ValueError: neither ``close()`` nor ``terminate()`` has been called.
        """
        util.debug("joining pool")
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        self._crew.join()

    def __repr__(self) -> str:
        cls = self.__class__
        return f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={len(self._pool)}>"


class ThreadPool(_std.ThreadPool):
    """The standard library's pool of threads, which stays so where ``install()`` has put another Pool below it."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        _Base.__init__(self, processes, initializer, initargs)


def _prepare(process: Any) -> None:
    process.name = process.name.replace("Process", "PoolWorker")
    process.daemon = True


def _feed(submit: Any, crew: Crew, results: Any, func: Any, source: Iterator[Any], chunksize: int) -> None:
    """Reads an iterable and submits it."""
    try:
        while not crew.closed:
            chunk = []
            try:
                for item in islice(source, chunksize):
                    chunk.append(item)
            except Exception as error:
                # What the chunk has so far is dropped, as in the standard library.
                results._put(failed(error))
                return
            if not chunk:
                return
            if chunksize == 1:
                results._put(submit(func, (chunk[0],), {}))
            else:
                results._put(submit(_map_chunk, (func, tuple(chunk)), {}, func))
    finally:
        results._end()


def _close_later(crew: Crew) -> None:
    for feeder in list(crew.feeders):
        feeder.join()
    crew.close()


def _terminate(crew: Crew) -> None:
    if crew.owner != os.getpid():
        return
    crew.terminate()
