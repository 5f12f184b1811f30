//! Which worker gets which task, and what a death costs: decisions only, no input or output.
//!
//! A worker has a *line* of tasks that were sent to it, in order; it runs the first. Short tasks are sent ahead of need,
//! so that a worker never waits for the next one; if a worker is then kept by a long task, what stands behind it is taken
//! back for another. A task leaves the plan once: by a reply, by the death of the worker that had taken it, or because
//! it was dropped before it was sent.

use crate::ipc::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// A task's number. Never used twice in one plan.
pub type Id = u64;

/// A worker's number, likewise.
pub type Slot = u64;

/// How much work a worker is given in advance, in nanoseconds of its pace.
const AHEAD: u64 = 4_000_000;
/// The most tasks in a worker's line.
const DEEPEST: u64 = 128;
/// After how long another try is made to take tasks back, in nanoseconds.
const KEPT: u64 = 10_000_000;
/// After how long a start that has failed is tried again, in nanoseconds.
const START_AGAIN: u64 = 100_000_000;
/// How many workers may end while a task is being handed to them.
const MOST_UNTAKEN: u32 = 30;
/// About what it takes a sleeping worker to wake up, in nanoseconds.
const WAKE: u64 = 50_000;
/// So many tasks in each worker's line last for a while.
const FLOWING: usize = 8;
/// After how long in its first task a worker's other tasks may be given to an idle one, in nanoseconds.
const STUCK: u64 = 1_000_000;

/// A task that waits to be sent.
#[derive(Debug)]
pub struct Message {
    /// The caller's tag.
    pub tag: u8,
    /// What the worker gets.
    pub bytes: Bytes,
}

/// A task, as the plan knows it.
#[derive(Debug)]
struct Entry<T> {
    /// The caller's handle.
    pub task: T,
    /// What to send, while it has not been sent, or may have to be sent again.
    message: Option<Message>,
    /// How often it may still be sent again after the death of its worker.
    retries: u32,
    /// How long it may run, in nanoseconds.
    limit: Option<u64>,
    /// Whether the caller was told that it begins.
    begun: bool,
    /// How many workers ended while it was next in their line, and had not taken it.
    untaken: u32,
    submitted: u64,
}

/// A task that was replied to.
#[derive(Debug)]
pub struct Replied<T> {
    /// The caller's handle.
    pub task: T,
    /// Why it was being stopped, if it was.
    pub why: Option<Why>,
    /// When it was submitted.
    pub submitted: u64,
}

/// What a worker is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has not said yet that it is ready.
    Starting,
    /// It takes tasks.
    Ready,
    /// It finishes its line, and is told to end then.
    Retiring,
    /// It was told to end.
    Ending,
}

/// Why a worker is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its task was cancelled.
    Cancelled,
    /// Its task's time was up.
    Late,
    /// It used more memory than it may.
    Memory,
}

#[derive(Debug)]
struct Worker {
    phase: Phase,
    /// Sent and not replied to, in order.
    line: VecDeque<Id>,
    /// How many tasks it has been sent, those taken back not counted.
    given: u64,
    /// How long a task takes it, in nanoseconds, on average; 0 if that is not known.
    pace: u64,
    /// When it began the first task of its line, as far as can be told from here.
    began: u64,
    /// The task on account of which it is being stopped.
    stopping: Option<(Id, Why)>,
    /// Nothing can be sent to it before.
    busy_until: u64,
    /// Nothing can be taken back before.
    keeps_until: u64,
    /// Whether it has channels.
    can_be_reached: bool,
}

impl Worker {
    /// Whether it has tasks that it does not run.
    fn has_spare(&self) -> bool {
        self.line.len() > usize::from(self.phase != Phase::Starting)
    }

    /// When these are to be given to others.
    fn is_stuck_at(&self) -> u64 {
        if self.phase == Phase::Starting { self.keeps_until } else { (self.began + STUCK).max(self.keeps_until) }
    }

    /// Whether it can be sent a task now. One that is starting gets its first.
    fn takes(&self, now: u64) -> bool {
        let may = self.phase == Phase::Ready || (self.phase == Phase::Starting && self.line.is_empty());
        may && self.can_be_reached && self.stopping.is_none() && self.busy_until <= now
    }
}

/// How a plan is to decide.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The most workers.
    pub workers: usize,
    /// As many are kept, whether there is work for them or not.
    pub least: usize,
    /// After so many tasks a worker is replaced; 0 is never.
    pub tasks_per_worker: u64,
    /// A worker idle for so long ends, in nanoseconds; 0 is never.
    pub idle: u64,
    /// How many workers in a row may end before they are ready.
    pub failures: u32,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this task to this worker, and say whether that went well: [`Plan::sent`], [`Plan::unsent`].
    Send(Slot, Id),
    /// Take back what this worker has not begun: [`Plan::taken_back`] for each.
    TakeBack(Slot),
    /// Tell this worker to end.
    End(Slot),
}

/// What a death has cost.
#[derive(Debug)]
pub struct Lost<T> {
    /// The task that the worker ran, unless that is run again. More than one only if its channel was damaged.
    pub tasks: Vec<T>,
    /// Why it was stopped, if it was.
    pub why: Option<Why>,
    /// Whether the worker had not been ready.
    pub unready: bool,
}

/// Counts of what has become of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks submitted.
    pub submitted: u64,
    /// Replies.
    pub replied: u64,
    /// Tasks lost with their worker.
    pub lost: u64,
    /// Tasks sent again after a death.
    pub retried: u64,
    /// Tasks dropped before they were sent.
    pub dropped: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Plan<T> {
    rules: Rules,
    tasks: HashMap<Id, Entry<T>, BuildHasherDefault<Mixer>>,
    pending: VecDeque<Id>,
    workers: BTreeMap<Slot, Worker>,
    next_id: Id,
    next_slot: Slot,
    /// Workers that ended before they were ready, in a row.
    failures: u32,
    /// None is to be started before.
    start_after: u64,
    closed: bool,
    counts: Counts,
}

impl<T> Plan<T> {
    /// With no workers and no tasks.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            tasks: HashMap::default(),
            pending: VecDeque::new(),
            workers: BTreeMap::new(),
            next_id: 1,
            next_slot: 1,
            failures: 0,
            start_after: 0,
            closed: false,
            counts: Counts::default(),
        }
    }

    /// The rules, to be read or changed at any time.
    pub fn rules(&mut self) -> &mut Rules {
        &mut self.rules
    }

    /// What has become of tasks so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many tasks have not been sent.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// How many tasks have neither been replied to nor lost nor dropped.
    pub fn unfinished(&self) -> usize {
        self.tasks.len()
    }

    /// All workers, those included that have been asked for or told to end.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// How many workers are ready, and how many of these have nothing to do.
    pub fn ready(&self) -> (usize, usize) {
        let ready = self.workers.values().filter(|worker| worker.phase == Phase::Ready);
        ready.fold((0, 0), |(all, idle), worker| (all + 1, idle + usize::from(worker.line.is_empty())))
    }

    /// No more tasks come.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether no more tasks come.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether there is nothing left: closed, no tasks, no workers.
    pub fn is_over(&self) -> bool {
        self.closed && self.tasks.is_empty() && self.workers.is_empty()
    }

    /// Whether so many workers in a row ended before they were ready that starting more makes no sense.
    pub fn is_hopeless(&self) -> bool {
        self.failures > self.rules.failures
    }

    // Tasks

    /// A new task, last in line. What to send is kept until it has been sent, and beyond that if it may be retried.
    pub fn submit(&mut self, task: T, message: Message, retries: u32, limit: Option<u64>, now: u64) -> Id {
        let id = self.next_id;
        self.next_id += 1;
        self.counts.submitted += 1;
        let message = Some(message);
        let entry = Entry { task, message, retries, limit, begun: false, untaken: 0, submitted: now };
        self.tasks.insert(id, entry);
        self.pending.push_back(id);
        id
    }

    /// A task that is in the plan.
    pub fn task(&self, id: Id) -> Option<&T> {
        self.tasks.get(&id).map(|entry| &entry.task)
    }

    /// What to send for a task, and whether the caller has to be asked first if it may begin.
    pub fn message(&self, id: Id) -> Option<(&Message, bool)> {
        let entry = self.tasks.get(&id)?;
        Some((entry.message.as_ref()?, !entry.begun))
    }

    /// The caller was told that it begins.
    pub fn begun(&mut self, id: Id) {
        if let Some(entry) = self.tasks.get_mut(&id) {
            entry.begun = true;
        }
    }

    /// What to send for a task that was submitted without.
    pub fn put_message(&mut self, id: Id, message: Message) {
        if let Some(entry) = self.tasks.get_mut(&id) {
            entry.message = Some(message);
        }
    }

    /// The task that has waited longest, taken out.
    pub fn drop_oldest(&mut self) -> Option<T> {
        // One that began once is another's to end.
        let at = self.pending.iter().position(|id| !self.tasks[id].begun)?;
        let id = self.pending.remove(at)?;
        self.forget(id)
    }

    /// All tasks that have not begun, taken out.
    pub fn drop_pending(&mut self) -> Vec<T> {
        std::iter::from_fn(|| self.drop_oldest()).collect()
    }

    /// All tasks, taken out, whatever has become of them.
    pub fn drop_all(&mut self) -> Vec<T> {
        self.pending.clear();
        for worker in self.workers.values_mut() {
            worker.line.clear();
        }
        self.tasks.drain().map(|(_, entry)| entry.task).collect()
    }

    fn forget(&mut self, id: Id) -> Option<T> {
        let entry = self.tasks.remove(&id)?;
        self.counts.dropped += 1;
        Some(entry.task)
    }

    /// The task was sent: it is the last of the worker's line.
    pub fn sent(&mut self, slot: Slot, id: Id, now: u64) {
        self.pending.retain_front(id);
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        if worker.line.is_empty() {
            worker.began = now;
        }
        worker.line.push_back(id);
        worker.given += 1;
        worker.busy_until = 0;
        if let Some(entry) = self.tasks.get_mut(&id) {
            entry.begun = true;
            if entry.retries == 0 {
                entry.message = None;
            }
        }
    }

    /// The task was not sent, and is not to be: it was cancelled, or cannot be sent at all.
    pub fn unsent(&mut self, id: Id) -> Option<T> {
        self.pending.retain_front(id);
        self.forget(id)
    }

    /// A task that the worker had not begun was taken back: it is first in line again. False if it was not the worker's.
    pub fn taken_back(&mut self, slot: Slot, id: Id, message: Message) -> bool {
        let Some(worker) = self.workers.get_mut(&slot) else { return false };
        let Some(at) = worker.line.iter().rposition(|other| *other == id) else { return false };
        let Some(entry) = self.tasks.get_mut(&id) else { return false };
        worker.line.remove(at);
        worker.given = worker.given.saturating_sub(1);
        entry.message = Some(message);
        // Numbers tell in which order tasks came.
        let place = self.pending.iter().position(|other| *other > id).unwrap_or(self.pending.len());
        self.pending.insert(place, id);
        true
    }

    /// Nothing could be taken back from a worker: the next try is to be made later.
    pub fn kept(&mut self, slot: Slot, now: u64) {
        if let Some(worker) = self.workers.get_mut(&slot) {
            worker.keeps_until = now + KEPT;
        }
    }

    /// A worker replied to tasks, in this order. Gives back what they were; None for a task that it did not have.
    pub fn replied(&mut self, slot: Slot, ids: &[Id], now: u64) -> Vec<Option<Replied<T>>> {
        let Some(worker) = self.workers.get_mut(&slot) else { return ids.iter().map(|_| None).collect() };
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let known = worker.line.iter().position(|other| other == id);
            found.push(known.and_then(|at| {
                worker.line.remove(at);
                let why = worker.stopping.take_if(|(whom, _)| whom == id).map(|(_, why)| why);
                self.counts.replied += 1;
                self.tasks.remove(id).map(|Entry { task, submitted, .. }| Replied { task, why, submitted })
            }));
        }
        if !ids.is_empty() {
            let each = (now.saturating_sub(worker.began) / ids.len() as u64).max(1);
            worker.pace = if worker.pace == 0 { each } else { (3 * worker.pace + each) / 4 };
            worker.began = now;
        }
        found
    }

    // Workers

    /// How many workers are to be started now, and their numbers. Each must end in [`died`](Self::died).
    pub fn start(&mut self, at_least: usize, now: u64) -> Vec<Slot> {
        if self.is_hopeless() || now < self.start_after {
            return Vec::new();
        }
        let usable = self.workers.values().filter(|worker| matches!(worker.phase, Phase::Starting | Phase::Ready));
        let (mut free, mut all) = (0, 0);
        for worker in usable {
            all += 1;
            free += usize::from(worker.line.is_empty());
        }
        let wanted = self.pending.len().saturating_sub(free);
        let room = self.rules.workers.saturating_sub(all);
        let least = if self.closed { 0 } else { at_least.max(self.rules.least).saturating_sub(all) };
        (0..wanted.max(least).min(room)).map(|_| self.enlist()).collect()
    }

    /// No process could be started for a worker: the next try is to be made later.
    pub fn not_started(&mut self, slot: Slot, now: u64) {
        self.workers.remove(&slot);
        self.start_after = now + START_AGAIN;
    }

    /// A worker ended that had not taken this task, the next in its line. Too often, and the task is lost with it.
    pub fn blame(&mut self, slot: Slot, id: Id) -> Option<T> {
        if self.workers.get(&slot).is_none_or(|worker| worker.phase == Phase::Starting) {
            return None;
        }
        let entry = self.tasks.get_mut(&id)?;
        entry.untaken += 1;
        if entry.untaken <= MOST_UNTAKEN {
            return None;
        }
        self.pending.retain(|other| *other != id);
        self.counts.lost += 1;
        self.tasks.remove(&id).map(|entry| entry.task)
    }

    fn enlist(&mut self) -> Slot {
        let slot = self.next_slot;
        self.next_slot += 1;
        let worker = Worker {
            phase: Phase::Starting,
            line: VecDeque::new(),
            given: 0,
            pace: 0,
            began: 0,
            stopping: None,
            busy_until: 0,
            keeps_until: 0,
            can_be_reached: false,
        };
        self.workers.insert(slot, worker);
        slot
    }

    /// Messages can be sent to the worker from now on.
    pub fn is_reachable(&mut self, slot: Slot) {
        if let Some(worker) = self.workers.get_mut(&slot) {
            worker.can_be_reached = true;
        }
    }

    /// The worker takes tasks from now on.
    pub fn is_ready(&mut self, slot: Slot, now: u64) {
        if let Some(worker) = self.workers.get_mut(&slot).filter(|worker| worker.phase == Phase::Starting) {
            worker.phase = Phase::Ready;
            worker.began = now;
            self.failures = 0;
        }
    }

    /// What a worker is up to, and how many tasks are in its line.
    pub fn phase(&self, slot: Slot) -> Option<(Phase, usize)> {
        self.workers.get(&slot).map(|worker| (worker.phase, worker.line.len()))
    }

    /// The worker that has this task in its line, and whether it is the first there.
    pub fn whereabouts(&self, id: Id) -> Option<(Slot, bool)> {
        self.workers.iter().find_map(|(slot, worker)| {
            let at = worker.line.iter().position(|other| *other == id)?;
            Some((*slot, at == 0))
        })
    }

    /// The first task of a worker's line.
    pub fn first(&self, slot: Slot) -> Option<Id> {
        self.workers.get(&slot)?.line.front().copied()
    }

    /// A worker is being stopped on account of the first task of its line.
    pub fn stopping(&mut self, slot: Slot, why: Why) {
        if let Some(worker) = self.workers.get_mut(&slot)
            && let Some(id) = worker.line.front()
        {
            worker.stopping = Some((*id, why));
        }
    }

    /// A worker has ended. What it had not begun was taken back before; what is left in its line it had taken.
    pub fn died(&mut self, slot: Slot) -> Lost<T> {
        let Some(mut worker) = self.workers.remove(&slot) else {
            return Lost { tasks: Vec::new(), why: None, unready: false };
        };
        let unready = worker.phase == Phase::Starting;
        if unready {
            self.failures += 1;
        }
        let why = worker.stopping.map(|(_, why)| why);
        let mut lost = Vec::new();
        // One that was to stop, and had not been taken, does not begin elsewhere.
        if let Some((id, _)) = worker.stopping
            && let Some(at) = self.pending.iter().position(|other| *other == id)
        {
            self.pending.remove(at);
            self.counts.lost += 1;
            lost.extend(self.tasks.remove(&id).map(|entry| entry.task));
        }
        let first = worker.line.pop_front();
        // A worker takes one task at a time. If more are missing, they never reached it: they are first in line again.
        for id in worker.line.into_iter().rev() {
            if self.tasks.get(&id).is_some_and(|entry| entry.message.is_some()) {
                self.pending.push_front(id);
            } else if let Some(entry) = self.tasks.remove(&id) {
                self.counts.lost += 1;
                lost.push(entry.task);
            }
        }
        if let Some(id) = first {
            let entry = self.tasks.get_mut(&id);
            if let Some(entry) = entry.filter(|entry| entry.retries > 0 && why.is_none_or(|why| why == Why::Memory)) {
                entry.retries -= 1;
                self.counts.retried += 1;
                self.pending.push_front(id);
            } else if let Some(entry) = self.tasks.remove(&id) {
                self.counts.lost += 1;
                lost.push(entry.task);
            }
        }
        Lost { tasks: lost, why, unready }
    }

    // Decisions

    /// What to do next, if anything.
    pub fn step(&self, now: u64) -> Option<Step> {
        if let Some(id) = self.pending.front() {
            if let Some(slot) = self.best(now) {
                return Some(Step::Send(slot, *id));
            }
        } else if self.workers.values().any(|worker| self.is_idle(worker, now))
            && let Some(slot) = self.stuck(now)
        {
            return Some(Step::TakeBack(slot));
        }
        self.superfluous(now).map(Step::End)
    }

    /// The worker that is to get the next task: one that is busy, if it will be through sooner than an idle one has woken
    /// up; else one that is idle; else the one with the shortest line that is not full.
    fn best(&self, now: u64) -> Option<Slot> {
        let mut idle: Option<(Slot, bool)> = None;
        let mut best: Option<(usize, Slot)> = None;
        for (slot, worker) in &self.workers {
            if !worker.takes(now) || self.is_used_up(worker) {
                continue;
            }
            let length = worker.line.len();
            if length == 0 {
                let ready = worker.phase == Phase::Ready;
                if idle.is_none_or(|(_, other)| ready && !other) {
                    idle = Some((*slot, ready));
                }
            } else if (length as u64) < self.depth(worker) {
                if worker.pace.saturating_mul(length as u64) < WAKE && now.saturating_sub(worker.began) < WAKE {
                    return Some(*slot);
                }
                if best.is_none_or(|(shortest, _)| length < shortest) {
                    best = Some((length, *slot));
                }
            }
        }
        idle.map(|(slot, _)| slot).or(best.map(|(_, slot)| slot))
    }

    /// Whether a worker would begin a task at once.
    fn is_idle(&self, worker: &Worker, now: u64) -> bool {
        let ready = worker.phase == Phase::Ready && worker.line.is_empty();
        ready && worker.takes(now) && !self.is_used_up(worker)
    }

    fn is_used_up(&self, worker: &Worker) -> bool {
        self.rules.tasks_per_worker > 0 && worker.given >= self.rules.tasks_per_worker
    }

    fn depth(&self, worker: &Worker) -> u64 {
        // A task with a limit of its own may end its worker: nothing stands behind it, so that it is the last in line.
        let limited = |id: &Id| self.tasks.get(id).is_none_or(|entry| entry.limit.is_some());
        if worker.pace == 0 || worker.line.back().is_some_and(limited) {
            return 1;
        }
        (AHEAD / worker.pace).clamp(1, DEEPEST)
    }

    /// Whether all workers have several tasks to do: none of them will need anything for a while.
    pub fn is_flowing(&self) -> bool {
        let mut ready = self.workers.values().filter(|worker| worker.phase == Phase::Ready).peekable();
        ready.peek().is_some() && ready.all(|worker| worker.line.len() >= FLOWING)
    }

    /// A worker with tasks behind one that takes long.
    fn stuck(&self, now: u64) -> Option<Slot> {
        let stuck = |worker: &Worker| worker.has_spare() && worker.is_stuck_at() <= now;
        let longest = self.workers.iter().filter(|(_, worker)| stuck(worker)).max_by_key(|(_, one)| one.line.len())?;
        Some(*longest.0)
    }

    /// A worker that is not wanted any more and has nothing to do.
    fn superfluous(&self, now: u64) -> Option<Slot> {
        let free = |worker: &Worker| {
            let told = matches!(worker.phase, Phase::Ready | Phase::Retiring);
            told && worker.line.is_empty() && worker.busy_until <= now
        };
        let done = self.closed && self.tasks.is_empty();
        let ready =
            self.workers.values().filter(|worker| matches!(worker.phase, Phase::Starting | Phase::Ready)).count();
        let idle = |worker: &Worker| self.rules.idle > 0 && now.saturating_sub(worker.began) >= self.rules.idle;
        self.workers.iter().find_map(|(slot, worker)| {
            let too_many = ready > self.rules.workers && worker.phase == Phase::Ready;
            let over = done || self.is_used_up(worker) || worker.phase == Phase::Retiring || idle(worker) || too_many;
            (free(worker) && over).then_some(*slot)
        })
    }

    /// Nothing can be sent to a worker for a while.
    pub fn busy(&mut self, slot: Slot, until: u64) {
        if let Some(worker) = self.workers.get_mut(&slot) {
            worker.busy_until = until;
        }
    }

    /// The worker was told to end.
    pub fn ending(&mut self, slot: Slot) {
        if let Some(worker) = self.workers.get_mut(&slot) {
            worker.phase = Phase::Ending;
            worker.busy_until = 0;
        }
    }

    /// A worker takes no more tasks.
    pub fn retire(&mut self, slot: Slot) {
        if let Some(worker) = self.workers.get_mut(&slot).filter(|worker| worker.phase == Phase::Ready) {
            worker.phase = Phase::Retiring;
        }
    }

    /// The workers whose first task has run for longer than it may.
    pub fn late(&self, now: u64) -> Vec<Slot> {
        let late = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.stopping.is_none() && self.limit(worker).is_some_and(|limit| limit <= now));
        late.map(|(slot, _)| *slot).collect()
    }

    fn limit(&self, worker: &Worker) -> Option<u64> {
        if worker.phase == Phase::Starting {
            return None;
        }
        Some(worker.began.saturating_add(self.tasks.get(worker.line.front()?)?.limit?))
    }

    /// When to decide again, if nothing happens before.
    pub fn next_look(&self, now: u64) -> Option<u64> {
        let idle_one = self.workers.values().any(|worker| self.is_idle(worker, now));
        let looks = self.workers.values().flat_map(|worker| {
            let stuck = (idle_one && worker.has_spare()).then(|| worker.is_stuck_at());
            let late = if worker.stopping.is_none() { self.limit(worker) } else { None };
            let is_idle = worker.phase == Phase::Ready && worker.line.is_empty() && self.rules.idle > 0;
            let busy = (worker.busy_until > now).then_some(worker.busy_until);
            [stuck, late, is_idle.then(|| worker.began + self.rules.idle), busy]
        });
        let short = !self.pending.is_empty() || (!self.closed && self.workers.len() < self.rules.least);
        let start = (self.start_after > now && short).then_some(self.start_after);
        looks.flatten().chain(start).min()
    }
}

/// Hashes numbers that are given one after the other, by nobody who could mean harm.
#[derive(Debug, Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio's bits: neighbours end up far apart.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

/// What a line of tasks can do besides.
trait Line {
    /// Takes this task out; it is nearly always the first.
    fn retain_front(&mut self, id: Id);
}

impl Line for VecDeque<Id> {
    fn retain_front(&mut self, id: Id) {
        if self.front() == Some(&id) {
            self.pop_front();
        } else if let Some(at) = self.iter().position(|other| *other == id) {
            self.remove(at);
        }
    }
}
