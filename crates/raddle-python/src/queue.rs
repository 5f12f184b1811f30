//! `Queue`, `LifoQueue`, `PriorityQueue` and `SimpleQueue`.
//!
//! A queue works in one of two ways. **Closed** to the outside, which is the normal one, its items live in the
//! core. It is **opened**, once and for good, when a program reaches into it: by an attribute of the standard
//! library's queue (`queue`, `mutex`, `not_empty`, ...), or by a subclass that overrides `_init`, `_put`,
//! `_get` or `_qsize`. Then the items move to a real deque or list, guarded by a real lock and conditions of
//! raddle's, and every call runs the algorithm of `raddle._open_queue`, so that the program sees what it expects.

use crate::args::{self, Patience, patience};
use crate::error::{entry, fetch};
use crate::gil::{self, PyHost};
use crate::lock::{boolean, none};
use crate::native::{Native, This, Visit, Which, method_fast, method_noargs, method_o, no_pickle};
use crate::observe;
use crate::types::Slot;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::types::{PyAnyMethods, PyList, PyListMethods, PyModule, PyTypeMethods};
use pyo3::{Bound, IntoPyObjectExt, Py, PyAny, PyErr, PyResult, Python, ffi};
use raddle::park::{Deadline, Parking, Stop, now};
use raddle::primitive::thread_token;
use raddle::queue::{Order, PopError, PopPlan, PushError, PushPlan, Queue, Step, Store, VersionedHeap};
use raddle::trace::Kind;
use std::collections::VecDeque;
use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// A reference to a Python object, given back when dropped: attached, and outside all locks.
pub(crate) struct Item(*mut ffi::PyObject);

// SAFETY: reference counts change only in attached threads; nothing else is done through the pointer.
unsafe impl Send for Item {}

impl Item {
    #[inline]
    fn new(object: *mut ffi::PyObject) -> Self {
        // SAFETY: a live object; attached.
        unsafe { ffi::Py_INCREF(object) };
        Item(object)
    }

    /// The reference itself.
    #[inline]
    fn into_ptr(self) -> *mut ffi::PyObject {
        let object = self.0;
        std::mem::forget(self);
        object
    }

    fn into_bound(self, py: Python<'_>) -> Bound<'_, PyAny> {
        // SAFETY: the reference is handed over.
        unsafe { Bound::from_owned_ptr(py, self.into_ptr()) }
    }
}

impl Clone for Item {
    fn clone(&self) -> Self {
        Item::new(self.0)
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        // SAFETY: the item owns the reference; items are dropped attached.
        unsafe { gil::decref(self.0) };
    }
}

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
/// `SimpleQueue`: no bound, no tasks, never open.
pub(crate) struct PySimple {
    queue: Queue<Item>,
}

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

/// Calls a function of `raddle._open_queue` with the queue and what follows.
fn call_open<'py>(
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

/// Why an item could not be put.
enum NotPut {
    Full,
    Closed,
    Open,
    Raised(PyErr),
}

/// Why there is no item.
enum NotGot {
    Empty,
    Closed,
    Open,
    Raised(PyErr),
}

/// `a < b`, by whatever that runs.
fn less(py: Python<'_>, a: &Item, b: &Item) -> PyResult<bool> {
    gil::compare(py, a.0, b.0, ffi::Py_LT)
}

/// Puts an item if there is room.
fn try_put(py: Python<'_>, this: Me<'_>, me: usize, item: Item) -> Result<(), (NotPut, Item)> {
    if !this.is_heap {
        return this.queue.try_push_as(me, item).map_err(|refused| match refused {
            PushError::Full(item) | PushError::Interrupted(item) => (NotPut::Full, item),
            PushError::Closed(item) => (NotPut::Closed, item),
            PushError::Sealed(item) => (NotPut::Open, item),
        });
    }
    let keep = item.clone();
    let mut plan = PushPlan::new(item);
    loop {
        match this.queue.step_push(me, &mut plan) {
            Ok(Step::Done(())) => return Ok(()),
            Ok(Step::Compare(a, b)) => match less(py, &a, &b) {
                Ok(answer) => plan.answer(answer),
                Err(error) => return Err((NotPut::Raised(error), keep)),
            },
            Err(PushError::Closed(())) => return Err((NotPut::Closed, keep)),
            Err(PushError::Sealed(())) => return Err((NotPut::Open, keep)),
            Err(PushError::Full(()) | PushError::Interrupted(())) => return Err((NotPut::Full, keep)),
        }
    }
}

/// Takes an item if there is one.
fn try_get(py: Python<'_>, this: Me<'_>, me: usize) -> Result<Item, NotGot> {
    let why = |error| match error {
        PopError::Empty | PopError::Interrupted => NotGot::Empty,
        PopError::Closed => NotGot::Closed,
        PopError::Sealed => NotGot::Open,
    };
    if !this.is_heap {
        return this.queue.try_pop_as(me).map_err(why);
    }
    let mut plan = PopPlan::new();
    loop {
        match this.queue.step_pop(me, &mut plan).map_err(why)? {
            Step::Done(item) => return Ok(item),
            Step::Compare(a, b) => plan.answer(less(py, &a, &b).map_err(NotGot::Raised)?),
        }
    }
}

/// What is left until a deadline, as a `timeout` argument.
fn left<'py>(py: Python<'py>, deadline: Deadline) -> PyResult<Bound<'py, PyAny>> {
    if !deadline.is_timed() {
        return Ok(py.None().into_bound(py));
    }
    let seconds = deadline.nanoseconds().saturating_sub(now()) as f64 / 1e9;
    seconds.into_bound_py_any(py)
}

fn put(py: Python<'_>, this: Me<'_>, item: Item, patience: Patience) -> PyResult<()> {
    let me = thread_token();
    let (why, item) = match try_put(py, this, me, item) {
        Ok(()) => return Ok(()),
        Err(refused) => refused,
    };
    match (why, patience) {
        (NotPut::Full, Patience::None) => Err(full(py)),
        (NotPut::Full, Patience::Until(deadline)) => put_slow(py, this, me, item, deadline),
        (NotPut::Closed, _) => Err(shut_down(py)),
        (NotPut::Raised(error), _) => Err(error),
        (NotPut::Open, patience) => {
            let (block, timeout) = match patience {
                Patience::None => (false, py.None().into_bound(py)),
                Patience::Until(deadline) => (true, left(py, deadline)?),
            };
            let block = block.into_bound_py_any(py)?;
            call_open(py, this, "put", &[item.into_bound(py), block, timeout]).map(drop)
        }
    }
}

#[cold]
fn put_slow(py: Python<'_>, this: Me<'_>, me: usize, mut item: Item, deadline: Deadline) -> PyResult<()> {
    args::check(deadline)?;
    let queue = &this.queue;
    let host = PyHost::new();
    let mut parking = Parking::new(Kind::QueuePut, queue, this.address(), deadline, &host);
    let mut key = queue.enroll_putter();
    loop {
        item = match try_put(py, this, me, item) {
            Ok(()) => {
                queue.retire_putter(true);
                return Ok(());
            }
            Err((NotPut::Full, item)) => item,
            Err((why, item)) => {
                queue.retire_putter(false);
                drop(parking);
                return match why {
                    NotPut::Closed => Err(shut_down(py)),
                    NotPut::Raised(error) => Err(error),
                    _ => put(py, this, item, Patience::Until(deadline)),
                };
            }
        };
        if let Err(stop) = host.detached(|| queue.wait_room(key, &mut parking)) {
            drop(parking);
            if stop == Stop::Interrupted {
                queue.retire_putter(false);
                return Err(fetch(py));
            }
            // A last look: room may have come with the deadline.
            let last = try_put(py, this, me, item);
            queue.retire_putter(last.is_ok());
            return match last {
                Ok(()) => Ok(()),
                Err((NotPut::Full, _)) => Err(full(py)),
                Err((NotPut::Closed, _)) => Err(shut_down(py)),
                Err((NotPut::Raised(error), _)) => Err(error),
                Err((NotPut::Open, item)) => put(py, this, item, Patience::Until(deadline)),
            };
        }
        key = queue.room_key();
    }
}

/// Takes an item, in a queue of either kind: `again` serves one that has been opened meanwhile.
fn get_slow<'py>(
    py: Python<'py>,
    queue: &Queue<Item>,
    address: usize,
    deadline: Deadline,
    mut look: impl FnMut() -> Result<Item, NotGot>,
    again: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    args::check(deadline)?;
    let host = PyHost::new();
    let mut parking = Parking::new(Kind::QueueGet, queue, address, deadline, &host);
    let mut key = queue.enroll_getter();
    let mut late = false;
    loop {
        match look() {
            Ok(item) => {
                queue.retire_getter(true);
                return Ok(item.into_bound(py));
            }
            Err(NotGot::Empty) if !late => {}
            Err(why) => {
                queue.retire_getter(false);
                drop(parking);
                return match why {
                    NotGot::Empty => Err(empty(py)),
                    NotGot::Closed => Err(shut_down(py)),
                    NotGot::Raised(error) => Err(error),
                    NotGot::Open => again(),
                };
            }
        }
        match host.detached(|| queue.wait_item(key, &mut parking)) {
            Ok(()) => {}
            // One last look: an item may have come with the deadline.
            Err(Stop::TimedOut) => late = true,
            Err(Stop::Interrupted) => {
                drop(parking);
                queue.retire_getter(false);
                return Err(fetch(py));
            }
        }
        key = queue.item_key();
    }
}

fn take<'py>(py: Python<'py>, this: Me<'_>, patience: Patience) -> PyResult<Bound<'py, PyAny>> {
    let me = thread_token();
    match try_get(py, this, me) {
        Ok(item) => return Ok(item.into_bound(py)),
        Err(NotGot::Closed) => return Err(shut_down(py)),
        Err(NotGot::Raised(error)) => return Err(error),
        Err(NotGot::Open) => return get_open(py, this, patience),
        Err(NotGot::Empty) => {}
    }
    let Patience::Until(deadline) = patience else {
        return Err(empty(py));
    };
    let again = || get_open(py, this, Patience::Until(deadline));
    get_slow(py, &this.queue, this.address(), deadline, || try_get(py, this, me), again)
}

fn get_open<'py>(py: Python<'py>, this: Me<'_>, patience: Patience) -> PyResult<Bound<'py, PyAny>> {
    let (block, timeout) = match patience {
        Patience::None => (false, py.None().into_bound(py)),
        Patience::Until(deadline) => (true, left(py, deadline)?),
    };
    call_open(py, this, "get", &[block.into_bound_py_any(py)?, timeout])
}

/// `block` and `timeout` of put and get: a negative time-out is an error.
fn block_timeout(block: Option<&Bound<'_, PyAny>>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Patience> {
    if !args::truth(block, true)? {
        return Ok(Patience::None);
    }
    if let Some(timeout) = timeout.filter(|timeout| !timeout.is_none()) {
        if timeout.lt(0)? {
            return Err(PyValueError::new_err("'timeout' must be a non-negative number"));
        }
    }
    patience(timeout)
}

/// The arguments of a fast call.
type Fast = (*const *mut ffi::PyObject, ffi::Py_ssize_t, *mut ffi::PyObject);

fn put_args(py: Python<'_>, this: Me<'_>, fast: Fast, most: usize) -> PyResult<()> {
    let [item, block, timeout] = args::fast(py, "put", ["item", "block", "timeout"], most, fast)?;
    let Some(item) = item else {
        return Err(missing("put", "item"));
    };
    // As the standard library: without a bound there is nothing to wait for, and the rest is not looked at.
    let patience = if this.queue.capacity() == 0 && !this.is_open() {
        Patience::Until(Deadline::NEVER)
    } else {
        block_timeout(block.as_ref(), timeout.as_ref())?
    };
    put(py, this, Item::new(item.as_ptr()), patience)
}

fn missing(function: &str, argument: &str) -> PyErr {
    pyo3::exceptions::PyTypeError::new_err(format!("{function}() missing 1 required positional argument: '{argument}'"))
}

unsafe extern "C" fn py_put(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if count == 1 && keywords.is_null() && !this.is_heap {
        // SAFETY: one argument was passed.
        let item = Item::new(unsafe { *args });
        return match this.queue.try_push_as(thread_token(), item) {
            Ok(()) => none(),
            Err(
                PushError::Full(item)
                | PushError::Closed(item)
                | PushError::Sealed(item)
                | PushError::Interrupted(item),
            ) => entry(|py| {
                put(py, this, item, Patience::Until(Deadline::NEVER))?;
                Ok(none())
            }),
        };
    }
    entry(|py| {
        put_args(py, this, (args, count, keywords), 3)?;
        Ok(none())
    })
}

/// Whether it is exactly one of our types: a subclass may have a `put` or `get` of its own.
fn is_plain(object: *mut ffi::PyObject) -> bool {
    // SAFETY: a live object.
    let ty = unsafe { ffi::Py_TYPE(object) }.cast();
    [Slot::Queue, Slot::LifoQueue, Slot::PriorityQueue].iter().any(|slot| crate::types::pointer(*slot) == ty)
}

unsafe extern "C" fn py_put_nowait(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let this = unsafe { Me::from_ptr(object) };
        let [item] = args::fast(py, "put_nowait", ["item"], 1, (args, count, keywords))?;
        let Some(item) = item else {
            return Err(missing("put_nowait", "item"));
        };
        if is_plain(object) {
            put(py, this, Item::new(item.as_ptr()), Patience::None)?;
        } else {
            gil::method(&this.bound(py), "put", &[&item, &false.into_bound_py_any(py)?])?;
        }
        Ok(none())
    })
}

unsafe extern "C" fn py_get(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if count == 0 && keywords.is_null() && !this.is_heap {
        if let Ok(item) = this.queue.try_pop_as(thread_token()) {
            return item.into_ptr();
        }
    }
    entry(|py| {
        let [block, timeout] = args::fast(py, "get", ["block", "timeout"], 2, (args, count, keywords))?;
        if this.queue.is_closed() && this.queue.is_empty() {
            return Err(shut_down(py));
        }
        Ok(take(py, this, block_timeout(block.as_ref(), timeout.as_ref())?)?.into_ptr())
    })
}

unsafe extern "C" fn py_get_nowait(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let this = unsafe { Me::from_ptr(object) };
        if is_plain(object) {
            return Ok(take(py, this, Patience::None)?.into_ptr());
        }
        Ok(gil::method(&this.bound(py), "get", &[&false.into_bound_py_any(py)?])?.into_ptr())
    })
}

unsafe extern "C" fn py_put_many(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let this = unsafe { Me::from_ptr(object) };
        let names = ["iterable", "block", "timeout"];
        let [items, block, timeout] = args::fast(py, "put_many", names, 3, (args, count, keywords))?;
        let Some(items) = items else {
            return Err(missing("put_many", "iterable"));
        };
        let patience = block_timeout(block.as_ref(), timeout.as_ref())?;
        let mut done = 0usize;
        let iterator = gil::iterate(&items)?;
        loop {
            let result = match gil::next(&iterator) {
                Ok(Some(item)) => put(py, this, Item(item.into_ptr()), patience),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                // How far it came; an exception type that takes no attributes goes without.
                let _ = error.value(py).setattr("count", done);
                return Err(error);
            }
            done += 1;
        }
        // SAFETY: attached.
        Ok(unsafe { ffi::PyLong_FromSize_t(done) })
    })
}

unsafe extern "C" fn py_get_many(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let this = unsafe { Me::from_ptr(object) };
        let names = ["max_items", "block", "timeout"];
        let [most, block, timeout] = args::fast(py, "get_many", names, 3, (args, count, keywords))?;
        let most = match most.filter(|most| !most.is_none()) {
            Some(most) => most.extract::<i64>()?,
            None => i64::MAX,
        };
        let Ok(most) = usize::try_from(most) else {
            return Err(PyValueError::new_err("max_items must be >= 0 or None"));
        };
        let patience = block_timeout(block.as_ref(), timeout.as_ref())?;
        let list = PyList::empty(py);
        if most == 0 {
            return Ok(list.into_ptr());
        }
        list.append(take(py, this, patience)?)?;
        if !this.is_heap && !this.is_open() {
            for item in this.queue.try_pop_many(most - 1).unwrap_or_default() {
                list.append(item.into_bound(py))?;
            }
            return Ok(list.into_ptr());
        }
        while list.len() < most {
            let next = if this.is_open() { get_open(py, this, Patience::None) } else { take(py, this, Patience::None) };
            match next {
                Ok(item) => list.append(item)?,
                // What is taken is given, whatever the next one would have raised.
                Err(_) => break,
            }
        }
        Ok(list.into_ptr())
    })
}

unsafe extern "C" fn py_task_done(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if !this.is_open() && this.queue.task_done() {
        return none();
    }
    entry(|py| {
        if this.is_open() {
            call_open(py, this, "task_done", &[])?;
            return Ok(none());
        }
        Err(PyValueError::new_err("task_done() called too many times"))
    })
}

unsafe extern "C" fn py_join(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let this = unsafe { Me::from_ptr(object) };
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
        if this.is_open() {
            call_open(py, this, "join", &[])?;
        }
        Ok(none())
    })
}

unsafe extern "C" fn py_qsize(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if this.is_open() {
        return entry(|py| Ok(call_open(py, this, "qsize", &[])?.into_ptr()));
    }
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromSize_t(this.queue.len()) }
}

unsafe extern "C" fn py_empty(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if this.is_open() {
        return entry(|py| Ok(call_open(py, this, "empty", &[])?.into_ptr()));
    }
    boolean(this.queue.is_empty())
}

unsafe extern "C" fn py_full(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if this.is_open() {
        return entry(|py| Ok(call_open(py, this, "full", &[])?.into_ptr()));
    }
    let capacity = this.queue.capacity();
    boolean(capacity > 0 && this.queue.len() >= capacity)
}

unsafe extern "C" fn py_shutdown(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let this = unsafe { Me::from_ptr(object) };
        let [immediate] = args::fast(py, "shutdown", ["immediate"], 1, (args, count, keywords))?;
        let immediate = args::truth(immediate.as_ref(), false)?;
        if this.is_open() {
            call_open(py, this, "shutdown", &[immediate.into_bound_py_any(py)?])?;
        } else {
            drop(this.queue.close(immediate));
        }
        Ok(none())
    })
}

/// Opens a queue: its items move to a container of the standard library's kind. See the module.
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
    call_open(py, this, "open_queue", &arguments)?;
    Ok(())
}

/// The part of an open queue with the name that the attribute's closure carries.
unsafe extern "C" fn py_part(object: *mut ffi::PyObject, name: *mut c_void) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: an attribute of the type; the closure is the name in the attribute table.
        let (this, name) = unsafe { (Me::from_ptr(object), CStr::from_ptr(name.cast())) };
        open(py, this)?;
        let name = name.to_str().unwrap_or_default();
        match this.bound(py).getattr("__dict__")?.get_item(name) {
            Ok(part) => Ok(part.into_ptr()),
            Err(_) => Err(pyo3::exceptions::PyAttributeError::new_err(format!(
                "'{}' object has no attribute '{name}'",
                this.bound(py).get_type().name()?
            ))),
        }
    })
}

unsafe extern "C" fn set_part(object: *mut ffi::PyObject, value: *mut ffi::PyObject, name: *mut c_void) -> c_int {
    crate::error::entry_or(-1, |py| {
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

fn part(name: &'static CStr, doc: &'static CStr) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(py_part),
        set: Some(set_part),
        doc: doc.as_ptr(),
        closure: name.as_ptr().cast_mut().cast(),
    }
}

unsafe extern "C" fn py_unfinished(object: *mut ffi::PyObject, name: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    let this = unsafe { Me::from_ptr(object) };
    if this.is_open() {
        // SAFETY: passed on.
        return unsafe { py_part(object, name) };
    }
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromSize_t(this.queue.unfinished()) }
}

unsafe extern "C" fn py_is_shutdown(object: *mut ffi::PyObject, name: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    let this = unsafe { Me::from_ptr(object) };
    if this.is_open() {
        // SAFETY: passed on.
        return unsafe { py_part(object, name) };
    }
    boolean(this.queue.is_closed())
}

unsafe extern "C" fn py_maxsize(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type; the core holds the reference.
    unsafe {
        let maxsize = Me::from_ptr(object).maxsize.load(Ordering::Acquire);
        if maxsize.is_null() { ffi::PyLong_FromLong(0) } else { ffi::Py_NewRef(maxsize) }
    }
}

unsafe extern "C" fn set_maxsize(object: *mut ffi::PyObject, value: *mut ffi::PyObject, _: *mut c_void) -> c_int {
    crate::error::entry_or(-1, |py| {
        // SAFETY: an attribute of the type; `value` is null for a deletion.
        let (this, value) = unsafe { (Me::from_ptr(object), Bound::<PyAny>::from_borrowed_ptr_or_opt(py, value)) };
        let Some(value) = value else {
            return Err(pyo3::exceptions::PyAttributeError::new_err("maxsize cannot be deleted"));
        };
        bound(this, &value)?;
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

unsafe extern "C" fn py_longest(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    let this = unsafe { Me::from_ptr(object) };
    observe::longest_wait(this.address(), this.queue.longest_wait())
}

/// `_init`, `_put`, `_get`, `_qsize`: what a subclass overrides, and what its `super()` calls reach.
macro_rules! hook {
    ($name:ident, $function:literal, $argument:expr) => {
        unsafe extern "C" fn $name(object: *mut ffi::PyObject, argument: *mut ffi::PyObject) -> *mut ffi::PyObject {
            entry(|py| {
                // SAFETY: a method of the type, and its argument if it takes one.
                let this = unsafe { Me::from_ptr(object) };
                open(py, this)?;
                let arguments = if $argument {
                    // SAFETY: as above.
                    vec![unsafe { Bound::<PyAny>::from_borrowed_ptr(py, argument) }]
                } else {
                    Vec::new()
                };
                Ok(call_open(py, this, $function, &arguments)?.into_ptr())
            })
        }
    };
}
hook!(hook_init, "hook_init", true);
hook!(hook_put, "hook_put", true);
hook!(hook_get, "hook_get", false);
hook!(hook_qsize, "hook_qsize", false);

const HOOKS: [&str; 4] = ["_init", "_put", "_get", "_qsize"];

/// Whether a subclass overrides what an open queue runs on.
fn has_hooks(py: Python<'_>, this: Me<'_>) -> PyResult<bool> {
    if is_plain(this.as_ptr()) {
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

fn init(this: Me<'_>, short: &str, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let py = args.py();
    let [maxsize, name] = args::tuple(short, ["maxsize", "name"], 1, args, kwargs)?;
    this.set_name(args::name(name.as_ref())?);
    if let Some(maxsize) = &maxsize {
        bound(this, maxsize)?;
    }
    if has_hooks(py, this)? {
        this.open.store(true, Ordering::Release);
        drop(this.queue.seal());
        let maxsize = maxsize.unwrap_or(0i32.into_bound_py_any(py)?);
        call_open(py, this, "init", &[maxsize])?;
    }
    Ok(())
}

fn methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method_fast(
            c"put",
            py_put,
            c"put($self, /, item, block=True, timeout=None)\n--\n\n\
              Put an item, waiting while the queue is full.\n\n\
              Waits without the GIL for at most `timeout` seconds; Full if there was no room in time or\n\
              `block` is false, ShutDown if the queue is shut down. Any number of threads. O(1).",
        ),
        method_fast(c"put_nowait", py_put_nowait, c"put_nowait($self, /, item)\n--\n\nput(item, block=False)."),
        method_fast(
            c"get",
            py_get,
            c"get($self, /, block=True, timeout=None)\n--\n\n\
              Take the next item, waiting while there is none.\n\n\
              Waits without the GIL for at most `timeout` seconds; Empty if nothing came in time or `block` is\n\
              false, ShutDown if the queue is shut down and empty. Ctrl-C interrupts the wait.",
        ),
        method_noargs(c"get_nowait", py_get_nowait, c"get_nowait($self, /)\n--\n\nget(block=False)."),
        method_fast(
            c"put_many",
            py_put_many,
            c"put_many($self, /, iterable, block=True, timeout=None)\n--\n\n\
              Put the items one after the other; how many. `timeout` is for the whole.\n\n\
              Full and ShutDown carry how many had been put as `count`.",
        ),
        method_fast(
            c"get_many",
            py_get_many,
            c"get_many($self, /, max_items=None, block=True, timeout=None)\n--\n\n\
              Wait for an item as get() does, then take what else is there, up to max_items: a list.",
        ),
        method_noargs(
            c"task_done",
            py_task_done,
            c"task_done($self, /)\n--\n\nThe work on one item is done. ValueError if called more often than put().",
        ),
        method_noargs(
            c"join",
            py_join,
            c"join($self, /)\n--\n\nWait until task_done() has been called for every item put.",
        ),
        method_noargs(c"qsize", py_qsize, c"qsize($self, /)\n--\n\nHow many items there are, roughly."),
        method_noargs(c"empty", py_empty, c"empty($self, /)\n--\n\nWhether there are none, roughly."),
        method_noargs(c"full", py_full, c"full($self, /)\n--\n\nWhether there is no room, roughly."),
        method_fast(
            c"shutdown",
            py_shutdown,
            c"shutdown($self, /, immediate=False)\n--\n\n\
              Refuse further items; whoever waits gets ShutDown. `immediate` also drops what is in it.\n\n\
              As CPython 3.13's, on every version.",
        ),
        method_o(c"_init", hook_init, c"Make the container. For subclasses to override."),
        method_o(c"_put", hook_put, c"Put into the container. For subclasses to override."),
        method_noargs(c"_get", hook_get, c"Take from the container. For subclasses to override."),
        method_noargs(c"_qsize", hook_qsize, c"Count the container. For subclasses to override."),
        method_noargs(c"__reduce__", no_pickle, c"Queues cannot be pickled."),
    ]
}

fn attributes() -> Vec<ffi::PyGetSetDef> {
    vec![
        part(c"queue", c"The container. Reading it opens the queue: see the documentation."),
        part(c"mutex", c"The lock of an open queue."),
        part(c"not_empty", c"The condition of those who wait for an item, of an open queue."),
        part(c"not_full", c"The condition of those who wait for room, of an open queue."),
        part(c"all_tasks_done", c"The condition of those who join, of an open queue."),
        ffi::PyGetSetDef {
            get: Some(py_unfinished),
            ..part(c"unfinished_tasks", c"Items put whose work is not reported done.")
        },
        ffi::PyGetSetDef { get: Some(py_is_shutdown), ..part(c"is_shutdown", c"Whether it is shut down.") },
        ffi::PyGetSetDef {
            get: Some(py_maxsize),
            set: Some(set_maxsize),
            ..part(c"maxsize", c"The most items at a time; without a bound if not positive.")
        },
    ]
}

impl Native for PyQueue {
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
        traverse(&self.queue, visit)
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

fn traverse(queue: &Queue<Item>, visit: &Visit) -> c_int {
    let mut stop = 0;
    queue.for_each(|item| {
        if stop == 0 {
            stop = visit.call(item.0);
        }
    });
    stop
}

macro_rules! subtype {
    ($type:ident, $short:literal, $name:expr, $doc:expr, $store:expr, $is_heap:literal) => {
        impl Native for $type {
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

// SimpleQueue

type Simple<'a> = This<'a, PySimple>;

fn simple_try_get(this: Simple<'_>, me: usize) -> Result<Item, NotGot> {
    this.queue.try_pop_as(me).map_err(|_| NotGot::Empty)
}

unsafe extern "C" fn simple_put(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Simple::from_ptr(object) };
    if count == 1 && keywords.is_null() {
        // SAFETY: one argument was passed.
        let item = Item::new(unsafe { *args });
        // Neither bounded nor ever closed, so there is always room.
        drop(this.queue.try_push_as(thread_token(), item));
        return none();
    }
    entry(|py| {
        let names = ["item", "block", "timeout"];
        let [item, _, _] = args::fast(py, "put", names, 3, (args, count, keywords))?;
        let Some(item) = item else {
            return Err(missing("put", "item"));
        };
        drop(this.queue.try_push_as(thread_token(), Item::new(item.as_ptr())));
        Ok(none())
    })
}

unsafe extern "C" fn simple_get(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Simple::from_ptr(object) };
    let me = thread_token();
    if count == 0 && keywords.is_null() {
        if let Ok(item) = this.queue.try_pop_as(me) {
            return item.into_ptr();
        }
    }
    entry(|py| {
        let [block, timeout] = args::fast(py, "get", ["block", "timeout"], 2, (args, count, keywords))?;
        let patience = block_timeout(block.as_ref(), timeout.as_ref())?;
        if let Ok(item) = simple_try_get(this, me) {
            return Ok(item.into_ptr());
        }
        let Patience::Until(deadline) = patience else {
            return Err(empty(py));
        };
        let never = || Err(PyRuntimeError::new_err("SimpleQueue is never opened"));
        let look = || simple_try_get(this, me);
        Ok(get_slow(py, &this.queue, this.address(), deadline, look, never)?.into_ptr())
    })
}

unsafe extern "C" fn simple_get_nowait(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    match simple_try_get(unsafe { Simple::from_ptr(object) }, thread_token()) {
        Ok(item) => item.into_ptr(),
        Err(_) => entry(|py| Err(empty(py))),
    }
}

unsafe extern "C" fn simple_qsize(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type; attached.
    unsafe { ffi::PyLong_FromSize_t(Simple::from_ptr(object).queue.len()) }
}

unsafe extern "C" fn simple_empty(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    boolean(unsafe { Simple::from_ptr(object) }.queue.is_empty())
}

unsafe extern "C" fn simple_longest(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    let this = unsafe { Simple::from_ptr(object) };
    observe::longest_wait(this.address(), this.queue.longest_wait())
}

impl Native for PySimple {
    const NAME: &'static CStr = c"raddle.queue.SimpleQueue";
    const DOC: &'static CStr = c"SimpleQueue(*, name=None)\n--\n\n\
        A queue without bound and without task tracking: first come, first served.\n\n\
        put() never waits, and may be called from anywhere. Follows CPython's `queue.SimpleQueue`.";
    const WHICH: Which = Which::SimpleQueue;
    const DICT: bool = true;

    fn fresh() -> Self {
        PySimple { queue: Queue::unbounded() }
    }

    fn init(this: Simple<'_>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let [name] = args::tuple("SimpleQueue", ["name"], 0, args, kwargs)?;
        this.set_name(args::name(name.as_ref())?);
        Ok(())
    }

    fn traverse(&self, visit: &Visit) -> c_int {
        traverse(&self.queue, visit)
    }

    fn clear(&self) {
        while let Ok(item) = self.queue.try_pop() {
            drop(item);
        }
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        vec![
            method_fast(
                c"put",
                simple_put,
                c"put($self, /, item, block=True, timeout=None)\n--\n\nPut an item; the other arguments are ignored. Never waits.",
            ),
            method_fast(c"put_nowait", simple_put, c"put_nowait($self, /, item)\n--\n\nPut an item."),
            method_fast(
                c"get",
                simple_get,
                c"get($self, /, block=True, timeout=None)\n--\n\n\
                  Take the oldest item, waiting while there is none; Empty if nothing came in `timeout` seconds.",
            ),
            method_noargs(c"get_nowait", simple_get_nowait, c"get_nowait($self, /)\n--\n\nget(block=False)."),
            method_noargs(c"qsize", simple_qsize, c"qsize($self, /)\n--\n\nHow many items there are, roughly."),
            method_noargs(c"empty", simple_empty, c"empty($self, /)\n--\n\nWhether there are none, roughly."),
            method_noargs(c"__reduce__", no_pickle, c"Queues cannot be pickled."),
        ]
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        vec![]
    }

    fn additions() -> Vec<(&'static CStr, ffi::getter)> {
        vec![(c"waiters", observe::py_waiters as ffi::getter), (c"longest_wait", simple_longest as ffi::getter)]
    }
}

/// Adds the four types to the module.
pub(crate) fn add(module: &Bound<'_, PyAny>) -> PyResult<()> {
    crate::types::add::<PyQueue>(module, Slot::Queue)?;
    crate::types::add::<PyLifo>(module, Slot::LifoQueue)?;
    crate::types::add::<PyPriority>(module, Slot::PriorityQueue)?;
    crate::types::add::<PySimple>(module, Slot::SimpleQueue)
}
