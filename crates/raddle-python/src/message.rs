//! The bytes of a large message, for objects that are made of them without copying.

use crate::error::fetch;
use pyo3::ffi;
use pyo3::prelude::*;
use raddle::ipc::Bytes;
use raddle::workers::Reply;
use std::ffi::c_int;
use std::sync::Arc;

/// Where the bytes are.
enum Source {
    Reply(Arc<Reply>),
    Bytes(Bytes),
}

/// See the module.
#[pyclass(frozen, module = "raddle._raddle", name = "Message")]
pub(crate) struct PyMessage(Source);

impl From<Arc<Reply>> for PyMessage {
    fn from(reply: Arc<Reply>) -> Self {
        Self(Source::Reply(reply))
    }
}

impl From<Bytes> for PyMessage {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Bytes(bytes))
    }
}

impl PyMessage {
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Source::Reply(reply) => &reply.bytes,
            Source::Bytes(bytes) => bytes,
        }
    }
}

#[pymethods]
impl PyMessage {
    /// Writable: what is made of the message is the only thing that uses it.
    unsafe fn __getbuffer__(this: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes = this.get().bytes();
        // SAFETY: a view to be filled in; the bytes live as long as the object, which the view keeps, and are not moved.
        // They are in writable memory of the message's own, and nothing else reads or writes them once they are decoded.
        let result = unsafe {
            let start = bytes.as_ptr().cast_mut().cast();
            ffi::PyBuffer_FillInfo(view, this.as_ptr(), start, bytes.len() as ffi::Py_ssize_t, 0, flags)
        };
        if result == 0 { Ok(()) } else { Err(fetch(this.py())) }
    }
}
