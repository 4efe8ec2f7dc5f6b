//! `LocalObjects`: objects on a local disk that survive a loss of power, not only of the process.
//!
//! `object_store`'s own local store does not sync what it writes. Here a put writes a temporary file beside the object,
//! syncs it, links or renames it into place, and syncs the directory: when it returns, the object is durable; at no time
//! is there half an object.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bigpeer_types::{IdGenerator, RandomIds};
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

const STORE: &str = "LocalObjects";

/// An object store in a directory. One process at a time.
#[derive(Debug)]
pub struct LocalObjects {
    files: LocalFileSystem,
    ids: Arc<dyn IdGenerator>,
}

impl LocalObjects {
    /// Opens a directory, creating it if need be, and deletes what interrupted puts left behind.
    ///
    /// # Errors
    /// When the directory cannot be created or read.
    pub fn open(dir: &FilePath) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        remove_temporary(dir)?;
        let files = LocalFileSystem::new_with_prefix(dir).map_err(io::Error::other)?;
        Ok(Self { files, ids: Arc::new(RandomIds) })
    }
}

impl LocalObjects {
    /// Where an object is written, and where it is then.
    fn places(&self, location: &Path) -> Result<(PathBuf, PathBuf)> {
        let target = self.files.path_to_filesystem(location)?;
        // A name that ends like this is no object: listings leave it out.
        let mut temporary = target.clone().into_os_string();
        temporary.push(format!("#{}", self.ids.next_u64()));
        Ok((PathBuf::from(temporary), target))
    }
}

/// An upload in parts: a temporary file that becomes the object at its end. Dropped before that, it is deleted.
#[derive(Debug)]
struct Upload {
    temporary: PathBuf,
    target: PathBuf,
    length: u64,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (path, at) = (self.temporary.clone(), self.length);
        self.length += data.content_length() as u64;
        Box::pin(blocking(move || {
            let mut file = OpenOptions::new().write(true).open(&path)?;
            file.seek(SeekFrom::Start(at))?;
            data.iter().try_for_each(|bytes| file.write_all(bytes))
        }))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (temporary, target, length) = (self.temporary.clone(), self.target.clone(), self.length);
        blocking(move || {
            let file = File::open(&temporary)?;
            if file.metadata()?.len() != length {
                return Err(io::Error::other("a part of the upload is missing"));
            }
            file.sync_all()?;
            fs::rename(&temporary, &target)?;
            File::open(target.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()
        })
        .await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        let temporary = self.temporary.clone();
        blocking(move || match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        })
        .await
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Gone already after the end; what cannot be deleted now is collected at the next start.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Runs file work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let failed = |error| Error::Generic { store: STORE, source: error };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| failed(Box::new(error))),
        Err(error) => Err(failed(Box::new(error))),
    }
}

fn create(path: &FilePath) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path).map(drop)
}

impl fmt::Display for LocalObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE}({})", self.files)
    }
}

#[async_trait]
impl ObjectStore for LocalObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return self.files.put_opts(location, payload, opts).await,
        };
        let (temporary, target) = self.places(location)?;
        let written = tokio::task::spawn_blocking(move || put(&temporary, &target, &payload, create)).await;
        match written {
            Ok(Ok(())) => Ok(PutResult { e_tag: None, version: None }),
            Ok(Err(error)) if create && error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: location.to_string(), source: Box::new(error) })
            }
            Ok(Err(error)) => Err(Error::Generic { store: STORE, source: Box::new(error) }),
            Err(error) => Err(Error::Generic { store: STORE, source: Box::new(error) }),
        }
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let (temporary, target) = self.places(location)?;
        let path = temporary.clone();
        blocking(move || create_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?).and_then(|()| create(&path)))
            .await?;
        Ok(Box::new(Upload { temporary, target, length: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

fn put(temporary: &FilePath, target: &FilePath, payload: &PutPayload, create: bool) -> io::Result<()> {
    let dir = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    create_dir(dir)?;
    let result = write(temporary, payload)
        .and_then(|()| if create { fs::hard_link(temporary, target) } else { fs::rename(temporary, target) });
    if create || result.is_err() {
        // Already gone if the write did not begin; collected at the next start if this fails.
        let _ = fs::remove_file(temporary);
    }
    result?;
    File::open(dir)?.sync_all()
}

fn write(path: &FilePath, payload: &PutPayload) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    for bytes in payload.iter() {
        file.write_all(bytes)?;
    }
    file.sync_all()
}

/// Creates a directory and those above it, each durable before something is put into it.
fn create_dir(dir: &FilePath) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = dir.parent().ok_or(io::ErrorKind::NotFound)?;
    create_dir(above)?;
    match fs::create_dir(dir) {
        Ok(()) => File::open(above)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove_temporary(dir: &FilePath) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_temporary(&entry.path())?;
        } else if is_temporary(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_temporary(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;

    fn create() -> PutOptions {
        PutOptions { mode: PutMode::Create, ..PutOptions::default() }
    }

    #[tokio::test]
    async fn objects_are_put_once_or_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let objects = LocalObjects::open(&dir.path().join("objects")).unwrap();
        let path = Path::from("a/b/c");
        objects.put_opts(&path, "one".into(), create()).await.unwrap();
        let again = objects.put_opts(&path, "two".into(), create()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
        assert_eq!(objects.get(&path).await.unwrap().bytes().await.unwrap(), "one");
        objects.put(&path, "three".into()).await.unwrap();
        assert_eq!(objects.get(&path).await.unwrap().bytes().await.unwrap(), "three");
        assert_eq!(fs::read_dir(dir.path().join("objects/a/b")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn of_many_who_create_one_object_one_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let objects = LocalObjects::open(dir.path()).unwrap();
        let path = Path::from("manifests/1");
        let puts = (0..8).map(|n| objects.put_opts(&path, format!("{n}").into(), create()));
        let results = futures::future::join_all(puts).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    }

    #[tokio::test]
    async fn an_upload_in_parts_is_an_object_only_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let objects = LocalObjects::open(dir.path()).unwrap();
        let path = Path::from("a/b");
        let mut upload = objects.put_multipart(&path).await.unwrap();
        let (first, second) = (upload.put_part("one ".into()), upload.put_part("two".into()));
        second.await.unwrap();
        first.await.unwrap();
        assert!(matches!(objects.get(&path).await, Err(Error::NotFound { .. })));
        upload.complete().await.unwrap();
        drop(upload);
        assert_eq!(objects.get(&path).await.unwrap().bytes().await.unwrap(), "one two");

        let mut aborted = objects.put_multipart(&Path::from("a/c")).await.unwrap();
        aborted.put_part("x".into()).await.unwrap();
        aborted.abort().await.unwrap();
        let mut gap = objects.put_multipart(&Path::from("a/d")).await.unwrap();
        drop(gap.put_part("never sent".into()));
        assert!(gap.complete().await.is_err(), "a part was never written");
        drop(gap);
        drop(objects.put_multipart(&Path::from("a/e")).await.unwrap());
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_an_interrupted_put_left_is_not_an_object_and_is_deleted_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let objects = LocalObjects::open(dir.path()).unwrap();
        objects.put(&Path::from("a/whole"), "whole".into()).await.unwrap();
        fs::write(dir.path().join("a/half#123"), "ha").unwrap();
        let listed: Vec<_> =
            objects.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
        assert_eq!(listed, ["a/whole"]);
        let objects = LocalObjects::open(dir.path()).unwrap();
        assert!(!dir.path().join("a/half#123").exists());
        assert!(objects.get(&Path::from("a/whole")).await.is_ok());
    }
}
