//! `ThreadRecord`: the part of `raddle.threading.Thread` that the core keeps.

use crate::args::{self, Patience, patience};
use crate::error::{entry, fetch};
use crate::gil::PyHost;
use crate::lock::{boolean, none};
use crate::native::{Native, This, Visit, Which, fast, methods, noargs};
use crate::observe;
use pyo3::types::{PyAnyMethods, PyString};
use pyo3::{Bound, PyAny, PyResult, ffi};
use raddle::park::{Parking, Stop};
use raddle::trace::Kind;
use raddle::trace::thread::{Life, Thread};
use std::ffi::{CStr, c_int};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A record, and the Thread object that it is of: what a join of it is shown to wait for.
pub(crate) struct PyRecord {
    thread: Arc<Thread>,
    owner: AtomicPtr<ffi::PyObject>,
}

impl Drop for PyRecord {
    fn drop(&mut self) {
        self.clear();
    }
}

type Me<'a> = This<'a, PyRecord>;

unsafe extern "C" fn py_ready(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    unsafe { Me::from_ptr(object) }.thread.mark_ready();
    none()
}

unsafe extern "C" fn py_adopt(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    unsafe { Me::from_ptr(object) }.thread.adopt();
    none()
}

unsafe extern "C" fn py_end(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    this.thread.end();
    this.clear();
    none()
}

fast!(py_join, PyRecord, |py, this, fast| {
    if this.thread.life() == Life::Dead {
        return Ok(boolean(true));
    }
    let [timeout] = args::fast(py, "join", ["timeout"], 1, fast)?;
    if timeout.as_ref().is_some_and(|timeout| timeout.extract::<f64>().is_ok_and(f64::is_nan)) {
        return Err(pyo3::exceptions::PyValueError::new_err("Invalid value NaN (not a number)"));
    }
    let Patience::Until(deadline) = patience(timeout.as_ref())? else {
        return Ok(boolean(false));
    };
    args::check(deadline)?;
    let owner = this.owner.load(Ordering::Acquire);
    let name = if owner.is_null() { this.address() } else { owner as usize };
    let thread: &Thread = &this.thread;
    let host = PyHost::new();
    let result = host.detached(|| {
        let mut parking = Parking::new(Kind::Join, thread, name, deadline, &host);
        thread.join_slow(&mut parking)
    });
    match result {
        Ok(()) => Ok(boolean(true)),
        Err(Stop::TimedOut) => Ok(boolean(false)),
        Err(Stop::Interrupted) => Err(fetch(py)),
    }
});

unsafe extern "C" fn py_life(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let life = match unsafe { Me::from_ptr(object) }.thread.life() {
            Life::New => "new",
            Life::Ready => "ready",
            Life::Running => "running",
            Life::Dead => "dead",
        };
        Ok(PyString::intern(py, life).into_ptr())
    })
}

noargs!(py_waiting, PyRecord, |py, this| { Ok(observe::wait_of(py, &this.thread)?.into_ptr()) });

/// Ties the record to its Thread object, until the thread ends.
unsafe extern "C" fn py_belong(object: *mut ffi::PyObject, owner: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type and its argument; a reference is taken for the record.
    unsafe {
        ffi::Py_INCREF(owner);
        let old = Me::from_ptr(object).owner.swap(owner, Ordering::AcqRel);
        ffi::Py_XDECREF(old);
    }
    none()
}

impl Native for PyRecord {
    const NAME: &'static CStr = c"raddle._raddle.ThreadRecord";
    const DOC: &'static CStr =
        c"ThreadRecord()\n--\n\nThe core's record of a thread: its state, and what it waits for.";
    const WHICH: Which = Which::Thread;
    const DICT: bool = true;

    fn fresh() -> Self {
        PyRecord { thread: Thread::new(), owner: AtomicPtr::new(std::ptr::null_mut()) }
    }

    fn init(_: Me<'_>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let [] = args::tuple("ThreadRecord", [], 0, args, kwargs)?;
        Ok(())
    }

    fn traverse(&self, visit: &Visit) -> c_int {
        visit.call(self.owner.load(Ordering::Relaxed))
    }

    fn clear(&self) {
        let owner = self.owner.swap(std::ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: the core owned this reference; attached.
        unsafe { crate::gil::decref(owner) };
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            o "belong" = py_belong, "belong($self, thread, /)\n--\n\nTie the record to its Thread until it ends.";
            noargs "ready" ("") = py_ready, "The thread has been asked to start.";
            noargs "adopt" ("") = py_adopt, "Make it the calling thread's own.";
            noargs "end" ("") = py_end, "The thread has ended; those who join it go on.";
            fast "join" (", timeout=None") = py_join, "Wait for the end; False if `timeout` seconds passed first.";
            noargs "life" ("") = py_life, "'new', 'ready', 'running' or 'dead'.";
            noargs "waiting" ("") = py_waiting, "(kind, object, since, timed) if it is blocked, else None.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        Vec::new()
    }
}
