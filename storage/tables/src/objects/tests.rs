//! The wrapper alone: bodies that break off, parts, limits, locations.

use std::sync::atomic::{AtomicUsize, Ordering};

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;

/// A store in memory whose bodies end early, some times, and which knows how many requests were under way at once.
#[derive(Debug, Default)]
struct Odd {
    inner: InMemory,
    short: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("odd")
    }
}

#[async_trait]
impl ObjectStore for Odd {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut got = self.inner.get_opts(location, options).await?;
        if self.short.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
            && let GetResultPayload::Stream(body) = got.payload
        {
            got.payload = GetResultPayload::Stream(body.map_ok(|bytes| bytes.slice(..bytes.len() / 2)).boxed());
        }
        Ok(got)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn on(store: &Arc<Odd>, remote: bool, settings: &ObjectsSettings) -> Objects {
    Objects::new(Arc::clone(store) as _, remote, settings)
}

#[tokio::test]
async fn a_body_that_breaks_off_is_asked_for_again_and_never_returned() {
    let store = Arc::new(Odd::default());
    let objects = on(&store, true, &ObjectsSettings::default());
    let path = Path::from("x");
    objects.put(&path, "0123456789".into()).await.unwrap();
    store.short.store(2, Ordering::SeqCst);
    assert_eq!(objects.get(&path).await.unwrap().bytes().await.unwrap(), "0123456789");
    assert_eq!(objects.get_range(&path, 2..6).await.unwrap(), "2345");
    store.short.store(1, Ordering::SeqCst);
    assert_eq!(objects.head(&path).await.unwrap().size, 10, "a question about an object has no body");
    store.short.store(100, Ordering::SeqCst);
    let error = objects.get_range(&path, 2..6).await.unwrap_err();
    assert!(error.to_string().contains("ended 2 bytes too early"), "{error}");
    assert!(objects.get_ranges(&path, &[0..2, 4..8]).await.is_err());
    let local = on(&store, false, &ObjectsSettings::default());
    assert!(local.get(&path).await.is_err(), "a local file is not asked for again, and not half returned either");
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_allowed_and_all_are_counted() {
    let store = Arc::new(Odd::default());
    let objects = on(&store, true, &ObjectsSettings { max_requests: 3, ..ObjectsSettings::default() });
    let puts = (0..20).map(|n| {
        let objects = objects.clone();
        async move { objects.put(&Path::from(format!("p/{n}")), "body".into()).await }
    });
    futures::future::try_join_all(puts).await.unwrap();
    assert_eq!(store.most.load(Ordering::SeqCst), 3);
    assert_eq!(objects.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 20);
    objects.get_ranges(&Path::from("p/1"), &[0..2, 3..4]).await.unwrap();
    objects.delete(&Path::from("p/1")).await.unwrap();
    let expected = Usage { writes: 20, reads: 1, lists: 1, deletes: 1, bytes_written: 80, bytes_read: 4 };
    assert_eq!(objects.usage(), expected, "near ranges are one request");
}

#[tokio::test]
async fn what_is_large_goes_in_parts_to_a_remote_store() {
    let store = Arc::new(Odd::default());
    let settings = ObjectsSettings { part_bytes: 5 << 20, ..ObjectsSettings::default() };
    let objects = on(&store, true, &settings);
    let large: Vec<u8> = (0..(12 << 20)).map(|n: u32| n.to_le_bytes()[1]).collect();
    let payload: PutPayload =
        [Bytes::from(large[..77].to_vec()), Bytes::from(large[77..].to_vec())].into_iter().collect();
    objects.put(&Path::from("large"), payload.clone()).await.unwrap();
    assert_eq!(objects.get(&Path::from("large")).await.unwrap().bytes().await.unwrap(), large);
    assert_eq!(objects.usage().writes, 5, "begin, three parts, end");
    let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    objects.put_opts(&Path::from("once"), payload.clone(), create.clone()).await.unwrap();
    assert!(matches!(objects.put_opts(&Path::from("once"), payload, create).await, Err(Error::AlreadyExists { .. })));
}

#[test]
fn a_payload_is_split_without_loss() {
    for (chunks, size) in [(vec![], 5), (vec![5], 5), (vec![3, 4, 9], 5), (vec![0, 10, 1], 4), (vec![1; 7], 3)] {
        let bytes: Vec<Bytes> = chunks.iter().map(|len| Bytes::from(vec![7_u8; *len])).collect();
        let total: usize = chunks.iter().sum();
        let parts = split(bytes.into_iter().collect(), size);
        let lengths: Vec<usize> = parts.iter().map(PutPayload::content_length).collect();
        assert_eq!(lengths.iter().sum::<usize>(), total, "{chunks:?}");
        let size = usize::try_from(size).unwrap();
        assert!(lengths.iter().rev().skip(1).all(|length| *length == size), "{chunks:?}: {lengths:?}");
    }
}

#[test]
fn locations_are_read_and_others_refused() {
    let parse = |text: &str| text.parse::<ObjectsLocation>();
    let bucket = |prefix: &str| ObjectsLocation::S3 { bucket: "my-bucket".into(), prefix: Path::from(prefix) };
    assert_eq!(parse("s3://my-bucket").unwrap(), bucket(""));
    assert_eq!(parse("s3://my-bucket/").unwrap(), bucket(""));
    assert_eq!(parse("s3://my-bucket/a/b/").unwrap(), bucket("a/b"));
    assert_eq!(parse("file:///srv/x").unwrap(), ObjectsLocation::Directory("/srv/x".into()));
    assert_eq!(parse("data/objects").unwrap(), ObjectsLocation::Directory("data/objects".into()));
    for bad in ["", "s3://", "s3:///x", "s3://a b/c", "s3://a/../b", "s3://user:secret@x/y", "gs://x", "file://x"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    for text in ["s3://my-bucket", "s3://my-bucket/a/b", "/srv/x"] {
        assert_eq!(parse(text).unwrap().to_string(), text);
    }
}

#[tokio::test]
async fn plain_http_must_be_allowed() {
    let s3 = S3Settings { endpoint: Some("http://127.0.0.1:9".into()), ..S3Settings::default() };
    let settings = ObjectsSettings { s3, ..ObjectsSettings::default() };
    let error = Objects::open(&"s3://b/p".parse().unwrap(), &settings).await.unwrap_err();
    assert!(error.to_string().contains("--s3-allow-http"), "{error}");
}

#[tokio::test]
async fn a_store_that_creates_twice_is_refused() {
    /// Overwrites whatever it is told to create.
    #[derive(Debug)]
    struct Careless(InMemory);
    impl fmt::Display for Careless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("careless")
        }
    }
    #[async_trait]
    impl ObjectStore for Careless {
        async fn put_opts(&self, location: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
            self.0.put(location, payload).await
        }
        async fn put_multipart_opts(&self, at: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
            self.0.put_multipart_opts(at, opts).await
        }
        async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
            self.0.get_opts(location, options).await
        }
        fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            self.0.delete_stream(locations)
        }
        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.0.list(prefix)
        }
        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.0.list_with_delimiter(prefix).await
        }
        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }
    let settings = ObjectsSettings::default();
    let careless = Objects::new(Arc::new(Careless(InMemory::new())), true, &settings);
    let error = probe::run(&careless, "s3://b", settings.ids.as_ref()).await.unwrap_err();
    assert!(matches!(error, ObjectsError::Unconditional { .. }), "{error}");
    assert!(error.to_string().contains("s3://b ignores conditional writes"), "{error}");
    let good = Objects::new(Arc::new(InMemory::new()), true, &settings);
    probe::run(&good, "memory", settings.ids.as_ref()).await.unwrap();
    assert!(good.list(None).try_collect::<Vec<_>>().await.unwrap().is_empty(), "nothing is left behind");
}
