//! The change feed through the real binary: a webhook over 20 times `kill -9` under load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bigpeer_e2e::{Server, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const KILLS: usize = 20;
const NOTES: i64 = 12;

type Taken = Arc<Mutex<Vec<Value>>>;

/// Takes what is posted to it, and fails now and then.
async fn receive(stream: TcpStream, taken: Taken) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let fails = {
            let mut taken = taken.lock().unwrap();
            let fails = taken.len() % 50 == 49;
            taken.push(if fails { Value::Null } else { serde_json::from_slice(&body).unwrap() });
            fails
        };
        let answer = if fails { "HTTP/1.1 503 Later" } else { "HTTP/1.1 204 Taken" };
        stream.write_all(format!("{answer}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.ok()?;
    }
}

/// Whether each document's events came in order, repetitions left out, and end in what `wanted` has.
fn check(taken: &[Value], wanted: &BTreeMap<String, Value>) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut states: BTreeMap<String, Value> = BTreeMap::new();
    for event in taken.iter().filter(|event| event["type"] == "documentChanged") {
        if !seen.insert(event["id"].as_str().unwrap()) {
            continue;
        }
        let (key, change) = (event["documentId"].to_string(), &event["change"]);
        let old = if change["method"] == "remove" { &change["value"] } else { &change["oldValue"] };
        assert_eq!(old, states.get(&key).unwrap_or(&Value::Null), "lost or out of order: {event}");
        match change.get("newValue") {
            Some(new) => states.insert(key, new.clone()),
            None => states.remove(&key),
        };
    }
    assert_eq!(&states, wanted);
}

async fn documents(server: &Server) -> BTreeMap<String, Value> {
    let answer = server.dql("SELECT * FROM notes", json!({})).await;
    answer["items"].as_array().unwrap().iter().map(|item| (item["_id"].to_string(), item.clone())).collect()
}

async fn feed(server: &Server) -> Option<Value> {
    let credentials = server.credentials();
    let url = format!("{}/admin/v1/apps/{}/feeds/hook", server.url(), credentials.app);
    let answer = reqwest::Client::new().get(url).bearer_auth(&credentials.admin_token).send().await.ok()?;
    answer.json().await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_loses_nothing_and_keeps_the_order_over_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(&dir.path().join("data"), &["--allow-private-receivers"]).await;
    let taken = Taken::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let ours = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(receive(stream, Arc::clone(&ours)));
        }
    });
    let credentials = server.credentials();
    let sink = json!({"type": "webhook", "url": url, "secrets": ["a secret that is long enough"]});
    let spec = json!({"owner": "dev", "sources": [{"collection": "notes"}], "sink": sink});
    let path = format!("/admin/v1/apps/{}/feeds/hook", credentials.app);
    let (status, answer) = server.put_as(&credentials.admin_token, &path, &spec).await;
    assert_eq!(status, 201, "{answer}");

    let mut chance = StdRng::seed_from_u64(8);
    for _ in 0..KILLS {
        for _ in 0..chance.random_range(20..60) {
            let id = chance.random_range(0..NOTES);
            if chance.random_range(0..8) == 0 {
                server.dql("DELETE FROM notes WHERE _id = :id", json!({"id": id})).await;
            } else {
                let note = json!({"_id": id, "n": chance.random_range(0..1_000_000)});
                server.dql("INSERT INTO notes DOCUMENTS (:d) ON ID CONFLICT DO UPDATE", json!({"d": note})).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..300))).await;
        server.restart().await;
    }
    let wanted = documents(&server).await;
    wait_until("the feed has delivered everything", 120, || async {
        feed(&server).await.filter(|feed| feed["lag"]["transactions"] == 0)
    })
    .await;
    check(&taken.lock().unwrap(), &wanted);
}
