//! Timers: the values of the core's service are Timer objects, whose `_fire` it calls.

use crate::error::fetch;
use crate::gil::{self, Arrival};
use crate::thread::Leaving;
use pyo3::exceptions::PyRuntimeError;
use pyo3::types::{PyList, PyListMethods};
use pyo3::{Bound, PyAny, PyResult, Python, ffi};
use raddle::park::{Deadline, now};
use raddle::timer::{Ticket, Timers};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A Timer object that the heap owns. Whoever takes it out attaches and gives the reference back.
struct Held(*mut ffi::PyObject);

// SAFETY: the pointer is only used by threads that are attached.
unsafe impl Send for Held {}

static TIMERS: Timers<Held> = Timers::new(fire);

/// How many timers are due whose threads are not known to Python yet.
static FIRING: AtomicUsize = AtomicUsize::new(0);

/// One of them.
struct Firing(());

impl Firing {
    fn new() -> Self {
        FIRING.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Firing {
    fn drop(&mut self) {
        FIRING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// In the service thread, which never attaches: gives the timer a thread.
///
/// One after the other: as long as the last one waits for the interpreter, another would only wait beside it.
fn fire(timer: Held) {
    let firing = Firing::new();
    gil::wait_for_arrivals();
    let arrival = Arrival::new();
    let object = timer.0;
    let job = Box::new(move || {
        let timer = timer;
        gil::as_new_thread(arrival, |py| run(py, timer, firing));
    });
    if let Err((_, job)) = raddle::thread::spawn(None, None, job) {
        gil::as_new_thread(Arrival::new(), |py| {
            // SAFETY: attached; the reference is the heap's, given up here.
            let timer = unsafe { Bound::<PyAny>::from_owned_ptr(py, object) };
            if let Err(error) = gil::method(&timer, "_fire", &[&py.None().into_bound(py)]) {
                gil::unraisable(py, error, timer.as_ptr());
            }
            // With the `Firing`, and the arrival of a thread that does not come.
            drop(job);
            gil::release(timer);
        });
    }
}

/// In the timer's thread.
fn run(py: Python<'_>, timer: Held, firing: Firing) -> Option<Leaving> {
    // SAFETY: attached; the reference is the heap's, given up below.
    let timer = unsafe { Bound::<PyAny>::from_owned_ptr(py, timer.0) };
    let mut record = None;
    let result = (|| {
        let record = record.insert(crate::thread::of_this_thread(py)?);
        let due = gil::truth(&gil::method(&timer, "_fire", &[record])?)?;
        drop(firing);
        if due {
            gil::release(gil::method(&timer, "_bootstrap", &[])?);
        }
        Ok(())
    })();
    if let Err(error) = result {
        gil::unraisable_in_thread(py, error, timer.as_ptr());
    }
    let leaving = record.and_then(|record| {
        let leaving = crate::thread::leave(&record);
        gil::release(record);
        leaving
    });
    gil::release(timer);
    leaving
}

/// Adds a timer that is due in this many seconds; the number cancels it.
pub(crate) fn add(timer: &Bound<'_, PyAny>, seconds: f64) -> PyResult<u64> {
    let nanoseconds = if seconds > 0.0 { (seconds * 1e9).ceil() as u64 } else { 0 };
    let deadline = Deadline::at(now().saturating_add(nanoseconds).min(u64::MAX - 1));
    let held = Held(timer.clone().into_ptr());
    match TIMERS.add(deadline, held) {
        Ok(ticket) => Ok(ticket.to_bits()),
        Err(held) => {
            // SAFETY: attached; the reference taken above.
            unsafe { ffi::Py_DECREF(held.0) };
            Err(PyRuntimeError::new_err("can't start new thread"))
        }
    }
}

/// Takes a timer out; false if it has fired or was taken out before.
pub(crate) fn cancel(ticket: u64) -> bool {
    match Ticket::from_bits(ticket).and_then(|ticket| TIMERS.cancel(ticket)) {
        Some(held) => {
            // SAFETY: attached; the heap's reference.
            unsafe { gil::decref(held.0) };
            true
        }
        None => false,
    }
}

/// Whether a timer is still to come.
pub(crate) fn is_pending(ticket: u64) -> bool {
    Ticket::from_bits(ticket).is_some_and(|ticket| TIMERS.is_pending(ticket))
}

/// Whether a timer is due and has not got its thread yet.
pub(crate) fn is_serving() -> bool {
    TIMERS.is_serving() || FIRING.load(Ordering::SeqCst) > 0
}

/// How many are to come.
pub(crate) fn count() -> usize {
    TIMERS.len()
}

/// The timers to come, in no order.
pub(crate) fn pending(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let mut found = Vec::new();
    TIMERS.for_each(|held| {
        // SAFETY: attached; the heap keeps the object alive.
        unsafe { ffi::Py_INCREF(held.0) };
        found.push(held.0);
    });
    let list = PyList::empty(py);
    for timer in found {
        // SAFETY: the reference taken above.
        list.append(unsafe { Bound::<PyAny>::from_owned_ptr(py, timer) }).map_err(|_| fetch(py))?;
    }
    Ok(list)
}

/// Takes all out, without a call, and lets no more in: at exit, when only daemons are left.
pub(crate) fn close() {
    for held in TIMERS.close() {
        // SAFETY: attached; the heap's reference.
        unsafe { gil::decref(held.0) };
    }
}

/// Before a fork, detached: without timers there is no thread for them.
pub(crate) fn retire() {
    TIMERS.retire();
}

/// In a forked child: the parent's timers do not exist here.
pub(crate) fn after_fork_in_child() {
    TIMERS.after_fork_in_child();
    FIRING.store(0, Ordering::SeqCst);
}
