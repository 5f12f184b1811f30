//! raddle's core beside `std`, `parking_lot`, `crossbeam-channel`, `flume`, `rayon` and `threadpool`.
//!
//! ```text
//! cargo run --release                 everything, about three minutes
//! cargo run --release -- --quick      a smoke run: every row once and small; figures mean nothing
//! cargo run --release -- queue        rows whose title contains "queue"
//! cargo run --release -- --markdown   the table in Markdown
//! ```

mod handover;
mod locks;
mod measure;
mod pin;
mod pools;
mod queues;

use measure::{Options, Row};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut options = Options::default();
    let mut wanted = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => options.quick(),
            "--markdown" => options.markdown = true,
            "--repeat" => match arguments.next().and_then(|number| number.parse().ok()).filter(|rounds| *rounds > 0) {
                Some(rounds) => options.rounds = rounds,
                None => return usage("--repeat needs a number of rounds, at least 1"),
            },
            option if option.starts_with('-') => return usage(&format!("unknown option {option}")),
            title => wanted.push(title.to_owned()),
        }
    }

    let rows: Vec<Row> =
        [locks::rows(), queues::rows(), handover::rows(), pools::rows()].into_iter().flatten().collect();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "raddle's core, {cpus} CPUs, {} rounds of {:?} a sample, contenders in turn",
        options.rounds, options.sample
    );
    println!("ns per operation; in brackets how many times as fast raddle is: median (min..max)\n");
    if options.markdown {
        println!("| | raddle | peers |\n|---|--:|---|");
    }
    for row in
        rows.iter().filter(|row| wanted.is_empty() || wanted.iter().any(|part| row.title.contains(part.as_str())))
    {
        if cpus < row.cpus {
            println!("{}: left out, needs {} CPUs", row.title, row.cpus);
        } else {
            println!("{}", row.measure(&options));
        }
    }
    ExitCode::SUCCESS
}

fn usage(complaint: &str) -> ExitCode {
    eprintln!("{complaint}\nusage: raddle-benches [--quick] [--markdown] [--repeat N] [TITLE]...");
    ExitCode::from(2)
}
