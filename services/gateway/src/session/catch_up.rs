//! `CatchUp`: brings subscriptions of one collection up to a snapshot, page by page: what changed since their cursor,
//! or everything, or (a catch-up that was broken off) some of each, on either side of the last key that was sent. Every page
//! but the last says how far it came, so that the next attempt goes on there.

use std::collections::VecDeque;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document};
use bigpeer_protocol::limits::TARGET_FRAME_BYTES;
use bigpeer_protocol::{Framed, PageWriter, Progress, pb};
use bigpeer_tables::{DocumentStore, Scan, ScannedDocument, Snapshot, TablesError};
use bigpeer_types::{CollectionName, Lsn};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::held::{Held, Say};
use super::since::{Since, Stage, read};
use crate::hub::Matcher;

/// A subscription that waits to catch up.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: u32,
    pub(super) matcher: Arc<Matcher>,
    pub(super) since: Since,
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
    /// The peer is to be asked which documents it holds, if it is so many at most; then [`CatchUp::asked`] or
    /// [`CatchUp::silent`].
    Ask(usize),
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
    /// Which of the changed documents the peer has.
    held: Held,
    /// Documents that do not match, and were named by their id.
    named: usize,
    /// What the question was about; it is looked at again when there is an answer.
    again: Option<ScannedDocument>,
    /// The last document of the stage that was looked at.
    last: Option<DocId>,
    /// The last key that was looked at, may be named, and was not told yet; and whether everything up to it was sent, or
    /// what has changed.
    progress: Option<(Sent, DocId)>,
    /// What was deleted since is not known completely any more.
    forgotten: bool,
}

impl CatchUp {
    /// Brings `members`, all of one collection and one [`Since`], up to `snapshot`.
    /// What changed lately is taken from the store's feed.
    pub(super) fn new(members: Vec<Member>, snapshot: Snapshot, attached: bool, store: &DocumentStore) -> Option<Self> {
        let first = members.first()?;
        let collection = first.matcher.collection().clone();
        let forgotten = first.since.oldest().is_some_and(|oldest| oldest < snapshot.forgotten(&collection));
        let stages = first.since.stages(&collection, &snapshot, store);
        let batch = Vec::new().into_iter();
        let (stream, page, held, again, progress) = (None, None, Held::default(), None, None);
        Some(Self {
            members,
            collection,
            snapshot,
            attached,
            stages,
            stream,
            batch,
            page,
            held,
            named: 0,
            again,
            last: None,
            progress,
            forgotten,
        })
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn lsn(&self) -> Lsn {
        self.snapshot.lsn()
    }

    /// Live changes after the snapshot are not queued any more.
    pub(super) fn detached(&mut self) {
        self.attached = false;
    }

    pub(super) const fn is_attached(&self) -> bool {
        self.attached
    }

    /// Whether an answer of the peer is awaited.
    pub(super) const fn is_asking(&self) -> bool {
        matches!(self.held, Held::Asked(..))
    }

    pub(super) fn collection(&self) -> &CollectionName {
        &self.collection
    }

    /// The peer was asked, with this salt, to tell so many at most.
    pub(super) fn asked(&mut self, salt: u64, at_most: usize) {
        self.held = Held::Asked(salt, at_most);
    }

    /// The peer has answered.
    pub(super) fn answered(&mut self, held: &pb::Held) {
        self.held.answered(held);
    }

    /// The peer cannot be asked, or does not answer.
    pub(super) fn silent(&mut self) {
        self.held = Held::Silent;
    }

    /// Lets go of what was read ahead; [`Self::next`] reads it again.
    pub(super) fn park(&mut self) {
        (self.stream, self.batch) = (None, Vec::new().into_iter());
        let Some(last) = self.last.clone() else { return };
        match self.stages.front_mut() {
            Some(Stage::Changed { after, .. } | Stage::Full { after }) => *after = Some(last),
            Some(Stage::Recent { ids, .. }) => ids.retain(|id| *id > last),
            None => {}
        }
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
        if self.forgotten {
            return Ok(Step::Resync);
        }
        loop {
            // What is in memory never waits; the session must get to its other events, and others to theirs.
            tokio::task::coop::consume_budget().await;
            let Some(stage) = self.stages.front() else { return Ok(Step::Done) };
            if self.stream.is_none() {
                self.stream = Some(self.documents(stage));
            }
            while let Some(scanned) = self.again.take().or_else(|| self.batch.next()) {
                match self.take(&scanned)? {
                    Taken::Beyond => {
                        self.batch = Vec::new().into_iter();
                        self.stream = Some(futures::stream::empty().boxed());
                        break;
                    }
                    Taken::Unnameable => return Ok(Step::Resync),
                    Taken::Question(at_most) => {
                        self.again = Some(scanned);
                        return Ok(Step::Ask(at_most));
                    }
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
            (self.stream, self.last) = (None, None);
            if let Some(Stage::Changed { until, .. } | Stage::Recent { until, .. }) = ended {
                // The peer may go on from this snapshot, even if nothing has changed. At the end there is nothing to go on with.
                let sent =
                    if matches!(self.stages.front(), Some(Stage::Full { .. })) { Sent::All } else { Sent::Changes };
                self.progress = until.map(|until| (sent, until));
            }
            if self.stages.is_empty() && (self.page.is_some() || self.progress.is_some()) {
                return Ok(self.finish_page(compression));
            }
        }
    }

    fn documents(&self, stage: &Stage) -> BoxStream<'static, Result<Vec<ScannedDocument>, TablesError>> {
        let scan = match stage {
            Stage::Recent { ids, .. } => return read(self.snapshot.clone(), self.collection.clone(), ids.clone()),
            Stage::Changed { since, after, .. } => {
                Scan { changed_since: Some(*since), after: after.clone(), deleted: true, ..Scan::default() }
            }
            Stage::Full { after } => {
                // Only what all of them can do without may be left out.
                let conditions = match self.members.as_slice() {
                    [only] => only.matcher.conditions(),
                    _ => Vec::new(),
                };
                Scan { conditions, after: after.clone(), ..Scan::default() }
            }
        };
        self.snapshot.scan(&self.collection, scan)
    }

    fn finish_page(&mut self, compression: pb::Compression) -> Step {
        let page = self.page.take().unwrap_or_else(|| self.new_page(0));
        let documents = page.documents();
        let told = self.progress.take();
        let progress = match &told {
            None => Progress::None,
            Some((Sent::All, key)) => Progress::Everything(key.as_key()),
            Some((Sent::Changes, key)) => Progress::Changed(key.as_key()),
        };
        Step::Page(page.finish(progress, compression), documents)
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
        self.last = Some(scanned.id.clone());
        let full = match self.stages.front() {
            Some(Stage::Changed { until: Some(until), .. } | Stage::Recent { until: Some(until), .. })
                if scanned.id > *until =>
            {
                return Ok(Taken::Beyond);
            }
            Some(Stage::Changed { .. } | Stage::Recent { .. }) | None => false,
            Some(Stage::Full { .. }) => true,
        };
        let sent = if full { Sent::All } else { Sent::Changes };
        // A full scan gives visible documents only: nothing to decode.
        if full && self.members.iter().all(|member| member.matcher.is_everything()) {
            self.page().state(scanned.id.as_key(), &scanned.state, scanned.lsn, &[]);
            self.progress = Some((sent, scanned.id.clone()));
            return Ok(Taken::Yes);
        }
        let document = Document::decode(&scanned.state)
            .map_err(|error| TablesError::Corrupt { path: self.collection.to_string(), reason: error.to_string() })?;
        let (matching, rest): (Vec<&Member>, Vec<&Member>) =
            self.members.iter().partition(|member| member.matcher.matches(&scanned.id, &document));
        let may_name = rest.iter().all(|member| member.matcher.may_name(&scanned.id, &document));
        let matching: Vec<u32> = matching.into_iter().map(|member| member.id).collect();
        let rest: Vec<u32> = rest.into_iter().map(|member| member.id).collect();
        let say = match rest.is_empty() || full {
            true => Say::Nothing,
            false => self.held.say(scanned.id.as_key(), may_name, self.named),
        };
        match say {
            Say::Resync => return Ok(Taken::Unnameable),
            Say::Ask(at_most) => return Ok(Taken::Question(at_most)),
            Say::Nothing | Say::Id | Say::Place(_) => {}
        }
        // A key that the peer may not read is not told, whatever was sent of its document.
        if may_name || !matching.is_empty() {
            self.progress = Some((sent, scanned.id.clone()));
        }
        if !matching.is_empty() {
            let ids: &[u32] = if rest.is_empty() { &[] } else { &matching };
            self.page().state(scanned.id.as_key(), &scanned.state, scanned.lsn, ids);
        }
        let ids: &[u32] = if matching.is_empty() { &[] } else { &rest };
        match (say, document.tombstone()) {
            (Say::Place(place), _) => self.page().left_held(place, document.max_hlc(), ids),
            // Of what was deleted the peer keeps the deletion, so that a later insert of its starts empty.
            (Say::Id, Some(tombstone)) => {
                self.named += 1;
                self.page().state(scanned.id.as_key(), &tombstone.encode(), scanned.lsn, ids);
            }
            (Say::Id, None) => {
                self.named += 1;
                self.page().left(scanned.id.as_key(), document.max_hlc(), ids);
            }
            (Say::Nothing | Say::Ask(_) | Say::Resync, _) => {}
        }
        Ok(Taken::Yes)
    }
}

/// What was sent of the documents up to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    All,
    Changes,
}

enum Taken {
    Yes,
    /// Behind the last key of the stage.
    Beyond,
    Unnameable,
    /// It takes the peer's answer to decide.
    Question(usize),
}
