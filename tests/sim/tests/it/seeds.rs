//! A few seeds, and those that once found something.

use bigpeer_sim::run;
use bigpeer_sim::world::Plan;

fn passes(seed: u64) {
    let outcome = run::run(seed);
    if let Some(violation) = outcome.violation {
        panic!("seed {seed} (SEED={seed} make sim): {violation}");
    }
}

#[test]
fn five_seeds() {
    (0..5).for_each(passes);
}

/// Peers that come back to another server than the one they left, while others write through a third.
#[test]
fn several_servers_over_one_log() {
    let several: Vec<u64> = (0..200).filter(|seed| Plan::of(*seed).servers > 1).collect();
    assert!(several.len() >= 20, "{several:?}");
    several.into_iter().take(3).for_each(passes);
}

/// What docs/simulation.md says about each.
#[test]
fn seeds_that_found_something() {
    [1, 10, 12, 13, 15, 18, 21, 26, 27, 31, 32, 39, 40, 42, 57, 65, 94, 141, 152].into_iter().for_each(passes);
}

#[test]
fn without_faults_everything_arrives_everywhere() {
    let outcome = run::run_calmly(7, 5_000, |_| {});
    assert_eq!(outcome.violation, None);
    assert!(outcome.transactions > 20 && outcome.looks > 20, "something happened: {outcome:?}");
}
