//! A statement's way to the server and back, in either language.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::format::SqlFormat;
use super::rows::{self, Row};
use super::{Done, table};
use crate::client::Client;
use crate::failure::Failure;
use crate::output;

/// What statements are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Dql { strict: bool },
    Sql,
}

impl Language {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Dql { .. } => "dql",
            Self::Sql => "sql",
        }
    }

    /// Whether a backslash in a string escapes what follows.
    pub(super) const fn escapes(self) -> bool {
        match self {
            Self::Dql { .. } => true,
            Self::Sql => false,
        }
    }
}

/// Where statements are sent, and what goes with each.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) client: Client,
    pub(super) language: Language,
    pub(super) parameters: Value,
}

/// The answer to DQL.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    items: Vec<Row>,
    query_type: String,
    #[serde(default)]
    mutated_document_ids: Vec<Value>,
    #[serde(default)]
    transaction_id: Value,
    #[serde(default)]
    warnings: Vec<Value>,
}

impl Server {
    /// Runs a statement and writes its rows, to `file` or standard output.
    ///
    /// # Errors
    /// What the server says, and what goes wrong on the way.
    pub(super) async fn run(&self, statement: &str, format: SqlFormat, file: Option<&Path>) -> Result<Done, Failure> {
        match self.language {
            Language::Dql { strict } => self.dql(statement, strict, format).await,
            Language::Sql if format == SqlFormat::Table => self.sql_table(statement, file).await,
            Language::Sql => self.sql_stream(statement, format, file).await,
        }
    }

    async fn dql(&self, statement: &str, strict: bool, format: SqlFormat) -> Result<Done, Failure> {
        let path = if strict { "api/v4/store/execute" } else { "api/v5/store/execute" };
        let body = json!({"statement": statement, "args": self.parameters});
        let answer = self.client.post(path, &body).await?;
        let answer: Answer = answer.json().await.map_err(|error| broken_off(&error))?;
        let written = match format {
            SqlFormat::Table => return self.shown(answer),
            SqlFormat::Json => serde_json::to_vec(&answer.items).map(|mut json| {
                json.push(b'\n');
                json
            }),
            SqlFormat::Csv => Ok(rows::csv(&answer.items).map_err(|error| Failure::new(error.to_string()))?),
            SqlFormat::Ndjson | SqlFormat::Arrow | SqlFormat::Parquet => lines(&answer.items),
        };
        output::raw(&written.map_err(|error| Failure::new(error.to_string()))?)?;
        Ok(done(answer))
    }

    fn shown(&self, answer: Answer) -> Result<Done, Failure> {
        let shown = answer.items.get(..table::MAX_ROWS).unwrap_or(&answer.items);
        output::raw(table::render(shown).as_bytes())?;
        if shown.len() < answer.items.len() {
            let (shown, all, language) = (shown.len(), answer.items.len(), self.language.name());
            output::note(&format!("the first {shown} of {all} rows; `bigpeer {language} --format ndjson` writes all"));
        }
        Ok(done(answer))
    }

    async fn sql(&self, query: &str, format: SqlFormat) -> Result<reqwest::Response, Failure> {
        let body = json!({"query": query, "params": self.parameters, "format": format.of_server()});
        self.client.post("sql", &body).await
    }

    /// All rows of a query for the shell itself.
    pub(super) async fn sql_rows(&self, query: &str) -> Result<Vec<Row>, Failure> {
        let body = json!({"query": query, "format": "json"});
        self.client.post("sql", &body).await?.json().await.map_err(|error| broken_off(&error))
    }

    /// Rows until the table is full; then the query is given up.
    async fn sql_table(&self, query: &str, file: Option<&Path>) -> Result<Done, Failure> {
        let mut body = self.sql(query, SqlFormat::Table).await?.bytes_stream();
        let (mut text, mut rows) = (Vec::new(), Vec::<Row>::new());
        let mut more = false;
        'all: while let Some(part) = body.next().await {
            text.extend_from_slice(&part.map_err(|error| broken_off(&error))?);
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            for line in text.drain(..whole).collect::<Vec<u8>>().split(|byte| *byte == b'\n') {
                if line.is_empty() {
                    continue;
                }
                if rows.len() >= table::MAX_ROWS {
                    more = true;
                    break 'all;
                }
                let row = serde_json::from_slice(line);
                rows.push(row.map_err(|error| Failure::new(format!("the server sent no row: {error}")))?);
            }
        }
        match file {
            Some(path) => std::fs::write(path, table::render(&rows)).map_err(|error| cannot_write(&error, path))?,
            None => output::raw(table::render(&rows).as_bytes())?,
        }
        if more {
            output::note(&format!("the first {} rows; `bigpeer sql --format ndjson` writes all", rows.len()));
        }
        Ok(Done { rows: Some(rows.len()), ..Done::default() })
    }

    async fn sql_stream(&self, query: &str, format: SqlFormat, file: Option<&Path>) -> Result<Done, Failure> {
        let mut body = self.sql(query, format).await?.bytes_stream();
        let mut file = match file {
            Some(path) => Some((File::create(path).map_err(|error| cannot_write(&error, path))?, path)),
            None => None,
        };
        while let Some(part) = body.next().await {
            let part = part.map_err(|error| broken_off(&error))?;
            match &mut file {
                Some((file, path)) => file.write_all(&part).map_err(|error| cannot_write(&error, path))?,
                None => output::raw(&part)?,
            }
        }
        if format == SqlFormat::Json && file.is_none() {
            output::raw(b"\n")?;
        }
        Ok(Done::default())
    }
}

fn lines(rows: &[Row]) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut out, row)?;
        out.push(b'\n');
    }
    Ok(out)
}

fn done(answer: Answer) -> Done {
    let mutation = answer.query_type == "mutation";
    let description = |warning: &Value| warning["description"].as_str().unwrap_or_default().to_owned();
    Done {
        rows: (!mutation || !answer.items.is_empty()).then_some(answer.items.len()),
        touched: mutation.then_some(answer.mutated_document_ids.len()),
        transaction: Some(answer.transaction_id.to_string()),
        warnings: answer.warnings.iter().map(description).collect(),
    }
}

fn broken_off(error: &reqwest::Error) -> Failure {
    Failure::new(format!("the answer broke off: {error}; the rows are incomplete"))
}

fn cannot_write(error: &std::io::Error, path: &Path) -> Failure {
    Failure::new(format!("cannot write {}: {error}", path.display()))
}
