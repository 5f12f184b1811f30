//! Queues of many producers and many consumers, bounded or not, that can be shut down.
//!
//! A short lock around the items, and three event counts: room, items, and "all done". Whoever puts
//! or takes tells nobody while nobody waits. Waiting and looking are apart, so that a caller can look
//! attached to a runtime and wait detached from it: `try_x`, then `enroll_x`, `wait_x`, `retire_x`, `try_x`.

pub mod heap;
mod users;

pub use heap::{PopPlan, PushPlan, Step, VersionedHeap};

use crate::park::{Alone, Deadline, Host, Key, Parking, Signal, Stop};
use crate::primitive::{AtomicU32, AtomicUsize, Ordering, Spin, const_unless_loom, thread_token};
use crate::sync::record_longest;
use crate::trace::{Claim, Kind, Resource, Waker};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;
use users::Users;

/// Which item leaves first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The one that came first.
    Fifo,
    /// The one that came last.
    Lifo,
}

/// The item that could not be put, and why.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PushError<T> {
    /// No room (in time).
    Full(T),
    /// The queue is shut down.
    Closed(T),
    /// The queue is sealed: its items have gone elsewhere.
    Sealed(T),
    /// The host ended the wait.
    Interrupted(T),
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushError::Full(_) => "Full(..)",
            PushError::Closed(_) => "Closed(..)",
            PushError::Sealed(_) => "Sealed(..)",
            PushError::Interrupted(_) => "Interrupted(..)",
        })
    }
}

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushError::Full(_) => "the queue is full",
            PushError::Closed(_) => "the queue is shut down",
            PushError::Sealed(_) => "the queue is sealed",
            PushError::Interrupted(_) => "the wait for room was interrupted",
        })
    }
}

impl<T> std::error::Error for PushError<T> {}

/// Why there is no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PopError {
    /// There is none (in time).
    Empty,
    /// The queue is shut down and empty.
    Closed,
    /// The queue is sealed: its items have gone elsewhere.
    Sealed,
    /// The host ended the wait.
    Interrupted,
}

impl fmt::Display for PopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PopError::Empty => "the queue is empty",
            PopError::Closed => "the queue is shut down",
            PopError::Sealed => "the queue is sealed",
            PopError::Interrupted => "the wait for an item was interrupted",
        })
    }
}

impl std::error::Error for PopError {}

/// What items are kept in: decides their order.
#[derive(Debug)]
pub enum Store<T> {
    /// First come, first served, or the other way round.
    Line(VecDeque<T>, Order),
    /// Smallest first, by a comparison that may run foreign code; see [`VersionedHeap`].
    Heap(VersionedHeap<T>),
}

impl<T> Store<T> {
    /// How many items are in it.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Store::Line(line, _) => line.len(),
            Store::Heap(heap) => heap.len(),
        }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether a queue takes and gives items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Gives what it has, takes nothing.
    Closed,
    /// Does neither.
    Sealed,
}

/// What the queue's lock guards.
#[derive(Debug)]
struct Inner<T> {
    store: Store<T>,
    phase: Phase,
    /// Waiters enrolled and not retired: while there are none, nobody is told.
    getters: usize,
    putters: usize,
    /// Items put and not yet reported done.
    unfinished: usize,
    joiners: usize,
}

impl<T> Inner<T> {
    /// Whether an item may be put now.
    #[inline]
    fn admits(&self, capacity: usize) -> Result<(), PushError<()>> {
        match self.phase {
            Phase::Open if capacity > 0 && self.store.len() >= capacity => Err(PushError::Full(())),
            Phase::Open => Ok(()),
            Phase::Closed => Err(PushError::Closed(())),
            Phase::Sealed => Err(PushError::Sealed(())),
        }
    }

    /// What it means that there is no item.
    fn emptiness(&self) -> PopError {
        match self.phase {
            Phase::Open => PopError::Empty,
            Phase::Closed => PopError::Closed,
            Phase::Sealed => PopError::Sealed,
        }
    }
}

impl PushError<()> {
    /// The same reason, with the item.
    pub fn with<T>(self, item: T) -> PushError<T> {
        match self {
            PushError::Full(()) => PushError::Full(item),
            PushError::Closed(()) => PushError::Closed(item),
            PushError::Sealed(()) => PushError::Sealed(item),
            PushError::Interrupted(()) => PushError::Interrupted(item),
        }
    }
}

/// See the module.
///
/// ```
/// use raddle::queue::Queue;
/// let queue = Queue::bounded(2);
/// std::thread::scope(|scope| {
///     scope.spawn(|| (0..10).for_each(|i| queue.push(i).unwrap()));
///     assert_eq!((0..10).map(|_| queue.pop().unwrap()).sum::<i32>(), 45);
/// });
/// ```
#[derive(Debug)]
pub struct Queue<T> {
    inner: Spin<Inner<T>>,
    /// Most items at a time; 0: no limit.
    capacity: AtomicUsize,
    items: Signal,
    room: Signal,
    done: Signal,
    producers: Users,
    consumers: Users,
    longest: AtomicU32,
}

impl<T: Send> Queue<T> {
    const_unless_loom! {
        /// A queue over this store; `capacity` 0 is no limit.
        pub fn with_store(store: Store<T>, capacity: usize) -> Self {
            Self {
                inner: Spin::new(Inner { store, phase: Phase::Open, getters: 0, putters: 0, unfinished: 0, joiners: 0 }),
                capacity: AtomicUsize::new(capacity),
                items: Signal::new(),
                room: Signal::new(),
                done: Signal::new(),
                producers: Users::new(),
                consumers: Users::new(),
                longest: AtomicU32::new(0),
            }
        }
    }

    /// First come, first served, without limit.
    pub fn unbounded() -> Self {
        Self::with_store(Store::Line(VecDeque::new(), Order::Fifo), 0)
    }

    /// First come, first served, with room for `capacity` items; 0 is no limit.
    pub fn bounded(capacity: usize) -> Self {
        Self::with_store(Store::Line(VecDeque::new(), Order::Fifo), capacity)
    }

    /// Last come, first served; `capacity` 0 is no limit.
    pub fn lifo(capacity: usize) -> Self {
        Self::with_store(Store::Line(VecDeque::new(), Order::Lifo), capacity)
    }

    /// How many items are in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.inner.lock().store.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most items at a time; 0: no limit.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Changes the limit; items beyond it stay. Those who wait for room look again.
    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
        self.room.notify_all();
    }

    /// Puts an item if there is room. Never blocks.
    ///
    /// # Errors
    /// The item, if the queue is full or shut down.
    ///
    /// # Panics
    /// If the store is a heap, which needs comparisons: see [`Queue::step_push`].
    #[inline]
    pub fn try_push(&self, item: T) -> Result<(), PushError<T>> {
        self.try_push_as(thread_token(), item)
    }

    /// [`try_push`](Self::try_push) for a caller that knows its token.
    ///
    /// # Errors
    /// The item, if the queue is full or shut down.
    #[inline(always)]
    pub fn try_push_as(&self, me: usize, item: T) -> Result<(), PushError<T>> {
        let mut inner = self.inner.lock();
        if let Err(refused) = inner.admits(self.capacity()) {
            return Err(refused.with(item));
        }
        match &mut inner.store {
            Store::Line(line, _) => line.push_back(item),
            Store::Heap(_) => unreachable!("a heap is pushed to in steps"),
        }
        inner.unfinished += 1;
        let waited_for = inner.getters > 0;
        drop(inner);
        self.note(&self.producers, me);
        if waited_for {
            self.items.notify_one();
        }
        Ok(())
    }

    /// Takes an item if there is one. Never blocks.
    ///
    /// # Errors
    /// [`PopError::Empty`], or [`PopError::Closed`] if none will come.
    #[inline]
    pub fn try_pop(&self) -> Result<T, PopError> {
        self.try_pop_as(thread_token())
    }

    /// [`try_pop`](Self::try_pop) for a caller that knows its token.
    ///
    /// # Errors
    /// As [`try_pop`](Self::try_pop).
    #[inline(always)]
    pub fn try_pop_as(&self, me: usize) -> Result<T, PopError> {
        let mut inner = self.inner.lock();
        let item = match &mut inner.store {
            Store::Line(line, Order::Fifo) => line.pop_front(),
            Store::Line(line, Order::Lifo) => line.pop_back(),
            Store::Heap(_) => unreachable!("a heap is popped from in steps"),
        };
        let Some(item) = item else {
            return Err(inner.emptiness());
        };
        let waited_for = inner.putters > 0;
        drop(inner);
        self.note(&self.consumers, me);
        if waited_for {
            self.room.notify_one();
        }
        Ok(item)
    }

    /// Notes a user of one side. Only a bounded queue's users are ever asked for.
    #[inline]
    fn note(&self, users: &Users, me: usize) {
        if self.capacity() > 0 {
            users.note(me);
        }
    }

    /// Takes up to `most` items that are there, in order. Never blocks.
    ///
    /// # Errors
    /// As [`try_pop`](Self::try_pop) if there is none.
    pub fn try_pop_many(&self, most: usize) -> Result<Vec<T>, PopError> {
        let mut inner = self.inner.lock();
        let count = most.min(inner.store.len());
        let taken: Vec<T> = match &mut inner.store {
            Store::Line(line, Order::Fifo) => line.drain(..count).collect(),
            Store::Line(line, Order::Lifo) => {
                let at = line.len() - count;
                line.drain(at..).rev().collect()
            }
            Store::Heap(_) => unreachable!("a heap is popped from in steps"),
        };
        if taken.is_empty() && most > 0 {
            return Err(inner.emptiness());
        }
        let waited_for = inner.putters > 0;
        drop(inner);
        self.consumers.note(thread_token());
        if waited_for {
            self.room.notify(u32::try_from(taken.len()).unwrap_or(u32::MAX));
        }
        Ok(taken)
    }

    /// One step of putting an item into a heap store: a comparison for the caller to make without any lock,
    /// or done. See [`VersionedHeap::step_push`].
    ///
    /// # Errors
    /// The queue does not take the item now; the plan still has it.
    pub fn step_push(&self, me: usize, plan: &mut PushPlan<T>) -> Result<Step<T, ()>, PushError<()>>
    where
        T: Clone,
    {
        let mut inner = self.inner.lock();
        inner.admits(self.capacity())?;
        let Store::Heap(heap) = &mut inner.store else { unreachable!("only a heap is pushed to in steps") };
        let step = heap.step_push(plan);
        if matches!(step, Step::Compare(..)) {
            return Ok(step);
        }
        inner.unfinished += 1;
        let waited_for = inner.getters > 0;
        drop(inner);
        self.producers.note(me);
        if waited_for {
            self.items.notify_one();
        }
        Ok(step)
    }

    /// One step of taking the smallest item out of a heap store. See [`VersionedHeap::step_pop`].
    ///
    /// # Errors
    /// There is no item.
    pub fn step_pop(&self, me: usize, plan: &mut PopPlan) -> Result<Step<T, T>, PopError>
    where
        T: Clone,
    {
        let mut inner = self.inner.lock();
        if inner.store.is_empty() {
            return Err(inner.emptiness());
        }
        let Store::Heap(heap) = &mut inner.store else { unreachable!("only a heap is popped from in steps") };
        let item = match heap.step_pop(plan) {
            Step::Compare(a, b) => return Ok(Step::Compare(a, b)),
            Step::Done(Some(item)) => item,
            Step::Done(None) => return Err(inner.emptiness()),
        };
        let waited_for = inner.putters > 0;
        drop(inner);
        self.consumers.note(me);
        if waited_for {
            self.room.notify_one();
        }
        Ok(Step::Done(item))
    }

    /// Announces a wait for an item; what it gives is for [`wait_item`](Self::wait_item).
    pub fn enroll_getter(&self) -> Key {
        self.inner.lock().getters += 1;
        self.items.key()
    }

    /// Takes the announcement back, once the wait is over.
    ///
    /// If the wait ended without an item and there is one, somebody else is woken for it.
    pub fn retire_getter(&self, served: bool) {
        let mut inner = self.inner.lock();
        inner.getters = inner.getters.saturating_sub(1);
        let pass_on = !served && inner.getters > 0 && !inner.store.is_empty();
        drop(inner);
        if pass_on {
            self.items.notify_one();
        }
    }

    /// Blocks until an item may have come after `key`.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_item(&self, key: Key, parking: &mut Parking<'_>) -> Result<(), Stop> {
        self.items.wait(key, parking)
    }

    /// The next key, before another look.
    pub fn item_key(&self) -> Key {
        self.items.key()
    }

    /// Announces a wait for room.
    pub fn enroll_putter(&self) -> Key {
        self.inner.lock().putters += 1;
        self.room.key()
    }

    /// Takes the announcement back; passes room on that this thread did not use.
    pub fn retire_putter(&self, served: bool) {
        let mut inner = self.inner.lock();
        inner.putters = inner.putters.saturating_sub(1);
        let capacity = self.capacity();
        let pass_on = !served && inner.putters > 0 && (capacity == 0 || inner.store.len() < capacity);
        drop(inner);
        if pass_on {
            self.room.notify_one();
        }
    }

    /// Blocks until there may be room after `key`.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_room(&self, key: Key, parking: &mut Parking<'_>) -> Result<(), Stop> {
        self.room.wait(key, parking)
    }

    /// The next key, before another look.
    pub fn room_key(&self) -> Key {
        self.room.key()
    }

    /// Puts an item, blocking while there is no room. Signals do not end the wait.
    ///
    /// # Errors
    /// The item, if the queue is shut down.
    pub fn push(&self, item: T) -> Result<(), PushError<T>> {
        self.push_until(item, Deadline::NEVER, &Alone)
    }

    /// Puts an item, blocking for at most this long.
    ///
    /// # Errors
    /// The item, if there was no room in time or the queue is shut down.
    pub fn push_for(&self, item: T, limit: Duration) -> Result<(), PushError<T>> {
        self.push_until(item, Deadline::after(limit), &Alone)
    }

    /// Puts an item, blocking until the deadline or until `host` ends the wait.
    ///
    /// # Errors
    /// The item and the reason.
    pub fn push_until(&self, item: T, deadline: Deadline, host: &dyn Host) -> Result<(), PushError<T>> {
        let mut item = match self.try_push(item) {
            Err(PushError::Full(item)) => item,
            other => return other,
        };
        let mut parking = Parking::new(Kind::QueuePut, self, 0, deadline, host);
        let mut key = self.enroll_putter();
        loop {
            item = match self.try_push(item) {
                Err(PushError::Full(item)) => item,
                other => {
                    self.retire_putter(other.is_ok());
                    return other;
                }
            };
            if let Err(stop) = self.wait_room(key, &mut parking) {
                let last = self.try_push(item);
                self.retire_putter(last.is_ok());
                return match (last, stop) {
                    (Err(PushError::Full(item)), Stop::Interrupted) => Err(PushError::Interrupted(item)),
                    (other, _) => other,
                };
            }
            key = self.room_key();
        }
    }

    /// Takes an item, blocking while there is none. Signals do not end the wait.
    ///
    /// # Errors
    /// [`PopError::Closed`] if the queue is shut down and empty.
    pub fn pop(&self) -> Result<T, PopError> {
        self.pop_until(Deadline::NEVER, &Alone)
    }

    /// Takes an item, blocking for at most this long.
    ///
    /// # Errors
    /// [`PopError`].
    pub fn pop_for(&self, limit: Duration) -> Result<T, PopError> {
        self.pop_until(Deadline::after(limit), &Alone)
    }

    /// Takes an item, blocking until the deadline or until `host` ends the wait.
    ///
    /// # Errors
    /// [`PopError`].
    pub fn pop_until(&self, deadline: Deadline, host: &dyn Host) -> Result<T, PopError> {
        match self.try_pop() {
            Err(PopError::Empty) => {}
            other => return other,
        }
        let mut parking = Parking::new(Kind::QueueGet, self, 0, deadline, host);
        let mut key = self.enroll_getter();
        loop {
            match self.try_pop() {
                Err(PopError::Empty) => {}
                other => {
                    self.retire_getter(other.is_ok());
                    return other;
                }
            }
            if let Err(stop) = self.wait_item(key, &mut parking) {
                let last = self.try_pop();
                self.retire_getter(last.is_ok());
                return match (last, stop) {
                    (Err(PopError::Empty), Stop::Interrupted) => Err(PopError::Interrupted),
                    (other, _) => other,
                };
            }
            key = self.item_key();
        }
    }

    /// Items put whose work is not reported done.
    pub fn unfinished(&self) -> usize {
        self.inner.lock().unfinished
    }

    /// Sets that number, for a host that lets its users.
    pub fn set_unfinished(&self, unfinished: usize) {
        self.inner.lock().unfinished = unfinished;
        self.done.notify_all();
    }

    /// One item's work is done; false if that is once too often.
    pub fn task_done(&self) -> bool {
        let mut inner = self.inner.lock();
        if inner.unfinished == 0 {
            return false;
        }
        inner.unfinished -= 1;
        let waited_for = inner.unfinished == 0 && inner.joiners > 0;
        drop(inner);
        if waited_for {
            self.done.notify_all();
        }
        true
    }

    /// Announces a wait for the last `task_done`; `None` if there is nothing to wait for (any more).
    pub fn enroll_joiner(&self) -> Option<Key> {
        let mut inner = self.inner.lock();
        if inner.unfinished == 0 || inner.phase == Phase::Sealed {
            return None;
        }
        inner.joiners += 1;
        drop(inner);
        Some(self.done.key())
    }

    /// Takes the announcement back.
    pub fn retire_joiner(&self) {
        let mut inner = self.inner.lock();
        inner.joiners = inner.joiners.saturating_sub(1);
    }

    /// Blocks until all may be done after `key`.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_done(&self, key: Key, parking: &mut Parking<'_>) -> Result<(), Stop> {
        self.done.wait(key, parking)
    }

    /// The next key, before another look.
    pub fn done_key(&self) -> Key {
        self.done.key()
    }

    /// Whether it is shut down.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.inner.lock().phase == Phase::Closed
    }

    /// Shuts it down: nothing can be put any more, and whoever waits is told. What is in it can still be
    /// taken, unless `immediate`: then it is given back here, and counts as done.
    pub fn close(&self, immediate: bool) -> Vec<T> {
        let mut inner = self.inner.lock();
        if inner.phase == Phase::Sealed {
            return Vec::new();
        }
        inner.phase = Phase::Closed;
        let dropped: Vec<T> = if immediate {
            match &mut inner.store {
                Store::Line(line, _) => line.drain(..).collect(),
                Store::Heap(heap) => heap.take_all(),
            }
        } else {
            Vec::new()
        };
        inner.unfinished = inner.unfinished.saturating_sub(dropped.len());
        drop(inner);
        self.items.notify_all();
        self.room.notify_all();
        self.done.notify_all();
        dropped
    }

    /// Hands over everything, in storage order, for good: from now on it neither takes nor gives items, and
    /// whoever waits is told. Also how many are unfinished, and whether it was shut down.
    pub fn seal(&self) -> (Vec<T>, usize, bool) {
        let mut inner = self.inner.lock();
        let closed = inner.phase == Phase::Closed;
        inner.phase = Phase::Sealed;
        let items = match &mut inner.store {
            Store::Line(line, _) => line.drain(..).collect(),
            Store::Heap(heap) => heap.take_all(),
        };
        let unfinished = inner.unfinished;
        drop(inner);
        self.items.notify_all();
        self.room.notify_all();
        self.done.notify_all();
        (items, unfinished, closed)
    }

    /// Whether it is sealed.
    #[inline]
    pub fn is_sealed(&self) -> bool {
        self.inner.lock().phase == Phase::Sealed
    }

    /// Whether an item could be put now: an error says why not.
    ///
    /// # Errors
    /// The reason.
    pub fn check_room(&self) -> Result<(), PushError<()>> {
        self.inner.lock().admits(self.capacity())
    }

    /// Calls `look` for every item, under the lock: nothing foreign may run in it.
    pub fn for_each(&self, mut look: impl FnMut(&T)) {
        match &self.inner.lock().store {
            Store::Line(line, _) => line.iter().for_each(&mut look),
            Store::Heap(heap) => heap.iter().for_each(&mut look),
        }
    }

    /// How many wait for an item, and how many for room.
    pub fn waiters(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.getters, inner.putters)
    }

    /// The longest wait so far, in seconds.
    pub fn longest_wait(&self) -> f32 {
        f32::from_bits(self.longest.load(Ordering::Relaxed))
    }
}

impl<T: Send> Resource for Queue<T> {
    fn wakers(&self, kind: Kind, out: &mut Vec<Waker>) -> Claim {
        match kind {
            Kind::QueuePut => self.consumers.wakers(out),
            Kind::QueueGet if self.capacity() > 0 => self.producers.wakers(out),
            _ => Claim::Unknown,
        }
    }

    fn waited(&self, nanoseconds: u64) {
        record_longest(&self.longest, nanoseconds);
    }
}
