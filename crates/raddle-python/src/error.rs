//! Errors: how a Rust result becomes a Python exception, and how a panic does.

use pyo3::exceptions::PyRuntimeError;
use pyo3::{PyErr, PyResult, Python, ffi};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// An exception that is already set in the interpreter.
pub(crate) fn fetch(py: Python<'_>) -> PyErr {
    PyErr::fetch(py)
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
