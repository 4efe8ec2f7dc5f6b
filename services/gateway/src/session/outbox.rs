//! What leaves: answers first, then live changes and pages, one frame at a time as the socket takes them and the peer has
//! credit. Answers that speak of subscriptions keep their place among the documents: what was sent before a Resync is not sent
//! after it.

use std::collections::VecDeque;
use std::sync::Arc;

use bigpeer_protocol::limits::TARGET_FRAME_BYTES;
use bigpeer_protocol::{Framed, encode_changes, encode_frame, pb};
use bigpeer_types::Lsn;
use bigpeer_types::limits::MAX_FRAME_BYTES;
use bytes::Bytes;
use prost::Message as _;

use super::Session;
use crate::budget::{Budget, Charge};
use crate::hub::{Delivery, Taken};
use crate::metrics;
use crate::websocket::{Hold, WebSocket};

/// A live transaction from this size on is sent in parts.
const PART_BYTES: usize = MAX_FRAME_BYTES / 4;

/// A frame of documents, and what is to live as long as it waits.
#[derive(Clone)]
struct Documents {
    frame: Framed<Bytes>,
    hold: Hold,
}

impl std::fmt::Debug for Documents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Documents").field(&self.frame.bytes).finish()
    }
}

/// What goes before anything else that has to do with documents, without looking at the credit.
#[derive(Debug)]
enum Next {
    /// An answer that keeps its place, or a frame without documents.
    Frame(Framed<Bytes>),
    /// Live transactions, or a part of one that was begun: it would never be whole without the rest.
    Live(Box<pb::Changes>, Charge),
}

/// Frames that wait for the socket.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    answers: VecDeque<Bytes>,
    next: VecDeque<Next>,
    page: Option<Documents>,
    ping: bool,
    flush: bool,
    /// Whether the last frame of documents was a page.
    page_was_last: bool,
}

impl Outbox {
    pub(super) fn answer(&mut self, frame: Bytes) {
        self.answers.push_back(frame);
    }

    /// Answers that wait, and what else the peer's messages may have brought about.
    pub(super) fn answers(&self) -> usize {
        self.answers.len() + self.next.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.next.is_empty() && !self.flush
    }

    pub(super) fn has_page(&self) -> bool {
        self.page.is_some()
    }

    /// Whether documents wait that were taken out of the queue or of a snapshot.
    pub(super) fn has_documents(&self) -> bool {
        !self.next.is_empty() || self.page.is_some()
    }

    pub(super) fn page(&mut self, frame: Framed<Bytes>, budget: &Arc<Budget>) {
        let hold: Hold = Some(Arc::new(budget.charge(frame.message.len())));
        self.page = Some(Documents { frame, hold });
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
        self.next.push_back(Next::Frame(Framed { message: frame, bytes: 0 }));
    }

    /// What follows documents that were taken out before, and comes before all others.
    pub(super) fn documents_next(&mut self, frame: Framed<Bytes>) {
        self.next.push_back(Next::Frame(frame));
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
            || !outbox.next.is_empty()
            || self.machine.may_send_documents() && (self.page_may_go() || self.live_may_go())
    }

    /// A page goes when everything live up to its snapshot has gone.
    fn page_may_go(&self) -> bool {
        let snapshot = self.catching_up.as_ref().map_or(Lsn::MAX, |catching_up| catching_up.lsn());
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
    pub(super) fn write(&mut self, socket: &mut WebSocket, ready: std::io::Result<()>) {
        if ready.is_err() {
            return self.gone(ready);
        }
        if std::mem::take(&mut self.outbox.ping) {
            self.outbox.flush = true;
            return socket.send_ping();
        }
        let Some((frame, hold)) = self.next_frame() else { return };
        metrics::sent(frame.len());
        self.device.sent(frame.len());
        self.outbox.flush = true;
        socket.send(frame, hold);
    }

    fn next_frame(&mut self) -> Option<(Bytes, Hold)> {
        if let Some(answer) = self.outbox.answers.pop_front() {
            return Some((answer, None));
        }
        while let Some(next) = self.outbox.next.pop_front() {
            if let Some(documents) = self.next_documents(next) {
                return Some(self.documents(documents));
            }
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
        let live = self.live_frame()?;
        Some(self.documents(live))
    }

    fn documents(&mut self, Documents { frame, hold }: Documents) -> (Bytes, Hold) {
        self.machine.spend(frame.bytes);
        (frame.message, hold)
    }

    /// The frame of what goes next. Nothing, if all of it was for subscriptions that have ended or were begun anew meanwhile.
    fn next_documents(&mut self, next: Next) -> Option<Documents> {
        let (mut changes, hold) = match next {
            Next::Frame(frame) => return Some(Documents { frame, hold: None }),
            Next::Live(changes, hold) => (changes, hold),
        };
        let begun = changes.transactions.iter().any(|transaction| transaction.more) || changes.through.is_some();
        for transaction in &mut changes.transactions {
            self.keep_wanted(transaction);
        }
        if !begun {
            changes.transactions.retain(|transaction| !is_empty(transaction));
            if changes.transactions.is_empty() {
                return None;
            }
        }
        let frame = encode_frame(&pb::GatewayMessage::from(*changes), self.machine.compression());
        Some(Documents { frame, hold: Some(Arc::new(hold)) })
    }

    /// The next live changes as a frame.
    fn live_frame(&mut self) -> Option<Documents> {
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
            delivery.bytes() <= PART_BYTES
                && self.taken_back.is_empty()
                && delivery.subscriptions().iter().all(|id| self.is_for(*id, delivery.lsn()))
        };
        match taken.transactions.as_slice() {
            [] if through <= self.machine.through() => None,
            [] => {
                let frame = encode_changes(std::iter::empty(), self.advanced(through), compression);
                Some(Documents { frame, hold: None })
            }
            // What others get, too, was encoded for all of them.
            [one] if whole(one) => {
                let frame = one.frame(self.advanced(through), compression);
                Some(Documents { frame, hold: Some(Arc::clone(one) as _) })
            }
            several if several.iter().all(whole) => {
                let encoded: Vec<Bytes> = several.iter().map(|delivery| delivery.encoded().clone()).collect();
                let frame = encode_changes(encoded.iter().map(|one| &**one), self.advanced(through), compression);
                let charge = self.gateway.budget.charge(frame.message.len());
                Some(Documents { frame, hold: Some(Arc::new(charge)) })
            }
            _ => self.live_frame_of_parts(&taken, through),
        }
    }

    /// Whether what was queued at `lsn` for a subscription is still meant for it.
    fn is_for(&self, id: u32, lsn: Lsn) -> bool {
        self.subscriptions.contains_key(&id) && self.fenced.get(&id).is_none_or(|fence| lsn > *fence)
    }

    /// The live subscriptions' cursor moves; answers where it is.
    fn advanced(&mut self, through: Lsn) -> Lsn {
        self.fenced.retain(|_, fence| *fence > through);
        if self.outbox.next.is_empty() {
            self.taken_back.forget(through);
        }
        self.machine.advanced(through);
        self.machine.through()
    }

    /// As [`Self::live_frame`], of transactions that are large, or partly for subscriptions that have ended or were begun anew.
    fn live_frame_of_parts(&mut self, taken: &Taken, through: Lsn) -> Option<Documents> {
        let mut transactions: Vec<pb::Transaction> =
            taken.transactions.iter().map(|delivery| delivery.transaction().clone()).collect();
        for transaction in &mut transactions {
            self.keep_wanted(transaction);
        }
        transactions.retain(|transaction| !is_empty(transaction));
        if transactions.is_empty() && through <= self.machine.through() {
            return None;
        }
        let through = self.advanced(through);
        let large = transactions.last().is_some_and(|last| last.encoded_len() > PART_BYTES);
        let last = if large { transactions.pop() } else { None };
        match last {
            Some(last) => {
                // Frames are taken up to a size, so only the last transaction of one can be large.
                if !transactions.is_empty() {
                    self.live_next(pb::Changes { transactions, through: None, page: None });
                }
                parts(last, through).into_iter().for_each(|part| self.live_next(part));
            }
            None => self.live_next(pb::Changes { transactions, through: Some(through.into()), page: None }),
        }
        let first = self.outbox.next.pop_front()?;
        self.next_documents(first)
    }

    fn live_next(&mut self, changes: pb::Changes) {
        let charge = self.gateway.budget.charge(changes.encoded_len());
        self.outbox.next.push_back(Next::Live(Box::new(changes), charge));
    }

    /// Takes out what was queued for subscriptions that have ended, or were begun anew, and deltas without their document.
    fn keep_wanted(&mut self, transaction: &mut pb::Transaction) {
        let lsn = transaction.lsn.map_or(Lsn::ZERO, Lsn::from);
        transaction.changes.retain(|change| self.taken_back.may_follow(change, lsn));
        let open = |ids: &mut Vec<u32>| {
            ids.retain(|id| self.is_for(*id, lsn));
            !ids.is_empty()
        };
        // Without subscriptions it is the answer to a write of the peer itself.
        transaction.changes.retain_mut(|change| change.subscriptions.is_empty() || open(&mut change.subscriptions));
        transaction.left.retain_mut(|left| open(&mut left.subscriptions));
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
        if position > self.machine.through() && !self.queue.has_news() && self.outbox.next.is_empty() {
            self.machine.advanced(position);
            let changes = pb::Changes { through: Some(position.into()), ..Default::default() };
            let frame = encode_frame(&pb::GatewayMessage::from(changes), pb::Compression::None);
            self.outbox.documents_next(frame);
        }
    }
}

fn is_empty(transaction: &pb::Transaction) -> bool {
    transaction.changes.is_empty() && transaction.left.is_empty()
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
