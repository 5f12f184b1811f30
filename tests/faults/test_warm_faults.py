"""The start method "warm": its server and children die with their parent, and a start survives its server."""

import os
import select
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tools import DEADLINE, child_environment, wait_until

pytestmark = [pytest.mark.fork, pytest.mark.signals]

#: How long anything may live after its parent, in seconds.
LIMIT = 2.0

#: The program of most tests: a parent that starts children of this kind and tells their pids and the server's.
HEAD = """
import os, signal, sys, time
import raddle.multiprocessing as mp
from raddle.multiprocessing import _warm

def idle():
    time.sleep(1000)

def busy():
    while True:
        pass

def busy_in_c():
    (1 << 100_000_000) ** 100

def stopped():
    os.kill(os.getpid(), signal.SIGSTOP)

def nothing():
    pass

def pid_of_server():
    return _warm._servers.server.pid

if __name__ == "__main__":
    warm = mp.get_context("warm")

    def start(work):
        child = warm.Process(target=work)
        child.start()
        return child
"""


def program(tmp_path, body, head=HEAD):
    path = tmp_path / "program.py"
    path.write_text(head + textwrap.indent(textwrap.dedent(body), "    "))
    return [sys.executable, str(path)]


def run(tmp_path, body, head=HEAD):
    done = subprocess.run(
        program(tmp_path, body, head),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env=child_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def children_of(pid):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(name))
    return found


def family_of(pid):
    """All that has come of a process: the server, its children, those that are ready, the resource tracker."""
    found = []
    for child in children_of(pid):
        found += [child, *family_of(child)]
    return found


@pytest.mark.parametrize("how", ["idle", "busy_in_c", "stopped"])
@pytest.mark.parametrize("work", ["idle", "busy", "busy_in_c", "stopped"])
def test_a_killed_parent_takes_all_along(tmp_path, work, how):
    body = f"""
    children = [start({work}) for _ in range(3)]
    print(pid_of_server(), *(child.pid for child in children), flush=True)
    {how}()
    """
    parent = subprocess.Popen(
        program(tmp_path, body), stdout=subprocess.PIPE, text=True, env=child_environment()
    )
    server, *pids = map(int, parent.stdout.readline().split())
    # Some have been forked ahead, and are not known to the parent.
    family = wait_until(
        lambda: (pids_now := family_of(parent.pid)) and len(pids_now) >= len(pids) + 3 and pids_now,
        "servers and children are there",
    )
    assert {server, *pids} < set(family)
    watched = {os.pidfd_open(pid): pid for pid in family}
    try:
        parent.kill()
        parent.wait()
        killed = time.monotonic()
        left = dict(watched)
        while left and time.monotonic() < killed + LIMIT:
            for descriptor in select.select(list(left), [], [], 0.1)[0]:
                del left[descriptor]
        assert not left, f"after {LIMIT} s there are still {list(left.values())}"
    finally:
        parent.stdout.close()
        for descriptor, pid in watched.items():
            if not select.select([descriptor], [], [], 0)[0]:
                os.kill(pid, signal.SIGKILL)
            os.close(descriptor)


def test_a_killed_server(tmp_path):
    out = run(
        tmp_path,
        """
        first = start(idle)
        server = pid_of_server()
        os.kill(server, signal.SIGKILL)
        second = start(nothing)
        second.join(10)
        print(second.exitcode, pid_of_server() != server)
        # What the first server has started lives on; how it ended nobody can tell.
        print(first.is_alive())
        first.kill()
        first.join(10)
        print(first.exitcode)
        """,
    )
    assert out == "0 True\nTrue\n255\n"


def test_a_stopped_server(tmp_path):
    """It is continued by who needs it: to start a process, and to hear of the end of one."""
    out = run(
        tmp_path,
        """
        first = start(nothing)
        first.join(10)
        server = pid_of_server()
        os.kill(server, signal.SIGSTOP)
        begin = time.monotonic()
        second = start(nothing)
        print(time.monotonic() - begin < 2, pid_of_server() == server)
        second.join(10)
        third = start(nothing)
        os.kill(server, signal.SIGSTOP)
        begin = time.monotonic()
        third.join()
        print(time.monotonic() - begin < 2)
        print(second.exitcode, third.exitcode)
        fourth = start(idle)
        os.kill(server, signal.SIGSTOP)
        fourth.kill()
        begin = time.monotonic()
        while fourth.is_alive() and time.monotonic() < begin + 10:
            time.sleep(0.01)
        print(fourth.exitcode, time.monotonic() - begin < 2)
        """,
    )
    assert out == "True True\nTrue\n0 0\n-9 True\n"


def test_a_server_that_is_kept_stopped(tmp_path):
    """In place of one that is stopped again whenever it is continued, there is another."""
    out = run(
        tmp_path,
        """
        import threading
        start(nothing).join(10)
        server, ended = pid_of_server(), False

        def keep_it_stopped():
            while not ended:
                try:
                    os.kill(server, signal.SIGSTOP)
                except ProcessLookupError:
                    break

        os.kill(server, signal.SIGSTOP)
        thread = threading.Thread(target=keep_it_stopped)
        thread.start()
        begin = time.monotonic()
        child = start(nothing)
        print(time.monotonic() - begin < 4)
        child.join()
        # 255 if it was this server's, which then had to be killed to tell of its end.
        print(child.exitcode in (0, 255))
        ended = True
        thread.join()
        """,
    )
    assert out == "True\nTrue\n"


def test_a_pool_of_a_stopped_server(tmp_path):
    out = run(
        tmp_path,
        """
        from raddle.concurrent.futures import ProcessPoolExecutor
        start(nothing).join(10)
        os.kill(pid_of_server(), signal.SIGSTOP)
        begin = time.monotonic()
        with ProcessPoolExecutor(2, warm) as pool:
            print(list(pool.map(abs, range(4))))
            print(time.monotonic() - begin < 2)
            victim = next(iter(pool._processes))
            os.kill(pid_of_server(), signal.SIGSTOP)
            os.kill(victim, signal.SIGKILL)
            print(list(pool.map(abs, range(4))))
        """,
    )
    assert out == "[0, 1, 2, 3]\nTrue\n[0, 1, 2, 3]\n"


def test_servers_that_are_killed_again_and_again(tmp_path):
    out = run(
        tmp_path,
        """
        import random, threading
        ended = False

        def killer():
            while not ended:
                time.sleep(random.random() * 0.02)
                server = _warm._servers.server
                if server is not None:
                    try:
                        os.kill(server.pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                    time.sleep(random.random() * 0.3)

        thread = threading.Thread(target=killer)
        thread.start()
        codes = []
        end = time.monotonic() + 6
        while time.monotonic() < end:
            queue = warm.SimpleQueue()
            try:
                child = warm.Process(target=queue.put, args=(os.getpid(),))
                child.start()
            except RuntimeError as error:
                assert "end before they have started" in str(error)
                continue
            child.join(10)
            assert child.exitcode in (0, 255), child.exitcode
            codes.append(child.exitcode)
        ended = True
        thread.join()
        print(0 in codes)
        """,
    )
    assert out == "True\n"


def test_children_are_reaped(tmp_path):
    out = run(
        tmp_path,
        """
        children = [start(nothing) for _ in range(10)]
        pids = [child.pid for child in children]
        for child in children:
            child.join()
        for pid in pids:
            try:
                os.kill(pid, 0)
                print("still there")
            except ProcessLookupError:
                pass
        # Descriptors are given back with the objects.
        import gc
        del child, children
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            start(nothing).join()
        mp.active_children()
        gc.collect()
        print(len(os.listdir("/proc/self/fd")) - before)
        """,
    )
    assert out == "0\n"


def test_the_server_ends_with_the_parent_and_leaves_nothing(tmp_path):
    parent = subprocess.Popen(
        program(tmp_path, "start(nothing).join(); print(pid_of_server(), flush=True)"),
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    server = os.pidfd_open(int(parent.stdout.readline()))
    assert parent.wait(DEADLINE) == 0
    assert select.select([server], [], [], LIMIT)[0]
    os.close(server)
    parent.stdout.close()


@pytest.mark.parametrize("what", ["threads", "sockets", "processes", "dies", "prints", "raises", "exits"])
def test_modules_that_cannot_be_loaded_ahead(tmp_path, what):
    """They are left to the children, and so are those that need them; all others are loaded."""
    does = {
        "threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
        "sockets": "import socket\ns = socket.socket()",
        "processes": "import multiprocessing as mp\nif mp.current_process().name == 'MainProcess':\n"
        "    p = mp.get_context('spawn').Process(target=print)\n    p.start()\n    p.join()",
        "dies": "import os\nif os.getppid() == int(os.environ['PARENT']): os._exit(5)",
        "prints": "print('loaded')",
        "raises": "raise ImportError('not today')",
        "exits": "import sys\nif sys.argv[0] == '-c': sys.exit(3)",
    }[what]
    (tmp_path / "odd_one.py").write_text(does + "\n")
    (tmp_path / "needs_it.py").write_text("import odd_one\n")
    (tmp_path / "can_do_without.py").write_text(
        "try:\n    import odd_one\nexcept BaseException:\n    odd_one = None\n"
    )
    (tmp_path / "harmless.py").write_text("import json.tool\n")
    body = """
        # The parent of a server; a child has another.
        os.environ["PARENT"] = str(os.getpid())
        for name in ("odd_one", "needs_it", "can_do_without", "harmless"):
            try:
                __import__(name)
            except ImportError:
                pass
        for _ in range(2):
            queue = warm.SimpleQueue()
            child = warm.Process(target=tell, args=(queue,))
            child.start()
            print(*queue.get())
            child.join()
            print(child.exitcode)
        with open(f"/proc/{pid_of_server()}/status") as file:
            print(next(line.split()[1] for line in file if line.startswith("Threads")))
    """
    head = HEAD.replace(
        "def nothing",
        """def tell(queue):
    loaded = [name in sys.modules for name in ("harmless", "odd_one", "can_do_without")]
    import can_do_without
    queue.put([*loaded, can_do_without.odd_one is not None])

def nothing""",
    )
    lines = [line for line in run(tmp_path, body, head).splitlines() if line and line != "loaded"]
    loaded = {"prints": "True True True True", "raises": "True False True False"}.get(what)
    if what == "dies":
        # It takes the server along: the next one loads nothing.
        loaded = "False False False True"
    if what in ("processes", "exits"):
        # It fails in the server, and nobody can tell from the outside what that means to who can do without.
        assert lines[0].split()[:2] == ["True", "False"]
        loaded = lines[0]
    loaded = loaded or "True False False True"
    assert lines == [loaded, "0", loaded, "0", "1"]


def test_modules_imported_later(tmp_path):
    (tmp_path / "late.py").write_text("import socket\ns = socket.socket()\n")
    (tmp_path / "later.py").write_text("")
    head = HEAD.replace(
        "def nothing",
        "def tell(queue):\n    queue.put([name in sys.modules for name in ('late', 'later')])\n\ndef nothing",
    )
    body = """
        def ask():
            queue = warm.SimpleQueue()
            warm.Process(target=tell, args=(queue,)).start()
            return queue.get()

        sleeper = start(idle)
        print(ask())
        import late
        print(ask())
        import later
        print(ask())
        # The server has begun anew in between, and still knows its child.
        sleeper.terminate()
        sleeper.join(10)
        print(sleeper.exitcode)
    """
    assert run(tmp_path, body, head) == "[False, False]\n[False, False]\n[False, True]\n-15\n"


def test_main_is_not_loaded_unless_asked(tmp_path):
    head = HEAD.replace("def nothing", 'print("main is", os.getppid() == START, flush=True)\n\ndef nothing')
    head = head.replace(
        "import os,", "import os; START = int(os.environ.setdefault('START', str(os.getpid())))\nimport", 1
    )
    body = """
        for modules in (["json"], ["json", "__main__"]):
            warm.set_forkserver_preload(modules)
            for _ in range(3):
                start(nothing).join()
            print("--", flush=True)
    """
    # In the parent; in each child; and then once in the server, which says nothing.
    out = run(tmp_path, body, head)
    assert out.count("main is") == 1 + 3 and out.count("--") == 2


@pytest.mark.parametrize("method", ["forkserver", "warm"])
@pytest.mark.parametrize("name", ["program.py", "a: b'c.py", "prögram.py"])
def test_main_is_compiled_by_the_server(tmp_path, method, name):
    """And by the child where the file is another by then."""
    path = tmp_path / name
    path.write_text(
        textwrap.dedent(
            """
            import raddle.multiprocessing as mp
            from raddle.multiprocessing import _ahead

            def tell():
                print("old", len(_ahead._compiled), flush=True)

            if __name__ == "__main__":
                context = mp.get_context(METHOD)
                for text in ("", "# other\\n" + open(__file__).read().replace('"old"', '"new"')):
                    if text:
                        open(__file__, "w").write(text)
                    child = context.Process(target=tell)
                    child.start()
                    child.join()
                    assert child.exitcode == 0
            """
        ).replace("METHOD", repr(method))
    )
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=DEADLINE, env=child_environment()
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "old 1\nnew 1\n", "")


def test_a_main_that_cannot_be_compiled_any_more(tmp_path):
    """The server goes on, and the child says what is wrong."""
    path = tmp_path / "program.py"
    path.write_text(
        textwrap.dedent(
            """
            import raddle.multiprocessing as mp

            if __name__ == "__main__":
                context = mp.get_context("forkserver")
                good = open(__file__).read()
                for text in ("def", good):
                    open(__file__, "w").write(text)
                    child = context.Process(target=abs, args=(1,))
                    child.start()
                    child.join()
                    print(child.exitcode, flush=True)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=DEADLINE, env=child_environment()
    )
    assert (done.returncode, done.stdout) == (0, "1\n0\n")
    assert done.stderr.count("SyntaxError") == 1


def test_interrupted(tmp_path):
    """Ctrl-C goes to the whole group: to children as to the parent, not to the server and what is ready."""
    body = """
        child = start(idle)
        start(nothing).join()
        print(pid_of_server(), flush=True)
        try:
            child.join()
        except KeyboardInterrupt:
            child.join(10)
            print(child.exitcode, flush=True)
        again = start(nothing)
        again.join(10)
        print(again.exitcode, pid_of_server(), flush=True)
    """
    parent = subprocess.Popen(
        program(tmp_path, body),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
        start_new_session=True,
    )
    server = int(parent.stdout.readline())
    wait_until(lambda: len(children_of(server)) >= 2, "children are ready")
    time.sleep(0.3)  # the child has to be in its sleep for the traceback to be one
    os.killpg(parent.pid, signal.SIGINT)
    out, err = parent.communicate(timeout=DEADLINE)
    assert out.splitlines() == ["1", f"0 {server}"]
    assert err.count("KeyboardInterrupt") == 1 and "Process WarmProcess-1:" in err


def test_no_descriptors_are_left(tmp_path):
    out = run(
        tmp_path,
        """
        import gc, resource
        first = start(nothing)
        first.join()
        count = len(os.listdir("/proc/self/fd"))
        most = resource.getrlimit(resource.RLIMIT_NOFILE)
        for spare in range(5):
            resource.setrlimit(resource.RLIMIT_NOFILE, (count + spare, most[1]))
            try:
                start(nothing)
            except OSError as error:
                print(error.errno)
            resource.setrlimit(resource.RLIMIT_NOFILE, most)
            gc.collect()
            left = len(os.listdir("/proc/self/fd"))
            assert left == count, (spare, left, count)
        again = start(nothing)
        again.join()
        print(again.exitcode)
        """,
    )
    assert out == "24\n" * 5 + "0\n"


def test_a_forked_child_has_a_server_of_its_own(tmp_path):
    out = run(
        tmp_path,
        """
        start(nothing).join()
        server = pid_of_server()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            mp.process._current_process._config["daemon"] = False
            child = start(nothing)
            child.join(10)
            os._exit(0 if child.exitcode == 0 and pid_of_server() != server else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        child = start(nothing)
        child.join(10)
        print(child.exitcode, pid_of_server() == server)
        """,
    )
    assert out == "0\n0 True\n"


def test_threads_that_start_at_once(tmp_path):
    out = run(
        tmp_path,
        """
        import threading

        def many():
            for _ in range(5):
                child = start(nothing)
                child.join(10)
                codes.append(child.exitcode)

        codes = []
        threads = [threading.Thread(target=many) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(codes == [0] * 30)
        """,
    )
    assert out == "True\n"


def test_children_do_not_draw_the_same_numbers(tmp_path):
    numpy = pytest.importorskip("numpy")
    del numpy
    head = HEAD.replace(
        "def nothing",
        "import random, numpy.random\n\n"
        "def draw(queue):\n    queue.put((random.random(), numpy.random.rand()))\n\ndef nothing",
    )
    body = """
        queue = warm.SimpleQueue()
        for _ in range(4):
            warm.Process(target=draw, args=(queue,)).start()
        drawn = [queue.get() for _ in range(4)]
        print(len({one for one, _ in drawn}), len({other for _, other in drawn}))
        with open(f"/proc/{pid_of_server()}/maps") as file:
            print("numpy" in file.read())
    """
    assert run(tmp_path, body, head) == "4 4\nTrue\n"
