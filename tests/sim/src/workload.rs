//! What apps do on their peers: transactions by chance, each noted in the peer's [`Record`] before it is begun.

use bigpeer_crdt::{DocId, Object, Value};
use bigpeer_harness::Place;
use bigpeer_types::{IdGenerator, SiteId};

use crate::grants::collection_name;
use crate::record::{Committed, Op};

/// Statements with their parameters, and what is noted about them.
pub struct Work {
    pub op: Op,
    pub statements: Vec<(String, Object)>,
}

fn place(collection: &str, id: &str) -> Place {
    let id = DocId::from_value(&Value::String(id.into())).expect("a good id");
    (collection_name(collection), id)
}

fn text(text: impl Into<Box<str>>) -> Value {
    Value::String(text.into())
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Object {
    fields.into_iter().collect()
}

/// What one peer's app does next.
pub struct Workload<'a> {
    pub chance: &'a dyn IdGenerator,
    pub site: SiteId,
    /// Counts what this peer ever did: makes ids and contents that are nowhere else.
    pub number: u64,
}

impl Workload<'_> {
    fn below(&self, n: u64) -> u64 {
        self.chance.next_u64() % n
    }

    fn one_of(&self, texts: &[&str]) -> String {
        texts[self.below(texts.len() as u64) as usize].to_owned()
    }

    /// A transaction.
    pub fn next(&self) -> Work {
        let op = Op { places: Vec::new(), committed: Committed::Begun, increment: None, grave: None };
        let mut work = Work { op, statements: Vec::new() };
        match self.below(20) {
            0..=3 => self.insert(&mut work),
            4..=8 => self.update(&mut work),
            9..=10 => self.delete(&mut work),
            11..=13 => self.count(&mut work),
            14..=16 => self.pairs(&mut work),
            17 => self.bury(&mut work),
            _ => {
                self.insert(&mut work);
                self.update(&mut work);
                self.delete(&mut work);
            }
        }
        work
    }

    fn item(&self) -> String {
        format!("i{}", self.below(24))
    }

    fn body(&self) -> Value {
        // Large ones now and then, so that queues run over.
        let filler = "x".repeat(if self.below(6) == 0 { 700 } else { 20 });
        text(format!("{}/{}/{filler}", self.site, self.number))
    }

    fn insert(&self, work: &mut Work) {
        let id = self.item();
        work.op.places.push(place("items", &id));
        let document = object([
            ("_id", text(id)),
            ("realm", text(self.one_of(&["a", "b", "c"]))),
            ("grp", Value::Int(self.below(5) as i64)),
            ("body", self.body()),
        ]);
        let policy = self.one_of(&["DO UPDATE", "DO NOTHING", "DO UPDATE_LOCAL_DIFF"]);
        let statement = format!("INSERT INTO items DOCUMENTS (:d) ON ID CONFLICT {policy}");
        work.statements.push((statement, object([("d", Value::Object(document))])));
    }

    fn update(&self, work: &mut Work) {
        let id = self.item();
        work.op.places.push(place("items", &id));
        let (field, value) = match self.below(6) {
            0 => ("realm", text(self.one_of(&["a", "b", "c"]))),
            1 => ("grp", Value::Int(self.below(5) as i64)),
            2 => ("note", text(format!("{}", self.number))),
            _ => ("body", self.body()),
        };
        let statement = format!("UPDATE items SET {field} = :v WHERE _id = :id");
        work.statements.push((statement, object([("v", value), ("id", text(id))])));
    }

    fn delete(&self, work: &mut Work) {
        let id = self.item();
        work.op.places.push(place("items", &id));
        work.statements.push(("DELETE FROM items WHERE _id = :id".to_owned(), object([("id", text(id))])));
    }

    fn count(&self, work: &mut Work) {
        let id = format!("c{}", self.below(3));
        let by = self.below(9) as i64 + 1;
        work.op.places.push(place("counts", &id));
        work.op.increment = Some((place("counts", &id), by));
        let statement = format!("UPDATE counts APPLY n INCREMENT BY {by} WHERE _id = :id");
        work.statements.push((statement, object([("id", text(id))])));
    }

    fn pairs(&self, work: &mut Work) {
        for part in 0..3 {
            let id = format!("{}-{part}", self.site);
            work.op.places.push(place("pairs", &id));
            let document = object([
                ("_id", text(id)),
                ("of", text(self.site.to_string())),
                ("v", Value::Int(i64::try_from(self.number).unwrap_or(i64::MAX))),
            ]);
            let statement = "INSERT INTO pairs DOCUMENTS (:d) ON ID CONFLICT DO UPDATE".to_owned();
            work.statements.push((statement, object([("d", Value::Object(document))])));
        }
    }

    /// One transaction makes a document that nobody else knows; [`Self::unbury`] deletes it.
    fn bury(&self, work: &mut Work) {
        let id = format!("{}-{}", self.site, self.number);
        work.op.places.push(place("graves", &id));
        let document = object([("_id", text(id)), ("body", self.body())]);
        work.statements
            .push(("INSERT INTO graves DOCUMENTS (:d)".to_owned(), object([("d", Value::Object(document))])));
    }

    /// Deletes what [`Self::bury`] made under `number`.
    pub fn unbury(&self, number: u64) -> Work {
        let id = format!("{}-{number}", self.site);
        let grave = place("graves", &id);
        let op = Op { places: vec![grave.clone()], committed: Committed::Begun, increment: None, grave: Some(grave) };
        let statement = ("DELETE FROM graves WHERE _id = :id".to_owned(), object([("id", text(id))]));
        Work { op, statements: vec![statement] }
    }
}
