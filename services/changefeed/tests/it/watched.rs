//! How far a feed is, as whoever watches it sees: in the admin API, and among the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use bigpeer_changefeed::{ChangefeedSettings, run_feeds};
use bigpeer_chassis::{Access, Metrics, Permissions};
use bigpeer_log::TransactionLog;
use serde_json::{Value as Json, json};
use tower::ServiceExt;

use crate::receiver::{Act, Receiver, SECRET, until};
use crate::served::{Served, serve};

fn settings() -> ChangefeedSettings {
    let lease = Duration::from_millis(300);
    ChangefeedSettings { allow_private_receivers: true, lease, ..ChangefeedSettings::default() }
}

async fn make(served: &Served, spec: Json) -> (u16, Json) {
    served.admin("PUT", "/f", spec).await
}

fn to(url: &str) -> Json {
    json!({"owner": "all", "sink": {"type": "webhook", "url": url, "secrets": [SECRET]}})
}

/// What a feed's metrics say.
async fn metrics(served: &Served) -> BTreeMap<String, String> {
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let answer = Metrics::install().router().oneshot(request).await.unwrap();
    let bytes = axum::body::to_bytes(answer.into_body(), 1 << 24).await.unwrap();
    let labels = format!("{{app=\"{}\",feed=\"f\"}} ", served.app);
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let ours = text.lines().filter_map(|line| line.split_once(&labels));
    ours.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn lag_rate_errors_and_the_last_delivery_are_told_by_the_api_and_as_metrics() {
    let _recorder = Metrics::install();
    let down = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&down);
    let receiver =
        Receiver::start(move |_, _| if seen.load(Ordering::SeqCst) { Act::Answer(503) } else { Act::Take }).await;
    let mut served = serve(settings()).await;
    assert_eq!(make(&served, to(&receiver.url())).await.0, 201);
    let running = tokio::spawn(run_feeds(served.context.clone()));
    for n in 0..9 {
        served.put("cars", n, json!({"n": n})).await;
    }
    let behind = until("it is behind, and has failed", async || {
        let (_, feed) = served.admin("GET", "/f", Json::Null).await;
        (feed["lag"]["transactions"] == 9 && feed["process"]["errors"].as_u64() > Some(0)).then_some(feed)
    })
    .await;
    assert!(behind["lag"]["bytes"].as_u64() > Some(9 * 10) && behind["deliveredAt"].is_null(), "{behind}");
    let lag = until("its lag is measured", async || {
        let metrics = metrics(&served).await;
        (metrics.get("bigpeer_feed_lag_transactions").is_some_and(|lag| lag == "9")).then_some(metrics)
    })
    .await;
    assert_eq!(lag["bigpeer_feed_lag_bytes"], behind["lag"]["bytes"].to_string());
    assert!(lag.contains_key("bigpeer_feed_lag_seconds") && lag["bigpeer_feed_errors_total"] != "0", "{lag:?}");
    // It still is behind when it stands still, and nobody works on it.
    served.admin("POST", "/f/pause", Json::Null).await;
    until("it is left", async || {
        let (_, feed) = served.admin("GET", "/f", Json::Null).await;
        (feed["process"].is_null() && feed["lag"]["transactions"] == 9).then_some(())
    })
    .await;
    served.put("cars", 1, json!({"n": 10})).await;
    let measured = async |transactions: &str| {
        until("its lag is measured", async || {
            let metrics = metrics(&served).await;
            (metrics["bigpeer_feed_lag_transactions"] == transactions).then_some(metrics)
        })
        .await
    };
    measured("10").await;
    down.store(false, Ordering::SeqCst);
    served.admin("POST", "/f/resume", Json::Null).await;
    receiver.has(10).await;
    let lag = measured("0").await;
    assert_eq!((lag["bigpeer_feed_lag_bytes"].as_str(), lag["bigpeer_feed_lag_seconds"].as_str()), ("0", "0"));
    until("what was delivered is counted", async || {
        let metrics = metrics(&served).await;
        let counted = metrics.get("bigpeer_feed_delivered_events_total").is_some_and(|count| count == "10");
        (counted && metrics.contains_key("bigpeer_feed_last_delivery_timestamp_seconds")).then_some(())
    })
    .await;
    let (_, feed) = served.admin("GET", "/f", Json::Null).await;
    assert_eq!(
        (&feed["lag"], &feed["delivered"]),
        (&json!({"transactions": 0, "bytes": 0, "seconds": 0.0}), &json!(10))
    );
    assert!(feed["deliveredAt"].is_u64() && feed["process"]["rate"].is_number(), "{feed}");
    running.abort();
}

#[tokio::test]
async fn only_the_process_that_works_on_a_feed_says_that_it_does() {
    let receiver = Receiver::start(|_, _| Act::Take).await;
    let mut served = serve(ChangefeedSettings { lease: Duration::from_secs(60), ..settings() }).await;
    assert_eq!(make(&served, to(&receiver.url())).await.0, 201);
    let owner = tokio::spawn(run_feeds(served.another()));
    served.put("cars", 1, json!({})).await;
    receiver.has(1).await;
    // This one only tries, again and again.
    let other = tokio::spawn(run_feeds(served.context.clone()));
    served.put("cars", 2, json!({})).await;
    receiver.has(2).await;
    until("what was delivered is noted", async || {
        let (_, feed) = served.admin("GET", "/f", Json::Null).await;
        assert_eq!(feed["process"], Json::Null);
        (feed["delivered"] == 2).then_some(())
    })
    .await;
    owner.abort();
    other.abort();
}

#[tokio::test]
async fn a_feed_of_what_its_owner_may_not_read_is_refused() {
    let served = serve(settings()).await;
    let rules = BTreeMap::from([("cars".to_owned(), vec!["color = 'red'".to_owned()])]);
    let read = Access { everything: false, queries_by_collection: rules };
    served.key("some", Permissions { read, ..Permissions::default() }).await;
    let spec = |collection: &str| {
        let mut spec = to("http://127.0.0.1:9/hook");
        spec["owner"] = json!("some");
        spec["sources"] = json!([{"collection": collection}]);
        spec
    };
    let (status, answer) = make(&served, spec("boats")).await;
    assert!(status == 400 && answer.to_string().contains("boats"), "{status} {answer}");
    assert_eq!(make(&served, spec("cars")).await.0, 201);
}

#[tokio::test]
async fn a_feed_that_is_too_long_to_be_stored_is_refused() {
    let served = serve(settings()).await;
    let with = |sources: usize| {
        let mut spec = to("http://127.0.0.1:9/hook");
        let source = |n| json!({"collection": format!("c{n}"), "query": format!("a = '{}'", "x".repeat(100))});
        spec["sources"] = (0..sources).map(source).collect();
        spec
    };
    let (status, answer) = make(&served, with(900)).await;
    assert!(status == 400 && answer.to_string().contains("are allowed"), "{status} {answer}");
    assert_eq!(make(&served, with(200)).await.0, 201);
    let names: Vec<String> = (0..900).map(|n| format!("{n:0100}")).collect();
    let (status, answer) = served.admin("POST", "/f/snapshot", json!({"collections": names})).await;
    assert!(status == 400 && answer.to_string().contains("fewer at once"), "{status} {answer}");
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it_and_others_do_not_wait() {
    let receiver =
        Receiver::start(|_, event| if event["documentId"] == 0 { Act::Later(3600) } else { Act::Take }).await;
    let mut served = serve(settings()).await;
    assert_eq!(make(&served, to(&receiver.url())).await.0, 201);
    let running = tokio::spawn(run_feeds(served.context.clone()));
    served.put("cars", 0, json!({})).await;
    until("it was tried", async || (receiver.requests() == 1).then_some(())).await;
    // Documents of other lanes go on; without being asked, it would be tried again a fifth of a second later.
    let taken = until("others are taken", async || {
        let taken = receiver.taken().len();
        (taken >= 200).then_some(taken)
    });
    for n in 1..=600 {
        served.put("cars", n, json!({})).await;
    }
    assert!(taken.await >= 200);
    running.abort();
    assert_eq!(receiver.attempts().iter().filter(|attempt| **attempt > 1).count(), 0);
}

#[tokio::test]
async fn while_a_secret_is_changed_receivers_of_both_can_verify() {
    // The receiver knows one of them.
    for secrets in [json!(["a secret that is new to all", SECRET]), json!([SECRET, "a secret that is new to all"])] {
        let receiver = Receiver::start(|_, _| Act::Take).await;
        let mut served = serve(settings()).await;
        let mut spec = to(&receiver.url());
        spec["sink"]["secrets"] = secrets;
        assert_eq!(make(&served, spec).await.0, 201);
        let running = tokio::spawn(run_feeds(served.context.clone()));
        served.put("cars", 0, json!({})).await;
        receiver.has(1).await;
        running.abort();
    }
}

#[tokio::test]
async fn a_feed_whose_past_is_gone_tells_its_receiver_and_delivers_what_there_is_instead() {
    let _recorder = Metrics::install();
    let receiver = Receiver::start(|_, _| Act::Take).await;
    let mut served = serve(settings()).await;
    for n in 0..5 {
        served.put("cars", n, json!({"n": n})).await;
        served.put("boats", n, json!({"n": n})).await;
    }
    let mut spec = to(&receiver.url());
    spec["snapshot"] = json!(true);
    assert_eq!(make(&served, spec).await.0, 201);
    let running = tokio::spawn(run_feeds(served.context.clone()));
    receiver.has(12).await;
    until("that is noted", async || {
        let (_, feed) = served.admin("GET", "/f", Json::Null).await;
        (feed["delivered"] == 12).then_some(())
    })
    .await;
    served.admin("POST", "/f/pause", Json::Null).await;
    served.put("cars", 1, json!({"n": 100})).await;
    // Older than what is kept for feeds.
    let writer = served.store.writer().await.unwrap();
    writer.flush().await.unwrap();
    served.log.trim(&served.app, served.store.flushed()).await.unwrap();
    served.admin("POST", "/f/resume", Json::Null).await;
    // The gap, and a snapshot of what changed since.
    let taken = receiver.has(12 + 1 + 7).await;
    let told = &taken[12];
    assert_eq!((&told["type"], &told["collections"]), (&json!("requeryRequired"), &json!(["cars"])), "{told}");
    assert_eq!(told["documents"], json!([]));
    let kinds: Vec<&str> = taken[13..].iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], kinds[6]), ("snapshotBegin", "snapshotEnd"));
    let mut cars: Vec<&Json> = taken[14..19].iter().map(|event| &event["change"]["newValue"]["n"]).collect();
    cars.sort_by_key(|n| n.as_i64());
    assert_eq!(cars, [&json!(0), &json!(2), &json!(3), &json!(4), &json!(100)]);
    // Its cursor leads to the same snapshot.
    let cursor: bigpeer_changefeed::Cursor = told["cursor"].as_str().unwrap().parse().unwrap();
    assert_eq!(cursor.snapshot.unwrap().collections, [crate::world::collection("cars")]);
    assert_eq!(metrics(&served).await["bigpeer_feed_requeries_total"], "1");
    // And then it follows.
    served.put("boats", 1, json!({"n": 7})).await;
    receiver.has(21).await;
    running.abort();
}
