//! Leases on the metadata space.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_types::ManualClock;
use bytes::Bytes;
use futures::future::join_all;

use super::Engine;
use crate::{Lease, LeaseError, MetaError, MetaOp};

const TTL: Duration = Duration::from_millis(100);

/// Held until it expires; expired only for those who ask later.
pub async fn a_lease_has_one_owner(engine: &dyn Engine) {
    let (log, clock) = (engine.open().await, ManualClock::new(1000));
    let metadata = log.metadata();
    let mut mine = Lease::acquire(metadata, "work", "me", TTL, &clock).await.unwrap();
    assert_eq!(mine.expires_ms(), 1100);
    let held = |expires_ms| LeaseError::Held { owner: "me".to_owned(), expires_ms };
    assert_eq!(Lease::acquire(metadata, "work", "you", TTL, &clock).await.unwrap_err(), held(1100));
    Lease::acquire(metadata, "other work", "you", TTL, &clock).await.unwrap();
    clock.set(1099);
    mine.renew(metadata, TTL, &clock).await.unwrap();
    clock.set(1198);
    assert_eq!(Lease::acquire(metadata, "work", "you", TTL, &clock).await.unwrap_err(), held(1199));
    clock.set(1199);
    // Expired, but nobody took it: it may still be extended.
    mine.renew(metadata, TTL, &clock).await.unwrap();
    clock.set(1299);
    let yours = Lease::acquire(metadata, "work", "you", TTL, &clock).await.unwrap();
    assert!(yours.token() > mine.token());
    assert_eq!(mine.renew(metadata, TTL, &clock).await.unwrap_err(), LeaseError::Lost);
    assert_eq!(mine.release(metadata).await.unwrap_err(), LeaseError::Lost);
    assert!(matches!(Lease::acquire(metadata, "work", "me", TTL, &clock).await, Err(LeaseError::Held { .. })));
}

/// Every acquisition has a greater token than all before it, by whomever and however the last one ended.
pub async fn tokens_increase_over_takeover_release_and_reopening(engine: &dyn Engine) {
    let clock = ManualClock::new(1000);
    let mut last = 0;
    for round in 0..6 {
        let log = engine.open().await;
        let owner = format!("owner {}", round / 2);
        let lease = Lease::acquire(log.metadata(), "work", &owner, TTL, &clock).await.unwrap();
        assert!(lease.token() > last);
        last = lease.token();
        match round % 3 {
            0 => lease.release(log.metadata()).await.unwrap(),
            1 => clock.advance(200),
            _ => clock.advance(100),
        }
    }
}

/// A commit that carries a lease's check happens only while nobody else has acquired the lease.
pub async fn a_lost_lease_fences(engine: &dyn Engine) {
    let (log, clock) = (engine.open().await, ManualClock::new(1000));
    let metadata = log.metadata();
    let mut mine = Lease::acquire(metadata, "work", "me", TTL, &clock).await.unwrap();
    let put = |value: &'static str| MetaOp::Put { key: Bytes::from_static(b"result"), value: value.into() };
    metadata.commit(vec![mine.check(), put("mine")]).await.unwrap();
    mine.renew(metadata, TTL, &clock).await.unwrap();
    metadata.commit(vec![mine.check(), put("mine too")]).await.unwrap();
    clock.advance(1000);
    let yours = Lease::acquire(metadata, "work", "you", TTL, &clock).await.unwrap();
    // My clock may stand still; the check does not care.
    let late = metadata.commit(vec![mine.check(), put("late")]).await.unwrap_err();
    assert!(matches!(late, MetaError::Conflict { .. }));
    metadata.commit(vec![yours.check(), put("yours")]).await.unwrap();
    assert_eq!(metadata.get(b"result").await.unwrap().unwrap().value, "yours");
}

/// Of many who try for a free lease one gets it.
pub async fn owners_racing_for_a_lease_get_different_tokens(engine: &dyn Engine) {
    let (log, clock) = (engine.open().await, Arc::new(ManualClock::new(1000)));
    let mut tokens = Vec::new();
    for _ in 0..5 {
        let tries = (0..6).map(|owner| {
            let (log, clock) = (Arc::clone(&log), Arc::clone(&clock));
            tokio::spawn(async move {
                Lease::acquire(log.metadata(), "work", &format!("owner {owner}"), TTL, &*clock).await
            })
        });
        let won: Vec<_> = join_all(tries).await.into_iter().filter_map(|tried| tried.unwrap().ok()).collect();
        assert_eq!(won.len(), 1);
        tokens.extend(won.iter().map(Lease::token));
        clock.advance(1000);
    }
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}
