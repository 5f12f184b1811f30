//! Who waits for a notification, in shared memory: one seat for each waiter of any condition of an arena.
//!
//! | word | the waiter |
//! |---|---|
//! | `EMPTY` | is not there, or not yet, or not any more |
//! | `WAITING` | waits |
//! | `NOTIFIED` | has been notified, by the one step from `WAITING` |
//! | `SEEN` | has seen that |
//!
//! A waiter takes a seat by writing its process's number to one that has none, and leaves it in the reverse order. The
//! step from `WAITING` to `NOTIFIED`, or to `EMPTY` by the waiter itself when it gives up, happens once: so each
//! notification is for one waiter, and a waiter that was notified knows it.
//!
//! **Deaths.** A notification is not to go to a process that was killed. Of a sleeper that the kernel has woken it is
//! known that it lived, and of one that spins when it says within microseconds that it has seen the notification; of any
//! other it is asked, and a dead one's seat is cleared and the notification goes to the next. One that is killed after it was notified has had its notification. A notifier that is killed between its
//! step and the wake-up leaves a sleeper whose word has changed: every sleep ends by itself after a while and looks.
//! Seats of the dead are cleared when none is free.
//!
//! Numbers that another process has damaged cost notifications; nothing here is used as an index or length.

use super::semlock::Taker;
use super::side::{Alive, OwnerRecord};
use crate::park::{Deadline, Outside, Parking, Stop, now, wake_outside_one};
use crate::primitive::{AtomicU32, Futex, Ordering};

/// How many can wait at once.
#[cfg(not(raddle_loom))]
pub const SEATS: usize = 2048;
/// The model's processes are few.
#[cfg(raddle_loom)]
pub const SEATS: usize = 2;

const EMPTY: u32 = 0;
const WAITING: u32 = 1;
const NOTIFIED: u32 = 2;
const SEEN: u32 = 3;

/// For how many yields of the core a notifier waits for one that spins.
#[cfg(not(raddle_loom))]
const ROUNDS: u32 = 16;

/// How long a waiter sleeps before it looks whether it was notified by a process that was killed before it woke it.
const LOOK: u64 = 500_000_000;

#[derive(Debug)]
#[repr(C)]
struct Seat {
    word: Futex,
    /// The waiter's process; 0: the seat is free.
    pid: AtomicU32,
    owner: OwnerRecord,
    /// Of which condition.
    condition: AtomicU32,
    /// The order in which they came.
    ticket: AtomicU32,
}

impl Default for Seat {
    fn default() -> Self {
        Self {
            word: Futex::new(EMPTY),
            pid: AtomicU32::new(0),
            owner: OwnerRecord::default(),
            condition: AtomicU32::new(0),
            ticket: AtomicU32::new(0),
        }
    }
}

impl Seat {
    /// Whether a waiter that is not asleep sees its notification soon, and so lives.
    #[cfg(not(raddle_loom))]
    fn is_seen_soon(&self) -> bool {
        let seen = || self.word.load(Ordering::Relaxed) != NOTIFIED;
        crate::park::yield_until(seen, ROUNDS);
        seen()
    }

    /// The model does not wait: it asks.
    #[cfg(raddle_loom)]
    fn is_seen_soon(&self) -> bool {
        false
    }

    /// Clears the seat of a process that has ended. Whether it did so.
    fn clear(&self, pid: u32, alive: Alive<'_>) -> bool {
        if pid == 0 || self.owner.lives(pid, alive) {
            return false;
        }
        self.word.store(EMPTY, Ordering::SeqCst);
        self.pid.compare_exchange(pid, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }
}

/// See the module.
#[derive(Debug)]
#[cfg_attr(not(raddle_loom), repr(C, align(4096)))]
pub struct Seats {
    /// The next waiter's ticket.
    ticket: AtomicU32,
    /// No seat from this on has ever been taken.
    used: AtomicU32,
    seats: [Seat; SEATS],
}

impl Default for Seats {
    fn default() -> Self {
        Self { ticket: AtomicU32::new(0), used: AtomicU32::new(0), seats: std::array::from_fn(|_| Seat::default()) }
    }
}

/// A seat that is taken.
#[derive(Debug)]
pub struct Sitting {
    at: usize,
    pid: u32,
}

impl Seats {
    /// Takes a seat for a waiter of this condition; `None` if there is none.
    pub fn enlist(&self, condition: u32, me: Taker, alive: Alive<'_>) -> Option<Sitting> {
        let at = self.free(me).or_else(|| {
            self.seats.iter().for_each(|seat| {
                seat.clear(seat.pid.load(Ordering::Acquire), alive);
            });
            self.free(me)
        })?;
        let seat = &self.seats[at];
        seat.owner.set(me.pid, me.started);
        seat.condition.store(condition, Ordering::Relaxed);
        seat.ticket.store(self.ticket.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.used.fetch_max(at as u32 + 1, Ordering::Relaxed);
        // Release: who finds it waiting finds the rest.
        seat.word.store(WAITING, Ordering::SeqCst);
        Some(Sitting { at, pid: me.pid })
    }

    fn free(&self, me: Taker) -> Option<usize> {
        self.seats.iter().position(|seat| {
            seat.pid.load(Ordering::Relaxed) == 0
                && seat.pid.compare_exchange(0, me.pid, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        })
    }

    /// Whether it has not been notified.
    pub fn is_waiting(&self, sitting: &Sitting) -> bool {
        self.seats[sitting.at].word.load(Ordering::SeqCst) == WAITING
    }

    /// Waits for the notification.
    ///
    /// # Errors
    /// [`Stop`]: there was none before the end of the wait.
    pub fn wait(&self, sitting: &Sitting, parking: &mut Parking<'_>) -> Result<(), Stop> {
        let word = &self.seats[sitting.at].word;
        let notified = || {
            // Acquire: what the notifier did before is seen.
            let known = word.load(Ordering::Acquire);
            if known == NOTIFIED {
                let _ = word.compare_exchange(NOTIFIED, SEEN, Ordering::SeqCst, Ordering::Relaxed);
            }
            known != WAITING
        };
        if parking.spin(notified) {
            return Ok(());
        }
        loop {
            let slept = parking.park_outside(Outside::Word(word, WAITING), Deadline::at(now() + LOOK));
            if notified() && slept != Err(Stop::Interrupted) {
                return Ok(());
            }
            slept?;
        }
    }

    /// Gives the seat back; whether a notification had come. A forked child has no part in what is its parent's.
    pub fn leave(&self, sitting: &Sitting, me: Taker) -> bool {
        if me.pid != sitting.pid {
            return false;
        }
        let seat = &self.seats[sitting.at];
        let notified = matches!(seat.word.swap(EMPTY, Ordering::SeqCst), NOTIFIED | SEEN);
        let _ = seat.pid.compare_exchange(sitting.pid, 0, Ordering::SeqCst, Ordering::Relaxed);
        notified
    }

    fn taken(&self) -> &[Seat] {
        &self.seats[..(self.used.load(Ordering::Acquire) as usize).min(SEATS)]
    }

    fn waiting_for(&self, condition: u32) -> impl Iterator<Item = &Seat> {
        self.taken().iter().filter(move |seat| {
            // SeqCst: see `enlist`. The condition's lock, where nobody is killed, orders the two anyway.
            seat.word.load(Ordering::SeqCst) == WAITING && seat.condition.load(Ordering::Relaxed) == condition
        })
    }

    /// How many wait for a notification of this condition.
    pub fn waiting(&self, condition: u32) -> usize {
        self.waiting_for(condition).count()
    }

    /// Notifies those who have waited longest, at most so many; how many there were.
    pub fn notify(&self, condition: u32, most: usize, me: u32, alive: Alive<'_>) -> usize {
        let next = self.ticket.load(Ordering::Relaxed);
        let mut found: Vec<&Seat> = self.waiting_for(condition).collect();
        // The longest wait is the ticket that is farthest behind.
        found.sort_by_key(|seat| std::cmp::Reverse(next.wrapping_sub(seat.ticket.load(Ordering::Relaxed))));
        let mut notified = 0;
        for seat in found {
            if notified == most {
                break;
            }
            let pid = seat.pid.load(Ordering::Acquire);
            if seat.word.compare_exchange(WAITING, NOTIFIED, Ordering::SeqCst, Ordering::Relaxed).is_err() {
                continue;
            }
            if wake_outside_one(&seat.word) || pid == me || seat.is_seen_soon() || !seat.clear(pid, alive) {
                notified += 1;
            }
        }
        notified
    }

    /// The model has no clock: here the time comes at which sleepers look.
    #[cfg(raddle_loom)]
    pub fn time_passes(&self) {
        self.seats.iter().for_each(|seat| crate::park::wake_outside(&seat.word));
    }
}
