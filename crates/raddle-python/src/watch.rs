//! Waits for other processes, as those see them: posts what a thread waits for, and looks for circles and knots.

use crate::gil::{self, PyHost};
use crate::observe::{self, kind_name};
use crate::semlock::{PyArena, describe};
use crate::site;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use raddle::detect;
use raddle::ipc::Arena;
use raddle::ipc::knot::Seeker;
use raddle::ipc::watch::{Awaited, Key, Party, Posted, Still, Wait, key_of};
use raddle::park::{Deadline, Host, Stop, Watcher, now};
use raddle::primitive::thread_token;
use raddle::trace::thread::{Stuck, Thread, all, by_token, standstill};
use raddle::trace::{Claim, Kind};
use std::sync::Arc;

const MILLISECOND: u64 = 1_000_000;
/// When a wait is posted and first looked at, in nanoseconds.
const FIRST_LOOK: u64 = 60 * MILLISECOND;
/// How soon what was found is looked at again: it has to last to be believed.
const AGAIN: u64 = 40 * MILLISECOND;
/// The longest time between two looks, and, of a wait that has lasted long, of those that are part of no circle.
const LAST_PAUSE: u64 = 400 * MILLISECOND;
const LONGEST_PAUSE: u64 = 2_000 * MILLISECOND;
/// A circle that others might break has to last this long.
const LIKELY_AFTER: u64 = 300 * MILLISECOND;
/// The party that raises leaves the others the time to find the circle before it breaks it.
const OTHERS_FIRST: u64 = 600 * MILLISECOND;

/// What a wait is for.
pub(crate) struct Sought<'a> {
    pub(crate) kind: Kind,
    pub(crate) awaited: Awaited,
    /// What it is in, if it is in one.
    pub(crate) arena: Option<&'a Arc<Arena>>,
    /// What it is called, where that is not noted in the arena.
    pub(crate) name: &'a dyn Fn() -> Option<String>,
    /// Whether it has not come: who waits may not have noticed yet.
    pub(crate) lacks: &'a dyn Fn() -> bool,
}

impl<'a> Sought<'a> {
    /// What others can see for themselves whether it has come.
    pub(crate) fn seen_by_all(kind: Kind, awaited: Awaited, arena: Option<&'a Arc<Arena>>) -> Self {
        Self { kind, awaited, arena, name: &|| None, lacks: &|| true }
    }
}

/// One wait, which is told to others if it has no deadline.
pub(crate) struct Watch<'a> {
    host: &'a PyHost,
    sought: Sought<'a>,
    /// The next look, on the clock; 0: it has not slept yet.
    next: u64,
    /// What a wait has that lasts: most do not.
    lasting: Option<Box<Lasting>>,
}

/// A wait that is told.
struct Lasting {
    since: u64,
    pause: u64,
    posted: Posted,
    /// Those of this process that wait for the calling thread in the end: the numbers of their waits, and their rows.
    behind: (Vec<u64>, Vec<Posted>),
    /// The numbers of all waits of this process, and for how long they have been found.
    standing: (Vec<u64>, Still),
    /// The circle that was found last, and when it was found first; the one that was told.
    found: (Key, u64),
    told: Key,
    seeker: Seeker,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(host: &'a PyHost, sought: Sought<'a>, deadline: Deadline) -> Self {
        Self { host, sought, next: if deadline.is_timed() { u64::MAX } else { 0 }, lasting: None }
    }

    /// Detached: says again that the wait lasts, and looks whether it will end.
    fn look_up(&mut self, since: u64, time: u64) -> Result<(), Stop> {
        // What was posted before a fork is the parent's.
        self.lasting.take_if(|lasting| !lasting.posted.is_own());
        // A task that is to be over at some time does not wait for ever.
        if self.lasting.is_none() && !self.host.limit().is_timed() {
            let posted = self.host.attached(|| self.post(since));
            self.lasting = posted.map(|posted| Box::new(Lasting::new(since, posted)));
        }
        match &mut self.lasting {
            Some(lasting) => lasting.look_up(self.host, &self.sought, &mut self.next, time),
            None => {
                self.next = u64::MAX;
                Ok(())
            }
        }
    }

    /// Attached. `None` if nobody could see it.
    fn post(&self, since: u64) -> Option<Posted> {
        // SAFETY: attached, as the caller says.
        let py = unsafe { Python::assume_attached() };
        let (who, others) = told_of(py, thread_token())?;
        let mut arenas: Vec<Arc<Arena>> = self.sought.arena.into_iter().cloned().collect();
        for other in others {
            if !arenas.iter().any(|arena| Arc::ptr_eq(arena, &other)) {
                arenas.push(other);
            }
        }
        let place = site::here().map(raddle::trace::Site::place);
        let site = place.map_or_else(String::new, |place| format!("{}:{}", place.file, place.line));
        let what = (self.sought.name)().unwrap_or_default();
        let wait = Wait {
            since,
            thread: thread_token() as u64,
            is_main: gil::is_main_thread(),
            call: kind_name(self.sought.kind),
            what: &what,
            who: &who,
            site: &site,
        };
        (!arenas.is_empty()).then(|| Posted::new(arenas, &wait, self.sought.awaited))
    }
}

impl Lasting {
    fn new(since: u64, posted: Posted) -> Self {
        Self {
            since,
            pause: FIRST_LOOK,
            posted,
            behind: Default::default(),
            standing: Default::default(),
            found: Default::default(),
            told: Key::new(),
            seeker: Seeker::default(),
        }
    }

    fn look_up(&mut self, host: &PyHost, sought: &Sought<'_>, next: &mut u64, time: u64) -> Result<(), Stop> {
        let last = if sought.awaited.is_of_somebody() {
            LAST_PAUSE
        } else {
            ((time - self.since) / 8).clamp(LAST_PAUSE, LONGEST_PAUSE)
        };
        self.pause = (self.pause * 2).min(last);
        *next = now() + self.pause;
        // `time` is from before this: until then at least nothing had come.
        if !(sought.lacks)() {
            return Ok(());
        }
        let posted = &self.posted;
        Thread::current().mark_told();
        stand(host, &mut self.standing, time);
        posted.confirm(time, self.standing.1);
        let circle = if sought.awaited.is_of_somebody() {
            post_those_behind(host, posted, &mut self.behind, time);
            // A thread that waits for a Lock it has may wait for whom it has told to release it.
            posted.circle().filter(|circle| circle.parties.len() > 1)
        } else {
            None
        };
        match circle {
            Some(circle) => {
                let parties = circle.parties;
                let proven =
                    parties.iter().all(|party| matches!(party.awaited, Awaited::RLock(_) | Awaited::OnlyThread(_)));
                let key = key_of(&parties);
                if key == self.told {
                    return Ok(());
                }
                *next = now() + AGAIN;
                if key != self.found.0 {
                    self.found = (key, now());
                    return Ok(());
                }
                let raises = proven && host.raises() && is_last(&parties);
                let lasts = match (proven, raises) {
                    (false, _) => LIKELY_AFTER,
                    (true, true) => OTHERS_FIRST,
                    (true, false) => 0,
                };
                if circle.confirmed >= self.found.1 && time - self.since > lasts {
                    self.told = key;
                    return tell(host, |py, host| {
                        observe::tell_of_processes(py, host, proven, || rows(py, &parties), raises)
                    });
                }
            }
            None => {
                self.found = Default::default();
                if self.standing.1.until == 0 || time - self.since < LIKELY_AFTER {
                    return Ok(());
                }
                if let Some(knot) = self.seeker.look(posted, self.since) {
                    return tell(host, |py, host| {
                        observe::tell_of_knot(py, host, &knot.key, || rows(py, &knot.parties))
                    });
                }
            }
        }
        Ok(())
    }
}

impl Watcher for Watch<'_> {
    /// Called detached.
    fn look(&mut self, since: u64) -> Result<Deadline, Stop> {
        if self.next == 0 {
            self.next = since + FIRST_LOOK;
        } else if self.next != u64::MAX {
            let time = now();
            if time >= self.next {
                self.look_up(since, time)?;
            }
        }
        Ok(Deadline::at(self.next))
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.lasting.is_some() {
            Thread::current().unmark_told();
        }
    }
}

/// What a thread and its process are called, and the arenas.
fn told_of(py: Python<'_>, thread: usize) -> Option<(String, Vec<Arc<Arena>>)> {
    let (who, arenas) = or_unraisable(py, describe(py, thread))?;
    let arenas = arenas.iter().filter_map(|arena| arena.cast_into::<PyArena>().ok());
    Some((who, arenas.map(|arena| Arc::clone(arena.get().core())).collect()))
}

/// What there is, if it could be had; else the error is told to nobody in particular.
fn or_unraisable<T: Default>(py: Python<'_>, result: PyResult<T>) -> T {
    result.unwrap_or_else(|error| {
        gil::unraisable(py, error, std::ptr::null_mut());
        T::default()
    })
}

/// Notes in `standing` whether all threads of this process wait, at `time` and ever since they did so first.
fn stand(host: &PyHost, standing: &mut (Vec<u64>, Still), time: u64) {
    let stand = standstill().filter(|stand| {
        // A deadlock within the process is told by its parties.
        detect::find_all().is_empty() && host.attached(|| observe::is_all_of_python(&stand.tokens))
    });
    match stand {
        None => *standing = Default::default(),
        Some(stand) if stand.numbers == standing.0 && stand.told == standing.1.told => standing.1.until = time,
        Some(stand) => *standing = (stand.numbers, Still { since: now(), until: 0, told: stand.told }),
    }
}

/// Posts the threads of this process that wait for the calling one, directly or not, each for one other.
fn post_those_behind(host: &PyHost, posted: &Posted, behind: &mut (Vec<u64>, Vec<Posted>), time: u64) {
    let me = Thread::current();
    let stuck: Vec<(Arc<Thread>, Stuck, u64)> = all()
        .into_iter()
        .filter_map(|thread| {
            let stuck = thread.stuck().filter(|stuck| stuck.claim >= Claim::Likely)?;
            let [waker] = stuck.wakers[..] else { return None };
            let next = by_token(waker.token, waker.epoch)?.id();
            Some((thread, stuck, next))
        })
        .collect();
    let leads_here = |start: u64| {
        let mut at = start;
        for _ in 0..=stuck.len() {
            if at == me.id() {
                return true;
            }
            match stuck.iter().find(|(thread, ..)| thread.id() == at) {
                Some((_, _, next)) => at = *next,
                None => return false,
            }
        }
        false
    };
    let found: Vec<_> = stuck.iter().filter(|(_, _, next)| leads_here(*next)).collect();
    let numbers: Vec<u64> = found.iter().map(|(_, stuck, _)| stuck.waiting.number).collect();
    if numbers != behind.0 {
        behind.1.clear();
        if !found.is_empty() {
            behind.1 = host.attached(|| {
                // SAFETY: attached by the line above.
                let py = unsafe { Python::assume_attached() };
                found.iter().filter_map(|(thread, stuck, _)| post_inside(py, posted, thread, stuck)).collect()
            });
        }
        behind.0 = numbers;
    }
    for row in &behind.1 {
        row.confirm(time, Still::default());
    }
}

/// Attached: posts a thread that waits for another one of this process.
fn post_inside(py: Python<'_>, posted: &Posted, thread: &Arc<Thread>, stuck: &Stuck) -> Option<Posted> {
    let (who, _) = told_of(py, thread.token())?;
    let site = or_unraisable(py, observe::place_of(py, thread.token()));
    let what = observe::name_of(py, thread, stuck.waiting.number);
    let waker = stuck.wakers.first()?.token as u64;
    let only = stuck.claim == Claim::Proven;
    let wait = Wait {
        since: stuck.waiting.since,
        thread: thread.token() as u64,
        is_main: gil::is_main(thread.token()),
        call: kind_name(stuck.waiting.kind),
        what: &what,
        who: &who,
        site: &site,
    };
    let awaited = if only { Awaited::OnlyThread(waker) } else { Awaited::Thread(waker) };
    Some(Posted::new(posted.arenas().to_vec(), &wait, awaited))
}

fn tell(host: &PyHost, tell: impl FnOnce(Python<'_>, &PyHost) -> Result<(), Stop>) -> Result<(), Stop> {
    host.attached(|| {
        // SAFETY: attached by the line above.
        let py = unsafe { Python::assume_attached() };
        tell(py, host)
    })
}

/// Whether the first party is, of those that could raise, the one that closed the circle: that one raises.
fn is_last(parties: &[Party]) -> bool {
    let could = parties.iter().filter(|party| !party.awaited.is_inside());
    could.max_by_key(|party| (party.since, party.pid, party.thread)) == parties.first()
}

/// `(pid, thread, who, since, call, process waited for, what is waited for, where, where that was taken)` for each party.
fn rows<'py>(py: Python<'py>, parties: &[Party]) -> PyResult<Bound<'py, PyAny>> {
    let list = PyList::empty(py);
    for party in parties {
        let target = match party.awaited {
            Awaited::Exit(pid) => Some(pid),
            _ => None,
        };
        let since = party.since as f64 / 1e9;
        let (who, call, what) = (party.who.as_str(), party.call.as_str(), party.what.as_deref());
        let (site, taken) = (party.site.as_deref(), party.taken.as_deref());
        let row: Bound<'_, PyTuple> =
            (party.pid, party.thread, who, since, call, target, what, site, taken).into_pyobject(py)?;
        list.append(row)?;
    }
    Ok(list.into_any())
}
