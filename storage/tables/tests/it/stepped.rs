//! Object storage that waits before one of its operations until it is told to go on, so that whatever is to happen between two
//! operations of somebody happens there, every time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;

/// Who is told that an operation is about to be done, and who lets that happen.
struct Stop {
    operations_before: usize,
    reached: oneshot::Sender<()>,
    goes_on: oneshot::Receiver<()>,
}

/// Objects in memory, each written at a time of its own.
pub(crate) struct Stepped {
    inner: InMemory,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    stop: Mutex<Option<Stop>>,
    /// Counts puts.
    puts: AtomicU64,
    /// The put that wrote an object: it is told to be written so many seconds later than it was.
    written: Mutex<BTreeMap<Path, u64>>,
}

impl State {
    /// Passes, or waits where the next one is to wait.
    async fn pass(&self) {
        let stop = {
            let mut stop = self.stop.lock().unwrap();
            if stop.as_ref().is_some_and(|stop| stop.operations_before == 0) {
                stop.take()
            } else {
                if let Some(stop) = stop.as_mut() {
                    stop.operations_before -= 1;
                }
                None
            }
        };
        if let Some(Stop { reached, goes_on, .. }) = stop {
            // Nobody waits for it, or nobody holds it up any more.
            let _ = reached.send(());
            let _ = goes_on.await;
        }
    }

    fn note(&self, path: &Path) {
        let put = self.puts.fetch_add(1, Ordering::SeqCst);
        self.written.lock().unwrap().insert(path.clone(), put);
    }

    fn told(&self, mut object: ObjectMeta) -> ObjectMeta {
        if let Some(put) = self.written.lock().unwrap().get(&object.location) {
            object.last_modified += Duration::from_secs(*put);
        }
        object
    }
}

impl Stepped {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { inner: InMemory::new(), state: Arc::default() })
    }

    /// Whoever does the n-th operation from now on (0 is the next) waits before it. Tells when that is so; fails when
    /// [`Self::pass_all`] comes first.
    pub(crate) fn stop_before(&self, operations_before: usize) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let ((reached, is_reached), (go_on, goes_on)) = (oneshot::channel(), oneshot::channel());
        *self.state.stop.lock().unwrap() = Some(Stop { operations_before, reached, goes_on });
        (is_reached, go_on)
    }

    /// Nobody is to wait any more who does not wait yet.
    pub(crate) fn pass_all(&self) {
        self.state.stop.lock().unwrap().take();
    }

    /// A stream that begins when it may.
    fn later<T: Send + 'static>(&self, items: BoxStream<'static, T>) -> BoxStream<'static, T> {
        let state = Arc::clone(&self.state);
        stream::once(async move { state.pass().await }).filter_map(async |()| None).chain(items).boxed()
    }
}

impl fmt::Debug for Stepped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stepped")
    }
}

impl fmt::Display for Stepped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stepped")
    }
}

#[async_trait]
impl ObjectStore for Stepped {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.state.pass().await;
        let put = self.inner.put_opts(location, payload, opts).await?;
        self.state.note(location);
        Ok(put)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.state.pass().await;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.state.pass().await;
        let got = self.inner.get_opts(location, options).await?;
        Ok(GetResult { meta: self.state.told(got.meta), ..got })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.later(self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let state = Arc::clone(&self.state);
        self.later(self.inner.list(prefix).map(move |object| Ok(state.told(object?))).boxed())
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.state.pass().await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.state.pass().await;
        self.inner.copy_opts(from, to, options).await
    }
}
