"""Process pools under one face, so that one fault scenario runs on all of them.

An adapter is a class: `Adapter(workers, initializer=None, initargs=())` makes a pool with the library's own defaults.

    submit(func, *args)          begin a task; gives what `result` takes
    result(task, timeout)        its result, its exception, or Late
    map(func, items)             all results in order, one item a task
    close("wait")                no more tasks; ends when all tasks have ended
    close("nowait")              no more tasks; returns at once
    close("cancel")              drops what has not begun, and ends
    closes                       which of these it has

`can` names what only some have: "memory" (a limit for each worker), "finishes" (pending tasks are run to their end when
the program ends). A library that is not installed is left out; `find` gives those that are there.
"""

import concurrent.futures
import functools
import importlib
import multiprocessing


class Late(Exception):
    """There is no result after the time that the scenario gives it."""


class Adapter:
    can = frozenset()
    closes = ("wait", "nowait", "cancel")
    late = (TimeoutError, multiprocessing.TimeoutError)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is None:
            self.close("wait")

    def result(self, task, timeout):
        try:
            return self.fetch(task, timeout)
        except self.late:
            raise Late from None


class Executor(Adapter):
    """Pools with submit() and futures."""

    can = frozenset({"finishes"})

    def __init__(self, workers, initializer=None, initargs=(), **options):
        self.pool = self.make(workers, initializer=initializer, initargs=initargs, **options)

    def submit(self, func, *args):
        return self.pool.submit(func, *args)

    def fetch(self, task, timeout):
        return task.result(timeout)

    def map(self, func, items):
        return list(self.pool.map(func, items))

    def close(self, how):
        self.pool.shutdown(wait=how != "nowait", cancel_futures=how == "cancel")


class StdlibExecutor(Executor):
    name, title = "executor", "concurrent.futures ProcessPoolExecutor"
    make = concurrent.futures.ProcessPoolExecutor


class RaddleExecutor(Executor):
    name, title = "raddle", "raddle ProcessPoolExecutor"
    can = Executor.can | {"memory"}

    def __init__(self, workers, memory=None, **options):
        if memory is not None:
            options["max_memory_per_worker"] = memory
        super().__init__(workers, **options)

    @staticmethod
    def make(workers, **options):
        from raddle.concurrent.futures import ProcessPoolExecutor

        return ProcessPoolExecutor(workers, **options)


class Loky(Executor):
    name, title = "loky", "loky"

    @staticmethod
    def make(workers, **options):
        from loky import ProcessPoolExecutor

        return ProcessPoolExecutor(workers, **options)

    def close(self, how):
        self.pool.shutdown(wait=how != "nowait", kill_workers=how == "cancel")

    @staticmethod
    def there():
        import loky  # noqa: F401

        return True


class Pool(Adapter):
    """Pools with the methods of multiprocessing.Pool."""

    def __init__(self, workers, initializer=None, initargs=()):
        self.pool = self.make(workers, initializer, initargs)

    def submit(self, func, *args):
        return self.pool.apply_async(func, args)

    def fetch(self, task, timeout):
        return task.get(timeout)

    def map(self, func, items):
        return self.pool.map(func, items, chunksize=1)

    def close(self, how):
        self.pool.terminate() if how == "cancel" else self.pool.close()
        if how != "nowait":
            self.pool.join()


class StdlibPool(Pool):
    name, title = "pool", "multiprocessing.Pool"
    make = staticmethod(multiprocessing.Pool)


class RaddlePool(Pool):
    name, title = "raddle_pool", "raddle Pool"

    @staticmethod
    def make(*options):
        from raddle.multiprocessing import Pool

        return Pool(*options)


class Billiard(Pool):
    name, title = "billiard", "billiard"

    def __init__(self, *args, **options):
        import billiard

        self.late = (*Adapter.late, billiard.TimeoutError)
        super().__init__(*args, **options)

    @staticmethod
    def make(*options):
        import billiard

        return billiard.Pool(*options)

    @staticmethod
    def there():
        import billiard  # noqa: F401

        return True


class Pebble(Adapter):
    name, title = "pebble", "pebble"

    def __init__(self, workers, initializer=None, initargs=()):
        from pebble import ProcessPool

        self.pool = ProcessPool(workers, initializer=initializer, initargs=initargs)

    def submit(self, func, *args):
        return self.pool.schedule(func, args)

    def fetch(self, task, timeout):
        return task.result(timeout)

    def map(self, func, items):
        return list(self.pool.map(func, items, chunksize=1).result())

    def close(self, how):
        self.pool.stop() if how == "cancel" else self.pool.close()
        if how != "nowait":
            self.pool.join()

    @staticmethod
    def there():
        import pebble  # noqa: F401

        return True


class Mpire(Adapter):
    name, title = "mpire", "mpire"
    closes = ("wait", "cancel")

    def __init__(self, workers, initializer=None, initargs=()):
        from mpire import WorkerPool

        self.pool = WorkerPool(workers)
        self.begin = functools.partial(initializer, *initargs) if initializer else None

    def submit(self, func, *args):
        return self.pool.apply_async(func, args, worker_init=self.begin)

    def fetch(self, task, timeout):
        return task.get(timeout)

    def map(self, func, items):
        return self.pool.map(func, items, chunk_size=1, worker_init=self.begin)

    def close(self, how):
        self.pool.terminate() if how == "cancel" else self.pool.stop_and_join()

    @staticmethod
    def there():
        import mpire  # noqa: F401

        return True


#: In the order of the table's columns.
ADAPTERS = {
    adapter.name: adapter
    for adapter in (RaddleExecutor, RaddlePool, StdlibPool, StdlibExecutor, Loky, Pebble, Mpire, Billiard)
}


def load(name):
    """The adapter of that name, or the class "module:name"."""
    module, colon, member = name.partition(":")
    return getattr(importlib.import_module(module), member) if colon else ADAPTERS[name]


def find(name):
    """The adapter, or None where its library is not installed."""
    adapter = ADAPTERS[name]
    try:
        return adapter if getattr(adapter, "there", lambda: True)() else None
    except ImportError:
        return None
