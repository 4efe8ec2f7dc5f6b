//! JOIN under way: the rows made so far, and the collection that is being read.

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_crdt::{DocId, Document, Object, Value};

use super::join::{JoinPlan, Stage, Wanted};
use super::sorter::Held;
use super::target::{Target, too_expensive};
use crate::error::DqlError;
use crate::eval::compare::Key;
use crate::eval::{Env, Part, Row, Truth, full_tank};

/// Most pairs that one statement looks at when ON compares nothing for equality.
const MAX_PAIRS: usize = 20_000_000;

/// One part of each source.
pub(crate) type Parts = Vec<Arc<Part>>;

/// The state of a join.
#[derive(Debug)]
pub(crate) struct JoinRun {
    plan: Arc<JoinPlan>,
    /// The stage that is being read; none while the first source is.
    stage: Option<usize>,
    rows: Vec<Parts>,
    /// Which rows have partners of the stage, by the values that must be equal. None: every row is looked at.
    index: Option<BTreeMap<Vec<Key>, Vec<usize>>>,
    /// The rows that the stage makes, by the row that they extend.
    made: Vec<(usize, Parts)>,
    pairs: usize,
}

impl JoinRun {
    pub(crate) fn new(plan: Arc<JoinPlan>) -> Self {
        Self { plan, stage: None, rows: Vec::new(), index: None, made: Vec::new(), pairs: 0 }
    }

    /// Takes a document of the source that is being read. `base` is the first one's target.
    pub(crate) fn push(
        &mut self,
        id: &DocId,
        document: &Document,
        base: &Target,
        held: &mut Held,
    ) -> Result<(), DqlError> {
        let target = self.current().map_or(base, |stage| &stage.target);
        if !target.accepts(id, document)? {
            return Ok(());
        }
        let bytes = document.heap_bytes();
        self.take(Part::Document(id.clone(), Arc::new(document.clone())), bytes, held)
    }

    /// Takes a row of a virtual collection.
    pub(crate) fn push_row(&mut self, row: &Object, base: &Target, held: &mut Held) -> Result<(), DqlError> {
        let target = self.current().map_or(base, |stage| &stage.target);
        if !target.holds(Row::Object(row))? {
            return Ok(());
        }
        let bytes = Value::Object(row.clone()).heap_bytes();
        self.take(Part::Object(row.clone()), bytes, held)
    }

    fn current(&self) -> Option<&Stage> {
        self.plan.stages.get(self.stage?)
    }

    fn take(&mut self, part: Part, bytes: usize, held: &mut Held) -> Result<(), DqlError> {
        held.add(bytes)?;
        let plan = Arc::clone(&self.plan);
        let width = plan.scopes.len();
        let row_bytes = width * size_of::<Arc<Part>>();
        let part = Arc::new(part);
        let Some(stage) = self.stage.and_then(|at| plan.stages.get(at)) else {
            held.add(row_bytes)?;
            let absent = Arc::new(Part::Absent);
            let mut row: Parts = std::iter::repeat_n(absent, width).collect();
            set(&mut row, plan.first, part);
            self.rows.push(row);
            return Ok(());
        };
        let candidates: Vec<usize> = match &self.index {
            Some(index) => {
                let fuel = full_tank();
                let env = Env::new(part.row(&stage.target.schema), &fuel);
                let keys = stage.keys.iter().map(|key| Key(key.inner.eval(env).into_value())).collect::<Vec<_>>();
                if fuel.get() == 0 {
                    return Err(too_expensive());
                }
                index.get(&keys).cloned().unwrap_or_default()
            }
            None => (0..self.rows.len()).collect(),
        };
        self.pairs = self.pairs.saturating_add(candidates.len());
        if self.pairs > MAX_PAIRS {
            return Err(DqlError::new(format!("The join looks at more than {MAX_PAIRS} pairs of documents"))
                .hint("narrow WHERE, or join ON an equality of fields that few documents share"));
        }
        for at in candidates {
            let Some(row) = self.rows.get(at) else { continue };
            let mut row = row.clone();
            set(&mut row, stage.place, Arc::clone(&part));
            let fuel = full_tank();
            let truth = stage.on.truth(Env::new(Row::Joined(&plan.scopes, &row), &fuel));
            if fuel.get() == 0 {
                return Err(too_expensive());
            }
            if truth == Truth::True {
                held.add(row_bytes)?;
                self.made.push((at, row));
            }
        }
        Ok(())
    }

    /// All of the source that was being read is there: what is wanted next, if anything.
    pub(crate) fn next_wanted(&mut self) -> Result<Option<Wanted>, DqlError> {
        let plan = Arc::clone(&self.plan);
        if let Some(stage) = self.stage.and_then(|at| plan.stages.get(at)) {
            self.end(stage);
        }
        let at = self.stage.map_or(0, |at| at + 1);
        self.stage = Some(at);
        let Some(stage) = plan.stages.get(at) else { return Ok(None) };
        let mut values: Vec<Vec<Value>> = vec![Vec::new(); stage.keys.len()];
        self.index = None;
        if !stage.keys.is_empty() {
            let mut index: BTreeMap<Vec<Key>, Vec<usize>> = BTreeMap::new();
            for (number, row) in self.rows.iter().enumerate() {
                let fuel = full_tank();
                let env = Env::new(Row::Joined(&plan.scopes, row), &fuel);
                let keys: Vec<Key> = stage.keys.iter().map(|key| Key(key.outer.eval(env).into_value())).collect();
                if fuel.get() == 0 {
                    return Err(too_expensive());
                }
                // NULL and MISSING equal nothing.
                if keys.iter().any(|key| key.0.as_ref().is_none_or(Value::is_null)) {
                    continue;
                }
                index.entry(keys).or_default().push(number);
            }
            for keys in index.keys() {
                for (values, key) in values.iter_mut().zip(keys) {
                    values.extend(key.0.clone());
                }
            }
            self.index = Some(index);
        }
        Ok(Some(stage.wanted(&values)))
    }

    /// The stage's rows take the place of those that they extend, in their order.
    fn end(&mut self, stage: &Stage) {
        let mut made = std::mem::take(&mut self.made);
        made.sort_by_key(|(at, _)| *at);
        let mut made = made.into_iter().peekable();
        let mut rows = Vec::new();
        for (at, row) in std::mem::take(&mut self.rows).into_iter().enumerate() {
            let before = rows.len();
            while let Some((_, extended)) = made.next_if(|(of, _)| *of == at) {
                rows.push(extended);
            }
            if stage.outer && rows.len() == before {
                rows.push(row);
            }
        }
        self.rows = rows;
    }

    /// The rows, when everything was read.
    pub(crate) fn finish(self) -> Result<Vec<Parts>, DqlError> {
        if self.stage.is_none_or(|at| at < self.plan.stages.len()) {
            return Err(DqlError::new("Unsupported feature: JOIN is not available here")
                .hint("subscriptions and live queries are about one collection"));
        }
        Ok(self.rows)
    }
}

fn set(row: &mut Parts, place: usize, part: Arc<Part>) {
    if let Some(slot) = row.get_mut(place) {
        *slot = part;
    }
}
