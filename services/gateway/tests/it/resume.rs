//! Resuming: what it costs, what left while the peer was away, and what it must not be told.

use bigpeer_chassis::{Access, Permissions};
use bigpeer_crdt::Value;
use bigpeer_gateway::GatewaySettings;
use bigpeer_protocol::pb::{self, FromGateway};
use bigpeer_protocol::{encode_frame, fingerprint};
use bigpeer_tables::TablesSettings;
use std::sync::Arc;

use crate::world::{Author, Client, Edit, Replica, SEVERAL_PAGES, World, doc_id, flights, hello};

pub(crate) const UNITED: &str = "SELECT * FROM flights WHERE carrier = 'UA'";

/// What a resume brought.
#[derive(Debug, Default)]
struct Resumed {
    /// Bytes of the gateway's messages, and of the peer's answers.
    bytes: usize,
    asked: usize,
    resynced: bool,
    /// Ids that were named in any message.
    named: Vec<Vec<u8>>,
}

/// Follows a resume, and answers what the gateway asks as a peer would that holds what the replica has.
async fn resume(client: &mut Client, replica: &mut Replica) -> Resumed {
    let mut resumed = Resumed::default();
    let mut told: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut message = client.next().await;
        resumed.bytes +=
            encode_frame(&pb::GatewayMessage { message: Some(message.clone()) }, pb::Compression::None).bytes;
        match &mut message {
            FromGateway::AskHeld(ask) => {
                resumed.asked += 1;
                told = replica.documents.keys().cloned().collect();
                let count = u32::try_from(told.len()).unwrap();
                let fits = count <= ask.at_most;
                let fingerprints: Vec<u64> =
                    told.iter().map(|key| fingerprint(ask.salt, key)).filter(|_| fits).collect();
                let held = pb::Held { ask: ask.ask, fingerprints, count };
                resumed.bytes += encode_frame(&pb::PeerMessage::from(held.clone()), pb::Compression::None).bytes;
                client.send(held).await;
            }
            FromGateway::Resync(_) => resumed.resynced = true,
            FromGateway::Changes(changes) => {
                for left in changes.page.iter_mut().flat_map(|page| &mut page.left) {
                    resumed.named.push(left.id.to_vec());
                    if let Some(place) = left.held {
                        assert!(left.id.is_empty());
                        left.id = told[usize::try_from(place).unwrap()].clone().into();
                    }
                }
                resumed.named.extend(changes.page.iter().flat_map(|page| &page.states).map(|state| state.id.to_vec()));
            }
            _ => {}
        }
        replica.apply(&message);
        if matches!(message, FromGateway::CaughtUp(_)) {
            return resumed;
        }
    }
}

/// A store whose feed has forgotten all but the last batch, or has not.
pub(crate) async fn world(forgetful: bool) -> World {
    let feed_bytes = if forgetful { 1 } else { 16 << 20 };
    let tables = TablesSettings { feed_bytes, ..TablesSettings::default() };
    World::on(GatewaySettings::default(), Arc::new(object_store::memory::InMemory::new()), tables).await
}

async fn away_during_many_changes(forgetful: bool, flushed: bool) {
    let world = world(forgetful).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.many(0..50, "UA")).await;
    writer.write(2, author.edit(&flights(), &[("leaves", Edit::flight("UA")), ("goes", Edit::flight("UA"))])).await;
    writer.write(3, author.many(10_000..13_000, "DL")).await;
    let (site, token) = world.login("all").await;
    let says = pb::Hello { tells_held: true, ..hello(site, &token) };
    let mut reader = world.session(site, &token, says.clone()).await;
    let mut replica = Replica::default();
    let scope = reader.subscribe(1, UNITED, None).await;
    reader.catch_up(&mut replica).await;
    assert_eq!(replica.documents.len(), 52);
    drop(reader);

    let set = |gate: &str| Edit::Set("gate", Value::String(gate.into()));
    let others: Vec<String> = (10_000..13_000).map(|number| format!("f{number:06}")).collect();
    let mut seq = 3;
    for chunk in others.chunks(500) {
        let edits: Vec<(&str, Edit)> = chunk.iter().map(|id| (id.as_str(), set("X1"))).collect();
        seq += 1;
        writer.write(seq, author.edit(&flights(), &edits)).await;
    }
    writer.write(seq + 1, author.set("leaves", "carrier", "DL")).await;
    writer.write(seq + 2, author.delete("goes")).await;
    let own: Vec<String> = (0..50).map(|number| format!("f{number:06}")).collect();
    let edits: Vec<(&str, Edit)> = own.iter().map(|id| (id.as_str(), set("Y2"))).collect();
    let lsn = writer.write(seq + 3, author.edit(&flights(), &edits)).await;
    if flushed {
        world.store.wait_for(lsn).await.unwrap();
        world.store.writer().await.unwrap().flush().await.unwrap();
    }

    let mut reader = world.session(site, &token, says).await;
    let since = pb::Resume { lsn: Some(replica.through.into()), scope, ..Default::default() };
    reader.subscribe(1, UNITED, Some(since)).await;
    let resumed = resume(&mut reader, &mut replica).await;
    assert_eq!(replica.documents.len(), 50, "what left and what was deleted is gone");
    assert!(replica.documents.keys().all(|key| key != doc_id("leaves").as_key()));
    assert_eq!(replica.field("f000007", "gate"), Some(Value::String("Y2".into())));
    assert!(!resumed.resynced && resumed.asked == 1, "{resumed:?}");
    // 50 documents of about 300 bytes; 64 names before the question; 52 fingerprints.
    assert!(resumed.bytes < 25_000, "{} bytes for 50 of 3,052 changes", resumed.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_costs_what_changed_for_the_peer_from_the_tail() {
    away_during_many_changes(false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_costs_what_changed_for_the_peer_from_the_overlay() {
    away_during_many_changes(true, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_costs_what_changed_for_the_peer_from_segments() {
    away_during_many_changes(true, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_unreadable_leaves_by_its_place_and_nothing_else_is_named() {
    let world = world(false).await;
    let access = Access {
        everything: false,
        queries_by_collection: [("flights".to_owned(), vec!["carrier = 'UA'".to_owned()])].into(),
    };
    let only = Permissions { ql_version: 1, remote_query: false, read: access.clone(), write: access };
    world.key("united", only).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    let all =
        [("a", Edit::flight("UA")), ("b", Edit::flight("UA")), ("c", Edit::flight("UA")), ("d", Edit::flight("DL"))];
    writer.write(1, author.edit(&flights(), &all)).await;
    let (site, token) = world.login("united").await;
    let says = pb::Hello { tells_held: true, ..hello(site, &token) };
    let mut reader = world.session(site, &token, says.clone()).await;
    let mut replica = Replica::default();
    let scope = reader.subscribe(1, "SELECT * FROM flights", None).await;
    reader.catch_up(&mut replica).await;
    assert_eq!(replica.ids(), ["a", "b", "c"]);
    drop(reader);
    let carrier = |carrier: &str| Edit::Set("carrier", Value::String(carrier.into()));
    writer.write(2, author.edit(&flights(), &[("b", carrier("DL")), ("d", Edit::Set("gate", Value::Null))])).await;
    writer.write(3, author.delete("c")).await;
    writer.write(4, author.edit(&flights(), &[("e", Edit::flight("DL"))])).await;

    let mut reader = world.session(site, &token, says).await;
    let since = pb::Resume { lsn: Some(replica.through.into()), scope, ..Default::default() };
    reader.subscribe(1, "SELECT * FROM flights", Some(since)).await;
    let resumed = resume(&mut reader, &mut replica).await;
    assert_eq!(replica.ids(), ["a"]);
    assert!(!resumed.resynced && resumed.asked == 1, "{resumed:?}");
    assert!(resumed.named.iter().all(Vec::is_empty), "no id that may not be read: {:?}", resumed.named);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_holds_more_than_changed_is_not_made_to_tell() {
    let world = world(false).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.many(0..1_000, "UA")).await;
    writer.write(2, author.many(1_000..1_100, "DL")).await;
    let (site, token) = world.login("all").await;
    let says = pb::Hello { tells_held: true, ..hello(site, &token) };
    let mut reader = world.session(site, &token, says.clone()).await;
    let mut replica = Replica::default();
    let scope = reader.subscribe(1, UNITED, None).await;
    reader.catch_up(&mut replica).await;
    drop(reader);
    let others: Vec<String> = (1_000..1_100).map(|number| format!("f{number:06}")).collect();
    let edits: Vec<(&str, Edit)> = others.iter().map(|id| (id.as_str(), Edit::Set("gate", Value::Null))).collect();
    writer.write(3, author.edit(&flights(), &edits)).await;
    let mut reader = world.session(site, &token, says).await;
    let since = pb::Resume { lsn: Some(replica.through.into()), scope, ..Default::default() };
    reader.subscribe(1, UNITED, Some(since)).await;
    let resumed = resume(&mut reader, &mut replica).await;
    assert_eq!((resumed.asked, resumed.named.len()), (1, 100), "it said how many, and no more");
    assert!(resumed.bytes < 5_000, "{} bytes", resumed.bytes);
    assert_eq!(replica.documents.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_still_lets_others_have_its_turn_and_goes_on_where_it_was() {
    let settings = GatewaySettings { max_admissions: 1, max_catch_ups: 1, ..GatewaySettings::default() };
    let world = World::with(settings).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    let lsn = writer.write(1, author.many(0..SEVERAL_PAGES, "UA")).await;
    world.store.wait_for(lsn).await.unwrap();
    world.store.writer().await.unwrap().flush().await.unwrap();
    let (site, token) = world.login("all").await;
    let mut still = world.session(site, &token, pb::Hello { credit: 1, ..hello(site, &token) }).await;
    let mut of_still = Replica::default();
    still.subscribe(1, "SELECT * FROM flights", None).await;
    still.until(&mut of_still, |replica| replica.pages == 1).await;
    // It has no credit and the only turn; everybody else wants it.
    let mut others = Vec::new();
    for _ in 0..8 {
        let mut client = world.client().await;
        client.subscribe(1, "SELECT * FROM flights", None).await;
        others.push(client);
    }
    for mut client in others {
        let mut replica = Replica::default();
        client.catch_up(&mut replica).await;
        assert_eq!(replica.documents.len(), SEVERAL_PAGES);
    }
    let before = of_still.documents.len();
    still.send(pb::Credit { bytes: 1 << 40 }).await;
    let mut sent = 0;
    loop {
        let message = still.next().await;
        if let FromGateway::Changes(pb::Changes { page: Some(page), .. }) = &message {
            sent += page.states.len();
        }
        of_still.apply(&message);
        if matches!(message, FromGateway::CaughtUp(_)) {
            break;
        }
    }
    assert_eq!((of_still.documents.len(), before + sent), (SEVERAL_PAGES, SEVERAL_PAGES), "all of them, none twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_longer_than_deletions_are_remembered_starts_anew() {
    // Deletions are forgotten as soon as they are compacted.
    let tables = TablesSettings { keep_tombstones: std::time::Duration::ZERO, ..TablesSettings::default() };
    let world = World::on(GatewaySettings::default(), Arc::new(object_store::memory::InMemory::new()), tables).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    let all = [("a", Edit::flight("UA")), ("b", Edit::flight("UA"))];
    writer.write(1, author.edit(&flights(), &all)).await;
    let (site, token) = world.login("all").await;
    let says = pb::Hello { tells_held: true, ..hello(site, &token) };
    let mut reader = world.session(site, &token, says.clone()).await;
    let mut replica = Replica::default();
    let scope = reader.subscribe(1, UNITED, None).await;
    reader.catch_up(&mut replica).await;
    assert_eq!(replica.ids(), ["a", "b"]);
    drop(reader);

    let lsn = writer.write(2, author.delete("a")).await;
    world.store.wait_for(lsn).await.unwrap();
    let tables = world.store.writer().await.unwrap();
    tables.flush().await.unwrap();
    tables.compact(&flights(), bigpeer_tables::Extent::Full).await.unwrap();
    tables.forget_deletions().await.unwrap();
    assert_eq!(world.store.snapshot().forgotten(&flights()), lsn);
    writer.write(3, author.edit(&flights(), &[("c", Edit::flight("UA"))])).await;

    let mut reader = world.session(site, &token, says).await;
    let since = pb::Resume { lsn: Some(replica.through.into()), scope, ..Default::default() };
    reader.subscribe(1, UNITED, Some(since)).await;
    let resumed = resume(&mut reader, &mut replica).await;
    assert!(resumed.resynced, "{resumed:?}");
    assert_eq!(replica.ids(), ["b", "c"], "what nobody remembers to have been deleted is gone all the same");
}
