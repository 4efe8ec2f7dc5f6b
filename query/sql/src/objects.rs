//! What a query may read: the segments of its snapshot, and no other object, file or URL.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::common::{DataFusionError, Result as PlanResult};
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::execution::object_store::ObjectStoreRegistry;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// The URL under which plans name the one store that a query sees. Nothing can be read through it: readers are handed
/// their [`Segments`] directly.
pub(crate) fn store_url() -> PlanResult<ObjectStoreUrl> {
    ObjectStoreUrl::parse("bigpeer://segments")
}

/// An app's objects, cut down to reading the given paths.
#[derive(Debug)]
pub(crate) struct Segments {
    objects: Arc<dyn ObjectStore>,
    paths: HashSet<Path>,
}

impl Segments {
    pub(crate) fn new(objects: Arc<dyn ObjectStore>, paths: impl IntoIterator<Item = Path>) -> Self {
        Self { objects, paths: paths.into_iter().collect() }
    }

    /// Nothing at all.
    fn none() -> Self {
        Self::new(Arc::new(object_store::memory::InMemory::new()), [])
    }

    fn check(&self, path: &Path) -> Result<()> {
        if self.paths.contains(path) {
            return Ok(());
        }
        Err(Error::NotFound { path: path.to_string(), source: "not a segment of this snapshot".into() })
    }
}

impl fmt::Display for Segments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} segments", self.paths.len())
    }
}

fn read_only<T>(what: &str) -> Result<T> {
    Err(Error::NotSupported { source: format!("{what}: queries only read").into() })
}

#[async_trait]
impl ObjectStore for Segments {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        read_only("put")
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        read_only("put")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check(location)?;
        self.objects.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.check(location)?;
        self.objects.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::iter([read_only("delete")]).boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::iter([read_only("list")]).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        read_only("list")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        read_only("copy")
    }
}

/// Knows no store but the empty one, and takes none.
#[derive(Debug)]
pub(crate) struct NoStores(Arc<dyn ObjectStore>);

impl Default for NoStores {
    fn default() -> Self {
        Self(Arc::new(Segments::none()))
    }
}

impl ObjectStoreRegistry for NoStores {
    fn register_store(&self, _: &url::Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &url::Url) -> PlanResult<Arc<dyn ObjectStore>> {
        if url.scheme() == "bigpeer" {
            return Ok(Arc::clone(&self.0));
        }
        Err(DataFusionError::Plan("queries read the app's collections only, no files and no URLs".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn only_the_snapshots_segments_can_be_read_and_nothing_written() {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (mine, other) = (Path::from("apps/a/1"), Path::from("apps/b/1"));
        for path in [&mine, &other] {
            objects.put(path, PutPayload::from_static(b"x")).await.unwrap();
        }
        let segments = Segments::new(objects, [mine.clone()]);
        assert_eq!(segments.get(&mine).await.unwrap().bytes().await.unwrap(), "x");
        assert!(segments.get(&other).await.is_err());
        assert!(segments.get_ranges(&other, std::slice::from_ref(&(0..1))).await.is_err());
        assert!(segments.put(&mine, PutPayload::from_static(b"y")).await.is_err());
        assert!(segments.delete(&mine).await.is_err());
        assert!(segments.copy(&mine, &other).await.is_err());
        assert!(segments.list(None).next().await.unwrap().is_err());
    }

    #[test]
    fn no_other_store_can_be_named() {
        let stores = NoStores::default();
        for url in ["file:///etc/passwd", "http://localhost/x", "s3://bucket/x"] {
            assert!(stores.get_store(&url::Url::parse(url).unwrap()).is_err());
        }
        assert!(stores.get_store(store_url().unwrap().as_ref()).is_ok());
    }
}
