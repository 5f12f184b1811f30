//! Pinning the calling thread, and with it the threads it starts, to one core.

use std::mem::{MaybeUninit, size_of};

/// Gives the thread its cores back when dropped.
pub struct Pinned(libc::cpu_set_t);

/// Pins the calling thread to the last core it may use.
pub fn to_one_core() -> Pinned {
    let mut before = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the pointer is to a cpu_set_t of the size given; the kernel writes no more than that.
    let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), before.as_mut_ptr()) };
    assert_eq!(failed, 0, "sched_getaffinity failed");
    // SAFETY: zeroed is a valid empty set, and the call above has filled it.
    let before = unsafe { before.assume_init() };
    // SAFETY: CPU_ISSET only reads, and the index is below the set's size.
    let core = (0..libc::CPU_SETSIZE as usize).rev().find(|core| unsafe { libc::CPU_ISSET(*core, &before) });
    let mut one = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: as above: a zeroed set is valid, and the index is that of a core in `before`.
    let one = unsafe {
        libc::CPU_SET(core.expect("a thread may use some core"), one.assume_init_mut());
        one.assume_init()
    };
    set(&one);
    Pinned(before)
}

fn set(cores: &libc::cpu_set_t) {
    // SAFETY: the pointer is to a valid cpu_set_t of the size given, which the kernel only reads.
    let failed = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), cores) };
    assert_eq!(failed, 0, "sched_setaffinity failed");
}

impl Drop for Pinned {
    fn drop(&mut self) {
        set(&self.0);
    }
}
