//! Attachments: kept until they are sent, sent and fetched over connections that break, never taken for what they are not.

use std::path::Path;

use bigpeer_peer::{Attachment, DocId, FetchProgress, Object, Params, Peer, PeerError, PeerEvent, PeerSettings, Value};
use bigpeer_types::CollectionName;

use super::fake::Fake;
use super::fake_blobs::hex;
use super::offline::open_with_site;
use super::{open, params, rows, run};

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn content(length: usize) -> Vec<u8> {
    (0_u64..).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).take(length).collect()
}

fn token(bytes: &[u8]) -> Attachment {
    let sha256 = Attachment::parse_id(&hex(bytes)).expect("an id");
    Attachment { sha256, length: bytes.len() as u64, metadata: Object::new() }
}

fn photos() -> CollectionName {
    CollectionName::new("photos").expect("valid")
}

fn id() -> DocId {
    DocId::from_value(&Value::Int(1)).expect("an id")
}

async fn fetch(peer: &Peer, attachment: &Attachment) -> Result<Vec<u8>, PeerError> {
    let path = peer.fetch_attachment(&photos(), &id(), attachment).finish().await?;
    Ok(std::fs::read(path).expect("reads"))
}

/// The names of files that are not whole blobs.
fn unfinished(store: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(store.join("attachments")).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.len() != 64).collect()
}

#[tokio::test]
async fn what_was_attached_offline_is_sent_when_there_is_a_session_and_documents_do_not_wait_for_it() {
    let (server, store, files) = (Fake::start().await, dir(), dir());
    let bytes = content(300_000);
    let file = files.path().join("photo.jpg");
    std::fs::write(&file, &bytes).expect("writes");
    let peer = open_with_site(store.path()).await;
    let metadata = Object::from_iter([("name", Value::from("photo.jpg"))]);
    let attached = peer.attach(&file, metadata).await.expect("attaches");
    assert_eq!((attached.id(), attached.length), (hex(&bytes), 300_000));
    std::fs::remove_file(&file).expect("the store has its own copy");
    let document = Object::from_iter([("_id", Value::Int(1)), ("photo", attached.to_value())]);
    let insert = "INSERT INTO COLLECTION photos (photo ATTACHMENT) DOCUMENTS (:d)";
    peer.execute(insert, params([("d", Value::Object(document))])).await.expect("inserts");
    assert_eq!(rows(&peer, "SELECT photo.len, photo.metadata.name AS name FROM photos").await.len(), 1);
    assert_eq!(peer.status().uploads, 1);
    peer.close().await;
    drop(peer);

    // It survives a restart.
    let peer = open(store.path()).await;
    assert_eq!(peer.status().uploads, 1);
    assert_eq!(fetch(&peer, &attached).await.expect("it is here"), bytes);
    let mut events = peer.events();
    let mut settings = server.settings();
    settings.credentials = bigpeer_peer::Credentials::Token {
        site: bigpeer_types::SiteId::new(7),
        token: bigpeer_peer::Secret::new(format!("token-{}", bigpeer_types::SiteId::new(7))),
    };
    peer.connect(settings).await.expect("connects");
    peer.wait_uploaded().await.expect("uploaded");
    assert_eq!(server.blobs().blob(&attached.id()), Some(bytes));
    loop {
        if let PeerEvent::AttachmentUploaded { id } = events.recv().await.expect("the peer lives") {
            assert_eq!(id, attached.id());
            break;
        }
    }
    assert_eq!((peer.status().uploads, unfinished(store.path())), (0, vec![]));
}

async fn connected(server: &Fake, store: &Path) -> Peer {
    let peer = open(store).await;
    peer.connect(server.settings()).await.expect("connects");
    peer.wait_connected().await.expect("connected");
    peer
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_broken_off_also_in_another_process() {
    let (server, store) = (Fake::start().await, dir());
    let peer = connected(&server, store.path()).await;
    let bytes = content(700_000);
    server.blobs().faults(|faults| faults.cut_append_after = Some(200_000));
    let attached = peer.attach_bytes(bytes.clone(), Object::new()).await.expect("attaches");
    server.blobs().asked(|request| request.starts_with("PATCH") && request.ends_with(" 200000")).await;
    peer.wait_uploaded().await.expect("uploaded");
    assert_eq!(server.blobs().blob(&attached.id()), Some(bytes));
    let begun = server.blobs().requests().iter().filter(|request| request.starts_with("POST")).count();
    assert_eq!(begun, 1, "{:?}", server.blobs().requests());

    // The process ends in the middle; the next one asks where the upload stands.
    let other = content(600_001);
    server.blobs().faults(|faults| {
        faults.cut_append_after = Some(300_000);
        faults.answer = None;
    });
    let attached = peer.attach_bytes(other.clone(), Object::new()).await.expect("attaches");
    let appends = |request: &str| request.starts_with("PATCH") && request.ends_with(" 300000");
    server.blobs().asked(|request| request.starts_with("PATCH") && request.ends_with(" 0")).await;
    peer.close().await;
    drop(peer);
    let peer = connected(&server, store.path()).await;
    server.blobs().asked(appends).await;
    peer.wait_uploaded().await.expect("uploaded");
    assert_eq!(server.blobs().blob(&attached.id()), Some(other));
    let begun = server.blobs().requests().iter().filter(|request| request.starts_with("POST")).count();
    assert_eq!(begun, 2, "{:?}", server.blobs().requests());
}

#[tokio::test]
async fn a_lost_answer_a_forgotten_and_a_spoilt_upload_end_with_the_blob_at_the_server() {
    let (server, store) = (Fake::start().await, dir());
    let peer = connected(&server, store.path()).await;
    for fault in 0..5 {
        let bytes = content(100_000 + fault);
        server.blobs().faults(|faults| match fault {
            0 => faults.lose_completion = true,
            1 => faults.spoil_upload = true,
            2 => faults.answer = Some(503),
            3 => faults.answer = Some(401),
            _ => faults.cut_append_after = Some(10),
        });
        let attached = peer.attach_bytes(bytes.clone(), Object::new()).await.expect("attaches");
        if fault == 4 {
            server.blobs().asked(|request| request.ends_with(" 0")).await;
            server.blobs().forget_uploads();
        }
        peer.wait_uploaded().await.expect("uploaded");
        assert_eq!(server.blobs().blob(&attached.id()), Some(bytes), "{fault}");
    }
}

#[tokio::test]
async fn what_the_server_will_never_take_is_given_up_and_told() {
    let (server, store) = (Fake::start().await, dir());
    let peer = connected(&server, store.path()).await;
    for status in [413, 403] {
        let mut events = peer.events();
        server.blobs().faults(|faults| faults.answer = Some(status));
        let attached = peer.attach_bytes(content(usize::from(status)), Object::new()).await.expect("attaches");
        peer.wait_uploaded().await.expect("over");
        loop {
            if let PeerEvent::AttachmentFailed { id, reason } = events.recv().await.expect("the peer lives") {
                assert_eq!((id, reason.as_str()), (attached.id(), "the test does not allow it"));
                break;
            }
        }
        // It can still be read here, and attached again.
        assert!(peer.attachment(&attached).await.expect("reads").is_some());
        peer.attach_bytes(content(usize::from(status)), Object::new()).await.expect("attaches");
        peer.wait_uploaded().await.expect("uploaded");
        assert!(server.blobs().blob(&attached.id()).is_some());
    }
}

#[tokio::test]
async fn a_fetch_goes_on_where_it_was_broken_off_and_is_here_then() {
    let (server, store) = (Fake::start().await, dir());
    let bytes = content(500_000);
    server.blobs().put(&bytes);
    let attachment = token(&bytes);
    let peer = connected(&server, store.path()).await;
    assert_eq!(peer.attachment(&attachment).await.expect("reads"), None);
    server.blobs().faults(|faults| faults.cut_blob_after = Some(123_456));
    let fetching = peer.fetch_attachment(&photos(), &id(), &attachment);
    let progress = fetching.progress();
    let path = fetching.finish().await.expect("fetched");
    assert_eq!(std::fs::read(path).expect("reads"), bytes);
    assert_eq!(*progress.borrow(), FetchProgress { received: 500_000, total: 500_000 });
    let gets: Vec<String> =
        server.blobs().requests().into_iter().filter(|request| request.starts_with("GET")).collect();
    assert_eq!(gets.len(), 2);
    let resumed = gets[1].rsplit('=').next().and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
    assert!(resumed.is_some_and(|from| from > 0 && from <= 123_456), "{gets:?}");
    // From here on without the server, whoever asks, however often at once.
    peer.disconnect().await;
    let (one, two) = tokio::join!(fetch(&peer, &attachment), fetch(&peer, &attachment));
    assert!(one.expect("here") == bytes && two.expect("here") == bytes);
    assert_eq!(server.blobs().requests().iter().filter(|request| request.starts_with("GET")).count(), 2);
    let missing = fetch(&peer, &token(b"missing")).await;
    assert!(matches!(missing, Err(PeerError::NotConnected)), "{missing:?}");
}

#[tokio::test]
async fn two_fetches_of_one_attachment_are_one_request() {
    let (server, store) = (Fake::start().await, dir());
    let bytes = content(200_000);
    server.blobs().put(&bytes);
    let peer = connected(&server, store.path()).await;
    let attachment = token(&bytes);
    let (one, two) = tokio::join!(fetch(&peer, &attachment), fetch(&peer, &attachment));
    assert!(one.expect("fetched") == bytes && two.expect("fetched") == bytes);
    assert_eq!(server.blobs().requests().len(), 1);
}

#[tokio::test]
async fn other_bytes_than_the_tokens_are_never_taken() {
    let (server, store) = (Fake::start().await, dir());
    let bytes = content(50_000);
    server.blobs().put(&bytes);
    let peer = connected(&server, store.path()).await;
    for fault in 0..2 {
        server.blobs().faults(|faults| match fault {
            0 => faults.spoil_blob = true,
            _ => faults.endless_blob = true,
        });
        let refused = fetch(&peer, &token(&bytes)).await;
        assert!(matches!(refused, Err(PeerError::Protocol(_))), "{fault}: {refused:?}");
        assert_eq!(peer.attachment(&token(&bytes)).await.expect("reads"), None);
    }
    // A token that lies about the length, in both directions.
    for length in [49_999, 50_001] {
        let lying = Attachment { length, ..token(&bytes) };
        assert!(fetch(&peer, &lying).await.is_err(), "{length}");
    }
    assert_eq!(fetch(&peer, &token(&bytes)).await.expect("fetched"), bytes);
    assert_eq!(unfinished(store.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_server_without_ranges_without_the_blob_or_without_time_is_dealt_with() {
    let (server, store) = (Fake::start().await, dir());
    let bytes = content(100_000);
    let attachment = token(&bytes);
    let peer = connected(&server, store.path()).await;
    let missing = fetch(&peer, &attachment).await;
    assert!(matches!(missing, Err(PeerError::NoAttachment(_))), "{missing:?}");
    assert!(missing.expect_err("missing").is_retryable(), "its writer may still be sending it");
    server.blobs().put(&bytes);
    server.blobs().faults(|faults| {
        faults.whole_blobs_only = true;
        faults.cut_blob_after = Some(60_000);
    });
    assert_eq!(fetch(&peer, &attachment).await.expect("fetched"), bytes);
    for status in [503, 401, 429] {
        let bytes = content(usize::from(status));
        server.blobs().put(&bytes);
        server.blobs().faults(|faults| faults.answer = Some(status));
        assert_eq!(fetch(&peer, &token(&bytes)).await.expect("tried again"), bytes);
    }
    server.blobs().faults(|faults| faults.answer = Some(403));
    let refused = fetch(&peer, &token(b"other")).await;
    assert!(matches!(refused, Err(PeerError::Refused(_))), "{refused:?}");
    server.blobs().put(b"");
    assert_eq!(fetch(&peer, &token(b"")).await.expect("an empty one"), b"");
}

#[tokio::test]
async fn what_object_storage_does_not_hand_out_comes_from_the_server() {
    let (server, store, elsewhere) = (Fake::start().await, dir(), Fake::start().await);
    let (first, second, third) = (content(1000), content(2000), content(3000));
    [&first, &second, &third].into_iter().for_each(|bytes| drop(server.blobs().put(bytes)));
    let peer = connected(&server, store.path()).await;
    // Nobody is there; it is not there; it is.
    let place = |bytes: &[u8]| {
        let url = elsewhere.settings().url;
        format!("{url}/an-app/api/v4/attachments/{}?collection=photos&document=1", token(bytes).id())
    };
    server.blobs().faults(|faults| faults.redirect_to = Some("http://127.0.0.1:1/gone".to_owned()));
    assert_eq!(fetch(&peer, &token(&first)).await.expect("fetched"), first);
    server.blobs().faults(|faults| faults.redirect_to = Some(place(&second)));
    assert_eq!(fetch(&peer, &token(&second)).await.expect("fetched"), second);
    assert_eq!(elsewhere.blobs().requests().len(), 1);
    elsewhere.blobs().put(&third);
    elsewhere.blobs().faults(|faults| faults.cut_blob_after = Some(1200));
    server.blobs().faults(|faults| faults.redirect_to = Some(place(&third)));
    assert_eq!(fetch(&peer, &token(&third)).await.expect("fetched"), third);
    assert_eq!(elsewhere.blobs().requests().len(), 3, "and goes on there");
}

#[tokio::test]
async fn the_least_recently_used_go_when_the_cache_is_full_and_what_is_not_sent_stays() {
    let (server, store) = (Fake::start().await, dir());
    let mut settings = PeerSettings::new(store.path());
    settings.attachment_cache_bytes = 250;
    let clock = std::sync::Arc::new(bigpeer_types::ManualClock::new(1_700_000_000_000));
    settings.clock = clock.clone();
    let peer = Peer::open(settings).await.expect("opens");
    peer.connect(server.settings()).await.expect("connects");
    let mut blobs = Vec::new();
    for number in 0..3_u8 {
        let bytes = vec![number; 100];
        server.blobs().put(&bytes);
        fetch(&peer, &token(&bytes)).await.expect("fetched");
        clock.advance(1);
        blobs.push(token(&bytes));
        if number == 1 {
            // Asked for again: now the second is the one that was not used for longest.
            fetch(&peer, &blobs[0]).await.expect("here");
            clock.advance(1);
        }
    }
    let here = async |attachment: &Attachment| peer.attachment(attachment).await.expect("reads").is_some();
    assert_eq!((here(&blobs[0]).await, here(&blobs[1]).await, here(&blobs[2]).await), (true, false, true));
    peer.disconnect().await;
    let own = peer.attach_bytes(vec![9; 1000], Object::new()).await.expect("attaches");
    assert_eq!(peer.evict_attachments(0).await.expect("evicts"), 200);
    assert!(here(&own).await && !here(&blobs[0]).await);
    peer.connect(server.settings()).await.expect("connects");
    peer.wait_uploaded().await.expect("uploaded");
    assert_eq!(peer.evict_attachments(0).await.expect("evicts"), 1000);
    assert!(!here(&own).await);
    assert_eq!(fetch(&peer, &own).await.expect("fetched again"), vec![9; 1000]);
}

#[tokio::test]
async fn what_a_crash_left_behind_is_cleared_away_when_the_store_is_opened() {
    let store = dir();
    let peer = open_with_site(store.path()).await;
    let own = peer.attach_bytes(vec![1; 10], Object::new()).await.expect("attaches");
    peer.close().await;
    drop(peer);
    let blobs = store.path().join("attachments");
    std::fs::write(blobs.join("0000000000000007.new"), "half").expect("writes");
    std::fs::write(blobs.join("ab".repeat(32)), "a blob without a row").expect("writes");
    std::fs::write(blobs.join(format!("{}.part", "cd".repeat(32))), "to go on with").expect("writes");
    let peer = open(store.path()).await;
    assert_eq!(unfinished(store.path()), [format!("{}.part", "cd".repeat(32))]);
    assert!(!blobs.join("ab".repeat(32)).exists());
    assert!(peer.attachment(&own).await.expect("reads").is_some());
    let missing = peer.attach(store.path().join("missing"), Object::new()).await;
    assert!(matches!(missing, Err(PeerError::Io { .. })), "{missing:?}");
    let _ = run(&peer, "SELECT * FROM photos").await;
    let _ = Params::new();
}
