//! Cancel tokens: how a task that runs is asked to stop, and how its waits learn of it.
//!
//! Each task that was submitted under a token, or was asked to stop, has a token of its own below the one given.
//! A wait of the task looks at the chain before it sleeps; who cancels wakes the threads that run tasks under it.

use crate::args::{self, Patience, patience};
use crate::error::entry;
use crate::future::Me as Future;
use crate::gil::{self, PyHost};
use crate::lock::{boolean, none};
use crate::native::{Entry, Native, This, Visit, Which, fast, get, methods};
use crate::pool::current_future;
use crate::reference::Place;
use crate::types::Slot;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::types::PyAnyMethods;
use pyo3::{Bound, Py, PyAny, PyErr, PyResult, Python, ffi};
use raddle::park::{Deadline, Parking, Stop, now};
use raddle::primitive::Spin;
use raddle::sync::Event;
use raddle::trace::Kind;
use raddle::trace::thread::by_token;
use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Why a task is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Somebody cancelled it.
    Cancelled,
    /// Its deadline has passed.
    Late,
}

/// A token.
pub(crate) struct PyToken {
    cancelled: AtomicBool,
    /// In nanoseconds of the monotonic clock; `u64::MAX` is none.
    deadline: AtomicU64,
    /// The token above; set by `__init__`, before anybody else sees this one.
    parent: Place,
    /// The threads that run tasks under it, and the epochs in which these began.
    runners: Spin<Vec<(usize, u32)>>,
}

type Me<'a> = This<'a, PyToken>;

struct Names {
    cancelled: Py<PyAny>,
    late: Py<PyAny>,
}

static NAMES: OnceLock<Names> = OnceLock::new();

/// Says what is raised in a task that is to stop: because it was cancelled, or because its time is up.
pub(crate) fn set_names(cancelled: Py<PyAny>, late: Py<PyAny>) {
    let _ = NAMES.set(Names { cancelled, late });
}

fn names() -> PyResult<&'static Names> {
    NAMES.get().ok_or_else(|| PyRuntimeError::new_err("raddle.cancel has not been imported"))
}

impl PyToken {
    /// The token above. Tokens keep those above them, so that this may be read detached.
    fn parent(&self) -> Option<&PyToken> {
        let parent = self.parent.address();
        // SAFETY: only tokens are put there, once, and stay as long as this one.
        (!parent.is_null()).then(|| unsafe { crate::native::core::<PyToken>(parent) })
    }

    fn chain(&self) -> impl Iterator<Item = &PyToken> {
        std::iter::successors(Some(self), |token| token.parent())
    }

    /// Whether it is time to stop, and why.
    fn reason(&self) -> Option<Reason> {
        if self.chain().any(|token| token.cancelled.load(Ordering::SeqCst)) {
            return Some(Reason::Cancelled);
        }
        (self.limit() <= now()).then_some(Reason::Late)
    }

    /// The earliest deadline of the chain.
    fn limit(&self) -> u64 {
        self.chain().map(|token| token.deadline.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX)
    }

    /// Cancels it and wakes the tasks under it that wait.
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        let runners = self.runners.lock().clone();
        for (token, epoch) in runners {
            if let Some(thread) = by_token(token, epoch) {
                raddle::park::interrupt(&thread);
            }
        }
    }
}

/// A task begins (`Some`) or ends (`None`) in this thread, under its token if it has one.
pub(crate) fn enter(token: *mut ffi::PyObject, thread: usize, epoch: u32) {
    // SAFETY: null, or the task's token, which its future keeps.
    if let Some(token) = unsafe { token.as_ref() } {
        // SAFETY: as above.
        let token = unsafe { crate::native::core::<PyToken>(std::ptr::from_ref(token).cast_mut()) };
        token.chain().for_each(|token| token.runners.lock().push((thread, epoch)));
    }
}

/// The task has ended in this thread.
pub(crate) fn leave(token: *mut ffi::PyObject, thread: usize) {
    if !token.is_null() {
        // SAFETY: the task's token, which its future keeps.
        let token = unsafe { crate::native::core::<PyToken>(token) };
        for token in token.chain() {
            let mut runners = token.runners.lock();
            if let Some(at) = runners.iter().rposition(|runner| runner.0 == thread) {
                runners.swap_remove(at);
            }
        }
    }
}

/// Why the task that the calling thread runs is to stop, if it is. May be called detached.
pub(crate) fn asked() -> Option<Reason> {
    asked_of(current_future()?)
}

/// The same, for who has that task in hand.
#[inline]
pub(crate) fn asked_of(task: Future<'_>) -> Option<Reason> {
    let token = task.token.address();
    // SAFETY: the running task's future keeps its token.
    (!token.is_null()).then(|| unsafe { crate::native::core::<PyToken>(token) })?.reason()
}

/// When the task that the calling thread runs is to stop at the latest. May be called detached.
pub(crate) fn limit() -> Deadline {
    let Some(task) = current_future() else { return Deadline::NEVER };
    let token = task.token.address();
    if token.is_null() {
        return Deadline::NEVER;
    }
    // SAFETY: the running task's future keeps its token.
    Deadline::at(unsafe { crate::native::core::<PyToken>(token) }.limit())
}

/// What is raised in a task that is to stop.
pub(crate) fn error(py: Python<'_>, reason: Reason) -> PyErr {
    let make = || {
        let names = names()?;
        let class = if reason == Reason::Late { &names.late } else { &names.cancelled };
        gil::call(class.bind(py), &[])
    };
    make().map_or_else(|error| error, PyErr::from_value)
}

/// Whether an error is a task's answer to having been cancelled.
pub(crate) fn is_answer(py: Python<'_>, error: &PyErr) -> bool {
    names().is_ok_and(|names| error.is_instance(py, names.cancelled.bind(py)))
        && !names().is_ok_and(|names| error.is_instance(py, names.late.bind(py)))
}

/// A new token below this one.
pub(crate) fn below<'py>(
    py: Python<'py>,
    parent: Option<&Bound<'py, PyAny>>,
    deadline: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let ty = crate::types::pointer(Slot::Token);
    let object = crate::native::allocate::<PyToken>(py, ty.cast())?;
    // SAFETY: just made.
    let (this, object) = unsafe { (Me::from_ptr(object), Bound::from_owned_ptr(py, object)) };
    if let Some(parent) = parent {
        expect(parent)?;
        this.parent.set(parent);
    }
    this.deadline.store(deadline, Ordering::Relaxed);
    Ok(object)
}

fn expect(token: &Bound<'_, PyAny>) -> PyResult<()> {
    if token.is_instance(&crate::types::get(token.py(), Slot::Token))? {
        return Ok(());
    }
    Err(PyTypeError::new_err(format!("a raddle.cancel.Token is wanted, not {}", token.get_type())))
}

/// The token of a task, made when it is first asked for.
fn token_of<'py>(py: Python<'py>, task: Future<'_>) -> PyResult<Bound<'py, PyAny>> {
    match task.token.get(py) {
        Some(token) => Ok(token),
        None => {
            crate::exact::track(task);
            let token = task.token.get_or_put(below(py, None, u64::MAX)?);
            let runner = task.runner.load(Ordering::Acquire);
            if runner != 0 {
                enter(token.as_ptr(), runner, u32::MAX);
            }
            Ok(token)
        }
    }
}

/// Asks a task that runs to stop.
pub(crate) fn ask_to_stop(py: Python<'_>, task: Future<'_>) -> PyResult<()> {
    let token = token_of(py, task)?;
    // SAFETY: a token.
    let token = unsafe { crate::native::core::<PyToken>(token.as_ptr()) };
    PyHost::unending().detached(|| token.cancel());
    Ok(())
}

/// The token of the task that the calling thread runs, or None.
pub(crate) fn current(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    match crate::pool::current_future() {
        Some(task) => token_of(py, task),
        None => Ok(py.None().into_bound(py)),
    }
}

/// Raises if the calling thread runs a task that is to stop.
pub(crate) fn check(py: Python<'_>) -> PyResult<()> {
    asked().map_or(Ok(()), |reason| Err(error(py, reason)))
}

/// Sleeps; a task that is to stop is raised in.
pub(crate) fn sleep(py: Python<'_>, seconds: &Bound<'_, PyAny>) -> PyResult<()> {
    let Patience::Until(deadline) = duration(seconds)? else { return check(py) };
    let event = Event::new();
    let host = PyHost::new();
    let result = host.detached(|| {
        let mut parking = Parking::new(Kind::Sleep, &event, 0, deadline, &host);
        event.wait_slow(&mut parking)
    });
    match result {
        Err(Stop::Interrupted) => Err(crate::error::fetch(py)),
        Ok(()) | Err(Stop::TimedOut) => Ok(()),
    }
}

unsafe extern "C" fn py_cancel(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    let token: &PyToken = &this;
    PyHost::unending().detached(|| token.cancel());
    none()
}

unsafe extern "C" fn py_check(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        unsafe { Me::from_ptr(object) }.reason().map_or(Ok(none()), |reason| Err(error(py, reason)))
    })
}

fast!(py_child, PyToken, |py, this, fast| {
    let [timeout] = args::fast(py, "child", ["timeout"], 1, fast)?;
    let parent = this.bound(py);
    Ok(below(py, Some(&parent), deadline_of(timeout.as_ref())?)?.into_ptr())
});

unsafe extern "C" fn py_cancelled(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    boolean(unsafe { Me::from_ptr(object) }.reason().is_some())
}

unsafe extern "C" fn py_remaining(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    match unsafe { Me::from_ptr(object) }.limit() {
        u64::MAX => none(),
        // SAFETY: attached.
        limit => unsafe { ffi::PyFloat_FromDouble(limit.saturating_sub(now()) as f64 / 1e9) },
    }
}

/// The deadline that a time-out in seconds means, from now.
pub(crate) fn deadline_of(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
    let Some(timeout) = timeout.filter(|timeout| !timeout.is_none()) else { return Ok(u64::MAX) };
    match duration(timeout)? {
        Patience::None => Ok(now()),
        Patience::Until(deadline) => Ok(deadline.nanoseconds()),
    }
}

/// A number of seconds that has to be one.
fn duration(seconds: &Bound<'_, PyAny>) -> PyResult<Patience> {
    if seconds.is_none() {
        return Err(PyTypeError::new_err("'NoneType' object cannot be interpreted as a number of seconds"));
    }
    if seconds.extract::<f64>()?.is_nan() {
        return Err(PyValueError::new_err("Invalid value NaN (not a number)"));
    }
    let patience = patience(Some(seconds))?;
    if let Patience::Until(deadline) = patience {
        args::check(deadline)?;
    }
    Ok(patience)
}

impl Native for PyToken {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle.cancel.Token";
    const DOC: &'static CStr = c"Token(*, timeout=None, parent=None)\n--\n\n\
        Asks the tasks that were submitted under it to stop.\n\n\
        A task is asked by cancel(), by that of a token above, or when `timeout` seconds have passed. It is raised in\n\
        at its next wait of raddle's, at once if it waits already, and at raddle.cancel.check().\n\
        Any thread may cancel; a finalizer or a signal handler may, too.";
    const WHICH: Which = Which::Other;
    const DICT: bool = true;

    fn fresh() -> Self {
        PyToken {
            cancelled: AtomicBool::new(false),
            deadline: AtomicU64::new(u64::MAX),
            parent: Place::empty(),
            runners: Spin::new(Vec::new()),
        }
    }

    fn init(this: Me<'_>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let [timeout, parent] = args::tuple("Token", ["timeout", "parent"], 0, args, kwargs)?;
        this.deadline.store(deadline_of(timeout.as_ref())?, Ordering::Relaxed);
        if let Some(parent) = parent.filter(|parent| !parent.is_none()) {
            expect(&parent)?;
            if !this.parent.is_empty() {
                return Err(PyRuntimeError::new_err("a token keeps the parent it was made with"));
            }
            this.parent.set(&parent);
        }
        Ok(())
    }

    fn traverse(&self, visit: &Visit) -> c_int {
        visit.call(self.parent.address())
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            noargs "cancel" ("") = py_cancel, "Ask all tasks under it to stop.";
            noargs "check" ("") = py_check, "Raise Cancelled if it was cancelled.";
            fast "child" (", timeout=None") = py_child, "A token that is cancelled with this one, and by itself.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        vec![
            get::<Self>(c"cancelled", py_cancelled, c"Whether it was cancelled, or its time is up."),
            get::<Self>(c"remaining", py_remaining, c"Seconds until its deadline, or None."),
        ]
    }
}
