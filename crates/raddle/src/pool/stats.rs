//! What a pool knows about its work: counts, and times in histograms of fixed size.
//!
//! Each worker writes its own counts, so that nothing is shared while tasks run; who asks adds them up.

#[cfg(not(raddle_loom))]
use super::{Doing, doing};
use crate::primitive::Spin;
#[cfg(not(raddle_loom))]
use crate::primitive::thread_number;
use std::sync::Arc;
#[cfg(not(raddle_loom))]
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Buckets for each doubling: the error of a percentile is at most an eighth.
const PARTS: usize = 4;
const BUCKETS: usize = 40 * PARTS;

/// Durations by their logarithm, from nanoseconds to minutes.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU32; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [const { AtomicU32::new(0) }; BUCKETS] }
    }
}

impl Histogram {
    /// Two bits behind the leading one say which part of a doubling.
    fn bucket(nanoseconds: u64) -> usize {
        let value = nanoseconds.max(PARTS as u64);
        let power = value.ilog2() as usize;
        let part = (value >> (power - 2)) as usize & (PARTS - 1);
        ((power - 2) * PARTS + part).min(BUCKETS - 1)
    }

    /// The middle of a bucket, in nanoseconds.
    fn middle(bucket: usize) -> f64 {
        let (power, part) = (bucket / PARTS + 2, bucket % PARTS);
        2f64.powi(power as i32) * (1.0 + (part as f64 + 0.5) / PARTS as f64)
    }

    /// Adds a duration, in nanoseconds. For one thread at a time.
    #[inline]
    pub fn add(&self, nanoseconds: u64) {
        let count = &self.counts[Self::bucket(nanoseconds)];
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    fn merge(&self, other: &Self) {
        for (count, more) in self.counts.iter().zip(&other.counts) {
            let sum = count.load(Ordering::Relaxed).wrapping_add(more.load(Ordering::Relaxed));
            count.store(sum, Ordering::Relaxed);
        }
    }

    /// What this share of the durations (0 to 1) stays below, within an eighth; `None` if there is none yet.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let counts: Vec<u64> = self.counts.iter().map(|count| u64::from(count.load(Ordering::Relaxed))).collect();
        let all: u64 = counts.iter().sum();
        if all == 0 {
            return None;
        }
        let rank = ((all as f64 * share).ceil() as u64).clamp(1, all);
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_nanos(Self::middle(bucket) as u64))
    }
}

/// What one thread has done for a pool. Any thread may read it; only that one writes it, so that a count is a load
/// and a store.
#[derive(Debug, Default)]
pub struct Desk {
    /// The worker's number in the kernel; 0 for those who are no workers.
    #[cfg(not(raddle_loom))]
    thread: i32,
    /// Tasks begun.
    pub started: Count,
    /// Tasks that ended with a value.
    pub done: Count,
    /// Tasks that ended with an error.
    pub failed: Count,
    /// From being taken in to being begun.
    pub queued: Histogram,
    /// From being begun to the end.
    pub run: Histogram,
}

/// A number that one thread counts up.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more. For one thread at a time.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0.store(self.get() + more, Ordering::Relaxed);
    }

    /// The number so far.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Desk {
    /// Whether it is in the middle of a task.
    #[cfg(not(raddle_loom))]
    fn is_busy(&self) -> bool {
        self.started.get() > self.done.get() + self.failed.get()
    }

    fn merge(&self, other: &Self) {
        for (count, more) in
            [&self.started, &self.done, &self.failed].into_iter().zip([&other.started, &other.done, &other.failed])
        {
            count.add(more.get());
        }
        self.queued.merge(&other.queued);
        self.run.merge(&other.run);
    }
}

/// Counts and times of a pool. The figures of one instant may be some tasks apart.
#[derive(Debug, Default)]
pub struct Stats {
    /// The workers there are, and behind them what the others did, those who have left included.
    desks: Spin<Vec<Arc<Desk>>>,
    others: Spin<Desk>,
    /// Whose turn it is to be looked at.
    #[cfg(not(raddle_loom))]
    turn: AtomicUsize,
}

impl Stats {
    /// A desk for the calling thread, a worker that begins.
    pub fn join(&self) -> Arc<Desk> {
        let desk = Arc::new(Desk {
            #[cfg(not(raddle_loom))]
            thread: thread_number(),
            ..Desk::default()
        });
        self.desks.lock().push(Arc::clone(&desk));
        desk
    }

    /// The worker at this desk leaves; what it has done stays.
    pub fn leave(&self, desk: &Arc<Desk>) {
        let mut desks = self.desks.lock();
        if let Some(at) = desks.iter().position(|other| Arc::ptr_eq(other, desk)) {
            desks.swap_remove(at);
            self.others.lock().merge(desk);
        }
    }

    /// What another worker does that is in the middle of a task: each time it is the turn of the next. `None` if there
    /// is none, or the kernel does not tell.
    #[cfg(not(raddle_loom))]
    pub fn look_at_another(&self, mine: &Desk) -> Option<Doing> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let thread = {
            let desks = self.desks.lock();
            let (before, after) = desks.split_at(turn % desks.len().max(1));
            let mut others = after.iter().chain(before).filter(|desk| !std::ptr::eq(&raw const ***desk, mine));
            others.find(|desk| desk.is_busy())?.thread
        };
        doing(thread)
    }

    /// Notes what a thread did that is no worker.
    pub fn by_others(&self, note: impl FnOnce(&Desk)) {
        note(&self.others.lock());
    }

    /// All together.
    pub fn sum(&self) -> Desk {
        let sum = Desk::default();
        let desks = self.desks.lock();
        sum.merge(&self.others.lock());
        desks.iter().for_each(|desk| sum.merge(desk));
        sum
    }

    /// In a forked child: the workers are gone, and a lock may have been held.
    #[cfg(not(raddle_loom))]
    pub fn after_fork_in_child(&self) {
        let mut gone = Vec::new();
        self.desks.lock_after_fork(|desks| gone = std::mem::take(desks));
        self.others.lock_after_fork(|others| gone.iter().for_each(|desk| others.merge(desk)));
        // A thread that is gone may have been in the middle of changing the list.
        std::mem::forget(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(not(raddle_loom))]
    use std::sync::Barrier;

    #[test]
    fn percentiles_are_within_an_eighth() {
        let histogram = Histogram::default();
        for value in 1..=10_000u64 {
            histogram.add(value * 1_000);
        }
        for (share, truth) in [(0.5, 5_000_000.0), (0.99, 9_900_000.0), (1.0, 10_000_000.0)] {
            let found = histogram.percentile(share).unwrap().as_nanos() as f64;
            assert!((found / truth - 1.0).abs() <= 0.125, "{share}: {found} for {truth}");
        }
        assert_eq!(Histogram::default().percentile(0.5), None);
    }

    #[test]
    fn what_a_worker_did_stays_when_it_leaves() {
        let stats = Stats::default();
        let desks = [stats.join(), stats.join()];
        for desk in &desks {
            desk.done.add(2);
            desk.run.add(1_000);
        }
        stats.by_others(|desk| desk.done.add(1));
        assert_eq!(stats.sum().done.get(), 5);
        stats.leave(&desks[0]);
        stats.leave(&desks[0]);
        assert_eq!(stats.sum().done.get(), 5);
        assert!(stats.sum().run.percentile(0.5).is_some());
    }

    #[cfg(not(raddle_loom))]
    #[test]
    fn a_worker_looks_at_those_who_have_a_task() {
        let stats = Arc::new(Stats::default());
        let mine = stats.join();
        mine.started.add(1);
        assert_eq!(stats.look_at_another(&mine), None);
        let (ready, end) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let other = {
            let (stats, ready, end) = (Arc::clone(&stats), Arc::clone(&ready), Arc::clone(&end));
            std::thread::spawn(move || {
                let desk = stats.join();
                desk.started.add(1);
                ready.wait();
                end.wait();
                desk.done.add(1);
                ready.wait();
                end.wait();
            })
        };
        ready.wait();
        while !matches!(stats.look_at_another(&mine), Some(Doing::SleepsAt(_))) {
            std::thread::yield_now();
        }
        end.wait();
        ready.wait();
        assert_eq!(stats.look_at_another(&mine), None);
        end.wait();
        other.join().unwrap();
    }

    #[test]
    fn no_duration_is_out_of_range() {
        let histogram = Histogram::default();
        for value in [0, 1, 3, 4, 5, u64::MAX] {
            histogram.add(value);
        }
        assert!(histogram.percentile(1.0).is_some());
    }
}
