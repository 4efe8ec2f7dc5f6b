//! Transactions: statements read at a snapshot, make their deltas, and are appended together on condition that what they
//! were made from has not changed. When it has, all of them are run again.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use bigpeer_chassis::{ApiError, ErrorCode, Permissions};
use bigpeer_crdt::{DocId, Document};
use bigpeer_dql::{DeletePlan, DqlError, Found, InsertPlan, Mutation, Plan, SelectPlan, Wanted};
use bigpeer_tables::DocumentStore;
use bigpeer_types::{AppId, CollectionName, HlcClock};

use crate::Api;
use crate::computing::Computing;
use crate::envelope::{Answer, refused};
use crate::read::failed;
use crate::rules::Allowed;
use crate::sequencer::{Outcome, Writer};
use crate::view::View;
use crate::{columns, system};

/// Up to so many documents the work is done where it is: handing it to another thread would cost more.
const FEW: usize = 64;

/// For whom, and where.
#[derive(Clone, Copy)]
pub(crate) struct Session<'a> {
    pub(crate) api: &'a Api,
    pub(crate) app: &'a AppId,
    pub(crate) store: &'a DocumentStore,
    pub(crate) permissions: &'a Permissions,
    pub(crate) computing: &'a Computing,
}

/// What a transaction came to.
#[derive(Debug)]
pub(crate) struct Committed {
    /// The commit's, or the snapshot's when nothing was written.
    pub(crate) transaction_id: u64,
    /// One for each statement.
    pub(crate) answers: Vec<Answer>,
}

/// A statement that failed, and which.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) statement: Option<usize>,
    pub(crate) error: ApiError,
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self { statement: None, error }
    }
}

/// Whether everything that the statements look at is checked at the append, and how often they are run again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Isolation {
    /// One statement: what it decided on is checked, document by document.
    Statement,
    /// As if no other transaction ran at the same time.
    Serializable,
}

impl Session<'_> {
    /// Runs statements as one transaction, until it is durable or refused.
    pub(crate) async fn run(self, plans: &[Plan], isolation: Isolation) -> Result<Committed, Failed> {
        let writes = plans.iter().any(|plan| !matches!(plan, Plan::Select(_) | Plan::Explain(_)));
        // Deletions make room.
        if plans.iter().any(|plan| matches!(plan, Plan::Insert(_) | Plan::Update(_))) {
            self.api.context.catalogue.meter(self.app).may_store(self.store.stored_bytes())?;
        }
        let writer = if writes { Some(self.api.writers.of(self.app).await?) } else { None };
        let settings = &self.api.context.settings;
        let attempts = match isolation {
            Isolation::Statement => settings.max_attempts,
            Isolation::Serializable => settings.max_transaction_attempts,
        };
        for _ in 0..attempts {
            let mut view = View::new(self.store.snapshot(), self.computing);
            view.recording = writes && matches!(isolation, Isolation::Serializable);
            let mut answers = Vec::with_capacity(plans.len());
            for (at, plan) in plans.iter().enumerate() {
                let last = at + 1 == plans.len();
                let answer = self.statement(&mut view, plan.clone(), writer.as_ref(), last).await;
                answers.push(answer.map_err(|error| Failed { statement: Some(at), error })?);
            }
            let (Some(writer), false) = (&writer, view.is_clean()) else {
                return Ok(committed(view.snapshot().lsn().version, answers));
            };
            let seen_at = match writer.submit(view.submission()?).await? {
                Outcome::Applied(lsn) => {
                    // Durable already: a store that cannot follow is no reason to say that the write failed.
                    if let Err(error) = self.store.wait_for(lsn).await {
                        tracing::warn!(app = %self.app, %error, "a write is durable, and this process cannot show it yet");
                    }
                    return Ok(committed(lsn.version, answers));
                }
                Outcome::Stale { after: Some(lsn) } => lsn,
                Outcome::Stale { after: None } => {
                    let unavailable =
                        |_| ApiError::new(ErrorCode::Unavailable, "the log cannot be read; nothing was written");
                    self.api.context.log.head(self.app).await.map_err(unavailable)?
                }
            };
            crate::metrics::retried();
            self.store.wait_for(seen_at).await.map_err(|error| failed(&error))?;
        }
        let message = "others keep changing the same documents; nothing was written; try again";
        Err(ApiError::new(ErrorCode::Conflict, message).retry_after(1).into())
    }

    /// The documents that `plan` means, in its order, and the transaction id of the snapshot.
    pub(crate) async fn documents(self, plan: DeletePlan) -> Result<(Vec<(DocId, Arc<Document>)>, u64), ApiError> {
        let readable = self.readable(plan.collection())?;
        let (collection, conditions) = (plan.collection().clone(), plan.conditions());
        let mut view = View::new(self.store.snapshot(), self.computing);
        let ids = match plan.ids() {
            None => columns::documents(self, &mut view, &collection, plan.by_columns()).await?,
            ids => ids,
        };
        let run = view.feed(plan.run(), Wanted { collection, ids, conditions }, &readable).await?;
        Ok((run.documents().collect(), view.snapshot().lsn().version))
    }

    /// Whether the caller may read anything of the collection.
    ///
    /// # Errors
    /// `forbidden`.
    pub(crate) fn may_read(self, collection: &CollectionName) -> Result<(), ApiError> {
        self.readable(collection).map(|_| ())
    }

    async fn statement(
        self,
        view: &mut View<'_>,
        plan: Plan,
        writer: Option<&Arc<Writer>>,
        last: bool,
    ) -> Result<Answer, ApiError> {
        let collection = match &plan {
            Plan::Select(_) => return self.select(view, plan).await,
            Plan::Explain(items) => return Ok(Answer { items: items.clone(), ..Answer::default() }),
            Plan::Evict(_) => {
                let message = "EVICT makes a Small Peer forget; the server forgets nothing; use DELETE";
                return Err(ApiError::new(ErrorCode::InvalidStatement, message));
            }
            Plan::Insert(plan) => plan.collection().clone(),
            Plan::Update(plan) => plan.collection().clone(),
            Plan::Delete(plan) => plan.collection().clone(),
        };
        let Some(writer) = writer else { return Err(ApiError::internal(&"a mutation without a writer")) };
        if collection.is_system() {
            let message = format!("'{collection}' is the server's own; nobody else writes to it");
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
        let writable = Allowed::compile(&self.permissions.write, &collection, "write", &self.api.rules)?;
        let mut mutation = self.mutation(view, plan, writer).await?;
        check_rights(&mutation, view, &writable).await?;
        if last {
            // Nobody will look any more.
            view.depend(&collection, &mutation);
        } else {
            view.write(&collection, &mutation).await?;
        }
        view.append(&mut mutation);
        Ok(Answer {
            items: mutation.items,
            mutated: mutation.mutated.iter().map(DocId::to_value).collect(),
            warnings: mutation.warnings,
            ..Answer::default()
        })
    }

    fn ids(&self) -> &dyn bigpeer_types::IdGenerator {
        self.api.context.ids.as_ref()
    }

    fn readable(&self, collection: &CollectionName) -> Result<Arc<Allowed>, ApiError> {
        Allowed::compile(&self.permissions.read, collection, "read", &self.api.rules).map(Arc::new)
    }

    async fn select(self, view: &mut View<'_>, plan: Plan) -> Result<Answer, ApiError> {
        match plan {
            Plan::Select(plan) => Ok(Answer { items: self.rows(view, plan).await?, ..Answer::default() }),
            Plan::Insert(_) | Plan::Update(_) | Plan::Delete(_) | Plan::Evict(_) | Plan::Explain(_) => {
                Ok(Answer::default())
            }
        }
    }

    /// The rows of a SELECT.
    async fn rows(self, view: &mut View<'_>, plan: SelectPlan) -> Result<Vec<bigpeer_crdt::Value>, ApiError> {
        let mut wanted =
            Some(Wanted { collection: plan.collection().clone(), ids: plan.ids(), conditions: plan.conditions() });
        if !system::is_virtual(plan.collection()) {
            let readable = self.readable(plan.collection())?;
            match columns::find(self, view, &plan, &readable).await? {
                Some(Found::Documents(ids)) => {
                    wanted = wanted.map(|wanted| Wanted { ids: Some(ids), ..wanted });
                }
                Some(found) => return self.compute(false, move || plan.rows_of(found)).await,
                None => {}
            }
        }
        let mut few = true;
        let mut run = plan.run();
        while let Some(next) = wanted {
            let readable = self.readable(&next.collection)?;
            if system::is_virtual(&next.collection) {
                if !matches!(*readable, Allowed::Everything) {
                    // Conditions are about documents, and these are none.
                    let message =
                        format!("this key may not read the collection '{}', only parts of it", next.collection);
                    return Err(ApiError::new(ErrorCode::Forbidden, message));
                }
                for row in system::rows(self, view.snapshot(), &next.collection).await? {
                    run.push_row(&row).map_err(|error| refused(&error))?;
                }
            } else {
                few &= is_few(next.ids.as_deref());
                run = view.feed(run, next, &readable).await?;
            }
            wanted = run.next_wanted().map_err(|error| refused(&error))?;
        }
        self.compute(few, move || run.finish()).await
    }

    /// Makes the deltas.
    async fn mutation(self, view: &mut View<'_>, plan: Plan, writer: &Arc<Writer>) -> Result<Mutation, ApiError> {
        match plan {
            Plan::Insert(plan) => {
                let plan = self.filled(view, plan).await?;
                let ids = plan.ids().unwrap_or_default();
                let found = view.get_many(plan.collection(), &ids).await?;
                let few = is_few(Some(&ids));
                let existing: BTreeMap<DocId, Arc<Document>> =
                    ids.into_iter().zip(found).filter_map(|(id, found)| Some((id, found?))).collect();
                self.with_clock(few, writer, move |clock| plan.apply(&|id| existing.get(id).cloned(), clock)).await
            }
            Plan::Update(plan) => {
                let readable = self.readable(plan.collection())?;
                let (collection, conditions) = (plan.collection().clone(), plan.conditions());
                let ids = match plan.ids() {
                    None => columns::documents(self, view, &collection, plan.by_columns()).await?,
                    ids => ids,
                };
                let few = is_few(ids.as_deref());
                let run = view.feed(plan.run(), Wanted { collection, ids, conditions }, &readable).await?;
                self.with_clock(few, writer, move |clock| run.finish(clock)).await
            }
            Plan::Delete(plan) => {
                let readable = self.readable(plan.collection())?;
                let (collection, conditions) = (plan.collection().clone(), plan.conditions());
                let ids = match plan.ids() {
                    None => columns::documents(self, view, &collection, plan.by_columns()).await?,
                    ids => ids,
                };
                let few = is_few(ids.as_deref());
                let run = view.feed(plan.run(), Wanted { collection, ids, conditions }, &readable).await?;
                self.with_clock(few, writer, move |clock| run.finish(clock)).await
            }
            Plan::Select(_) | Plan::Evict(_) | Plan::Explain(_) => Err(ApiError::internal(&"not a mutation")),
        }
    }

    /// Does `work` here, or where it holds up nobody.
    async fn compute<T, F>(self, here: bool, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, DqlError> + Send + 'static,
    {
        let done = if here { work() } else { self.computing.compute(work).await? };
        done.map_err(|error| refused(&error))
    }

    /// Makes stamps with the writer's clock.
    async fn with_clock<F>(self, here: bool, writer: &Arc<Writer>, make: F) -> Result<Mutation, ApiError>
    where
        F: FnOnce(&mut HlcClock) -> Result<Mutation, DqlError> + Send + 'static,
    {
        let writer = Arc::clone(writer);
        let make = move || {
            let mut clock = writer.clock.lock().unwrap_or_else(PoisonError::into_inner);
            make(&mut clock)
        };
        self.compute(here, make).await
    }

    /// An INSERT with the rows of its SELECT; what those depend on is checked at the append.
    async fn filled(self, view: &mut View<'_>, plan: InsertPlan) -> Result<InsertPlan, ApiError> {
        let Some(source) = plan.source().cloned() else { return Ok(plan) };
        let recording = std::mem::replace(&mut view.recording, true);
        let rows = self.rows(view, source).await;
        view.recording = recording;
        plan.with_rows(rows?, self.ids()).map_err(|error| refused(&error))
    }
}

fn committed(transaction_id: u64, mut answers: Vec<Answer>) -> Committed {
    for answer in &mut answers {
        answer.transaction_id = transaction_id;
    }
    Committed { transaction_id, answers }
}

fn is_few(ids: Option<&[DocId]>) -> bool {
    ids.is_some_and(|ids| ids.len() <= FEW)
}

/// Every changed document must be the caller's to write, as it was and as it becomes.
async fn check_rights(mutation: &Mutation, view: &mut View<'_>, writable: &Allowed) -> Result<(), ApiError> {
    if matches!(writable, Allowed::Everything) {
        return Ok(());
    }
    for (collection, id, delta) in &mutation.changes {
        let before = view.get_many(collection, std::slice::from_ref(id)).await?.pop().flatten();
        let mut after = before.as_ref().map(|before| Document::clone(before)).unwrap_or_default();
        let allowed_before = before.is_none_or(|before| !before.is_visible() || writable.holds(id, &before));
        after.join(delta);
        if !allowed_before || (after.is_visible() && !writable.holds(id, &after)) {
            let message = format!("this key may not write the document {} of '{collection}'", id.to_value().to_json());
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
    }
    Ok(())
}
