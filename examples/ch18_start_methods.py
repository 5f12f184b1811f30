"""Chapter 18: four ways to start a process, and what each of them gives to the child.

Shows which variables a child finds with each start method and whose child it is, that the start method of a context
and the one that is set for the program are two things, and what "warm" does for the start.

Run it with:  python examples/ch18_start_methods.py
"""

import os
import time

from raddle.multiprocessing import get_context, get_start_method, set_start_method

note = "as the file says"


def look(results):
    """What a child sees: the note, and who its parent is."""
    results.put((note, os.getppid()))


def ask(method):
    context = get_context(method)
    results = context.SimpleQueue()
    child = context.Process(target=look, args=(results,))
    child.start()
    seen = results.get()
    child.join()
    return seen


if __name__ == "__main__":
    # What is set holds for all that asks for no context of its own, and it is set once, before the first process.
    set_start_method("warm")
    print("set:", get_start_method())
    try:
        set_start_method("fork")
    except RuntimeError as error:
        print("again:", error)

    note = "changed by the parent"
    for method in (None, "fork", "spawn", "forkserver", "warm"):
        seen, parent = ask(method)
        mine = "my child" if parent == os.getpid() else "a server's child"
        print(f"{method or 'not said':<10} {mine:<16} note: {seen}")

    # Three of them know nothing of this process: what the child needs is pickled, so it has to be importable.
    try:
        get_context("spawn").Process(target=lambda: None).start()
    except Exception as error:
        print("a lambda:", "pickle" in str(error))

    # A new interpreter takes tens of milliseconds. The server of "warm" has been one for a while when it is asked.
    taken = {}
    for method in ("spawn", "warm"):
        begun = time.perf_counter()
        ask(method)
        taken[method] = time.perf_counter() - begun
    print("warm is quicker than spawn:", taken["warm"] < taken["spawn"])
