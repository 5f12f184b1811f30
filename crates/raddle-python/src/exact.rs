//! Futures of exactly the class that programs use: made and freed without what a class written in Python costs.
//!
//! `raddle.concurrent.futures.Future` has to be a class of Python's making, since it derives from the standard
//! library's. What the interpreter does for instances of such a class is right for any class, and takes longer than
//! all the rest of a future's life. So this one class gets slots of our own: it is called without argument tuples, its
//! instances go without a search for what a subclass may have added, their memory is kept for the next, and its
//! methods are its own, which lets the interpreter's inline caches hold. Subclasses have what they always had.

use crate::error::entry;
use crate::future::{Me, PyFuture};
use crate::gil;
use crate::native::Pile;
use crate::native::{self, Native};
use pyo3::types::PyAnyMethods;
use pyo3::{Bound, PyAny, PyResult, Python, ffi};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    for method in PyFuture::methods().leak() {
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

/// A new future of the class.
#[inline]
pub(crate) fn make(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let Some(known) = CLASS.get() else {
        return Err(pyo3::exceptions::PyRuntimeError::new_err("raddle.concurrent.futures has not been imported"));
    };
    let object = match KEPT.take() {
        // SAFETY: memory of an instance of exactly this class, which is tracked when it is whole.
        Some(object) => unsafe {
            native::again::<PyFuture>(known.class, object);
            ffi::PyObject_GC_Track(object.cast());
            object
        },
        None => native::allocate::<PyFuture>(py, known.class)?,
    };
    // SAFETY: just made.
    Ok(unsafe { Bound::from_owned_ptr(py, object) })
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
        let ours = CLASS.get().is_some_and(|known| {
            std::ptr::eq(known.class, ty)
                && known.new.map(|new| new as usize) == ty.tp_new.map(|new| new as usize)
                && known.init.map(|init| init as usize) == ty.tp_init.map(|init| init as usize)
        });
        let positional = count & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        if ours && positional == 0 && keywords.is_null() {
            return make(py).map(Bound::into_ptr);
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

/// Memory of so many futures is kept, 250 bytes each.
const KEEP: usize = 256;
/// The memory of futures that have gone.
static KEPT: Pile = Pile::new();

/// How deep futures that are the values of futures may be freed within each other: the stack is finite.
const DEEP: usize = 40;
/// How deep they are now, in all threads. Changed only attached.
static DEPTH: AtomicUsize = AtomicUsize::new(0);
/// Those that go when the outermost is through.
static LATER: Pile = Pile::new();

/// The last reference to a future of the class has gone, or what a subclass added to one is gone already.
unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter passes an instance whose last reference is gone, and so it stays unless a finalizer
    // makes a new one.
    unsafe {
        if Me::from_ptr(object).is_unseen() && !gil::finalize(object) {
            return;
        }
        ffi::PyObject_GC_UnTrack(object.cast());
        let depth = DEPTH.load(Ordering::Relaxed);
        if depth >= DEEP {
            return LATER.put(object);
        }
        DEPTH.store(depth + 1, Ordering::Relaxed);
        take_apart(object);
        // Other threads may have had the interpreter meanwhile.
        let depth = DEPTH.load(Ordering::Relaxed) - 1;
        DEPTH.store(depth, Ordering::Relaxed);
        if depth == 0 {
            while let Some(object) = LATER.take() {
                DEPTH.store(1, Ordering::Relaxed);
                take_apart(object);
                DEPTH.store(DEPTH.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
            }
        }
    }
}

/// Gives back all that an object refers to, and its memory.
///
/// # Safety
/// As `native::end`.
unsafe fn take_apart(object: *mut ffi::PyObject) {
    // SAFETY: the caller's. What has been finalized bears a mark of the collector's, which the next must not.
    unsafe {
        native::end::<PyFuture>(object);
        let ty = ffi::Py_TYPE(object);
        let exact = CLASS.get().is_some_and(|known| known.class == ty);
        if exact && KEPT.len() < KEEP && ffi::PyObject_GC_IsFinalized(object) == 0 {
            KEPT.put(object);
        } else if let Some(free) = (*ty).tp_free {
            free(object.cast());
        }
        ffi::Py_DECREF(ty.cast());
    }
}
