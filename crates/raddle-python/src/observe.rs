//! What is told about threads and locks: the bridge from the core's records to Python's reports.
//!
//! A waiter's look ends up here. It walks the graph detached; only when something has been found, and has
//! lasted, does it attach and call the reporter that `raddle.deadlock` has set.

use crate::error::{entry, fetch};
use crate::gil::{self, PyHost};
use crate::lock::none;
use crate::native::{Which, core, for_each};
use pyo3::types::{PyAnyMethods, PyDict, PyList, PyListMethods, PyTuple};
use pyo3::{Bound, FromPyObject, IntoPyObjectExt, Py, PyAny, PyResult, Python, ffi};
use raddle::detect::{self, Deadlock};
use raddle::park::{Look, Stop, now};
use raddle::primitive::Spin;
use raddle::sync::{RawLock, RawRLock, Semaphore};
use raddle::trace::thread::{Thread, Waiting, all, has_ended, has_strangers};
use raddle::trace::{Kind, ORDER, Site, TIMEOUTS, hook, mode};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// Python's side, set once by `raddle.deadlock`: a dict.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Reporters {
    /// `deadlock(proven, parties)` gives an exception to raise, or None.
    deadlock: Py<PyAny>,
    /// `stall(idents)` says whether it was one; None if not yet, for a reason that may go without telling.
    stall: Py<PyAny>,
    /// `order(lock, site, other, other_site, earlier, earlier_other)`.
    order: Py<PyAny>,
    /// `timed_out(kind, lock, holder, site, waited)`.
    timed_out: Py<PyAny>,
    /// `processes(proven, parties, can_raise)` gives an exception to raise, or None.
    processes: Py<PyAny>,
    /// `knot(parties)`.
    knot: Py<PyAny>,
    /// `all_of_python(idents)` says whether nobody but these threads runs Python or is about to.
    all_of_python: Py<PyAny>,
    /// `where(ident)` says where a thread is, as "file:line".
    where_is: Py<PyAny>,
}

static REPORTERS: Mutex<Option<Reporters>> = Mutex::new(None);

/// The waits of deadlocks and stalls that have been reported, so that each is told once.
static TOLD: Spin<Option<HashSet<Vec<u64>>>> = Spin::new(None);

/// A plain lock may be released by anybody: a cycle through one has to last this long to be believed.
const LIKELY_AFTER: u64 = 300_000_000;

/// How long a party that cannot be raised in leaves it to the others to tell a proven deadlock.
const OTHERS_FIRST: u64 = 800_000_000;

/// What one waiter has found at its last look, to be confirmed by the next.
#[derive(Default)]
pub(crate) struct Found {
    deadlock: RefCell<Option<Deadlock>>,
    stall: Cell<u64>,
}

/// What a wait is called.
pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Lock => "Lock.acquire",
        Kind::RLock => "RLock.acquire",
        Kind::Condition => "Condition.wait",
        Kind::Semaphore => "Semaphore.acquire",
        Kind::Event => "Event.wait",
        Kind::Barrier => "Barrier.wait",
        Kind::QueuePut => "Queue.put",
        Kind::QueueGet => "Queue.get",
        Kind::QueueJoin => "Queue.join",
        Kind::Join => "Thread.join",
        Kind::Sleep => "sched",
        Kind::Future => "Future.result",
        Kind::Submit => "Executor.submit",
        Kind::Idle => "Executor worker",
        Kind::Receive => "Connection.recv",
        Kind::Send => "Connection.send",
        Kind::Ready => "connection.wait",
        Kind::Exit => "Process.join",
    }
}

/// Sets the functions that reports go to.
pub(crate) fn set_reporters(new: Reporters) {
    let old = REPORTERS.lock().unwrap_or_else(PoisonError::into_inner).replace(new);
    drop(old);
}

fn reporter<'py>(py: Python<'py>, pick: impl FnOnce(&Reporters) -> &Py<PyAny>) -> Option<Bound<'py, PyAny>> {
    let reporters = REPORTERS.lock().unwrap_or_else(PoisonError::into_inner);
    reporters.as_ref().map(|reporters| pick(reporters).bind(py).clone())
}

/// Whether this is the first time; remembers it.
fn first_time(key: Vec<u64>) -> bool {
    TOLD.lock().get_or_insert_with(HashSet::new).insert(key)
}

fn was_told(key: &Vec<u64>) -> bool {
    TOLD.lock().as_ref().is_some_and(|told| told.contains(key))
}

/// In a forked child. A thread that is gone may have been in the middle of adding to the set, without the GIL: it is
/// leaked. Waits of the parent are none of the child's.
pub(crate) fn after_fork_in_child() {
    TOLD.lock_after_fork(|told| std::mem::forget(told.take()));
}

/// A waiter without a deadline looks whether its wait can end. Called detached.
pub(crate) fn look(host: &PyHost, waited: u64) -> Result<Look, Stop> {
    let me = Thread::current();
    if let Some(deadlock) = detect::find_from(&me) {
        if was_told(&deadlock.key()) {
            return Ok(Look::Settled);
        }
        let lasts = host.found.deadlock.borrow().as_ref().is_some_and(|earlier| earlier.same_as(&deadlock));
        if !lasts || (!deadlock.proven && waited < LIKELY_AFTER) {
            if deadlock.proven && !host.raises() {
                // This thread cannot be raised in. Others can, and may have had no reason to look when they went to sleep.
                deadlock
                    .parties
                    .iter()
                    .filter(|party| party.thread.id() != me.id())
                    .for_each(|party| party.thread.nudge());
            }
            host.found.deadlock.replace(Some(deadlock));
            return Ok(Look::Again);
        }
        // They look within the time of a look or two.
        if deadlock.proven && !host.raises() && waited < OTHERS_FIRST {
            return Ok(Look::Again);
        }
        if first_time(deadlock.key()) {
            return host
                .attached(|| {
                    me.rouse();
                    tell_deadlock(host, &deadlock)
                })
                .map(|()| Look::Settled);
        }
        return Ok(Look::Settled);
    }
    host.found.deadlock.replace(None);
    // Not a party, but waiting for a deadlock of others, which this wait may have closed: they look for themselves.
    if detect::is_stuck(&me) {
        for deadlock in detect::find_all() {
            if !was_told(&deadlock.key()) {
                deadlock.parties.iter().for_each(|party| party.thread.nudge());
            }
        }
    }
    look_for_stall(host, &me)
}

/// The waits of all known threads, and the threads, if every one of them sleeps without a deadline.
fn all_stuck() -> Option<(Vec<u64>, Vec<usize>)> {
    let mut numbers = Vec::new();
    let mut tokens = Vec::new();
    for thread in all() {
        numbers.push(thread.stuck()?.waiting.number);
        tokens.push(thread.token());
    }
    numbers.sort_unstable();
    Some((numbers, tokens))
}

/// Whether every thread that is known sleeps without a deadline; Python then asks about the others.
fn look_for_stall(host: &PyHost, me: &Thread) -> Result<Look, Stop> {
    let Some((numbers, tokens)) = all_stuck() else {
        host.found.stall.set(0);
        return Ok(Look::Settled);
    };
    let mark = numbers.iter().fold(1u64, |mark, number| mark.wrapping_mul(31).wrapping_add(*number)) | 1;
    if host.found.stall.replace(mark) != mark {
        return Ok(Look::Again);
    }
    // A hang with a deadlock in it is that deadlock's: its parties tell it.
    if !detect::find_all().is_empty() || was_told(&numbers) {
        return Ok(Look::Settled);
    }
    // Such a thread may run Python at any time, even one that the interpreter has never seen: it may call back.
    if has_strangers() {
        return Ok(Look::Later);
    }
    // Claimed before it is told, so that no other thread tells it too.
    if !first_time(numbers.clone()) {
        return Ok(Look::Settled);
    }
    let told = host.attached(|| {
        // SAFETY: attached by the line above.
        let py = unsafe { Python::assume_attached() };
        // Getting attached may have taken until somebody who ran Python was through, and had woken one of them.
        if all_stuck().is_none_or(|(now, _)| now != numbers) {
            return Ok(Some(false));
        }
        me.rouse();
        let Some(stall) = reporter(py, |reporters| &reporters.stall) else { return Ok(Some(false)) };
        let told = tokens.into_bound_py_any(py).and_then(|tokens| {
            let told = gil::call(&stall, &[&tokens])?;
            if told.is_none() { Ok(None) } else { gil::truth(&told).map(Some) }
        });
        told.or_else(|error| failed(py, host, error).map(|()| Some(false)))
    });
    if !matches!(told, Ok(Some(true))) {
        forget(&numbers);
    }
    Ok(if told?.is_none() { Look::Later } else { Look::Settled })
}

/// What was about to be told was not.
fn forget(key: &Vec<u64>) {
    if let Some(told) = TOLD.lock().as_mut() {
        told.remove(key);
    }
}

/// A reporter raised. In the thread that handles signals that was a handler (Ctrl-C), and it ends the wait; of any
/// other thread nobody can be told.
fn failed(py: Python<'_>, host: &PyHost, error: pyo3::PyErr) -> Result<(), Stop> {
    if host.raises() && gil::is_main_thread() {
        error.restore(py);
        return Err(Stop::Interrupted);
    }
    gil::unraisable(py, error, std::ptr::null_mut());
    Ok(())
}

/// Attached: hands a deadlock to Python, and raises what it gives back.
fn tell_deadlock(host: &PyHost, deadlock: &Deadlock) -> Result<(), Stop> {
    // SAFETY: attached, as the caller says.
    let py = unsafe { Python::assume_attached() };
    let report = reporter(py, |reporters| &reporters.deadlock);
    tell(py, host, report, deadlock.proven, || Ok(parties(py, deadlock)?.into_any()), host.raises())
}

/// The same of a deadlock among processes.
pub(crate) fn tell_of_processes<'py>(
    py: Python<'py>,
    host: &PyHost,
    proven: bool,
    parties: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    raises: bool,
) -> Result<(), Stop> {
    tell(py, host, reporter(py, |reporters| &reporters.processes), proven, parties, raises)
}

/// Processes that wait for each other, all threads of them: once, whichever thread of this process finds it first.
pub(crate) fn tell_of_knot<'py>(
    py: Python<'py>,
    host: &PyHost,
    key: &[(u32, u64, u64)],
    parties: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
) -> Result<(), Stop> {
    // Other than the numbers of waits, none of which is zero.
    let numbers = key.iter().flat_map(|(pid, thread, since)| [0, u64::from(*pid), *thread, *since]).collect();
    let report = reporter(py, |reporters| &reporters.knot).filter(|_| first_time(numbers));
    let Some(report) = report else { return Ok(()) };
    parties()
        .and_then(|parties| gil::call(&report, &[&parties]))
        .map_or_else(|error| failed(py, host, error), |_| Ok(()))
}

/// Attached: whether nobody but the threads with these tokens runs Python or is about to.
pub(crate) fn is_all_of_python(tokens: &[usize]) -> bool {
    // SAFETY: attached, as the caller says.
    let py = unsafe { Python::assume_attached() };
    let Some(ask) = reporter(py, |reporters| &reporters.all_of_python) else { return false };
    let answer = tokens.into_bound_py_any(py).and_then(|tokens| gil::truth(&gil::call(&ask, &[&tokens])?));
    answer.unwrap_or_else(|error| {
        gil::unraisable(py, error, std::ptr::null_mut());
        false
    })
}

/// Where a thread is, as "file:line".
pub(crate) fn place_of(py: Python<'_>, token: usize) -> PyResult<String> {
    let Some(ask) = reporter(py, |reporters| &reporters.where_is) else { return Ok(String::new()) };
    let place = gil::call(&ask, &[&token.into_bound_py_any(py)?])?;
    Ok(place.extract::<Option<String>>()?.unwrap_or_default())
}

/// What the object is called that a thread waits for in the wait with this number.
pub(crate) fn name_of(py: Python<'_>, thread: &Thread, number: u64) -> String {
    let name = gil::attribute(&host_object(py, thread, number), "name").and_then(|name| name.extract::<String>());
    name.unwrap_or_default()
}

fn tell<'py>(
    py: Python<'py>,
    host: &PyHost,
    report: Option<Bound<'py, PyAny>>,
    proven: bool,
    parties: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    raises: bool,
) -> Result<(), Stop> {
    let Some(report) = report else { return Ok(()) };
    let answer = (|| {
        let (proven, can_raise) = (proven.into_bound_py_any(py)?, raises.into_bound_py_any(py)?);
        gil::call(&report, &[&proven, &parties()?, &can_raise])
    })();
    match answer {
        Ok(answer) if answer.is_none() => Ok(()),
        Ok(_) if !raises => Ok(()),
        Ok(error) => {
            pyo3::PyErr::from_value(error).restore(py);
            Err(Stop::Interrupted)
        }
        Err(error) => failed(py, host, error),
    }
}

/// `(ident, kind, object, since, [(holder, site), ...])` for each party.
fn parties<'py>(py: Python<'py>, deadlock: &Deadlock) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for party in &deadlock.parties {
        let object = host_object(py, &party.thread, party.waiting.number);
        let holders = PyList::empty(py);
        for (token, site) in &party.holders {
            holders.append((*token, place(py, *site)?))?;
        }
        let since = party.waiting.since as f64 / 1e9;
        list.append((party.thread.token(), kind_name(party.waiting.kind), object, since, holders))?;
    }
    Ok(list)
}

/// The Python object that a thread waits for, if it is still in that wait.
fn host_object<'py>(py: Python<'py>, thread: &Thread, number: u64) -> Bound<'py, PyAny> {
    let object = thread.waiting(|waiting| {
        if waiting.number != number || waiting.host == 0 {
            return std::ptr::null_mut();
        }
        let object = waiting.host as *mut ffi::PyObject;
        // SAFETY: the thread is held still in its wait, whose frame has a reference; attached.
        unsafe { ffi::Py_INCREF(object) };
        object
    });
    match object {
        // SAFETY: the reference taken above is handed over.
        Some(object) if !object.is_null() => unsafe { Bound::from_owned_ptr(py, object) },
        _ => py.None().into_bound(py),
    }
}

/// `(file, line, function)` or None.
pub(crate) fn place<'py>(py: Python<'py>, site: Option<Site>) -> PyResult<Bound<'py, PyAny>> {
    match site {
        Some(site) => {
            let place = site.place();
            (&*place.file, place.line, &*place.function).into_bound_py_any(py)
        }
        None => Ok(py.None().into_bound(py)),
    }
}

/// Every deadlock there is now: `[(proven, parties), ...]`.
pub(crate) fn deadlocks(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    for deadlock in detect::find_all() {
        list.append((deadlock.proven, parties(py, &deadlock)?))?;
    }
    Ok(list)
}

/// What every known thread does: `{ident: (kind, object, since, timed) | None}`.
pub(crate) fn threads(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    for thread in all() {
        dict.set_item(thread.token(), wait_of(py, &thread)?)?;
    }
    Ok(dict)
}

/// `(kind, object, since, timed)` of a thread that is blocked, else None.
pub(crate) fn wait_of<'py>(py: Python<'py>, thread: &Thread) -> PyResult<Bound<'py, PyAny>> {
    let Some(waiting): Option<Waiting> = thread.waiting(|waiting| *waiting) else {
        return Ok(py.None().into_bound(py));
    };
    let object = host_object(py, thread, waiting.number);
    (kind_name(waiting.kind), object, waiting.since as f64 / 1e9, waiting.timed).into_bound_py_any(py)
}

/// What each thread holds: `[(ident, object, site), ...]`; the ident is 0 for one that has ended.
pub(crate) fn holds(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let mut found: Vec<(usize, usize, Option<Site>)> = Vec::new();
    for_each(|which, object| {
        let before = found.len();
        let mut holds = |owner: usize, has_ended: bool, site| {
            if owner != 0 {
                found.push((if has_ended { 0 } else { owner }, object as usize, site));
            }
        };
        // SAFETY: the registry says which type the object is of, and keeps it alive for this call.
        unsafe {
            match which {
                Which::Lock => {
                    let lock = core::<RawLock>(object);
                    holds(lock.owner(), lock.is_left(), lock.taken_at());
                }
                Which::RLock => {
                    let lock = core::<RawRLock>(object);
                    holds(lock.owner(), lock.is_left(), lock.taken_at());
                }
                Which::Semaphore => {
                    let semaphore = core::<crate::semaphore::PySemaphore>(object);
                    let semaphore: &Semaphore = semaphore.core();
                    for holder in &semaphore.holders() {
                        holds(holder.token, has_ended(holder.token, holder.epoch), holder.site);
                    }
                }
                _ => {}
            }
        }
        for _ in before..found.len() {
            // SAFETY: attached, and the object is alive; one reference for each row.
            unsafe { ffi::Py_INCREF(object) };
        }
    });
    crate::pool::running(|runner, future, site| {
        // SAFETY: attached, and the object is alive while it is on the list; one reference for the row.
        unsafe { ffi::Py_INCREF(future) };
        found.push((runner, future as usize, site));
    });
    let list = PyList::empty(py);
    for (owner, object, site) in found {
        // SAFETY: the reference taken above is handed over.
        let object = unsafe { Bound::<PyAny>::from_owned_ptr(py, object as *mut ffi::PyObject) };
        list.append((owner, object, place(py, site)?))?;
    }
    Ok(list)
}

/// How many threads wait for the object with this address, and for how long at most, in seconds.
pub(crate) fn waiters(address: usize) -> (usize, f32) {
    let time = now();
    let mut count = 0;
    let mut longest = 0;
    for thread in all() {
        let since = thread.waiting(|waiting| (waiting.host == address).then_some(waiting.since)).flatten();
        if let Some(since) = since {
            count += 1;
            longest = longest.max(time.saturating_sub(since));
        }
    }
    (count, longest as f32 / 1e9)
}

/// The attribute `waiters` of every type.
pub(crate) unsafe extern "C" fn py_waiters(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromSize_t(waiters(object as usize).0) }
}

/// The attribute `longest_wait`: those under way and those over.
pub(crate) fn longest_wait(address: usize, past: f32) -> *mut ffi::PyObject {
    // SAFETY: attached.
    unsafe { ffi::PyFloat_FromDouble(f64::from(waiters(address).1.max(past))) }
}

/// The Thread object with this ident, or None.
pub(crate) fn thread_object<'py>(py: Python<'py>, ident: usize) -> PyResult<Bound<'py, PyAny>> {
    if ident == 0 {
        return Ok(py.None().into_bound(py));
    }
    let active = py.import("threading")?.getattr("_active")?;
    active.call_method1("get", (ident,))
}

/// The name of the thread with this ident.
pub(crate) fn thread_name(py: Python<'_>, ident: usize) -> Bound<'_, PyAny> {
    let name = || -> PyResult<Bound<'_, PyAny>> {
        let thread = thread_object(py, ident)?;
        if thread.is_none() { ident.into_bound_py_any(py) } else { thread.getattr("name") }
    };
    name().unwrap_or_else(|_| py.None().into_bound(py))
}

/// The calling thread has taken a lock, and some kind of recording is on.
#[cold]
pub(crate) fn acquired(kind: Kind, address: usize, site: Option<Site>, waited: bool) {
    if let Some(hook) = hook() {
        hook.acquired(kind, address);
    }
    if mode() & ORDER == 0 {
        return;
    }
    let Some(found) = detect::acquired(address, site, waited) else { return };
    // SAFETY: called by methods of the types, attached.
    let py = unsafe { Python::assume_attached() };
    let told = || -> PyResult<()> {
        let Some(order) = reporter(py, |reporters| &reporters.order) else { return Ok(()) };
        // SAFETY: both locks are held by this thread, and so alive.
        let objects = unsafe {
            [found.held.0, found.taken.0].map(|at| Bound::<PyAny>::from_borrowed_ptr(py, at as *mut ffi::PyObject))
        };
        let [held, taken] = objects;
        let args = (
            held,
            place(py, found.held.1)?,
            taken,
            place(py, found.taken.1)?,
            place(py, found.earlier.0)?,
            place(py, found.earlier.1)?,
        );
        gil::call_tuple(&order, &args.into_bound_py_any(py)?, None)?;
        Ok(())
    };
    if let Err(error) = told() {
        // A warning that the user has turned into an error: an acquire that has happened cannot raise it.
        gil::unraisable(py, error, std::ptr::null_mut());
    }
}

/// The calling thread has let go of a lock.
#[cold]
pub(crate) fn released(kind: Kind, address: usize) {
    if let Some(hook) = hook() {
        hook.released(kind, address);
    }
    if mode() & ORDER != 0 {
        detect::released(address);
    }
}

/// A wait for a lock has run out of time.
pub(crate) fn timed_out(
    py: Python<'_>,
    kind: Kind,
    object: Bound<'_, PyAny>,
    holder: usize,
    site: Option<Site>,
    since: u64,
) {
    if mode() & TIMEOUTS == 0 {
        return;
    }
    let tell = || -> PyResult<()> {
        let Some(report) = reporter(py, |reporters| &reporters.timed_out) else { return Ok(()) };
        let waited = now().saturating_sub(since) as f64 / 1e9;
        let args = (kind_name(kind), object, holder, place(py, site)?, waited).into_bound_py_any(py)?;
        gil::call_tuple(&report, &args, None)?;
        Ok(())
    };
    if let Err(error) = tell() {
        gil::unraisable(py, error, std::ptr::null_mut());
    }
}

/// For C functions that only have to run `body` and give None.
pub(crate) fn quietly(body: impl FnOnce(Python<'_>) -> PyResult<()>) -> *mut ffi::PyObject {
    entry(|py| {
        body(py)?;
        Ok(none())
    })
}

/// A tuple of any length from borrowed references, for calls.
pub(crate) fn tuple<'py>(py: Python<'py>, items: &[Bound<'py, PyAny>]) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, items).map_err(|_| fetch(py))
}
