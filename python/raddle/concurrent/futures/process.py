"""``ProcessPoolExecutor``."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import process as _std
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple, NoReturn, TypeVar

from raddle import _raddle
from raddle.concurrent.futures._base import Future
from raddle.multiprocessing import _worker
from raddle.queue import Full

__all__ = [
    "BrokenProcessPool",
    "MemoryLimitExceeded",  # noqa: F822 - the others are loaded when they are asked for
    "ProcessPoolExecutor",
    "ProcessPoolStats",
    "UnpicklingFailed",  # noqa: F822
    "WorkerDied",  # noqa: F822
]

_T = TypeVar("_T")


class ProcessPoolStats(NamedTuple):
    """The work of a pool so far. Times are seconds, and percentiles right within an eighth; None where nothing has been
    measured yet."""

    submitted: int
    pending: int
    """Tasks that no worker has been given."""
    running: int
    """Tasks that a worker has been given: it runs one of them."""
    done: int
    """Tasks that ended with a result."""
    failed: int
    """Tasks that ended with an exception, or stopped because they were asked to."""
    lost: int
    """Tasks that ended with the process of their worker."""
    retried: int
    """How often tasks were given to another worker because theirs had died."""
    workers: int
    idle_workers: int
    queue_wait_p50: float | None
    """From ``submit()`` to the task's beginning."""
    queue_wait_p99: float | None
    run_time_p50: float | None
    run_time_p99: float | None
    wall_per_task: float | None
    cpu_per_task: float | None
    """All processor time of the workers since they were ready, for each task."""
    recommended_workers: int | None
    """(waiting time + processor time) / processor time x cores: as many workers keep the cores busy.

    The time in which workers could go on and have no core is left out.
    """


class _NoQueue:
    """Stands for the queue of the standard library's executor, to be closed and joined."""

    def close(self) -> None:
        pass

    def join_thread(self) -> None:
        pass


_NO_QUEUE = _NoQueue()


class ProcessPoolExecutor(_std.ProcessPoolExecutor):
    """Processes that run tasks: a subtype of ``concurrent.futures.ProcessPoolExecutor``.

    A worker that dies, however, costs exactly the task that it ran: its future raises ``WorkerDied``, a subtype of
    ``BrokenProcessPool``; another worker takes its place, and the pool goes on. All workers die with the process that
    has the pool, even when that is killed.

    Args:
        max_workers: most processes; None is the number of cores that this process may use.
        mp_context: how processes are started; None is the start method that is set, and if none is set and this
            process has several threads, a server that is forked from: see ``raddle.multiprocessing``.
        initializer, initargs: called in each worker when it starts. If it raises, the pool is broken.
        max_tasks_per_child: tasks after which a worker is replaced; None is never.
        max_pending: most tasks that wait for a worker; None is no limit.
        on_full: what a submit does that finds so many waiting: "block" waits, at most ``submit_timeout`` seconds;
            "raise" raises ``queue.Full``; "caller_runs" runs the task in the calling thread; "drop_oldest" cancels the
            task that has waited longest.
        submit_timeout: seconds; None waits without limit. When they are over, ``queue.Full`` is raised.
        max_memory_per_worker: bytes; a worker that has more while it runs a task is killed, and the task fails with
            ``MemoryLimitExceeded``. Measured every 50 ms.
        idle_timeout: seconds after which a worker with nothing to do ends; None is never.
        grace: seconds that a task has to end after it was asked to (``future.cancel(running=True)``, a ``timeout`` of
            its own) before its worker is killed.
    Raises:
        ValueError, TypeError: an argument that makes no sense.
    Note:
        Pickling is done by the thread that submits, unpickling by the one that asks for the result. A task that was
        given to a worker counts as running: short tasks are given in advance. In a forked child the pool raises
        RuntimeError.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        max_pending: int | None = None,
        on_full: str = "block",
        submit_timeout: float | None = None,
        max_memory_per_worker: int | None = None,
        idle_timeout: float | None = None,
        grace: float = 0.1,
    ) -> None:
        if max_workers is None:
            max_workers = _cores()
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        if max_pending is not None and max_pending <= 0:
            raise ValueError("max_pending must be greater than 0, or None")
        if on_full not in ("block", "raise", "caller_runs", "drop_oldest"):
            raise ValueError(
                f"on_full must be 'block', 'raise', 'caller_runs' or 'drop_oldest', not {on_full!r}"
            )
        if max_memory_per_worker is not None and max_memory_per_worker <= 0:
            raise ValueError("max_memory_per_worker must be greater than 0, or None")
        if grace < 0:
            raise ValueError("grace must not be negative")
        # Not above: that module loads the standard library's of this one, and then install() loads this one.
        from raddle.multiprocessing import _workers

        if mp_context is None:
            mp_context = _workers.pool_context(fork=max_tasks_per_child is None)
        elif max_tasks_per_child is not None and _method(mp_context) == "fork":
            raise ValueError(
                "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method"
            )
        self._mp_context: Any = mp_context
        self._max_workers = max_workers
        self._initializer: Any = initializer
        self._initargs = initargs
        self._max_tasks_per_child = max_tasks_per_child
        self._max_pending = max_pending
        self._on_full = on_full
        self._submit_timeout = submit_timeout
        self._shutdown_thread = False
        self._failed = _workers.failed
        self._crew = crew = _workers.Crew(
            mp_context,
            max_workers,
            _worker.OfExecutor,
            initializer=initializer,
            initargs=initargs,
            tasks_per_worker=max_tasks_per_child or 0,
            idle=idle_timeout,
            grace=grace,
            memory=max_memory_per_worker or 0,
        )
        # A pool that nobody has any more ends when its tasks are done.
        self._closer = weakref.finalize(self, crew.close)
        self._closer.atexit = False

    # As real programs read them

    @property
    def _processes(self) -> dict[int, Any]:  # type: ignore[override]
        return self._crew.processes

    @property
    def _broken(self) -> str | bool:  # type: ignore[override]
        return self._crew.broken or False

    @property
    def _call_queue(self) -> Any:
        return _NO_QUEUE

    @property
    def _executor_manager_thread(self) -> Any:  # type: ignore[override]
        return self._crew.keeper

    def _refuse(self) -> NoReturn:
        crew = self._crew
        if crew.broken:
            raise BrokenProcessPool(crew.broken)
        if self._shutdown_thread or not crew.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Have ``fn(*args, **kwargs)`` called by a worker; its future.

        Raises:
            BrokenProcessPool: no worker can be started, or the initializer has failed.
            RuntimeError: the pool was shut down; or this is a forked child of the process that has it.
            queue.Full: see ``max_pending``.
        Note:
            Does not wait, but see ``max_pending``. What cannot be pickled fails the future, as in the standard library.
        """
        return self._submit(fn, args, kwargs, 0, None)

    def _submit(
        self,
        fn: Callable[..., _T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        retries: int,
        timeout: float | None,
    ) -> Future[_T]:
        crew = self._crew
        first = self._begin()
        try:
            task = _raddle.pickle_task(fn, args, kwargs)
        except Exception as error:
            # A worker is started for it, as in the standard library, which finds out later.
            crew.grow(len(crew.processes) + (not first))
            return self._failed(error)
        if self._max_pending is not None and (future := self._when_full(fn, args, kwargs)) is not None:
            return future
        future = crew.submit(task, retries, timeout)
        crew.grow()
        return future

    def _submit_each(self, fn: Callable[..., _T], arguments: list[tuple[Any, ...]]) -> list[Future[_T]]:
        self._begin()
        futures = self._crew.submit_each(fn, arguments, star=True)
        self._crew.grow()
        return futures

    def _begin(self) -> bool:
        """Start what a task needs; whether this is the first."""
        crew = self._crew
        if crew.closed:
            self._refuse()
        first = crew.keeper is None
        if first:
            crew.begin(self._max_workers if _method(self._mp_context) == "fork" else 1)
        return first

    def _when_full(self, fn: Any, args: Any, kwargs: Any) -> Future[Any] | None:
        limit, workers = self._max_pending or 0, self._crew.workers
        while workers.numbers()[0] >= limit:
            if self._on_full == "block":
                if not workers.wait_room(limit, self._submit_timeout):
                    raise Full(f"{limit} tasks wait for a worker already")
                if self._crew.closed:
                    self._refuse()
            elif self._on_full == "raise":
                raise Full(f"{limit} tasks wait for a worker already")
            elif self._on_full == "drop_oldest":
                oldest = workers.drop_oldest()
                if oldest is not None and oldest.cancel():
                    oldest.set_running_or_notify_cancel()
            else:
                done: Future[Any] = Future()
                done.set_running_or_notify_cancel()
                try:
                    done.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    done.set_exception(error)
                return done
        return None

    def options(self, *, timeout: float | None = None, retries: int = 0) -> ProcessTaskOptions:
        """Submit with a limit or retries: ``pool.options(timeout=2, retries=1).submit(fn, ...)``.

        Args:
            timeout: seconds that the task may run; then it is asked to stop, and killed with its worker if it has not
                after the pool's ``grace``. Its future raises ``raddle.cancel.DeadlineExceeded``.
            retries: how often the task is run again if its worker dies. It must do no harm to run it twice.
        """
        return ProcessTaskOptions(self, timeout, retries)

    def map(
        self,
        fn: Callable[..., _T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        progress: Any = None,
    ) -> Iterator[_T]:
        """Call ``fn`` for each tuple of arguments in the workers; the results in their order.

        Args:
            timeout: seconds from this call until the last result must be there, or ``next()`` raises TimeoutError.
            chunksize: how many calls make one task.
            buffersize: most tasks submitted and not yet given out; None submits all at once.
            progress: as for ``as_completed``.
        Raises:
            ValueError: ``chunksize`` or ``buffersize`` is less than one.
        Note:
            What was not given out when the iterator goes, or when a call raises, is cancelled. The death of a worker
            costs the results of one chunk.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            if not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
        arguments = zip(*iterables)  # noqa: B905 - as map: the shortest decides
        results: Iterator[Any]
        if chunksize == 1:
            plain = type(self).submit is ProcessPoolExecutor.submit and self._max_pending is None
            if plain and buffersize is None and all(type(one) in _AT_HAND for one in iterables):
                futures = self._submit_each(fn, list(arguments))
                results = _raddle.futures_results(futures, timeout, _nothing_more)
            else:
                results = _results(self, ((fn, args) for args in arguments), timeout, buffersize)
        else:
            chunks = iter(lambda: tuple(islice(arguments, chunksize)), ())
            tasks = ((partial(_run_chunk, fn), (chunk,)) for chunk in chunks)
            results = _results(self, tasks, timeout, buffersize)
        if chunksize > 1:
            results = _flat(results)
        if progress:
            from raddle.concurrent.futures._progress import track

            return track(results, _length(iterables), progress)
        return results

    def resize(self, max_workers: int) -> None:
        """Change the most workers. Those that are too many end when they have nothing to do."""
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._max_workers = max_workers
        self._crew.workers.resize(max_workers)

    def stats(self) -> ProcessPoolStats:
        """The work so far."""
        submitted, lost, retried = self._crew.workers.counts()
        pending, unfinished, workers, _, idle = self._crew.workers.numbers()
        return ProcessPoolStats(
            submitted=submitted,
            pending=pending,
            running=unfinished - pending,
            lost=lost,
            retried=retried,
            workers=workers,
            idle_workers=idle,
            **self._crew.workers.measured(),
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks.

        Args:
            wait: return when all tasks have ended and the workers are gone. Blocks with the GIL released.
            cancel_futures: cancel the tasks that no worker has been given.
        """
        self._shutdown_thread = True
        crew = self._crew
        if crew.owner != os.getpid():
            return
        crew.close()
        if cancel_futures:
            crew.cancel_pending()
        if wait:
            crew.join()

    def terminate_workers(self) -> None:
        """End all workers by SIGTERM, and with them the tasks that they run. As CPython 3.14's."""
        self._end_workers(15)

    def kill_workers(self) -> None:
        """End all workers by SIGKILL. As CPython 3.14's."""
        self._end_workers(9)

    def _end_workers(self, number: int) -> None:
        self._shutdown_thread = True
        self._crew.kill(number)


class ProcessTaskOptions:
    """A pool with a limit and retries for what is submitted through this. Made by ``ProcessPoolExecutor.options``."""

    __slots__ = ("_pool", "_retries", "_timeout")

    def __init__(self, pool: ProcessPoolExecutor, timeout: float | None, retries: int) -> None:
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be greater than 0, or None, not {timeout!r}")
        if not isinstance(retries, int) or retries < 0:
            raise ValueError(f"retries must be a number of times, not {retries!r}")
        self._pool = pool
        self._timeout = timeout
        self._retries = retries

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """As ``ProcessPoolExecutor.submit``."""
        return self._pool._submit(fn, args, kwargs, self._retries, self._timeout)


def __getattr__(name: str) -> Any:
    if name in ("MemoryLimitExceeded", "UnpicklingFailed", "WorkerDied"):
        from raddle.multiprocessing import _workers

        return getattr(_workers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


#: Iterables whose items are never waited for.
_AT_HAND = (list, tuple, range)


def _nothing_more() -> None:
    """What ``map`` has to submit besides."""


def _run_chunk(fn: Callable[..., _T], chunk: tuple[Any, ...]) -> list[_T]:
    return [fn(*args) for args in chunk]


def _results(
    executor: ProcessPoolExecutor, tasks: Iterator[Any], timeout: float | None, ahead: int | None
) -> Iterator[Any]:
    reference = weakref.ref(executor)

    def feed() -> Future[Any] | None:
        pool = reference()
        if pool is None or (task := next(tasks, None)) is None:
            return None
        return pool.submit(task[0], *task[1])

    first = islice(tasks, ahead)
    return _raddle.futures_results([executor.submit(fn, *args) for fn, args in first], timeout, feed)


def _flat(chunks: Iterator[list[_T]]) -> Iterator[_T]:
    return chain.from_iterable(chunks)


def _method(context: Any) -> str:
    method: str = context.get_start_method(allow_none=False)
    return method


def _cores() -> int:
    counted: Callable[[], int | None] = getattr(os, "process_cpu_count", os.cpu_count)
    return counted() or 1


def _length(iterables: tuple[Iterable[Any], ...]) -> int | None:
    try:
        return min(len(iterable) for iterable in iterables)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
