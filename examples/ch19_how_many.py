"""Chapter 19: threads or processes, and how many of them.

Shows the formula for the number of threads, (waiting + computing) / computing x cores, by hand and measured by a
pool; that threads help tasks that wait, and processes tasks that compute; and a pool that finds its number itself.

Run it with:  python examples/ch19_how_many.py
"""

import multiprocessing
import os
import time

from raddle.concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor


def ask(seconds):
    """Waits, as a program does for a disk, a database or a web page."""
    time.sleep(seconds)
    return seconds


def compute(turns):
    """Uses a core all the time, and the interpreter with it."""
    total = 0
    for number in range(turns):
        total += number * number
    return total


def who_computes(turns):
    return os.getpid(), compute(turns)


def best_number(waiting, computing, cores):
    return round((waiting + computing) / computing * cores)


def main():
    for waiting in (0, 1, 9, 99):
        print(f"1 ms computing and {waiting:2} ms waiting, 4 cores: {best_number(waiting, 1, 4)} threads")

    # A pool measures both. One worker, so that no task waits for another one's turn in the interpreter.
    measured = {}
    for task, argument in ((ask, 0.01), (compute, 100_000)):
        with ThreadPoolExecutor(max_workers=1) as pool:
            list(pool.map(task, [argument] * 20))
            measured[task] = stats = pool.stats()
        print(f"{task.__name__}: {stats.done} done, {stats.failed} failed, {stats.pending} pending")
    asking, computing = measured[ask], measured[compute]
    print("asking waits most of its time:", asking.wall_per_task > 2 * asking.cpu_per_task)
    print("it wants more workers than computing:", asking.recommended_workers > computing.recommended_workers)

    # Eight questions of 50 ms: one after the other 400 ms, in eight threads little more than 50.
    begin = time.monotonic()
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(ask, [0.05] * 8))
    print("eight threads took less than that:", time.monotonic() - begin < 0.4)

    # Threads of one interpreter compute in turns. Processes have an interpreter each, and compute side by side.
    with ThreadPoolExecutor(max_workers=2) as pool:
        threads = list(pool.map(who_computes, [10_000] * 4))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=2, mp_context=context) as pool:
        processes = list(pool.map(who_computes, [10_000] * 4))
    print("the same results:", [total for _, total in threads] == [total for _, total in processes])
    print("threads computed here:", {process for process, _ in threads} == {os.getpid()})
    print("processes did elsewhere:", os.getpid() not in {process for process, _ in processes})

    # "auto" follows the formula; (least, most) are its bounds.
    with ThreadPoolExecutor(max_workers=(1, 16)) as pool:
        list(pool.map(ask, [0.01] * 300))
        workers = pool.stats().workers
    print("the pool has grown:", workers > 4, "- within its bounds:", workers <= 16)


if __name__ == "__main__":
    main()
