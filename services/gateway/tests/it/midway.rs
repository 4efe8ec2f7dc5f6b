//! Resumes that break off: they go on where they were, whatever has happened meanwhile on either side of that key.

use std::collections::BTreeMap;

use bigpeer_chassis::{Access, Permissions};
use bigpeer_crdt::Value;
use bigpeer_protocol::encode_frame;
use bigpeer_protocol::pb::{self, CloseCode, FromGateway};
use bytes::Bytes;

use crate::resume::{UNITED, world};
use crate::world::{Author, Client, Edit, Replica, SEVERAL_PAGES, World, doc_id, flights, hello};

/// A peer that connects again and again, from where its replica is.
struct Reader<'w> {
    world: &'w World,
    login: (bigpeer_types::SiteId, String),
    query: &'static str,
    scope: u64,
}

/// What one connection brought.
#[derive(Debug, Default)]
struct Brought {
    bytes: usize,
    /// Keys of the states in pages.
    states: Vec<Bytes>,
    done: bool,
}

impl<'w> Reader<'w> {
    /// With everything that is there now.
    async fn new(world: &'w World, key: &str, query: &'static str) -> (Self, Replica) {
        let mut reader = Self { world, login: world.login(key).await, query, scope: 0 };
        let mut replica = Replica::default();
        let mut client = reader.connect(1 << 40).await;
        reader.scope = client.subscribe(1, query, None).await;
        client.catch_up(&mut replica).await;
        (reader, replica)
    }

    async fn connect(&self, credit: u64) -> Client {
        let (site, token) = (self.login.0, &self.login.1);
        self.world.session(site, token, pb::Hello { credit, ..hello(site, token) }).await
    }

    /// Connects, and breaks off after so many pages, or when it has caught up. The last page says that it is the last by
    /// not saying how far it came.
    async fn attempt(&self, replica: &mut Replica, pages: usize) -> Brought {
        // With this credit no page comes unasked after the first.
        let mut client = self.connect(1).await;
        let resume = pb::Resume { lsn: Some(replica.through.into()), scope: self.scope, ..Default::default() };
        let reached = replica.reached.iter();
        let reached =
            reached.map(|(key, lsn)| pb::Reached { position: key.clone(), lsn: Some((*lsn).into()) }).collect();
        let query = self.query.to_owned();
        client.open(pb::Subscribe { id: 1, query, resume: Some(resume), reached, ..Default::default() }).await;
        let mut brought = Brought::default();
        let (mut taken, mut is_last) = (0, false);
        while taken < pages || is_last {
            let message = client.next().await;
            let envelope = pb::GatewayMessage { message: Some(message.clone()) };
            brought.bytes += encode_frame(&envelope, pb::Compression::None).bytes;
            if let FromGateway::Changes(pb::Changes { page: Some(page), .. }) = &message {
                assert!(page.position.is_empty(), "who does not know `reached` must not take it for a first sync");
                brought.states.extend(page.states.iter().map(|state| state.id.clone()));
                taken += 1;
                is_last = page.reached.is_empty();
                client.send(pb::Credit { bytes: if taken < pages || is_last { 1 << 20 } else { 0 } }).await;
            }
            assert!(!matches!(message, FromGateway::Resync(_) | FromGateway::Close(_)), "{message:?}");
            replica.apply(&message);
            if matches!(message, FromGateway::CaughtUp(_)) {
                brought.done = true;
                break;
            }
        }
        brought
    }

    /// What somebody has who starts now.
    async fn truth(&self) -> BTreeMap<Vec<u8>, bigpeer_crdt::Document> {
        Self::new(self.world, "all", self.query).await.1.documents
    }
}

async fn flush(world: &World) {
    let head = world.head().await;
    world.store.wait_for(head).await.unwrap();
    world.store.writer().await.unwrap().flush().await.unwrap();
}

fn name(number: usize) -> String {
    format!("f{number:06}")
}

/// Sets a field of all flights in the range.
fn touch(author: &mut Author, range: std::ops::Range<usize>, field: &'static str, value: &str) -> Bytes {
    let names: Vec<String> = range.map(name).collect();
    let set = || Edit::Set(field, Value::String(value.into()));
    let edits: Vec<(&str, Edit)> = names.iter().map(|name| (name.as_str(), set())).collect();
    author.edit(&flights(), &edits)
}

async fn broken_in_the_middle(forgetful: bool, flushed: bool) {
    let world = world(forgetful).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.many(0..SEVERAL_PAGES, "UA")).await;
    let (reader, mut replica) = Reader::new(&world, "all", UNITED).await;
    assert_eq!(replica.documents.len(), SEVERAL_PAGES);
    let last = SEVERAL_PAGES - 1;
    writer.write(2, touch(&mut author, 0..SEVERAL_PAGES, "gate", "X1")).await;
    writer.write(3, author.set(&name(10), "carrier", "DL")).await;
    writer.write(4, author.delete(&name(last))).await;
    if flushed {
        flush(&world).await;
    }
    let whole = reader.attempt(&mut replica.clone(), usize::MAX).await;
    assert!(whole.done && whole.states.len() >= SEVERAL_PAGES - 2);

    let cursor = replica.through;
    let first = reader.attempt(&mut replica, 1).await;
    assert!(!first.done && first.states.len() > 500 && first.states.len() < SEVERAL_PAGES / 2);
    assert_eq!((replica.through, replica.reached.len()), (cursor, 1));
    // On both sides of the key: one is edited, one leaves, one is deleted, one begins to match.
    writer.write(5, touch(&mut author, 1..2, "gate", "Y2")).await;
    let carrier = || Edit::Set("carrier", Value::String("DL".into()));
    let (left, deleted, new) =
        ((name(2), name(last - 2)), (name(3), name(last - 3)), (name(0) + "a", name(last) + "z"));
    writer.write(6, author.edit(&flights(), &[(&left.0, carrier()), (&left.1, carrier())])).await;
    writer.write(7, author.edit(&flights(), &[(&deleted.0, Edit::Delete), (&deleted.1, Edit::Delete)])).await;
    writer.write(8, author.edit(&flights(), &[(&new.0, Edit::flight("UA")), (&new.1, Edit::flight("UA"))])).await;
    if flushed {
        flush(&world).await;
    }
    let second = reader.attempt(&mut replica, usize::MAX).await;
    assert!(second.done && replica.reached.is_empty());
    assert_eq!(replica.documents, reader.truth().await);
    assert_eq!(replica.documents.len(), SEVERAL_PAGES - 4);
    assert_eq!(replica.field(&name(1), "gate"), Some(Value::String("Y2".into())));
    let again = doc_id(&name(5));
    assert!(first.states.iter().any(|key| **key == *again.as_key()), "it was sent");
    assert!(second.states.iter().all(|key| **key != *again.as_key()), "and is not sent again");
    // Beside what is left of it: what has changed meanwhile, of 300 bytes each, and some names.
    let (got, left) = (second.bytes, whole.bytes - first.bytes);
    assert!(got < left + 3_000, "{got} bytes, with {left} left of {}", whole.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_from_the_tail_goes_on_where_it_broke_off() {
    broken_in_the_middle(false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_from_the_overlay_goes_on_where_it_broke_off() {
    broken_in_the_middle(true, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_from_segments_goes_on_where_it_broke_off() {
    broken_in_the_middle(true, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_never_lasts_for_more_than_a_page_comes_to_the_end() {
    let world = world(true).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.many(0..SEVERAL_PAGES, "UA")).await;
    let (reader, mut replica) = Reader::new(&world, "all", UNITED).await;
    writer.write(2, touch(&mut author, 0..SEVERAL_PAGES, "gate", "X1")).await;
    let whole = reader.attempt(&mut replica.clone(), usize::MAX).await.bytes;
    let (mut seq, mut bytes, mut attempts) = (2, 0, 0);
    loop {
        attempts += 1;
        assert!(attempts < 20, "it does not come to an end");
        let brought = reader.attempt(&mut replica, 1).await;
        bytes += brought.bytes;
        if brought.done {
            break;
        }
        for edit in [Edit::Set("carrier", Value::String("DL".into())), Edit::Delete] {
            seq += 1;
            let name = name(usize::try_from(seq).unwrap() * 7);
            writer.write(seq, author.edit(&flights(), &[(&name, edit)])).await;
        }
        if attempts == 2 {
            flush(&world).await;
        }
    }
    assert!(attempts > 2, "{attempts} attempts");
    assert_eq!(replica.documents, reader.truth().await);
    assert!(bytes < whole + 10_000, "{bytes} bytes for {whole} in {attempts} attempts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_again_before_the_key_may_break_off_too() {
    let world = world(true).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.many(0..SEVERAL_PAGES, "UA")).await;
    let (reader, mut replica) = Reader::new(&world, "all", UNITED).await;
    writer.write(2, touch(&mut author, 0..SEVERAL_PAGES, "gate", "X1")).await;
    let first = reader.attempt(&mut replica, 1).await.states.len();
    // All of the first page, and by far larger than it was.
    writer.write(3, touch(&mut author, 0..first, "more", &"y".repeat(900))).await;
    writer.write(4, author.delete(&name(0))).await;
    flush(&world).await;
    let second = reader.attempt(&mut replica, 1).await;
    assert!(!second.done && second.states.len() < first);
    assert_eq!(replica.reached.len(), 2, "the rest of the first page is older");
    writer.write(5, author.set(&name(1), "carrier", "DL")).await;
    writer.write(6, author.set(&name(first - 1), "carrier", "DL")).await;
    let third = reader.attempt(&mut replica, usize::MAX).await;
    assert!(third.done && third.states.len() < SEVERAL_PAGES + first - first - second.states.len() + 5);
    assert_eq!(replica.documents, reader.truth().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_sync_that_breaks_off_in_what_changed_meanwhile_goes_on_there() {
    let world = world(true).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.many(0..SEVERAL_PAGES, "UA")).await;
    let (site, token) = world.login("all").await;
    let session = |credit: u64| pb::Hello { credit, ..hello(site, &token) };
    let mut replica = Replica::default();
    let mut client = world.session(site, &token, session(1)).await;
    let scope = client.subscribe(1, UNITED, None).await;
    client.until(&mut replica, |replica| replica.pages == 1).await;
    drop(client);
    let first = replica.documents.len();
    let (position, snapshot) = (replica.position.clone(), replica.snapshot);
    writer.write(2, touch(&mut author, 0..first, "more", &"y".repeat(900))).await;
    let resume = || pb::Resume { lsn: Some(snapshot.into()), position: position.clone(), scope };
    let mut client = world.session(site, &token, session(1)).await;
    client.subscribe(1, UNITED, Some(resume())).await;
    client.until(&mut replica, |replica| replica.pages == 2).await;
    drop(client);
    assert!(replica.position.is_empty() && replica.reached.len() == 1);
    writer.write(3, author.set(&name(0), "carrier", "DL")).await;
    writer.write(4, author.delete(&name(first - 1))).await;

    let reached = replica.reached.iter();
    let reached = reached.map(|(key, lsn)| pb::Reached { position: key.clone(), lsn: Some((*lsn).into()) }).collect();
    let mut client = world.session(site, &token, session(1 << 40)).await;
    let query = UNITED.to_owned();
    client.open(pb::Subscribe { id: 1, query, resume: Some(resume()), reached, ..Default::default() }).await;
    let mut states = 0;
    loop {
        let message = client.next().await;
        if let FromGateway::Changes(pb::Changes { page: Some(page), .. }) = &message {
            states += page.states.len();
        }
        replica.apply(&message);
        if matches!(message, FromGateway::CaughtUp(_)) {
            break;
        }
    }
    let (_, truth) = Reader::new(&world, "all", UNITED).await;
    assert_eq!(replica.documents, truth.documents);
    assert!(states < SEVERAL_PAGES - 200, "{states} of {SEVERAL_PAGES}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_says_how_far_it_came_by_a_key_that_may_not_be_read() {
    let world = world(true).await;
    let access = Access {
        everything: false,
        queries_by_collection: [("flights".to_owned(), vec!["carrier = 'UA'".to_owned()])].into(),
    };
    world.key("united", Permissions { ql_version: 1, remote_query: false, read: access.clone(), write: access }).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.many(0..SEVERAL_PAGES / 2, "UA")).await;
    let dl = ["a", "f000000a", "f001000a", "z"];
    let secret: Vec<(&str, Edit)> = dl.iter().map(|id| (*id, Edit::flight("DL"))).collect();
    writer.write(2, author.edit(&flights(), &secret)).await;
    let may_not_read = |key: &Bytes| dl.iter().any(|id| *doc_id(id).as_key() == **key);
    let (site, token) = world.login("united").await;
    let mut client = world.session(site, &token, hello(site, &token)).await;
    client.subscribe(1, "SELECT * FROM flights", None).await;
    let mut positions = 0;
    loop {
        match client.next().await {
            FromGateway::Changes(pb::Changes { page: Some(page), .. }) => {
                positions += usize::from(!page.position.is_empty());
                assert!(!may_not_read(&page.position) && !may_not_read(&page.reached), "{page:?}");
            }
            FromGateway::CaughtUp(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(positions >= 2, "{positions}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_reached_is_read_with_care() {
    let world = World::new().await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    let lsn = writer.write(1, author.many(0..3, "UA")).await;
    let key = |number: usize| Bytes::copy_from_slice(doc_id(&name(number)).as_key());
    let at = |key: Bytes| pb::Reached { position: key, lsn: Some(lsn.into()) };
    let bad = [
        vec![at(key(2)), at(key(1))],
        vec![at(key(1)), at(key(1))],
        vec![at(Bytes::from_static(b"\xff not a key"))],
        vec![pb::Reached::default()],
        (0..5).map(|number| at(key(number))).collect(),
    ];
    for reached in bad {
        let mut client = world.client().await;
        let resume = Some(pb::Resume { lsn: Some(lsn.into()), ..Default::default() });
        let query = UNITED.to_owned();
        client.send(pb::Subscribe { id: 1, query, resume, reached, ..Default::default() }).await;
        assert_eq!(client.close().await.code(), CloseCode::CloseProtocolError);
    }
}
