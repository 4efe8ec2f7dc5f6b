//! Mutations: read at a snapshot, make the deltas, append them as one transaction on condition that what they were made from
//! has not changed, and run again when it has.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use bigpeer_chassis::{ApiError, ErrorCode, conflict_key};
use bigpeer_crdt::{DocId, Document, TransactionBuilder};
use bigpeer_dql::{DeletePlan, DqlError, InsertPlan, Mutation, UpdatePlan};
use bigpeer_tables::{DocumentStore, Snapshot};
use bigpeer_types::{AppId, CollectionName, HlcClock, Lsn};

use crate::Api;
use crate::envelope::{Answer, refused};
use crate::read::{Wanted, failed, feed};
use crate::rules::Allowed;
use crate::sequencer::{Outcome, Submission, Writer};

/// A mutation ready to run.
#[derive(Clone, Debug)]
pub(crate) enum MutationPlan {
    Insert(InsertPlan),
    Update(UpdatePlan),
    Delete(DeletePlan),
}

impl MutationPlan {
    pub(crate) fn collection(&self) -> &CollectionName {
        match self {
            Self::Insert(plan) => plan.collection(),
            Self::Update(plan) => plan.collection(),
            Self::Delete(plan) => plan.collection(),
        }
    }

    fn wanted(&self) -> Wanted {
        let (ids, conditions) = match self {
            Self::Insert(plan) => (plan.ids(), Vec::new()),
            Self::Update(plan) => (plan.ids(), plan.conditions()),
            Self::Delete(plan) => (plan.ids(), plan.conditions()),
        };
        Wanted { collection: self.collection().clone(), ids, conditions }
    }
}

/// What a caller may do with the documents of the statement's collection.
#[derive(Debug)]
pub(crate) struct Rights {
    pub(crate) read: Arc<Allowed>,
    pub(crate) write: Allowed,
}

/// Runs a mutation until it is durable or refused.
pub(crate) async fn mutate(
    api: &Api,
    app: &AppId,
    store: &DocumentStore,
    plan: MutationPlan,
    rights: &Rights,
) -> Result<Answer, ApiError> {
    let writer = api.writers.of(app).await?;
    for _ in 0..api.context.settings.max_attempts {
        let snapshot = store.snapshot();
        let mutation = make(&plan, &snapshot, &writer, rights).await?;
        if mutation.changes.is_empty() {
            return Ok(answer(mutation, snapshot.lsn()));
        }
        check_rights(&mutation, &snapshot, rights).await?;
        let outcome = writer.submit(submission(&plan, &mutation, snapshot.lsn())?).await?;
        let seen_at = match outcome {
            Outcome::Applied(lsn) => {
                // Durable already: a store that cannot follow is no reason to say that the write failed.
                if let Err(error) = store.wait_for(lsn).await {
                    tracing::warn!(%app, %error, "a write is durable, and this process cannot show it yet");
                }
                return Ok(answer(mutation, lsn));
            }
            Outcome::Stale { after: Some(lsn) } => lsn,
            Outcome::Stale { after: None } => {
                let unavailable =
                    |_| ApiError::new(ErrorCode::Unavailable, "the log cannot be read; nothing was written");
                api.context.log.head(app).await.map_err(unavailable)?
            }
        };
        crate::metrics::retried();
        store.wait_for(seen_at).await.map_err(|error| failed(&error))?;
    }
    Err(ApiError::new(ErrorCode::Conflict, "others keep changing the same documents; nothing was written; try again"))
}

fn answer(mutation: Mutation, lsn: Lsn) -> Answer {
    Answer {
        transaction_id: lsn.version,
        items: mutation.items,
        mutated: mutation.mutated.iter().map(DocId::to_value).collect(),
        warnings: mutation.warnings,
    }
}

/// Makes the deltas from the documents of `snapshot`.
async fn make(
    plan: &MutationPlan,
    snapshot: &Snapshot,
    writer: &Arc<Writer>,
    rights: &Rights,
) -> Result<Mutation, ApiError> {
    let wanted = plan.wanted();
    match plan.clone() {
        MutationPlan::Insert(plan) => {
            let ids = wanted.ids.unwrap_or_default();
            let found = snapshot.get_many(&wanted.collection, &ids).await.map_err(|error| failed(&error))?;
            let existing: BTreeMap<DocId, Arc<Document>> =
                ids.into_iter().zip(found).filter_map(|(id, found)| Some((id, found?.document))).collect();
            with_clock(writer, move |clock| plan.apply(&|id| existing.get(id).cloned(), clock)).await
        }
        MutationPlan::Update(plan) => {
            let run = feed(plan.run(), snapshot, wanted, &rights.read).await?;
            with_clock(writer, move |clock| run.finish(clock)).await
        }
        MutationPlan::Delete(plan) => {
            let run = feed(plan.run(), snapshot, wanted, &rights.read).await?;
            with_clock(writer, move |clock| run.finish(clock)).await
        }
    }
}

/// Makes stamps with the writer's clock, on a thread that may block.
async fn with_clock<F>(writer: &Arc<Writer>, make: F) -> Result<Mutation, ApiError>
where
    F: FnOnce(&mut HlcClock) -> Result<Mutation, DqlError> + Send + 'static,
{
    let writer = Arc::clone(writer);
    let made = tokio::task::spawn_blocking(move || {
        let mut clock = writer.clock.lock().unwrap_or_else(PoisonError::into_inner);
        make(&mut clock)
    });
    made.await.map_err(|error| ApiError::internal(&error))?.map_err(|error| refused(&error))
}

/// Every changed document must be the caller's to write, as it was and as it becomes.
async fn check_rights(mutation: &Mutation, snapshot: &Snapshot, rights: &Rights) -> Result<(), ApiError> {
    if matches!(rights.write, Allowed::Everything) {
        return Ok(());
    }
    for (collection, id, delta) in &mutation.changes {
        let before = snapshot.get(collection, id).await.map_err(|error| failed(&error))?;
        let mut after = before.as_ref().map(|found| Document::clone(&found.document)).unwrap_or_default();
        let allowed_before =
            before.is_none_or(|found| !found.document.is_visible() || rights.write.holds(id, &found.document));
        after.join(delta);
        if !allowed_before || (after.is_visible() && !rights.write.holds(id, &after)) {
            let message = format!("this key may not write the document {} of '{collection}'", id.to_value().to_json());
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
    }
    Ok(())
}

fn submission(plan: &MutationPlan, mutation: &Mutation, base: Lsn) -> Result<Submission, ApiError> {
    let mut builder = TransactionBuilder::new();
    let mut writes = Vec::with_capacity(mutation.changes.len());
    for (collection, id, delta) in &mutation.changes {
        builder.change(collection, id, delta);
        writes.push(conflict_key(collection, id.as_key()));
    }
    let payload = builder.finish().map_err(|error| {
        let message = format!("{error}; nothing was written; change fewer documents at once, with LIMIT");
        ApiError::new(ErrorCode::TooLarge, message)
    })?;
    let unchanged =
        mutation.must_be_unchanged.iter().map(|id| (conflict_key(plan.collection(), id.as_key()), base)).collect();
    Ok(Submission { base, writes, unchanged, payload })
}
