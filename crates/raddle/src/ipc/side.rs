//! One side of a channel, in shared memory: a lock that survives its owner, an event, and a committed state.
//!
//! `README.md` beside this file states the protocol and argues that a process may be killed between any two
//! instructions of it. In short:
//!
//! - The **lock** word holds the number of the process that has it. Whoever waits for it asks now and then whether
//!   that process lives, and takes the lock over from a dead one.
//! - The **state** is a few numbers in two copies. The holder of the lock writes the copy that is not in force, and one
//!   store of `commit` puts it in force. What a dead holder has not committed has never happened.
//! - The **event** wakes those who wait for a change of the state. It is announced *before* the commit, so that no
//!   death can fall between a change and its wake-up; who is woken too early waits for the lock.
//!
//! Nothing read from here is trusted: numbers are checked by the channel, and a wrong lock word can delay, not break.

#[cfg(not(raddle_loom))]
use super::process::Identity;
use crate::park::{Deadline, Outside, Parking, Stop, now, wake_outside};
use crate::primitive::{AtomicU32, AtomicU64, Futex, Ordering, fence};

/// How many numbers a state has.
pub const FIELDS: usize = 6;

/// A state: what the numbers mean is the channel's business.
pub type Fields = [u64; FIELDS];

/// Bit of the lock word: somebody may sleep on it. Process numbers are far below.
const CONTENDED: u32 = 1 << 31;

/// Bit of the event word: somebody may sleep on it.
pub const SLEEPERS: u32 = 1;
/// Bit of the event word: the descriptor has to be made readable.
pub const DESCRIPTOR: u32 = 2;
const FLAGS: u32 = SLEEPERS | DESCRIPTOR;
const NEXT: u32 = 4;

/// Tries before a lock counts as busy: it is held for well under a microsecond if its owner runs.
#[cfg(not(raddle_loom))]
const TRIES: u32 = 60;
#[cfg(raddle_loom)]
const TRIES: u32 = 1;

/// After how long a waiter for the lock first asks whether its owner lives, and the longest time between two
/// questions, in nanoseconds. An owner that runs is done long before the first.
const FIRST_QUESTION: u64 = 2_000_000;
const LAST_QUESTION: u64 = 100_000_000;

/// How often a state that keeps changing is read again before it counts as damaged.
const READS: u32 = 100_000;

/// See the module.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Side {
    lock: Futex,
    event: Futex,
    commit: AtomicU32,
    owner: OwnerRecord,
    states: [[AtomicU64; FIELDS]; 2],
}

/// When the owner of a lock was started. Written after the lock is taken: [`Identity`] of a process that died before
/// that is its number alone.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct OwnerRecord {
    started: AtomicU64,
    /// The number that `started` belongs to.
    started_of: AtomicU64,
}

impl Default for OwnerRecord {
    fn default() -> Self {
        Self { started: AtomicU64::new(0), started_of: AtomicU64::new(0) }
    }
}

impl OwnerRecord {
    /// The process with this number, which was started then, has the lock now.
    #[inline]
    pub(crate) fn set(&self, pid: u32, started: u64) {
        let of = u64::from(pid);
        if self.started_of.load(Ordering::Relaxed) != of || self.started.load(Ordering::Relaxed) != started {
            // In this order: a number with the moment of another process would make a living owner look dead.
            self.started_of.store(0, Ordering::Release);
            self.started.store(started, Ordering::Release);
            self.started_of.store(of, Ordering::Release);
        }
    }

    /// When the process with this number was started; 0 if that is not known.
    #[cfg(not(raddle_loom))]
    pub(crate) fn started_of(&self, pid: u32) -> u64 {
        let known = self.started_of.load(Ordering::Acquire) == u64::from(pid);
        if known { self.started.load(Ordering::Acquire) } else { 0 }
    }

    /// Whether the process with this number, which has the lock, has not ended.
    pub(crate) fn lives(&self, pid: u32, alive: Alive<'_>) -> bool {
        let of = self.started_of.load(Ordering::Acquire);
        let started = self.started.load(Ordering::Acquire);
        let known = of == u64::from(pid) && self.started_of.load(Ordering::Relaxed) == of;
        alive(pid, if known { started } else { 0 })
    }
}

/// Holds a side's lock; lets go when dropped.
#[derive(Debug)]
pub struct Holding<'a> {
    side: &'a Side,
    me: u32,
}

/// How another process is found to have ended: [`Identity::is_alive`], or a model's table.
pub type Alive<'a> = &'a dyn Fn(u32, u64) -> bool;

impl Default for Side {
    fn default() -> Self {
        Self::new()
    }
}

impl Side {
    /// A side that nobody uses, with a state of zeros and its descriptor asked for.
    pub fn new() -> Self {
        Self {
            lock: Futex::new(0),
            event: Futex::new(DESCRIPTOR),
            commit: AtomicU32::new(0),
            owner: OwnerRecord::default(),
            states: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
        }
    }

    /// Takes the lock for this process, unless it is busy.
    #[inline]
    pub fn try_hold(&self, pid: u32, started: u64) -> Option<Holding<'_>> {
        for _ in 0..TRIES {
            // Acquire: pairs with the release of the lock, so that the last holder's writes are seen.
            match self.lock.compare_exchange(0, pid, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Some(self.held(pid, started)),
                Err(_) => crate::primitive::spin_loop(),
            }
        }
        None
    }

    #[inline]
    fn held(&self, pid: u32, started: u64) -> Holding<'_> {
        self.owner.set(pid, started);
        Holding { side: self, me: pid }
    }

    /// Whether somebody holds the lock, or died with it.
    #[inline]
    pub fn is_held(&self) -> bool {
        // SeqCst: the second half of the waiter's part, see "Waiting for a change" in the README.
        self.lock.load(Ordering::SeqCst) != 0
    }

    /// Waits until the lock is free, at least for a moment; takes it from a dead owner and mends what it left.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_free(
        &self,
        pid: u32,
        started: u64,
        parking: &mut Parking<'_>,
        alive: Alive<'_>,
        ring: &dyn Fn(),
    ) -> Result<(), Stop> {
        if parking.spin(|| !self.is_held()) {
            return Ok(());
        }
        let mut question = FIRST_QUESTION;
        // A model has no clock: it asks at once.
        let mut ask_at = if cfg!(raddle_loom) { 0 } else { now() + question };
        loop {
            let word = self.lock.load(Ordering::Acquire);
            if word == 0 {
                return Ok(());
            }
            if now() >= ask_at {
                question = (question * 2).min(LAST_QUESTION);
                ask_at = if cfg!(raddle_loom) { 0 } else { now() + question };
                if !self.owner.lives(word & !CONTENDED, alive) {
                    self.take_over(word, pid, started, ring);
                    continue;
                }
            }
            let contended = word | CONTENDED;
            if word != contended
                && self.lock.compare_exchange(word, contended, Ordering::Relaxed, Ordering::Relaxed).is_err()
            {
                continue;
            }
            parking.park_outside(Outside::Word(&self.lock, contended), Deadline::at(ask_at))?;
        }
    }

    /// Takes the lock from an owner that has ended, makes up for wake-ups it may have owed, and frees the lock.
    #[cold]
    fn take_over(&self, word: u32, pid: u32, started: u64, ring: &dyn Fn()) {
        // Others may sleep on the word, so it is taken as contended and freed with a wake-up.
        if self.lock.compare_exchange(word, pid | CONTENDED, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return;
        }
        let holding = self.held(pid, started);
        holding.wake(FLAGS, ring);
    }

    /// The committed state, whole.
    ///
    /// # Errors
    /// `None` if it never holds still, as only a damaged one does.
    #[inline]
    pub fn state(&self) -> Option<(u32, Fields)> {
        for tries in 0..READS {
            // Acquire: pairs with the release in `commit`.
            let before = self.commit.load(Ordering::Acquire);
            let fields = self.copy(before);
            // The fence keeps the numbers' loads before the second load of `commit`; it pairs with the one in
            // `Holding::commit`: a number of a later state comes with a later `commit`.
            fence(Ordering::Acquire);
            if self.commit.load(Ordering::Relaxed) == before {
                return Some((before, fields));
            }
            if tries > 100 {
                crate::primitive::yield_now();
            }
        }
        None
    }

    #[inline]
    fn copy(&self, version: u32) -> Fields {
        let state = &self.states[version as usize & 1];
        std::array::from_fn(|at| state[at].load(Ordering::Relaxed))
    }

    /// Which state is in force: a hint that something has changed.
    #[inline]
    pub fn version(&self) -> u32 {
        self.commit.load(Ordering::Acquire)
    }

    /// Asks to be told of the next change, in the way of the flag. To be followed by [`is_held`](Self::is_held), a look
    /// at the state, and only then a sleep on the word, while it has the value given back.
    pub fn enlist(&self, flag: u32) -> u32 {
        // SeqCst: the first half of the waiter's part, see "Waiting for a change" in the README.
        self.event.fetch_or(flag, Ordering::SeqCst) | flag
    }

    /// Whether the descriptor is to be made readable at the next change.
    pub fn descriptor_is_asked_for(&self) -> bool {
        self.event.load(Ordering::SeqCst) & DESCRIPTOR != 0
    }

    /// The model has no clock: here the time comes at which those who wait for the lock ask for its owner.
    #[cfg(raddle_loom)]
    pub fn time_passes(&self) {
        wake_outside(&self.lock);
    }

    /// The word to sleep on, after [`enlist`](Self::enlist).
    pub fn event(&self) -> &Futex {
        &self.event
    }
}

impl Holding<'_> {
    /// The state as it is. Nobody else changes it meanwhile.
    #[inline]
    pub fn state(&self) -> Fields {
        self.side.copy(self.side.commit.load(Ordering::Relaxed))
    }

    /// Wakes those who wait for a change, before it is [committed](Self::commit). `ring` makes the descriptor readable.
    #[inline]
    pub fn announce(&self, ring: &dyn Fn()) {
        // SeqCst, after taking the lock, which is SeqCst too: either this sees the waiter's flag, or the waiter sees
        // the lock held.
        if self.side.event.load(Ordering::SeqCst) & FLAGS != 0 {
            self.wake(0, ring);
        }
    }

    /// Wakes those whose flags are up, and those of `more`.
    #[cold]
    fn wake(&self, more: u32, ring: &dyn Fn()) {
        let event = &self.side.event;
        let flags = self.take_flags() | more;
        // All of them: one that is woken may be killed before it looks.
        if flags & SLEEPERS != 0 {
            wake_outside(event);
        }
        if flags & DESCRIPTOR != 0 {
            ring();
        }
    }

    /// The flags, which are down afterwards. Those who were about to sleep find another word.
    fn take_flags(&self) -> u32 {
        let event = &self.side.event;
        let mut before = event.load(Ordering::SeqCst);
        loop {
            let after = (before & !FLAGS).wrapping_add(NEXT);
            match event.compare_exchange(before, after, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return before & FLAGS,
                Err(now) => before = now,
            }
        }
    }

    /// Ends like a process that is killed in the middle of [`announce`](Self::announce). For tests.
    pub fn die_announcing(self) {
        self.take_flags();
        self.die();
    }

    /// Puts a new state in force, in one step.
    #[inline]
    pub fn commit(&self, fields: &Fields) {
        let side = self.side;
        let version = side.commit.load(Ordering::Relaxed);
        // The fence pairs with the one in `Side::state`.
        fence(Ordering::Release);
        for (place, field) in side.states[version.wrapping_add(1) as usize & 1].iter().zip(fields) {
            place.store(*field, Ordering::Relaxed);
        }
        // Release: pairs with the acquire in `Side::state`; what the state speaks of was written before.
        side.commit.store(version.wrapping_add(1), Ordering::Release);
    }

    /// Ends like a killed process: the lock stays held. For tests.
    pub fn die(self) {
        std::mem::forget(self);
    }
}

impl Drop for Holding<'_> {
    #[inline]
    fn drop(&mut self) {
        let lock = &self.side.lock;
        // Release: pairs with the next holder's acquire.
        if lock.compare_exchange(self.me, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            return;
        }
        // Contended: free it and wake those who sleep on it. Any other word is not ours to touch.
        if lock.compare_exchange(self.me | CONTENDED, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            wake_outside(lock);
        }
    }
}

/// [`Alive`] of the operating system.
#[cfg(not(raddle_loom))]
pub(crate) fn alive(pid: u32, started: u64) -> bool {
    Identity { pid, started }.is_alive()
}
