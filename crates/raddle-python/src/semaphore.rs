//! `Semaphore` and `BoundedSemaphore`.

use crate::args::{self, Patience, patience};
use crate::error::{entry, fetch};
use crate::gil::PyHost;
use crate::lock::{boolean, none};
use crate::native::{Native, This, Which, get, method_fast, method_noargs, no_pickle};
use crate::types::Slot;
use crate::{observe, site};
use pyo3::exceptions::PyValueError;
use pyo3::types::{PyAnyMethods, PyString, PyTypeMethods};
use pyo3::{Bound, PyAny, PyResult, Python, ffi};
use raddle::park::{Deadline, Parking, Stop, now};
use raddle::primitive::thread_token;
use raddle::sync::Semaphore;
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
    let site = if mode & SITES != 0 { site::here() } else { None };
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
            let (token, site) = holder.map_or((0, None), |holder| (holder.token, holder.site));
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
    if count == 0 && keywords.is_null() {
        // SAFETY: as above.
        return unsafe { py_acquire_plain(object, std::ptr::null_mut()) };
    }
    entry(|py| {
        let [blocking, timeout] = args::fast(py, "acquire", ["blocking", "timeout"], 2, (args, count, keywords))?;
        let blocking = args::truth(blocking.as_ref(), true)?;
        let timeout = timeout.filter(|timeout| !timeout.is_none());
        if !blocking && timeout.is_some() {
            return Err(PyValueError::new_err("can't specify timeout for non-blocking acquire"));
        }
        let patience = if blocking { patience(timeout.as_ref())? } else { Patience::None };
        Ok(boolean(acquire(py, this, patience)?))
    })
}

unsafe extern "C" fn py_enter(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    unsafe { Me::from_ptr(object) }.semaphore.usage().own();
    // SAFETY: as above.
    unsafe { py_acquire_plain(object, std::ptr::null_mut()) }
}

/// `acquire()` without arguments.
unsafe extern "C" fn py_acquire_plain(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if this.semaphore.try_acquire() {
        taken(this, thread_token());
        return boolean(true);
    }
    entry(|py| Ok(boolean(acquire(py, this, Patience::Until(Deadline::NEVER))?)))
}

/// How many permits to give back.
fn count_of(
    py: Python<'_>,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> PyResult<u32> {
    if count == 0 && keywords.is_null() {
        return Ok(1);
    }
    let [n] = args::fast(py, "release", ["n"], 1, (args, count, keywords))?;
    let n = n.map_or(Ok(1), |n| n.extract::<i64>())?;
    if n < 1 {
        return Err(PyValueError::new_err("n must be one or more"));
    }
    u32::try_from(n).map_err(|_| pyo3::exceptions::PyOverflowError::new_err("n is too large"))
}

unsafe extern "C" fn py_release(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if count == 0 && keywords.is_null() {
        before_release(this);
        this.semaphore.release(1);
        return none();
    }
    entry(|py| {
        let count = count_of(py, args, count, keywords)?;
        for _ in 0..count.min(64) {
            before_release(this);
        }
        this.semaphore.release(count);
        Ok(none())
    })
}

unsafe extern "C" fn py_exit(
    object: *mut ffi::PyObject,
    _: *const *mut ffi::PyObject,
    _: ffi::Py_ssize_t,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type; `release` may be a subclass's own.
        let object = unsafe { Bound::<PyAny>::from_borrowed_ptr(py, object) };
        if object.get_type().as_ptr() == crate::types::pointer(Slot::Semaphore) {
            // SAFETY: exactly our type.
            let this = unsafe { Me::from_ptr(object.as_ptr()) };
            before_release(this);
            this.semaphore.release(1);
        } else {
            crate::gil::method(&object, "release", &[])?;
        }
        Ok(none())
    })
}

unsafe extern "C" fn bounded_release(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the subtype, which has the same layout.
        let this = unsafe { Me::from_ptr(object) };
        let count = count_of(py, args, count, keywords)?;
        if !this.semaphore.release_bounded(count, this.initial.load(Ordering::Relaxed)) {
            return Err(PyValueError::new_err("Semaphore released too many times"));
        }
        for _ in 0..count.min(64) {
            before_release(this);
        }
        Ok(none())
    })
}

unsafe extern "C" fn py_value(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type; attached.
    unsafe { ffi::PyLong_FromLongLong(Me::from_ptr(object).semaphore.permits()) }
}

unsafe extern "C" fn py_initial(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type; attached.
    unsafe { ffi::PyLong_FromLongLong(Me::from_ptr(object).initial.load(Ordering::Relaxed)) }
}

unsafe extern "C" fn py_longest(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    let this = unsafe { Me::from_ptr(object) };
    observe::longest_wait(this.address(), this.semaphore.longest_wait())
}

/// Makes it as new, in a forked child: with the permits it began with, as the standard library does.
unsafe extern "C" fn py_reinit(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    this.semaphore.reset(this.semaphore.permits());
    none()
}

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
        vec![
            method_fast(
                c"acquire",
                py_acquire,
                c"acquire($self, /, blocking=True, timeout=None)\n--\n\n\
                  Take a permit and return True; return False if none could be had in time.\n\n\
                  Waits without the GIL for at most `timeout` seconds; signals are handled meanwhile.",
            ),
            method_fast(
                c"release",
                py_release,
                c"release($self, /, n=1)\n--\n\nGive back n permits and wake as many waiters. Never waits.",
            ),
            method_noargs(c"__enter__", py_enter, c"Take a permit."),
            method_fast(c"__exit__", py_exit, c"Give the permit back."),
            method_noargs(c"_at_fork_reinit", py_reinit, c"Make it fresh, in a forked child."),
            method_noargs(c"__reduce__", no_pickle, c"Semaphores cannot be pickled."),
        ]
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
        vec![method_fast(
            c"release",
            bounded_release,
            c"release($self, /, n=1)\n--\n\nGive back n permits. ValueError if there would be more than at first.",
        )]
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
