//! How rows are written.

use clap::ValueEnum;

/// Formats of `bigpeer sql`, and of everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SqlFormat {
    /// For people: columns side by side, at most 1000 rows
    Table,
    /// One JSON object a line
    Ndjson,
    /// One JSON array
    Json,
    /// Comma-separated values with a header line
    Csv,
    /// Arrow's stream format
    Arrow,
    /// Apache Parquet
    Parquet,
}

/// Formats of `bigpeer dql`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DqlFormat {
    /// For people: columns side by side, at most 1000 rows
    Table,
    /// One JSON object a line
    Ndjson,
    /// One JSON array
    Json,
    /// Comma-separated values with a header line; arrays and objects as JSON
    Csv,
}

impl SqlFormat {
    /// What the server is asked for.
    pub(super) const fn of_server(self) -> &'static str {
        match self {
            Self::Table | Self::Ndjson => "ndjson",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }

    /// Whether it is text, that a terminal can show.
    pub(super) const fn is_text(self) -> bool {
        match self {
            Self::Table | Self::Ndjson | Self::Json | Self::Csv => true,
            Self::Arrow | Self::Parquet => false,
        }
    }
}

impl DqlFormat {
    pub(super) const fn into_any(self) -> SqlFormat {
        match self {
            Self::Table => SqlFormat::Table,
            Self::Ndjson => SqlFormat::Ndjson,
            Self::Json => SqlFormat::Json,
            Self::Csv => SqlFormat::Csv,
        }
    }
}
