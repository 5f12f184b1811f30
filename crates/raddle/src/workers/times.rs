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
    /// Nanoseconds of processor time of workers that have ended, from when they were ready.
    cpu: u64,
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
    /// (waiting + processor time) / processor time x cores: as many workers keep the cores busy.
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

    /// A worker has ended, with so much processor time.
    pub(super) fn ended(&mut self, cpu: u64) {
        self.cpu += cpu;
    }

    /// The times so far; those who work still have taken so much processor time.
    pub(super) fn measured(&self, cpu: u64, cores: usize) -> Measured {
        let tasks = self.done + self.failed;
        let each = |total: u64| total.checked_div(tasks).map(Duration::from_nanos);
        let percentiles = |histogram: &Histogram| [0.5, 0.99].map(|share| histogram.percentile(share));
        let cpu = self.cpu + cpu;
        let recommended = (tasks > 0 && cpu > 0).then(|| {
            let wanted = self.ran.max(cpu) as f64 / cpu as f64 * cores as f64;
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
        assert_eq!(times.measured(0, 2), Measured::default());
        times.add(1_000, 5_000, 1_000, true);
        times.add(1_000, 5_000, u64::MAX, false);
        times.ended(500);
        let found = times.measured(500, 2);
        assert_eq!((found.done, found.failed), (1, 1));
        assert_eq!(found.wall, Some(Duration::from_nanos(2_500)));
        assert_eq!(found.cpu, Some(Duration::from_nanos(500)));
        assert_eq!(found.recommended, Some(10));
        assert!(found.run[0].unwrap() < Duration::from_nanos(1_200));
        assert!(found.run[1].unwrap() > Duration::from_nanos(3_500));
    }
}
