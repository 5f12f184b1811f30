"""How long processes and pools take to start: one contender in a process of its own.

    PYTHONPATH=. python benches/python/starts.py stdlib|raddle|installed start_join|first_result METHOD COUNT

A program like any other, which imports what it needs: the standard library's package, raddle's, or the standard
library's after `raddle.install()`. Children run this file anew, where their start method does that. There is one
forkserver in a process, and what it loads is said by who starts it. What this file imports it imports in functions: a
child is not to spend its time on that. Prints wall and CPU seconds as JSON.
"""

import sys

WORKERS = 2


def start_join(package, n, method):
    """Start and join a process, one after the other."""
    from itertools import repeat

    from benches.python.harness import check, mark, since

    make = package("multiprocessing").get_context(method).Process
    # Something that is there: what the child would have to import is not its start.
    process = make(
        target=abs, args=(1,)
    )  # what a method makes once, such as a server, it has made after this
    process.start()
    process.join()
    start = mark()
    for _ in repeat(None, n):
        process = make(target=abs, args=(1,))
        process.start()
        process.join()
    spent = since(start)
    check(process.exitcode == 0, "the process failed")
    return spent


def first_result(package, n, method):
    """Make a pool and have it do one task."""
    from benches.python.harness import check, mark, since

    context, make = (
        package("multiprocessing").get_context(method),
        package("concurrent.futures").ProcessPoolExecutor,
    )
    spent = [0.0, 0.0]
    for turn in range(n + 1):  # the first is not timed, as above
        start = mark()
        with make(WORKERS, mp_context=context) as pool:
            check(pool.submit(abs, -1).result() == 1, "another result")
            found = since(start)
        if turn:
            spent = [spent[0] + found[0], spent[1] + found[1]]
    return spent


def main(contender, what, method, count):
    """Measure and print."""
    import json
    from importlib import import_module

    if contender == "installed":
        import_module("raddle").install()
    if method == "server":
        method = "forkserver" if contender == "stdlib" else "warm"

    def package(name):
        return import_module(f"raddle.{name}" if contender == "raddle" else name)

    measure = {"start_join": start_join, "first_result": first_result}[what]
    print(json.dumps(list(measure(package, int(count), method))))


if __name__ == "__main__":
    main(*sys.argv[1:])
