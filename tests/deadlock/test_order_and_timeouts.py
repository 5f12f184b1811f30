"""What is told on request: locks taken in both orders, and timed waits that failed."""

import pytest

#: Two locks in both orders, one after the other: no deadlock, this time.
BOTH_ORDERS = """
enable()
a = {make}  # makes a
b = {make}  # makes b
def forward():
    with a:  # forward takes a
        with b:  # forward takes b
            pass
def backward():
    with b:  # backward takes b
        with a:  # backward takes a
            pass
for work in (forward, backward, forward, backward):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
say("count", len([report for report in deadlock.reports() if report.kind == "order"]))
"""

MAKES = ["threading.RLock()", "threading.Lock()", "threading.Condition()", "threading.Semaphore()"]


def warned(program):
    """The program has ended; the texts of its order warnings."""
    program.end()
    return [line for line in program.err.text.splitlines() if "OrderWarning" in line]


class TestOrder:
    @pytest.mark.parametrize("make", MAKES)
    def test_both_sites(self, app, make):
        with app(BOTH_ORDERS.format(make=make), {"order": True}) as program:
            [text] = warned(program)
            for comment in ("forward takes a", "forward takes b", "backward takes b", "backward takes a"):
                assert program.at(comment) in text
            assert f"'{program.name('makes a')}" in text and f"'{program.name('makes b')}" in text
            # It is shown at the line that takes the second lock.
            assert text.startswith(f"{program.at('backward takes a')}: OrderWarning: ")
            assert "count 1\n" in program.out.text

    def test_warned_even_where_python_shows_a_place_once(self, app):
        """`-W always` shows what is warned about again: this is not."""
        with app(
            BOTH_ORDERS.format(make="threading.RLock()"), {"order": True}, under=("-W", "always")
        ) as program:
            assert len(warned(program)) == 1

    @pytest.mark.parametrize("options", [{}, {"order": False}, {"timeouts": True}])
    def test_only_on_request(self, app, options):
        with app(BOTH_ORDERS.format(make="threading.RLock()"), options) as program:
            assert warned(program) == [] and program.err.text == ""
            assert "count 0\n" in program.out.text

    def test_not_after_disable(self, app):
        source = BOTH_ORDERS.format(make="threading.RLock()").replace(
            "enable()", "enable()\ndeadlock.disable()"
        )
        with app(source, {"order": True}) as program:
            assert warned(program) == []

    def test_without_sites(self, app):
        """It still says which locks."""
        with app(BOTH_ORDERS.format(make="threading.RLock()"), {"order": True, "sites": False}) as program:
            [text] = warned(program)
            assert f"'{program.name('makes a')}'" in text and f"'{program.name('makes b')}'" in text

    def test_is_a_runtime_warning_and_a_report(self, app):
        source = (
            BOTH_ORDERS.format(make="threading.RLock()")
            + """
[report] = deadlock.reports()
assert issubclass(deadlock.OrderWarning, RuntimeWarning)
assert (report.kind, report.proven, report.parties) == ("order", False, []) and report.advice in str(report)
say("checked")
"""
        )
        with app(source, {"order": True}) as program:
            assert len(warned(program)) == 1
            assert "checked\n" in program.out.text

    def test_turned_into_an_error(self, app):
        """A lock that has been taken stays taken: the error is shown, not raised."""
        under = ("-W", "error::RuntimeWarning")
        with app(
            BOTH_ORDERS.format(make="threading.RLock()") + "say(a.owner, b.owner)",
            {"order": True},
            under=under,
        ) as program:
            program.end()
            assert "OrderWarning" in program.err.text and "None None\n" in program.out.text

    def test_ring_of_three(self, app):
        source = """
enable()
a, b, c = (threading.RLock(name=name) for name in "abc")
def take(first, second):
    with first, second: pass
for pair in ((a, b), (b, c), (c, a), (c, a)):
    thread = threading.Thread(target=take, args=pair)
    thread.start()
    thread.join()
"""
        with app(source, {"order": True}) as program:
            [text] = warned(program)
            assert "'c'" in text and "'a'" in text

    def test_three_held_at_once(self, app):
        source = """
enable()
a, b, c = (threading.RLock(name=name) for name in "abc")
with a:
    with b:
        with c: pass
with c:
    with a: pass
"""
        with app(source, {"order": True}) as program:
            [text] = warned(program)
            assert "'c'" in text and "'a'" in text

    def test_another_pair_is_another_warning(self, app):
        source = """
enable()
pairs = [(threading.RLock(), threading.Lock()) for _ in range(3)]
for a, b in pairs:
    with a, b: pass
    with b, a: pass
    with b, a: pass
say("count", len(deadlock.reports()))
"""
        with app(source, {"order": True}, under=("-W", "always")) as program:
            assert len(warned(program)) == 3
            assert "count 3\n" in program.out.text

    def test_addresses_that_come_back(self, app):
        """New locks at the places of old ones have no past."""
        source = """
enable()
for n in range(300):
    a, b = threading.RLock(), threading.Lock()
    first, second = ((a, b), (b, a))[n % 2]
    with first, second: pass
    del a, b, first, second
say("count", len(deadlock.reports()))
"""
        with app(source, {"order": True}) as program:
            assert warned(program) == []
            assert "count 0\n" in program.out.text


#: Programs that take locks in no two orders, whatever it looks like.
ONE_ORDER = {
    "the same order everywhere": """
a, b, c = threading.RLock(), threading.Lock(), threading.Semaphore()
def work():
    for _ in range(20):
        with a, b, c: pass
        with a, c: pass
        with b: pass
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "again what is held": """
a, b = threading.RLock(), threading.RLock()
with a, b:
    with a: pass
with a:
    with b, a, b: pass
""",
    "let go in between": """
a, b = threading.RLock(), threading.RLock()
a.acquire(); b.acquire(); a.release(); b.release()
b.acquire(); b.release(); a.acquire(); a.release()
""",
    "let go in another order": """
a, b = threading.Lock(), threading.Lock()
for _ in range(3):
    a.acquire(); b.acquire(); a.release(); b.release()
""",
    "a condition's wait lets go of its lock": """
a, condition = threading.RLock(), threading.Condition()
def waiter():
    with condition:
        condition.wait()
        say("notified")
    with a: pass
thread = threading.Thread(target=waiter)
thread.start()
wait_until(lambda: thread.state == "blocked", "it waits")
with a, condition: condition.notify()
thread.join()
""",
    "a lock that another thread has released": """
gate, a = threading.Lock(), threading.RLock()
gate.acquire()
threading.Thread(target=gate.release).start()
wait_until(lambda: not gate.locked(), "it is released")
with a: pass  # main does not hold the gate any more
def other():
    with a, gate: pass
thread = threading.Thread(target=other)
thread.start()
thread.join()
""",
    "a permit that another thread has given back": """
permits, a = threading.Semaphore(), threading.RLock()
permits.acquire()
thread = threading.Thread(target=permits.release)
thread.start()
thread.join()
with a: pass
with a, permits: pass
""",
    "acquires that failed": """
a, b = threading.RLock(), threading.Lock()
def holder():
    with a:
        ready()
        std.Event().wait(5)
with a, b: pass
party(holder)
wait_until(lambda: a.owner, "it is held")
with b:
    assert not a.acquire(blocking=False)
    assert not a.acquire(timeout=0.01)
""",
}


@pytest.mark.parametrize("case", ONE_ORDER)
def test_one_order(app, case):
    with app(
        f"enable()\n{ONE_ORDER[case]}\nsay('reports', deadlock.reports())\nos._exit(0)\n", {"order": True}
    ) as program:
        assert warned(program) == [] and "reports []\n" in program.out.text, str(program)


#: A holder, and a wait of another thread that runs out of time.
TIMED_OUT = """
enable()
thing = {make}  # makes it
has, end = std.Event(), std.Event()
def holder():
    {take}  # holder takes
    has.set()
    end.wait(20)
    thing.release()
def victim():
    assert not {wait}  # victim waits
thread = threading.Thread(target=holder, name="holder")
thread.start()
has.wait(20)
before = time.monotonic()
other = threading.Thread(target=victim, name="victim")
other.start()
other.join()
say("entries", len(deadlock.timeouts()))
for entry in deadlock.timeouts():
    say("entry", type(entry).__name__, entry.thread, entry.holder, entry.holder_site, entry.site)
    say("object", entry.lock is thing or entry.lock is getattr(thing, "_lock", None))
    say("waited", entry.waited)
end.set()
thread.join()
"""


class TestTimeouts:
    @pytest.mark.parametrize("wait", ["thing.acquire(timeout=0.15)", "thing.acquire(True, 0.15)"])
    @pytest.mark.parametrize("take", ["thing.acquire()", "thing.__enter__()"])
    @pytest.mark.parametrize("make", MAKES)
    def test_holder_and_sites(self, app, make, take, wait):
        with app(TIMED_OUT.format(make=make, take=take, wait=wait), {"timeouts": True}) as program:
            program.wait_for("^entries 1$")
            entry = program.wait_for("^entry (.*)")[1][1]
            assert (
                entry == f"TimedOut victim holder {program.at('holder takes')} {program.at('victim waits')}"
            )
            assert program.wait_for("^object (.*)")[1][1] == "True"

    def test_how_long_it_waited(self, app):
        """Seconds; about as many as it was willing to."""
        source = TIMED_OUT.format(
            make="threading.RLock()", take="thing.acquire()", wait="thing.acquire(timeout=0.15)"
        )
        with app(source, {"timeouts": True}) as program:
            assert 0.14 < float(program.wait_for("^waited (.*)")[1][1]) < 5
            program.end()

    @pytest.mark.parametrize("options", [{}, {"order": True}])
    def test_only_on_request(self, app, options):
        source = TIMED_OUT.format(
            make="threading.Lock()", take="thing.acquire()", wait="thing.acquire(timeout=0.01)"
        )
        with app(source, options) as program:
            program.wait_for("^entries 0$")
            program.end()

    def test_without_sites(self, app):
        source = TIMED_OUT.format(
            make="threading.Lock()", take="thing.acquire()", wait="thing.acquire(timeout=0.01)"
        )
        with app(source, {"timeouts": True, "sites": False}) as program:
            entry = program.wait_for("^entry (.*)")[1][1]
            assert entry.startswith("TimedOut victim holder None ")

    @pytest.mark.parametrize("wait", ["thing.acquire(blocking=False)", "thing.acquire(False)"])
    def test_not_for_those_who_do_not_wait(self, app, wait):
        source = TIMED_OUT.format(make="threading.Lock()", take="thing.acquire()", wait=wait)
        with app(source, {"timeouts": True}) as program:
            program.wait_for("^entries 0$")
            program.end()

    def test_not_for_those_who_got_it(self, app):
        source = """
enable()
a = threading.RLock()
def holder():
    with a:
        ready()
party(holder)
wait_until(lambda: a.owner, "it is held")
def opener():
    wait_until(lambda: is_blocked("MainThread"), "main waits")
    close("holder")
threading.Thread(target=opener).start()
assert a.acquire(timeout=20)
say("entries", deadlock.timeouts())
"""
        with app(source, {"timeouts": True}) as program:
            program.end()
            assert "entries []\n" in program.out.text

    def test_holder_that_has_ended(self, app):
        source = """
enable()
lock = threading.Lock()
thread = threading.Thread(target=lock.acquire)
thread.start()
thread.join()
assert not lock.acquire(timeout=0.01)
[entry] = deadlock.timeouts()
say("holder", entry.thread, entry.lock is lock, entry.holder_site is not None)
"""
        with app(source, {"timeouts": True}) as program:
            program.end()
            assert "holder MainThread True True\n" in program.out.text

    def test_all_of_them_in_order_and_the_last_thousand(self, app):
        source = """
enable()
locks = [threading.Lock(name=str(n)) for n in range(1005)]
for lock in locks: lock.acquire()
for lock in locks: lock.acquire(timeout=1e-6)
names = [entry.lock.name for entry in deadlock.timeouts()]
say("kept", names == [str(n) for n in range(5, 1005)])
deadlock.timeouts().clear()
say("copy", len(deadlock.timeouts()))
"""
        with app(source, {"timeouts": True}) as program:
            program.end()
            assert program.out.text == "kept True\ncopy 1000\n"
