//! `DeltaLog`: the log of one published table: what its newest version is made of, and how the next is committed.
//!
//! # Consistency
//! A version is committed by put-if-absent of its number. Versions are asked for by number, never taken from a list.
//!
//! # Crash safety
//! Files and deletion vectors are there before the commit that names them. A checkpoint follows its commit; one that is
//! missing costs readers time only.

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_types::{AppId, CollectionName, Lsn};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use super::actions::{Add, Line, MetaData, Protocol, Remove};
use super::checkpoint;
use crate::error::TablesError;
use crate::paths::{self, ObjectPath};

/// Versions between two checkpoints.
const CHECKPOINT_EVERY: u64 = 10;

/// The log of a published table, and what is known of it.
#[derive(Debug)]
pub(crate) struct DeltaLog {
    app: AppId,
    collection: CollectionName,
    objects: Arc<dyn ObjectStore>,
    pub(super) table: Option<Table>,
}

/// A published table, as its newest version known here has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) version: u64,
    pub(super) lsn: Lsn,
    pub(super) manifest: u64,
    /// When the version was committed.
    pub(super) committed_ms: i64,
    pub(super) protocol: Protocol,
    pub(super) meta: MetaData,
    /// The files, by their paths.
    pub(super) files: BTreeMap<String, Add>,
    /// Files that left the table, and when: readers of older versions may still be at them. By path and deletion vector.
    pub(super) removed: BTreeMap<String, (i64, Add)>,
    /// Checkpoints, and when their versions were committed.
    pub(super) checkpoints: Vec<(u64, i64)>,
}

#[derive(Serialize, Deserialize)]
struct LastCheckpoint {
    version: u64,
    size: u64,
}

impl DeltaLog {
    pub(super) fn new(app: AppId, collection: CollectionName, objects: Arc<dyn ObjectStore>) -> Self {
        Self { app, collection, objects, table: None }
    }

    fn commit_path(&self, version: u64) -> Path {
        ObjectPath::DeltaCommit(self.app.clone(), self.collection.clone(), version).to_path()
    }

    fn checkpoint_path(&self, version: u64) -> Path {
        ObjectPath::DeltaCheckpoint(self.app.clone(), self.collection.clone(), version).to_path()
    }

    fn last_checkpoint_path(&self) -> Path {
        ObjectPath::DeltaLastCheckpoint(self.app.clone(), self.collection.clone()).to_path()
    }

    /// Takes up what others have committed. After an error what is known is what was known before, or nothing.
    pub(super) async fn advance(&mut self) -> Result<(), TablesError> {
        let mut table = match self.table.take() {
            Some(table) => table,
            None => match self.load().await? {
                Some(table) => table,
                None => return Ok(()),
            },
        };
        while let Some(lines) = self.read(table.version + 1).await? {
            table.version += 1;
            self.apply(&mut table, lines)?;
        }
        self.table = Some(table);
        Ok(())
    }

    /// The table at the last checkpoint, or at its first version.
    async fn load(&self) -> Result<Option<Table>, TablesError> {
        let hint = match self.get(&self.last_checkpoint_path()).await? {
            // Not ours, or half written by a store that is no better: the log itself tells.
            Some(bytes) => serde_json::from_slice::<LastCheckpoint>(&bytes).ok().map(|hint| hint.version),
            None => None,
        };
        if let Some(version) = hint
            && let Some(bytes) = self.get(&self.checkpoint_path(version)).await?
            && let Some(lines) = self.read(version).await?
        {
            let path = self.checkpoint_path(version);
            let mut table = Table { version, ..Table::default() };
            let state = checkpoint::decode(bytes).map_err(|reason| TablesError::corrupt(&path, reason))?;
            self.apply(&mut table, state)?;
            // What the version itself says: its LSN.
            self.apply(&mut table, lines)?;
            table.checkpoints.push((version, table.committed_ms));
            return Ok(Some(table));
        }
        let Some(lines) = self.read(0).await? else { return Ok(None) };
        let mut table = Table::default();
        self.apply(&mut table, lines)?;
        Ok(Some(table))
    }

    async fn get(&self, path: &Path) -> Result<Option<Bytes>, TablesError> {
        let read = async { self.objects.get(path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(TablesError::objects(path, error)),
        }
    }

    /// The actions of a version, if it is there.
    async fn read(&self, version: u64) -> Result<Option<Vec<Line>>, TablesError> {
        let path = self.commit_path(version);
        let Some(bytes) = self.get(&path).await? else { return Ok(None) };
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice);
        let lines: Result<Vec<Line>, _> = lines.collect();
        lines.map(Some).map_err(|error| TablesError::corrupt(&path, error))
    }

    fn apply(&self, table: &mut Table, lines: Vec<Line>) -> Result<(), TablesError> {
        // A file may be removed and added in one version, with another deletion vector.
        let (removed, rest): (Vec<Line>, Vec<Line>) = lines.into_iter().partition(|line| line.remove.is_some());
        for remove in removed.into_iter().filter_map(|line| line.remove) {
            let former = table.files.remove(&remove.path).unwrap_or_else(|| Add {
                path: remove.path.clone(),
                deletion_vector: remove.deletion_vector.clone(),
                ..Add::default()
            });
            table.removed.insert(former.key(), (remove.deletion_timestamp, former));
        }
        for line in rest {
            if let Some(info) = line.commit_info {
                let path = self.commit_path(table.version);
                table.lsn = info.lsn.parse().map_err(|error| TablesError::corrupt(&path, error))?;
                table.manifest = info.manifest;
                table.committed_ms = info.timestamp;
            }
            if let Some(protocol) = line.protocol {
                table.protocol = protocol;
            }
            if let Some(meta) = line.meta_data {
                table.meta = meta;
            }
            if let Some(add) = line.add {
                table.files.insert(add.path.clone(), add);
            }
        }
        Ok(())
    }

    /// Commits the version after the one that is known. False when somebody else has committed it: advance, and think again.
    pub(super) async fn commit(&mut self, lines: Vec<Line>) -> Result<bool, TablesError> {
        let version = self.table.as_ref().map_or(0, |table| table.version + 1);
        let path = self.commit_path(version);
        let mut body = Vec::new();
        for line in &lines {
            serde_json::to_writer(&mut body, line).map_err(|error| TablesError::Encoding(error.to_string()))?;
            body.push(b'\n');
        }
        let mode = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&path, PutPayload::from(Bytes::from(body)), mode).await {
            Ok(_) => {}
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => return Ok(false),
            Err(error) => return Err(TablesError::objects(&path, error)),
        }
        let mut table = self.table.take().unwrap_or_default();
        table.version = version;
        self.apply(&mut table, lines)?;
        self.table = Some(table);
        Ok(true)
    }

    /// Deletes what is left of a log that cannot be gone on with, because it has no beginning any more.
    pub(super) async fn clear(&self) -> Result<(), TablesError> {
        let prefix = paths::delta_log(&self.app, &self.collection);
        let listed: Vec<_> = self
            .objects
            .list(Some(&prefix))
            .try_collect()
            .await
            .map_err(|error| TablesError::objects(&prefix, error))?;
        for object in listed {
            match self.objects.delete(&object.location).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(TablesError::objects(&object.location, error)),
            }
        }
        Ok(())
    }

    /// Writes a checkpoint if one is due. Files that left the table before `since` are forgotten.
    pub(super) async fn checkpoint(&mut self, since: i64) -> Result<(), TablesError> {
        let Some(table) = &mut self.table else { return Ok(()) };
        if table.version % CHECKPOINT_EVERY != 0 || table.version == 0 {
            return Ok(());
        }
        table.removed.retain(|_, (at, _)| *at >= since);
        let (version, at) = (table.version, table.committed_ms);
        let lines = table.lines();
        let size = lines.len() as u64;
        let bytes = checkpoint::encode(&lines)?;
        self.put(self.checkpoint_path(version), bytes).await?;
        let hint = serde_json::to_vec(&LastCheckpoint { version, size });
        self.put(self.last_checkpoint_path(), hint.map_err(|error| TablesError::Encoding(error.to_string()))?).await?;
        if let Some(table) = &mut self.table {
            table.checkpoints.push((version, at));
        }
        Ok(())
    }

    pub(super) async fn put(&self, path: Path, bytes: Vec<u8>) -> Result<(), TablesError> {
        let put = self.objects.put(&path, PutPayload::from(Bytes::from(bytes))).await;
        put.map(drop).map_err(|error| TablesError::objects(&path, error))
    }

    /// Writes a file of deletion vectors.
    pub(super) async fn put_vectors(&self, uuid: u128, bytes: Vec<u8>) -> Result<(), TablesError> {
        self.put(ObjectPath::DeletionVectors(self.app.clone(), self.collection.clone(), uuid).to_path(), bytes).await
    }

    /// Reads a file of deletion vectors.
    pub(super) async fn vectors(&self, uuid: u128) -> Result<(Path, Bytes), TablesError> {
        let path = ObjectPath::DeletionVectors(self.app.clone(), self.collection.clone(), uuid).to_path();
        match self.get(&path).await? {
            Some(bytes) => Ok((path, bytes)),
            None => Err(TablesError::corrupt(&path, "a version of the table names it, and it is not there")),
        }
    }
}

impl Table {
    /// All that a checkpoint says.
    fn lines(&self) -> Vec<Line> {
        let first = [
            Line { protocol: Some(self.protocol.clone()), ..Line::default() },
            Line { meta_data: Some(self.meta.clone()), ..Line::default() },
        ];
        let adds = self.files.values().map(|add| Line { add: Some(add.clone()), ..Line::default() });
        let removes = self.removed.values().map(|(at, add)| {
            let deletion_vector = add.deletion_vector.clone();
            let remove =
                Remove { path: add.path.clone(), deletion_timestamp: *at, data_change: false, deletion_vector };
            Line { remove: Some(remove), ..Line::default() }
        });
        first.into_iter().chain(adds).chain(removes).collect()
    }
}
