"""raddle with acquire sites kept, as under `raddle run`: switched on for a sample and off after it."""

import raddle.deadlock

from .raddle_ import Lock, Queue, RLock, UnboundedQueue

__all__ = ["Lock", "Queue", "RLock", "UnboundedQueue", "after", "before"]


def before():
    """Keep the file and line of every acquire."""
    raddle.deadlock.enable(sites=True)


def after():
    """Back to the default."""
    raddle.deadlock.disable()
