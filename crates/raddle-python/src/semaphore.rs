//! `Semaphore` and `BoundedSemaphore`.

use crate::args::{self, Fast, Patience, patience};
use crate::error::{entry, fetch};
use crate::gil::PyHost;
use crate::lock::{boolean, none};
use crate::native::{Entry, Native, This, Which, fast, get, getter, methods, no_pickle, noargs};
use crate::types::Slot;
use crate::{observe, site};
use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::types::{PyAnyMethods, PyString, PyTypeMethods};
use pyo3::{Bound, IntoPyObjectExt, PyAny, PyResult, Python, ffi};
use raddle::park::{Deadline, Parking, Stop, now};
use raddle::primitive::thread_token;
use raddle::sync::Semaphore;
use raddle::trace::thread::has_ended;
use raddle::trace::{Kind, SITES, mode};
use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicI64, Ordering};

/// A semaphore, and how many permits it began with.
#[repr(C)]
pub(crate) struct PySemaphore {
    semaphore: Semaphore,
    initial: AtomicI64,
}

/// The same, with the number it began with as its limit.
#[repr(transparent)]
struct PyBounded(PySemaphore);

type Me<'a> = This<'a, PySemaphore>;

impl PySemaphore {
    pub(crate) fn core(&self) -> &Semaphore {
        &self.semaphore
    }
}

/// The calling thread has a permit.
#[inline]
fn taken(this: Me<'_>, me: usize) {
    let mode = mode();
    let site = site::kept(mode);
    this.semaphore.note_acquired(me, site);
    if mode & !SITES != 0 {
        observe::acquired(Kind::Semaphore, this.address(), site, true);
    }
}

#[inline]
fn before_release(this: Me<'_>) {
    this.semaphore.note_released(thread_token());
    if mode() & !SITES != 0 {
        observe::released(Kind::Semaphore, this.address());
    }
}

fn acquire(py: Python<'_>, this: Me<'_>, patience: Patience) -> PyResult<bool> {
    let me = thread_token();
    if this.semaphore.try_acquire() {
        taken(this, me);
        return Ok(true);
    }
    match patience {
        Patience::None => Ok(false),
        Patience::Until(deadline) => acquire_slow(py, this, me, deadline),
    }
}

#[cold]
fn acquire_slow(py: Python<'_>, this: Me<'_>, me: usize, deadline: Deadline) -> PyResult<bool> {
    args::check(deadline)?;
    let semaphore = &this.semaphore;
    let since = now();
    let host = PyHost::new();
    let result = host.detached(|| {
        let mut parking = Parking::new(Kind::Semaphore, semaphore, this.address(), deadline, &host);
        semaphore.acquire_slow(&mut parking)
    });
    match result {
        Ok(()) => {
            taken(this, me);
            Ok(true)
        }
        Err(Stop::TimedOut) => {
            let holder = semaphore.holders().first().copied();
            let (token, site) = holder.map_or((0, None), |holder| {
                (if has_ended(holder.token, holder.epoch) { 0 } else { holder.token }, holder.site)
            });
            observe::timed_out(py, Kind::Semaphore, this.bound(py), token, site, since);
            Ok(false)
        }
        Err(Stop::Interrupted) => Err(fetch(py)),
    }
}

unsafe extern "C" fn py_acquire(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if count == 0 && keywords.is_null() { acquire_plain(this) } else { acquire_as_told(this, (args, count, keywords)) }
}

unsafe extern "C" fn py_enter(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    this.semaphore.usage().own();
    acquire_plain(this)
}

/// `acquire()` without arguments.
#[inline(always)]
fn acquire_plain(this: Me<'_>) -> *mut ffi::PyObject {
    let me = thread_token();
    if this.semaphore.try_acquire() {
        taken(this, me);
        return boolean(true);
    }
    acquire_by_waiting(this, me)
}

/// Apart, as what has arguments, so that the path above needs little room.
#[cold]
fn acquire_by_waiting(this: Me<'_>, me: usize) -> *mut ffi::PyObject {
    entry(|py| Ok(boolean(acquire_slow(py, this, me, Deadline::NEVER)?)))
}

#[inline(never)]
fn acquire_as_told(this: Me<'_>, fast: Fast) -> *mut ffi::PyObject {
    entry(|py| {
        let [blocking, timeout] = args::fast(py, "acquire", ["blocking", "timeout"], 2, fast)?;
        let blocking = args::truth(blocking.as_ref(), true)?;
        let timeout = timeout.filter(|timeout| !timeout.is_none());
        if !blocking && timeout.is_some() {
            return Err(PyValueError::new_err("can't specify timeout for non-blocking acquire"));
        }
        let patience = if blocking { patience(timeout.as_ref())? } else { Patience::None };
        Ok(boolean(acquire(py, this, patience)?))
    })
}

/// How many permits to give back.
fn count_of(py: Python<'_>, fast: Fast) -> PyResult<u32> {
    let [n] = args::fast(py, "release", ["n"], 1, fast)?;
    let n = n.map_or(Ok(1), |n| n.extract::<i64>())?;
    if n < 1 {
        return Err(PyValueError::new_err("n must be one or more"));
    }
    u32::try_from(n).map_err(|_| PyOverflowError::new_err("n is too large"))
}

/// Notes that the thread gives these back: before it does, so that nobody is taken for a holder of what is free.
fn before_release_of(this: Me<'_>, count: u32) {
    for _ in 0..count.min(64) {
        before_release(this);
    }
}

unsafe extern "C" fn py_release(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if count != 0 || !keywords.is_null() {
        return release_as_told(this, (args, count, keywords));
    }
    before_release(this);
    this.semaphore.release(1);
    none()
}

#[inline(never)]
fn release_as_told(this: Me<'_>, fast: Fast) -> *mut ffi::PyObject {
    entry(|py| {
        let count = count_of(py, fast)?;
        before_release_of(this, count);
        this.semaphore.release(count);
        Ok(none())
    })
}

fast!(py_exit, PySemaphore, |py, this, _| {
    // `release` may be a subclass's own.
    let object = this.bound(py);
    if object.get_type().as_ptr() == crate::types::pointer(Slot::Semaphore) {
        before_release(this);
        this.semaphore.release(1);
    } else {
        crate::gil::method(&object, "release", &[])?;
    }
    Ok(none())
});

fast!(bounded_release, PySemaphore, |py, this, fast| {
    let count = count_of(py, fast)?;
    if !this.semaphore.release_bounded(count, this.initial.load(Ordering::Relaxed)) {
        return Err(PyValueError::new_err("Semaphore released too many times"));
    }
    before_release_of(this, count);
    Ok(none())
});

getter!(py_value, PySemaphore, |py, this| Ok(this.semaphore.permits().into_bound_py_any(py)?.into_ptr()));

getter!(py_initial, PySemaphore, |py, this| {
    Ok(this.initial.load(Ordering::Relaxed).into_bound_py_any(py)?.into_ptr())
});

getter!(py_longest, PySemaphore, |_, this| {
    Ok(observe::longest_wait(this.address(), this.semaphore.longest_wait()))
});

// Makes it as new, in a forked child, but for the permits.
noargs!(py_reinit, PySemaphore, |_, this| {
    this.semaphore.reset(this.semaphore.permits());
    Ok(none())
});

fn repr(object: *mut ffi::PyObject, bounded: bool) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a slot of the type.
        let this = unsafe { Me::from_ptr(object) };
        let ty = this.bound(py).get_type();
        let limit = if bounded { format!("/{}", this.initial.load(Ordering::Relaxed)) } else { String::new() };
        let text = format!(
            "<{}.{} at {:#x}: value={}{limit}>",
            ty.module()?,
            ty.qualname()?,
            this.address(),
            this.semaphore.permits()
        );
        Ok(PyString::new(py, &text).into_ptr())
    })
}

unsafe extern "C" fn py_repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    repr(object, false)
}

unsafe extern "C" fn bounded_repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    repr(object, true)
}

fn init(this: Me<'_>, short: &str, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let [value, name] = args::tuple(short, ["value", "name"], 1, args, kwargs)?;
    this.set_name(args::name(name.as_ref())?);
    let value = match value {
        Some(value) if value.lt(0)? => -1,
        Some(value) => value.extract::<i64>()?,
        None => 1,
    };
    if value < 0 {
        return Err(PyValueError::new_err("semaphore initial value must be >= 0"));
    }
    this.initial.store(value, Ordering::Relaxed);
    this.semaphore.reset(value);
    Ok(())
}

impl Native for PySemaphore {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle.threading.Semaphore";
    const DOC: &'static CStr = c"Semaphore(value=1, *, name=None)\n--\n\n\
        A number of permits. Taking one waits while there is none; any thread may give one back.\n\n\
        Releasing never waits, so that finalizers and signal handlers may.\n\
        Follows CPython's `threading.Semaphore`.";
    const WHICH: Which = Which::Semaphore;
    const DICT: bool = true;

    fn fresh() -> Self {
        PySemaphore { semaphore: Semaphore::new(1), initial: AtomicI64::new(1) }
    }

    fn init(this: Me<'_>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        init(this, "Semaphore", args, kwargs)
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            fast "acquire" (", blocking=True, timeout=None") = py_acquire,
                "Take a permit and return True; return False if none could be had in time.\n\n\
                 Waits without the GIL for at most `timeout` seconds; signals are handled meanwhile.";
            fast "release" (", n=1") = py_release, "Give back n permits and wake as many waiters. Never waits.";
            noargs "__enter__" = py_enter, "Take a permit.";
            fast "__exit__" = py_exit, "Give the permit back.";
            noargs "_at_fork_reinit" = py_reinit, "Make it fresh, in a forked child.";
            noargs "__reduce__" = no_pickle, "Semaphores cannot be pickled.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        vec![
            get::<Self>(c"_value", py_value, c"How many permits are left."),
            get::<Self>(c"_cond", crate::event::py_cond, c"A condition, for programs that look for one."),
        ]
    }

    fn additions() -> Vec<(&'static CStr, ffi::getter)> {
        vec![(c"waiters", observe::py_waiters as ffi::getter), (c"longest_wait", py_longest as ffi::getter)]
    }

    fn slots() -> Vec<ffi::PyType_Slot> {
        vec![ffi::PyType_Slot { slot: ffi::Py_tp_repr, pfunc: py_repr as *mut c_void }]
    }
}

impl Native for PyBounded {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle.threading.BoundedSemaphore";
    const DOC: &'static CStr = c"BoundedSemaphore(value=1, *, name=None)\n--\n\n\
        A Semaphore whose permits never exceed the number it began with: releasing more is a ValueError.\n\n\
        Follows CPython's `threading.BoundedSemaphore`.";
    const WHICH: Which = Which::Semaphore;
    const DICT: bool = true;
    const BASE: Option<Slot> = Some(Slot::Semaphore);

    fn fresh() -> Self {
        PyBounded(PySemaphore::fresh())
    }

    fn init(this: This<'_, Self>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        // SAFETY: the same object; `PyBounded` is transparent.
        init(unsafe { Me::from_ptr(this.as_ptr()) }, "BoundedSemaphore", args, kwargs)
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            fast "release" (", n=1") = bounded_release,
                "Give back n permits. ValueError if there would be more than at first.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        vec![get::<Self>(c"_initial_value", py_initial, c"How many permits it began with.")]
    }

    fn slots() -> Vec<ffi::PyType_Slot> {
        vec![ffi::PyType_Slot { slot: ffi::Py_tp_repr, pfunc: bounded_repr as *mut c_void }]
    }
}

/// Adds both types to the module.
pub(crate) fn add(module: &Bound<'_, PyAny>) -> PyResult<()> {
    crate::types::add::<PySemaphore>(module, Slot::Semaphore)?;
    crate::types::add::<PyBounded>(module, Slot::BoundedSemaphore)
}
