//! What is particular to the engine on FoundationDB: several processes on one cluster, and commits of every size.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_log::fdb::sim::{Faults, SimCluster};
use bigpeer_log::{
    AppendEntry, AppendError, AppendOutcome, ConflictKey, FdbLog, FdbOpenError, FdbSettings, Lease, LeaseError, MetaOp,
    ReadError, TransactionLog,
};
use bigpeer_types::{AppId, Lsn, ManualClock, SiteId};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;

use crate::fdb_suites::seed;

fn app() -> AppId {
    AppId::new("a").unwrap()
}

fn entry(site: u64, seq: u64, payload: impl Into<Bytes>) -> AppendEntry {
    AppendEntry { site: SiteId::new(site), seq, writes: Vec::new(), unchanged: Vec::new(), payload: payload.into() }
}

async fn open(cluster: &SimCluster) -> Arc<FdbLog> {
    let settings = FdbSettings { patience: Duration::from_secs(600), ..FdbSettings::default() };
    Arc::new(FdbLog::open_on(Arc::new(cluster.clone()), settings).await.unwrap())
}

async fn all(log: &FdbLog) -> Vec<(u64, u64)> {
    let batch = log.read(&app(), Lsn::ZERO, usize::MAX).await.unwrap();
    batch.entries.iter().map(|entry| (entry.site.get(), entry.seq)).collect()
}

/// The same sites push through two processes at once, on a calm and on a hostile cluster: each `seq` is applied once, in order,
/// and both processes see the same log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_raced_by_two_processes_are_applied_once() {
    for faults in [Faults::default(), Faults::many(), Faults::unknown_commits()] {
        let cluster = SimCluster::new(faults, seed());
        let logs = [open(&cluster).await, open(&cluster).await];
        let pushers = (0..12_u64).map(|at| {
            let log = Arc::clone(&logs[usize::from(at % 2 == 1)]);
            tokio::spawn(async move {
                let site = at / 3;
                let (mut seq, mut applied) = (1, 0);
                while seq <= 40 {
                    let entries = (seq..(seq + 3).min(41)).map(|seq| entry(site, seq, vec![at as u8; 50])).collect();
                    for outcome in log.append(&app(), entries).await.unwrap() {
                        match outcome {
                            AppendOutcome::Applied(_) => {
                                seq += 1;
                                applied += 1;
                            }
                            AppendOutcome::Duplicate { through_seq, .. } => seq = seq.max(through_seq + 1),
                            AppendOutcome::SeqGap { last_seq } => seq = last_seq + 1,
                            AppendOutcome::Conflict { .. } | AppendOutcome::SnapshotTooOld => panic!("{outcome:?}"),
                        }
                    }
                }
                applied
            })
        });
        let applied: u64 = join_all(pushers).await.into_iter().map(Result::unwrap).sum();
        let seen = all(&logs[0]).await;
        assert_eq!(seen, all(&logs[1]).await);
        for site in 0..4 {
            let seqs: Vec<_> = seen.iter().filter(|(of, _)| *of == site).map(|(_, seq)| *seq).collect();
            assert_eq!(seqs, (1..=40).collect::<Vec<_>>());
        }
        assert!(applied <= 160, "{applied} entries were said to be applied");
        if faults == Faults::default() {
            assert_eq!(applied, 160);
        }
    }
}

/// Who waits in one process is woken by an append in the other; before the app has its first entry, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_is_woken_by_another_process() {
    for faults in [Faults::default(), Faults::many()] {
        let cluster = SimCluster::new(faults, seed());
        let (mine, other) = (open(&cluster).await, open(&cluster).await);
        let mut waiting = mine.wait_past(app_ref(), Lsn::ZERO);
        assert!(waiting.as_mut().now_or_never().is_none());
        let follower = {
            let log = Arc::clone(&mine);
            tokio::spawn(async move {
                let (mut at, mut seen) = (Lsn::ZERO, 0);
                while seen < 100 {
                    let batch = log.read(&app(), at, 500).await.unwrap();
                    if batch.entries.is_empty() {
                        log.wait_past(&app(), at).await.unwrap();
                    }
                    for entry in &batch.entries {
                        seen += 1;
                        assert_eq!(entry.seq, seen);
                    }
                    at = batch.through;
                }
            })
        };
        for seq in 1..=100 {
            other.append(&app(), vec![entry(1, seq, "x".repeat(60))]).await.unwrap();
            if seq % 10 == 0 {
                tokio::task::yield_now().await;
            }
        }
        waiting.await.unwrap();
        follower.await.unwrap();
    }
}

fn app_ref() -> &'static AppId {
    static APP: std::sync::OnceLock<AppId> = std::sync::OnceLock::new();
    APP.get_or_init(app)
}

/// A commit in one process is told to those who watch in the other, and to no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_watched_across_processes() {
    for faults in [Faults::default(), Faults::many()] {
        let cluster = SimCluster::new(faults, seed());
        let (mine, other) = (open(&cluster).await, open(&cluster).await);
        let put = |key: &'static str, value: String| vec![MetaOp::Put { key: key.into(), value: value.into() }];
        let watcher = {
            let log = Arc::clone(&mine);
            tokio::spawn(async move {
                let mut watch = log.metadata().watch(b"w/");
                loop {
                    let value = log.metadata().get(b"w/key").await.unwrap();
                    if value.is_some_and(|value| value.value == "50") {
                        return;
                    }
                    watch.changed().await.unwrap();
                }
            })
        };
        let mut elsewhere = mine.metadata().watch(b"elsewhere/");
        for count in 1..=50 {
            other.metadata().commit(put("w/key", count.to_string())).await.unwrap();
        }
        watcher.await.unwrap();
        if faults == Faults::default() {
            assert!(elsewhere.changed().now_or_never().is_none());
        }
        other.metadata().commit(put("elsewhere/key", String::new())).await.unwrap();
        elsewhere.changed().await.unwrap();
    }
}

/// Increments by compare-and-swap from two processes add up, whatever the cluster says of their commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_of_two_processes_is_one() {
    let cluster = SimCluster::new(Faults::unknown_commits(), seed());
    let logs = [open(&cluster).await, open(&cluster).await];
    let workers = (0..6).map(|at| {
        let log = Arc::clone(&logs[at % 2]);
        tokio::spawn(async move {
            for _ in 0..15 {
                loop {
                    let found = log.metadata().get(b"n").await.unwrap();
                    let count: u64 =
                        found.as_ref().map_or(0, |found| String::from_utf8_lossy(&found.value).parse().unwrap());
                    let check = MetaOp::Check { key: "n".into(), revision: found.map(|found| found.revision) };
                    let put = MetaOp::Put { key: "n".into(), value: (count + 1).to_string().into() };
                    if log.metadata().commit(vec![check, put]).await.is_ok() {
                        break;
                    }
                }
            }
        })
    });
    join_all(workers).await.into_iter().for_each(Result::unwrap);
    assert_eq!(logs[1].metadata().get(b"n").await.unwrap().unwrap().value, "90");
}

/// A lease that expired in one process is taken over by another, and the first is fenced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_taken_over_by_another_process() {
    let cluster = SimCluster::calm(seed());
    let (mine, other) = (open(&cluster).await, open(&cluster).await);
    let (clock, ttl) = (ManualClock::new(1000), Duration::from_millis(100));
    let mut lease = Lease::acquire(mine.metadata(), "work", "mine", ttl, &clock).await.unwrap();
    let held = Lease::acquire(other.metadata(), "work", "other", ttl, &clock).await.unwrap_err();
    assert!(matches!(held, LeaseError::Held { .. }));
    clock.advance(200);
    let theirs = Lease::acquire(other.metadata(), "work", "other", ttl, &clock).await.unwrap();
    assert!(theirs.token() > lease.token());
    assert_eq!(lease.renew(mine.metadata(), ttl, &clock).await.unwrap_err(), LeaseError::Lost);
}

/// Many small appends at once make few commits, of which none conflicts with another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_at_one_time_share_commits() {
    let cluster = SimCluster::calm(seed());
    let log = open(&cluster).await;
    log.append(&app(), vec![entry(999, 1, "")]).await.unwrap();
    let (before, _) = cluster.commits();
    let appends = (0..200_u64).map(|site| {
        let log = Arc::clone(&log);
        async move {
            for seq in 1..=5 {
                let outcomes = log.append(&app(), vec![entry(site, seq, vec![1; 200])]).await.unwrap();
                assert!(matches!(outcomes[..], [AppendOutcome::Applied(_)]));
            }
        }
    });
    join_all(appends).await;
    let commits = cluster.commits().0 - before;
    assert!(commits < 200, "{commits} commits for 1000 appends");
    assert_eq!(all(&log).await.len(), 1001);
}

/// One call of more than a commit can hold, and entries that write and depend on more keys than a commit can name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_stay_below_the_limits() {
    let cluster = SimCluster::calm(seed());
    let log = open(&cluster).await;
    let many = || (0..bigpeer_log::limits::MAX_CONFLICT_KEYS as u64).map(ConflictKey);
    let largest = vec![7; bigpeer_log::limits::MAX_PAYLOAD_BYTES];
    let first =
        log.append(&app(), vec![AppendEntry { writes: many().collect(), ..entry(1, 1, largest.clone()) }]).await;
    let Ok([AppendOutcome::Applied(first)]) = first.as_deref() else { panic!("{first:?}") };
    let depends = |since: Lsn| AppendEntry {
        unchanged: many().map(|key| (key, since)).collect(),
        writes: many().take(2000).collect(),
        ..entry(2, 1, largest.clone())
    };
    let early = log.append(&app(), vec![depends(Lsn::new(first.version - 1, 0))]).await.unwrap();
    assert!(matches!(early[..], [AppendOutcome::Conflict { .. }]));
    let entries = (1..=3_u64).map(|seq| entry(3, seq, largest.clone()));
    let outcomes = log.append(&app(), [depends(*first)].into_iter().chain(entries).collect()).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, AppendOutcome::Applied(_))), "{outcomes:?}");
    // Of those keys each is known to have been written.
    let conflict = AppendEntry { unchanged: vec![(ConflictKey(1999), *first)], ..entry(4, 1, "") };
    assert!(matches!(log.append(&app(), vec![conflict]).await.unwrap()[..], [AppendOutcome::Conflict { .. }]));
    assert_eq!(all(&log).await.len(), 5);
    let empty = (1..=20_000_u64).map(|seq| entry(5, seq, "")).collect();
    assert_eq!(log.append(&app(), empty).await.unwrap().len(), 20_000);
    assert_eq!(all(&log).await.len(), 20_005);
}

/// Trimmed entries, and what was remembered of old writes, leave nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimming_frees_what_was_written() {
    let cluster = SimCluster::calm(seed());
    let log = open(&cluster).await;
    let mut last = Lsn::ZERO;
    for seq in 1..=50 {
        let writes = (0..20).map(|key| ConflictKey(seq * 100 + key)).collect();
        let outcomes =
            log.append(&app(), vec![AppendEntry { writes, ..entry(1, seq, vec![1; 50_000]) }]).await.unwrap();
        let [AppendOutcome::Applied(lsn)] = outcomes[..] else { panic!("{outcomes:?}") };
        last = lsn;
    }
    assert!(cluster.keys() > 1000);
    cluster.pass(700_000_000);
    let outcomes = log.append(&app(), vec![AppendEntry { writes: vec![ConflictKey(1)], ..entry(1, 51, "") }]).await;
    assert!(matches!(outcomes.as_deref(), Ok([AppendOutcome::Applied(_)])));
    log.trim(&app(), last).await.unwrap();
    assert!(cluster.keys() < 20, "{} keys are left", cluster.keys());
    assert!(
        matches!(log.read(&app(), Lsn::ZERO, 0).await, Err(ReadError::Trimmed { kept_after }) if kept_after == last)
    );
    // What is forgotten is too old to say; what is remembered is not.
    let depends = |key, since| AppendEntry { unchanged: vec![(ConflictKey(key), since)], ..entry(2, 1, "") };
    let old = Lsn::new(last.version - 1, 0);
    assert_eq!(log.append(&app(), vec![depends(105, old)]).await.unwrap(), [AppendOutcome::SnapshotTooOld]);
    assert!(matches!(log.append(&app(), vec![depends(1, last)]).await.unwrap()[..], [AppendOutcome::Conflict { .. }]));
    assert!(matches!(log.append(&app(), vec![depends(105, last)]).await.unwrap()[..], [AppendOutcome::Applied(_)]));
}

/// Two logs under two prefixes of one cluster know nothing of each other, and what is not a log is not opened.
#[tokio::test]
async fn prefixes_keep_logs_apart() {
    let cluster = SimCluster::calm(seed());
    let under = |prefix: &[u8]| FdbSettings { prefix: prefix.to_vec(), ..FdbSettings::default() };
    let one = FdbLog::open_on(Arc::new(cluster.clone()), under(b"one")).await.unwrap();
    let two = FdbLog::open_on(Arc::new(cluster.clone()), under(b"two")).await.unwrap();
    one.append(&app(), vec![entry(1, 1, "x")]).await.unwrap();
    one.metadata().commit(vec![MetaOp::Put { key: "k".into(), value: "v".into() }]).await.unwrap();
    assert_eq!(two.head(&app()).await.unwrap(), Lsn::ZERO);
    assert!(two.metadata().range(b"", None, 10).await.unwrap().is_empty());
    let key = [&b"oddF"[..]].concat();
    let transaction = bigpeer_log::fdb::cluster::Cluster::begin(&cluster).unwrap();
    transaction.set(&key, &[9], bigpeer_log::fdb::cluster::Conflicts::Yes);
    transaction.commit().await.unwrap();
    let refused = FdbLog::open_on(Arc::new(cluster), under(b"odd")).await.unwrap_err();
    assert!(matches!(refused, FdbOpenError::Format { .. }), "{refused}");
}

/// A cluster of which nobody can say what it did: the log says so too, and the same append later is the cure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_was_given_up_may_have_happened() {
    let cluster = SimCluster::new(Faults { unknown: 1, ..Faults::default() }, seed());
    // With patience everything is done in the end.
    open(&cluster).await.append(&app(), vec![entry(1, 1, "x")]).await.unwrap();
    // Without patience the first commit is the last, and of every commit the outcome is unknown here.
    let hasty = FdbSettings { patience: Duration::ZERO, ..FdbSettings::default() };
    for site in 2..200 {
        let hasty = FdbLog::open_on(Arc::new(cluster.clone()), hasty.clone()).await.unwrap();
        let error = hasty.append(&app(), vec![entry(site, 1, "x")]).await.unwrap_err();
        assert!(matches!(error, AppendError::Unknown { .. }) && error.may_have_applied(), "{error}");
        let outcomes = open(&cluster).await.append(&app(), vec![entry(site, 1, "x")]).await.unwrap();
        assert!(matches!(outcomes[..], [AppendOutcome::Applied(_) | AppendOutcome::Duplicate { .. }]));
    }
    let mut seen = all(&*open(&cluster).await).await;
    seen.sort_unstable();
    assert_eq!(seen.len(), 199, "something is missing");
    assert!(seen.is_sorted_by(|a, b| a < b), "an entry is there twice");
}
