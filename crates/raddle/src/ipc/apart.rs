//! Large messages, apart from the rings: each in a stretch of the channel's file that no other message ever uses.
//!
//! A ring is copied in and out, and used again. A stretch is written once, by the system itself, which needs not zero the
//! memory before; the reader maps it, and keeps it for as long as it likes: nothing is copied out. What it changes there is
//! its own (the mapping is private), and when it lets go, the memory goes back to the system.
//!
//! That would take the memory from a forked child as well, whose mapping is of the same file. So before a fork every
//! mapping is made the process's own altogether, by copying.
//!
//! The file's memory goes with the last process that has it open: what a killed reader had is freed with its channel. So
//! this is for channels with one process on each side, whose end is the channel's.
#![allow(unsafe_code)]

use super::memory::{Damaged, checked, retried, size_of_file};
use crate::primitive::Spin;
use std::collections::BTreeMap;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::{Arc, Once, Weak};

/// Where the stretches of lane 0 begin, and how far from there those of lane 1 do. Rings are far below.
const BEYOND: u64 = 1 << 60;
const LANE: u64 = 1 << 61;

const PAGE: u64 = 4096;

/// No message is longer.
const LONGEST: u64 = 1 << 39;

/// How many bytes of a record say where a message is.
pub(crate) const LABEL: usize = 16;

/// A stretch of a file.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    offset: u64,
    length: u64,
}

impl Stretch {
    fn give_back(self, file: &OwnedFd) {
        let flags = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;
        let (offset, length) = (self.offset as libc::off_t, self.length.next_multiple_of(PAGE) as libc::off_t);
        // SAFETY: a descriptor and a range. Memory that cannot be given back is kept.
        let _ = retried(|| unsafe { libc::fallocate(file.as_raw_fd(), flags, offset, length) });
    }
}

/// A message that has been written, and not sent yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Parcel {
    file: Arc<OwnedFd>,
    stretch: Stretch,
    sent: bool,
}

impl Parcel {
    /// Writes a message to a stretch of a lane, the `claimed` bytes from its start; how many bytes it takes is asked for
    /// by `claim`. `None` if the system does not take it: then it has to go through a ring.
    pub(crate) fn write(
        file: &Arc<OwnedFd>,
        lane: u64,
        parts: &[&[u8]],
        claim: impl FnOnce(u64) -> u64,
    ) -> Option<Self> {
        let length = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        if length == 0 || length > LONGEST || !files_may_grow() {
            return None;
        }
        let claimed = claim(length.next_multiple_of(PAGE));
        let end = claimed.checked_add(length)?;
        if end > LANE || !claimed.is_multiple_of(PAGE) {
            return None;
        }
        let stretch = Stretch { offset: BEYOND + lane * LANE + claimed, length };
        let parcel = Self { file: Arc::clone(file), stretch, sent: false };
        let mut at = stretch.offset;
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                // SAFETY: a descriptor, and bytes to read from.
                let written =
                    unsafe { libc::pwrite(file.as_raw_fd(), rest.as_ptr().cast(), rest.len(), at as libc::off_t) };
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
        label[..8].copy_from_slice(&self.stretch.offset.to_le_bytes());
        label[8..].copy_from_slice(&self.stretch.length.to_le_bytes());
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
            self.stretch.give_back(&self.file);
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
    stretch: Stretch,
    /// Not kept open: where the channel is gone, its memory goes with the last mapping.
    file: Weak<OwnedFd>,
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
    pub(crate) fn open(file: &Arc<OwnedFd>, lane: u64, label: [u8; LABEL]) -> io::Result<Region> {
        let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidData, Damaged(what)));
        let (offset, length) = label.split_at(8);
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        let stretch = Stretch { offset: number(offset), length: number(length) };
        let first = BEYOND + lane * LANE;
        let inside = (first..first + LANE).contains(&stretch.offset)
            && stretch.offset.is_multiple_of(PAGE)
            && (1..=LONGEST).contains(&stretch.length);
        if !inside || stretch.offset + stretch.length > size_of_file(file.as_fd())?.0 {
            return wrong("a large message where none can be");
        }
        // All of it must have been written: to map more would have the system find memory for it.
        // SAFETY: a descriptor. Nobody uses the file's own position.
        let hole = unsafe { libc::lseek(file.as_raw_fd(), stretch.offset as libc::off_t, libc::SEEK_HOLE) };
        if !u64::try_from(hole).is_ok_and(|hole| hole >= stretch.offset + stretch.length) {
            return wrong("a large message that was not written");
        }
        before_forks();
        let size = usize::try_from(stretch.length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // Listed and mapped in one step for who forks.
        let mut mapped = MAPPED.lock();
        // SAFETY: a new mapping at an address of the system's choice, of a file that cannot shrink.
        let start = unsafe {
            libc::mmap(null_mut(), size, access, libc::MAP_PRIVATE, file.as_raw_fd(), stretch.offset as libc::off_t)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        mapped.insert(start as usize, Mapped { size, is_everybodys: false });
        drop(mapped);
        // SAFETY: the mapping. It only saves the faults.
        unsafe { libc::madvise(start, size, libc::MADV_POPULATE_READ) };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Region { start, stretch, file: Arc::downgrade(file) })
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
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.stretch.length as usize) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let known = MAPPED.lock().remove(&(self.start.as_ptr() as usize));
        // SAFETY: mapped by `open`; no reference outlives `self`.
        let _ = checked(unsafe { libc::munmap(self.start.as_ptr().cast(), self.stretch.length as usize) });
        if let Some(file) = self.file.upgrade()
            && known.is_some_and(|known| !known.is_everybodys)
        {
            self.stretch.give_back(&file);
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
    use crate::ipc::Memory;

    fn parcel(file: &Arc<OwnedFd>, claimed: u64, parts: &[&[u8]]) -> Parcel {
        Parcel::write(file, 0, parts, |_| claimed).unwrap()
    }

    fn held(file: &OwnedFd) -> u64 {
        size_of_file(file.as_fd()).unwrap().1
    }

    #[test]
    fn what_is_written_is_mapped_and_given_back() {
        let file = Arc::new(Memory::create(2, 0, 0).unwrap());
        let before = held(&file);
        let bytes: Vec<u8> = (0..3 * PAGE).map(|at| at as u8).collect();
        let mut parcel = parcel(&file, 0, &[&bytes, b"behind"]);
        let region = Region::open(&file, 0, parcel.label()).unwrap();
        parcel.is_sent();
        drop(parcel);
        assert_eq!(region[..bytes.len()], bytes);
        assert_eq!(&region[bytes.len()..], b"behind");
        assert!(held(&file) >= before + 4 * PAGE);
        // SAFETY: nobody else has the region.
        unsafe { region.as_ptr().write(7) };
        assert_eq!(region[0], 7);
        drop(region);
        assert_eq!(held(&file), before);
    }

    #[test]
    fn what_is_not_sent_is_gone() {
        let file = Arc::new(Memory::create(1, 0, 0).unwrap());
        let before = held(&file);
        drop(parcel(&file, 0, &[&[1; 100_000]]));
        assert_eq!(held(&file), before);
    }

    #[test]
    fn labels_are_not_believed() {
        let file = Arc::new(Memory::create(2, 0, 0).unwrap());
        let parcel = parcel(&file, PAGE, &[&[1; 100_000]]);
        let refused = |offset: u64, length: u64, lane| {
            let mut label = [0; LABEL];
            label[..8].copy_from_slice(&offset.to_le_bytes());
            label[8..].copy_from_slice(&length.to_le_bytes());
            Region::open(&file, lane, label).is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)
        };
        let offset = parcel.stretch.offset;
        assert!(!refused(offset, 100_000, 0));
        // Not in this lane, not at a page, nothing, more than there is, before it, in a ring, beyond all numbers.
        for (offset, length, lane) in [
            (offset, 100_000, 1),
            (offset + 8, 8, 0),
            (offset, 0, 0),
            (offset, 200_000, 0),
            (offset - PAGE, 8, 0),
            (0, PAGE, 0),
            (u64::MAX - PAGE + 1, PAGE, 0),
            (offset, u64::MAX, 0),
        ] {
            assert!(refused(offset, length, lane), "{offset} {length} {lane}");
        }
    }

    #[test]
    fn a_region_outlives_its_channel() {
        let file = Arc::new(Memory::create(1, 0, 0).unwrap());
        let mut parcel = parcel(&file, 0, &[&[5; 100_000]]);
        let region = Region::open(&file, 0, parcel.label()).unwrap();
        parcel.is_sent();
        drop((parcel, file));
        assert!(region.iter().all(|byte| *byte == 5));
    }

    #[test]
    fn a_forked_child_keeps_what_its_parent_gives_back() {
        let file = Arc::new(Memory::create(1, 0, 0).unwrap());
        let mut parcel = parcel(&file, 0, &[&[5; 100_000]]);
        let region = Region::open(&file, 0, parcel.label()).unwrap();
        parcel.is_sent();
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
