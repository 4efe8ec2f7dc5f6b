//! Every checker sees what it is there to see: a checker that cannot fail checks nothing.

use std::sync::Arc;

use bigpeer_crdt::{Editor, ObjectMode, TransactionBuilder, Value};
use bigpeer_log::{AppendEntry, LogEntry, MemoryLog};
use bigpeer_types::{Hlc, HlcClock, ManualClock};
use bytes::Bytes;

use super::*;
use crate::select;

const SITE: SiteId = SiteId::new(7);

fn place(id: &str) -> Place {
    (CollectionName::new("items").unwrap(), DocId::from_value(&Value::String(id.into())).unwrap())
}

/// A site that writes to a truth.
struct Author {
    clock: HlcClock,
    truth: Truth,
}

impl Author {
    fn new() -> Self {
        let clock = HlcClock::new(SITE, Hlc::ZERO, Arc::new(ManualClock::new(1_000_000)));
        Self { clock, truth: Truth::default() }
    }

    fn payload(&mut self, id: &str, edit: impl Fn(&mut Editor<'_>)) -> Bytes {
        let place = place(id);
        let document =
            self.truth.document(&place, Lsn::MAX).map_or_else(Document::new, |document| (**document).clone());
        let mut editor = Editor::new(&document, &mut self.clock);
        edit(&mut editor);
        let mut transaction = TransactionBuilder::new();
        transaction.change(&place.0, &place.1, &editor.finish().unwrap());
        transaction.finish().unwrap()
    }

    fn write(&mut self, id: &str, edit: impl Fn(&mut Editor<'_>)) -> Lsn {
        let payload = self.payload(id, edit);
        let seq = self.truth.last_seq(SITE) + 1;
        let lsn = Lsn::new(seq * 10, 0);
        self.truth.add(LogEntry { lsn, site: SITE, seq, payload }).unwrap();
        lsn
    }

    fn set(&mut self, id: &str, realm: &str) -> Lsn {
        self.write(id, |editor| editor.set(&["realm"], Value::String(realm.into()), ObjectMode::Map).unwrap())
    }

    fn held(&self, ids: &[&str]) -> Held {
        let shown = ids.iter().map(|id| place(id));
        shown.map(|place| (place.clone(), self.truth.document(&place, Lsn::MAX).unwrap().to_object())).collect()
    }
}

fn check_reader(
    author: &Author,
    held: &Held,
    cursor: Lsn,
    check: fn(&Truth, &Reader<'_>) -> Result<(), Violation>,
) -> Option<Checker> {
    let subscriptions = [Subscribed { plan: select("SELECT * FROM items WHERE realm = 'a'"), cursor: Some(cursor) }];
    let readable = [Readable::Matching([(place("").0, vec![select("SELECT * FROM items WHERE realm != 'c'")])].into())];
    let dirty = BTreeSet::new();
    let reader = Reader {
        name: "peer",
        site: None,
        subscriptions: &subscriptions,
        held,
        dirty: &dirty,
        late: &dirty,
        readable: &readable,
    };
    check(&author.truth, &reader).err().map(|violation| violation.checker)
}

#[test]
fn a_cut_that_is_older_newer_or_has_more_is_seen() {
    let mut author = Author::new();
    author.set("one", "a");
    let old = author.held(&["one"]);
    let before = author.set("two", "a");
    author.write("one", |editor| editor.set(&["body"], Value::Int(1), ObjectMode::Map).unwrap());
    let now = author.set("three", "b");
    let right = author.held(&["one", "two"]);
    assert_eq!(check_reader(&author, &right, now, check_cut), None);
    assert_eq!(check_reader(&author, &right, before, check_cut), Some(Checker::OneCut), "newer than the cursor");
    assert_eq!(check_reader(&author, &author.held(&["one"]), now, check_cut), Some(Checker::OneCut), "less");
    let mut stale = right.clone();
    stale.extend(old);
    assert_eq!(check_reader(&author, &stale, now, check_cut), Some(Checker::OneCut), "one document is older");
    let more = author.held(&["one", "two", "three"]);
    assert_eq!(check_reader(&author, &more, now, check_cut), Some(Checker::LeftIsGone), "more");
}

#[test]
fn what_may_not_be_read_is_seen() {
    let mut author = Author::new();
    author.set("one", "a");
    let readable = author.held(&["one"]);
    let now = author.set("one", "c");
    assert_eq!(check_reader(&author, &readable, now, check_permitted), None, "it could be read then");
    assert_eq!(check_reader(&author, &author.held(&["one"]), now, check_permitted), Some(Checker::Permitted));
}

#[test]
fn a_transaction_that_stands_twice_is_seen() {
    let mut author = Author::new();
    author.set("one", "a");
    let payload = author.payload("one", |editor| editor.delete());
    let again = |seq, version| LogEntry { lsn: Lsn::new(version, 0), site: SITE, seq, payload: payload.clone() };
    assert_eq!(author.truth.add(again(1, 20)).unwrap_err().checker, Checker::NothingTwice);
    assert_eq!(author.truth.add(again(3, 20)).unwrap_err().checker, Checker::NothingTwice, "a gap");
    assert_eq!(author.truth.add(again(2, 10)).unwrap_err().checker, Checker::NothingTwice, "not later");
    assert!(author.truth.add(again(2, 20)).is_ok());
}

#[test]
fn an_increment_that_counts_twice_or_not_at_all_is_seen() {
    let mut author = Author::new();
    for _ in 0..2 {
        author.write("one", |editor| editor.increment(&["n"], 5).unwrap());
    }
    let check = |seqs: &[(u64, i64)]| {
        let increments: Vec<_> = seqs.iter().map(|(seq, by)| (SITE, *seq, place("one"), *by)).collect();
        check_counters(&author.truth, "n", &increments).err().map(|violation| violation.checker)
    };
    assert_eq!(check(&[(1, 5), (2, 5)]), None);
    assert_eq!(check(&[(1, 5), (2, 5), (3, 5)]), None, "the third is not in the log");
    assert_eq!(check(&[(1, 5)]), Some(Checker::NothingTwice));
    assert_eq!(check(&[(1, 5), (2, 6)]), Some(Checker::NothingTwice));
}

#[test]
fn outcomes_that_are_not_those_of_the_log_are_seen() {
    let mut author = Author::new();
    author.set("one", "a");
    let check = |acknowledged, rejected: &[u64]| {
        let rejected = rejected.iter().copied().collect();
        check_outcomes(&author.truth, "peer", SITE, acknowledged, &rejected).err().map(|violation| violation.checker)
    };
    assert_eq!(check(1, &[]), None);
    assert_eq!(check(2, &[]), Some(Checker::NothingLost));
    assert_eq!(check(1, &[1]), Some(Checker::NothingLost), "it was not rejected");
}

#[test]
fn the_dead_are_seen() {
    let mut author = Author::new();
    author.set("one", "a");
    let held = author.held(&["one"]);
    author.write("one", |editor| editor.delete());
    let dead = [(SITE, 2, place("one"))];
    assert!(check_dead(&author.truth, &dead, &[("peer", &Held::new())]).is_ok());
    let seen = check_dead(&author.truth, &dead, &[("peer", &held)]).unwrap_err();
    assert_eq!(seen.checker, Checker::DeadStayDead);
    author.set("one", "b");
    assert_eq!(check_dead(&author.truth, &dead, &[]).unwrap_err().checker, Checker::DeadStayDead);
}

#[test]
fn a_store_with_another_state_is_seen() {
    let mut author = Author::new();
    author.set("one", "a");
    let state = |author: &Author| (**author.truth.document(&place("one"), Lsn::MAX).unwrap()).clone();
    let older = BTreeMap::from([(place("one"), state(&author))]);
    assert!(check_store(&author.truth, "store", &older).is_ok());
    author.set("one", "b");
    let check =
        |stored: &BTreeMap<Place, Document>| check_store(&author.truth, "store", stored).map_err(|seen| seen.checker);
    assert_eq!(check(&older), Err(Checker::Convergence));
    assert_eq!(check(&BTreeMap::new()), Err(Checker::Convergence));
    let stranger = BTreeMap::from([(place("one"), state(&author)), (place("two"), state(&author))]);
    assert_eq!(check(&stranger), Err(Checker::Convergence));
}

#[tokio::test]
async fn a_log_that_forgot_or_changed_something_is_seen() {
    let app = AppId::new("app").unwrap();
    let mut author = Author::new();
    let payloads: Vec<Bytes> =
        ["one", "two"].iter().map(|id| author.payload(id, |editor| editor.increment(&["n"], 1).unwrap())).collect();
    let entry = |seq: u64, payload: &Bytes| AppendEntry {
        site: SITE,
        seq,
        writes: Vec::new(),
        unchanged: Vec::new(),
        payload: payload.clone(),
    };
    let log = MemoryLog::new();
    log.append(&app, vec![entry(1, &payloads[0])]).await.unwrap();
    log.append(&app, vec![entry(2, &payloads[1])]).await.unwrap();
    author.truth.follow(&log, &app).await.unwrap();
    assert!(check_log(&author.truth, &log, &app).await.is_ok());
    let forgetful = MemoryLog::new();
    forgetful.append(&app, vec![entry(1, &payloads[0])]).await.unwrap();
    assert_eq!(check_log(&author.truth, &forgetful, &app).await.unwrap_err().checker, Checker::NothingLost);
    forgetful.append(&app, vec![entry(2, &payloads[0])]).await.unwrap();
    assert_eq!(check_log(&author.truth, &forgetful, &app).await.unwrap_err().checker, Checker::NothingLost);
}
