//! `bigpeer peer attach` and `fetch`: files beside documents.

use std::path::{Path, PathBuf};

use bigpeer_peer::{Attachment, ConnectSettings, DocId, Fetch, Object, Params, Peer, PeerError, Value};
use bigpeer_types::CollectionName;
use clap::Args;

use crate::failure::Failure;
use crate::output;

/// Flags of `bigpeer peer attach`.
#[derive(Args, Debug)]
pub(super) struct AttachArgs {
    /// The file; the store gets a copy
    file: PathBuf,
    /// More to say about it, as a JSON object; its name is said anyway
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Put the token into a document of this collection
    #[arg(long, requires_all = ["document", "field"], value_name = "NAME")]
    collection: Option<String>,
    /// The document's _id, as JSON; what is no JSON is a string
    #[arg(long, requires = "collection", value_name = "ID")]
    document: Option<String>,
    /// The field that gets the token
    #[arg(long, requires = "collection", value_name = "NAME")]
    field: Option<String>,
}

/// Flags of `bigpeer peer fetch`.
#[derive(Args, Debug)]
pub(super) struct FetchArgs {
    /// The collection of the document
    #[arg(long, value_name = "NAME")]
    collection: String,
    /// The document's _id, as JSON; what is no JSON is a string
    #[arg(long, value_name = "ID")]
    document: String,
    /// The field that holds the attachment
    #[arg(long, value_name = "NAME")]
    field: String,
    /// Where to put it; standard output if left out
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// An `_id` on the command line.
fn id(text: &str) -> Result<Value, Failure> {
    let json = serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::String(text.to_owned()));
    Value::from_json(json).map_err(|error| Failure::new(format!("--document: {error}")))
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// What is said about the file: its name, and what the caller adds.
fn metadata(file: &Path, more: Option<&str>) -> Result<Object, Failure> {
    let mut metadata = super::params(more).map_err(|_| Failure::new("--metadata must be a JSON object"))?;
    if metadata.get("name").is_none()
        && let Some(name) = file.file_name()
    {
        metadata.insert("name", Value::from(name.to_string_lossy().as_ref()));
    }
    Ok(metadata)
}

pub(super) async fn attach(peer: &Peer, args: AttachArgs) -> Result<(), Failure> {
    let attachment = peer.attach(&args.file, metadata(&args.file, args.metadata.as_deref())?).await?;
    if let (Some(collection), Some(document), Some(field)) = (&args.collection, &args.document, &args.field) {
        let (collection, field) = (quoted(collection), quoted(field));
        let statement =
            format!("UPDATE COLLECTION {collection} ({field} ATTACHMENT) SET {field} = :token WHERE _id = :id");
        let params = Params::from_iter([("token", attachment.to_value()), ("id", id(document)?)]);
        let result = peer.execute(&statement, params).await?;
        let Some(seq) = result.seq else {
            return Err(Failure::new(format!("there is no document {document} here; insert it first, with the token")));
        };
        output::note(&format!("local transaction {seq}; `sync` sends it, and the file"));
    }
    output::line(&attachment.to_value().to_json().to_string())
}

pub(super) async fn fetch(
    peer: &Peer,
    args: FetchArgs,
    settings: impl FnOnce() -> Result<ConnectSettings, Failure> + Send,
) -> Result<(), Failure> {
    let (collection, key) = (name(&args.collection)?, id(&args.document)?);
    let statement = format!("SELECT * FROM {} WHERE _id = :id", quoted(&args.collection));
    let found = peer.execute(&statement, Params::from_iter([("id", key.clone())])).await?;
    let row = found.items.first().and_then(Value::as_object);
    let row = row.ok_or_else(|| Failure::new(format!("there is no document {} here; sync first", args.document)))?;
    let attachment = row.get(&args.field).and_then(Attachment::from_value);
    let attachment = attachment.ok_or_else(|| Failure::new(format!("the field {} is no attachment", args.field)))?;
    let key = DocId::from_value(&key).map_err(|error| Failure::new(format!("--document: {error}")))?;
    let path = match peer.attachment(&attachment).await? {
        Some(path) => path,
        None => {
            peer.connect(settings()?).await?;
            follow(peer.fetch_attachment(&collection, &key, &attachment)).await?
        }
    };
    hand_over(&path, args.output.as_deref()).await
}

fn name(text: &str) -> Result<CollectionName, Failure> {
    CollectionName::new(text).map_err(|error| Failure::new(format!("--collection: {error}")))
}

/// Waits for a fetch, and tells how far it is, a line for every tenth.
async fn follow(fetching: Fetch) -> Result<PathBuf, PeerError> {
    let mut progress = fetching.progress();
    let told = async {
        let mut tenths = 0;
        while progress.changed().await.is_ok() {
            let now = *progress.borrow_and_update();
            let reached = now.received.saturating_mul(10) / now.total.max(1);
            if reached > tenths {
                tenths = reached;
                output::note(&format!("{} of {} bytes", now.received, now.total));
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        path = fetching.finish() => path,
        () = told => Err(PeerError::Closed),
    }
}

/// The file, or its content on standard output.
async fn hand_over(path: &Path, to: Option<&Path>) -> Result<(), Failure> {
    let failed = |what: &Path, error: std::io::Error| Failure::new(format!("{}: {error}", what.display()));
    let (path, to) = (path.to_owned(), to.map(Path::to_owned));
    let copied = tokio::task::spawn_blocking(move || match to {
        Some(to) => std::fs::copy(&path, &to).map(drop).map_err(|error| failed(&to, error)),
        None => {
            let mut file = std::fs::File::open(&path).map_err(|error| failed(&path, error))?;
            let mut buffer = vec![0; 256 << 10];
            loop {
                let read = std::io::Read::read(&mut file, &mut buffer).map_err(|error| failed(&path, error))?;
                match buffer.get(..read) {
                    Some(bytes) if !bytes.is_empty() => output::raw(bytes)?,
                    Some(_) | None => return Ok(()),
                }
            }
        }
    });
    copied.await.map_err(|error| Failure::new(error.to_string()))?
}
