//! Deadlines in order: the heap behind timers and schedulers, and the one thread that serves timers.

pub mod heap;
#[cfg(not(raddle_loom))]
mod service;

pub use heap::{DeadlineHeap, Ticket};
#[cfg(not(raddle_loom))]
pub use service::Timers;
