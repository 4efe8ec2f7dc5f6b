//! `bigpeer query` and `bigpeer sql`: one statement over HTTP, rows on standard output.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::client::ClientArgs;
use crate::failure::Failure;
use crate::output;

/// Flags of `bigpeer query`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer query \"SELECT * FROM cars WHERE color = :color LIMIT 10\" --args '{\"color\": \"blue\"}'
  bigpeer query \"INSERT INTO cars DOCUMENTS ({'_id': 1, 'color': 'blue'})\"
  bigpeer query \"UPDATE cars SET color = 'red' WHERE _id = 1\"")]
pub(crate) struct QueryArgs {
    /// The DQL statement
    statement: String,
    /// Its :parameters, as a JSON object
    #[arg(long, value_name = "JSON")]
    args: Option<String>,
    /// Strict mode, as of /api/v4: objects are values, and maps and counters have to be declared
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Flags of `bigpeer sql`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer sql 'SELECT carrier, count(*) AS flights FROM flights GROUP BY carrier'
  bigpeer sql 'SELECT * FROM flights' --format parquet --output flights.parquet")]
pub(crate) struct SqlArgs {
    /// The SQL query; collections are tables
    query: String,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Ndjson,
    Json,
    Csv,
    Arrow,
    Parquet,
}

impl Format {
    const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }
}

/// The JSON object of `--args`.
pub(crate) fn arguments(text: Option<&str>) -> Result<Value, Failure> {
    let Some(text) = text else { return Ok(json!({})) };
    match serde_json::from_str(text) {
        Ok(args @ Value::Object(_)) => Ok(args),
        Ok(_) => Err(Failure::new("--args must be a JSON object, such as '{\"color\": \"blue\"}'")),
        Err(error) => Err(Failure::new(format!("--args is not JSON: {error}"))),
    }
}

/// `bigpeer query`.
pub(crate) async fn query(args: QueryArgs) -> Result<(), Failure> {
    let client = args.client.resolve()?;
    let path = if args.strict { "api/v4/store/execute" } else { "api/v5/store/execute" };
    let body = json!({"statement": args.statement, "args": arguments(args.args.as_deref())?});
    let answer = client.post(path, &body).await?;
    let answer: Value = answer.json().await.map_err(|error| Failure::new(format!("the answer broke off: {error}")))?;
    let rows = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    output::raw(rows.iter().map(|row| format!("{row}\n")).collect::<String>().as_bytes())?;
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        output::note(&format!("warning: {}", warning["description"].as_str().unwrap_or_default()));
    }
    if answer["queryType"] == "mutation" {
        let touched = answer["mutatedDocumentIds"].as_array().map_or(0, Vec::len);
        output::note(&format!("{touched} documents, transaction {}", answer["transactionId"]));
    }
    Ok(())
}

/// `bigpeer sql`.
pub(crate) async fn sql(args: SqlArgs) -> Result<(), Failure> {
    let client = args.client.resolve()?;
    let answer = client.post("sql", &json!({"query": args.query, "format": args.format.name()})).await?;
    let cannot =
        |error: std::io::Error, path: &PathBuf| Failure::new(format!("cannot write {}: {error}", path.display()));
    let mut file = match &args.output {
        Some(path) => Some((std::fs::File::create(path).map_err(|error| cannot(error, path))?, path)),
        None => None,
    };
    let mut body = answer.bytes_stream();
    while let Some(part) = body.next().await {
        let part =
            part.map_err(|error| Failure::new(format!("the answer broke off: {error}; the rows are incomplete")))?;
        match &mut file {
            Some((file, path)) => std::io::Write::write_all(file, &part).map_err(|error| cannot(error, path))?,
            None => output::raw(&part)?,
        }
    }
    Ok(())
}
