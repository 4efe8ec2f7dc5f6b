//! Attachments through the real server: two devices, a program, and a process that is killed in the middle.

use std::path::Path;

use bigpeer_e2e::{Server, wait_until};
use bigpeer_peer::{Attachment, ConnectSettings, DocId, Object, Params, Peer, PeerError, PeerSettings, Value};
use bigpeer_types::{AppId, CollectionName};
use serde_json::{Value as Json, json};

const INSERT: &str = "INSERT INTO COLLECTION photos (photo ATTACHMENT) DOCUMENTS (:d)";

fn settings(server: &Server, key: &str) -> ConnectSettings {
    let mut settings = ConnectSettings::new(server.url(), AppId::new(&server.credentials().app).unwrap(), key);
    settings.backoff_max = std::time::Duration::from_millis(200);
    settings
}

async fn online(server: &Server, dir: &Path, key: &str) -> Peer {
    let peer = Peer::open(PeerSettings::new(dir)).await.unwrap();
    peer.subscribe("SELECT * FROM photos", Params::new()).await.unwrap();
    peer.connect(settings(server, key)).await.unwrap();
    peer
}

/// Bytes that repeat nowhere near.
fn content(length: usize) -> Vec<u8> {
    (0_u64..).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).take(length).collect()
}

fn photos() -> CollectionName {
    CollectionName::new("photos").unwrap()
}

fn doc_id(id: i64) -> DocId {
    DocId::from_value(&Value::Int(id)).unwrap()
}

async fn insert(peer: &Peer, id: i64, owner: &str, photo: &Attachment) {
    let document =
        Object::from_iter([("_id", Value::Int(id)), ("owner", Value::from(owner)), ("photo", photo.to_value())]);
    peer.execute(INSERT, Params::from_iter([("d", Value::Object(document))])).await.unwrap();
}

/// The token that a document of the peer holds.
async fn token(peer: &Peer, id: i64) -> Attachment {
    let find = || async {
        let rows = peer.execute(&format!("SELECT photo FROM photos WHERE _id = {id}"), Params::new()).await.unwrap();
        rows.items.first().and_then(|row| Attachment::from_value(row.as_object()?.get("photo")?))
    };
    wait_until("the document has come", 30, find).await
}

async fn fetched(peer: &Peer, id: i64) -> Vec<u8> {
    let attachment = token(peer, id).await;
    let get = || async {
        match peer.fetch_attachment(&photos(), &doc_id(id), &attachment).finish().await {
            Ok(path) => Some(std::fs::read(path).unwrap()),
            // The document comes before the blob.
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                None
            }
        }
    };
    wait_until("the attachment has come", 60, get).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_goes_from_one_device_through_kills_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("data")).await;
    let key = server.credentials().api_key;
    let a = online(&server, &dir.path().join("a"), &key).await;
    let b = online(&server, &dir.path().join("b"), &key).await;
    let bytes = content(40_000_000);
    let photo = a.attach_bytes(bytes.clone(), Object::new()).await.unwrap();
    insert(&a, 1, "a", &photo).await;
    // The document is there at once; the blob comes after it, over however many processes.
    token(&b, 1).await;
    for _kill in 0..3 {
        server.restart().await;
    }
    a.wait_uploaded().await.unwrap();
    let fetching = b.fetch_attachment(&photos(), &doc_id(1), &token(&b, 1).await);
    let mut progress = fetching.progress();
    // Broken off in the middle, if it is not over before that.
    let _some = progress.wait_for(|now| now.received > 1_000_000).await.map(|now| *now);
    server.restart().await;
    match fetching.finish().await {
        Ok(path) => assert!(std::fs::read(path).unwrap() == bytes),
        Err(error) => assert!(error.is_retryable(), "{error}"),
    }
    assert!(fetched(&b, 1).await == bytes);

    // Once more without the server, and after the cache was emptied again from it.
    b.disconnect().await;
    assert!(fetched(&b, 1).await == bytes);
    assert_eq!(b.evict_attachments(0).await.unwrap(), bytes.len() as u64);
    let gone = b.fetch_attachment(&photos(), &doc_id(1), &photo).finish().await;
    assert!(matches!(gone, Err(PeerError::NotConnected)), "{gone:?}");
    b.connect(settings(&server, &key)).await.unwrap();
    assert!(fetched(&b, 1).await == bytes);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

async fn key_with(server: &Server, name: &str, permissions: Json) -> String {
    let credentials = server.credentials();
    let path = format!("/admin/v1/apps/{}/api-keys/{name}", credentials.app);
    let (status, answer) = server.put_as(&credentials.admin_token, &path, &json!({"permissions": permissions})).await;
    assert_eq!(status, 201, "{answer}");
    answer["key"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_it_is_seen_through_documents_only() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(&dir.path().join("data"), &["--max-attachment-bytes", "1000000"]).await;
    let credentials = server.credentials();
    let http = reqwest::Client::new();
    let base = format!("{}/{}/api/v4/attachments", server.url(), credentials.app);
    let upload = async |body: Vec<u8>| {
        let sent =
            http.post(format!("{base}/upload")).bearer_auth(&credentials.api_key).body(body).send().await.unwrap();
        (sent.status().as_u16(), sent.json::<Json>().await.unwrap())
    };
    let bytes = content(300_000);
    let (status, token) = upload(bytes.clone()).await;
    assert_eq!((status, &token["len"]), (200, &json!(300_000)));
    assert_eq!(upload(content(1_000_001)).await.0, 413);
    for (id, owner) in [(1, "ann"), (2, "bob")] {
        server.dql(INSERT, json!({"d": {"_id": id, "owner": owner, "photo": token}})).await;
    }
    let read = json!({"everything": false, "queriesByCollection": {"photos": ["owner == 'ann'"]}});
    let ann = key_with(&server, "ann", json!({"read": read})).await;
    let id = token["id"].as_str().unwrap();
    let get = async |key: &str, query: &str, range: Option<&str>| {
        let mut request = http.get(format!("{base}/{id}{query}")).bearer_auth(key);
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap())
    };
    assert_eq!(get(&ann, "?collection=photos&document=1", None).await.1, bytes);
    assert_eq!(get(&ann, "?collection=photos&document=2", None).await.0, 404);
    assert_eq!(get(&ann, "", None).await.0, 403);
    assert_eq!(get(&credentials.api_key, "", Some("bytes=5-9")).await, (206, bytes[5..10].to_vec().into()));
    assert_eq!(get(&credentials.api_key, "", Some("bytes=300000-")).await.0, 416);
    assert_eq!(get("wrong", "", None).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).await;
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let (file, copy) = (dir.path().join("gate.jpg"), dir.path().join("copy.jpg"));
    std::fs::write(&file, content(200_000)).unwrap();
    let run = |store: &Path, args: &[&str]| {
        let mut all = vec!["peer", "--store", store.to_str().unwrap()];
        all.extend_from_slice(args);
        let output = server.command(&all);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    run(&a, &["query", "INSERT INTO photos DOCUMENTS ({'_id': 1})"]);
    let place = ["--collection", "photos", "--document", "1", "--field", "photo"];
    let token = run(&a, &[&["attach", file.to_str().unwrap()], &place[..]].concat());
    let token: Json = serde_json::from_str(&token).unwrap();
    assert_eq!((&token["len"], &token["metadata"]["name"]), (&json!(200_000), &json!("gate.jpg")));
    let status: Json = serde_json::from_str(&run(&a, &["status"])).unwrap();
    assert_eq!(status["attachments_to_send"], 1);
    run(&a, &["sync"]);
    let status: Json = serde_json::from_str(&run(&a, &["status"])).unwrap();
    assert_eq!((&status["attachments_to_send"], &status["unpushed"]), (&json!(0), &json!(0)));
    let write: Json = serde_json::from_str(&run(&a, &["status", "--write", "1"])).unwrap();
    assert_eq!(write["write"], "durable");

    run(&b, &["subscribe", "SELECT * FROM photos"]);
    run(&b, &["sync"]);
    run(&b, &[&["fetch"], &place[..], &["--output", copy.to_str().unwrap()]].concat());
    assert_eq!(std::fs::read(&copy).unwrap(), content(200_000));
}
