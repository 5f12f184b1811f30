//! Worker processes: tasks as futures, and news for the thread that keeps the workers.
//!
//! The dispatcher never attaches. It ends futures that nobody listens to by itself; the others, the references that it
//! is through with, and everything about processes it leaves to the keeper, a Python thread in [`PyWorkers::news`].

use crate::args::{Patience, patience};
use crate::cancel::{self, Reason};
use crate::channel::failed;
use crate::error::{fetch, into_value};
use crate::future::{self, Me, PyFuture, Rest};
use crate::gil::{self, PyHost};
use crate::native::core;
use crate::reference::Item;
use crate::tasks::{self, PyTask, Task};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyRange, PyTuple};
use raddle::park::{Deadline, Parking, Signal, Stop, now};
use raddle::primitive::Spin;
use raddle::trace::{Claim, Kind, Resource, Waker};
use raddle::workers::{Event, Host, Loss, Message, Reply, Rules, Settings, Slot, Why, Workers};
use std::collections::VecDeque;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Messages of at least this many bytes are sent detached.
const LARGE: usize = 16 * 1024;
/// References that the keeper has not given back before it is woken for that alone.
const MOST_GARBAGE: usize = 256;
/// After so many tasks of one call other threads get a turn.
const TURN: usize = 128;
/// The most tasks that are submitted together.
const TOGETHER: usize = 64;
/// The longest that one waits for others, in nanoseconds, while there are more to come at once.
const LONGEST: u64 = 100_000;

/// What the keeper is to do.
enum News {
    /// To end a future, or to tell those who listen.
    Rest(Item, Rest),
    /// A task that was to stop has.
    Stopped(Item, Option<Why>),
    Lost(Item, Loss),
    Event(Event<Item>),
}

/// What the dispatcher leaves for the keeper.
struct Desk {
    news: Spin<VecDeque<News>>,
    garbage: Spin<Vec<Item>>,
    discarded: AtomicUsize,
    signal: Signal,
    urgent: AtomicBool,
    /// Tasks waiting to be sent have become fewer: for who waits to submit.
    room: Signal,
}

impl Desk {
    fn put(&self, news: News) {
        self.news.lock().push_back(news);
        self.urgent.store(true, Ordering::Release);
    }

    fn discard(&self, item: Item) {
        let mut garbage = self.garbage.lock();
        garbage.push(item);
        self.discarded.store(garbage.len(), Ordering::Relaxed);
    }

    /// Gives the references back; attached.
    fn tidy(&self, py: Python<'_>) {
        if self.discarded.load(Ordering::Relaxed) > 0 {
            self.discarded.store(0, Ordering::Relaxed);
            let garbage = std::mem::take(&mut *self.garbage.lock());
            for item in garbage {
                gil::release(item.into_bound(py));
            }
        }
    }
}

impl Resource for Desk {
    fn is_outside(&self) -> bool {
        true
    }

    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}

fn core_of(item: &Item) -> &PyFuture {
    // SAFETY: only futures are made tasks; the item keeps it.
    unsafe { core::<PyFuture>(item.as_ptr()) }
}

impl Host for Desk {
    type Task = Item;

    fn begins(&self, task: &Item) -> bool {
        core_of(task).completion.begin().is_ok()
    }

    fn replied(&self, task: Item, reply: Reply, why: Option<Why>) {
        if reply.kind == raddle::workers::kind::STOPPED {
            return self.put(News::Stopped(task, why));
        }
        match core_of(&task).arrive(reply) {
            Rest::Nothing => self.discard(task),
            rest => self.put(News::Rest(task, rest)),
        }
    }

    fn lost(&self, task: Item, loss: Loss) {
        self.put(News::Lost(task, loss));
    }

    fn happened(&self, event: Event<Item>) {
        self.put(News::Event(event));
        self.delivered();
    }

    fn delivered(&self) {
        if self.urgent.swap(false, Ordering::AcqRel) || self.discarded.load(Ordering::Relaxed) > MOST_GARBAGE {
            self.signal.notify_one();
        }
        if self.room.sleepers() > 0 {
            self.room.notify_all();
        }
    }

    fn owes(&self) -> bool {
        self.discarded.load(Ordering::Relaxed) > 0
    }

    fn rest(&self) {
        self.signal.notify_one();
    }
}

impl future::Workers for Workers<Desk> {
    fn stop(&self, id: u64) -> bool {
        Workers::stop(self, id)
    }
}

/// Worker processes of one pool.
#[pyclass(frozen, module = "raddle._raddle", name = "Workers")]
pub(crate) struct PyWorkers {
    workers: Arc<Workers<Desk>>,
    /// The process it belongs to.
    generation: u32,
}

impl Drop for PyWorkers {
    fn drop(&mut self) {
        if self.generation != raddle::park::generation() {
            // In a forked child: locks may be held for ever, descriptors are closed by number.
            std::mem::forget(Arc::clone(&self.workers));
        }
    }
}

impl PyWorkers {
    fn here(&self) -> PyResult<&Arc<Workers<Desk>>> {
        if self.generation == raddle::park::generation() {
            return Ok(&self.workers);
        }
        Err(PyRuntimeError::new_err("this pool belongs to the parent process: make one of its own after a fork"))
    }
}

/// Submits one task; its future.
fn put<'py>(
    py: Python<'py>,
    workers: &Arc<Workers<Desk>>,
    task: &Task,
    retries: u32,
    limit: Option<u64>,
) -> PyResult<Bound<'py, PyAny>> {
    workers.host().tidy(py);
    let item = future::new_remote(py, task.name.bind(py), Arc::clone(workers) as Arc<dyn future::Workers>)?;
    let kept = Item::new(item.as_ptr()).into_bound(py);
    let id = task.with_message(py, |tag, parts| {
        let submit = move || workers.submit(item, tag, parts, retries, limit);
        if is_large(parts) { PyHost::unending().detached(submit) } else { submit() }
    })?;
    // SAFETY: a future.
    unsafe { core::<PyFuture>(kept.as_ptr()) }.set_remote_id(id);
    Ok(kept)
}

fn is_large(parts: &[&[u8]]) -> bool {
    parts.iter().map(|part| part.len()).sum::<usize>() >= LARGE
}

/// Tasks that are submitted together, so that a worker is woken for several: one at first, then more and more.
struct Batch<'a, 'py> {
    workers: &'a Arc<Workers<Desk>>,
    tasks: Vec<(Bound<'py, PyAny>, Message)>,
    /// How many go together; 0: always one.
    most: usize,
    began: u64,
}

impl<'py> Batch<'_, 'py> {
    /// The future of a task that is sent now or soon. A large message goes alone: it is copied once, to where it is read.
    fn put(&mut self, py: Python<'py>, task: &Task) -> PyResult<Bound<'py, PyAny>> {
        let message = task
            .with_message(py, |tag, parts| (!is_large(parts)).then(|| Message { tag, bytes: parts.concat().into() }))?;
        let Some(message) = message else {
            self.send();
            return put(py, self.workers, task, 0, None);
        };
        let item = future::new_remote(py, task.name.bind(py), Arc::clone(self.workers) as Arc<dyn future::Workers>)?;
        let future = item.into_bound(py);
        self.tasks.push((future.clone(), message));
        if self.tasks.len() >= self.most || now() - self.began > LONGEST {
            self.send();
        }
        Ok(future)
    }

    fn send(&mut self) {
        let (mut futures, mut tasks) = (Vec::new(), Vec::new());
        for (future, message) in self.tasks.drain(..) {
            tasks.push((Item::new(future.as_ptr()), message));
            futures.push(future);
        }
        for (future, id) in futures.iter().zip(self.workers.submit_all(tasks)) {
            // SAFETY: a future.
            unsafe { core::<PyFuture>(future.as_ptr()) }.set_remote_id(id);
        }
        self.most = (2 * self.most).min(TOGETHER);
        self.began = now();
    }
}

/// Whether the next item of an iterable is never waited for.
fn is_at_hand(items: &Bound<'_, PyAny>) -> bool {
    items.cast_exact::<PyList>().is_ok()
        || items.cast_exact::<PyTuple>().is_ok()
        || items.cast_exact::<PyRange>().is_ok()
}

fn tuple_of<'py>(item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    match item.cast_exact::<PyTuple>() {
        Ok(tuple) => Ok(tuple.clone()),
        Err(_) => {
            let (items, mut found) = (gil::iterate(item)?, Vec::new());
            while let Some(item) = gil::next(&items)? {
                found.push(item);
            }
            PyTuple::new(item.py(), found)
        }
    }
}

fn nanoseconds(seconds: Option<f64>) -> Option<u64> {
    seconds.map(|seconds| (seconds.max(0.0) * 1e9) as u64)
}

fn release_all(py: Python<'_>, items: Vec<Item>) -> PyResult<Bound<'_, PyList>> {
    PyList::new(py, items.into_iter().map(|item| item.into_bound(py)))
}

#[pymethods]
impl PyWorkers {
    #[new]
    #[pyo3(signature = (workers, tasks_per_worker=0, idle=None, failures=3, grace=0.1, memory=0, least=0))]
    fn new(
        workers: usize,
        tasks_per_worker: u64,
        idle: Option<f64>,
        failures: u32,
        grace: f64,
        memory: u64,
        least: usize,
    ) -> PyResult<Self> {
        let rules = Rules { workers, least, tasks_per_worker, idle: nanoseconds(idle).unwrap_or(0), failures };
        let settings = Settings { grace: nanoseconds(Some(grace)).unwrap_or(0), memory };
        let desk = Desk {
            news: Spin::new(VecDeque::new()),
            garbage: Spin::new(Vec::new()),
            discarded: AtomicUsize::new(0),
            signal: Signal::new(),
            urgent: AtomicBool::new(false),
            room: Signal::new(),
        };
        let workers = Workers::new(desk, rules, settings).map_err(failed)?;
        Ok(Self { workers, generation: raddle::park::generation() })
    }

    /// Submits a task; its future. `limit`: the longest it may run, in seconds.
    #[pyo3(signature = (task, retries=0, limit=None))]
    fn submit<'py>(&self, task: &Bound<'py, PyTask>, retries: u32, limit: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        put(task.py(), self.here()?, &task.get().0, retries, nanoseconds(limit))
    }

    /// Submits a task for each item of an iterable, which is its argument, or with `star` its arguments. Their futures,
    /// and of those that cannot be pickled what `failed(error)` makes of it.
    fn submit_each<'py>(
        &self,
        function: &Bound<'py, PyAny>,
        items: &Bound<'py, PyAny>,
        star: bool,
        failed: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = function.py();
        let workers = self.here()?;
        workers.host().tidy(py);
        let (futures, none) = (PyList::empty(py), PyDict::new(py));
        let mut batch = Batch { workers, tasks: Vec::new(), most: usize::from(is_at_hand(items)), began: now() };
        let items = gil::iterate(items)?;
        let fed = (|| {
            while let Some(item) = gil::next(&items)? {
                let task = match if star { tuple_of(&item) } else { PyTuple::new(py, [&item]) } {
                    Ok(args) => {
                        let task = tasks::pickle(function, &args, &none, None);
                        gil::release(args.into_any());
                        task
                    }
                    Err(error) => Err(error),
                };
                gil::release(item);
                let future = match task {
                    Ok(task) => batch.put(py, &task)?,
                    Err(error) if error.is_instance_of::<PyException>(py) => {
                        gil::call(failed, &[&into_value(py, error)])?
                    }
                    Err(error) => return Err(error),
                };
                futures.append(future)?;
                if futures.len() % TURN == 0 {
                    gil::give_way(py)?;
                }
            }
            Ok(())
        })();
        batch.send();
        fed.map(|()| futures)
    }

    /// Waits until fewer than so many tasks wait to be sent. False if the time is up.
    #[pyo3(signature = (limit, timeout=None))]
    fn wait_room(&self, py: Python<'_>, limit: usize, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let workers = self.here()?;
        let deadline = match patience(timeout)? {
            Patience::Until(deadline) => deadline,
            Patience::None => Deadline::at(0),
        };
        let desk = workers.host();
        loop {
            let key = desk.room.key();
            if workers.numbers()[0] < limit {
                return Ok(true);
            }
            let host = PyHost::new();
            let ended = host.detached(|| {
                let mut parking = Parking::new(Kind::Submit, desk, 0, deadline, &host);
                desk.room.wait(key, &mut parking)
            });
            match ended {
                Ok(()) => {}
                Err(Stop::TimedOut) => return Ok(workers.numbers()[0] < limit),
                Err(Stop::Interrupted) => return Err(fetch(py)),
            }
        }
    }

    /// Starts the dispatcher.
    fn dispatch(&self) -> PyResult<()> {
        self.here()?.dispatch().map_err(failed)
    }

    /// The numbers of workers to be started now, so that there are this many.
    fn want(&self, least: usize) -> PyResult<Vec<Slot>> {
        Ok(self.here()?.want(least))
    }

    /// A process was started for a worker; takes the descriptors over.
    fn enlist(&self, slot: Slot, pid: i32, file: RawFd, bell: RawFd) -> PyResult<()> {
        // SAFETY: the caller gives both away.
        let (file, bell) = unsafe { (OwnedFd::from_raw_fd(file), OwnedFd::from_raw_fd(bell)) };
        self.here()?.enlist(slot, pid, file, bell).map_err(failed)
    }

    /// None could be started.
    fn give_up(&self, slot: Slot) -> PyResult<()> {
        self.here()?.give_up(slot);
        Ok(())
    }

    /// No more tasks come.
    fn close(&self) -> PyResult<()> {
        self.here()?.close();
        Ok(())
    }

    /// Waits until the dispatcher is gone: for the keeper, when all is over.
    fn join(&self) -> PyResult<()> {
        let workers = self.here()?;
        PyHost::unending().detached(|| workers.join());
        Ok(())
    }

    fn resize(&self, workers: usize) -> PyResult<()> {
        self.here()?.resize(workers);
        Ok(())
    }

    fn signal_all(&self, signal: i32) -> PyResult<()> {
        self.here()?.signal_all(signal);
        Ok(())
    }

    /// The future that has waited longest, taken out; None if none waits.
    fn drop_oldest<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.here()?.drop_oldest().map(|item| item.into_bound(py)))
    }

    /// The futures that have not been sent, taken out.
    fn drop_pending<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        release_all(py, self.here()?.drop_pending())
    }

    /// All futures, taken out.
    fn drop_all<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        release_all(py, self.here()?.drop_all())
    }

    /// (pending, unfinished, workers, ready workers, idle workers)
    fn numbers(&self) -> PyResult<(usize, usize, usize, usize, usize)> {
        Ok(self.here()?.numbers().into())
    }

    /// (submitted, lost, retried)
    fn counts(&self) -> PyResult<(u64, u64, u64)> {
        let counts = self.here()?.counts();
        Ok((counts.submitted, counts.lost, counts.retried))
    }

    /// The times of tasks, by the names of `ProcessPoolStats` of `raddle.concurrent.futures`.
    fn measured<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let found = self.here()?.measured();
        let seconds = |time: Option<std::time::Duration>| time.map(|time| time.as_secs_f64());
        let dict = PyDict::new(py);
        dict.set_item("done", found.done)?;
        dict.set_item("failed", found.failed)?;
        dict.set_item("queue_wait_p50", seconds(found.queued[0]))?;
        dict.set_item("queue_wait_p99", seconds(found.queued[1]))?;
        dict.set_item("run_time_p50", seconds(found.run[0]))?;
        dict.set_item("run_time_p99", seconds(found.run[1]))?;
        dict.set_item("wall_per_task", seconds(found.wall))?;
        dict.set_item("cpu_per_task", seconds(found.cpu))?;
        dict.set_item("recommended_workers", found.recommended)?;
        Ok(dict)
    }

    /// Descriptors that are this process's alone.
    fn descriptors(&self) -> PyResult<Vec<RawFd>> {
        Ok(self.here()?.descriptors())
    }

    /// For the keeper: waits for something to do, does what concerns futures, and gives back what concerns processes.
    fn news<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let desk = self.here()?.host();
        loop {
            let key = desk.signal.key();
            desk.tidy(py);
            let next = desk.news.lock().pop_front();
            if let Some(news) = next {
                if let Some(told) = tell(py, news)? {
                    return Ok(told);
                }
                continue;
            }
            let host = PyHost::new();
            let ended = host.detached(|| {
                let mut parking = Parking::new(Kind::Idle, desk, 0, Deadline::NEVER, &host);
                desk.signal.wait(key, &mut parking)
            });
            if ended == Err(Stop::Interrupted) {
                return Err(fetch(py));
            }
        }
    }
}

/// Does what concerns a future; what concerns a process is made a tuple.
fn tell<'py>(py: Python<'py>, news: News) -> PyResult<Option<Bound<'py, PyAny>>> {
    let (item, done) = match news {
        News::Rest(item, rest) => {
            let done = future::finish_remote(py, future_of(&item), rest);
            (item, done)
        }
        News::Stopped(item, why) => {
            let done = stopped(py, &item, why);
            (item, done)
        }
        News::Lost(item, loss) => {
            let done = lost(py, &item, loss);
            (item, done)
        }
        News::Event(event) => return event_of(py, event).map(Some),
    };
    if let Err(error) = done {
        // What a callback raises that is no Exception ends nothing but itself.
        gil::unraisable(py, error, item.as_ptr());
    }
    gil::release(item.into_bound(py));
    Ok(None)
}

fn future_of(item: &Item) -> Me<'_> {
    // SAFETY: only futures are made tasks; the item keeps it.
    unsafe { Me::from_ptr(item.as_ptr()) }
}

fn stopped(py: Python<'_>, item: &Item, why: Option<Why>) -> PyResult<()> {
    match why {
        Some(Why::Late) => {
            let error = into_value(py, cancel::error(py, Reason::Late));
            future::finish(py, future_of(item), error, true).map(drop)
        }
        _ => future::give_up(py, future_of(item)).map(drop),
    }
}

fn lost(py: Python<'_>, item: &Item, loss: Loss) -> PyResult<()> {
    match loss {
        Loss::Dropped => {
            if !future::acknowledge(py, future_of(item))? {
                future::give_up(py, future_of(item))?;
            }
            Ok(())
        }
        Loss::Unsendable(error) => {
            let error = into_value(py, failed(error));
            future::finish(py, future_of(item), error, true).map(drop)
        }
    }
}

fn reason(why: Option<Why>) -> Option<&'static str> {
    why.map(|why| match why {
        Why::Cancelled => "cancelled",
        Why::Late => "late",
        Why::Memory => "memory",
    })
}

fn event_of<'py>(py: Python<'py>, event: Event<Item>) -> PyResult<Bound<'py, PyAny>> {
    match event {
        Event::Start(slot) => ("start", slot).into_bound_py_any(py),
        Event::Died { slot, pid, lost, memory, damaged } => {
            let damaged = damaged.map(|error| into_value(py, PyOSError::new_err((libc::EBADMSG, error.to_string()))));
            let futures = release_all(py, lost.tasks)?;
            ("died", slot, pid, futures, reason(lost.why), lost.unready, memory, damaged).into_bound_py_any(py)
        }
        Event::Unfit(reply) => {
            let error = tasks::decode(py, &Arc::new(reply)).unwrap_or_else(|error| into_value(py, error));
            ("unfit", error).into_bound_py_any(py)
        }
        Event::Hopeless(items) => ("hopeless", release_all(py, items)?).into_bound_py_any(py),
        Event::Over => ("over",).into_bound_py_any(py),
    }
}

/// The signal by which a worker is told to look whether its task is to stop.
#[pyfunction]
pub(crate) fn worker_stop_signal() -> i32 {
    raddle::workers::stop_signal()
}

/// The name of the function of a task that another process runs, or None.
#[pyfunction]
pub(crate) fn task_name<'py>(future: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = future.py();
    Ok(future::expect(future)?.task_name(py).unwrap_or_else(|| py.None().into_bound(py)))
}
