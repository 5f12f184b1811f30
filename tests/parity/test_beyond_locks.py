"""What raddle's locks tell beyond the standard library's: name, owner, waiters, longest wait; both mixed."""

import inspect
import pathlib
import re
import threading
import time

import pytest

from tools import Crew, assert_matches, in_thread, wait_until

HERE = pathlib.Path(__file__).name

CONSTRUCTORS = {
    "Lock": (),
    "RLock": (),
    "Condition": (),
    "Semaphore": (),
    "BoundedSemaphore": (),
    "Event": (),
    "Barrier": (2,),
}


def line():
    """The line of the caller."""
    return inspect.currentframe().f_back.f_lineno


def is_site(name, expected):
    """A second kind of object from the same line has a number behind its site."""
    return re.fullmatch(re.escape(expected) + r"(#\d+)?", name)


class TestNames:
    @pytest.mark.parametrize("kind", CONSTRUCTORS)
    def test_given(self, raddle, kind):
        thing = getattr(raddle.threading, kind)(*CONSTRUCTORS[kind], name="accounts")
        assert thing.name == "accounts"

    @pytest.mark.parametrize("kind", CONSTRUCTORS)
    def test_creation_site(self, raddle, kind):
        make = getattr(raddle.threading, kind)
        thing, expected = make(*CONSTRUCTORS[kind]), f"{HERE}:{line()}"
        assert is_site(thing.name, expected)

    @pytest.mark.parametrize("kind", CONSTRUCTORS)
    def test_none_means_not_given(self, raddle, kind):
        make = getattr(raddle.threading, kind)
        thing, expected = make(*CONSTRUCTORS[kind], name=None), f"{HERE}:{line()}"
        assert is_site(thing.name, expected)

    @pytest.mark.parametrize("kind", CONSTRUCTORS)
    def test_must_be_text(self, raddle, kind):
        with pytest.raises(TypeError):
            getattr(raddle.threading, kind)(*CONSTRUCTORS[kind], name=5)

    def test_site_is_that_of_the_caller_not_of_the_library(self, raddle):
        condition, expected = raddle.threading.Condition(), f"{HERE}:{line()}"
        assert f"'{expected}" in repr(condition)

    @pytest.mark.parametrize("kind", ["Lock", "RLock"])
    def test_in_the_repr(self, raddle, kind):
        make = getattr(raddle.threading, kind)
        start = rf"^<unlocked raddle\.threading\.{type(make()).__name__} object "
        assert_matches(rf"{start}'accounts' .*at 0x[0-9a-f]+>$", repr(make(name="accounts")))
        lock, expected = make(), f"{HERE}:{line()}"
        assert_matches(rf"{start}'{re.escape(expected)}(#\d+)?'", repr(lock))

    def test_names_with_odd_letters(self, raddle):
        for name in ("", "a b", "it's", "ключ", "锁", "x" * 1000, "a\nb", "\x00"):
            lock = raddle.threading.Lock(name=name)
            assert lock.name == name or name == ""
            assert "\n" not in repr(lock)


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
class TestOwner:
    @pytest.fixture
    def lock(self, raddle, kind):
        return getattr(raddle.threading, kind)(name="L")

    def test_owner(self, lock):
        assert lock.owner is None
        with lock:
            assert lock.owner is threading.current_thread()
        assert lock.owner is None
        assert lock.acquire(False)
        assert lock.owner is threading.current_thread()
        lock.release()
        assert lock.owner is None

    @pytest.mark.parametrize("whose", ["stdlib", "raddle"])
    def test_owner_in_another_thread(self, raddle, lock, whose):
        taken, gate = threading.Event(), threading.Event()

        def work():
            with lock:
                taken.set()
                gate.wait()

        thread_type = threading.Thread if whose == "stdlib" else raddle.threading.Thread
        with Crew(work, thread=thread_type) as crew:
            taken.wait()
            assert lock.owner is crew.threads[0]
            assert_matches(r"^<locked .* owner='crew-0' ", repr(lock))
            gate.set()
        assert lock.owner is None

    def test_owner_that_has_ended(self, raddle, kind):
        """The next thread has its ident, as a rule, but not what it has left taken."""
        idents, seen = [], []

        def forget(lock):
            idents.append(threading.get_ident())
            lock.acquire()

        def look(lock):
            idents.append(threading.get_ident())
            held = [hold.object for entry in raddle.threading.snapshot() for hold in entry.holds]
            seen.append((repr(lock), lock.owner, lock in held))

        def until_the_same():
            lock = getattr(raddle.threading, kind)()
            for work in (forget, look):
                thread = raddle.threading.Thread(target=work, args=(lock,))
                thread.start()
                thread.join()
            return idents[-1] == idents[-2]

        wait_until(until_the_same, "an ident is used again")
        text, owner, is_held = seen[-1]
        assert_matches(r"^<locked .* owner=<ended> (count=1 )?at ", text)
        assert owner is None and not is_held

    def test_owner_after_a_handover(self, lock):
        owners = []

        def work():
            with lock:
                owners.append(lock.owner)

        lock.acquire()
        with Crew(work) as crew:
            crew.wait_until_blocked()
            lock.release()
        assert owners == crew.threads

    def test_owner_is_read_only(self, lock):
        for name in ("owner", "waiters", "longest_wait"):
            with pytest.raises(AttributeError):
                setattr(lock, name, None)

    def test_waiters(self, lock):
        assert lock.waiters == 0
        lock.acquire()
        assert lock.waiters == 0
        with Crew(lambda: lock.acquire() and lock.release(), 3) as crew:
            crew.wait_until_blocked()
            assert lock.waiters == 3
            assert_matches(r" waiters=3 ", repr(lock))
            lock.release()
        assert lock.waiters == 0

    def test_timed_out_waiter_is_not_counted(self, lock):
        lock.acquire()
        in_thread(lock.acquire, True, 0.01)
        assert lock.waiters == 0
        lock.release()

    def test_longest_wait(self, lock):
        assert lock.longest_wait == 0
        with lock:
            pass
        assert lock.longest_wait == 0 and "longest_wait" not in repr(lock)
        lock.acquire()
        assert in_thread(lock.acquire, True, 0.05) is False
        longest = lock.longest_wait
        assert 0.04 <= longest < 10
        in_thread(lock.acquire, True, 0.005)
        assert lock.longest_wait >= longest
        lock.release()
        assert lock.longest_wait >= longest
        assert_matches(r"^<unlocked .* longest_wait=\d+\.\d\ds at ", repr(lock))

    def test_longest_wait_of_one_who_waits_now(self, lock):
        lock.acquire()
        with Crew(lambda: lock.acquire() and lock.release()) as crew:
            crew.wait_until_blocked()
            first = lock.longest_wait
            wait_until(lambda: lock.longest_wait > first + 0.01, "the wait has grown")
            assert_matches(r" longest_wait=\d+\.\d+s at 0x", repr(lock))
            lock.release()


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
class TestTakenAt:
    """Where a lock was taken, while sites are kept."""

    @pytest.fixture(autouse=True)
    def kept(self, raddle):
        from raddle import deadlock

        deadlock.enable(on_deadlock="ignore", on_stall="ignore")
        yield
        deadlock.disable()

    @pytest.fixture
    def lock(self, raddle, kind):
        return getattr(raddle.threading, kind)()

    @pytest.fixture
    def site(self, raddle, lock):
        """Where it was taken, as a snapshot has it; the lock is free afterwards."""

        def site():
            [entry] = [entry for entry in raddle.threading.snapshot() if entry.ident == threading.get_ident()]
            [place] = [hold.site for hold in entry.holds if hold.object is lock]
            lock.release()
            return place

        return site

    @pytest.mark.parametrize("way", ["acquire()", "acquire(timeout=1)", "__enter__()"])
    def test_line(self, lock, site, way):
        take = eval(f"lambda: lock.{way}", {"lock": lock})
        for _ in range(3):
            take()
            assert site() == "<string>:1"

    def test_called_by_c_code(self, lock, site):
        for _ in range(3):
            expected = line() + 1
            list(map(lock.acquire, [True]))
            assert site() == f"{__file__}:{expected}"

    def test_code_that_is_gone(self, lock, site):
        """New code gets the memory of old: the old's places must not be taken for its own."""
        for number in range(3000):
            names = {"lock": lock}
            exec(compile("\n" * (number % 7) + "lock.acquire()", f"made_{number}.py", "exec"), names)
            assert site() == f"made_{number}.py:{number % 7 + 1}"

    def test_more_places_than_are_remembered(self, lock, site):
        """Many lines take the lock, over and over."""
        count = 5000
        names = {"lock": lock, "site": site, "places": []}
        body = "".join("    lock.acquire(); places.append(site())\n" for _ in range(count))
        exec(compile("def run():\n" + body, "long.py", "exec"), names)
        for _ in range(2):
            names["run"]()
        expected = [f"long.py:{number + 2}" for number in range(count)]
        assert names["places"] == expected * 2

    def test_taken_by_a_thread_s_target(self, raddle, lock):
        """A thread whose function is the method itself."""
        thread = raddle.threading.Thread(target=lock.acquire)
        thread.start()
        thread.join()
        assert repr(lock).startswith("<locked")


class TestWaiters:
    def test_semaphore(self, raddle):
        semaphore = raddle.threading.Semaphore(0, name="S")
        with Crew(semaphore.acquire, 2) as crew:
            crew.wait_until_blocked()
            assert semaphore.waiters == 2
            semaphore.release(2)
        assert semaphore.waiters == 0
        assert semaphore.longest_wait > 0

    def test_event(self, raddle):
        event = raddle.threading.Event(name="E")
        with Crew(event.wait, 2) as crew:
            crew.wait_until_blocked()
            assert event.waiters == 2
            event.set()
        assert event.waiters == 0
        assert event.longest_wait > 0

    def test_condition(self, raddle):
        condition = raddle.threading.Condition(name="C")

        def work():
            with condition:
                condition.wait()

        with Crew(work, 2) as crew:
            crew.wait_until_blocked()
            assert condition.waiters == 2
            with condition:
                condition.notify_all()
        assert condition.waiters == 0

    def test_barrier(self, raddle):
        barrier = raddle.threading.Barrier(3, name="B")
        with Crew(barrier.wait, 2) as crew:
            crew.wait_until_blocked()
            assert barrier.waiters == 2
            barrier.wait()
        assert barrier.waiters == 0

    def test_rlock_count_in_the_repr(self, raddle):
        lock = raddle.threading.RLock(name="R")
        with lock, lock, lock:
            assert_matches(
                r"^<locked raddle\.threading\.RLock object 'R' owner='MainThread' count=3 ", repr(lock)
            )


class TestTypes:
    def test_rlock_is_a_type(self, raddle):
        cls = raddle.threading.RLock
        assert isinstance(cls, type)
        assert isinstance(cls(), cls)
        assert (cls.__module__, cls.__qualname__) == ("raddle.threading", "RLock")

    def test_lock_is_what_it_is_in_the_standard_library(self, raddle):
        """A function before 3.13, the type itself from then on."""
        cls = type(raddle.threading.Lock())
        assert isinstance(raddle.threading.Lock, type) is isinstance(threading.Lock, type)
        assert cls.__module__ == "raddle.threading"
        assert cls.__qualname__ == ("Lock" if isinstance(threading.Lock, type) else "lock")

    def test_annotations(self, raddle):
        for kind in CONSTRUCTORS:
            if kind != "Lock" or isinstance(threading.Lock, type):
                assert (getattr(raddle.threading, kind) | None).__args__

    def test_modules_of_the_classes(self, raddle):
        for kind in (*CONSTRUCTORS, "Thread", "Timer"):
            assert getattr(raddle.threading, kind).__module__ in ("raddle.threading", "threading"), kind
        for kind in ("Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"):
            assert getattr(raddle.queue, kind).__module__ in ("raddle.queue", "queue"), kind


class TestMixed:
    """raddle's objects inside the standard library's, and the other way round."""

    @pytest.mark.parametrize("kind", ["Lock", "RLock"])
    def test_standard_condition_over_our_lock(self, raddle, kind):
        condition = threading.Condition(getattr(raddle.threading, kind)())
        self.check(condition)

    @pytest.mark.parametrize("kind", ["Lock", "RLock", "_PyRLock"])
    def test_our_condition_over_a_standard_lock(self, raddle, kind):
        condition = raddle.threading.Condition(getattr(threading, kind)())
        self.check(condition)

    def check(self, condition):
        def work():
            with condition:
                return condition.wait(20)

        with Crew(work, 3) as crew:
            crew.wait_until_blocked()
            with condition:
                condition.notify(1)
            crew.wait_finished(1)
            with condition:
                condition.notify_all()
        assert crew.results == [True] * 3
        with condition:
            assert condition.wait(0.01) is False

    def test_both_over_one_lock(self, raddle):
        lock = raddle.threading.Lock()
        ours, theirs = raddle.threading.Condition(lock), threading.Condition(lock)
        log = []

        def work():
            with theirs:
                theirs.wait(20)
                log.append("woken")
                ours.notify()

        with Crew(work) as crew:
            crew.wait_until_blocked()
            with ours:
                theirs.notify()
                assert ours.wait(20)
        assert log == ["woken"]

    def test_in_standard_pools(self, raddle):
        from concurrent.futures import ThreadPoolExecutor

        lock, total = raddle.threading.Lock(), 0

        def work(number):
            nonlocal total
            with lock:
                total += number

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(1000)))
        assert total == sum(range(1000))

    def test_lock_times_are_monotonic_seconds(self, raddle):
        event = raddle.threading.Event()
        before = time.monotonic()
        event.wait(0.02)
        assert event.longest_wait <= time.monotonic() - before + 0.001
