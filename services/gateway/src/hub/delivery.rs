//! `Delivery`: what a transaction means for one or many sessions. Sessions that get the same share it: it is made once,
//! encoded once, and if they are at the same position even their frame is one.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bigpeer_protocol::{Framed, encode_changes, encode_transaction, pb};
use bigpeer_types::Lsn;
use bytes::Bytes;

use crate::budget::{Budget, Charge};

/// Memory of a transaction beside its encoded length, roughly.
pub(super) const OVERHEAD_BYTES: usize = 256;

/// A transaction, or what some sessions get of it.
#[derive(Debug)]
pub(crate) struct Delivery {
    transaction: pb::Transaction,
    lsn: Lsn,
    bytes: usize,
    /// Those that it names, sorted, each once.
    subscriptions: Box<[u32]>,
    encoded: OnceLock<Bytes>,
    /// The last frame that was made of it alone: sessions that are sent it at the same time are at the same position.
    frame: Mutex<Option<(Lsn, pb::Compression, Framed<Bytes>)>>,
    /// Of what it is made of; then of what was encoded of it.
    charge: Charge,
}

impl Delivery {
    pub(crate) fn new(transaction: pb::Transaction, budget: &Arc<Budget>) -> Self {
        let of_changes = transaction.changes.iter().flat_map(|change| &change.subscriptions);
        let of_left = transaction.left.iter().flat_map(|left| &left.subscriptions);
        let mut subscriptions: Vec<u32> = of_changes.chain(of_left).copied().collect();
        subscriptions.sort_unstable();
        subscriptions.dedup();
        let bytes = prost::Message::encoded_len(&transaction);
        Self {
            lsn: transaction.lsn.map_or(Lsn::ZERO, Lsn::from),
            bytes,
            subscriptions: subscriptions.into(),
            encoded: OnceLock::new(),
            frame: Mutex::new(None),
            charge: budget.charge(bytes + OVERHEAD_BYTES),
            transaction,
        }
    }

    pub(crate) const fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Its encoded length.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) const fn transaction(&self) -> &pb::Transaction {
        &self.transaction
    }

    pub(crate) const fn subscriptions(&self) -> &[u32] {
        &self.subscriptions
    }

    /// As it stands in a Changes.
    pub(crate) fn encoded(&self) -> &Bytes {
        self.encoded.get_or_init(|| {
            self.charge.add(self.bytes);
            encode_transaction(&self.transaction)
        })
    }

    /// The frame of a Changes with nothing else in it.
    pub(crate) fn frame(&self, through: Lsn, compression: pb::Compression) -> Framed<Bytes> {
        let mut last = self.frame.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((at, with, frame)) if *at == through && *with == compression => frame.clone(),
            Some(_) | None => {
                if last.is_none() {
                    self.charge.add(self.bytes);
                }
                let frame = encode_changes(std::iter::once(&**self.encoded()), through, compression);
                *last = Some((through, compression, frame.clone()));
                frame
            }
        }
    }
}
