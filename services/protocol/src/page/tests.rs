//! What `PageWriter` writes is what the generated code means.

#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use super::*;
use crate::decode_gateway_frame;
use proptest::prelude::*;

type Doc = (Vec<u8>, Vec<u8>, (u64, u32), Vec<u32>);

proptest! {
    #[test]
    fn a_page_reads_back_as_it_was_written(
        states in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..300), any::<(u64, u32)>(), prop::collection::vec(any::<u32>(), 0..3)), 0..30),
        left in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), any::<u64>(), prop::collection::vec(any::<u32>(), 0..3)), 0..10),
        position in prop::option::of((any::<bool>(), prop::collection::vec(any::<u8>(), 1..40))),
        subscriptions in prop::collection::vec(any::<u32>(), 1..4),
        snapshot: (u64, u32),
        zstd: bool,
    ) {
        let snapshot = Lsn::new(snapshot.0, snapshot.1);
        let mut writer = PageWriter::new("flights", snapshot, &subscriptions, 100);
        for (id, state, lsn, ids) in &states {
            writer.state(id, state, Lsn::new(lsn.0, lsn.1), ids);
        }
        for (id, newest, ids) in &left {
            // An even reading: by its place.
            if newest % 2 == 0 {
                writer.left_held(id.len() as u32, Hlc::from_bits(*newest), ids);
            } else {
                writer.left(id, Hlc::from_bits(*newest), ids);
            }
        }
        prop_assert_eq!(writer.documents(), states.len() + left.len());
        let compression = if zstd { pb::Compression::Zstd } else { pb::Compression::None };
        let progress = match &position {
            None => Progress::None,
            Some((true, key)) => Progress::Everything(key),
            Some((false, key)) => Progress::Changed(key),
        };
        let frame = writer.finish(progress, compression);
        let at = |everything: bool| position.iter().find(|(of, _)| *of == everything).map(|(_, key)| key.clone());
        let expected = pb::Page {
            subscriptions,
            collection: "flights".to_owned(),
            snapshot: Some(snapshot.into()),
            states: states.iter().map(state).collect(),
            left: left.iter().map(left_key).collect(),
            position: at(true).unwrap_or_default().into(),
            clock: left.iter().map(|(_, newest, _)| *newest).max().unwrap_or_default(),
            reached: at(false).unwrap_or_default().into(),
        };
        let read = decode_gateway_frame(frame.message, 1 << 20).unwrap();
        prop_assert_eq!(read.bytes, frame.bytes);
        prop_assert_eq!(read.message, pb::FromGateway::Changes(pb::Changes { page: Some(expected), ..Default::default() }));
    }
}

fn left_key((id, newest, ids): &(Vec<u8>, u64, Vec<u32>)) -> pb::LeftKey {
    let held = (newest % 2 == 0).then_some(id.len() as u32);
    let id = if held.is_some() { Bytes::new() } else { id.clone().into() };
    pb::LeftKey { id, subscriptions: ids.clone(), held }
}

fn state((id, state, lsn, subscriptions): &Doc) -> pb::State {
    pb::State {
        id: id.clone().into(),
        state: state.clone().into(),
        lsn: Some(Lsn::new(lsn.0, lsn.1).into()),
        subscriptions: subscriptions.clone(),
    }
}
