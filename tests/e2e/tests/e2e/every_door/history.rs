//! The history of an app's documents: random transactions, written through the data API, and what they come to by the simplest
//! means. Every version of a document has a mark of its own, so that whatever shows it is found out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use super::rules::{Chance, value};
use super::world::{App, World};

/// How many ids there are; documents come and go.
const IDS: usize = 12;
/// The one that is never deleted: every column is always there.
const LASTING: &str = "id00z";
/// In a collection that nobody may read.
pub(super) const HIDDEN: &str = "M999999x";

/// A document as it is now.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) json: Json,
    /// The transaction that changed it last.
    pub(super) transaction: u64,
}

pub(super) type Documents = BTreeMap<String, Stored>;

/// A change of a document: its id, before, after.
pub(super) type Change = (String, Option<Json>, Option<Json>);

pub(super) struct Transaction {
    pub(super) id: u64,
    pub(super) changes: Vec<Change>,
    /// All documents after it.
    pub(super) after: Documents,
}

#[derive(Default)]
pub(super) struct History {
    pub(super) documents: Documents,
    pub(super) transactions: Vec<Transaction>,
    /// Every version that there ever was, by its mark.
    pub(super) versions: BTreeMap<String, Json>,
    /// The attachment that a document got when it was inserted: its digest and content.
    blobs: BTreeMap<String, String>,
    serial: u64,
}

/// The marks in an answer, whatever it is made of.
pub(super) fn marks(bytes: &[u8]) -> BTreeSet<String> {
    found(bytes, |word| word.len() == 8 && word[0] == b'M' && word[7] == b'x' && digits(&word[1..7]), 8)
}

/// The ids in an answer.
pub(super) fn ids(bytes: &[u8]) -> BTreeSet<String> {
    found(bytes, |word| word.starts_with(b"id") && word[4] == b'z' && digits(&word[2..4]), 5)
}

fn digits(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_digit)
}

fn found(bytes: &[u8], is: impl Fn(&[u8]) -> bool, length: usize) -> BTreeSet<String> {
    bytes.windows(length).filter(|word| is(word)).map(|word| String::from_utf8(word.to_vec()).unwrap()).collect()
}

pub(super) fn mark_of(document: &Json) -> String {
    document["mark"].as_str().unwrap().to_owned()
}

pub(super) fn id_of(document: &Json) -> String {
    document["_id"].as_str().unwrap().to_owned()
}

impl History {
    /// The number that comes next.
    pub(super) fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// The first documents of an app, and the collections beside them.
    pub(super) async fn begin(world: &World, app: &App, chance: &Chance) -> Self {
        let mut history = Self::default();
        let hidden = json!({"_id": "idxxz", "mark": HIDDEN, "num": 999_999});
        world.write(app, &[("INSERT INTO hidden DOCUMENTS (:d)".to_owned(), json!({"d": hidden}))]).await;
        world.write(app, &[("INSERT INTO beat DOCUMENTS (:d)".to_owned(), json!({"d": {"_id": 1, "n": 0}}))]).await;
        let ids: Vec<String> = (0..1 + IDS / 2).map(|number| format!("id{number:02}z")).collect();
        history.commit(world, app, chance, &ids).await;
        history
    }

    /// A transaction of one to three documents.
    pub(super) async fn step(&mut self, world: &World, app: &App, chance: &Chance) {
        let ids: BTreeSet<String> = (0..1 + chance.below(3)).map(|_| format!("id{:02}z", chance.below(IDS))).collect();
        let ids: Vec<String> = ids.into_iter().collect();
        self.commit(world, app, chance, &ids).await;
    }

    async fn commit(&mut self, world: &World, app: &App, chance: &Chance, ids: &[String]) {
        let (mut statements, mut changes) = (Vec::new(), Vec::new());
        for id in ids {
            let before = self.documents.get(id).map(|stored| stored.json.clone());
            let (statement, after) = match &before {
                None => self.insert(world, app, chance, id).await,
                Some(_) if id != LASTING && chance.one_in(4) => {
                    (("DELETE FROM docs WHERE _id = :id".to_owned(), json!({"id": id})), None)
                }
                Some(before) => self.update(chance, before),
            };
            statements.push(statement);
            changes.push((id.clone(), before, after));
        }
        let transaction = world.write(app, &statements).await;
        self.record(transaction, changes);
    }

    /// Takes note of a transaction.
    pub(super) fn record(&mut self, id: u64, changes: Vec<Change>) {
        for (document, _, after) in &changes {
            match after {
                Some(json) => {
                    self.versions.insert(mark_of(json), json.clone());
                    self.documents.insert(document.clone(), Stored { json: json.clone(), transaction: id });
                }
                None => _ = self.documents.remove(document),
            }
        }
        assert!(self.transactions.last().is_none_or(|last| last.id < id), "transactions come in order");
        self.transactions.push(Transaction { id, changes, after: self.documents.clone() });
    }

    async fn insert(&mut self, world: &World, app: &App, chance: &Chance, id: &str) -> ((String, Json), Option<Json>) {
        let number = self.next();
        let mut document = json!({"_id": id, "mark": format!("M{number:06}x"), "num": number});
        for field in ["a", "b", "c d"] {
            if !chance.one_in(4) {
                document[field] = value(chance);
            }
        }
        match chance.below(4) {
            0 => {}
            1 => document["o"] = value(chance),
            2 => document["o"] = json!({"x": value(chance)}),
            _ => document["o"] = json!({"x": value(chance), "y": value(chance)}),
        }
        let mut statement = "INSERT INTO docs DOCUMENTS (:d)";
        if chance.one_in(3) {
            let content = format!("attachment {number} of {id}");
            let blob = world.upload(app, &content).await;
            document["blob"] = json!({"id": blob, "len": content.len(), "metadata": {"name": id}});
            self.blobs.insert(blob, content);
            statement = "INSERT INTO COLLECTION docs (blob ATTACHMENT) DOCUMENTS (:d)";
        }
        ((statement.to_owned(), json!({"d": document})), Some(document))
    }

    /// Fields are set and unset; the mark is new.
    fn update(&mut self, chance: &Chance, before: &Json) -> ((String, Json), Option<Json>) {
        let number = self.next();
        let (mut set, mut unset, mut apply) =
            (vec!["mark = :mark".to_owned(), "num = :num".to_owned()], Vec::new(), "");
        let mut args = json!({"id": before["_id"], "mark": format!("M{number:06}x"), "num": number});
        let mut after = before.clone();
        (after["mark"], after["num"]) = (args["mark"].clone(), args["num"].clone());
        let fields = after.as_object_mut().unwrap();
        for (field, text, name) in [("a", "a", "a"), ("b", "b", "b"), ("c d", "`c d`", "c")] {
            match chance.below(4) {
                0 => {
                    args[name] = value(chance);
                    set.push(format!("{text} = :{name}"));
                    fields.insert(field.to_owned(), args[name].clone());
                }
                1 if fields.remove(field).is_some() => unset.push(text.to_owned()),
                _ => {}
            }
        }
        let is_map = fields.get("o").is_none_or(Json::is_object);
        match chance.below(4) {
            0 if is_map => {
                args["o"] = value(chance);
                set.push("o.x = :o".to_owned());
                fields.entry("o").or_insert_with(|| json!({}))["x"] = args["o"].clone();
            }
            1 if fields.remove("o").is_some() => unset.push("o".to_owned()),
            2 => {
                apply = "APPLY n INCREMENT BY 1 ";
                let counted = fields.get("n").and_then(Json::as_i64).unwrap_or(0) + 1;
                fields.insert("n".to_owned(), counted.into());
            }
            _ => {}
        }
        let unset = if unset.is_empty() { String::new() } else { format!(" UNSET {}", unset.join(", ")) };
        let statement = format!("UPDATE docs {apply}SET {}{unset} WHERE _id = :id", set.join(", "));
        ((statement, args), Some(after))
    }

    /// Whether something is true of some versions of documents, and not of others.
    pub(super) fn is_split(&self, holds: impl Fn(&Json) -> bool) -> bool {
        let held = self.versions.values().filter(|version| holds(version)).count();
        held > 0 && held < self.versions.len()
    }

    /// The documents as they were after the transaction of this number in the history.
    pub(super) fn at(&self, number: usize) -> &Transaction {
        &self.transactions[number]
    }

    /// Every attachment, and the document that it was made for, wherever that is now.
    pub(super) fn attachments(&self) -> impl Iterator<Item = (&String, &String)> {
        self.blobs.iter()
    }
}
