//! What a closure gets to read the store with ([`Tables`]) and to change it with ([`Work`]).

use std::collections::{BTreeMap, BTreeSet};

use bigpeer_types::CollectionName;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::PeerError;
use crate::status::{PeerEvent, Status};

/// Numbers of collections by name.
pub(super) type Collections = BTreeMap<CollectionName, i64>;

/// One consistent state of the store, for reading.
#[derive(Debug)]
pub(crate) struct Tables<'a> {
    pub(super) connection: &'a Connection,
}

/// One change of the store in the making. Committed whole, or not at all.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(super) tables: Tables<'a>,
    collections: Collections,
    touched: BTreeSet<CollectionName>,
    events: Vec<PeerEvent>,
    /// The store's part of the status, as it will be after the commit.
    pub(crate) status: Status,
}

/// What is announced after the commit.
pub(super) struct Outcome {
    pub(super) collections: Collections,
    pub(super) touched: BTreeSet<CollectionName>,
    pub(super) events: Vec<PeerEvent>,
    pub(super) status: Status,
}

impl<'a> Tables<'a> {
    pub(super) fn new(transaction: &'a Transaction<'_>) -> Self {
        Self { connection: transaction }
    }

    /// The collection's number, if it ever held a document.
    pub(crate) fn collection_number(&self, name: &CollectionName) -> Result<Option<i64>, PeerError> {
        let mut query = self.connection.prepare_cached("SELECT number FROM collections WHERE name = ?1")?;
        Ok(query.query_row([name.as_str()], |row| row.get(0)).optional()?)
    }

    /// The names of all collections that ever held a document.
    pub(crate) fn collections(&self) -> Result<Vec<CollectionName>, PeerError> {
        let mut query = self.connection.prepare_cached("SELECT name FROM collections ORDER BY name")?;
        let names = query.query_map([], |row| row.get::<_, String>(0))?;
        names.map(|name| parse_name(&name?)).collect()
    }

    /// The name of a collection's number.
    pub(super) fn collection_name(&self, number: i64) -> Result<CollectionName, PeerError> {
        let mut query = self.connection.prepare_cached("SELECT name FROM collections WHERE number = ?1")?;
        parse_name(&query.query_row([number], |row| row.get::<_, String>(0))?)
    }
}

impl<'a> Work<'a> {
    pub(super) fn new(transaction: &'a Transaction<'_>, collections: Collections, status: Status) -> Self {
        let (touched, events) = (BTreeSet::new(), Vec::new());
        Self { tables: Tables::new(transaction), collections, touched, events, status }
    }

    pub(super) fn finish(self) -> Outcome {
        Outcome { collections: self.collections, touched: self.touched, events: self.events, status: self.status }
    }

    /// The store as this change has made it so far.
    pub(crate) fn tables(&self) -> &Tables<'a> {
        &self.tables
    }

    /// The collection's number; a new one for a new collection.
    pub(crate) fn number_of(&mut self, name: &CollectionName) -> Result<i64, PeerError> {
        if let Some(number) = self.collections.get(name) {
            return Ok(*number);
        }
        let mut insert = self.tables.connection.prepare_cached(
            "INSERT INTO collections (name) VALUES (?1) ON CONFLICT (name) DO UPDATE SET name = name RETURNING number",
        )?;
        let number = insert.query_row(params![name.as_str()], |row| row.get(0))?;
        self.collections.insert(name.clone(), number);
        Ok(number)
    }

    /// Whoever observes the collection looks again after the commit.
    pub(crate) fn touch(&mut self, collection: &CollectionName) {
        if !self.touched.contains(collection) {
            self.touched.insert(collection.clone());
        }
    }

    /// Sends the event after the commit.
    pub(crate) fn event(&mut self, event: PeerEvent) {
        self.events.push(event);
    }

    /// Fills the status from what is stored, when the store is opened.
    pub(super) fn load_status(&mut self) -> Result<(), PeerError> {
        self.status = self.tables.stored_status()?;
        Ok(())
    }
}

fn parse_name(name: &str) -> Result<CollectionName, PeerError> {
    CollectionName::new(name).map_err(|error| PeerError::Damaged(error.to_string()))
}
