//! Putting and getting: at once where that can be, else waiting, one item or many.
//!
//! Looking is done attached and waiting detached: a look at a heap compares items, which runs Python code.

use super::{Item, Me, PyQueue, empty, full, is_plain, open, shut_down};
use crate::args::{self, Fast, Patience, missing, patience};
use crate::error::{entry, fetch};
use crate::gil::{self, PyHost};
use crate::lock::none;
use crate::native::{fast, methods, noargs};
use pyo3::exceptions::PyValueError;
use pyo3::types::{PyAnyMethods, PyList, PyListMethods};
use pyo3::{Bound, IntoPyObjectExt, PyAny, PyErr, PyResult, Python, ffi};
use raddle::park::{Deadline, Parking, Stop, now};
use raddle::primitive::thread_token;
use raddle::queue::{PopError, PopPlan, PushError, PushPlan, Step};
use raddle::trace::Kind;

/// Why an item could not be put.
pub(super) enum NotPut {
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

impl NotPut {
    /// What the core says, and the item it gives back.
    fn of<T>(refused: PushError<T>) -> (Self, T) {
        match refused {
            PushError::Full(item) | PushError::Interrupted(item) => (NotPut::Full, item),
            PushError::Closed(item) => (NotPut::Closed, item),
            PushError::Sealed(item) => (NotPut::Open, item),
        }
    }
}

impl From<PopError> for NotGot {
    fn from(why: PopError) -> Self {
        match why {
            PopError::Empty | PopError::Interrupted => NotGot::Empty,
            PopError::Closed => NotGot::Closed,
            PopError::Sealed => NotGot::Open,
        }
    }
}

/// `a < b`, by whatever that runs.
fn less(py: Python<'_>, a: &Item, b: &Item) -> PyResult<bool> {
    gil::compare(py, a.as_ptr(), b.as_ptr(), ffi::Py_LT)
}

/// Puts an item if there is room.
fn try_put(py: Python<'_>, this: Me<'_>, item: Item) -> Result<(), (NotPut, Item)> {
    let me = thread_token();
    if !this.is_heap {
        return this.queue.try_push_as(me, item).map_err(NotPut::of);
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
            Err(refused) => return Err(NotPut::of(refused.with(keep))),
        }
    }
}

/// Takes an item if there is one.
fn try_get(py: Python<'_>, this: Me<'_>) -> Result<Item, NotGot> {
    let me = thread_token();
    if !this.is_heap {
        return Ok(this.queue.try_pop_as(me)?);
    }
    let mut plan = PopPlan::new();
    loop {
        match this.queue.step_pop(me, &mut plan)? {
            Step::Done(item) => return Ok(item),
            Step::Compare(a, b) => plan.answer(less(py, &a, &b).map_err(NotGot::Raised)?),
        }
    }
}

/// `block` and `timeout` as the methods of an open queue take them: what is left of the patience.
fn left<'py>(py: Python<'py>, patience: Patience) -> PyResult<[Bound<'py, PyAny>; 2]> {
    let timeout = match patience {
        Patience::Until(deadline) if deadline.is_timed() => {
            Some(deadline.nanoseconds().saturating_sub(now()) as f64 / 1e9)
        }
        _ => None,
    };
    Ok([(patience != Patience::None).into_bound_py_any(py)?, timeout.into_bound_py_any(py)?])
}

/// The same with the caller's own time-out, where there is one.
fn told<'py>(
    py: Python<'py>,
    patience: Patience,
    timeout: Option<Bound<'py, PyAny>>,
) -> PyResult<[Bound<'py, PyAny>; 2]> {
    match (patience, timeout) {
        (Patience::Until(_), Some(timeout)) => Ok([true.into_bound_py_any(py)?, timeout]),
        (patience, _) => left(py, patience),
    }
}

fn put(py: Python<'_>, this: Me<'_>, item: Item, patience: Patience) -> PyResult<()> {
    match (try_put(py, this, item), patience) {
        (Ok(()), _) => Ok(()),
        (Err((NotPut::Full, item)), Patience::Until(deadline)) => put_slow(py, this, item, deadline),
        (Err((why, item)), patience) => not_put(py, this, why, item, patience),
    }
}

/// The end of a put that the closed queue did not take.
fn not_put(py: Python<'_>, this: Me<'_>, why: NotPut, item: Item, patience: Patience) -> PyResult<()> {
    match why {
        NotPut::Full => Err(full(py)),
        NotPut::Closed => Err(shut_down(py)),
        NotPut::Raised(error) => Err(error),
        NotPut::Open => {
            let [block, timeout] = left(py, patience)?;
            open::call(py, this, "put", &[item.into_bound(py), block, timeout]).map(drop)
        }
    }
}

#[cold]
fn put_slow(py: Python<'_>, this: Me<'_>, mut item: Item, deadline: Deadline) -> PyResult<()> {
    args::check(deadline)?;
    let queue = &this.queue;
    let host = PyHost::new();
    let mut parking = Parking::new(Kind::QueuePut, queue, this.address(), deadline, &host);
    let mut key = queue.enroll_putter();
    let mut late = false;
    loop {
        match try_put(py, this, item) {
            Ok(()) => {
                queue.retire_putter(true);
                return Ok(());
            }
            Err((NotPut::Full, back)) if !late => item = back,
            Err((why, item)) => {
                queue.retire_putter(false);
                drop(parking);
                return not_put(py, this, why, item, Patience::Until(deadline));
            }
        }
        match host.detached(|| queue.wait_room(key, &mut parking)) {
            Ok(()) => {}
            // One last look: room may have come with the deadline.
            Err(Stop::TimedOut) => late = true,
            Err(Stop::Interrupted) => {
                drop(parking);
                queue.retire_putter(false);
                return Err(fetch(py));
            }
        }
        key = queue.room_key();
    }
}

fn get<'py>(py: Python<'py>, this: Me<'_>, patience: Patience) -> PyResult<Bound<'py, PyAny>> {
    match (try_get(py, this), patience) {
        (Ok(item), _) => Ok(item.into_bound(py)),
        (Err(NotGot::Empty), Patience::Until(deadline)) => get_slow(py, this, deadline),
        (Err(why), patience) => not_got(py, this, why, patience),
    }
}

/// The end of a get that the closed queue had nothing for.
fn not_got<'py>(py: Python<'py>, this: Me<'_>, why: NotGot, patience: Patience) -> PyResult<Bound<'py, PyAny>> {
    match why {
        NotGot::Empty => Err(empty(py)),
        NotGot::Closed => Err(shut_down(py)),
        NotGot::Raised(error) => Err(error),
        NotGot::Open => open::call(py, this, "get", &left(py, patience)?),
    }
}

#[cold]
fn get_slow<'py>(py: Python<'py>, this: Me<'_>, deadline: Deadline) -> PyResult<Bound<'py, PyAny>> {
    args::check(deadline)?;
    let queue = &this.queue;
    let host = PyHost::new();
    let mut parking = Parking::new(Kind::QueueGet, queue, this.address(), deadline, &host);
    let mut key = queue.enroll_getter();
    let mut late = false;
    loop {
        match try_get(py, this) {
            Ok(item) => {
                queue.retire_getter(true);
                return Ok(item.into_bound(py));
            }
            Err(NotGot::Empty) if !late => {}
            Err(why) => {
                queue.retire_getter(false);
                drop(parking);
                return not_got(py, this, why, Patience::Until(deadline));
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

unsafe extern "C" fn py_put(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let this = unsafe { Me::from_ptr(object) };
    if count != 1 || !keywords.is_null() || this.is_heap {
        return put_as_told(this, (args, count, keywords));
    }
    // SAFETY: one argument was passed.
    let item = Item::new(unsafe { *args });
    match this.queue.try_push_as(thread_token(), item) {
        Ok(()) => none(),
        Err(refused) => put_refused(this, refused),
    }
}

/// Apart, as what follows, so that the path above needs no stack.
#[cold]
fn put_refused(this: Me<'_>, refused: PushError<Item>) -> *mut ffi::PyObject {
    entry(|py| {
        let forever = Deadline::NEVER;
        match NotPut::of(refused) {
            (NotPut::Full, item) => put_slow(py, this, item, forever)?,
            (why, item) => not_put(py, this, why, item, Patience::Until(forever))?,
        }
        Ok(none())
    })
}

#[inline(never)]
fn put_as_told(this: Me<'_>, fast: Fast) -> *mut ffi::PyObject {
    entry(|py| {
        let [item, block, timeout] = args::fast(py, "put", ["item", "block", "timeout"], 3, fast)?;
        let item = item.ok_or_else(|| missing("put", "item"))?;
        // As the standard library: without a bound there is nothing to wait for, and the rest is not looked at.
        let patience = if this.queue.capacity() == 0 {
            Patience::Until(Deadline::NEVER)
        } else {
            block_timeout(block.as_ref(), timeout.as_ref())?
        };
        if this.is_open() {
            let [block, timeout] = told(py, patience, timeout)?;
            return Ok(open::call(py, this, "put", &[item, block, timeout])?.into_ptr());
        }
        put(py, this, Item::new(item.as_ptr()), patience)?;
        Ok(none())
    })
}

fast!(py_put_nowait, PyQueue, |py, this, fast| {
    let [item] = args::fast(py, "put_nowait", ["item"], 1, fast)?;
    let item = item.ok_or_else(|| missing("put_nowait", "item"))?;
    if is_plain(this) {
        put(py, this, Item::new(item.as_ptr()), Patience::None)?;
    } else {
        gil::method(&this.bound(py), "put", &[&item, &false.into_bound_py_any(py)?])?;
    }
    Ok(none())
});

pub(super) unsafe extern "C" fn py_get(
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
    get_as_told(this, (args, count, keywords))
}

#[inline(never)]
fn get_as_told(this: Me<'_>, fast: Fast) -> *mut ffi::PyObject {
    entry(|py| {
        let [block, timeout] = args::fast(py, "get", ["block", "timeout"], 2, fast)?;
        if this.queue.is_closed() && this.queue.is_empty() {
            return Err(shut_down(py));
        }
        let patience = block_timeout(block.as_ref(), timeout.as_ref())?;
        if this.is_open() {
            return Ok(open::call(py, this, "get", &told(py, patience, timeout)?)?.into_ptr());
        }
        Ok(get(py, this, patience)?.into_ptr())
    })
}

/// What there is at this moment, in any kind of queue.
pub(super) fn get_at_once(py: Python<'_>, this: Me<'_>) -> PyResult<*mut ffi::PyObject> {
    Ok(get(py, this, Patience::None)?.into_ptr())
}

noargs!(py_get_nowait, PyQueue, |py, this| {
    if is_plain(this) {
        return get_at_once(py, this);
    }
    Ok(gil::method(&this.bound(py), "get", &[&false.into_bound_py_any(py)?])?.into_ptr())
});

fast!(py_put_many, PyQueue, |py, this, fast| {
    let [items, block, timeout] = args::fast(py, "put_many", ["iterable", "block", "timeout"], 3, fast)?;
    let items = items.ok_or_else(|| missing("put_many", "iterable"))?;
    let patience = block_timeout(block.as_ref(), timeout.as_ref())?;
    let mut done = 0usize;
    let iterator = gil::iterate(&items)?;
    loop {
        let result = match gil::next(&iterator) {
            Ok(Some(item)) => put(py, this, Item::from(item), patience),
            Ok(None) => return Ok(done.into_bound_py_any(py)?.into_ptr()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            // How far it came; an exception type that takes no attributes goes without.
            let _ = error.value(py).setattr("count", done);
            return Err(error);
        }
        done += 1;
    }
});

fast!(py_get_many, PyQueue, |py, this, fast| {
    let [most, block, timeout] = args::fast(py, "get_many", ["max_items", "block", "timeout"], 3, fast)?;
    let most = match most.filter(|most| !most.is_none()) {
        Some(most) => most.extract::<i64>()?,
        None => i64::MAX,
    };
    let most = usize::try_from(most).map_err(|_| PyValueError::new_err("max_items must be >= 0 or None"))?;
    let patience = block_timeout(block.as_ref(), timeout.as_ref())?;
    let list = PyList::empty(py);
    if most == 0 {
        return Ok(list.into_ptr());
    }
    list.append(get(py, this, patience)?)?;
    if !this.is_heap && !this.is_open() {
        for item in this.queue.try_pop_many(most - 1).unwrap_or_default() {
            list.append(item.into_bound(py))?;
        }
        return Ok(list.into_ptr());
    }
    while list.len() < most {
        match get(py, this, Patience::None) {
            Ok(item) => list.append(item)?,
            // What is taken is given, whatever the next one would have raised.
            Err(_) => break,
        }
    }
    Ok(list.into_ptr())
});

/// The rows of the method table.
pub(super) fn methods() -> Vec<ffi::PyMethodDef> {
    methods! {
        fast "put" (", item, block=True, timeout=None") = py_put,
            "Put an item, waiting while the queue is full.\n\n\
             Waits without the GIL for at most `timeout` seconds; Full if there was no room in time or\n\
             `block` is false, ShutDown if the queue is shut down. Any number of threads. O(1).";
        fast "put_nowait" (", item") = py_put_nowait, "put(item, block=False).";
        fast "get" (", block=True, timeout=None") = py_get,
            "Take the next item, waiting while there is none.\n\n\
             Waits without the GIL for at most `timeout` seconds; Empty if nothing came in time or `block` is\n\
             false, ShutDown if the queue is shut down and empty. Ctrl-C interrupts the wait.";
        noargs "get_nowait" ("") = py_get_nowait, "get(block=False).";
        fast "put_many" (", iterable, block=True, timeout=None") = py_put_many,
            "Put the items one after the other; how many. `timeout` is for the whole.\n\n\
             Full and ShutDown carry how many had been put as `count`.";
        fast "get_many" (", max_items=None, block=True, timeout=None") = py_get_many,
            "Wait for an item as get() does, then take what else is there, up to max_items: a list.";
    }
}
