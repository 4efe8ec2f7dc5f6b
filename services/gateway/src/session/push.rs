//! Pushes of a session: checked in order, appended in order, answered in order. A rejected transaction is replaced by its
//! rejection, so that its number is used up in the log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bigpeer_crdt::Transaction;
use bigpeer_log::{AppendEntry, AppendError, AppendOutcome};
use bigpeer_protocol::pb::{self, CloseCode, RejectCode};
use bigpeer_tables::TablesError;
use bigpeer_types::Lsn;

use super::Session;
use crate::appender::Job;
use crate::check::{self, Place, Refusal};
use crate::hub::Outcomes;
use crate::metrics;
use crate::rejections::{self, Rejection};

/// When a peer may try again after the log did not take a push, in milliseconds.
const RETRY_AFTER_MS: u64 = 500;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    /// Without an outcome, in `seq` order; with what is appended in place of the transaction, if it is rejected.
    pending: VecDeque<(u64, Option<Rejection>)>,
    /// What rejected transactions touched, while the peer may push what it built on them.
    rejected: BTreeMap<u64, BTreeSet<Place>>,
    /// Transactions that the store may not show yet, with their positions when they are known. Kept only if permissions
    /// depend on documents.
    unseen: VecDeque<(u64, Option<Lsn>, Transaction)>,
}

impl Pushes {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// A rejection that the peer may not know of when it makes its next transactions.
    pub(super) fn remember(&mut self, rejection: &Rejection) {
        self.rejected.insert(rejection.seq, rejection.places.clone());
    }

    fn is_built_on_rejected(&self, basis: u64, transaction: &Transaction) -> bool {
        let unknown = self.rejected.range(basis.saturating_add(1)..);
        let mut places = unknown.map(|(_, places)| places).peekable();
        if places.peek().is_none() {
            return false;
        }
        let touched = check::places(transaction);
        places.any(|places| !places.is_disjoint(&touched))
    }

    fn applied(&mut self, seq: u64, lsn: Lsn) {
        if let Some((_, at, _)) = self.unseen.iter_mut().find(|(unseen, _, _)| *unseen == seq) {
            *at = Some(lsn);
        }
    }
}

impl Session {
    pub(super) async fn append(&mut self, transactions: Vec<pb::PushedTransaction>) {
        let mut entries = Vec::with_capacity(transactions.len());
        for pushed in transactions {
            let transaction = match check::decode(&pushed, self.machine.site()) {
                Ok(transaction) => transaction,
                Err(close) => {
                    metrics::malformed_frame();
                    return self.end(close.code(), &close.message);
                }
            };
            let refusal = match self.refusal(&pushed, &transaction).await {
                Ok(refusal) => refusal,
                Err(error) => return self.unavailable(&error),
            };
            let entry = match refusal {
                None => self.entry(pushed, transaction),
                Some(refusal) => self.rejection(pushed.seq, refusal, &transaction),
            };
            let Some(entry) = entry else {
                return self.end(CloseCode::CloseInternal, "a rejection could not be written");
            };
            entries.push(entry);
        }
        let session = Arc::clone(&self.queue);
        if self.app.appender.append(Job { entries, session }).await.is_err() {
            self.end(CloseCode::CloseUnavailable, "the log does not take writes now");
        }
    }

    async fn refusal(
        &mut self,
        pushed: &pb::PushedTransaction,
        transaction: &Transaction,
    ) -> Result<Option<Refusal>, TablesError> {
        let context = &self.gateway.context;
        if self.pushes.is_built_on_rejected(pushed.basis, transaction) {
            let message = "it was made on top of a transaction that was rejected";
            return Ok(Some(Refusal::new(RejectCode::RejectBuiltOnRejected, message)));
        }
        // The peer will not build on those any more.
        self.pushes.rejected = self.pushes.rejected.split_off(&pushed.basis.saturating_add(1));
        let refusal = check::refusal(transaction, &*context.clock, context.settings.max_clock_ahead_ms, &self.rules);
        if refusal.is_some() {
            return Ok(refusal);
        }
        // Deletions make room.
        if let Err(full) = self.meter.may_store(self.app.store.stored_bytes())
            && !check::only_deletes(transaction)
        {
            return Ok(Some(Refusal::new(RejectCode::RejectQuotaExceeded, full.message)));
        }
        if !check::is_conditional(transaction, &self.rules) {
            return Ok(None);
        }
        let applied = self.app.store.applied();
        self.pushes.unseen.retain(|(_, lsn, _)| lsn.is_none_or(|lsn| lsn > applied));
        let unseen: Vec<Transaction> =
            self.pushes.unseen.iter().map(|(_, _, transaction)| transaction.clone()).collect();
        check::refusal_on_documents(transaction, &unseen, &self.app.store, &self.rules).await
    }

    fn entry(&mut self, pushed: pb::PushedTransaction, transaction: Transaction) -> Option<AppendEntry> {
        let writes = check::conflict_keys(&transaction);
        if !self.rules.permissions().write.everything {
            self.pushes.unseen.push_back((pushed.seq, None, transaction));
        }
        self.pushes.pending.push_back((pushed.seq, None));
        let site = self.machine.site();
        Some(AppendEntry { site, seq: pushed.seq, writes, unchanged: Vec::new(), payload: pushed.transaction })
    }

    fn rejection(&mut self, seq: u64, refusal: Refusal, transaction: &Transaction) -> Option<AppendEntry> {
        metrics::rejected(refusal.code);
        let rejection = Rejection::new(seq, refusal, check::places(transaction));
        let site = self.machine.site();
        let payload = rejection.payload(site, &self.gateway.context.clock)?;
        self.pushes.rejected.insert(seq, check::places(transaction));
        self.pushes.pending.push_back((seq, Some(rejection)));
        Some(AppendEntry { site, seq, writes: Vec::new(), unchanged: Vec::new(), payload })
    }

    /// What became of the entries of one append.
    pub(super) async fn outcomes(&mut self, outcomes: Outcomes) {
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            Err(error) => return self.append_failed(&error),
        };
        let mut accepted: Option<(u64, Lsn)> = None;
        for outcome in outcomes {
            let Some((seq, rejection)) = self.pushes.pending.pop_front() else { return };
            let (rejection, lsn) = match outcome {
                AppendOutcome::Applied(lsn) => (rejection, lsn),
                AppendOutcome::Duplicate { lsn, .. } => match self.told_before(seq, lsn).await {
                    Ok(rejection) => (rejection, lsn),
                    Err(error) => return self.unavailable(&error),
                },
                AppendOutcome::SeqGap { last_seq } => {
                    let message = format!("the log's last seq of this site is {last_seq}");
                    return self.end(CloseCode::CloseSeqGap, &message);
                }
                AppendOutcome::Conflict { .. } | AppendOutcome::SnapshotTooOld => {
                    return self.end(CloseCode::CloseInternal, "a push without preconditions met a conflict");
                }
            };
            let Some(rejection) = rejection else {
                self.pushes.applied(seq, lsn);
                accepted = Some((seq, lsn));
                continue;
            };
            self.accept(accepted.take());
            match self.rejected_message(&rejection, lsn).await {
                Ok((message, at)) => {
                    if !self.taken_back.add(&message, at) {
                        let close = "rejected writes concern too many documents whose changes the peer has not taken";
                        return self.end(CloseCode::CloseUnavailable, close);
                    }
                    let effects = self.machine.rejected(message, lsn);
                    self.answer(effects);
                }
                Err(error) => return self.unavailable(&error),
            }
        }
        self.accept(accepted);
    }

    fn accept(&mut self, accepted: Option<(u64, Lsn)>) {
        if let Some((seq, lsn)) = accepted {
            let effects = self.machine.accepted(seq, lsn);
            self.answer(effects);
        }
    }

    /// Something stands in the log under this seq already: a rejection, or the transaction.
    async fn told_before(&mut self, seq: u64, lsn: Lsn) -> Result<Option<Rejection>, TablesError> {
        self.app.store.wait_for(lsn).await?;
        rejections::find(&self.app.store.snapshot(), self.machine.site(), seq).await
    }

    /// The message, and where the documents were looked at.
    async fn rejected_message(&mut self, rejection: &Rejection, lsn: Lsn) -> Result<(pb::Rejected, Lsn), TablesError> {
        // So that the states to restore hold what the peer wrote before.
        self.app.store.wait_for(lsn).await?;
        let now_ms = self.gateway.context.clock.now_ms();
        let snapshot = self.app.store.snapshot();
        Ok((rejection.message(&snapshot, &self.rules, now_ms).await?, snapshot.lsn()))
    }

    fn append_failed(&mut self, error: &AppendError) {
        let close = match error {
            AppendError::Rejected { .. } => pb::Close::new(CloseCode::CloseInternal, "the log refuses the push"),
            AppendError::Unavailable { .. } | AppendError::Unknown { .. } => {
                let close = pb::Close::new(CloseCode::CloseUnavailable, "the log does not take writes now; push again");
                pb::Close { retry_after_ms: RETRY_AFTER_MS, ..close }
            }
        };
        let effects = self.machine.close(close);
        self.answer(effects);
    }
}
