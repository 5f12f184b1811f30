//! Waiting for several futures: `wait`, `as_completed`, and the results of `map`.

use crate::args::{self, Patience, patience};
use crate::error::{entry, fetch};
use crate::future::{self, Listener, PyFuture, ours};
use crate::gil::{self, PyHost};
use crate::lock::none;
use crate::native::{Entry, Native, This, Visit, Which, methods};
use crate::pool;
use crate::reference::{Item, Place};
use crate::types::Slot;
use pyo3::exceptions::{PyTimeoutError, PyTypeError};
use pyo3::types::{PyAnyMethods, PySet, PySetMethods};
use pyo3::{Bound, PyAny, PyResult, Python, ffi};
use raddle::future::{Collector, Stage};
use raddle::park::{Deadline, Parking, Stop, generation, now};
use raddle::primitive::Spin;
use raddle::trace::{Claim, Kind, Resource, Waker};
use std::collections::VecDeque;
use std::ffi::{CStr, c_int, c_void};
use std::mem;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether `wait` and `as_completed` count it as over: a cancelled future only when its executor knows.
fn is_over(stage: Stage) -> bool {
    matches!(stage, Stage::Notified | Stage::Finished)
}

/// A collector of futures that are over; also a waiter as the standard library's futures know them.
pub(crate) struct PyCollector {
    collector: Collector<Item>,
    /// A future that failed ends the wait by itself.
    first_exception: bool,
}

type Me<'a> = This<'a, PyCollector>;

impl PyCollector {
    /// A future is over.
    pub(crate) fn over(&self, future: *mut ffi::PyObject, failed: bool) {
        self.collector.add(Item::new(future), failed && self.first_exception);
    }

    fn make(py: Python<'_>, need: usize, first_exception: bool) -> PyResult<Bound<'_, PyAny>> {
        let ty = crate::types::pointer(Slot::Collector);
        let object = crate::native::allocate::<PyCollector>(py, ty.cast())?;
        // SAFETY: just made, and seen by nobody; its core is replaced before use.
        unsafe {
            *crate::native::core_mut(object) = PyCollector { collector: Collector::new(need), first_exception };
            Ok(Bound::from_owned_ptr(py, object))
        }
    }
}

unsafe extern "C" fn py_add(object: *mut ffi::PyObject, future: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type and its argument.
    unsafe { Me::from_ptr(object) }.over(future, false);
    none()
}

unsafe extern "C" fn py_add_failed(object: *mut ffi::PyObject, future: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type and its argument.
    unsafe { Me::from_ptr(object) }.over(future, true);
    none()
}

impl Native for PyCollector {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle._raddle.Collector";
    const DOC: &'static CStr = c"Gathers futures that are over.";
    const WHICH: Which = Which::Other;
    const DICT: bool = true;
    const SUBCLASS: bool = false;
    const CALLABLE: bool = false;

    fn fresh() -> Self {
        PyCollector { collector: Collector::new(1), first_exception: false }
    }

    fn clear(&self) {
        drop(self.collector.take());
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            o "add_result" = py_add, "add_result($self, future, /)\n--\n\nThe future has a result.";
            o "add_cancelled" = py_add, "add_cancelled($self, future, /)\n--\n\nThe future was cancelled.";
            o "add_exception" = py_add_failed, "add_exception($self, future, /)\n--\n\nThe future failed.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        Vec::new()
    }
}

/// Registers the collector with a future; one that is over goes into it at once.
fn attach(py: Python<'_>, collector: &Bound<'_, PyAny>, future: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Some(this) = ours(future) {
        if let Some(pool) = this.pool() {
            pool.check_process(&this)?;
        }
        if !future::listen(this, Listener::Collector(collector.clone().into()), is_over) {
            core(collector).over(future.as_ptr(), this.is_failed());
        }
        return Ok(());
    }
    under_condition(future, || {
        let (over, failed) = foreign_state(future)?;
        if over {
            core(collector).over(future.as_ptr(), failed);
        } else {
            gil::method(&gil::attribute(future, "_waiters")?, "append", &[collector])?;
        }
        Ok(())
    })?;
    let _ = py;
    Ok(())
}

/// Takes the collector back from a future that is not over.
fn detach(collector: &Bound<'_, PyAny>, future: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Some(this) = ours(future) {
        let ours = |listener: &Listener| matches!(listener, Listener::Collector(c) if c.as_ptr() == collector.as_ptr());
        drop(this.completion.take_listeners(ours));
        return Ok(());
    }
    under_condition(future, || {
        let waiters = gil::attribute(future, "_waiters")?;
        if gil::truth(&gil::method(&waiters, "__contains__", &[collector])?)? {
            gil::method(&waiters, "remove", &[collector])?;
        }
        Ok(())
    })
}

fn core<'a>(collector: &'a Bound<'_, PyAny>) -> &'a PyCollector {
    // SAFETY: only made by `PyCollector::make`, and kept by the caller.
    unsafe { crate::native::core::<PyCollector>(collector.as_ptr()) }
}

/// With the condition of a future of the standard library.
fn under_condition<R>(future: &Bound<'_, PyAny>, body: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    let condition = gil::attribute(future, "_condition")?;
    gil::method(&condition, "acquire", &[])?;
    let result = body();
    gil::method(&condition, "release", &[])?;
    result
}

/// Whether a future of the standard library is over, and whether it failed.
fn foreign_state(future: &Bound<'_, PyAny>) -> PyResult<(bool, bool)> {
    let state = gil::attribute(future, "_state")?.extract::<String>()?;
    let over = matches!(state.as_str(), "CANCELLED_AND_NOTIFIED" | "FINISHED");
    Ok((over, state == "FINISHED" && !gil::attribute(future, "_exception")?.is_none()))
}

/// The same of whatever it is that a program waits for.
fn strange_state(object: &Bound<'_, PyAny>) -> PyResult<(bool, bool)> {
    // SAFETY: a live object.
    if unsafe { ffi::PyCoro_CheckExact(object.as_ptr()) } != 0 {
        return Err(PyTypeError::new_err("coroutines are not futures: see asyncio.wait"));
    }
    under_condition(object, || foreign_state(object))
}

/// What a wait for several futures waits for: who can end any of them.
struct Several<'a> {
    futures: Vec<&'a PyFuture>,
    /// Some are not ours: nothing is known about them.
    foreign: bool,
}

impl<'a> Several<'a> {
    fn of(futures: &'a [Bound<'_, PyAny>]) -> Self {
        let known: Vec<_> = futures.iter().filter_map(|future| Some(ours(future)?.core())).collect();
        Several { foreign: known.len() < futures.len(), futures: known }
    }
}

impl Resource for Several<'_> {
    fn wakers(&self, kind: Kind, out: &mut Vec<Waker>) -> Claim {
        if self.foreign {
            return Claim::Unknown;
        }
        let mut claim = Claim::Proven;
        let mut line = None;
        for future in self.futures.iter().filter(|future| !is_over(future.completion.stage())) {
            // Thousands may wait in one line, for the same workers.
            let waits_in = future.waits_in();
            if waits_in.is_some() && waits_in == mem::replace(&mut line, waits_in) {
                continue;
            }
            claim = claim.min(future.wakers(kind, out));
            if claim == Claim::Unknown {
                return claim;
            }
        }
        out.sort_unstable_by_key(|waker| waker.token);
        out.dedup_by_key(|waker| waker.token);
        claim
    }
}

/// Waits on a collector for the futures given (`None`: not said which); `Ok(false)` if the time ran out.
fn wait_for(
    py: Python<'_>,
    collector: &Bound<'_, PyAny>,
    futures: Option<&[Bound<'_, PyAny>]>,
    deadline: Deadline,
) -> PyResult<bool> {
    let core = core(collector);
    let unknown = futures.is_none();
    let futures = futures.unwrap_or_default();
    // A worker runs what waits in its own pool's line instead of waiting for it.
    for future in futures.iter().filter_map(ours) {
        if core.collector.is_ready() {
            return Ok(true);
        }
        if future.completion.stage() == Stage::Pending {
            pool::help(py, future)?;
        }
    }
    let mut several = Several::of(futures);
    several.foreign |= unknown;
    let host = PyHost::new();
    let result = host.detached(|| {
        let mut parking = Parking::new(Kind::Future, &several, collector.as_ptr() as usize, deadline, &host);
        core.collector.wait_slow(&mut parking)
    });
    match result {
        Ok(()) => Ok(true),
        Err(Stop::TimedOut) => Ok(false),
        Err(Stop::Interrupted) => Err(fetch(py)),
    }
}

/// Futures that are not over, of those that somebody waits for. There may be many, in memory that other cores have just
/// written to: they are passed over as rarely as can be.
struct Open<'py> {
    futures: Vec<Bound<'py, PyAny>>,
    /// One of those that are over failed.
    any_failed: bool,
    /// Some are not ours, or those of a process that forked this one.
    strange: bool,
    /// When the one of ours that was submitted last was, and its place.
    last: Option<(u64, usize)>,
}

impl<'py> Open<'py> {
    fn of(futures: &Bound<'py, PySet>) -> PyResult<Self> {
        let mut open = Open { futures: Vec::new(), any_failed: false, strange: false, last: None };
        for future in futures.iter() {
            if open.counts(&future, open.futures.len())? {
                open.futures.push(future);
            }
        }
        Ok(open)
    }

    /// Drops those that are over by now.
    fn look_again(&mut self) -> PyResult<()> {
        let mut futures = mem::take(&mut self.futures);
        (self.last, self.strange) = (None, false);
        let (mut kept, mut failure) = (0, Ok(()));
        futures.retain(|future| {
            let open = self.counts(future, kept).unwrap_or_else(|error| {
                failure = Err(error);
                true
            });
            kept += usize::from(open);
            open
        });
        self.futures = futures;
        failure
    }

    /// Whether this one is not over, and is to come to this place.
    #[inline]
    fn counts(&mut self, future: &Bound<'py, PyAny>, place: usize) -> PyResult<bool> {
        let Some(this) = ours(future) else {
            let (over, failed) = strange_state(future)?;
            self.strange |= !over;
            self.any_failed |= over && failed;
            return Ok(!over);
        };
        if is_over(this.completion.stage()) {
            self.any_failed |= this.is_failed();
            return Ok(false);
        }
        self.strange |= this.generation != generation();
        let submitted = this.submitted.load(Ordering::Relaxed);
        if self.last.is_none_or(|(latest, _)| latest <= submitted) {
            self.last = Some((submitted, place));
        }
        Ok(true)
    }
}

/// So many times [`wait_for_last`] looks for the last one.
const LOOKS: u32 = 8;

/// Waits until all these are over, as far as that can be done without their telling a collector; `Ok(None)`: it cannot.
///
/// Pools run tasks in the order in which they were submitted. So the one that was submitted last is the last to end,
/// or nearly so: who waits for all waits for this one, and has to be woken but once.
fn wait_for_last(py: Python<'_>, open: &mut Open<'_>, deadline: Deadline) -> PyResult<Option<bool>> {
    if open.strange {
        return Ok(None);
    }
    if pool::is_worker() {
        for future in open.futures.iter().filter_map(ours) {
            pool::help(py, future)?;
        }
        open.look_again()?;
    }
    let host = PyHost::new();
    for _ in 0..LOOKS {
        let Some((_, place)) = open.last else { return Ok(Some(true)) };
        let several = Several::of(&open.futures);
        let (future, address) = (several.futures[place], open.futures[place].as_ptr() as usize);
        if future.completion.is_done() {
            // Cancelled, and nobody has acknowledged it.
            return Ok(None);
        }
        future.completion.will_wait();
        let waited = host.detached(|| {
            let mut parking = Parking::new(Kind::Future, &several, address, deadline, &host);
            future.completion.wait_slow(&mut parking)
        });
        match waited {
            Ok(()) => open.look_again()?,
            Err(Stop::TimedOut) => return Ok(Some(false)),
            Err(Stop::Interrupted) => return Err(fetch(py)),
        }
    }
    Ok(None)
}

/// Waits until `need` of these futures have told a collector that they are over.
fn wait_for_told(
    py: Python<'_>,
    futures: &[Bound<'_, PyAny>],
    need: usize,
    first_exception: bool,
    deadline: Deadline,
) -> PyResult<()> {
    let collector = PyCollector::make(py, need, first_exception)?;
    let waited = futures
        .iter()
        .try_for_each(|future| attach(py, &collector, future))
        .and_then(|()| wait_for(py, &collector, Some(futures), deadline));
    for future in futures {
        detach(&collector, future)?;
    }
    waited.map(drop)
}

/// `wait(futures, timeout, return_when)` of a set, which becomes the set of those that are over; and the set of those
/// that are not.
pub(crate) fn wait<'py>(
    py: Python<'py>,
    futures: &Bound<'py, PySet>,
    timeout: Option<&Bound<'_, PyAny>>,
    return_when: &str,
) -> PyResult<Bound<'py, PySet>> {
    let mut open = Open::of(futures)?;
    let settled = match return_when {
        "FIRST_COMPLETED" => open.futures.len() < futures.len(),
        "FIRST_EXCEPTION" => open.any_failed,
        _ => false,
    };
    if !settled && !open.futures.is_empty() {
        if let Patience::Until(deadline) = patience(timeout)? {
            args::check(deadline)?;
            match return_when {
                "FIRST_COMPLETED" => wait_for_told(py, &open.futures, 1, false, deadline)?,
                "FIRST_EXCEPTION" => wait_for_told(py, &open.futures, open.futures.len(), true, deadline)?,
                _ => {
                    if wait_for_last(py, &mut open, deadline)?.is_none() {
                        open.look_again()?;
                        wait_for_told(py, &open.futures, open.futures.len(), false, deadline)?;
                    }
                }
            }
        }
        open.look_again()?;
    }
    let not_done = PySet::empty(py)?;
    for future in open.futures {
        futures.discard(&future)?;
        not_done.add(future)?;
    }
    Ok(not_done)
}

// as_completed

/// The iterator of `as_completed`.
pub(crate) struct PyCompleted {
    /// The futures not given out yet, a set.
    pending: Place,
    collector: Place,
    timeout: Place,
    ready: Spin<VecDeque<Item>>,
    deadline: OnceLock<Deadline>,
    total: OnceLock<usize>,
}

type Completed<'a> = This<'a, PyCompleted>;

impl PyCompleted {
    /// Takes the collector back from all that are pending.
    fn detach_all(&self, py: Python<'_>) -> PyResult<()> {
        let (Some(pending), Some(collector)) = (self.pending.take(py), self.collector.take(py)) else {
            return Ok(());
        };
        for future in pending.cast::<PySet>()?.iter() {
            detach(&collector, &future)?;
        }
        gil::release(pending);
        Ok(())
    }
}

/// Up to so many futures are all looked at before each wait.
const FEW: usize = 64;
/// How long a wait for many lasts that does not know for whom it waits, in nanoseconds.
const BRIEF: u64 = 300_000_000;

impl PyCompleted {
    /// Waits until one has arrived; `Ok(false)` if the time ran out.
    ///
    /// Who waits for many futures, one after the other, cannot look at all of them each time. It does so when the
    /// wait turns out to be a long one: that is when somebody may ask whom it waits for.
    fn wait(
        &self,
        py: Python<'_>,
        pending: &Bound<'_, PySet>,
        collector: &Bound<'_, PyAny>,
        deadline: Deadline,
    ) -> PyResult<bool> {
        if pending.len() > FEW && !pool::is_worker() {
            let brief = Deadline::at(now().saturating_add(BRIEF));
            if deadline <= brief {
                return wait_for(py, collector, None, deadline);
            }
            if wait_for(py, collector, None, brief)? {
                return Ok(true);
            }
        }
        let open: Vec<_> = pending.iter().collect();
        wait_for(py, collector, Some(&open), deadline)
    }
}

/// The iterator goes.
unsafe extern "C" fn completed_finalize(object: *mut ffi::PyObject) {
    finalize(object, |py| {
        // SAFETY: a slot of the type.
        unsafe { Completed::from_ptr(object) }.detach_all(py)
    });
}

/// Runs the body of a finalizer, with the exception that is on its way put aside.
fn finalize(object: *mut ffi::PyObject, body: impl FnOnce(Python<'_>) -> PyResult<()>) {
    // SAFETY: finalizers are called attached.
    let py = unsafe { Python::assume_attached() };
    let pending = pyo3::PyErr::take(py);
    if let Err(error) = body(py) {
        gil::unraisable(py, error, object);
    }
    if let Some(pending) = pending {
        pending.restore(py);
    }
}

/// `as_completed(futures, timeout)` of a set, which becomes the iterator's.
pub(crate) fn as_completed<'py>(
    py: Python<'py>,
    futures: &Bound<'py, PyAny>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let ty = crate::types::pointer(Slot::Completed);
    let object = crate::native::allocate::<PyCompleted>(py, ty.cast())?;
    // SAFETY: just made.
    let (this, object) = unsafe { (Completed::from_ptr(object), Bound::from_owned_ptr(py, object)) };
    let _ = this.total.set(futures.cast::<PySet>()?.len());
    this.pending.set(futures);
    if let Some(timeout) = timeout {
        this.timeout.set(timeout);
    }
    Ok(object)
}

unsafe extern "C" fn py_iter(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a slot of the type.
    unsafe { ffi::Py_NewRef(object) }
}

unsafe extern "C" fn completed_next(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a slot of the type.
        let this = unsafe { Completed::from_ptr(object) };
        let Some(pending) = this.pending.get(py) else { return Ok(std::ptr::null_mut()) };
        let pending = pending.cast_into::<PySet>()?;
        let (collector, deadline) = match this.collector.get(py) {
            Some(collector) => (collector, *this.deadline.get().unwrap_or(&Deadline::NEVER)),
            None => {
                let deadline = match patience(this.timeout.get(py).as_ref())? {
                    Patience::Until(deadline) => deadline,
                    Patience::None => Deadline::at(0),
                };
                args::check(deadline)?;
                let _ = this.deadline.set(deadline);
                let collector = this.collector.get_or_put(PyCollector::make(py, 1, false)?);
                for future in pending.iter() {
                    attach(py, &collector, &future)?;
                }
                (collector, deadline)
            }
        };
        loop {
            let next = this.ready.lock().pop_front();
            if let Some(future) = next {
                let future = future.into_bound(py);
                if pending.discard(&future)? {
                    return Ok(future.into_ptr());
                }
                continue;
            }
            let arrived = core(&collector).collector.take();
            if !arrived.is_empty() {
                this.ready.lock().extend(arrived);
                continue;
            }
            if pending.is_empty() {
                this.detach_all(py)?;
                return Ok(std::ptr::null_mut());
            }
            if !this.wait(py, &pending, &collector, deadline)? {
                let (left, total) = (pending.len(), this.total.get().copied().unwrap_or(0));
                this.detach_all(py)?;
                return Err(PyTimeoutError::new_err(format!("{left} (of {total}) futures unfinished")));
            }
        }
    })
}

unsafe extern "C" fn completed_close(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        unsafe { Completed::from_ptr(object) }.detach_all(py)?;
        Ok(none())
    })
}

impl Native for PyCompleted {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle._raddle.Completed";
    const DOC: &'static CStr = c"Gives futures as they come to their end.";
    const WHICH: Which = Which::Other;
    const DICT: bool = true;
    const SUBCLASS: bool = false;
    const CALLABLE: bool = false;
    const FINALIZES: bool = true;

    fn fresh() -> Self {
        PyCompleted {
            pending: Place::empty(),
            collector: Place::empty(),
            timeout: Place::empty(),
            ready: Spin::new(VecDeque::new()),
            deadline: OnceLock::new(),
            total: OnceLock::new(),
        }
    }

    fn traverse(&self, visit: &Visit) -> c_int {
        for place in [&self.pending, &self.collector, &self.timeout] {
            let stop = visit.call(place.address());
            if stop != 0 {
                return stop;
            }
        }
        self.ready.lock().iter().map(|item| visit.call(item.as_ptr())).find(|stop| *stop != 0).unwrap_or(0)
    }

    fn clear(&self) {
        let ready = std::mem::take(&mut *self.ready.lock());
        drop(ready);
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            noargs "close" ("") = completed_close, "Give up the futures not given out yet.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        Vec::new()
    }

    fn slots() -> Vec<ffi::PyType_Slot> {
        vec![
            ffi::PyType_Slot { slot: ffi::Py_tp_iter, pfunc: py_iter as *mut c_void },
            ffi::PyType_Slot { slot: ffi::Py_tp_iternext, pfunc: completed_next as *mut c_void },
            ffi::PyType_Slot { slot: ffi::Py_tp_finalize, pfunc: completed_finalize as *mut c_void },
        ]
    }
}

// map

/// The iterator of `map`: results in the order of the arguments. What is left when it goes is cancelled.
pub(crate) struct PyResults {
    line: Spin<VecDeque<Item>>,
    deadline: OnceLock<Deadline>,
    /// Called for one more future after each that was taken; gives None at the end. Empty: all are in line.
    feed: Place,
    busy: AtomicBool,
    /// A result has been asked for: what is left when it goes is cancelled. Before that, the tasks are on their own,
    /// as with a generator that was never started.
    started: AtomicBool,
}

type Results<'a> = This<'a, PyResults>;

impl PyResults {
    fn give_up(&self, py: Python<'_>) {
        if self.started.load(Ordering::Relaxed) {
            self.cancel_all(py);
        }
        let left = std::mem::take(&mut *self.line.lock());
        drop(left);
    }

    fn cancel_all(&self, py: Python<'_>) {
        drop(self.feed.take(py));
        loop {
            let next = self.line.lock().pop_front();
            let Some(item) = next else { return };
            let future = item.into_bound(py);
            let cancelled = future::expect(&future).and_then(|this| future::cancel(py, this));
            if let Err(error) = cancelled {
                gil::unraisable(py, error, std::ptr::null_mut());
            }
            gil::release(future);
        }
    }
}

/// The iterator goes.
unsafe extern "C" fn results_finalize(object: *mut ffi::PyObject) {
    finalize(object, |py| {
        // SAFETY: a slot of the type.
        unsafe { Results::from_ptr(object) }.give_up(py);
        Ok(())
    });
}

/// The results of these futures, in their order; `deadline` is a time-out from now, in seconds.
pub(crate) fn results<'py>(
    py: Python<'py>,
    futures: Vec<Item>,
    deadline: Deadline,
    feed: Option<&Bound<'_, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let ty = crate::types::pointer(Slot::Results);
    let object = crate::native::allocate::<PyResults>(py, ty.cast())?;
    // SAFETY: just made.
    let (this, object) = unsafe { (Results::from_ptr(object), Bound::from_owned_ptr(py, object)) };
    *this.line.lock() = futures.into();
    let _ = this.deadline.set(deadline);
    if let Some(feed) = feed {
        this.feed.set(feed);
    }
    Ok(object)
}

unsafe extern "C" fn results_next(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a slot of the type.
        let this = unsafe { Results::from_ptr(object) };
        if this.busy.swap(true, Ordering::Acquire) {
            return Err(pyo3::exceptions::PyValueError::new_err("the results are being iterated already"));
        }
        this.started.store(true, Ordering::Relaxed);
        let result = next_result(py, this);
        this.busy.store(false, Ordering::Release);
        match result {
            Ok(Some(value)) => Ok(value.into_ptr()),
            Ok(None) => Ok(std::ptr::null_mut()),
            Err(error) => {
                this.cancel_all(py);
                Err(error)
            }
        }
    })
}

fn next_result<'py>(py: Python<'py>, this: Results<'_>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let next = this.line.lock().pop_front();
    let Some(item) = next else { return Ok(None) };
    let future = item.into_bound(py);
    if let Some(feed) = this.feed.get(py) {
        let more = gil::call(&feed, &[])?;
        if more.is_none() {
            drop(this.feed.take(py));
        } else {
            future::expect(&more)?;
            this.line.lock().push_back(more.into());
        }
    }
    let deadline = *this.deadline.get().unwrap_or(&Deadline::NEVER);
    let value = future::result_by(py, future::expect(&future)?, deadline);
    if value.is_err() {
        future::cancel(py, future::expect(&future)?)?;
    }
    gil::release(future);
    value.map(Some)
}

unsafe extern "C" fn results_close(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        unsafe { Results::from_ptr(object) }.give_up(py);
        Ok(none())
    })
}

impl Native for PyResults {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle._raddle.Results";
    const DOC: &'static CStr = c"Gives the results of futures, in the order of the arguments.";
    const WHICH: Which = Which::Other;
    const DICT: bool = true;
    const SUBCLASS: bool = false;
    const CALLABLE: bool = false;
    const FINALIZES: bool = true;

    fn fresh() -> Self {
        PyResults {
            line: Spin::new(VecDeque::new()),
            deadline: OnceLock::new(),
            feed: Place::empty(),
            busy: AtomicBool::new(false),
            started: AtomicBool::new(false),
        }
    }

    fn traverse(&self, visit: &Visit) -> c_int {
        let stop = visit.call(self.feed.address());
        if stop != 0 {
            return stop;
        }
        self.line.lock().iter().map(|item| visit.call(item.as_ptr())).find(|stop| *stop != 0).unwrap_or(0)
    }

    fn clear(&self) {
        let line = std::mem::take(&mut *self.line.lock());
        drop(line);
        self.feed.put(std::ptr::null_mut());
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            noargs "close" ("") = results_close, "Cancel what has not been given out yet.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        Vec::new()
    }

    fn slots() -> Vec<ffi::PyType_Slot> {
        vec![
            ffi::PyType_Slot { slot: ffi::Py_tp_iter, pfunc: py_iter as *mut c_void },
            ffi::PyType_Slot { slot: ffi::Py_tp_iternext, pfunc: results_next as *mut c_void },
            ffi::PyType_Slot { slot: ffi::Py_tp_finalize, pfunc: results_finalize as *mut c_void },
        ]
    }
}

/// Makes the types.
pub(crate) fn add(module: &Bound<'_, PyAny>) -> PyResult<()> {
    crate::types::add::<PyCollector>(module, Slot::Collector)?;
    crate::types::add::<PyCompleted>(module, Slot::Completed)?;
    crate::types::add::<PyResults>(module, Slot::Results)
}
