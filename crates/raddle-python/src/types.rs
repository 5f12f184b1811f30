//! The module's type objects, made once, kept for as long as the process lives.

use pyo3::types::PyAnyMethods;
use pyo3::{Bound, PyAny, PyResult, Python, ffi};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::native::{Native, make_type};

/// The places of the types.
#[derive(Clone, Copy)]
pub(crate) enum Slot {
    Lock,
    RLock,
    Condition,
    Semaphore,
    BoundedSemaphore,
    Event,
    Barrier,
    ThreadRecord,
    Queue,
    LifoQueue,
    PriorityQueue,
    SimpleQueue,
    Scheduler,
    Future,
    Collector,
    Completed,
    Results,
    Token,
    Line,
    Executor,
    SemLock,
}

const COUNT: usize = Slot::SemLock as usize + 1;
static TYPES: [AtomicPtr<ffi::PyObject>; COUNT] = [const { AtomicPtr::new(std::ptr::null_mut()) }; COUNT];

/// Makes a type, remembers it, and adds it to the module under its short name.
pub(crate) fn add<C: Native>(module: &Bound<'_, PyAny>, slot: Slot) -> PyResult<()> {
    let ty = make_type::<C>(module.py())?;
    keep(module, slot, ty.cast())
}

/// Remembers a type and adds it to the module.
pub(crate) fn keep(module: &Bound<'_, PyAny>, slot: Slot, ty: *mut ffi::PyObject) -> PyResult<()> {
    TYPES[slot as usize].store(ty, Ordering::Release);
    let ty = get(module.py(), slot);
    module.setattr(ty.getattr("__name__")?.extract::<String>()?, ty)
}

/// The type object.
#[inline]
pub(crate) fn get(py: Python<'_>, slot: Slot) -> Bound<'_, PyAny> {
    // SAFETY: stored when the module was made, with a reference that is never given back.
    unsafe { Bound::from_borrowed_ptr(py, pointer(slot)) }
}

/// The type object's address.
#[inline]
pub(crate) fn pointer(slot: Slot) -> *mut ffi::PyObject {
    TYPES[slot as usize].load(Ordering::Acquire)
}
