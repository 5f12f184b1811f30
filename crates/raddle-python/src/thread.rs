//! `ThreadRecord`: the part of `raddle.threading.Thread` that the core keeps.

use crate::args::{self, Patience, patience};
use crate::error::{entry, fetch};
use crate::gil::{self, Arrival, PyHost};
use crate::lock::{boolean, none};
use crate::native::{Entry, Native, This, Visit, Which, allocate, core, fast, get, methods, noargs};
use crate::observe;
use crate::types::{self, Slot};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::types::{PyAnyMethods, PyList, PyListMethods, PyString};
use pyo3::{Bound, PyAny, PyResult, Python, ffi};
use raddle::park::{Deadline, Parking, Stop};
use raddle::primitive::Spin;
use raddle::sync::Event;
use raddle::trace::Kind;
use raddle::trace::thread::{Life, Thread};
use std::ffi::{CStr, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A record, and the Thread object that it is of: what a join of it is shown to wait for.
pub(crate) struct PyRecord {
    thread: Arc<Thread>,
    owner: AtomicPtr<ffi::PyObject>,
    /// The record itself while it keeps the process alive, else null.
    keeper: AtomicPtr<ffi::PyObject>,
}

/// The records of threads that keep the process alive, without references: each takes itself out.
struct Keepers(Vec<*mut ffi::PyObject>);

// SAFETY: the pointers are only followed by threads that are attached.
unsafe impl Send for Keepers {}

static KEEPERS: Spin<Keepers> = Spin::new(Keepers(Vec::new()));

/// How many of them have run, and only have to give back what they have.
static LEAVING: AtomicUsize = AtomicUsize::new(0);

/// One of those.
pub(crate) struct Leaving(());

impl Drop for Leaving {
    fn drop(&mut self) {
        LEAVING.fetch_sub(1, Ordering::Release);
    }
}

/// The records of threads that keep the process alive: `[ThreadRecord, ...]`.
pub(crate) fn keepers(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    let found = KEEPERS.lock().0.clone();
    for record in found {
        // SAFETY: attached since the list was read, with nothing in between that collects garbage, so the object, which
        // would have taken itself out, is alive.
        list.append(unsafe { Bound::<PyAny>::from_borrowed_ptr(py, record) })?;
    }
    Ok(list)
}

/// Whether one of them has run and is not through.
pub(crate) fn is_leaving() -> bool {
    LEAVING.load(Ordering::Acquire) > 0
}

/// In a forked child: none of the threads exists, or it is the main thread now.
pub(crate) fn after_fork_in_child() {
    *KEEPERS.lock() = Keepers(Vec::new());
    LEAVING.store(0, Ordering::Relaxed);
}

impl PyRecord {
    /// The process may end without it; whether it might not before.
    fn let_go(&self) -> bool {
        let keeper = self.keeper.swap(std::ptr::null_mut(), Ordering::AcqRel);
        if keeper.is_null() {
            return false;
        }
        let mut keepers = KEEPERS.lock();
        if let Some(at) = keepers.0.iter().position(|other| *other == keeper) {
            keepers.0.swap_remove(at);
        }
        true
    }

    /// The run is over: nobody joins it by its Thread any more. What is returned lasts until nothing of it is left.
    fn leave(&self) -> Option<Leaving> {
        LEAVING.fetch_add(1, Ordering::Relaxed);
        let leaving = Leaving(());
        let kept = self.let_go();
        self.clear();
        kept.then_some(leaving)
    }
}

impl Drop for PyRecord {
    fn drop(&mut self) {
        self.let_go();
        self.clear();
        // The Thread has gone before its record: nobody has its `native_id` any more.
        self.thread.forget();
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

/// A run of a thread: the references that it owns until it has an interpreter to give them back to.
struct Run {
    record: *mut ffi::PyObject,
    bootstrap: *mut ffi::PyObject,
    arrival: Option<Arrival>,
}

// SAFETY: the pointers are only used by threads that are attached.
unsafe impl Send for Run {}

impl Run {
    /// In the new thread, detached: the whole of what it does.
    fn run(mut self) {
        let Some(arrival) = self.arrival.take() else { return };
        gil::as_new_thread(arrival, move |py| {
            // SAFETY: a reference is owned; attached.
            let bootstrap = unsafe { Bound::<PyAny>::from_borrowed_ptr(py, self.bootstrap) };
            match gil::call(&bootstrap, &[]) {
                Ok(result) => gil::release(result),
                Err(error) => gil::unraisable_in_thread(py, error, self.bootstrap),
            }
            gil::release(bootstrap);
            // SAFETY: the record is alive by the reference that is given up below.
            let leaving = unsafe { Me::from_ptr(self.record) }.leave();
            drop(self);
            leaving
        });
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // SAFETY: the references taken in `py_start`; attached, also where no thread could be started.
        unsafe {
            gil::decref(self.bootstrap);
            gil::decref(self.record);
        }
    }
}

unsafe extern "C" {
    /// Since 3.13; a RuntimeError.
    #[cfg_attr(not(Py_3_13), link_name = "PyExc_RuntimeError")]
    static PyExc_PythonFinalizationError: *mut ffi::PyObject;
}

/// A record for the calling thread, which has none yet, as a Python object.
pub(crate) fn of_this_thread(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let object = allocate::<PyRecord>(py, types::pointer(Slot::ThreadRecord).cast())?;
    // SAFETY: a new reference to a new object of the type.
    unsafe {
        Me::from_ptr(object).thread.adopt();
        Ok(Bound::from_owned_ptr(py, object))
    }
}

/// The run of a record made by `of_this_thread` is over.
pub(crate) fn leave(record: &Bound<'_, PyAny>) -> Option<Leaving> {
    // SAFETY: it was made there.
    unsafe { Me::from_ptr(record.as_ptr()) }.leave()
}

/// Starts a thread of the operating system that is this record's, and calls what it is given.
unsafe extern "C" fn py_start(object: *mut ffi::PyObject, bootstrap: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        if gil::is_finalizing() {
            // SAFETY: attached; a class of the interpreter.
            unsafe {
                let text = c"can't create new thread at interpreter shutdown";
                ffi::PyErr_SetString(PyExc_PythonFinalizationError, text.as_ptr());
            }
            return Err(fetch(py));
        }
        // SAFETY: a method of the type and its argument; `Run` owns these references.
        let this = unsafe {
            ffi::Py_INCREF(object);
            ffi::Py_INCREF(bootstrap);
            Me::from_ptr(object)
        };
        let run = Run { record: object, bootstrap, arrival: Some(Arrival::new()) };
        this.thread.mark_ready();
        let started =
            raddle::thread::spawn(Some(Arc::clone(&this.thread)), gil::stack_size(), Box::new(move || run.run()));
        let Err((_, run)) = started else { return Ok(none()) };
        this.thread.mark_new();
        drop(run);
        Err(PyRuntimeError::new_err("can't start new thread"))
    })
}

/// Waits for the Event that the thread sets when it runs.
unsafe extern "C" fn py_wait_for(_: *mut ffi::PyObject, started: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: an argument; attached.
        if unsafe { ffi::Py_TYPE(started) }.cast() != types::pointer(Slot::Event) {
            return Err(PyTypeError::new_err("an Event is needed"));
        }
        // SAFETY: of that type, and alive as an argument.
        let event: &Event = unsafe { core::<Event>(started) };
        if event.is_set() {
            return Ok(none());
        }
        let host = PyHost::for_start();
        let result = host.detached(|| {
            let mut parking = Parking::new(Kind::Event, event, started as usize, Deadline::NEVER, &host);
            event.wait_slow(&mut parking)
        });
        result.map(|()| none()).map_err(|_| fetch(py))
    })
}

/// `_ThreadHandle.is_done` of CPython 3.13.
unsafe extern "C" fn py_is_done(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    boolean(unsafe { Me::from_ptr(object) }.thread.life() == Life::Dead)
}

/// `_ThreadHandle.ident` of CPython 3.13.
unsafe extern "C" fn py_ident(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: a getter of the type; attached.
    unsafe { ffi::PyLong_FromSize_t(Me::from_ptr(object).thread.token()) }
}

unsafe extern "C" fn py_end(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    this.let_go();
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
        raddle::thread::join(thread, &mut parking)
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

/// The process does not end before the thread does.
unsafe extern "C" fn py_keep(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    unsafe { Me::from_ptr(object) }.keeper.store(object, Ordering::Release);
    KEEPERS.lock().0.push(object);
    none()
}

impl Native for PyRecord {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle._raddle.ThreadRecord";
    const DOC: &'static CStr =
        c"ThreadRecord()\n--\n\nThe core's record of a thread: its state, and what it waits for.";
    const WHICH: Which = Which::Thread;
    const DICT: bool = true;
    const SITE: bool = false; // A record is never asked for its name: the Thread is.

    fn fresh() -> Self {
        PyRecord {
            thread: Thread::new(),
            owner: AtomicPtr::new(std::ptr::null_mut()),
            keeper: AtomicPtr::new(std::ptr::null_mut()),
        }
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
            o "start" = py_start,
                "start($self, bootstrap, /)\n--\n\nCall `bootstrap` in a thread that is this record's to its end.";
            o "wait_for" = py_wait_for,
                "wait_for($self, started, /)\n--\n\nWait until the thread has set this Event.";
            noargs "keep" ("") = py_keep, "The process does not end before the thread does.";
            noargs "ready" ("") = py_ready, "The thread has been asked to start.";
            noargs "adopt" ("") = py_adopt, "Make it the calling thread's own.";
            noargs "end" ("") = py_end, "The thread has ended; those who join it go on.";
            fast "join" (", timeout=None") = py_join, "Wait for the end; False if `timeout` seconds passed first.";
            noargs "is_done" ("") = py_is_done, "Whether the thread has ended.";
            noargs "_set_done" ("") = py_end, "As end().";
            noargs "life" ("") = py_life, "'new', 'ready', 'running' or 'dead'.";
            noargs "waiting" ("") = py_waiting, "(kind, object, since, timed) if it is blocked, else None.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        vec![get::<Self>(c"ident", py_ident, c"What threading.get_ident() is in the thread; 0 before it runs.")]
    }
}
