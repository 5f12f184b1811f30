//! Thread pools: what `ThreadPoolExecutor` is made of.
//!
//! A future is its own task: the function and its arguments are in it until it runs, and the line holds futures.
//! Workers drain the line with the interpreter in hand. They give it to others who ask for it, between tasks
//! too, since a task made of builtins never looks; and they let go of it to sleep.

use crate::args::{self, Patience, patience};
use crate::cancel;
use crate::context;
use crate::error::{discard, entry, fetch, into_value};
use crate::exact::track;
use crate::future::{self, Me as Future, PyFuture, Shape, Work};
use crate::gil::{self, PyHost};
use crate::lock::{boolean, none};
use crate::native::{Entry, Native, This, Visit, Which, fast, methods, noargs};
use crate::reference::{Item, Place};
use crate::select;
use crate::site;
use crate::types::Slot;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::types::{PyAnyMethods, PyDict, PyDictMethods, PyTuple, PyTupleMethods};
use pyo3::{Bound, IntoPyObjectExt, Py, PyAny, PyErr, PyResult, Python, ffi};
use raddle::future::Stage;
use raddle::park::{Deadline, Key, Parking, Stop, generation, now, thread_time};
use raddle::pool::{Added, Demand, Desk, Next, Rejected, Seat, Stats, Stretch, Task, Tasks, run_delay};
use raddle::primitive::{Spin, thread_token};
use raddle::trace::{Claim, Kind, Resource, Site, Waker, epoch};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, c_int};
use std::mem;
use std::ptr::null;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// A future in the line.
pub(crate) struct Ticket(Item);

impl Ticket {
    fn future(&self) -> &PyFuture {
        // SAFETY: only futures of ours are put in line, and the ticket holds a reference.
        unsafe { crate::native::core::<PyFuture>(self.0.as_ptr()) }
    }

    fn into_bound(self, py: Python<'_>) -> Bound<'_, PyAny> {
        self.0.into_bound(py)
    }
}

/// The future that has come out of a [`Ticket`].
#[inline]
fn task_of<'a>(object: &'a Bound<'_, PyAny>) -> Future<'a> {
    // SAFETY: only futures of ours are put in line.
    unsafe { Future::from_ptr(object.as_ptr()) }
}

impl Task for Ticket {
    fn claim(&self) -> bool {
        let completion = &self.future().completion;
        // SAFETY: called attached. With the GIL nobody else changes a future that has been in line, but only looks and
        // waits: none of these has its task run by another process.
        if cfg!(Py_GIL_DISABLED) { completion.begin() } else { unsafe { completion.begin_alone() } }.is_ok()
    }

    fn waits(&self) -> bool {
        self.future().completion.stage() == Stage::Pending
    }
}

/// What to do with a task for which there is no room.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum OnFull {
    Block,
    Raise,
    CallerRuns,
    DropOldest,
}

/// How often a worker looks whether another thread has asked for the interpreter, in nanoseconds: tasks made of
/// builtins never do.
const TURN: u64 = 1_000_000;
/// How often a worker that does not sleep looks at its processor time, in nanoseconds.
const MEASURE: u64 = 10_000_000;
/// One in so many short bursts of work is measured, and below this many nanoseconds they are short.
const SAMPLE: u32 = 16;
const SHORT: u64 = 200_000;
/// Workers look at each other, and ask how long they waited for a core, at most once in so many nanoseconds: it takes
/// some microseconds.
const LOOK: u64 = 2_000_000;
/// Where tasks that take less than this many nanoseconds follow each other, one in so many is timed: looking at the
/// clock takes a good part of such a task.
const QUICK: u64 = 10_000;
const TIMED: u32 = 8;

/// Where more tasks wait than this, one in so many has the time of its submit, and the others that of an earlier one,
/// with this bit set.
const MANY: usize = 8;
const STAMPED: usize = 8;
const ROUGH: u64 = 1;

/// A pool, as its workers and futures know it.
pub(crate) struct Pool {
    pub(crate) tasks: Tasks<Ticket>,
    stats: Stats,
    /// Tasks that were run by who submitted them, without having been in line.
    at_once: AtomicU64,
    /// The last time of a submit that was looked at.
    stamp: AtomicU64,
    /// The workers by token, and the epochs in which they began.
    workers: Spin<Vec<(usize, u32)>>,
    /// Starts workers that have been counted in: Python's side of the pool.
    starter: Place,
    generation: AtomicU32,
    /// What the line was set to, for a forked child to begin with.
    most: AtomicUsize,
    limit: AtomicUsize,
    closed: AtomicBool,
    on_full: AtomicU8,
    /// How long a submit waits for room, in nanoseconds; `u64::MAX` is without limit.
    patience: AtomicU64,
    /// How long a worker sleeps before it leaves, in nanoseconds; `u64::MAX` is for ever.
    idle: AtomicU64,
    /// Tasks run in a copy of the submitter's context.
    follows: AtomicBool,
    /// A worker that waits for a task of its own pool runs it.
    helps: AtomicBool,
    /// Least and most workers, if their number follows the work; most 0: it does not.
    auto_least: AtomicUsize,
    auto_most: AtomicUsize,
    demand: Demand,
    /// When a worker last looked at another.
    looked: AtomicU64,
}

/// What the calling thread is in a pool.
#[derive(Clone, Copy)]
struct Worker {
    pool: *const Pool,
    desk: *const Desk,
}

/// No worker.
const NOBODY: Worker = Worker { pool: null(), desk: null() };

thread_local! {
    /// Whose worker this thread is.
    static WORKER: Cell<Worker> = const { Cell::new(NOBODY) };
    /// Where this thread runs tasks; null if it runs none and is no worker.
    static POST: Cell<*const Post> = const { Cell::new(null()) };
}

/// The future whose task the calling thread runs: the innermost.
pub(crate) fn current_future<'a>() -> Option<Future<'a>> {
    // SAFETY: a thread's post is there as long as the cell says so.
    let post = unsafe { POST.try_with(Cell::get).ok()?.as_ref() }?;
    let object = post.task.load(Ordering::Relaxed);
    // SAFETY: set by `execute`, which keeps the future for as long.
    (!object.is_null()).then(|| unsafe { Future::from_ptr(object) })
}

/// All pools, for a forked child.
static POOLS: Spin<Vec<Weak<Pool>>> = Spin::new(Vec::new());

/// The futures that failed and were not looked at: core and object, both as addresses.
static UNSEEN: Spin<Option<HashMap<usize, usize>>> = Spin::new(None);

/// What one thread runs: the innermost task, which knows the one around it. Changed by that thread, attached; read by
/// others, attached.
struct Post {
    thread: usize,
    task: AtomicPtr<ffi::PyObject>,
}

/// The posts of all threads that run tasks.
static POSTS: Spin<Vec<Arc<Post>>> = Spin::new(Vec::new());

/// The calling thread is at this post until this is dropped.
struct AtPost(Arc<Post>);

impl AtPost {
    fn new() -> Self {
        let post = Arc::new(Post { thread: thread_token(), task: AtomicPtr::new(std::ptr::null_mut()) });
        POSTS.lock().push(Arc::clone(&post));
        POST.set(Arc::as_ptr(&post));
        AtPost(post)
    }
}

impl Drop for AtPost {
    fn drop(&mut self) {
        POST.set(null());
        POSTS.lock().retain(|other| !Arc::ptr_eq(other, &self.0));
    }
}

impl Post {
    /// The thread runs this task from now on.
    #[inline]
    fn set(&self, task: *mut ffi::PyObject) {
        // With the GIL, nobody reads meanwhile.
        #[cfg(Py_GIL_DISABLED)]
        let _posts = POSTS.lock();
        self.task.store(task, Ordering::Relaxed);
    }
}

/// Calls `look` with thread, future and submit site of every task that runs, under a short lock; attached.
pub(crate) fn running(mut look: impl FnMut(usize, *mut ffi::PyObject, Option<Site>)) {
    for post in POSTS.lock().iter() {
        let mut object = post.task.load(Ordering::Relaxed);
        while !object.is_null() {
            // SAFETY: `execute` has a reference as long as the future is at a post.
            let future = unsafe { crate::native::core::<PyFuture>(object) };
            look(post.thread, object, future.site());
            object = future.outer.load(Ordering::Relaxed);
        }
    }
}

/// A task failed.
pub(crate) fn unseen(core: usize, object: *mut ffi::PyObject) {
    UNSEEN.lock().get_or_insert_with(HashMap::new).insert(core, object as usize);
}

/// Somebody has looked at the failure, or the future is gone.
pub(crate) fn seen(core: usize) {
    if let Some(unseen) = UNSEEN.lock().as_mut() {
        unseen.remove(&core);
    }
}

/// At exit: logs the failures that nobody has looked at.
pub(crate) fn tell_unseen(py: Python<'_>) {
    let objects: Vec<Item> = {
        let unseen = UNSEEN.lock();
        let addresses = unseen.iter().flat_map(|unseen| unseen.values());
        // SAFETY: a future leaves the map before its memory goes; attached, so none goes now.
        addresses.map(|address| Item::new(*address as *mut ffi::PyObject)).collect()
    };
    for item in objects {
        let object = item.into_bound(py);
        if let Some((error, site)) = future::ours(&object).and_then(|this| this.unseen(py)) {
            future::tell_lost(py, &error, site);
        }
    }
}

/// In a forked child: the pools have no workers, and their tasks are the parent's.
pub(crate) fn after_fork_in_child() {
    POOLS.lock_after_fork(|pools| {
        for pool in pools.iter().filter_map(Weak::upgrade) {
            let (most, limit) = (pool.most.load(Ordering::Relaxed), pool.limit.load(Ordering::Relaxed));
            pool.tasks.after_fork_in_child(most, limit, pool.closed.load(Ordering::Relaxed));
            pool.stats.after_fork_in_child();
            pool.workers.lock_after_fork(|workers| std::mem::forget(std::mem::take(workers)));
            pool.generation.store(generation(), Ordering::Release);
        }
    });
    POSTS.lock_after_fork(|posts| std::mem::forget(std::mem::take(posts)));
    UNSEEN.lock_after_fork(|unseen| std::mem::forget(unseen.take()));
}

impl Pool {
    fn new(most: usize) -> Arc<Self> {
        let pool = Arc::new(Self {
            tasks: Tasks::new(most, 0),
            stats: Stats::default(),
            at_once: AtomicU64::new(0),
            stamp: AtomicU64::new(0),
            workers: Spin::new(Vec::new()),
            starter: Place::empty(),
            generation: AtomicU32::new(generation()),
            most: AtomicUsize::new(most),
            limit: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            on_full: AtomicU8::new(OnFull::Block as u8),
            patience: AtomicU64::new(u64::MAX),
            idle: AtomicU64::new(u64::MAX),
            follows: AtomicBool::new(true),
            helps: AtomicBool::new(true),
            auto_least: AtomicUsize::new(0),
            auto_most: AtomicUsize::new(0),
            demand: Demand::new(gil::memory(), now()),
            looked: AtomicU64::new(0),
        });
        let mut pools = POOLS.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(&pool));
        pool
    }

    /// Raises if a future of it can never end here, because it was forked away from its workers.
    pub(crate) fn check_process(&self, future: &PyFuture) -> PyResult<()> {
        if future.generation == generation() || future.completion.is_done() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err("the task of this future stayed in the parent process when this one was forked"))
    }

    /// Who can run what is in its line: all its workers, if there can be no more.
    pub(crate) fn servers(&self, site: Option<Site>, out: &mut Vec<Waker>) -> Claim {
        let ((workers, _), most) = (self.tasks.workers(), self.tasks.most());
        let known = self.workers.lock();
        if known.len() != workers || workers < most {
            return Claim::Unknown;
        }
        out.extend(known.iter().map(|(token, epoch)| Waker { token: *token, site, epoch: *epoch }));
        Claim::Proven
    }

    /// The time of a submit.
    #[inline]
    fn stamp(&self) -> u64 {
        let waiting = self.tasks.length();
        if waiting > MANY && !waiting.is_multiple_of(STAMPED) {
            return self.stamp.load(Ordering::Relaxed) | ROUGH;
        }
        let time = now() & !ROUGH;
        self.stamp.store(time, Ordering::Relaxed);
        time
    }

    fn on_full(&self) -> OnFull {
        match self.on_full.load(Ordering::Relaxed) {
            0 => OnFull::Block,
            1 => OnFull::Raise,
            2 => OnFull::CallerRuns,
            _ => OnFull::DropOldest,
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.tasks.close();
        // It keeps the line, which keeps the pool.
        self.starter.put(std::ptr::null_mut());
    }

    /// Has a worker started that has been counted in. `Ok(Some(..))`: it runs, and a signal handler raised meanwhile.
    fn start_worker(&self, py: Python<'_>) -> PyResult<Option<PyErr>> {
        let Some(starter) = self.starter.get(py) else { return Ok(None) };
        match gil::method(&starter, "start", &[]) {
            Ok(_) => Ok(None),
            Err(error) => {
                if gil::truth(&gil::method(&starter, "has_started", &[])?)? {
                    return Ok(Some(error));
                }
                // Another worker will come to it.
                if self.tasks.start_failed() && error.is_instance_of::<PyRuntimeError>(py) {
                    discard(py, error);
                    return Ok(None);
                }
                Err(error)
            }
        }
    }
}

impl Resource for Pool {
    fn wakers(&self, kind: Kind, out: &mut Vec<Waker>) -> Claim {
        if kind == Kind::Submit { self.servers(None, out) } else { Claim::Unknown }
    }
}

/// Whether the calling thread is a worker of this pool.
fn is_worker_of(pool: &Pool) -> bool {
    std::ptr::eq(WORKER.get().pool, pool)
}

/// Whether the calling thread is a worker of some pool.
pub(crate) fn is_worker() -> bool {
    !WORKER.get().pool.is_null()
}

/// A worker that waits for a task in its own pool's line runs it; whether it did.
pub(crate) fn help(py: Python<'_>, future: Future<'_>) -> PyResult<bool> {
    let Some(pool) = future.pool() else { return Ok(false) };
    if !is_worker_of(pool) || !pool.helps.load(Ordering::Relaxed) || future.completion.begin().is_err() {
        return Ok(false);
    }
    withdraw(py, pool)?;
    run_here(py, future, pool)?;
    Ok(true)
}

/// Runs a claimed task to its end, in a thread that is a worker of its pool or none.
fn run_here(py: Python<'_>, future: Future<'_>, pool: &Arc<Pool>) -> PyResult<()> {
    let desk = is_worker_of(pool).then(|| WORKER.get().desk);
    // SAFETY: a worker's desk is there as long as the thread is a worker.
    let desk = desk.map(|desk| unsafe { &*desk });
    let begun = now();
    note(pool, desk, |desk| begin(desk, future, Some(begun)));
    let outcome = at_post(|post| execute(py, future, pool, post));
    note(pool, desk, |desk| desk.run.add(now().saturating_sub(begun)));
    note(pool, desk, |desk| count(desk, &outcome));
    conclude(py, future, outcome)
}

/// Runs something at the calling thread's post, which it gets for as long if it has none.
fn at_post<R>(run: impl FnOnce(&Post) -> R) -> R {
    // SAFETY: a thread's post is there as long as the cell says so.
    if let Some(post) = unsafe { POST.get().as_ref() } {
        return run(post);
    }
    run(&AtPost::new().0)
}

/// Notes something at the desk of the calling thread, if it is a worker.
fn note(pool: &Pool, desk: Option<&Desk>, write: impl FnOnce(&Desk)) {
    match desk {
        Some(desk) => write(desk),
        None => pool.stats.by_others(write),
    }
}

/// Notes that a task begins, and how long it has waited if that is measured.
#[inline]
fn begin(desk: &Desk, future: Future<'_>, time: Option<u64>) {
    desk.started.add(1);
    let submitted = future.submitted.load(Ordering::Relaxed);
    if let Some(time) = time
        && submitted & ROUGH == 0
    {
        desk.queued.add(time.saturating_sub(submitted));
    }
}

/// Notes how a task has ended.
#[inline]
fn count(desk: &Desk, outcome: &PyResult<Bound<'_, PyAny>>) {
    if outcome.is_ok() { &desk.done } else { &desk.failed }.add(1);
}

/// Calls a claimed task; what it came to.
fn execute<'py>(py: Python<'py>, future: Future<'_>, pool: &Pool, post: &Post) -> PyResult<Bound<'py, PyAny>> {
    let Some(work) = future.take_work(py) else {
        return Err(PyRuntimeError::new_err("raddle: a task without a function"));
    };
    let (outer, me) = (post.task.load(Ordering::Relaxed), post.thread);
    future.outer.store(outer, Ordering::Relaxed);
    future.run_by(me);
    post.set(future.as_ptr());
    cancel::enter(future.token.address(), me, epoch());
    let outcome = match cancel::asked_of(future) {
        Some(reason) => Err(cancel::error(py, reason)),
        None => {
            // An initializer may have set what tasks are to see.
            let context = work.context.as_ref().filter(|_| pool.follows.load(Ordering::Relaxed));
            gil::owned(py, context::run(py, context, || call(&work)))
        }
    };
    // The token may have been made meanwhile.
    cancel::leave(future.token.address(), me);
    post.set(outer);
    // Before anybody hears of the end: what the task held on to is gone by then.
    work.release();
    outcome
}

fn call(work: &Work<'_>) -> *mut ffi::PyObject {
    if work.shape == Shape::One {
        return gil::call_plain(&work.function, &[&work.args]);
    }
    let args = work.args.as_ptr().cast::<ffi::PyTupleObject>();
    // SAFETY: `submit` made the tuple, as the shape says.
    unsafe {
        let items = (&raw const (*args).ob_item).cast::<*mut ffi::PyObject>();
        let count = ffi::PyTuple_GET_SIZE(args.cast()) as usize;
        if work.shape == Shape::Tuple {
            return gil::call_raw_plain(&work.function, items, count, std::ptr::null_mut());
        }
        let keywords = *items.add(count - 1);
        let positional = count - 1 - ffi::PyTuple_GET_SIZE(keywords) as usize;
        gil::call_raw_plain(&work.function, items, positional, keywords)
    }
}

/// Whether other threads may have the interpreter while this future ends: they always have it where there is no GIL,
/// and a future that is held ends under a lock.
fn lets_others_in(future: Future<'_>) -> bool {
    cfg!(Py_GIL_DISABLED) || future.completion.is_held()
}

/// Ends a future with what its task came to.
fn conclude(py: Python<'_>, future: Future<'_>, outcome: PyResult<Bound<'_, PyAny>>) -> PyResult<()> {
    match outcome {
        Ok(value) => future::finish(py, future, value, false)?,
        Err(error) if !future.token.is_empty() && cancel::is_answer(py, &error) => {
            discard(py, error);
            future::give_up(py, future)?
        }
        Err(error) => future::finish(py, future, into_value(py, error), true)?,
    };
    Ok(())
}

// Workers

/// Measures how much processor time tasks take: of long bursts always, of short ones now and then.
struct Meter {
    begun: u64,
    /// The beginning of the stretch under measurement.
    since: Option<Since>,
    tasks: u64,
    wall: u64,
    bursts: u32,
    /// How long the last burst took.
    last: u64,
}

/// The clocks at the beginning of a stretch of work, in nanoseconds.
struct Since {
    time: u64,
    cpu: u64,
    /// How long the thread had waited for a core; looked at where a stretch is long.
    delay: Option<u64>,
}

impl Meter {
    fn new() -> Self {
        Meter { begun: 0, since: None, tasks: 0, wall: 0, bursts: 0, last: 0 }
    }

    /// A burst of tasks begins.
    fn begin(&mut self, time: u64) {
        self.begun = time;
        self.bursts = self.bursts.wrapping_add(1);
        let measured = self.last >= SHORT || self.bursts % SAMPLE == 1;
        self.restart(measured.then_some(time));
    }

    fn restart(&mut self, from: Option<u64>) {
        let long = self.last >= LOOK || self.bursts <= 1;
        self.since = from.map(|time| Since { time, cpu: thread_time(), delay: long.then(run_delay) });
        (self.tasks, self.wall) = (0, 0);
    }

    /// Some tasks have taken this long together.
    fn tasks(&mut self, count: u32, took: u64) {
        self.tasks += u64::from(count);
        self.wall += took;
    }

    /// The burst is over.
    fn end(&mut self, pool: &Pool, desk: &Desk, time: u64) {
        if self.tasks > 0 {
            self.last = time.saturating_sub(self.begun);
        }
        self.note(pool, desk);
    }

    fn note(&mut self, pool: &Pool, desk: &Desk) {
        let Some(since) = self.since.take() else { return };
        if self.tasks > 0 {
            let cpu = thread_time().saturating_sub(since.cpu);
            let delay = since.delay.map_or(0, |before| run_delay().saturating_sub(before));
            pool.measured(Stretch { tasks: self.tasks, wall: self.wall.max(cpu), cpu, delay }, desk);
        }
    }

    /// In the middle of a long burst: what was measured so far is noted, from time to time; whether it was.
    fn keep(&mut self, pool: &Pool, desk: &Desk, time: u64) -> bool {
        let due = time.saturating_sub(self.since.as_ref().map_or(self.begun, |since| since.time)) >= MEASURE;
        if due {
            self.last = self.last.max(MEASURE);
            self.note(pool, desk);
            self.restart(Some(time));
        }
        due
    }
}

/// A worker's look at the clock: after every task, or after some where they are quick.
struct Watch {
    /// When it last looked.
    time: u64,
    /// How many tasks in a row have been quick.
    quick: u32,
    /// How many tasks have been run since it looked.
    skipped: u32,
}

impl Watch {
    /// Whether the next task is to be timed.
    #[inline]
    fn is_due(&self) -> bool {
        self.quick < TIMED || self.skipped >= TIMED - 1
    }

    /// A task has ended that was timed.
    fn timed(&mut self, desk: &Desk, meter: &mut Meter) {
        let end = now();
        let took = end.saturating_sub(self.time);
        self.time = end;
        self.quick = if took < QUICK { self.quick + 1 } else { 0 };
        desk.run.add(took);
        meter.tasks(1, took);
    }

    /// Looks at the clock if tasks have been run without.
    fn catch_up(&mut self, desk: &Desk, meter: &mut Meter) {
        if self.skipped == 0 {
            return;
        }
        let end = now();
        let took = end.saturating_sub(self.time);
        meter.tasks(self.skipped, took);
        if took > u64::from(self.skipped) * QUICK {
            // One of them was not quick, and took nearly all of it.
            self.quick = 0;
            desk.run.add(took);
        }
        (self.time, self.skipped) = (end, 0);
    }
}

impl Pool {
    /// A worker has ended a stretch of work. It looks what another does, if nobody has just done so; and where the
    /// number of workers follows the work, it is set anew from time to time.
    fn measured(&self, stretch: Stretch, desk: &Desk) {
        let time = now();
        let looked = self.looked.load(Ordering::Relaxed);
        if time.saturating_sub(looked) >= LOOK
            && self.looked.compare_exchange(looked, time, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            && let Some(doing) = self.stats.look_at_another(desk)
        {
            self.demand.saw(doing);
        }
        let workers = self.tasks.workers().0;
        let most = self.auto_most.load(Ordering::Relaxed);
        if self.demand.add(stretch, workers, time) && most > 0 {
            let bounds = (self.auto_least.load(Ordering::Relaxed), most);
            let before = self.most.load(Ordering::Relaxed);
            let wanted = self.demand.next_workers(before, workers, cores(), bounds);
            if wanted != before {
                self.most.store(wanted, Ordering::Relaxed);
                self.tasks.set_most(wanted);
            }
        }
    }
}

/// How many cores this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The calling thread serves the pool until it is closed.
fn work(py: Python<'_>, pool: &Arc<Pool>) -> PyResult<()> {
    let process = pool.generation.load(Ordering::Acquire);
    let me = thread_token();
    pool.workers.lock().push((me, epoch()));
    let desk = pool.stats.join();
    WORKER.set(Worker { pool: Arc::as_ptr(pool), desk: Arc::as_ptr(&desk) });
    let AtPost(post) = &AtPost::new();
    let seat = Arc::new(Seat::default());
    let mut meter = Meter::new();
    let mut watch = Watch { time: now(), quick: 0, skipped: 0 };
    let mut attached = watch.time;
    meter.begin(watch.time);
    // It has ended a task, and the line does not know.
    let mut finished = false;
    let result = loop {
        if pool.generation.load(Ordering::Relaxed) != process {
            // The task forked: in the child this thread is no worker any more.
            break Ok(());
        }
        let next = match mem::take(&mut finished) {
            true => pool.tasks.finished_and_next(&seat),
            false => pool.tasks.next(&seat),
        };
        match next {
            Next::Run(ticket) => {
                let object = ticket.into_bound(py);
                let future = task_of(&object);
                let timed = watch.is_due();
                if timed {
                    watch.catch_up(&desk, &mut meter);
                }
                begin(&desk, future, timed.then_some(watch.time));
                let outcome = execute(py, future, pool, post);
                match timed {
                    true => watch.timed(&desk, &mut meter),
                    false => watch.skipped += 1,
                }
                count(&desk, &outcome);
                if pool.generation.load(Ordering::Relaxed) != process {
                    break conclude(py, future, outcome);
                }
                // Who is woken by the result and submits at once finds this worker awake; unless callbacks,
                // which may take their time, come first.
                let early = !future.completion.is_listened_to();
                finished = !early || !lets_others_in(future);
                if !early {
                    watch.catch_up(&desk, &mut meter);
                } else if !finished {
                    pool.tasks.finished();
                }
                let concluded = conclude(py, future, outcome);
                if !early {
                    watch.time = now();
                }
                gil::release(object);
                if let Err(error) = concluded {
                    // A callback raised what is no `Exception`.
                    gil::unraisable(py, error, std::ptr::null_mut());
                }
                if watch.skipped > 0 {
                    continue;
                }
                if mem::take(&mut finished) {
                    pool.tasks.finished();
                }
                if meter.keep(pool, &desk, watch.time) && pool.tasks.wants_worker() {
                    match pool.start_worker(py) {
                        Ok(None) => {}
                        Ok(Some(error)) | Err(error) => gil::unraisable(py, error, std::ptr::null_mut()),
                    }
                }
                if watch.time.saturating_sub(attached) > TURN {
                    if let Err(error) = gil::give_way(py) {
                        gil::unraisable(py, error, std::ptr::null_mut());
                    }
                    watch.time = now();
                    attached = watch.time;
                }
            }
            Next::Gone(ticket) => {
                let object = ticket.into_bound(py);
                if let Err(error) = future::acknowledge(py, task_of(&object)) {
                    gil::unraisable(py, error, std::ptr::null_mut());
                }
                gil::release(object);
            }
            Next::Leave => break Ok(()),
            Next::Sleep => {
                watch.catch_up(&desk, &mut meter);
                meter.end(pool, &desk, watch.time);
                if rest(pool, &seat) {
                    break Ok(());
                }
                watch.time = now();
                attached = watch.time;
                meter.begin(watch.time);
            }
        }
    };
    WORKER.set(NOBODY);
    pool.stats.leave(&desk);
    pool.workers.lock().retain(|worker| worker.0 != me);
    result
}

/// Sleeps until there is a task; true if the worker has been counted out instead.
fn rest(pool: &Pool, seat: &Arc<Seat>) -> bool {
    let idle = pool.idle.load(Ordering::Relaxed);
    let deadline = Deadline::at(if idle == u64::MAX { u64::MAX } else { now().saturating_add(idle) });
    let host = PyHost::unending();
    host.detached(|| {
        let mut parking = Parking::new(Kind::Idle, pool, 0, deadline, &host);
        loop {
            match seat.wait_slow(&mut parking) {
                Ok(()) => return false,
                Err(Stop::TimedOut) if pool.tasks.give_up(seat) => return true,
                // Woken at the last moment, or for no reason.
                Err(_) => {}
            }
        }
    })
}

// Submitting

/// Puts a task in line.
#[inline]
fn submit<'py>(py: Python<'py>, executor: &Bound<'py, PyAny>, pool: &Arc<Pool>, item: &Item) -> PyResult<()> {
    // SAFETY: a future of ours.
    let future = unsafe { Future::from_ptr(item.as_ptr()) };
    future.submitted.store(pool.stamp(), Ordering::Relaxed);
    let key = pool.tasks.room_key();
    match pool.tasks.add(Ticket(item.clone())) {
        Ok(Added::Served) => Ok(()),
        Ok(Added::Start) => begin_worker(py, pool, future),
        Err(rejected) => submit_rejected(py, executor, pool, item, key, rejected),
    }
}

/// Has a worker started for a task that is in line.
#[cold]
fn begin_worker(py: Python<'_>, pool: &Pool, future: Future<'_>) -> PyResult<()> {
    match pool.start_worker(py) {
        Ok(None) => Ok(()),
        Ok(Some(raised)) => Err(raised),
        Err(error) => {
            // Nobody is left to run it.
            future::cancel(py, future)?;
            Err(error)
        }
    }
}

/// Does what is to be done for a task that was refused, once or until it is in line.
#[cold]
fn submit_rejected<'py>(
    py: Python<'py>,
    executor: &Bound<'py, PyAny>,
    pool: &Arc<Pool>,
    item: &Item,
    mut key: Key,
    mut rejected: Rejected<Ticket>,
) -> PyResult<()> {
    // SAFETY: a future of ours.
    let future = unsafe { Future::from_ptr(item.as_ptr()) };
    let patience = pool.patience.load(Ordering::Relaxed);
    let mut deadline = None;
    let mut late = false;
    loop {
        match rejected {
            Rejected::Closed(ticket) => {
                drop(ticket);
                gil::method(executor, "_refuse", &[])?;
                return Err(PyRuntimeError::new_err("cannot schedule new futures after shutdown"));
            }
            Rejected::Full(ticket) => drop(ticket),
        }
        match pool.on_full() {
            OnFull::CallerRuns => {
                if future.completion.begin().is_ok() {
                    pool.at_once.fetch_add(1, Ordering::Relaxed);
                    run_here(py, future, pool)?;
                }
                return Ok(());
            }
            OnFull::DropOldest => drop_oldest(py, pool)?,
            OnFull::Raise => return Err(full(executor)),
            OnFull::Block if late => return Err(full(executor)),
            // A worker must not wait for its own pool: it makes room itself.
            OnFull::Block if is_worker_of(pool) && pool.helps.load(Ordering::Relaxed) => {
                match pool.tasks.take_oldest() {
                    Some(Ok(ticket)) => {
                        let object = ticket.into_bound(py);
                        run_here(py, task_of(&object), pool)?;
                    }
                    Some(Err(ticket)) => acknowledge(py, ticket)?,
                    None => {}
                }
            }
            OnFull::Block => {
                let until = *deadline.get_or_insert(Deadline::at(now().saturating_add(patience)));
                late = wait_for_room(py, executor, pool, key, until)?;
            }
        }
        key = pool.tasks.room_key();
        rejected = match pool.tasks.add(Ticket(item.clone())) {
            Ok(Added::Served) => return Ok(()),
            Ok(Added::Start) => return begin_worker(py, pool, future),
            Err(rejected) => rejected,
        };
    }
}

/// Waits until there is room, or there is no need for it; true if the time ran out first.
///
/// One wait from beginning to end, however often it is woken in between: that is how it is found to last.
fn wait_for_room(
    py: Python<'_>,
    executor: &Bound<'_, PyAny>,
    pool: &Arc<Pool>,
    mut key: Key,
    until: Deadline,
) -> PyResult<bool> {
    let host = PyHost::new();
    let mut parking = Parking::new(Kind::Submit, &**pool, executor.as_ptr() as usize, until, &host);
    loop {
        match host.detached(|| pool.tasks.wait_room(key, &mut parking)) {
            Ok(()) => {}
            // There may be room by now: the caller looks once more.
            Err(Stop::TimedOut) => return Ok(true),
            Err(Stop::Interrupted) => return Err(fetch(py)),
        }
        key = pool.tasks.room_key();
        if pool.tasks.has_room() {
            return Ok(false);
        }
    }
}

fn full(executor: &Bound<'_, PyAny>) -> PyErr {
    gil::method(executor, "_full", &[]).map_or_else(|error| error, PyErr::from_value)
}

/// Cancels the task that has waited longest.
fn drop_oldest(py: Python<'_>, pool: &Pool) -> PyResult<()> {
    match pool.tasks.take_oldest() {
        Some(Ok(ticket)) => {
            let object = ticket.into_bound(py);
            let future = task_of(&object);
            if let Some(work) = future.take_work(py) {
                work.release();
            }
            future::give_up(py, future)?;
            gil::release(object);
            Ok(())
        }
        Some(Err(ticket)) => acknowledge(py, ticket),
        None => Ok(()),
    }
}

/// A task in the pool's line waits no more.
pub(crate) fn withdraw(py: Python<'_>, pool: &Pool) -> PyResult<()> {
    pool.tasks.withdrawn().into_iter().try_for_each(|ticket| acknowledge(py, ticket))
}

/// A task that was cancelled in line has left it.
fn acknowledge(py: Python<'_>, ticket: Ticket) -> PyResult<()> {
    let object = ticket.into_bound(py);
    future::acknowledge(py, task_of(&object))?;
    gil::release(object);
    Ok(())
}

/// The type below `ThreadPoolExecutor`.
pub(crate) struct PyExecutor {
    /// Set by `__init__`; empty before.
    line: Place,
}

type Me<'a> = This<'a, PyExecutor>;

impl PyExecutor {
    /// Its line; kept as long as the executor.
    fn line(&self) -> PyResult<Line<'_>> {
        let line = self.line.address();
        if line.is_null() {
            return Err(PyRuntimeError::new_err("ThreadPoolExecutor.__init__() not called"));
        }
        // SAFETY: only lines are put there, once.
        Ok(unsafe { Line::from_ptr(line) })
    }
}

impl Drop for PyExecutor {
    fn drop(&mut self) {
        // Its workers do what is in line and leave.
        if let Ok(line) = self.line() {
            line.pool.close();
        }
    }
}

unsafe extern "C" fn py_submit(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let this = unsafe { Me::from_ptr(object) };
        if count < 1 {
            return Err(PyTypeError::new_err(
                "ThreadPoolExecutor.submit() missing 1 required positional argument: 'fn'",
            ));
        }
        let line = this.line()?;
        let pool = &line.pool;
        // SAFETY: the interpreter passes `count` positional arguments and behind them one for each keyword.
        let work = unsafe {
            let function = Bound::from_borrowed_ptr(py, *args);
            let (args, shape) = kept(py, args.add(1), count - 1, keywords)?;
            Work { function, args, shape, context: context(py, pool)? }
        };
        let item = future::new_task(py, line, work, site::here())?;
        submit(py, &this.bound(py), pool, &item)?;
        Ok(item.into_ptr())
    })
}

/// The arguments of a call as a task keeps them.
///
/// # Safety
/// As the interpreter passes them: `count` positional ones and behind them one for each keyword, if there are any.
unsafe fn kept<'py>(
    py: Python<'py>,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> PyResult<(Bound<'py, PyAny>, Shape)> {
    // SAFETY: the caller's; the new tuple is filled before anybody sees it.
    unsafe {
        if count == 1 && keywords.is_null() {
            return Ok((Bound::from_borrowed_ptr(py, *args), Shape::One));
        }
        let named = if keywords.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(keywords) };
        let all = count + named;
        let tuple = Bound::from_owned_ptr_or_err(py, ffi::PyTuple_New(all + ffi::Py_ssize_t::from(named > 0)))?;
        let put = |at, item| {
            ffi::Py_INCREF(item);
            ffi::PyTuple_SET_ITEM(tuple.as_ptr(), at, item);
        };
        (0..all).for_each(|at| put(at, *args.add(at as usize)));
        if named == 0 {
            return Ok((tuple, Shape::Tuple));
        }
        put(all, keywords);
        Ok((tuple, Shape::Named))
    }
}

fn context<'py>(py: Python<'py>, pool: &Pool) -> PyResult<Option<Bound<'py, PyAny>>> {
    if pool.follows.load(Ordering::Relaxed) { context::snapshot(py).map(Some) } else { Ok(None) }
}

// `_submit_under(token, timeout, fn, args, kwargs)`: a task with a token of its own below the one given.
fast!(py_submit_under, PyExecutor, |py, this, fast| {
    let names = ["token", "timeout", "fn", "args", "kwargs"];
    let [token, timeout, function, positional, named] = args::fast(py, "_submit_under", names, 5, fast)?;
    let missing = || PyTypeError::new_err("_submit_under takes 5 arguments");
    let (function, positional) = (function.ok_or_else(missing)?, positional.ok_or_else(missing)?);
    let positional = positional.cast_into::<PyTuple>()?;
    let named = named.ok_or_else(missing)?.cast_into::<PyDict>()?;
    let line = this.line()?;
    let pool = &line.pool;
    let mut all: Vec<Bound<'_, PyAny>> = positional.iter().collect();
    let shape = if named.is_empty() {
        Shape::Tuple
    } else {
        all.extend(named.values());
        all.push(PyTuple::new(py, named.keys())?.into_any());
        Shape::Named
    };
    let work = Work { function, args: PyTuple::new(py, all)?.into_any(), shape, context: context(py, pool)? };
    let item = future::new_task(py, line, work, site::here())?;
    let parent = token.filter(|token| !token.is_none());
    let own = cancel::below(py, parent.as_ref(), cancel::deadline_of(timeout.as_ref())?)?;
    // SAFETY: a future of ours.
    let future = unsafe { Future::from_ptr(item.as_ptr()) };
    track(future);
    future.token.set(&own);
    submit(py, &this.bound(py), pool, &item)?;
    Ok(item.into_ptr())
});

// `_map(fn, arguments, single, timeout)`: submits a call for each item of an iterator, which is the one argument or a
// tuple of arguments, and gives the iterator of the results.
fast!(py_map, PyExecutor, |py, this, fast| {
    let names = ["fn", "arguments", "single", "timeout"];
    let [function, arguments, single, timeout] = args::fast(py, "_map", names, 4, fast)?;
    let (Some(function), Some(arguments), Some(single)) = (function, arguments, single) else {
        return Err(PyTypeError::new_err("_map takes a function, an iterator and what its items are"));
    };
    let shape = if gil::truth(&single)? { Shape::One } else { Shape::Tuple };
    let deadline = match patience(timeout.as_ref())? {
        Patience::Until(deadline) => deadline,
        Patience::None => Deadline::at(0),
    };
    args::check(deadline)?;
    let line = this.line()?;
    let pool = &line.pool;
    let executor = this.bound(py);
    let site = site::here();
    let mut futures = Vec::new();
    let submitted = (|| -> PyResult<()> {
        while let Some(args) = gil::next(&arguments)? {
            if shape == Shape::Tuple {
                args.cast::<PyTuple>()?;
            }
            let work = Work { function: function.clone(), args, shape, context: context(py, pool)? };
            let item = future::new_task(py, line, work, site)?;
            submit(py, &executor, pool, &item)?;
            futures.push(item);
        }
        Ok(())
    })();
    let results = select::results(py, futures, deadline, None)?;
    submitted?;
    Ok(results.into_ptr())
});

impl Native for PyExecutor {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle._raddle.Executor";
    const DOC: &'static CStr = c"Executor(line)\n--\n\nThe core of raddle.concurrent.futures.ThreadPoolExecutor.";
    const WHICH: Which = Which::Other;
    const DICT: bool = true;

    fn fresh() -> Self {
        PyExecutor { line: Place::empty() }
    }

    fn init(this: Me<'_>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let [line] = args::tuple("Executor", ["line"], 1, args, kwargs)?;
        let Some(line) = line else { return Err(PyTypeError::new_err("an executor needs a line")) };
        line_of(&line)?;
        // Once: futures and calls under way count on it.
        this.line.get_or_put(line);
        Ok(())
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            fast "submit" = py_submit, "submit($self, fn, /, *args, **kwargs)\n--\n\nHave a worker call fn(*args, **kwargs); its Future.\n\nWaits only if the pool is bounded and full, as its on_full says.";
            fast "_submit_under" (", token, timeout, fn, args, kwargs") = py_submit_under, "Submit with a token and a time-out.";
            fast "_map" (", fn, arguments, single, timeout") = py_map, "Submit a call for each item; the iterator of results.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        Vec::new()
    }
}

// The line as an object

/// A pool's line, as Python's side handles it: workers, who must not keep the executor, have this.
pub(crate) struct PyLine {
    pub(crate) pool: Arc<Pool>,
}

pub(crate) type Line<'a> = This<'a, PyLine>;

fn line_of<'a>(object: &'a Bound<'_, PyAny>) -> PyResult<Line<'a>> {
    if !object.is_instance(&crate::types::get(object.py(), Slot::Line))? {
        return Err(PyTypeError::new_err("a line is wanted"));
    }
    // SAFETY: an instance of the type.
    Ok(unsafe { Line::from_ptr(object.as_ptr()) })
}

unsafe extern "C" fn py_work(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        work(py, &unsafe { Line::from_ptr(object) }.pool)?;
        Ok(none())
    })
}

unsafe extern "C" fn py_close(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    unsafe { Line::from_ptr(object) }.pool.close();
    none()
}

unsafe extern "C" fn py_closed(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    boolean(unsafe { Line::from_ptr(object) }.pool.closed.load(Ordering::Relaxed))
}

/// `leave()`: a worker that was started goes without having worked.
unsafe extern "C" fn py_leave(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type.
    unsafe { Line::from_ptr(object) }.pool.tasks.start_failed();
    none()
}

// `take()`: the task that has waited longest, as a future that counts as running; None if there is none.
noargs!(py_take, PyLine, |py, this| {
    loop {
        match this.pool.tasks.take_oldest() {
            Some(Ok(ticket)) => return Ok(ticket.0.into_ptr()),
            Some(Err(ticket)) => acknowledge(py, ticket)?,
            None => return Ok(none()),
        }
    }
});

// `cancel_all()`: cancels every task in line.
noargs!(py_cancel_all, PyLine, |py, this| {
    while this.pool.tasks.pending() > 0 {
        drop_oldest(py, &this.pool)?;
    }
    Ok(none())
});

unsafe extern "C" fn py_pending(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method of the type; attached.
    unsafe { ffi::PyLong_FromSize_t(Line::from_ptr(object).pool.tasks.pending()) }
}

unsafe extern "C" fn py_workers(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let pool = &unsafe { Line::from_ptr(object) }.pool;
        let (workers, asleep) = pool.tasks.workers();
        Ok((workers, asleep, pool.tasks.most()).into_bound_py_any(py)?.into_ptr())
    })
}

// `set(...)`: the settings, each optional.
fast!(py_set, PyLine, |py, this, fast| {
    let pool = &this.pool;
    let names = ["most", "limit", "on_full", "patience", "idle", "context", "nested", "auto", "starter"];
    let [most, limit, on_full, patience, idle, context, nested, auto, starter] = args::fast(py, "set", names, 0, fast)?;
    let nanoseconds = |seconds: &Bound<'_, PyAny>| -> PyResult<u64> {
        Ok(if seconds.is_none() { u64::MAX } else { (seconds.extract::<f64>()?.max(0.0) * 1e9) as u64 })
    };
    if let Some(most) = most {
        let most = most.extract()?;
        pool.most.store(most, Ordering::Relaxed);
        pool.tasks.set_most(most);
    }
    if let Some(limit) = limit {
        let limit = limit.extract()?;
        pool.limit.store(limit, Ordering::Relaxed);
        pool.tasks.set_limit(limit);
    }
    if let Some(on_full) = on_full {
        let policy = match on_full.extract::<String>()?.as_str() {
            "block" => OnFull::Block,
            "raise" => OnFull::Raise,
            "caller_runs" => OnFull::CallerRuns,
            "drop_oldest" => OnFull::DropOldest,
            other => {
                return Err(PyValueError::new_err(format!(
                    "on_full must be 'block', 'raise', 'caller_runs' or 'drop_oldest', not {other:?}"
                )));
            }
        };
        pool.on_full.store(policy as u8, Ordering::Relaxed);
    }
    if let Some(patience) = patience {
        pool.patience.store(nanoseconds(&patience)?, Ordering::Relaxed);
    }
    if let Some(idle) = idle {
        pool.idle.store(nanoseconds(&idle)?, Ordering::Relaxed);
    }
    if let Some(context) = context {
        pool.follows.store(gil::truth(&context)?, Ordering::Relaxed);
    }
    if let Some(nested) = nested {
        pool.helps.store(gil::truth(&nested)?, Ordering::Relaxed);
    }
    if let Some(auto) = auto {
        let (least, most): (usize, usize) = auto.extract()?;
        pool.auto_least.store(least, Ordering::Relaxed);
        pool.auto_most.store(most, Ordering::Relaxed);
    }
    if let Some(starter) = starter {
        pool.starter.set(&starter);
    }
    Ok(none())
});

/// `stats()`: the figures, in the order of `PoolStats` of `raddle.concurrent.futures`.
unsafe extern "C" fn py_stats(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    entry(|py| {
        // SAFETY: a method of the type.
        let pool = &unsafe { Line::from_ptr(object) }.pool;
        let sum = pool.stats.sum();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (done, failed, started) = (sum.done.get(), sum.failed.get(), sum.started.get());
        let (workers, idle) = pool.tasks.workers();
        let percentile = |histogram: &raddle::pool::Histogram, share| {
            histogram.percentile(share).map(|duration| duration.as_secs_f64())
        };
        let (measured, wall, cpu) = pool.demand.measured();
        let per_task = |total: u64| (measured > 0).then(|| total as f64 / measured as f64 / 1e9);
        let dict = PyDict::new(py);
        dict.set_item("submitted", pool.tasks.added() + count(&pool.at_once))?;
        dict.set_item("pending", pool.tasks.pending())?;
        dict.set_item("running", started.saturating_sub(done + failed))?;
        dict.set_item("done", done)?;
        dict.set_item("failed", failed)?;
        dict.set_item("workers", workers)?;
        dict.set_item("idle_workers", idle)?;
        dict.set_item("queue_wait_p50", percentile(&sum.queued, 0.5))?;
        dict.set_item("queue_wait_p99", percentile(&sum.queued, 0.99))?;
        dict.set_item("run_time_p50", percentile(&sum.run, 0.5))?;
        dict.set_item("run_time_p99", percentile(&sum.run, 0.99))?;
        dict.set_item("wall_per_task", per_task(wall))?;
        dict.set_item("cpu_per_task", per_task(cpu))?;
        dict.set_item("recommended_workers", pool.demand.recommended_workers(workers, cores()))?;
        Ok(dict.into_any().into_ptr())
    })
}

impl Native for PyLine {
    type Entry = Entry;
    const NAME: &'static CStr = c"raddle._raddle.Line";
    const DOC: &'static CStr = c"Line()\n--\n\nThe line of a pool, and its workers.";
    const WHICH: Which = Which::Other;
    const DICT: bool = true;
    const SUBCLASS: bool = false;

    fn fresh() -> Self {
        PyLine { pool: Pool::new(1) }
    }

    fn init(_: Line<'_>, args: &Bound<'_, PyAny>, kwargs: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let [] = args::tuple("Line", [], 0, args, kwargs)?;
        Ok(())
    }

    fn traverse(&self, _visit: &Visit) -> c_int {
        0
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        methods! {
            noargs "work" ("") = py_work, "Serve the line until it is closed.";
            noargs "close" ("") = py_close, "Take no more tasks.";
            noargs "closed" ("") = py_closed, "Whether it takes no more tasks.";
            noargs "leave" ("") = py_leave, "A worker goes without having worked.";
            noargs "take" ("") = py_take, "The oldest task, claimed, or None.";
            noargs "cancel_all" ("") = py_cancel_all, "Cancel all tasks in line.";
            noargs "pending" ("") = py_pending, "How many tasks wait.";
            noargs "workers" ("") = py_workers, "(workers, idle workers, most).";
            noargs "stats" ("") = py_stats, "The figures, as a dict.";
            fast "set" (", **settings") = py_set, "Change settings.";
        }
    }

    fn attributes() -> Vec<ffi::PyGetSetDef> {
        Vec::new()
    }
}

/// Runs a claimed future's task in the calling thread, for programs that take tasks out themselves.
pub(crate) fn run_taken(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<()> {
    let future = future::expect(object)?;
    match future.pool() {
        Some(pool) => run_here(py, future, pool),
        None => Err(PyValueError::new_err("this future has no task")),
    }
}

/// Ends a future that was taken, as cancelled or with an exception.
pub(crate) fn end_taken(py: Python<'_>, object: &Bound<'_, PyAny>, error: Option<Py<PyAny>>) -> PyResult<()> {
    let future = future::expect(object)?;
    if let Some(work) = future.take_work(py) {
        work.release();
    }
    match error {
        Some(error) => future::finish(py, future, error.into_bound(py), true).map(drop),
        None => future::give_up(py, future).map(drop),
    }
}

/// Makes the types.
pub(crate) fn add(module: &Bound<'_, PyAny>) -> PyResult<()> {
    crate::types::add::<PyFuture>(module, Slot::Future)?;
    crate::types::add::<PyLine>(module, Slot::Line)?;
    crate::types::add::<PyExecutor>(module, Slot::Executor)
}
