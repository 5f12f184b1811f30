//! `Barrier`.

use crate::args::{self, Patience, patience};
use crate::error::{entry, fetch};
use crate::gil::{PyHost, call};
use crate::lock::boolean;
use crate::native::{Entry, Native, This, Visit, Which, fast, get, getter, methods, no_pickle};
use crate::observe;
use pyo3::exceptions::PyValueError;
use pyo3::types::{PyAnyMethods, PyString, PyTypeMethods};
use pyo3::{Bound, PyAny, PyErr, PyResult, Python, ffi};
use raddle::park::{Deadline, Key, Parking, Stop, now};
use raddle::sync::{Arrival, Barrier, Phase};
use raddle::trace::Kind;
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// A barrier with its action and its default time-out.
pub(crate) struct PyBarrier {
    barrier: std::sync::OnceLock<Barrier>,
    action: AtomicPtr<ffi::PyObject>,
    /// Seconds, as bits; NaN for none.
    timeout: AtomicU64,
}

impl Drop for PyBarrier {
    fn drop(&mut self) {
        self.clear();
    }
}

type Me<'a> = This<'a, PyBarrier>;

fn barrier<'a>(this: &'a Me<'_>) -> PyResult<&'a Barrier> {
    let missing = || pyo3::exceptions::PyRuntimeError::new_err("Barrier.__init__() not called");
    this.barrier.get().ok_or_else(missing)
}

fn broken(py: Python<'_>) -> PyErr {
    let error = py.import("threading").and_then(|threading| threading.getattr("BrokenBarrierError")?.call0());
    error.map_or_else(|error| error, PyErr::from_value)
}

/// One sleep for a change of the barrier; false at the deadline.
fn sleep(py: Python<'_>, host: &PyHost, barrier: &Barrier, key: Key, parking: &mut Parking<'_>) -> PyResult<bool> {
    match host.detached(|| barrier.wait_changed(key, parking)) {
        Ok(()) => Ok(true),
        Err(Stop::TimedOut) => Ok(false),
        Err(Stop::Interrupted) => Err(fetch(py)),
    }
}

fn wait(py: Python<'_>, this: Me<'_>, patience: Patience) -> PyResult<usize> {
    let barrier = barrier(&this)?;
    let (index, is_last) = {
        let host = PyHost::new();
        // As the standard library: the time-out is for the round, not for the one before it to leave.
        let mut parking = Parking::new(Kind::Barrier, barrier, this.address(), Deadline::NEVER, &host);
        loop {
            match barrier.arrive().map_err(|_| broken(py))? {
                Arrival::Blocked(key) => sleep(py, &host, barrier, key, &mut parking)?,
                Arrival::Waiting(index) => break (index, false),
                Arrival::Last(index) => break (index, true),
            };
        }
    };
    let result = if is_last { release(py, this, barrier) } else { wait_open(py, this, barrier, patience) };
    barrier.leave();
    result?;
    Ok(index)
}

/// The last to arrive runs the action and lets the others go; an action that raises breaks the barrier.
fn release(py: Python<'_>, this: Me<'_>, barrier: &Barrier) -> PyResult<()> {
    let action = this.action.load(Ordering::Acquire);
    if !action.is_null() {
        // SAFETY: the core holds a reference; another one is taken for the call.
        let action = unsafe { Bound::<PyAny>::from_borrowed_ptr(py, action) };
        if let Err(error) = call(&action, &[]) {
            barrier.abort();
            return Err(error);
        }
    }
    barrier.open();
    Ok(())
}

fn wait_open(py: Python<'_>, this: Me<'_>, barrier: &Barrier, patience: Patience) -> PyResult<()> {
    let deadline = match patience {
        Patience::None => Deadline::at(now()),
        Patience::Until(deadline) => deadline,
    };
    args::check(deadline)?;
    let host = PyHost::new();
    let mut parking = Parking::new(Kind::Barrier, barrier, this.address(), deadline, &host);
    loop {
        let (phase, key) = barrier.phase();
        match phase {
            Phase::Draining => return Ok(()),
            Phase::Broken | Phase::Resetting => return Err(broken(py)),
            Phase::Filling => {}
        }
        let late = deadline.is_past() || !sleep(py, &host, barrier, key, &mut parking)?;
        if late && barrier.phase().0 == Phase::Filling {
            barrier.abort();
            return Err(broken(py));
        }
    }
}

fast!(py_wait, PyBarrier, |py, this, fast| {
    let [timeout] = args::fast(py, "wait", ["timeout"], 1, fast)?;
    let timeout = match timeout.filter(|timeout| !timeout.is_none()) {
        Some(timeout) => Some(timeout),
        None => default_timeout(py, this)?,
    };
    let index = wait(py, this, patience(timeout.as_ref())?)?;
    // SAFETY: attached.
    Ok(unsafe { ffi::PyLong_FromSize_t(index) })
});

fn default_timeout<'py>(py: Python<'py>, this: Me<'_>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let seconds = f64::from_bits(this.timeout.load(Ordering::Relaxed));
    if seconds.is_nan() {
        return Ok(None);
    }
    Ok(Some(pyo3::types::PyFloat::new(py, seconds).into_any()))
}

unsafe extern "C" fn py_reset(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    observe::quietly(|_| {
        barrier(&this)?.reset();
        Ok(())
    })
}

unsafe extern "C" fn py_abort(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    observe::quietly(|_| {
        barrier(&this)?.abort();
        Ok(())
    })
}

unsafe extern "C" fn py_parties(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type; attached.
    entry(|_| Ok(unsafe { ffi::PyLong_FromSize_t(barrier(&Me::from_ptr(object))?.parties()) }))
}

unsafe extern "C" fn py_n_waiting(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type; attached.
    entry(|_| Ok(unsafe { ffi::PyLong_FromSize_t(barrier(&Me::from_ptr(object))?.waiting()) }))
}

unsafe extern "C" fn py_broken(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    entry(|_| Ok(boolean(barrier(&unsafe { Me::from_ptr(object) })?.is_broken())))
}

getter!(py_longest, PyBarrier, |_, this| { Ok(observe::longest_wait(this.address(), barrier(&this)?.longest_wait())) });

unsafe extern "C" fn py_repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a slot of the type.
        let this = unsafe { Me::from_ptr(object) };
        let ty = this.bound(py).get_type();
        let barrier = barrier(&this)?;
        let status = if barrier.is_broken() {
            "broken".to_owned()
        } else {
            format!("waiters={}/{}", barrier.waiting(), barrier.parties())
        };
        let text = format!("<{}.{} at {:#x}: {status}>", ty.module()?, ty.qualname()?, this.address());
        Ok(PyString::new(py, &text).into_ptr())
    })
}

impl Native for PyBarrier {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle.threading.Barrier";
    const DOC: &'static CStr = c"Barrier(parties, action=None, timeout=None, *, name=None)\n--\n\n\
        A number of threads wait for each other and go on together.\n\n\
        The last to arrive runs `action` first. `timeout` is the default of wait(), in seconds.\n\
        Follows CPython's `threading.Barrier`.";
    const WHICH: Which = Which::Barrier;
    const DICT: bool = true;

    fn fresh() -> Self {
        PyBarrier {
            barrier: std::sync::OnceLock::new(),
            action: AtomicPtr::new(std::ptr::null_mut()),
            timeout: AtomicU64::new(f64::NAN.to_bits()),
        }
    }

    fn init(this: Me<'_>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let names = ["parties", "action", "timeout", "name"];
        let [parties, action, timeout, name] = args::tuple("Barrier", names, 3, args, kwargs)?;
        let Some(parties) = parties else {
            return Err(pyo3::exceptions::PyTypeError::new_err(
                "Barrier() missing 1 required positional argument: 'parties'",
            ));
        };
        let parties = parties.extract::<i64>()?;
        let parties = usize::try_from(parties).ok().filter(|parties| *parties > 0);
        let Some(parties) = parties else {
            return Err(PyValueError::new_err("parties must be > 0"));
        };
        this.set_name(args::name(name.as_ref())?);
        if let Some(timeout) = timeout.filter(|timeout| !timeout.is_none()) {
            this.timeout.store(timeout.extract::<f64>()?.to_bits(), Ordering::Relaxed);
        }
        if let Some(action) = action.filter(|action| !action.is_none()) {
            let old = this.action.swap(action.into_ptr(), Ordering::AcqRel);
            // SAFETY: the core owned this reference.
            unsafe { ffi::Py_XDECREF(old) };
        }
        this.barrier.get_or_init(|| Barrier::new(parties));
        Ok(())
    }

    fn traverse(&self, visit: &Visit) -> c_int {
        visit.call(self.action.load(Ordering::Relaxed))
    }

    fn clear(&self) {
        let action = self.action.swap(std::ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: the core owned this reference; attached.
        unsafe { ffi::Py_XDECREF(action) };
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            fast "wait" (", timeout=None") = py_wait,
                "Wait for the other parties; an index that differs from theirs.\n\n\
                 BrokenBarrierError if the barrier breaks or is reset, or if `timeout` seconds pass first, which breaks it.";
            noargs "reset" ("") = py_reset, "Make it whole; those in it get BrokenBarrierError.";
            noargs "abort" ("") = py_abort, "Break it; those in it and to come get BrokenBarrierError.";
            noargs "__reduce__" = no_pickle, "Barriers cannot be pickled.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        vec![
            get::<Self>(c"parties", py_parties, c"How many threads it is for."),
            get::<Self>(c"n_waiting", py_n_waiting, c"How many wait in it now."),
            get::<Self>(c"broken", py_broken, c"Whether it is broken."),
        ]
    }

    fn additions() -> Vec<(&'static CStr, ffi::getter)> {
        vec![(c"waiters", observe::py_waiters as ffi::getter), (c"longest_wait", py_longest as ffi::getter)]
    }

    fn slots() -> Vec<ffi::PyType_Slot> {
        vec![ffi::PyType_Slot { slot: ffi::Py_tp_repr, pfunc: py_repr as *mut c_void }]
    }
}
