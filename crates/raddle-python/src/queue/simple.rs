//! `SimpleQueue`: a queue without bound and without tasks, which is never shut down and never opened.

use super::{Item, Me, PyQueue, transfer};
use crate::args::{self, Fast, missing};
use crate::error::entry;
use crate::lock::{boolean, none};
use crate::native::{Entry, Native, This, Visit, Which, methods, no_pickle, noargs};
use crate::observe;
use pyo3::{Bound, PyAny, PyResult, ffi};
use raddle::primitive::thread_token;
use raddle::queue::Queue;
use std::ffi::{CStr, c_int};

/// Its core is a queue's, so that a pointer to one is a pointer to the other.
#[repr(transparent)]
pub(super) struct PySimple(PyQueue);

unsafe extern "C" fn py_put(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if count == 1 && keywords.is_null() {
        // SAFETY: one argument was passed.
        return push(this, unsafe { *args });
    }
    put_as_told(this, (args, count, keywords))
}

#[inline(always)]
fn push(this: Me<'_>, item: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // Neither bounded nor ever closed, so there is always room.
    drop(this.queue.try_push_as(thread_token(), Item::new(item)));
    none()
}

#[inline(never)]
fn put_as_told(this: Me<'_>, fast: Fast) -> *mut ffi::PyObject {
    entry(|py| {
        let [item, _, _] = args::fast(py, "put", ["item", "block", "timeout"], 3, fast)?;
        let item = item.ok_or_else(|| missing("put", "item"))?;
        Ok(push(this, item.as_ptr()))
    })
}

noargs!(py_get_nowait, PyQueue, transfer::get_at_once);
noargs!(py_qsize, PyQueue, |_, this| Ok(super::size(this)));
noargs!(py_empty, PyQueue, |_, this| Ok(boolean(this.queue.is_empty())));

impl Native for PySimple {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle.queue.SimpleQueue";
    const DOC: &'static CStr = c"SimpleQueue(*, name=None)\n--\n\n\
        A queue without bound and without task tracking: first come, first served.\n\n\
        put() never waits, and may be called from anywhere. Follows CPython's `queue.SimpleQueue`.";
    const WHICH: Which = Which::SimpleQueue;
    const DICT: bool = true;

    fn fresh() -> Self {
        PySimple(PyQueue::make(Queue::unbounded(), false))
    }

    fn init(this: This<'_, Self>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let [name] = args::tuple("SimpleQueue", ["name"], 0, args, kwargs)?;
        this.set_name(args::name(name.as_ref())?);
        Ok(())
    }

    fn traverse(&self, visit: &Visit) -> c_int {
        self.0.traverse(visit)
    }

    fn clear(&self) {
        drop(self.0.queue.try_pop_many(usize::MAX));
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            fast "put" (", item, block=True, timeout=None") = py_put,
                "Put an item; the other arguments are ignored. Never waits.";
            fast "put_nowait" (", item") = py_put, "Put an item.";
            fast "get" (", block=True, timeout=None") = transfer::py_get,
                "Take the oldest item, waiting while there is none; Empty if nothing came in `timeout` seconds.";
            noargs "get_nowait" ("") = py_get_nowait, "get(block=False).";
            noargs "qsize" ("") = py_qsize, "How many items there are, roughly.";
            noargs "empty" ("") = py_empty, "Whether there are none, roughly.";
            noargs "__reduce__" = no_pickle, "Queues cannot be pickled.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        Vec::new()
    }

    fn additions() -> Vec<(&'static CStr, ffi::getter)> {
        vec![(c"waiters", observe::py_waiters as ffi::getter), (c"longest_wait", super::py_longest)]
    }
}
