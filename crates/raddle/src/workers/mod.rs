//! Worker processes: a task goes to one of them, a reply comes back, and a death costs the task that was run.
//!
//! Each worker has two channels of its own ([`crate::ipc`]), one for tasks and one for replies. A *dispatcher*, a thread
//! of this crate, reads replies, keeps the workers' lines filled and sees deaths; it runs no code of the host's but
//! [`Host`]. Whoever submits a task sends it itself if a worker can take it.
//!
//! How processes are started, and what the bytes mean, is the host's affair: it is told which worker to start, and gives
//! back a process's number and descriptors ([`Workers::enlist`]).
//!
//! - `plan`: which worker gets which task, and what a death costs. No input, no output.
//! - `dispatch`: channels, signals and time around it.
//! - `watch`: what the dispatcher waits for.

mod dispatch;
mod plan;
mod times;
mod watch;

pub use dispatch::{Event, Host, Loss, Reply, Settings, Workers};
pub use plan::{Counts, Id, Lost, Message, Phase, Plan, Replied, Rules, Slot, Step, Why};
pub use times::Measured;

/// What a message from a worker is: above its tag's [`SHIFT`].
pub mod kind {
    /// To a worker: a task.
    pub const TASK: u8 = 0;
    /// To a worker: it is to end.
    pub const END: u8 = 1;
    /// From a worker: what a task came to.
    pub const RESULT: u8 = 0;
    /// From a worker: a task failed.
    pub const RAISED: u8 = 1;
    /// From a worker: it takes tasks from now on.
    pub const READY: u8 = 2;
    /// From a worker: a task was asked to stop, and did.
    pub const STOPPED: u8 = 3;
    /// From a worker: it will never take any.
    pub const UNFIT: u8 = 4;
    /// From a worker: it cannot take the next task, and why. It ends.
    pub const REFUSED: u8 = 5;
}

/// By how much the kind of a message is shifted in its tag; below is the host's part.
pub const SHIFT: u8 = 3;

/// Behind the bytes of a task: its number, eight bytes, the lowest first.
pub const NUMBER: usize = 8;
/// Behind the bytes of a reply: for how many nanoseconds the task ran, in as many bytes, and then its number.
pub const TAIL: usize = 8 + NUMBER;

/// The signal by which a worker is told to look whether its task is to stop.
pub fn stop_signal() -> i32 {
    libc::SIGRTMAX() - 3
}
