//! Errors: how a Rust result becomes a Python exception, and how a panic does.

use pyo3::exceptions::PyRuntimeError;
use pyo3::{Bound, PyAny, PyErr, PyResult, Python, ffi};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// An exception that is already set in the interpreter.
pub(crate) fn fetch(py: Python<'_>) -> PyErr {
    PyErr::fetch(py)
}

/// The exception itself, with its traceback.
///
/// PyO3 counts on its own whether a thread is attached, and our functions are not in that count: what it drops then
/// is given back later, or never. So errors that are not raised go through here or through [`discard`].
pub(crate) fn into_value<'py>(py: Python<'py>, error: PyErr) -> Bound<'py, PyAny> {
    error.restore(py);
    // SAFETY: attached, with an exception set, which is taken out: all references are owned.
    unsafe {
        #[cfg(Py_3_12)]
        return Bound::from_owned_ptr(py, ffi::PyErr_GetRaisedException());
        #[cfg(not(Py_3_12))]
        {
            let (mut kind, mut value, mut trace) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
            ffi::PyErr_Fetch(&mut kind, &mut value, &mut trace);
            ffi::PyErr_NormalizeException(&mut kind, &mut value, &mut trace);
            if !trace.is_null() {
                ffi::PyException_SetTraceback(value, trace);
                ffi::Py_DECREF(trace);
            }
            ffi::Py_DECREF(kind);
            Bound::from_owned_ptr(py, value)
        }
    }
}

/// Forgets an error.
pub(crate) fn discard(py: Python<'_>, error: PyErr) {
    crate::gil::release(into_value(py, error));
}

/// Runs the body of a C function: errors are raised, and a panic is raised as `RuntimeError`.
#[inline]
pub(crate) fn entry(body: impl FnOnce(Python<'_>) -> PyResult<*mut ffi::PyObject>) -> *mut ffi::PyObject {
    entry_or(std::ptr::null_mut(), body)
}

/// The same for functions whose failure is another value.
#[inline]
pub(crate) fn entry_or<R>(failed: R, body: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    // SAFETY: C functions of the module are called by the interpreter, attached.
    let py = unsafe { Python::assume_attached() };
    match catch_unwind(AssertUnwindSafe(|| body(py))) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            error.restore(py);
            failed
        }
        Err(panic) => {
            raise_panic(py, &panic);
            failed
        }
    }
}

#[cold]
fn raise_panic(py: Python<'_>, panic: &(dyn std::any::Any + Send)) {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown panic".to_owned());
    PyRuntimeError::new_err(format!("raddle: internal error, please report it: {text}")).restore(py);
}
