//! Thread pools: a line of tasks, and workers who sleep while it is empty.
//!
//! [`Tasks`] is what a pool is made of, without threads: hosts bring their own. [`ThreadPool`] is one for Rust.
//!
//! Workers are busy (in a task), awake (about to look at the line) or asleep. The rule that keeps every task
//! moving: *while there is a task in the line, some worker is awake, or all are busy*. So whoever adds a task
//! wakes a sleeper only if nobody is awake, and a worker that goes from awake to busy and leaves tasks behind
//! wakes another. The last to fall asleep is the first to be woken: its stack is warm, and the others may time out.

#[cfg(not(raddle_loom))]
mod demand;
#[cfg(not(raddle_loom))]
mod probe;
mod stats;
#[cfg(not(raddle_loom))]
mod threads;

#[cfg(not(raddle_loom))]
pub use demand::{Demand, Stretch};
#[cfg(not(raddle_loom))]
pub(crate) use probe::run_delay_of;
#[cfg(not(raddle_loom))]
pub use probe::{Doing, doing, run_delay};
pub use stats::{Count, Desk, Histogram, Stats};
#[cfg(not(raddle_loom))]
pub use threads::{JoinHandle, Lost, ThreadPool};

use crate::park::{Key, Parking, Signal, Stop};
use crate::primitive::{AtomicU32, AtomicUsize, Futex, Ordering, Spin, SpinGuard};
use std::collections::VecDeque;
use std::sync::Arc;

/// What waits in the line.
pub trait Task {
    /// Takes it for running; false if somebody else has, or it was cancelled. Called under the line's lock:
    /// it must be a few instructions.
    fn claim(&self) -> bool;

    /// Whether it still waits to be claimed. As quick as `claim`.
    fn waits(&self) -> bool;
}

/// So many tasks that wait no more are left in the line, and as many as do wait.
const MOST_GONE: isize = 64;

/// Where a worker sleeps.
#[derive(Debug, Default)]
pub struct Seat {
    /// 1 once it has been woken for a task.
    word: Futex,
    sleepers: AtomicU32,
}

impl Seat {
    fn wake(&self) {
        // SeqCst: pairs with `Parking::park`, which counts a sleeper before the kernel compares.
        self.word.store(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.word.wake(1);
        }
    }

    /// Blocks until it is woken.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_slow(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        while self.word.load(Ordering::Acquire) == 0 {
            parking.park(&self.word, 0, Some(&self.sleepers))?;
        }
        Ok(())
    }
}

/// What is to be done after a task has been added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// Nothing: a worker will take it.
    Served,
    /// Start a worker: it has been counted, and is awake.
    Start,
}

/// A task that was not added, and why.
#[derive(Debug)]
pub enum Rejected<T> {
    /// The pool takes no more tasks.
    Closed(T),
    /// As many wait as may.
    Full(T),
}

/// What a worker got.
#[derive(Debug)]
pub enum Next<T> {
    /// A task to run.
    Run(T),
    /// A task that is not to be run any more; to be dropped. The worker is still awake.
    Gone(T),
    /// Nothing: the worker is on the list of sleepers and goes to its seat.
    Sleep,
    /// Nothing, for ever: the worker has been counted out.
    Leave,
}

#[derive(Debug)]
struct Inner<T> {
    line: VecDeque<T>,
    /// How many in the line have been claimed or cancelled where they stand. May be below zero for a moment,
    /// while such a task has left the line and is not yet counted.
    gone: isize,
    asleep: Vec<Arc<Seat>>,
    awake: usize,
    workers: usize,
    /// Most workers; more than this are let go when they have nothing to do.
    most: usize,
    /// Most tasks in the line; 0 is no limit.
    limit: usize,
    /// How many tasks have been added so far.
    added: u64,
    closed: bool,
}

impl<T> Inner<T> {
    fn pending(&self) -> usize {
        (self.line.len() as isize - self.gone).max(0) as usize
    }

    /// Whether more tasks wait than workers who could take them, and there may be one more. It is counted then,
    /// as awake, and has to be started.
    fn wants_worker(&mut self) -> bool {
        let wanted = self.workers < self.most && self.pending() > self.awake + self.asleep.len();
        if wanted {
            self.workers += 1;
            self.awake += 1;
        }
        wanted
    }

    /// A sleeper to be woken now, if tasks wait and nobody is awake. It counts as awake.
    fn rouse(&mut self) -> Option<Arc<Seat>> {
        if self.awake > 0 || self.line.is_empty() {
            return None;
        }
        let seat = self.asleep.pop()?;
        self.awake += 1;
        Some(seat)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Tasks<T> {
    inner: Spin<Inner<T>>,
    /// How long the line was after the last change at its ends.
    length: AtomicUsize,
    room: Signal,
}

impl<T: Task> Tasks<T> {
    /// An empty line for at most this many workers, with room for `limit` tasks (0: no limit).
    pub fn new(most: usize, limit: usize) -> Self {
        let inner = Inner {
            line: VecDeque::new(),
            gone: 0,
            asleep: Vec::new(),
            awake: 0,
            workers: 0,
            most,
            limit,
            added: 0,
            closed: false,
        };
        Self { inner: Spin::new(inner), length: AtomicUsize::new(0), room: Signal::new() }
    }

    /// Adds a task. Never blocks.
    ///
    /// # Errors
    /// The task, if the pool is closed or the line is full.
    pub fn add(&self, task: T) -> Result<Added, Rejected<T>> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(Rejected::Closed(task));
        }
        if inner.limit > 0 && inner.pending() >= inner.limit {
            return Err(Rejected::Full(task));
        }
        inner.line.push_back(task);
        inner.added += 1;
        self.length.store(inner.line.len(), Ordering::Relaxed);
        if inner.wants_worker() {
            return Ok(Added::Start);
        }
        let seat = inner.rouse();
        drop(inner);
        if let Some(seat) = seat {
            seat.wake();
        }
        Ok(Added::Served)
    }

    /// A worker that was to be started could not be: it is counted out. Whether any is left.
    pub fn start_failed(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.workers -= 1;
        inner.awake -= 1;
        let (seat, left) = (inner.rouse(), inner.workers > 0);
        drop(inner);
        if let Some(seat) = seat {
            seat.wake();
        }
        left
    }

    /// What an awake worker does next.
    pub fn next(&self, seat: &Arc<Seat>) -> Next<T> {
        self.next_of(self.inner.lock(), seat)
    }

    /// [`finished`](Self::finished) and [`next`](Self::next) in one.
    pub fn finished_and_next(&self, seat: &Arc<Seat>) -> Next<T> {
        let mut inner = self.inner.lock();
        inner.awake += 1;
        self.next_of(inner, seat)
    }

    #[inline]
    fn next_of(&self, mut inner: SpinGuard<'_, Inner<T>>, seat: &Arc<Seat>) -> Next<T> {
        if let Some(task) = inner.line.pop_front() {
            self.length.store(inner.line.len(), Ordering::Relaxed);
            if !task.claim() {
                inner.gone -= 1;
                return Next::Gone(task);
            }
            inner.awake -= 1;
            let other = inner.rouse();
            let bounded = inner.limit > 0;
            drop(inner);
            if let Some(other) = other {
                other.wake();
            }
            if bounded {
                self.room.notify_one();
            }
            return Next::Run(task);
        }
        inner.awake -= 1;
        if inner.closed || inner.workers > inner.most {
            inner.workers -= 1;
            return Next::Leave;
        }
        seat.word.store(0, Ordering::Relaxed);
        inner.asleep.push(Arc::clone(seat));
        Next::Sleep
    }

    /// A busy worker is done with its task and will call [`next`](Self::next): it is awake.
    #[inline]
    pub fn finished(&self) {
        self.inner.lock().awake += 1;
    }

    /// Whether more tasks wait than workers who could take them, and there may be one more: it has been counted,
    /// awake, and the caller starts it. For workers, after the number that there may be was raised.
    pub fn wants_worker(&self) -> bool {
        self.inner.lock().wants_worker()
    }

    /// A sleeper got tired of waiting. True: it has been counted out and leaves. False: it has been woken, or is
    /// now, because a task counts on it.
    pub fn give_up(&self, seat: &Arc<Seat>) -> bool {
        let mut inner = self.inner.lock();
        let Some(at) = inner.asleep.iter().position(|other| Arc::ptr_eq(other, seat)) else { return false };
        let ours = inner.asleep.remove(at);
        let leaves = inner.pending() <= inner.awake + inner.asleep.len();
        if leaves {
            inner.workers -= 1;
        } else {
            inner.awake += 1;
            seat.word.store(1, Ordering::Relaxed);
        }
        drop(inner);
        drop(ours);
        leaves
    }

    /// A task in the line has been claimed or cancelled where it stands, and waits no more. When such tasks are
    /// many, they are taken out: the caller drops them.
    #[must_use = "what was taken out is dropped outside of all locks"]
    pub fn withdrawn(&self) -> Vec<T> {
        let mut inner = self.inner.lock();
        inner.gone += 1;
        let mut removed = Vec::new();
        if inner.gone >= MOST_GONE && inner.gone as usize * 2 > inner.line.len() {
            let line = std::mem::take(&mut inner.line);
            let (waiting, gone): (VecDeque<T>, VecDeque<T>) = line.into_iter().partition(Task::waits);
            // One whose owner has not come to count it yet makes up for it then.
            inner.gone -= gone.len() as isize;
            inner.line = waiting;
            removed = gone.into();
        }
        let bounded = inner.limit > 0;
        drop(inner);
        if bounded {
            self.room.notify_one();
        }
        removed
    }

    /// Takes the task that has waited longest, claimed. `Err`: one that was gone, to be dropped; ask again.
    pub fn take_oldest(&self) -> Option<Result<T, T>> {
        let mut inner = self.inner.lock();
        let task = inner.line.pop_front()?;
        if task.claim() {
            drop(inner);
            self.room.notify_one();
            return Some(Ok(task));
        }
        inner.gone -= 1;
        Some(Err(task))
    }

    /// Whether a task would not be refused for want of room now.
    pub fn has_room(&self) -> bool {
        let inner = self.inner.lock();
        inner.closed || inner.limit == 0 || inner.pending() < inner.limit
    }

    /// To be read before [`add`](Self::add) is tried and refused.
    pub fn room_key(&self) -> Key {
        self.room.key()
    }

    /// Blocks until there may be room.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_room(&self, key: Key, parking: &mut Parking<'_>) -> Result<(), Stop> {
        let waited = self.room.wait(key, parking);
        if waited.is_err() {
            // It may have been woken as well, and does not use that: somebody else does.
            self.room.notify_one();
        }
        waited
    }

    /// No more tasks are taken; workers leave when the line is empty.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        let seats = std::mem::take(&mut inner.asleep);
        inner.awake += seats.len();
        drop(inner);
        for seat in seats {
            seat.wake();
        }
        self.room.notify_all();
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.inner.lock().closed
    }

    /// Changes how many workers there may be. Sleepers beyond that leave; a task that waits may need one more,
    /// which the next [`add`](Self::add) asks for.
    pub fn set_most(&self, most: usize) {
        let mut inner = self.inner.lock();
        inner.most = most;
        let surplus = inner.workers.saturating_sub(most).min(inner.asleep.len());
        let seats: Vec<_> = inner.asleep.drain(..surplus).collect();
        inner.awake += seats.len();
        drop(inner);
        for seat in seats {
            seat.wake();
        }
    }

    /// Most workers there may be.
    pub fn most(&self) -> usize {
        self.inner.lock().most
    }

    /// Changes how many tasks may wait; 0 is no limit.
    pub fn set_limit(&self, limit: usize) {
        self.inner.lock().limit = limit;
        self.room.notify_all();
    }

    /// How many tasks may wait; 0 is no limit.
    pub fn limit(&self) -> usize {
        self.inner.lock().limit
    }

    /// About how many tasks are in the line, without asking for the lock.
    #[inline]
    pub fn length(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// How many tasks have been added so far.
    pub fn added(&self) -> u64 {
        self.inner.lock().added
    }

    /// How many tasks wait.
    pub fn pending(&self) -> usize {
        self.inner.lock().pending()
    }

    /// How many workers there are, and how many of them sleep.
    pub fn workers(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.workers, inner.asleep.len())
    }

    /// In a forked child: no worker is left, and the tasks are the parent's. What the parent's line held is leaked,
    /// since a thread that is gone may have been in the middle of changing it.
    #[cfg(not(raddle_loom))]
    pub fn after_fork_in_child(&self, most: usize, limit: usize, closed: bool) {
        self.inner.break_after_fork();
        let mut inner = self.inner.lock();
        let fresh = Inner { most, limit, closed, added: inner.added, ..Self::new(most, limit).inner.into_inner() };
        std::mem::forget(std::mem::replace(&mut *inner, fresh));
    }
}
