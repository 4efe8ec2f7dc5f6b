//! `Objects`: object storage as everything here uses it, wherever it is: a local disk, S3, or memory.
//!
//! One wrapper around an `ObjectStore`, which is one itself. It bounds how many requests are under way, counts and times
//! them, checks that bodies are as long as they were said to be, uploads what is large in parts, and reads the ranges of
//! immutable objects through a cache.
//!
//! # Failures
//! The S3 client repeats what may be repeated, with growing pauses and jitter. What fails all the same is an error whose
//! caller tries again later; a create whose answer was lost may have happened, and says `AlreadyExists` when it is
//! repeated.

mod cache;
mod credentials;
mod location;
mod probe;
mod s3;
mod sign;
mod usage;

pub use cache::CacheSettings;
pub use location::{ObjectsError, ObjectsLocation, ObjectsSettings};
pub use s3::{S3Encryption, S3Settings};
pub use usage::Usage;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bigpeer_types::Clock;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::paths::ObjectPath;
use cache::{Cache, Read};
use usage::{Counts, Operation, Outcome};

const STORE: &str = "Objects";

/// Bodies up to this are read whole within the request's permit. Longer ones are streamed to a reader who may be slow, and
/// hold no permit.
const WHOLE_BYTES: u64 = 32 << 20;

/// Ranges that are nearer to each other than this are one request to a remote store.
const COALESCE_BYTES: u64 = 256 << 10;

/// Parts of one upload that are under way at once.
const PARTS_AT_ONCE: usize = 4;

/// How often a body that ended too early is asked for again.
const BODY_TRIES: u32 = 3;

/// Pause before a body is asked for again; doubled each time.
const BODY_PAUSE: Duration = Duration::from_millis(50);

/// Object storage. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    shared: Arc<Shared>,
    cached: Option<Cached>,
    signer: Option<Arc<dyn Signer>>,
}

#[derive(Debug)]
struct Shared {
    /// How it is called in messages.
    name: String,
    remote: bool,
    part_bytes: u64,
    permits: Arc<Semaphore>,
    counts: Counts,
    clock: Arc<dyn Clock>,
}

/// A cache, and how it reads what it does not have.
#[derive(Clone)]
struct Cached {
    cache: Arc<Cache>,
    read: Read,
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cache.fmt(f)
    }
}

impl Objects {
    /// Wraps a store. `remote`: each request is paid for and takes its time, so that near ranges are read together.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, remote: bool, settings: &ObjectsSettings) -> Self {
        let shared = Shared {
            name: store.to_string(),
            remote,
            part_bytes: settings.part_bytes.max(5 << 20),
            permits: Arc::new(Semaphore::new(settings.max_requests.clamp(1, Semaphore::MAX_PERMITS))),
            counts: Counts::default(),
            clock: Arc::clone(&settings.clock),
        };
        Self { store, shared: Arc::new(shared), cached: None, signer: None }
    }

    /// Opens what a location names, and makes sure that it keeps what the tables rely on.
    ///
    /// # Errors
    /// When it cannot be reached, or does not refuse to create an object twice.
    pub async fn open(
        location: &ObjectsLocation,
        settings: &ObjectsSettings,
    ) -> std::result::Result<Self, ObjectsError> {
        let objects = location::connect(location, settings).await?;
        if objects.shared.remote {
            probe::run(&objects, &location.to_string(), settings.ids.as_ref()).await?;
        }
        Ok(objects)
    }

    /// Opens what a location names, to put something there once: whatever it keeps of what the tables rely on.
    ///
    /// # Errors
    /// When the settings do not fit; whether it can be reached shows when it is used.
    pub async fn open_for_export(
        location: &ObjectsLocation,
        settings: &ObjectsSettings,
    ) -> std::result::Result<Self, ObjectsError> {
        location::connect(location, settings).await
    }

    /// Reads ranges of segments and attachments through a cache from now on.
    ///
    /// # Errors
    /// When the cache's directory cannot be used.
    pub async fn with_cache(self, settings: &CacheSettings) -> std::io::Result<Self> {
        let cache = Arc::new(Cache::open(settings).await?);
        let below = Self { cached: None, ..self.clone() };
        let read: Read = Arc::new(move |path, range| {
            let below = below.clone();
            async move {
                let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
                below.get_opts(&path, options).await?.bytes().await
            }
            .boxed()
        });
        Ok(Self { cached: Some(Cached { cache, read }), ..self })
    }

    /// The cache, for an object that never changes.
    fn cache_for(&self, location: &Path) -> Option<&Cached> {
        let immutable =
            matches!(ObjectPath::parse(location), Some(ObjectPath::Segment(..) | ObjectPath::Attachment(..)));
        self.cached.as_ref().filter(|_| immutable)
    }

    /// Signs URLs by which others read attachments (and nothing else) from the store themselves; none where it cannot. The URLs
    /// name the store as this process does.
    #[must_use]
    pub fn signer(&self) -> Option<Arc<dyn Signer>> {
        self.signer.clone()
    }

    /// What was asked of the store by this process.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.counts.read()
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.shared.permits).acquire_owned().await;
        permit.map_err(|error| Error::Generic { store: STORE, source: Box::new(error) })
    }

    /// Does one request: waits for its turn, counts and times it.
    async fn request<T>(
        &self,
        operation: Operation,
        bytes: impl Fn(&T) -> u64 + Send,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let _permit = self.permit().await?;
        let started = self.shared.clock.monotonic();
        let result = work.await;
        let outcome = Outcome::of(&result);
        self.record(operation, outcome, result.as_ref().map_or(0, bytes), started);
        result
    }

    fn record(&self, operation: Operation, outcome: Outcome, bytes: u64, started: Duration) {
        let took = self.shared.clock.monotonic().saturating_sub(started);
        self.shared.counts.add(operation, bytes);
        crate::metrics::request(operation.name(), outcome.name(), bytes, took.as_secs_f64());
    }

    /// Counts and times a stream of answers as one request, when it has ended. It holds no permit: who reads it may ask
    /// for other things meanwhile.
    fn watched<T: Send + 'static>(
        &self,
        operation: Operation,
        items: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let (this, started) = (self.clone(), self.shared.clock.monotonic());
        let watched = (items, Outcome::Ok);
        stream::unfold(Some(watched), move |state| {
            let this = this.clone();
            async move {
                let (mut items, outcome) = state?;
                match items.next().await {
                    Some(item) => {
                        let outcome = if item.is_err() { Outcome::of(&item) } else { outcome };
                        Some((item, Some((items, outcome))))
                    }
                    None => {
                        this.record(operation, outcome, 0, started);
                        None
                    }
                }
            }
        })
        .boxed()
    }

    /// Reads once. A body of bounded length is read whole, and must have that length.
    async fn get_once(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let read = async {
            let mut got = self.store.get_opts(location, options).await?;
            if head {
                return Ok(got);
            }
            let expected = got.range.end.saturating_sub(got.range.start);
            got.payload = match got.payload {
                GetResultPayload::Stream(body) if expected <= WHOLE_BYTES => {
                    let parts: Vec<Bytes> = exact(body, expected, location).try_collect().await?;
                    GetResultPayload::Stream(stream::iter(parts.into_iter().map(Ok)).boxed())
                }
                GetResultPayload::Stream(body) => GetResultPayload::Stream(exact(body, expected, location)),
                file @ GetResultPayload::File(..) => file,
            };
            Ok(got)
        };
        let bytes = |got: &GetResult| if head { 0 } else { got.range.end.saturating_sub(got.range.start) };
        self.request(Operation::Get, bytes, read).await
    }

    async fn put_in_parts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let options = PutMultipartOptions { tags: opts.tags, attributes: opts.attributes, extensions: opts.extensions };
        let mut upload = self.put_multipart_opts(location, options).await?;
        let sent = async {
            let parts = split(payload, self.shared.part_bytes).into_iter().map(|part| upload.put_part(part));
            stream::iter(parts.collect::<Vec<_>>()).buffer_unordered(PARTS_AT_ONCE).try_collect::<Vec<()>>().await?;
            upload.complete().await
        };
        match sent.await {
            Ok(result) => Ok(result),
            Err(error) => {
                // What cannot be taken back now is taken back by the bucket's rule for unfinished uploads.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }
}

/// A body that is an error unless it has `expected` bytes.
fn exact(body: BoxStream<'static, Result<Bytes>>, expected: u64, location: &Path) -> BoxStream<'static, Result<Bytes>> {
    let location = location.clone();
    stream::try_unfold((body, expected), move |(mut body, left)| {
        let location = location.clone();
        async move {
            match body.try_next().await? {
                Some(bytes) if bytes.len() as u64 <= left => {
                    let left = left - bytes.len() as u64;
                    Ok(Some((bytes, (body, left))))
                }
                None if left == 0 => Ok(None),
                None => Err(generic(format!("the body of '{location}' ended {left} bytes too early"))),
                Some(_) => Err(generic(format!("the body of '{location}' is longer than it was said to be"))),
            }
        }
    })
    .boxed()
}

/// The range that is asked for, if nothing else is.
fn plain_range(options: &GetOptions) -> Option<&GetRange> {
    let conditions = [&options.if_match, &options.if_none_match].iter().any(|tag| tag.is_some())
        || options.if_modified_since.is_some()
        || options.if_unmodified_since.is_some();
    options.range.as_ref().filter(|_| !conditions && !options.head && options.version.is_none())
}

/// An answer from bytes that are at hand. Of the object it says what is known: its end as far as it was read.
fn whole(location: &Path, start: u64, bytes: Bytes) -> GetResult {
    let range = start..start + bytes.len() as u64;
    let (location, size) = (location.clone(), range.end);
    let meta = ObjectMeta { location, last_modified: Default::default(), size, e_tag: None, version: None };
    let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
    GetResult { payload, meta, range, attributes: Attributes::default() }
}

fn generic(message: String) -> Error {
    Error::Generic { store: STORE, source: message.into() }
}

/// A payload in parts of `size` bytes, the last one shorter.
fn split(payload: PutPayload, size: u64) -> Vec<PutPayload> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut part: Vec<Bytes> = Vec::new();
    let mut room = size;
    for mut bytes in payload {
        while bytes.len() >= room {
            part.push(bytes.split_to(room));
            parts.push(std::mem::take(&mut part).into_iter().collect());
            room = size;
        }
        if !bytes.is_empty() {
            room -= bytes.len();
            part.push(bytes);
        }
    }
    if !part.is_empty() || parts.is_empty() {
        parts.push(part.into_iter().collect());
    }
    parts
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shared.name)
    }
}

#[async_trait]
impl ObjectStore for Objects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let bytes = payload.content_length() as u64;
        if self.shared.remote && bytes > self.shared.part_bytes && opts.mode == PutMode::Overwrite {
            return self.put_in_parts(location, payload, opts).await;
        }
        let operation = if opts.mode == PutMode::Create { Operation::Create } else { Operation::Put };
        self.request(operation, |_| bytes, self.store.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let begun = self.store.put_multipart_opts(location, opts);
        let inner = self.request(Operation::Multipart, |_| 0, begun).await?;
        Ok(Box::new(Upload { inner, objects: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(cached) = self.cache_for(location)
            && let Some(GetRange::Bounded(range)) = plain_range(&options)
        {
            let bytes = cached.cache.get(location, range.clone(), &cached.read).await?;
            return Ok(whole(location, range.start, bytes));
        }
        let mut tries = 1;
        loop {
            match self.get_once(location, options.clone()).await {
                // The client has tried again whatever the server refused; this is a body that broke off.
                Err(Error::Generic { source, .. }) if tries < BODY_TRIES && self.shared.remote => {
                    tracing::debug!(%location, error = %source, "reading again");
                    tokio::time::sleep(BODY_PAUSE * (1 << tries)).await;
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if let Some(cached) = self.cache_for(location) {
            // The cache puts together what is side by side.
            let read = |range: Range<u64>| cached.cache.get(location, range, &cached.read);
            return object_store::coalesce_ranges(ranges, read, COALESCE_BYTES).await;
        }
        if self.shared.remote {
            let read = |range: Range<u64>| async move {
                let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
                self.get_opts(location, options).await?.bytes().await
            };
            return object_store::coalesce_ranges(ranges, read, COALESCE_BYTES).await;
        }
        let bytes = |read: &Vec<Bytes>| read.iter().map(|bytes| bytes.len() as u64).sum();
        let read = async {
            let read = self.store.get_ranges(location, ranges).await?;
            let mut pairs = ranges.iter().zip(&read);
            match pairs.find(|(range, bytes)| bytes.len() as u64 != range.end.saturating_sub(range.start)) {
                None => Ok(read),
                Some((range, _)) => Err(generic(format!("bytes {range:?} of '{location}' were not read as a whole"))),
            }
        };
        self.request(Operation::Get, bytes, read).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.watched(Operation::Delete, self.store.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.watched(Operation::List, self.store.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.watched(Operation::List, self.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request(Operation::List, |_| 0, self.store.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request(Operation::Copy, |()| 0, self.store.copy_opts(from, to, options)).await
    }
}

/// An upload in parts.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    objects: Objects,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> object_store::UploadPart {
        let bytes = data.content_length() as u64;
        let (objects, part) = (self.objects.clone(), self.inner.put_part(data));
        async move { objects.request(Operation::Part, |()| bytes, part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let objects = self.objects.clone();
        objects.request(Operation::Multipart, |_| 0, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let objects = self.objects.clone();
        objects.request(Operation::Multipart, |()| 0, self.inner.abort()).await
    }
}

#[cfg(test)]
mod tests;
