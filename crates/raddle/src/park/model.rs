//! Sleeping on a word of the loom model: no clock, no signals, no spurious wake-ups of its own.
//!
//! What ends a sleep early is the host's [`interrupted`](super::Host::interrupted), asked twice in each sleep:
//! before it, where an error means that a deadline or a signal came and no wake-up; and after being woken,
//! where an error uses that wake-up up. The second is more than the kernel does to us, and harder to survive.

use super::{Host, Stop};
use crate::primitive::Futex;

pub(crate) fn sleep(word: &Futex, expected: u32, host: &dyn Host) -> Result<(), Stop> {
    let mut result = Ok(());
    word.model_sleep(expected, || {
        result = host.interrupted();
        result.is_err()
    });
    result
}
