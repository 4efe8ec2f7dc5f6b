//! `bigpeer dql` and `bigpeer sql`: one statement over HTTP, a script of them, or a shell; rows on standard output.

mod complete;
mod format;
mod interactive;
mod rows;
mod server;
mod split;
mod table;

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::client::ClientArgs;
use crate::failure::Failure;
use crate::output;
use format::{DqlFormat, SqlFormat};
use server::{Language, Server};

/// Largest script that is read from standard input, in bytes.
const MAX_SCRIPT_BYTES: u64 = 64 << 20;

/// Flags of `bigpeer dql`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer dql                                             a shell, with history and completion
  bigpeer dql \"SELECT * FROM cars WHERE color = :color LIMIT 10\" --args '{\"color\": \"blue\"}'
  bigpeer dql \"INSERT INTO cars DOCUMENTS ({'_id': 1, 'color': 'blue'})\"
  bigpeer dql < script.dql                                statements, each ended by ';'; the first that fails ends it
Every statement is a transaction of its own.")]
pub(crate) struct DqlArgs {
    /// The statement; without it a shell, or the statements on standard input
    statement: Option<String>,
    /// The statement's :parameters, as a JSON object
    #[arg(long, value_name = "JSON")]
    args: Option<String>,
    /// Strict mode, as of /api/v4: objects are values, and maps and counters have to be declared
    #[arg(long)]
    strict: bool,
    /// How rows are written [default: table on a terminal, else ndjson]
    #[arg(long, value_enum)]
    format: Option<DqlFormat>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Flags of `bigpeer sql`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer sql                                             a shell, with history and completion
  bigpeer sql 'SELECT carrier, count(*) AS flights FROM flights GROUP BY carrier'
  bigpeer sql 'SELECT * FROM flights WHERE carrier = $1' --params '[\"UA\"]' --format csv
  bigpeer sql 'SELECT * FROM flights' --format parquet --output flights.parquet
  bigpeer sql < script.sql                                queries, each ended by ';'; the first that fails ends it")]
pub(crate) struct SqlArgs {
    /// The query; collections are tables. Without it a shell, or the queries on standard input
    query: Option<String>,
    /// Its parameters: a JSON array for $1, $2, …, or an object for :name
    #[arg(long, value_name = "JSON")]
    params: Option<String>,
    /// How rows are written [default: table on a terminal, else ndjson]
    #[arg(long, value_enum)]
    format: Option<SqlFormat>,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
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

/// `bigpeer dql`.
pub(crate) async fn dql(args: DqlArgs) -> Result<(), Failure> {
    let parameters = arguments(args.args.as_deref())?;
    let format = args.format.map(DqlFormat::into_any);
    let server = Server { client: args.client.resolve()?, language: Language::Dql { strict: args.strict }, parameters };
    run(server, args.statement, format, None).await
}

/// `bigpeer sql`.
pub(crate) async fn sql(args: SqlArgs) -> Result<(), Failure> {
    let parameters = match args.params.as_deref().map(serde_json::from_str) {
        None => Value::Null,
        Some(Ok(params @ (Value::Array(_) | Value::Object(_)))) => params,
        Some(Ok(_)) => return Err(Failure::new("--params must be a JSON array or object")),
        Some(Err(error)) => return Err(Failure::new(format!("--params is not JSON: {error}"))),
    };
    let server = Server { client: args.client.resolve()?, language: Language::Sql, parameters };
    if args.output.is_some() && args.query.is_none() {
        return Err(Failure::new("--output takes the rows of one query: give it on the command line"));
    }
    run(server, args.query, args.format, args.output).await
}

async fn run(
    server: Server,
    statement: Option<String>,
    format: Option<SqlFormat>,
    file: Option<PathBuf>,
) -> Result<(), Failure> {
    let terminal = std::io::stdout().is_terminal() && file.is_none();
    let default = if terminal { SqlFormat::Table } else { SqlFormat::Ndjson };
    let format = format.unwrap_or(default);
    if let Some(statement) = statement {
        return server.run(&statement, format, file.as_deref()).await.map(|done| done.note());
    }
    if std::io::stdin().is_terminal() {
        return interactive::run(server, format).await;
    }
    let mut script = String::new();
    let read = std::io::stdin().lock().take(MAX_SCRIPT_BYTES).read_to_string(&mut script);
    read.map_err(|error| Failure::new(format!("cannot read statements from standard input: {error}")))?;
    for statement in split::statements(&script, server.language.escapes()) {
        server.run(statement, format, None).await?.note();
    }
    Ok(())
}

/// What a statement came to, apart from its rows.
#[derive(Debug, Default)]
pub(crate) struct Done {
    rows: Option<usize>,
    touched: Option<usize>,
    transaction: Option<String>,
    warnings: Vec<String>,
}

impl Done {
    /// Says on standard error what rows do not.
    fn note(&self) {
        for warning in &self.warnings {
            output::note(&format!("warning: {warning}"));
        }
        if let (Some(touched), Some(transaction)) = (self.touched, &self.transaction) {
            output::note(&format!("{touched} documents, transaction {transaction}"));
        }
    }
}
