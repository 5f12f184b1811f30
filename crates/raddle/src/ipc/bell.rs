//! What makes a channel's descriptor readable, and tells of its end.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// What a descriptor says whose other end is gone, or which is gone itself.
pub(crate) const HUNG_UP: libc::c_short = libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;

/// What makes a channel's descriptor readable.
#[derive(Clone, Debug)]
pub enum Bell {
    /// An eventfd that all processes share.
    Event(Arc<OwnedFd>),
    /// An end of a pair of stream sockets: the other end is the other party's. Its hang-up is the channel's.
    Socket(Arc<OwnedFd>),
}

impl Bell {
    /// A new eventfd.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn event() -> io::Result<OwnedFd> {
        // SAFETY: flags only; a descriptor that is given back is new.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        match self {
            Bell::Event(fd) | Bell::Socket(fd) => fd.as_raw_fd(),
        }
    }

    /// Makes the descriptor of whoever receives readable.
    pub(crate) fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // A bell that cannot take more rings already; one whose other end has gone is heard by nobody.
        // SAFETY: a descriptor, and bytes to read from.
        unsafe {
            match self {
                Bell::Event(fd) => {
                    libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len());
                }
                Bell::Socket(fd) => {
                    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                    libc::send(fd.as_raw_fd(), one.as_ptr().cast(), 1, flags);
                }
            }
        }
    }

    /// Makes the descriptor not readable.
    pub(crate) fn silence(&self) {
        let mut bytes = [0u8; 8];
        // SAFETY: a descriptor, and bytes to write to.
        unsafe {
            match self {
                Bell::Event(fd) => {
                    libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len());
                }
                Bell::Socket(fd) => {
                    let (fd, most) = (fd.as_raw_fd(), bytes.len());
                    while libc::recv(fd, bytes.as_mut_ptr().cast(), most, libc::MSG_DONTWAIT) == most as isize {}
                }
            }
        }
    }

    /// Whether the other party has no end any more, in no process.
    pub(crate) fn is_hung_up(&self) -> bool {
        let Bell::Socket(fd) = self else { return false };
        let mut asked = libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: one descriptor; does not wait.
        let answered = unsafe { libc::poll(&mut asked, 1, 0) };
        answered > 0 && asked.revents & HUNG_UP != 0
    }
}
