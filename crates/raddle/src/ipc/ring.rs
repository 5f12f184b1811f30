//! The memory of a ring: words and bytes, copied in and out at positions that only grow.
#![allow(unsafe_code)]

use std::ptr::NonNull;

/// Records begin at multiples of this many bytes.
pub(crate) const WORD: u64 = 8;

/// How many bytes a message takes in a ring.
pub(crate) fn padded(length: u64) -> u64 {
    length.next_multiple_of(WORD)
}

/// Where a ring is, as a slice that is copied to and from.
pub(crate) struct Ring {
    pub(crate) start: *mut u8,
    /// A power of two.
    pub(crate) size: u64,
}

impl Ring {
    /// The word at a position, which is a multiple of eight.
    pub(crate) fn word(&self, at: u64) -> u64 {
        debug_assert!(at.is_multiple_of(WORD));
        // SAFETY: inside the ring, since its size is a power of two and a multiple of eight; aligned.
        unsafe { self.start.add((at & (self.size - 1)) as usize).cast::<u64>().read_volatile() }
    }

    pub(crate) fn put_word(&self, at: u64, word: u64) {
        debug_assert!(at.is_multiple_of(WORD));
        // SAFETY: as above.
        unsafe { self.start.add((at & (self.size - 1)) as usize).cast::<u64>().write_volatile(word) }
    }

    /// Copies in; at most the ring's size.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        let from = (at & (self.size - 1)) as usize;
        let first = bytes.len().min(self.size as usize - from);
        debug_assert!(bytes.len() as u64 <= self.size);
        // SAFETY: both parts are inside the ring, and the bytes are the caller's own.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(from), first);
            std::ptr::copy_nonoverlapping(bytes.as_ptr().add(first), self.start, bytes.len() - first);
        }
    }

    /// Copies out; at most the ring's size.
    ///
    /// # Safety
    /// `to` has room for `length` bytes, outside of the ring.
    pub(crate) unsafe fn read(&self, at: u64, to: NonNull<u8>, length: usize) {
        let from = (at & (self.size - 1)) as usize;
        let first = length.min(self.size as usize - from);
        // SAFETY: both parts are inside the ring, and the room is the caller's to give.
        unsafe {
            std::ptr::copy_nonoverlapping(self.start.add(from), to.as_ptr(), first);
            std::ptr::copy_nonoverlapping(self.start, to.as_ptr().add(first), length - first);
        }
    }
}
