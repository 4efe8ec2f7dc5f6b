//! What the writer thread, the maintenance thread and the readers share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use bigpeer_types::AppId;
use bytes::Bytes;

use super::disk::Disk;
use super::index::AppIndex;
use super::segments::Segments;
use crate::Versioned;
use crate::watchers::Watchers;

/// Of one open log.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segments: Segments,
    pub(crate) apps: RwLock<BTreeMap<AppId, Arc<AppIndex>>>,
    /// Only what is durable.
    pub(crate) metadata: RwLock<BTreeMap<Bytes, Versioned>>,
    pub(crate) watchers: Watchers,
    /// The oldest segment that the newest durable checkpoint needs.
    pub(crate) first_segment: AtomicU64,
    /// A checkpoint is being written: no other is begun.
    pub(crate) checkpointing: AtomicBool,
    /// Why nothing can be written any more, once that is so.
    ended: OnceLock<String>,
}

impl Shared {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        segments: Segments,
        apps: BTreeMap<AppId, Arc<AppIndex>>,
        metadata: BTreeMap<Bytes, Versioned>,
        first_segment: u64,
    ) -> Self {
        Self {
            disk,
            segments,
            apps: RwLock::new(apps),
            metadata: RwLock::new(metadata),
            watchers: Watchers::default(),
            first_segment: AtomicU64::new(first_segment),
            checkpointing: AtomicBool::new(false),
            ended: OnceLock::new(),
        }
    }

    /// The index of an app, made if it is asked for for the first time.
    pub(crate) fn app(&self, app: &AppId) -> Arc<AppIndex> {
        if let Some(index) = self.apps.read().unwrap_or_else(PoisonError::into_inner).get(app) {
            return Arc::clone(index);
        }
        let mut apps = self.apps.write().unwrap_or_else(PoisonError::into_inner);
        let index = Arc::clone(apps.entry(app.clone()).or_insert_with(|| Arc::new(AppIndex::new())));
        if self.ended.get().is_some() {
            index.progress.send_modify(|progress| progress.ended = true);
        }
        index
    }

    /// Why nothing can be written any more, if that is so.
    pub(crate) fn ended(&self) -> Option<&str> {
        self.ended.get().map(String::as_str)
    }

    /// Says once and for all that nothing can be written any more, and wakes all who wait for it.
    pub(crate) fn end(&self, reason: String) {
        // Only the first reason counts.
        let _ = self.ended.set(reason);
        for index in self.apps.write().unwrap_or_else(PoisonError::into_inner).values() {
            index.progress.send_modify(|progress| progress.ended = true);
        }
        self.watchers.close();
    }
}
