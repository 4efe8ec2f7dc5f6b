//! Where manifests are stored: finding the newest, committing the next, forgetting the old.

use std::sync::Arc;

use bigpeer_types::AppId;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{Manifest, codec};
use crate::error::TablesError;
use crate::past::Pin;
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

    /// The newest manifest with at least this number; none if there is no such. What a list shows is where the search
    /// begins: manifests behind it are asked for by number, so that a list that is behind does no harm.
    pub(crate) async fn newest(&self, from: u64) -> Result<Option<Manifest>, TablesError> {
        loop {
            let listed = self.numbers(from).await?.pop();
            let Some(mut newest) = self.find(listed.unwrap_or(from)).await? else {
                match listed {
                    // Deleted between list and read: there is a newer one by now.
                    Some(_) => continue,
                    None => return Ok(None),
                }
            };
            while let Some(next) = self.find(newest.number + 1).await? {
                newest = next;
            }
            return Ok(Some(newest));
        }
    }

    /// One manifest, if it exists.
    pub(crate) async fn find(&self, number: u64) -> Result<Option<Manifest>, TablesError> {
        match self.load(number).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(TablesError::Objects { source, .. }) if matches!(*source, object_store::Error::NotFound { .. }) => {
                Ok(None)
            }
            Err(error) => Err(error),
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
        match self.objects.put_opts(&path, payload, mode).await {
            Ok(_) if self.was_free(manifest.number).await? => return Ok(Committed::Yes),
            Ok(_) | Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
            Err(error) => return Err(TablesError::objects(&path, error)),
        }
        match self.newest(manifest.number).await? {
            Some(newest) if newest == *manifest => Ok(Committed::Yes),
            Some(newest) => Ok(Committed::Conflict(Box::new(newest))),
            None => Err(TablesError::corrupt(&path, "it exists, and cannot be read")),
        }
    }

    /// Whether a number that could be taken had never been another's. It can also be free because its manifest was
    /// deleted, when this writer slept through later ones; then the one before it is gone, too, because the oldest are
    /// deleted first.
    async fn was_free(&self, number: u64) -> Result<bool, TablesError> {
        let Some(before) = number.checked_sub(1).filter(|before| *before > 0) else {
            return Ok(self.numbers(number + 1).await?.is_empty());
        };
        self.exists(before).await
    }

    /// Whether a manifest is there.
    pub(crate) async fn exists(&self, number: u64) -> Result<bool, TablesError> {
        let path = ObjectPath::Manifest(self.app.clone(), number).to_path();
        match self.objects.head(&path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(TablesError::objects(&path, error)),
        }
    }

    /// All pins, in the order in which they end.
    pub(crate) async fn pins(&self) -> Result<Vec<Pin>, TablesError> {
        let prefix = paths::pins(&self.app);
        let objects: Vec<_> = self
            .objects
            .list(Some(&prefix))
            .try_collect()
            .await
            .map_err(|error| TablesError::objects(&prefix, error))?;
        let pins = objects.iter().filter_map(|object| match ObjectPath::parse(&object.location) {
            Some(ObjectPath::Pin(_, until_ms, name)) => Some(Pin { name, until_ms }),
            Some(_) | None => None,
        });
        let mut pins: Vec<Pin> = pins.collect();
        pins.sort_by(|a, b| (a.until_ms, &a.name).cmp(&(b.until_ms, &b.name)));
        Ok(pins)
    }

    pub(crate) fn pin_path(&self, pin: &Pin) -> Path {
        ObjectPath::Pin(self.app.clone(), pin.until_ms, pin.name.clone()).to_path()
    }

    /// Keeps a manifest under a pin.
    pub(crate) async fn put_pin(&self, pin: &Pin, manifest: &Manifest) -> Result<(), TablesError> {
        let path = self.pin_path(pin);
        let bytes = codec::encode(manifest).map_err(TablesError::Encoding)?;
        let put = self.objects.put(&path, PutPayload::from(Bytes::from(bytes))).await;
        put.map(drop).map_err(|error| TablesError::objects(&path, error))
    }

    /// The manifest that a pin keeps, if the pin is there.
    pub(crate) async fn load_pin(&self, pin: &Pin) -> Result<Option<Manifest>, TablesError> {
        let path = self.pin_path(pin);
        let read = async { self.objects.get(&path).await?.bytes().await };
        match read.await {
            Ok(bytes) => codec::decode(&bytes).map(Some).map_err(|reason| TablesError::corrupt(&path, reason)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(TablesError::objects(&path, error)),
        }
    }

    /// Deletes a pin. One that is gone already is fine.
    pub(crate) async fn delete_pin(&self, pin: &Pin) -> Result<(), TablesError> {
        self.delete_object(&self.pin_path(pin)).await
    }

    /// Deletes a manifest. One that is gone already is fine.
    pub(crate) async fn delete(&self, number: u64) -> Result<(), TablesError> {
        self.delete_object(&ObjectPath::Manifest(self.app.clone(), number).to_path()).await
    }

    async fn delete_object(&self, path: &Path) -> Result<(), TablesError> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(TablesError::objects(path, error)),
        }
    }
}
