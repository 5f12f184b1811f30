//! Channels between processes, in anonymous shared memory.
//!
//! Any number of processes write and read; messages have any size; a process may be killed between any two
//! instructions and costs at most the message it was writing. `README.md` beside this file has the protocol.
//!
//! - `process`: which process this is, whether another lives.
//! - `side`: lock, event and committed state of the writers, and of the readers.
//! - `memory`: the anonymous file and its mappings.
//! - `ring`: words and bytes in a piece of it.
//! - `apart`: large messages, each in a stretch of the file of its own.
//! - `bell`: what makes a descriptor readable.
//! - `channel`: records in rings, on top of these.
//! - `semlock`: locks and semaphores; `seats`: who waits for a condition; `arena`: the anonymous file that they are
//!   in; `watch`: who waits for whom, in circles; `knot`: whether all wait for each other; `holders`: who has a file.

#[cfg(not(raddle_loom))]
mod apart;
#[cfg(not(raddle_loom))]
mod arena;
#[cfg(not(raddle_loom))]
mod bell;
#[cfg(not(raddle_loom))]
mod channel;
#[cfg(not(raddle_loom))]
mod holders;
#[cfg(not(raddle_loom))]
pub mod knot;
#[cfg(not(raddle_loom))]
mod memory;
#[cfg_attr(raddle_loom, allow(dead_code, reason = "a model has its own processes"))]
mod process;
#[cfg(not(raddle_loom))]
mod ring;
pub mod seats;
pub mod semlock;
pub mod side;
#[cfg(not(raddle_loom))]
pub mod watch;

#[cfg(not(raddle_loom))]
pub use apart::{Bytes, Parcel, Region};
#[cfg(not(raddle_loom))]
pub use arena::{Arena, SemLock, Waiter, Waiters};
#[cfg(not(raddle_loom))]
pub use bell::Bell;
#[cfg(not(raddle_loom))]
pub use channel::{Channel, Limits, RecvError, SendError, Statistics};
#[cfg(not(raddle_loom))]
pub use memory::{Damaged, Memory, fetch_memory};
