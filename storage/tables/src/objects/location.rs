//! Where objects are: `s3://bucket/prefix` or a directory; and how to connect to it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use bigpeer_types::{Clock, IdGenerator, RandomIds, SystemClock};
use object_store::path::Path;
use thiserror::Error;

use super::{Objects, S3Settings, s3};
use crate::local::LocalObjects;

/// Where an installation's objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectsLocation {
    /// A directory of this machine's disk.
    Directory(PathBuf),
    /// A bucket of S3 or of something that speaks its protocol, and a prefix within it; the prefix may be empty.
    S3 {
        /// The bucket.
        bucket: String,
        /// What all objects' names begin with.
        prefix: Path,
    },
}

/// How object storage is used. The defaults suit a server.
#[derive(Clone, Debug)]
pub struct ObjectsSettings {
    /// Most requests under way at once. Others wait.
    pub max_requests: usize,
    /// Objects longer than this are uploaded to a remote store in parts of this size, in bytes; at least 5 MiB.
    pub part_bytes: u64,
    /// How S3 is reached.
    pub s3: S3Settings,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where chance comes from.
    pub ids: Arc<dyn IdGenerator>,
}

impl Default for ObjectsSettings {
    fn default() -> Self {
        Self {
            max_requests: 64,
            part_bytes: 16 << 20,
            s3: S3Settings::default(),
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
        }
    }
}

/// Why object storage cannot be used. Each says what to do.
#[derive(Debug, Error)]
pub enum ObjectsError {
    /// The location is not understood.
    #[error("'{0}' is no place for objects: use s3://BUCKET/PREFIX, file:///DIRECTORY, or a directory")]
    Location(String),
    /// The directory cannot be used.
    #[error("cannot open {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Settings that do not fit together.
    #[error("{0}")]
    Settings(String),
    /// The store does not answer, or not to these credentials.
    #[error("{location} cannot be used: {source}")]
    Unreachable {
        /// Which.
        location: String,
        /// Why.
        source: object_store::Error,
    },
    /// The store overwrites what it was told to create only if it does not exist.
    #[error(
        "{location} ignores conditional writes (If-None-Match: *): {found}. Two processes could overwrite each other's \
         manifests there and lose documents. Use a store that supports them"
    )]
    Unconditional {
        /// Which.
        location: String,
        /// What was seen.
        found: &'static str,
    },
}

impl FromStr for ObjectsLocation {
    type Err = ObjectsError;

    fn from_str(text: &str) -> Result<Self, ObjectsError> {
        let refuse = || ObjectsError::Location(text.to_owned());
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() || !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
                return Err(refuse());
            }
            let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|_| refuse())?;
            return Ok(Self::S3 { bucket: bucket.to_owned(), prefix });
        }
        match text.strip_prefix("file://") {
            Some(path) if path.starts_with('/') => Ok(Self::Directory(path.into())),
            None if !text.is_empty() && !text.contains("://") => Ok(Self::Directory(text.into())),
            Some(_) | None => Err(refuse()),
        }
    }
}

impl fmt::Display for ObjectsLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::S3 { bucket, prefix } if prefix.as_ref().is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

pub(super) async fn connect(location: &ObjectsLocation, settings: &ObjectsSettings) -> Result<Objects, ObjectsError> {
    match location {
        ObjectsLocation::Directory(path) => {
            let dir = path.clone();
            let opened = tokio::task::spawn_blocking(move || LocalObjects::open(&dir)).await;
            let opened = opened.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            let store = opened.map_err(|source| ObjectsError::Directory { path: path.clone(), source })?;
            Ok(Objects::new(Arc::new(store), false, settings))
        }
        ObjectsLocation::S3 { bucket, prefix } => {
            let (store, signer) = s3::connect(bucket, prefix, settings).await?;
            Ok(Objects { signer: Some(Arc::new(signer)), ..Objects::new(store, true, settings) })
        }
    }
}
