//! One seed, from the beginning to the verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bigpeer_harness::{Checker, Violation};

use crate::chance::seeded;
use crate::client::lock;
use crate::faults::Faults;
use crate::world::{Plan, World};

/// How long faults last, in simulated milliseconds.
const FAULTS_MS: u64 = 30_000;
/// How long it may take until it is quiet after them.
const QUIET_MS: u64 = 90_000;

/// What became of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The trace, as a number, and how many events are in it.
    pub digest: (u64, u64),
    /// Transactions in the log at the end.
    pub transactions: usize,
    /// How often checkers looked at a peer's store.
    pub looks: u64,
    /// The promise that was broken, if one was.
    pub violation: Option<Violation>,
}

/// Runs a seed with faults.
pub fn run(seed: u64) -> Outcome {
    in_world(seed, |world| {
        let mut faults = Faults::default();
        let until = world.time.now() + FAULTS_MS;
        while world.time.now() < until {
            step(world)?;
            faults.step(world);
        }
        faults.end(world);
        quiet(world)
    })
}

/// Runs a seed without faults, in a world that may have been tampered with.
pub fn run_calmly(seed: u64, for_ms: u64, tamper: impl FnOnce(&mut World) + Send) -> Outcome {
    in_world(seed, |world| {
        tamper(world);
        for_a_while(world, for_ms)?;
        quiet(world)
    })
}

/// A panic is a broken promise, too.
fn in_world(seed: u64, play: impl FnOnce(&mut World) -> Result<(), Violation> + Send) -> Outcome {
    seeded(seed, || {
        let mut world = World::new(Plan::of(seed));
        let result = catch_unwind(AssertUnwindSafe(|| play(&mut world)));
        let result = result.unwrap_or_else(|panic| {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of unknown reason");
            Err(Checker::GoesOn.broken(format!("a panic: {what}")))
        });
        outcome(&world, result)
    })
}

fn outcome(world: &World, result: Result<(), Violation>) -> Outcome {
    let looks = world.clients.iter().map(|client| lock(&client.parts.record).looks).sum();
    let transactions = lock(&world.truth).entries().len();
    Outcome { digest: world.trace.digest(), transactions, looks, violation: result.err() }
}

/// Until everything has arrived everywhere; then everything is compared.
fn quiet(world: &mut World) -> Result<(), Violation> {
    world.set_works(false);
    // What was begun is done, and everybody is back.
    for_a_while(world, 1500)?;
    world.grant_all();
    for_a_while(world, 500)?;
    world.reconnect_all();
    let until = world.time.now() + QUIET_MS;
    for_a_while(world, 500)?;
    while let Some(missing) = world.unquiet() {
        step(world)?;
        if world.time.now() > until {
            world.check_outcomes()?;
            return Err(Checker::GoesOn.broken(missing));
        }
    }
    for_a_while(world, 200)?;
    world.judge()
}

fn for_a_while(world: &mut World, ms: u64) -> Result<(), Violation> {
    let until = world.time.now() + ms;
    while world.time.now() < until {
        step(world)?;
    }
    Ok(())
}

fn step(world: &mut World) -> Result<(), Violation> {
    world.step();
    world.verdict.violation().map_or(Ok(()), Err)
}
