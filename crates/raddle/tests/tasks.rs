//! The line of a pool against a simple sequential model: any order of calls that workers and submitters may make.
//!
//! Every test prints its seed. `RADDLE_TEST_SEED=<number>` repeats a run, `PROPTEST_CASES=<number>` lengthens it.
#![cfg(not(raddle_loom))]
#![allow(clippy::print_stderr, reason = "a failing test has to show its seed")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use raddle::pool::{Added, Next, Rejected, Seat, Task, Tasks};

const WAITS: u8 = 0;
const CLAIMED: u8 = 1;

#[derive(Clone, Debug)]
struct Ticket {
    number: usize,
    state: Arc<AtomicU8>,
}

impl Task for Ticket {
    fn claim(&self) -> bool {
        self.state.swap(CLAIMED, SeqCst) == WAITS
    }

    fn waits(&self) -> bool {
        self.state.load(SeqCst) == WAITS
    }
}

/// One call. Numbers pick one of those that are in the right state.
#[derive(Clone, Debug)]
enum Step {
    Add,
    /// A worker that is awake looks at the line.
    Next(usize),
    /// A busy worker is done.
    Finish(usize),
    /// A task is claimed where it stands.
    Withdraw(usize),
    TakeOldest,
    /// A sleeper has had enough.
    GiveUp(usize),
    SetMost(usize),
    SetLimit(usize),
    /// The worker that was to be started could not be.
    StartFailed(usize),
    Grow,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Add),
        8 => (0..8usize).prop_map(Step::Next),
        6 => (0..8usize).prop_map(Step::Finish),
        4 => (0..300usize).prop_map(Step::Withdraw),
        1 => Just(Step::TakeOldest),
        2 => (0..8usize).prop_map(Step::GiveUp),
        1 => (1..6usize).prop_map(Step::SetMost),
        1 => (0..5usize).prop_map(Step::SetLimit),
        1 => (0..8usize).prop_map(Step::StartFailed),
        2 => Just(Step::Grow),
    ];
    vec(step, 1..400)
}

/// Where a worker is, as its own calls tell. Whether a sleeper has been woken, only the core knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Fresh,
    Awake,
    Asleep,
    Busy,
}

struct Model {
    core: Tasks<Ticket>,
    line: VecDeque<Ticket>,
    workers: Vec<(Place, Arc<Seat>)>,
    most: usize,
    limit: usize,
    added: usize,
    /// There may be more workers than there were when the tasks came: each that comes now brings one.
    excused: bool,
}

impl Model {
    fn new(most: usize, limit: usize) -> Self {
        Self {
            core: Tasks::new(most, limit),
            line: VecDeque::new(),
            workers: Vec::new(),
            most,
            limit,
            added: 0,
            excused: false,
        }
    }

    fn pending(&self) -> usize {
        self.line.iter().filter(|ticket| ticket.waits()).count()
    }

    /// The n-th worker in such a place, wrapping around.
    fn pick(&self, nth: usize, places: &[Place]) -> Option<usize> {
        let found: Vec<_> = (0..self.workers.len()).filter(|at| places.contains(&self.workers[*at].0)).collect();
        (!found.is_empty()).then(|| found[nth % found.len()])
    }

    fn count(&self, place: Place) -> usize {
        self.workers.iter().filter(|worker| worker.0 == place).count()
    }

    /// Sleepers that were woken are awake: `give_up` refuses them, which is how a worker would find out.
    fn settle(&mut self) {
        let asleep = self.core.workers().1;
        while self.count(Place::Asleep) > asleep {
            // The one woken last fell asleep last.
            let at = self.workers.iter().rposition(|worker| worker.0 == Place::Asleep).unwrap();
            self.workers[at].0 = Place::Awake;
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Add => {
                let ticket = Ticket { number: self.added, state: Arc::default() };
                self.added += 1;
                let full = self.limit > 0 && self.pending() >= self.limit;
                match self.core.add(ticket.clone()) {
                    Ok(added) => {
                        prop_assert!(!full, "added to a full line");
                        self.line.push_back(ticket);
                        if added == Added::Start {
                            prop_assert!(self.workers.len() < self.most, "one worker too many");
                            self.workers.push((Place::Fresh, Arc::default()));
                        }
                    }
                    Err(Rejected::Full(back)) => {
                        prop_assert!(full, "refused with room");
                        prop_assert_eq!(back.number, ticket.number);
                    }
                    Err(Rejected::Closed(_)) => prop_assert!(false, "nobody has closed it"),
                }
            }
            Step::Next(nth) => {
                let places = [Place::Fresh, Place::Awake, Place::Busy];
                let Some(at) = self.pick(nth, &places) else { return Ok(()) };
                let (place, seat) = &self.workers[at];
                let next = if *place == Place::Busy { self.core.finished_and_next(seat) } else { self.core.next(seat) };
                match next {
                    Next::Run(ticket) => {
                        let waiting = self.line.iter().position(|each| each.waits() || each.number == ticket.number);
                        let first = self.line.remove(waiting.expect("a task that was never added")).unwrap();
                        prop_assert_eq!(first.number, ticket.number, "out of turn");
                        self.workers[at].0 = Place::Busy;
                    }
                    Next::Gone(ticket) => {
                        self.line.retain(|each| each.number != ticket.number);
                        self.workers[at].0 = Place::Awake;
                    }
                    Next::Sleep => {
                        prop_assert_eq!(self.pending(), 0, "asleep beside a task");
                        self.workers[at].0 = Place::Asleep;
                        let sleeper = self.workers.remove(at);
                        self.workers.push(sleeper);
                    }
                    Next::Leave => {
                        prop_assert!(self.workers.len() > self.most, "left though it is wanted");
                        self.workers.remove(at);
                    }
                }
            }
            Step::Finish(nth) => {
                let Some(at) = self.pick(nth, &[Place::Busy]) else { return Ok(()) };
                self.core.finished();
                self.workers[at].0 = Place::Awake;
            }
            Step::Withdraw(nth) => {
                let waiting: Vec<_> = self.line.iter().filter(|ticket| ticket.waits()).cloned().collect();
                if let Some(ticket) = waiting.get(nth % waiting.len().max(1)) {
                    prop_assert!(ticket.claim());
                    for gone in self.core.withdrawn() {
                        prop_assert!(!gone.waits(), "a task that waits was taken out");
                        self.line.retain(|each| each.number != gone.number);
                    }
                }
            }
            Step::TakeOldest => match self.core.take_oldest() {
                Some(Ok(ticket)) => {
                    let first = self.line.iter().position(|each| each.number == ticket.number).unwrap();
                    prop_assert!(self.line.iter().take(first).all(|each| !each.waits()), "not the oldest");
                    self.line.remove(first);
                }
                Some(Err(ticket)) => self.line.retain(|each| each.number != ticket.number),
                None => prop_assert_eq!(self.pending(), 0),
            },
            Step::GiveUp(nth) => {
                let Some(at) = self.pick(nth, &[Place::Asleep]) else { return Ok(()) };
                // A task may count on it: then it is woken instead.
                let others = self.count(Place::Awake) + self.count(Place::Fresh) + self.count(Place::Asleep) - 1;
                let leaves = self.pending() <= others;
                prop_assert_eq!(self.core.give_up(&Arc::clone(&self.workers[at].1)), leaves, "a sleeper gives up");
                if leaves {
                    self.workers.remove(at);
                } else {
                    self.workers[at].0 = Place::Awake;
                }
            }
            Step::SetMost(most) => {
                self.most = most;
                self.core.set_most(most);
                // Those beyond the number are woken to leave: the ones that have slept longest.
                let asleep = self.core.workers().1;
                while self.count(Place::Asleep) > asleep {
                    let at = self.workers.iter().position(|worker| worker.0 == Place::Asleep).unwrap();
                    self.workers[at].0 = Place::Awake;
                }
            }
            Step::SetLimit(limit) => {
                self.limit = limit;
                self.core.set_limit(limit);
            }
            Step::StartFailed(nth) => {
                let Some(at) = self.pick(nth, &[Place::Fresh]) else { return Ok(()) };
                prop_assert_eq!(self.core.start_failed(), self.workers.len() > 1);
                self.workers.remove(at);
            }
            Step::Grow => {
                if self.core.wants_worker() {
                    prop_assert!(self.workers.len() < self.most, "one worker too many");
                    self.workers.push((Place::Fresh, Arc::default()));
                }
            }
        }
        self.settle();
        self.check(step)
    }

    fn check(&mut self, step: &Step) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.core.pending(), self.pending(), "pending after {:?}", step);
        prop_assert_eq!(self.core.workers(), (self.workers.len(), self.count(Place::Asleep)), "after {:?}", step);
        // The rule of the module: beside a task that waits nobody sleeps unless somebody is awake.
        let awake = self.count(Place::Awake) + self.count(Place::Fresh);
        prop_assert!(self.pending() == 0 || awake > 0 || self.count(Place::Asleep) == 0, "left asleep: {:?}", step);
        // Each task that waits has a worker who will come to it before a task ends, as long as there may be more.
        let short = self.pending() > awake + self.count(Place::Asleep) && self.workers.len() < self.most;
        self.excused &= short;
        self.excused |= matches!(step, Step::SetMost(_) | Step::StartFailed(_));
        prop_assert!(!short || self.excused, "a task without a worker after {:?}", step);
        Ok(())
    }
}

#[test]
fn the_line_does_what_its_model_does() {
    let given = std::env::var("RADDLE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
    eprintln!("the_line_does_what_its_model_does: RADDLE_TEST_SEED={seed}");
    let config =
        ProptestConfig { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..ProptestConfig::default() };
    let strategy = (1..5usize, 0..5usize, steps());
    let result = TestRunner::new(config).run(&strategy, |(most, limit, steps)| {
        let mut model = Model::new(most, limit);
        steps.iter().try_for_each(|step| model.step(step))
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

/// Tasks that were withdrawn do not fill the line.
#[test]
fn what_waits_no_more_is_taken_out_when_it_is_much() {
    let line = Tasks::new(1, 0);
    let mut left = 0;
    for number in 0..10_000 {
        let ticket = Ticket { number, state: Arc::default() };
        assert!(line.add(ticket.clone()).is_ok());
        if number % 100 != 0 {
            assert!(ticket.claim());
            left += 1;
            left -= line.withdrawn().len();
        }
    }
    assert_eq!(line.pending(), 100);
    assert!(left <= 200, "{left} are left");
}
