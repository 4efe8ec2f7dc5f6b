//! Where manifests are stored: finding the newest, committing the next, forgetting the old.

use std::sync::Arc;

use bigpeer_types::AppId;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{Manifest, codec};
use crate::error::TablesError;
use crate::paths::{self, ObjectPath};

/// An app's manifests in object storage.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    app: AppId,
    objects: Arc<dyn ObjectStore>,
}

/// What became of a commit.
#[derive(Debug)]
pub(crate) enum Committed {
    /// It is the newest manifest now.
    Yes,
    /// Another manifest has its number, or a later one: nothing was committed. The newest is this.
    Conflict(Box<Manifest>),
}

impl Repository {
    pub(crate) fn new(app: AppId, objects: Arc<dyn ObjectStore>) -> Self {
        Self { app, objects }
    }

    /// Numbers of the stored manifests from `from` on, ascending.
    pub(crate) async fn numbers(&self, from: u64) -> Result<Vec<u64>, TablesError> {
        let prefix = paths::manifests(&self.app);
        let list = match from.checked_sub(1) {
            Some(before) => {
                let offset = ObjectPath::Manifest(self.app.clone(), before).to_path();
                self.objects.list_with_offset(Some(&prefix), &offset)
            }
            None => self.objects.list(Some(&prefix)),
        };
        let objects: Vec<_> = list.try_collect().await.map_err(|error| TablesError::objects(&prefix, error))?;
        let mut numbers: Vec<u64> = objects
            .iter()
            .filter_map(|object| match ObjectPath::parse(&object.location) {
                Some(ObjectPath::Manifest(_, number)) if number >= from => Some(number),
                Some(_) | None => None,
            })
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The newest manifest with at least this number; none if there is no such.
    pub(crate) async fn newest(&self, from: u64) -> Result<Option<Manifest>, TablesError> {
        loop {
            let Some(number) = self.numbers(from).await?.pop() else { return Ok(None) };
            match self.load(number).await {
                // Deleted between list and read: there is a newer one by now.
                Err(TablesError::Objects { source, .. }) if matches!(*source, object_store::Error::NotFound { .. }) => {
                }
                result => return result.map(Some),
            }
        }
    }

    /// One manifest.
    pub(crate) async fn load(&self, number: u64) -> Result<Manifest, TablesError> {
        let path = ObjectPath::Manifest(self.app.clone(), number).to_path();
        let read = async { self.objects.get(&path).await?.bytes().await };
        let bytes = read.await.map_err(|error| TablesError::objects(&path, error))?;
        let manifest = codec::decode(&bytes).map_err(|reason| TablesError::corrupt(&path, reason))?;
        if manifest.number != number {
            return Err(TablesError::corrupt(&path, format!("it says that it is number {}", manifest.number)));
        }
        Ok(manifest)
    }

    /// Commits `manifest` under its number, if no manifest has that number or a later one. After an error it may have
    /// been committed or not; the same commit again tells.
    pub(crate) async fn commit(&self, manifest: &Manifest) -> Result<Committed, TablesError> {
        let path = ObjectPath::Manifest(self.app.clone(), manifest.number).to_path();
        let bytes = codec::encode(manifest).map_err(TablesError::Encoding)?;
        let payload = PutPayload::from(Bytes::from(bytes));
        let mode = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let taken = match self.objects.put_opts(&path, payload, mode).await {
            Ok(_) => false,
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => true,
            Err(error) => return Err(TablesError::objects(&path, error)),
        };
        // A number can be free because its manifest was deleted, when this writer slept through later ones.
        let newest = self.newest(manifest.number).await?;
        match newest {
            Some(newest) if newest == *manifest => Ok(Committed::Yes),
            Some(newest) => Ok(Committed::Conflict(Box::new(newest))),
            None if taken => Err(TablesError::corrupt(&path, "it exists, and is not listed")),
            None => Err(TablesError::corrupt(&path, "it was written, and is not listed")),
        }
    }

    /// Deletes a manifest. One that is gone already is fine.
    pub(crate) async fn delete(&self, number: u64) -> Result<(), TablesError> {
        let path = ObjectPath::Manifest(self.app.clone(), number).to_path();
        match self.objects.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(TablesError::objects(&path, error)),
        }
    }
}
