//! `Queue`, `LifoQueue`, `PriorityQueue` and `SimpleQueue`.
//!
//! A queue works in one of two ways. **Closed** to the outside, which is the normal one, its items live in the
//! core. It is **opened**, once and for good, when a program reaches into it: by an attribute of the standard
//! library's queue (`queue`, `mutex`, `not_empty`, ...), or by a subclass that overrides `_init`, `_put`,
//! `_get` or `_qsize`. Then the items move to a real deque or list, guarded by a real lock and conditions of
//! raddle's, and every call runs the algorithm of `raddle._open_queue`, so that the program sees what it expects.

mod open;
mod simple;
mod transfer;

use crate::args;
use crate::error::fetch;
use crate::gil::PyHost;
use crate::lock::{boolean, none};
use crate::native::{Entry, Native, This, Visit, Which, fast, get, getter, methods, no_pickle, noargs};
use crate::observe;
use crate::reference::Item;
use crate::types::Slot;
use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyValueError};
use pyo3::types::{PyAnyMethods, PyModule};
use pyo3::{Bound, IntoPyObjectExt, Py, PyAny, PyErr, PyResult, Python, ffi};
use raddle::park::{Deadline, Parking};
use raddle::queue::{Order, Queue, Store, VersionedHeap};
use raddle::trace::Kind;
use std::collections::VecDeque;
use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// What a queue object adds to its head.
#[repr(C)]
pub(crate) struct PyQueue {
    queue: Queue<Item>,
    /// The items are a heap: taking and putting compares them.
    is_heap: bool,
    /// `maxsize` as it was given; null stands for 0.
    maxsize: AtomicPtr<ffi::PyObject>,
    /// Opened: see the module.
    open: AtomicBool,
}

#[repr(transparent)]
struct PyLifo(PyQueue);
#[repr(transparent)]
struct PyPriority(PyQueue);

type Me<'a> = This<'a, PyQueue>;

/// What `raddle.queue` has told: the exceptions, and the algorithm of open queues.
struct Names {
    empty: Py<PyAny>,
    full: Py<PyAny>,
    shut_down: Py<PyAny>,
    open: Py<PyModule>,
}

static NAMES: OnceLock<Names> = OnceLock::new();

/// Says which exceptions to raise, and which module serves open queues.
pub(crate) fn set_names(empty: Py<PyAny>, full: Py<PyAny>, shut_down: Py<PyAny>, open: Py<PyModule>) {
    let _ = NAMES.set(Names { empty, full, shut_down, open });
}

fn names() -> PyResult<&'static Names> {
    NAMES.get().ok_or_else(|| PyRuntimeError::new_err("raddle.queue has not been imported"))
}

fn raise(py: Python<'_>, pick: impl FnOnce(&Names) -> &Py<PyAny>) -> PyErr {
    match names().and_then(|names| pick(names).bind(py).call0()) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

#[cold]
pub(crate) fn empty(py: Python<'_>) -> PyErr {
    raise(py, |names| &names.empty)
}

#[cold]
pub(crate) fn full(py: Python<'_>) -> PyErr {
    raise(py, |names| &names.full)
}

#[cold]
pub(crate) fn shut_down(py: Python<'_>) -> PyErr {
    raise(py, |names| &names.shut_down)
}

impl PyQueue {
    fn make(queue: Queue<Item>, is_heap: bool) -> Self {
        PyQueue { queue, is_heap, maxsize: AtomicPtr::new(std::ptr::null_mut()), open: AtomicBool::new(false) }
    }

    #[inline]
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}

impl Drop for PyQueue {
    fn drop(&mut self) {
        // SAFETY: the core owned this reference; attached.
        unsafe { ffi::Py_XDECREF(*self.maxsize.get_mut()) };
    }
}

/// Whether it is exactly one of our types: a subclass may have a `put` or `get` of its own.
fn is_plain(this: Me<'_>) -> bool {
    // SAFETY: a live object.
    let ty = unsafe { ffi::Py_TYPE(this.as_ptr()) }.cast();
    [Slot::Queue, Slot::LifoQueue, Slot::PriorityQueue].iter().any(|slot| crate::types::pointer(*slot) == ty)
}

/// How many items there are, as a new reference.
fn size(this: Me<'_>) -> *mut ffi::PyObject {
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromSize_t(this.queue.len()) }
}

// Tasks, sizes, shutting down

unsafe extern "C" fn py_task_done(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if !this.is_open() && this.queue.task_done() { none() } else { task_not_done(this) }
}

#[cold]
fn task_not_done(this: Me<'_>) -> *mut ffi::PyObject {
    crate::error::entry(|py| {
        if this.is_open() {
            return open::reply(py, this, "task_done");
        }
        Err(PyValueError::new_err("task_done() called too many times"))
    })
}

noargs!(py_join, PyQueue, |py, this| {
    let queue = &this.queue;
    let host = PyHost::new();
    let mut parking = Parking::new(Kind::QueueJoin, queue, this.address(), Deadline::NEVER, &host);
    while let Some(key) = queue.enroll_joiner() {
        let result = host.detached(|| queue.wait_done(key, &mut parking));
        queue.retire_joiner();
        if result.is_err() {
            return Err(fetch(py));
        }
    }
    drop(parking);
    if this.is_open() { open::reply(py, this, "join") } else { Ok(none()) }
});

noargs!(py_qsize, PyQueue, |py, this| if this.is_open() { open::reply(py, this, "qsize") } else { Ok(size(this)) });

noargs!(py_empty, PyQueue, |py, this| {
    if this.is_open() { open::reply(py, this, "empty") } else { Ok(boolean(this.queue.is_empty())) }
});

noargs!(py_full, PyQueue, |py, this| {
    let capacity = this.queue.capacity();
    let full = || Ok(boolean(capacity > 0 && this.queue.len() >= capacity));
    if this.is_open() { open::reply(py, this, "full") } else { full() }
});

fast!(py_shutdown, PyQueue, |py, this, fast| {
    let [immediate] = args::fast(py, "shutdown", ["immediate"], 1, fast)?;
    let immediate = args::truth(immediate.as_ref(), false)?;
    if this.is_open() {
        open::call(py, this, "shutdown", &[immediate.into_bound_py_any(py)?])?;
    } else {
        drop(this.queue.close(immediate));
    }
    Ok(none())
});

// Attributes

getter!(py_maxsize, PyQueue, |py, this| {
    let maxsize = this.maxsize.load(Ordering::Acquire);
    if maxsize.is_null() {
        return Ok(0i32.into_bound_py_any(py)?.into_ptr());
    }
    // SAFETY: the core holds the reference.
    Ok(unsafe { ffi::Py_NewRef(maxsize) })
});

unsafe extern "C" fn set_maxsize(object: *mut ffi::PyObject, value: *mut ffi::PyObject, _: *mut c_void) -> c_int {
    crate::error::entry_or(-1, |py| {
        // SAFETY: an attribute of the type; `value` is null for a deletion.
        let (this, value) = unsafe { (Me::from_ptr(object), Bound::<PyAny>::from_borrowed_ptr_or_opt(py, value)) };
        bound(this, &value.ok_or_else(|| PyAttributeError::new_err("maxsize cannot be deleted"))?)?;
        Ok(0)
    })
}

/// Sets `maxsize`: what is not positive is no bound.
fn bound(this: Me<'_>, maxsize: &Bound<'_, PyAny>) -> PyResult<()> {
    let number = maxsize.extract::<f64>()?;
    let capacity = if number > 0.0 { number.ceil().min(usize::MAX as f64 / 2.0) as usize } else { 0 };
    let old = this.maxsize.swap(maxsize.clone().into_ptr(), Ordering::AcqRel);
    // SAFETY: the core owned this reference.
    unsafe { ffi::Py_XDECREF(old) };
    if capacity != this.queue.capacity() {
        this.queue.set_capacity(capacity);
    }
    Ok(())
}

getter!(py_longest, PyQueue, |_, this| Ok(observe::longest_wait(this.address(), this.queue.longest_wait())));

fn init(this: Me<'_>, short: &str, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let py = args.py();
    let [maxsize, name] = args::tuple(short, ["maxsize", "name"], 1, args, kwargs)?;
    this.set_name(args::name(name.as_ref())?);
    if let Some(maxsize) = &maxsize {
        bound(this, maxsize)?;
    }
    open::init(py, this, maxsize)
}

fn methods() -> Vec<ffi::PyMethodDef> {
    let own = methods! {
        noargs "task_done" ("") = py_task_done,
            "The work on one item is done. ValueError if called more often than put().";
        noargs "join" ("") = py_join, "Wait until task_done() has been called for every item put.";
        noargs "qsize" ("") = py_qsize, "How many items there are, roughly.";
        noargs "empty" ("") = py_empty, "Whether there are none, roughly.";
        noargs "full" ("") = py_full, "Whether there is no room, roughly.";
        fast "shutdown" (", immediate=False") = py_shutdown,
            "Refuse further items; whoever waits gets ShutDown. `immediate` also drops what is in it.\n\n\
             As CPython 3.13's, on every version.";
        noargs "__reduce__" = no_pickle, "Queues cannot be pickled.";
    };
    [transfer::methods(), own, open::hooks()].concat()
}

fn attributes() -> Vec<ffi::PyGetSetDef> {
    let maxsize = get::<PyQueue>(c"maxsize", py_maxsize, c"The most items at a time; without a bound if not positive.");
    let mut all = open::parts();
    all.push(ffi::PyGetSetDef { set: Some(set_maxsize), ..maxsize });
    all
}

impl Native for PyQueue {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle.queue.Queue";
    const DOC: &'static CStr = c"Queue(maxsize=0, *, name=None)\n--\n\n\
        A queue for any number of producers and consumers: first come, first served.\n\n\
        put(), and get() of what is there, never wait for another thread's Python code, so that finalizers and\n\
        signal handlers may call them. Usable in a forked child. Follows CPython's `queue.Queue`.";
    const WHICH: Which = Which::Queue;
    const DICT: bool = true;

    fn fresh() -> Self {
        PyQueue::make(Queue::unbounded(), false)
    }

    fn init(this: Me<'_>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        init(this, "Queue", args, kwargs)
    }

    fn traverse(&self, visit: &Visit) -> c_int {
        let mut stop = 0;
        self.queue.for_each(|item| {
            if stop == 0 {
                stop = visit.call(item.as_ptr());
            }
        });
        stop
    }

    fn clear(&self) {
        drop(self.queue.close(true));
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods()
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        attributes()
    }

    fn additions() -> Vec<(&'static CStr, ffi::getter)> {
        vec![(c"waiters", observe::py_waiters as ffi::getter), (c"longest_wait", py_longest as ffi::getter)]
    }
}

macro_rules! subtype {
    ($type:ident, $short:literal, $name:expr, $doc:expr, $store:expr, $is_heap:literal) => {
        impl Native for $type {
            type Entry = Entry;
            const NAME: &'static CStr = $name;
            const DOC: &'static CStr = $doc;
            const WHICH: Which = Which::Queue;
            const DICT: bool = true;
            const BASE: Option<Slot> = Some(Slot::Queue);

            fn fresh() -> Self {
                $type(PyQueue::make(Queue::with_store($store, 0), $is_heap))
            }

            fn init(this: This<'_, Self>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
                // SAFETY: the same object; the subtype is transparent.
                init(unsafe { Me::from_ptr(this.as_ptr()) }, $short, args, kwargs)
            }

            fn traverse(&self, visit: &Visit) -> c_int {
                self.0.traverse(visit)
            }

            fn clear(&self) {
                self.0.clear();
            }

            fn methods() -> Vec<ffi::PyMethodDef> {
                Vec::new()
            }

            fn attributes() -> Vec<ffi::PyGetSetDef> {
                Vec::new()
            }
        }
    };
}
subtype!(
    PyLifo,
    "LifoQueue",
    c"raddle.queue.LifoQueue",
    c"LifoQueue(maxsize=0, *, name=None)\n--\n\nA Queue that gives the item that came last.",
    Store::Line(VecDeque::new(), Order::Lifo),
    false
);
subtype!(
    PyPriority,
    "PriorityQueue",
    c"raddle.queue.PriorityQueue",
    c"PriorityQueue(maxsize=0, *, name=None)\n--\n\n\
      A Queue that gives the smallest item first.\n\n\
      Items are compared by `<`, with no lock held: a comparison may raise, wait or use the queue.",
    Store::Heap(VersionedHeap::new()),
    true
);

/// Adds the four types to the module.
pub(crate) fn add(module: &Bound<'_, PyAny>) -> PyResult<()> {
    crate::types::add::<PyQueue>(module, Slot::Queue)?;
    crate::types::add::<PyLifo>(module, Slot::LifoQueue)?;
    crate::types::add::<PyPriority>(module, Slot::PriorityQueue)?;
    crate::types::add::<simple::PySimple>(module, Slot::SimpleQueue)
}
