//! Peers of before `reached`: they do not know `Page.reached`, which they skip as any field that they do not know, and send no
//! `Subscribe.reached`. Wherever they break off, they go on from their cursor or position, and miss nothing.

use bigpeer_crdt::Value;
use bigpeer_protocol::pb::{self, FromGateway};
use bigpeer_types::{Lsn, SiteId};
use bytes::Bytes;

use crate::resume::{UNITED, world};
use crate::world::{Author, Client, Edit, Replica, SEVERAL_PAGES, World, flights, hello};

/// Such a peer, with what it keeps of its one subscription.
struct Older<'w> {
    world: &'w World,
    login: (SiteId, String),
    scope: u64,
    replica: Replica,
    /// A first sync that is not complete: its last page's snapshot and position.
    page: Option<(Lsn, Bytes)>,
    cursor: Option<Lsn>,
}

impl<'w> Older<'w> {
    async fn new(world: &'w World) -> Self {
        let (login, replica) = (world.login("all").await, Replica::default());
        Self { world, login, scope: 0, replica, page: None, cursor: None }
    }

    /// Connects, and breaks off after so many pages, or when it has caught up; says whether it has. The pages come one by one.
    async fn attempt(&mut self, pages: usize) -> bool {
        let (site, token) = (self.login.0, &self.login.1);
        let mut client: Client = self.world.session(site, token, pb::Hello { credit: 1, ..hello(site, token) }).await;
        let resume = match (&self.page, self.cursor) {
            (Some((snapshot, position)), _) => Some((*snapshot, position.clone())),
            (None, Some(cursor)) => Some((cursor, Bytes::new())),
            (None, None) => None,
        };
        let scope = self.scope;
        let resume = resume.map(|(lsn, position)| pb::Resume { lsn: Some(lsn.into()), position, scope });
        self.scope = client.subscribe(1, UNITED, resume).await;
        let mut taken = 0;
        while taken < pages {
            let mut message = client.next().await;
            assert!(!matches!(message, FromGateway::Resync(_) | FromGateway::Close(_)), "{message:?}");
            if let FromGateway::Changes(pb::Changes { page: Some(page), .. }) = &mut message {
                page.reached.clear();
                if !page.position.is_empty() {
                    self.page = Some((page.snapshot.unwrap().into(), page.position.clone()));
                }
                taken += 1;
                client.send(pb::Credit { bytes: if taken < pages { 1 << 20 } else { 0 } }).await;
            }
            self.replica.apply(&message);
            if let FromGateway::CaughtUp(caught_up) = &message {
                (self.page, self.cursor) = (None, Some(caught_up.lsn.unwrap().into()));
                return true;
            }
        }
        false
    }
}

fn name(number: usize) -> String {
    format!("f{number:06}")
}

/// What happens while a peer is away: on both sides of wherever it broke off some are edited, some leave, some are deleted, some
/// come back, some are new.
async fn meanwhile(writer: &mut Client, author: &mut Author, seq: &mut u64) {
    let n = usize::try_from(*seq).unwrap();
    let (low, high) = (n * 3, SEVERAL_PAGES - 1 - n * 3);
    let carrier = |carrier: &str| Edit::Set("carrier", Value::String(carrier.into()));
    let gate = || Edit::Set("gate", Value::String("Y2".into()));
    let names = [name(low), name(low + 1), name(low + 2), name(high), name(high - 1), name(high - 2)];
    let new = [name(low) + "new", name(high) + "new"];
    let before = [name(low.saturating_sub(3)), name((high + 3).min(SEVERAL_PAGES - 1))];
    let mut edits = vec![
        (names[0].as_str(), carrier("DL")),
        (names[1].as_str(), Edit::Delete),
        (names[2].as_str(), gate()),
        (names[3].as_str(), carrier("DL")),
        (names[4].as_str(), Edit::Delete),
        (names[5].as_str(), gate()),
        (new[0].as_str(), Edit::flight("UA")),
        (new[1].as_str(), Edit::flight("UA")),
    ];
    // What left the time before comes back.
    if *seq > 3 {
        edits.extend(before.iter().map(|name| (name.as_str(), carrier("UA"))));
    }
    *seq += 1;
    writer.write(*seq, author.edit(&flights(), &edits)).await;
}

/// Sets a field of all flights.
async fn touch_all(writer: &mut Client, author: &mut Author, seq: &mut u64) {
    let names: Vec<String> = (0..SEVERAL_PAGES).map(name).collect();
    let set = || Edit::Set("gate", Value::String("X1".into()));
    let edits: Vec<(&str, Edit)> = names.iter().map(|name| (name.as_str(), set())).collect();
    *seq += 1;
    writer.write(*seq, author.edit(&flights(), &edits)).await;
}

async fn cut_in_the_middle(forgetful: bool, flushed: bool) {
    let world = world(forgetful).await;
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    let mut seq = 1;
    writer.write(seq, author.many(0..SEVERAL_PAGES, "UA")).await;
    let flush = async || {
        if flushed {
            let head = world.head().await;
            world.store.wait_for(head).await.unwrap();
            world.store.writer().await.unwrap().flush().await.unwrap();
        }
    };
    flush().await;
    let mut peer = Older::new(&world).await;
    // Its first sync, cut where it is new, where it goes on, and in what had changed of what it had.
    assert!(!peer.attempt(1).await);
    assert!(peer.page.is_some() && peer.replica.documents.len() < SEVERAL_PAGES);
    touch_all(&mut writer, &mut author, &mut seq).await;
    flush().await;
    assert!(!peer.attempt(1).await);
    meanwhile(&mut writer, &mut author, &mut seq).await;
    flush().await;
    assert!(!peer.attempt(2).await);
    meanwhile(&mut writer, &mut author, &mut seq).await;
    assert!(peer.attempt(usize::MAX).await);
    check(&world, &peer).await;

    // And a resume, cut twice.
    touch_all(&mut writer, &mut author, &mut seq).await;
    meanwhile(&mut writer, &mut author, &mut seq).await;
    flush().await;
    let cursor = peer.cursor;
    assert!(!peer.attempt(1).await && peer.cursor == cursor && peer.page.is_none());
    meanwhile(&mut writer, &mut author, &mut seq).await;
    flush().await;
    assert!(!peer.attempt(2).await && peer.cursor == cursor && peer.page.is_none());
    meanwhile(&mut writer, &mut author, &mut seq).await;
    assert!(peer.attempt(usize::MAX).await);
    check(&world, &peer).await;
}

/// It has what somebody has who starts now.
async fn check(world: &World, peer: &Older<'_>) {
    let (mut client, mut truth) = (world.client().await, Replica::default());
    client.subscribe(1, UNITED, None).await;
    client.catch_up(&mut truth).await;
    assert_eq!(peer.replica.ids(), truth.ids());
    assert_eq!(peer.replica.documents, truth.documents);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_peer_that_is_cut_off_misses_nothing_from_the_tail() {
    cut_in_the_middle(false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_peer_that_is_cut_off_misses_nothing_from_the_overlay() {
    cut_in_the_middle(true, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_peer_that_is_cut_off_misses_nothing_from_segments() {
    cut_in_the_middle(true, true).await;
}
