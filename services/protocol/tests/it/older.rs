//! Messages of before `reached`, as the bytes that they are: who does not know the field skips it, who knows it does without.

#![allow(clippy::unwrap_used, reason = "a test fails where it finds something wrong")]

use bigpeer_protocol::pb;
use prost::Message;

/// `Subscribe` as it was.
#[derive(Clone, PartialEq, Message)]
struct OldSubscribe {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(string, tag = "2")]
    query: String,
    #[prost(string, tag = "3")]
    arguments_json: String,
    #[prost(message, optional, tag = "4")]
    resume: Option<pb::Resume>,
}

/// `Page` as it was.
#[derive(Clone, PartialEq, Message)]
struct OldPage {
    #[prost(uint32, repeated, tag = "1")]
    subscriptions: Vec<u32>,
    #[prost(string, tag = "2")]
    collection: String,
    #[prost(message, optional, tag = "3")]
    snapshot: Option<pb::Lsn>,
    #[prost(message, repeated, tag = "4")]
    states: Vec<pb::State>,
    #[prost(message, repeated, tag = "5")]
    left: Vec<pb::LeftKey>,
    #[prost(bytes = "vec", tag = "6")]
    position: Vec<u8>,
    #[prost(fixed64, tag = "7")]
    clock: u64,
}

#[test]
fn an_older_gateway_reads_a_subscribe_without_what_was_reached() {
    let lsn = Some(pb::Lsn { version: 7, order: 1 });
    let resume = Some(pb::Resume { lsn, position: vec![1, 2].into(), scope: 3 });
    let query = "SELECT * FROM cars".to_owned();
    let reached = vec![pb::Reached { position: vec![1].into(), lsn }, pb::Reached { position: vec![2].into(), lsn }];
    let new = pb::Subscribe { id: 1, query, arguments_json: "{}".to_owned(), resume, reached };
    let old = OldSubscribe::decode(new.encode_to_vec().as_slice()).unwrap();
    let pb::Subscribe { id, query, arguments_json, resume, reached: _ } = new.clone();
    assert_eq!(old, OldSubscribe { id, query, arguments_json, resume });
    let read = pb::Subscribe::decode(old.encode_to_vec().as_slice()).unwrap();
    assert_eq!(read, pb::Subscribe { reached: Vec::new(), ..new });
}

#[test]
fn an_older_peer_reads_a_page_without_what_was_reached() {
    let snapshot = Some(pb::Lsn { version: 7, order: 1 });
    let state = pb::State { id: vec![5].into(), state: vec![6].into(), lsn: snapshot, subscriptions: vec![2] };
    let new = pb::Page {
        subscriptions: vec![1, 2],
        collection: "cars".to_owned(),
        snapshot,
        states: vec![state],
        left: vec![pb::LeftKey { id: vec![4].into(), ..pb::LeftKey::default() }],
        clock: 9,
        reached: vec![5].into(),
        ..pb::Page::default()
    };
    let old = OldPage::decode(new.encode_to_vec().as_slice()).unwrap();
    let pb::Page { subscriptions, collection, snapshot, states, left, clock, .. } = new.clone();
    assert_eq!(old, OldPage { subscriptions, collection, snapshot, states, left, position: Vec::new(), clock });
    let read = pb::Page::decode(old.encode_to_vec().as_slice()).unwrap();
    assert_eq!(read, pb::Page { reached: bytes::Bytes::new(), ..new });
}
