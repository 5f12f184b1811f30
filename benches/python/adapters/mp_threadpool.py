"""multiprocessing.pool.ThreadPool, the standard library's older pool of threads, under the names of concurrent.futures.

Its results are no Futures: no callbacks afterwards, no cancelling, no as_completed. Its map() makes one task of many
calls, sixteen tasks for four workers.
"""

from collections import namedtuple
from multiprocessing.pool import ApplyResult
from multiprocessing.pool import ThreadPool as _ThreadPool

_Waited = namedtuple("_Waited", "done not_done")


class _Result(ApplyResult):
    result = ApplyResult.get


class ThreadPoolExecutor(_ThreadPool):
    """submit() for apply_async(), and the end of a `with` waits."""

    def submit(self, function, *arguments):
        found = self.apply_async(function, arguments)
        found.__class__ = _Result
        return found

    def __exit__(self, *_):
        self.close()
        self.join()


def wait(results):
    """Wait for each."""
    for result in results:
        result.wait()
    return _Waited(results, [])
