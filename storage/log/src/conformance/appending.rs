//! Appending: outcomes, preconditions, limits.

use bigpeer_types::{Lsn, SiteId};

use super::{Engine, app, append, applied, entry, ids, keyed, lsn_of, read_all};
use crate::limits::{MAX_CONFLICT_KEYS, MAX_PAYLOAD_BYTES};
use crate::{AppendError, AppendOutcome, ConflictKey};

/// One outcome per entry, in order; positions increase over calls and within one.
pub async fn outcomes_come_in_order_and_positions_increase(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let mut last = Lsn::ZERO;
    for call in 0..4 {
        let entries = (1..=5).map(|at| entry(1, call * 5 + at, format!("{call}/{at}"))).collect();
        for outcome in log.append(&app, entries).await.unwrap() {
            let lsn = lsn_of(outcome);
            assert!(lsn > last);
            last = lsn;
        }
    }
    assert_eq!(log.head(&app).await.unwrap(), last);
    let all = read_all(&*log, &app, Lsn::ZERO).await;
    assert_eq!(ids(&all), (1..=20).map(|seq| (1, seq)).collect::<Vec<_>>());
    assert_eq!(&all[6].payload[..], b"1/2");
    assert!(log.append(&app, Vec::new()).await.unwrap().is_empty());
}

/// The cure for `Unknown`: the same append again is applied once, and told so.
pub async fn a_repeated_append_is_recognized(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let first = applied(&*log, &app, entry(1, 1, "one")).await;
    let second = applied(&*log, &app, entry(1, 2, "two")).await;
    for seq in [1, 2] {
        let AppendOutcome::Duplicate { through_seq, lsn } = append(&*log, &app, entry(1, seq, "other")).await else {
            panic!("applied twice")
        };
        assert_eq!(through_seq, 2);
        assert!(lsn >= if seq == 1 { first } else { second } && lsn <= log.head(&app).await.unwrap());
    }
    let outcomes =
        log.append(&app, vec![entry(1, 2, "two"), entry(1, 3, "three"), entry(1, 3, "three")]).await.unwrap();
    assert!(matches!(outcomes[0], AppendOutcome::Duplicate { through_seq: 2, .. }));
    let third = lsn_of(outcomes[1]);
    assert!(matches!(outcomes[2], AppendOutcome::Duplicate { through_seq: 3, lsn } if lsn >= third));
    let all = read_all(&*log, &app, Lsn::ZERO).await;
    assert_eq!(ids(&all), [(1, 1), (1, 2), (1, 3)]);
    assert_eq!(&all[0].payload[..], b"one");
}

/// A `seq` that is not the next is refused; other sites, and the missing one itself, go on.
pub async fn a_gap_is_refused_and_does_not_stop_what_follows(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    assert_eq!(append(&*log, &app, entry(1, 2, "")).await, AppendOutcome::SeqGap { last_seq: 0 });
    let calls = vec![entry(1, 1, ""), entry(1, 3, ""), entry(2, 1, ""), entry(1, 2, ""), entry(1, 3, "")];
    let outcomes = log.append(&app, calls).await.unwrap();
    assert_eq!(outcomes[1], AppendOutcome::SeqGap { last_seq: 1 });
    for at in [0, 2, 3, 4] {
        lsn_of(outcomes[at]);
    }
    assert_eq!(append(&*log, &app, entry(2, u64::MAX, "")).await, AppendOutcome::SeqGap { last_seq: 1 });
    assert_eq!(ids(&read_all(&*log, &app, Lsn::ZERO).await), [(1, 1), (2, 1), (1, 2), (1, 3)]);
    assert_eq!(log.last_seq(&app, SiteId::new(1)).await.unwrap(), 3);
    assert_eq!(log.last_seq(&app, SiteId::new(9)).await.unwrap(), 0);
}

/// What was written after the position that an entry depends on keeps it out, and its `seq` is not used up.
pub async fn dependencies_are_checked(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let first = applied(&*log, &app, keyed(1, 1, &[7, 8], &[])).await;
    let second = applied(&*log, &app, keyed(1, 2, &[8], &[])).await;
    // Key 7 was last written at `first`, 8 at `second`, 9 never.
    applied(&*log, &app, keyed(2, 1, &[], &[(7, first), (8, second), (9, first)])).await;
    let conflict = append(&*log, &app, keyed(2, 2, &[9], &[(7, first), (8, first)])).await;
    assert_eq!(conflict, AppendOutcome::Conflict { key: ConflictKey(8) });
    assert_eq!(log.last_seq(&app, SiteId::new(2)).await.unwrap(), 1);
    // Nothing of the refused entry counts: 9 is still unwritten, seq 2 still free.
    let third = applied(&*log, &app, keyed(2, 2, &[9], &[(9, second), (8, second)])).await;
    let outcome = append(&*log, &app, keyed(2, 3, &[], &[(9, second)])).await;
    assert_eq!(outcome, AppendOutcome::Conflict { key: ConflictKey(9) });
    applied(&*log, &app, keyed(2, 3, &[], &[(9, third)])).await;
    // Positions that the log has not reached yet are no excuse to fail.
    applied(&*log, &app, keyed(2, 4, &[], &[(9, Lsn::MAX)])).await;
}

/// Entries of one call are judged one after the other.
pub async fn dependencies_are_checked_within_one_call(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let start = applied(&*log, &app, keyed(1, 1, &[1], &[])).await;
    let entries =
        vec![keyed(2, 1, &[1], &[(1, start)]), keyed(3, 1, &[1], &[(1, start)]), keyed(4, 1, &[2], &[(2, start)])];
    let outcomes = log.append(&app, entries).await.unwrap();
    lsn_of(outcomes[0]);
    assert_eq!(outcomes[1], AppendOutcome::Conflict { key: ConflictKey(1) });
    lsn_of(outcomes[2]);
    assert_eq!(ids(&read_all(&*log, &app, start).await), [(2, 1), (4, 1)]);
}

/// A repeated entry whose own write is now "a change since" is a duplicate, not a conflict.
pub async fn a_duplicate_is_told_before_its_dependencies_are_looked_at(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let start = applied(&*log, &app, keyed(1, 1, &[5], &[])).await;
    let again = keyed(2, 1, &[5], &[(5, start)]);
    applied(&*log, &app, again.clone()).await;
    assert!(matches!(append(&*log, &app, again).await, AppendOutcome::Duplicate { through_seq: 1, .. }));
}

/// A call in which one entry is over a limit applies nothing.
pub async fn what_breaks_a_limit_is_refused_whole(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let keys = vec![ConflictKey(1); MAX_CONFLICT_KEYS + 1];
    let bad = [
        entry(1, 0, "seq 0"),
        entry(1, 2, vec![0; MAX_PAYLOAD_BYTES + 1]),
        crate::AppendEntry { writes: keys.clone(), ..entry(1, 2, "") },
        crate::AppendEntry { unchanged: keys.into_iter().map(|key| (key, Lsn::MAX)).collect(), ..entry(1, 2, "") },
    ];
    for bad in bad {
        let error = log.append(&app, vec![entry(1, 1, "good"), bad]).await.unwrap_err();
        assert!(matches!(error, AppendError::Rejected { .. }) && !error.may_have_applied());
    }
    assert!(read_all(&*log, &app, Lsn::ZERO).await.is_empty());
    assert_eq!(log.last_seq(&app, SiteId::new(1)).await.unwrap(), 0);
}

/// The largest payloads, alone and several in a call, among small ones.
pub async fn large_transactions_come_back_whole(engine: &dyn Engine) {
    let (log, app) = (engine.open().await, app("a"));
    let large =
        |at: usize, bytes: usize| -> Vec<u8> { (0..bytes).map(|byte| (byte * 31 + at).to_le_bytes()[0]).collect() };
    let sizes = [10, MAX_PAYLOAD_BYTES, 0, MAX_PAYLOAD_BYTES / 2, 100_000, 99_999, MAX_PAYLOAD_BYTES / 2 + 1];
    let entries = || (1..).zip(sizes).map(|(seq, bytes)| entry(1, seq, large(bytes, bytes))).collect::<Vec<_>>();
    let [first, second, ..] = &entries()[..] else { panic!("there are more") };
    applied(&*log, &app, first.clone()).await;
    applied(&*log, &app, second.clone()).await;
    let outcomes = log.append(&app, entries()).await.unwrap();
    assert!(matches!(outcomes[1], AppendOutcome::Duplicate { .. }));
    assert!(outcomes[2..].iter().all(|outcome| matches!(outcome, AppendOutcome::Applied(_))));
    engine.close(log).await;
    let log = engine.open().await;
    let all = read_all(&*log, &app, Lsn::ZERO).await;
    assert_eq!(all.len(), sizes.len());
    for (entry, bytes) in all.iter().zip(sizes) {
        assert!(entry.payload == large(bytes, bytes), "a payload of {bytes} bytes is not what was appended");
    }
}

/// Same sites, same numbers, same keys: nothing of one app is seen in another.
pub async fn apps_are_isolated(engine: &dyn Engine) {
    let log = engine.open().await;
    // One name is a prefix of the other, as keys of an engine might be.
    let (one, two) = (app("a"), app("a-b"));
    let first = applied(&*log, &one, keyed(1, 1, &[1], &[])).await;
    let second = applied(&*log, &two, keyed(1, 1, &[], &[(1, Lsn::ZERO)])).await;
    applied(&*log, &one, keyed(1, 2, &[], &[])).await;
    assert_eq!(log.head(&two).await.unwrap(), second);
    assert_eq!(read_all(&*log, &two, Lsn::ZERO).await.len(), 1);
    assert_eq!(log.last_seq(&two, SiteId::new(1)).await.unwrap(), 1);
    log.trim(&one, first).await.unwrap();
    assert_eq!(log.trimmed(&two).await.unwrap(), Lsn::ZERO);
    assert_eq!(ids(&read_all(&*log, &two, Lsn::ZERO).await), [(1, 1)]);
    assert_eq!(ids(&read_all(&*log, &one, first).await), [(1, 2)]);
    assert_eq!(log.head(&app("never-used")).await.unwrap(), Lsn::ZERO);
}

/// Entries, sequence numbers, positions and conflicts are the same after an orderly end and after a sudden one.
pub async fn everything_survives_reopening(engine: &dyn Engine) {
    let app = app("a");
    let mut log = engine.open().await;
    let mut expected = Vec::new();
    let mut last = Lsn::ZERO;
    for round in 0..4_u64 {
        for seq in 1..=10 {
            let lsn = applied(&*log, &app, keyed(1, round * 10 + seq, &[round], &[])).await;
            assert!(lsn > last, "a position was used again");
            last = lsn;
            expected.push(lsn);
        }
        if round % 2 == 0 {
            engine.close(log).await;
        } else {
            drop(log);
        }
        log = engine.open().await;
        let all = read_all(&*log, &app, Lsn::ZERO).await;
        assert_eq!(all.iter().map(|entry| entry.lsn).collect::<Vec<_>>(), expected);
        assert_eq!(log.head(&app).await.unwrap(), last);
        assert_eq!(log.last_seq(&app, SiteId::new(1)).await.unwrap(), (round + 1) * 10);
        assert!(matches!(append(&*log, &app, entry(1, 3, "")).await, AppendOutcome::Duplicate { .. }));
        let old = append(&*log, &app, keyed(2, 1, &[], &[(round, expected[0])])).await;
        assert!(matches!(old, AppendOutcome::Conflict { .. } | AppendOutcome::SnapshotTooOld), "{old:?}");
    }
}
