//! A gate for what must not be under way when the process forks: a child has what its parent's other threads were
//! doing, half done, and nobody to end it.

use crate::park::{Parking, Signal, Stop};
use crate::primitive::{Spin, const_unless_loom};

#[derive(Debug)]
struct State {
    inside: usize,
    /// How many want it closed.
    closed: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Gate {
    state: Spin<State>,
    /// Whoever waits looks again.
    changed: Signal,
}

/// Inside a [`Gate`], until dropped.
#[derive(Debug)]
pub struct Inside<'a>(&'a Gate);

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    const_unless_loom! {
        /// Open, with nobody inside.
        pub fn new() -> Self {
            Self { state: Spin::new(State { inside: 0, closed: 0 }), changed: Signal::new() }
        }
    }

    /// Goes in. Blocks while it is closed.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn enter(&self, parking: &mut Parking<'_>) -> Result<Inside<'_>, Stop> {
        self.wait(parking, |state| {
            let open = state.closed == 0;
            state.inside += usize::from(open);
            open
        })?;
        Ok(Inside(self))
    }

    /// Lets nobody in until it is opened as often as it was closed. Blocks until nobody is inside.
    ///
    /// # Errors
    /// [`Stop`]; it is closed, with somebody inside.
    pub fn close(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        self.state.lock().closed += 1;
        self.wait(parking, |state| state.inside == 0)
    }

    /// Opens it.
    pub fn open(&self) {
        let mut state = self.state.lock();
        // Closed before a fork that this process is the child of, it is open already.
        state.closed = state.closed.saturating_sub(1);
        drop(state);
        self.changed.notify_all();
    }

    fn wait(&self, parking: &mut Parking<'_>, mut is_so: impl FnMut(&mut State) -> bool) -> Result<(), Stop> {
        loop {
            let key = self.changed.key();
            if is_so(&mut self.state.lock()) {
                return Ok(());
            }
            self.changed.wait(key, parking)?;
        }
    }

    /// In a forked child: whoever was inside is no more, and it is open.
    #[cfg(not(raddle_loom))]
    pub fn after_fork_in_child(&self) {
        self.state.lock_after_fork(|state| *state = State { inside: 0, closed: 0 });
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.inside -= 1;
        let is_last = state.inside == 0 && state.closed > 0;
        drop(state);
        if is_last {
            self.0.changed.notify_all();
        }
    }
}
