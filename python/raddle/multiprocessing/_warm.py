"""The start method "warm", in the process that starts others: its server, and its child processes.

The server (``_warm_server``) is a process with one thread. It has loaded the modules that this one has imported, and
forks a child for each request. It is this process's own: a child that starts processes in this way gets another.

What ties them together:

* a socket for requests. When it is closed the server ends after its last child;
* for the server and each child a lifeline: they are killed when this process ends, by whatever means;
* for each child a pipe from the server: its pid, later its exit code. The child has it open too, so that the end of
  the pipe is the end of the child even if the server is gone by then;
* for each child a pipe to it, for what it is to do. That is written only when its pid has come: so a request can be
  repeated with another server, and nothing is done twice.

A server that somebody has stopped (SIGSTOP) is continued when it is waited for, and killed if that does not help.
"""

from __future__ import annotations

import io
import marshal
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from multiprocessing import popen_fork, reduction, resource_tracker, util
from multiprocessing import spawn as _std_spawn
from multiprocessing.context import set_spawning_popen
from types import ModuleType
from typing import TYPE_CHECKING, Any

from raddle._originals import RLock, allocate_lock
from raddle.multiprocessing import spawn
from raddle.multiprocessing._lifeline import Lifeline
from raddle.multiprocessing.spawn import _get_preparation_data as _std_data

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Popen", "set_preload"]

#: The most descriptors that a request can carry: a limit of the kernel (SCM_MAX_FD).
MOST_DESCRIPTORS = 253

#: How many bytes of a request go into one message. A socket takes much more.
MOST_BYTES = 60_000

#: How long a server may be seen stopped while it is waited for, in seconds, until it is continued; and how often that
#: is done for one request.
STOPPED, LOOK, CONTINUED = 0.5, 0.1, 2

_NUMBER = struct.Struct("q")

_START = (
    "import sys; sys.path[:] = {path!r}; from raddle.multiprocessing._warm_server import main; main({memory})"
)


class _Gone(Exception):
    """The server has ended before it answered."""


class _Server:
    """One server, from this process's side."""

    def __init__(self, asked: tuple[Any, ...], modules: list[str]) -> None:
        self.asked = asked
        self.told = set(modules)
        #: How many modules there were when they were last looked through.
        self.looked_at = 0
        #: The environment that the server has got, and children get unless they are told another.
        self.environment = dict(os.environb)
        self._lifeline = Lifeline()
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = mine
        with its:
            self.pid = self._launch(its.fileno(), modules)
        self._lifeline.close_child_end()

    def _launch(self, requests: int, modules: list[str]) -> int:
        preparation = _std_data("warm server")
        memory = os.memfd_create("raddle-warm")
        try:
            command = [
                os.fsdecode(_std_spawn.get_executable()),
                *util._args_from_interpreter_flags(),  # type: ignore[attr-defined]
                "-c",
                _START.format(path=preparation["sys_path"], memory=memory),
            ]
            state = {
                "command": command,
                "requests": requests,
                "lifeline": self._lifeline.fd_for_child,
                "main_path": preparation.get("init_main_from_path"),
                "main_name": preparation.get("init_main_from_name"),
                "setup": spawn.for_child(),
                "modules": modules,
            }
            os.write(memory, marshal.dumps(state))
            kept = [memory, requests, self._lifeline.fd_for_child]
            # Until it has its handlers, Ctrl-C must not end it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                pid: int = util.spawnv_passfds(_std_spawn.get_executable(), command, kept)  # type: ignore[arg-type]
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return pid
        finally:
            os.close(memory)

    def fork(self, descriptors: list[int], modules: list[str]) -> None:
        """Send a request. Raises _Gone."""
        streams = [stream for stream in (1, 2) if _is_open(stream)]
        descriptors = [*descriptors[:4], *streams, *descriptors[4:]]
        environment = dict(os.environb)
        facts = streams, None if environment == self.environment else environment
        message = marshal.dumps((modules, len(descriptors), facts))
        try:
            for at in range(0, len(message), MOST_BYTES):
                self.wait_for(self._socket, select.POLLOUT)
                self._socket.send(b"+" + message[at : at + MOST_BYTES])
            self.wait_for(self._socket, select.POLLOUT)
            socket.send_fds(self._socket, [b"!"], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            raise _Gone from None
        self.told.update(modules)

    def wait_for(self, descriptor: int | socket.socket, event: int) -> bool:
        """Return when the descriptor is ready, which the server sees to; False if the server is gone without that."""
        poll = select.poll()
        poll.register(descriptor, event)
        stopped, continued = 0.0, 0
        while not poll.poll(LOOK * 1000):
            state = self._state()
            if state in b"ZX":
                return bool(poll.poll(0))
            stopped = stopped + LOOK if state == b"T" else 0.0
            if stopped >= STOPPED:
                self._signal(signal.SIGCONT if continued < CONTINUED else signal.SIGKILL)
                stopped, continued = 0.0, continued + 1
        return True

    def go_on(self) -> None:
        """Continue it if it is stopped."""
        if self._state() == b"T":
            self._signal(signal.SIGCONT)

    def _state(self) -> bytes:
        """The kernel's letter for what it does: Z and X if it has ended, T if it is stopped; "?" without /proc."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split(maxsplit=1)[0]
        except (FileNotFoundError, ProcessLookupError):
            return b"X" if os.path.exists("/proc/self/stat") else b"?"

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # somebody else has waited for it
            os.kill(self.pid, number)

    def retire(self) -> None:
        """Let it end after its last child."""
        self._socket.close()

    def is_reaped(self) -> bool:
        """Whether it has ended; if so, nothing of it is left."""
        try:
            ended = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:  # somebody else has waited for it
            ended = True
        if ended:
            self.retire()
            self._lifeline.close()
        return ended


class _Servers:
    """The server in use, and those that still have children."""

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self.server: _Server | None = None
        self.retired: list[_Server] = []
        self.preload: list[str] | None = None

    def fork(self, descriptors: list[int], lifeline: Lifeline) -> tuple[_Server, int, int, int]:
        """Get a child that holds the lifeline.

        Returns:
            Its server, its pid, the pipe from which its exit code comes, and the one from which it reads.
        Raises:
            OSError: there are no processes, memory or descriptors for it.
            RuntimeError: servers end before they have forked it.
        """
        if len(descriptors) > MOST_DESCRIPTORS - 6:
            raise ValueError("too many fds")
        tracker: Any = resource_tracker.getfd()
        with self.lock:
            for attempt in range(3):
                if attempt == 2:
                    # If servers end while they load modules, that may be their doing: from now on they load none.
                    self.preload = []
                opened: list[int] = []
                try:
                    opened += os.pipe()
                    opened += os.pipe()
                    answer, its_answer, its_work, work = opened
                    server, added = self._serving()
                    server.fork([its_answer, its_work, lifeline.fd_for_child, tracker, *descriptors], added)
                    os.close(opened.pop(2))
                    os.close(opened.pop(1))
                    # A child may have got the request and hold the pipe, if the server was killed at that moment.
                    if not server.wait_for(answer, select.POLLIN):
                        raise _Gone
                    pid = read_number(answer)
                except _Gone:
                    pid = None
                except BaseException:
                    for descriptor in opened:
                        os.close(descriptor)
                    raise
                if pid is not None and pid > 0:
                    return server, pid, answer, work
                for descriptor in opened:
                    os.close(descriptor)
                if pid is not None:
                    raise OSError(-pid, os.strerror(-pid))
        raise RuntimeError(
            "the servers of the start method 'warm' end before they have started a process;"
            " use another one, such as 'spawn'"
        )

    def _serving(self) -> tuple[_Server, list[str]]:
        """A server that lives, and which modules it has not been told of."""
        self.retired = [server for server in self.retired if not server.is_reaped()]
        asked = (spawn.for_child(), self.preload)
        if self.server is not None:
            if self.server.is_reaped():
                self.server = None
            elif self.server.asked != asked:
                self.server.retire()
                self.retired.append(self.server)
                self.server = None
        if self.server is not None and self.preload is None and len(sys.modules) == self.server.looked_at:
            return self.server, []
        count = len(sys.modules)
        modules = _imported() if self.preload is None else self.preload
        added = []
        if self.server is None:
            self.server = _Server(asked, modules)
        else:
            added = [name for name in modules if name not in self.server.told]
        self.server.looked_at = count
        return self.server, added

    def after_fork_in_child(self) -> None:
        """The parent's servers are not this process's."""
        for server in [self.server, *self.retired]:
            if server is not None:
                server.retire()
        self.lock = allocate_lock()
        self.server = None
        self.retired = []


_servers = _Servers()
os.register_at_fork(after_in_child=_servers.after_fork_in_child)


def set_preload(module_names: Iterable[str]) -> None:
    """Let servers load these modules instead of the imported ones; from the next start on."""
    names = list(module_names)
    if not all(type(name) is str for name in names):
        raise TypeError("module_names must be a list of strings")
    _servers.preload = names


def _imported() -> list[str]:
    """The modules that this process has imported and that another can import by their names, in order."""
    names = []
    for name, module in list(sys.modules.items()):
        if name in ("__main__", "__mp_main__") or not issubclass(type(module), ModuleType):
            continue
        # Not getattr(): it would load a lazy module.
        spec = object.__getattribute__(module, "__dict__").get("__spec__")
        if spec is not None and spec.name == name and not getattr(spec, "_initializing", False):
            names.append(name)
    return names


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def read_number(descriptor: int) -> int | None:
    """The next number from a server; None if there is none to come."""
    data = b""
    while len(data) < _NUMBER.size:
        part = os.read(descriptor, _NUMBER.size - len(data))
        if not part:
            return None
        data += part
    number: int = _NUMBER.unpack(data)[0]
    return number


class _DupFd:
    """A descriptor on its way into a child: a number in what the child is given."""

    def __init__(self, index: int) -> None:
        self.index = index

    def detach(self) -> int:
        from raddle.multiprocessing import _warm_server

        return _warm_server.inherited[self.index]


class Popen(popen_fork.Popen):
    """A child, as ``Process`` sees it."""

    method = "warm"
    DupFd = _DupFd

    def __init__(self, process_obj: Any) -> None:
        self._fds: list[int] = []
        self._reading = RLock()
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        self._fds.append(fd)
        return len(self._fds) - 1

    def _launch(self, process_obj: Any) -> None:
        # The standard library's: what raddle adds to it the server has done for all children.
        preparation = _std_data(process_obj._name)
        buffer = io.BytesIO()
        set_spawning_popen(self)  # type: ignore[arg-type]
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            set_spawning_popen(None)
        self._lifeline = Lifeline()
        self._server, self.pid, self.sentinel, work = _servers.fork(self._fds, self._lifeline)
        self._lifeline.close_child_end()
        # The child's sentinel for this process: a second write end of its work.
        kept = os.dup(work)
        self.finalizer = util.Finalize(self, util.close_fds, (kept, self.sentinel))  # type: ignore[attr-defined]
        try:
            with open(work, "wb") as file:
                file.write(buffer.getbuffer())
        except BrokenPipeError:
            pass  # it has been killed already, which its exit code says

    def wait(self, timeout: float | None = None) -> int | None:
        if self.returncode is None and timeout is not None:
            end = time.monotonic() + timeout
            if not self._wait_for_end(timeout):
                return None
            if self.poll() is None and not self._wait_to_be_told(end - time.monotonic()):
                return None
        return self.poll(0)

    def _wait_to_be_told(self, timeout: float) -> bool:
        from multiprocessing.connection import wait

        return bool(wait([self.sentinel], max(timeout, 0)))

    def _wait_for_end(self, timeout: float | None) -> bool:
        """Wait until the child has ended, whether its server tells or not; False if not in time."""
        from multiprocessing.connection import wait

        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            return bool(wait([descriptor, self.sentinel], timeout))
        finally:
            os.close(descriptor)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            from multiprocessing.connection import wait

            told = bool(wait([self.sentinel], 0))
            if not told:
                if flag == os.WNOHANG:
                    self._server.go_on()  # or the end would never be told
                    return None
                self._wait_for_end(None)
                told = self._server.wait_for(self.sentinel, select.POLLIN)
            # Any thread that starts a process asks for all of them: the number is there for one.
            with self._reading:
                if self.returncode is None:
                    code = read_number(self.sentinel) if told else None
                    # Without a server nobody knows how it ended.
                    self.returncode = 255 if code is None else code
        return self.returncode
