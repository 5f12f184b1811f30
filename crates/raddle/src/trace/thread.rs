//! The record of each thread: its life-cycle state and what it waits for.
//!
//! A thread has a record from its first wait on, or from before its start if whoever starts it
//! makes one. Its wait is published by the door, read by detectors, and both hold the record's lock
//! meanwhile: a waiter cannot leave its wait, and so cannot free what it waits for, while it is read.

use super::{Claim, Kind, Resource, Waker};
use crate::primitive::{Futex, Spin, sleeps_within, thread_number, thread_numbers, thread_token};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Where a thread is in its life. Blocked is not stored: it is "running, with a published wait".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Life {
    /// Made, not started.
    New,
    /// Started, not yet running.
    Ready,
    /// Running, or blocked if it has a wait.
    Running,
    /// Ended.
    Dead,
}

/// The latest moment until which a thread does not spin, because it lost its core by that: what a new one begins with.
pub(crate) static CALM_UNTIL: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// A thread, for as long as anybody asks about it.
#[derive(Debug)]
pub struct Thread {
    id: u64,
    token: AtomicUsize,
    /// The epoch from which on the token is this thread's.
    since: AtomicU32,
    /// The kernel's number for it while it runs; 0 before.
    number: AtomicI32,
    life: AtomicU8,
    /// How many rounds the door spins before it sleeps; adapted by the door.
    pub(crate) spin: AtomicU32,
    /// How often that has paid since it last lost the core; how often it has lost the core without that; how many
    /// waits there have been, and how many long spins since one paid; until when the door does not spin, on the clock.
    /// All kept by the door.
    pub(crate) wins: AtomicU32,
    pub(crate) losses: AtomicU32,
    pub(crate) waits: AtomicU32,
    pub(crate) misses: AtomicU32,
    pub(crate) calm_until: AtomicU64,
    wait: Spin<Option<Wait>>,
    /// Whether it sleeps without a deadline: a hint, to be read without the lock.
    sleeps: AtomicBool,
    /// Others may wait for what it does: it has used a bounded queue.
    used: AtomicBool,
    /// 1 once it has ended: what a join waits for; and how many sleep for it.
    ended: Futex,
    joiners: AtomicU32,
    /// The number of the wait that other processes have been told of; 0: none.
    told: AtomicU64,
    /// Nobody knows it by name or number any more.
    forgotten: AtomicBool,
}

impl Resource for Thread {
    fn wakers(&self, _kind: Kind, out: &mut Vec<Waker>) -> Claim {
        if self.life() != Life::Running {
            return Claim::Unknown;
        }
        out.push(Waker { token: self.token(), site: None, epoch: u32::MAX });
        Claim::Proven
    }
}

/// A published wait.
#[derive(Debug)]
struct Wait {
    facts: Waiting,
    object: *const dyn Resource,
    word: *const Futex,
    expected: u32,
    asleep: bool,
}

// SAFETY: the pointers are read only under the record's lock, while the waiting thread, which
// borrows what they point to, cannot leave (`Publication::drop` takes the same lock). `Resource` is
// `Sync`, and so is `Futex`.
unsafe impl Send for Wait {}

/// What is known about a wait.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// What is waited for.
    pub kind: Kind,
    /// The address of what the host language calls the object, or of the object itself.
    pub host: usize,
    /// When the wait began, in nanoseconds of the monotonic clock.
    pub since: u64,
    /// Whether it ends by itself at a deadline, or may be ended from outside of this process.
    pub timed: bool,
    /// Different for every wait of the process.
    pub number: u64,
}

/// A wait that cannot end by itself, seen at one instant.
#[derive(Debug)]
pub struct Stuck {
    /// Its facts.
    pub waiting: Waiting,
    /// The address of what it waits for.
    pub object: usize,
    /// Who can end it.
    pub wakers: Vec<Waker>,
    /// How sure that is.
    pub claim: Claim,
}

/// Rounds of spinning that a new thread starts with.
const SPIN_START: u32 = 24;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static NEXT_WAIT: AtomicU64 = AtomicU64::new(1);
static REGISTRY: Spin<Vec<Arc<Thread>>> = Spin::new(Vec::new());

/// Where in the registry a thread that does not sleep was seen last: where to look first.
static SEEN_AWAKE: AtomicUsize = AtomicUsize::new(0);

/// Counts the occasions on which a sleeper should look again whether it can ever be woken.
static NUDGES: AtomicU64 = AtomicU64::new(0);

/// In a forked child: what was taken before this epoch by another than this thread was taken by one that is not here.
static FORKED: AtomicU32 = AtomicU32::new(0);
static SURVIVOR: AtomicUsize = AtomicUsize::new(0);

/// In which epoch a token was last given up. As many entries as threads have run at once.
static FREED: Spin<Option<HashMap<usize, u32>>> = Spin::new(None);

fn freed_in(token: usize) -> u32 {
    let freed = FREED.lock();
    freed.as_ref().and_then(|freed| freed.get(&token).copied()).unwrap_or(0)
}

struct Current(Option<Arc<Thread>>);

impl Drop for Current {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            thread.end();
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Current> = const { RefCell::new(Current(None)) };
}

impl Thread {
    /// A record for a thread that is not started yet.
    pub fn new() -> Arc<Thread> {
        Self::with(Life::New, 0)
    }

    fn with(life: Life, token: usize) -> Arc<Thread> {
        Arc::new(Thread {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            token: AtomicUsize::new(token),
            since: AtomicU32::new(freed_in(token)),
            number: AtomicI32::new(0),
            life: AtomicU8::new(life as u8),
            spin: AtomicU32::new(SPIN_START),
            wins: AtomicU32::new(0),
            losses: AtomicU32::new(0),
            waits: AtomicU32::new(1),
            misses: AtomicU32::new(0),
            calm_until: AtomicU64::new(CALM_UNTIL.load(Ordering::Relaxed)),
            wait: Spin::new(None),
            sleeps: AtomicBool::new(false),
            used: AtomicBool::new(false),
            ended: Futex::new(0),
            joiners: AtomicU32::new(0),
            told: AtomicU64::new(0),
            forgotten: AtomicBool::new(false),
        })
    }

    /// The calling thread's record, made and registered on first use.
    pub fn current() -> Arc<Thread> {
        CURRENT
            .try_with(|slot| {
                let mut slot = slot.borrow_mut();
                if let Some(thread) = &slot.0 {
                    return Arc::clone(thread);
                }
                let thread = Self::with(Life::Running, thread_token());
                thread.number.store(thread_number(), Ordering::Relaxed);
                REGISTRY.lock().push(Arc::clone(&thread));
                slot.0 = Some(Arc::clone(&thread));
                thread
            })
            // The thread is past its thread locals: serve it, unregistered.
            .unwrap_or_else(|_| Self::with(Life::Running, thread_token()))
    }

    /// Makes this record the calling thread's own: the first thing a started thread does.
    pub fn adopt(self: &Arc<Thread>) {
        self.token.store(thread_token(), Ordering::Relaxed);
        self.since.store(freed_in(thread_token()), Ordering::Relaxed);
        self.number.store(thread_number(), Ordering::Relaxed);
        self.life.store(Life::Running as u8, Ordering::Release);
        let earlier = CURRENT.try_with(|slot| slot.borrow_mut().0.replace(Arc::clone(self))).ok().flatten();
        if let Some(earlier) = earlier {
            earlier.end();
        }
        REGISTRY.lock().push(Arc::clone(self));
    }

    /// A record for a thread that serves others: nobody sees it or waits for it.
    pub(crate) fn unseen() -> Arc<Thread> {
        Self::with(Life::Dead, 0)
    }

    /// Makes this record the calling thread's own, in place of one that goes on without it: of what it served.
    pub(crate) fn stand_in(self: &Arc<Thread>) {
        let _ = CURRENT.try_with(|slot| slot.borrow_mut().0.replace(Arc::clone(self)));
    }

    /// Says that the thread has been asked to start.
    pub fn mark_ready(&self) {
        let _ = self.life.compare_exchange(Life::New as u8, Life::Ready as u8, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Says that the start failed.
    pub fn mark_new(&self) {
        self.life.store(Life::New as u8, Ordering::Release);
    }

    /// Says that the thread has ended, and lets a sleeper look whether it waited for this one.
    pub fn end(&self) {
        if self.life.swap(Life::Dead as u8, Ordering::AcqRel) == Life::Dead as u8 {
            return;
        }
        let gone = {
            let mut registry = REGISTRY.lock();
            registry.iter().position(|thread| std::ptr::eq(&**thread, self)).map(|at| registry.swap_remove(at))
        };
        drop(gone);
        let epoch = super::next_epoch();
        if self.token() != 0 {
            FREED.lock().get_or_insert_with(HashMap::new).insert(self.token(), epoch);
        }
        self.let_go();
        if self.used.load(Ordering::Relaxed) || nobody_awake() {
            nudge();
        }
    }

    /// Where those who join it sleep while the word is 0, and the count of those who do.
    pub(crate) fn end_to_wait_for(&self) -> (&Futex, &AtomicU32) {
        (&self.ended, &self.joiners)
    }

    /// Those who join it go on.
    fn let_go(&self) {
        // SeqCst on both: pairs with the door, which counts a sleeper and then has the kernel compare the word.
        self.ended.store(1, Ordering::SeqCst);
        if self.joiners.load(Ordering::SeqCst) > 0 {
            self.ended.wake(u32::MAX);
        }
    }

    /// A number that no other thread of this process has had.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its token while it runs; 0 before.
    pub fn token(&self) -> usize {
        self.token.load(Ordering::Relaxed)
    }

    /// Where it is in its life.
    pub fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::New,
            1 => Life::Ready,
            2 => Life::Running,
            _ => Life::Dead,
        }
    }

    /// What it waits for, if it is blocked; `look` runs while the thread is held still, so that the
    /// host object is alive in it. It must be short and take no lock that a waiter may hold.
    pub fn waiting<R>(&self, look: impl FnOnce(&Waiting) -> R) -> Option<R> {
        self.wait.lock().as_ref().map(|wait| look(&wait.facts))
    }

    /// Makes it look again whether its wait can end, if it sleeps. To whatever it waits for that is a
    /// spurious wake-up, and every wait checks what it was woken for.
    pub fn nudge(&self) {
        NUDGES.fetch_add(1, Ordering::Relaxed);
        if let Some(wait) = self.wait.lock().as_ref().filter(|wait| wait.asleep) {
            // SAFETY: the record's lock is held, so the waiter keeps the word alive.
            unsafe { &*wait.word }.wake(u32::MAX);
        }
    }

    /// Other processes have been told what it waits for in its present wait, and will be told before it goes on.
    pub fn mark_told(&self) {
        let number = self.wait.lock().as_ref().map_or(0, |wait| wait.facts.number);
        self.told.store(number, Ordering::SeqCst);
    }

    /// It is about to go on.
    pub fn unmark_told(&self) {
        self.told.store(0, Ordering::SeqCst);
    }

    /// The number of its present wait, if that is one that other processes have been told of.
    fn told(&self) -> Option<u64> {
        let told = self.told.load(Ordering::SeqCst);
        let wait = self.wait.lock();
        wait.as_ref().map(|wait| wait.facts.number).filter(|number| *number == told)
    }

    /// The host has dropped what it knew the thread by.
    pub fn forget(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// The number of the wait it sleeps in.
    pub(crate) fn asleep_in(&self) -> Option<u64> {
        self.wait.lock().as_ref().filter(|wait| wait.asleep).map(|wait| wait.facts.number)
    }

    /// Another thread may need this one: its end is a reason to look again for those that wait.
    pub fn mark_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// The thread is about to do something in the middle of its wait: nobody takes it for asleep any more.
    pub fn rouse(&self) {
        self.sleeps.store(false, Ordering::SeqCst);
        if let Some(wait) = self.wait.lock().as_mut() {
            wait.asleep = false;
        }
    }

    /// Whether it sleeps in a wait without a deadline that nothing has opened yet, and who could.
    pub fn stuck(&self) -> Option<Stuck> {
        let wait = self.wait.lock();
        let wait = wait.as_ref()?;
        if !wait.asleep {
            return None;
        }
        // SAFETY: the record's lock is held, so the waiter is still inside and keeps both alive.
        let (object, word) = unsafe { (&*wait.object, &*wait.word) };
        let asleep = || word.load(Ordering::SeqCst) == wait.expected;
        if !asleep() {
            return None;
        }
        if self.token() != thread_token() {
            object.hurry();
        }
        if wait.facts.timed || !asleep() {
            return None;
        }
        let mut wakers = Vec::new();
        let claim = object.wakers(wait.facts.kind, &mut wakers);
        Some(Stuck { waiting: wait.facts, object: wait.object.cast::<()>() as usize, wakers, claim })
    }
}

/// A wait as it is published by the door; withdrawn when dropped.
///
/// Waits nest: what the host runs in the middle of one (a signal handler) may wait itself. The record holds
/// one wait, the inner one while it lasts; the outer one is published again when its thread sleeps again.
#[derive(Debug)]
pub(crate) struct Publication<'a> {
    thread: &'a Thread,
    facts: Waiting,
    object: *const dyn Resource,
}

impl<'a> Publication<'a> {
    pub(crate) fn new(
        thread: &'a Thread,
        kind: Kind,
        object: &dyn Resource,
        host: usize,
        since: u64,
        timed: bool,
        word: &Futex,
    ) -> Self {
        let number = NEXT_WAIT.fetch_add(1, Ordering::Relaxed);
        let facts = Waiting { kind, host, since, timed, number };
        // SAFETY: only the lifetime changes; the publication is dropped before the borrow ends,
        // because `Parking`, which owns it, holds the same borrow.
        let object: *const dyn Resource =
            unsafe { std::mem::transmute::<*const (dyn Resource + '_), *const (dyn Resource + 'static)>(object) };
        *thread.wait.lock() = Some(Wait { facts, object, word, expected: 0, asleep: false });
        Self { thread, facts, object }
    }

    /// About to sleep on this word while it has this value.
    pub(crate) fn asleep(&self, word: &Futex, expected: u32) {
        let wait = Wait { facts: self.facts, object: self.object, word, expected, asleep: true };
        let timed = wait.facts.timed;
        *self.thread.wait.lock() = Some(wait);
        // SeqCst: of two threads that go to sleep at once, one sees the other in `nobody_awake`.
        self.thread.sleeps.store(!timed, Ordering::SeqCst);
    }

    /// Awake again, whatever for.
    pub(crate) fn awake(&self) {
        self.thread.sleeps.store(false, Ordering::SeqCst);
        if let Some(wait) = self.thread.wait.lock().as_mut().filter(|wait| self.is(wait)) {
            wait.asleep = false;
        }
    }

    fn is(&self, wait: &Wait) -> bool {
        wait.facts.number == self.facts.number
    }
}

impl Drop for Publication<'_> {
    fn drop(&mut self) {
        self.thread.wait.lock().take_if(|wait| self.is(wait));
    }
}

/// All threads that have a record and run or are about to.
pub fn all() -> Vec<Arc<Thread>> {
    REGISTRY.lock().clone()
}

/// The running thread that had this token in this epoch.
pub fn by_token(token: usize, epoch: u32) -> Option<Arc<Thread>> {
    let is_it = |thread: &&Arc<Thread>| thread.token() == token && thread.since.load(Ordering::Relaxed) <= epoch;
    REGISTRY.lock().iter().find(is_it).cloned()
}

/// Whether the thread that had this token in this epoch has ended. One without a record is taken for alive.
pub fn has_ended(token: usize, epoch: u32) -> bool {
    freed_in(token) > epoch
}

/// Whether the thread that had this token in this epoch stayed behind in the parent when this process was forked.
pub fn stayed_behind(token: usize, epoch: u32) -> bool {
    epoch < FORKED.load(Ordering::Relaxed) && token != SURVIVOR.load(Ordering::Relaxed)
}

/// Whether the calling thread is the only one of this process, those included that nobody knows. False if the kernel
/// does not tell.
pub fn is_alone() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// All registered threads, if none of them goes on unless another process or another thread of theirs lets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standstill {
    /// The numbers of their waits, in ascending order.
    pub numbers: Vec<u64>,
    /// Their tokens.
    pub tokens: Vec<usize>,
    /// How many of them are in waits that other processes have been told of.
    pub told: u32,
}

/// Whether every registered thread is stuck, or waits for other processes and has told them.
pub fn standstill() -> Option<Standstill> {
    let mut found = Standstill { numbers: Vec::new(), tokens: Vec::new(), told: 0 };
    for thread in all() {
        let number = match thread.told() {
            Some(number) => {
                found.told += 1;
                number
            }
            None => thread.stuck()?.waiting.number,
        };
        found.numbers.push(number);
        found.tokens.push(thread.token());
    }
    found.numbers.sort_unstable();
    Some(found)
}

/// Whether every registered thread sleeps without a deadline, so that none of them can wake another.
pub fn nobody_awake() -> bool {
    let registry = REGISTRY.lock();
    let sleeps = |thread: &Arc<Thread>| thread.sleeps.load(Ordering::SeqCst);
    if registry.get(SEEN_AWAKE.load(Ordering::Relaxed)).is_some_and(|thread| !sleeps(thread)) {
        return false;
    }
    match registry.iter().position(|thread| !sleeps(thread)) {
        Some(at) => {
            SEEN_AWAKE.store(at, Ordering::Relaxed);
            false
        }
        None => true,
    }
}

/// How many nudges there have been.
pub(crate) fn nudges() -> u64 {
    NUDGES.load(Ordering::Relaxed)
}

/// Something that others may have waited for is gone: one sleeper looks again.
///
/// Its wake-up is spurious to whatever it waits for, and every wait checks what it was woken for.
pub fn nudge() {
    NUDGES.fetch_add(1, Ordering::Relaxed);
    if let Some(sleeper) = all().into_iter().find(|thread| thread.sleeps.load(Ordering::Relaxed)) {
        sleeper.nudge();
    }
}

/// The kernel's numbers of the threads that serve this crate, and do nothing of their own.
static SERVING: Spin<Vec<i32>> = Spin::new(Vec::new());

/// The calling thread serves this crate, as long as this exists.
#[derive(Debug)]
pub(crate) struct Serving(i32);

impl Serving {
    pub(crate) fn new() -> Self {
        let number = thread_number();
        SERVING.lock().push(number);
        Self(number)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        SERVING.lock().retain(|number| *number != self.0);
    }
}

/// Whether the process has threads of which nothing is known and that may be awake, or be woken from outside: they have
/// no record, and do not sleep on a private futex without a time limit, as the idle threads of a library do.
///
/// Also where that cannot be told, because the kernel's list of threads is out of reach. What such a thread does next is
/// seen only by asking again. Tens of microseconds for each.
pub fn has_strangers() -> bool {
    strangers_asleep().is_none_or(|first| strangers_asleep() != Some(first))
}

/// The threads without a record and how often each has gone to sleep, if all of them sleep so. What is found twice was
/// so for all of them at one instant: between the two.
fn strangers_asleep() -> Option<Vec<(i32, u64)>> {
    let mut numbers = thread_numbers().ok()?;
    // First who was there, then who is known: a thread that has got its record in between is no stranger.
    let serving = SERVING.lock().clone();
    let known = all();
    let is_known = |number| known.iter().any(|thread| thread.number.load(Ordering::Relaxed) == number);
    numbers.retain(|number| !serving.contains(number) && !is_known(*number));
    numbers.into_iter().map(|number| Some((number, sleeps_within(number)?))).collect()
}

/// In a forked child: no thread but the calling one is left.
pub(crate) fn after_fork_in_child() {
    SERVING.lock_after_fork(Vec::clear);
    REGISTRY.break_after_fork();
    FREED.break_after_fork();
    SURVIVOR.store(thread_token(), Ordering::Relaxed);
    FORKED.store(super::next_epoch(), Ordering::Relaxed);
    let current = CURRENT.try_with(|slot| slot.borrow().0.clone()).ok().flatten();
    let mut registry = REGISTRY.lock();
    // The records of the vanished threads are leaked: one of them may be locked for ever, and a
    // dropped one would be freed under a lock that nobody holds.
    for thread in registry.drain(..) {
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &thread)) {
            continue;
        }
        thread.life.store(Life::Dead as u8, Ordering::Release);
        thread.let_go();
        std::mem::forget(thread);
    }
    if let Some(current) = current {
        current.wait.break_after_fork();
        current.number.store(thread_number(), Ordering::Relaxed);
        registry.push(current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::park::{Deadline, Parking, Stop};
    use crate::sync::Event;
    use std::time::{Duration, Instant};

    #[test]
    fn a_record_follows_the_life_of_its_thread() {
        let record = Thread::new();
        assert_eq!(record.life(), Life::New);
        record.mark_ready();
        assert_eq!(record.life(), Life::Ready);
        let inner = Arc::clone(&record);
        std::thread::spawn(move || {
            inner.adopt();
            assert_eq!(Thread::current().id(), inner.id());
            assert_eq!(inner.life(), Life::Running);
            assert!(by_token(thread_token(), u32::MAX).is_some_and(|found| found.id() == inner.id()));
        })
        .join()
        .unwrap();
        assert_eq!(record.life(), Life::Dead);
        assert!(all().iter().all(|thread| thread.id() != record.id()));
    }

    /// A signal handler that waits, in the middle of a wait.
    struct Handles {
        handled: Event,
    }

    impl crate::park::Host for Handles {
        fn interrupted(&self) -> Result<(), Stop> {
            let inner = Event::new();
            let limit = Deadline::after(Duration::from_millis(1));
            let mut parking = Parking::new(Kind::Event, &inner, 2, limit, &crate::park::Alone);
            assert_eq!(inner.wait_slow(&mut parking), Err(Stop::TimedOut));
            drop(parking);
            self.handled.set();
            Ok(())
        }

        fn takes_signals(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_wait_in_which_a_handler_waited_is_published_again() {
        static OUTER: Event = Event::new();
        static HOST: Handles = Handles { handled: Event::new() };
        let record = Thread::new();
        let inner = Arc::clone(&record);
        let thread = std::thread::spawn(move || {
            inner.adopt();
            let mut parking = Parking::new(Kind::Event, &OUTER, 1, Deadline::NEVER, &HOST);
            OUTER.wait_slow(&mut parking).unwrap();
        });
        HOST.handled.wait();
        let end = Instant::now() + Duration::from_secs(10);
        let mut seen = None;
        while seen != Some(1) && Instant::now() < end {
            std::thread::yield_now();
            seen = record.stuck().map(|stuck| stuck.waiting.host);
        }
        OUTER.set();
        thread.join().unwrap();
        assert_eq!(seen, Some(1));
        assert!(record.waiting(|_| ()).is_none());
    }

    /// Counts how often it is asked for signals.
    struct Asked(AtomicU32);

    impl crate::park::Host for Asked {
        fn interrupted(&self) -> Result<(), Stop> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }

        fn takes_signals(&self) -> bool {
            true
        }
    }

    #[test]
    fn signals_are_looked_for_again_after_a_wake_up_for_nothing() {
        static OUTER: Event = Event::new();
        static HOST: Asked = Asked(AtomicU32::new(0));
        let record = Thread::new();
        let inner = Arc::clone(&record);
        let thread = std::thread::spawn(move || {
            inner.adopt();
            let mut parking = Parking::new(Kind::Event, &OUTER, 1, Deadline::NEVER, &HOST);
            OUTER.wait_slow(&mut parking).unwrap();
        });
        for turn in 1..4 {
            let end = Instant::now() + Duration::from_secs(10);
            while HOST.0.load(Ordering::SeqCst) < turn && Instant::now() < end {
                std::thread::yield_now();
            }
            assert!(HOST.0.load(Ordering::SeqCst) >= turn, "not asked after {turn} sleeps");
            while record.asleep_in().is_none() {
                std::thread::yield_now();
            }
            record.nudge();
        }
        OUTER.set();
        thread.join().unwrap();
    }
}
