"""Thread and local."""
# ruff: noqa: B018 - reading an attribute is what is measured

from itertools import repeat

from .harness import check, mark, row, since


def _nothing():
    pass


@row("thread.start_join", "Thread start+join", needs=["Thread"], target=1.3, quick=20)
def start_join(impl, n):
    """Thread(target=f).start(), join()"""
    make = impl.Thread
    start = mark()
    for _ in repeat(None, n):
        thread = make(target=_nothing)
        thread.start()
        thread.join()
    return since(start)


@row("thread.subclass", "Thread subclass start+join", needs=["Thread"], quick=20)
def subclass(impl, n):
    """A subclass that overrides run()."""

    class Worker(impl.Thread):
        def run(self):
            self.ran = True

    start = mark()
    for _ in repeat(None, n):
        thread = Worker()
        thread.start()
        thread.join()
    spent = since(start)
    check(thread.ran, "run() was not called")
    return spent


@row("thread.burst", "8 Threads started, then joined", needs=["Thread"], step=1, least=2, quick=3)
def burst(impl, n):
    """Eight at a time; one operation is the eight."""
    make = impl.Thread
    start = mark()
    for _ in repeat(None, n):
        threads = [make(target=_nothing) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return since(start)


@row("local.get", "local, read an attribute", needs=["local"], solo=True)
def local_get(impl, n):
    """Ten reads per turn of the loop."""
    data = impl.local()
    data.x = 1
    start = mark()
    for _ in repeat(None, n // 10):
        data.x
        data.x
        data.x
        data.x
        data.x
        data.x
        data.x
        data.x
        data.x
        data.x
    return since(start)


@row("local.set", "local, write an attribute", needs=["local"], solo=True)
def local_set(impl, n):
    """Ten writes per turn of the loop."""
    data = impl.local()
    start = mark()
    for _ in repeat(None, n // 10):
        data.x = 1
        data.x = 2
        data.x = 3
        data.x = 4
        data.x = 5
        data.x = 6
        data.x = 7
        data.x = 8
        data.x = 9
        data.x = 10
    spent = since(start)
    check(data.x == 10, "the attribute has another value")
    return spent
