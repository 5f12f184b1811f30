//! Open queues: those that a program reaches into, served by the algorithm of `raddle._open_queue`.
//!
//! A queue is opened once and for good: by reading one of its [`parts`], or by a subclass that overrides one of the
//! hooks. From then on the core refuses its calls as [`NotPut::Open`](super::transfer::NotPut), and they go there.

use super::{Me, PyQueue, is_plain, names};
use crate::error::entry_or;
use crate::gil;
use crate::lock::boolean;
use crate::native::{methods, noargs, one, run};
use crate::observe;
use crate::types::Slot;
use pyo3::exceptions::PyAttributeError;
use pyo3::types::{PyAnyMethods, PyList, PyListMethods, PyTypeMethods};
use pyo3::{Bound, IntoPyObjectExt, PyAny, PyResult, Python, ffi};
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::Ordering;

/// Calls a function of `raddle._open_queue` with the queue and what follows.
pub(super) fn call<'py>(
    py: Python<'py>,
    this: Me<'_>,
    name: &str,
    args: &[Bound<'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let function = names()?.open.bind(py).getattr(name)?;
    let mut all = vec![this.bound(py)];
    all.extend_from_slice(args);
    gil::call_tuple(&function, observe::tuple(py, &all)?.as_any(), None)
}

/// The same, for a method of the queue: a new reference.
pub(super) fn reply(py: Python<'_>, this: Me<'_>, name: &str) -> PyResult<*mut ffi::PyObject> {
    Ok(call(py, this, name, &[])?.into_ptr())
}

/// Opens a queue: its items move to a container of the standard library's kind.
fn open(py: Python<'_>, this: Me<'_>) -> PyResult<()> {
    if this.open.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    let (items, unfinished, closed) = this.queue.seal();
    let list = PyList::empty(py);
    for item in items {
        list.append(item.into_bound(py))?;
    }
    let arguments = [list.into_any(), unfinished.into_bound_py_any(py)?, closed.into_bound_py_any(py)?];
    call(py, this, "open_queue", &arguments)?;
    Ok(())
}

/// Opens a queue that is being made, if its type wants that; `maxsize` as it was given.
pub(super) fn init(py: Python<'_>, this: Me<'_>, maxsize: Option<Bound<'_, PyAny>>) -> PyResult<()> {
    if !has_hooks(py, this)? {
        return Ok(());
    }
    this.open.store(true, Ordering::Release);
    drop(this.queue.seal());
    let maxsize = maxsize.unwrap_or(0i32.into_bound_py_any(py)?);
    call(py, this, "init", &[maxsize]).map(drop)
}

// Parts

/// The part of an open queue with the name that the attribute's closure carries.
unsafe extern "C" fn py_part(object: *mut ffi::PyObject, name: *mut c_void) -> *mut ffi::PyObject {
    let body = |py: Python<'_>, this: Me<'_>| {
        // SAFETY: the closure is the name in the attribute table.
        let name = unsafe { CStr::from_ptr(name.cast()) }.to_str().unwrap_or_default();
        open(py, this)?;
        match this.bound(py).getattr("__dict__")?.get_item(name) {
            Ok(part) => Ok(part.into_ptr()),
            Err(_) => Err(PyAttributeError::new_err(format!(
                "'{}' object has no attribute '{name}'",
                this.bound(py).get_type().name()?
            ))),
        }
    };
    // SAFETY: an attribute of the type.
    unsafe { run::<PyQueue>(object, body) }
}

unsafe extern "C" fn set_part(object: *mut ffi::PyObject, value: *mut ffi::PyObject, name: *mut c_void) -> c_int {
    entry_or(-1, |py| {
        // SAFETY: as in `py_part`; `value` is null for a deletion.
        let (this, name, value) = unsafe {
            let value = Bound::<PyAny>::from_borrowed_ptr_or_opt(py, value);
            (Me::from_ptr(object), CStr::from_ptr(name.cast()), value)
        };
        open(py, this)?;
        let dict = this.bound(py).getattr("__dict__")?;
        let name = name.to_str().unwrap_or_default();
        match value {
            Some(value) => dict.set_item(name, value)?,
            None => dict.del_item(name)?,
        }
        Ok(0)
    })
}

/// A part that a closed queue can tell of without being opened.
macro_rules! part_or {
    ($name:ident, $closed:expr) => {
        unsafe extern "C" fn $name(object: *mut ffi::PyObject, part: *mut c_void) -> *mut ffi::PyObject {
            // SAFETY: an attribute of the type, whose closure is its name.
            unsafe {
                let this = Me::from_ptr(object);
                if this.is_open() { py_part(object, part) } else { ($closed)(this) }
            }
        }
    };
}
part_or!(py_unfinished, |this: Me<'_>| ffi::PyLong_FromSize_t(this.queue.unfinished()));
part_or!(py_is_shutdown, |this: Me<'_>| boolean(this.queue.is_closed()));

fn part(name: &'static CStr, get: ffi::getter, doc: &'static CStr) -> ffi::PyGetSetDef {
    let closure = name.as_ptr().cast_mut().cast();
    ffi::PyGetSetDef { name: name.as_ptr(), get: Some(get), set: Some(set_part), doc: doc.as_ptr(), closure }
}

/// The attributes of the standard library's queue that an open one has.
pub(super) fn parts() -> Vec<ffi::PyGetSetDef> {
    vec![
        part(c"queue", py_part, c"The container. Reading it opens the queue: see the documentation."),
        part(c"mutex", py_part, c"The lock of an open queue."),
        part(c"not_empty", py_part, c"The condition of those who wait for an item, of an open queue."),
        part(c"not_full", py_part, c"The condition of those who wait for room, of an open queue."),
        part(c"all_tasks_done", py_part, c"The condition of those who join, of an open queue."),
        part(c"unfinished_tasks", py_unfinished, c"Items put whose work is not reported done."),
        part(c"is_shutdown", py_is_shutdown, c"Whether it is shut down."),
    ]
}

// Hooks: what a subclass overrides, and what its `super()` calls reach

const HOOKS: [&str; 4] = ["_init", "_put", "_get", "_qsize"];

/// Whether a subclass overrides what an open queue runs on.
fn has_hooks(py: Python<'_>, this: Me<'_>) -> PyResult<bool> {
    if is_plain(this) {
        return Ok(false);
    }
    let ty = this.bound(py).get_type();
    let base = crate::types::get(py, Slot::Queue);
    for hook in HOOKS {
        if ty.getattr(hook)?.as_ptr() != base.getattr(hook)?.as_ptr() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn hook<'py>(py: Python<'py>, this: Me<'_>, name: &str, args: &[Bound<'py, PyAny>]) -> PyResult<*mut ffi::PyObject> {
    open(py, this)?;
    Ok(call(py, this, name, args)?.into_ptr())
}

one!(hook_init, PyQueue, |_, this, maxsize| hook(maxsize.py(), this, "hook_init", &[maxsize]));
one!(hook_put, PyQueue, |_, this, item| hook(item.py(), this, "hook_put", &[item]));
noargs!(hook_get, PyQueue, |py, this| hook(py, this, "hook_get", &[]));
noargs!(hook_qsize, PyQueue, |py, this| hook(py, this, "hook_qsize", &[]));

/// The hooks as methods.
pub(super) fn hooks() -> Vec<ffi::PyMethodDef> {
    methods! {
        o "_init" = hook_init, "Make the container. For subclasses to override.";
        o "_put" = hook_put, "Put into the container. For subclasses to override.";
        noargs "_get" = hook_get, "Take from the container. For subclasses to override.";
        noargs "_qsize" = hook_qsize, "Count the container. For subclasses to override.";
    }
}
