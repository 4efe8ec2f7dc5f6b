//! One seed, two processes, equal output.

use std::process::Command;

fn output(seed: &str) -> String {
    let ran = Command::new(env!("CARGO_BIN_EXE_bigpeer-sim")).arg(seed).output().expect("the simulator runs");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

#[test]
fn one_seed_two_processes_equal_output() {
    for seed in ["1", "2", "3"] {
        let (first, second) = (output(seed), output(seed));
        assert!(first.starts_with(&format!("seed {seed}: ")), "{first}");
        assert_eq!(first, second);
    }
    assert_ne!(output("1").get(8..24), output("2").get(8..24), "seeds are different");
}
