//! How many workers the work wants: (waiting + processor time) / processor time x cores, from measured times.
//!
//! Seen from outside, a task that wants to compute and may not looks like one that waits: more workers would make it
//! worse, and the formula would ask for still more. There are two such waits, and both are left out:
//!
//! - *for a core:* the kernel counts it for each thread ([`run_delay`](super::run_delay)).
//! - *for the interpreter* (the GIL): nobody counts it. But a worker that has just ended a task may look what another
//!   one is doing in the middle of its task ([`doing`](super::doing)). Of the time that is neither processor time nor
//!   waiting for a core, that share was spent on waiting for the world in which others were seen to do so.
//!
//! How many cores the tasks can use is found out, too. Where one thread at a time may compute, it is one, unless the
//! tasks compute without the interpreter; that shows in more than one core's worth of processor time. A loaded pool
//! in which nobody waits for the interpreter is taken for such a one on trial, since with too few workers the proof
//! cannot appear; with more of them, either does. One worker alone shows nothing.

use super::Doing;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Of what is past this much wall time, in nanoseconds, everything weighs half: the work may have changed.
const MEMORY: u64 = 10_000_000_000;
/// Over how long the load is measured, in nanoseconds.
const WINDOW: u64 = 100_000_000;
/// How long it is believed that the tasks compute one at a time, in nanoseconds.
const BELIEF: u64 = 60_000_000_000;
/// From this load of one core on, it shows if nobody waits for the interpreter.
const LOADED: f64 = 0.75;
/// From this share of the cores' time on, more workers are no help.
const FULL: f64 = 0.9;
/// More than one core.
const SEVERAL: f64 = 1.1;
/// Looks at others before the absence of something counts.
const LOOKS: u64 = 10;

/// Whether tasks compute side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Computing {
    Unknown,
    OneAtATime,
    SideBySide,
}

/// A stretch of work of one worker. Times are nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stretch {
    /// Tasks that were run.
    pub tasks: u64,
    /// How long they took together.
    pub wall: u64,
    /// The worker's processor time.
    pub cpu: u64,
    /// How long it had no core although it was ready.
    pub delay: u64,
}

/// See the module. Any thread may add and ask; the figures of one instant may be some tasks apart.
#[derive(Debug)]
pub struct Demand {
    /// Where threads sleep that wait for the interpreter; empty if threads compute side by side anyway.
    interpreter: Range<usize>,
    tasks: AtomicU64,
    wall: AtomicU64,
    cpu: AtomicU64,
    delay: AtomicU64,
    /// How many times a worker was seen, in the middle of a task, to wait for the interpreter, to wait for something
    /// else, and at all.
    contending: AtomicU64,
    waiting: AtomicU64,
    seen: AtomicU64,
    /// When the window began, and the processor time in it.
    window: AtomicU64,
    used: AtomicU64,
    /// When the first of the stretches began that ended in the window: their processor time was used since then.
    begun: AtomicU64,
    /// The load of the window before, in thousandths of a core.
    load: AtomicU64,
    computing: AtomicU8,
    /// When they were last seen to compute one at a time.
    believed: AtomicU64,
}

impl Demand {
    /// Nothing has been measured yet. `interpreter` is the memory in which threads sleep that wait for the one lock
    /// under which tasks compute, as the GIL; `None` if there is no such lock.
    pub fn new(interpreter: Option<Range<usize>>, time: u64) -> Self {
        let computing = if interpreter.is_some() { Computing::Unknown } else { Computing::SideBySide };
        Self {
            interpreter: interpreter.unwrap_or(0..0),
            tasks: AtomicU64::new(0),
            wall: AtomicU64::new(0),
            cpu: AtomicU64::new(0),
            delay: AtomicU64::new(0),
            contending: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            window: AtomicU64::new(time),
            used: AtomicU64::new(0),
            begun: AtomicU64::new(time),
            load: AtomicU64::new(0),
            computing: AtomicU8::new(computing as u8),
            believed: AtomicU64::new(0),
        }
    }

    /// Tasks measured so far, their wall time and their processor time in nanoseconds; what is long past counts less.
    pub fn measured(&self) -> (u64, u64, u64) {
        let [tasks, wall, cpu] = [&self.tasks, &self.wall, &self.cpu].map(|counter| counter.load(Ordering::Relaxed));
        (tasks, wall, cpu)
    }

    /// Adds a stretch of work that ends now, in a pool of so many workers. True from time to time: when the load has
    /// been measured anew, and the number of workers may be reconsidered.
    pub fn add(&self, stretch: Stretch, workers: usize, time: u64) -> bool {
        let Stretch { tasks, wall, cpu, delay } = stretch;
        self.begun.fetch_min(time.saturating_sub(wall), Ordering::Relaxed);
        for (counter, more) in
            [(&self.tasks, tasks), (&self.wall, wall), (&self.cpu, cpu), (&self.delay, delay), (&self.used, cpu)]
        {
            counter.fetch_add(more, Ordering::Relaxed);
        }
        if self.wall.load(Ordering::Relaxed) > MEMORY && self.tasks.load(Ordering::Relaxed) > 1 {
            for counter in
                [&self.tasks, &self.wall, &self.cpu, &self.delay, &self.contending, &self.waiting, &self.seen]
            {
                counter.store(counter.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
        let since = self.window.load(Ordering::Relaxed);
        let passed = time.saturating_sub(since);
        if passed < WINDOW || self.window.compare_exchange(since, time, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        let used = self.used.swap(0, Ordering::Relaxed) as f64;
        let begun = self.begun.swap(time, Ordering::Relaxed).min(since);
        let load = used / passed as f64;
        self.load.store((load * 1000.0) as u64, Ordering::Relaxed);
        self.learn(load, used / (time - begun) as f64, workers, time);
        true
    }

    /// What a worker was seen to do in the middle of a task, by somebody who had the interpreter.
    pub fn saw(&self, doing: Doing) {
        self.seen.fetch_add(1, Ordering::Relaxed);
        match doing {
            Doing::Runs => {}
            Doing::SleepsAt(address) if self.interpreter.contains(&address) => {
                self.contending.fetch_add(1, Ordering::Relaxed);
            }
            Doing::SleepsAt(_) | Doing::Waits => {
                self.waiting.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether tasks compute side by side: from the load of the last window, the cores that must have been used for
    /// it, and how many wait for the interpreter.
    fn learn(&self, load: f64, cores: f64, workers: usize, time: u64) {
        if self.interpreter.is_empty() {
            return;
        }
        let seen = self.seen.load(Ordering::Relaxed);
        let share = self.contending.load(Ordering::Relaxed) as f64 / seen.max(1) as f64;
        let queue = share * workers.saturating_sub(1) as f64;
        let doubts = self.computing() == Computing::Unknown
            || time.saturating_sub(self.believed.load(Ordering::Relaxed)) > BELIEF;
        let learned = if cores > SEVERAL {
            Computing::SideBySide
        } else if queue >= 0.5 {
            self.believed.store(time, Ordering::Relaxed);
            Computing::OneAtATime
        } else if load > LOADED && workers > 1 && seen >= LOOKS && queue < 0.2 && doubts {
            Computing::SideBySide
        } else {
            return;
        };
        self.computing.store(learned as u8, Ordering::Relaxed);
    }

    fn computing(&self) -> Computing {
        match self.computing.load(Ordering::Relaxed) {
            known if known == Computing::OneAtATime as u8 => Computing::OneAtATime,
            known if known == Computing::SideBySide as u8 => Computing::SideBySide,
            _ => Computing::Unknown,
        }
    }

    /// How many workers keep the cores busy that the tasks can use, in a pool that has so many now. `None` before the
    /// first task has been measured.
    pub fn recommended_workers(&self, workers: usize, cores: usize) -> Option<usize> {
        let (tasks, wall, cpu) = self.measured();
        if tasks == 0 || cpu == 0 {
            return None;
        }
        let usable = if self.computing() == Computing::SideBySide { cores } else { 1 } as f64;
        let [waiting, contending, delay] =
            [&self.waiting, &self.contending, &self.delay].map(|counter| counter.load(Ordering::Relaxed));
        let idle = wall.saturating_sub(cpu).saturating_sub(delay) as f64;
        let outside = if waiting + contending == 0 { 1.0 } else { waiting as f64 / (waiting + contending) as f64 };
        let cpu = cpu as f64;
        let wanted = (((cpu + idle * outside) / cpu * usable).round() as usize).max(1);
        let full = self.load.load(Ordering::Relaxed) as f64 >= FULL * 1000.0 * usable;
        Some(if full { wanted.min(workers.max(1)) } else { wanted })
    }

    /// How many workers there may be next in a pool that follows the work, which may have `now` and has `workers`: at
    /// most twice as many and at least half, since what is measured follows with a delay. And two at least, within the
    /// bounds, as long as it is not known how the tasks compute: one alone shows nothing.
    pub fn next_workers(&self, now: usize, workers: usize, cores: usize, (least, most): (usize, usize)) -> usize {
        let Some(wanted) = self.recommended_workers(workers, cores) else { return now };
        let trial = if self.computing() == Computing::Unknown { 2 } else { 1 };
        wanted.max(trial).clamp(now / 2, now.saturating_mul(2)).clamp(least, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const GIL: Range<usize> = 1000..2000;

    /// Tasks that compute and wait so long, on so many workers for a second: what a pool would have noted if they
    /// compute in no more than `usable` places.
    fn run(demand: &Demand, workers: usize, (cpu, wait): (u64, u64), usable: usize, begin: u64) -> u64 {
        let alone = (cpu + wait) as f64;
        // Tasks a millisecond: as many as the workers can begin, or as the cores can compute.
        let rate = (workers as f64 / alone).min(usable as f64 / cpu as f64);
        let cycle = workers as f64 / rate;
        let queued = cycle - alone;
        let tasks = (rate * 1000.0) as u64;
        for task in 0..tasks {
            let time = begin + (task + 1) * 1000 * MS / tasks;
            let wall = (cycle * MS as f64) as u64;
            demand.add(Stretch { tasks: 1, wall, cpu: cpu * MS, delay: 0 }, workers, time);
            let part = (task * 7919 % tasks) as f64 / tasks as f64 * cycle;
            demand.saw(if workers == 1 {
                continue;
            } else if part < queued {
                Doing::SleepsAt(GIL.start + 8)
            } else if part < queued + wait as f64 {
                Doing::Waits
            } else if usable > 1 {
                Doing::Runs
            } else {
                continue;
            });
        }
        begin + 1000 * MS
    }

    #[test]
    fn nothing_is_recommended_before_the_first_task() {
        let demand = Demand::new(Some(GIL), 0);
        assert_eq!(demand.recommended_workers(1, 4), None);
        assert_eq!(demand.next_workers(3, 1, 4, (2, 8)), 3);
    }

    #[test]
    fn computing_under_the_gil_wants_one_worker() {
        for workers in [1, 2, 8, 32] {
            let demand = Demand::new(Some(GIL), 0);
            run(&demand, workers, (10, 0), 1, 0);
            assert_eq!(demand.recommended_workers(workers, 4), Some(1), "{workers} workers");
        }
    }

    #[test]
    fn computing_without_the_gil_wants_the_cores() {
        for interpreter in [Some(GIL), None] {
            let demand = Demand::new(interpreter, 0);
            run(&demand, 4, (10, 0), 4, 0);
            assert_eq!(demand.recommended_workers(4, 4), Some(4));
        }
    }

    #[test]
    fn both_want_what_the_formula_says() {
        for workers in [1, 4, 20, 40] {
            let demand = Demand::new(Some(GIL), 0);
            run(&demand, workers, (5, 50), 1, 0);
            let wanted = demand.recommended_workers(workers, 4).unwrap();
            assert!((10..=12).contains(&wanted), "{wanted} with {workers} workers");
        }
        let demand = Demand::new(None, 0);
        run(&demand, 4, (5, 50), 4, 0);
        assert_eq!(demand.recommended_workers(4, 4), Some(44));
    }

    #[test]
    fn waiting_for_a_core_is_no_waiting() {
        let demand = Demand::new(None, 0);
        for task in 0..100 {
            demand.add(Stretch { tasks: 1, wall: 10 * MS, cpu: MS, delay: 9 * MS }, 8, task * MS);
        }
        assert_eq!(demand.recommended_workers(8, 2), Some(2));
    }

    /// A pool that follows the work gets where the formula points, and stays there.
    #[test]
    fn the_number_of_workers_settles() {
        for (work, usable, wanted) in
            [((10, 0), 1, 1..=1), ((5, 50), 1, 10..=11), ((5, 50), 4, 38..=44), ((10, 0), 4, 4..=4)]
        {
            let demand = Demand::new(Some(GIL), 0);
            let (mut workers, mut time) = (2, 0);
            for round in 0..40 {
                time = run(&demand, workers, work, usable, time);
                workers = demand.next_workers(workers, workers, 4, (1, 64));
                assert!(round < 30 || wanted.contains(&workers), "{work:?} on {usable}: {workers} in round {round}");
            }
        }
    }

    #[test]
    fn sleepers_get_as_many_as_there_may_be() {
        let demand = Demand::new(Some(GIL), 0);
        let mut workers = 2;
        for task in 0..100 {
            demand.add(Stretch { tasks: 1, wall: 100 * MS, cpu: MS / 20, delay: 0 }, workers, task * 100 * MS);
            demand.saw(Doing::Waits);
            workers = demand.next_workers(workers, workers, 4, (1, 64));
        }
        assert_eq!(workers, 64);
    }

    /// What the tasks do may change.
    #[test]
    fn work_that_changes_is_noticed() {
        let demand = Demand::new(Some(GIL), 0);
        let mut time = 0;
        for _ in 0..5 {
            time = run(&demand, 16, (5, 50), 1, time);
        }
        for _ in 0..8 {
            time = run(&demand, 16, (10, 0), 1, time);
        }
        assert!(demand.recommended_workers(16, 4).unwrap() <= 2);
        for _ in 0..8 {
            time = run(&demand, 16, (10, 0), 4, time);
        }
        assert_eq!(demand.recommended_workers(16, 4), Some(4));
    }
}
