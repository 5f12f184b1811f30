//! References to Python objects in the cores of raddle's types.

use crate::gil;
use pyo3::{Bound, PyAny, Python, ffi};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

/// A place for one reference, or none. Changed by one atomic exchange, attached.
#[derive(Default)]
pub(crate) struct Place(AtomicPtr<ffi::PyObject>);

impl Place {
    /// With nothing in it.
    pub(crate) const fn empty() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// The address of what is in it, or null. For looking: the reference may be gone the next moment.
    #[inline]
    pub(crate) fn address(&self) -> *mut ffi::PyObject {
        self.0.load(Ordering::Acquire)
    }

    /// Whether nothing is in it.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.address().is_null()
    }

    /// Puts a reference of the caller's there (null: none), in place of an earlier one, which is given back.
    #[inline]
    pub(crate) fn put(&self, object: *mut ffi::PyObject) {
        let old = self.0.swap(object, Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: the place owned the reference; attached.
            unsafe { gil::decref(old) };
        }
    }

    /// Puts a reference of the caller's there. Nobody else may use the place now, and it is empty.
    #[inline]
    pub(crate) fn fill(&self, object: *mut ffi::PyObject) {
        debug_assert!(self.is_empty());
        self.0.store(object, Ordering::Release);
    }

    /// Takes the reference out. Nobody else may use the place now.
    #[inline]
    pub(crate) fn empty_out<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let object = self.address();
        if object.is_null() {
            return None;
        }
        self.0.store(null_mut(), Ordering::Relaxed);
        // SAFETY: the place owned the reference.
        Some(unsafe { Bound::from_owned_ptr(py, object) })
    }

    /// Puts another reference to the object there.
    pub(crate) fn set(&self, object: &Bound<'_, PyAny>) {
        self.put(object.clone().into_ptr());
    }

    /// Puts a reference there if nothing is; what is there then.
    pub(crate) fn get_or_put<'py>(&self, object: Bound<'py, PyAny>) -> Bound<'py, PyAny> {
        let py = object.py();
        let new = object.into_ptr();
        match self.0.compare_exchange(null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: the place has a reference.
            Ok(_) => unsafe { Bound::from_borrowed_ptr(py, new) },
            Err(there) => {
                // SAFETY: the new reference was not stored; the place has one to what is there.
                unsafe {
                    gil::decref(new);
                    Bound::from_borrowed_ptr(py, there)
                }
            }
        }
    }

    /// Another reference to what is in it. Under the GIL nobody can take it out meanwhile; without, who calls this
    /// has to know that it stays.
    #[inline]
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: the place owns a reference, or is empty.
        unsafe { Bound::from_borrowed_ptr_or_opt(py, self.address()) }
    }

    /// Takes the reference out.
    #[inline]
    pub(crate) fn take<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let object = self.0.swap(null_mut(), Ordering::AcqRel);
        // SAFETY: the place owned the reference, or was empty.
        unsafe { Bound::from_owned_ptr_or_opt(py, object) }
    }
}

impl Drop for Place {
    #[inline]
    fn drop(&mut self) {
        let object = *self.0.get_mut();
        if !object.is_null() {
            // SAFETY: the place owned the reference; cores are dropped attached.
            unsafe { gil::decref(object) };
        }
    }
}

/// A reference to a Python object, given back when dropped: attached, and outside all locks.
pub(crate) struct Item(NonNull<ffi::PyObject>);

// SAFETY: reference counts change only in attached threads; nothing else is done through the pointer.
unsafe impl Send for Item {}

impl Item {
    /// Another reference to a live object; attached.
    #[inline]
    pub(crate) fn new(object: *mut ffi::PyObject) -> Self {
        // SAFETY: a live object; attached.
        unsafe {
            ffi::Py_INCREF(object);
            Item(NonNull::new_unchecked(object))
        }
    }

    /// The object's address.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// The reference itself.
    #[inline]
    pub(crate) fn into_ptr(self) -> *mut ffi::PyObject {
        let object = self.as_ptr();
        std::mem::forget(self);
        object
    }

    /// The reference as a safe one.
    pub(crate) fn into_bound(self, py: Python<'_>) -> Bound<'_, PyAny> {
        // SAFETY: the reference is handed over.
        unsafe { Bound::from_owned_ptr(py, self.into_ptr()) }
    }
}

impl From<Bound<'_, PyAny>> for Item {
    fn from(object: Bound<'_, PyAny>) -> Self {
        // SAFETY: a reference is never null.
        Item(unsafe { NonNull::new_unchecked(object.into_ptr()) })
    }
}

impl Clone for Item {
    fn clone(&self) -> Self {
        Item::new(self.as_ptr())
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        // SAFETY: the item owns the reference; items are dropped attached.
        unsafe { gil::decref(self.as_ptr()) };
    }
}
