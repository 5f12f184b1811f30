"""faster-fifo: a queue between processes over a ring of fixed size in shared memory."""

import faster_fifo


def ProcessQueue():
    """A ring of 20 MB, so that a megabyte fits several times."""
    return faster_fifo.Queue(max_size_bytes=20_000_000)
