//! A semaphore, or a lock with an owner, for processes.
//!
//! A [`Cell`] is in shared memory; what is in it may be written by any process at any time, and nothing of it is
//! trusted: a wrong word can delay or let through too early, not break.
//!
//! Its word is
//!
//! | kind | free | taken |
//! |---|---|---|
//! | [`Kind::Owned`] | 0 | the number of the process that has it |
//! | [`Kind::Counted`] | how many units are left | 0 |
//!
//! so that taking and releasing are one atomic step each, and a process may be killed between any two instructions:
//!
//! - Killed before the step, it has not happened; after it, it has. An owned cell then has a dead owner, whom a waiter
//!   finds when it asks, and takes the cell from in one step ([`Taken::From`]). A unit of a counted cell is lost with the
//!   process that took it: nobody knows whose it was.
//! - A releaser makes its step and then wakes one sleeper, if the count of `sleepers` says that there may be any. If
//!   it is killed in between, or the one that was woken is, the others sleep beside a free word: so every sleep ends
//!   by itself after a while and looks again. A sleeper that is killed leaves the count too high, which costs each
//!   release a system call.
//!
//! A sleeper counts itself and then lets the kernel compare the word; a releaser changes the word and then reads the
//! count; all four are `SeqCst`, so that one of them sees the other.

use super::side::{Alive, OwnerRecord};
use crate::park::{Deadline, Outside, Parking, Stop, now, wake_outside_one};
use crate::primitive::{AtomicU32, AtomicU64, Futex, Ordering};

/// The most units of a semaphore.
pub const MOST: u32 = i32::MAX as u32;

/// After how long a waiter first asks whether the owner lives, and the longest time between two questions, in
/// nanoseconds.
const FIRST_QUESTION: u64 = 20_000_000;
const LAST_QUESTION: u64 = 100_000_000;
/// How long one that waits for a unit sleeps before it looks again.
const LOOK_FOR_UNIT: u64 = 500_000_000;

/// The length of a noted site, in words.
const SITE_WORDS: usize = if cfg!(raddle_loom) { 1 } else { 20 };
const NAME_WORDS: usize = if cfg!(raddle_loom) { 1 } else { 4 };

/// What a cell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A lock: its owner is known.
    Owned,
    /// A number of units, at most so many.
    Counted(u32),
}

/// Who takes.
#[derive(Clone, Copy, Debug)]
pub struct Taker {
    /// The process: its number and when it was started.
    pub pid: u32,
    /// As of `/proc`, in clock ticks.
    pub started: u64,
    /// The thread: [`thread_token`](crate::primitive::thread_token).
    pub thread: usize,
}

/// An owner that has ended without a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// The number of the process.
    pub pid: u32,
    /// Where it took the lock, if that was kept.
    pub site: Option<String>,
}

/// How a cell was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// As usual.
    Free,
    /// From a process that has ended.
    From(Dead),
}

/// So many bytes of UTF-8 in shared memory, in words. Not atomic as a whole: a reader may see a mixture.
#[derive(Debug)]
#[repr(transparent)]
pub struct Text<const WORDS: usize>([AtomicU64; WORDS]);

impl<const WORDS: usize> Default for Text<WORDS> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const WORDS: usize> Text<WORDS> {
    /// Writes a text; of one that is too long, its end.
    pub fn write(&self, text: &str) {
        let most = WORDS * 8;
        let mut begin = text.len().saturating_sub(most);
        while !text.is_char_boundary(begin) {
            begin += 1;
        }
        let mut words = text.as_bytes()[begin..].chunks(8);
        for place in &self.0 {
            let mut word = [0; 8];
            let bytes = words.next().unwrap_or_default();
            word[..bytes.len()].copy_from_slice(bytes);
            place.store(u64::from_ne_bytes(word), Ordering::Relaxed);
            if bytes.len() < 8 {
                break;
            }
        }
    }

    /// What is there, as far as it is text; `None` if it is empty.
    pub fn read(&self) -> Option<String> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        (end > 0).then(|| String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

/// See the module.
#[derive(Debug)]
#[cfg_attr(not(raddle_loom), repr(C, align(256)))]
pub struct Cell {
    word: Futex,
    sleepers: AtomicU32,
    owner: OwnerRecord,
    /// The owner's thread, and where it took the lock. Written after the word: of an owner that was killed before
    /// that, they are the last owner's, whose number `noted` then has.
    thread: AtomicU64,
    noted: AtomicU32,
    /// What the site was written for, so that it need not be written again: a number of the writer's choice, with its
    /// process. 0 if there is no site.
    written: AtomicU64,
    site: Text<SITE_WORDS>,
    name: Text<NAME_WORDS>,
}

impl Default for Cell {
    fn default() -> Self {
        Self {
            word: Futex::new(0),
            sleepers: AtomicU32::new(0),
            owner: OwnerRecord::default(),
            thread: AtomicU64::new(0),
            noted: AtomicU32::new(0),
            written: AtomicU64::new(0),
            site: Text::default(),
            name: Text::default(),
        }
    }
}

impl Cell {
    /// Gives it its first value: so many units, or 1 for a free lock and 0 for one that `me` has.
    pub fn set(&self, kind: Kind, value: u32, me: Taker) {
        match kind {
            Kind::Owned if value == 0 => {
                self.word.store(me.pid, Ordering::SeqCst);
                self.note(me);
            }
            Kind::Owned => self.word.store(0, Ordering::SeqCst),
            Kind::Counted(_) => self.word.store(value, Ordering::SeqCst),
        }
    }

    /// Says what it is called.
    pub fn set_name(&self, name: &str) {
        self.name.write(name);
    }

    /// What it is called.
    pub fn name(&self) -> Option<String> {
        self.name.read()
    }

    fn is_free(kind: Kind, word: u32) -> bool {
        (word == 0) == (kind == Kind::Owned)
    }

    /// How many units can be taken now.
    pub fn value(&self, kind: Kind) -> u32 {
        let word = self.word.load(Ordering::SeqCst);
        match kind {
            Kind::Owned => u32::from(word == 0),
            Kind::Counted(_) => word.min(MOST),
        }
    }

    /// Takes the lock, or one unit, if there is one.
    #[inline]
    pub fn try_take(&self, kind: Kind, me: Taker) -> bool {
        match kind {
            Kind::Owned => {
                // SeqCst: acquires what the last owner released.
                let taken = self.word.compare_exchange(0, me.pid, Ordering::SeqCst, Ordering::Relaxed).is_ok();
                if taken {
                    self.note(me);
                }
                taken
            }
            Kind::Counted(_) => {
                let mut word = self.word.load(Ordering::Relaxed);
                while word > 0 {
                    match self.word.compare_exchange(word, word - 1, Ordering::SeqCst, Ordering::Relaxed) {
                        Ok(_) => return true,
                        Err(now) => word = now,
                    }
                }
                false
            }
        }
    }

    #[inline]
    fn note(&self, me: Taker) {
        self.owner.set(me.pid, me.started);
        self.thread.store(me.thread as u64, Ordering::Relaxed);
        self.noted.store(me.pid, Ordering::Release);
    }

    /// Notes where the owner, who calls, has taken it; `key` stands for the place in this process, 0 for none.
    #[inline]
    pub fn note_site<S: AsRef<str>>(&self, me: Taker, key: u32, text: impl FnOnce() -> S) {
        let written = if key == 0 { 0 } else { u64::from(me.pid) << 32 | u64::from(key) };
        if self.written.load(Ordering::Relaxed) != written {
            self.written.store(0, Ordering::Release);
            if key != 0 {
                self.site.write(text().as_ref());
            }
            self.written.store(written, Ordering::Release);
        }
    }

    fn site(&self) -> Option<String> {
        (self.written.load(Ordering::Acquire) != 0).then(|| self.site.read()).flatten()
    }

    /// The owner as it is noted: process, thread, and where it took the lock.
    pub fn owner(&self) -> Option<(u32, u64, Option<String>)> {
        let pid = self.word.load(Ordering::SeqCst);
        if pid == 0 {
            return None;
        }
        let noted = self.noted.load(Ordering::Acquire) == pid;
        let (thread, site) = if noted { (self.thread.load(Ordering::Relaxed), self.site()) } else { (0, None) };
        Some((pid, thread, site))
    }

    /// Whether a process has it that has not ended.
    pub fn has_living_owner(&self, alive: Alive<'_>) -> bool {
        let pid = self.word.load(Ordering::SeqCst);
        pid != 0 && self.owner.lives(pid, alive)
    }

    /// Takes it from an owner that has ended, if that is so.
    #[cold]
    pub fn try_recover(&self, me: Taker, alive: Alive<'_>) -> Option<Dead> {
        let pid = self.word.load(Ordering::SeqCst);
        if pid == 0 || pid == me.pid || self.owner.lives(pid, alive) {
            return None;
        }
        let site = (self.noted.load(Ordering::Acquire) == pid).then(|| self.site()).flatten();
        self.word.compare_exchange(pid, me.pid, Ordering::SeqCst, Ordering::Relaxed).ok()?;
        self.note(me);
        Some(Dead { pid, site })
    }

    /// Waits until it is taken.
    ///
    /// # Errors
    /// [`Stop`]; nothing has been taken then.
    pub fn take(&self, kind: Kind, me: Taker, parking: &mut Parking<'_>, alive: Alive<'_>) -> Result<Taken, Stop> {
        if parking.spin(|| Self::is_free(kind, self.word.load(Ordering::Relaxed))) && self.try_take(kind, me) {
            return Ok(Taken::Free);
        }
        let owned = kind == Kind::Owned;
        let mut pause = if owned { FIRST_QUESTION } else { LOOK_FOR_UNIT };
        // A model has no clock: it asks at once.
        let mut ask_at = if cfg!(raddle_loom) { 0 } else { now() + pause };
        loop {
            let word = self.word.load(Ordering::SeqCst);
            if Self::is_free(kind, word) {
                if self.try_take(kind, me) {
                    return Ok(Taken::Free);
                }
                continue;
            }
            if now() >= ask_at {
                pause = (pause * 2).min(if owned { LAST_QUESTION } else { LOOK_FOR_UNIT });
                ask_at = if cfg!(raddle_loom) { 0 } else { now() + pause };
                if let Some(dead) = owned.then(|| self.try_recover(me, alive)).flatten() {
                    return Ok(Taken::From(dead));
                }
            }
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            let slept = parking.park_outside(Outside::Word(&self.word, word), Deadline::at(ask_at));
            self.sleepers.fetch_sub(1, Ordering::Relaxed);
            if let Err(stop) = slept {
                // No wake-up is used up by a sleep that ends like this. At the deadline it is looked once more.
                if stop == Stop::TimedOut && self.try_take(kind, me) {
                    return Ok(Taken::Free);
                }
                return Err(stop);
            }
        }
    }

    /// Gives back the lock, whoever has it, or one unit. False if nothing is taken.
    #[inline]
    pub fn release(&self, kind: Kind) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let free = match kind {
                Kind::Owned if word == 0 => return false,
                Kind::Owned => 0,
                Kind::Counted(most) if word >= most => return false,
                Kind::Counted(_) => word + 1,
            };
            match self.word.compare_exchange(word, free, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            wake_outside_one(&self.word);
        }
        true
    }

    /// Ends like a process that is killed after the step of [`release`](Self::release). For tests.
    pub fn die_releasing(&self) {
        self.word.store(0, Ordering::SeqCst);
    }

    /// The model has no clock: here the time comes at which sleepers look.
    #[cfg(raddle_loom)]
    pub fn time_passes(&self) {
        crate::park::wake_outside(&self.word);
    }
}
