//! The cluster in memory is tested first: an engine is only as well tested as its cluster is faithful.

use super::*;
use crate::fdb::cluster::{CommitFailure, Conflicts};
use crate::fdb::keys::next;

async fn put(cluster: &SimCluster, key: &[u8], value: &[u8]) -> Stamp {
    let transaction = cluster.begin().unwrap();
    transaction.set(key, value, Conflicts::Yes);
    transaction.commit().await.unwrap()
}

#[tokio::test]
async fn reads_stand_at_one_version() {
    let cluster = SimCluster::calm(1);
    put(&cluster, b"a", b"1").await;
    let reader = cluster.begin().unwrap();
    assert_eq!(reader.get(b"a").await.unwrap().unwrap(), "1");
    put(&cluster, b"a", b"2").await;
    put(&cluster, b"b", b"2").await;
    assert_eq!(reader.get(b"a").await.unwrap().unwrap(), "1");
    assert_eq!(reader.get(b"b").await.unwrap(), None);
    assert_eq!(reader.range(b"a", b"z", 1000).await.unwrap().rows.len(), 1);
    assert_eq!(cluster.begin().unwrap().get(b"a").await.unwrap().unwrap(), "2");
}

#[tokio::test]
async fn what_was_depended_on_must_not_have_been_written() {
    let cluster = SimCluster::calm(2);
    put(&cluster, b"a", b"1").await;
    let (mine, other) = (cluster.begin().unwrap(), cluster.begin().unwrap());
    for transaction in [&mine, &other] {
        transaction.get(b"a").await.unwrap();
        transaction.depend_on(b"a", &next(b"a")).unwrap();
        transaction.set(b"b", b"", Conflicts::No);
    }
    mine.commit().await.unwrap();
    put(&cluster, b"a", b"2").await;
    let CommitFailure { code, again } = other.commit().await.unwrap_err();
    assert_eq!(code, ErrorCode::NOT_COMMITTED);
    let again = again.await.unwrap();
    assert_eq!(again.get(b"a").await.unwrap().unwrap(), "2");
    // A write that conflicts with nobody.
    let reader = cluster.begin().unwrap();
    reader.read_version().await.unwrap();
    reader.depend_on(b"b", &next(b"b")).unwrap();
    reader.set(b"c", b"", Conflicts::No);
    let writer = cluster.begin().unwrap();
    writer.set(b"b", b"", Conflicts::No);
    writer.commit().await.unwrap();
    reader.commit().await.unwrap();
}

/// Of two that depend on what both write one is committed, also when they share a version.
#[tokio::test]
async fn commits_at_one_time_share_a_version_and_conflict_all_the_same() {
    let cluster = SimCluster::calm(3);
    let (mut shared, mut lost) = (0, 0);
    for _ in 0..100 {
        let mut commits = Vec::new();
        for at in 0..4_u8 {
            let transaction = cluster.begin().unwrap();
            let key = [at / 2];
            transaction.read_version().await.unwrap();
            transaction.depend_on(&key, &next(&key)).unwrap();
            transaction.set_stamped_value(&key, &[0; 10], Conflicts::Yes);
            commits.push(transaction.commit());
        }
        let stamps: Vec<_> = futures::future::join_all(commits).await.into_iter().filter_map(Result::ok).collect();
        assert_eq!(stamps.len(), 2, "one of each pair");
        assert_ne!(stamps[0], stamps[1]);
        shared += u32::from(stamps[0].version == stamps[1].version);
        lost += 2;
    }
    assert!(shared > 10 && lost > 0, "{shared} shared a version");
}

#[tokio::test]
async fn versionstamps_are_put_where_they_belong() {
    let cluster = SimCluster::calm(4);
    let transaction = cluster.begin().unwrap();
    transaction.set_stamped_key(b"k..........x", 1, b"by key");
    transaction.set_stamped_value(b"v", b"..........rest", Conflicts::Yes);
    assert_eq!(transaction.get(b"v").await.unwrap_err(), ErrorCode::ACCESSED_UNREADABLE);
    let stamp = transaction.commit().await.unwrap();
    let reader = cluster.begin().unwrap();
    let key = [b"k", &stamp.to_bytes()[..], b"x"].concat();
    assert_eq!(reader.get(&key).await.unwrap().unwrap(), "by key");
    assert_eq!(reader.get(b"v").await.unwrap().unwrap()[..], [&stamp.to_bytes()[..], b"rest"].concat());
    reader.clear_range(b"k", b"l");
    reader.commit().await.unwrap();
    assert_eq!(cluster.keys(), 1);
}

#[tokio::test]
async fn limits_are_those_of_the_real_one() {
    let cluster = SimCluster::calm(5);
    let fails = async |write: &dyn Fn(&dyn Transaction)| {
        let transaction = cluster.begin().unwrap();
        write(&*transaction);
        transaction.commit().await.unwrap_err().code
    };
    let code = fails(&|transaction| transaction.set(&[1; 10_001], b"", Conflicts::No)).await;
    assert_eq!(code, ErrorCode::KEY_TOO_LARGE);
    let code = fails(&|transaction| transaction.set(b"a", &[1; 100_001], Conflicts::No)).await;
    assert_eq!(code, ErrorCode::VALUE_TOO_LARGE);
    let code =
        fails(&|transaction| (0..101_u8).for_each(|at| transaction.set(&[at], &[1; 99_999], Conflicts::No))).await;
    assert_eq!(code, ErrorCode::TRANSACTION_TOO_LARGE);
    let old = cluster.begin().unwrap();
    old.read_version().await.unwrap();
    cluster.pass(WINDOW + 1);
    assert_eq!(old.get(b"a").await.unwrap_err(), ErrorCode::TRANSACTION_TOO_OLD);
    old.set(b"a", b"", Conflicts::No);
    assert_eq!(old.commit().await.unwrap_err().code, ErrorCode::TRANSACTION_TOO_OLD);
}

#[tokio::test]
async fn watches_fire_on_a_change_and_end_with_their_transaction() {
    let cluster = SimCluster::calm(6);
    put(&cluster, b"a", b"1").await;
    let watcher = cluster.begin().unwrap();
    let fired = watcher.watch(b"a");
    put(&cluster, b"a", b"2").await;
    watcher.commit().await.unwrap();
    fired.await.unwrap();
    let watcher = cluster.begin().unwrap();
    let mut fired = watcher.watch(b"a");
    watcher.commit().await.unwrap();
    put(&cluster, b"a", b"2").await;
    assert!(futures::poll!(&mut fired).is_pending(), "the value is the same");
    put(&cluster, b"a", b"3").await;
    fired.await.unwrap();
    let watcher = cluster.begin().unwrap();
    let fired = watcher.watch(b"a");
    drop(watcher);
    assert_eq!(fired.await.unwrap_err(), ErrorCode::TRANSACTION_CANCELLED);
}

/// A commit of unknown outcome happens at once, later or never, and all three are seen.
#[tokio::test]
async fn unknown_commits_happen_or_do_not() {
    let cluster = SimCluster::new(Faults::unknown_commits(), 7);
    let (mut at_once, mut later, mut unknown) = (0, 0, 0);
    for at in 0..400_u32 {
        let key = at.to_be_bytes();
        let transaction = cluster.begin().unwrap();
        transaction.set(&key, b"x", Conflicts::Yes);
        let Err(CommitFailure { code, .. }) = transaction.commit().await else { continue };
        assert!(code.may_have_committed());
        unknown += 1;
        let now = cluster.begin().unwrap().get(&key).await.unwrap().is_some();
        for other in 0..40_u32 {
            let transaction = cluster.begin().unwrap();
            transaction.set(&(1_000_000 + other).to_be_bytes(), b"x", Conflicts::Yes);
            let _ = transaction.commit().await;
        }
        let then = cluster.begin().unwrap().get(&key).await.unwrap().is_some();
        assert!(then || !now, "what was seen is gone");
        at_once += u32::from(now);
        later += u32::from(then && !now);
    }
    assert!(
        at_once > 10 && later > 10 && unknown > at_once + later,
        "{unknown} unknown: {at_once} at once, {later} later"
    );
}
