//! Where objects are kept: the flags for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bigpeer_tables::{CacheSettings, Objects, ObjectsLocation, ObjectsSettings, S3Encryption, S3Settings};
use clap::{Args, ValueEnum};

use crate::failure::Failure;

/// Flags about object storage.
#[derive(Args, Clone, Debug)]
pub(crate) struct ObjectsArgs {
    /// Where segments, manifests and attachments are kept: s3://BUCKET/PREFIX, or a directory
    /// [default: DATA_DIR/objects]
    #[arg(long, env = "BIGPEER_OBJECTS", value_name = "LOCATION")]
    objects: Option<String>,
    /// The S3 server, where it is not Amazon's
    #[arg(long, env = "BIGPEER_S3_ENDPOINT", value_name = "URL")]
    s3_endpoint: Option<String>,
    /// The S3 region; by default as in AWS_REGION or the AWS profile
    #[arg(long, env = "BIGPEER_S3_REGION", value_name = "REGION")]
    s3_region: Option<String>,
    /// Name the bucket in the server's name instead of the path
    #[arg(long, env = "BIGPEER_S3_VIRTUAL_HOSTED", value_parser = clap::builder::BoolishValueParser::new())]
    s3_virtual_hosted: bool,
    /// Allow plain HTTP to the S3 endpoint: everyone on the way can read what is sent
    #[arg(long, env = "BIGPEER_S3_ALLOW_HTTP", value_parser = clap::builder::BoolishValueParser::new())]
    s3_allow_http: bool,
    /// How S3 encrypts what it stores
    #[arg(long, env = "BIGPEER_S3_ENCRYPTION", value_enum, default_value_t = Encryption::Bucket)]
    s3_encryption: Encryption,
    /// The key for --s3-encryption kms; by default the account's
    #[arg(long, env = "BIGPEER_S3_KMS_KEY", value_name = "ID")]
    s3_kms_key: Option<String>,
    /// With --s3-encryption kms: one key for the bucket spares a request to the key service for each object
    #[arg(long, env = "BIGPEER_S3_BUCKET_KEY", value_parser = clap::builder::BoolishValueParser::new())]
    s3_bucket_key: bool,
    /// Longest time for one attempt of a request to S3, in seconds
    #[arg(long, env = "BIGPEER_S3_TIMEOUT_SECS", default_value_t = 30, value_name = "SECS")]
    s3_timeout_secs: u64,
    /// Most requests a second to S3, repetitions included; by default without limit
    #[arg(long, env = "BIGPEER_S3_REQUESTS_PER_SECOND", value_name = "N")]
    s3_requests_per_second: Option<u32>,
    /// Most requests to object storage under way at once
    #[arg(long, env = "BIGPEER_OBJECTS_MAX_REQUESTS", default_value_t = 64, value_name = "N")]
    objects_max_requests: usize,
    /// Where blocks of segments and attachments in S3 are cached; made if it does not exist [default: DATA_DIR/cache]
    #[arg(long, env = "BIGPEER_CACHE_DIR", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Largest cache of S3 on the disk, in MiB
    #[arg(long, env = "BIGPEER_CACHE_DISK_MIB", default_value_t = 8192, value_name = "MIB")]
    cache_disk_mib: u64,
    /// Largest cache of S3 in memory, in MiB
    #[arg(long, env = "BIGPEER_CACHE_MEMORY_MIB", default_value_t = 64, value_name = "MIB")]
    cache_memory_mib: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Encryption {
    /// As the bucket's settings say
    Bucket,
    /// With keys of S3 (AES-256)
    S3,
    /// With a key of the key management service
    Kms,
}

impl ObjectsArgs {
    /// Opens what the flags name; by default a directory in the data directory.
    pub(super) async fn open(&self, data_dir: &Path) -> Result<Objects, Failure> {
        let location = match &self.objects {
            Some(text) => {
                text.parse::<ObjectsLocation>().map_err(|error| Failure::new(format!("--objects: {error}")))?
            }
            None => ObjectsLocation::Directory(data_dir.join("objects")),
        };
        if let ObjectsLocation::Directory(path) = &location {
            private(path).await?;
        }
        let opened = Objects::open(&location, &self.settings()).await;
        let objects = opened.map_err(|error| Failure::new(error.to_string()))?;
        tracing::info!(%location, "objects are kept here");
        match location {
            ObjectsLocation::Directory(_) => Ok(objects),
            ObjectsLocation::S3 { .. } => self.cached(objects, data_dir).await,
        }
    }

    async fn cached(&self, objects: Objects, data_dir: &Path) -> Result<Objects, Failure> {
        let dir = self.cache_dir.clone().unwrap_or_else(|| data_dir.join("cache"));
        private(&dir).await?;
        let settings = CacheSettings {
            memory_bytes: self.cache_memory_mib.saturating_mul(1 << 20),
            dir: Some(dir.clone()),
            disk_bytes: self.cache_disk_mib.saturating_mul(1 << 20),
        };
        let failed = |error| Failure::new(format!("the cache cannot use {}: {error}", dir.display()));
        objects.with_cache(&settings).await.map_err(failed)
    }

    fn settings(&self) -> ObjectsSettings {
        let encryption = match self.s3_encryption {
            Encryption::Bucket => S3Encryption::Bucket,
            Encryption::S3 => S3Encryption::S3,
            Encryption::Kms => S3Encryption::Kms { key: self.s3_kms_key.clone(), bucket_key: self.s3_bucket_key },
        };
        let s3 = S3Settings {
            endpoint: self.s3_endpoint.clone(),
            region: self.s3_region.clone(),
            virtual_hosted: self.s3_virtual_hosted,
            allow_http: self.s3_allow_http,
            encryption,
            request_timeout: Duration::from_secs(self.s3_timeout_secs.max(1)),
            requests_per_second: self.s3_requests_per_second,
            ..S3Settings::default()
        };
        ObjectsSettings { max_requests: self.objects_max_requests, s3, ..ObjectsSettings::default() }
    }
}

/// Makes a directory that others cannot read.
async fn private(path: &Path) -> Result<(), Failure> {
    let path = path.to_owned();
    let made = tokio::task::spawn_blocking(move || super::private_dir(&path)).await;
    Ok(made.map_err(|error| Failure::new(error.to_string()))??)
}
