//! `bigpeer-sim SEED`, `bigpeer-sim FROM..TO`: runs seeds, prints one line for each, and ends with 1 if a promise was broken.

use std::process::ExitCode;

use bigpeer_sim::run;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        // Failures are what it is about: crates are asked for their logs with RUST_LOG.
        .with_env_filter(tracing_subscriber::EnvFilter::new(
            std::env::var("RUST_LOG").unwrap_or_else(|_| "off".to_owned()),
        ))
        .with_writer(std::io::stderr)
        .without_time()
        .with_ansi(false)
        .init();
    let mut arguments = std::env::args().skip(1);
    let Some((from, to)) = arguments.next().as_deref().and_then(seeds) else {
        eprintln!("usage: bigpeer-sim SEED | FROM..TO [calm]");
        return ExitCode::from(2);
    };
    let is_calm = arguments.next().is_some_and(|word| word == "calm");
    let mut failed = Vec::new();
    for seed in from..to {
        let outcome = if is_calm { run::run_calmly(seed, 10_000, |_| {}) } else { run::run(seed) };
        let (digest, events) = outcome.digest;
        let (transactions, looks) = (outcome.transactions, outcome.looks);
        println!("seed {seed}: {digest:016x} {events} events {transactions} transactions {looks} looks");
        if let Some(violation) = outcome.violation {
            println!("seed {seed}: {violation}");
            failed.push(seed);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}; SEED={} make sim runs the first one again", failed[0]);
    ExitCode::FAILURE
}

fn seeds(text: &str) -> Option<(u64, u64)> {
    match text.split_once("..") {
        Some((from, to)) => Some((from.parse().ok()?, to.parse().ok()?)),
        None => text.parse::<u64>().ok().map(|seed| (seed, seed + 1)),
    }
}
