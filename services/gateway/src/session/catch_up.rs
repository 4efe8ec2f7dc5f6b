//! `CatchUp`: brings subscriptions of one collection up to a snapshot, page by page: what changed since their cursor,
//! or everything, or (a first sync that was broken off) both, on either side of the last key that was sent.

use std::collections::VecDeque;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document};
use bigpeer_protocol::limits::TARGET_FRAME_BYTES;
use bigpeer_protocol::{Framed, PageWriter, pb};
use bigpeer_tables::{Scan, ScannedDocument, Snapshot, TablesError};
use bigpeer_types::{CollectionName, Lsn};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::hub::Matcher;

/// How far a subscription has got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Since {
    /// Everything up to here was sent; none: nothing.
    pub(super) lsn: Option<Lsn>,
    /// Only of the documents up to this key.
    pub(super) position: Option<DocId>,
}

/// A subscription that waits to catch up.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: u32,
    pub(super) matcher: Arc<Matcher>,
    pub(super) since: Since,
}

/// One pass over the collection.
#[derive(Debug)]
enum Stage {
    /// What changed after the LSN, up to the key.
    Changed { since: Lsn, until: Option<DocId> },
    /// Everything after the key.
    Full { after: Option<DocId> },
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    /// A frame, and the documents in it.
    Page(Framed<Bytes>, usize),
    /// Everything up to the snapshot was given out.
    Done,
    /// A document changed that must not be named, and that the peer may have: it takes a snapshot to be sure.
    Resync,
}

/// A catch-up under way.
pub(super) struct CatchUp {
    members: Vec<Member>,
    collection: CollectionName,
    snapshot: Snapshot,
    /// Whether live changes after the snapshot are queued already.
    attached: bool,
    stages: VecDeque<Stage>,
    stream: Option<BoxStream<'static, Result<Vec<ScannedDocument>, TablesError>>>,
    batch: std::vec::IntoIter<ScannedDocument>,
    page: Option<PageWriter>,
    /// In a full stage: the last key that was looked at, and not yet told.
    position: Option<DocId>,
}

impl CatchUp {
    /// Brings `members`, all of one collection and one [`Since`], up to `snapshot`.
    pub(super) fn new(members: Vec<Member>, snapshot: Snapshot, attached: bool) -> Option<Self> {
        let first = members.first()?;
        let collection = first.matcher.collection().clone();
        let Since { lsn, position } = first.since.clone();
        let mut stages = VecDeque::new();
        if let Some(since) = lsn.filter(|since| *since < snapshot.lsn() || position.is_some()) {
            stages.push_back(Stage::Changed { since, until: position.clone() });
        }
        if lsn.is_none() || position.is_some() {
            stages.push_back(Stage::Full { after: position });
        }
        let batch = Vec::new().into_iter();
        Some(Self { members, collection, snapshot, attached, stages, stream: None, batch, page: None, position: None })
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn lsn(&self) -> Lsn {
        self.snapshot.lsn()
    }

    pub(super) const fn is_attached(&self) -> bool {
        self.attached
    }

    /// Leaves a subscription out from here on; true when none is left.
    pub(super) fn remove(&mut self, id: u32) -> bool {
        self.members.retain(|member| member.id != id);
        self.members.is_empty()
    }

    /// The next page, or the end. Cancel safe: it waits for nothing but the scan, between documents.
    ///
    /// # Errors
    /// When documents cannot be read.
    pub(super) async fn next(&mut self, compression: pb::Compression) -> Result<Step, TablesError> {
        loop {
            // What is in memory never waits; the session must get to its other events, and others to theirs.
            tokio::task::coop::consume_budget().await;
            let Some(stage) = self.stages.front() else { return Ok(Step::Done) };
            if self.stream.is_none() {
                self.stream = Some(self.snapshot.scan(&self.collection, self.scan(stage)));
            }
            while let Some(scanned) = self.batch.next() {
                match self.take(&scanned)? {
                    Taken::Beyond => {
                        self.batch = Vec::new().into_iter();
                        self.stream = Some(futures::stream::empty().boxed());
                        break;
                    }
                    Taken::Unnameable => return Ok(Step::Resync),
                    Taken::Yes => {}
                }
                if self.page.as_ref().is_some_and(|page| page.len() >= TARGET_FRAME_BYTES) {
                    return Ok(self.finish_page(compression));
                }
            }
            let batch = match &mut self.stream {
                Some(stream) => stream.next().await,
                None => None,
            };
            if let Some(batch) = batch {
                self.batch = batch?.into_iter();
                continue;
            }
            let ended = self.stages.pop_front();
            self.stream = None;
            if let Some(Stage::Changed { until: until @ Some(_), .. }) = ended {
                // The peer may go on from this snapshot, even if nothing has changed.
                self.position = until;
            }
            if self.page.is_some() || self.position.is_some() {
                return Ok(self.finish_page(compression));
            }
        }
    }

    fn scan(&self, stage: &Stage) -> Scan {
        match stage {
            Stage::Changed { since, .. } => Scan { changed_since: Some(*since), deleted: true, ..Scan::default() },
            Stage::Full { after } => {
                // Only what all of them can do without may be left out.
                let conditions = match self.members.as_slice() {
                    [only] => only.matcher.conditions(),
                    _ => Vec::new(),
                };
                Scan { conditions, after: after.clone(), ..Scan::default() }
            }
        }
    }

    fn finish_page(&mut self, compression: pb::Compression) -> Step {
        let position = self.position.take();
        let page = self.page.take().unwrap_or_else(|| self.new_page(0));
        let documents = page.documents();
        Step::Page(page.finish(position.as_ref().map(DocId::as_key), compression), documents)
    }

    fn new_page(&self, capacity: usize) -> PageWriter {
        let ids: Vec<u32> = self.members.iter().map(|member| member.id).collect();
        PageWriter::new(self.collection.as_str(), self.snapshot.lsn(), &ids, capacity)
    }

    fn page(&mut self) -> &mut PageWriter {
        // Not get_or_insert_with: a page needs all of self.
        let page = match self.page.take() {
            Some(page) => page,
            None => self.new_page(TARGET_FRAME_BYTES),
        };
        self.page.insert(page)
    }

    fn take(&mut self, scanned: &ScannedDocument) -> Result<Taken, TablesError> {
        let full = match self.stages.front() {
            Some(Stage::Changed { until: Some(until), .. }) if scanned.id > *until => return Ok(Taken::Beyond),
            Some(Stage::Changed { .. }) | None => false,
            Some(Stage::Full { .. }) => true,
        };
        if full {
            self.position = Some(scanned.id.clone());
            // The scan gives visible documents only: nothing to decode.
            if self.members.iter().all(|member| member.matcher.is_everything()) {
                self.page().state(scanned.id.as_key(), &scanned.state, scanned.lsn, &[]);
                return Ok(Taken::Yes);
            }
        }
        let document = Document::decode(&scanned.state)
            .map_err(|error| TablesError::Corrupt { path: self.collection.to_string(), reason: error.to_string() })?;
        let (matching, rest): (Vec<&Member>, Vec<&Member>) =
            self.members.iter().partition(|member| member.matcher.matches(&scanned.id, &document));
        let matching: Vec<u32> = matching.into_iter().map(|member| member.id).collect();
        if !full && rest.iter().any(|member| !member.matcher.may_name(&scanned.id, &document)) {
            return Ok(Taken::Unnameable);
        }
        let rest: Vec<u32> = rest.into_iter().map(|member| member.id).collect();
        if !matching.is_empty() {
            let ids: &[u32] = if rest.is_empty() { &[] } else { &matching };
            self.page().state(scanned.id.as_key(), &scanned.state, scanned.lsn, ids);
        }
        if !full && !rest.is_empty() {
            let ids: &[u32] = if matching.is_empty() { &[] } else { &rest };
            // Of what was deleted the peer keeps the deletion, so that a later insert of its starts empty.
            match document.tombstone() {
                Some(tombstone) => self.page().state(scanned.id.as_key(), &tombstone.encode(), scanned.lsn, ids),
                None => self.page().left(scanned.id.as_key(), document.max_hlc(), ids),
            }
        }
        Ok(Taken::Yes)
    }
}

enum Taken {
    Yes,
    /// Behind the last key of the stage.
    Beyond,
    Unnameable,
}
