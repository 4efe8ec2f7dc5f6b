//! Who may open a log, and what they are told.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use bigpeer_log::embedded::disk::{Disk, LocalDisk};
use bigpeer_log::{AppendEntry, AppendError, EmbeddedLog, EmbeddedSettings, OpenError, TransactionLog};
use bigpeer_types::{AppId, Lsn, SiteId};

fn settings() -> EmbeddedSettings {
    EmbeddedSettings { segment_bytes: 64 * 1024, ..EmbeddedSettings::default() }
}

fn entry(seq: u64) -> AppendEntry {
    AppendEntry { site: SiteId::new(1), seq, writes: vec![], unchanged: vec![], payload: vec![1; 100].into() }
}

#[tokio::test]
async fn a_second_one_is_refused_with_the_holders_process() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), settings()).unwrap();
    let error = EmbeddedLog::open(dir.path(), settings()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
    log.close().await;
    // A log that is closed keeps nobody out, even while it is held.
    let again = EmbeddedLog::open(dir.path(), settings()).unwrap();
    drop(again);
    drop(log);
    EmbeddedLog::open(dir.path(), settings()).unwrap();
}

/// A process that is just being started has, for a moment, everything open that this one has.
#[test]
fn the_lock_is_free_when_it_is_given_back_also_while_processes_are_started() {
    let dir = tempfile::tempdir().unwrap();
    let disk = LocalDisk::new(dir.path()).unwrap();
    let done = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(Command::new("true").status().unwrap().success());
                }
            });
        }
        let taken = (0..2000).take_while(|_| disk.lock().is_ok()).count();
        done.store(true, Ordering::Relaxed);
        taken
    });
    assert_eq!(taken, 2000);
}

#[tokio::test]
async fn a_closed_log_refuses_appends_and_still_reads() {
    let (dir, app) = (tempfile::tempdir().unwrap(), AppId::new("a").unwrap());
    let log = EmbeddedLog::open(dir.path(), settings()).unwrap();
    log.append(&app, vec![entry(1)]).await.unwrap();
    log.close().await;
    log.close().await;
    let error = log.append(&app, vec![entry(2)]).await.unwrap_err();
    assert!(matches!(&error, AppendError::Unavailable { reason } if reason.contains("closed")), "{error}");
    assert_eq!(log.read(&app, Lsn::ZERO, 1000).await.unwrap().entries.len(), 1);
    assert!(log.metadata().commit(vec![]).await.is_err());
    assert!(log.metadata().watch(b"").changed().await.is_err());
}

#[tokio::test]
async fn space_comes_back_when_entries_are_trimmed() {
    let (dir, app) = (tempfile::tempdir().unwrap(), AppId::new("a").unwrap());
    let log = EmbeddedLog::open(dir.path(), settings()).unwrap();
    for seq in 1..=200 {
        let payload = vec![1; 10_000].into();
        log.append(&app, vec![AppendEntry { payload, ..entry(seq) }]).await.unwrap();
    }
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    assert!(files() > 30, "2 MB fit into no fewer segments");
    log.trim(&app, Lsn::MAX).await.unwrap();
    // What is to be freed has been when the log is closed.
    log.close().await;
    assert!(files() < 8, "{} files", files());
    let log = EmbeddedLog::open(dir.path(), settings()).unwrap();
    assert_eq!(log.last_seq(&app, SiteId::new(1)).await.unwrap(), 200);
}

#[test]
fn a_place_that_is_no_directory_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = EmbeddedLog::open(file.path(), settings()).unwrap_err();
    assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
}
