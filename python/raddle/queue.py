"""Queues: the names of the standard library's ``queue``, on raddle's core.

Beyond the standard library, on every Python: ``shutdown()`` with ``ShutDown`` (CPython 3.13's), ``put_many`` and
``get_many``; puts from finalizers and signal handlers cannot deadlock; comparisons of a PriorityQueue's items run with
no lock held. Each queue has ``name``, ``waiters`` and ``longest_wait``.

A program may still reach into a queue (``q.queue``, ``q.mutex``, ``q.not_empty``) or override ``_init``, ``_put``,
``_get`` and ``_qsize`` in a subclass. Such a queue is *opened*: its items move to a real deque or list, guarded by a
raddle lock, and it runs at about the standard library's speed from then on.
"""

from __future__ import annotations

import sys
from queue import Empty, Full

from raddle import _open_queue, _raddle
from raddle._raddle import LifoQueue, PriorityQueue, Queue, SimpleQueue

__all__ = ["Empty", "Full", "LifoQueue", "PriorityQueue", "Queue", "ShutDown", "SimpleQueue"]

if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """Raised when put or get is called on a queue that has been shut down."""


_open_queue.errors = sys.modules[__name__]
_raddle.set_queue_names(Empty, Full, ShutDown, _open_queue)

import raddle.threading  # noqa: E402, F401 - fork, exit and detection come with it
