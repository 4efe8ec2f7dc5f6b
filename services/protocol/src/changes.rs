//! Frames of live changes, put together from transactions that were encoded before: one encoding serves every session that
//! gets the same. What comes out is what the generated code would write; a test compares the two.

use bigpeer_types::Lsn;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::frame::{self, Framed};
use crate::messages::pb;

// Keys of the fields: number << 3 | wire type (2 is length-delimited).
const ENVELOPE_CHANGES: u8 = 5 << 3 | 2;
const CHANGES_TRANSACTIONS: u8 = 1 << 3 | 2;
const CHANGES_THROUGH: u8 = 2 << 3 | 2;

/// A transaction as it stands in a Changes.
#[must_use]
pub fn encode_transaction(transaction: &pb::Transaction) -> Bytes {
    let length = transaction.encoded_len();
    let mut out = BytesMut::with_capacity(1 + encoded_len_varint(length as u64) + length);
    out.put_u8(CHANGES_TRANSACTIONS);
    encode_varint(length as u64, &mut out);
    transaction.encode_raw(&mut out);
    out.freeze()
}

/// The frame of a Changes with these transactions, each from [`encode_transaction`].
#[must_use]
pub fn encode_changes<'a>(
    transactions: impl Iterator<Item = &'a [u8]> + Clone,
    through: Lsn,
    compression: pb::Compression,
) -> Framed<Bytes> {
    let through = pb::Lsn::from(through);
    let through_len = through.encoded_len();
    let changes =
        transactions.clone().map(<[u8]>::len).sum::<usize>() + 1 + encoded_len_varint(through_len as u64) + through_len;
    let bytes = 1 + 1 + encoded_len_varint(changes as u64) + changes;
    let mut out = BytesMut::with_capacity(bytes);
    out.put_u8(frame::RAW);
    out.put_u8(ENVELOPE_CHANGES);
    encode_varint(changes as u64, &mut out);
    for transaction in transactions {
        out.extend_from_slice(transaction);
    }
    out.put_u8(CHANGES_THROUGH);
    encode_varint(through_len as u64, &mut out);
    through.encode_raw(&mut out);
    Framed { message: frame::compressed(out.freeze(), compression), bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_from_encoded_transactions_are_those_of_the_generated_code(
            transactions in prop::collection::vec((any::<u64>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..200)), 0..5),
            through: (u64, u32),
            zstd: bool,
        ) {
            let transactions: Vec<pb::Transaction> = transactions
                .into_iter()
                .map(|(seq, order, id)| pb::Transaction {
                    lsn: Some(pb::Lsn { version: seq, order }),
                    seq,
                    changes: vec![pb::Change { id: id.into(), subscriptions: vec![order], ..Default::default() }],
                    ..Default::default()
                })
                .collect();
            let through = Lsn::new(through.0, through.1);
            let compression = if zstd { pb::Compression::Zstd } else { pb::Compression::None };
            let encoded: Vec<Bytes> = transactions.iter().map(encode_transaction).collect();
            let frame = encode_changes(encoded.iter().map(|one| &**one), through, compression);
            let changes = pb::Changes { transactions, through: Some(through.into()), page: None };
            prop_assert_eq!(frame, crate::encode_frame(&pb::GatewayMessage::from(changes), compression));
        }
    }
}
