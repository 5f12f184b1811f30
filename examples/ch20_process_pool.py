"""Chapter 20: a pool of processes: a few workers, and any number of tasks for them.

Shows the ways to give a pool work: apply, map, starmap, imap as results come, apply_async with callbacks. A task that
raises, and one whose process is killed: the first fails with its own exception, the second with one that says who died
of what, and neither harms any other task.

Run it with:  python examples/ch20_process_pool.py
"""

import os
import signal

from raddle.concurrent.futures import WorkerDied
from raddle.multiprocessing import Pool

TEXT = (
    "the raddle is the comb that keeps the threads of a loom apart "
    "so that they do not tangle and so that the cloth is even"
)


def divisors(number):
    return [n for n in range(1, number + 1) if number % n == 0]


def rectangle(width, height):
    return f"{width} x {height} = {width * height}"


def vowels(word):
    return word, sum(letter in "aeiou" for letter in word)


def third(number):
    if number == 3:
        raise ValueError("not this one")
    return number


def accident():
    os.kill(os.getpid(), signal.SIGKILL)


def main():
    # One call at a time, and a whole list of calls: results come in the order of the arguments.
    with Pool(2) as pool:
        print("apply:", pool.apply(divisors, (28,)))
        print("map:", [len(found) for found in pool.map(divisors, range(1, 11))])
        print("starmap:", pool.starmap(rectangle, [(2, 3), (4, 5)]))
        print("in another process:", pool.apply(os.getpid) != os.getpid())

        # imap gives each result when it is its turn, imap_unordered as soon as it is there; a chunk is one message.
        counts = dict(pool.imap_unordered(vowels, TEXT.split(), chunksize=5))
        print("vowels in 'threads':", counts["threads"], "- words:", len(counts))

    # apply_async does not wait. A callback gets the result, an error_callback the exception.
    with Pool(2) as pool:
        results, errors = [], []
        for number in range(6):
            pool.apply_async(third, (number,), callback=results.append, error_callback=errors.append)
        pool.close()
        pool.join()
    print("callbacks:", sorted(results), "-", errors)

    # The process of one task dies. The other tasks do not notice, and a new worker takes the place of the dead.
    with Pool(2) as pool:
        before = [pool.apply_async(divisors, (number,)) for number in (6, 12)]
        lost = pool.apply_async(accident)
        after = [pool.apply_async(divisors, (number,)) for number in (7, 9)]
        print("the others:", [result.get(10) for result in (*before, *after)])
        try:
            lost.get(10)
        except WorkerDied as error:
            print("the one:", error.task, "ended by", signal.Signals(error.signal).name)
        print("afterwards:", pool.map(abs, [-1, -2, -3]))


if __name__ == "__main__":
    main()
