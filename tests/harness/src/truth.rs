//! `Truth`: every transaction of an app's log, and every state that each document ever had.

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Transaction};
use bigpeer_dql::SelectPlan;
use bigpeer_log::{LogEntry, ReadError, TransactionLog};
use bigpeer_types::{AppId, Lsn, SiteId};

use crate::check::Place;
use crate::{Checker, Violation};

/// One transaction of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it stands.
    pub lsn: Lsn,
    /// Who wrote it.
    pub site: SiteId,
    /// The writer's number of it.
    pub seq: u64,
    /// What it changes.
    pub transaction: Transaction,
    /// Whether it stands in the place of one that was rejected.
    pub is_rejection: bool,
}

/// An app's log, whole, whatever was trimmed since.
#[derive(Debug, Default)]
pub struct Truth {
    entries: Vec<Entry>,
    by_site: BTreeMap<SiteId, Vec<usize>>,
    documents: BTreeMap<Place, Vec<(Lsn, Arc<Document>)>>,
}

impl Truth {
    /// The last transaction's position.
    #[must_use]
    pub fn head(&self) -> Lsn {
        self.entries.last().map_or(Lsn::ZERO, |entry| entry.lsn)
    }

    /// All transactions, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Takes over what the log holds behind the head. Answers how much that was.
    ///
    /// # Errors
    /// When the log breaks its own rules. A log that cannot be read now is read later.
    pub async fn follow(&mut self, log: &dyn TransactionLog, app: &AppId) -> Result<usize, Violation> {
        let before = self.entries.len();
        loop {
            let batch = match log.read(app, self.head(), usize::MAX).await {
                Ok(batch) => batch,
                Err(ReadError::Unavailable { .. }) => break,
                Err(error @ (ReadError::Trimmed { .. } | ReadError::Corrupt { .. })) => {
                    return Err(Checker::NothingLost.broken(format!("the log after {}: {error}", self.head())));
                }
            };
            if batch.entries.is_empty() {
                break;
            }
            for entry in batch.entries {
                self.add(entry)?;
            }
        }
        Ok(self.entries.len() - before)
    }

    /// Adds the next transaction.
    ///
    /// # Errors
    /// [`Checker::NothingTwice`] when it is not the next of its site, or not later than all others;
    /// [`Checker::NothingLost`] when it cannot be read.
    pub fn add(&mut self, entry: LogEntry) -> Result<(), Violation> {
        let LogEntry { lsn, site, seq, payload } = entry;
        let last = self.last_seq(site);
        if seq != last + 1 || lsn <= self.head() {
            let head = self.head();
            let what = format!("the log holds {site}/{seq} at {lsn}, behind {site}/{last}, with the head at {head}");
            return Err(Checker::NothingTwice.broken(what));
        }
        let unreadable = |error| Checker::NothingLost.broken(format!("{site}/{seq} at {lsn}: {error}"));
        let transaction = Transaction::decode(payload).map_err(unreadable)?;
        for change in transaction.changes() {
            let versions = self.documents.entry((change.collection.clone(), change.id.clone())).or_default();
            let mut document = versions.last().map_or_else(Document::new, |(_, document)| (**document).clone());
            document.join_encoded(&change.delta).map_err(unreadable)?;
            match versions.last_mut() {
                Some((at, last)) if *at == lsn => *last = Arc::new(document),
                Some(_) | None => versions.push((lsn, Arc::new(document))),
            }
        }
        let is_rejection = transaction.changes().iter().any(|change| change.collection.is_system());
        self.by_site.entry(site).or_default().push(self.entries.len());
        self.entries.push(Entry { lsn, site, seq, transaction, is_rejection });
        Ok(())
    }

    /// The newest transaction of a site; 0 if there is none.
    #[must_use]
    pub fn last_seq(&self, site: SiteId) -> u64 {
        self.by_site.get(&site).map_or(0, |entries| entries.len() as u64)
    }

    /// A site's transaction.
    #[must_use]
    pub fn find(&self, site: SiteId, seq: u64) -> Option<&Entry> {
        let index = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.by_site.get(&site)?.get(index).and_then(|index| self.entries.get(*index))
    }

    /// A document as it was at a position; none if nobody had written it.
    #[must_use]
    pub fn document(&self, place: &Place, at: Lsn) -> Option<&Arc<Document>> {
        let versions = self.documents.get(place)?;
        let later = versions.partition_point(|(lsn, _)| *lsn <= at);
        versions.get(later.checked_sub(1)?).map(|(_, document)| document)
    }

    /// Every state that a document ever had, in order.
    pub fn versions(&self, place: &Place) -> impl Iterator<Item = &Arc<Document>> {
        self.documents.get(place).into_iter().flatten().map(|(_, document)| document)
    }

    /// Every document that was ever written, as it is now.
    pub fn documents(&self) -> impl Iterator<Item = (&Place, &Arc<Document>)> {
        self.documents.iter().filter_map(|(place, versions)| Some((place, &versions.last()?.1)))
    }

    /// The documents that match `plan` at a position.
    #[must_use]
    pub fn matching(&self, plan: &SelectPlan, at: Lsn) -> BTreeMap<DocId, Arc<Document>> {
        let of_collection = self.documents.keys().filter(|(collection, _)| collection == plan.collection());
        of_collection
            .filter_map(|place| Some((&place.1, self.document(place, at)?)))
            .filter(|(id, document)| document.is_visible() && plan.matches(id, document))
            .map(|(id, document)| (id.clone(), Arc::clone(document)))
            .collect()
    }
}
