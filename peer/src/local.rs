//! DQL over the local store: reading on a reader's connection, writing in one transaction of the writer's thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, TransactionBuilder, Value};
use bigpeer_dql::{
    DeletePlan, DqlError, Flow, InsertPlan, Mode, Moment, Mutation, Plan, SelectPlan, Statement, UpdatePlan,
};
use bigpeer_types::{Clock, CollectionName, HlcClock, IdGenerator, Lsn};

use crate::store::{Tables, Work};
use crate::{Params, PeerError, PeerSettings};

/// What a statement did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryResult {
    /// The rows of a SELECT, or of a mutation's RETURNING.
    pub items: Vec<Value>,
    /// The documents that a mutation touched.
    pub mutated: Vec<DocId>,
    /// What the caller should know, though the statement was done.
    pub warnings: Vec<String>,
    /// The local transaction that holds the mutation, if it changed anything: [`Status::acknowledged`] at or above it
    /// means that the server has it. None inside of [`Peer::transaction`], which commits later.
    ///
    /// [`Status::acknowledged`]: crate::Status::acknowledged
    /// [`Peer::transaction`]: crate::Peer::transaction
    pub seq: Option<u64>,
}

/// What evaluating DQL needs beside documents.
#[derive(Clone, Debug)]
pub(crate) struct Evaluation {
    mode: Mode,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGenerator>,
}

impl Evaluation {
    pub(crate) fn new(settings: &PeerSettings) -> Self {
        let mode = Mode { strict: settings.strict };
        Self { mode, clock: Arc::clone(&settings.clock), ids: Arc::clone(&settings.ids) }
    }

    /// A statement with its parameters, ready to run.
    pub(crate) fn plan(&self, statement: Statement, params: &Params) -> Result<Plan, PeerError> {
        let now_ms = i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX);
        let moment = Moment { now_ms, ..Moment::default() };
        statement.bind_at(params, self.mode, &*self.ids, &moment).map_err(dql)
    }

    /// A SELECT that is answered again and again, or the error that it is something else. It knows of no time.
    pub(crate) fn select(&self, query: &str, params: &Params) -> Result<SelectPlan, PeerError> {
        match parse(query)?.bind(params, self.mode, &*self.ids).map_err(dql)? {
            Plan::Select(plan) if plan.has_joins() => {
                Err(PeerError::WrongStatement("only a SELECT from one collection can be observed or subscribed to"))
            }
            Plan::Select(plan) => Ok(plan),
            Plan::Insert(_) | Plan::Update(_) | Plan::Delete(_) | Plan::Evict(_) | Plan::Explain(_) => {
                Err(PeerError::WrongStatement("only a SELECT can be observed or subscribed to"))
            }
        }
    }
}

pub(crate) fn parse(statement: &str) -> Result<Statement, PeerError> {
    bigpeer_dql::parse(statement).map_err(dql)
}

/// A subscription's arguments as they are stored: a JSON object, or nothing.
pub(crate) fn parse_arguments(json: &str) -> Result<Params, PeerError> {
    if json.is_empty() {
        return Ok(Params::new());
    }
    let damaged = |reason: String| PeerError::Damaged(format!("a subscription's arguments: {reason}"));
    let json = serde_json::from_str(json).map_err(|error| damaged(error.to_string()))?;
    match Value::from_json(json).map_err(|error| damaged(error.to_string()))? {
        Value::Object(arguments) => Ok(arguments),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::Array(_) => Err(damaged("not an object".to_owned())),
    }
}

fn dql(error: DqlError) -> PeerError {
    PeerError::Dql(error.to_string())
}

pub(crate) fn decode(state: &[u8]) -> Result<Document, PeerError> {
    Document::decode(state).map_err(|error| PeerError::Damaged(format!("a document: {error}")))
}

/// Runs a SELECT.
pub(crate) fn run_select(tables: &Tables<'_>, plan: SelectPlan) -> Result<Vec<Value>, PeerError> {
    let (collection, ids) = (plan.collection().clone(), plan.ids());
    let mut run = plan.run();
    feed(tables, &collection, ids, |id, document| run.push(id, &document))?;
    while let Some(wanted) = run.next_wanted().map_err(dql)? {
        feed(tables, &wanted.collection, wanted.ids, |id, document| run.push(id, &document))?;
    }
    run.finish().map_err(dql)
}

/// Feeds the documents that can matter, in key order, until there are enough.
fn feed(
    tables: &Tables<'_>,
    collection: &CollectionName,
    ids: Option<Vec<DocId>>,
    mut push: impl FnMut(&DocId, Document) -> Result<Flow, DqlError>,
) -> Result<(), PeerError> {
    let Some(number) = tables.collection_number(collection)? else { return Ok(()) };
    let Some(mut ids) = ids else {
        return tables.scan_documents(number, |key, state| {
            let id = DocId::from_key(key).map_err(|error| PeerError::Damaged(error.to_string()))?;
            Ok(match push(&id, decode(state)?).map_err(dql)? {
                Flow::More => ControlFlow::Continue(()),
                Flow::Enough => ControlFlow::Break(()),
            })
        });
    };
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        if let Some(state) = tables.document(number, id.as_key())?
            && push(&id, decode(&state)?).map_err(dql)? == Flow::Enough
        {
            break;
        }
    }
    Ok(())
}

/// Several statements that become one transaction: all of it is committed and pushed, or nothing.
#[derive(Debug)]
pub struct WriteTransaction<'w, 'a> {
    work: &'w mut Work<'a>,
    evaluation: Evaluation,
    /// The store's clock. None before the first login: reading and evicting work, writing does not.
    clock: Option<HlcClock>,
    /// What the transaction will carry, joined per document.
    deltas: BTreeMap<(CollectionName, DocId), Document>,
}

impl<'w, 'a> WriteTransaction<'w, 'a> {
    pub(crate) fn begin(work: &'w mut Work<'a>, evaluation: Evaluation) -> Result<Self, PeerError> {
        let last = work.tables().clock()?;
        let clock = work.tables().site()?.map(|site| HlcClock::new(site, last, Arc::clone(&evaluation.clock)));
        Ok(Self { work, evaluation, clock, deltas: BTreeMap::new() })
    }

    /// Runs one statement. It sees what the statements before it did.
    ///
    /// # Errors
    /// When the statement is wrong or cannot be done. Nothing of it is done then; what came before it in the transaction
    /// is still to be committed, unless the error is passed on.
    pub fn execute(&mut self, statement: &str, params: &Params) -> Result<QueryResult, PeerError> {
        let plan = self.evaluation.plan(parse(statement)?, params)?;
        self.run(plan)
    }

    pub(crate) fn run(&mut self, plan: Plan) -> Result<QueryResult, PeerError> {
        let mutation = match plan {
            Plan::Select(plan) => {
                let items = run_select(self.work.tables(), plan)?;
                return Ok(QueryResult { items, ..QueryResult::default() });
            }
            Plan::Explain(items) => return Ok(QueryResult { items, ..QueryResult::default() }),
            Plan::Evict(plan) => return self.evict(plan),
            Plan::Insert(plan) => self.insert(plan)?,
            Plan::Update(plan) => self.update(plan)?,
            Plan::Delete(plan) => self.delete(plan)?,
        };
        for (collection, id, delta) in mutation.changes {
            self.apply(collection, id, delta)?;
        }
        Ok(QueryResult {
            items: mutation.items,
            mutated: mutation.mutated,
            warnings: mutation.warnings.into_iter().map(|warning| warning.description).collect(),
            seq: None,
        })
    }

    fn insert(&mut self, mut plan: InsertPlan) -> Result<Mutation, PeerError> {
        let clock = self.clock.as_mut().ok_or(PeerError::NoSite)?;
        let tables = self.work.tables();
        if let Some(source) = plan.source().cloned() {
            let rows = run_select(tables, source)?;
            plan = plan.with_rows(rows, &*self.evaluation.ids).map_err(dql)?;
        }
        let number = tables.collection_number(plan.collection())?;
        // The plan asks through a function that can only say "there is none"; a failure is kept aside.
        let failure = RefCell::new(None);
        let existing = |id: &DocId| {
            let state = number.map_or(Ok(None), |number| tables.document(number, id.as_key()));
            let document = state.and_then(|state| state.map(|state| decode(&state).map(Arc::new)).transpose());
            document.unwrap_or_else(|error| {
                failure.replace(Some(error));
                None
            })
        };
        let mutation = plan.apply(&existing, clock);
        match failure.into_inner() {
            Some(error) => Err(error),
            None => mutation.map_err(dql),
        }
    }

    fn update(&mut self, plan: UpdatePlan) -> Result<Mutation, PeerError> {
        let clock = self.clock.as_mut().ok_or(PeerError::NoSite)?;
        let (collection, ids) = (plan.collection().clone(), plan.ids());
        let mut run = plan.run();
        feed(self.work.tables(), &collection, ids, |id, document| run.push(id, Arc::new(document)))?;
        run.finish(clock).map_err(dql)
    }

    fn delete(&mut self, plan: DeletePlan) -> Result<Mutation, PeerError> {
        let clock = self.clock.as_mut().ok_or(PeerError::NoSite)?;
        let (collection, ids) = (plan.collection().clone(), plan.ids());
        let mut run = plan.run();
        feed(self.work.tables(), &collection, ids, |id, document| run.push(id, Arc::new(document)))?;
        run.finish(clock).map_err(dql)
    }

    /// Forgets documents of this store, without deleting them anywhere else. Those with unpushed changes stay.
    fn evict(&mut self, plan: DeletePlan) -> Result<QueryResult, PeerError> {
        let collection = plan.collection().clone();
        let Some(number) = self.work.tables().collection_number(&collection)? else {
            return Ok(QueryResult::default());
        };
        let ids = plan.ids();
        let mut run = plan.run();
        feed(self.work.tables(), &collection, ids, |id, document| run.push(id, Arc::new(document)))?;
        // The run only says which documents it means; the deltas that it makes with this clock are thrown away.
        let mut scratch =
            HlcClock::new(bigpeer_types::SiteId::new(0), bigpeer_types::Hlc::ZERO, Arc::clone(&self.evaluation.clock));
        let mutation = run.finish(&mut scratch).map_err(dql)?;
        let mut result = QueryResult::default();
        let subscribed = self.subscriptions_to(&collection)?;
        for id in mutation.mutated {
            if self.is_matched(&subscribed, number, &id)? {
                result.warnings.push(format!("{id:?} is subscribed to, and stays; unsubscribe first"));
                continue;
            }
            let in_this = self.deltas.contains_key(&(collection.clone(), id.clone()));
            if in_this || self.work.tables().has_changes_after(Lsn::ZERO, number, id.as_key())? {
                result.warnings.push(format!("{id:?} has changes that are not pushed yet, and stays"));
            } else {
                self.work.remove_document(number, id.as_key())?;
                result.mutated.push(id);
            }
        }
        self.work.touch(&collection);
        Ok(result)
    }

    /// The plans of the subscriptions to a collection.
    fn subscriptions_to(&self, collection: &CollectionName) -> Result<Vec<SelectPlan>, PeerError> {
        let mut plans = Vec::new();
        for subscription in self.work.tables().subscriptions()? {
            let plan = self.evaluation.select(&subscription.query, &parse_arguments(&subscription.arguments)?)?;
            if plan.collection() == collection {
                plans.push(plan);
            }
        }
        Ok(plans)
    }

    /// Whether one of these subscriptions matches the document: the server counts on it being here.
    fn is_matched(&self, subscriptions: &[SelectPlan], number: i64, id: &DocId) -> Result<bool, PeerError> {
        if subscriptions.is_empty() {
            return Ok(false);
        }
        let Some(state) = self.work.tables().document(number, id.as_key())? else { return Ok(false) };
        let document = decode(&state)?;
        Ok(subscriptions.iter().any(|plan| plan.matches(id, &document)))
    }

    /// Joins a delta into the store and into what will be pushed.
    fn apply(&mut self, collection: CollectionName, id: DocId, delta: Document) -> Result<(), PeerError> {
        let number = self.work.number_of(&collection)?;
        let state = match self.work.tables().document(number, id.as_key())? {
            Some(state) => {
                let mut document = decode(&state)?;
                document.join(&delta);
                document.encode()
            }
            None => delta.encode(),
        };
        self.work.put_document(number, id.as_key(), &state)?;
        self.work.touch(&collection);
        self.deltas.entry((collection, id)).and_modify(|known| known.join(&delta)).or_insert(delta);
        Ok(())
    }

    /// Makes the transaction part of the store's change; answers its sequence number if it has one.
    pub(crate) fn finish(self) -> Result<Option<u64>, PeerError> {
        let Some(clock) = self.clock else { return Ok(None) };
        if self.deltas.is_empty() {
            return Ok(None);
        }
        let mut builder = TransactionBuilder::new();
        for ((collection, id), delta) in &self.deltas {
            builder.change(collection, id, delta);
        }
        let payload = builder.finish().map_err(|error| PeerError::TransactionTooLarge(error.to_string()))?;
        self.work.set_clock(clock.last())?;
        self.work.add_unpushed(&payload).map(Some)
    }
}
