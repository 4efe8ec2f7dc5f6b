//! Rows of files: each format is examined once from end to end, so that a bad row is found before anything is sent, and
//! then read again as objects.

use std::fmt;
use std::path::{Path, PathBuf};

use bigpeer_crdt::Object;
use thiserror::Error;

use super::{csv_rows, ndjson_rows, parquet_rows};

/// Where a row stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The file.
    pub file: PathBuf,
    /// Line for text files, row for Parquet; counted from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}", self.file.display(), self.line)
    }
}

/// One row.
#[derive(Debug)]
pub(super) struct Row {
    pub place: Place,
    pub fields: Object,
}

/// Why a file or a row cannot be imported.
#[derive(Debug, Error)]
pub(super) enum RowError {
    /// The file cannot be read at all.
    #[error("cannot read {}: {cause}", file.display())]
    File { file: PathBuf, cause: String },
    /// One row is malformed. `text` is the row as it stands, as far as it is text.
    #[error("{place}: {problem}")]
    Row { place: Place, problem: String, text: String },
}

/// How to read files.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// Texts that stand for an absent value in CSV, besides the empty one.
    pub nulls: Vec<String>,
    /// The format, when the files' names don't tell.
    pub format: Option<Format>,
}

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
}

/// A file that was examined: what it takes to read it again.
#[derive(Debug)]
pub(super) struct Source {
    file: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Csv(csv_rows::Columns),
    Ndjson,
    Parquet,
}

/// What examining found.
#[derive(Debug)]
pub(super) struct Examined {
    pub source: Source,
    /// Good rows.
    pub rows: u64,
    /// Malformed rows, in order.
    pub bad: Vec<RowError>,
}

fn format_of(file: &Path, reading: &Reading) -> Result<Format, RowError> {
    let by_name = || match file.extension().and_then(|ending| ending.to_str())?.to_ascii_lowercase().as_str() {
        "csv" => Some(Format::Csv),
        "ndjson" | "jsonl" | "json" => Some(Format::Ndjson),
        "parquet" => Some(Format::Parquet),
        _ => None,
    };
    reading.format.or_else(by_name).ok_or_else(|| RowError::File {
        file: file.to_owned(),
        cause: "its name does not tell its format; add --format csv, ndjson or parquet".to_owned(),
    })
}

/// Reads `file` from end to end without sending anything.
pub(super) fn examine(file: &Path, reading: &Reading) -> Result<Examined, RowError> {
    let (kind, rows, bad) = match format_of(file, reading)? {
        Format::Csv => {
            let (columns, rows, bad) = csv_rows::examine(file, reading)?;
            (Kind::Csv(columns), rows, bad)
        }
        Format::Ndjson => {
            let (rows, bad) = ndjson_rows::examine(file)?;
            (Kind::Ndjson, rows, bad)
        }
        Format::Parquet => (Kind::Parquet, parquet_rows::examine(file)?, Vec::new()),
    };
    Ok(Examined { source: Source { file: file.to_owned(), kind }, rows, bad })
}

impl Source {
    /// The rows, in file order; a malformed one is an error in its place, and what follows it is read on.
    pub(super) fn rows(&self) -> Result<Box<dyn Iterator<Item = Result<Row, RowError>> + '_>, RowError> {
        Ok(match &self.kind {
            Kind::Csv(columns) => Box::new(csv_rows::rows(&self.file, columns)?),
            Kind::Ndjson => Box::new(ndjson_rows::rows(&self.file)?),
            Kind::Parquet => Box::new(parquet_rows::rows(&self.file)?),
        })
    }
}

/// A file error from whatever went wrong.
pub(super) fn file_error(file: &Path, cause: impl fmt::Display) -> RowError {
    RowError::File { file: file.to_owned(), cause: cause.to_string() }
}
