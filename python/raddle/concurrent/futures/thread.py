"""``ThreadPoolExecutor``."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import _base
from concurrent.futures import thread as _std
from concurrent.futures.thread import BrokenThreadPool
from contextvars import copy_context
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from raddle import _raddle
from raddle.concurrent.futures._base import Future
from raddle.queue import Empty, Full
from raddle.threading import Lock, RLock, Thread, current_thread

__all__ = ["BrokenThreadPool", "PoolStats", "ThreadPoolExecutor"]

_T = TypeVar("_T")

# A finalizer or a signal handler that runs while a worker is started may start one of another pool.
_std._global_shutdown_lock = RLock()  # type: ignore[assignment]

_BROKEN = "A thread initializer failed, the thread pool is not usable anymore"

if TYPE_CHECKING:

    class _Core:
        def __init__(self, line: _raddle.Line) -> None: ...
        def _submit_under(
            self, token: Any, timeout: Any, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Future[Any]: ...
        def _map(
            self, fn: Any, arguments: Iterator[Any], single: bool, timeout: float | None
        ) -> Iterator[Any]: ...
else:
    _Core = _raddle.Executor


class PoolStats(NamedTuple):
    """The work of a pool so far. Times are seconds; None where nothing has been measured yet.

    Percentiles are right within an eighth; where tasks of some microseconds follow each other, one in eight is timed.
    Processor time is sampled where tasks are short; it includes what the pool itself takes for each, and what is long
    past counts for less.
    """

    submitted: int
    pending: int
    """Tasks that have not begun."""
    running: int
    done: int
    """Tasks that ended with a result."""
    failed: int
    """Tasks that ended with an exception, or stopped because they were asked to."""
    workers: int
    idle_workers: int
    queue_wait_p50: float | None
    queue_wait_p99: float | None
    run_time_p50: float | None
    run_time_p99: float | None
    wall_per_task: float | None
    cpu_per_task: float | None
    recommended_workers: int | None
    """(waiting time + processor time) / processor time x usable cores: as many workers keep those busy.

    Waiting is what tasks do for something outside: the time in which they could go on and have no core, or not the
    GIL, is left out. Usable is one core as long as the tasks have not been seen to compute without the GIL, for which
    the pool needs two workers at least.
    """


class _WorkItem:
    """A task taken out of the line by hand."""

    def __init__(self, future: Future[Any]) -> None:
        self.future = future

    def run(self) -> None:
        """Run it in the calling thread."""
        _raddle.run_taken(self.future)


class _WorkQueue:
    """A pool's line in the shape of a queue, for programs that look at ``executor._work_queue``."""

    __slots__ = ("__weakref__", "_crew")

    def __init__(self, crew: _Crew) -> None:
        self._crew = crew

    def qsize(self) -> int:
        return self._crew.line.pending()

    def empty(self) -> bool:
        return self.qsize() == 0

    def get_nowait(self) -> _WorkItem:
        future = self._crew.line.take()
        if future is None:
            raise Empty
        return _WorkItem(future)

    def put(self, item: None) -> None:
        """What the standard library's exit handler does to end a pool: None, and no other item."""
        if item is not None:
            raise TypeError("tasks are put in line by submit()")
        self._crew.exiting = True
        self._crew.line.close()


class _Crew:
    """A pool's threads. They keep this, and not the executor, which may go while they work."""

    def __init__(
        self, prefix: str, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        self.line = _raddle.Line()
        self.threads: set[Thread] = set()
        self.newest: Thread | None = None
        self.queue = _WorkQueue(self)
        self.prefix = prefix
        self.initializer = initializer
        self.initargs = initargs
        self.broken: str | None = None
        self.exiting = False
        self.own_context = False
        self.numbers = count()
        #: Held while a worker is started, so that whoever joins them all misses none.
        self.starting = RLock()
        _crews.add(self)

    def start(self) -> None:
        """Start a worker that the line has counted in."""
        self.newest = None
        with _std._global_shutdown_lock, self.starting:
            if _std._shutdown:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            worker = Thread(name=f"{self.prefix}_{next(self.numbers)}", target=self.serve)
            self.newest = worker
            worker._launch()
            self.enlist(worker)
        # Without the locks: a finalizer in the new thread, which has not got that far yet, may submit.
        worker._wait_for_start()
        # A signal handler that raises before the next start has come to its first line is not to find this one.
        self.newest = None

    def has_started(self) -> bool:
        """Asked when ``start`` has raised: whether the worker runs all the same, as when a signal handler raised."""
        worker, self.newest = self.newest, None
        if worker is None or worker._record is None or worker._record.life() == "new":
            return False
        self.enlist(worker)
        return True

    def enlist(self, worker: Thread) -> None:
        self.threads.add(worker)
        _std._threads_queues[worker] = self.queue  # type: ignore[index]

    def serve(self) -> None:
        """What a worker does."""
        if self.initializer is not None:
            try:
                self.initializer(*self.initargs)
            except BaseException:
                _base.LOGGER.critical("Exception in initializer:", exc_info=True)
                self.fail()
                return
            if not self.own_context and len(copy_context()):
                # Tasks are to see what the initializer has set in the context of their thread.
                self.own_context = True
                self.line.set(context=False)
        self.line.work()
        if not self.line.closed():
            # It had nothing to do for too long, or was one too many: nobody has to join it.
            with self.starting:
                self.threads.discard(current_thread())

    def join(self) -> None:
        """Wait until every worker has ended, those included that are about to be started."""
        while True:
            with self.starting:
                workers = list(self.threads)
            for worker in workers:
                worker.join()
            if self.line.workers()[0] == 0:
                return
            _raddle.yield_now()

    def fail(self) -> None:
        """The initializer failed: nothing is run any more."""
        self.broken = _BROKEN
        self.line.close()
        while (future := self.line.take()) is not None:
            _raddle.end_taken(future, BrokenThreadPool(self.broken))
        self.line.leave()


_crews: weakref.WeakSet[_Crew] = weakref.WeakSet()


class ThreadPoolExecutor(_Core, _std.ThreadPoolExecutor):
    """Threads that run tasks: a subtype of ``concurrent.futures.ThreadPoolExecutor``.

    Args:
        max_workers: most threads; None is min(32, cores + 4), as in the standard library. "auto" follows the work:
            ``stats().recommended_workers``, measured all the time, at least one thread for each core, and at most 8 for
            each core or 32; a pair (least, most) does so within these bounds.
        thread_name_prefix: the beginning of the workers' names.
        initializer, initargs: called in each worker when it starts. Context variables that it sets are seen by tasks,
            which then do not have the submitter's context.
        max_pending: most tasks that wait for a worker; None is no limit.
        on_full: what a submit does that finds so many waiting: "block" waits, at most ``submit_timeout`` seconds;
            "raise" raises ``queue.Full``; "caller_runs" runs the task in the calling thread; "drop_oldest" cancels the
            task that has waited longest.
        submit_timeout: seconds; None waits without limit. When they are over, ``queue.Full`` is raised.
        context: whether each task and each callback runs in a copy of its submitter's context (``contextvars``).
        nested: whether a task that waits for a task of its own pool which has not begun runs that task itself.
        idle_timeout: seconds after which a worker with nothing to do ends; None is never.
    Raises:
        ValueError, TypeError: an argument that makes no sense.
    Note:
        Follows CPython's. Usable in a forked child; what waited or ran at the time of the fork belongs to the parent,
        and its futures raise RuntimeError in the child. Not to be subclassed by overriding private methods.
    """

    # An instance's `__dict__` is not made before a program puts something there: from 3.12 on, the interpreter's inline
    # caches find `submit` only as long as there is none.
    __slots__ = (
        "_crew",
        "_initargs",
        "_initializer",
        "_shutdown",
        "_shutdown_lock",
        "_thread_name_prefix",
    )

    _numbers = count()

    def __init__(
        self,
        max_workers: int | str | tuple[int, int] | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_pending: int | None = None,
        on_full: str = "block",
        submit_timeout: float | None = None,
        context: bool = True,
        nested: bool = True,
        idle_timeout: float | None = None,
    ) -> None:
        least, most = _bounds(max_workers)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_pending is not None and max_pending <= 0:
            raise ValueError("max_pending must be greater than 0, or None")
        prefix = thread_name_prefix or f"ThreadPoolExecutor-{next(self._numbers)}"
        self._crew = crew = _Crew(prefix, initializer, initargs)
        crew.own_context = not context
        crew.line.set(
            most=least or most,
            limit=max_pending or 0,
            on_full=on_full,
            patience=submit_timeout,
            idle=idle_timeout,
            context=context,
            nested=nested,
            auto=(least, most) if least else (0, 0),
            starter=crew,
        )
        super().__init__(crew.line)
        self._initializer: Any = initializer
        self._initargs = initargs
        self._thread_name_prefix = prefix
        self._shutdown = False
        self._shutdown_lock: Any = Lock()

    # As real programs read them

    @property
    def _max_workers(self) -> int:
        return self._crew.line.workers()[2]

    @_max_workers.setter
    def _max_workers(self, most: int) -> None:
        self._crew.line.set(most=most)

    @property
    def _threads(self) -> set[Thread]:  # type: ignore[override]
        return self._crew.threads

    @property
    def _broken(self) -> str | bool:  # type: ignore[override]
        return self._crew.broken or False

    @property
    def _work_queue(self) -> Any:
        return self._crew.queue

    @_work_queue.setter
    def _work_queue(self, queue: Any) -> None:
        # How programs bound the standard library's pool: a queue with a maxsize in place of its own.
        limit = getattr(queue, "maxsize", 0)
        self._crew.line.set(limit=max(limit, 0), on_full="block")

    def _refuse(self) -> NoReturn:
        """Say why no task is taken."""
        if self._crew.broken:
            raise BrokenThreadPool(self._crew.broken)
        if self._shutdown or not (self._crew.exiting or _std._shutdown):
            raise RuntimeError("cannot schedule new futures after shutdown")
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def _full(self) -> Full:
        return Full(f"{self._crew.line.pending()} tasks wait for a worker already")

    def options(self, *, timeout: float | None = None, token: _raddle.Token | None = None) -> TaskOptions:
        """Submit with a deadline or a cancel token: ``pool.options(timeout=2).submit(fn, ...)``.

        Args:
            timeout: seconds from the submit until the task is to stop (``raddle.cancel.DeadlineExceeded``).
            token: the task is asked to stop when this token is cancelled.
        """
        return TaskOptions(self, timeout, token)

    def map(
        self,
        fn: Callable[..., _T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        progress: Any = None,
    ) -> Iterator[_T]:
        """Call ``fn`` for each tuple of arguments; the results in their order.

        Args:
            timeout: seconds from this call until the last result must be there, or ``next()`` raises TimeoutError.
            chunksize: has no effect for threads, as in the standard library.
            buffersize: most tasks submitted and not yet given out: the iterables are read as results are taken. None
                submits all at once.
            progress: as for ``as_completed``.
        Note:
            What was not given out when the iterator goes, or when a call raises, is cancelled.
        """
        if buffersize is not None:
            if not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
            results = self._map_ahead(fn, zip(*iterables), timeout, buffersize)  # noqa: B905 - as map does
        elif self.submit == ThreadPoolExecutor.submit.__get__(self):
            # Neither a subclass nor the instance has another.
            single = len(iterables) == 1
            arguments = iter(iterables[0]) if single else zip(*iterables)  # noqa: B905 - the shortest decides
            results = self._map(fn, arguments, single, timeout)
        else:
            results = super().map(fn, *iterables, timeout=timeout, chunksize=chunksize)
        if progress:
            from raddle.concurrent.futures._progress import track

            return track(results, _length(iterables), progress)
        return results

    def _map_ahead(
        self, fn: Callable[..., _T], arguments: Iterator[Any], timeout: float | None, ahead: int
    ) -> Iterator[_T]:
        reference = weakref.ref(self)

        def feed() -> Future[_T] | None:
            executor = reference()
            if executor is None or (args := next(arguments, None)) is None:
                return None
            return executor.submit(fn, *args)  # type: ignore[return-value]

        return _raddle.futures_results(
            [self.submit(fn, *args) for args in islice(arguments, ahead)], timeout, feed
        )

    def stats(self) -> PoolStats:
        """The work so far: counts, times, and how many workers it wants."""
        return PoolStats(**self._crew.line.stats())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks.

        Args:
            wait: return when all tasks have ended and the workers are gone. Blocks with the GIL released.
            cancel_futures: cancel the tasks that have not begun.
        """
        # No lock: a callback of a task that is cancelled here may call this, too.
        self._shutdown = True
        self._crew.line.close()
        if cancel_futures:
            self._crew.line.cancel_all()
        if wait:
            self._crew.join()


class TaskOptions:
    """A pool with a deadline and a token for what is submitted through this. Made by ``ThreadPoolExecutor.options``."""

    __slots__ = ("_pool", "_timeout", "_token")

    def __init__(self, pool: ThreadPoolExecutor, timeout: float | None, token: _raddle.Token | None) -> None:
        if token is not None and not isinstance(token, _raddle.Token):
            raise TypeError(f"token must be a raddle.cancel.Token, not {type(token).__name__}")
        self._pool = pool
        self._timeout = timeout
        self._token = token

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """As ``ThreadPoolExecutor.submit``."""
        return self._pool._submit_under(self._token, self._timeout, fn, args, kwargs)


def _bounds(max_workers: int | str | tuple[int, int] | None) -> tuple[int, int]:
    """(0, most), or (least, most) if the number of workers is to follow the work."""
    cores = _cores()
    if max_workers is None:
        return 0, min(32, cores + 4)
    if isinstance(max_workers, str):
        if max_workers != "auto":
            raise ValueError(
                f"max_workers must be a number, 'auto', (least, most) or None, not {max_workers!r}"
            )
        return cores, max(32, 8 * cores)
    if isinstance(max_workers, tuple):
        least, most = max_workers
        if not 0 < least <= most:
            raise ValueError(f"max_workers must be (least, most) with 0 < least <= most, not {max_workers}")
        return least, most
    if max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    return 0, max_workers


def _cores() -> int:
    counted: Callable[[], int | None] = getattr(os, "process_cpu_count", os.cpu_count)
    return counted() or 1


def _length(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """How many results there will be, where that can be told."""
    try:
        return min(len(iterable) for iterable in iterables)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _after_fork_in_child() -> None:
    # The standard library's own hook is for the lock that was there before.
    _std._global_shutdown_lock._at_fork_reinit()  # type: ignore[attr-defined]
    for crew in list(_crews):
        crew.threads.clear()
        crew.starting._at_fork_reinit()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_raddle.tell_unseen)
