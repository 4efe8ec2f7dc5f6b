//! Reading and following.

use std::sync::Arc;

use bigpeer_types::Lsn;
use futures::{FutureExt, StreamExt};

use super::{Engine, app, applied, entry, ids, read_all, read_in_steps};
use crate::{TransactionLog, tail};

/// An app of which nothing is known is an empty log.
pub async fn an_empty_log_answers(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let batch = log.read(&app, Lsn::ZERO, 100).await.unwrap();
    assert_eq!((batch.entries.len(), batch.through), (0, Lsn::ZERO));
    assert_eq!(log.head(&app).await.unwrap(), Lsn::ZERO);
    assert_eq!(log.trimmed(&app).await.unwrap(), Lsn::ZERO);
    for beyond in [Lsn::new(5, 5), Lsn::MAX] {
        let batch = log.read(&app, beyond, 100).await.unwrap();
        assert_eq!((batch.entries.len(), batch.through), (0, beyond));
    }
    log.trim(&app, Lsn::MAX).await.unwrap();
    applied(&*log, &app, entry(1, 1, "first")).await;
    assert_eq!(read_all(&*log, &app, Lsn::ZERO).await.len(), 1);
}

async fn filled(log: &dyn TransactionLog, sites: u64, each: u64) {
    let app = app("a");
    for seq in 1..=each {
        let entries = (1..=sites).map(|site| entry(site, seq, vec![b'x'; (site * 37 % 300) as usize])).collect();
        log.append(&app, entries).await.unwrap();
    }
}

/// Whatever the size of the reads, they add up to the same.
pub async fn small_reads_add_up_to_the_whole(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    filled(&*log, 7, 20).await;
    let whole = read_in_steps(&*log, &app, Lsn::ZERO, usize::MAX).await;
    assert_eq!(whole.len(), 140);
    for bytes in [0, 1, 100, 1000, 5000] {
        assert_eq!(read_in_steps(&*log, &app, Lsn::ZERO, bytes).await, whole, "in reads of {bytes} bytes");
    }
}

/// Read until empty, wait, read again: everything that comes meanwhile is seen, once, in order.
pub async fn a_follower_misses_nothing(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let follower = {
        let (log, app) = (Arc::clone(&log), app.clone());
        tokio::spawn(async move {
            let (mut seen, mut at) = (Vec::new(), Lsn::ZERO);
            while seen.len() < 300 {
                let batch = log.read(&app, at, 2000).await.unwrap();
                if batch.entries.is_empty() {
                    log.wait_past(&app, batch.through).await.unwrap();
                }
                at = batch.through;
                seen.extend(batch.entries);
            }
            seen
        })
    };
    for seq in 1..=300 {
        applied(&*log, &app, entry(1, seq, "x".repeat(100))).await;
        // Another app's news is none of the follower's.
        if seq % 10 == 0 {
            applied(&*log, &super::app("b"), entry(1, seq / 10, "")).await;
        }
    }
    assert_eq!(ids(&follower.await.unwrap()), (1..=300).map(|seq| (1, seq)).collect::<Vec<_>>());
}

/// Waiting ends at once when something is there, else when it comes; a dropped wait does no harm.
pub async fn waiting_ends_when_something_comes(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let mut waiting = log.wait_past(&app, Lsn::ZERO);
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(log.wait_past(&app, Lsn::ZERO));
    let first = applied(&*log, &app, entry(1, 1, "")).await;
    waiting.await.unwrap();
    log.wait_past(&app, Lsn::ZERO).await.unwrap();
    let mut waiting = log.wait_past(&app, first);
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(waiting);
    let (waited, second) = tokio::join!(log.wait_past(&app, first), applied(&*log, &app, entry(1, 2, "")));
    waited.unwrap();
    assert!(second > first);
    log.trim(&app, second).await.unwrap();
    log.wait_past(&app, Lsn::ZERO).await.unwrap();
}

/// A reader that starts long after the writes gets all of them, whatever the engine keeps in memory.
pub async fn a_slow_reader_gets_everything(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    for seq in 1..=40 {
        applied(&*log, &app, entry(1, seq, vec![seq.to_le_bytes()[0]; 20_000])).await;
        applied(&*log, &super::app("b"), entry(1, seq, vec![0; 30_000])).await;
    }
    let all = read_in_steps(&*log, &app, Lsn::ZERO, 50_000).await;
    assert_eq!(ids(&all), (1..=40).map(|seq| (1, seq)).collect::<Vec<_>>());
    for entry in &all {
        assert!(entry.payload.len() == 20_000 && entry.payload.iter().all(|byte| *byte == entry.seq.to_le_bytes()[0]));
    }
}

/// Every position is a place to start from.
pub async fn reading_from_anywhere_goes_on_from_there(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    filled(&*log, 3, 15).await;
    let all = read_all(&*log, &app, Lsn::ZERO).await;
    for (at, entry) in all.iter().enumerate() {
        let rest = log.read(&app, entry.lsn, usize::MAX).await.unwrap();
        assert_eq!(rest.entries, all[at + 1..]);
        let before = Lsn::new(entry.lsn.version - 1, u32::MAX);
        let version = log.read(&app, before, 0).await.unwrap();
        assert_eq!(version.entries[0].lsn.version, entry.lsn.version);
    }
    let head = log.head(&app).await.unwrap();
    let beyond = Lsn::new(head.version + 10, 0);
    assert_eq!(log.read(&app, beyond, 100).await.unwrap().through, beyond);
}

/// [`tail`] gives what is there, waits, and goes on.
pub async fn the_tail_stream_waits_and_goes_on(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let first = applied(&*log, &app, entry(1, 1, "")).await;
    let mut stream = Box::pin(tail(Arc::clone(&log), app.clone(), Lsn::ZERO));
    assert_eq!(stream.next().await.unwrap().unwrap().through, first);
    let (next, second) = tokio::join!(stream.next(), applied(&*log, &app, entry(1, 2, "")));
    let batch = next.unwrap().unwrap();
    assert_eq!((batch.entries.len(), batch.through), (1, second));
    log.trim(&app, second).await.unwrap();
    let mut late = Box::pin(tail(log, app, first));
    assert!(late.next().await.unwrap().is_err());
    assert!(late.next().await.is_none());
}
