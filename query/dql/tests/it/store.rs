//! Documents in memory, and statements run on them as a server would.

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Object, Value};
use bigpeer_dql::{DqlError, Flow, Mode, Moment, Mutation, Plan, parse};
use bigpeer_types::{CollectionName, Hlc, HlcClock, ManualClock, SeededIds, SiteId};
use serde_json::Value as Json;

/// One peer's documents.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) documents: BTreeMap<(CollectionName, DocId), Arc<Document>>,
    pub(crate) mode: Mode,
    clock: HlcClock,
    ids: SeededIds,
}

pub(crate) fn value(json: Json) -> Value {
    Value::from_json(json).unwrap()
}

pub(crate) fn params(json: Json) -> Object {
    match value(json) {
        Value::Object(object) => object,
        other => panic!("{other:?} is no object"),
    }
}

impl Store {
    pub(crate) fn new() -> Self {
        Self::of_site(7)
    }

    pub(crate) fn of_site(site: u64) -> Self {
        Self::of_site_at(site, 1_000_000)
    }

    /// With a clock that stands at this millisecond.
    pub(crate) fn of_site_at(site: u64, ms: u64) -> Self {
        let clock = HlcClock::new(SiteId::new(site), Hlc::ZERO, Arc::new(ManualClock::new(ms)));
        Self { documents: BTreeMap::new(), mode: Mode { strict: false }, clock, ids: SeededIds::new(site) }
    }

    pub(crate) fn strict() -> Self {
        Self { mode: Mode { strict: true }, ..Self::new() }
    }

    /// A store with these documents in `c`.
    pub(crate) fn with(documents: Json) -> Self {
        let mut store = Self::new();
        store.run_with("INSERT INTO c DOCUMENTS (:d)", serde_json::json!({ "d": documents })).unwrap();
        store
    }

    pub(crate) fn bind(&self, statement: &str, args: Json) -> Result<Plan, DqlError> {
        let request =
            params(serde_json::json!({"app_id": "a", "request_id": "r", "start_time": "2026-01-02T03:04:05Z"}));
        let moment = Moment { now_ms: 1_767_323_045_000, request };
        parse(statement)?.bind_at(&params(args), self.mode, &self.ids, &moment)
    }

    /// The documents of a collection that a plan with these ids needs.
    fn wanted(&self, collection: &CollectionName, ids: Option<Vec<DocId>>) -> Vec<(DocId, Arc<Document>)> {
        let of = |(key, document): (&(CollectionName, DocId), &Arc<Document>)| (key.1.clone(), Arc::clone(document));
        match ids {
            Some(ids) => ids
                .into_iter()
                .filter_map(|id| Some((id.clone(), Arc::clone(self.documents.get(&(collection.clone(), id))?))))
                .collect(),
            None => self.documents.iter().filter(|(key, _)| key.0 == *collection).map(of).collect(),
        }
    }

    /// Runs a statement; answers with its rows.
    pub(crate) fn run_with(&mut self, statement: &str, args: Json) -> Result<Vec<Json>, DqlError> {
        let items = match self.bind(statement, args)? {
            Plan::Explain(rows) => rows,
            Plan::Select(plan) => self.select(plan)?,
            other => self.mutate_plan(other)?.items,
        };
        Ok(items.iter().map(Value::to_json).collect())
    }

    fn select(&self, plan: bigpeer_dql::SelectPlan) -> Result<Vec<Value>, DqlError> {
        let documents = self.wanted(plan.collection(), plan.ids());
        let mut run = plan.run();
        for (id, document) in documents {
            if run.push(&id, &document)? == Flow::Enough {
                break;
            }
        }
        while let Some(wanted) = run.next_wanted()? {
            for (id, document) in self.wanted(&wanted.collection, wanted.ids) {
                run.push(&id, &document)?;
            }
        }
        run.finish()
    }

    /// Runs a mutation and applies it.
    pub(crate) fn mutate(&mut self, statement: &str, args: Json) -> Result<Mutation, DqlError> {
        let plan = self.bind(statement, args)?;
        self.mutate_plan(plan)
    }

    fn mutate_plan(&mut self, plan: Plan) -> Result<Mutation, DqlError> {
        let mutation = match plan {
            Plan::Insert(mut plan) => {
                if let Some(source) = plan.source().cloned() {
                    let rows = self.select(source)?;
                    plan = plan.with_rows(rows, &self.ids)?;
                }
                let collection = plan.collection().clone();
                let documents = &self.documents;
                plan.apply(&|id| documents.get(&(collection.clone(), id.clone())).cloned(), &mut self.clock)?
            }
            Plan::Update(plan) => {
                let documents = self.wanted(plan.collection(), plan.ids());
                let mut run = plan.run();
                for (id, document) in documents {
                    run.push(&id, document)?;
                }
                run.finish(&mut self.clock)?
            }
            Plan::Delete(plan) => {
                let documents = self.wanted(plan.collection(), plan.ids());
                let mut run = plan.run();
                for (id, document) in documents {
                    if run.push(&id, document)? == Flow::Enough {
                        break;
                    }
                }
                run.finish(&mut self.clock)?
            }
            Plan::Evict(plan) => {
                let (collection, documents) = (plan.collection().clone(), self.wanted(plan.collection(), plan.ids()));
                let mut run = plan.run();
                for (id, document) in documents {
                    run.push(&id, document)?;
                }
                let (ids, items) = run.evicted()?;
                for id in &ids {
                    self.documents.remove(&(collection.clone(), id.clone()));
                }
                Mutation { mutated: ids, items, ..Mutation::default() }
            }
            Plan::Select(_) | Plan::Explain(_) => panic!("not a mutation"),
        };
        self.apply(&mutation);
        Ok(mutation)
    }

    /// Joins the deltas of a mutation.
    pub(crate) fn apply(&mut self, mutation: &Mutation) {
        for (collection, id, delta) in &mutation.changes {
            let state = self.documents.entry((collection.clone(), id.clone())).or_default();
            Arc::make_mut(state).join(delta);
        }
    }

    pub(crate) fn run(&mut self, statement: &str) -> Vec<Json> {
        self.run_with(statement, serde_json::json!({})).unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    pub(crate) fn error(&mut self, statement: &str) -> String {
        match self.run_with(statement, serde_json::json!({})) {
            Ok(rows) => panic!("{statement} gave {rows:?}"),
            Err(error) => error.to_string(),
        }
    }
}
