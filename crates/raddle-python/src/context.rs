//! The context (`contextvars`) that a task or a callback was given in, and calls that run in a copy of it.
//!
//! Most programs have no context variable set in most threads. A copy of an empty context is as good as any other, so
//! there is one for all who submit from such a context, and the copy that a call was run in serves for the next as long
//! as the call has set nothing and nobody has kept it. Whether a context is empty is read from the interpreter's
//! structures, whose layout is checked when the module is loaded; where it is not what is expected, each has a copy.

use crate::error::{discard, fetch};
use crate::gil;
use crate::site;
use pyo3::{Bound, PyAny, PyResult, Python, ffi};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// `PyThreadState.context` and `PyContext.ctx_vars`, in bytes.
const IN_STATE: usize = if cfg!(Py_3_12) { 208 } else { 224 };
const VARIABLES: usize = 24;

/// The one empty set of variables. Null: not known, and nothing here is read.
static NOTHING: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());
/// An empty context that is never entered: it stands for all of them.
static EMPTY: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());
/// An empty context that nobody uses, or null.
static SPARE: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());

/// The variables of a context.
///
/// # Safety
/// A live context, of the layout that was checked.
#[inline]
unsafe fn variables(context: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the caller's.
    unsafe { *context.cast::<u8>().add(VARIABLES).cast::<*mut ffi::PyObject>() }
}

/// The calling thread's context, or null if it has none yet.
///
/// # Safety
/// Attached, with the layout checked.
#[inline]
unsafe fn current() -> *mut ffi::PyObject {
    // SAFETY: the caller's.
    unsafe { *site::state().add(IN_STATE).cast::<*mut ffi::PyObject>() }
}

/// Looks whether the layout is the one expected. Called once, before any of the rest.
pub(crate) fn check(py: Python<'_>) {
    if !cfg!(all(Py_3_11, not(Py_3_14), not(Py_GIL_DISABLED), target_pointer_width = "64")) {
        return;
    }
    match look(py) {
        Ok(Some((nothing, empty))) => {
            EMPTY.store(empty.into_ptr(), Ordering::Relaxed);
            NOTHING.store(nothing, Ordering::Relaxed);
        }
        Ok(None) => {}
        Err(error) => discard(py, error),
    }
}

/// The empty set of variables and an empty context, if the layout is the one expected.
fn look(py: Python<'_>) -> PyResult<Option<(*mut ffi::PyObject, Bound<'_, PyAny>)>> {
    // SAFETY: attached; new references or null. What is read lies within the thread's state and within contexts, which
    // are larger than that on the versions that `check` admits; pointers are compared and not followed.
    unsafe {
        let context = Bound::from_owned_ptr_or_err(py, ffi::PyContext_New())?;
        let empty = Bound::from_owned_ptr_or_err(py, ffi::PyContext_New())?;
        let variable = Bound::from_owned_ptr_or_err(py, ffi::PyContextVar_New(c"raddle".as_ptr(), null_mut()))?;
        if ffi::PyContext_Enter(context.as_ptr()) != 0 {
            return Err(fetch(py));
        }
        let nothing = variables(context.as_ptr());
        let mut known = current() == context.as_ptr() && nothing == variables(empty.as_ptr());
        let token = ffi::PyContextVar_Set(variable.as_ptr(), py.None().as_ptr());
        let copy = ffi::PyContext_CopyCurrent();
        if !token.is_null() && !copy.is_null() {
            known &= variables(context.as_ptr()) == variables(copy) && variables(copy) != nothing;
            known &= ffi::PyContextVar_Reset(variable.as_ptr(), token) == 0;
            known &= variables(context.as_ptr()) == nothing;
        }
        ffi::Py_XDECREF(token);
        ffi::Py_XDECREF(copy);
        if ffi::PyContext_Exit(context.as_ptr()) != 0 || !ffi::PyErr_Occurred().is_null() {
            return Err(fetch(py));
        }
        known &= current() != context.as_ptr();
        Ok(known.then_some((nothing, empty)))
    }
}

/// The calling thread's context as it is now, for [`run`].
#[inline]
pub(crate) fn snapshot(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let nothing = NOTHING.load(Ordering::Relaxed);
    if !nothing.is_null() {
        // SAFETY: attached, and the layout is known.
        let context = unsafe { current() };
        // SAFETY: as above; the thread keeps its context.
        if context.is_null() || unsafe { variables(context) } == nothing {
            // SAFETY: kept for ever.
            return Ok(unsafe { Bound::from_borrowed_ptr(py, EMPTY.load(Ordering::Relaxed)) });
        }
    }
    // SAFETY: attached; a new reference or null.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }
}

/// Calls in a context of which nobody else knows: the snapshot itself, or an empty one. A new reference, or null and an
/// exception, as `call` gives it: to move anything larger to and fro takes longer than all the rest.
pub(crate) fn run(
    py: Python<'_>,
    snapshot: Option<&Bound<'_, PyAny>>,
    call: impl FnOnce() -> *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let Some(snapshot) = snapshot else { return call() };
    if snapshot.as_ptr() != EMPTY.load(Ordering::Relaxed) {
        return within(snapshot, call);
    }
    // Attached, and with the GIL: else `EMPTY` is null.
    let spare = SPARE.load(Ordering::Relaxed);
    SPARE.store(null_mut(), Ordering::Relaxed);
    // SAFETY: the reference is the cell's; or else a new one, or null.
    let context = unsafe {
        let context = if spare.is_null() { ffi::PyContext_New() } else { spare };
        let Some(context) = Bound::from_owned_ptr_or_opt(py, context) else { return null_mut() };
        context
    };
    let result = within(&context, call);
    let object = context.as_ptr();
    // SAFETY: a live context of the layout that was checked.
    let unchanged = unsafe { ffi::Py_REFCNT(object) == 1 && variables(object) == NOTHING.load(Ordering::Relaxed) };
    if unchanged && SPARE.load(Ordering::Relaxed).is_null() {
        SPARE.store(context.into_ptr(), Ordering::Relaxed);
    } else {
        gil::release(context);
    }
    result
}

#[inline]
fn within(context: &Bound<'_, PyAny>, call: impl FnOnce() -> *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a live context; attached.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
        return null_mut();
    }
    let result = call();
    // SAFETY: as above; it was entered by this thread, and whatever was entered in between has been left.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } != 0 {
        // SAFETY: a new reference, or null.
        unsafe { gil::decref(result) };
        return null_mut();
    }
    result
}
