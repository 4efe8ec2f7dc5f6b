//! What is kept of a webhook's attempts and of what was given up: after the process that made them, and whatever it is about.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bigpeer_changefeed::{ChangefeedSettings, run_feeds};
use serde_json::{Value as Json, json};

use crate::receiver::{Act, Receiver, SECRET, until};
use crate::served::{Served, serve};

async fn made(url: &str, sink: Json, snapshot: bool) -> Served {
    let settings = ChangefeedSettings {
        allow_private_receivers: true,
        lease: Duration::from_millis(300),
        ..ChangefeedSettings::default()
    };
    let served = serve(settings).await;
    make(&served, url, sink, snapshot).await;
    served
}

async fn make(served: &Served, url: &str, sink: Json, snapshot: bool) {
    let mut webhook = json!({"type": "webhook", "url": url, "secrets": [SECRET]});
    webhook.as_object_mut().unwrap().extend(sink.as_object().unwrap().clone());
    let spec = json!({"owner": "all", "snapshot": snapshot, "sink": webhook});
    let (status, answer) = served.admin("PUT", "/f", spec).await;
    assert!(status < 300, "{answer}");
}

/// All attempts that are kept, page by page, the newest first.
async fn deliveries(served: &Served) -> Vec<Json> {
    let (mut out, mut query) = (Vec::new(), String::new());
    loop {
        let (status, page) = served.admin("GET", &format!("/f/deliveries{query}"), Json::Null).await;
        assert_eq!((status, &page["omitted"]), (200, &json!(0)), "{page}");
        out.extend(page["deliveries"].as_array().unwrap().clone());
        match page["next"].as_u64() {
            Some(next) => query = format!("?before={next}"),
            None => return out,
        }
    }
}

async fn settled(served: &Served, delivered: u64) {
    until("everything is delivered", async || {
        let (_, feed) = served.admin("GET", "/f", Json::Null).await;
        (feed["lag"]["transactions"] == 0 && feed["delivered"] == delivered).then_some(())
    })
    .await;
}

#[tokio::test]
async fn attempts_are_told_by_any_process_also_after_the_one_that_made_them() {
    let receiver = Receiver::start(|_, _| Act::Take).await;
    let mut served = made(&receiver.url(), json!({}), false).await;
    let mut events = 0;
    for round in 0..3 {
        // As if it had been killed: the next one takes over.
        let running = tokio::spawn(run_feeds(served.another()));
        for n in 0..110 {
            served.put("cars", n % 7, json!({"n": n, "round": round})).await;
            events += 1;
        }
        settled(&served, events).await;
        running.abort();
        let kept = deliveries(&served).await;
        assert_eq!(kept.len() as u64, events, "each attempt once");
        assert!(kept.iter().all(|one| one["status"] == 204 && one["attempt"] == 1 && one["latencyMs"].is_u64()));
        assert!(kept.is_sorted_by(|a, b| a["atMs"].as_u64() >= b["atMs"].as_u64()), "the newest first");
        let ids: std::collections::BTreeSet<&str> = kept.iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len() as u64, events);
    }
    served.admin("DELETE", "/f", Json::Null).await;
    assert_eq!(served.keys("feeds/").await, Vec::<String>::new(), "nothing stays of a feed that is deleted");
}

#[tokio::test]
async fn attempts_that_fail_are_kept_though_the_feed_does_not_move() {
    let receiver = Receiver::start(|_, _| Act::Answer(503)).await;
    let mut served = made(&receiver.url(), json!({}), false).await;
    let running = tokio::spawn(run_feeds(served.another()));
    served.put("cars", 1, json!({})).await;
    let kept = until("attempts are kept", async || {
        let kept = deliveries(&served).await;
        (kept.len() > 2).then_some(kept)
    })
    .await;
    running.abort();
    assert!(kept.iter().all(|one| one["status"] == 503 && one["error"].as_str().unwrap().contains("503")), "{kept:?}");
    let attempts: Vec<u64> = kept.iter().rev().map(|one| one["attempt"].as_u64().unwrap()).collect();
    assert_eq!(attempts, (1..=kept.len() as u64).collect::<Vec<u64>>());
    // The feed stands where it stood.
    let (_, feed) = served.admin("GET", "/f", Json::Null).await;
    assert_eq!((&feed["delivered"], &feed["lag"]["transactions"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn many_events_with_long_ids_that_are_refused_together_become_dead_letters_and_are_delivered_again() {
    const DOCUMENTS: usize = 1000;
    let healed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&healed);
    let receiver =
        Receiver::start(move |_, _| if seen.load(Ordering::SeqCst) { Act::Take } else { Act::Answer(400) }).await;
    let mut served = made(&receiver.url(), json!({}), false).await;
    for n in 0..DOCUMENTS {
        served.put("cars", format!("{n}-{}", "x".repeat(200)), json!({"n": n as i64})).await;
    }
    let sink = json!({"batch": 1000, "concurrency": 1, "maxAttempts": 1});
    served.admin("DELETE", "/f", Json::Null).await;
    make(&served, &receiver.url(), sink, true).await;
    let running = tokio::spawn(run_feeds(served.another()));
    // With the beginning and the end of the snapshot.
    settled(&served, DOCUMENTS as u64 + 2).await;
    let (_, answer) = served.admin("GET", "/f/dead-letters", Json::Null).await;
    let letters = answer["deadLetters"].as_array().unwrap().clone();
    let count: u64 = letters.iter().map(|letter| letter["count"].as_u64().unwrap()).sum();
    assert_eq!(count as usize, DOCUMENTS + 2);
    assert!(letters.iter().any(|letter| letter["count"].as_u64() > Some(300)), "some were sent together");
    let (_, feed) = served.admin("GET", "/f", Json::Null).await;
    assert_eq!(feed["deadLetters"], json!(letters.len()));
    healed.store(true, Ordering::SeqCst);
    let before = receiver.event_ids().len();
    for letter in &letters {
        let id = letter["id"].as_str().unwrap();
        let (status, answer) = served.admin("POST", &format!("/f/dead-letters/{id}/deliver"), Json::Null).await;
        assert_eq!((status, &answer["delivered"]), (200, &letter["count"]));
        assert_eq!(served.admin("DELETE", &format!("/f/dead-letters/{id}"), Json::Null).await.0, 404, "it is gone");
    }
    running.abort();
    receiver.has(DOCUMENTS + 2).await;
    // A repetition is recognized by the id that the first attempt had.
    let ids = receiver.event_ids();
    assert_eq!(ids[before..], ids[..before]);
    let (_, feed) = served.admin("GET", "/f", Json::Null).await;
    assert_eq!(feed["deadLetters"], 0);
}
