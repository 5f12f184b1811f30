//! Locks, conditions, queues, timers, futures and thread pools that know who waits for whom.
//!
//! The core of raddle, without Python. Every wait goes through one door ([`park`]), every object can say who
//! could end a wait for it ([`trace::Resource`]), and so a hang can be explained ([`detect`]).
//!
//! Linux only. After `fork`, the child calls [`park::after_fork_in_child`] first.
#![deny(unsafe_code)]

#[cfg(not(raddle_loom))]
pub mod detect;
pub mod future;
pub mod ipc;
pub mod park;
pub mod pool;
pub mod primitive;
pub mod queue;
pub mod sync;
pub mod thread;
pub mod timer;
pub mod trace;
#[cfg(not(raddle_loom))]
pub mod workers;
