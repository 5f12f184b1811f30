"""The workers of a pool, seen from the process that has it: started, waited for, and replaced.

``Crew`` is what ``Pool`` and ``ProcessPoolExecutor`` have in common. The core sends tasks and takes replies
(``raddle._raddle.Workers``); what concerns processes is done by a thread of the pool, its keeper.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading as _std_threading
import weakref
from _thread import get_ident
from collections.abc import Callable, Iterable
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import process as _process
from typing import Any

import raddle.cancel
from raddle import _raddle
from raddle.concurrent.futures._base import Future
from raddle.multiprocessing import _worker
from raddle.multiprocessing._lifeline import Lifeline
from raddle.multiprocessing._pickling import dump_with_buffers
from raddle.threading import Thread

__all__ = ["Crew", "MemoryLimitExceeded", "UnpicklingFailed", "WorkerDied", "failed", "pool_context"]

#: How often in a row a process may fail to be started, a tenth of a second apart, while there is none.
MOST_FAILED_STARTS = 10


class WorkerDied(BrokenProcessPool):
    """The worker process that ran a task ended before the task did.

    Attributes:
        task: the name of the task's function; None if it was no function.
        pid: the process.
        exitcode: as ``Process.exitcode``; None if somebody else has waited for the process.
        signal: the signal that ended it; None if none did.
        memory: the most memory it had, in bytes, or None if that is not known.
    """

    def __init__(
        self,
        task: str | None = None,
        pid: int | None = None,
        exitcode: int | None = None,
        memory: int | None = None,
        reason: str | None = None,
    ) -> None:
        self.task = task
        self.pid = pid
        self.exitcode = exitcode
        self.signal = -exitcode if exitcode is not None and exitcode < 0 else None
        self.memory = memory
        super().__init__(reason or self._say())

    def _say(self) -> str:
        how = "ended"
        if self.signal is not None:
            try:
                how = f"was killed by {signal.Signals(self.signal).name}"
            except ValueError:
                how = f"was killed by signal {self.signal}"
        elif self.exitcode is not None:
            how = f"exited with code {self.exitcode}"
        text = f"the worker process {self.pid} that ran {self.task or 'this task'} {how}"
        if self.memory:
            text += f"; it had used up to {self.memory / 2**20:.0f} MiB"
        return text + ". Other tasks are not affected."


class MemoryLimitExceeded(WorkerDied, MemoryError):
    """A worker was killed because it used more memory than ``max_memory_per_worker``."""


class UnpicklingFailed(BrokenProcessPool):
    """The arguments of a task could not be unpickled in the worker, or its result not in this process.

    The exception that unpickling raised is the ``__cause__``. Other tasks are not affected.
    """


def _decode(tag: int, data: Any) -> Any:
    """The object in a reply."""
    try:
        return _worker.decode_message(tag, data)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UnpicklingFailed(f"what the task returned or raised cannot be unpickled: {error!r}") from error


def _dump_task(fn: Any, args: Any, kwargs: Any) -> tuple[int, list[Any]]:
    """The tag and the parts of a task's message; with cloudpickle, where that is installed, if pickle refuses.

    Raises:
        Exception: whatever pickling raises.
    """
    try:
        return dump_with_buffers((fn, args, kwargs))
    except Exception as error:
        cloudpickle = _cloudpickle()
        if cloudpickle is None:
            raise
        try:
            return 0, [cloudpickle.dumps((fn, args, kwargs))]
        except Exception:
            raise error from None


_raddle.set_pickling(_decode, dump_with_buffers, _dump_task)


def _cloudpickle() -> Any:
    try:
        import cloudpickle  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return None
    return cloudpickle


def pool_context(*, fork: bool = True) -> Any:
    """The context of a pool that was given none: how its workers are started.

    That of the start method that is set. Where none is, and fork would be taken, a process with several threads does
    not fork: a lock that another thread holds at that moment would be held for ever in the worker.

    Args:
        fork: whether forking is possible at all.
    """
    from raddle._install import is_installed
    from raddle.multiprocessing import context

    default = context._default_context
    chosen = default.chosen_method()
    method: str = chosen or default.get_all_start_methods()[0]
    # A program that does not know of raddle may rely on what a fork inherits.
    if method == "fork" and not chosen and _std_threading.active_count() > 1 and not is_installed():
        method = "warm"
    if method == "fork" and not fork:
        method = "spawn"
    return default.get_context(method)


def failed(error: BaseException) -> Future[Any]:
    """The future of a task that cannot even be sent."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


class Crew:
    """Worker processes, and the thread that keeps them.

    Args:
        context: makes processes.
        workers: the most of them.
        flavour: what differs in the worker.
        on_unfit: called by the keeper with the exception that an initializer has raised.
        prepare: called with each process before it is started.
        lasting: whether the interpreter's exit waits for the tasks, and workers come with the work; else tasks end with
            it, and there are always as many workers as may be.
    """

    def __init__(
        self,
        context: Any,
        workers: int,
        flavour: type[_worker.Flavour],
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        tasks_per_worker: int = 0,
        idle: float | None = None,
        grace: float = 0.1,
        memory: int = 0,
        on_unfit: Callable[[BaseException], None] | None = None,
        prepare: Callable[[Any], None] | None = None,
        lasting: bool = True,
    ) -> None:
        self.context = context
        self.workers = _raddle.Workers(
            workers, tasks_per_worker, idle, 3, grace, memory, 0 if lasting else workers
        )
        self.flavour = flavour
        self.initializer = initializer
        self.initargs = initargs
        self.on_unfit = on_unfit
        self.prepare = prepare
        self.lasting = lasting
        #: Threads that submit on their own.
        self.feeders: weakref.WeakSet[Thread] = weakref.WeakSet()
        #: Why no task is taken any more; None while tasks are.
        self.broken: str | None = None
        self.closed = False
        self.processes: dict[int, Any] = {}
        self._lifelines: dict[int, Lifeline] = {}
        self._lock = _std_threading.RLock()
        self.keeper: Thread | None = None
        self.owner = os.getpid()
        self._failed_starts = 0
        _crews.add(self)

    def begin(self, ahead: int) -> None:
        """Start workers ahead of need, and then the threads; from the second call on, nothing.

        From here, so that where workers are forked, that is done before there are threads.

        Raises:
            OSError: not all processes could be started. Those that were are for the caller to terminate.
        """
        with self._lock:
            if self.keeper is not None:
                return
            failure: BaseException | None = None
            wanted = self.workers.want(ahead)
            for at, slot in enumerate(wanted):
                try:
                    self._start(slot)
                except BaseException as error:
                    for other in wanted[at + 1 :]:
                        self.workers.give_up(other)
                    if not self.processes:
                        raise
                    failure = error
                    break
            self.keeper = Thread(target=_keep, args=(self,), name="raddle-workers", daemon=not self.lasting)
            self.keeper.start()
            self.workers.dispatch()
            # Where workers come with the work, those that could not be started are tried again when there is some.
            if failure is not None and not (self.lasting and isinstance(failure, Exception)):
                raise failure

    def submit(self, task: _raddle.Task, retries: int = 0, limit: float | None = None) -> Future[Any]:
        """Have a task run; its future."""
        future: Future[Any] = self.workers.submit(task, retries, limit)
        if self.broken:
            self._fail(self.workers.drop_all(), None)
        return future

    def submit_each(
        self, fn: Callable[..., object], items: Iterable[Any], *, star: bool
    ) -> list[Future[Any]]:
        """Have a task run for each item, its argument, or with ``star`` its arguments; their futures."""
        futures: list[Future[Any]] = self.workers.submit_each(fn, items, star, failed)
        if self.broken:
            self._fail(self.workers.drop_all(), None)
        return futures

    def grow(self, least: int = 0) -> None:
        """Start the workers that are wanted for what waits, or to have this many. What fails is tried again later."""
        slots = self.workers.want(least)
        if slots:
            with self._lock:
                for slot in slots:
                    self.on_start(slot)

    def _start(self, slot: int) -> None:
        """Start a worker and enlist it, or give it up and leave nothing behind."""
        with ExitStack() as undo:
            undo.callback(self.workers.give_up, slot)
            ours, theirs = socket.socketpair()
            with ours, theirs:
                file = _raddle.channel_memory(2, 0, 0)
                undo.callback(os.close, file)
                lifeline = Lifeline()
                # Closing it kills the worker, if there is one.
                undo.callback(lifeline.close)
                process = self._launch(file, theirs, ours, lifeline)
                lifeline.close_child_end()
                bell = ours.detach()
            self.processes[process.pid] = process
            self._lifelines[process.pid] = lifeline
            undo.pop_all()
            try:
                self.workers.enlist(slot, process.pid, file, bell)
            except BaseException:
                del self.processes[process.pid], self._lifelines[process.pid]
                lifeline.close()
                process.join()
                raise

    def _launch(self, file: int, theirs: socket.socket, ours: socket.socket, lifeline: Lifeline) -> Any:
        with ExitStack() as undo:
            _check_descriptors()
            copy = os.dup(file)
            undo.callback(os.close, copy)
            ends = _worker.Ends(copy, theirs.fileno(), lifeline.fd_for_child)
            process = self.context.Process(
                target=_worker.main, args=(ends, self.flavour, self.initializer, self.initargs)
            )
            if self.prepare is not None:
                self.prepare(process)
            _private[get_ident()] = [file, ours.fileno()]
            undo.callback(_private.pop, get_ident(), None)
            process.start()
        return process

    # The keeper

    def on_start(self, slot: int) -> None:
        try:
            with self._lock:
                self._start(slot)
            self._failed_starts = 0
        except Exception as error:
            self._failed_starts += 1
            if not self.processes and self._failed_starts > MOST_FAILED_STARTS:
                # There is nobody to run what waits, and will not be.
                self._break(f"no worker process could be started: {error!r}", error)

    def on_died(
        self,
        slot: int,
        pid: int,
        futures: list[Future[Any]],
        why: str | None,
        unready: bool,
        memory: int | None,
        damaged: BaseException | None,
    ) -> None:
        with self._lock:
            process = self.processes.pop(pid, None)
            lifeline = self._lifelines.pop(pid, None)
        exitcode, most = _reap(process)
        if lifeline is not None:
            lifeline.close()
        for future in futures:
            name = _raddle.task_name(future)
            if why == "cancelled":
                _raddle.end_taken(future, None)
                continue
            if why == "late":
                error: BaseException = raddle.cancel.DeadlineExceeded(
                    f"the time of {name or 'the task'} is up; it did not stop in time, and its worker process {pid}"
                    " was killed"
                )
            elif why == "memory":
                text = (
                    f"the worker process {pid} that ran {name or 'this task'} had {(memory or 0) / 2**20:.0f} MiB, "
                    "more than max_memory_per_worker, and was killed. Other tasks are not affected."
                )
                error = MemoryLimitExceeded(name, pid, exitcode, memory, text)
            else:
                error = WorkerDied(name, pid, exitcode, most or memory)
                error.__cause__ = damaged
            _raddle.end_taken(future, error)

    def on_hopeless(self, futures: list[Future[Any]]) -> None:
        self._break("worker processes end before they are ready: the pool is not usable anymore", None)
        self._fail(futures, None)

    def on_unfit_worker(self, error: BaseException) -> None:
        if self.on_unfit is not None:
            self.on_unfit(error)
        self._break("the initializer failed in a worker process: the pool is not usable anymore", error)

    def _break(self, text: str, error: BaseException | None) -> None:
        # First: what comes after the tasks are taken out is failed by who submits it.
        self.broken = text
        self._fail(self.workers.drop_all(), error)
        self.close()

    def _fail(self, futures: Iterable[Future[Any]], cause: BaseException | None) -> None:
        for future in futures:
            failure = BrokenProcessPool(self.broken)
            failure.__cause__ = cause
            _raddle.end_taken(future, failure)

    # The end

    def close(self) -> None:
        """Take no more tasks; the workers end when those that are there are done."""
        self.closed = True
        if self.owner == os.getpid():
            self.workers.close()

    def cancel_pending(self) -> None:
        """Cancel what has not been sent to a worker."""
        for future in self.workers.drop_pending():
            if future.cancel():
                future.set_running_or_notify_cancel()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Take no more tasks, cancel those that wait, and end the workers by a signal."""
        self.close()
        futures = self.workers.drop_all()
        self.workers.signal_all(number)
        for future in futures:
            if future.cancel():
                future.set_running_or_notify_cancel()
            else:
                _raddle.end_taken(future, None)

    def terminate(self) -> None:
        """End the workers at once: by SIGTERM, and by SIGKILL if that does not help within half a second."""
        self.kill(signal.SIGTERM)
        self.join(0.5)
        if self.processes:
            self.workers.signal_all(signal.SIGKILL)
            self.join()

    def join(self, timeout: float | None = None) -> None:
        """Wait until all workers have ended. Blocks with the GIL released."""
        keeper = self.keeper
        if keeper is not None and keeper is not _std_threading.current_thread():
            keeper.join(timeout)


def _check_descriptors() -> None:
    """Raises OSError if there are not enough for starting a process: multiprocessing would leave some behind."""
    with ExitStack() as undo:
        for _ in range(3):
            for descriptor in os.pipe():
                undo.callback(os.close, descriptor)


def _keep(crew: Crew) -> None:
    """What a keeper does."""
    news = crew.workers.news
    while True:
        what, *details = news()
        try:
            if what == "start":
                crew.on_start(*details)
            elif what == "died":
                crew.on_died(*details)
            elif what == "unfit":
                crew.on_unfit_worker(*details)
            elif what == "hopeless":
                crew.on_hopeless(*details)
            elif what == "over":
                crew.workers.join()
                return
        except Exception:
            # Whatever went wrong concerns one worker; the pool is to go on.
            sys.excepthook(*sys.exc_info())
        del details


def _reap(process: Any) -> tuple[int | None, int | None]:
    """Waits for a process that has ended: its exit code, and the most memory it had in bytes, or None."""
    if process is None:
        return None, None
    popen = process._popen
    most = None
    if popen is not None and popen.returncode is None and popen.method in ("fork", "spawn"):
        try:
            _, status, usage = os.wait4(popen.pid, 0)
        except ChildProcessError:
            pass
        else:
            popen.returncode = os.waitstatus_to_exitcode(status)
            most = usage.ru_maxrss * 1024
    process.join(1)
    return process.exitcode, most


# Other processes, and the end of this one

_crews: weakref.WeakSet[Crew] = weakref.WeakSet()
#: Descriptors that no forked child is to have, besides those of the crews, by the thread that starts one.
_private: dict[int, list[int]] = {}
_descriptors: dict[int, list[int]] = {}


def _before_fork() -> None:
    found = list(_private.get(get_ident(), ()))
    for crew in list(_crews):
        if crew.owner == os.getpid():
            found += crew.workers.descriptors()
    _descriptors[get_ident()] = found


def _after_fork_in_parent() -> None:
    _descriptors.pop(get_ident(), None)


def _after_fork_in_child() -> None:
    for descriptor in _descriptors.pop(get_ident(), ()):
        try:
            os.close(descriptor)
        except OSError:
            pass
    _descriptors.clear()
    _private.clear()
    # What multiprocessing takes for children of this process it would end at exit.
    for crew in list(_crews):
        _process._children.difference_update(crew.processes.values())  # type: ignore[attr-defined]


def _at_exit() -> None:
    """Before the interpreter waits for its threads: what was submitted is done first, as in the standard library."""
    lasting = [crew for crew in list(_crews) if crew.owner == os.getpid() and crew.lasting]
    for crew in lasting:
        crew.close()
    for crew in lasting:
        crew.join()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
_std_threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
