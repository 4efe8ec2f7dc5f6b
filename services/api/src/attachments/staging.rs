//! `Staging`: the pieces of an upload that is not complete, each an object of its own until they are put together.
//!
//! # Layout
//! `uploads/{ulid}/{offset}` holds the bytes from there on; `uploads/{ulid}/upload` what a resumable upload was begun
//! with. A piece is put only where nothing is, so that of two that race for an offset one is told. Pieces count as far as
//! they follow each other without a gap.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_chassis::Shutdown;
use bigpeer_tables::Attachments;
use bigpeer_tables::paths::{self, ObjectPath};
use bigpeer_types::{AppId, Clock, IdGenerator};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use sha2::{Digest, Sha256};
use ulid::Ulid;

use super::pieces::PIECE_BYTES;
use crate::{ApiContext, metrics};

/// How often uploads that have expired are looked for.
const SWEEP: Duration = Duration::from_secs(600);

/// One upload's pieces.
#[derive(Clone, Debug)]
pub(super) struct Staging {
    objects: Arc<dyn ObjectStore>,
    app: AppId,
    upload: Ulid,
}

/// A piece: where it begins, and how long it is.
type Extent = (u64, u64);

impl Staging {
    pub(super) fn begin(objects: &Arc<dyn ObjectStore>, app: &AppId, clock: &dyn Clock, ids: &dyn IdGenerator) -> Self {
        let random = u128::from(ids.next_u64()) << 64 | u128::from(ids.next_u64());
        Self::of(objects, app, Ulid::from_parts(clock.now_ms(), random))
    }

    pub(super) fn of(objects: &Arc<dyn ObjectStore>, app: &AppId, upload: Ulid) -> Self {
        Self { objects: Arc::clone(objects), app: app.clone(), upload }
    }

    pub(super) fn name(&self) -> Ulid {
        self.upload
    }

    /// Stores a piece; false if there is one at this offset already.
    pub(super) async fn put(&self, offset: u64, piece: Bytes) -> Result<bool, Error> {
        let path = ObjectPath::UploadPart(self.app.clone(), self.upload, offset).to_path();
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&path, piece.into(), create).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The pieces that follow each other from the beginning, and where they end.
    pub(super) async fn extents(&self) -> Result<(Vec<Extent>, u64), Error> {
        let prefix = paths::upload(&self.app, self.upload);
        let mut found: Vec<Extent> = Vec::new();
        let mut listed = self.objects.list(Some(&prefix));
        while let Some(object) = listed.try_next().await? {
            if let Some(ObjectPath::UploadPart(_, _, offset)) = ObjectPath::parse(&object.location) {
                found.push((offset, object.size));
            }
        }
        found.sort_unstable();
        let (mut extents, mut end) = (Vec::with_capacity(found.len()), 0);
        for (offset, length) in found {
            if offset == end {
                extents.push((offset, length));
                end += length;
            }
        }
        Ok((extents, end))
    }

    /// Puts the pieces together as the attachment `sha256`, if that is what they are; says whether it was.
    pub(super) async fn assemble(&self, extents: &[Extent], sha256: [u8; 32]) -> Result<bool, Error> {
        let attachments = Attachments::new(self.app.clone(), Arc::clone(&self.objects));
        loop {
            let place = attachments.place(sha256).await?;
            if !self.assemble_at(place.path(), extents, sha256).await? {
                return Ok(false);
            }
            if attachments.stays(&place).await? {
                return Ok(true);
            }
        }
    }

    async fn assemble_at(&self, target: &Path, extents: &[Extent], sha256: [u8; 32]) -> Result<bool, Error> {
        let mut upload = self.objects.put_multipart(target).await?;
        match self.copy(extents, upload.as_mut()).await {
            Ok(digest) if digest == sha256 => {
                upload.complete().await?;
                Ok(true)
            }
            Ok(_) => {
                upload.abort().await?;
                Ok(false)
            }
            Err(error) => {
                // What is left of it is the store's to collect.
                let _best_effort = upload.abort().await;
                Err(error)
            }
        }
    }

    /// Copies the pieces in parts of one size; answers their digest.
    async fn copy(&self, extents: &[Extent], upload: &mut dyn MultipartUpload) -> Result<[u8; 32], Error> {
        let (mut hash, mut buffer) = (Sha256::new(), BytesMut::new());
        for (offset, _) in extents {
            let path = ObjectPath::UploadPart(self.app.clone(), self.upload, *offset).to_path();
            let mut bytes = self.objects.get(&path).await?.into_stream();
            while let Some(bytes) = bytes.try_next().await? {
                hash.update(&bytes);
                buffer.extend_from_slice(&bytes);
                while buffer.len() >= PIECE_BYTES {
                    upload.put_part(buffer.split_to(PIECE_BYTES).freeze().into()).await?;
                }
            }
        }
        if !buffer.is_empty() {
            upload.put_part(buffer.freeze().into()).await?;
        }
        Ok(hash.finalize().into())
    }

    /// Removes the pieces, and with `all` also what the upload was begun with. What is not removed now expires.
    pub(super) async fn remove(&self, all: bool) {
        let prefix = paths::upload(&self.app, self.upload);
        let paths = self.objects.list(Some(&prefix)).map_ok(|object| object.location).filter(move |path| {
            let piece =
                path.as_ref().is_ok_and(|path| matches!(ObjectPath::parse(path), Some(ObjectPath::UploadPart(..))));
            futures::future::ready(all || piece || path.is_err())
        });
        if let Err(error) = self.objects.delete_stream(paths.boxed()).try_collect::<Vec<_>>().await {
            tracing::warn!(%error, "pieces of an upload could not be removed; they go when it expires");
        }
    }
}

/// Removes uploads that were never finished in time, of every app that this process serves, now and then until
/// `shutdown`. Several processes may do so.
pub async fn expire_uploads(context: ApiContext, shutdown: Shutdown) {
    loop {
        for app in context.catalogue.apps() {
            let Some(store) = context.stores.store(&app.id) else { continue };
            let objects = Arc::clone(store.snapshot().objects());
            if let Err(error) = sweep(&context, &app.id, &objects).await {
                tracing::warn!(app = %app.id, %error, "uploads could not be looked through; trying again later");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}

/// Removes the app's uploads that have expired.
pub(super) async fn sweep(context: &ApiContext, app: &AppId, objects: &Arc<dyn ObjectStore>) -> Result<(), Error> {
    let ttl_ms = u64::try_from(context.settings.attachments.upload_ttl.as_millis()).unwrap_or(u64::MAX);
    let old = context.clock.now_ms().saturating_sub(ttl_ms);
    let listed = objects.list_with_delimiter(Some(&paths::uploads(app))).await?;
    for prefix in listed.common_prefixes {
        let Some(upload) = prefix.filename().and_then(|name| Ulid::from_string(name).ok()) else { continue };
        if upload.timestamp_ms() < old {
            Staging::of(objects, app, upload).remove(true).await;
            metrics::upload_expired();
        }
    }
    Ok(())
}
