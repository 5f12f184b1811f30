//! A barrier with the phases of Python's `threading.Barrier`.
//!
//! Parties arrive (filling), leave together (draining), and only then may the next round arrive. A
//! barrier that is reset while parties wait sends these away and is whole again when they are gone.

use super::record_longest;
use crate::park::{Key, Parking, Signal, Stop};
use crate::primitive::{AtomicU32, Ordering, Spin};
use crate::trace::{Claim, Kind, Resource, Waker};

/// What a barrier is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for parties.
    #[default]
    Filling,
    /// Letting them go.
    Draining,
    /// Sending them away, to start afresh.
    Resetting,
    /// Broken: everybody is sent away until it is reset.
    Broken,
}

/// The barrier is broken, or was reset while this thread waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierError;

/// What became of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The last round is still leaving: wait with this key and arrive again.
    Blocked(Key),
    /// In, with this index; wait for the others.
    Waiting(usize),
    /// In as the last: run the action, then [`Barrier::open`] or [`Barrier::abort`].
    Last(usize),
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    count: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Barrier {
    parties: usize,
    state: Spin<State>,
    changed: Signal,
    longest: AtomicU32,
}

impl Barrier {
    /// For this many parties, at least one.
    pub fn new(parties: usize) -> Self {
        Self { parties, state: Spin::new(State::default()), changed: Signal::new(), longest: AtomicU32::new(0) }
    }

    /// How many parties it is for.
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// How many wait in it while it fills; 0 otherwise.
    pub fn waiting(&self) -> usize {
        let state = self.state.lock();
        if state.phase == Phase::Filling { state.count } else { 0 }
    }

    /// Whether it is broken.
    pub fn is_broken(&self) -> bool {
        self.state.lock().phase == Phase::Broken
    }

    /// Arrives, if the last round has left. Never blocks.
    ///
    /// # Errors
    /// [`BarrierError`] if it is broken.
    pub fn arrive(&self) -> Result<Arrival, BarrierError> {
        let key = self.changed.key();
        let mut state = self.state.lock();
        match state.phase {
            Phase::Broken => Err(BarrierError),
            Phase::Draining | Phase::Resetting => Ok(Arrival::Blocked(key)),
            // Full, and the last to arrive still runs the action.
            Phase::Filling if state.count >= self.parties => Ok(Arrival::Blocked(key)),
            Phase::Filling => {
                let index = state.count;
                state.count += 1;
                Ok(if state.count == self.parties { Arrival::Last(index) } else { Arrival::Waiting(index) })
            }
        }
    }

    /// Waits for a change after `key`.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_changed(&self, key: Key, parking: &mut Parking<'_>) -> Result<(), Stop> {
        self.changed.wait(key, parking)
    }

    /// Lets the round go. Called by the last to arrive, after the action.
    pub fn open(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Filling {
            state.phase = Phase::Draining;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// What it is doing, and the key to wait for a change of that.
    ///
    /// After [`Arrival::Waiting`], a thread waits while this is [`Phase::Filling`]; it may go if it is
    /// [`Phase::Draining`], and has met a [`BarrierError`] otherwise. Either way it [`leave`](Self::leave)s.
    pub fn phase(&self) -> (Phase, Key) {
        let key = self.changed.key();
        (self.state.lock().phase, key)
    }

    /// The counterpart of a successful [`arrive`](Self::arrive), whatever came of it.
    pub fn leave(&self) {
        let mut state = self.state.lock();
        state.count -= 1;
        let last = state.count == 0 && matches!(state.phase, Phase::Draining | Phase::Resetting);
        if last {
            state.phase = Phase::Filling;
        }
        drop(state);
        if last {
            self.changed.notify_all();
        }
    }

    /// Breaks it: everybody in it, and everybody to come, is sent away.
    pub fn abort(&self) {
        self.state.lock().phase = Phase::Broken;
        self.changed.notify_all();
    }

    /// Sends away those in it and makes it whole.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.phase = match (state.count, state.phase) {
            (0, _) => Phase::Filling,
            (_, Phase::Filling | Phase::Broken) => Phase::Resetting,
            (_, phase) => phase,
        };
        drop(state);
        self.changed.notify_all();
    }

    /// The longest wait so far, in seconds.
    pub fn longest_wait(&self) -> f32 {
        f32::from_bits(self.longest.load(Ordering::Relaxed))
    }
}

impl Resource for Barrier {
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }

    fn waited(&self, nanoseconds: u64) {
        record_longest(&self.longest, nanoseconds);
    }
}
