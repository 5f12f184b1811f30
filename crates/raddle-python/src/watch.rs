//! Waits for other processes, as those see them: posts what a thread waits for, and looks for circles.

use crate::gil::{self, PyHost};
use crate::semlock::{PyArena, describe};
use crate::{observe, site};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use raddle::ipc::Arena;
use raddle::ipc::watch::{Awaited, Party, Posted, Wait};
use raddle::park::{Deadline, Stop, now};
use std::sync::Arc;

const MILLISECOND: u64 = 1_000_000;
/// When a wait is posted and first looked at, in nanoseconds.
const FIRST_LOOK: u64 = 60 * MILLISECOND;
/// How soon what was found is looked at again: it has to last to be believed.
const AGAIN: u64 = 40 * MILLISECOND;
/// The longest time between two looks.
const LAST_PAUSE: u64 = 400 * MILLISECOND;
/// A circle that others might break has to last this long.
const LIKELY_AFTER: u64 = 300 * MILLISECOND;
/// The party that raises leaves the others the time to find the circle before it breaks it.
const OTHERS_FIRST: u64 = 600 * MILLISECOND;

/// One wait without a deadline.
pub(crate) struct Watch<'a> {
    host: &'a PyHost,
    awaited: Awaited,
    /// What the lock is in; `None` for a process.
    arena: Option<Arc<Arena>>,
    since: u64,
    next: u64,
    pause: u64,
    posted: Option<Posted>,
    seen: Vec<(u32, u64, u64)>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(host: &'a PyHost, awaited: Awaited, arena: Option<Arc<Arena>>, deadline: Deadline) -> Self {
        let since = now();
        let next = if deadline.is_timed() { u64::MAX } else { since + FIRST_LOOK };
        Self { host, awaited, arena, since, next, pause: FIRST_LOOK, posted: None, seen: Vec::new() }
    }

    /// Called detached, before each sleep: when to call again.
    ///
    /// # Errors
    /// [`Stop::Interrupted`] if a deadlock is to be raised.
    pub(crate) fn look(&mut self) -> Result<Deadline, Stop> {
        let time = now();
        if time < self.next {
            return Ok(Deadline::at(self.next));
        }
        if self.posted.is_none() {
            self.posted = self.host.attached(|| self.post());
            if self.posted.is_none() {
                self.next = u64::MAX;
            }
        }
        let Some(posted) = &self.posted else { return Ok(Deadline::NEVER) };
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        // A thread that waits for a Lock it has may wait for whom it has told to release it.
        match posted.circle().filter(|parties| parties.len() > 1) {
            None => {
                self.seen.clear();
                self.next = now() + self.pause;
            }
            Some(parties) => {
                let proven = parties.iter().all(|party| matches!(party.awaited, Awaited::RLock(_)));
                let mut key: Vec<_> = parties.iter().map(|party| (party.pid, party.thread, party.since)).collect();
                key.sort_unstable();
                let raises = proven && self.host.raises() && is_last(&parties);
                let lasts = match (proven, raises) {
                    (false, _) => LIKELY_AFTER,
                    (true, true) => OTHERS_FIRST,
                    (true, false) => 0,
                };
                if key == self.seen && time - self.since > lasts {
                    // Told once; the posted rows stay for the others.
                    self.next = u64::MAX;
                    return self.tell(proven, &parties, raises).map(|()| Deadline::NEVER);
                }
                self.seen = key;
                self.next = now() + AGAIN;
            }
        }
        Ok(Deadline::at(self.next))
    }

    /// Attached. `None` if nobody could see it.
    fn post(&self) -> Option<Posted> {
        // SAFETY: attached, as the caller says.
        let py = unsafe { Python::assume_attached() };
        let told = describe(py).unwrap_or_else(|error| {
            gil::unraisable(py, error, std::ptr::null_mut());
            None
        });
        let (who, others) = told?;
        let mut arenas: Vec<Arc<Arena>> = self.arena.iter().cloned().collect();
        for other in others.iter().filter_map(|other| other.cast_into::<PyArena>().ok()) {
            let other = other.get().core();
            if !arenas.iter().any(|arena| Arc::ptr_eq(arena, other)) {
                arenas.push(Arc::clone(other));
            }
        }
        let place = site::here().map(raddle::trace::Site::place);
        let place = place.map_or_else(String::new, |place| format!("{}:{}", place.file, place.line));
        let wait = Wait { since: self.since, is_main: gil::is_main_thread(), who: &who, site: &place };
        (!arenas.is_empty()).then(|| Posted::new(arenas, &wait, self.awaited))
    }

    fn tell(&self, proven: bool, parties: &[Party], raises: bool) -> Result<(), Stop> {
        self.host.attached(|| {
            // SAFETY: attached by the line above.
            let py = unsafe { Python::assume_attached() };
            observe::tell_of_processes(py, self.host, proven, || rows(py, parties), raises)
        })
    }
}

/// Whether the first party is the one that closed the circle: that one raises.
fn is_last(parties: &[Party]) -> bool {
    parties.iter().max_by_key(|party| (party.since, party.pid, party.thread)) == parties.first()
}

/// `(pid, thread, who, since, kind, process waited for, lock waited for, where, where that was taken)` for each party.
fn rows<'py>(py: Python<'py>, parties: &[Party]) -> PyResult<Bound<'py, PyAny>> {
    let list = PyList::empty(py);
    for party in parties {
        let (kind, target) = match party.awaited {
            Awaited::Lock(_) => ("Lock.acquire", None),
            Awaited::RLock(_) => ("RLock.acquire", None),
            Awaited::Exit(pid) => ("Process.join", Some(pid)),
        };
        let since = party.since as f64 / 1e9;
        let (who, what) = (party.who.as_str(), party.what.as_deref());
        let (site, taken) = (party.site.as_deref(), party.taken.as_deref());
        let row: Bound<'_, PyTuple> =
            (party.pid, party.thread, who, since, kind, target, what, site, taken).into_pyobject(py)?;
        list.append(row)?;
    }
    Ok(list.into_any())
}
