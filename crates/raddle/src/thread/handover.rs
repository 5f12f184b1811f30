//! How work is handed to a thread that is idle: the protocol, without the threads.
//!
//! An idle thread is on a list. Whoever has work takes it off the list and then gives it the work; whoever wants
//! it gone takes it off and then says so. A thread whose patience is over takes itself off. The list decides: a
//! thread that finds itself on it leaves and nobody will give it anything; one that does not has been
//! promised something, and waits for it without limit. So work is never given to a thread that leaves.
//!
//! The thread sleeps at the door on an event count of its own: one wake-up for each hand-over, and none if
//! it has not gone to sleep yet.

use crate::park::{Alone, Deadline, Host, Parking, Signal, Stop};
use crate::primitive::{Spin, const_unless_loom};
use crate::trace::{Claim, Kind, Resource, Waker};
use std::sync::Arc;

/// What a thread is told.
#[derive(Debug)]
enum Order<J> {
    Run(J),
    Leave,
}

/// A thread that takes one piece of work after the other.
#[derive(Debug)]
pub struct Worker<J> {
    order: Spin<Option<Order<J>>>,
    given: Signal,
}

impl<J> Worker<J> {
    /// One that has its first work already.
    pub fn with(job: J) -> Self {
        Self { order: Spin::new(Some(Order::Run(job))), given: Signal::new() }
    }

    /// The work that nobody has begun, back.
    pub fn take_back(&self) -> Option<J> {
        match self.order.lock().take() {
            Some(Order::Run(job)) => Some(job),
            Some(Order::Leave) | None => None,
        }
    }

    fn give(&self, order: Order<J>) {
        *self.order.lock() = Some(order);
        self.given.notify_one();
    }
}

#[derive(Debug)]
struct List<T, J> {
    /// The last is the one that went idle last: its stack and its core's caches are the warmest.
    idle: Vec<(T, Arc<Worker<J>>)>,
    /// Those that have left or are about to, until somebody takes them.
    left: Vec<T>,
    /// How many want the list to stay empty.
    closed: u32,
}

/// The idle threads, each with a tag: what it is.
#[derive(Debug)]
pub struct Idle<T, J> {
    list: Spin<List<T, J>>,
    most: usize,
}

impl<T: Clone, J> Idle<T, J> {
    const_unless_loom! {
        /// Nobody, and room for this many.
        pub fn new(most: usize) -> Self {
            Self { list: Spin::new(List { idle: Vec::new(), left: Vec::new(), closed: 0 }), most }
        }
    }

    /// Gives the work to the thread that went idle last, of those that fit. Never blocks.
    ///
    /// # Errors
    /// The work, if there is none.
    pub fn hand(&self, fits: impl Fn(&T) -> bool, job: J) -> Result<(), J> {
        let found = {
            let mut list = self.list.lock();
            list.idle.iter().rposition(|(tag, _)| fits(tag)).map(|at| list.idle.remove(at).1)
        };
        match found {
            Some(worker) => {
                worker.give(Order::Run(job));
                Ok(())
            }
            None => Err(job),
        }
    }

    /// Puts a thread on the list, where it may be given work at once; false if it has to leave: there is no room, or
    /// it is not `kept`.
    pub fn enter(&self, worker: &Arc<Worker<J>>, tag: T, kept: bool) -> bool {
        let mut list = self.list.lock();
        let stays = kept && list.closed == 0 && list.idle.len() < self.most;
        if stays {
            list.idle.push((tag, Arc::clone(worker)));
        } else {
            list.left.push(tag);
        }
        stays
    }

    /// Waits, in the worker's thread, for what it is given: work, or `None` if it has to leave.
    ///
    /// The worker is on the list or has been given something. At the deadline it leaves if it is still on the list.
    pub fn next(&self, worker: &Arc<Worker<J>>, patience: Deadline, host: &dyn Host) -> Option<J>
    where
        T: Send,
        J: Send,
    {
        let mut parking = Parking::new(Kind::Sleep, self, 0, patience, host);
        loop {
            let key = worker.given.key();
            let order = worker.order.lock().take();
            match order {
                Some(Order::Run(job)) => return Some(job),
                Some(Order::Leave) => return None,
                None => {}
            }
            match worker.given.wait(key, &mut parking) {
                Err(Stop::TimedOut) if self.leave(worker) => return None,
                // Somebody has taken it off the list, and is about to say what for.
                Err(Stop::TimedOut) => parking = Parking::new(Kind::Sleep, self, 0, Deadline::NEVER, &Alone),
                Ok(()) | Err(Stop::Interrupted) => {}
            }
        }
    }

    /// Takes the worker off the list; false if somebody else has.
    fn leave(&self, worker: &Arc<Worker<J>>) -> bool {
        let mut list = self.list.lock();
        let Some(at) = list.idle.iter().position(|(_, idle)| Arc::ptr_eq(idle, worker)) else { return false };
        let (tag, _) = list.idle.remove(at);
        list.left.push(tag);
        true
    }

    /// Tells everybody to leave, and lets nobody enter until [`open`](Self::open).
    pub fn close(&self) {
        let gone = {
            let mut list = self.list.lock();
            list.closed += 1;
            let gone = std::mem::take(&mut list.idle);
            list.left.extend(gone.iter().map(|(tag, _)| tag.clone()));
            gone
        };
        for (_, worker) in gone {
            worker.give(Order::Leave);
        }
    }

    /// Takes one [`close`](Self::close) back.
    pub fn open(&self) {
        let mut list = self.list.lock();
        list.closed = list.closed.saturating_sub(1);
    }

    /// How many are idle.
    pub fn count(&self) -> usize {
        self.list.lock().idle.len()
    }

    /// Those that have left, forgotten here, if there are at least so many.
    pub fn left(&self, least: usize) -> Vec<T> {
        let mut list = self.list.lock();
        if list.left.len() < least { Vec::new() } else { std::mem::take(&mut list.left) }
    }

    /// Remembers some again.
    pub fn remember(&self, mut tags: Vec<T>) {
        self.list.lock().left.append(&mut tags);
    }

    /// In a forked child, where none of them exists: forgets them, whatever state the list was in.
    #[cfg(not(raddle_loom))]
    pub fn after_fork_in_child(&self) {
        self.list.break_after_fork();
        let empty = List { idle: Vec::new(), left: Vec::new(), closed: 0 };
        std::mem::forget(std::mem::replace(&mut *self.list.lock(), empty));
    }
}

impl<T: Send, J: Send> Resource for Idle<T, J> {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}
