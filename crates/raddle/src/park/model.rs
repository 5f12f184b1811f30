//! Sleeping on a word of the loom model: no clock, no signals, no spurious wake-ups of its own.

use super::clock::Deadline;
use crate::primitive::Futex;

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) enum Slept {
    Woken,
    TimedOut,
    Interrupted,
}

pub(crate) fn sleep(word: &Futex, expected: u32, _deadline: Deadline) -> Slept {
    word.model_sleep(expected);
    Slept::Woken
}

pub(crate) fn wake(word: &Futex, count: u32) {
    word.model_wake(count);
}
