//! What a peer pushes: in `seq` order, without gaps, large transactions in parts; and the outcomes, in the same order.

use bigpeer_types::Lsn;
use bytes::{Bytes, BytesMut};

use super::{GatewayEffect, GatewaySession, Phase, send};
use crate::limits::MAX_PUSH_TRANSACTIONS;
use crate::messages::pb::{self, CloseCode};

/// The beginning of a transaction whose rest has not come yet.
#[derive(Debug)]
pub(super) struct Part {
    seq: u64,
    basis: u64,
    bytes: BytesMut,
    /// It was pushed before, as a whole: what comes is counted, not kept.
    known: bool,
    len: usize,
}

impl Part {
    pub(super) const fn seq(&self) -> u64 {
        self.seq
    }

    /// Bytes that are kept of it.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// What became of one `PushedTransaction`.
enum Pushed {
    /// The transaction is whole, and new.
    Fresh(pb::PushedTransaction),
    /// The log has it, or will.
    Known(u64),
    /// Its rest has not come yet.
    Incomplete,
}

impl GatewaySession {
    pub(super) fn push(&mut self, push: pb::Push) -> Vec<GatewayEffect> {
        if push.transactions.is_empty() || push.transactions.len() > MAX_PUSH_TRANSACTIONS {
            return self.limit(format!("a Push carries 1 to {MAX_PUSH_TRANSACTIONS} transactions"));
        }
        let mut fresh = Vec::with_capacity(push.transactions.len());
        let mut repeated = false;
        for transaction in push.transactions {
            match self.pushed_one(transaction) {
                Ok(Pushed::Fresh(transaction)) => fresh.push(transaction),
                // Its outcome was sent, or is on its way.
                Ok(Pushed::Known(seq)) => repeated |= seq <= self.resolved,
                Ok(Pushed::Incomplete) => {}
                Err(close) => return self.close(close),
            }
        }
        if self.in_flight.len() as u64 > u64::from(self.limits.max_pushes_in_flight) {
            return self.limit(format!("{} transactions are in flight", self.in_flight.len()));
        }
        let bytes = self.in_flight_bytes + self.part.as_ref().map_or(0, Part::len);
        if bytes as u64 > self.limits.max_push_bytes_in_flight {
            return self.limit(format!("{bytes} bytes of transactions are in flight"));
        }
        let mut effects = Vec::new();
        if repeated {
            effects.push(send(pb::Accepted { seq: self.resolved, lsn: Some(self.resolved_lsn.into()) }));
        }
        if !fresh.is_empty() {
            effects.push(GatewayEffect::Append(fresh));
        }
        effects
    }

    fn pushed_one(&mut self, pushed: pb::PushedTransaction) -> Result<Pushed, pb::Close> {
        let protocol_error = |message: &str| Err(pb::Close::new(CloseCode::CloseProtocolError, message));
        if pushed.seq == 0 {
            return protocol_error("seq starts at 1");
        }
        let mut part = match self.part.take() {
            Some(part) if part.seq != pushed.seq => return protocol_error("a transaction that is not whole"),
            Some(part) => part,
            None if pushed.seq > self.pushed.saturating_add(1) => {
                let message = format!("seq {} was pushed, {} is next", pushed.seq, self.pushed.saturating_add(1));
                return Err(pb::Close::new(CloseCode::CloseSeqGap, message));
            }
            None => {
                let known = pushed.seq <= self.pushed;
                Part { seq: pushed.seq, basis: pushed.basis, bytes: BytesMut::new(), known, len: 0 }
            }
        };
        part.len = part.len.saturating_add(pushed.transaction.len());
        if part.len as u64 > self.limits.max_transaction_bytes {
            let message = format!("transaction {} has {} bytes or more", pushed.seq, part.len);
            return Err(pb::Close::new(CloseCode::CloseLimitExceeded, message));
        }
        if pushed.more {
            if !part.known {
                part.bytes.extend_from_slice(&pushed.transaction);
            }
            self.part = Some(part);
            return Ok(Pushed::Incomplete);
        }
        if part.known {
            return Ok(Pushed::Known(pushed.seq));
        }
        let transaction = if part.bytes.is_empty() {
            pushed.transaction
        } else {
            part.bytes.extend_from_slice(&pushed.transaction);
            Bytes::from(part.bytes)
        };
        self.pushed += 1;
        self.in_flight.push_back(transaction.len());
        self.in_flight_bytes += transaction.len();
        Ok(Pushed::Fresh(pb::PushedTransaction { seq: part.seq, transaction, basis: part.basis, more: false }))
    }

    /// The newest position that an outcome was told with: what the peer takes for durable is at or before it.
    #[must_use]
    pub const fn accepted_lsn(&self) -> Lsn {
        self.resolved_lsn
    }

    /// Everything pushed up to `seq` that has no outcome yet is durable, at or before `lsn`.
    pub fn accepted(&mut self, seq: u64, lsn: Lsn) -> Vec<GatewayEffect> {
        if self.phase != Phase::Open || seq <= self.resolved || seq > self.pushed {
            return Vec::new();
        }
        while self.resolved < seq {
            self.resolve_next();
        }
        self.resolved_lsn = self.resolved_lsn.max(lsn);
        vec![send(pb::Accepted { seq, lsn: Some(self.resolved_lsn.into()) })]
    }

    /// The next transaction without an outcome was refused; ignored when it is not the next.
    pub fn rejected(&mut self, rejected: pb::Rejected, lsn: Lsn) -> Vec<GatewayEffect> {
        if self.phase != Phase::Open || rejected.seq != self.resolved + 1 || rejected.seq > self.pushed {
            return Vec::new();
        }
        self.resolve_next();
        self.resolved_lsn = self.resolved_lsn.max(lsn);
        vec![send(rejected)]
    }

    fn resolve_next(&mut self) {
        self.resolved += 1;
        self.in_flight_bytes -= self.in_flight.pop_front().unwrap_or(0);
    }
}
