"""A worker process of a pool: how it begins, and what the serving of its tasks leaves to Python.

``raddle._raddle.Server`` takes tasks from the channel, runs them and replies; here is what is rare or needs a pickler.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import process as _process
from multiprocessing import reduction as _reduction
from pickle import PicklingError

from raddle import _raddle
from raddle.multiprocessing._lifeline import hold
from raddle.multiprocessing._pickling import BUFFERS, decode, dump_with_buffers, loads

TYPE_CHECKING = False  # as type checkers know it; children load this module, and typing takes long
if TYPE_CHECKING:
    from typing import Any

__all__ = ["SHIFT", "Ends", "Flavour", "OfExecutor", "OfPool", "Stopped", "decode_message", "main"]

# What messages are, above the tag of the pickling: as the core has it.
SHIFT = 3
RESULT, RAISED, READY, UNFIT, REFUSED = 0, 1, 2, 4, 5

#: Behind each message: how long the task ran, and its number. Not of a task:
_NO_TASK = bytes(16)


class Stopped(BaseException):
    """Raised in a task that is to stop, where it is at that moment."""


class Ends:
    """The descriptors of a worker: its channels and its lifeline. Pickled while the worker is being started."""

    def __init__(self, file: int, bell: int, lifeline: int) -> None:
        self.descriptors = (file, bell, lifeline)

    def __getstate__(self) -> Any:
        return [_reduction.DupFd(descriptor) for descriptor in self.descriptors]

    def __setstate__(self, state: Any) -> None:
        self.descriptors = tuple(descriptor.detach() for descriptor in state)


class Flavour:
    """What differs between kinds of pools, in the worker. Here, so that a worker need not load the kinds themselves."""

    @staticmethod
    def wrap(error: BaseException, traceback: Any) -> Any:
        """What is pickled of an exception and its traceback."""
        raise NotImplementedError

    @staticmethod
    def unsendable(error: BaseException, obj: Any) -> BaseException:
        """What is sent in place of an object, of which this is the error in pickling."""
        with suppress(Exception):  # an exception of the program's may have odd attributes
            error.add_note(f"Raised when the result of the task was pickled, a {type(obj).__qualname__!r}.")
        return error

    @staticmethod
    def initializer_failed() -> None:
        """Called while the exception is being handled."""


class OfExecutor(Flavour):
    """The workers of a ``ProcessPoolExecutor``."""

    @staticmethod
    def wrap(error: BaseException, traceback: Any) -> Any:
        from concurrent.futures import process

        private: Any = process
        return private._ExceptionWithTraceback(error, traceback)

    @staticmethod
    def initializer_failed() -> None:
        from concurrent.futures import _base

        _base.LOGGER.critical("Exception in initializer:", exc_info=True)


class OfPool(Flavour):
    """The workers of a ``Pool``."""

    @staticmethod
    def wrap(error: BaseException, traceback: Any) -> Any:
        from multiprocessing import pool

        private: Any = pool
        return private.ExceptionWithTraceback(error, traceback)

    @staticmethod
    def unsendable(error: BaseException, obj: Any) -> BaseException:
        from multiprocessing import pool

        private: Any = pool
        sent: BaseException = private.MaybeEncodingError(error, obj)
        return sent


def decode_message(tag: int, data: Any) -> Any:
    """The object in a message without its number."""
    return decode(tag, data) if tag == BUFFERS else loads(data)


class Unreadable:
    """Stands for an exception that the unpickling of a task has raised; what is made of it is the receiver's affair."""

    def __init__(self, wrapped: Any, text: str) -> None:
        self.wrapped = wrapped
        self.text = text

    def __reduce__(self) -> Any:
        return _rebuild_unreadable, (self.wrapped, self.text)


def _rebuild_unreadable(error: BaseException, text: str) -> BaseException:
    from raddle.multiprocessing._workers import UnpicklingFailed

    failed = UnpicklingFailed(f"the arguments of the task cannot be unpickled in the worker: {text}")
    failed.__cause__ = error
    return failed


class _Worker:
    """What the serving of tasks (``raddle._raddle.Server``) leaves to Python."""

    def __init__(self, channel: _raddle.Channel, flavour: type[Flavour]) -> None:
        self.channel = channel
        self.flavour = flavour
        self.server = _raddle.Server(channel, loads, decode, self, Stopped)

    def send(self, kind: int, tail: bytes, obj: Any) -> None:
        tag, parts = dump_with_buffers(obj)
        self.channel.send(kind << SHIFT | tag, [*parts, tail])

    def reply(self, tail: bytes, result: Any) -> None:
        """Send the result of a task; in place of one that cannot be pickled, an exception that says so."""
        try:
            tag, parts = dump_with_buffers(result)
        except BaseException as error:
            self.raised(tail, self.flavour.unsendable(error, result))
            return
        try:
            self.channel.send(RESULT << SHIFT | tag, [*parts, tail])
        except OSError as error:
            self.raised(tail, error)

    def raised(
        self, tail: bytes, error: BaseException, kind: int = RAISED, *, unreadable: bool = False
    ) -> None:
        """Send what a task has raised; in place of an exception that cannot be pickled, one that says so."""

        def wrap(error: BaseException, traceback: Any) -> Any:
            wrapped = self.flavour.wrap(error, traceback)
            return Unreadable(wrapped, repr(error)) if unreadable else wrapped

        try:
            self.send(kind, tail, wrap(error, error.__traceback__))
        except Exception as problem:
            text = f"the exception {error!r} cannot be pickled: {problem!r}"
            self.send(kind, tail, wrap(PicklingError(text), error.__traceback__))

    def unreadable(self, tail: bytes, error: BaseException) -> None:
        self.raised(tail, error, unreadable=True)

    def refused(self, error: BaseException) -> None:
        self.raised(_NO_TASK, error, REFUSED)

    def on_stop(self, *_: Any) -> None:
        if self.server.is_to_stop():
            raise Stopped

    def on_interrupt(self, *_: Any) -> None:
        # The pool's process gets the signal too, and decides.
        if self.server.running:
            raise KeyboardInterrupt


def main(
    ends: Ends,
    flavour: type[Flavour],
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> None:
    """What a worker process does."""
    file, bell, lifeline = ends.descriptors
    hold(lifeline)
    # A worker dies with its parent by its lifeline: it may have children like any other process.
    _process.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    if reports := sys.modules.get("raddle.deadlock"):
        reports._settings.in_worker = True
    channel = _raddle.Channel(file, bell, 0, 1, loads, decode, True)
    worker = _Worker(channel, flavour)
    signal.signal(_raddle.worker_stop_signal(), worker.on_stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, worker.on_interrupt)
    if initializer is not None:
        try:
            initializer(*initargs)
        except BaseException as error:
            flavour.initializer_failed()
            worker.raised(_NO_TASK, error, UNFIT)
            return
    channel.send(READY << SHIFT, _NO_TASK)
    try:
        worker.server.serve()
    except BrokenPipeError:
        # The pool is gone; nobody waits for the reply.
        os._exit(1)
