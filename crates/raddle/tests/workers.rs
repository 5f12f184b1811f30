//! A plan of workers against a simple model: workers that take, reply and die at any moment.
#![cfg(not(raddle_loom))]

use proptest::prelude::*;
use raddle::workers::{Id, Message, Plan, Rules, Slot, Step};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// What may happen next. Numbers pick one of those that can.
#[derive(Clone, Debug)]
enum Event {
    Submit { retries: u32 },
    Start,
    NotStarted,
    Ready(usize),
    Take(usize),
    Reply(usize),
    Die(usize),
    DropOldest,
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..2u32).prop_map(|retries| Event::Submit { retries }),
        2 => Just(Event::Start),
        1 => Just(Event::NotStarted),
        3 => (0..8usize).prop_map(Event::Ready),
        6 => (0..8usize).prop_map(Event::Take),
        6 => (0..8usize).prop_map(Event::Reply),
        2 => (0..8usize).prop_map(Event::Die),
        1 => Just(Event::DropOldest),
        4 => (1..20_000_000u64).prop_map(Event::Pass),
    ];
    proptest::collection::vec(event, 0..200)
}

/// A worker as the world has it.
#[derive(Debug, Default)]
struct Worker {
    ready: bool,
    /// What was sent and not taken.
    ring: VecDeque<Id>,
    taken: Option<Id>,
    told_to_end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Replied,
    Lost,
    Dropped,
}

struct World {
    plan: Plan<Id>,
    now: u64,
    workers: BTreeMap<Slot, Worker>,
    starting: Vec<Slot>,
    retries: HashMap<Id, u32>,
    /// How often each was taken by a worker.
    taken: HashMap<Id, u32>,
    ends: HashMap<Id, End>,
    tasks_per_worker: u64,
}

impl World {
    fn new(workers: usize, tasks_per_worker: u64) -> Self {
        let rules = Rules { workers, least: workers / 2, tasks_per_worker, idle: 0, failures: 1_000_000 };
        Self {
            plan: Plan::new(rules),
            now: 1,
            workers: BTreeMap::new(),
            starting: Vec::new(),
            retries: HashMap::new(),
            taken: HashMap::new(),
            ends: HashMap::new(),
            tasks_per_worker,
        }
    }

    fn end(&mut self, id: Id, end: End) {
        assert_eq!(self.ends.insert(id, end), None, "task {id} ended twice");
    }

    fn pick(&self, number: usize, which: impl Fn(&Worker) -> bool) -> Option<Slot> {
        let able: Vec<Slot> = self.workers.iter().filter(|(_, worker)| which(worker)).map(|(slot, _)| *slot).collect();
        (!able.is_empty()).then(|| able[number % able.len()])
    }

    /// Does what the plan decides.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let Some(step) = self.plan.step(self.now) else {
                self.starting.extend(self.plan.start(0, self.now));
                return;
            };
            match step {
                Step::Send(slot, id) => {
                    let worker = self.workers.get_mut(&slot).expect("tasks go to workers that exist");
                    assert!(!worker.told_to_end, "a task for a worker that takes none");
                    assert!(worker.ready || worker.ring.is_empty(), "two tasks for a worker that is starting");
                    assert!(self.plan.message(id).is_some(), "nothing to send");
                    worker.ring.push_back(id);
                    self.plan.sent(slot, id, self.now);
                }
                Step::TakeBack(slot) => {
                    if !self.take_back(slot) {
                        self.plan.kept(slot, self.now);
                    }
                }
                Step::End(slot) => {
                    let worker = self.workers.get_mut(&slot).expect("a worker that exists");
                    assert!(worker.ring.is_empty() && worker.taken.is_none(), "a worker with work is told to end");
                    worker.told_to_end = true;
                    self.plan.ending(slot);
                }
            }
        }
        panic!("decisions without end");
    }

    fn take_back(&mut self, slot: Slot) -> bool {
        let ring = std::mem::take(&mut self.workers.get_mut(&slot).expect("it exists").ring);
        for id in &ring {
            assert!(
                self.plan.taken_back(slot, *id, Message { tag: 0, bytes: Vec::new().into() }),
                "it was the worker's"
            );
        }
        !ring.is_empty()
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Submit { retries } if !self.plan.is_closed() => {
                let next = self.retries.len() as Id + 1;
                let id = self.plan.submit(next, Message { tag: 0, bytes: Vec::new().into() }, retries, None, self.now);
                assert_eq!(id, next);
                self.retries.insert(id, retries);
            }
            Event::Submit { .. } => {}
            Event::Start => {
                if let Some(slot) = self.starting.pop() {
                    self.workers.insert(slot, Worker::default());
                    self.plan.is_reachable(slot);
                }
            }
            Event::NotStarted => {
                if let Some(slot) = self.starting.pop() {
                    self.plan.not_started(slot, self.now);
                }
            }
            Event::Ready(number) => {
                if let Some(slot) = self.pick(number, |worker| !worker.ready) {
                    self.workers.get_mut(&slot).expect("picked").ready = true;
                    self.plan.is_ready(slot, self.now);
                }
            }
            Event::Take(number) => {
                if let Some(slot) =
                    self.pick(number, |worker| worker.ready && worker.taken.is_none() && !worker.ring.is_empty())
                {
                    let worker = self.workers.get_mut(&slot).expect("picked");
                    worker.taken = worker.ring.pop_front();
                    *self.taken.entry(worker.taken.expect("there is one")).or_default() += 1;
                }
            }
            Event::Reply(number) => {
                if let Some(slot) = self.pick(number, |worker| worker.taken.is_some()) {
                    let id = self.workers.get_mut(&slot).expect("picked").taken.take().expect("picked");
                    let found = self.plan.replied(slot, &[id], self.now);
                    let found: Vec<_> = found.into_iter().map(|one| one.map(|one| (one.task, one.why))).collect();
                    assert_eq!(found, vec![Some((id, None))], "a reply to a task that was sent");
                    self.end(id, End::Replied);
                }
            }
            Event::Die(number) => {
                if let Some(slot) = self.pick(number, |_| true) {
                    self.dies(slot);
                }
            }
            Event::DropOldest => {
                if let Some(id) = self.plan.drop_oldest() {
                    assert!(!self.taken.contains_key(&id), "a task that had begun was dropped");
                    self.end(id, End::Dropped);
                }
            }
            Event::Pass(time) => self.now += time,
        }
        self.settle();
    }

    fn dies(&mut self, slot: Slot) {
        self.take_back(slot);
        let worker = self.workers.remove(&slot).expect("it exists");
        let lost = self.plan.died(slot);
        assert_eq!(lost.unready, !worker.ready);
        for id in &lost.tasks {
            assert_eq!(Some(*id), worker.taken, "a task was lost that the worker did not run");
            assert_eq!(self.taken[id], self.retries[id] + 1, "a task was lost before its retries were used up");
            self.end(*id, End::Lost);
        }
        if let Some(id) = worker.taken {
            let again = self.taken[&id] <= self.retries[&id];
            assert_eq!(lost.tasks.is_empty(), again, "a task is either lost or run again");
        }
    }

    /// Everybody does what there is to do; nobody dies but those who are told to end.
    fn finish(&mut self) {
        self.plan.close();
        for _ in 0..10_000 {
            self.settle();
            if self.plan.is_over() {
                return;
            }
            self.now += 200_000_000;
            for _ in 0..self.starting.len() {
                self.happens(&Event::Start);
            }
            for number in 0..self.workers.len() {
                self.happens(&Event::Ready(number));
                self.happens(&Event::Take(number));
                self.happens(&Event::Reply(number));
            }
            let ended: Vec<Slot> =
                self.workers.iter().filter(|(_, worker)| worker.told_to_end).map(|(slot, _)| *slot).collect();
            for slot in ended {
                self.dies(slot);
            }
        }
        panic!("it never ends: {:?}", self.plan);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_task_ends_once(events in events(), workers in 1..5usize, tasks_per_worker in 0..4u64) {
        let mut world = World::new(workers, tasks_per_worker);
        for event in &events {
            world.happens(event);
        }
        world.finish();
        prop_assert_eq!(world.ends.len(), world.retries.len(), "a task has no end");
        for (id, end) in &world.ends {
            let taken = world.taken.get(id).copied().unwrap_or(0);
            prop_assert!(taken <= world.retries[id] + 1, "task {} was begun too often", id);
            prop_assert_eq!(taken == 0, *end == End::Dropped);
        }
        prop_assert_eq!(world.plan.unfinished(), 0);
        let counts = world.plan.counts();
        prop_assert_eq!(counts.submitted, counts.replied + counts.lost + counts.dropped);
        prop_assert!(world.tasks_per_worker < 4);
    }
}

#[test]
fn a_task_behind_a_long_one_goes_to_an_idle_worker() {
    let rules = Rules { workers: 2, least: 0, tasks_per_worker: 0, idle: 0, failures: 3 };
    let mut plan: Plan<Id> = Plan::new(rules);
    let message = || Message { tag: 0, bytes: Vec::new().into() };
    let slots = plan.start(2, 0);
    plan.is_reachable(slots[0]);
    plan.is_reachable(slots[1]);
    plan.is_ready(slots[0], 1);
    // Quick tasks, so that the first worker is given some in advance.
    for now in 1..20 {
        let id = plan.submit(now, message(), 0, None, 0);
        assert_eq!(plan.step(now * 1000), Some(Step::Send(slots[0], id)));
        plan.sent(slots[0], id, now * 1000);
        plan.replied(slots[0], &[id], now * 1000 + 500);
    }
    let (first, second) = (plan.submit(0, message(), 0, None, 0), plan.submit(0, message(), 0, None, 0));
    for id in [first, second] {
        assert_eq!(plan.step(30_000), Some(Step::Send(slots[0], id)));
        plan.sent(slots[0], id, 30_000);
    }
    plan.is_ready(slots[1], 40_000);
    assert_eq!(plan.step(50_000), None);
    assert!(plan.next_look(50_000).is_some());
    assert_eq!(plan.step(30_000_000), Some(Step::TakeBack(slots[0])));
    assert!(plan.taken_back(slots[0], second, message()));
    assert_eq!(plan.step(30_000_000), Some(Step::Send(slots[1], second)));
}
