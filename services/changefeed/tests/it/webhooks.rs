//! Webhooks, to a real HTTP receiver that fails in every way that it can.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bigpeer_changefeed::{ChangefeedSettings, run_feeds};
use bigpeer_chassis::{Access, Permissions};
use bigpeer_log::TransactionLog;
use bigpeer_types::{Clock, ManualClock};
use serde_json::{Value as Json, json};

use crate::receiver::{Act, Receiver, SECRET, check_order, until};
use crate::served::{Served, serve, serve_at};

fn allowing() -> ChangefeedSettings {
    ChangefeedSettings { allow_private_receivers: true, ..ChangefeedSettings::default() }
}

/// An app with a feed to `url`, at work.
async fn feed(url: &str, sink: Json, spec: Json) -> Served {
    let served = serve(allowing()).await;
    make(&served, url, sink, spec).await;
    tokio::spawn(run_feeds(served.context.clone()));
    served
}

async fn make(served: &Served, url: &str, sink: Json, spec: Json) {
    let mut webhook = json!({"type": "webhook", "url": url, "secrets": [SECRET]});
    merge(&mut webhook, sink);
    let mut body = json!({"owner": "all", "sink": webhook});
    merge(&mut body, spec);
    let (status, answer) = served.admin("PUT", "/f", body).await;
    assert_eq!(status, 201, "{answer}");
    assert!(!answer.to_string().contains(SECRET));
}

fn merge(into: &mut Json, from: Json) {
    into.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
}

async fn write(served: &mut Served, from: i64, to: i64) {
    for n in from..to {
        served.put("cars", n % 7, json!({"n": n})).await;
    }
}

async fn settled(served: &Served) -> Json {
    until("nothing is left to deliver", async || {
        let (_, feed) = served.admin("GET", "/f", Json::Null).await;
        (feed["lag"]["transactions"] == 0).then_some(feed)
    })
    .await
}

#[tokio::test]
async fn every_event_arrives_signed_once_and_in_order() {
    let receiver = Receiver::start(|_, _| Act::Take).await;
    let mut served = feed(&receiver.url(), json!({}), json!({})).await;
    write(&mut served, 0, 60).await;
    let taken = receiver.has(60).await;
    check_order(&taken);
    assert_eq!(taken.len(), 60);
    let feed = settled(&served).await;
    assert_eq!((&feed["delivered"], &feed["state"]), (&json!(60), &json!("running")));
    let (_, log) = served.admin("GET", "/f/deliveries", Json::Null).await;
    let first = &log["deliveries"][0];
    assert_eq!((&first["status"], &first["attempt"]), (&json!(204), &json!(1)));
}

#[tokio::test]
async fn batches_and_cloud_events() {
    let receiver = Receiver::start(|_, _| Act::Take).await;
    let spec = json!({"snapshot": true, "format": "cloudevents"});
    let mut served = serve(allowing()).await;
    write(&mut served, 0, 7).await;
    make(&served, &receiver.url(), json!({"batch": 50, "concurrency": 2}), spec).await;
    tokio::spawn(run_feeds(served.context.clone()));
    // The snapshot with its beginning and end.
    let taken = receiver.has(9).await;
    assert_eq!(taken[0]["type"], "bigpeer.snapshot.begin.v1");
    assert_eq!(taken[8]["type"], "bigpeer.snapshot.end.v1");
    assert!(receiver.requests() < 9);
}

#[tokio::test]
async fn a_receiver_that_fails_for_a_while_loses_nothing_and_keeps_the_order() {
    for act in [Act::Answer(500), Act::Answer(429), Act::Hang] {
        let failing = if act == Act::Hang { 3 } else { 8 };
        let receiver = Receiver::start(move |n, _| if n <= failing { act } else { Act::Take }).await;
        let sink = json!({"timeoutSecs": 1, "maxAttempts": 3, "concurrency": 4});
        let mut served = feed(&receiver.url(), sink, json!({})).await;
        write(&mut served, 0, 30).await;
        let taken = receiver.has(30).await;
        check_order(&taken);
        assert!(receiver.attempts().iter().any(|attempt| *attempt > 1));
        let feed = settled(&served).await;
        assert_eq!(feed["deadLetters"], 0, "a receiver that is down costs no event");
        assert!(feed["process"]["errors"].as_u64() > Some(0) && feed["process"]["lastError"].is_string());
    }
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_waited_for() {
    let gone = Receiver::start(|_, _| Act::Take).await;
    let (url, port) = (gone.url(), gone.port);
    drop(gone);
    let mut served = feed(&url, json!({}), json!({})).await;
    write(&mut served, 0, 10).await;
    until("it was tried", async || {
        let (_, feed) = served.admin("GET", "/f", Json::Null).await;
        (feed["process"]["errors"].as_u64() > Some(2)).then_some(())
    })
    .await;
    let receiver = Receiver::start_on(port, |_, _| Act::Take).await;
    check_order(&receiver.has(10).await);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let receiver = Receiver::start(|_, _| Act::Endless).await;
    let mut served = feed(&receiver.url(), json!({}), json!({})).await;
    write(&mut served, 0, 10).await;
    assert_eq!(receiver.has(10).await.len(), 10, "it was taken, whatever else is said");
}

#[tokio::test]
async fn what_is_refused_or_redirected_becomes_a_dead_letter_that_can_be_delivered_again() {
    for act in [Act::Answer(400), Act::Redirect, Act::Answer(500)] {
        let poison = move |event: &Json| event["change"]["newValue"]["n"] == 3;
        let healed = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&healed);
        let receiver = Receiver::start(move |_, event| {
            let heals = seen.load(Ordering::SeqCst);
            if poison(event) && !heals { act } else { Act::Take }
        })
        .await;
        let mut served = feed(&receiver.url(), json!({"maxAttempts": 2}), json!({})).await;
        let mut written = 7;
        write(&mut served, 0, written).await;
        // Failures count only while the receiver takes others.
        let mut letters = Vec::new();
        while letters.is_empty() {
            served.put("cars", 4, json!({"n": 100 + written})).await;
            written += 1;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let (_, answer) = served.admin("GET", "/f/dead-letters", Json::Null).await;
            letters = answer["deadLetters"].as_array().unwrap().clone();
            assert!(written < 1_000, "it is not given up");
        }
        let id = letters[0]["id"].as_str().unwrap().to_owned();
        let (_, whole) = served.admin("GET", &format!("/f/dead-letters/{id}"), Json::Null).await;
        assert!(poison(&whole["body"]), "{whole}");
        // The feed goes on behind it.
        write(&mut served, written, written + 3).await;
        written += 3;
        receiver.has(written as usize - 1).await;
        let (status, _) = served.admin("POST", &format!("/f/dead-letters/{id}/deliver"), Json::Null).await;
        assert_eq!(status, 409);
        healed.store(true, Ordering::SeqCst);
        let (status, _) = served.admin("POST", &format!("/f/dead-letters/{id}/deliver"), Json::Null).await;
        assert_eq!(status, 200);
        receiver.has(written as usize).await;
        assert_eq!(settled(&served).await["deadLetters"], 0);
    }
}

#[tokio::test]
async fn private_addresses_are_refused_by_number_when_asked_for_and_by_name_when_connected_to() {
    let receiver = Receiver::start(|_, _| Act::Take).await;
    let mut served = serve(ChangefeedSettings::default()).await;
    let spec = |url: &str| json!({"owner": "all", "sink": {"type": "webhook", "url": url, "secrets": [SECRET]}});
    let (status, answer) = served.admin("PUT", "/f", spec(&receiver.url())).await;
    assert_eq!(status, 400, "{answer}");
    let by_name = format!("http://localhost:{}/hook", receiver.port);
    assert_eq!(served.admin("PUT", "/f", spec(&by_name)).await.0, 201);
    tokio::spawn(run_feeds(served.context.clone()));
    write(&mut served, 0, 3).await;
    let error = until("it was tried", async || {
        let (_, feed) = served.admin("GET", "/f", Json::Null).await;
        feed["process"]["lastError"].as_str().map(str::to_owned)
    })
    .await;
    assert!(error.contains("public"), "{error}");
    assert_eq!(receiver.requests(), 0);
}

#[tokio::test]
async fn a_feed_is_paused_resumed_rewound_and_reads_a_collection_anew() {
    let receiver = Receiver::start(|_, _| Act::Take).await;
    let mut served = feed(&receiver.url(), json!({}), json!({})).await;
    write(&mut served, 0, 7).await;
    receiver.has(7).await;
    settled(&served).await;
    assert_eq!(served.admin("POST", "/f/pause", Json::Null).await.1["state"], "paused");
    write(&mut served, 7, 14).await;
    let (_, feed) = served.admin("GET", "/f", Json::Null).await;
    assert_eq!(feed["lag"]["transactions"], 7, "{feed}");
    served.admin("POST", "/f/resume", Json::Null).await;
    receiver.has(14).await;
    assert_eq!(settled(&served).await["delivered"], 14);
    let (status, _) = served.admin("POST", "/f/rewind", json!({"cursor": "0.0"})).await;
    assert_eq!(status, 200);
    until("everything comes again", async || (receiver.taken().len() == 28).then_some(())).await;
    // What was taken and not yet noted as delivered would be sent again when the feed begins anew.
    settled(&served).await;
    assert_eq!(served.admin("POST", "/f/snapshot", json!({"collections": ["cars"]})).await.0, 200);
    // Seven documents, with beginning and end.
    until("the collection comes anew", async || (receiver.taken().len() == 37).then_some(())).await;
    let taken = receiver.taken();
    assert_eq!((&taken[28]["type"], &taken[36]["type"]), (&json!("snapshotBegin"), &json!("snapshotEnd")));
    for bad in ["nonsense", "99999999.0"] {
        assert_eq!(served.admin("POST", "/f/rewind", json!({"cursor": bad})).await.0, 400);
    }
    assert_eq!(served.admin("DELETE", "/f", Json::Null).await.0, 204);
    assert_eq!(served.admin("GET", "/f", Json::Null).await.0, 404);
}

#[tokio::test]
async fn a_feed_stops_when_its_owner_is_removed_and_says_so() {
    let receiver = Receiver::start(|_, _| Act::Take).await;
    let served = serve(allowing()).await;
    served.key("short", Permissions::all()).await;
    make(&served, &receiver.url(), json!({}), json!({"owner": "short"})).await;
    tokio::spawn(run_feeds(served.context.clone()));
    served.catalogue.delete_api_key(&served.app, &crate::served::name("short")).await.unwrap();
    let reason = until("it is paused", async || {
        let (_, feed) = served.admin("GET", "/f", Json::Null).await;
        feed["pausedReason"].as_str().map(str::to_owned)
    })
    .await;
    assert!(reason.contains("short"), "{reason}");
}

#[tokio::test]
async fn processes_take_a_feed_over_from_each_other_and_nothing_is_lost() {
    let receiver = Receiver::start(|_, _| Act::Take).await;
    let settings = ChangefeedSettings { lease: std::time::Duration::from_millis(300), ..allowing() };
    let mut served = serve(settings).await;
    make(&served, &receiver.url(), json!({}), json!({})).await;
    let mut running = tokio::spawn(run_feeds(served.another()));
    for round in 0..5 {
        write(&mut served, round * 20, round * 20 + 10).await;
        // As if the process had been killed: nothing is released. The next waits for the lease to end.
        running.abort();
        running = tokio::spawn(run_feeds(served.another()));
        write(&mut served, round * 20 + 10, round * 20 + 20).await;
        receiver.has((round as usize + 1) * 20).await;
    }
    check_order(&receiver.taken());
}

#[tokio::test]
async fn two_processes_that_believe_in_a_feed_forget_nothing_and_keep_the_order() {
    let down = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&down);
    let receiver =
        Receiver::start(move |_, _| if seen.load(Ordering::SeqCst) { Act::Answer(503) } else { Act::Take }).await;
    // Long enough for both to work: the first renews its lease after a minute, and notices then, or when it has something to note.
    let settings = ChangefeedSettings { lease: std::time::Duration::from_secs(180), ..allowing() };
    let mut served = serve(settings).await;
    make(&served, &receiver.url(), json!({}), json!({})).await;
    let (log, lease) = (Arc::clone(&served.log), format!("lease/feeds/{}/f", served.app));
    let owner =
        async || until("somebody owns it", async || log.metadata().get(lease.as_bytes()).await.unwrap()).await.revision;
    let first = tokio::spawn(run_feeds(served.another()));
    let before = owner().await;
    write(&mut served, 0, 20).await;
    until("the first has tried", async || (receiver.requests() > 0).then_some(())).await;
    served.forget(&lease).await;
    let second = tokio::spawn(run_feeds(served.another()));
    assert_ne!(owner().await, before);
    down.store(false, Ordering::SeqCst);
    receiver.has(20).await;
    until("both have delivered", async || (receiver.taken().len() > 20).then_some(())).await;
    write(&mut served, 20, 60).await;
    check_order(&receiver.has(60).await);
    assert_eq!(settled(&served).await["state"], "running");
    first.abort();
    second.abort();
}

#[tokio::test]
async fn what_is_kept_for_feeds_is_said_by_the_app() {
    let served = serve(allowing()).await;
    assert_eq!(served.retention("GET", Json::Null).await, (200, json!({"secs": 86_400, "bytes": 4_294_967_296_u64})));
    let week = json!({"secs": 604_800, "bytes": 1_000_000});
    assert_eq!(served.retention("PUT", week.clone()).await, (200, week.clone()));
    assert_eq!(served.retention("GET", Json::Null).await, (200, week));
    for (bad, word) in [
        (json!({"secs": 1}), "bytes"),
        (json!({"secs": 90 * 86_400 + 1, "bytes": 1}), "90 days"),
        (json!({"secs": 1, "bytes": (1_u64 << 40) + 1}), "1 TiB"),
        (json!({"secs": -1, "bytes": 1}), "`-1`"),
        (json!({"secs": 1, "bytes": 1, "forever": true}), "forever"),
    ] {
        let (status, answer) = served.retention("PUT", bad.clone()).await;
        assert!(status == 400 && answer.to_string().contains(word), "{bad}: {status} {answer}");
    }
}

#[tokio::test]
async fn specs_that_cannot_work_are_refused() {
    let served = serve(allowing()).await;
    let webhook = |extra: Json| {
        let mut sink = json!({"type": "webhook", "url": "http://127.0.0.1:9/x", "secrets": [SECRET]});
        merge(&mut sink, extra);
        json!({"owner": "all", "sink": sink})
    };
    for (spec, word) in [
        (json!({"owner": "nobody", "sink": webhook(json!({}))["sink"]}), "owner"),
        (webhook(json!({"secrets": []})), "secret"),
        (webhook(json!({"secrets": ["short"]})), "16"),
        (webhook(json!({"secrets": ["(hidden)"]})), "none to keep"),
        (webhook(json!({"url": "ftp://x"})), "http"),
        (webhook(json!({"concurrency": 0})), "concurrency"),
        (webhook(json!({"unknown": 1})), "unknown"),
        (json!({"owner": "all", "sink": {"type": "pigeon"}}), "pigeon"),
    ] {
        let (status, answer) = served.admin("PUT", "/f", spec.clone()).await;
        assert!(status == 400 && answer.to_string().contains(word), "{spec}: {status} {answer}");
    }
    let (_, made) = served.admin("PUT", "/f", webhook(json!({}))).await;
    // What was answered can be sent back, and changes nothing.
    let (status, again) = served.admin("PUT", "/f", made["spec"].clone()).await;
    assert_eq!((status, &again["createdAt"]), (200, &made["createdAt"]));
    let entry = served.context.registry().entry(&served.app, &crate::served::name("f")).await.unwrap().unwrap();
    let bigpeer_changefeed::SinkSpec::Webhook(kept) = entry.record.spec.sink else { panic!("no webhook") };
    assert_eq!(kept.secrets[0].expose(), SECRET);
    assert_eq!(served.admin("GET", "", Json::Null).await.1["feeds"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_waits_when_permissions_change_is_not_sent_as_it_was() {
    let down = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&down);
    let receiver =
        Receiver::start(move |_, _| if seen.load(Ordering::SeqCst) { Act::Answer(503) } else { Act::Take }).await;
    let mut served = feed(&receiver.url(), json!({"concurrency": 2}), json!({})).await;
    for n in 0..40 {
        served.put(if n % 2 == 0 { "cars" } else { "boats" }, n, json!({"n": n})).await;
    }
    until("it was tried", async || (receiver.requests() > 1).then_some(())).await;
    let rules = BTreeMap::from([("boats".to_owned(), vec!["true".to_owned()])]);
    let read = Access { everything: false, queries_by_collection: rules };
    served.key("all", Permissions { read, ..Permissions::default() }).await;
    // Told under the new permissions: the feed has seen them.
    let before = receiver.requests();
    until("it was tried again", async || (receiver.requests() > before + 2).then_some(())).await;
    down.store(false, Ordering::SeqCst);
    let taken = receiver.has(20).await;
    settled(&served).await;
    assert!(taken.iter().chain(&receiver.taken()).all(|event| event["collection"] == "boats"), "{taken:?}");
}

#[tokio::test]
async fn a_feed_stands_still_when_the_key_of_its_owner_ends() {
    let receiver = Receiver::start(|_, _| Act::Take).await;
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let mut served = serve_at(Arc::clone(&clock) as _, allowing()).await;
    served.key_until("all", Permissions::all(), Some(clock.now_ms() + 1_000)).await;
    make(&served, &receiver.url(), json!({}), json!({})).await;
    tokio::spawn(run_feeds(served.context.clone()));
    write(&mut served, 0, 3).await;
    receiver.has(3).await;
    clock.advance(1_000);
    let reason = until("it is paused", async || {
        let (_, feed) = served.admin("GET", "/f", Json::Null).await;
        feed["pausedReason"].as_str().map(str::to_owned)
    })
    .await;
    assert!(reason.contains("'all'"), "{reason}");
    write(&mut served, 3, 6).await;
    assert_eq!(receiver.taken().len(), 3);
}
