"""Chapter 1: a process and its threads.

Shows that the threads of one process are in progress at the same time and share its memory, while another
process has memory of its own. A Barrier proves the first claim: none of the threads could pass it if they ran
one after the other.

Run it with:  python examples/ch01_processes_and_threads.py
"""

import os
import subprocess
import sys

from raddle.threading import Barrier, Thread, get_native_id

shared = []
all_here = Barrier(3)


def work(name):
    all_here.wait()
    shared.append((name, os.getpid(), get_native_id()))


workers = [Thread(target=work, args=(name,)) for name in ("Ann", "Ben", "Cleo")]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()

names, processes, threads = zip(*shared, strict=True)
print("in one list:", sorted(names))
print("processes:", len(set(processes)), "threads:", len(set(threads)))

child = "import os; shared = []; shared.append('Dora'); print(os.getpid(), shared)"
answer = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout
pid, _, its_list = answer.strip().partition(" ")
print("another process has the same number:", int(pid) == os.getpid())
print("its list:", its_list, "- ours has Dora:", "Dora" in names)
