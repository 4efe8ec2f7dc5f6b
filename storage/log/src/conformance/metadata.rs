//! The metadata space.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use super::{Engine, app, applied, entry};
use crate::limits::{MAX_META_COMMIT_BYTES, MAX_META_KEY_BYTES, MAX_META_VALUE_BYTES};
use crate::{MetaError, MetaOp, Metadata};

fn put(key: &str, value: impl Into<Bytes>) -> MetaOp {
    MetaOp::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: value.into() }
}

fn delete(key: &str) -> MetaOp {
    MetaOp::Delete { key: Bytes::copy_from_slice(key.as_bytes()) }
}

fn check(key: &str, revision: Option<u64>) -> MetaOp {
    MetaOp::Check { key: Bytes::copy_from_slice(key.as_bytes()), revision }
}

async fn value(metadata: &dyn Metadata, key: &str) -> Option<(Bytes, u64)> {
    metadata.get(key.as_bytes()).await.unwrap().map(|versioned| (versioned.value, versioned.revision))
}

/// A key has the value and revision of the last commit that wrote it.
pub async fn keys_have_values_and_revisions(engine: &dyn Engine) {
    let log = engine.open().await;
    let metadata = log.metadata();
    assert_eq!(value(metadata, "a").await, None);
    let first = metadata.commit(vec![put("a", "1"), put("b", "1")]).await.unwrap();
    applied(&*log, &app("a"), entry(1, 1, "not metadata")).await;
    let second = metadata.commit(vec![put("b", "2"), delete("never there"), put("c", "")]).await.unwrap();
    assert!(second > first);
    assert_eq!(value(metadata, "a").await, Some(("1".into(), first)));
    assert_eq!(value(metadata, "b").await, Some(("2".into(), second)));
    assert_eq!(value(metadata, "c").await, Some((Bytes::new(), second)));
    // In the order given, within one commit too.
    let third =
        metadata.commit(vec![delete("a"), put("d", "x"), put("d", "y"), delete("c"), put("c", "z")]).await.unwrap();
    assert_eq!(value(metadata, "a").await, None);
    assert_eq!(value(metadata, "d").await, Some(("y".into(), third)));
    assert_eq!(value(metadata, "c").await, Some(("z".into(), third)));
}

/// Byte order, within the prefix, after the key, up to the limit.
pub async fn ranges_are_ordered_and_paged(engine: &dyn Engine) {
    let log = engine.open().await;
    let metadata = log.metadata();
    let keys = ["k/", "k/a", "k/a/b", "k/b", "k/é", "k", "k0", "j/z"];
    metadata.commit(keys.iter().map(|key| put(key, *key)).collect()).await.unwrap();
    metadata.commit(vec![MetaOp::Put { key: Bytes::from_static(b"k/\xff\xff"), value: Bytes::new() }]).await.unwrap();
    let names = async |prefix: &[u8], after: Option<&[u8]>, limit| {
        let found = metadata.range(prefix, after, limit).await.unwrap();
        found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    let all: [&[u8]; 6] = [b"k/", b"k/a", b"k/a/b", b"k/b", "k/é".as_bytes(), b"k/\xff\xff"];
    assert_eq!(names(b"k/", None, 100).await, all);
    assert_eq!(names(b"k/", None, 2).await, all[..2]);
    assert_eq!(names(b"k/", Some(b"k/a"), 2).await, all[2..4]);
    assert_eq!(names(b"k/", Some(b"k/aa"), 100).await, all[3..]);
    assert_eq!(names(b"k/", Some(b"a"), 1).await, all[..1], "a key before the prefix starts at the prefix");
    assert!(names(b"k/", Some(b"z"), 100).await.is_empty());
    assert!(names(b"k/", None, 0).await.is_empty());
    assert!(names(b"nothing", None, 100).await.is_empty());
    assert_eq!(names(b"", None, 100).await.len(), 9);
}

/// All checks hold and all is written, or the first that fails is named and nothing is.
pub async fn checks_hold_or_nothing_happens(engine: &dyn Engine) {
    let log = engine.open().await;
    let metadata = log.metadata();
    let first = metadata.commit(vec![check("a", None), put("a", "1")]).await.unwrap();
    let conflict = |key: &'static str| Err(MetaError::Conflict { key: key.into() });
    assert_eq!(metadata.commit(vec![put("b", "x"), check("a", None)]).await, conflict("a"));
    assert_eq!(
        metadata.commit(vec![check("a", Some(first)), check("b", Some(first)), delete("a")]).await,
        conflict("b")
    );
    assert_eq!(value(metadata, "b").await, None);
    // Checks are about the state before the commit, wherever they stand in it.
    let second = metadata.commit(vec![put("a", "2"), check("a", Some(first))]).await.unwrap();
    assert_eq!(metadata.commit(vec![check("a", Some(first)), put("a", "3")]).await, conflict("a"));
    assert_eq!(value(metadata, "a").await, Some(("2".into(), second)));
    metadata.commit(vec![check("a", Some(second)), delete("a")]).await.unwrap();
    assert_eq!(metadata.commit(vec![check("a", Some(second)), put("a", "4")]).await, conflict("a"));
    // The same value again is another revision: nothing that was away and came back passes for unchanged.
    let third = metadata.commit(vec![check("a", None), put("a", "2")]).await.unwrap();
    assert!(third > second);
}

/// Read, add one, compare and swap, by many at once.
pub async fn concurrent_increments_add_up(engine: &dyn Engine) {
    let log = engine.open().await;
    let workers = (0..6).map(|_| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let metadata = log.metadata();
            for _ in 0..15 {
                loop {
                    let (count, revision) = match value(metadata, "n").await {
                        Some((count, revision)) => (String::from_utf8_lossy(&count).parse().unwrap(), Some(revision)),
                        None => (0_u64, None),
                    };
                    match metadata.commit(vec![check("n", revision), put("n", (count + 1).to_string())]).await {
                        Ok(_) => break,
                        Err(MetaError::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    });
    join_all(workers).await.into_iter().for_each(Result::unwrap);
    assert_eq!(value(log.metadata(), "n").await.unwrap().0, "90");
}

/// At the limit it works, above it is refused and nothing happens.
pub async fn limits_of_metadata_are_kept(engine: &dyn Engine) {
    let log = engine.open().await;
    let metadata = log.metadata();
    let long = "k".repeat(MAX_META_KEY_BYTES);
    metadata.commit(vec![put(&long, vec![1; MAX_META_VALUE_BYTES])]).await.unwrap();
    assert_eq!(value(metadata, &long).await.unwrap().0.len(), MAX_META_VALUE_BYTES);
    let many = (0..=MAX_META_COMMIT_BYTES / MAX_META_VALUE_BYTES)
        .map(|at| put(&at.to_string(), vec![1; MAX_META_VALUE_BYTES]));
    let bad = [
        vec![put("a", "1"), put(&format!("{long}k"), "")],
        vec![put("a", "1"), put("", "")],
        vec![put("a", "1"), put("b", vec![0; MAX_META_VALUE_BYTES + 1])],
        many.collect(),
    ];
    for bad in bad {
        let error = metadata.commit(bad).await.unwrap_err();
        assert!(matches!(error, MetaError::Rejected { .. }), "{error}");
    }
    assert_eq!(metadata.range(b"", None, 100).await.unwrap().len(), 1);
}

/// Watch, read, wait: whoever does it in this order sees the last value, however the commits fall.
pub async fn watches_miss_nothing(engine: &dyn Engine) {
    const LAST: u64 = 60;
    let log = engine.open().await;
    let followers: Vec<_> = ["w/", "w/key", ""]
        .into_iter()
        .map(|prefix| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut watch = log.metadata().watch(prefix.as_bytes());
                let mut last = 0;
                while last < LAST {
                    if let Some((count, _)) = value(log.metadata(), "w/key").await {
                        let count: u64 = String::from_utf8_lossy(&count).parse().unwrap();
                        assert!(count >= last, "a later read saw an earlier value");
                        last = count;
                    }
                    if last < LAST {
                        watch.changed().await.unwrap();
                    }
                }
            })
        })
        .collect();
    for count in 1..=LAST {
        log.metadata().commit(vec![put("w/key", count.to_string())]).await.unwrap();
    }
    join_all(followers).await.into_iter().for_each(Result::unwrap);
    // What happened between the watch and the wait counts, deletions too.
    let mut watch = log.metadata().watch(b"w/");
    log.metadata().commit(vec![delete("w/key")]).await.unwrap();
    watch.changed().await.unwrap();
}

/// Values and revisions are the same after an orderly end and a sudden one, and revisions go on increasing.
pub async fn metadata_survives_reopening(engine: &dyn Engine) {
    let mut log = engine.open().await;
    let mut last = 0;
    for round in 0..4 {
        let key = format!("key/{round}");
        let revision = log.metadata().commit(vec![put(&key, key.clone()), put("all", key.clone())]).await.unwrap();
        assert!(revision > last);
        last = revision;
        log.metadata().commit(vec![put("gone", "x")]).await.unwrap();
        log.metadata().commit(vec![delete("gone")]).await.unwrap();
        if round % 2 == 0 {
            engine.close(log).await;
        } else {
            drop(log);
        }
        log = engine.open().await;
        assert_eq!(value(log.metadata(), &key).await, Some((key.clone().into(), revision)));
        assert_eq!(value(log.metadata(), "all").await, Some((key.into(), revision)));
        assert_eq!(value(log.metadata(), "gone").await, None);
        assert_eq!(log.metadata().range(b"key/", None, 100).await.unwrap().len(), round + 1);
    }
}
