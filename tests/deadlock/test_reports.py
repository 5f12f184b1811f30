"""Deadlocks of every kind: reported in time, with the parties and nobody else, and raised only where proven."""

import re

import pytest
from hangs import reports_in


def cycle(setup, parties, order=None, start=None):
    """A program whose parties close a cycle: `parties` has what each takes, does and then waits for, "" for nothing.

    The lines have the comments "one takes" and "one waits"; the last party in `order` closes the cycle."""
    lines = ["enable()", setup.strip()]
    for name, (takes, does, waits) in parties.items():
        lines.append(f"def {name}():")
        if takes:
            lines.append(f"    with {takes}:  # {name} takes")
        inner = [*filter(None, [does]), "ready()", f"{waits}  # {name} waits"]
        lines += [("        " if takes else "    ") + line for line in inner]
    lines += (start or "\n".join(f"party({name})" for name in parties)).splitlines()
    return "\n".join([*lines, f"close({', '.join(map(repr, order or parties))})\n"])


def two(make="threading.RLock()", tell="tell()"):
    """Each of two threads has one object and waits for the other's."""
    setup = f"a = {make}  # makes a\nb = {make}  # makes b"
    return cycle(setup, {"one": ("a", "", "with b: pass"), "two": ("b", "", "with a: pass")}) + f"{tell}\n"


def three(make="threading.RLock()", order=("one", "two", "three"), tell="tell()"):
    """Three threads in a ring."""
    setup = "\n".join(f"{name} = {make}  # makes {name}" for name in "abc")
    parties = {name: (has, "", f"with {wants}: pass") for name, (has, wants) in RING.items()}
    return cycle(setup, parties, order) + f"{tell}\n"


#: What each of the three has and wants.
RING = {"one": ("a", "b"), "two": ("b", "c"), "three": ("c", "a")}

#: One is about to take a condition's lock back, which two has; two then waits for one.
TAKES_BACK = """
enable()
a = threading.RLock()  # makes a
condition = threading.Condition()  # makes condition
def one():
    with a, condition:  # one takes
        ready()
        condition.wait()  # one waits
def two():
    with condition:  # two takes
        condition.notify()
        ready()
        with a: pass  # two waits
party(one)
close("one", then_main=True)
wait_until(lambda: is_blocked("one", "Condition.wait"), "one waits for a notification")
party(two)
wait_until(lambda: is_blocked("one", "RLock.acquire"), "one waits for the lock")
"""

PROVEN = ["threading.RLock()", "threading.Condition()", "threading.Condition(threading.RLock())"]
LIKELY = [
    "threading.Lock()",
    "threading.Condition(threading.Lock())",
    "threading.Semaphore()",
    "threading.Semaphore(1)",
    "threading.BoundedSemaphore(1)",
]


def the_report(told, names, proven):
    """The only report there is, after the checks that hold for all."""
    [report] = told["reports"]
    assert report["kind"] == "deadlock"
    assert sorted(report["parties"]) == sorted(names), report["text"]
    assert report["proven"] is proven
    check_text(report)
    return report


def check_run(app, source, names, proven, in_time=True):
    """A program of which no more is asked than its one report, and that it ends."""
    with app(source) as program:
        if in_time:
            program.check_in_time()
        the_report(program.told(), names, proven)
        program.end()


def check_pair(program, report):
    """The parties of `two()`: each holds its own, and waits for the other's."""
    a, b = program.name("makes a"), program.name("makes b")
    check_party(program, report["parties"]["one"], b, "one waits", {a: "one takes"})
    check_party(program, report["parties"]["two"], a, "two waits", {b: "two takes"})


def check_text(report):
    """What is printed names all that the objects of the report tell."""
    lines = report["text"].splitlines()
    start = "raddle: deadlock: " if report["proven"] else "raddle: likely deadlock: "
    assert lines[0].startswith(start), report["text"]
    assert report["advice"] and lines[-1] == f"  Advice: {report['advice']}"
    assert ("not proven" in report["text"]) is not report["proven"]
    sections = re.split(r"^  Thread '", report["text"], flags=re.M)[1:]
    assert len(sections) == len(report["parties"])
    for section in sections:
        name = section.partition("'")[0]
        party = report["parties"][name]
        for site in filter(None, [party["site"], *(hold[2] for hold in party["holds"])]):
            file, _, line = site.rpartition(":")
            assert f'File "{file}", line {line}' in section, section
        for item in (party["waits_for"], *party["holds"]):
            # A task is called by where it was submitted.
            text = "the task submitted at" if item[0] == "Future" else f"'{item[1]}'"
            assert text in section, section


def check_party(program, party, waits_for, waits_at, holds=()):
    """`waits_for` and the keys of `holds` are names; the places are comments of lines."""
    assert plain(party["waits_for"][1]) == waits_for
    assert party["site"] == program.at(waits_at)
    expected = {(name, program.at(at)) for name, at in dict(holds).items()}
    assert {(plain(name), site) for _, name, site in party["holds"]} == expected


def plain(name):
    """A name without the number of one of many that the line has made: a condition and its lock, for instance."""
    return re.sub(r"#\d+$", "", name)


class TestLocks:
    @pytest.mark.parametrize("make", PROVEN + LIKELY)
    def test_two(self, app, make):
        with app(two(make)) as program:
            program.check_in_time()
            report = the_report(program.told(), ["one", "two"], make in PROVEN)
            check_pair(program, report)
            program.end()
            assert reports_in(program.err.text) == report["text"].splitlines()[:1]
            assert program.err.text == report["text"] + "\n"

    @pytest.mark.parametrize("make", ["threading.RLock()", "threading.Lock()", "threading.Semaphore()"])
    @pytest.mark.parametrize(
        "order", [("one", "two", "three"), ("three", "one", "two"), ("three", "two", "one")]
    )
    def test_three(self, app, make, order):
        with app(three(make, order)) as program:
            program.check_in_time()
            report = the_report(program.told(), ["one", "two", "three"], make in PROVEN)
            for name, (has, wants) in RING.items():
                holds = {program.name(f"makes {has}"): f"{name} takes"}
                check_party(
                    program, report["parties"][name], program.name(f"makes {wants}"), f"{name} waits", holds
                )

    def test_advice_is_an_order_of_the_locks(self, app):
        source = two()
        source = source.replace("a = threading.RLock()", "a = threading.RLock(name='stock')")
        source = source.replace("b = threading.RLock()", "b = threading.RLock(name='orders')")
        with app(source) as program:
            report = the_report(program.told(), ["one", "two"], True)
            assert "'orders' before 'stock'" in report["advice"]

    def test_more_holds_than_those_of_the_cycle(self, app):
        source = """
enable()
a, b, c, d = (threading.RLock(name=name) for name in "abcd")
permits = threading.Semaphore(3, name="permits")
def one():
    with c:  # one takes c
        with a, permits:  # one takes a and a permit
            with c:
                ready()
                with b:  # one waits
                    pass
def two():
    with b, d:  # two takes
        ready()
        with a:  # two waits
            pass
party(one)
party(two)
close("two", "one")
tell()
"""
        with app(source) as program:
            program.check_in_time()
            report = the_report(program.told(), ["one", "two"], True)
            more = {
                "a": "one takes a and a permit",
                "permits": "one takes a and a permit",
                "c": "one takes c",
            }
            check_party(program, report["parties"]["one"], "b", "one waits", more)
            check_party(
                program, report["parties"]["two"], "a", "two waits", {"b": "two takes", "d": "two takes"}
            )

    def test_lock_that_a_condition_takes_back(self, app):
        """The first one has been notified, and wants the condition's lock again."""
        with app(TAKES_BACK + 'close("two")\ntell()') as program:
            report = the_report(program.told(), ["one", "two"], True)
            a, condition = program.name("makes a"), program.name("makes condition")
            check_party(program, report["parties"]["one"], condition, "one waits", {a: "one takes"})
            check_party(program, report["parties"]["two"], a, "two waits", {condition: "two takes"})


#: Cycles with other edges than locks: (arguments of `cycle()`, whether proven, {party: what it waits for}).
OTHERS = {
    "join a thread that waits for a lock": (
        (
            'a = threading.RLock(name="a")',
            {"one": ("a", "", "second.join()"), "two": ("", "", "with a: pass")},
            "party(one)\nsecond = party(two)",
        ),
        True,
        {"one": "two", "two": "a"},
    ),
    "join a thread that waits for a plain lock": (
        (
            'a = threading.Lock(name="a")',
            {"one": ("a", "", "second.join()"), "two": ("", "", "with a: pass")},
            "party(one)\nsecond = party(two)",
        ),
        False,
        {"one": "two", "two": "a"},
    ),
    "join each other": (
        (
            "",
            {"one": ("", "", "second.join()"), "two": ("", "", "first.join()")},
            "first, second = party(one), party(two)",
        ),
        True,
        {"one": "two", "two": "one"},
    ),
    "join in a ring of three": (
        (
            "",
            {
                "one": ("", "", "second.join()"),
                "two": ("", "", "third.join()"),
                "three": ("", "", "first.join()"),
            },
            "first, second, third = party(one), party(two), party(three)",
        ),
        True,
        {"one": "two", "two": "three", "three": "one"},
    ),
    "two bounded queues": (
        (
            'q, r = queue.Queue(1, name="q"), queue.Queue(2, name="r")',
            {
                "one": ("", "r.get(); q.put(1); q.put(2)", "q.put(3)"),
                "two": ("", "r.put(1); q.get(); r.put_many([2, 3])", "r.put(4)"),
            },
            'party(one)\nwait_until(lambda: is_blocked("one", "Queue.get"), "one consumes")\nparty(two)',
        ),
        False,
        {"one": "q", "two": "r"},
    ),
    "two bounded queues of other orders": (
        (
            'q, r = queue.LifoQueue(1, name="q"), queue.PriorityQueue(1, name="r")\ngot = std.Barrier(2)',
            {
                "one": ("", "q.put(1); r.get(); got.wait(); q.put(2)", "q.put(3)"),
                "two": ("", "r.put(1); q.get(); got.wait(); r.put(2)", "r.put(3)"),
            },
        ),
        False,
        {"one": "q", "two": "r"},
    ),
    "a full queue and a lock": (
        (
            'q, a = queue.Queue(1, name="q"), threading.RLock(name="a")',
            {"two": ("", "q.get()", "with a: pass"), "one": ("a", "q.put(1); q.put(2)", "q.put(3)")},
        ),
        False,
        {"one": "q", "two": "a"},
    ),
    "a full queue and an empty one": (
        (
            'q, r = queue.Queue(1, name="q"), queue.Queue(1, name="r")',
            {
                "one": ("", "r.get(); q.get()", "q.get()"),
                "two": ("", "r.put(1); q.put(1); r.put(2)", "r.put(3)"),
            },
        ),
        False,
        {"one": "q", "two": "r"},
    ),
    "two holders of a semaphore": (
        (
            'permits, a = threading.Semaphore(2, name="permits"), threading.RLock(name="a")',
            {
                "one": ("permits", "", "with a: pass"),
                "two": ("a", "", "permits.acquire()"),
                "three": ("permits", "", "with a: pass"),
            },
        ),
        False,
        {"one": "a", "two": "permits", "three": "a"},
    ),
    "a lock, a queue and a join": (
        (
            'q, a = queue.Queue(1, name="q"), threading.Lock(name="a")',
            {
                "one": ("a", "q.put(1); q.put(2)", "q.put(3)"),
                "two": ("", "q.get()", "third.join()"),
                "three": ("", "", "a.acquire()"),
            },
            "third = party(three)\nparty(two)\nparty(one)",
        ),
        False,
        {"one": "q", "two": "three", "three": "a"},
    ),
}


def other(case, order, tell):
    (setup, parties, *start), *_ = OTHERS[case]
    return cycle(setup, parties, order, *start) + tell


@pytest.mark.parametrize("reverse", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("case", OTHERS)
def test_other_cycles(app, case, reverse):
    """Closed by the last party, and by the first one."""
    (_, scripts, *_), proven, parties = OTHERS[case]
    with app(other(case, sorted(parties, reverse=reverse), "tell()")) as program:
        program.check_in_time()
        report = the_report(program.told(), parties, proven)
        for name, waits_for in parties.items():
            takes = scripts[name][0]
            held = {takes: f"{name} takes"} if takes else {}
            check_party(program, report["parties"][name], waits_for, f"{name} waits", held)
        program.end()


class TestMainThread:
    JOIN = """
enable()
a = threading.RLock()  # makes a
def one():
    ready()
    with a:  # one waits
        say("one has it")
{before}
with a:  # main takes
    thread = party(one)
    close("one", then_main=True)
    try:
        thread.join()  # main waits
    except deadlock.DeadlockError:
        say("raised in main")
thread.join()
tell()
"""

    def test_joins_a_thread_that_waits_for_its_lock(self, app):
        """A program's most usual deadlock. Main is in it, so another thread tells."""
        source = self.JOIN.format(before="party(lambda: (tell(), os._exit(0)), name='teller')")
        with app(source) as program:
            program.check_in_time()
            report = the_report(program.told(), ["MainThread", "one"], True)
            a = program.name("makes a")
            check_party(program, report["parties"]["MainThread"], "one", "main waits", {a: "main takes"})
            check_party(program, report["parties"]["one"], a, "one waits")
            program.end()

    def test_is_told_and_goes_on(self, app):
        with app(self.JOIN.format(before=""), {"on_deadlock": "raise"}) as program:
            told = program.told()
            the_report(told, ["MainThread", "one"], True)
            program.end()
            assert ("raised in main" in program.out.text) is not bool(told["errors"])


class TestRaise:
    @pytest.mark.parametrize("make", PROVEN)
    def test_in_one_party_and_the_others_go_on(self, app, make):
        source = two(make, "tell(ended=('one', 'two'), stays=1.2)")
        with app(source, {"on_deadlock": "raise"}) as program:
            program.check_in_time()
            told = program.told()
            the_report(told, ["one", "two"], True)
            [[name, parties]] = told["errors"]
            assert name in ("one", "two") and parties == ["one", "two"]
            program.end()

    def test_three(self, app):
        source = three(tell="tell(ended=('one', 'two', 'three'), stays=1.2)")
        with app(source, {"on_deadlock": "raise"}) as program:
            program.check_in_time()
            told = program.told()
            the_report(told, ["one", "two", "three"], True)
            assert len(told["errors"]) == 1
            program.end()

    @pytest.mark.parametrize("make", LIKELY)
    def test_likely_ones_are_reported_only(self, app, make):
        with app(two(make, "tell(stays=1.2)"), {"on_deadlock": "raise"}) as program:
            program.check_in_time()
            told = program.told()
            the_report(told, ["one", "two"], False)
            assert told["errors"] == told["ended"] == []
            program.end()

    @pytest.mark.parametrize("case", OTHERS)
    def test_other_cycles(self, app, case):
        _, proven, parties = OTHERS[case]
        ended = tuple(parties) if proven else ()
        with app(
            other(case, list(parties), f"tell(ended={ended!r}, stays=1)"), {"on_deadlock": "raise"}
        ) as program:
            program.check_in_time()
            told = program.told()
            the_report(told, parties, proven)
            assert len(told["errors"]) == proven
            assert told["ended"] == (sorted(parties) if proven else [])
            program.end()

    def test_error_is_one_line_and_has_the_report(self, app):
        source = """
enable()
a, b = threading.RLock(name="a"), threading.RLock(name="b")
def one():
    with a:
        ready()
        b.acquire()
def two():
    with b:
        ready()
        try:
            a.acquire()
        except RuntimeError as error:
            say(type(error) is deadlock.DeadlockError, error.code, error.report is deadlock.reports()[0])
            say(b.owner.name, a.owner.name, [party.thread_name for party in error.report.parties][0])
            say(error)
            raise
party(one)
party(two)
close("one", "two")
tell(ended=("two",))
say(a.owner, b.owner)
"""
        # Either may get it; when it is one, two takes what one has let go of.
        with app(source, {"on_deadlock": "raise"}) as program:
            told = program.told()
            program.end()
            if told["errors"][0][0] == "two":
                one, two = "'one' for RLock 'b'", "'two' for RLock 'a'"
                first = re.search("two one (one|two)", program.out.text)[1]
                waits = f"{one}, {two}" if first == "one" else f"{two}, {one}"
                assert f"True raddle-deadlock True\ntwo one {first}\n" in program.out.text
                assert f"\n2 threads wait for each other: {waits}\n" in program.out.text
            assert program.err.text.count("raddle: ") == 1

    def test_locks_work_after_it(self, app):
        """Who got the error does not hold what it waited for; all locks are free in the end, and can be taken again."""
        source = two(
            tell="tell(ended=('one', 'two'))\n"
            "say('owners', a.owner, b.owner, a.waiters, b.waiters)\n"
            "assert a.acquire(timeout=5) and b.acquire(timeout=5)\n"
            "say('found', deadlock.find())",
        )
        with app(source, {"on_deadlock": "raise"}) as program:
            program.end()
            assert "owners None None 0 0\nfound []\n" in program.out.text, str(program)

    def test_the_same_again(self, app):
        """A deadlock that was broken, and comes again, is a new one."""
        source = """
enable()
a, b = locks = threading.RLock(), threading.RLock()
for turn in range(3):
    names = [f"one {turn}", f"two {turn}"]
    cross(*names, locks)
    close(*names)
    wait_until(lambda: len(deadlock.reports()) > turn, "another report")
    wait_until(lambda: a.owner is None and b.owner is None, "both have ended")
tell(3)
"""
        with app(source, {"on_deadlock": "raise"}) as program:
            told = program.told()
            assert [sorted(report["parties"]) for report in told["reports"]] == [
                [f"one {turn}", f"two {turn}"] for turn in range(3)
            ]
            assert len(told["errors"]) == 3
            program.end()

    def test_uncaught_it_ends_the_thread_only(self, app):
        source = """
enable()
a, b = threading.RLock(), threading.RLock()
both = std.Barrier(2)
def work(first, second):
    with first:
        both.wait()
        with second:
            pass
    say("went on")
threads = [threading.Thread(target=work, args=pair) for pair in ((a, b), (b, a))]
for thread in threads: thread.start()
for thread in threads: thread.join()
say("end")
"""
        with app(source, {"on_deadlock": "raise"}) as program:
            program.end()
            assert program.out.text == "went on\nend\n"
            # What is printed is the report, and a traceback that ends in one line.
            report, _, traceback = program.err.text.partition("Exception in thread")
            assert report.startswith("raddle: deadlock: ") and report.count("Advice: ") == 1
            last = traceback.splitlines()[-1]
            assert last.startswith(
                "raddle.deadlock.DeadlockError: 2 threads wait for each other: 'Thread-"
            ), last
            assert program.err.text.count("Advice: ") == program.err.text.count("DeadlockError") == 1

    @pytest.mark.parametrize("delay", [0.1, 0.28, 0.3, 0.32, 0.34, 0.5])
    def test_where_one_party_cannot_be_raised_in(self, app, delay):
        """A thread that takes a condition's lock back has to succeed: the other party gets it, whoever looks first."""
        source = f"{TAKES_BACK}hold_on({delay})  # decides who looks first\nclose('two')\ntell(ended=('one', 'two'))"
        with app(source, {"on_deadlock": "raise"}) as program:
            told = program.told()
            the_report(told, ["one", "two"], True)
            assert [name for name, _ in told["errors"]] == ["two"]
            program.end()


class TestWhereReportsGo:
    def test_nowhere(self, app):
        """Ignored is not unseen: `find()` knows."""
        source = two(
            tell="wait_until(lambda: is_blocked('one') and is_blocked('two'), 'both wait')\n"
            "wait_until(deadlock.find, 'found')\ntell(0, stays=1.2, found=ask)",
        )
        with app(source, {"on_deadlock": "ignore"}) as program:
            told = program.told()
            assert told["reports"] == told["errors"] == []
            [found] = told["found"]
            assert sorted(found["parties"]) == ["one", "two"] and found["proven"]
            check_text(found)
            program.end()
            assert program.err.text == ""

    def test_nowhere_after_disable(self, app):
        source = two(tell="tell(0, stays=1.2)")
        with app(source.replace("enable()", "enable()\ndeadlock.disable()")) as program:
            assert program.told()["reports"] == []
            program.end()
            assert program.err.text == ""

    def test_standard_error_without_being_asked(self, app):
        """Importing is enough; where locks were taken is not kept then."""
        source = two().replace("enable()", "")
        with app(source) as program:
            program.check_in_time()
            report = the_report(program.told(), ["one", "two"], True)
            a, b = program.name("makes a"), program.name("makes b")
            for name, waits_for, has in (("one", b, a), ("two", a, b)):
                party = report["parties"][name]
                assert party["waits_for"] == ["RLock", waits_for] and party["holds"] == [["RLock", has, None]]
                assert party["site"] == program.at(f"{name} waits")
            program.end()
            assert program.err.text == report["text"] + "\n"

    def test_file(self, app, tmp_path):
        """It is added to, and belongs to the folder in which it was named."""
        (tmp_path / "hang.txt").write_text("before\n")
        source = two().replace("a = ", "os.chdir('/')\na = ", 1)
        with app(source, {"report": "hang.txt"}) as program:
            report = the_report(program.told(), ["one", "two"], True)
            program.end()
            assert program.err.text == ""
            assert (tmp_path / "hang.txt").read_text() == f"before\n{report['text']}\n"

    def test_text_object(self, app):
        source = two(tell="wait_until(file.getvalue, 'the report')\ntell(file=file.getvalue)")
        source = source.replace("enable()", "import io\nfile = io.StringIO()\nenable(report=file)")
        with app(source) as program:
            told = program.told()
            assert told["file"] == the_report(told, ["one", "two"], True)["text"] + "\n"
            program.end()
            assert program.err.text == ""

    @pytest.mark.parametrize("file", ["None", "open('hang.txt', 'w')"])
    def test_file_that_is_closed(self, app, file):
        """The report stays in `reports()`, and nothing else happens."""
        source = two(tell="tell(stays=0.3)")
        source = source.replace(
            "enable()", f"sys.stderr.close()\nfile = {file}\nif file: file.close()\nenable(report=file)"
        )
        check_run(app, source, ["one", "two"], True, in_time=False)

    def test_text_object_that_waits(self, app):
        """Writing may need locks of raddle's, and the writer is in a wait itself: one does not disturb the other."""
        source = """
class File:
    def __init__(self):
        self.lock, self.text = threading.Lock(), []
    def write(self, text):
        with self.lock:
            self.text.append(text)
        threading.Event().wait(0.2)
    def flush(self): pass
file = File()
enable(report=file)
a, b = cross()
close("one", "two")
wait_until(lambda: file.text, "the report is written")
hold_on(1)
tell(file="".join(file.text), found=ask, blocked=[is_blocked(name, "RLock.acquire") for name in ("one", "two")])
"""
        with app(source) as program:
            told = program.told()
            report = the_report(told, ["one", "two"], True)
            assert told["file"] == report["text"] + "\n"
            assert told["blocked"] == [True, True], "the wait that reports has been forgotten"
            assert [sorted(found["parties"]) for found in told["found"]] == [["one", "two"]]
            program.end()

    def test_text_object_that_fails(self, app):
        source = two(tell="tell(stays=1)")
        failing = "class File:\n    def write(self, text): raise TypeError('no')\nenable(report=File())"
        check_run(app, source.replace("enable()", failing), ["one", "two"], True, in_time=False)

    @pytest.mark.parametrize("choice", [{"on_deadlock": "panic"}, {"on_stall": "raise"}])
    def test_choice_that_there_is_not(self, raddle, choice):
        from raddle import deadlock

        with pytest.raises(ValueError, match=next(iter(choice))):
            deadlock.enable(**choice)

    def test_file_that_cannot_be(self, tmp_path):
        from raddle import deadlock

        with pytest.raises(OSError):
            deadlock.enable(report=tmp_path / "no folder" / "hang.txt")


class TestOnce:
    def test_each_deadlock(self, app):
        """Both parties look, several times each; `find()` looks as well."""
        with app(two(tell="tell(found=ask, stays=2.5)")) as program:
            told = program.told()
            report = the_report(told, ["one", "two"], True)
            assert [sorted(found["parties"]) for found in told["found"]] == [sorted(report["parties"])]
            program.end()
            assert len(reports_in(program.err.text)) == 1

    def test_also_if_more_threads_come(self, app):
        """Those who come later and wait for a party are victims; they see the deadlock, and it is an old one."""
        source = two(
            tell="wait_until(deadlock.reports, 'a report')\n"
            "for item in (a, b, a): threading.Thread(target=item.acquire, daemon=True).start()\n"
            "tell(stays=1.5)"
        )
        check_run(app, source, ["one", "two"], True, in_time=False)

    def test_two_deadlocks_are_two_reports(self, app):
        source = """
enable()
for n in range(2): cross(f"one {n}", f"two {n}")
close("one 0", "one 1", "two 0", "two 1")
tell(2, stays=1.2, found=ask)
"""
        with app(source) as program:
            told = program.told()
            expected = [["one 0", "two 0"], ["one 1", "two 1"]]
            assert sorted(sorted(report["parties"]) for report in told["reports"]) == expected
            assert sorted(sorted(report["parties"]) for report in told["found"]) == expected
            program.end()


class TestParties:
    def test_victims_are_not(self, app):
        """They wait for a party, directly or not, by a lock, a join or a queue; before and after the cycle."""
        source = """
enable()
a, b, c = threading.RLock(), threading.RLock(), threading.RLock()
q = queue.Queue(1)
def one():
    q.get()
    with a:
        ready()
        with b: pass
def two():
    with b:
        ready()
        with a: pass
first = party(one)
q.put(1)
party(two)
wait_until(lambda: a.owner and b.owner, "each holds one")
victims = {
    "victim of a lock": lambda: (c.acquire(), a.acquire()),
    "victim of a victim": lambda: (wait_until(lambda: c.owner, "c is held"), c.acquire()),
    "victim by join": first.join,
    "victim by queue": lambda: (q.put(1), q.put(2)),
}
for name, wait in victims.items():
    party(wait, name=name)
    wait_until(lambda: is_blocked(name), name)
close("one", "two")
tell(stays=1.2)
for name, wait in victims.items():
    party(wait, name="another " + name)
hold_on(1.2)
tell()
"""
        with app(source) as program:
            program.check_in_time()
            the_report(program.told(), ["one", "two"], True)
            program.end()
            assert len(reports_in(program.err.text)) == 1

    def test_of_a_cycle_that_hangs_on_another(self, app):
        """Two cycles, and one thread of the first waits for the second by a semaphore: each is told by itself."""
        source = """
enable()
cross()
c, _ = cross("three", "four")
def between():
    e = threading.RLock()
    with e:
        ready()
        with c: pass
party(between)
close("between", "one", "three", "four", "two")
tell(2, stays=1)
"""
        with app(source) as program:
            told = program.told()
            assert sorted(sorted(report["parties"]) for report in told["reports"]) == [
                ["four", "three"],
                ["one", "two"],
            ]
            program.end()

    @pytest.mark.parametrize("last", ["outsider", "one", "two"])
    def test_closed_by_one_who_is_none(self, app, last):
        """Two hold a permit. One of them waits for a stall of its own: that closes the others' cycle from outside."""
        source = """
enable()
permits = threading.Semaphore(2, name="permits")
a = threading.RLock(name="a")
never = threading.Lock(name="never")
def one():
    with a:
        ready()
        permits.acquire()
def two():
    with permits:
        ready()
        with a: pass
def outsider():
    with permits:
        ready()
        own.join()
def alone():
    never.acquire()
    never.acquire()
own = threading.Thread(target=alone, daemon=True)
own.start()
party(two)
party(outsider)
party(one)
close(*sorted(["one", "two", "outsider"], key="LAST".__eq__))
tell(stays=0.5)
"""
        check_run(app, source.replace("LAST", last), ["one", "two"], False)

    def test_names_of_all_the_world(self, app):
        with app("enable()\ncross('主线程')\nclose('主线程', 'two')\ntell()\n") as program:
            the_report(program.told(), ["主线程", "two"], True)
            program.end()
            assert "Thread '主线程' waits" in program.err.text

    def test_renamed_meanwhile(self, app):
        """A thread's name is the one it has when the report is made."""
        source = """
enable()
a, b = threading.RLock(), threading.RLock()
def one():
    with a:
        ready()
        with b: pass
def two():
    with b:
        go.wait(20)
        with a: pass
go = std.Event()
first = party(one)
party(two)
wait_until(lambda: a.owner and b.owner, "each holds one")
close("one", then_main=True)
first.name = "other"
go.set()
tell()
"""
        check_run(app, source, ["other", "two"], True, in_time=False)


class TestOtherThreads:
    def test_started_by_other_means(self, app):
        """Threads of `_thread` have a name if the program has asked for one."""
        source = two().replace("party(one)", "party(one, thread=None)")
        check_run(app, source.replace("party(two)", "party(two, thread=None)"), ["one", "two"], True)

    def test_without_a_name(self, app):
        source = """
enable()
import _thread
a, b = threading.RLock(name="a"), threading.RLock(name="b")
both, idents = std.Barrier(2), []
def work(first, second):
    idents.append(std.get_ident())
    with first:
        both.wait()
        with second: pass
_thread.start_new_thread(work, (a, b))
_thread.start_new_thread(work, (b, a))
tell(idents=idents)
"""
        with app(source) as program:
            told = program.told()
            [report] = told["reports"]
            assert sorted(party["ident"] for party in report["parties"].values()) == sorted(told["idents"])
            assert all(str(party["ident"]) in name for name, party in report["parties"].items())
            program.end()

    def test_of_the_standard_library(self, app):
        source = two().replace("party(one)", "party(one, thread=std.Thread)")
        check_run(app, source, ["one", "two"], True)

    def test_of_a_pool(self, app):
        source = """
import raddle
raddle.install()
enable()
import concurrent.futures, threading
pool = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="pool")
a, b = threading.RLock(), threading.RLock()
both = threading.Barrier(2)
def work(first, second):
    with first:
        both.wait()
        with second:
            return 1
futures = [pool.submit(work, a, b), pool.submit(work, b, a)]
done = [future.exception() for future in futures]
say(sorted(type(error).__name__ for error in done))
tell()
pool.shutdown()
"""
        with app(source, {"on_deadlock": "raise"}) as program:
            the_report(program.told(), ["pool_0", "pool_1"], True)
            program.end()
            assert "['DeadlockError', 'NoneType']" in program.out.text

    @pytest.mark.fork
    @pytest.mark.parametrize("before", ["quiet", "deadlocked", "busy"])
    def test_in_a_forked_child(self, app, before):
        """Whatever the parent's threads did: they are gone, and so are their deadlocks."""
        befores = {
            "quiet": "",
            "deadlocked": """
cross("parent one", "parent two")
close("parent one", "parent two")
wait_until(deadlock.reports, "the parent's report")
""",
            "busy": """
lock = threading.RLock()
def busy():
    while True:
        with lock: pass
for _ in range(3): party(busy)
""",
        }
        source = """
enable(report="hang.txt")
BEFORE
count = len(deadlock.reports())
pid = os.fork()
if pid:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
say("found", len(deadlock.find()))
enable()
cross()
close("one", "two")
tell(count + 1, stays=1)
os._exit(0)
"""
        with app(source.replace("BEFORE", befores[before])) as program:
            told = program.told()
            assert sorted(told["reports"][-1]["parties"]) == ["one", "two"]
            assert len(told["reports"]) == 1 + (before == "deadlocked")
            program.end()
            assert "found 0\n" in program.out.text
            assert len(reports_in(program.err.text)) == 1

    @pytest.mark.fork
    def test_in_a_child_of_a_child(self, app):
        source = two().replace(
            "party(one)",
            "for _ in range(2):\n"
            "    if pid := os.fork():\n"
            "        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
            "party(one)",
        )
        check_run(app, source + "os._exit(0)\n", ["one", "two"], True)


class TestClosedByAnEnd:
    """No wait closes these cycles: they are there once a thread is not, and those in them have waited for long."""

    def test_the_other_consumer_has_ended(self, app):
        source = """
enable()
q = queue.Queue(1, name="q")
a = threading.RLock(name="a")
stop = std.Event()
def one():
    with a:
        q.put_many([1, 2])
        ready()
        q.put(3)
def two():
    q.get()
    ready()
    a.acquire()
def other():
    q.get()
    stop.wait()
    closing()
party(two)
wait_until(lambda: is_blocked("two", "Queue.get"), "two consumes")
q.put(0)
wait_until(lambda: not is_blocked("two"), "two has consumed")
party(other)
wait_until(lambda: is_blocked("other", "Queue.get"), "the other consumes")
for n in range(3):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
party(one)
close("two", "one", then_main=True)
wait_until(lambda: is_blocked("one", "Queue.put"), "one waits")
hold_on(1.5)  # all have looked for the last time
stop.set()
tell()
"""
        with app(source) as program:
            report = the_report(program.told(), ["one", "two"], False)
            [closed] = [
                float(line.split()[1]) for _, line in program.out.lines if line.startswith("closing")
            ][1:]
            assert report and program.wait_for("^raddle: ", err=True)[0] - closed < 1


class TestWithSignals:
    @pytest.mark.signals
    def test_handler_that_waits_leaves_the_wait_as_it_was(self, app):
        """A signal handler runs inside the main thread's wait, and waits itself."""
        source = """
import signal
enable()
a, b = threading.RLock(name="a"), threading.RLock(name="b")
signal.signal(signal.SIGUSR1, lambda *_: threading.Event().wait(0.05))
def one():
    with a:
        ready()
        with b: pass
def two():
    wait_until(lambda: is_blocked("MainThread", "RLock.acquire"), "main waits")
    os.kill(os.getpid(), signal.SIGUSR1)
    wait_until(lambda: is_blocked("MainThread", "Event.wait"), "the handler waits")
    wait_until(lambda: is_blocked("MainThread", "RLock.acquire"), "main waits for the lock again")
    close("one")
    tell()
    os._exit(0)
with b:
    party(one)
    party(two)
    with a: pass
"""
        with app(source) as program:
            program.check_in_time()
            the_report(program.told(), ["MainThread", "one"], True)


class TestFind:
    def test_is_empty_where_nothing_hangs(self, raddle):
        from raddle import deadlock

        assert deadlock.find() == []
        assert isinstance(deadlock.reports(), list)

    def test_reports_are_a_copy(self):
        from raddle import deadlock

        deadlock.reports().append(None)
        assert None not in deadlock.reports()

    def test_from_a_party_of_it(self, app):
        """A report's objects are the program's own."""
        source = """
enable()
a, b = threading.RLock(), threading.RLock()
def one():
    with a:
        ready()
        with b: pass
def two():
    with b:
        ready()
        with a: pass
first, second = party(one), party(two)
close("one", "two")
wait_until(deadlock.reports, "a report")
[report] = deadlock.find()
parties = {party.thread_name: party for party in report.parties}
assert parties["one"].waits_for is b and parties["two"].waits_for is a
assert [hold.object for hold in parties["one"].holds] == [a]
assert parties["one"].ident == first.ident and parties["two"].kind == "RLock.acquire"
assert parties["two"].since <= time.monotonic()
assert "in two" in parties["two"].stack and repr(report) == "<proven deadlock: %s>" % ", ".join(parties)
tell(stays=0.2)
"""
        with app(source) as program:
            program.told()
            program.end()


class TestExit:
    @pytest.mark.parametrize("report", ["file", "hang.txt"])
    def test_while_a_report_is_written(self, app, report):
        """The waiter that writes it is a daemon, and meets the end of the interpreter somewhere in its Python code."""
        source = """
class File:
    def write(self, text):
        say("writing")
        while True: time.sleep(0.0001)
    def flush(self): pass
file = File()
deadlock.enable(report=REPORT)
a, b = cross()
close("one", "two")
while not deadlock.reports():
    time.sleep(0.0002)
"""
        for _ in range(1 if report == "file" else 5):
            with app(source.replace("REPORT", "file" if report == "file" else repr(report))) as program:
                program.end()
                assert program.err.text == ""


def test_order_of_the_parties_is_that_of_the_waits(app):
    """Each waits for what the next one holds, the last one for the first's."""
    names = "[party.thread_name for party in deadlock.reports()[0].parties]"
    source = three(
        order=("two", "three", "one"), tell=f"wait_until(deadlock.reports, 'a report')\ntell(order={names})"
    )
    with app(source) as program:
        order = program.told()["order"]
        ring = ["one", "two", "three"] * 2
        assert any(ring[at : at + 3] == order for at in range(3)), order
