//! Large messages, apart from the rings: each in a stretch of the channel's file that is its own while it lives.
//!
//! A ring is copied in and out. A stretch is written by the system itself, which needs not zero new memory before; the
//! reader maps it, and keeps it for as long as it likes: nothing is copied out. What it changes there is its own (the
//! mapping is private). When it lets go, the stretch is kept for the next message, or its memory given back.
//!
//! Either would take the bytes from a forked child as well, whose mapping is of the same file. So before a fork every
//! mapping is made the process's own altogether, by copying.
//!
//! The file's memory goes with the last process that has it open: what a killed reader had is freed with its channel. So
//! this is for channels with one process on each side, whose end is the channel's.
#![allow(unsafe_code)]

use super::memory::{Damaged, Memory, checked, retried, status};
use crate::primitive::Spin;
use std::collections::BTreeMap;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once, Weak};

/// Where the stretches of lane 0 begin, and how far from there those of lane 1 do. Rings are far below.
const BEYOND: u64 = 1 << 60;
const LANE: u64 = 1 << 48;

const PAGE: u64 = 4096;

/// No message is longer.
const LONGEST: u64 = 1 << 39;
/// Below it in a number that tells a stretch: how many pages there are; above: which is the first.
const PAGES: u32 = 28;

/// How many bytes of a record say where a message is.
pub(crate) const LABEL: usize = 16;

/// What a lane's header says of stretches.
#[derive(Debug, Default)]
pub(crate) struct Stretches {
    /// How many pages have ever been claimed.
    claimed: AtomicU64,
    /// Stretches that a reader is through with; 0: none.
    free: [AtomicU64; 2],
}

/// Pages in a lane's part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    first: u64,
    pages: u64,
}

impl Stretch {
    /// From one number. `None` if it tells none.
    fn told(number: u64) -> Option<Stretch> {
        let stretch = Stretch { first: number >> PAGES, pages: number & ((1 << PAGES) - 1) };
        let inside = stretch.pages > 0 && (stretch.first + stretch.pages) * PAGE <= LANE;
        inside.then_some(stretch)
    }

    fn number(self) -> u64 {
        self.first << PAGES | self.pages
    }

    fn offset(self, memory: &Memory) -> u64 {
        BEYOND + memory.lane() * LANE + self.first * PAGE
    }

    fn give_back(self, memory: &Memory) {
        let flags = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;
        let (offset, length) = (self.offset(memory) as libc::off_t, (self.pages * PAGE) as libc::off_t);
        // SAFETY: a descriptor and a range. Memory that cannot be given back is kept.
        let _ = retried(|| unsafe { libc::fallocate(memory.file().as_raw_fd(), flags, offset, length) });
    }
}

impl Stretches {
    /// A stretch of at least so many pages: one that has memory already, if there is one that is not much too large.
    fn claim(&self, pages: u64) -> Option<Stretch> {
        for place in &self.free {
            let number = place.load(Ordering::Relaxed);
            let Some(stretch) = Stretch::told(number).filter(|free| (pages..=4 * pages).contains(&free.pages)) else {
                continue;
            };
            // Acquire: pairs with `keep`. Its reader has unmapped it.
            if place.compare_exchange(number, 0, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Some(stretch);
            }
        }
        let first = self.claimed.fetch_add(pages, Ordering::Relaxed);
        let end = first.checked_add(pages).and_then(|end| end.checked_mul(PAGE));
        end.is_some_and(|end| end <= LANE).then_some(Stretch { first, pages })
    }

    /// Keeps a stretch for the next message, if need be in place of a smaller one. What is then to be given back.
    fn keep(&self, stretch: Stretch) -> Option<Stretch> {
        for place in &self.free {
            let number = place.load(Ordering::Relaxed);
            let kept = Stretch::told(number);
            if kept.is_none_or(|kept| kept.pages < stretch.pages)
                && place.compare_exchange(number, stretch.number(), Ordering::Release, Ordering::Relaxed).is_ok()
            {
                return kept;
            }
        }
        Some(stretch)
    }

    /// Whether any are kept.
    pub(crate) fn any_kept(&self) -> bool {
        self.free.iter().any(|place| place.load(Ordering::Relaxed) != 0)
    }

    /// Gives the memory of those that are kept back.
    pub(crate) fn give_back(memory: &Memory) {
        for place in &memory.header().stretches.free {
            if let Some(stretch) = Stretch::told(place.swap(0, Ordering::Acquire)) {
                stretch.give_back(memory);
            }
        }
    }
}

/// A message that has been written, and not sent yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Parcel {
    memory: Arc<Memory>,
    stretch: Stretch,
    length: u64,
    sent: bool,
}

impl Parcel {
    /// Writes a message to a stretch. `None` if the system does not take it: then it has to go through a ring.
    pub(crate) fn write(memory: &Arc<Memory>, parts: &[&[u8]]) -> Option<Self> {
        let length = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        if length == 0 || length > LONGEST || !files_may_grow() {
            return None;
        }
        let stretch = memory.header().stretches.claim(length.div_ceil(PAGE))?;
        let parcel = Self { memory: Arc::clone(memory), stretch, length, sent: false };
        let mut at = stretch.offset(memory);
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                // SAFETY: a descriptor, and bytes to read from.
                let written = unsafe {
                    libc::pwrite(memory.file().as_raw_fd(), rest.as_ptr().cast(), rest.len(), at as libc::off_t)
                };
                match usize::try_from(written) {
                    Ok(written @ 1..) => {
                        rest = &rest[written..];
                        at += written as u64;
                    }
                    _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                    _ => return None,
                }
            }
        }
        Some(parcel)
    }

    /// What its record says.
    pub(crate) fn label(&self) -> [u8; LABEL] {
        let mut label = [0; LABEL];
        label[..8].copy_from_slice(&self.stretch.number().to_le_bytes());
        label[8..].copy_from_slice(&self.length.to_le_bytes());
        label
    }

    /// It is the reader's from now on.
    pub(crate) fn is_sent(&mut self) {
        self.sent = true;
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if !self.sent {
            self.stretch.give_back(&self.memory);
        }
    }
}

/// Whether files may have any size: where they may not, to write behind the bound would be a signal.
fn files_may_grow() -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a place to write to.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) == 0 && limit.rlim_cur == libc::RLIM_INFINITY }
}

/// A message that has been received: its bytes, which are this process's own.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    length: usize,
    stretch: Stretch,
    /// Not kept open: where the channel is gone, its memory goes with the last mapping.
    memory: Weak<Memory>,
}

// SAFETY: the mapping is the region's own; shared, it is only read.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps the message that a record speaks of.
    ///
    /// # Errors
    /// `InvalidData` if there is none; else of the operating system.
    pub(crate) fn open(memory: &Arc<Memory>, label: [u8; LABEL]) -> io::Result<Region> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, Damaged(what));
        let (number, length) = label.split_at(8);
        let read = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        let (stretch, length) = (Stretch::told(read(number)), read(length));
        let stretch = stretch
            .filter(|stretch| (1..=stretch.pages * PAGE).contains(&length))
            .ok_or_else(|| wrong("a large message where none can be"))?;
        // All of it must have been written: to map more would have the system find memory for it.
        let (fd, offset) = (memory.file().as_raw_fd(), stretch.offset(memory) as libc::off_t);
        // SAFETY: a descriptor. Nobody uses the file's own position.
        let hole = unsafe { libc::lseek(fd, offset, libc::SEEK_HOLE) };
        let end = offset as u64 + length;
        if end > status(memory.file().as_fd())?.size || !u64::try_from(hole).is_ok_and(|hole| hole >= end) {
            return Err(wrong("a large message that was not written"));
        }
        before_forks();
        let size = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // Listed and mapped in one step for who forks.
        let mut mapped = MAPPED.lock();
        // SAFETY: a new mapping at an address of the system's choice, of a file that cannot shrink.
        let start = unsafe { libc::mmap(null_mut(), size, access, libc::MAP_PRIVATE, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        mapped.insert(start as usize, Mapped { size, is_everybodys: false });
        drop(mapped);
        // SAFETY: the mapping. It only saves the faults.
        unsafe { libc::madvise(start, size, libc::MADV_POPULATE_READ) };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Region { start, length: size, stretch, memory: Arc::downgrade(memory) })
    }

    /// Where it is. Writable for whoever has the region alone.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.start
    }
}

impl Deref for Region {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: mapped for as long as `self`; nothing changes it but its owner.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let known = MAPPED.lock().remove(&(self.start.as_ptr() as usize));
        // SAFETY: mapped by `open`; no reference outlives `self`.
        let _ = checked(unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) });
        if let Some(memory) = self.memory.upgrade()
            && known.is_some_and(|known| !known.is_everybodys)
            && let Some(stretch) = memory.header().stretches.keep(self.stretch)
        {
            stretch.give_back(&memory);
        }
    }
}

/// The bytes of a message that has been received.
#[derive(Debug)]
pub enum Bytes {
    /// They came through a ring.
    Copied(Vec<u8>),
    /// They came apart; so many of them count.
    Mapped(Region, usize),
}

impl Bytes {
    /// Leaves out what is behind so many of them.
    pub(crate) fn truncate(&mut self, length: usize) {
        match self {
            Bytes::Copied(bytes) => bytes.truncate(length),
            Bytes::Mapped(_, counted) => *counted = length.min(*counted),
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::Copied(bytes)
    }
}

impl From<Region> for Bytes {
    fn from(region: Region) -> Self {
        let length = region.len();
        Bytes::Mapped(region, length)
    }
}

impl Deref for Bytes {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Copied(bytes) => bytes,
            Bytes::Mapped(region, counted) => &region[..*counted],
        }
    }
}

/// A region of this process, and of those that forked it.
struct Mapped {
    size: usize,
    /// Whether a fork may have left another process that maps the same memory.
    is_everybodys: bool,
}

/// By address. Held over a fork, so that both sides find it whole.
static MAPPED: Spin<BTreeMap<usize, Mapped>> = Spin::new(BTreeMap::new());

/// Sees to forks from now on.
fn before_forks() {
    static ONCE: Once = Once::new();
    // SAFETY: three functions that live as long as the process. Without them nothing would be given back: see below.
    ONCE.call_once(|| unsafe {
        libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork));
    });
}

unsafe extern "C" fn before_fork() {
    let mut mapped = MAPPED.lock();
    for (start, region) in mapped.iter_mut() {
        // SAFETY: mapped, since it is listed; the contents do not change, they only become the process's own.
        let copied = unsafe { libc::madvise(*start as *mut libc::c_void, region.size, libc::MADV_POPULATE_WRITE) };
        region.is_everybodys |= copied != 0;
    }
    // Both sides let go of it.
    std::mem::forget(mapped);
}

unsafe extern "C" fn after_fork() {
    MAPPED.break_after_fork();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Arc<Memory> {
        let file = Arc::new(Memory::create(2, 0, 0).unwrap());
        Arc::new(Memory::open(file, 0).unwrap())
    }

    /// Through a stretch.
    fn sent(memory: &Arc<Memory>, bytes: &[u8]) -> Region {
        let mut parcel = Parcel::write(memory, &[bytes]).unwrap();
        let region = Region::open(memory, parcel.label()).unwrap();
        parcel.is_sent();
        region
    }

    fn held(memory: &Memory) -> u64 {
        status(memory.file().as_fd()).unwrap().held
    }

    #[test]
    fn what_is_written_is_mapped_and_kept_and_given_back() {
        let memory = memory();
        let before = held(&memory);
        let bytes: Vec<u8> = (0..3 * PAGE + 6).map(|at| at as u8).collect();
        let mut parcel = Parcel::write(&memory, &[&bytes[..100], &bytes[100..]]).unwrap();
        let region = Region::open(&memory, parcel.label()).unwrap();
        parcel.is_sent();
        drop(parcel);
        assert_eq!(*region, bytes);
        assert_eq!(held(&memory), before + 4 * PAGE);
        // SAFETY: nobody else has the region.
        unsafe { region.as_ptr().write(7) };
        assert_eq!(region[0], 7);
        let stretch = region.stretch;
        drop(region);
        // The next one has the memory of the last, and sees nothing of it.
        assert!(memory.header().stretches.any_kept());
        let next = sent(&memory, &[1; 9000]);
        assert!(next.stretch == stretch && *next == [1; 9000]);
        assert_eq!(held(&memory), before + 4 * PAGE);
        // One that is much smaller has its own.
        let small = sent(&memory, &[2; 10]);
        assert_ne!(small.stretch, stretch);
        drop((next, small));
        assert_eq!(held(&memory), before + 5 * PAGE);
        // Large ones are kept in place of small ones.
        drop(sent(&memory, &[3; 100 * PAGE as usize]));
        assert_eq!(held(&memory), before + 101 * PAGE);
        Stretches::give_back(&memory);
        assert_eq!(held(&memory), before);
    }

    #[test]
    fn not_more_is_kept_than_there_are_places() {
        let memory = memory();
        let before = held(&memory);
        let regions: Vec<_> = (0..5).map(|at| sent(&memory, &[at; PAGE as usize])).collect();
        assert!(regions.iter().enumerate().all(|(at, region)| **region == [at as u8; PAGE as usize]));
        drop(regions);
        assert_eq!(held(&memory), before + 2 * PAGE);
    }

    #[test]
    fn what_is_not_sent_is_gone() {
        let memory = memory();
        let before = held(&memory);
        drop(Parcel::write(&memory, &[&[1; 100_000]]));
        assert_eq!(held(&memory), before);
    }

    #[test]
    fn numbers_are_not_believed() {
        let memory = memory();
        let parcel = Parcel::write(&memory, &[&[1; 100_000]]).unwrap();
        let refused = |number: u64, length: u64| {
            let mut label = [0; LABEL];
            label[..8].copy_from_slice(&number.to_le_bytes());
            label[8..].copy_from_slice(&length.to_le_bytes());
            Region::open(&memory, label).is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)
        };
        let Stretch { first, pages } = parcel.stretch;
        let number = |first, pages| Stretch { first, pages }.number();
        assert!(!refused(number(first, pages), 100_000));
        // No pages, nothing, more than there are, not written, beyond all numbers.
        for (number, length) in [
            (number(first, 0), 1),
            (number(first, pages), 0),
            (number(first, pages), pages * PAGE + 1),
            (number(first, 2 * pages), 2 * pages * PAGE),
            (number(first + pages, 1), 1),
            (u64::MAX, PAGE),
            (number(first, pages), u64::MAX),
        ] {
            assert!(refused(number, length), "{number:x} {length}");
        }
        // A reader that gives back what nobody has: it is written there, or elsewhere.
        for number in [u64::MAX, 1, number(1 << 35, 25)] {
            memory.header().stretches.free[0].store(number, Ordering::Relaxed);
            assert!(Parcel::write(&memory, &[&[1; 100_000]]).is_some());
        }
    }

    #[test]
    fn a_region_outlives_its_channel() {
        let memory = memory();
        let region = sent(&memory, &[5; 100_000]);
        drop(memory);
        assert!(region.iter().all(|byte| *byte == 5));
    }

    #[test]
    fn a_forked_child_keeps_what_its_parent_lets_go() {
        let memory = memory();
        let region = sent(&memory, &[5; 100_000]);
        let mut ends = [0; 2];
        // SAFETY: the child calls nothing but what may be called between fork and exit in a process with threads.
        let child = unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            libc::fork()
        };
        if child == 0 {
            // SAFETY: as above; waits until the parent has let go.
            unsafe {
                libc::close(ends[1]);
                libc::read(ends[0], [0u8; 1].as_mut_ptr().cast(), 1);
                libc::_exit(i32::from(region.iter().any(|byte| *byte != 5)));
            }
        }
        drop(region);
        drop(sent(&memory, &[6; 100_000]));
        // SAFETY: our descriptors and our child.
        unsafe {
            libc::close(ends[0]);
            libc::close(ends[1]);
            let mut status = -1;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            assert_eq!(status, 0);
        }
    }
}
