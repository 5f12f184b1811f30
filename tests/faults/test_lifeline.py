"""Children that hold a lifeline die with their parent: busy, stopped, or deaf to signals; and nobody else does."""

import os
import select
import signal
import subprocess
import sys
import time

import pytest
from raddle.multiprocessing._lifeline import Lifeline, hold

from tools import DEADLINE, check_child, run_child, wait_until

pytestmark = [pytest.mark.fork, pytest.mark.signals]

#: How long a child may live after its parent.
LIMIT = 2.0

PRELUDE = """
import os, signal, sys, time
from raddle.multiprocessing._lifeline import Lifeline, hold
import re

def child(work):
    line = Lifeline()
    pid = os.fork()
    if pid == 0:
        hold(line.fd_for_child)
        os.write(ready[1], b"x")
        work()
        os._exit(9)
    line.close_child_end()
    os.read(ready[0], 1)
    lines.append(line)
    return pid

lines = []
ready = os.pipe()

def sleep():
    time.sleep(1000)

def busy():
    while True:
        pass

def busy_in_c():
    # One call that never lets go of the GIL and asks for no signals.
    (1 << 100_000_000) ** 100

def stopped():
    os.kill(os.getpid(), signal.SIGSTOP)

def deaf():
    signal.pthread_sigmask(signal.SIG_SETMASK, range(1, 65))
    while True:
        time.sleep(1000)
"""


class Watched:
    """Processes, seen through pidfds, which tell of an end even before somebody reaps."""

    def __init__(self, pids):
        self.pids = {os.pidfd_open(pid): pid for pid in pids}

    def alive(self):
        ended = select.select(list(self.pids), [], [], 0)[0]
        return [pid for fd, pid in self.pids.items() if fd not in ended]

    def close(self):
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)
        for fd in self.pids:
            os.close(fd)


def die_with_parent(code, how=signal.SIGKILL):
    parent = subprocess.Popen([sys.executable, "-c", PRELUDE + code], stdout=subprocess.PIPE, text=True)
    pids = [int(number) for number in parent.stdout.readline().split()]
    assert pids
    watched = Watched(pids)
    try:
        assert watched.alive() == pids
        parent.send_signal(how)
        parent.wait()
        begun = time.monotonic()
        wait_until(lambda: not watched.alive(), "the children are gone", LIMIT)
        assert time.monotonic() - begun < LIMIT
    finally:
        parent.stdout.close()
        watched.close()


@pytest.mark.parametrize("work", ["sleep", "busy", "busy_in_c", "stopped", "deaf"])
def test_dies_with_a_killed_parent(work):
    die_with_parent(f"print(child({work}), child({work}), flush=True); sleep()")


def test_dies_with_a_parent_that_is_busy():
    die_with_parent("print(child(sleep), flush=True); busy_in_c()")


def test_dies_with_a_parent_that_is_stopped():
    die_with_parent("print(child(busy), flush=True); stopped()")


def test_dies_with_a_parent_that_just_ends():
    die_with_parent("print(child(busy), child(deaf), flush=True); sleep()", signal.SIGTERM)


def test_siblings_and_grandchildren_keep_nothing_open():
    """Later children have no copy of an earlier one's write end, and a child's child none of the read end."""
    die_with_parent(
        """
def parent():
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, b"%d" % os.getpid())
        time.sleep(3)  # without a lifeline of its own it lives on
        os._exit(0)
    os.read(read, 20)
    sleep()

first = child(sleep)
# This one is of no lifeline: what it keeps open, it keeps open.
if os.fork() == 0:
    time.sleep(4)
    os._exit(0)
print(first, child(parent), child(sleep), flush=True)
sleep()
"""
    )


def test_the_parent_is_gone_before_the_child_holds():
    line = Lifeline()
    pid = os.fork()
    if pid == 0:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            select.select([line.fd_for_child], [], [], DEADLINE)  # readable: the other end is closed
            hold(line.fd_for_child)
        finally:
            os._exit(9)
    line._close_write()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    line.close()


def test_close_kills_and_only_this_one():
    code = (
        PRELUDE
        + """
one, other = child(sleep), child(sleep)
lines[0].close()
lines[0].close()
print(os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]))
print(os.waitpid(other, os.WNOHANG))
del lines[1]
print(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""
    )
    check_child(code, out="-9\n(0, 0)\n-9\n")


def test_a_child_that_ends_first_harms_nobody():
    check_child(
        PRELUDE + "p = child(lambda: None); os.waitpid(p, 0); lines[0].close(); print('well')", out="well\n"
    )


def test_a_program_that_closes_all_descriptors():
    """Then the number may be another file's: a fork must not close that."""
    code = (
        PRELUDE
        + """
line = Lifeline()
if os.fork() == 0:
    hold(line.fd_for_child)
    os.closerange(3, 100)
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
    pid = os.fork()
    if pid == 0:
        for file in files:
            os.fstat(file)
        os._exit(7)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    )
    check_child(code, out="7\n")


def test_no_descriptor_is_left():
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        line = Lifeline()
        line.close_child_end()
        del line
    assert os.listdir("/proc/self/fd") == before


def test_forks_beside_threads_that_make_lifelines():
    code = (
        PRELUDE
        + """
import threading, warnings
warnings.simplefilter("ignore")
stop = False

def make():
    while not stop:
        Lifeline().close()

thread = threading.Thread(target=make)
thread.start()
for _ in range(100):
    pid = os.fork()
    if pid == 0:
        Lifeline().close()  # the lock is free
        left = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")[:-1]]
        # At most the end for the child of one that was being made.
        os._exit(sum(link.startswith("pipe:") for link in left) - kept)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, 1)
stop = True
thread.join()
print("well")
"""
    )
    code = code.replace(
        "stop = False\n",
        "stop = False\nkept = sum(os.readlink(f'/proc/self/fd/{n}').startswith('pipe:')"
        " for n in os.listdir('/proc/self/fd')[:-1])\n",
        1,
    )
    assert run_child(code).stdout == "well\n"
