"""Chapter 17: Process, two ways: with a function, and by a class of one's own with a run() method.

Shows how arguments get there and results come back, how a process ends and how that is seen, and that daemons
end with their parent.

Run it with:  python examples/ch17_process.py
"""

import signal
import sys
import time

from raddle.multiprocessing import Process, Queue, active_children, current_process, parent_process
from raddle.threading import Thread, snapshot


def count_words(text, results):
    results.put((current_process().name, len(text.split())))


class Summer(Process):
    """Adds up numbers in a process of its own; the sum is its exit code."""

    def __init__(self, *numbers):
        super().__init__(name="summer")
        self.numbers = numbers

    def run(self):
        sys.exit(sum(self.numbers))


def introduce(results):
    own, parent = current_process(), parent_process()
    results.put((own.name, own.daemon, parent.name, parent.is_alive()))


def sleep():
    time.sleep(1000)


if __name__ == "__main__":
    results = Queue()
    clerk = Process(target=count_words, args=("to be or not to be", results), name="clerk")
    print("before start:", clerk.is_alive(), clerk.pid, clerk.exitcode)
    clerk.start()
    clerk.join()
    print("after join:  ", clerk.is_alive(), clerk.pid is not None, clerk.exitcode)
    print("result:", results.get())

    summer = Summer(1, 2, 3)
    summer.start()
    summer.join()
    print("sum by exit code:", summer.exitcode)

    child = Process(target=introduce, args=(results,), name="child", daemon=True)
    child.start()
    print("introduces itself:", results.get())
    child.join()

    # One that does not end by itself: a join with a timeout says so, and a signal helps.
    sleeper = Process(target=sleep, name="sleeper", daemon=True)
    sleeper.start()
    sleeper.join(timeout=0.05)
    print("still there:", sleeper.is_alive(), [process.name for process in active_children()])

    # Whoever waits for it is seen to, in the call and for which process.
    waiter = Thread(target=sleeper.join, name="waiter")
    waiter.start()
    while not any(thread.state.kind == "Process.join" for thread in snapshot()):
        time.sleep(0.001)
    (seen,) = [thread.state for thread in snapshot() if thread.name == "waiter"]
    print("waiter:", seen, "in", seen.kind, "for", seen.on.name)
    sleeper.terminate()
    waiter.join()
    print("ended by", signal.Signals(-sleeper.exitcode).name)

    # A daemon that is left is ended with the program.
    Process(target=sleep, daemon=True).start()
