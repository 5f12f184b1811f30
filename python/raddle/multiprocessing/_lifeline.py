"""Lifelines: a child process that dies with its parent, however either of them is at that moment.

Each child has a pipe of its own, whose write end only the parent has. The child asks the kernel for SIGKILL, as the
signal for I/O on the read end (fcntl(2): F_SETOWN, F_SETSIG, O_ASYNC). So the kernel kills it when the last write end
is closed: the parent has ended, by whatever means, or closed it. That needs no thread and no Python in the child, and
works for one that is stopped or never lets go of the GIL.

Write ends must not get into other processes: descriptors are not inherited by a new program, and a forked process
closes them before it runs anything else. Linux only.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
from _thread import RLock
from weakref import WeakSet

__all__ = ["Lifeline", "hold", "let_go"]

# Held while the set below and the descriptors in it change, and over a fork.
_lock = RLock()
_lifelines: WeakSet[Lifeline] = WeakSet()

#: What this process hangs on: a descriptor, and the device and inode that it had then.
_held: list[tuple[int, tuple[int, int]]] = []


class Lifeline:
    """The parent's end. To close it, or to drop it, kills the child that holds the other end.

    Attributes:
        fd_for_child: the descriptor that the child has to ``hold()``; -1 after ``close_child_end()``.
    Raises:
        OSError: no descriptors are left.
    Note:
        Threads: any. A forked process has neither end, except that the end for the child stays open in it until the
        parent calls ``close_child_end()``: that is how a forked child comes by it.
    """

    __slots__ = ("__weakref__", "_write", "fd_for_child")

    def __init__(self) -> None:
        self._write = self.fd_for_child = -1
        with _lock:
            self.fd_for_child, self._write = os.pipe()
            _lifelines.add(self)

    def close_child_end(self) -> None:
        """Close the child's end in this process: to be called once the child has it."""
        with _lock:
            end, self.fd_for_child = self.fd_for_child, -1
            if end >= 0:
                os.close(end)

    def close(self) -> None:
        """Close both ends. The child is killed if it lives and holds its end. More calls do nothing."""
        self.close_child_end()
        self._close_write()

    def _close_write(self) -> None:
        with _lock:
            end, self._write = self._write, -1
            if end >= 0:
                os.close(end)

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Lifeline: {'open' if self._write >= 0 else 'closed'}>"


def hold(fd: int) -> None:
    """Die with the process that has the other end: from now on this process is killed when that is closed.

    Args:
        fd: the ``fd_for_child`` of a Lifeline, in the child. It stays open from now on; the child's own children get
            neither it nor its effect.
    Raises:
        OSError: not a descriptor.
    Note:
        If the other end is closed already, does not return.
    """
    os.set_inheritable(fd, False)
    status = os.fstat(fd)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    _held.append((fd, (status.st_dev, status.st_ino)))
    poll = select.poll()
    poll.register(fd, 0)
    if poll.poll(0):  # closed before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def let_go() -> None:
    """Close what this process holds, and so outlive the processes that have the other ends."""
    for fd, identity in _held:
        # A program that closes all descriptors, as daemons do, may have another file under this number.
        try:
            status = os.fstat(fd)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) == identity:
            os.close(fd)
    _held.clear()


def _after_fork_in_child() -> None:
    try:
        for lifeline in list(_lifelines):
            lifeline._close_write()
        _lifelines.clear()
        let_go()
    finally:
        _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork_in_child)
