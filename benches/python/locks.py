"""Lock and RLock: uncontended, contended, and what keeping acquire sites costs.

Uncontended rows repeat the pair ten times per turn of the loop, so that the loop itself hardly counts.
"""

from itertools import repeat

from .harness import check, chunks, mark, row, since, together

_SITES = {
    "contenders": ("raddle", "raddle_sites"),
    "baseline": "raddle",
    "measured": "raddle_sites",
    "target": 0.95,
    "slices": 8,  # they differ by less than the processor's speed from one moment to the next
}


@row("lock.pair_sites", "Lock acquire+release, sites kept", needs=["Lock"], solo=True, **_SITES)
@row("lock.pair", "Lock acquire+release", needs=["Lock"], solo=True, target=2.5)
def pair(impl, n):
    """lock.acquire(); lock.release()"""
    lock = impl.Lock()
    start = mark()
    for _ in repeat(None, n // 10):
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
    spent = since(start)
    check(not lock.locked(), "the lock is left held")
    return spent


@row("lock.with_sites", "with Lock, sites kept", needs=["Lock"], solo=True, **_SITES)
@row("lock.with", "with Lock", needs=["Lock"], solo=True, target=2.0)
def with_lock(impl, n):
    """with lock: pass"""
    lock = impl.Lock()
    start = mark()
    for _ in repeat(None, n // 10):
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
    spent = since(start)
    check(not lock.locked(), "the lock is left held")
    return spent


class _Account:
    """What a lock is mostly for: a few attributes that change together."""

    def __init__(self, lock):
        self.lock = lock
        self.balance = 0
        self.moves = 0

    def deposit(self, amount):
        with self.lock:
            self.balance += amount
            self.moves += 1


@row(
    "lock.section_sites",
    "with Lock around a short method body, sites kept",
    needs=["Lock"],
    solo=True,
    **_SITES,
)
@row("lock.section", "with Lock around a short method body", needs=["Lock"], solo=True)
def section(impl, n):
    """A method that updates two attributes under the lock."""
    account = _Account(impl.Lock())
    deposit = account.deposit
    start = mark()
    for _ in repeat(None, n):
        deposit(3)
    spent = since(start)
    check(account.balance == 3 * n and account.moves == n, "deposits were lost")
    return spent


@row("rlock.pair_sites", "RLock acquire+release, sites kept", needs=["RLock"], solo=True, **_SITES)
@row("rlock.pair", "RLock acquire+release", needs=["RLock"], solo=True, target=2.5)
def rlock_pair(impl, n):
    """rlock.acquire(); rlock.release()"""
    lock = impl.RLock()
    start = mark()
    for _ in repeat(None, n // 10):
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
    return since(start)


@row("rlock.with", "with RLock", needs=["RLock"], solo=True)
def with_rlock(impl, n):
    """with rlock: pass"""
    lock = impl.RLock()
    start = mark()
    for _ in repeat(None, n // 10):
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
        with lock:
            pass
    return since(start)


@row("rlock.nested", "RLock acquire+release, held already", needs=["RLock"], solo=True)
def rlock_nested(impl, n):
    """The reentrant path: the owner takes it again."""
    lock = impl.RLock()
    with lock:
        start = mark()
        for _ in repeat(None, n // 5):
            lock.acquire()
            lock.release()
            lock.acquire()
            lock.release()
            lock.acquire()
            lock.release()
            lock.acquire()
            lock.release()
            lock.acquire()
            lock.release()
        return since(start)


@row(
    "lock.try",
    "Lock acquire(False) of a held lock",
    needs=["Lock"],
    solo=True,
    contenders=("stdlib", "raddle"),
)
def try_held(impl, n):
    """A try that fails."""
    lock = impl.Lock()
    lock.acquire()
    failed = 0
    start = mark()
    for _ in repeat(None, n):
        if not lock.acquire(False):
            failed += 1
    spent = since(start)
    check(failed == n, "a held lock was taken")
    return spent


@row("lock.new", "Lock()", needs=["Lock"], solo=True)
def new(impl, n):
    """Creation."""
    make = impl.Lock
    start = mark()
    for _ in repeat(None, n // 10):
        make()
        make()
        make()
        make()
        make()
        make()
        make()
        make()
        make()
        make()
    return since(start)


def _contended(impl, n, threads):
    lock = impl.Lock()
    total = 0

    def body(turns):
        def run():
            nonlocal total
            for _ in repeat(None, turns):
                with lock:
                    total += 1

        return run

    spent = together(*[body(turns) for turns in chunks(n, threads)])
    check(total == n, f"{n - total} increments were lost")
    return spent


@row("lock.contended2", "with Lock, 2 threads contend", needs=["Lock"], least=200, quick=200)
def contended_by_2(impl, n):
    """Two threads, one counter."""
    return _contended(impl, n, 2)


@row("lock.contended4", "with Lock, 4 threads contend", needs=["Lock"], least=200, quick=200)
def contended_by_4(impl, n):
    """Four threads, one counter."""
    return _contended(impl, n, 4)
