//! Futures of exactly the class that programs use: made and freed without what a class written in Python costs.
//!
//! `raddle.concurrent.futures.Future` has to be a class of Python's making, since it derives from the standard
//! library's. What the interpreter does for instances of such a class is right for any class, and takes longer than
//! all the rest of a future's life. So this one class gets slots of our own: it is called without argument tuples, its
//! instances go without a search for what a subclass may have added, their memory is kept for the next, and its
//! methods are its own, which lets the interpreter's inline caches hold. Subclasses have what they always had.
//!
//! The garbage collector does not know them from the start. While a task is in line, or runs, the line or the worker
//! holds the future, and when it is over it refers to its value only: many are never part of a cycle, and those that
//! may become part of one are made known then ([`track`]).

use crate::args;
use crate::error::{entry, fetch};
use crate::future::{Me, PyFuture};
use crate::gil;
use crate::lock::none;
use crate::native::{self, Native, Pile, fast};
use pyo3::types::PyAnyMethods;
use pyo3::{Bound, PyAny, PyResult, Python, ffi};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// The class, and its slots as they were: a program that puts its own `__init__` on it gets that called.
struct Class {
    class: *mut ffi::PyTypeObject,
    new: Option<ffi::newfunc>,
    init: Option<ffi::initproc>,
}

// SAFETY: the class lives as long as the process.
unsafe impl Send for Class {}
// SAFETY: as above; it is only read.
unsafe impl Sync for Class {}

static CLASS: OnceLock<Class> = OnceLock::new();

/// Takes over the class that is given, a subclass of the core's future written in Python.
pub(crate) fn adopt(class: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = class.py();
    let ty = class.as_ptr().cast::<ffi::PyTypeObject>();
    let mut methods = PyFuture::methods();
    methods.push(native::method_fast(c"__setattr__", py_setattr, c"Implement setattr(self, name, value)."));
    for method in methods.leak() {
        // SAFETY: a live type, and a row of a table that is never freed.
        let descriptor = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(ty, method))? };
        class.setattr(descriptor.getattr("__name__")?.extract::<String>()?, descriptor)?;
    }
    // SAFETY: a live class, which has no instance yet and which no other thread knows.
    unsafe {
        let kept = Class { class: ty, new: (*ty).tp_new, init: (*ty).tp_init };
        if CLASS.set(kept).is_ok() && !cfg!(Py_GIL_DISABLED) {
            ffi::Py_INCREF(ty.cast());
            (*ty).tp_vectorcall = Some(call);
            (*ty).tp_dealloc = Some(dealloc);
            ffi::PyType_Modified(ty);
        }
    }
    Ok(())
}

// Attributes that a program gives to a future may lead back to it.

fast!(py_setattr, PyFuture, |py, this, fast| {
    let [name, value] = args::fast(py, "__setattr__", ["name", "value"], 2, fast)?;
    let (Some(name), Some(value)) = (name, value) else { unreachable!("both are wanted") };
    track(this);
    // SAFETY: live objects; attached.
    match unsafe { ffi::PyObject_GenericSetAttr(this.as_ptr(), name.as_ptr(), value.as_ptr()) } {
        0 => Ok(none()),
        _ => Err(fetch(py)),
    }
});

/// Gets the `__dict__` of a future.
pub(crate) unsafe extern "C" fn py_dict(object: *mut ffi::PyObject, closure: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    unsafe {
        track(Me::from_ptr(object));
        ffi::PyObject_GenericGetDict(object, closure)
    }
}

/// Sets it.
pub(crate) unsafe extern "C" fn py_set_dict(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    closure: *mut c_void,
) -> c_int {
    // SAFETY: an attribute of the type.
    unsafe {
        track(Me::from_ptr(object));
        ffi::PyObject_GenericSetDict(object, value, closure)
    }
}

/// Makes a future known to the garbage collector: it may be part of a cycle from now on.
#[inline]
pub(crate) fn track(this: Me<'_>) {
    if !this.is_tracked() {
        this.set_tracked(true);
        // SAFETY: a live, whole object of a type that takes part in garbage collection, not tracked yet; attached.
        unsafe { ffi::PyObject_GC_Track(this.as_ptr().cast()) };
    }
}

/// The same, if the future is to have this value and that can be part of a cycle.
#[inline]
pub(crate) fn track_with(this: Me<'_>, value: &Bound<'_, PyAny>) {
    // SAFETY: a live object.
    if unsafe { ffi::PyType_IS_GC(ffi::Py_TYPE(value.as_ptr())) } != 0 {
        track(this);
    }
}

/// Whether an object is of exactly the class.
///
/// # Safety
/// A live object.
#[inline]
pub(crate) unsafe fn is(object: *mut ffi::PyObject) -> bool {
    // SAFETY: the caller's.
    CLASS.get().is_some_and(|known| known.class == unsafe { ffi::Py_TYPE(object) })
}

/// A new future of the class, not yet known to the garbage collector.
#[inline]
pub(crate) fn make(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let Some(known) = CLASS.get() else {
        return Err(pyo3::exceptions::PyRuntimeError::new_err("raddle.concurrent.futures has not been imported"));
    };
    known.make(py)
}

impl Class {
    /// See [`make`].
    #[inline]
    fn make<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let object = match KEPT.take() {
            // SAFETY: memory of an instance of exactly this class.
            Some(object) => unsafe {
                native::again::<PyFuture>(self.class, object);
                object
            },
            None => {
                let object = native::allocate::<PyFuture>(py, self.class)?;
                if !cfg!(Py_GIL_DISABLED) {
                    // SAFETY: a new object, which the interpreter has tracked.
                    unsafe { ffi::PyObject_GC_UnTrack(object.cast()) };
                }
                object
            }
        };
        if !cfg!(Py_GIL_DISABLED) {
            // SAFETY: just made.
            unsafe { Me::from_ptr(object) }.set_tracked(false);
        }
        // SAFETY: as above.
        Ok(unsafe { Bound::from_owned_ptr(py, object) })
    }

    /// Whether a type is the class, with its slots as they were.
    #[inline]
    fn is_unchanged(&self, ty: &ffi::PyTypeObject) -> bool {
        std::ptr::eq(self.class, ty)
            && self.new.map(|new| new as usize) == ty.tp_new.map(|new| new as usize)
            && self.init.map(|init| init as usize) == ty.tp_init.map(|init| init as usize)
    }
}

/// `Future(...)`. Never inherited by subclasses.
unsafe extern "C" fn call(
    class: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: usize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: called on the class, which lives.
        let ty = unsafe { &*class.cast::<ffi::PyTypeObject>() };
        let positional = count & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        if positional == 0
            && keywords.is_null()
            && let Some(known) = CLASS.get()
            && known.is_unchanged(ty)
        {
            return known.make(py).map(Bound::into_ptr);
        }
        // SAFETY: live objects; the arguments are those of this call.
        let (class, all) = unsafe {
            let named = Bound::from_borrowed_ptr_or_opt(py, keywords).map_or(0, |names| names.len().unwrap_or(0));
            let mut all = vec![class];
            all.extend((0..positional + named).map(|at| *args.add(at)));
            (Bound::from_borrowed_ptr(py, class), all)
        };
        let call = gil::attribute(&class.get_type().into_any(), "__call__")?;
        // SAFETY: as above, with the class in front.
        unsafe { gil::call_raw(&call, all.as_ptr(), positional + 1, keywords) }.map(Bound::into_ptr)
    })
}

/// Memory of so many futures is kept, 200 bytes each. To have it from the operating system page by page takes as long as
/// all the rest of a task of little work.
const KEEP: usize = 1 << 16;
/// The memory of futures that have gone.
static KEPT: Pile = Pile::new();

/// How deep futures that are the values of futures may be freed within each other: the stack is finite.
const DEEP: usize = 40;
/// How deep they are now, in all threads. Changed only attached.
static DEPTH: AtomicUsize = AtomicUsize::new(0);
/// Those that go when the outermost is through.
static LATER: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());

/// The last reference to a future of the class has gone, or what a subclass added to one is gone already.
unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter passes an instance whose last reference is gone, and so it stays unless a finalizer
    // makes a new one.
    unsafe {
        let future = Me::from_ptr(object);
        if future.is_unseen() && !gil::finalize(object) {
            return;
        }
        if future.is_tracked() {
            ffi::PyObject_GC_UnTrack(object.cast());
        }
        let depth = DEPTH.load(Ordering::Relaxed);
        if depth >= DEEP {
            return put_later(object);
        }
        DEPTH.store(depth + 1, Ordering::Relaxed);
        take_apart(object);
        // Other threads may have had the interpreter meanwhile.
        let depth = DEPTH.load(Ordering::Relaxed) - 1;
        DEPTH.store(depth, Ordering::Relaxed);
        if depth == 0 {
            while let Some(object) = take_later() {
                DEPTH.store(1, Ordering::Relaxed);
                take_apart(object);
                DEPTH.store(DEPTH.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
            }
        }
    }
}

/// Puts a future away that is to go later. They are linked by what says whose task theirs was run in.
///
/// # Safety
/// A future that nobody refers to any more, whole; attached.
unsafe fn put_later(object: *mut ffi::PyObject) {
    // SAFETY: the caller's.
    let future = unsafe { Me::from_ptr(object) };
    future.outer.store(LATER.swap(object, Ordering::Relaxed), Ordering::Relaxed);
}

/// Takes the one put away last. Called attached.
fn take_later() -> Option<*mut ffi::PyObject> {
    let object = LATER.load(Ordering::Relaxed);
    if object.is_null() {
        return None;
    }
    // SAFETY: put there by `put_later`, and untouched since then.
    let future = unsafe { Me::from_ptr(object) };
    LATER.store(future.outer.load(Ordering::Relaxed), Ordering::Relaxed);
    Some(object)
}

/// Whether the interpreter's inline caches find methods only of objects that have a `__dict__`: memory that is used
/// again has an empty one then.
const NEEDS_DICT: bool = cfg!(not(Py_3_12));

/// The `__dict__` for the next object in the same place: that of the last if it is spare, or a new one; null where
/// none is needed, or there is no memory.
fn spare_dict(spare: *mut ffi::PyObject) -> *mut ffi::PyObject {
    if !spare.is_null() || !NEEDS_DICT {
        return spare;
    }
    // SAFETY: attached.
    unsafe {
        let new = ffi::PyDict_New();
        if new.is_null() {
            ffi::PyErr_Clear();
        }
        new
    }
}

/// Gives back all that an object refers to, and its memory.
///
/// # Safety
/// As `native::end`.
unsafe fn take_apart(object: *mut ffi::PyObject) {
    // SAFETY: the caller's. What has been finalized bears a mark of the collector's, which the next must not.
    unsafe {
        let spare = if NEEDS_DICT { native::take_unused_dict::<PyFuture>(object) } else { null_mut() };
        native::end::<PyFuture>(object);
        let ty = ffi::Py_TYPE(object);
        if is(object) && KEPT.len() < KEEP && ffi::PyObject_GC_IsFinalized(object) == 0 {
            native::put_dict::<PyFuture>(object, spare_dict(spare));
            KEPT.put(object);
        } else {
            ffi::Py_XDECREF(spare);
            if let Some(free) = (*ty).tp_free {
                free(object.cast());
            }
        }
        ffi::Py_DECREF(ty.cast());
    }
}
