"""mpire: a pool for map."""

from mpire import WorkerPool


class ProcessPool(WorkerPool):
    """map() with the standard library's name for the size of a chunk."""

    def map(self, function, items, chunksize):
        return super().map(function, items, chunk_size=chunksize, iterable_len=len(items))
