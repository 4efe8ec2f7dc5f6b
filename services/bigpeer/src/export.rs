//! `bigpeer export`: a collection, or what a query answers, as Parquet, CSV or NDJSON, to a file or a bucket.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use bigpeer_tables::{Objects, ObjectsLocation, ObjectsSettings, S3Settings};
use bigpeer_types::CollectionName;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use object_store::path::Path;
use object_store::{ObjectStore, WriteMultipart};
use serde_json::json;
use tokio::time::Instant;

use crate::client::{Client, ClientArgs};
use crate::failure::Failure;
use crate::output;

/// Parts of an upload that are under way at once.
const PARTS_AT_ONCE: usize = 4;
/// Bytes of one part.
const PART_BYTES: usize = 8 << 20;
/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Flags of `bigpeer export`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer export --collection flights flights.parquet
  bigpeer export --query 'SELECT carrier, count(*) AS n FROM flights GROUP BY carrier' carriers.csv
  bigpeer export --collection flights s3://my-bucket/exports/flights.ndjson
The format follows from the name. The file appears when it is complete. Credentials for S3 are found as by `serve`.")]
pub(crate) struct ExportArgs {
    /// All documents of this collection
    #[arg(long, value_name = "NAME", conflicts_with = "query", required_unless_present = "query")]
    collection: Option<CollectionName>,
    /// What this SQL query answers
    #[arg(long, value_name = "SQL")]
    query: Option<String>,
    /// The format, where the name (.parquet, .csv, .ndjson) doesn't tell
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Where to: a file, or s3://BUCKET/KEY
    #[arg(value_name = "TO")]
    to: String,
    /// The S3 server, where it is not Amazon's
    #[arg(long, env = "BIGPEER_S3_ENDPOINT", value_name = "URL")]
    s3_endpoint: Option<String>,
    /// The S3 region; by default as in AWS_REGION or the AWS profile
    #[arg(long, env = "BIGPEER_S3_REGION", value_name = "REGION")]
    s3_region: Option<String>,
    /// Allow plain HTTP to the S3 endpoint: everyone on the way can read what is sent
    #[arg(long, env = "BIGPEER_S3_ALLOW_HTTP", value_parser = clap::builder::BoolishValueParser::new())]
    s3_allow_http: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Parquet,
    Csv,
    Ndjson,
}

impl Format {
    const fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    /// By how a name ends.
    fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "parquet" => Some(Self::Parquet),
            "csv" => Some(Self::Csv),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

/// `bigpeer export`.
pub(crate) async fn run(args: ExportArgs) -> Result<(), Failure> {
    let client = args.client.resolve()?;
    let unknown = || {
        Failure::new(format!(
            "'{}' does not tell the format: end it with .parquet, .csv or .ndjson, or give --format",
            args.to
        ))
    };
    let format = args.format.or_else(|| Format::of(&args.to)).ok_or_else(unknown)?;
    let query = match (&args.collection, &args.query) {
        (Some(collection), _) => format!("SELECT * FROM {}", quoted(collection)),
        (None, Some(query)) => query.clone(),
        (None, None) => return Err(Failure::new("give --collection or --query")),
    };
    let rows = match &args.collection {
        Some(collection) if format == Format::Ndjson => count(&client, collection).await?,
        Some(_) | None => None,
    };
    let answer = client.post("sql", &json!({"query": query, "format": format.name()})).await?;
    // Only now: a query that is refused leaves nothing behind.
    let target = Target::open(&args).await?;
    let mut progress = Progress::new(rows);
    write(answer, target, &mut progress).await?;
    progress.finish(&args.to);
    Ok(())
}

fn quoted(collection: &CollectionName) -> String {
    format!("\"{}\"", collection.as_str().replace('"', "\"\""))
}

/// How many documents there are, for the bar.
async fn count(client: &Client, collection: &CollectionName) -> Result<Option<u64>, Failure> {
    let query = format!("SELECT count(*) AS n FROM {}", quoted(collection));
    let answer = client.post("sql", &json!({"query": query, "format": "json"})).await?;
    let rows: serde_json::Value =
        answer.json().await.map_err(|error| Failure::new(format!("the answer broke off: {error}")))?;
    Ok(rows.pointer("/0/n").and_then(serde_json::Value::as_u64))
}

async fn write(answer: reqwest::Response, mut target: Target, progress: &mut Progress) -> Result<(), Failure> {
    let mut body = answer.bytes_stream();
    while let Some(part) = body.next().await {
        match part {
            Ok(part) => {
                progress.add(&part);
                if let Err(failure) = target.write(part).await {
                    target.abort().await;
                    return Err(failure);
                }
            }
            Err(error) => {
                target.abort().await;
                return Err(Failure::new(format!("the answer broke off: {error}; nothing was exported")));
            }
        }
    }
    target.finish().await
}

/// Where the export goes.
enum Target {
    /// A file beside the one that it becomes.
    File {
        file: std::fs::File,
        part: PathBuf,
        path: PathBuf,
    },
    Bucket {
        upload: WriteMultipart,
        to: String,
    },
}

impl Target {
    async fn open(args: &ExportArgs) -> Result<Self, Failure> {
        let Some(rest) = args.to.strip_prefix("s3://") else {
            let path = PathBuf::from(&args.to);
            let mut part = path.clone().into_os_string();
            part.push(".part");
            let part = PathBuf::from(part);
            let file = std::fs::File::create(&part)
                .map_err(|error| Failure::new(format!("cannot write {}: {error}", part.display())))?;
            return Ok(Self::File { file, part, path });
        };
        let Some((bucket, key)) = rest.split_once('/').filter(|(_, key)| !key.is_empty()) else {
            return Err(Failure::new(format!("'{}' names no object: use s3://BUCKET/KEY", args.to)));
        };
        let location: ObjectsLocation =
            format!("s3://{bucket}").parse().map_err(|error| Failure::new(format!("{error}")))?;
        let s3 = S3Settings {
            endpoint: args.s3_endpoint.clone(),
            region: args.s3_region.clone(),
            allow_http: args.s3_allow_http,
            ..S3Settings::default()
        };
        let settings = ObjectsSettings { s3, ..ObjectsSettings::default() };
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("cannot write {}: {error}", args.to));
        let objects = Objects::open_for_export(&location, &settings).await.map_err(|error| failed(&error))?;
        let key = Path::parse(key).map_err(|error| failed(&error))?;
        let upload = objects.put_multipart_opts(&key, Default::default()).await.map_err(|error| failed(&error))?;
        let upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        Ok(Self::Bucket { upload, to: args.to.clone() })
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        match self {
            Self::File { file, part, .. } => file
                .write_all(&bytes)
                .map_err(|error| Failure::new(format!("cannot write {}: {error}", part.display()))),
            Self::Bucket { upload, to } => {
                let room = upload.wait_for_capacity(PARTS_AT_ONCE).await;
                room.map_err(|error| Failure::new(format!("cannot write {to}: {error}")))?;
                upload.put(bytes);
                Ok(())
            }
        }
    }

    async fn finish(self) -> Result<(), Failure> {
        match self {
            Self::File { file, part, path } => {
                let done = file.sync_all().and_then(|()| std::fs::rename(&part, &path));
                done.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
            }
            Self::Bucket { upload, to } => {
                let done = upload.finish().await;
                done.map(drop).map_err(|error| Failure::new(format!("cannot write {to}: {error}")))
            }
        }
    }

    /// Leaves nothing behind, as far as that can be done.
    async fn abort(self) {
        match self {
            Self::File { part, .. } => drop(std::fs::remove_file(part)),
            Self::Bucket { upload, .. } => drop(upload.abort().await),
        }
    }
}

/// How far it is: a bar of documents where their number is known, else what was written.
struct Progress {
    bar: ProgressBar,
    plain: bool,
    lines: bool,
    begun: Instant,
    last_line: Instant,
    bytes: u64,
    rows: u64,
}

impl Progress {
    fn new(rows: Option<u64>) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let target = if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(rows, target);
        let template = match rows {
            Some(_) => "{bar:32} {human_pos} of {human_len} documents, {per_sec}, {eta} left",
            None => "{spinner} {binary_bytes}, {binary_bytes_per_sec}",
        };
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        let now = Instant::now();
        Self { bar, plain, lines: rows.is_some(), begun: now, last_line: now, bytes: 0, rows: 0 }
    }

    fn add(&mut self, part: &[u8]) {
        self.bytes += part.len() as u64;
        if self.lines {
            self.rows += part.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        self.bar.set_position(if self.lines { self.rows } else { self.bytes });
        if self.plain && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            output::note(&self.shown());
        }
    }

    fn shown(&self) -> String {
        if self.lines {
            format!("{} documents, {} bytes", self.rows, self.bytes)
        } else {
            format!("{} bytes", self.bytes)
        }
    }

    fn finish(self, to: &str) {
        self.bar.finish_and_clear();
        output::note(&format!("{} to {to} in {:.1} s", self.shown(), self.begun.elapsed().as_secs_f64()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_follow_from_names() {
        assert_eq!(Format::of("a.b/x.PARQUET"), Some(Format::Parquet));
        assert_eq!(Format::of("s3://b/x.jsonl"), Some(Format::Ndjson));
        assert_eq!((Format::of("x.txt"), Format::of("x")), (None, None));
        assert_eq!(quoted(&CollectionName::new("a \"b\"").unwrap()), "\"a \"\"b\"\"\"");
    }
}
