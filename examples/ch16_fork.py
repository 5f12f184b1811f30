"""Chapter 16: os.fork() makes a second process out of this one; both go on from the same line.

Shows which of the two one is, that each has its own copy of all variables, how the parent learns how the child
ended, and that locks of threads which the child does not have are usable in it.

Run it with:  python examples/ch16_fork.py
"""

import os
import sys
import warnings

from raddle.threading import Lock, Thread, enumerate

# fork() returns twice: 0 in the child, and the child's number in the parent.

counter = 1
sys.stdout.flush()  # what is waiting in a buffer would be written by both
child = os.fork()
if child == 0:
    counter += 100
    print("child:  fork() gave 0, the counter is", counter, flush=True)
    os._exit(3)  # without what the parent has registered for its exit
_, status = os.waitpid(child, 0)
print("parent: the child ended with", os.waitstatus_to_exitcode(status), "and the counter is", counter)

# Only the thread that called fork() exists in the child. raddle's threads, locks and timers know that.

gate, ledger = Lock(), Lock()
gate.acquire()
helper = Thread(target=gate.acquire, name="helper")
helper.start()
sys.stdout.flush()
with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # from 3.12 on: a fork beside threads is said to be risky
    child = os.fork()
if child == 0:
    with ledger:
        print("child:  threads", [thread.name for thread in enumerate()], flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent: threads", [thread.name for thread in enumerate()])
gate.release()
helper.join()

# A pipe is older than any queue: bytes from one process to the other.

reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.close(reader)
    os.write(writer, b"forty-two")
    os._exit(0)
os.close(writer)
with open(reader) as answer:
    print("parent: the child says", answer.read())
os.waitpid(child, 0)
