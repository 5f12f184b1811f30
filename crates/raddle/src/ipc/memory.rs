//! The anonymous file behind a channel, and where it is mapped.
//!
//! A file has one or two *lanes*, each a channel: a header and a row of rings, each twice as large as the one before.
//! Rings that are not in use are holes and cost nothing. The file is sealed against shrinking, so that a mapping that
//! was checked once can always be read; it grows when a larger ring is first needed. Mappings stay for as long as the
//! `Memory`: they cost addresses only.
#![allow(unsafe_code)]

use super::apart::Stretches;
use super::semlock::Text;
use super::side::Side;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// How many rings a lane may have; the largest has 1 TiB.
pub(crate) const RINGS: usize = 25;
/// The size of the smallest ring, and of a header's share of the file.
pub(crate) const SMALLEST: u64 = 64 * 1024;
const HEADER: usize = 4096;
const MAGIC: u64 = u64::from_le_bytes(*b"raddle\x01\x01");

/// Shared memory that does not hold what it has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the shared memory of the channel is damaged: {}", self.0)
    }
}

impl std::error::Error for Damaged {}

/// A lane's header. Other processes write to it: atomics only, and nothing in it is trusted.
#[repr(C)]
pub(crate) struct Header {
    magic: AtomicU64,
    /// How many lanes the file has.
    lanes: AtomicU64,
    /// The most messages, and the most bytes of messages, that may wait; 0 for no bound.
    pub(crate) items: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Whether some process selects the descriptor by means of its own.
    pub(crate) selected: AtomicU64,
    /// A number that one process leaves for another.
    pub(crate) request: AtomicU64,
    pub(crate) stretches: Stretches,
    /// What the channel is called.
    pub(crate) name: Text<4>,
    pub(crate) writers: Side,
    pub(crate) readers: Side,
}

const _: () = assert!(size_of::<Header>() <= HEADER);

/// One lane of a channel's file, mapped.
#[derive(Debug)]
pub struct Memory {
    file: Arc<OwnedFd>,
    number: u64,
    lane: u64,
    lanes: u64,
    header: *const Header,
    rings: [AtomicPtr<u8>; RINGS],
}

// SAFETY: the header consists of atomics, and ring memory is only ever copied to and from, by whoever holds the lock
// of a side; what another process does to it is checked after it was copied.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

fn last_error() -> io::Error {
    io::Error::last_os_error()
}

pub(super) fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(last_error()) } else { Ok(result) }
}

pub(super) fn retried(mut call: impl FnMut() -> libc::c_int) -> io::Result<()> {
    loop {
        match checked(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|_| ()),
        }
    }
}

impl Memory {
    /// A new file with this many lanes, each with the same bounds.
    ///
    /// # Errors
    /// Of the operating system: no descriptor is free, no memory.
    pub fn create(lanes: u64, items: u64, bytes: u64) -> io::Result<OwnedFd> {
        // SAFETY: a C string and flags.
        let file = unsafe {
            let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
            OwnedFd::from_raw_fd(checked(libc::memfd_create(c"raddle-channel".as_ptr(), flags))?)
        };
        let size = 2 * lanes * SMALLEST;
        // SAFETY: a descriptor and a size.
        retried(|| unsafe { libc::ftruncate(file.as_raw_fd(), size as libc::off_t) })?;
        // SAFETY: a descriptor and seals.
        checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL) })?;
        for lane in 0..lanes {
            let header = map(&file, lane * HEADER as u64, HEADER)?.cast::<Header>();
            // SAFETY: freshly mapped, large enough, aligned to a page, and not known to anybody else yet.
            unsafe {
                header.write(Header {
                    magic: AtomicU64::new(MAGIC),
                    lanes: AtomicU64::new(lanes),
                    items: AtomicU64::new(items),
                    bytes: AtomicU64::new(bytes),
                    selected: AtomicU64::new(0),
                    request: AtomicU64::new(0),
                    stretches: Stretches::default(),
                    name: Text::default(),
                    writers: Side::new(),
                    readers: Side::new(),
                });
                libc::munmap(header.cast(), HEADER);
            }
        }
        Ok(file)
    }

    /// Maps one lane of a file that another process, or this one, has created.
    ///
    /// # Errors
    /// `InvalidData` if the file is not a channel's; else of the operating system.
    pub fn open(file: Arc<OwnedFd>, lane: u64) -> io::Result<Memory> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, Damaged(what));
        // SAFETY: a descriptor.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            return Err(wrong("the file may shrink"));
        }
        let Status { size, number, .. } = status(file.as_fd())?;
        if size < 2 * (lane + 1) * SMALLEST {
            return Err(wrong("the file is too short"));
        }
        let header: *const Header = map(&file, lane * HEADER as u64, HEADER)?.cast();
        let mut memory =
            Memory { file, number, lane, lanes: 0, header, rings: [const { AtomicPtr::new(null_mut()) }; RINGS] };
        let lanes = memory.header().lanes.load(Ordering::Relaxed);
        if memory.header().magic.load(Ordering::Relaxed) != MAGIC || !(1..=2).contains(&lanes) || lane >= lanes {
            return Err(wrong("no header"));
        }
        memory.lanes = lanes;
        Ok(memory)
    }

    /// Which lane of the file it is.
    pub(crate) fn lane(&self) -> u64 {
        self.lane
    }

    /// What tells the file from others.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The file.
    pub fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    #[inline]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: mapped for as long as `self`; a header is made of atomics, for which any bytes are valid.
        unsafe { &*self.header }
    }

    /// The size of a ring.
    #[inline]
    pub(crate) fn ring_size(ring: usize) -> u64 {
        SMALLEST << ring
    }

    fn offset(&self, ring: usize) -> u64 {
        (self.lanes + self.lane) * Self::ring_size(ring)
    }

    /// The memory of a ring, mapped on first use.
    ///
    /// # Errors
    /// `InvalidData` if the file has no such ring; else of the operating system.
    #[inline]
    pub(crate) fn ring(&self, ring: usize) -> io::Result<*mut u8> {
        let known = self.rings[ring].load(Ordering::Acquire);
        if known.is_null() { self.map_ring(ring) } else { Ok(known) }
    }

    #[cold]
    fn map_ring(&self, ring: usize) -> io::Result<*mut u8> {
        let size = Self::ring_size(ring) as usize;
        if status(self.file.as_fd())?.size < self.offset(ring) + size as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, Damaged("a ring beyond the file's end")));
        }
        let new = map(&self.file, self.offset(ring), size)?;
        match self.rings[ring].compare_exchange(null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(new),
            Err(other) => {
                // SAFETY: mapped above, and nobody has seen it.
                unsafe { libc::munmap(new.cast(), size) };
                Ok(other)
            }
        }
    }

    /// Makes sure that the file has this ring, and memory for bytes `from..to` of it. By who holds the writers' lock.
    ///
    /// # Errors
    /// Of the operating system: no memory, a limit on file sizes.
    pub(crate) fn provide(&self, ring: usize, from: u64, to: u64) -> io::Result<()> {
        let end = self.offset(ring) + Self::ring_size(ring);
        if status(self.file.as_fd())?.size < end {
            // SAFETY: a descriptor and a size. Only writers make the file larger, one at a time.
            retried(|| unsafe { libc::ftruncate(self.file.as_raw_fd(), end as libc::off_t) })?;
        }
        // Memory that is asked for is an error where there is none. Memory that is touched would be a signal.
        self.allocate(libc::FALLOC_FL_KEEP_SIZE, self.offset(ring) + from, to - from)
    }

    /// Gives the memory of a ring back to the system.
    pub(crate) fn give_back(&self, ring: usize) {
        let flags = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;
        // It is an optimization: memory that cannot be given back is kept.
        let _ = self.allocate(flags, self.offset(ring), Self::ring_size(ring));
    }

    fn allocate(&self, flags: libc::c_int, from: u64, size: u64) -> io::Result<()> {
        // SAFETY: a descriptor, flags and a range.
        retried(|| unsafe { libc::fallocate(self.file.as_raw_fd(), flags, from as libc::off_t, size as libc::off_t) })
    }

    /// Gives the memory of all rings back. Nothing may be read or written any more.
    pub(crate) fn give_all_back(&self) {
        for ring in 0..RINGS {
            self.give_back(ring);
        }
    }

    /// How many bytes of memory the file really has: no message can be longer.
    pub(crate) fn held(&self) -> io::Result<u64> {
        status(self.file.as_fd()).map(|status| status.held)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `open` and `map_ring` with these sizes; no reference to them outlives `self`.
        unsafe {
            libc::munmap(self.header.cast_mut().cast(), HEADER);
            for (ring, pointer) in self.rings.iter_mut().enumerate() {
                let pointer = *pointer.get_mut();
                if !pointer.is_null() {
                    libc::munmap(pointer.cast(), Self::ring_size(ring) as usize);
                }
            }
        }
    }
}

pub(super) fn map(file: &OwnedFd, offset: u64, size: usize) -> io::Result<*mut u8> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the system's choice.
    let address =
        unsafe { libc::mmap(null_mut(), size, access, libc::MAP_SHARED, file.as_raw_fd(), offset as libc::off_t) };
    if address == libc::MAP_FAILED { Err(last_error()) } else { Ok(address.cast()) }
}

/// From this size on it is quicker to ask for memory at once than to have it given page by page.
const AT_ONCE: usize = 2 << 20;

/// Has the system give the memory now that is about to be written, in large pages where it has them. It costs a tenth of
/// what touching it does, and changes nothing else: of errors, the writing will tell.
///
/// # Safety
/// All of it is the caller's, to be written to.
pub unsafe fn fetch_memory(start: std::ptr::NonNull<u8>, size: usize) {
    if size < AT_ONCE {
        return;
    }
    let page = HEADER;
    let first = (start.as_ptr() as usize).next_multiple_of(page);
    let whole = ((start.as_ptr() as usize + size) & !(page - 1)).saturating_sub(first);
    // SAFETY: whole pages inside of the caller's memory, whose contents neither call changes.
    unsafe {
        libc::madvise(first as *mut libc::c_void, whole, libc::MADV_HUGEPAGE);
        libc::madvise(first as *mut libc::c_void, whole, libc::MADV_POPULATE_WRITE);
    }
}

/// What the system says of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    pub(super) size: u64,
    /// How many bytes of memory it has.
    pub(super) held: u64,
    /// What tells it from others: its inode.
    pub(super) number: u64,
}

pub(super) fn status(file: BorrowedFd<'_>) -> io::Result<Status> {
    // SAFETY: zeros are a valid `stat`, which is then filled in.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a descriptor and a place to write to.
    checked(unsafe { libc::fstat(file.as_raw_fd(), &mut found) })?;
    Ok(Status { size: found.st_size as u64, held: found.st_blocks as u64 * 512, number: found.st_ino })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_channel_is_refused() {
        let refused = |file: OwnedFd, lane| Memory::open(Arc::new(file), lane).unwrap_err().kind();
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(refused(null.into(), 0), io::ErrorKind::InvalidData);
        let file = Memory::create(1, 0, 0).unwrap();
        assert_eq!(refused(file, 1), io::ErrorKind::InvalidData);
        let file = Memory::create(2, 0, 0).unwrap();
        assert!(Memory::open(Arc::new(file), 1).is_ok());
        // SAFETY: a C string and flags; the descriptor is new.
        let bare = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"x".as_ptr(), libc::MFD_ALLOW_SEALING)) };
        assert_eq!(refused(bare, 0), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_channel_does_not_shrink_and_gives_memory_back() {
        let file = Memory::create(1, 0, 0).unwrap();
        // SAFETY: a descriptor and a size.
        assert_eq!(unsafe { libc::ftruncate(file.as_raw_fd(), 0) }, -1);
        let memory = Memory::open(Arc::new(file), 0).unwrap();
        assert!(memory.ring(5).is_err());
        let before = memory.held().unwrap();
        memory.provide(5, 0, 1 << 20).unwrap();
        assert!(memory.held().unwrap() >= before + (1 << 20));
        assert!(memory.ring(5).is_ok());
        memory.give_back(5);
        assert_eq!(memory.held().unwrap(), before);
    }
}
