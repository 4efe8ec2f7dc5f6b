//! `Attachments`: where an app's blobs are, and where they are stored, so that none is lost to a collector that deletes it.
//!
//! Object storage deletes by name, whatever is there by then, and a collector may sleep as long as it likes between its last look
//! and the deletion. So a name that was ever to be deleted is never relied on again: blobs of one digest have generations.
//!
//! # Consistency
//! A collector **condemns** a generation, for ever, and only then looks a last time whether it was stored again and whether some
//! document holds it. Whoever stores a blob looks whether its generation is condemned **after** it was stored, and if so stores
//! it under the next. One of the two sees the other: what was stored before it was condemned is spared, what was stored
//! afterwards is stored again where no collector looks yet. No list, no clock, and no operation but put and get.
//!
//! Readers take the first generation that is there, condemned or not: the bytes are the same.

use std::sync::Arc;

use bigpeer_types::AppId;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, Result};

use crate::paths::ObjectPath;

/// The blobs of one app.
#[derive(Clone, Debug)]
pub struct Attachments {
    app: AppId,
    objects: Arc<dyn ObjectStore>,
}

/// Where a blob is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentPlace {
    sha256: [u8; 32],
    generation: u32,
    path: Path,
}

impl AttachmentPlace {
    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }
}

impl Attachments {
    /// Of this app, in this storage.
    #[must_use]
    pub fn new(app: AppId, objects: Arc<dyn ObjectStore>) -> Self {
        Self { app, objects }
    }

    /// Where the bytes are, and how many; none if they are not there. When they are gone at this path by the time they are read,
    /// they may be found again elsewhere.
    ///
    /// # Errors
    /// When object storage fails.
    pub async fn find(&self, sha256: [u8; 32]) -> Result<Option<ObjectMeta>> {
        let mut generation = 0;
        loop {
            let path = ObjectPath::Attachment(self.app.clone(), sha256, generation).to_path();
            if let Some(found) = self.head(&path).await? {
                // A store below a prefix answers with its own name of it.
                return Ok(Some(ObjectMeta { location: path, ..found }));
            }
            if !self.is_condemned(sha256, generation).await? {
                return Ok(None);
            }
            generation = next(generation)?;
        }
    }

    /// Where a blob is to be stored now. It is stored only when [`Self::stays`] said so afterwards.
    ///
    /// # Errors
    /// When object storage fails.
    pub async fn place(&self, sha256: [u8; 32]) -> Result<AttachmentPlace> {
        let mut generation = 0;
        while self.is_condemned(sha256, generation).await? {
            generation = next(generation)?;
        }
        let path = ObjectPath::Attachment(self.app.clone(), sha256, generation).to_path();
        Ok(AttachmentPlace { sha256, generation, path })
    }

    /// Whether what was stored at a place stays there as long as it is young or something holds it. If not, it is to be stored again,
    /// at another [`Self::place`].
    ///
    /// # Errors
    /// When object storage fails: then it is not known.
    pub async fn stays(&self, place: &AttachmentPlace) -> Result<bool> {
        Ok(!self.is_condemned(place.sha256, place.generation).await?)
    }

    /// Stores a blob that is in memory; `sha256` is its digest.
    ///
    /// # Errors
    /// When object storage fails.
    pub async fn put(&self, sha256: [u8; 32], bytes: Bytes) -> Result<()> {
        loop {
            let place = self.place(sha256).await?;
            self.objects.put(place.path(), bytes.clone().into()).await?;
            if self.stays(&place).await? {
                return Ok(());
            }
        }
    }

    /// Says, for ever, that this generation of a blob is not stored again. What is there may be deleted after a look at whether it
    /// was stored again before this, and whether something holds it.
    pub(crate) async fn condemn(&self, sha256: [u8; 32], generation: u32) -> Result<()> {
        let path = ObjectPath::Condemned(self.app.clone(), sha256, generation).to_path();
        self.objects.put(&path, PutPayload::default()).await.map(drop)
    }

    async fn is_condemned(&self, sha256: [u8; 32], generation: u32) -> Result<bool> {
        let path = ObjectPath::Condemned(self.app.clone(), sha256, generation).to_path();
        Ok(self.head(&path).await?.is_some())
    }

    async fn head(&self, path: &Path) -> Result<Option<ObjectMeta>> {
        match self.objects.head(path).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn next(generation: u32) -> Result<u32> {
    let exhausted = || Error::Generic { store: "attachments", source: "a blob was condemned too often".into() };
    generation.checked_add(1).ok_or_else(exhausted)
}
