"""Class bodies that several adapters need over their own base."""

from collections import deque


def overriding(base):
    """A subclass of `base` that stores its items itself, as the four hooks of queue.Queue allow."""

    class Overriding(base):
        def _init(self, maxsize):
            self.items = deque()

        def _qsize(self):
            return len(self.items)

        def _put(self, item):
            self.items.append(item)

        def _get(self):
            return self.items.popleft()

    return Overriding
