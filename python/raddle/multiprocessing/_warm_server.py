"""The server of the start method "warm": a process with one thread, which has modules loaded and forks children.

See ``_warm`` for what it is told. It runs as a program of its own, so everything here is called once in a process.

**Modules** are loaded as far as that is safe. One that starts a thread would make every later fork a fork beside
threads; one that opens a file or a connection would have all children share it. Neither can be undone, so when a
module has done that the server executes itself again, under its pid and with its children, and leaves the module out:
that module, and those whose import asks for it.
"""

from __future__ import annotations

import atexit
import errno
import gc
import marshal
import os
import pickle
import select
import signal
import socket
import struct
import sys
import time
from multiprocessing import process, resource_tracker, spawn, util
from typing import Any, NamedTuple, NoReturn

from raddle.multiprocessing import _ahead
from raddle.multiprocessing._lifeline import Lifeline, hold, let_go

__all__ = ["inherited", "main"]

#: How many children are forked ahead at first and after a long time, and how many at most.
FEW, MOST = 2, 8

#: Milliseconds without a request after which children are forked ahead, and after which there are too many of them.
QUIET, LONG = 10, 10_000

_NUMBER = struct.Struct("q")

#: In a child: the descriptors that it was given.
inherited: list[int] = []

#: In a child: its end of the pipe that tells its parent of its end, which its own forked children must not have.
_kept: list[int] = []


class _LeftOut(BaseException):
    """A module is not loaded here. Not an Exception: whoever can do without the module must not learn to."""


class _Refuse:
    """A finder that finds nothing, and makes the import of modules that are left out fail."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.asked = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in self.names:
            self.asked = True
            raise _LeftOut(name)


def main(memory: int) -> NoReturn:
    """Run as a server until the last one who could ask for something is gone."""
    with open(memory, "rb") as file:
        file.seek(0)
        server = _Server(marshal.loads(file.read()))
    server.prepare()
    server.serve()
    os._exit(0)


class _Server:
    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.requests = socket.socket(fileno=state["requests"])
        self.requests.set_inheritable(False)
        #: Where to tell of the end of each child.
        self.children: dict[int, int] = dict(state.get("children", ()))
        for descriptor in self.children.values():
            os.set_inheritable(descriptor, False)
        self.refuse = _Refuse(set(state.get("left_out", ())))
        #: Children that have been forked ahead, the oldest first.
        self.ready: list[_Ready] = []
        #: The lifelines of those that have been given out, which have let go of them.
        self.lines: dict[int, Lifeline] = {}
        #: How many children have been asked for lately, and how many are forked ahead because of that.
        self.burst = 0
        self.wanted = FEW
        #: Look after each module, because one of them has made this necessary.
        self.careful = state.get("careful", False)

    def prepare(self) -> None:
        state = self.state
        hold(state["lifeline"])
        # Children have what this process was started with.
        self.interrupt = state.setdefault("interrupt", signal.getsignal(signal.SIGINT) != signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        util._close_stdin()  # type: ignore[attr-defined]
        exec(state["setup"], {})
        if state["main_path"]:
            _ahead.compile_main(state["main_path"])
        _ahead.look_at_folders()
        wakeup, ring = os.pipe()
        os.set_blocking(wakeup, False)
        os.set_blocking(ring, False)
        self.wakeup, self.ring = wakeup, ring
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
        self.before = _facts()
        self.load(state["modules"])

    # Modules

    def load(self, names: list[str]) -> None:
        """Load these modules, quietly and without harm."""
        names = [name for name in names if name not in sys.modules or name == "__main__"]
        names = [name for name in names if name not in self.refuse.names]
        if not names or self.before is None:
            return
        current: Any = process.current_process()
        current._inheriting = True  # processes cannot be started
        streams = sys.stdout, sys.stderr
        sys.meta_path.insert(0, self.refuse)
        with open(os.devnull, "w") as nowhere:
            known = _facts()
            sys.stdout = sys.stderr = nowhere
            try:
                for name in names:
                    self.refuse.asked = False
                    try:
                        if name == "__main__":
                            self._load_main()
                        else:
                            __import__(name)
                    except _LeftOut:
                        continue
                    except BaseException:
                        pass
                    if self.refuse.asked and name in sys.modules:
                        self._again_without(name)  # it can do without, and was loaded so
                    if self.careful and not _is_as_before(known):
                        self._again_without(name)
            finally:
                sys.stdout, sys.stderr = streams
                sys.meta_path.remove(self.refuse)
                del current._inheriting
            if not _is_as_before(known):
                self.careful = True
                self._again_without(None)
        # The collector of a child would only copy these pages.
        gc.collect()
        gc.freeze()

    def _load_main(self) -> None:
        state = self.state
        if state["main_name"]:
            spawn._fixup_main_from_name(state["main_name"])  # type: ignore[attr-defined]
        elif state["main_path"]:
            spawn.import_main_path(state["main_path"])

    def _again_without(self, name: str | None) -> NoReturn:
        """Begin anew, as this process and with its children."""
        state = self.state
        self.drop_ready()
        left_out = self.refuse.names | ({name} if name else set())
        state.update(left_out=sorted(left_out), careful=self.careful, children=sorted(self.children.items()))
        memory = os.memfd_create("raddle-warm")
        os.write(memory, marshal.dumps(state))
        pending = state["pending"][0] if "pending" in state else ()
        for descriptor in (memory, state["requests"], state["lifeline"], *self.children.values(), *pending):
            os.set_inheritable(descriptor, True)
        command = [*state["command"]]
        head, _, _ = command[-1].rpartition("main(")
        command[-1] = f"{head}main({memory})"
        signal.set_wakeup_fd(-1)
        os.execv(command[0], command)

    # Requests

    def serve(self) -> None:
        poll = select.poll()
        poll.register(self.wakeup, select.POLLIN)
        poll.register(self.requests, select.POLLIN)
        self.reap()
        if "pending" in self.state:
            self.give()
        serving = True
        while serving or self.children:
            events = {descriptor for descriptor, _ in poll.poll(self.patience() if serving else None)}
            if not events:
                self.be_quiet()
            if self.wakeup in events:
                try:
                    os.read(self.wakeup, 4096)
                except BlockingIOError:
                    pass
                self.reap()
            if self.requests.fileno() in events:
                serving = self.answer()
                if not serving:
                    poll.unregister(self.requests)
                    self.drop_ready()

    def patience(self) -> int | None:
        """How long to wait for a request before doing something else, in milliseconds."""
        if len(self.ready) < self.wanted or self.burst:
            return QUIET
        return LONG if self.wanted > FEW else None

    def be_quiet(self) -> None:
        """Nothing is asked for: fork ahead what the next burst will want, or fewer after a long time."""
        if self.burst:
            self.wanted, self.burst = max(self.wanted, min(self.burst, MOST)), 0
        if len(self.ready) < self.wanted:
            self.fork_ahead()
        else:
            self.wanted = FEW
            self.drop_ready(FEW)

    def reap(self) -> None:
        """Tell of all children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            answer = self.children.pop(pid, None)
            if answer is None:
                self.ready = [one for one in self.ready if one.pid != pid]
            else:
                self.lines.pop(pid, None)
                _write_number(answer, os.waitstatus_to_exitcode(status))
                os.close(answer)

    def answer(self) -> bool:
        """Take one request; whether there may be more."""
        message = b""
        while True:
            try:
                part, descriptors, _, _ = socket.recv_fds(self.requests, 1 << 16, 256)
            except ConnectionResetError:
                return False
            if not part:
                return False
            if part[:1] == b"!":
                break
            message += part[1:]
        modules, count, facts = marshal.loads(message)
        if len(descriptors) != count:
            # The rest did not fit into this process's table.
            if descriptors:
                _write_number(descriptors[0], -errno.EMFILE)
            for descriptor in descriptors:
                os.close(descriptor)
            return True
        state = self.state
        state["pending"] = descriptors, facts
        new = [name for name in modules if name not in state["modules"]]
        if new:
            state["modules"] += new
            self.drop_ready()
            self.load(new)
        self.give()
        return True

    def give(self) -> None:
        """Give the request at hand to a child that is ready, or to a new one."""
        descriptors, facts = self.state.pop("pending")
        self.burst += 1
        answer, *rest = descriptors
        try:
            pid = self.wake(descriptors, facts) or self.fork(descriptors, facts)
        except OSError as error:
            _write_number(answer, -(error.errno or errno.EAGAIN))
            rest.append(answer)
        else:
            self.children[pid] = answer
            _write_number(answer, pid)
        for descriptor in rest:
            os.close(descriptor)

    def wake(self, descriptors: list[int], facts: Any) -> int | None:
        """Let a child that is ready do it; its pid, or None if there is none."""
        while self.ready:
            one = self.ready.pop(0)
            with one.channel:
                try:
                    one.channel.send(marshal.dumps(facts))
                    socket.send_fds(one.channel, [b"!"], descriptors)
                except OSError:
                    continue  # it has been killed
            self.lines[one.pid] = one.line
            return one.pid
        return None

    def fork(self, descriptors: list[int], facts: Any) -> int:
        pid = os.fork()
        if pid == 0:
            self.leave()
            _run_child(descriptors, facts, self.interrupt)
        return pid

    def fork_ahead(self) -> None:
        line = Lifeline()
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            try:
                pid = os.fork()
            except OSError:
                self.wanted = len(self.ready)  # not now
                return
            if pid == 0:
                hold(line.fd_for_child)
                mine.close()
                self.leave()
                _wait_for_work(its, self.interrupt)
        line.close_child_end()
        self.ready.append(_Ready(pid, mine, line))

    def drop_ready(self, keep: int = 0) -> None:
        """End the children that are ready, but for so many."""
        for one in self.ready[keep:]:
            one.channel.close()
            one.line.close()
        del self.ready[keep:]

    def leave(self) -> None:
        """In a child: leave the server behind."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.requests.close()
        for descriptor in (self.wakeup, self.ring, *self.children.values()):
            os.close(descriptor)
        for one in self.ready:
            one.channel.close()
        self.children, self.ready, self.lines = {}, [], {}


class _Ready(NamedTuple):
    """A child that waits for what it is to do."""

    pid: int
    channel: socket.socket
    line: Lifeline


def _wait_for_work(channel: socket.socket, interrupt: bool) -> NoReturn:
    """In a child that was forked ahead."""
    facts = channel.recv(1 << 20)
    _, descriptors, _, _ = socket.recv_fds(channel, 1, 256)
    if not descriptors:
        os._exit(0)
    channel.close()
    let_go()
    _run_child(descriptors, marshal.loads(facts), interrupt)


def _run_child(descriptors: list[int], facts: Any, interrupt: bool) -> NoReturn:
    """Do what the parent writes, and end as a child of any other start method."""
    code = 1
    try:
        answer, work, lifeline, tracker, *given = descriptors
        hold(lifeline)
        streams, environment = facts
        for stream in streams:
            descriptor = given.pop(0)
            os.dup2(descriptor, stream)
            os.close(descriptor)
        inherited[:] = given
        _kept.append(answer)
        if interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if environment is not None:
            os.environb.clear()
            os.environb.update(environment)
        random = sys.modules.get("numpy.random")
        if random is not None:
            # As in a new interpreter: else all children would draw the same numbers. Python's own sees to this itself.
            random.seed()
        atexit._clear()
        atexit.register(util._exit_function)  # type: ignore[attr-defined]
        resources: Any = resource_tracker._resource_tracker
        resources._fd, resources._pid = tracker, None
        sentinel = os.dup(work)
        with open(work, "rb") as file:
            current: Any = process.current_process()
            current._inheriting = True
            try:
                if not file.peek(1):
                    os._exit(0)  # the parent has changed its mind
                spawn.prepare(pickle.load(file))
                child = pickle.load(file)
            finally:
                del current._inheriting
        code = child._bootstrap(sentinel)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        atexit._run_exitfuncs()
        util._flush_std_streams()  # type: ignore[attr-defined]
        os._exit(code)


class _Facts(NamedTuple):
    threads: int
    descriptors: list[str]


def _facts() -> _Facts | None:
    """How many threads there are, and which descriptors are open; None if nobody says."""
    try:
        return _Facts(len(os.listdir("/proc/self/task")), os.listdir("/proc/self/fd"))
    except OSError:
        return None


def _is_as_before(known: _Facts | None) -> bool:
    """Whether there are no other threads and descriptors, after a fork.

    Libraries that know of forks end their threads before one, and start them again when they are needed: OpenBLAS does,
    and with it NumPy.
    """
    now = _facts()
    if now is None or known is None or now == known:
        return now == known
    if now.threads > known.threads:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        # A thread that has been joined may be seen for a moment.
        for _ in range(20):
            now = _facts()
            if now == known:
                break
            time.sleep(0.001)
    return now == known


def _write_number(descriptor: int, number: int) -> None:
    try:
        os.write(descriptor, _NUMBER.pack(number))
    except BrokenPipeError:
        pass  # nobody wants to know any more


def _after_fork_in_child() -> None:
    for descriptor in _kept:
        os.close(descriptor)
    _kept.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
