//! Functions that are pickled as their names: the pickle is made, and read, once.

use crate::error::discard;
use crate::gil;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{ffi, intern};
use std::sync::Mutex;

/// A function at the top of a module, and its pickle.
pub(crate) struct Named {
    pub(crate) pickle: Vec<u8>,
    pub(crate) function: Py<PyAny>,
    pub(crate) name: Py<PyString>,
    module: Py<PyAny>,
}

impl Named {
    /// None if the function is not found by its name.
    pub(crate) fn new(function: &Bound<'_, PyAny>, pickle: &[u8]) -> PyResult<Option<Self>> {
        let py = function.py();
        let name = gil::attribute_of(function, intern!(py, "__qualname__"))?.cast_into::<PyString>()?;
        let module = gil::attribute_of(function, intern!(py, "__module__"))?;
        // SAFETY: attached; a borrowed reference to the dict of all modules, which stays.
        let modules = unsafe { Bound::from_borrowed_ptr(py, ffi::PyImport_GetModuleDict()) };
        let Some(module) = modules.cast::<PyDict>()?.get_item(module)? else { return Ok(None) };
        let module = module.unbind();
        let pickle = pickle.to_vec();
        let named = Self { pickle, function: function.clone().unbind(), name: name.unbind(), module };
        Ok(named.is_current(py).then_some(named))
    }

    /// Whether the name still is the function's.
    pub(crate) fn is_current(&self, py: Python<'_>) -> bool {
        match gil::attribute_of(self.module.bind(py), self.name.bind(py)) {
            Ok(found) => found.is(self.function.bind(py)),
            Err(error) => {
                discard(py, error);
                false
            }
        }
    }
}

/// The function that was used last.
pub(crate) struct Last(Mutex<Option<Named>>);

impl Last {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Runs `with` on what is kept, if that is `wanted` and its name still is its own. Not found while it is in use, as by
    /// a module's `__getattr__` that comes back here.
    pub(crate) fn find<R>(
        &self,
        py: Python<'_>,
        wanted: impl FnOnce(&Named) -> bool,
        with: impl FnOnce(&Named) -> R,
    ) -> Option<R> {
        let named = self.0.try_lock().ok()?.take()?;
        if !wanted(&named) || !named.is_current(py) {
            return None;
        }
        let found = with(&named);
        self.keep(named);
        Some(found)
    }

    /// Keeps a function, and forgets the one before.
    pub(crate) fn keep(&self, named: Named) {
        let before = self.0.try_lock().ok().and_then(|mut place| place.replace(named));
        drop(before);
    }
}
