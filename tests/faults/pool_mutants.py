"""Pools with one fault each: what the runner must find, so that its "ok" means something."""

import atexit
import concurrent.futures
import os
import subprocess
import sys
import tempfile
import threading
import time

from pool_adapters import StdlibExecutor


class Mutant(StdlibExecutor):
    """Breaks from the fourth pool on: those before are the scenario's warm-up."""

    made = 0

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        type(self).made += 1
        self.broken = self.made > 3
        if self.broken:
            self.harm()

    def harm(self):
        pass


class Loses(Mutant):
    expected = "lost"
    count = 0

    def submit(self, func, *args):
        self.count += 1
        if self.broken and self.count == 3:
            return concurrent.futures.Future()
        return super().submit(func, *args)


class Doubles(Mutant):
    expected = "doubled"

    def submit(self, func, *args):
        if self.broken:
            super().submit(func, *args).result()
        return super().submit(func, *args)


class Lies(Mutant):
    expected = "wrong"

    def fetch(self, task, timeout):
        return super().fetch(task, timeout) + self.broken


class Fails(Mutant):
    expected = "breaks"

    def fetch(self, task, timeout):
        if self.broken:
            raise concurrent.futures.process.BrokenProcessPool("on purpose")
        return super().fetch(task, timeout)


class Dawdles(Mutant):
    expected = "slow"

    def fetch(self, task, timeout):
        time.sleep(0.5 * self.broken)
        return super().fetch(task, timeout)


class NeverCloses(Mutant):
    expected = "hang"

    def close(self, how):
        super().close(how)
        time.sleep(100 * self.broken)


class EndsLate(Mutant):
    expected = "slow"

    def harm(self):
        threading.Thread(target=time.sleep, args=(4,)).start()


class LeavesProcess(Mutant):
    expected = "orphan"

    def harm(self):
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        subprocess.Popen(sleep, start_new_session=True).returncode = 0


class LeavesZombie(Mutant):
    expected = "zombie"

    def harm(self):
        if not os.fork():
            os._exit(0)


class LeavesDescriptor(Mutant):
    expected = "leak"

    def harm(self):
        os.open(os.devnull, os.O_RDONLY)


class LeavesFile(Mutant):
    expected = "leak"

    def harm(self):
        os.close(tempfile.mkstemp()[0])


class Crashes(Mutant):
    expected = "crash"

    def harm(self):
        atexit.register(os._exit, 3)


MUTANTS = {mutant.__name__: mutant for mutant in Mutant.__subclasses__()}
