//! `Future`: the core's life of a future, with its value, its callbacks, and what the standard library's own code
//! reaches for (`_condition`, `_waiters`, `_state`).
//!
//! Once a program has asked for the condition or the waiters, the future is *held*: it ends only under that
//! condition's lock, and tells those waiters, as the standard library's does.

use crate::args::{self, Patience, patience};
use crate::cancel;
use crate::context;
use crate::error::{entry, fetch, into_value};
use crate::exact::{track, track_with};
use crate::gil::{self, PyHost};
use crate::lock::{boolean, none};
use crate::native::{Native, This, Visit, Which, fast, get, getter, methods, no_pickle, noargs};
use crate::pool::{self, Line, Pool, PyLine};
use crate::reference::{Item, Place};
use crate::select::PyCollector;
use crate::types::Slot;
use pyo3::exceptions::{PyException, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::types::{PyAnyMethods, PyList, PyListMethods, PyString, PyTypeMethods};
use pyo3::{Bound, IntoPyObjectExt, Py, PyAny, PyErr, PyResult, Python, ffi};
use raddle::future::{Completion, Refused, Stage};
use raddle::park::{Deadline, Parking, Stop, generation};
use raddle::primitive::Spin;
use raddle::trace::{Claim, Kind, Resource, Site, Waker, epoch};
use raddle::workers::Reply;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// What is told of the end.
pub(crate) enum Listener {
    /// A function, and the context it was given in.
    Callback(Item, Option<Item>),
    /// A collector of ours: somebody waits for several futures.
    Collector(Item),
}

/// What is to be run.
pub(crate) struct Work<'py> {
    pub(crate) function: Bound<'py, PyAny>,
    pub(crate) args: Bound<'py, PyAny>,
    pub(crate) shape: Shape,
    pub(crate) context: Option<Bound<'py, PyAny>>,
}

/// What the arguments of a task are kept in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A tuple of positional arguments.
    Tuple,
    /// A tuple of positional arguments, one more for each keyword, and the tuple of the keywords.
    Named,
    /// Nothing: the one positional argument itself.
    One,
}

impl Work<'_> {
    /// Gives the references back, which may run finalizers.
    pub(crate) fn release(self) {
        gil::release(self.function);
        gil::release(self.args);
        if let Some(context) = self.context {
            gil::release(context);
        }
    }
}

/// The value is an exception.
const FAILED: u8 = 1;
/// Somebody has looked at the exception.
const LOOKED: u8 = 2;
/// Callbacks run in whatever context there is.
pub(crate) const NO_CONTEXT: u8 = 4;
/// The [`Shape`] of the arguments, if it is another than a tuple.
const NAMED: u8 = 8;
const ONE: u8 = 16;
/// The garbage collector knows the future.
const TRACKED: u8 = 32;

/// What a future object adds to its head.
pub(crate) struct PyFuture {
    pub(crate) completion: Completion<Listener>,
    value: Place,
    function: Place,
    args: Place,
    context: Place,
    /// The cancel token that the task runs under.
    pub(crate) token: Place,
    /// The line of the pool it was submitted to. Set before anybody else sees the future, and never changed.
    line: Place,
    /// What few futures have.
    rare: OnceLock<Box<Rare>>,
    /// While its task runs: the task around it, which waits for this one. Not a reference.
    pub(crate) outer: AtomicPtr<ffi::PyObject>,
    pub(crate) submitted_at: AtomicU32,
    /// When it was submitted, in nanoseconds of the monotonic clock.
    pub(crate) submitted: AtomicU64,
    /// The thread that runs it, and in which epoch it began.
    pub(crate) runner: AtomicUsize,
    runner_epoch: AtomicU32,
    /// The process it belongs to: its tasks do not run in a forked child.
    pub(crate) generation: u32,
    flags: AtomicU8,
}

/// See [`PyFuture`].
#[derive(Default)]
struct Rare {
    /// The condition and the waiters of a future that is held.
    condition: Place,
    waiters: Place,
    /// Who has the task run, where another process runs it. Set before anybody else sees the future.
    remote: Option<Remote>,
}

pub(crate) type Me<'a> = This<'a, PyFuture>;

/// What `raddle.concurrent.futures` has told.
struct Names {
    cancelled: Py<PyAny>,
    invalid: Py<PyAny>,
    /// `callback_failed(future, exception)`.
    callback_failed: Py<PyAny>,
    /// `never_looked_at(exception, place)`.
    lost: Py<PyAny>,
}

static NAMES: OnceLock<Names> = OnceLock::new();

/// Says which exceptions to raise, and who is told of errors.
pub(crate) fn set_names(cancelled: Py<PyAny>, invalid: Py<PyAny>, callback_failed: Py<PyAny>, lost: Py<PyAny>) {
    let _ = NAMES.set(Names { cancelled, invalid, callback_failed, lost });
}

fn names() -> PyResult<&'static Names> {
    NAMES.get().ok_or_else(|| PyRuntimeError::new_err("raddle.concurrent.futures has not been imported"))
}

/// A new future of a pool, with its task in it, and where it was submitted.
pub(crate) fn new_task<'py>(py: Python<'py>, line: Line<'_>, work: Work<'py>, site: Option<Site>) -> PyResult<Item> {
    let item = Item::from(crate::exact::make(py)?);
    // SAFETY: just made.
    let future = unsafe { Me::from_ptr(item.as_ptr()) };
    future.line.fill(line.bound(py).into_ptr());
    future.function.fill(work.function.into_ptr());
    // The arguments are given back before the line and the worker let go of the task: until then the garbage collector
    // has no use for a tuple that nobody else has.
    // SAFETY: a live tuple.
    unsafe {
        if work.shape != Shape::One && ffi::Py_REFCNT(work.args.as_ptr()) == 1 {
            ffi::PyObject_GC_UnTrack(work.args.as_ptr().cast());
        }
    }
    future.args.fill(work.args.into_ptr());
    let mut flags = future.flags.load(Ordering::Relaxed);
    flags |= match work.shape {
        Shape::Tuple => 0,
        Shape::Named => NAMED,
        Shape::One => ONE,
    };
    match work.context {
        Some(context) => future.context.fill(context.into_ptr()),
        None => flags |= NO_CONTEXT,
    }
    future.flags.store(flags, Ordering::Relaxed);
    future.submitted_at.store(Site::to_word(site), Ordering::Relaxed);
    Ok(item)
}

impl PyFuture {
    /// What few futures have: made now if it was not there.
    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    #[inline]
    fn remote(&self) -> Option<&Remote> {
        self.rare.get().and_then(|rare| rare.remote.as_ref())
    }

    /// The pool it was submitted to.
    pub(crate) fn pool(&self) -> Option<&Arc<Pool>> {
        let line = self.line.address();
        // SAFETY: only lines are put there, and stay as long as the future.
        (!line.is_null()).then(|| &unsafe { crate::native::core::<PyLine>(line) }.pool)
    }

    /// The line that it waits in, if it does.
    pub(crate) fn waits_in(&self) -> Option<NonNull<ffi::PyObject>> {
        let line = NonNull::new(self.line.address())?;
        (self.completion.stage() == Stage::Pending).then_some(line)
    }

    /// Where it was submitted.
    pub(crate) fn site(&self) -> Option<Site> {
        Site::from_word(self.submitted_at.load(Ordering::Relaxed))
    }

    /// Takes the task out, to run it or to drop it: for who has begun or cancelled the future.
    pub(crate) fn take_work<'py>(&self, py: Python<'py>) -> Option<Work<'py>> {
        let function = self.function.empty_out(py)?;
        let args = self.args.empty_out(py)?;
        let shape = match self.flags.load(Ordering::Relaxed) & (NAMED | ONE) {
            NAMED => Shape::Named,
            ONE => Shape::One,
            _ => Shape::Tuple,
        };
        Some(Work { function, args, shape, context: self.context.empty_out(py) })
    }

    /// Says which thread runs it.
    pub(crate) fn run_by(&self, token: usize) {
        self.runner_epoch.store(epoch(), Ordering::Relaxed);
        self.runner.store(token, Ordering::Release);
    }

    /// Whether the garbage collector knows it.
    #[inline]
    pub(crate) fn is_tracked(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & TRACKED != 0
    }

    /// Says whether the garbage collector knows it. By a load and a store: with the GIL nobody changes the other flags
    /// meanwhile. Where there is none, or another process runs the task, the collector knows it from the start.
    #[inline]
    pub(crate) fn set_tracked(&self, tracked: bool) {
        let others = self.flags.load(Ordering::Relaxed) & !TRACKED;
        self.flags.store(if tracked { others | TRACKED } else { others }, Ordering::Relaxed);
    }

    /// Whether it ended with an exception that nobody has looked at.
    #[inline]
    pub(crate) fn is_unseen(&self) -> bool {
        self.flags.load(Ordering::Acquire) & (FAILED | LOOKED) == FAILED
    }

    /// Whether the value is an exception.
    pub(crate) fn is_failed(&self) -> bool {
        self.flags.load(Ordering::Acquire) & FAILED != 0
    }

    /// The exception, unless there is none: marks it as looked at.
    fn exception<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        if !self.is_failed() {
            return None;
        }
        if self.flags.fetch_or(LOOKED, Ordering::AcqRel) & LOOKED == 0 {
            pool::seen(std::ptr::from_ref(self) as usize);
        }
        self.value.get(py)
    }

    /// The exception that nobody has looked at, and where its task was submitted.
    pub(crate) fn unseen<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, PyAny>, Option<Site>)> {
        if self.flags.fetch_or(LOOKED, Ordering::AcqRel) & (FAILED | LOOKED) != FAILED || self.pool().is_none() {
            return None;
        }
        Some((self.value.get(py)?, self.site()))
    }
}

impl Drop for PyFuture {
    fn drop(&mut self) {
        if *self.flags.get_mut() & FAILED != 0 {
            pool::seen(std::ptr::from_ref(self) as usize);
        }
    }
}

/// The future goes. Here, and not when it is freed: nothing it refers to has been cleared yet.
unsafe extern "C" fn py_finalize(object: *mut ffi::PyObject) {
    // SAFETY: a slot of the type; attached.
    let (py, this) = unsafe { (Python::assume_attached(), Me::from_ptr(object)) };
    if this.is_unseen() {
        let pending = PyErr::take(py);
        if let Some((error, site)) = this.unseen(py) {
            tell_lost(py, &error, site);
        }
        if let Some(pending) = pending {
            pending.restore(py);
        }
    }
}

/// An exception that nobody has looked at is logged.
pub(crate) fn tell_lost(py: Python<'_>, error: &Bound<'_, PyAny>, site: Option<Site>) {
    let tell = || -> PyResult<()> {
        let place = crate::observe::place(py, site)?;
        gil::call(names()?.lost.bind(py), &[error, &place])?;
        Ok(())
    };
    if let Err(failure) = tell() {
        gil::unraisable(py, failure, null_mut());
    }
}

impl Resource for PyFuture {
    fn is_outside(&self) -> bool {
        self.remote().is_some()
    }

    fn wakers(&self, _kind: Kind, out: &mut Vec<Waker>) -> Claim {
        let Some(pool) = self.pool() else { return Claim::Unknown };
        match self.completion.stage() {
            Stage::Running => {
                let token = self.runner.load(Ordering::Acquire);
                if token == 0 {
                    return Claim::Unknown;
                }
                out.push(Waker { token, site: self.site(), epoch: self.runner_epoch.load(Ordering::Relaxed) });
                Claim::Proven
            }
            Stage::Pending => pool.servers(self.site(), out),
            _ => Claim::Unknown,
        }
    }
}

// Ends

/// A task that another process runs.
pub(crate) struct Remote {
    workers: Arc<dyn Workers>,
    id: AtomicU64,
    /// What that process has sent, until somebody looks at the value.
    reply: Spin<Option<Arc<Reply>>>,
}

/// Who has a task run by another process.
pub(crate) trait Workers: Send + Sync {
    /// Asks the task to stop; false if it is over.
    fn stop(&self, id: u64) -> bool;
}

/// What is left to do, attached, after a reply has arrived.
pub(crate) enum Rest {
    /// Nothing but giving the reference back.
    Nothing,
    /// Somebody listens.
    Tell,
    /// The future is held: it is to be settled under its lock.
    Settle,
    /// Likewise, and nothing has been done.
    End(Reply),
}

/// A new future of a task that another process is to run.
pub(crate) fn new_remote(py: Python<'_>, name: &Bound<'_, PyAny>, workers: Arc<dyn Workers>) -> PyResult<Item> {
    let item = Item::from(crate::exact::make(py)?);
    // SAFETY: just made.
    let future = unsafe { Me::from_ptr(item.as_ptr()) };
    let remote = Remote { workers, id: AtomicU64::new(0), reply: Spin::new(None) };
    let _ = future.rare.set(Box::new(Rare { remote: Some(remote), ..Rare::default() }));
    track(future);
    future.function.set(name);
    Ok(item)
}

impl PyFuture {
    /// The name of the task's function, where another process runs it.
    pub(crate) fn task_name<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.remote().and_then(|_| self.function.get(py))
    }

    /// The number of its task.
    pub(crate) fn set_remote_id(&self, id: u64) {
        if let Some(remote) = self.remote() {
            remote.id.store(id, Ordering::Release);
        }
    }

    /// A reply has come. Needs not be attached.
    pub(crate) fn arrive(&self, reply: Reply) -> Rest {
        match self.completion.claim(false) {
            Ok(()) => {}
            Err(Refused::Held) => return Rest::End(reply),
            Err(Refused::Stage(_)) => return Rest::Nothing,
        }
        self.keep(reply);
        match self.completion.settle(Stage::Finished, false) {
            Ok(true) => Rest::Tell,
            Ok(false) | Err(Refused::Stage(_)) => Rest::Nothing,
            Err(Refused::Held) => Rest::Settle,
        }
    }

    fn keep(&self, reply: Reply) {
        if reply.kind == raddle::workers::kind::RAISED {
            self.flags.fetch_or(FAILED, Ordering::AcqRel);
        }
        if let Some(remote) = self.remote() {
            *remote.reply.lock() = Some(Arc::new(reply));
        }
    }

    /// Makes the value of what has arrived, if nobody has.
    ///
    /// # Errors
    /// What is no `Exception`, as a Ctrl-C meanwhile. All others become the value.
    fn unpack(&self, py: Python<'_>) -> PyResult<()> {
        let Some(remote) = self.remote() else { return Ok(()) };
        let Some(reply) = remote.reply.lock().clone() else { return Ok(()) };
        let (value, failed) = match crate::tasks::decode(py, &reply) {
            Ok(value) => (value, self.is_failed()),
            Err(error) if error.is_instance_of::<PyException>(py) => (into_value(py, error), true),
            Err(error) => return Err(error),
        };
        if failed {
            self.flags.fetch_or(FAILED, Ordering::AcqRel);
        }
        let kept = self.value.get_or_put(value);
        gil::release(kept);
        let unpacked = remote.reply.lock().take();
        drop(unpacked);
        Ok(())
    }
}

/// Does what is left, attached.
pub(crate) fn finish_remote(py: Python<'_>, this: Me<'_>, rest: Rest) -> PyResult<()> {
    match rest {
        Rest::Nothing => Ok(()),
        Rest::Tell => tell_all(py, this),
        Rest::Settle => settle(py, this, None, Stage::Finished, method_of(this.is_failed())),
        Rest::End(reply) => {
            let method = method_of(reply.kind == raddle::workers::kind::RAISED);
            end(py, this, Stage::Finished, method, || this.keep(reply)).map(drop)
        }
    }
}

/// How waiters of a held future are told.
fn method_of(failed: bool) -> &'static str {
    if failed { "add_exception" } else { "add_result" }
}

/// The condition of a held future, taken.
type Lock<'py> = Option<Bound<'py, PyAny>>;

/// One step of an end. Takes the condition first if the future turns out to be held.
fn step<'py, R>(
    py: Python<'py>,
    this: Me<'_>,
    lock: &mut Lock<'py>,
    change: impl Fn(bool) -> Result<R, Refused>,
) -> PyResult<Result<R, Stage>> {
    let mut done = change(lock.is_some());
    if matches!(done, Err(Refused::Held)) {
        let condition = condition(py, this)?;
        gil::method(&condition, "acquire", &[])?;
        *lock = Some(condition);
        done = change(true);
    }
    Ok(done.map_err(|refused| match refused {
        Refused::Stage(stage) => stage,
        Refused::Held => unreachable!("changed under the lock"),
    }))
}

/// Tells the waiters of a held future by this method, if any, and those who wait on its condition; gives it back.
fn leave(py: Python<'_>, this: Me<'_>, lock: Lock<'_>, method: Option<&str>) -> PyResult<()> {
    let Some(condition) = lock else { return Ok(()) };
    let told = (|| {
        if let (Some(method), Some(waiters)) = (method, this.rare().waiters.get(py)) {
            let me = this.bound(py);
            for waiter in waiters.cast::<PyList>()?.iter() {
                gil::method(&waiter, method, &[&me])?;
            }
        }
        gil::method(&condition, "notify_all", &[])
    })();
    gil::method(&condition, "release", &[])?;
    told.map(drop)
}

/// Ends a future: claims it, has its value stored, settles it, and tells everybody. `Ok(false)`: it was over.
fn end(py: Python<'_>, this: Me<'_>, stage: Stage, method: &str, store: impl FnOnce()) -> PyResult<bool> {
    let mut lock = None;
    if step(py, this, &mut lock, |locked| this.completion.claim(locked))?.is_err() {
        leave(py, this, lock, None)?;
        return Ok(false);
    }
    store();
    settle(py, this, lock, stage, method)?;
    Ok(true)
}

/// The second half of an end: the future is claimed.
fn settle<'py>(py: Python<'py>, this: Me<'_>, mut lock: Lock<'py>, stage: Stage, method: &str) -> PyResult<()> {
    let listened = match step(py, this, &mut lock, |locked| this.completion.settle(stage, locked)) {
        Ok(listened) => listened.expect("claimed before"),
        Err(error) => {
            // The lock could not be had. The future is over all the same.
            let _ = this.completion.settle(stage, true);
            return Err(error);
        }
    };
    leave(py, this, lock, Some(method))?;
    if listened {
        tell_all(py, this)?;
    }
    Ok(())
}

/// Has something told of the end; false if that is over.
pub(crate) fn listen(this: Me<'_>, listener: Listener, is_over: impl Fn(Stage) -> bool) -> bool {
    // As long as there are listeners, who runs the task has a reference. Others may have forgotten the future.
    if this.pool().is_none() {
        track(this);
    }
    if alone(this) {
        // SAFETY: what `alone` says.
        unsafe { this.completion.listen_alone(listener, is_over) }.is_ok()
    } else {
        this.completion.listen(listener, is_over).is_ok()
    }
}

/// Whether only threads that are attached change this future, or have something told of its end: then nobody else does
/// as long as the calling one is.
#[inline]
fn alone(this: Me<'_>) -> bool {
    // What another process replies comes by a thread that is not attached.
    !cfg!(Py_GIL_DISABLED) && this.remote().is_none()
}

/// Tells the collectors, once it is finished or cancelled and acknowledged.
fn tell_collectors(py: Python<'_>, this: Me<'_>) {
    let failed = this.is_failed();
    for listener in this.completion.take_listeners(|listener| matches!(listener, Listener::Collector(_))) {
        listener.tell_collector(py, this, failed);
    }
}

/// Calls the callbacks, once it is over. An exception that is no `Exception` ends it.
fn call_back(py: Python<'_>, this: Me<'_>) -> PyResult<()> {
    let listeners = this.completion.take_listeners(|listener| matches!(listener, Listener::Callback(..)));
    listeners.into_iter().try_for_each(|listener| listener.call_back(py, this))
}

/// The same for one that is finished: first the collectors, and then the callbacks.
fn tell_all(py: Python<'_>, this: Me<'_>) -> PyResult<()> {
    if alone(this) {
        return tell_all_alone(py, this);
    }
    tell_each(py, this)
}

/// The same where [`alone`] holds.
#[inline]
fn tell_all_alone(py: Python<'_>, this: Me<'_>) -> PyResult<()> {
    // SAFETY: what `alone` says.
    match unsafe { this.completion.take_only_alone() } {
        Some(only) => only.tell(py, this),
        None => tell_each(py, this),
    }
}

fn tell_each(py: Python<'_>, this: Me<'_>) -> PyResult<()> {
    let mut listeners = this.completion.take_listeners(|_| true);
    if listeners.iter().any(|listener| matches!(listener, Listener::Collector(_))) {
        let failed = this.is_failed();
        listeners = listeners.into_iter().filter_map(|listener| listener.tell_collector(py, this, failed)).collect();
    }
    listeners.into_iter().try_for_each(|listener| listener.call_back(py, this))
}

impl Listener {
    /// Tells it, whatever it is.
    #[inline]
    fn tell(self, py: Python<'_>, this: Me<'_>) -> PyResult<()> {
        match self {
            Listener::Callback(..) => self.call_back(py, this),
            Listener::Collector(_) => {
                self.tell_collector(py, this, this.is_failed());
                Ok(())
            }
        }
    }

    /// Tells it if it is a collector; else it is given back.
    fn tell_collector(self, py: Python<'_>, this: Me<'_>, failed: bool) -> Option<Self> {
        let Listener::Collector(collector) = self else { return Some(self) };
        // SAFETY: only collectors are registered as such.
        unsafe { This::<PyCollector>::from_ptr(collector.as_ptr()) }.over(this.as_ptr(), failed);
        gil::release(collector.into_bound(py));
        None
    }

    /// Calls it if it is a callback.
    #[inline]
    fn call_back(self, py: Python<'_>, this: Me<'_>) -> PyResult<()> {
        let Listener::Callback(function, context) = self else { return Ok(()) };
        let context = context.map(|context| context.into_bound(py));
        let function = function.into_bound(py);
        let told = invoke(py, this, &function, context.as_ref());
        gil::release(function);
        if let Some(context) = context {
            gil::release(context);
        }
        told
    }
}

/// Calls one callback; what it raises is logged.
#[inline]
fn invoke(
    py: Python<'_>,
    this: Me<'_>,
    function: &Bound<'_, PyAny>,
    context: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    // The first place is the callee's to use: a bound method puts its object there.
    let places = [null_mut(), this.as_ptr()];
    let count = 1 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
    // SAFETY: a live object, kept by who ends it.
    let call = || unsafe { gil::call_raw_plain(function, places[1..].as_ptr(), count, null_mut()) };
    let result = context::run(py, context, call);
    if !result.is_null() {
        // SAFETY: a new reference.
        unsafe { gil::decref(result) };
        return Ok(());
    }
    callback_failed(py, this)
}

/// Logs what a callback has raised, unless it is no `Exception`.
#[cold]
fn callback_failed(py: Python<'_>, this: Me<'_>) -> PyResult<()> {
    let error = fetch(py);
    if !error.is_instance_of::<PyException>(py) {
        return Err(error);
    }
    gil::call(names()?.callback_failed.bind(py), &[&this.bound(py), &into_value(py, error)]).map(drop)
}

/// Ends a future with a value or an exception. `Ok(false)`: it was over, or another thread is about to end it.
pub(crate) fn finish(py: Python<'_>, this: Me<'_>, value: Bound<'_, PyAny>, failed: bool) -> PyResult<bool> {
    let store = |value: Bound<'_, PyAny>| {
        track_with(this, &value);
        this.value.fill(value.into_ptr());
        if failed {
            this.flags.fetch_or(FAILED, Ordering::AcqRel);
            if this.pool().is_some() {
                pool::unseen(std::ptr::from_ref(&*this) as usize, this.as_ptr());
            }
        }
    };
    // What a program has put there by hand runs code when it goes.
    if alone(this) && this.value.is_empty() {
        match this.completion.is_open() {
            Ok(()) => {
                store(value);
                // SAFETY: what `alone` says; who waits has said so before it let go of the GIL.
                let listened = unsafe { this.completion.finish_alone() }.expect("the GIL was held since it was open");
                if listened {
                    tell_all_alone(py, this)?;
                }
                return Ok(true);
            }
            Err(Refused::Stage(_)) => return Ok(false),
            Err(Refused::Held) => {}
        }
    }
    end(py, this, Stage::Finished, method_of(failed), || {
        this.value.put(null_mut());
        store(value);
    })
}

/// Ends a running future as cancelled: its task was asked to stop, and did.
pub(crate) fn give_up(py: Python<'_>, this: Me<'_>) -> PyResult<bool> {
    end(py, this, Stage::Notified, "add_cancelled", || {})
}

/// Cancels a future that has not begun. `Ok(false)`: it has.
pub(crate) fn cancel(py: Python<'_>, this: Me<'_>) -> PyResult<bool> {
    track(this);
    let mut lock = None;
    let cancelled = step(py, this, &mut lock, |locked| this.completion.cancel(locked))?;
    if cancelled.is_ok() {
        if let Some(work) = this.take_work(py) {
            work.release();
        }
    }
    leave(py, this, lock, None)?;
    match cancelled {
        Ok(listened) => {
            if let Some(pool) = this.pool() {
                pool::withdraw(py, pool)?;
            }
            if listened {
                call_back(py, this)?;
            }
            Ok(true)
        }
        Err(stage) => Ok(matches!(stage, Stage::Cancelled | Stage::Notified)),
    }
}

/// Whoever would have run it knows that it was cancelled.
pub(crate) fn acknowledge(py: Python<'_>, this: Me<'_>) -> PyResult<bool> {
    let mut lock = None;
    let acknowledged = step(py, this, &mut lock, |locked| this.completion.acknowledge(locked))?;
    leave(py, this, lock, acknowledged.is_ok().then_some("add_cancelled"))?;
    if acknowledged == Ok(true) {
        tell_collectors(py, this);
    }
    Ok(acknowledged.is_ok())
}

/// The condition that the standard library's own code takes; from now on the future is held.
fn condition<'py>(py: Python<'py>, this: Me<'_>) -> PyResult<Bound<'py, PyAny>> {
    let place = &this.rare().condition;
    let condition = match place.get(py) {
        Some(condition) => condition,
        None => {
            track(this);
            let new = gil::call(&crate::types::get(py, Slot::Condition), &[])?;
            place.get_or_put(new)
        }
    };
    this.completion.hold();
    Ok(condition)
}

// Waits

/// What it came to, for who waits.
fn outcome<'py>(py: Python<'py>, this: Me<'_>) -> PyResult<Bound<'py, PyAny>> {
    match this.completion.stage() {
        Stage::Finished => {
            this.unpack(py)?;
            if let Some(error) = this.exception(py) {
                return Err(PyErr::from_value(error));
            }
            Ok(this.value.get(py).unwrap_or_else(|| py.None().into_bound(py)))
        }
        _ => Err(error_of(py, |names| &names.cancelled)),
    }
}

fn error_of(py: Python<'_>, pick: impl FnOnce(&Names) -> &Py<PyAny>) -> PyErr {
    match names().and_then(|names| gil::call(pick(names).bind(py), &[])) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Waits for the end; `Ok(false)` if the time ran out.
fn wait(py: Python<'_>, this: Me<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
    if this.completion.is_done() {
        return settled(py, this);
    }
    let Patience::Until(deadline) = patience(timeout)? else {
        return Ok(false);
    };
    args::check(deadline)?;
    wait_until(py, this, deadline)
}

/// The result, or what the task raised, or `TimeoutError` at the deadline.
pub(crate) fn result_by<'py>(py: Python<'py>, this: Me<'_>, deadline: Deadline) -> PyResult<Bound<'py, PyAny>> {
    if !this.completion.is_done() && (deadline.is_past() || !wait_until(py, this, deadline)?) {
        return Err(pyo3::exceptions::PyTimeoutError::new_err(()));
    }
    outcome(py, this)
}

fn wait_until(py: Python<'_>, this: Me<'_>, deadline: Deadline) -> PyResult<bool> {
    if let Some(pool) = this.pool() {
        pool.check_process(&this)?;
        if pool::help(py, this)? {
            return Ok(true);
        }
    }
    let future: &PyFuture = &this;
    future.completion.will_wait();
    let host = PyHost::new();
    let result = host.detached(|| {
        let mut parking = Parking::new(Kind::Future, future, this.address(), deadline, &host);
        future.completion.wait_slow(&mut parking)
    });
    match result {
        Ok(()) => settled(py, this),
        Err(Stop::TimedOut) => Ok(false),
        Err(Stop::Interrupted) => Err(fetch(py)),
    }
}

/// Whoever changes a held future by hand may be in the middle of it: passing through its lock waits for that.
fn settled(py: Python<'_>, this: Me<'_>) -> PyResult<bool> {
    if this.completion.is_held() && this.value.is_empty() {
        let condition = condition(py, this)?;
        gil::method(&condition, "acquire", &[])?;
        gil::method(&condition, "release", &[])?;
    }
    Ok(true)
}

// Methods

unsafe extern "C" fn py_result(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let this = unsafe { Me::from_ptr(object) };
        // A value that is there needs not be unpacked.
        if count == 0
            && keywords.is_null()
            && this.completion.stage() == Stage::Finished
            && !this.is_failed()
            && let Some(value) = this.value.get(py)
        {
            return Ok(value.into_ptr());
        }
        let [timeout] = args::fast(py, "result", ["timeout"], 1, (args, count, keywords))?;
        if !wait(py, this, timeout.as_ref())? {
            return Err(pyo3::exceptions::PyTimeoutError::new_err(()));
        }
        Ok(outcome(py, this)?.into_ptr())
    })
}

fast!(py_exception, PyFuture, |py, this, fast| {
    let [timeout] = args::fast(py, "exception", ["timeout"], 1, fast)?;
    if !wait(py, this, timeout.as_ref())? {
        return Err(pyo3::exceptions::PyTimeoutError::new_err(()));
    }
    match this.completion.stage() {
        Stage::Finished => {
            this.unpack(py)?;
            Ok(this.exception(py).map_or_else(none, Bound::into_ptr))
        }
        _ => Err(error_of(py, |names| &names.cancelled)),
    }
});

fast!(py_cancel, PyFuture, |py, this, fast| {
    let [running, timeout] = args::fast(py, "cancel", ["running", "timeout"], 0, fast)?;
    if cancel(py, this)? {
        return Ok(boolean(true));
    }
    if !args::truth(running.as_ref(), false)? || this.completion.is_done() {
        return Ok(boolean(false));
    }
    match this.remote() {
        Some(remote) => {
            let (workers, id) = (Arc::clone(&remote.workers), remote.id.load(Ordering::Acquire));
            if !PyHost::unending().detached(|| workers.stop(id)) {
                return Ok(boolean(false));
            }
        }
        None if this.pool().is_none() => return Ok(boolean(false)),
        None => cancel::ask_to_stop(py, this)?,
    }
    if timeout.is_some() {
        // Asked to wait and see: whether the task has stopped.
        let over = wait(py, this, timeout.as_ref())?;
        return Ok(boolean(over && matches!(this.completion.stage(), Stage::Notified)));
    }
    Ok(boolean(true))
});

unsafe extern "C" fn py_cancelled(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let stage = unsafe { Me::from_ptr(object) }.completion.stage();
    boolean(matches!(stage, Stage::Cancelled | Stage::Notified))
}

unsafe extern "C" fn py_running(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    let stage = unsafe { Me::from_ptr(object) }.completion.stage();
    boolean(matches!(stage, Stage::Running | Stage::Settling))
}

unsafe extern "C" fn py_done(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    boolean(unsafe { Me::from_ptr(object) }.completion.is_done())
}

fast!(py_add_done_callback, PyFuture, |py, this, fast| {
    let function = args::one(py, "add_done_callback", "fn", fast)?;
    if !this.completion.is_done() {
        let follows = this.flags.load(Ordering::Relaxed) & NO_CONTEXT == 0;
        let context = if follows { Some(context::snapshot(py)?.into()) } else { None };
        if listen(this, Listener::Callback(function.clone().into(), context), Stage::is_done) {
            return Ok(none());
        }
    }
    invoke(py, this, &function, None)?;
    Ok(none())
});

fn not_allowed(py: Python<'_>, this: Me<'_>) -> PyErr {
    let make = || -> PyResult<PyErr> {
        let text = format!("{}: {}", state_name(this.completion.stage()), this.bound(py).repr()?);
        Ok(PyErr::from_value(gil::call(names()?.invalid.bind(py), &[&text.into_bound_py_any(py)?])?))
    };
    make().unwrap_or_else(|error| error)
}

fast!(py_set_result, PyFuture, |py, this, fast| {
    let value = args::one(py, "set_result", "result", fast)?;
    if finish(py, this, value, false)? { Ok(none()) } else { Err(not_allowed(py, this)) }
});

fast!(py_set_exception, PyFuture, |py, this, fast| {
    let value = args::one(py, "set_exception", "exception", fast)?;
    // The standard library takes None as well: a future that is finished, with the result None.
    let failed = !value.is_none();
    if finish(py, this, value, failed)? { Ok(none()) } else { Err(not_allowed(py, this)) }
});

noargs!(py_set_running, PyFuture, |py, this| {
    if this.completion.begin().is_ok() {
        return Ok(boolean(true));
    }
    if acknowledge(py, this)? {
        return Ok(boolean(false));
    }
    let log = py.import("concurrent.futures._base")?.getattr("LOGGER")?;
    let text = "Future %s in unexpected state: %s".into_bound_py_any(py)?;
    let address = this.address().into_bound_py_any(py)?;
    let state = state_name(this.completion.stage()).into_bound_py_any(py)?;
    gil::method(&log, "critical", &[&text, &address, &state])?;
    Err(PyRuntimeError::new_err("Future in unexpected state"))
});

// Attributes of the standard library's

fn state_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Pending => "PENDING",
        Stage::Running | Stage::Settling => "RUNNING",
        Stage::Cancelled => "CANCELLED",
        Stage::Notified => "CANCELLED_AND_NOTIFIED",
        Stage::Finished => "FINISHED",
    }
}

unsafe extern "C" fn py_state(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: an attribute of the type.
        let stage = unsafe { Me::from_ptr(object) }.completion.stage();
        Ok(PyString::intern(py, state_name(stage)).into_ptr())
    })
}

/// Runs the body of a setter.
fn setter(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    body: impl FnOnce(Python<'_>, Me<'_>, Bound<'_, PyAny>) -> PyResult<()>,
) -> c_int {
    crate::error::entry_or(-1, |py| {
        if value.is_null() {
            return Err(pyo3::exceptions::PyAttributeError::new_err("a future's own attributes cannot be deleted"));
        }
        // SAFETY: an attribute of the type, and a live value.
        let (this, value) = unsafe { (Me::from_ptr(object), Bound::from_borrowed_ptr(py, value)) };
        body(py, this, value)?;
        Ok(0)
    })
}

unsafe extern "C" fn py_set_state(object: *mut ffi::PyObject, value: *mut ffi::PyObject, _: *mut c_void) -> c_int {
    setter(object, value, |_, this, value| {
        let name = value.extract::<String>()?;
        let stages = [Stage::Pending, Stage::Running, Stage::Cancelled, Stage::Notified, Stage::Finished];
        let Some(stage) = stages.into_iter().find(|stage| state_name(*stage) == name) else {
            return Err(PyValueError::new_err(format!("{name:?} is no state of a future")));
        };
        track(this);
        this.completion.force(stage);
        Ok(())
    })
}

getter!(py_get_result, PyFuture, |py, this| {
    this.unpack(py)?;
    let value = if this.is_failed() { None } else { this.value.get(py) };
    Ok(value.map_or_else(none, Bound::into_ptr))
});

unsafe extern "C" fn py_put_result(object: *mut ffi::PyObject, value: *mut ffi::PyObject, _: *mut c_void) -> c_int {
    setter(object, value, |_, this, value| {
        if !this.is_failed() {
            track(this);
            this.value.set(&value);
        }
        Ok(())
    })
}

getter!(py_get_exception, PyFuture, |py, this| {
    this.unpack(py)?;
    Ok(this.exception(py).map_or_else(none, Bound::into_ptr))
});

unsafe extern "C" fn py_put_exception(object: *mut ffi::PyObject, value: *mut ffi::PyObject, _: *mut c_void) -> c_int {
    setter(object, value, |_, this, value| {
        if value.is_none() {
            if this.flags.fetch_and(!FAILED, Ordering::AcqRel) & FAILED != 0 {
                this.value.put(null_mut());
            }
        } else {
            track(this);
            this.value.set(&value);
            this.flags.fetch_or(FAILED, Ordering::AcqRel);
        }
        Ok(())
    })
}

unsafe extern "C" fn py_get_condition(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    entry(|py| Ok(condition(py, unsafe { Me::from_ptr(object) })?.into_ptr()))
}

unsafe extern "C" fn py_put_condition(object: *mut ffi::PyObject, value: *mut ffi::PyObject, _: *mut c_void) -> c_int {
    setter(object, value, |_, this, value| {
        track(this);
        this.rare().condition.set(&value);
        this.completion.hold();
        Ok(())
    })
}

getter!(py_get_waiters, PyFuture, |py, this| {
    condition(py, this)?;
    let place = &this.rare().waiters;
    let waiters = match place.get(py) {
        Some(waiters) => waiters,
        None => place.get_or_put(PyList::empty(py).into_any()),
    };
    Ok(waiters.into_ptr())
});

getter!(py_get_callbacks, PyFuture, |py, this| {
    let callbacks: Vec<Item> = this.completion.with_listeners(|listeners| {
        let functions = listeners.iter().filter_map(|listener| match listener {
            Listener::Callback(function, _) => Some(function.clone()),
            Listener::Collector(_) => None,
        });
        functions.collect()
    });
    let list = PyList::empty(py);
    for callback in callbacks {
        list.append(callback.into_bound(py))?;
    }
    Ok(list.into_any().into_ptr())
});

unsafe extern "C" fn py_site(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: an attribute of the type.
    entry(|py| Ok(crate::observe::place(py, unsafe { Me::from_ptr(object) }.site())?.into_ptr()))
}

unsafe extern "C" fn py_repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a slot of the type.
        let this = unsafe { Me::from_ptr(object) };
        let name = this.bound(py).get_type().name()?;
        let stage = this.completion.stage();
        let state = match stage {
            Stage::Cancelled | Stage::Notified => "cancelled".to_owned(),
            stage => state_name(stage).to_lowercase(),
        };
        let kind = |value: &Bound<'_, PyAny>| value.get_type().name().map(|name| name.to_string());
        let unread = this.remote().is_some_and(|remote| remote.reply.lock().is_some());
        let value = match (stage, this.value.get(py)) {
            // Unpacking it would run code.
            (Stage::Finished, None) if unread && this.is_failed() => {
                " raised an exception not yet unpickled".to_owned()
            }
            (Stage::Finished, None) if unread => " returned an object not yet unpickled".to_owned(),
            (Stage::Finished, Some(value)) if this.is_failed() => format!(" raised {}", kind(&value)?),
            (Stage::Finished, Some(value)) => format!(" returned {}", kind(&value)?),
            (Stage::Finished, None) => " returned NoneType".to_owned(),
            _ => String::new(),
        };
        Ok(PyString::new(py, &format!("<{name} at {:#x} state={state}{value}>", this.address())).into_ptr())
    })
}

impl Native for PyFuture {
    type Entry = ();
    const NAME: &'static CStr = c"raddle._raddle.Future";
    const DOC: &'static CStr = c"Future()\n--\n\nThe core of raddle.concurrent.futures.Future.";
    const WHICH: Which = Which::Other;
    const DICT: bool = true;
    const DICT_ACCESS: (ffi::getter, ffi::setter) = (crate::exact::py_dict, crate::exact::py_set_dict);
    const SITE: bool = false;

    fn fresh() -> Self {
        PyFuture {
            completion: Completion::new(),
            value: Place::empty(),
            function: Place::empty(),
            args: Place::empty(),
            context: Place::empty(),
            token: Place::empty(),
            line: Place::empty(),
            rare: OnceLock::new(),
            outer: AtomicPtr::new(null_mut()),
            submitted_at: AtomicU32::new(0),
            submitted: AtomicU64::new(0),
            runner: AtomicUsize::new(0),
            runner_epoch: AtomicU32::new(0),
            generation: generation(),
            flags: AtomicU8::new(TRACKED),
        }
    }

    fn init(_: Me<'_>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        // SAFETY: `__init__` gets a tuple.
        if kwargs.is_none() && unsafe { ffi::PyTuple_GET_SIZE(args.as_ptr()) } == 0 {
            return Ok(());
        }
        let [] = args::tuple("Future", [], 0, args, kwargs)?;
        Ok(())
    }

    fn traverse(&self, visit: &Visit) -> c_int {
        let rare = self.rare.get().map(|rare| [&rare.condition, &rare.waiters]);
        let places = [&self.value, &self.function, &self.args, &self.context, &self.token];
        for place in places.into_iter().chain(rare.into_iter().flatten()) {
            let stop = visit.call(place.address());
            if stop != 0 {
                return stop;
            }
        }
        self.completion.with_listeners(|listeners| {
            for listener in listeners.iter() {
                let (first, second) = match listener {
                    Listener::Callback(function, context) => (function, context.as_ref()),
                    Listener::Collector(collector) => (collector, None),
                };
                for item in std::iter::once(first).chain(second) {
                    let stop = visit.call(item.as_ptr());
                    if stop != 0 {
                        return stop;
                    }
                }
            }
            0
        })
    }

    fn clear(&self) {
        let rare = self.rare.get().map(|rare| [&rare.condition, &rare.waiters]);
        for place in [&self.function, &self.args, &self.context].into_iter().chain(rare.into_iter().flatten()) {
            place.put(null_mut());
        }
        if !self.is_failed() {
            self.value.put(null_mut());
        }
        drop(self.completion.take_listeners(|_| true));
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            fast "result" (", timeout=None") = py_result, "The result, waited for at most `timeout` seconds.";
            fast "exception" (", timeout=None") = py_exception, "The exception or None, waited for at most `timeout` seconds.";
            fast "cancel" (", *, running=False, timeout=None") = py_cancel, "Cancel it unless it runs or is over.\n\nWith running=True a task that runs is asked to stop: it is raised in at its next wait or\nraddle.cancel.check(). True if it was asked; with a timeout, whether it has stopped by then.";
            noargs "cancelled" ("") = py_cancelled, "Whether it was cancelled.";
            noargs "running" ("") = py_running, "Whether its task runs now.";
            noargs "done" ("") = py_done, "Whether it was cancelled or is finished.";
            fast "add_done_callback" (", fn") = py_add_done_callback, "Call fn(future) when it is over, or now if it is.";
            noargs "set_running_or_notify_cancel" ("") = py_set_running, "For executors: begin, or learn that it was cancelled.";
            fast "set_result" (", result") = py_set_result, "For executors: end it.";
            fast "set_exception" (", exception") = py_set_exception, "For executors: end it with an exception.";
            noargs "__reduce__" = no_pickle, "Futures cannot be pickled.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        let settable = |name, getter, setter| ffi::PyGetSetDef {
            set: Some(setter),
            ..get::<Self>(name, getter, c"As the standard library's.")
        };
        vec![
            settable(c"_state", py_state, py_set_state as ffi::setter),
            settable(c"_result", py_get_result, py_put_result as ffi::setter),
            settable(c"_exception", py_get_exception, py_put_exception as ffi::setter),
            settable(c"_condition", py_get_condition, py_put_condition as ffi::setter),
            get::<Self>(c"_waiters", py_get_waiters, c"As the standard library's."),
            get::<Self>(c"_done_callbacks", py_get_callbacks, c"The callbacks to come, in order."),
            get::<Self>(c"submitted_at", py_site, c"Where it was submitted: (file, line, function), or None."),
        ]
    }

    fn slots() -> Vec<ffi::PyType_Slot> {
        vec![
            ffi::PyType_Slot { slot: ffi::Py_tp_repr, pfunc: py_repr as *mut c_void },
            ffi::PyType_Slot { slot: ffi::Py_tp_finalize, pfunc: py_finalize as *mut c_void },
        ]
    }
}

/// A future of ours behind any object.
pub(crate) fn ours<'a>(object: &'a Bound<'_, PyAny>) -> Option<Me<'a>> {
    let ty = crate::types::pointer(Slot::Future).cast::<ffi::PyTypeObject>();
    // SAFETY: live objects; an instance of the type has its layout.
    unsafe {
        let known = crate::exact::is(object.as_ptr()) || ffi::PyObject_TypeCheck(object.as_ptr(), ty) != 0;
        known.then(|| Me::from_ptr(object.as_ptr()))
    }
}

/// As [`ours`].
///
/// # Errors
/// `TypeError` if it is none.
pub(crate) fn expect<'a>(object: &'a Bound<'_, PyAny>) -> PyResult<Me<'a>> {
    ours(object).ok_or_else(|| {
        PyTypeError::new_err(format!(
            "submit() must give a raddle.concurrent.futures.Future here, not {}",
            object.get_type()
        ))
    })
}
