"""What the workers of fault scenarios run: tasks that end their process, wait for locks, or cannot be pickled.

A task notes when it begins and ends in the ledger, a file that is only appended to.
"""

import logging
import os
import resource
import threading
import time

import pool_adapters


def note(ledger, event, number):
    flags = os.O_WRONLY | os.O_APPEND
    try:
        file = os.open(ledger, flags)
    except OSError:  # the worker began under a limit that is no concern of its tasks
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        file = os.open(ledger, flags)
    os.write(file, f"{event} {number} {os.getpid()}\n".encode())
    os.close(file)


def step(ledger, number, pause=0.0):
    note(ledger, "begin", number)
    if pause:
        time.sleep(pause)
    note(ledger, "end", number)
    return number * number


def measure(ledger, number, blob):
    note(ledger, "begin", number)
    return len(blob), blob[:1], blob[-1:]


def produce(ledger, number, size):
    note(ledger, "begin", number)
    return bytes([number % 251]) * size


def leave(ledger, number):
    note(ledger, "begin", number)
    os._exit(3)


def crash(ledger, number):
    import ctypes

    note(ledger, "begin", number)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


def hand_back(ledger, number, make):
    note(ledger, "begin", number)
    return make(os.getppid())


def fail(ledger, number, make):
    note(ledger, "begin", number)
    raise make()


LOCK = threading.Lock()


def locked(ledger, number):
    note(ledger, "begin", number)
    with LOCK:
        return number * number


def logged(ledger, number):
    note(ledger, "begin", number)
    logging.getLogger().warning("task %d", number)
    return number * number


def hog(ledger, number, size):
    note(ledger, "begin", number)
    held = b"x" * size
    time.sleep(20)
    return len(held)


def nested(ledger, number, name, pause):
    note(ledger, "begin", number)
    with pool_adapters.load(name)(2) as pool:
        tasks = [pool.submit(step, ledger, number + 1000 * n, pause) for n in (1, 2, 3)]
        return sum(pool.result(task, 60) for task in tasks)


class Unpicklable:
    def __init__(self, home=None):
        pass

    def __reduce__(self):
        raise TypeError("this object cannot be pickled")


class Poison:
    """Cannot be unpickled in the process `home`, or cannot be anywhere else."""

    def __init__(self, home, at_home):
        self.home, self.at_home = home, at_home

    def __reduce__(self):
        return unpickle, (self.home, self.at_home)


def unpickle(home, at_home):
    if (os.getpid() == home) == at_home:
        raise ValueError("this object cannot be unpickled here")
    return Poison(home, at_home)


class UnpicklableError(Exception):
    def __init__(self):
        super().__init__(Unpicklable())


class TwoArgumentsError(Exception):
    """Pickles, and cannot be unpickled: a classic, since it passes on one argument only."""

    def __init__(self, one, two):
        super().__init__(one)


def two_arguments():
    return TwoArgumentsError(1, 2)


def raise_at_once():
    raise RuntimeError("the initializer raises on purpose")


def exit_at_once():
    os._exit(4)


def limit_memory(extra):
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, used + extra))


class PoisonMaker:
    """Called by a worker: makes what the process `home` cannot unpickle."""

    def __init__(self, home):
        self.home = home

    def __call__(self, parent):
        return Poison(self.home, True)


class Numbered:
    """step() of a number alone, for map()."""

    def __init__(self, ledger):
        self.ledger = ledger

    def __call__(self, number):
        return step(self.ledger, number, 0.02)
