//! A disk at its worst: every operation of a history is, in turn, where the power goes, or what fails.

use std::io::ErrorKind;
use std::sync::Arc;

use bigpeer_log::embedded::disk::Disk;
use bigpeer_log::embedded::sim_disk::{Fault, SimDisk, Unsynced};
use bigpeer_log::{EmbeddedLog, EmbeddedSettings, OpenError, TransactionLog};
use bigpeer_types::{AppId, SeededIds, SiteId};

use crate::history::{Failure, Op, Truth, script};

/// Operations in the history of the matrices.
const LENGTH: usize = 500;

fn open(disk: &SimDisk) -> Result<EmbeddedLog, OpenError> {
    let settings = EmbeddedSettings {
        segment_bytes: 8 * 1024,
        tail_bytes: 2 * 1024,
        conflict_keys: 16,
        ids: Arc::new(SeededIds::new(disk.operations())),
        ..EmbeddedSettings::default()
    };
    EmbeddedLog::open_on(&(Arc::new(disk.clone()) as Arc<dyn Disk>), settings)
}

/// Runs a history until it ends or an operation fails. Answers how far it came, and whether the log was ever open.
async fn run(disk: &SimDisk, truth: &mut Truth, ops: &[Op]) -> usize {
    let Ok(log) = open(disk) else { return 0 };
    for (at, op) in ops.iter().enumerate() {
        if truth.run(&log, op).await.is_err() {
            return at;
        }
    }
    ops.len()
}

/// How many operations of the disk a history has.
async fn operations(ops: &[Op]) -> u64 {
    let disk = SimDisk::new(0);
    assert_eq!(run(&disk, &mut Truth::default(), ops).await, ops.len());
    disk.operations()
}

/// Opens what a crash left, compares, goes on for a while, and compares again after another crash.
async fn survives(disk: SimDisk, mut truth: Truth, rest: &[Op]) {
    let log = open(&disk).unwrap_or_else(|error| panic!("{error}"));
    truth.check(&log).await;
    for op in rest.iter().take(10) {
        truth.run(&log, op).await.unwrap();
    }
    truth.check(&log).await;
    let disk = disk.after_power_loss(Unsynced::Lost);
    drop(log);
    let log = open(&disk).unwrap_or_else(|error| panic!("the second time: {error}"));
    truth.check(&log).await;
}

/// Every how many-th operation is tried. `BIGPEER_CRASH_STEP=1` tries every one, which takes some minutes.
fn step() -> usize {
    std::env::var("BIGPEER_CRASH_STEP").ok().map_or(8, |step| step.parse().expect("a number"))
}

#[tokio::test]
async fn the_power_may_go_at_every_operation() {
    let ops = script(1, LENGTH);
    let total = operations(&ops).await;
    assert!(total > LENGTH as u64, "{total} operations are too few to mean something");
    for at in (0..total).step_by(step()) {
        let disk = SimDisk::new(at);
        disk.fault_at(at, Fault::PowerLoss);
        let mut truth = Truth::default();
        let done = run(&disk, &mut truth, &ops).await;
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(at), Unsynced::Some(at + 1_000_000)] {
            eprintln!("power lost at operation {at} of {total}, in history step {done}, unsynced {unsynced:?}");
            survives(disk.after_power_loss(unsynced), truth.clone(), &ops[(done + 1).min(ops.len())..]).await;
        }
    }
}

/// Runs a history over a disk on which something fails, until the log stops, if it does. A log that goes on must bear
/// the operation again.
async fn run_with_failures(log: &EmbeddedLog, truth: &mut Truth, ops: &[Op]) -> usize {
    for (at, op) in ops.iter().enumerate() {
        let Err(failure) = truth.run(log, op).await else { continue };
        let doubtful = truth.clone();
        if failure == Failure::Refused {
            truth.in_doubt = None;
        }
        if log.last_seq(&AppId::new("one").unwrap(), SiteId::new(1)).await.is_ok() {
            truth.check(log).await;
            if failure == Failure::Refused {
                truth.run(log, op).await.unwrap();
            }
            continue;
        }
        // It has stopped: it says that nothing more will happen, and what was acknowledged can be read.
        let refused = truth.clone().run(log, &Op::Put { key: 1, value: 1 }).await;
        assert_eq!(refused, Err(Failure::Refused));
        truth.check_reading(log).await;
        *truth = doubtful;
        return at;
    }
    ops.len()
}

#[tokio::test]
async fn every_operation_may_fail() {
    let ops = script(2, LENGTH);
    let total = operations(&ops).await;
    let mut stopped = 0;
    for at in (0..total).step_by(step()) {
        let disk = SimDisk::new(at);
        disk.fault_at(at, Fault::Error(ErrorKind::Other));
        eprintln!("operation {at} of {total} fails");
        let mut truth = Truth::default();
        let done = match open(&disk) {
            Ok(log) => run_with_failures(&log, &mut truth, &ops).await,
            Err(_) => 0,
        };
        stopped += usize::from(done < ops.len());
        let rest = &ops[(done + 1).min(ops.len())..];
        survives(disk.after_kill(), truth.clone(), rest).await;
        survives(disk.after_power_loss(Unsynced::Some(at)), truth, rest).await;
    }
    assert!(stopped > 0, "no failure stopped the log: none can have hit a commit");
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on_when_there_is_space() {
    let ops = script(3, LENGTH);
    let total = operations(&ops).await;
    let mut refusals = 0;
    for at in (0..total).step_by(4 * step()) {
        let disk = SimDisk::new(at);
        disk.fault_at(at, Fault::Full);
        eprintln!("the disk is full from operation {at} of {total}");
        let mut truth = Truth::default();
        let Ok(log) = open(&disk) else { continue };
        for op in &ops {
            let Err(failure) = truth.run(&log, op).await else { continue };
            refusals += 1;
            let is_trim = matches!(op, Op::Trim { .. });
            assert!(failure == Failure::Refused || is_trim, "{op:?} must not be in doubt");
            truth.in_doubt = None;
            truth.check_reading(&log).await;
            disk.repair();
            truth.run(&log, op).await.unwrap();
        }
        truth.check(&log).await;
        drop(log);
        survives(disk.after_power_loss(Unsynced::Lost), truth, &[]).await;
    }
    assert!(refusals > 0, "the disk was never full when it mattered");
}

#[tokio::test]
async fn random_histories_end_at_random_operations() {
    let rounds = if step() == 1 { 300 } else { 40 };
    let first = std::env::var("BIGPEER_SEED").ok().map_or(1000, |seed| seed.parse().expect("a number"));
    for seed in first..first + rounds {
        let ops = script(seed, 120);
        let total = operations(&ops).await;
        let disk = SimDisk::new(seed);
        disk.fault_at(seed * 7919 % total, Fault::PowerLoss);
        eprintln!("BIGPEER_SEED={seed}");
        let mut truth = Truth::default();
        let mut done = run(&disk, &mut truth, &ops).await;
        // And again while it recovers, or shortly after.
        let mut disk = disk.after_power_loss(Unsynced::Some(seed));
        for again in 0..3 {
            disk.fault_at(disk.operations() + (seed + again) % 12, Fault::PowerLoss);
            if let Ok(log) = open(&disk) {
                let settled = match truth.in_doubt.clone() {
                    Some(op) => truth.run(&log, &op).await.is_ok(),
                    None => true,
                };
                if settled {
                    truth.in_doubt = None;
                    while let Some(op) = ops.get(done) {
                        done += 1;
                        if truth.run(&log, op).await.is_err() {
                            break;
                        }
                    }
                }
            }
            disk = disk.after_power_loss(Unsynced::Some(seed + again));
        }
        survives(disk, truth, ops.get(done..).unwrap_or_default()).await;
    }
}
