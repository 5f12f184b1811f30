"""Chapter 22: futures of a process pool: tasks on several cores, and what to do about those that fail.

Shows prime numbers counted in two processes, the death of a worker, a task that is run again because its worker died,
one that takes too long, and one that is cancelled while it runs.

Run it with:  python examples/ch22_process_pool.py
"""

import os
import signal
import tempfile
import time

from raddle.cancel import DeadlineExceeded
from raddle.concurrent.futures import CancelledError, ProcessPoolExecutor, WorkerDied, as_completed


def primes(begin, end):
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(max(begin, 2), end))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def unlucky(marker):
    """Dies the first time, and knows by a file that there was a first time."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "the second time"
    die()


def spin():
    while True:
        pass


def main():
    with ProcessPoolExecutor(max_workers=2) as pool:
        # The interval is cut in pieces: enough of them that no worker is idle while the other has much left.
        pieces = [pool.submit(primes, begin, begin + 2_000) for begin in range(0, 20_000, 2_000)]
        print("primes below 20,000:", sum(piece.result() for piece in as_completed(pieces)))
        print("map:", list(pool.map(primes, [0, 100], [100, 200])))

        # A worker dies: its task fails with an error that says so. The pool goes on.
        victim, bystander = pool.submit(die), pool.submit(primes, 0, 1_000)
        try:
            victim.result()
        except WorkerDied as error:
            print("died:", error.task, signal.Signals(error.signal).name, error.pid != os.getpid())
        print("beside it:", bystander.result())

        # What may be run twice can be given a second try.
        with tempfile.TemporaryDirectory() as folder:
            again = pool.options(retries=1).submit(unlucky, os.path.join(folder, "marker"))
            print("tried again:", again.result())

        # A process can be ended from outside, whatever it does: a time limit, and a cancel of what runs already.
        try:
            pool.options(timeout=0.2).submit(spin).result()
        except DeadlineExceeded:
            print("took too long")
        endless = pool.submit(spin)
        while not endless.running():
            time.sleep(0.001)
        print("stopped:", endless.cancel(running=True))
        try:
            endless.result()
        except CancelledError:
            print("cancelled while it ran")
        print("and still:", pool.submit(primes, 0, 100).result())


if __name__ == "__main__":
    main()
