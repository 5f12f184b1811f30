//! How long tasks of worker processes wait and run, and what they cost.

use crate::pool::Histogram;
use std::time::Duration;

/// The times of a pool's tasks. A worker says how long a task ran; the rest is measured here.
#[derive(Debug, Default)]
pub(super) struct Times {
    queued: Histogram,
    run: Histogram,
    done: u64,
    failed: u64,
    /// Nanoseconds that tasks ran.
    ran: u64,
    /// What workers that have ended have spent, from when they were ready.
    spent: Spent,
}

/// Where the time of a worker goes, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    /// Processor time.
    pub(super) cpu: u64,
    /// Waiting for a core.
    pub(super) delay: u64,
}

impl Spent {
    pub(super) fn since(self, before: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), delay: self.delay.saturating_sub(before.delay) }
    }
}

impl std::iter::Sum for Spent {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self { cpu: sum.cpu + one.cpu, delay: sum.delay + one.delay })
    }
}

/// What is known of the times of a pool's tasks. `None`: nothing has been measured yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Tasks that ended with a result.
    pub done: u64,
    /// Tasks that ended otherwise, those that were lost with their worker not counted.
    pub failed: u64,
    /// What half of the tasks waited at most before they ran, and 99 %; within an eighth.
    pub queued: [Option<Duration>; 2],
    /// The same of how long they ran.
    pub run: [Option<Duration>; 2],
    /// How long a task ran on average.
    pub wall: Option<Duration>,
    /// How much processor time a task took its worker on average, all that the worker does for it included.
    pub cpu: Option<Duration>,
    /// (waiting + processor time) / processor time x cores: as many workers keep the cores busy. Waiting for a core is
    /// left out.
    pub recommended: Option<usize>,
}

impl Times {
    /// A task has ended: submitted and replied to at these moments, and it ran for so long, as its worker says.
    pub(super) fn add(&mut self, submitted: u64, now: u64, ran: u64, done: bool) {
        let all = now.saturating_sub(submitted);
        let ran = ran.min(all);
        self.queued.add(all - ran);
        self.run.add(ran);
        self.ran += ran;
        if done {
            self.done += 1;
        } else {
            self.failed += 1;
        }
    }

    /// A worker has ended.
    pub(super) fn ended(&mut self, spent: Spent) {
        self.spent = [self.spent, spent].into_iter().sum();
    }

    /// The times so far; those who work still have spent so much.
    pub(super) fn measured(&self, spent: Spent, cores: usize) -> Measured {
        let tasks = self.done + self.failed;
        let each = |total: u64| total.checked_div(tasks).map(Duration::from_nanos);
        let percentiles = |histogram: &Histogram| [0.5, 0.99].map(|share| histogram.percentile(share));
        let Spent { cpu, delay } = [self.spent, spent].into_iter().sum();
        let recommended = (tasks > 0 && cpu > 0).then(|| {
            let wanted = self.ran.saturating_sub(delay).max(cpu) as f64 / cpu as f64 * cores as f64;
            (wanted.round() as usize).max(1)
        });
        Measured {
            done: self.done,
            failed: self.failed,
            queued: percentiles(&self.queued),
            run: percentiles(&self.run),
            wall: each(self.ran),
            cpu: each(cpu),
            recommended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_add_up() {
        let mut times = Times::default();
        assert_eq!(times.measured(Spent::default(), 2), Measured::default());
        times.add(1_000, 5_000, 1_000, true);
        times.add(1_000, 5_000, u64::MAX, false);
        times.ended(Spent { cpu: 500, delay: 1_000 });
        let found = times.measured(Spent { cpu: 500, delay: 0 }, 2);
        assert_eq!((found.done, found.failed), (1, 1));
        assert_eq!(found.wall, Some(Duration::from_nanos(2_500)));
        assert_eq!(found.cpu, Some(Duration::from_nanos(500)));
        assert_eq!(found.recommended, Some(8));
        assert!(found.run[0].unwrap() < Duration::from_nanos(1_200));
        assert!(found.run[1].unwrap() > Duration::from_nanos(3_500));
    }
}
