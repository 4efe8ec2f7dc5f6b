//! Many at once.

use std::sync::Arc;

use bigpeer_types::{Lsn, SiteId};
use futures::future::join_all;

use super::{Engine, app, append, applied, entry, ids, keyed, lsn_of, read_all};
use crate::AppendOutcome;

const SITES: u64 = 24;
const EACH: u64 = 20;

/// Each site's entries are all there, once, in the order of its numbers, at the positions that were told.
pub async fn concurrent_appenders_are_ordered(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let appenders = (1..=SITES).map(|site| {
        let (log, app) = (Arc::clone(&log), app.clone());
        tokio::spawn(async move {
            let mut told = Vec::new();
            for seq in 1..=EACH {
                told.push((applied(&*log, &app, entry(site, seq, format!("{site}/{seq}"))).await, site, seq));
            }
            told
        })
    });
    let mut told: Vec<_> = join_all(appenders).await.into_iter().flat_map(Result::unwrap).collect();
    told.sort_unstable();
    let all = read_all(&*log, &app, Lsn::ZERO).await;
    let found: Vec<_> = all.iter().map(|entry| (entry.lsn, entry.site.get(), entry.seq)).collect();
    assert_eq!(found, told);
    assert!(all.iter().all(|entry| entry.payload == format!("{}/{}", entry.site.get(), entry.seq)));
    for site in 1..=SITES {
        let seqs: Vec<_> = found.iter().filter(|found| found.1 == site).map(|found| found.2).collect();
        assert_eq!(seqs, (1..=EACH).collect::<Vec<_>>());
    }
}

/// Several connections push the same numbers of the same site: each is applied by exactly one of them.
pub async fn raced_pushes_are_applied_once(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let pushers = (0..6_u64).map(|pusher| {
        let (log, app) = (Arc::clone(&log), app.clone());
        tokio::spawn(async move {
            let mut applied = Vec::new();
            let mut seq = 1;
            while seq <= 40 {
                // One entry at a time, or several.
                let count = 1 + (seq + pusher) % 4;
                let entries = (seq..seq + count).map(|seq| entry(1, seq, format!("by {pusher}"))).collect();
                for (seq, outcome) in (seq..).zip(log.append(&app, entries).await.unwrap()) {
                    match outcome {
                        AppendOutcome::Applied(lsn) => applied.push((seq, pusher, lsn)),
                        AppendOutcome::Duplicate { through_seq, .. } => assert!(through_seq >= seq),
                        AppendOutcome::SeqGap { .. }
                        | AppendOutcome::Conflict { .. }
                        | AppendOutcome::SnapshotTooOld => {
                            panic!("{outcome:?}")
                        }
                    }
                }
                seq += count;
            }
            applied
        })
    });
    let mut told: Vec<_> = join_all(pushers).await.into_iter().flat_map(Result::unwrap).collect();
    told.sort_unstable();
    let all = read_all(&*log, &app, Lsn::ZERO).await;
    assert_eq!(all.len(), told.len());
    for ((seq, pusher, lsn), entry) in told.into_iter().zip(&all) {
        assert_eq!((entry.seq, entry.lsn), (seq, lsn));
        assert_eq!(entry.payload, format!("by {pusher}"));
    }
    assert_eq!(ids(&all), (1..=all.len() as u64).map(|seq| (1, seq)).collect::<Vec<_>>());
}

/// Read, add one, append if unchanged: no update is lost and none is made up.
pub async fn a_serial_counter_counts_right(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    applied(&*log, &app, keyed(1, 1, &[1], &[])).await;
    let workers = (2..8_u64).map(|site| {
        let (log, app) = (Arc::clone(&log), app.clone());
        tokio::spawn(async move {
            for seq in 1..=10 {
                loop {
                    let all = read_all(&*log, &app, Lsn::ZERO).await;
                    let head = all.last().unwrap().lsn;
                    let mut next = keyed(site, seq, &[1], &[(1, head)]);
                    next.payload = format!("{}", all.len()).into();
                    match append(&*log, &app, next).await {
                        AppendOutcome::Applied(_) => break,
                        AppendOutcome::Conflict { .. } | AppendOutcome::SnapshotTooOld => {}
                        outcome @ (AppendOutcome::Duplicate { .. } | AppendOutcome::SeqGap { .. }) => {
                            panic!("{outcome:?}")
                        }
                    }
                }
            }
        })
    });
    join_all(workers).await.into_iter().for_each(Result::unwrap);
    let all = read_all(&*log, &app, Lsn::ZERO).await;
    assert_eq!(all.len(), 61);
    for (at, entry) in all.iter().enumerate().skip(1) {
        assert_eq!(entry.payload, format!("{at}"), "entry {at} depended on another count");
    }
}

/// The order of the log agrees with the order in which calls ended and began, over clients and sites.
pub async fn an_append_that_ended_stands_before_one_that_began_later(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let noise = {
        let (log, app) = (Arc::clone(&log), app.clone());
        tokio::spawn(async move {
            for seq in 1..=60 {
                lsn_of(append(&*log, &app, entry(99, seq, "noise")).await);
            }
        })
    };
    let mut last = Lsn::ZERO;
    for site in 1..=30 {
        let lsn = applied(&*log, &app, entry(site, 1, "")).await;
        assert!(lsn > last);
        assert!(log.head(&app).await.unwrap() >= lsn, "what is acknowledged must be readable");
        assert_eq!(log.last_seq(&app, SiteId::new(site)).await.unwrap(), 1);
        last = lsn;
    }
    noise.await.unwrap();
}
