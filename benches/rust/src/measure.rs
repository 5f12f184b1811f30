//! Rows, rounds and figures, as in the Python benches: contenders take turns, round after round, and a
//! ratio compares two samples of one round.

use crate::pin;
use std::fmt::Write as _;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// What the command line says.
pub struct Options {
    pub rounds: usize,
    /// About how long one sample takes.
    pub sample: Duration,
    pub markdown: bool,
    /// Operations per sample; chosen by calibration if `None`.
    pub fixed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 9, sample: Duration::from_millis(60), markdown: false, fixed: None }
    }
}

impl Options {
    /// Every row once and small.
    pub fn quick(&mut self) {
        self.rounds = 1;
        self.fixed = Some(400);
    }
}

/// One implementation in one row: does this many operations and says how long they took.
pub struct Contender {
    pub name: &'static str,
    pub run: fn(u64) -> Duration,
}

/// One line of the table. The first contender is raddle.
pub struct Row {
    pub title: &'static str,
    /// Fewer CPUs, and the row is left out.
    pub cpus: usize,
    /// Whether all threads share one core.
    pub pinned: bool,
    /// Operations of every sample, where their number is what the row is about.
    pub size: Option<u64>,
    pub contenders: Vec<Contender>,
}

impl Row {
    /// Wherever the system likes.
    pub fn new(title: &'static str, cpus: usize, contenders: Vec<Contender>) -> Self {
        Self { title, cpus, pinned: false, size: None, contenders }
    }

    /// On one core.
    pub fn pinned(title: &'static str, contenders: Vec<Contender>) -> Self {
        Self { title, cpus: 1, pinned: true, size: None, contenders }
    }

    /// As `new`, with 100,000 operations in every sample.
    pub fn burst(title: &'static str, cpus: usize, contenders: Vec<Contender>) -> Self {
        Self { title, cpus, pinned: false, size: Some(100_000), contenders }
    }

    /// Runs all rounds; the line to print.
    pub fn measure(&self, options: &Options) -> String {
        let _pin = self.pinned.then(pin::to_one_core);
        let sizes: Vec<u64> = self
            .contenders
            .iter()
            .map(|contender| options.fixed.or(self.size).unwrap_or_else(|| calibrate(contender, options.sample)))
            .collect();
        let mut times = vec![Vec::with_capacity(options.rounds); self.contenders.len()];
        for round in 0..options.rounds {
            for turn in 0..self.contenders.len() {
                let place = (round + turn) % self.contenders.len();
                let spent = (self.contenders[place].run)(sizes[place]);
                times[place].push(spent.as_nanos() as f64 / sizes[place] as f64);
            }
        }
        self.line(&times, options.markdown)
    }

    fn line(&self, times: &[Vec<f64>], markdown: bool) -> String {
        let (raddle, peers) = times.split_first().expect("a row has contenders");
        let mut text = if markdown {
            format!("| {} | {:.1} ns | ", self.title, middle(raddle))
        } else {
            format!("{:<50} raddle {:>8.1}", self.title, middle(raddle))
        };
        for (place, (contender, peer)) in self.contenders[1..].iter().zip(peers).enumerate() {
            let ratios: Vec<f64> = peer.iter().zip(raddle).map(|(peer, raddle)| peer / raddle).collect();
            let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
            let high = ratios.iter().copied().fold(0.0, f64::max);
            let comma = if markdown && place == 0 { "" } else { ", " };
            write!(
                text,
                "{comma}{} {:.1} [{:.2} ({low:.2}..{high:.2})]",
                contender.name,
                middle(peer),
                middle(&ratios)
            )
            .expect("a String takes everything");
        }
        if markdown {
            text.push_str(" |");
        }
        text
    }
}

fn calibrate(contender: &Contender, sample: Duration) -> u64 {
    let mut operations = 400;
    loop {
        let spent = (contender.run)(operations);
        if spent * 4 >= sample {
            let scaled = operations as f64 * sample.as_secs_f64() / spent.as_secs_f64();
            return (scaled as u64).next_multiple_of(8).max(400);
        }
        operations *= 4;
    }
}

/// The median.
fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// Runs all bodies at once, each in a thread; from the common start to the last end.
pub fn together(bodies: Vec<Box<dyn FnOnce() + Send + '_>>) -> Duration {
    let start = Barrier::new(bodies.len() + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = bodies
            .into_iter()
            .map(|body| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    body();
                })
            })
            .collect();
        start.wait();
        let begin = Instant::now();
        for thread in threads {
            thread.join().expect("a bench thread panicked");
        }
        begin.elapsed()
    })
}
