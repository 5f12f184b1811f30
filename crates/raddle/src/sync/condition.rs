//! A condition: a line of waiters, woken first come, first served, each on a word of its own.
//!
//! The lock that goes with it is the caller's business: enlist while holding it, release it, wait,
//! take it again, and then leave the [`Place`]. A notification is given to the waiter that is
//! first in line at that moment, and a waiter that gives up learns whether it was given one all the same.
//!
//! Those notified are woken one by one. All of them want the same lock next, so that to wake a hundred
//! at once is ninety-nine threads that run only to sleep again: the first is woken, and each that has
//! taken the lock wakes the next.

use crate::park::{Parking, Stop, generation};
use crate::primitive::{AtomicU32, Futex, Ordering, Spin, SpinGuard, const_unless_loom};
use crate::trace::{Claim, Kind, Resource, Waker};
use std::collections::VecDeque;
use std::sync::Arc;

const IN_LINE: u32 = 0;
const WOKEN: u32 = 1;

/// See the module.
#[derive(Debug, Default)]
pub struct Condition {
    line: Spin<Line>,
    longest: AtomicU32,
}

/// Those that wait, in the order of their coming.
#[derive(Debug)]
struct Line {
    waiters: VecDeque<Arc<Waiter>>,
    /// How many at the head of the line have been notified, but not woken yet.
    notified: usize,
    /// How many have been woken and have not left yet: each will wake the next.
    woken: usize,
    /// The process they all wait in: after a fork, the child's notifications are not for the parent's waiters.
    generation: u32,
}

impl Line {
    const_unless_loom! {
        fn new() -> Self {
            Self { waiters: VecDeque::new(), notified: 0, woken: 0, generation: 0 }
        }
    }

    /// Takes out the next one to wake.
    fn next(&mut self) -> Option<Arc<Waiter>> {
        if self.notified == 0 {
            return None;
        }
        self.notified -= 1;
        self.woken += 1;
        self.waiters.pop_front()
    }

    fn notify(&mut self, count: usize) -> usize {
        let count = count.min(self.waiters.len() - self.notified);
        self.notified += count;
        count
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
struct Waiter {
    word: Futex,
    /// 1 while its thread sleeps, 0 while it still spins.
    sleepers: AtomicU32,
}

impl Waiter {
    fn wake(&self) {
        // SeqCst: pairs with `Parking::park`, which counts the sleeper before the kernel compares.
        self.word.store(WOKEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.word.wake(1);
        }
    }
}

/// A place in a condition's line, to be given back by [`leave`](Condition::leave).
#[derive(Debug)]
#[must_use = "who does not leave lets those behind it sleep on"]
pub struct Place {
    waiter: Arc<Waiter>,
    generation: u32,
    /// Whether it has left the line by itself: then nobody was woken who would have to wake the next.
    withdrawn: bool,
}

impl Condition {
    const_unless_loom! {
        /// With nobody waiting.
        pub fn new() -> Self {
            Self { line: Spin::new(Line::new()), longest: AtomicU32::new(0) }
        }
    }

    /// The line, without those whom a fork left behind.
    #[inline]
    fn line(&self) -> SpinGuard<'_, Line> {
        let line = self.line.lock();
        if line.generation == generation() { line } else { self.without_the_parents(line) }
    }

    #[cold]
    fn without_the_parents<'a>(&'a self, mut line: SpinGuard<'a, Line>) -> SpinGuard<'a, Line> {
        let left_behind = std::mem::replace(&mut *line, Line { generation: generation(), ..Line::new() });
        drop(line);
        drop(left_behind);
        self.line.lock()
    }

    /// Takes a place at the end of the line. Called with the caller's lock held.
    pub fn enlist(&self) -> Place {
        let waiter = Arc::new(Waiter { word: Futex::new(IN_LINE), sleepers: AtomicU32::new(0) });
        let mut line = self.line();
        line.waiters.push_back(Arc::clone(&waiter));
        Place { waiter, generation: line.generation, withdrawn: false }
    }

    /// Blocks until the place is notified. Called without the caller's lock.
    ///
    /// # Errors
    /// [`Stop`]: the caller then [`withdraw`](Self::withdraw)s, which decides whether a notification
    /// came first after all.
    pub fn wait(&self, place: &Place, parking: &mut Parking<'_>) -> Result<(), Stop> {
        let waiter = &place.waiter;
        while waiter.word.load(Ordering::Acquire) != WOKEN {
            parking.park(&waiter.word, IN_LINE, Some(&waiter.sleepers))?;
        }
        Ok(())
    }

    /// Gives up a place in the line; false if it was notified before.
    ///
    /// Leaving the line and being notified exclude each other: the line's lock decides.
    pub fn withdraw(&self, place: &mut Place) -> bool {
        let mut line = self.line();
        if line.generation != place.generation {
            place.withdrawn = true;
            return true;
        }
        let Some(at) = line.waiters.iter().position(|other| Arc::ptr_eq(other, &place.waiter)) else { return false };
        place.withdrawn = true;
        let notified = at < line.notified;
        line.notified -= usize::from(notified);
        let removed = line.waiters.remove(at);
        drop(line);
        drop(removed);
        !notified
    }

    /// Ends a wait. Called with the lock taken again: who was woken wakes the next of those notified.
    pub fn leave(&self, place: Place) {
        if place.withdrawn {
            return;
        }
        let mut line = self.line();
        if line.generation != place.generation {
            return;
        }
        line.woken = line.woken.saturating_sub(1);
        let next = line.next();
        drop(line);
        if let Some(next) = next {
            next.wake();
        }
    }

    /// Notifies up to `count` waiters, the longest waiting first; says how many.
    pub fn notify(&self, count: usize) -> usize {
        let mut line = self.line();
        let notified = line.notify(count);
        let first = if line.woken == 0 { line.next() } else { None };
        drop(line);
        if let Some(first) = first {
            first.wake();
        }
        notified
    }

    /// How many wait, without those notified.
    pub fn waiters(&self) -> usize {
        let line = self.line();
        line.waiters.len() - line.notified
    }

    /// The longest wait so far, in seconds.
    pub fn longest_wait(&self) -> f32 {
        f32::from_bits(self.longest.load(Ordering::Relaxed))
    }

    /// Forgets all waiters, in a forked child.
    pub fn reset(&self) {
        let line = std::mem::replace(&mut *self.line.lock(), Line { generation: generation(), ..Line::new() });
        drop(line);
    }
}

impl Resource for Condition {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }

    /// Who has been notified waits, in truth, for the lock and for whoever holds it.
    #[cold]
    fn hurry(&self) {
        loop {
            let next = self.line().next();
            let Some(next) = next else { return };
            next.wake();
        }
    }

    fn waited(&self, nanoseconds: u64) {
        super::record_longest(&self.longest, nanoseconds);
    }
}
