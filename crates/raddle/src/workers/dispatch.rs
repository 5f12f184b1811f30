//! The dispatcher: channels, signals and time around a plan.
#![allow(unsafe_code)]

use super::plan::{Counts, Id, Lost, Message, Phase, Plan, Replied, Rules, Slot, Step, Why};
use super::times::{Measured, Spent, Times};
use super::watch::{Process, Watch, spawn};
use super::{NUMBER, SHIFT, TAIL, kind, stop_signal};
use crate::ipc::{Bell, Bytes, Channel, RecvError, SendError, fetch_memory};
use crate::park::{Alone, Deadline, Parking, now};
use crate::trace::Kind;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long the dispatcher leaves a worker alone that is in the middle of writing.
const WRITING: u64 = 2_000_000;
/// How often the memory of workers is looked at, in nanoseconds.
const MEASURE: u64 = 50_000_000;
/// How long a lock of a dead worker may take to be mended.
const MENDING: u64 = 100_000_000;
/// After how long without news the host may see to what it owes, in nanoseconds.
const QUIET: u64 = 2_000_000;
/// How long the dispatcher lets replies gather while all workers have more to do, and how often before it looks for
/// anything else.
const NAP: Duration = Duration::from_micros(40);
const NAPS: u32 = 20;
/// How often a channel that another process is about to leave is tried.
const PATIENCE: u32 = 50;
/// How much is read from workers before it is delivered.
const BATCH: usize = 256;

/// What a worker answered.
#[derive(Debug)]
pub struct Reply {
    /// One of [`kind`].
    pub kind: u8,
    /// The host's part of the tag.
    pub tag: u8,
    /// The host's bytes.
    pub bytes: Bytes,
}

/// Why there will be no reply.
#[derive(Debug)]
pub enum Loss {
    /// It was cancelled before it began, or asked to stop before its worker had looked at it.
    Dropped,
    /// It could not be sent.
    Unsendable(io::Error),
}

/// What happens to workers.
#[derive(Debug)]
pub enum Event<T> {
    /// A process is to be started for this worker, and then enlisted, or [given up](Workers::give_up).
    Start(Slot),
    /// A worker has ended. To be waited for by the host.
    Died {
        /// The worker.
        slot: Slot,
        /// Its process.
        pid: i32,
        /// What that has cost.
        lost: Lost<T>,
        /// The memory it had when it was last looked at, in bytes.
        memory: Option<u64>,
        /// What was wrong with its messages, if something was.
        damaged: Option<io::Error>,
    },
    /// A worker's preparation failed: it will end.
    Unfit(Reply),
    /// Too many workers ended before they were ready: what was waiting.
    Hopeless(Vec<T>),
    /// Closed, and all tasks and workers have ended.
    Over,
}

/// Whose tasks these are. All of this is called by the dispatcher, or by whoever submits; nothing may wait.
pub trait Host: Send + Sync + 'static {
    /// A handle of a task.
    type Task: Send + 'static;

    /// A task is about to be sent; false if it was cancelled meanwhile. Called under the lock: takes none itself.
    fn begins(&self, task: &Self::Task) -> bool;
    /// A reply has come; and why its task was being stopped, if it was.
    fn replied(&self, task: Self::Task, reply: Reply, why: Option<Why>);
    /// There will be none.
    fn lost(&self, task: Self::Task, loss: Loss);
    /// Something else has happened.
    fn happened(&self, event: Event<Self::Task>);
    /// A round of deliveries is over.
    fn delivered(&self) {}
    /// Whether [`rest`](Self::rest) is to be called when nothing has happened for a while.
    fn owes(&self) -> bool {
        false
    }
    /// Nothing has happened for a while.
    fn rest(&self) {}
}

/// What may be set besides the rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// How long a task that is asked to stop has before its worker is killed, in nanoseconds.
    pub grace: u64,
    /// The most memory of a worker, in bytes; 0 is no bound.
    pub memory: u64,
}

/// A worker's channels and process.
struct Post {
    tasks: Channel,
    replies: Channel,
    process: Process,
    /// When it is to be killed.
    kill_at: Option<u64>,
    /// When it is to be looked at again, whatever its descriptor says.
    look_at: Option<u64>,
    /// Whether its descriptor will ring, and whether it has rung.
    armed: bool,
    heard: bool,
    memory: Option<u64>,
    /// What it had spent when it was ready.
    spent_before: Spent,
    damaged: Option<io::Error>,
    is_ignored: bool,
}

impl Post {
    /// What it has spent since it was ready.
    fn spent(&self) -> Spent {
        self.process.spent().since(self.spent_before)
    }

    /// Sends a message. A worker that is about to sleep may have the lock for some instructions.
    fn send(&self, tag: u8, parts: &[&[u8]]) -> Result<(), SendError> {
        let mut parcel = self.tasks.parcel(parts);
        for _ in 0..PATIENCE {
            let sent = match &mut parcel {
                Some(parcel) => self.tasks.try_send_parcel(tag, parcel),
                None => self.tasks.try_send(tag, parts),
            };
            match sent {
                Err(SendError::Busy) => std::thread::yield_now(),
                other => return other,
            }
        }
        Err(SendError::Busy)
    }
}

struct State<T> {
    plan: Plan<T>,
    posts: BTreeMap<Slot, Post>,
    settings: Settings,
    measured: u64,
    times: Times,
    hopeless: bool,
}

enum Delivery<T> {
    Reply(T, Reply, Option<Why>),
    Lost(T, Loss),
    Event(Event<T>),
}

type Deliveries<T> = Vec<Delivery<T>>;

/// See the module.
pub struct Workers<H: Host> {
    host: H,
    state: Mutex<State<H::Task>>,
    watch: Watch,
    dispatching: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// When the dispatcher will look up by itself.
    asleep_until: AtomicU64,
}

impl<H: Host> std::fmt::Debug for Workers<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").finish_non_exhaustive()
    }
}

impl<H: Host> Workers<H> {
    /// With no workers so far.
    ///
    /// # Errors
    /// Of the operating system: too many descriptors are open.
    pub fn new(host: H, rules: Rules, settings: Settings) -> io::Result<Arc<Self>> {
        let plan = Plan::new(rules);
        let state =
            State { plan, posts: BTreeMap::new(), settings, measured: 0, times: Times::default(), hopeless: false };
        Ok(Arc::new(Self {
            host,
            state: Mutex::new(state),
            watch: Watch::new()?,
            dispatching: AtomicBool::new(false),
            thread: Mutex::new(None),
            asleep_until: AtomicU64::new(0),
        }))
    }

    /// The host.
    pub fn host(&self) -> &H {
        &self.host
    }

    fn lock(&self) -> MutexGuard<'_, State<H::Task>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the dispatcher, if it does not run.
    ///
    /// # Errors
    /// Of the operating system: no more threads.
    pub fn dispatch(self: &Arc<Self>) -> io::Result<()> {
        if !self.dispatching.swap(true, Ordering::AcqRel) {
            let me = Arc::clone(self);
            match spawn("raddle-dispatch", move || me.run()) {
                Ok(thread) => *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread),
                Err(error) => {
                    self.dispatching.store(false, Ordering::Release);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Waits until the dispatcher is gone, which it nearly is after [`Event::Over`].
    pub fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    /// All descriptors that only this process is to have. For closing them in a forked child, where nothing else may be
    /// done with this object, not even dropping it.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let mut all = self.watch.descriptors().to_vec();
        for post in self.lock().posts.values() {
            all.extend([post.tasks.file().as_raw_fd(), post.tasks.bell().fd(), post.process.fd.as_raw_fd()]);
        }
        all
    }

    // Tasks

    /// Submits a task whose message is made of these parts; it is sent at once if a worker can take it. Its number.
    /// Whether workers are to be started for it, [`want`](Self::want) tells the caller, or the dispatcher the host later.
    pub fn submit(&self, task: H::Task, tag: u8, parts: &[&[u8]], retries: u32, limit: Option<u64>) -> Id {
        let mut out = Vec::new();
        let mut state = self.lock();
        let id = state.submit(&self.host, task, (tag, parts), retries, limit, &mut out);
        state.send_all(&self.host, now(), &mut out);
        let look = state.next_look();
        drop(state);
        self.deliver(out);
        self.look_up_at(look);
        id
    }

    /// Submits several tasks at once, whose messages these are: workers are woken once. Their numbers, in order.
    pub fn submit_all(&self, tasks: Vec<(H::Task, Message)>) -> Vec<Id> {
        let mut out = Vec::new();
        let mut state = self.lock();
        let moment = now();
        let ids = tasks.into_iter().map(|(task, message)| state.plan.submit(task, message, 0, None, moment)).collect();
        state.send_all(&self.host, moment, &mut out);
        let look = state.next_look();
        drop(state);
        self.deliver(out);
        self.look_up_at(look);
        ids
    }

    /// Wakes the dispatcher, if it would sleep beyond that.
    fn look_up_at(&self, look: Option<u64>) {
        if look.is_some_and(|look| look < self.asleep_until.load(Ordering::Relaxed)) {
            self.watch.ring();
        }
    }

    /// Asks a task that may have been sent to stop. False if it is not there any more.
    pub fn stop(&self, id: Id) -> bool {
        let mut out = Vec::new();
        let mut state = self.lock();
        let found = state.stop(id, Why::Cancelled, now(), &mut out);
        state.decide(&self.host, now(), &mut out);
        drop(state);
        self.deliver(out);
        self.watch.ring();
        found
    }

    /// Takes the task out that has waited longest, unless none waits.
    pub fn drop_oldest(&self) -> Option<H::Task> {
        self.lock().plan.drop_oldest()
    }

    /// Takes all tasks out that have not been sent.
    pub fn drop_pending(&self) -> Vec<H::Task> {
        let dropped = self.lock().plan.drop_pending();
        self.watch.ring();
        dropped
    }

    /// Takes all tasks out, those that run included: their replies will be ignored.
    pub fn drop_all(&self) -> Vec<H::Task> {
        let dropped = self.lock().plan.drop_all();
        self.watch.ring();
        dropped
    }

    /// No more tasks come. Workers end when none is left.
    pub fn close(&self) {
        let mut out = Vec::new();
        let mut state = self.lock();
        state.plan.close();
        state.decide(&self.host, now(), &mut out);
        let over = state.plan.is_over() && !self.dispatching.load(Ordering::Acquire);
        drop(state);
        self.deliver(out);
        if over {
            self.host.happened(Event::Over);
        }
        self.watch.ring();
    }

    /// Tasks not sent, tasks not over, workers, workers ready, workers idle.
    pub fn numbers(&self) -> [usize; 5] {
        let state = self.lock();
        let (ready, idle) = state.plan.ready();
        [state.plan.pending(), state.plan.unfinished(), state.plan.workers(), ready, idle]
    }

    /// What has become of tasks.
    pub fn counts(&self) -> Counts {
        self.lock().plan.counts()
    }

    /// The times of tasks.
    pub fn measured(&self) -> Measured {
        let state = self.lock();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        state.times.measured(state.posts.values().map(Post::spent).sum(), cores)
    }

    /// Whether workers ended before they were ready too often for starting more.
    pub fn is_hopeless(&self) -> bool {
        self.lock().plan.is_hopeless()
    }

    // Workers

    /// Changes the most workers.
    pub fn resize(&self, workers: usize) {
        let mut out = Vec::new();
        let mut state = self.lock();
        state.plan.rules().workers = workers;
        state.decide(&self.host, now(), &mut out);
        drop(state);
        self.deliver(out);
        self.watch.ring();
    }

    /// Asks for workers until there are this many, ahead of need: their numbers, to be started by the caller.
    pub fn want(&self, least: usize) -> Vec<Slot> {
        self.lock().plan.start(least, now())
    }

    /// A process was started for a worker. `file` and `bell` are this side's descriptors of its channels.
    ///
    /// # Errors
    /// Of the operating system. The worker is [given up](Self::give_up).
    pub fn enlist(&self, slot: Slot, pid: i32, file: OwnedFd, bell: OwnedFd) -> io::Result<()> {
        let (file, bell) = (Arc::new(file), Bell::Socket(Arc::new(bell)));
        let opened = (|| {
            let post = Post {
                tasks: Channel::open(Arc::clone(&file), 0, bell.clone())?.unheard().apart(),
                replies: Channel::open(file, 1, bell)?,
                process: Process::open(pid)?,
                kill_at: None,
                look_at: Some(0),
                armed: false,
                heard: false,
                memory: None,
                spent_before: Spent::default(),
                damaged: None,
                is_ignored: false,
            };
            self.watch.add(post.process.fd.as_raw_fd(), slot << 1 | 1)?;
            self.watch.add(post.replies.bell().fd(), slot << 1)?;
            Ok(post)
        })();
        match opened {
            Ok(post) => {
                let mut out = Vec::new();
                let mut state = self.lock();
                state.posts.insert(slot, post);
                state.plan.is_reachable(slot);
                state.send_all(&self.host, now(), &mut out);
                drop(state);
                self.deliver(out);
                self.watch.ring();
                Ok(())
            }
            Err(error) => {
                self.give_up(slot);
                Err(error)
            }
        }
    }

    /// No process could be started for a worker. It is tried again after a moment, if tasks wait.
    pub fn give_up(&self, slot: Slot) {
        self.lock().plan.not_started(slot, now());
        self.watch.ring();
    }

    /// Sends a signal to all workers.
    pub fn signal_all(&self, signal: i32) {
        for post in self.lock().posts.values() {
            post.process.signal(signal);
        }
    }

    // The dispatcher

    fn deliver(&self, out: Deliveries<H::Task>) -> bool {
        let any = !out.is_empty();
        for delivery in out {
            match delivery {
                Delivery::Reply(task, reply, why) => self.host.replied(task, reply, why),
                Delivery::Lost(task, loss) => self.host.lost(task, loss),
                Delivery::Event(event) => self.host.happened(event),
            }
        }
        if any {
            self.host.delivered();
        }
        any
    }

    fn run(&self) {
        let (mut ready, mut naps) = (Vec::new(), 0);
        loop {
            let mut out = Vec::new();
            let mut state = self.lock();
            let more = state.work(&self.host, &self.watch, &ready, &mut out);
            let (over, flowing) = (state.plan.is_over(), state.plan.is_flowing());
            drop(state);
            let some = self.deliver(out);
            if over {
                self.host.happened(Event::Over);
                return;
            }
            if flowing && some && naps < NAPS {
                // Replies will come one by one, each with a wake-up of its own: better some at a time.
                naps += 1;
                std::thread::sleep(NAP);
                ready.clear();
                self.lock().look_at_silent();
                continue;
            }
            naps = 0;
            ready.clear();
            if !more && self.lock().arm() {
                let nap = self.host.owes().then(|| now() + QUIET);
                let until = self.lock().next_look().into_iter().chain(nap).min();
                self.asleep_until.store(until.unwrap_or(u64::MAX), Ordering::Relaxed);
                self.watch.wait(until, &mut ready);
                self.asleep_until.store(0, Ordering::Relaxed);
                if nap.is_some_and(|nap| nap <= now()) && ready.is_empty() {
                    self.host.rest();
                }
            } else {
                // However much a worker has to say, deaths are seen.
                self.watch.wait(Some(0), &mut ready);
            }
        }
    }
}

impl<T: Send + 'static> State<T> {
    fn submit<H: Host<Task = T>>(
        &mut self,
        host: &H,
        task: T,
        (tag, parts): (u8, &[&[u8]]),
        retries: u32,
        limit: Option<u64>,
        out: &mut Deliveries<T>,
    ) -> Id {
        let message = |tag| Message { tag, bytes: parts.concat().into() };
        let first = self.plan.pending() == 0;
        let moment = now();
        if retries > 0 || !first {
            return self.plan.submit(task, message(tag), retries, limit, moment);
        }
        // A message that can go out at once is not copied first.
        let id = self.plan.submit(task, Message { tag, bytes: Vec::new().into() }, 0, limit, moment);
        if let Some(Step::Send(slot, _)) = self.plan.step(moment) {
            let begins = self.plan.task(id).is_some_and(|task| host.begins(task));
            if !begins {
                out.extend(self.plan.unsent(id).map(|task| Delivery::Lost(task, Loss::Dropped)));
                return id;
            }
            let number = id.to_le_bytes();
            let mut parts = parts.to_vec();
            parts.push(&number);
            self.begun(id);
            if let Some(post) = self.posts.get(&slot)
                && post.send(kind::TASK << SHIFT | tag, &parts).is_ok()
            {
                self.plan.sent(slot, id, moment);
                return id;
            }
        }
        self.plan.put_message(id, message(tag));
        id
    }

    fn begun(&mut self, id: Id) {
        self.plan.begun(id);
    }

    /// Everything that can be done without waiting. Whether there is more to do at once.
    fn work<H: Host<Task = T>>(&mut self, host: &H, watch: &Watch, ready: &[u64], out: &mut Deliveries<T>) -> bool {
        let moment = now();
        let mut more = false;
        for number in ready.iter().filter(|number| *number & 1 == 0) {
            if let Some(post) = self.posts.get_mut(&(number >> 1)) {
                (post.armed, post.heard) = (false, true);
            }
            more |= self.read(number >> 1, out);
        }
        let overdue: Vec<Slot> =
            self.posts.iter().filter(|(_, post)| is_due(post.look_at, moment)).map(|(slot, _)| *slot).collect();
        for slot in overdue {
            more |= self.read(slot, out);
        }
        for post in self.posts.values_mut().filter(|post| post.damaged.is_some() && !post.is_ignored) {
            // It is being killed; only its end is waited for.
            watch.remove(post.replies.bell().fd());
            (post.is_ignored, post.look_at) = (true, None);
        }
        for number in ready.iter().filter(|number| *number & 1 == 1) {
            self.bury(number >> 1, watch, out);
        }
        for slot in self.plan.late(moment) {
            self.ask_to_stop(slot, Why::Late, moment);
        }
        for post in self.posts.values_mut().filter(|post| is_due(post.kill_at, moment)) {
            post.process.signal(libc::SIGKILL);
            post.kill_at = None;
        }
        self.measure(moment);
        self.decide(host, moment, out);
        more
    }

    /// When to do so again.
    fn next_look(&self) -> Option<u64> {
        let posts = self.posts.values().flat_map(|post| [post.kill_at, post.look_at]).flatten();
        let measure = (self.settings.memory > 0 && !self.posts.is_empty()).then(|| self.measured + MEASURE);
        posts.chain(self.plan.next_look(now())).chain(measure).min()
    }

    /// All workers that will not ring are to be read from.
    fn look_at_silent(&mut self) {
        for post in self.posts.values_mut().filter(|post| !post.armed) {
            post.look_at = Some(0);
        }
    }

    /// Has the descriptors ring for what comes from now on. False if something has come already.
    fn arm(&mut self) -> bool {
        let mut quiet = true;
        for post in self.posts.values_mut().filter(|post| !post.armed && post.damaged.is_none()) {
            match post.replies.arm(post.heard) {
                // One that could not be read a moment ago is looked at again when that is due.
                Some(true) if post.look_at.is_some() => {}
                Some(true) => {
                    post.look_at = Some(0);
                    quiet = false;
                }
                Some(false) => (post.armed, post.heard) = (true, false),
                // It is in the middle of writing.
                None => post.look_at = post.look_at.or(Some(now() + WRITING)),
            }
        }
        quiet
    }

    /// Reads what a worker has to say. Whether there may be more.
    fn read(&mut self, slot: Slot, out: &mut Deliveries<T>) -> bool {
        let Some(post) = self.posts.get_mut(&slot).filter(|post| post.damaged.is_none()) else { return false };
        post.look_at = None;
        let (mut ids, mut replies, mut refused) = (Vec::new(), Vec::new(), None);
        let mut ran = Vec::new();
        let more = loop {
            if replies.len() >= BATCH {
                post.look_at = Some(0);
                break true;
            }
            match take::<TAIL>(&post.replies) {
                Ok((tag, bytes, tail)) => match tag >> SHIFT {
                    kind::READY => {
                        post.spent_before = post.process.spent();
                        self.plan.is_ready(slot, now());
                    }
                    kind::UNFIT => {
                        let reply = Reply { kind: kind::UNFIT, tag: tag & ((1 << SHIFT) - 1), bytes };
                        out.push(Delivery::Event(Event::Unfit(reply)));
                    }
                    kind::REFUSED => {
                        refused = Some(Reply { kind: kind::RAISED, tag: tag & ((1 << SHIFT) - 1), bytes });
                    }
                    what => {
                        let (time, number) = tail.split_at(TAIL - NUMBER);
                        ids.push(number_of(number));
                        ran.push(number_of(time));
                        replies.push(Reply { kind: what, tag: tag & ((1 << SHIFT) - 1), bytes });
                    }
                },
                Err(RecvError::Empty | RecvError::Shut | RecvError::Gone) => break false,
                Err(RecvError::Busy | RecvError::NoRoom(..) | RecvError::Apart) => {
                    post.look_at = Some(now() + WRITING);
                    break false;
                }
                Err(RecvError::Failed(error)) => {
                    // It has written what no worker writes.
                    post.damaged.get_or_insert(error);
                    post.process.signal(libc::SIGKILL);
                    break false;
                }
            }
        };
        let moment = now();
        let tasks = self.plan.replied(slot, &ids, moment);
        for ((task, reply), ran) in tasks.into_iter().zip(replies).zip(ran) {
            // A reply to what it was not asked is ignored.
            if let Some(Replied { task, why, submitted }) = task {
                self.times.add(submitted, moment, ran, reply.kind == kind::RESULT);
                out.push(Delivery::Reply(task, reply, why));
                if why.is_some() {
                    post.kill_at = None;
                }
            }
        }
        if let Some(reply) = refused {
            self.refused(slot, reply, out);
        }
        more
    }

    /// A worker has no room for the next task of its line: that fails, and what is behind it goes to others.
    fn refused(&mut self, slot: Slot, reply: Reply, out: &mut Deliveries<T>) {
        let next = self.plan.first(slot);
        self.plan.retire(slot);
        self.take_back(slot);
        if let Some(id) = next.filter(|id| self.plan.whereabouts(*id).is_none())
            && let Some(task) = self.plan.unsent(id)
        {
            out.push(Delivery::Reply(task, reply, None));
        }
    }

    /// A worker has ended: what it said last counts, what it had not begun goes to others.
    fn bury(&mut self, slot: Slot, watch: &Watch, out: &mut Deliveries<T>) {
        if let Some(post) = self.posts.get(&slot) {
            for channel in [&post.replies, &post.tasks] {
                let mut parking = Parking::new(Kind::Receive, channel, 0, Deadline::at(now() + MENDING), &Alone);
                let _ = channel.mend(&mut parking);
            }
        }
        while self.read(slot, out) {}
        let next = self.plan.first(slot);
        self.take_back(slot);
        // It may be the task that no worker survives being handed.
        let blamed = next.filter(|id| self.plan.whereabouts(*id).is_none()).and_then(|id| self.plan.blame(slot, id));
        let Some(post) = self.posts.remove(&slot) else { return };
        self.times.ended(post.spent());
        // What its results are made of may keep the file for long: not the rest of it.
        post.tasks.end();
        post.replies.end();
        watch.remove(post.replies.bell().fd());
        watch.remove(post.process.fd.as_raw_fd());
        let mut lost = self.plan.died(slot);
        lost.tasks.extend(blamed);
        let Post { process, memory, damaged, .. } = post;
        out.push(Delivery::Event(Event::Died { slot, pid: process.pid, lost, memory, damaged }));
    }

    /// Takes back what a worker has not begun. Whether there was anything.
    fn take_back(&mut self, slot: Slot) -> bool {
        let Some(post) = self.posts.get(&slot) else { return false };
        let mut any = false;
        while let Ok((tag, bytes, number)) = take::<NUMBER>(&post.tasks) {
            any |= self.plan.taken_back(slot, number_of(&number), Message { tag: tag & ((1 << SHIFT) - 1), bytes });
        }
        any
    }

    fn decide<H: Host<Task = T>>(&mut self, host: &H, moment: u64, out: &mut Deliveries<T>) {
        self.send_all(host, moment, out);
        out.extend(self.plan.start(0, moment).into_iter().map(|slot| Delivery::Event(Event::Start(slot))));
        if self.plan.is_hopeless() && !self.hopeless {
            self.hopeless = true;
            self.plan.close();
            out.push(Delivery::Event(Event::Hopeless(self.plan.drop_all())));
        }
    }

    /// Sends what can be sent.
    fn send_all<H: Host<Task = T>>(&mut self, host: &H, moment: u64, out: &mut Deliveries<T>) {
        while let Some(step) = self.plan.step(moment) {
            match step {
                Step::Send(slot, id) => self.send(host, slot, id, moment, out),
                Step::TakeBack(slot) => {
                    if !self.take_back(slot) {
                        self.plan.kept(slot, moment);
                    }
                }
                Step::End(slot) => match self.posts.get(&slot).map(|post| post.send(kind::END << SHIFT, &[&[0; 8]])) {
                    Some(Err(SendError::Busy)) => self.plan.busy(slot, now() + WRITING),
                    _ => self.plan.ending(slot),
                },
            }
        }
    }

    fn send<H: Host<Task = T>>(&mut self, host: &H, slot: Slot, id: Id, moment: u64, out: &mut Deliveries<T>) {
        let (Some(task), Some((message, ask))) = (self.plan.task(id), self.plan.message(id)) else {
            self.plan.unsent(id);
            return;
        };
        if ask && !host.begins(task) {
            out.extend(self.plan.unsent(id).map(|task| Delivery::Lost(task, Loss::Dropped)));
            return;
        }
        let sent = match self.posts.get(&slot) {
            Some(post) => post.send(kind::TASK << SHIFT | message.tag, &[&message.bytes, &id.to_le_bytes()]),
            None => Err(SendError::Gone),
        };
        self.plan.begun(id);
        match sent {
            Ok(()) => self.plan.sent(slot, id, moment),
            Err(SendError::Failed(error)) => {
                out.extend(self.plan.unsent(id).map(|task| Delivery::Lost(task, Loss::Unsendable(error))));
            }
            Err(SendError::Busy) => self.plan.busy(slot, now() + WRITING),
            // It is dying, or damaged.
            Err(_) => self.plan.retire(slot),
        }
    }

    /// Stops a task, wherever it is. False if it is nowhere.
    fn stop(&mut self, id: Id, why: Why, moment: u64, out: &mut Deliveries<T>) -> bool {
        if let Some((slot, _)) = self.plan.whereabouts(id) {
            // It may not have begun.
            self.take_back(slot);
        }
        match self.plan.whereabouts(id) {
            Some((slot, true)) => {
                self.ask_to_stop(slot, why, moment);
                true
            }
            Some((_, false)) => false,
            None => {
                let task = self.plan.unsent(id);
                let found = task.is_some();
                out.extend(task.map(|task| Delivery::Lost(task, Loss::Dropped)));
                found
            }
        }
    }

    fn ask_to_stop(&mut self, slot: Slot, why: Why, moment: u64) {
        let (Some(post), Some(id)) = (self.posts.get_mut(&slot), self.plan.first(slot)) else { return };
        self.plan.stopping(slot, why);
        post.tasks.request(id);
        post.process.signal(stop_signal());
        post.kill_at = Some(moment.saturating_add(self.settings.grace));
    }

    /// Looks how much memory workers have, and ends those that have too much.
    fn measure(&mut self, moment: u64) {
        if self.settings.memory == 0 || moment < self.measured + MEASURE {
            return;
        }
        self.measured = moment;
        for (slot, post) in &mut self.posts {
            post.memory = post.process.memory().or(post.memory);
            let busy = matches!(self.plan.phase(*slot), Some((Phase::Ready | Phase::Retiring, 1..)));
            if busy && post.memory.is_some_and(|memory| memory > self.settings.memory) {
                self.plan.stopping(*slot, Why::Memory);
                post.process.signal(libc::SIGKILL);
            }
        }
    }
}

fn is_due(at: Option<u64>, moment: u64) -> bool {
    at.is_some_and(|at| at <= moment)
}

/// Takes the next message of a channel: its tag, its bytes, and the `N` bytes behind them.
fn take<const N: usize>(channel: &Channel) -> Result<(u8, Bytes, [u8; N]), RecvError> {
    let mut bytes = Vec::<u8>::new();
    // SAFETY: room for as many bytes as are asked for.
    let copied = unsafe {
        channel.try_recv(|length, _| {
            bytes.try_reserve_exact(length).ok()?;
            let start = NonNull::new(bytes.as_mut_ptr())?;
            // What is about to be written to, and nothing else has.
            fetch_memory(start, length);
            Some(start)
        })
    };
    let (mut bytes, tag): (Bytes, _) = match copied {
        Ok((length, tag)) => {
            // SAFETY: that many bytes have been written.
            unsafe { bytes.set_len(length) };
            (bytes.into(), tag)
        }
        Err(RecvError::Apart) => channel.try_recv_apart().map(|(region, tag)| (region.into(), tag))?,
        Err(error) => return Err(error),
    };
    let Some(tail) = bytes.last_chunk::<N>().copied() else {
        return Err(RecvError::Failed(io::Error::new(io::ErrorKind::InvalidData, "a message without a number")));
    };
    bytes.truncate(bytes.len() - N);
    Ok((tag, bytes, tail))
}

fn number_of(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}
