//! What leaves: answers first, then live changes and pages, one frame at a time as the socket takes them and the peer has
//! credit.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use bigpeer_protocol::limits::TARGET_FRAME_BYTES;
use bigpeer_protocol::{Framed, encode_changes, encode_frame, pb};
use bigpeer_types::Lsn;
use bigpeer_types::limits::MAX_FRAME_BYTES;
use bytes::Bytes;
use futures::SinkExt;
use futures::stream::SplitSink;
use prost::Message as _;

use super::Session;
use crate::hub::{Delivery, Taken};
use crate::metrics;

/// A live transaction from this size on is sent in parts.
const PART_BYTES: usize = MAX_FRAME_BYTES / 4;

/// Frames that wait for the socket.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    answers: VecDeque<Bytes>,
    /// The rest of a transaction that was begun, and answers that follow documents: sent without looking at the credit, or a
    /// transaction would never be whole.
    parts: VecDeque<Framed<Bytes>>,
    page: Option<Framed<Bytes>>,
    ping: bool,
    flush: bool,
    /// Whether the last frame of documents was a page.
    page_was_last: bool,
}

impl Outbox {
    pub(super) fn answer(&mut self, frame: Bytes) {
        self.answers.push_back(frame);
    }

    pub(super) fn answers(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.parts.is_empty() && !self.flush
    }

    pub(super) fn has_page(&self) -> bool {
        self.page.is_some()
    }

    /// Whether documents wait that were taken out of the queue or of a snapshot.
    pub(super) fn has_documents(&self) -> bool {
        !self.parts.is_empty() || self.page.is_some()
    }

    pub(super) fn page(&mut self, page: Framed<Bytes>) {
        self.page = Some(page);
    }

    pub(super) fn ping(&mut self) {
        self.ping = true;
    }

    pub(super) fn flush(&mut self) {
        self.flush = true;
    }

    pub(super) fn flushed(&mut self) {
        self.flush = false;
    }

    pub(super) const fn needs_flush(&self) -> bool {
        self.flush
    }

    /// An answer that must not overtake documents.
    pub(super) fn answer_after_documents(&mut self, frame: Bytes) {
        // It costs no credit.
        self.parts.push_back(Framed { message: frame, bytes: 0 });
    }

    /// Documents that follow those that were taken out before, and come before all others.
    pub(super) fn documents_next(&mut self, frame: Framed<Bytes>) {
        self.parts.push_back(frame);
    }

    /// Forgets a page that was made and not sent.
    pub(super) fn drop_page(&mut self) {
        self.page = None;
    }
}

impl Session {
    /// Whether there is a frame that may be sent now.
    pub(super) fn has_frame(&self) -> bool {
        let outbox = &self.outbox;
        outbox.ping
            || !outbox.answers.is_empty()
            || !outbox.parts.is_empty()
            || self.machine.may_send_documents() && (self.page_may_go() || self.live_may_go())
    }

    /// A page goes when everything live up to its snapshot has gone.
    fn page_may_go(&self) -> bool {
        let snapshot = self.catching_up.as_ref().map_or(Lsn::MAX, super::CatchUp::lsn);
        self.outbox.page.is_some()
            && self.queue.held().is_none_or(|held| held >= snapshot)
            && self.queue.front().is_none_or(|front| front > snapshot)
    }

    /// Live changes after a snapshot wait for the pages of the subscriptions that are attached at it.
    fn live_may_go(&self) -> bool {
        self.queue.has_news() && self.queue.front().is_none_or(|front| front <= self.barrier())
    }

    fn barrier(&self) -> Lsn {
        match &self.catching_up {
            Some(catching_up) if catching_up.is_attached() => catching_up.lsn(),
            Some(_) | None => Lsn::MAX,
        }
    }

    /// Puts the next frame into the socket, which is ready for it.
    pub(super) fn write(&mut self, sink: &mut SplitSink<WebSocket, Message>, ready: Result<(), axum::Error>) {
        if ready.is_err() {
            return self.gone(ready);
        }
        let Some(message) = self.next_message() else { return };
        if let Message::Binary(frame) = &message {
            metrics::sent(frame.len());
            self.device.sent(frame.len());
        }
        self.outbox.flush = true;
        let sent = sink.start_send_unpin(message);
        self.gone(sent);
    }

    fn next_message(&mut self) -> Option<Message> {
        if std::mem::take(&mut self.outbox.ping) {
            return Some(Message::Ping(Bytes::new()));
        }
        if let Some(answer) = self.outbox.answers.pop_front() {
            return Some(super::binary(answer));
        }
        if let Some(part) = self.outbox.parts.pop_front() {
            return Some(self.documents(part));
        }
        if !self.machine.may_send_documents() {
            return None;
        }
        // Taking turns: neither a long first sync nor a busy app holds up the other.
        let page_first = !self.outbox.page_was_last || !self.live_may_go();
        if self.page_may_go() && page_first {
            self.outbox.page_was_last = true;
            let page = self.outbox.page.take()?;
            return Some(self.documents(page));
        }
        self.outbox.page_was_last = false;
        self.live_frame()
    }

    fn documents(&mut self, frame: Framed<Bytes>) -> Message {
        self.machine.spend(frame.bytes);
        super::binary(frame.message)
    }

    /// The next live changes as a frame.
    fn live_frame(&mut self) -> Option<Message> {
        // Before the queue is looked at: what is queued later may be later than this.
        let position = self.app.hub.position();
        let barrier = self.barrier();
        let taken = self.queue.take(TARGET_FRAME_BYTES, barrier);
        let through = through(&taken, position.min(barrier));
        if let Some(lagged_at) = taken.lagged_at {
            self.lagged_at = Some(lagged_at);
        }
        let compression = self.machine.compression();
        let whole = |delivery: &Arc<Delivery>| {
            delivery.bytes() <= PART_BYTES && delivery.subscriptions().iter().all(|id| self.is_for(*id, delivery.lsn()))
        };
        let frame = match taken.transactions.as_slice() {
            [] => None,
            // What others get, too, was encoded for all of them.
            [one] if whole(one) => Some(one.frame(self.advanced(through), compression)),
            several if several.iter().all(whole) => {
                let encoded: Vec<Bytes> = several.iter().map(|delivery| delivery.encoded().clone()).collect();
                Some(encode_changes(encoded.iter().map(|one| &**one), self.advanced(through), compression))
            }
            _ => return self.live_frame_of_parts(&taken, through),
        };
        match frame {
            Some(frame) => Some(self.documents(frame)),
            None if through <= self.machine.through() => None,
            None => {
                let through = self.advanced(through);
                Some(self.documents(encode_changes(std::iter::empty(), through, compression)))
            }
        }
    }

    /// Whether what was queued at `lsn` for a subscription is still meant for it.
    fn is_for(&self, id: u32, lsn: Lsn) -> bool {
        self.subscriptions.contains_key(&id) && self.fenced.get(&id).is_none_or(|fence| lsn > *fence)
    }

    /// The live subscriptions' cursor moves; answers where it is.
    fn advanced(&mut self, through: Lsn) -> Lsn {
        self.fenced.retain(|_, fence| *fence > through);
        self.machine.advanced(through);
        self.machine.through()
    }

    /// As [`Self::live_frame`], of transactions that are large, or partly for subscriptions that have ended or were begun anew.
    fn live_frame_of_parts(&mut self, taken: &Taken, through: Lsn) -> Option<Message> {
        let mut transactions: Vec<pb::Transaction> =
            taken.transactions.iter().filter_map(|delivery| self.wanted(delivery.transaction().clone())).collect();
        if transactions.is_empty() && through <= self.machine.through() {
            return None;
        }
        let through = self.advanced(through);
        let compression = self.machine.compression();
        let large = transactions.last().is_some_and(|last| last.encoded_len() > PART_BYTES);
        let last = if large { transactions.pop() } else { None };
        if let Some(last) = last {
            // Frames are taken up to a size, so only the last transaction of one can be large.
            if !transactions.is_empty() {
                let changes = pb::Changes { transactions, through: None, page: None };
                self.outbox.parts.push_back(encode_frame(&pb::GatewayMessage::from(changes), compression));
            }
            for changes in parts(last, through) {
                self.outbox.parts.push_back(encode_frame(&pb::GatewayMessage::from(changes), compression));
            }
        } else {
            let changes = pb::Changes { transactions, through: Some(through.into()), page: None };
            self.outbox.parts.push_back(encode_frame(&pb::GatewayMessage::from(changes), compression));
        }
        let first = self.outbox.parts.pop_front()?;
        Some(self.documents(first))
    }

    /// The transaction without what was queued for subscriptions that have ended, or were begun anew.
    fn wanted(&self, mut transaction: pb::Transaction) -> Option<pb::Transaction> {
        let lsn = transaction.lsn.map_or(Lsn::ZERO, Lsn::from);
        let open = |ids: &mut Vec<u32>| {
            ids.retain(|id| self.is_for(*id, lsn));
            !ids.is_empty()
        };
        // Without subscriptions it is the answer to a write of the peer itself.
        transaction.changes.retain_mut(|change| change.subscriptions.is_empty() || open(&mut change.subscriptions));
        transaction.left.retain_mut(|left| open(&mut left.subscriptions));
        (!transaction.changes.is_empty() || !transaction.left.is_empty()).then_some(transaction)
    }

    /// Tells a quiet peer that its cursor has moved.
    pub(super) fn tell_cursor(&mut self) {
        let quiet = self.catching_up.is_none() && self.waiting.is_empty() && !self.subscriptions.is_empty();
        if !quiet || !self.machine.may_send_documents() {
            return;
        }
        let position = self.app.hub.position();
        // Asked after it: what was queued or is held since is not passed over.
        let position = self.queue.held().map_or(position, |held| held.min(position));
        if position > self.machine.through() && !self.queue.has_news() && self.outbox.parts.is_empty() {
            self.machine.advanced(position);
            let changes = pb::Changes { through: Some(position.into()), ..Default::default() };
            let frame = encode_frame(&pb::GatewayMessage::from(changes), pb::Compression::None);
            self.outbox.parts.push_back(frame);
        }
    }
}

/// Everything that is live was sent up to here.
fn through(taken: &Taken, position: Lsn) -> Lsn {
    let last = taken.transactions.last().map_or(Lsn::ZERO, |last| last.lsn());
    let position = taken.held.map_or(position, |held| held.min(position));
    match (taken.emptied, taken.lagged_at) {
        (_, Some(lagged_at)) => lagged_at,
        (true, None) => last.max(position),
        (false, None) => last,
    }
}

/// A large transaction in frames that are to be applied as one.
fn parts(transaction: pb::Transaction, through: Lsn) -> Vec<pb::Changes> {
    let pb::Transaction { lsn, site, seq, changes, left, clock, .. } = transaction;
    let empty = || pb::Transaction { lsn, site, seq, clock, more: true, ..Default::default() };
    let mut parts = vec![empty()];
    let mut bytes = 0;
    for change in changes {
        let size = change.encoded_len();
        if bytes > 0 && bytes + size > PART_BYTES {
            parts.push(empty());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.changes.push(change);
        }
    }
    if let Some(last) = parts.last_mut() {
        last.left = left;
        last.more = false;
    }
    let frames = parts.into_iter().map(|part| {
        let through = (!part.more).then(|| through.into());
        pb::Changes { transactions: vec![part], through, page: None }
    });
    frames.collect()
}
