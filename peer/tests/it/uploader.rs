//! Bulk writing without a store.

use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value};
use bigpeer_peer::{PeerError, Uploader};
use bigpeer_types::{CollectionName, Hlc, HlcClock, SiteId, SystemClock};
use bytes::Bytes;

use super::fake::Fake;

fn transaction(site: SiteId, clock: &mut HlcClock, ids: std::ops::Range<i64>, field: &str) -> Bytes {
    assert_eq!(clock.site(), site);
    let collection = CollectionName::new("cars").expect("valid");
    let mut builder = TransactionBuilder::new();
    for id in ids {
        let fields: Object = [(field, Value::Int(id))].into_iter().collect();
        let mut editor = Editor::new(&Document::new(), clock);
        editor.insert(&fields, ObjectMode::Map).expect("shallow");
        let delta = editor.finish().expect("a change");
        builder.change(&collection, &DocId::from_value(&Value::Int(id)).expect("an id"), &delta);
    }
    builder.finish().expect("small")
}

#[tokio::test]
async fn transactions_are_applied_once_though_the_connection_breaks() {
    let server = Fake::start().await;
    let uploader = Uploader::connect(server.settings(), None).await.expect("connects");
    assert_eq!(uploader.last_seq(), 0);
    let mut clock = HlcClock::new(uploader.site(), Hlc::ZERO, Arc::new(SystemClock));
    for seq in 1..=100_i64 {
        let payload = transaction(uploader.site(), &mut clock, seq * 10..seq * 10 + 10, "n");
        uploader.push(seq.cast_unsigned(), payload).await.expect("pushed");
        if seq % 30 == 0 {
            server.cut();
        }
    }
    assert_eq!(uploader.wait_acknowledged(100).await.expect("durable").seq, 100);
    assert_eq!((server.log_len(), server.documents("cars").len()), (100, 1000));
    let state = uploader.state();
    uploader.close().await;

    let uploader = Uploader::connect(server.settings(), Some(state.clone())).await.expect("connects");
    assert_eq!((uploader.site(), uploader.last_seq()), (state.site, 100));
    let payload = transaction(uploader.site(), &mut clock, 0..1, "n");
    uploader.push(101, payload).await.expect("pushed");
    uploader.wait_acknowledged(101).await.expect("durable");
    assert_eq!(server.log_len(), 101);
}

#[tokio::test]
async fn a_rejection_ends_the_upload_and_says_why() {
    let server = Fake::start().await;
    let uploader = Uploader::connect(server.settings(), None).await.expect("connects");
    let mut clock = HlcClock::new(uploader.site(), Hlc::ZERO, Arc::new(SystemClock));
    uploader.push(1, transaction(uploader.site(), &mut clock, 0..3, "n")).await.expect("pushed");
    uploader.push(2, transaction(uploader.site(), &mut clock, 3..6, "forbidden")).await.expect("pushed");
    let error = uploader.wait_acknowledged(2).await.expect_err("rejected");
    assert!(matches!(error, PeerError::Rejected { seq: 2, .. }), "{error:?}");
    let next = uploader.push(3, transaction(uploader.site(), &mut clock, 6..7, "n")).await;
    assert!(matches!(next, Err(PeerError::Rejected { seq: 2, .. })), "{next:?}");
    uploader.close().await;
}
