"""The standard library's own constructors, taken before raddle rebinds anything.

A leaf: it imports nothing of raddle, so code that must not meet a patched name can always use it.
``install()`` imports it before its first change. ``RLock`` is the C type itself: the function
``threading.RLock`` looks its type up on each call and so follows an installation. ``Condition()`` without a
lock does the same; give it one.
"""

import _thread
import threading

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "Semaphore",
    "Thread",
    "Timer",
    "allocate_lock",
    "count",
]

allocate_lock = _thread.allocate_lock
RLock = _thread.RLock
count = _thread._count

Barrier = threading.Barrier
BoundedSemaphore = threading.BoundedSemaphore
Condition = threading.Condition
Event = threading.Event
Lock = threading.Lock
Semaphore = threading.Semaphore
Thread = threading.Thread
Timer = threading.Timer
