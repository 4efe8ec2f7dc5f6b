//! What the writer knows of the log: what a checkpoint holds, and what replaying records rebuilds.

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_types::{AppId, Lsn, SiteId};
use bytes::Bytes;

use super::format::{Reader, Record, Varint};
use super::index::AppIndex;
use crate::memory::apply_ops;
use crate::preconditions::{LastWrite, Preconditions};
use crate::{ConflictKey, Versioned};

/// One app, as the writer sees it.
#[derive(Debug)]
pub(crate) struct AppState {
    pub(crate) id: AppId,
    pub(crate) preconditions: Preconditions,
    pub(crate) trimmed: Lsn,
    /// The last entry.
    pub(crate) head: Lsn,
    /// What readers see.
    pub(crate) index: Arc<AppIndex>,
}

/// The whole log, as the writer sees it.
#[derive(Debug)]
pub(crate) struct LogState {
    /// Of the next record.
    pub(crate) next_version: u64,
    /// By number.
    pub(crate) apps: Vec<AppState>,
    pub(crate) numbers: BTreeMap<AppId, u32>,
    pub(crate) metadata: BTreeMap<Bytes, Versioned>,
    conflict_keys: usize,
}

impl LogState {
    pub(crate) fn new(conflict_keys: usize) -> Self {
        Self { next_version: 1, apps: Vec::new(), numbers: BTreeMap::new(), metadata: BTreeMap::new(), conflict_keys }
    }

    pub(crate) fn app(&self, number: u32) -> Option<&AppState> {
        self.apps.get(usize::try_from(number).ok()?)
    }

    pub(crate) fn app_mut(&mut self, number: u32) -> Option<&mut AppState> {
        self.apps.get_mut(usize::try_from(number).ok()?)
    }

    /// Gives an app the next number.
    pub(crate) fn add_app(&mut self, id: &AppId, index: Arc<AppIndex>) -> u32 {
        let number = u32::try_from(self.apps.len()).unwrap_or(u32::MAX);
        self.apps.push(AppState {
            id: id.clone(),
            preconditions: Preconditions::new(self.conflict_keys),
            trimmed: Lsn::ZERO,
            head: Lsn::ZERO,
            index,
        });
        self.numbers.insert(id.clone(), number);
        number
    }

    /// Takes the newest app back: its number was never written.
    pub(crate) fn remove_last_app(&mut self) {
        if let Some(app) = self.apps.pop() {
            self.numbers.remove(&app.id);
        }
    }

    /// Does what a record of the log says; `None`: it cannot be, the log before it being what it is.
    pub(crate) fn replay(&mut self, version: u64, record: Record<'_>) -> Option<()> {
        match record {
            Record::Entry(entry) => {
                let lsn = Lsn::new(version, 0);
                let app = self.app_mut(entry.app)?;
                let last = app.preconditions.sites.get(&entry.site).map_or(0, |last| last.seq);
                if last.checked_add(1)? != entry.seq {
                    return None;
                }
                let (keys, _) = entry.keys.as_chunks::<8>();
                let keys = keys.iter().map(|key| ConflictKey(u64::from_le_bytes(*key)));
                app.preconditions.applied(entry.site, entry.seq, lsn, keys);
                app.head = lsn;
            }
            Record::App { number, app } => {
                if usize::try_from(number).ok()? != self.apps.len() || self.numbers.contains_key(&app) {
                    return None;
                }
                self.add_app(&app, Arc::new(AppIndex::new()));
            }
            Record::Trim { app, through } => {
                let app = self.app_mut(app)?;
                app.trimmed = app.trimmed.max(through);
            }
            Record::Metadata(ops) => apply_ops(&mut self.metadata, &ops, version),
        }
        Some(())
    }

    /// The content of a checkpoint. See `checkpoint` for the layout.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let put = |out: &mut Vec<u8>, value: u64| out.extend_from_slice(Varint::new(value).bytes());
        let put_chunk = |out: &mut Vec<u8>, chunk: &[u8]| {
            put(out, chunk.len() as u64);
            out.extend_from_slice(chunk);
        };
        put(out, self.next_version);
        put(out, self.apps.len() as u64);
        for app in &self.apps {
            put_chunk(out, app.id.as_str().as_bytes());
            put(out, app.head.version);
            put(out, app.trimmed.version);
            put(out, app.trimmed.order.into());
            put(out, app.preconditions.sites.len() as u64);
            for (site, last) in &app.preconditions.sites {
                out.extend_from_slice(&site.get().to_le_bytes());
                put(out, last.seq);
                put(out, last.lsn.version);
            }
            put(out, app.preconditions.keys.forgotten().version);
            put(out, app.preconditions.keys.remembered().count() as u64);
            for (key, lsn) in app.preconditions.keys.remembered() {
                out.extend_from_slice(&key.0.to_le_bytes());
                put(out, lsn.version);
            }
        }
        put(out, self.metadata.len() as u64);
        for (key, versioned) in &self.metadata {
            put_chunk(out, key);
            put_chunk(out, &versioned.value);
            put(out, versioned.revision);
        }
    }

    /// Reads what [`Self::encode`] wrote; `None`: it is not that.
    pub(crate) fn decode(bytes: &[u8], conflict_keys: usize) -> Option<Self> {
        let mut reader = Reader(bytes);
        let mut state = Self::new(conflict_keys);
        state.next_version = reader.varint()?;
        for _ in 0..reader.varint()? {
            let id = AppId::new(std::str::from_utf8(reader.chunk()?).ok()?).ok()?;
            let number = state.add_app(&id, Arc::new(AppIndex::new()));
            state.app_mut(number)?.decode(&mut reader)?;
        }
        for _ in 0..reader.varint()? {
            let key = Bytes::copy_from_slice(reader.chunk()?);
            let value = Bytes::copy_from_slice(reader.chunk()?);
            state.metadata.insert(key, Versioned { value, revision: reader.varint()? });
        }
        reader.0.is_empty().then_some(state)
    }
}

impl AppState {
    fn decode(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        self.head = Lsn::new(reader.varint()?, 0);
        self.trimmed = Lsn::new(reader.varint()?, reader.varint_u32()?);
        for _ in 0..reader.varint()? {
            let site = SiteId::new(reader.u64()?);
            let last = LastWrite { seq: reader.varint()?, lsn: Lsn::new(reader.varint()?, 0) };
            self.preconditions.sites.insert(site, last);
        }
        self.preconditions.keys.forget_through(Lsn::new(reader.varint()?, 0));
        for _ in 0..reader.varint()? {
            let key = ConflictKey(reader.u64()?);
            self.preconditions.keys.write(key, Lsn::new(reader.varint()?, 0));
        }
        Some(())
    }
}
