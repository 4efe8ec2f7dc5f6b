//! `bigpeer import`: files become documents, each exactly once, whatever is killed meanwhile.
//!
//! The files are examined first, so that a bad row is found before anything is sent. Then rows become transactions of
//! one site, in an order that follows from the files alone; transaction n has the sequence number n. After any kill the
//! server's log says which number it holds for the site, and the import goes on behind it.

mod batches;
mod csv_rows;
mod ndjson_rows;
mod parquet_rows;
mod progress;
mod rows;
mod state;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bigpeer_peer::{ConnectSettings, PeerError, Uploader, UploaderState};
use bigpeer_types::{CollectionName, Hlc, HlcClock, SiteId, SystemClock};
use bytes::Bytes;
use clap::Args;
use tokio::sync::mpsc;

use crate::client::{Client, ClientArgs};
use crate::failure::Failure;
use batches::{Batch, Ids};
use progress::Progress;
pub(crate) use rows::Format;
use rows::{Examined, Reading, RowError, Source};
use state::{Identity, State};

/// Transactions that are encoded ahead of what is sent.
const ENCODED_AHEAD: usize = 16;
/// Bad rows that are shown.
const SHOWN_BAD_ROWS: usize = 5;

/// What to import, and how.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The collection that the documents go to
    #[arg(long, value_name = "NAME")]
    collection: CollectionName,
    /// The field that is the document's id; several make an object. Without it ids are generated from the file's content
    #[arg(long, value_name = "FIELD,…", value_delimiter = ',')]
    id: Vec<String>,
    /// A text that stands for an absent value in CSV, besides the empty one; may be repeated
    #[arg(long = "null", value_name = "TEXT")]
    nulls: Vec<String>,
    /// The files' format, where their names (.csv, .ndjson, .jsonl, .parquet) don't tell
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Import the good rows and write the malformed ones to this file
    #[arg(long, value_name = "FILE")]
    skip_bad_rows: Option<PathBuf>,
    /// Where the import remembers how far it is; by default a file in the user's state folder for each import
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// CSV with a header line, NDJSON, or Parquet
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// A transaction, encoded; `rows` counts the rows up to its end.
struct Encoded {
    seq: u64,
    rows: u64,
    bytes: Bytes,
}

/// Runs the import to its end.
///
/// # Errors
/// A message for the user: what is wrong, where, and what to do.
pub(crate) async fn run(args: ImportArgs, client: ClientArgs) -> Result<(), Failure> {
    let client = client.resolve()?;
    Ok(import(args, client).await?)
}

async fn import(args: ImportArgs, client: Client) -> Result<(), String> {
    let reading = Reading { nulls: args.nulls.clone(), format: args.format };
    let (files, identity) = {
        let options = options_text(&args, &client);
        let (paths, reading) = (args.files.clone(), reading.clone());
        let work = move || prepare(&paths, &reading, &options);
        tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())??
    };
    report_bad_rows(&files, args.skip_bad_rows.as_deref())?;
    let total: u64 = files.iter().map(|file| file.examined.rows).sum();
    let state_path = args.state.clone().unwrap_or_else(|| state::default_folder().join(identity.file_name()));

    let (uploader, site) = connect(&client, &state_path).await?;
    let durable = uploader.last_seq();
    let mut progress = Progress::new(total);
    let (sender, receiver) = mpsc::channel(ENCODED_AHEAD);
    let encoder = {
        let (id, collection) = (args.id.clone(), args.collection.clone());
        move || encode(files, &id, &collection, site, durable, &sender)
    };
    let encoding = tokio::task::spawn_blocking(encoder);
    let sent = send(&uploader, receiver, &mut progress).await;
    let encoded = encoding.await.map_err(|error| error.to_string())?;
    let rows = match (sent, encoded) {
        (Err(error), _) | (Ok(_), Err(error)) => return Err(error),
        (Ok(_), Ok(rows)) => rows,
    };
    progress.finish(rows);
    let lsn = uploader.acknowledged().lsn;
    uploader.close().await;
    // Whoever asks next is to find them.
    match client.sees(lsn.version, &args.collection).await {
        Ok(true) => {}
        Ok(false) => progress.print("they are durable, and the server does not show all of them yet"),
        Err(error) => {
            progress.print(&format!("they are durable; whether they can be seen is unknown: {}", error.message))
        }
    }
    Ok(())
}

/// What besides the files' content makes an import this one.
fn options_text(args: &ImportArgs, client: &Client) -> Vec<String> {
    let mut texts = vec![client.url.clone(), client.app.to_string(), args.collection.to_string()];
    texts.push(args.id.join("\u{0}"));
    texts.push(args.nulls.join("\u{0}"));
    texts.push(format!("{:?} {}", args.format, args.skip_bad_rows.is_some()));
    texts
}

/// A file that was examined.
struct Prepared {
    examined: Examined,
    content: u128,
}

fn prepare(paths: &[PathBuf], reading: &Reading, options: &[String]) -> Result<(Vec<Prepared>, Identity), String> {
    let texts: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut identity = Identity::new(&texts);
    let mut files = Vec::new();
    for path in paths {
        let content = identity.file(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let examined = rows::examine(path, reading).map_err(|error| error.to_string())?;
        files.push(Prepared { examined, content });
    }
    Ok((files, identity))
}

/// Stops at malformed rows, or sets them aside where that was asked for.
#[allow(clippy::print_stderr, reason = "a command's messages to its user")]
fn report_bad_rows(files: &[Prepared], aside: Option<&Path>) -> Result<(), String> {
    let bad: Vec<&RowError> = files.iter().flat_map(|file| &file.examined.bad).collect();
    let Some(aside) = aside else {
        if bad.is_empty() {
            return Ok(());
        }
        let shown: Vec<String> = bad.iter().take(SHOWN_BAD_ROWS).map(|error| format!("  {error}")).collect();
        let more = bad.len().saturating_sub(SHOWN_BAD_ROWS);
        let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
        return Err(format!(
            "{} malformed row(s), nothing was sent:\n{}{more}\nRepair them, or set them aside with --skip-bad-rows FILE.",
            bad.len(),
            shown.join("\n")
        ));
    };
    let write = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(File::create(aside)?);
        for error in &bad {
            if let RowError::Row { text, .. } = error {
                writeln!(file, "{text}")?;
            }
        }
        file.flush()
    };
    write().map_err(|error| format!("cannot write the malformed rows to {}: {error}", aside.display()))?;
    if !bad.is_empty() {
        eprintln!("{} malformed row(s) set aside in {}", bad.len(), aside.display());
    }
    Ok(())
}

/// Connects as the site of the import's state, or as a new one. A server that does not know the site any more (its data
/// was removed) gets the import anew.
async fn connect(client: &Client, state_path: &Path) -> Result<(Uploader, SiteId), String> {
    let state = State::load(state_path)?;
    let mut settings = ConnectSettings::new(client.url.clone(), client.app.clone(), client.api_key.as_str());
    settings.device = concat!("bigpeer import ", env!("CARGO_PKG_VERSION")).to_owned();
    settings.network = Arc::new(client.network.clone());
    let known = state.map(|state| UploaderState { site: state.site, token: state.token.into() });
    let uploader = match Uploader::connect(settings.clone(), known.clone()).await {
        Err(PeerError::Refused(_)) if known.is_some() => Uploader::connect(settings, None).await,
        other => other,
    };
    let uploader = uploader.map_err(|error| error.to_string())?;
    let UploaderState { site, token } = uploader.state();
    State::new(site, token.reveal().to_owned()).save(state_path)?;
    Ok((uploader, site))
}

/// Reads all files and encodes every transaction behind `durable`; answers how many rows there are. Transactions that
/// are durable already are counted, not encoded.
fn encode(
    files: Vec<Prepared>,
    id: &[String],
    collection: &CollectionName,
    site: SiteId,
    durable: u64,
    sender: &mpsc::Sender<Encoded>,
) -> Result<u64, String> {
    let mut clock = HlcClock::new(site, Hlc::ZERO, Arc::new(SystemClock));
    let (mut seq, mut rows) = (1, 0);
    let mut batch = Batch::default();
    let mut close = |batch: &mut Batch, rows: &mut u64| -> Result<bool, String> {
        let full = std::mem::take(batch);
        *rows += full.len() as u64;
        let bytes = if seq > durable { full.encode(collection, &mut clock)? } else { Bytes::new() };
        // A receiver that is gone has an error of its own to tell.
        let goes_on = sender.blocking_send(Encoded { seq, rows: *rows, bytes }).is_ok();
        seq += 1;
        Ok(goes_on)
    };
    for file in files {
        let Prepared { examined: Examined { source, .. }, content } = file;
        let ids = if id.is_empty() { Ids::Generated { content } } else { Ids::Fields(id.to_vec()) };
        if !add_rows(&source, &ids, &mut batch, &mut |batch| close(batch, &mut rows))? {
            return Ok(rows);
        }
    }
    if batch.len() > 0 {
        close(&mut batch, &mut rows)?;
    }
    Ok(rows)
}

/// Adds a file's rows; false when nobody wants more.
fn add_rows(
    source: &Source,
    ids: &Ids,
    batch: &mut Batch,
    close: &mut impl FnMut(&mut Batch) -> Result<bool, String>,
) -> Result<bool, String> {
    for (number, row) in (1..).zip(source.rows().map_err(|error| error.to_string())?) {
        match row {
            Ok(row) => batch.add(row, number, ids).map_err(|error| format!("{error}; rows before it were sent"))?,
            // Set aside when the file was examined.
            Err(RowError::Row { .. }) => continue,
            Err(error @ RowError::File { .. }) => return Err(error.to_string()),
        }
        if batch.is_full() && !close(batch)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Pushes what is encoded and follows the acknowledgements to the end; answers the rows that are durable.
async fn send(
    uploader: &Uploader,
    mut receiver: mpsc::Receiver<Encoded>,
    progress: &mut Progress,
) -> Result<u64, String> {
    let durable = uploader.last_seq();
    let (mut rows, mut resumed) = (0, false);
    // Ends of pushed transactions that are not acknowledged yet.
    let mut pending = std::collections::VecDeque::new();
    while let Some(Encoded { seq, rows: end, bytes }) = receiver.recv().await {
        if seq <= durable {
            rows = end;
            continue;
        }
        if !resumed {
            resumed = true;
            progress.resumed(rows);
        }
        uploader.push(seq, bytes).await.map_err(|error| error.to_string())?;
        pending.push_back((seq, end));
        let acknowledged = uploader.acknowledged().seq;
        while let Some((_, end)) = pending.pop_front_if(|(seq, _)| *seq <= acknowledged) {
            rows = end;
            progress.acknowledged(rows);
        }
    }
    if !resumed {
        progress.resumed(rows);
    }
    for (seq, end) in pending {
        uploader.wait_acknowledged(seq).await.map_err(|error| error.to_string())?;
        rows = end;
        progress.acknowledged(rows);
    }
    Ok(rows)
}
