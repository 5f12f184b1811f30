//! The anonymous file that locks and semaphores are in, many in each.
//!
//! A process makes a file when it needs room for a lock and has none, and hands it, not the lock, to its children: one
//! descriptor for all the locks in it. Cells are given out once and never again, since nobody can know which processes
//! still have a lock; the file goes when the last process has let go of the last lock in it. It is sealed against
//! shrinking, so that a mapping that was checked once can always be read.
#![allow(unsafe_code)]

use super::memory::{Damaged, checked, map, retried, status};
use super::process::Identity;
use super::seats::{Seats, Sitting};
use super::semlock::{Cell, Dead, Kind, Taken, Taker};
use super::side::alive;
use super::watch::{ROWS, Row};
use crate::park::{Parking, Stop, now};
use crate::primitive::thread_token;
use crate::trace::{Claim, Resource, Waker};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// How many locks a file has room for.
const CELLS: usize = 63;

const MAGIC: u64 = u64::from_le_bytes(*b"raddle\x02\x01");

/// All of it. Other processes write to it: atomics only, and nothing in it is trusted.
#[derive(Debug)]
#[repr(C, align(256))]
struct Layout {
    magic: AtomicU64,
    /// How many cells have been given out.
    given: AtomicU32,
    cells: [Cell; CELLS],
    /// From here on memory is asked for when it is first needed.
    seats: Seats,
    rows: [Row; ROWS],
}

const SIZE: usize = size_of::<Layout>();
const SEATS_AT: usize = std::mem::offset_of!(Layout, seats);

/// See the module.
#[derive(Debug)]
pub struct Arena {
    file: OwnedFd,
    /// What tells the file from others: its inode.
    number: u64,
    layout: *const Layout,
    /// Whether there is memory for the seats and rows.
    seated: AtomicBool,
}

// SAFETY: what is mapped consists of atomics.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// A new file.
    ///
    /// # Errors
    /// Of the operating system: no descriptor is free, no memory.
    pub fn create() -> io::Result<Arena> {
        // SAFETY: a C string and flags.
        let file = unsafe {
            let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
            OwnedFd::from_raw_fd(checked(libc::memfd_create(c"raddle-locks".as_ptr(), flags))?)
        };
        // Memory that is asked for is an error where there is none. Memory that is touched would be a signal.
        // SAFETY: a descriptor and a range; a descriptor and a size.
        retried(|| unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, SEATS_AT as libc::off_t) })?;
        // SAFETY: as above.
        retried(|| unsafe { libc::ftruncate(file.as_raw_fd(), SIZE as libc::off_t) })?;
        // SAFETY: a descriptor and seals.
        checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL) })?;
        // A file of zeros is one whose cells are as `Cell::default()`.
        let arena = Self::mapped(file)?;
        arena.layout().magic.store(MAGIC, Ordering::Release);
        Ok(arena)
    }

    /// Maps a file that another process, or this one, has created.
    ///
    /// # Errors
    /// `InvalidData` if it is not such a file; else of the operating system.
    pub fn open(file: OwnedFd) -> io::Result<Arena> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, Damaged(what));
        // SAFETY: a descriptor.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            return Err(wrong("the file may shrink"));
        }
        if status(file.as_fd())?.size < SIZE as u64 {
            return Err(wrong("the file is too short"));
        }
        let arena = Self::mapped(file)?;
        if arena.layout().magic.load(Ordering::Acquire) != MAGIC {
            return Err(wrong("no header"));
        }
        Ok(arena)
    }

    fn mapped(file: OwnedFd) -> io::Result<Arena> {
        let number = status(file.as_fd())?.number;
        let layout = map(&file, 0, SIZE)?.cast::<Layout>();
        Ok(Arena { file, number, layout, seated: AtomicBool::new(false) })
    }

    fn layout(&self) -> &Layout {
        // SAFETY: mapped for as long as `self`, aligned to a page; made of atomics, for which any bytes are valid.
        unsafe { &*self.layout }
    }

    /// The file.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What tells the file from others: its inode.
    pub fn number(&self) -> u64 {
        self.number
    }

    fn seats(&self) -> io::Result<&Seats> {
        self.rest().map(|layout| &layout.seats)
    }

    pub(super) fn rows(&self) -> io::Result<&[Row; ROWS]> {
        self.rest().map(|layout| &layout.rows)
    }

    pub(super) fn cell(&self, place: u32) -> Option<&Cell> {
        self.layout().cells.get(place as usize)
    }

    /// With memory for the seats and rows.
    fn rest(&self) -> io::Result<&Layout> {
        if !self.seated.load(Ordering::Relaxed) {
            let (from, size) = (SEATS_AT, SIZE - SEATS_AT);
            // SAFETY: a range of the mapping. Not by the descriptor: a program that closes all descriptors, as daemons do,
            // may have a file of its own under that number.
            let asked = retried(|| unsafe {
                libc::madvise(self.layout.cast::<u8>().add(from).cast_mut().cast(), size, libc::MADV_POPULATE_WRITE)
            });
            match asked {
                // Before Linux 5.14 memory cannot be asked for like that. Where there is none, touching it is a signal.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                asked => asked?,
            }
            self.seated.store(true, Ordering::Relaxed);
        }
        Ok(self.layout())
    }

    /// A place that no process has; `None` if there is none left.
    pub fn claim(&self) -> Option<u32> {
        let given = &self.layout().given;
        let at = given.fetch_add(1, Ordering::Relaxed);
        if (at as usize) < CELLS {
            return Some(at);
        }
        // It stays full, however often it is asked.
        given.store(CELLS as u32, Ordering::Relaxed);
        None
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: mapped by `mapped` with this size; no reference to it outlives `self`.
        unsafe { libc::munmap(self.layout.cast_mut().cast(), SIZE) };
    }
}

/// A lock or semaphore of an arena.
#[derive(Debug)]
pub struct SemLock {
    arena: Arc<Arena>,
    place: u32,
    kind: Kind,
    /// When it may be asked next, by who does not wait, whether the owner lives: on the clock.
    ask_at: AtomicU64,
}

/// How long a call that does not wait trusts the last answer to whether the owner lives, in nanoseconds.
const TRUSTED: u64 = 5_000_000;

impl Resource for SemLock {
    /// Other processes may end any wait.
    fn wakers(&self, _kind: crate::trace::Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}

/// The calling thread.
#[inline]
fn me() -> Taker {
    let Identity { pid, started } = Identity::own();
    Taker { pid, started, thread: thread_token() }
}

/// Those who wait for notifications of one condition. Others than processes that are killed hold the condition's lock
/// when they call [`enlist`](Waiters::enlist) and [`notify`](Waiters::notify); who was killed and whose lock was taken
/// over may be in the middle of either.
#[derive(Debug)]
pub struct Waiters {
    arena: Arc<Arena>,
    place: u32,
}

/// One that waits; whoever drops it does not wait any more. A notification that it has not told of is passed on.
#[derive(Debug)]
pub struct Waiter {
    waiters: Arc<Waiters>,
    sitting: Sitting,
    told: AtomicBool,
}

impl Resource for Waiter {
    /// Other processes may end any wait.
    fn wakers(&self, _kind: crate::trace::Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}

impl Waiters {
    /// Of a new condition. `None` if the arena is full.
    pub fn create(arena: &Arc<Arena>) -> Option<Waiters> {
        Some(Waiters { arena: Arc::clone(arena), place: arena.claim()? })
    }

    /// Of the condition in this place, which another process has made. `None` if there is no such place.
    pub fn open(arena: &Arc<Arena>, place: u32) -> Option<Waiters> {
        ((place as usize) < CELLS).then(|| Waiters { arena: Arc::clone(arena), place })
    }

    /// Where it is in its arena.
    pub fn place(&self) -> u32 {
        self.place
    }

    /// From now on the calling thread gets notifications.
    ///
    /// # Errors
    /// `StorageFull` if as many wait for the conditions of this arena as can; else of the operating system: no memory.
    pub fn enlist(self: &Arc<Self>) -> io::Result<Waiter> {
        let sitting = self.arena.seats()?.enlist(self.place, me(), &alive).ok_or(io::ErrorKind::StorageFull)?;
        Ok(Waiter { waiters: Arc::clone(self), sitting, told: AtomicBool::new(false) })
    }

    /// Notifies those who have waited longest, at most so many; how many there were. Never waits.
    ///
    /// # Errors
    /// Of the operating system: no memory.
    pub fn notify(&self, most: usize) -> io::Result<usize> {
        Ok(self.arena.seats()?.notify(self.place, most, me().pid, &alive))
    }

    /// How many wait and have not been notified; among them those that were killed meanwhile.
    ///
    /// # Errors
    /// Of the operating system: no memory.
    pub fn waiting(&self) -> io::Result<usize> {
        Ok(self.arena.seats()?.waiting(self.place))
    }
}

impl Waiter {
    /// Whether there has been none so far.
    pub fn is_waiting(&self) -> bool {
        self.waiters.arena.seats().is_ok_and(|seats| seats.is_waiting(&self.sitting))
    }

    /// What it is in, and where.
    pub fn place(&self) -> (&Arc<Arena>, u32) {
        (&self.waiters.arena, self.waiters.place)
    }

    /// Waits for the notification. Once this has come back, whether with or without one, it is not to be called again.
    ///
    /// # Errors
    /// [`Stop`]: there was none; one that came meanwhile has been passed on.
    pub fn wait(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        let Ok(seats) = self.waiters.arena.seats() else { return Err(Stop::TimedOut) };
        let ended = seats.wait(&self.sitting, parking);
        self.told.store(ended.is_ok(), Ordering::Relaxed);
        ended
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Ok(seats) = self.waiters.arena.seats() else { return };
        if seats.leave(&self.sitting, me()) && !*self.told.get_mut() {
            seats.notify(self.waiters.place, 1, me().pid, &alive);
        }
    }
}

impl SemLock {
    /// A new one with this value: units, or 1 for a lock that is free and 0 for one that the calling process has.
    ///
    /// `None` if the arena is full.
    pub fn create(arena: &Arc<Arena>, kind: Kind, value: u32) -> Option<SemLock> {
        let lock = Self::open(arena, arena.claim()?, kind)?;
        lock.cell().set(kind, value, me());
        Some(lock)
    }

    /// The one in this place, which another process has made. `None` if there is no such place.
    pub fn open(arena: &Arc<Arena>, place: u32, kind: Kind) -> Option<SemLock> {
        let known = (place as usize) < CELLS;
        known.then(|| SemLock { arena: Arc::clone(arena), place, kind, ask_at: AtomicU64::new(0) })
    }

    #[inline]
    fn cell(&self) -> &Cell {
        &self.arena.layout().cells[self.place as usize]
    }

    /// Where it is in its arena.
    pub fn place(&self) -> u32 {
        self.place
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many units can be taken at this moment; 1 for a lock that is free.
    pub fn value(&self) -> u32 {
        self.cell().value(self.kind)
    }

    /// Takes a unit, or the lock, if there is one.
    #[inline]
    pub fn try_take(&self) -> bool {
        self.cell().try_take(self.kind, me())
    }

    /// Notes where the lock, which the calling thread has taken, was taken: `key` stands for the place, 0 for none.
    #[inline]
    pub fn note_site<S: AsRef<str>>(&self, key: u32, text: impl FnOnce() -> S) {
        if self.kind == Kind::Owned {
            self.cell().note_site(me(), key, text);
        }
    }

    /// The owner: process, thread, and where it took the lock. Always `None` for a semaphore.
    pub fn owner(&self) -> Option<(u32, u64, Option<String>)> {
        (self.kind == Kind::Owned).then(|| self.cell().owner()).flatten()
    }

    /// Takes the lock from an owner that has ended. Asks for that at most every 5 ms.
    #[cold]
    pub fn try_recover(&self) -> Option<Dead> {
        if self.kind != Kind::Owned || now() < self.ask_at.load(Ordering::Relaxed) {
            return None;
        }
        self.ask_at.store(now() + TRUSTED, Ordering::Relaxed);
        self.cell().try_recover(me(), &alive)
    }

    /// Takes a unit, or the lock, and waits for it.
    ///
    /// # Errors
    /// [`Stop`]; nothing has been taken then.
    pub fn take(&self, parking: &mut Parking<'_>) -> Result<Taken, Stop> {
        self.cell().take(self.kind, me(), parking, &alive)
    }

    /// The arena that it is in.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Says what it is called.
    pub fn set_name(&self, name: &str) {
        self.cell().set_name(name);
    }

    /// Gives back a unit, or the lock, whoever has it. Never waits. False if there was nothing to give back.
    #[inline]
    pub fn release(&self) -> bool {
        self.cell().release(self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_arena_is_refused() {
        let refused = |file: OwnedFd| Arena::open(file).unwrap_err().kind();
        assert_eq!(refused(std::fs::File::open("/dev/null").unwrap().into()), io::ErrorKind::InvalidData);
        assert_eq!(refused(crate::ipc::Memory::create(1, 0, 0).unwrap()), io::ErrorKind::InvalidData);
        let arena = Arena::create().unwrap();
        let again = Arena::open(arena.file().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(again.claim(), Some(0));
        assert_eq!(arena.claim(), Some(1));
        // SAFETY: a descriptor and a size.
        assert_eq!(unsafe { libc::ftruncate(arena.file().as_raw_fd(), 0) }, -1);
    }

    #[test]
    fn places_are_given_out_once() {
        let arena = Arc::new(Arena::create().unwrap());
        let all: Vec<_> = std::iter::from_fn(|| arena.claim()).collect();
        assert_eq!(all, (0..CELLS as u32).collect::<Vec<_>>());
        assert!(SemLock::create(&arena, Kind::Owned, 1).is_none());
        assert!(SemLock::open(&arena, CELLS as u32, Kind::Owned).is_none());
        assert!(Waiters::open(&arena, u32::MAX).is_none());
        // Damage cannot make it give out more.
        arena.layout().given.store(u32::MAX, Ordering::Relaxed);
        assert!(arena.claim().is_none() && arena.claim().is_none());
    }

    #[test]
    fn a_new_file_is_as_the_defaults() {
        let arena = Arc::new(Arena::create().unwrap());
        let lock = SemLock::open(&arena, 3, Kind::Owned).unwrap();
        assert_eq!((lock.value(), lock.owner()), (1, None));
        assert!(lock.try_take() && !lock.try_take());
        assert_eq!(
            lock.owner().map(|(pid, thread, _)| (pid, thread)),
            Some((std::process::id(), thread_token() as u64))
        );
        assert!(lock.release() && !lock.release());
        let units = SemLock::create(&arena, Kind::Counted(2), 2).unwrap();
        assert!(!units.release() && units.try_take() && units.try_take() && !units.try_take());
        assert!(units.release());
        assert_eq!(units.value(), 1);
    }
}
