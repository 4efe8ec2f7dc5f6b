//! Quotas over HTTP: what is refused, with what, and what still works; and what is counted.

use bigpeer_chassis::Quota;
use bigpeer_types::ManualClock;

use super::*;

async fn quota(world: &World, quota: Quota) {
    world.catalogue.put_quota(&world.app, quota).await.unwrap();
}

#[tokio::test]
async fn one_request_too_many_is_told_when_to_come_back_and_others_notice_nothing() {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let (world, _) = world_at(short(), Arc::clone(&clock) as _).await;
    let other = world.new_app("b").await;
    let other_key = world.new_key(&other, "all", Permissions::all()).await;
    quota(&world, Quota { requests_per_second: Some(2), ..Quota::default() }).await;
    let path = |app: &AppId| format!("/{app}/api/v4/store/execute");
    let body = || json!({"statement": "SELECT * FROM cars"}).to_string().into_bytes();
    for expected in [200, 200, 429, 429] {
        let (status, headers, json) = world.ask(&path(&world.app), &world.key, None, body()).await;
        assert_eq!(status.as_u16(), expected, "{json}");
        if expected == 429 {
            assert_eq!(
                (&headers["retry-after"], &json["error"]["code"]),
                (&"1".parse().unwrap(), &json!("quota_exceeded"))
            );
        }
    }
    assert_eq!(world.ask(&path(&other), &other_key, None, body()).await.0.as_u16(), 200);
    // Whoever has no key takes nothing of it.
    clock.advance(1000);
    for _ in 0..10 {
        assert_eq!(world.ask(&path(&world.app), &other_key, None, body()).await.0.as_u16(), 401);
    }
    let (status, _, answer) = world.ask(&path(&world.app), &world.key, None, body()).await;
    assert_eq!(status.as_u16(), 200);
    let used = world.catalogue.usage(&world.app).await.unwrap();
    assert_eq!((used.requests, used.requests_refused), (3, 2));
    assert_eq!(used.bytes_in, 3 * body().len() as u64, "of those that were refused nothing was read");
    assert!(used.bytes_out > 3 * answer["items"].to_string().len() as u64);
}

#[tokio::test]
async fn where_there_is_no_room_only_deletions_are_taken() {
    let world = world(short()).await;
    world.ok("INSERT INTO cars DOCUMENTS (:a), (:b)", json!({"a": {"_id": 1}, "b": {"_id": 2}})).await;
    quota(&world, Quota { storage_bytes: Some(10), ..Quota::default() }).await;
    for statement in ["INSERT INTO cars DOCUMENTS ({'_id': 3})", "UPDATE cars SET x = 1 WHERE _id = 1"] {
        let (status, json) = world.run(statement, json!({})).await;
        assert_eq!((status, &json["error"]["code"]), (429, &json!("quota_exceeded")), "{json}");
        assert!(json["error"]["description"].as_str().unwrap().contains("storage_bytes"), "{json}");
    }
    let upload = format!("/{}/api/v4/attachments/upload", world.app);
    let (status, headers, json) = world.ask(&upload, &world.key, None, b"bytes".to_vec()).await;
    assert_eq!((status.as_u16(), &json["error"]["code"]), (429, &json!("quota_exceeded")), "{json}");
    assert_eq!(headers["retry-after"], "60");
    let deleted = world.ok("DELETE FROM cars WHERE _id = 1", json!({})).await;
    assert_eq!(deleted["mutatedDocumentIds"], json!([1]));
    assert_eq!(world.ok("SELECT _id FROM cars", json!({})).await["items"], json!([{"_id": 2}]));
    quota(&world, Quota { storage_bytes: Some(1 << 30), ..Quota::default() }).await;
    world.ok("INSERT INTO cars DOCUMENTS ({'_id': 3})", json!({})).await;
    let (status, _, json) = world.ask(&upload, &world.key, None, b"bytes".to_vec()).await;
    assert_eq!(status.as_u16(), 200, "{json}");
    assert_eq!(world.catalogue.meter(&world.app).attachment_bytes(), 5);
}

#[tokio::test]
async fn what_was_written_is_exact() {
    let world = world(short()).await;
    world.ok("INSERT INTO cars DOCUMENTS (:a), (:b)", json!({"a": {"_id": 1}, "b": {"_id": 2}})).await;
    world.ok("UPDATE cars SET color = 'red' WHERE _id = 1", json!({})).await;
    world.ok("SELECT * FROM cars", json!({})).await;
    world.ok("DELETE FROM cars WHERE _id = 2", json!({})).await;
    let (lsn, written) = world.stores.store(&world.app).unwrap().written();
    assert_eq!((written.transactions, written.documents), (3, 4));
    assert_eq!(lsn, world.log.head(&world.app).await.unwrap());
    let entries = world.log.read(&world.app, bigpeer_types::Lsn::ZERO, 1 << 20).await.unwrap().entries;
    assert_eq!(written.bytes, entries.iter().map(|entry| entry.payload.len() as u64).sum::<u64>());
}
