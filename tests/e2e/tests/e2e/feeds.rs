//! The change feed through the real binary, to a receiver that fails in every way: over 20 times `kill -9` under load, in every
//! mood that a receiver may be in, and when it answers nothing while much is written.

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

/// How a receiver meets a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mood {
    Takes,
    Fails,
    /// Never answers.
    Hangs,
    /// Hangs up instead of answering.
    Closes,
    /// Takes it, and answers byte by byte.
    IsSlow,
    /// Sends to another address, of this machine.
    Redirects,
}

#[derive(Default)]
struct Seen {
    taken: Vec<Value>,
    /// How each request was met.
    moods: Vec<Mood>,
    /// Connections to where it redirected to.
    followed: usize,
}

/// A receiver of webhooks, whose mood depends on how many requests came before.
struct Receiver {
    url: String,
    seen: Arc<Mutex<Seen>>,
}

impl Receiver {
    async fn start(mood: fn(usize) -> Mood) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let inside = elsewhere.local_addr().unwrap().to_string();
        let followed = Arc::clone(&seen);
        tokio::spawn(async move {
            while elsewhere.accept().await.is_ok() {
                followed.lock().unwrap().followed += 1;
            }
        });
        let ours = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, inside) = (Arc::clone(&ours), inside.clone());
                tokio::spawn(async move { receive(stream, &seen, mood, &inside).await });
            }
        });
        Self { url, seen }
    }
}

/// Reads one request's body.
pub(crate) async fn request(stream: &mut BufReader<TcpStream>) -> Option<Value> {
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
    Some(serde_json::from_slice(&body).unwrap())
}

async fn receive(stream: TcpStream, seen: &Mutex<Seen>, mood: fn(usize) -> Mood, inside: &str) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let event = request(&mut stream).await?;
        let mood = {
            let mut seen = seen.lock().unwrap();
            let mood = mood(seen.moods.len());
            seen.moods.push(mood);
            if matches!(mood, Mood::Takes | Mood::IsSlow) {
                seen.taken.push(event);
            }
            mood
        };
        let answer = match mood {
            Mood::Takes | Mood::IsSlow => "204 Taken".to_owned(),
            Mood::Fails => "500 Broken".to_owned(),
            Mood::Redirects => format!("302 Elsewhere\r\nlocation: http://{inside}/inside"),
            Mood::Hangs => return std::future::pending().await,
            Mood::Closes => return None,
        };
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
        for byte in answer.as_bytes().chunks(if mood == Mood::IsSlow { 1 } else { answer.len() }) {
            stream.write_all(byte).await.ok()?;
            if mood == Mood::IsSlow {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
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

fn path(server: &Server) -> String {
    format!("/admin/v1/apps/{}/feeds/hook", server.credentials().app)
}

async fn feed(server: &Server) -> Option<Value> {
    let url = format!("{}{}", server.url(), path(server));
    let answer = reqwest::Client::new().get(url).bearer_auth(&server.credentials().admin_token).send().await.ok()?;
    answer.json().await.ok()
}

/// Makes the feed, of the collection `notes`.
async fn make(server: &Server, receiver: &Receiver, extra: Value) {
    let mut sink = json!({"type": "webhook", "url": receiver.url, "secrets": ["a secret that is long enough"]});
    sink.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let spec = json!({"owner": "dev", "sources": [{"collection": "notes"}], "sink": sink});
    let (status, answer) = server.put_as(&server.credentials().admin_token, &path(server), &spec).await;
    assert_eq!(status, 201, "{answer}");
}

async fn write(server: &Server, chance: &mut StdRng, count: usize) {
    for _ in 0..count {
        let id = chance.random_range(0..NOTES);
        if chance.random_range(0..8) == 0 {
            server.dql("DELETE FROM notes WHERE _id = :id", json!({"id": id})).await;
        } else {
            let note = json!({"_id": id, "n": chance.random_range(0..1_000_000)});
            server.dql("INSERT INTO notes DOCUMENTS (:d) ON ID CONFLICT DO UPDATE", json!({"d": note})).await;
        }
    }
}

async fn caught_up(server: &Server) -> Value {
    wait_until("the feed has delivered everything", 120, || async {
        feed(server).await.filter(|feed| feed["lag"]["transactions"] == 0)
    })
    .await
}

async fn serve(dir: &tempfile::TempDir) -> Server {
    Server::start_with(&dir.path().join("data"), &["--allow-private-receivers"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_loses_nothing_and_keeps_the_order_over_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = serve(&dir).await;
    let receiver = Receiver::start(|number| if number % 50 == 49 { Mood::Fails } else { Mood::Takes }).await;
    make(&server, &receiver, json!({})).await;
    let mut chance = StdRng::seed_from_u64(8);
    for _ in 0..KILLS {
        let count = chance.random_range(20..60);
        write(&server, &mut chance, count).await;
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..300))).await;
        server.restart().await;
    }
    let wanted = documents(&server).await;
    caught_up(&server).await;
    check(&receiver.seen.lock().unwrap().taken, &wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_may_be_in_any_mood() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(&dir).await;
    let receiver = Receiver::start(|number| match number % 17 {
        2 => Mood::Fails,
        5 => Mood::Hangs,
        8 => Mood::Closes,
        11 => Mood::IsSlow,
        14 => Mood::Redirects,
        _ => Mood::Takes,
    })
    .await;
    // Nothing is to be given up here: every event has to come.
    make(&server, &receiver, json!({"timeoutSecs": 1, "maxAttempts": 1000})).await;
    write(&server, &mut StdRng::seed_from_u64(11), 300).await;
    let wanted = documents(&server).await;
    let known = caught_up(&server).await;
    assert_eq!(known["deadLetters"], 0, "{known}");
    assert!(known["process"]["errors"].as_u64() > Some(0), "failures are counted: {known}");
    let seen = receiver.seen.lock().unwrap();
    check(&seen.taken, &wanted);
    assert_eq!(seen.followed, 0, "no redirect was followed");
    for mood in [Mood::Takes, Mood::Fails, Mood::Hangs, Mood::Closes, Mood::IsSlow, Mood::Redirects] {
        assert!(seen.moods.contains(&mood), "{mood:?}");
    }
}

/// Memory that the server has, in MiB.
#[cfg(target_os = "linux")]
fn resident_mib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Changes all of the 100 documents of the collection, a MiB together.
#[cfg(target_os = "linux")]
async fn write_much(server: &Server, rounds: std::ops::Range<u64>) {
    for round in rounds {
        let text = char::from(b'a' + u8::try_from(round % 26).unwrap()).to_string().repeat(10_000);
        let many: Vec<Value> = (0..100).map(|id| json!({"_id": id, "round": round, "text": text})).collect();
        let args = json!({"many": many});
        server.dql("INSERT INTO notes DOCUMENTS (:many) ON ID CONFLICT DO UPDATE", args).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_receiver_is_not_in_memory() {
    const ROUNDS: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let server = serve(&dir).await;
    // What the same costs when nobody waits for it.
    write_much(&server, 0..ROUNDS).await;
    let before = resident_mib(&server);
    let receiver = Receiver::start(|_| Mood::Hangs).await;
    make(&server, &receiver, json!({"timeoutSecs": 5})).await;
    write_much(&server, ROUNDS..2 * ROUNDS).await;
    let behind = feed(&server).await.unwrap();
    assert!(behind["lag"]["transactions"].as_u64() >= Some(ROUNDS), "{behind}");
    // The events, with the documents before and after, are twice as large as what was written.
    let grown = resident_mib(&server).saturating_sub(before);
    assert!(grown < ROUNDS, "{grown} MiB for {} MiB of events", 2 * ROUNDS);
}
