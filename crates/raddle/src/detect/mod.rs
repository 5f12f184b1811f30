//! Why nothing moves: deadlocks, found by those who wait.
//!
//! Reads [`crate::trace`] and nothing else; no primitive knows of it. `graph.rs` finds the threads that can
//! never go on, starting from one that waits; `order.rs` finds locks taken in both orders.

mod graph;
mod order;

pub use graph::{Deadlock, Party, find_all, find_from, is_stuck};
pub use order::{Inversion, acquired, forget, released};
