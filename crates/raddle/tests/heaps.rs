//! The deadline heap and the priority heap against simple sequential models, and under threads.
//!
//! Every test prints its seed. `RADDLE_TEST_SEED=<number>` repeats a run, `PROPTEST_CASES=<number>` lengthens it.

#![allow(clippy::print_stderr, reason = "a failing test has to show its seed")]

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::mpsc;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use raddle::queue::heap::{Access, PopPlan, PushPlan, Step, VersionedHeap, pop, push};
use raddle::timer::heap::{DeadlineHeap, Ticket};

/// The time one test may take.
const LIMIT: Duration = Duration::from_secs(60);

fn seed(test: &str) -> u64 {
    let given = std::env::var("RADDLE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_nanos() as u64
    });
    eprintln!("{test}: RADDLE_TEST_SEED={seed}");
    seed
}

/// Run `body` in a thread of its own, and fail if it has not returned in time.
fn within_limit(test: &'static str, body: impl FnOnce(u64) + Send + 'static) {
    let seed = seed(test);
    let (done, finished) = mpsc::channel();
    let runner = thread::spawn(move || {
        body(seed);
        let _ = done.send(());
    });
    if finished.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("{test} is still running after {LIMIT:?} (RADDLE_TEST_SEED={seed})");
    }
    if let Err(panic) = runner.join() {
        std::panic::resume_unwind(panic);
    }
}

fn property<S: Strategy + Send + 'static>(
    test: &'static str,
    strategy: S,
    body: impl Fn(S::Value) -> Result<(), TestCaseError> + Send + 'static,
) {
    within_limit(test, move |seed| {
        let config =
            ProptestConfig { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..ProptestConfig::default() };
        if let Err(failure) = TestRunner::new(config).run(&strategy, body) {
            panic!("{failure}");
        }
    });
}

// The deadline heap.

#[derive(Clone, Debug)]
enum Timed {
    Insert(u8),
    Remove(prop::sample::Index),
    RemoveStale(prop::sample::Index),
    Pop,
    PopDue(u8),
    TakeAll,
}

fn timed() -> impl Strategy<Value = Timed> {
    prop_oneof![
        40 => any::<u8>().prop_map(|key| Timed::Insert(key % 32)),
        12 => any::<prop::sample::Index>().prop_map(Timed::Remove),
        8 => any::<prop::sample::Index>().prop_map(Timed::RemoveStale),
        10 => Just(Timed::Pop),
        10 => (0..32_u8).prop_map(Timed::PopDue),
        1 => Just(Timed::TakeAll),
    ]
}

#[test]
fn deadline_heap_is_a_sorted_list_with_tickets() {
    property("deadline_heap_is_a_sorted_list_with_tickets", vec(timed(), 0..600), |operations| {
        let mut heap = DeadlineHeap::new();
        // In the order in which they are to leave.
        let mut model: Vec<(u8, usize, Ticket)> = Vec::new();
        let mut stale: Vec<Ticket> = Vec::new();
        for (value, operation) in operations.into_iter().enumerate() {
            match operation {
                Timed::Insert(key) => {
                    let ticket = heap.insert(key, value);
                    let at = model.partition_point(|&(other, _, _)| other <= key);
                    model.insert(at, (key, value, ticket));
                }
                Timed::Remove(index) if !model.is_empty() => {
                    let (key, value, ticket) = model.remove(index.index(model.len()));
                    prop_assert_eq!(heap.get(ticket), Some((&key, &value)));
                    prop_assert_eq!(heap.remove(ticket), Some(value));
                    stale.push(ticket);
                }
                Timed::RemoveStale(index) if !stale.is_empty() => {
                    let ticket = stale[index.index(stale.len())];
                    prop_assert_eq!(heap.get(ticket), None);
                    prop_assert_eq!(heap.remove(ticket), None);
                }
                Timed::Remove(_) | Timed::RemoveStale(_) => {}
                Timed::Pop => {
                    let expected = (!model.is_empty()).then(|| model.remove(0));
                    prop_assert_eq!(heap.pop(), expected.map(|(key, value, _)| (key, value)));
                    stale.extend(expected.map(|(_, _, ticket)| ticket));
                }
                Timed::PopDue(now) => {
                    let due = model.first().is_some_and(|&(key, _, _)| key <= now);
                    let expected = due.then(|| model.remove(0));
                    prop_assert_eq!(heap.pop_due(now), expected.map(|(key, value, _)| (key, value)));
                    stale.extend(expected.map(|(_, _, ticket)| ticket));
                }
                Timed::TakeAll => {
                    let mut taken = heap.take_all();
                    taken.sort_by_key(|&(_, value)| value);
                    let mut expected: Vec<(u8, usize)> = model.iter().map(|&(key, value, _)| (key, value)).collect();
                    expected.sort_by_key(|&(_, value)| value);
                    prop_assert_eq!(taken, expected);
                    stale.extend(model.drain(..).map(|(_, _, ticket)| ticket));
                }
            }
            prop_assert_eq!(heap.len(), model.len());
            prop_assert_eq!(heap.peek(), model.first().map(|(key, value, _)| (key, value)));
        }
        let unordered: HashSet<Ticket> = heap.iter().map(|(ticket, _, _)| ticket).collect();
        prop_assert_eq!(unordered, model.iter().map(|&(_, _, ticket)| ticket).collect::<HashSet<_>>());
        let ordered: Vec<(u8, usize, Ticket)> =
            heap.in_order().into_iter().map(|(ticket, &key, &value)| (key, value, ticket)).collect();
        prop_assert_eq!(ordered, model);
        Ok(())
    });
}

// The priority heap.

/// Compared by the first field; the second tells equal items apart.
type Item = (u8, u64);

struct Guarded(Mutex<VersionedHeap<Item>>);

impl Guarded {
    fn new() -> Self {
        Guarded(Mutex::new(VersionedHeap::new()))
    }

    fn items(&self) -> Vec<Item> {
        self.with(|heap| heap.iter().copied().collect())
    }

    fn sorted(&self) -> Vec<Item> {
        let mut items = self.items();
        items.sort_unstable();
        items
    }
}

impl Access<Item> for Guarded {
    fn with<R>(&self, f: impl FnOnce(&mut VersionedHeap<Item>) -> R) -> R {
        f(&mut self.0.try_lock().unwrap_or_else(|_| panic!("the lock is held during a comparison")))
    }
}

/// `heapq`, straight from its definition.
#[derive(Clone, Default)]
struct Model(Vec<Item>);

impl Model {
    fn towards_root(&mut self, mut at: usize) {
        while at > 0 && self.0[at].0 < self.0[(at - 1) / 2].0 {
            self.0.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn push(&mut self, item: Item) {
        self.0.push(item);
        self.towards_root(self.0.len() - 1);
    }

    fn pop(&mut self) -> Option<Item> {
        if self.0.is_empty() {
            return None;
        }
        let least = self.0.swap_remove(0);
        let mut at = 0;
        while 2 * at + 1 < self.0.len() {
            let left = 2 * at + 1;
            let right = left + 1;
            let child = if right < self.0.len() && self.0[left].0 >= self.0[right].0 { right } else { left };
            self.0.swap(at, child);
            at = child;
        }
        self.towards_root(at);
        Some(least)
    }
}

/// What the comparisons of one operation do, besides comparing.
#[derive(Clone, Debug)]
enum Mischief {
    None,
    /// Fail after so many comparisons.
    Fail(u8),
    /// Use the heap, in the comparisons whose bit is set: push if the key is given, else pop.
    Meddle(u16, Option<u8>),
}

#[derive(Clone, Debug)]
struct Call {
    /// Push this key, or pop.
    key: Option<u8>,
    mischief: Mischief,
}

fn call() -> impl Strategy<Value = Call> {
    let key = prop::option::weighted(0.6, 0..6_u8);
    let mischief = prop_oneof![
        3 => Just(Mischief::None),
        1 => (0..8_u8).prop_map(Mischief::Fail),
        1 => (any::<u16>(), prop::option::of(0..6_u8)).prop_map(|(when, key)| Mischief::Meddle(when, key)),
    ];
    (key, mischief).prop_map(|(key, mischief)| Call { key, mischief })
}

#[test]
fn priority_heap_is_heapq() {
    property("priority_heap_is_heapq", vec(prop::option::weighted(0.6, 0..6_u8), 0..300), |keys| {
        let heap = Guarded::new();
        let mut model = Model::default();
        let less = |a: &Item, b: &Item| Ok::<bool, ()>(a.0 < b.0);
        for (tag, key) in keys.into_iter().enumerate() {
            match key {
                Some(key) => {
                    prop_assert_eq!(push(&heap, (key, tag as u64), less), Ok(()));
                    model.push((key, tag as u64));
                }
                None => prop_assert_eq!(pop(&heap, less), Ok(model.pop())),
            }
            prop_assert_eq!(heap.items(), model.0.clone());
        }
        Ok(())
    });
}

/// A failing comparison adds and removes nothing, though what earlier operations left undone may have been finished; with
/// a re-entrant one the inner operation happens first. Either way the items leave as from `heapq`.
#[test]
fn priority_heap_survives_its_comparisons() {
    property("priority_heap_survives_its_comparisons", vec(call(), 0..200), |calls| {
        let heap = Guarded::new();
        let model = RefCell::new(Model::default());
        let tag = Cell::new(0);
        let plain = |a: &Item, b: &Item| Ok::<bool, ()>(a.0 < b.0);
        let fresh = |key: u8| {
            tag.set(tag.get() + 1);
            (key, tag.get())
        };
        for Call { key, mischief } in calls {
            let count = Cell::new(0);
            let less = |a: &Item, b: &Item| {
                let turn = count.get();
                count.set(turn + 1);
                match mischief {
                    Mischief::Fail(after) if turn >= u32::from(after) => return Err(()),
                    Mischief::Meddle(when, key) if when >> (turn % 16) & 1 == 1 => match key {
                        Some(key) => {
                            let item = fresh(key);
                            push(&heap, item, plain).map_err(|_| ())?;
                            model.borrow_mut().push(item);
                        }
                        None => assert_eq!(pop(&heap, plain)?, model.borrow_mut().pop()),
                    },
                    _ => {}
                }
                Ok(a.0 < b.0)
            };
            let before = heap.sorted();
            match key {
                Some(key) => {
                    let item = fresh(key);
                    match push(&heap, item, less) {
                        Ok(()) => model.borrow_mut().push(item),
                        Err(((), back)) => {
                            prop_assert_eq!(back, item);
                            prop_assert_eq!(heap.sorted(), before);
                        }
                    }
                }
                None => match pop(&heap, less) {
                    Ok(item) => prop_assert_eq!(item, model.borrow_mut().pop()),
                    Err(()) => prop_assert_eq!(heap.sorted(), before),
                },
            }
            prop_assert_eq!(heap.with(|heap| heap.len()), model.borrow().0.len());
        }
        while let Ok(Some(item)) = pop(&heap, plain) {
            prop_assert_eq!(Some(item), model.borrow_mut().pop());
        }
        prop_assert!(model.borrow().0.is_empty());
        Ok(())
    });
}

/// Several plans at once, stepped in any order: a pop takes nothing greater than any item that was there before it began
/// and still is, and in the end everything that went in and has not come out is there.
#[test]
fn interleaved_plans_lose_nothing_and_overtake_nothing() {
    enum Plan {
        Push(PushPlan<Item>, Item),
        /// With the items that were there when it began.
        Pop(PopPlan, Vec<Item>),
    }
    fn step(plan: &mut Option<Plan>, heap: &Guarded, present: &mut Vec<Item>) -> Result<(), TestCaseError> {
        match plan {
            None => {}
            Some(Plan::Push(push, item)) => match heap.with(|heap| heap.step_push(push)) {
                Step::Compare(a, b) => push.answer(a.0 < b.0),
                Step::Done(()) => {
                    present.push(*item);
                    *plan = None;
                }
            },
            Some(Plan::Pop(pop, before)) => match heap.with(|heap| heap.step_pop(pop)) {
                Step::Compare(a, b) => pop.answer(a.0 < b.0),
                Step::Done(None) => {
                    prop_assert!(present.is_empty());
                    *plan = None;
                }
                Step::Done(Some(item)) => {
                    let overtaken = before.iter().find(|other| other.0 < item.0 && present.contains(other));
                    prop_assert_eq!(overtaken, None, "{:?} came first", item);
                    let at = present.iter().position(|other| *other == item);
                    prop_assert!(at.is_some(), "{:?} was not there", item);
                    present.retain(|other| *other != item);
                    *plan = None;
                }
            },
        }
        Ok(())
    }
    let script = vec((0..12_usize, prop::option::weighted(0.55, 0..30_u8)), 0..800);
    property("interleaved_plans_lose_nothing_and_overtake_nothing", script, |script| {
        let heap = Guarded::new();
        let mut present = Vec::new();
        let mut plans: Vec<Option<Plan>> = (0..12).map(|_| None).collect();
        for (tag, (who, key)) in script.into_iter().enumerate() {
            let plan = plans[who].take().unwrap_or_else(|| match key {
                Some(key) => Plan::Push(PushPlan::new((key, tag as u64)), (key, tag as u64)),
                None => Plan::Pop(PopPlan::new(), present.clone()),
            });
            plans[who] = Some(plan);
            step(&mut plans[who], &heap, &mut present)?;
        }
        for mut plan in plans {
            while plan.is_some() {
                step(&mut plan, &heap, &mut present)?;
            }
        }
        let mut left = heap.items();
        left.sort_unstable();
        present.sort_unstable();
        prop_assert_eq!(left, present);
        Ok(())
    });
}

struct Shared(Mutex<VersionedHeap<Item>>);

impl Access<Item> for Shared {
    fn with<R>(&self, f: impl FnOnce(&mut VersionedHeap<Item>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Threads whose comparisons fail now and then, or let others run: every item that went in comes out once.
#[test]
fn priority_heap_loses_nothing_between_threads() {
    const THREADS: u64 = 4;
    const CALLS: u64 = 3000;
    within_limit("priority_heap_loses_nothing_between_threads", |seed| {
        let heap = Arc::new(Shared(Mutex::new(VersionedHeap::new())));
        let start = Arc::new(Barrier::new(THREADS as usize));
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| {
                let (heap, start) = (Arc::clone(&heap), Arc::clone(&start));
                thread::spawn(move || {
                    let state = Cell::new(seed ^ worker.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    let next = || {
                        let number = state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(worker | 1);
                        state.set(number);
                        number >> 33
                    };
                    let less = |a: &Item, b: &Item| match next() % 64 {
                        0 => Err(()),
                        1..8 => {
                            thread::yield_now();
                            Ok(a.0 < b.0)
                        }
                        _ => Ok(a.0 < b.0),
                    };
                    let (mut pushed, mut popped) = (Vec::new(), Vec::new());
                    start.wait();
                    for call in 0..CALLS {
                        if next() % 5 < 3 {
                            let item = ((next() % 40) as u8, worker * CALLS + call);
                            if push(&*heap, item, less).is_ok() {
                                pushed.push(item);
                            }
                        } else if let Ok(item) = pop(&*heap, less) {
                            popped.extend(item);
                        }
                    }
                    (pushed, popped)
                })
            })
            .collect();
        let (mut pushed, mut popped) = (Vec::new(), Vec::new());
        for worker in workers {
            let (ins, outs) = worker.join().expect("a worker failed");
            pushed.extend(ins);
            popped.extend(outs);
        }
        let rest: Vec<Item> =
            std::iter::from_fn(|| pop(&*heap, |a, b| Ok::<bool, ()>(a.0 < b.0)).ok().flatten()).collect();
        assert!(rest.is_sorted_by_key(|item| item.0));
        popped.extend(rest);
        pushed.sort_unstable();
        popped.sort_unstable();
        assert_eq!(popped, pushed);
    });
}
