//! A disk at its worst: every operation of a history is, in turn, where the power goes, or what fails.

use std::io::ErrorKind;
use std::sync::Arc;

use bigpeer_log::embedded::disk::Disk;
use bigpeer_log::embedded::sim_disk::{Fault, SimDisk, Unsynced};
use bigpeer_log::{EmbeddedLog, EmbeddedSettings, OpenError, TransactionLog};
use bigpeer_types::SeededIds;

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

/// Which numbers of so many to try: all, or some where a run is to be quick (`BIGPEER_CRASH_STEP`).
fn step() -> usize {
    std::env::var("BIGPEER_CRASH_STEP").ok().map_or(1, |step| step.parse().expect("a number"))
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

#[tokio::test]
async fn every_operation_may_fail() {
    let ops = script(2, LENGTH);
    let total = operations(&ops).await;
    for at in (0..total).step_by(step()) {
        let disk = SimDisk::new(at);
        disk.fault_at(at, Fault::Error(ErrorKind::Other));
        eprintln!("operation {at} of {total} fails");
        let mut truth = Truth::default();
        let Ok(log) = open(&disk) else {
            survives(disk.after_kill(), truth, &ops).await;
            continue;
        };
        let mut done = ops.len();
        for (step, op) in ops.iter().enumerate() {
            if truth.run(&log, op).await.is_err() {
                done = step;
                break;
            }
        }
        // What failed was not in the way of an append, or it stopped the log, or the log refused one append and goes on.
        let doubtful = truth.clone();
        if done < ops.len() && truth.run(&log, &Op::Put { key: 77, value: 77 }).await == Err(Failure::Unknown) {
            panic!("a stopped log must refuse, not wonder");
        }
        let truth = if log.metadata().get(b"77").await.unwrap().is_some() { truth } else { doubtful };
        drop(log);
        if truth.in_doubt.is_none() || matches!(truth.in_doubt, Some(Op::Append { .. })) {
            let rest = &ops[(done + 1).min(ops.len())..];
            survives(disk.after_kill(), truth.clone(), rest).await;
            survives(disk.after_power_loss(Unsynced::Some(at)), truth, rest).await;
        }
    }
}
