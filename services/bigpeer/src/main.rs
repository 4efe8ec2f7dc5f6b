//! `bigpeer`: the one binary. Parses, builds, runs; everything else is in the crates that it composes.

#![allow(clippy::wildcard_enum_match_arm, reason = "types of Arrow and CSV have dozens of variants, and grow")]

mod backup;
mod client;
mod dev_cert;
mod doctor;
mod export;
mod failure;
mod feed;
mod import;
mod output;
mod peer;
mod serve;
mod shell;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use client::ClientArgs;
use failure::Failure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The trusted cloud peer of an offline-first fleet
#[derive(Debug, Parser)]
#[command(
    name = "bigpeer",
    version,
    after_help = "Start a server with `bigpeer serve`; it prints what to try. Then, in another terminal and the same directory:
  bigpeer import --collection flights --id id flights.csv
  bigpeer dql 'SELECT * FROM flights LIMIT 3'
  bigpeer sql 'SELECT carrier, count(*) FROM flights GROUP BY carrier'
  bigpeer peer --store ./phone subscribe \"SELECT * FROM flights WHERE carrier = 'UA'\""
)]
struct Cli {
    /// TOML file with flags: a table for each command, keys are the long flags without their dashes
    #[arg(long, global = true, env = "BIGPEER_CONFIG", value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server: every role in one process, data on the local disk
    Serve(Box<serve::ServeArgs>),
    /// Import files into a collection, each row exactly once, also when interrupted and started again
    Import(ImportCommand),
    /// Write a collection, or what a SQL query answers, to a file or a bucket
    Export(export::ExportArgs),
    /// Look whether everything of an app is there, and what was written
    Doctor(doctor::DoctorArgs),
    /// Keep an app's state under a name, and bring it back
    Backup(backup::BackupArgs),
    /// Make another app of one, as it is or as it was
    App(backup::AppArgs),
    /// Work as a Small Peer: a local store that works offline and syncs
    Peer(peer::PeerArgs),
    /// DQL on the server: one statement, a script, or a shell
    Dql(shell::DqlArgs),
    /// SQL on the server: one query, a script, or a shell
    Sql(shell::SqlArgs),
    /// Make an operator's first admin token, or another when all are lost
    AdminToken(serve::admin_token::AdminTokenArgs),
    /// Make a certificate for local use
    DevCert(dev_cert::DevCertArgs),
    /// Change feeds: follow what changes, and send it to webhooks and Kafka
    Feed(feed::FeedArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bigpeer import --collection flights --id id flights.csv
  bigpeer import --collection flights --id carrier,flight,date --null NA 2012.csv 2013.csv
  bigpeer import --collection events events.ndjson      ids follow from the file's content
Interrupted, the same command goes on where it stopped. A malformed row stops it before
anything is sent, unless --skip-bad-rows FILE sets such rows aside.")]
struct ImportCommand {
    #[command(flatten)]
    import: import::ImportArgs,
    #[command(flatten)]
    client: ClientArgs,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let parsed = bigpeer_chassis::parse_with_file(Cli::command(), &arguments)
        .and_then(|matches| Ok(Cli::from_arg_matches(&matches)?));
    let cli = match parsed {
        Ok(cli) => cli,
        // Help and version are answers, not failures; clap knows where each goes, and its exit code.
        Err(bigpeer_chassis::SettingsError::Command(error)) => error.exit(),
        Err(error) => return fail(&Failure { message: error.to_string(), code: 2 }),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::new(format!("cannot start: {error}"))),
    };
    let result = runtime.block_on(run(cli.command));
    // What still runs in the background (a dead log's retries, say) must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(*args).await,
        Command::Import(ImportCommand { import, client }) => import::run(import, client).await,
        Command::Export(args) => export::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Backup(args) => backup::run(args).await,
        Command::App(args) => backup::app(args).await,
        Command::Peer(args) => peer::run(args).await,
        Command::Dql(args) => shell::dql(args).await,
        Command::Sql(args) => shell::sql(args).await,
        Command::AdminToken(args) => serve::admin_token::run(args).await,
        Command::DevCert(args) => dev_cert::run(&args),
        Command::Feed(args) => feed::run(args).await,
    }
}

fn fail(failure: &Failure) -> ExitCode {
    output::note(&format!("error: {failure}"));
    ExitCode::from(failure.code)
}
