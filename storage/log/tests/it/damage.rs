//! Stored bytes that are not what was written: refused with file and offset, never answered, never silently dropped.

use std::sync::Arc;

use bigpeer_log::embedded::disk::Disk;
use bigpeer_log::embedded::sim_disk::SimDisk;
use bigpeer_log::{AppendEntry, EmbeddedLog, EmbeddedSettings, OpenError, ReadError, TransactionLog};
use bigpeer_types::{AppId, Lsn, SeededIds, SiteId};

use crate::history::read_everything;

const SEGMENT: usize = 4096;

fn open(disk: &SimDisk) -> Result<EmbeddedLog, OpenError> {
    let settings = EmbeddedSettings {
        segment_bytes: SEGMENT as u64,
        tail_bytes: 0,
        ids: Arc::new(SeededIds::new(1)),
        ..EmbeddedSettings::default()
    };
    EmbeddedLog::open_on(&(Arc::new(disk.clone()) as Arc<dyn Disk>), settings)
}

fn app() -> AppId {
    AppId::new("a").unwrap()
}

/// Three segments of entries of 200 bytes, each a batch of its own.
async fn filled(close: bool) -> SimDisk {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    for seq in 1..=40 {
        let entry = AppendEntry {
            site: SiteId::new(1),
            seq,
            writes: vec![],
            unchanged: vec![],
            payload: vec![seq.to_le_bytes()[0]; 200].into(),
        };
        log.append(&app(), vec![entry]).await.unwrap();
    }
    if close {
        log.close().await;
    } else {
        // As a killed process leaves it.
        return disk.after_kill();
    }
    disk
}

/// Bytes of a segment file up to its last one that is not zero.
fn used(disk: &SimDisk, name: &str) -> usize {
    disk.contents(name).iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

async fn segments(disk: &SimDisk) -> Vec<(String, usize)> {
    let names = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".segment"));
    names.map(|name| (name.clone(), used(disk, &name))).filter(|(_, used)| *used > 0).collect()
}

#[tokio::test]
async fn a_flipped_bit_of_a_closed_log_is_refused_with_its_place() {
    let disk = filled(true).await;
    let segments = segments(&disk).await;
    assert_eq!(segments.len(), 3);
    for (name, used) in segments {
        for offset in (0..used).step_by(13) {
            let damaged = disk.after_kill();
            assert!(damaged.flip(&name, offset, 1 << (offset % 8)));
            match open(&damaged) {
                Err(OpenError::Corrupt { file, offset: found, .. }) => {
                    assert!(file.ends_with(&name), "{} instead of {name}", file.display());
                    assert!(found as usize <= offset && offset - (found as usize) < 300, "{found} instead of {offset}");
                }
                // The mark that says that the log was closed is no entry.
                Ok(log) if offset + 32 >= used => assert_eq!(read_everything(&log, &app(), Lsn::ZERO).await.len(), 40),
                other => panic!("byte {offset} of {name}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn of_a_killed_log_only_the_last_batch_can_pass_for_torn() {
    let disk = filled(false).await;
    let segments = segments(&disk).await;
    let (last, last_used) = segments.last().unwrap().clone();
    for (name, used) in segments {
        for offset in (0..used).step_by(17) {
            let damaged = disk.after_kill();
            assert!(damaged.flip(&name, offset, 0x10));
            let in_last_batch = name == last && offset + 250 >= last_used;
            match open(&damaged) {
                Err(OpenError::Corrupt { .. }) if !in_last_batch => {}
                Ok(log) if in_last_batch => assert_eq!(read_everything(&log, &app(), Lsn::ZERO).await.len(), 39),
                other => panic!("byte {offset} of {name}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn damage_under_an_open_log_is_told_to_the_reader() {
    let disk = filled(true).await;
    let log = open(&disk).unwrap();
    let (name, used) = segments(&disk).await.remove(0);
    assert!(disk.flip(&name, used / 2, 1));
    let mut after = Lsn::ZERO;
    let error = loop {
        match log.read(&app(), after, 0).await {
            Ok(batch) => after = batch.through,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, ReadError::Corrupt { reason } if reason.contains(&name)), "{error}");
}

#[tokio::test]
async fn what_is_missing_is_missed() {
    let disk = filled(true).await;
    let names: Vec<_> = segments(&disk).await.into_iter().map(|(name, _)| name).collect();
    for name in &names[..2] {
        let damaged = disk.after_kill();
        damaged.remove(name).unwrap();
        assert!(matches!(open(&damaged), Err(OpenError::Corrupt { .. })), "{name} is gone, and nobody noticed");
    }
    let damaged = disk.after_kill();
    damaged.remove("checkpoint-0").unwrap();
    assert!(matches!(open(&damaged), Err(OpenError::Corrupt { .. })), "the checkpoint is gone, and nobody noticed");
    let error = open(&damaged).unwrap_err().to_string();
    assert!(error.contains("checkpoint") && error.contains("offset"), "{error}");
}
