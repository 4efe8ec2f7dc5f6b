//! Pushing: what fits into the window, cut into frames of a size that lets other messages have their turn.

use super::{Misuse, PeerEffect, PeerSession, Phase, PushWindow, send};
use crate::limits::MAX_PUSH_TRANSACTIONS;
use crate::messages::pb;

impl PeerSession {
    /// What may be pushed now; none when the window is full or the session is not open.
    #[must_use]
    pub fn push_window(&self) -> Option<PushWindow> {
        if self.phase != Phase::Open {
            return None;
        }
        let transactions = usize::try_from(self.limits.max_pushes_in_flight).unwrap_or(usize::MAX);
        let bytes = usize::try_from(self.limits.max_push_bytes_in_flight).unwrap_or(usize::MAX);
        let max_transactions = transactions.saturating_sub(self.in_flight.len()).min(MAX_PUSH_TRANSACTIONS);
        let max_bytes = bytes.saturating_sub(self.in_flight_bytes);
        let open = max_transactions > 0 && max_bytes > 0;
        open.then_some(PushWindow { next_seq: self.pushed + 1, max_transactions, max_bytes })
    }

    /// Pushes transactions, the first of them [`PushWindow::next_seq`], the others without gaps; large ones in parts.
    ///
    /// # Errors
    /// When they do not fit into the window.
    pub fn push(&mut self, transactions: Vec<pb::PushedTransaction>) -> Result<Vec<PeerEffect>, Misuse> {
        let window = self.push_window().ok_or(Misuse::NotOpen)?;
        let next_seq = window.next_seq;
        let bytes: usize = transactions.iter().map(|transaction| transaction.transaction.len()).sum();
        let in_order = transactions.iter().zip(next_seq..).all(|(transaction, seq)| transaction.seq == seq);
        if transactions.is_empty()
            || !in_order
            || transactions.len() > window.max_transactions
            || bytes > window.max_bytes
        {
            return Err(Misuse::Push { next_seq });
        }
        self.pushed += transactions.len() as u64;
        self.in_flight.extend(transactions.iter().map(|transaction| transaction.transaction.len()));
        self.in_flight_bytes += bytes;
        Ok(frames(transactions, self.part_bytes)
            .into_iter()
            .map(|transactions| send(pb::Push { transactions }))
            .collect())
    }
}

/// The transactions of each Push, `part_bytes` or less of them in one. One that is larger is cut into parts.
fn frames(transactions: Vec<pb::PushedTransaction>, part_bytes: usize) -> Vec<Vec<pb::PushedTransaction>> {
    let mut frames = Vec::new();
    let mut frame: Vec<pb::PushedTransaction> = Vec::new();
    let mut bytes = 0;
    for mut transaction in transactions {
        while transaction.transaction.len() > part_bytes {
            let part = transaction.transaction.split_to(part_bytes);
            frame.push(pb::PushedTransaction { transaction: part, more: true, ..transaction.clone() });
            frames.push(std::mem::take(&mut frame));
            bytes = 0;
        }
        if bytes > 0 && bytes + transaction.transaction.len() > part_bytes {
            frames.push(std::mem::take(&mut frame));
            bytes = 0;
        }
        bytes += transaction.transaction.len();
        frame.push(transaction);
    }
    if !frame.is_empty() {
        frames.push(frame);
    }
    frames
}
