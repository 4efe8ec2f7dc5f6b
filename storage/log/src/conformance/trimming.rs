//! Giving up old entries.

use std::sync::Arc;

use bigpeer_types::{Lsn, SiteId};

use super::{Engine, app, append, applied, entry, ids, keyed, read_all};
use crate::{AppendOutcome, ReadError};

/// Below the trim point there is `Trimmed`, from it on there is everything.
pub async fn reading_below_the_trim_point_says_so(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let mut lsns = Vec::new();
    for seq in 1..=10 {
        lsns.push(applied(&*log, &app, entry(1, seq, "x")).await);
    }
    log.trim(&app, lsns[4]).await.unwrap();
    assert_eq!(log.trimmed(&app).await.unwrap(), lsns[4]);
    for below in [Lsn::ZERO, lsns[0], lsns[3]] {
        let error = log.read(&app, below, 100).await.unwrap_err();
        assert_eq!(error, ReadError::Trimmed { kept_after: lsns[4] });
    }
    assert_eq!(ids(&read_all(&*log, &app, lsns[4]).await), (6..=10).map(|seq| (1, seq)).collect::<Vec<_>>());
    // Never back, and never beyond the head.
    log.trim(&app, lsns[1]).await.unwrap();
    assert_eq!(log.trimmed(&app).await.unwrap(), lsns[4]);
    log.trim(&app, Lsn::MAX).await.unwrap();
    assert_eq!(log.trimmed(&app).await.unwrap(), lsns[9]);
    assert_eq!(log.head(&app).await.unwrap(), lsns[9]);
    assert!(log.read(&app, lsns[9], 100).await.unwrap().entries.is_empty());
    let next = applied(&*log, &app, entry(1, 11, "x")).await;
    assert_eq!(read_all(&*log, &app, lsns[9]).await[0].lsn, next);
}

/// A push that comes again long after its entry was trimmed is still a duplicate.
pub async fn trimming_forgets_no_sequence_number(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    for site in 1..=5 {
        for seq in 1..=site {
            applied(&*log, &app, entry(site, seq, vec![0; 1000])).await;
        }
    }
    log.trim(&app, Lsn::MAX).await.unwrap();
    let check = async |log: &dyn crate::TransactionLog| {
        for site in 1..=5 {
            assert_eq!(log.last_seq(&app, SiteId::new(site)).await.unwrap(), site);
            let outcome = append(log, &app, entry(site, 1, "")).await;
            assert!(matches!(outcome, AppendOutcome::Duplicate { through_seq, .. } if through_seq == site));
            let outcome = append(log, &app, entry(site, site + 2, "")).await;
            assert_eq!(outcome, AppendOutcome::SeqGap { last_seq: site });
        }
    };
    check(&*log).await;
    engine.close(log).await;
    check(&*engine.open().await).await;
}

/// What was written after a position still conflicts when it was trimmed, or is too old to say; it never slips through.
pub async fn trimming_forgets_no_conflict(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let first = applied(&*log, &app, keyed(1, 1, &[1], &[])).await;
    let second = applied(&*log, &app, keyed(1, 2, &[2], &[])).await;
    log.trim(&app, Lsn::MAX).await.unwrap();
    let outcome = append(&*log, &app, keyed(2, 1, &[], &[(2, first)])).await;
    assert!(matches!(outcome, AppendOutcome::Conflict { .. } | AppendOutcome::SnapshotTooOld), "{outcome:?}");
    // At the head nothing is too old.
    let head = log.head(&app).await.unwrap();
    applied(&*log, &app, keyed(3, 1, &[], &[(1, head), (2, head), (3, head)])).await;
    drop(log);
    let log = engine.open().await;
    let outcome = append(&*log, &app, keyed(2, 1, &[], &[(2, first)])).await;
    assert!(matches!(outcome, AppendOutcome::Conflict { .. } | AppendOutcome::SnapshotTooOld), "{outcome:?}");
    assert!(log.head(&app).await.unwrap() > second);
}

/// Trim point and head are the same after reopening, with nothing left and with something left.
pub async fn the_trim_point_survives_reopening(engine: &dyn Engine) {
    let mut log = engine.open().await;
    let app = app("a");
    let mut seq = 0;
    for keep in [0_usize, 3, 0] {
        let mut lsns = Vec::new();
        for _ in 0..6 {
            seq += 1;
            lsns.push(applied(&*log, &app, entry(1, seq, "x")).await);
        }
        let through = lsns[lsns.len() - 1 - keep];
        log.trim(&app, through).await.unwrap();
        drop(log);
        log = engine.open().await;
        assert_eq!(log.trimmed(&app).await.unwrap(), through);
        assert_eq!(log.head(&app).await.unwrap(), lsns[5]);
        assert_eq!(read_all(&*log, &app, through).await.len(), keep);
        assert!(matches!(log.read(&app, Lsn::ZERO, 10).await, Err(ReadError::Trimmed { .. })));
    }
}

/// While entries are trimmed away under it, a reader either gets the next ones or is told what is gone.
pub async fn a_reader_raced_by_trims_sees_no_silent_gap(engine: &dyn Engine) {
    const LAST: u64 = 400;
    let (log, app) = (engine.open().await, app("a"));
    let reader = {
        let (log, app) = (Arc::clone(&log), app.clone());
        tokio::spawn(async move {
            let (mut at, mut next, mut seen) = (Lsn::ZERO, 1, 0);
            while at < log.head(&app).await.unwrap() || next <= LAST {
                match log.read(&app, at, 3000).await {
                    Ok(batch) if batch.entries.is_empty() => log.wait_past(&app, at).await.unwrap(),
                    Ok(batch) => {
                        for entry in batch.entries {
                            assert_eq!(entry.seq, next, "a gap that nobody spoke of");
                            next += 1;
                            seen += 1;
                        }
                        at = batch.through;
                    }
                    Err(ReadError::Trimmed { kept_after }) => {
                        assert!(kept_after > at);
                        at = kept_after;
                        // The next entry tells where we are.
                        // If there is none yet, or it was trimmed again, the next round tells.
                        if let Ok(batch) = log.read(&app, at, 0).await
                            && let Some(entry) = batch.entries.first()
                        {
                            next = entry.seq;
                        }
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            seen
        })
    };
    for seq in 1..=LAST {
        let lsn = applied(&*log, &app, entry(1, seq, vec![b'x'; 500])).await;
        if seq % 7 == 0 {
            log.trim(&app, Lsn::new(lsn.version.saturating_sub(3), 0)).await.unwrap();
        }
    }
    let seen = reader.await.unwrap();
    assert!(seen > 0);
}
