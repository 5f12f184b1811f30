//! A thread pool for Rust programs.

use super::{Added, Next, Rejected, Seat, Task, Tasks};
use crate::future::{Completion, Stage};
use crate::park::{Alone, Deadline, Parking};
use crate::trace::{Claim, Kind, Resource, Waker};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// A closure in the line. Nobody else claims it.
struct Job(Box<dyn FnOnce() + Send>);

impl Task for Job {
    fn claim(&self) -> bool {
        true
    }

    fn waits(&self) -> bool {
        true
    }
}

impl Resource for Tasks<Job> {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}

/// Threads that run closures, first come, first served. Made when there is work for them, at most `workers`.
///
/// Dropping the pool lets the tasks in the line run and waits for them. Not to be used after `fork` in the child.
///
/// ```
/// let pool = raddle::pool::ThreadPool::new(2);
/// let handles: Vec<_> = (0..10u64).map(|i| pool.spawn(move || i * i)).collect();
/// assert_eq!(handles.into_iter().map(|handle| handle.join().unwrap()).sum::<u64>(), 285);
/// ```
pub struct ThreadPool {
    tasks: Arc<Tasks<Job>>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (workers, asleep) = self.tasks.workers();
        let pending = self.tasks.pending();
        f.debug_struct("ThreadPool")
            .field("workers", &workers)
            .field("idle", &asleep)
            .field("pending", &pending)
            .finish()
    }
}

/// The task panicked; the payload is what it panicked with.
pub struct Lost(pub Box<dyn std::any::Any + Send>);

impl fmt::Debug for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lost(..)")
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task panicked")
    }
}

impl std::error::Error for Lost {}

struct Slot<R> {
    completion: Completion<()>,
    value: Mutex<Option<Result<R, Lost>>>,
}

impl<R: Send> Resource for Slot<R> {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}

/// The result of a task, to be waited for.
pub struct JoinHandle<R>(Arc<Slot<R>>);

impl<R> fmt::Debug for JoinHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JoinHandle").field(&self.0.completion.stage()).finish()
    }
}

impl<R: Send> JoinHandle<R> {
    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.0.completion.is_done()
    }

    /// Blocks until the task has ended.
    ///
    /// # Errors
    /// [`Lost`] if it panicked.
    pub fn join(self) -> Result<R, Lost> {
        if !self.0.completion.is_done() {
            let mut parking = Parking::new(Kind::Future, &*self.0, 0, Deadline::NEVER, &Alone);
            while self.0.completion.wait_slow(&mut parking).is_err() {}
        }
        let value = self.0.value.lock().unwrap_or_else(PoisonError::into_inner).take();
        value.expect("a task that has ended leaves its value, and join takes it once")
    }
}

impl ThreadPool {
    /// A pool of at most this many threads, at least one.
    pub fn new(workers: usize) -> Self {
        Self { tasks: Arc::new(Tasks::new(workers.max(1), 0)), threads: Mutex::new(Vec::new()) }
    }

    /// Has a thread of the pool run `task`. Never blocks.
    ///
    /// # Panics
    /// If the first thread cannot be started.
    pub fn execute(&self, task: impl FnOnce() + Send + 'static) {
        match self.tasks.add(Job(Box::new(task))) {
            Ok(Added::Served) => {}
            Ok(Added::Start) => self.start(),
            Err(Rejected::Closed(_) | Rejected::Full(_)) => unreachable!("only dropping the pool closes it"),
        }
    }

    /// Has a thread of the pool run `task`; its result is waited for through the handle. Never blocks.
    ///
    /// # Panics
    /// As [`execute`](Self::execute).
    pub fn spawn<R: Send + 'static>(&self, task: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
        let slot = Arc::new(Slot { completion: Completion::new(), value: Mutex::new(None) });
        let ours = Arc::clone(&slot);
        self.execute(move || {
            let value = catch_unwind(AssertUnwindSafe(task)).map_err(Lost);
            *ours.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            ours.completion.claim(true).expect("nobody else ends it");
            ours.completion.settle(Stage::Finished, true).expect("claimed above");
        });
        JoinHandle(slot)
    }

    fn start(&self) {
        let tasks = Arc::clone(&self.tasks);
        let started = std::thread::Builder::new().name("raddle-pool".to_owned()).spawn(move || work(&tasks));
        match started {
            Ok(thread) => self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread),
            Err(error) => assert!(self.tasks.start_failed(), "a pool without threads: {error}"),
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.tasks.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let me = std::thread::current().id();
        for thread in threads {
            // Dropped by one of its own tasks, the pool cannot wait for that one.
            if thread.thread().id() != me {
                let _ = thread.join();
            }
        }
    }
}

fn work(tasks: &Tasks<Job>) {
    let seat = Arc::new(Seat::default());
    loop {
        match tasks.next(&seat) {
            Next::Run(Job(task)) => {
                let busy = Busy(tasks);
                // What a bare task panics with is printed by the panic hook; the thread goes on.
                let _ = catch_unwind(AssertUnwindSafe(task));
                drop(busy);
            }
            Next::Gone(_) => {}
            Next::Leave => return,
            Next::Sleep => {
                let mut parking = Parking::new(Kind::Idle, tasks, 0, Deadline::NEVER, &Alone);
                while seat.wait_slow(&mut parking).is_err() {}
            }
        }
    }
}

/// Says that the worker is awake again, whatever became of its task.
struct Busy<'a>(&'a Tasks<Job>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.finished();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    #[test]
    fn all_tasks_run_once_and_results_come_back() {
        let pool = ThreadPool::new(4);
        let ran = Arc::new(AtomicUsize::new(0));
        let handles: Vec<_> = (0..1000usize)
            .map(|i| {
                let ran = Arc::clone(&ran);
                pool.spawn(move || {
                    ran.fetch_add(1, Ordering::Relaxed);
                    i
                })
            })
            .collect();
        assert_eq!(handles.into_iter().map(|handle| handle.join().unwrap()).sum::<usize>(), 499_500);
        assert_eq!(ran.load(Ordering::Relaxed), 1000);
    }

    #[test]
    fn a_panic_is_given_to_who_joins_and_the_pool_goes_on() {
        let pool = ThreadPool::new(1);
        let bad = pool.spawn(|| std::panic::resume_unwind(Box::new("expected")));
        let good = pool.spawn(|| 7);
        let lost: Lost = bad.join().unwrap_err();
        assert_eq!(*lost.0.downcast::<&str>().unwrap(), "expected");
        assert_eq!(good.join().unwrap(), 7);
    }

    #[test]
    fn dropping_the_pool_runs_what_is_in_line() {
        let ran = Arc::new(AtomicUsize::new(0));
        let pool = ThreadPool::new(2);
        for _ in 0..100 {
            let ran = Arc::clone(&ran);
            pool.execute(move || {
                ran.fetch_add(1, Ordering::Relaxed);
            });
        }
        drop(pool);
        assert_eq!(ran.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn a_pool_may_be_dropped_by_its_own_task() {
        let pool = Arc::new(Mutex::new(Some(ThreadPool::new(1))));
        let gone = Arc::new(AtomicBool::new(false));
        let (inner, flag) = (Arc::clone(&pool), Arc::clone(&gone));
        let handle = pool.lock().unwrap().as_ref().unwrap().spawn(move || {
            drop(inner.lock().unwrap().take());
            flag.store(true, Ordering::Release);
        });
        handle.join().unwrap();
        assert!(gone.load(Ordering::Acquire));
    }
}
