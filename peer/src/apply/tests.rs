//! Batches against a store, without a session: that they are whole, and how fast they are.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_protocol::{PeerEffect, pb};
use bigpeer_types::{Hlc, HlcClock, Lsn, SiteId, SystemClock};

use super::*;
use crate::PeerSettings;
use crate::signals::Signals;
use crate::store::{Durability, Store};

fn open(dir: &Path) -> (Store, Arc<Signals>) {
    let signals = Arc::new(Signals::new());
    (Store::open(dir, Arc::clone(&signals)).expect("opens"), signals)
}

async fn subscribe(store: &Store) -> (SubscriptionId, SessionIds) {
    let query = "SELECT * FROM cars";
    let subscribe = |work: &mut Work<'_>| work.add_subscription(query, "");
    let (id, _) = store.write(Durability::Power, subscribe).await.expect("subscribes");
    let evaluation = evaluation();
    store.write(Durability::Power, move |work| prepare(work, &[id], &evaluation)).await.expect("prepares");
    (id, [(1, id)].into_iter().collect())
}

fn evaluation() -> Evaluation {
    Evaluation::new(&PeerSettings::new("unused"))
}

async fn apply_to(store: &Store, effects: Vec<PeerEffect>, ids: &SessionIds) -> Result<Applied, PeerError> {
    let (ids, evaluation) = (ids.clone(), evaluation());
    store.write(Durability::Process, move |work| apply(work, effects, &ids, &evaluation)).await
}

fn document(clock: &mut HlcClock, number: i64, fields: usize) -> Vec<u8> {
    let names = (0..fields).map(|field| (format!("a_field_{field}"), Value::from(format!("a value of {number}"))));
    let object: Object = names.collect();
    let mut editor = Editor::new(&Document::new(), clock);
    editor.insert(&object, ObjectMode::Map).expect("shallow");
    editor.finish().expect("a change").encode()
}

fn page(numbers: std::ops::Range<i64>, clock: &mut HlcClock, fields: usize) -> PeerEffect {
    let state = |number: i64| pb::State {
        id: DocId::from_value(&Value::Int(number)).expect("an id").as_key().to_vec().into(),
        state: document(clock, number, fields).into(),
        lsn: Some(Lsn::new(1, 0).into()),
        subscriptions: Vec::new(),
    };
    let states: Vec<pb::State> = numbers.map(state).collect();
    let page = pb::Page {
        subscriptions: vec![1],
        collection: "cars".to_owned(),
        snapshot: Some(Lsn::new(5, 0).into()),
        position: states.last().map(|state| state.id.clone()).unwrap_or_default(),
        states,
        ..pb::Page::default()
    };
    let changes = pb::Changes { page: Some(page), ..pb::Changes::default() };
    PeerEffect::Apply { changes, bytes: 0 }
}

fn caught_up(version: u64) -> PeerEffect {
    PeerEffect::CaughtUp { subscriptions: vec![1], lsn: Lsn::new(version, 0) }
}

fn clock() -> HlcClock {
    HlcClock::new(SiteId::new(9), Hlc::ZERO, Arc::new(SystemClock))
}

async fn count(store: &Store) -> usize {
    let counting = |tables: &crate::store::Tables<'_>| {
        let mut count = 0;
        if let Some(number) = tables.collection_number(&CollectionName::new("cars").expect("valid"))? {
            tables.scan_documents(number, |_, _| {
                count += 1;
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(count)
    };
    store.read(counting).await.expect("reads")
}

#[tokio::test]
async fn a_batch_is_stored_whole_with_its_cursor_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, signals) = open(dir.path());
    let (id, ids) = subscribe(&store).await;
    let mut clock = clock();
    apply_to(&store, vec![page(0..10, &mut clock, 2)], &ids).await.expect("applies");
    let mut broken = page(20..30, &mut clock, 2);
    if let PeerEffect::Apply { changes, .. } = &mut broken {
        let page = changes.page.as_mut().expect("a page");
        page.states[5].state = bytes::Bytes::from_static(b"not a state");
    }
    let bad = apply_to(&store, vec![page(10..20, &mut clock, 2), broken, caught_up(5)], &ids).await;
    assert!(matches!(bad, Err(PeerError::Protocol(_))), "{bad:?}");
    assert_eq!(count(&store).await, 10);
    let stored = store.read(move |tables| tables.subscription(id)).await.expect("reads").expect("there");
    assert_eq!((stored.cursor, stored.page.map(|page| page.0)), (None, Some(Lsn::new(5, 0))));
    assert!(!signals.status.borrow().subscriptions[&id].caught_up);

    apply_to(&store, vec![page(10..20, &mut clock, 2), caught_up(5)], &ids).await.expect("applies");
    assert_eq!(count(&store).await, 20);
    let stored = store.read(move |tables| tables.subscription(id)).await.expect("reads").expect("there");
    assert_eq!((stored.cursor, stored.page), (Some(Lsn::new(5, 0)), None));
    assert!(signals.status.borrow().subscriptions[&id].caught_up);
}

#[tokio::test]
async fn how_far_a_broken_catch_up_came_is_kept_until_it_is_complete() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _signals) = open(dir.path());
    let (id, ids) = subscribe(&store).await;
    let mut clock = clock();
    let key = |number: i64| DocId::from_value(&Value::Int(number)).expect("an id").as_key().to_vec();
    let reached = |number: i64, version: u64| {
        let page = pb::Page {
            subscriptions: vec![1],
            collection: "cars".to_owned(),
            snapshot: Some(Lsn::new(version, 0).into()),
            reached: key(number).into(),
            ..pb::Page::default()
        };
        PeerEffect::Apply { changes: pb::Changes { page: Some(page), ..pb::Changes::default() }, bytes: 0 }
    };
    let ready = || async {
        let evaluation = evaluation();
        let prepare = move |work: &mut Work<'_>| prepare(work, &[id], &evaluation);
        let ready = store.write(Durability::Power, prepare).await.expect("prepares").pop().expect("one");
        let short = |(key, lsn): (bytes::Bytes, Lsn)| (key.to_vec(), lsn.version);
        (ready.subscription, ready.reached.into_iter().map(short).collect::<Vec<_>>())
    };
    // Ahead of a cursor.
    apply_to(&store, vec![caught_up(5), reached(70, 6)], &ids).await.expect("applies");
    assert_eq!((ready().await.0.cursor, ready().await.1), (Some(Lsn::new(5, 0)), vec![(key(70), 6)]));
    apply_to(&store, vec![reached(10, 7), reached(20, 7)], &ids).await.expect("applies");
    assert_eq!(ready().await.1, [(key(20), 7), (key(70), 6)]);
    apply_to(&store, vec![reached(15, 8), reached(12, 9)], &ids).await.expect("applies");
    assert_eq!(ready().await.1, [(key(12), 9), (key(15), 8), (key(20), 7), (key(70), 6)]);
    apply_to(&store, vec![reached(11, 10)], &ids).await.expect("applies");
    let bounded = [(key(11), 10), (key(15), 8), (key(20), 7), (key(70), 6)];
    assert_eq!(ready().await.1, bounded, "what was between is as old as what comes after it");
    apply_to(&store, vec![reached(80, 11)], &ids).await.expect("applies");
    assert_eq!(ready().await.1, [(key(80), 11)]);
    apply_to(&store, vec![caught_up(11)], &ids).await.expect("applies");
    assert_eq!((ready().await.0.cursor, ready().await.1), (Some(Lsn::new(11, 0)), vec![]));
    // A gateway that does not know of it, and is behind: what had come back by then may be dropped by its page.
    let older = |version: u64| {
        let page = pb::Page {
            subscriptions: vec![1],
            collection: "cars".to_owned(),
            snapshot: Some(Lsn::new(version, 0).into()),
            ..pb::Page::default()
        };
        PeerEffect::Apply { changes: pb::Changes { page: Some(page), ..pb::Changes::default() }, bytes: 0 }
    };
    apply_to(&store, vec![reached(60, 14), reached(30, 16), older(15)], &ids).await.expect("applies");
    assert_eq!(ready().await.1, [(key(60), 14)]);
    apply_to(&store, vec![older(15), older(14)], &ids).await.expect("applies");
    assert_eq!(ready().await.1, [(key(60), 14)]);
    // Ahead of a page of a first sync, and not of the next.
    let resync = PeerEffect::Resync { subscriptions: vec![1] };
    apply_to(&store, vec![reached(90, 12), resync], &ids).await.expect("applies");
    assert_eq!((ready().await.0.cursor, ready().await.1), (None, vec![]));
    apply_to(&store, vec![page(0..10, &mut clock, 1), reached(4, 6)], &ids).await.expect("applies");
    let (subscription, ahead) = ready().await;
    assert_eq!((subscription.page, ahead), (Some((Lsn::new(5, 0), key(9).into())), vec![(key(4), 6)]));
    apply_to(&store, vec![page(10..20, &mut clock, 1)], &ids).await.expect("applies");
    assert_eq!(ready().await.1, []);
}

#[tokio::test]
async fn a_subscription_that_is_put_back_is_not_caught_up_and_its_cursor_stands_still_until_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, signals) = open(dir.path());
    let (id, ids) = subscribe(&store).await;
    let mut clock = clock();
    let through = |version: u64| {
        let changes = pb::Changes { through: Some(Lsn::new(version, 0).into()), ..pb::Changes::default() };
        PeerEffect::Apply { changes, bytes: 0 }
    };
    let unpositioned = |clock: &mut HlcClock| {
        let mut page = page(0..1, clock, 1);
        if let PeerEffect::Apply { changes, .. } = &mut page {
            changes.page.as_mut().expect("a page").position = bytes::Bytes::new();
        }
        page
    };
    let status = || {
        let status = signals.status.borrow().subscriptions[&id].clone();
        (status.cursor, status.caught_up)
    };
    apply_to(&store, vec![caught_up(5), through(6), unpositioned(&mut clock)], &ids).await.expect("applies");
    assert_eq!(status(), (Some(Lsn::new(6, 0)), false), "what is here is newer than the cursor");
    apply_to(&store, vec![through(7)], &ids).await.expect("applies");
    assert_eq!(status(), (Some(Lsn::new(6, 0)), false), "this was said to others");
    apply_to(&store, vec![caught_up(8), through(9)], &ids).await.expect("applies");
    assert_eq!(status(), (Some(Lsn::new(9, 0)), true));
}

#[tokio::test]
async fn subscriptions_that_catch_up_one_after_the_other_do_not_keep_what_left_both() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _signals) = open(dir.path());
    let (first, mut ids) = subscribe(&store).await;
    let query = "SELECT * FROM cars WHERE a_field_0 IS NOT MISSING";
    let (second, _) =
        store.write(Durability::Power, move |work| work.add_subscription(query, "")).await.expect("subscribes");
    assert_ne!(first, second);
    ids.insert(2, second);
    let mut clock = clock();
    let both_live = PeerEffect::CaughtUp { subscriptions: vec![1, 2], lsn: Lsn::new(5, 0) };
    apply_to(&store, vec![page(0..3, &mut clock, 1), both_live], &ids).await.expect("applies");
    assert_eq!(count(&store).await, 3);

    // Both are put back; meanwhile the document 1 left both, the document 2 only the first.
    let left = |subscription: u32, numbers: &[i64]| {
        let key = |number: &i64| DocId::from_value(&Value::Int(*number)).expect("an id").as_key().to_vec().into();
        let left = numbers.iter().map(|number| pb::LeftKey { id: key(number), ..pb::LeftKey::default() }).collect();
        let page = pb::Page {
            subscriptions: vec![subscription],
            collection: "cars".to_owned(),
            snapshot: Some(Lsn::new(8, 0).into()),
            left,
            ..pb::Page::default()
        };
        PeerEffect::Apply { changes: pb::Changes { page: Some(page), ..pb::Changes::default() }, bytes: 0 }
    };
    let live = |subscription: u32| PeerEffect::CaughtUp { subscriptions: vec![subscription], lsn: Lsn::new(8, 0) };
    let mut sent_again = page(2..3, &mut clock, 1);
    if let PeerEffect::Apply { changes, .. } = &mut sent_again {
        changes.page.as_mut().expect("a page").subscriptions = vec![2];
    }
    apply_to(&store, vec![left(2, &[]), left(1, &[1, 2]), live(1)], &ids).await.expect("applies");
    apply_to(&store, vec![left(2, &[1]), sent_again, live(2)], &ids).await.expect("applies");
    assert_eq!(count(&store).await, 2, "the documents 0 and 2");
}

/// Makes a local change of the document, as the first that is pushed: its first `fields` become those of `like`.
async fn change_locally(store: &Store, number: i64, like: i64, fields: usize, clock: &mut HlcClock) {
    let cars = CollectionName::new("cars").expect("valid");
    let id = DocId::from_value(&Value::Int(number)).expect("an id");
    let delta = Document::decode(&document(clock, like, fields)).expect("a state");
    let mut transaction = TransactionBuilder::new();
    transaction.change(&cars, &id, &delta);
    let payload = transaction.finish().expect("a transaction");
    let change = move |work: &mut Work<'_>| {
        let number = work.number_of(&cars)?;
        if !work.insert_document(number, id.as_key(), &delta.encode())? {
            let mut document = decode(&work.tables().document(number, id.as_key())?.expect("there"))?;
            document.join_encoded(&delta.encode()).expect("a state");
            work.put_document(number, id.as_key(), &document.encode())?;
        }
        work.add_unpushed(&payload)
    };
    assert_eq!(store.write(Durability::Power, change).await.expect("stores"), 1);
}

#[tokio::test]
async fn what_a_first_sync_does_not_name_goes_when_the_local_changes_to_it_have_come_through() {
    for resync in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, _signals) = open(dir.path());
        let mut clock = clock();
        if !resync {
            // Here before there is a subscription.
            change_locally(&store, 1, 1, 2, &mut clock).await;
        }
        let (_id, ids) = subscribe(&store).await;
        if resync {
            apply_to(&store, vec![page(0..3, &mut clock, 1), caught_up(5)], &ids).await.expect("applies");
            change_locally(&store, 1, 1, 2, &mut clock).await;
            apply_to(&store, vec![PeerEffect::Resync { subscriptions: vec![1] }], &ids).await.expect("applies");
        }
        apply_to(&store, vec![caught_up(5)], &ids).await.expect("applies");
        assert_eq!(count(&store).await, 1, "the outcome of the change will tell");
        let through = |version: u64| {
            let changes = pb::Changes { through: Some(Lsn::new(version, 0).into()), ..pb::Changes::default() };
            PeerEffect::Apply { changes, bytes: 0 }
        };
        let accepted = PeerEffect::Accepted { seq: 1, lsn: Lsn::new(7, 0) };
        apply_to(&store, vec![through(6), accepted], &ids).await.expect("applies");
        assert_eq!(count(&store).await, 1);
        apply_to(&store, vec![through(7)], &ids).await.expect("applies");
        assert_eq!(count(&store).await, 0, "it matched nothing by then, and nobody will say so again ({resync})");
    }
}

#[tokio::test]
async fn a_document_that_a_local_change_moved_between_subscriptions_is_asked_for_again_when_one_starts_over() {
    // How far the other subscription, which is resynchronized too, has come by then.
    for is_complete in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, _signals) = open(dir.path());
        let query = |value: i64| format!("SELECT * FROM cars WHERE a_field_0 = 'a value of {value}'");
        let (from, to) = (query(1), query(9));
        let subscribe =
            move |work: &mut Work<'_>| Ok((work.add_subscription(&from, "")?.0, work.add_subscription(&to, "")?.0));
        let (from, to) = store.write(Durability::Power, subscribe).await.expect("subscribes");
        let (ids, mut clock) = ([(1, from), (2, to)].into_iter().collect(), clock());
        let both_live = PeerEffect::CaughtUp { subscriptions: vec![1, 2], lsn: Lsn::new(5, 0) };
        let page_of_document = page(1..2, &mut clock, 2);
        apply_to(&store, vec![page_of_document.clone(), both_live], &ids).await.expect("applies");
        change_locally(&store, 1, 9, 1, &mut clock).await;

        let mut effects = vec![PeerEffect::Resync { subscriptions: vec![1] }];
        effects.push(page_of_document.clone());
        effects.extend(is_complete.then(|| caught_up(6)));
        effects.push(PeerEffect::Resync { subscriptions: vec![2] });
        effects.push(PeerEffect::CaughtUp { subscriptions: vec![2], lsn: Lsn::new(6, 0) });
        let applied = apply_to(&store, effects, &ids).await.expect("applies");
        assert_eq!(applied.start_over, [from, to].into_iter().collect(), "complete: {is_complete}");

        let both_live = PeerEffect::CaughtUp { subscriptions: vec![1, 2], lsn: Lsn::new(6, 0) };
        let applied = apply_to(&store, vec![page_of_document, both_live], &ids).await.expect("applies");
        assert!(applied.start_over.is_empty(), "complete: {is_complete}");
        let cars = CollectionName::new("cars").expect("valid");
        let id = DocId::from_value(&Value::Int(1)).expect("an id");
        let key = id.as_key().to_vec();
        let read = move |tables: &crate::store::Tables<'_>| {
            let number = tables.collection_number(&cars)?.expect("a collection");
            tables.document(number, &key)
        };
        let state = decode(&store.read(read).await.expect("reads").expect("there")).expect("decodes");
        let fields = state.to_object();
        let field = |name: &str| fields.get(name).cloned();
        assert_eq!(field("a_field_0"), Some(Value::from("a value of 9")), "complete: {is_complete}");
        assert_eq!(field("a_field_1"), Some(Value::from("a value of 1")), "complete: {is_complete}");
    }
}

#[tokio::test]
async fn what_may_not_be_read_any_more_goes_with_its_subscription() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, signals) = open(dir.path());
    let (id, mut ids) = subscribe(&store).await;
    let query = "SELECT * FROM cars WHERE a_field_0 = 'a value of 1'";
    let (second, _) =
        store.write(Durability::Power, move |work| work.add_subscription(query, "")).await.expect("subscribes");
    ids.insert(2, second);
    let mut clock = clock();
    let both_live = PeerEffect::CaughtUp { subscriptions: vec![1, 2], lsn: Lsn::new(5, 0) };
    apply_to(&store, vec![page(0..4, &mut clock, 1), both_live], &ids).await.expect("applies");
    change_locally(&store, 3, 3, 2, &mut clock).await;
    let refused = |id: u32, code: pb::RefuseCode| {
        PeerEffect::Refused(pb::Refused { id, code: code.into(), message: "no".to_owned() })
    };
    apply_to(&store, vec![refused(1, pb::RefuseCode::RefuseLimit)], &ids).await.expect("applies");
    assert_eq!(count(&store).await, 4, "that is no reason");
    apply_to(&store, vec![refused(1, pb::RefuseCode::RefuseForbidden)], &ids).await.expect("applies");
    assert_eq!(count(&store).await, 2, "another one matches 1, and 3 has a change that was not answered");
    let stored = store.read(move |tables| tables.subscription(id)).await.expect("reads").expect("there");
    assert_eq!((stored.cursor, stored.page), (None, None), "what is not here cannot be resumed from");
    assert_eq!(signals.status.borrow().subscriptions[&id].cursor, None);
    let through = pb::Changes { through: Some(Lsn::new(8, 0).into()), ..pb::Changes::default() };
    let accepted = PeerEffect::Accepted { seq: 1, lsn: Lsn::new(7, 0) };
    let come_through = vec![accepted, PeerEffect::Apply { changes: through, bytes: 0 }];
    apply_to(&store, come_through, &ids).await.expect("applies");
    assert_eq!(count(&store).await, 1);
}

#[tokio::test]
async fn the_clock_moves_past_what_was_seen() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _signals) = open(dir.path());
    let (_id, ids) = subscribe(&store).await;
    let mut clock = clock();
    apply_to(&store, vec![page(0..1, &mut clock, 1)], &ids).await.expect("applies");
    assert_eq!(store.read(|tables| tables.clock()).await.expect("reads"), clock.last());
}

/// `cargo test --release -p bigpeer-peer -- --ignored --nocapture rate_of_a_first_sync`
#[tokio::test]
#[ignore = "a measurement"]
async fn rate_of_a_first_sync() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _signals) = open(dir.path());
    let (_id, ids) = subscribe(&store).await;
    let mut clock = clock();
    let (pages, per_page) = (400, 1000);
    let made: Vec<PeerEffect> = (0..pages).map(|at| page(at * per_page..(at + 1) * per_page, &mut clock, 10)).collect();
    let bytes = document(&mut clock, 1, 10).len();
    let before = bigpeer_types::Clock::monotonic(&SystemClock);
    let mut made = made.into_iter().peekable();
    while made.peek().is_some() {
        apply_to(&store, made.by_ref().take(20).collect(), &ids).await.expect("applies");
    }
    apply_to(&store, vec![caught_up(6)], &ids).await.expect("applies");
    let took = bigpeer_types::Clock::monotonic(&SystemClock).saturating_sub(before);
    let documents = pages * per_page;
    println!("{documents} documents of {bytes} bytes in {took:?}: {:.0}/s", documents as f64 / took.as_secs_f64());
}
