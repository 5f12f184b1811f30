"""Says why a program hangs: deadlocks, stalls, locks taken in both orders, waits that ran out of time.

A waiter that has waited some tens of milliseconds looks whether its wait can end. A cycle of waits is a **deadlock**:
proven if only its parties could end it (re-entrant locks, joins), likely if the rules of an object would admit others
(a plain lock, a semaphore, a bounded queue). If every thread waits without a deadline and nobody is left who could
release, notify or put, that is a **stall**: blocked for ever, but by nobody in particular. Each is reported once, to
standard error unless ``enable()`` says otherwise.

Importing any of raddle's mirrors turns detection on, for reports only. ``enable()`` makes proven deadlocks raise
``DeadlockError``, keeps the sites at which locks are taken, and turns on what costs more.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys
import threading as _std
import time
import warnings
from collections.abc import Sequence

from raddle import _raddle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple, NoReturn, TextIO
else:
    from raddle._named_tuple import NamedTuple

__all__ = [
    "STALL_EXIT_CODE",
    "DeadlockError",
    "Hold",
    "OrderWarning",
    "Party",
    "Report",
    "TimedOut",
    "disable",
    "enable",
    "find",
    "reports",
    "timeouts",
]

#: The exit code of a program that ``on_stall="exit"`` ends: EX_TEMPFAIL of sysexits.h.
STALL_EXIT_CODE = 75

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_MULTIPROCESSING = os.path.join(os.path.dirname(os.path.abspath(_std.__file__)), "multiprocessing") + os.sep
_NOT_THE_PROGRAM = (
    _HERE,
    _MULTIPROCESSING,
    os.path.abspath(_std.__file__),
    "<frozen runpy>",
    "<frozen importlib",
)


class DeadlockError(RuntimeError):
    """Waiting would never end: the threads named in the message wait for each other.

    The message is one line, since the report has been printed when this is raised.

    Attributes:
        report: the ``Report``, with all parties.
    """

    code = "raddle-deadlock"

    def __init__(self, report: Report) -> None:
        super().__init__(report._summary())
        self.report = report

    def __reduce__(self) -> Any:
        # As the exception of a task it goes to another process.
        return DeadlockError, (self.report,)


class OrderWarning(RuntimeWarning):
    """Two locks have been taken in both orders: two threads that do so at once block each other."""


class Hold(NamedTuple):
    """Something a thread holds, and where it took it ("file:line", or None where sites are not kept)."""

    object: Any
    site: str | None


class Party(NamedTuple):
    """A thread in a report."""

    thread_name: str
    ident: int
    holds: list[Hold]
    waits_for: Any
    """The object waited for."""
    kind: str
    """The call that waits, such as "RLock.acquire"."""
    since: float
    """When the wait began, in seconds of ``time.monotonic()``."""
    site: str | None
    """Where it waits, as "file:line"."""
    stack: str
    """Its innermost calls, as a traceback prints them; empty for a thread of another process."""
    pid: int | None = None
    """Its process, in a deadlock among processes. Then objects are what they are called, and ``thread_name`` is made of
    the names of process and thread."""


class Report:
    """What was found. ``str(report)`` is what is printed.

    Attributes:
        kind: "deadlock", "stall" or "order".
        proven: whether the rules of the objects alone say so; False for likely deadlocks, stalls and orders.
        parties: the threads, each waiting for what the next one holds where there is a cycle.
        advice: one sentence on what to do.

    Pickled, its objects become what they are called.
    """

    def __init__(
        self,
        kind: str,
        proven: bool,
        parties: list[Party],
        advice: str,
        text: str,
        left: Hold | None = None,
    ) -> None:
        self.kind = kind
        self.proven = proven
        self.parties = parties
        self.advice = advice
        self._text = text
        self._left = left

    def __reduce__(self) -> Any:
        parties = [
            party._replace(
                waits_for=_named(party.waits_for, party.kind),
                holds=[Hold(_named(hold.object, ""), hold.site) for hold in party.holds],
            )
            for party in self.parties
        ]
        left = self._left and Hold(_named(self._left.object, ""), self._left.site)
        return Report, (self.kind, self.proven, parties, self.advice, self._text, left)

    def _summary(self) -> str:
        """A deadlock in one line."""
        if self._left is not None:
            what, site = self._left
            name = _named(what, "")
            return f"'{self.parties[0].thread_name}' waits for {name}, {_LEFT}{_taken_at(site)}"
        waits = ", ".join(
            f"'{party.thread_name}' for {_wanted(party) if party.pid is None else party.waits_for}"
            for party in self.parties
        )
        return f"{_circle(self.parties)}: {waits}"

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        sure = {"deadlock": "proven " if self.proven else "likely "}.get(self.kind, "")
        about = ", ".join(party.thread_name for party in self.parties) or self.advice
        return f"<{sure}{self.kind}: {about}>"


class TimedOut(NamedTuple):
    """A timed wait for a lock that failed."""

    lock: Any
    thread: str
    holder: str | None
    """The name of the thread that held it when the time was up; None if that thread has ended, or nobody held it."""
    holder_site: str | None
    """Where the holder had taken it."""
    site: str | None
    """Where the wait was."""
    waited: float
    """How long it was, in seconds."""


class _Settings:
    on_deadlock = "report"
    on_stall = "report"
    file: TextIO | None = None
    path: str | None = None
    #: What is recorded, as ``enable()`` takes it; None until that is called.
    recorded: dict[str, bool] | None = None
    #: This process runs the tasks of a pool: what a fork left behind is raised as the task's error.
    in_worker = False


_settings = _Settings()
_reports: list[Report] = []
_timeouts: list[TimedOut] = []
_TIMEOUTS_KEPT = 1000


def enable(
    *,
    on_deadlock: str = "report",
    on_stall: str = "report",
    sites: bool = True,
    order: bool = False,
    timeouts: bool = False,
    report: str | os.PathLike[str] | TextIO | None = None,
) -> None:
    """Choose what is looked for and what happens then. Settings not given go back to their defaults.

    Args:
        on_deadlock: "report" prints; "raise" also raises DeadlockError in one party of a proven deadlock; "ignore".
        on_stall: "report" prints; "exit" also ends the process with STALL_EXIT_CODE; "ignore".
        sites: keep where each lock is taken; costs at most 5 % of an acquire and release.
        order: warn (OrderWarning) when locks are taken in an order that has been seen reversed.
        timeouts: remember timed acquires that failed, with the holder: see ``timeouts()``.
        report: where reports go: a path to append to, a text file, or None for standard error.
    Raises:
        ValueError: an unknown choice. OSError: the report's file cannot be opened.
    """
    if on_deadlock not in ("report", "raise", "ignore"):
        raise ValueError(f"on_deadlock must be 'report', 'raise' or 'ignore', not {on_deadlock!r}")
    if on_stall not in ("report", "exit", "ignore"):
        raise ValueError(f"on_stall must be 'report', 'exit' or 'ignore', not {on_stall!r}")
    path = None
    if isinstance(report, (str, os.PathLike)):
        path, report = os.path.abspath(os.fspath(report)), None
        with open(path, "a", encoding="utf-8"):
            pass  # an error now, not at the first report
    _settings.on_deadlock, _settings.on_stall = on_deadlock, on_stall
    _settings.file, _settings.path = report, path
    _settings.recorded = {"sites": sites, "order": order, "timeouts": timeouts}
    _raddle.record(sites, order, timeouts)


def _for_child() -> dict[str, Any] | None:
    """What another process gives to ``enable()`` to have the settings of this one; None for the first ones."""
    if _settings.recorded is None:
        return None
    chosen = {"on_deadlock": _settings.on_deadlock, "on_stall": _settings.on_stall, "report": _settings.path}
    return {**chosen, **_settings.recorded}


def disable() -> None:
    """Report nothing and keep nothing, until ``enable()``. Reports so far are kept."""
    _settings.on_deadlock = _settings.on_stall = "ignore"
    _settings.recorded = {"sites": False, "order": False, "timeouts": False}
    _raddle.record(False, False, False)


def find() -> list[Report]:
    """The deadlocks there are at this moment, whether they have been reported or not. Takes about 30 ms.

    A party that looks up from its wait just then would hide its deadlock: several looks are put together, further and
    further apart, as it has to get the GIL before it sleeps again.
    """
    found: dict[tuple[Any, ...], tuple[bool, list[Any]]] = {}
    for pause in (0.0, 0.002, 0.004, 0.008, 0.016):
        time.sleep(pause)
        for proven, parties in _raddle.deadlocks():
            found.setdefault(
                tuple(sorted((ident, since) for ident, _, _, since, _ in parties)), (proven, parties)
            )
    return [_deadlock_report(proven, parties) for proven, parties in found.values()]


def reports() -> list[Report]:
    """Everything reported so far in this process, oldest first."""
    return list(_reports)


def timeouts() -> list[TimedOut]:
    """Timed acquires that failed since ``enable(timeouts=True)``, oldest first; the last 1,000 of them."""
    return list(_timeouts)


# What the core calls.


def _on_deadlock(proven: bool, parties: list[Any], can_raise: bool) -> DeadlockError | None:
    if _settings.on_deadlock == "ignore":
        return None
    report = _deadlock_report(proven, parties)
    _tell(report)
    wanted = _settings.on_deadlock == "raise" or (_settings.in_worker and report._left is not None)
    return DeadlockError(report) if proven and can_raise and wanted else None


def _on_process_deadlock(proven: bool, rows: list[Any], can_raise: bool) -> DeadlockError | None:
    if _settings.on_deadlock == "ignore":
        return None
    report = _process_report(proven, rows)
    _tell(report)
    return DeadlockError(report) if proven and can_raise and _settings.on_deadlock == "raise" else None


def _on_knot(rows: list[Any]) -> None:
    """Every thread of the processes in which these wait is blocked, and nobody else could end one of their waits."""
    kinds = {kind for _, _, _, _, kind, *_ in rows}
    # As within a process: where somebody waits for a message or a notification, one that is missing may be the reason.
    is_circle = bool(kinds & {"Queue.put", "Connection.send"}) or not kinds & _MESSAGES
    if (_settings.on_deadlock if is_circle else _settings.on_stall) == "ignore":
        return
    report = _knot_report(is_circle, rows)
    _tell(report)
    if not is_circle and _settings.on_stall == "exit":
        _exit_stalled()


_MESSAGES = {"Queue.get", "Queue.join", "Connection.recv", "Condition.wait", "Semaphore.acquire"}


def _exit_stalled() -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
    os._exit(STALL_EXIT_CODE)


def _is_all_of_python(blocked: Sequence[int]) -> bool | None:
    """Whether nobody but these threads, which wait, runs Python or will by itself; None if others may, for now."""
    if _raddle.timer_count() or _raddle.timer_is_serving() or _std._limbo:  # type: ignore[attr-defined]
        return False
    known = set(blocked)
    if _std.main_thread().ident in known and _handles_signals():
        return False
    # A thread that does not wait through raddle runs, or waits for a lock of somebody else's.
    return None if any(ident not in known for ident in sys._current_frames()) else True


def _on_stall(blocked: Sequence[int]) -> bool | None:
    """All threads raddle knows are blocked for ever: was it a stall? False if it may end, None if other threads may."""
    if _settings.on_stall == "ignore":
        return False
    alone = _is_all_of_python(blocked)
    if not alone:
        return alone
    frames = sys._current_frames()
    main = _std.main_thread().ident
    report = _stall_report(sorted(frames, key=lambda ident: ident != main), frames)
    if report is None:
        return False
    _tell(report)
    if _settings.on_stall == "exit":
        _exit_stalled()
    return True


def _on_order(
    held: Any, held_site: Any, taken: Any, taken_site: Any, earlier_held: Any, earlier_taken: Any
) -> None:
    first, second = held.name, taken.name
    advice = f"take '{first}' and '{second}' in the same order everywhere."
    text = (
        f"lock order: '{second}' is taken at {_where(taken_site)} while '{first}' is held (taken at"
        f" {_where(held_site)}), but at {_where(earlier_taken)} '{first}' was reached while '{second}' was held"
        f" (taken at {_where(earlier_held)}). Advice: {advice}"
    )
    _reports.append(Report("order", False, [], advice, text))
    warnings.warn(text, OrderWarning, stacklevel=2)


def _on_timed_out(kind: str, lock: Any, holder: int, site: Any, waited: float) -> None:
    here = _raddle.here()
    name = _thread_name(holder) if holder else None
    _timeouts.append(
        TimedOut(lock, _std.current_thread().name, name, _where_or_none(site), _where_or_none(here), waited)
    )
    del _timeouts[:-_TIMEOUTS_KEPT]


# What is said.


def _where(site: Any) -> str:
    return f"{site[0]}:{site[1]}" if site else "a place that was not kept"


def _where_or_none(site: Any) -> str | None:
    return f"{site[0]}:{site[1]}" if site else None


def _thread_name(ident: int) -> str:
    thread: _std.Thread | None = _std._active.get(ident)  # type: ignore[attr-defined]
    return thread.name if thread is not None else f"thread {ident}"


def _stack(ident: int, frames: dict[int, Any] | None = None) -> tuple[str | None, str]:
    """Where a thread is in the program's own code: the innermost line, and the whole as a traceback prints it."""
    frame = (frames or sys._current_frames()).get(ident)
    if frame is None:
        return None, ""
    import traceback  # slow to load, and most programs never get here

    summary = traceback.extract_stack(frame)
    # Frames that start the thread or the program, and those that wait on its behalf, are not the program's.
    own = [entry for entry in summary if not entry.filename.startswith(_NOT_THE_PROGRAM)] or summary[-1:]
    last = own[-1]
    return f"{last.filename}:{last.lineno}", "".join(traceback.format_list(own[-4:]))


def _named(item: Any, kind: str) -> str:
    return item if isinstance(item, str) else _describe(item, kind)


def _where_is(ident: int) -> str | None:
    """Where a thread is, as "file:line"."""
    return _stack(ident)[0]


def _describe(item: Any, kind: str) -> str:
    """What an object is called in a report."""
    if isinstance(item, str):
        return item
    if isinstance(item, _std.Thread) or kind == "Thread.join":
        return f"the end of thread '{getattr(item, 'name', '?')}'"
    if kind == "Future.result" or hasattr(item, "submitted_at"):
        return _describe_task(item)
    if kind == "Executor.submit":
        return f"room in the line of pool '{getattr(item, '_thread_name_prefix', '?')}'"
    type_name = kind.partition(".")[0] if item is None else type(item).__name__
    type_name = "Lock" if type_name == "lock" else type_name  # what a Lock is called in the interpreter
    name = getattr(item, "name", None)
    return f"{type_name} '{name}'" if name else type_name


def _describe_task(future: Any) -> str:
    """What a future is called in a report: by where its task was submitted."""
    site = getattr(future, "submitted_at", None)
    if site is None:
        return "a future" if hasattr(future, "set_result") else "one of several futures"
    return f'the task submitted at File "{site[0]}", line {site[1]}'


_WAITS = {
    "Condition.wait": "a notification of",
    "Event.wait": "",
    "Queue.put": "room in",
    "Queue.get": "an item of",
    "Queue.join": "the last task_done() of",
    "Barrier.wait": "the other parties of",
    "Semaphore.acquire": "a permit of",
    "Connection.recv": "a message of",
    "Connection.send": "room in",
}


def _held_by() -> dict[int, list[Hold]]:
    """What each thread holds, by its ident; what threads held that have ended is under 0."""
    held: dict[int, list[Hold]] = {}
    for ident, item, site in _raddle.holds():
        held.setdefault(ident, []).append(Hold(item, _where_or_none(site)))
    return held


def _deadlock_report(proven: bool, raw: list[Any]) -> Report:
    held = _held_by()
    frames = sys._current_frames()
    parties = []
    for ident, kind, item, since, _ in raw:
        site, stack = _stack(ident, frames)
        holds = held.get(ident, [])
        parties.append(Party(_thread_name(ident), ident, holds, item, kind, since, site, stack))
    if len(raw) == 1 and (left := [site for holder, site in raw[0][4] if holder != raw[0][0]]):
        return _left_report(proven, parties, _where_or_none(left[0]))
    names = [party.thread_name for party in parties]
    advice = _advice(parties)
    lines = [f"raddle: {'deadlock' if proven else 'likely deadlock'}: {_circle(parties)}"]
    for party, (_, _, _, _, holders) in zip(parties, raw, strict=True):
        lines.extend(
            _party_lines(party, [(ident, site) for ident, site in holders if _thread_name(ident) in names])
        )
    if not proven:
        lines.append("  Likely, not proven: " + _doubt(parties))
    lines.append(f"  Advice: {advice}")
    return Report("deadlock", proven, parties, advice, "\n".join(lines))


_LEFT = "held by a thread that stayed in the parent process when this one was forked"


def _left_report(proven: bool, parties: list[Party], taken: str | None) -> Report:
    """The report of a thread that waits for a lock which was held by another when this process was forked."""
    party = parties[0]
    advice = (
        'start the process by "spawn" or "warm", fork before other threads take the lock,'
        " or make it anew in the child (os.register_at_fork)."
    )
    lines = [
        f"raddle: {'deadlock' if proven else 'likely deadlock'}: a thread waits for what nobody in its process"
        " can release",
        *_party_lines(party, []),
        f"    {_LEFT}{_taken_at(taken)}",
    ]
    if not proven:
        lines.append("  Likely, not proven: " + _doubt(parties))
    lines.append(f"  Advice: {advice}")
    return Report("deadlock", proven, parties, advice, "\n".join(lines), Hold(party.waits_for, taken))


def _process_report(proven: bool, rows: list[Any]) -> Report:
    """The report of a deadlock among processes; the calling thread's row comes first."""
    parties = _parties_of_processes(rows)
    # What one waits for is what the next one holds: so the first's is the last's.
    for at, row in enumerate(rows):
        kind, taken = row[4], row[8]
        if not kind.endswith(".join"):
            after = (at + 1) % len(parties)
            parties[after] = parties[after]._replace(holds=[Hold(parties[at].waits_for, taken)])
    advice = _advice_for_processes(parties)
    lines = [f"raddle: {'deadlock' if proven else 'likely deadlock'} of processes: {_circle(parties)}"]
    lines.extend(_lines_of_processes(parties))
    if not proven:
        lines.append("  Likely, not proven: " + _doubt_about_processes(parties))
    lines.append(f"  Advice: {advice}")
    return Report("deadlock", proven, parties, advice, "\n".join(lines))


#: How many waits of a knot are told.
_KNOT_LINES = 16


def _knot_report(is_circle: bool, rows: list[Any]) -> Report:
    """The report of processes that all wait; the calling process's rows come first."""
    parties = _parties_of_processes(rows)
    count = len({party.pid for party in parties})
    processes = f"{count} processes" if count > 1 else "a process"
    if is_circle:
        first = f"likely deadlock of processes: {processes} wait{'' if count > 1 else 's'} for each other"
        if count == 1:
            first = "likely deadlock of processes: a process waits for itself"
        advice = _advice_for_knots(parties)
    else:
        first = (
            f"stall of processes: every thread of {processes} is blocked, and nobody else is left to put, send,"
            " release or notify"
        )
        advice = (
            "give these waits a timeout, or make sure that somebody puts, sends, releases or notifies before"
            " it waits itself or ends."
        )
    lines = [f"raddle: {first}", *_lines_of_processes(parties[:_KNOT_LINES])]
    if len(parties) > _KNOT_LINES:
        lines.append(f"  and {len(parties) - _KNOT_LINES} more")
    if is_circle:
        lines.append("  Likely, not proven: " + _doubt_about_processes(parties))
    lines.append(f"  Advice: {advice}")
    return Report("deadlock" if is_circle else "stall", False, parties, advice, "\n".join(lines))


def _parties_of_processes(rows: list[Any]) -> list[Party]:
    names = {pid: who.partition("|")[0] for pid, _, who, *_ in rows}
    parties = []
    for pid, ident, who, since, kind, target, what, site, _ in rows:
        name = f"{kind.partition('.')[0]} '{what}'" if what else kind.partition(".")[0]
        if kind == "Thread.join":
            item = f"the end of thread '{what or '?'}'"
        elif target is not None:
            item = f"the end of process '{names.get(target, '?')}' (pid {target})"
        else:
            item = " ".join(filter(None, (_WAITS.get(kind, ""), name)))
        stack = _stack(ident)[1] if pid == os.getpid() else ""
        parties.append(Party(who, ident, [], item, kind, since, site, stack, pid))
    return parties


def _lines_of_processes(parties: list[Party]) -> list[str]:
    lines = []
    for party in parties:
        process, _, thread = party.thread_name.partition("|")
        lines.append(
            f"  Thread '{thread}' of process '{process}' (pid {party.pid}) waits for {party.waits_for}"
        )
        if party.site:
            file, _, line = party.site.rpartition(":")
            lines.append(f'    in {party.kind}, at File "{file}", line {line}')
        lines.extend(f"    holds {hold.object}" + _taken_at(hold.site) for hold in party.holds)
        if party.stack:
            lines.append("    its innermost calls:")
            lines.extend("    " + line for line in party.stack.rstrip().splitlines())
    return lines


def _advice_for_knots(parties: list[Party]) -> str:
    if not any(party.kind in ("Queue.put", "Connection.send") for party in parties):
        return _advice_for_processes(parties)
    if any(party.kind == "Process.join" for party in parties):
        return "get what the joined process puts before joining it, or give the queue room."
    return "get before you put, give the queue room, or put with a timeout."


def _advice_for_processes(parties: list[Party]) -> str:
    kinds = {party.kind for party in parties}
    if kinds & {"Process.join", "Thread.join"}:
        what = "process" if "Process.join" in kinds else "thread"
        return f"release what the joined {what} needs before joining it."
    order = " before ".join(sorted({str(party.waits_for) for party in parties}))
    return f"take the locks in one order everywhere, for instance {order}."


def _doubt_about_processes(parties: list[Party]) -> str:
    kinds = {party.kind for party in parties}
    if kinds & {"Queue.put", "Connection.send"}:
        return "a process that is handed the queue may use it."
    if "Process.join" in kinds:
        return "another thread of the joined process may end it."
    return "a plain Lock may be released by any process and thread."


def _circle(parties: list[Party]) -> str:
    return f"{len(parties)} threads wait for each other" if len(parties) > 1 else "a thread waits for itself"


def _wanted(party: Party) -> str:
    return " ".join(filter(None, (_WAITS.get(party.kind, ""), _describe(party.waits_for, party.kind))))


def _party_lines(party: Party, holders: list[tuple[int, Any]]) -> list[str]:
    lines = [f"  Thread '{party.thread_name}' waits for {_wanted(party)}"]
    if party.site:
        file, _, line = party.site.rpartition(":")
        lines.append(f'    in {party.kind}, at File "{file}", line {line}')
    for ident, site in holders:
        if party.kind == "Future.result":
            running = getattr(party.waits_for, "running", bool)()
            lines.append(f"    {'run by' if running else 'to be run by'} thread '{_thread_name(ident)}'")
        elif party.kind != "Thread.join":
            word = "used by" if party.kind.startswith(("Queue", "Executor")) else "held by"
            lines.append(f"    {word} thread '{_thread_name(ident)}'" + _taken_at(_where_or_none(site)))
    for hold in party.holds:
        if hasattr(hold.object, "submitted_at"):
            lines.append(f"    runs {_describe(hold.object, '')}")
        else:
            lines.append(f"    holds {_describe(hold.object, '')}" + _taken_at(hold.site))
    if party.stack:
        lines.append("    its innermost calls:")
        lines.extend("    " + line for line in party.stack.rstrip().splitlines())
    return lines


def _taken_at(site: str | None) -> str:
    if not site:
        return ""
    file, _, line = site.rpartition(":")
    return f', taken at File "{file}", line {line}'


def _advice(parties: list[Party]) -> str:
    kinds = {party.kind for party in parties}
    locks = [party.waits_for for party in parties if party.kind in ("Lock.acquire", "RLock.acquire")]
    if "Future.result" in kinds or "Executor.submit" in kinds:
        return _advice_for_tasks(parties)
    if len(parties) == 1:
        return "do not wait for this in the thread that has to provide it."
    if len(locks) == len(parties):
        order = " before ".join(f"'{name}'" for name in sorted({lock.name for lock in locks}))
        return f"take the locks in one order everywhere, for instance {order}."
    if "Thread.join" in kinds:
        return "release what the joined thread needs before joining it."
    if "Queue.put" in kinds:
        return "put without holding what the consumer needs, give the queue room, or put with a timeout."
    return "let one of the threads release what it holds before it waits, or wait with a timeout."


def _advice_for_tasks(parties: list[Party]) -> str:
    waited_for = [party.waits_for for party in parties if party.kind == "Future.result"]
    pools = {party.thread_name.rpartition("_")[0] for party in parties}
    if len(pools) > 1 and len(waited_for) == len(parties):
        return (
            "let the tasks of one pool wait for the other's, and not the other way round too,"
            " or give the pools more workers."
        )
    if any(not getattr(future, "running", bool)() for future in waited_for):
        return (
            "let tasks of a pool wait for tasks of another pool only, give the pool more workers,"
            " or leave nested=True, so that a waiting worker runs what it waits for."
        )
    return "do not let tasks wait for each other in a circle, and release locks before waiting for a task."


def _doubt(parties: list[Party]) -> str:
    kinds = {party.kind for party in parties}
    if "Lock.acquire" in kinds:
        return "a plain Lock may be released by any thread."
    if "Semaphore.acquire" in kinds:
        return "a permit may be given back by any thread."
    return "another thread might use the queue."


def _stall_report(idents: list[int], frames: dict[int, Any]) -> Report | None:
    waiting = _raddle.threads()
    held = _held_by()
    parties = []
    for ident in idents:
        facts = waiting.get(ident)
        if facts is None:
            return None
        kind, item, since, _ = facts
        site, stack = _stack(ident, frames)
        parties.append(Party(_thread_name(ident), ident, held.get(ident, []), item, kind, since, site, stack))
    owners = {id(hold.object): (ident, hold.site) for ident, holds in held.items() for hold in holds}
    holders = [owners.get(id(party.waits_for)) for party in parties]
    if any(holder and not holder[0] for holder in holders):
        advice = "release what a thread has taken before it ends: by a with block, or in a finally clause."
    else:
        advice = (
            "give these waits a timeout, or let somebody release, notify, put or set before all are blocked."
        )
    lines = [
        "raddle: stall: every thread is blocked, and nobody is left to release, notify, put or set"
        f" ({len(parties)} thread{'s' if len(parties) > 1 else ''}; blocked, not deadlocked)"
    ]
    for party, holder in zip(parties, holders, strict=True):
        lines.extend(_party_lines(party, []))
        if holder:
            ident, site = holder
            name = f"thread '{_thread_name(ident)}'" if ident else "a thread that has ended"
            lines.append(f"    held by {name}{_taken_at(site)}")
    lines.append(f"  Advice: {advice}")
    return Report("stall", False, parties, advice, "\n".join(lines))


def _handles_signals() -> bool:
    """Whether the program has a signal handler of its own, or an alarm set, which may end the main thread's wait."""
    for number in _signal.valid_signals():
        try:
            handler = _signal.getsignal(number)
        except (OSError, ValueError):
            continue
        if callable(handler) and handler is not _signal.default_int_handler:
            return True
    # An alarm that is not handled ends the process.
    return bool(_signal.getitimer(_signal.ITIMER_REAL)[0] > 0)


def _tell(report: Report) -> None:
    _reports.append(report)
    text = f"{report}\n"
    try:
        if _settings.path is not None:
            with open(_settings.path, "a", encoding="utf-8") as file:
                file.write(text)
            return
        stream = _settings.file or sys.stderr
        stream.write(text)
        stream.flush()
    except (AttributeError, OSError, ValueError):
        # Standard error is closed or gone: the report stays in reports().
        pass


_raddle.set_reporters(
    {
        "deadlock": _on_deadlock,
        "stall": _on_stall,
        "order": _on_order,
        "timed_out": _on_timed_out,
        "processes": _on_process_deadlock,
        "knot": _on_knot,
        "all_of_python": _is_all_of_python,
        "where_is": _where_is,
    }
)
