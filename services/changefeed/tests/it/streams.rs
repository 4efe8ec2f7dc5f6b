//! `GET /{app}/changes`, asked as a client would.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use bigpeer_changefeed::ChangefeedSettings;
use bigpeer_chassis::{Access, Permissions};
use bigpeer_types::{Clock, ManualClock};
use serde_json::{Value as Json, json};

use crate::served::{Lines, name, serve, serve_at};

#[tokio::test]
async fn a_stream_is_a_snapshot_and_then_what_changes() {
    let mut served = serve(ChangefeedSettings::default()).await;
    served.put("cars", 1, json!({"color": "blue"})).await;
    served.put("cars", 2, json!({"color": "red"})).await;
    let mut stream = served.open("snapshot=true").await;
    assert_eq!(stream.json().await["type"], "heartbeat");
    let begin = stream.json().await;
    assert_eq!((&begin["type"], &begin["collections"]), (&json!("snapshotBegin"), &json!(["cars"])));
    for id in [1, 2] {
        let event = stream.json().await;
        assert_eq!((&event["documentId"], &event["snapshot"]), (&json!(id), &json!(true)));
    }
    let end = stream.json().await;
    assert_eq!(end["type"], "snapshotEnd");
    served.put("cars", 3, json!({"color": "green"})).await;
    let change = stream.json().await;
    assert_eq!(change["change"]["newValue"], json!({"_id": 3, "color": "green"}));
    drop(stream);
    // Where the first stream was cut off the next goes on.
    served.put("cars", 4, json!({})).await;
    let mut stream = served.open(&format!("cursor={}", change["cursor"].as_str().unwrap())).await;
    stream.json().await;
    assert_eq!(stream.json().await["documentId"], 4);
    let mut stream = served.open(&format!("cursor={}", end["cursor"].as_str().unwrap())).await;
    stream.json().await;
    assert_eq!(
        (stream.json().await["documentId"].clone(), stream.json().await["documentId"].clone()),
        (json!(3), json!(4))
    );
}

#[tokio::test]
async fn a_stream_that_does_not_follow_ends_where_the_app_stood_and_says_where_that_was() {
    let mut served = serve(ChangefeedSettings::default()).await;
    let mut cursor = String::new();
    // An app without anything, a snapshot, and what came since; also when it is of another collection.
    for (id, (query, write, told)) in [
        ("snapshot=true", None, vec!["heartbeat", "snapshotBegin", "snapshotEnd", "heartbeat"]),
        (
            "snapshot=true",
            Some("cars"),
            vec!["heartbeat", "snapshotBegin", "documentChanged", "snapshotEnd", "heartbeat"],
        ),
        ("", Some("cars"), vec!["heartbeat", "documentChanged", "heartbeat"]),
        ("collections=cars", Some("boats"), vec!["heartbeat", "heartbeat"]),
        ("", None, vec!["heartbeat", "heartbeat"]),
    ]
    .into_iter()
    .enumerate()
    {
        if let Some(collection) = write {
            served.put(collection, i64::try_from(id).unwrap(), json!({})).await;
        }
        let query = if query.starts_with("snap") { query.to_owned() } else { format!("{query}&cursor={cursor}") };
        let mut stream = served.open(&format!("{query}&follow=false")).await;
        let mut seen = Vec::new();
        while let Some(line) = stream.line().await {
            let event: Json = serde_json::from_str(&line).unwrap();
            cursor = event["cursor"].as_str().unwrap().to_owned();
            seen.push(event["type"].as_str().unwrap().to_owned());
        }
        assert_eq!(seen, told, "{query}");
    }
}

#[tokio::test]
async fn server_sent_events_carry_the_cursor_as_their_id_and_take_it_back() {
    let mut served = serve(ChangefeedSettings::default()).await;
    served.put("cars", 1, json!({})).await;
    let sse = [("accept", "text/event-stream")];
    let (status, body) = served.ask(&served.key, "cursor=0.0", &sse).await;
    assert_eq!(status, StatusCode::OK);
    let mut lines = Lines { body: body.into_data_stream(), text: String::new() };
    assert_eq!(lines.line().await.unwrap(), "id: 0.0");
    assert_eq!(lines.line().await.unwrap(), "event: heartbeat");
    lines.line().await;
    assert_eq!(lines.line().await.unwrap(), "");
    let id = lines.line().await.unwrap();
    assert_eq!(lines.line().await.unwrap(), "event: documentChanged");
    let data = lines.line().await.unwrap();
    let event: Json = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    let cursor = id.strip_prefix("id: ").unwrap();
    assert_eq!(event["cursor"], json!(cursor));
    served.put("cars", 2, json!({})).await;
    let (_, body) = served.ask(&served.key, "cursor=0.0", &[sse[0], ("last-event-id", cursor)]).await;
    let mut lines = Lines { body: body.into_data_stream(), text: String::new() };
    assert_eq!(lines.line().await.unwrap(), format!("id: {cursor}"));
    while let Some(line) = lines.line().await {
        if let Some(data) = line.strip_prefix("data: ").filter(|data| data.contains("documentChanged")) {
            assert_eq!(serde_json::from_str::<Json>(data).unwrap()["documentId"], 2);
            break;
        }
    }
}

#[tokio::test]
async fn a_stream_is_narrowed_by_its_parameters() {
    let mut served = serve(ChangefeedSettings::default()).await;
    served.put("cars", 1, json!({"color": "blue", "n": 1})).await;
    served.put("cars", 2, json!({"color": "red", "n": 2})).await;
    served.put("boats", 1, json!({"color": "red"})).await;
    let mut stream = served.open("cursor=0.0&collections=cars&where=color%20%3D%20%27red%27&fields=n").await;
    stream.json().await;
    assert_eq!(stream.json().await["change"]["newValue"], json!({"_id": 2, "n": 2}));
    let mut stream = served.open("cursor=0.0&collections=boats&format=cloudevents").await;
    stream.json().await;
    assert_eq!(stream.json().await["data"]["collection"], "boats");
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_before_anything_is_sent() {
    let mut served = serve(ChangefeedSettings { max_streams_per_app: 1, ..ChangefeedSettings::default() }).await;
    served.put("cars", 1, json!({})).await;
    let refused = [
        ("collections=cars&where=color+%3D", "query"),
        ("where=true", "collections"),
        ("cursor=nonsense", "cursor"),
        ("cursor=99999999.0", "ahead"),
        ("heartbeat=0", "heartbeat"),
        ("follow=no", "follow"),
        ("colections=cars", "colections"),
        ("cursor=0.0&cursor=0.0", "twice"),
        ("on=never&collections=cars", "view"),
        ("cursor=%zz", "percent"),
    ];
    for (query, word) in refused {
        let (status, text) = served.refusal(&served.key, query).await;
        assert!(status == 400 && text.contains(word), "{query}: {status} {text}");
    }
    assert_eq!(served.refusal("bpk_wrong_key", "").await.0, 401);
    let rules = BTreeMap::from([("boats".to_owned(), vec!["true".to_owned()])]);
    let read = Access { everything: false, queries_by_collection: rules };
    let limited = served.key("boats", Permissions { read, ..Permissions::default() }).await;
    let (status, text) = served.refusal(&limited, "collections=cars").await;
    assert!(status == 403 && text.contains("cars"), "{text}");
    let _open = served.open("").await;
    assert_eq!(served.refusal(&served.key, "").await.0, 429);
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_removed_and_says_why() {
    let served = serve(ChangefeedSettings::default()).await;
    let key = served.key("short", Permissions::all()).await;
    let (_, body) = served.ask(&key, "", &[]).await;
    let mut lines = Lines { body: body.into_data_stream(), text: String::new() };
    lines.json().await;
    served.catalogue.delete_api_key(&served.app, &name("short")).await.unwrap();
    assert_eq!(lines.json().await["error"]["code"], "unauthorized");
    assert!(lines.line().await.is_none());
}

#[tokio::test]
async fn a_stream_ends_with_its_key() {
    for writes in [false, true] {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let mut served = serve_at(Arc::clone(&clock) as _, ChangefeedSettings::default()).await;
        let key = served.key_until("short", Permissions::all(), Some(clock.now_ms() + 1_000)).await;
        let (_, body) = served.ask(&key, if writes { "heartbeat=300" } else { "heartbeat=1" }, &[]).await;
        let mut lines = Lines { body: body.into_data_stream(), text: String::new() };
        assert_eq!(lines.json().await["type"], "heartbeat");
        // What the catalogue still had to say has been heard by the time this arrives.
        served.put("cars", 0, json!({})).await;
        while lines.json().await["type"] != "documentChanged" {}
        clock.advance(1_000);
        if writes {
            served.put("cars", 1, json!({})).await;
        }
        assert_eq!(lines.json().await["error"]["code"], "unauthorized", "nothing is told any more");
        assert!(lines.line().await.is_none());
    }
}
