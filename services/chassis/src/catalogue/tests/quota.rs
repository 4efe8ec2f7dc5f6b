//! Quotas and usage in the catalogue, and wrong keys by the ten thousand.

use std::net::IpAddr;

use super::*;
use crate::{ErrorCode, Quota, Usage, as_client_now};

fn from(address: &str) -> Option<IpAddr> {
    Some(address.parse().unwrap())
}

#[tokio::test]
async fn a_quota_is_in_force_in_every_process_and_goes_again() {
    let world = world().await;
    let other = open(&world.log, &world.clock).await;
    let (_, secret) = world.key("k", None).await;
    let mut changes = other.changes();
    let principal = world.catalogue.authenticate_credential(&world.app.id, Door::Data, secret.expose()).unwrap();
    let quota = Quota { requests_per_second: Some(2), ..Quota::default() };
    let meter = other.meter(&world.app.id);
    assert_eq!(world.catalogue.put_quota(&world.app.id, quota.clone()).await.unwrap(), quota);
    changes.wait_for(|_| *other.quota(&world.app.id) == quota).await.unwrap();
    for catalogue in [&world.catalogue, &other] {
        let admitted = (0..5).filter(|_| catalogue.admit(&world.app.id, &principal).is_ok()).count();
        assert_eq!(admitted, 2);
    }
    assert_eq!(meter.quota().requests_per_second, Some(2), "one that was there before follows");
    let nobody = AppId::new("nobody").unwrap();
    let missing = world.catalogue.put_quota(&nobody, quota).await.unwrap_err();
    assert!(matches!(missing, CatalogueError::NotFound { .. }));
    world.catalogue.delete_quota(&world.app.id).await.unwrap();
    assert_eq!(*world.catalogue.quota(&world.app.id), Quota::default());
    assert!((0..50).all(|_| world.catalogue.admit(&world.app.id, &principal).is_ok()));
}

#[tokio::test]
async fn a_key_has_a_rate_of_its_own() {
    let world = world().await;
    let limits = KeyLimits { requests_per_second: Some(3), ..KeyLimits::default() };
    let spec = ApiKeySpec { permissions: Permissions::all(), limits, ..Default::default() };
    world.catalogue.put_api_key(&world.app.id, &name("k"), spec).await.unwrap();
    let principal = Principal::ApiKey { name: name("k"), permissions: Arc::default() };
    let admitted = (0..9).filter(|_| world.catalogue.admit(&world.app.id, &principal).is_ok()).count();
    assert_eq!(admitted, 3);
}

#[tokio::test]
async fn what_was_used_is_added_up_over_processes_and_never_twice() {
    let world = world().await;
    let other = open(&world.log, &world.clock).await;
    let app = &world.app.id;
    world.catalogue.meter(app).bytes_in(10);
    other.meter(app).bytes_in(5);
    assert_eq!(world.catalogue.usage(app).await.unwrap(), Usage { bytes_in: 10, ..Usage::default() });
    for catalogue in [&world.catalogue, &other, &world.catalogue] {
        catalogue.write_usage().await.unwrap();
    }
    let anew = open(&world.log, &world.clock).await;
    for catalogue in [&world.catalogue, &other, &anew] {
        assert_eq!(catalogue.usage(app).await.unwrap(), Usage { bytes_in: 15, ..Usage::default() });
    }
    // A process that dies loses what it has not written.
    other.meter(app).bytes_out(3);
    drop(other);
    assert_eq!(anew.usage(app).await.unwrap().bytes_out, 0);
}

#[tokio::test]
async fn ten_thousand_wrong_keys_are_looked_at_so_often_and_no_more() {
    let world = world().await;
    let (key, secret) = world.key("k", None).await;
    let (_, unused) = world.key("unused", None).await;
    let admin = world.catalogue.create_admin(&name("root")).await.unwrap().unwrap();
    let app = &world.app.id;
    let attacker = from("192.0.2.7");
    let show = |from: Option<IpAddr>, credential: &str| {
        as_client_now(from, || world.catalogue.authenticate_credential(app, Door::Data, credential))
            .map_err(|error| error.code)
    };
    // Somebody who shares the address, before and while it goes on.
    assert!(show(attacker, secret.expose()).is_ok());
    let mut seen = BTreeSet::new();
    let (mut looked_at, mut limited) = (0, 0);
    for n in 0..10_000 {
        // Keys of every kind: unknown, of a known prefix, tokens.
        let guess = match n % 3 {
            0 => format!("bpk_{n:012}_{n:043}"),
            1 => format!("{}_{n:043}", key.prefix),
            _ => format!("e30.e30.{n}"),
        };
        let refusal = show(attacker, &guess).unwrap_err();
        if refusal == ErrorCode::Unauthorized {
            looked_at += 1;
        } else {
            assert_eq!(refusal, ErrorCode::TooManyRequests);
            limited += 1;
        }
        if n % 500 == 0 {
            seen.insert(show(attacker, secret.expose()).is_ok());
        }
    }
    assert_eq!((looked_at, limited), (200, 9800));
    assert_eq!(seen, BTreeSet::from([true]), "what was right lately goes on");
    // What is right and was not seen before is not looked at: nobody learns that it is right.
    assert_eq!(show(attacker, unused.expose()).unwrap_err(), ErrorCode::TooManyRequests);
    let error = as_client_now(attacker, || world.catalogue.authenticate_admin(&headers(admin.expose()))).unwrap_err();
    assert_eq!((error.code, error.retry_after_secs), (ErrorCode::TooManyRequests, Some(1)));
    for from in [from("192.0.2.8"), None] {
        assert!(show(from, unused.expose()).is_ok());
        assert_eq!(show(from, "bpk_x_y").unwrap_err(), ErrorCode::Unauthorized);
    }
    world.clock.advance(1000);
    assert!(show(attacker, admin.expose()).is_err_and(|code| code == ErrorCode::Unauthorized));
    let again = as_client_now(attacker, || world.catalogue.authenticate_admin(&headers(admin.expose())));
    assert!(again.is_ok());
}

#[tokio::test]
async fn tokens_that_have_ended_are_no_guesses() {
    let world = world().await;
    let (key, _) = world.key("k", None).await;
    let site = world.catalogue.allocate_site(&world.app.id).await.unwrap();
    let (token, ends) = world.catalogue.issue_token(&world.app.id, site, &key, 60).unwrap();
    world.clock.set(ends + 1);
    let client = from("2001:db8::1");
    for _ in 0..1000 {
        let shown = as_client_now(client, || world.catalogue.authenticate_token(&world.app.id, Door::Sync, &token));
        assert_eq!(shown.unwrap_err().code, ErrorCode::Unauthorized);
    }
}
