"""What the processes of test_process.py run: at the top of a module, where each start method finds it."""

import gc
import os
import signal
import sys
import time
import weakref


def nothing():
    pass


def end_by(how):
    if how == "return":
        return
    if how == "exit":
        sys.exit(7)
    if how == "exit nothing":
        sys.exit()
    if how == "exit text":
        sys.exit("that is all")
    if how == "raise":
        raise ValueError("no good")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "_exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "abort":
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGABRT)
    raise AssertionError(how)


def sleep(seconds=1000):
    time.sleep(seconds)


def tell(pipe, *args, **kwargs):
    pipe.send((args, kwargs))


def sum_up(numbers, results):
    results.put(sum(numbers))


def describe(mp, pipe):
    """What a child sees of itself and its parent."""
    own, parent = mp.current_process(), mp.parent_process()
    pipe.send(
        {
            "name": own.name,
            "pid": own.pid == os.getpid(),
            "daemon": own.daemon,
            "alive": own.is_alive(),
            "type": type(own).__name__,
            "identity": len(own._identity),
            "children": mp.active_children(),
            "parent name": parent.name,
            "parent pid": parent.pid,
            "parent alive": parent.is_alive(),
            "method": mp.get_start_method(),
            "path": sys.path,
            "argv": sys.argv,
            "folder": os.getcwd(),
            "stdin": sys.stdin.read(),
            "interrupts": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        }
    )


def tell_environment(name, pipe):
    pipe.send(os.environ.get(name))


def beget(mp, method, pipe):
    """A child with a child of its own."""
    child = mp.get_context(method).Process(target=tell, args=(pipe, "grandchild"))
    child.start()
    child.join()
    pipe.send(child.exitcode)


def beget_as_a_daemon(mp, pipe):
    try:
        mp.Process(target=nothing).start()
    except AssertionError as error:
        pipe.send(str(error))


def add_up(lock, total, times):
    for _ in range(times):
        with lock:
            total.value += 1


def meet(barrier, event, pipe):
    barrier.wait()
    event.wait()
    pipe.send("met")


def leave_a_grandchild(pipe):
    """Ends while a child of its own, which has all its descriptors, lives."""
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    pipe.send("left")


def write_at_exit(path):
    import atexit

    with open(path, "a") as file:
        file.write("run ")
    atexit.register(_write, path)


def _write(path):
    with open(path, "a") as file:
        file.write("exit")


def type_of_lock(pipe):
    import threading

    pipe.send((type(threading.Lock()).__module__, type(threading.Thread()).__module__))


class Tracked:
    """Something of the program's, which the garbage collector looks at."""

    def __init__(self):
        self.itself = self


def tell_of_collector(pipe):
    """What the collector leaves out, and whether it works for what is the program's."""
    made = weakref.ref(Tracked())
    there = made() is not None
    gc.collect()
    tracked = any(found is Tracked for found in gc.get_objects())
    pipe.send((gc.get_freeze_count(), gc.isenabled(), there, made() is None, tracked))


def tell_names_of_main(pipe):
    pipe.send([name for name in vars(sys.modules["__main__"]) if not name.startswith("__")])
