//! `bigpeer peer`: a Small Peer on the command line. Its store is a directory; what needs no server works without one.

mod attachments;
mod watch;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use bigpeer_crdt::Value;
use bigpeer_peer::{
    ConnectSettings, Connection, Params, Peer, PeerError, PeerSettings, Rejection, Status, SubscriptionId, WriteStatus,
};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::client::ClientArgs;
use crate::failure::Failure;
use crate::output;
use crate::shell::arguments;
use attachments::{AttachArgs, FetchArgs};
use watch::WatchArgs;

/// Failed attempts to connect after which `sync` gives up.
const PATIENCE: u32 = 3;
/// Exit code when the server rejected local writes.
const REJECTED: u8 = 3;

/// Flags of `bigpeer peer`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer peer --store ./phone subscribe \"SELECT * FROM flights WHERE carrier = 'UA'\"
  bigpeer peer --store ./phone sync
  bigpeer peer --store ./phone query 'SELECT COUNT(*) AS n FROM flights'
  bigpeer peer --store ./phone query \"UPDATE flights SET gate = 'B7' WHERE _id = 1\"
  bigpeer peer --store ./phone sync            the update was made offline; this sends it
  bigpeer peer --store ./phone watch           stays connected
  bigpeer peer --store ./phone attach gate.jpg --collection flights --document 1 --field photo
  bigpeer peer --store ./phone fetch --collection flights --document 1 --field photo --output gate.jpg
Exit codes: 1 failed, 3 the server rejected local writes (they are undone here, and shown).")]
pub(crate) struct PeerArgs {
    /// Directory of the peer's store; made if it does not exist
    #[arg(long, env = "BIGPEER_STORE", value_name = "DIR")]
    store: PathBuf,
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Ask for every document that a query matches, now and as they change; takes effect at the next sync. Works offline
    Subscribe {
        /// SELECT * FROM collection [WHERE condition]
        query: String,
        /// Its :parameters, as a JSON object
        #[arg(long, value_name = "JSON")]
        args: Option<String>,
    },
    /// End a subscription; its documents stay. Works offline
    Unsubscribe {
        /// The number that `subscribe` and `status` print
        subscription: u64,
    },
    /// Run a DQL statement on the local store; rows are printed as JSON, one a line. Works offline
    #[command(alias = "execute")]
    Query {
        /// The statement
        statement: String,
        /// Its :parameters, as a JSON object
        #[arg(long, value_name = "JSON")]
        args: Option<String>,
    },
    /// Connect, push local writes, wait until all subscriptions are caught up, and end
    Sync,
    /// Stay connected, and tell what changes until interrupted
    Watch(WatchArgs),
    /// Put a file into the store, to be sent with the next sync, and print its token. Works offline
    Attach(AttachArgs),
    /// Get the attachment of a document
    Fetch(FetchArgs),
    /// Print what the server rejected, as JSON, one a line. Works offline
    Rejections {
        /// Take note of them: they are not printed again
        #[arg(long)]
        dismiss: bool,
    },
    /// Print where the store stands, as JSON. Works offline
    Status {
        /// What became of one local transaction, by its number
        #[arg(long, value_name = "SEQ")]
        write: Option<u64>,
    },
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        Self::new(error.to_string())
    }
}

/// Runs one action, and closes the store.
pub(crate) async fn run(args: PeerArgs) -> Result<(), Failure> {
    let peer = Peer::open(PeerSettings::new(&args.store)).await?;
    let result = act(&peer, args.action, &args.client).await;
    peer.close().await;
    result
}

async fn act(peer: &Peer, action: Action, client: &ClientArgs) -> Result<(), Failure> {
    match action {
        Action::Subscribe { query, args } => {
            let id = peer.subscribe(&query, params(args.as_deref())?).await?;
            output::line(&format!("subscription {id}; `sync` or `watch` fetches its documents"))
        }
        Action::Unsubscribe { subscription } => Ok(peer.unsubscribe(SubscriptionId::new(subscription)).await?),
        Action::Query { statement, args } => query(peer, &statement, params(args.as_deref())?, client).await,
        Action::Sync => sync(peer, settings(client)?).await,
        Action::Watch(args) => watch::watch(peer, settings(client)?, args).await,
        Action::Attach(args) => attachments::attach(peer, args).await,
        Action::Fetch(args) => attachments::fetch(peer, args, || settings(client)).await,
        Action::Rejections { dismiss } => rejections(peer, dismiss).await,
        Action::Status { write: None } => output::line(&status(&peer.status()).to_string()),
        Action::Status { write: Some(seq) } => output::line(&write_status(&peer.write_status(seq).await?).to_string()),
    }
}

fn settings(client: &ClientArgs) -> Result<ConnectSettings, Failure> {
    let client = client.resolve()?;
    let mut settings = ConnectSettings::new(client.url, client.app, client.api_key);
    settings.device = concat!("bigpeer ", env!("CARGO_PKG_VERSION")).to_owned();
    settings.network = Arc::new(client.network);
    Ok(settings)
}

fn params(text: Option<&str>) -> Result<Params, Failure> {
    let value = Value::from_json(arguments(text)?).map_err(|error| Failure::new(format!("--args: {error}")))?;
    let Value::Object(object) = value else {
        return Err(Failure::new("--args must be a JSON object of parameters"));
    };
    Ok(object)
}

async fn query(peer: &Peer, statement: &str, params: Params, client: &ClientArgs) -> Result<(), Failure> {
    let mut result = peer.execute(statement, params.clone()).await;
    if matches!(result, Err(PeerError::NoSite)) {
        // The first write of a new store: it needs the name that only the server gives.
        peer.login(&settings(client)?).await?;
        result = peer.execute(statement, params).await;
    }
    let result = result?;
    output::json_lines(&result.items)?;
    for warning in &result.warnings {
        output::note(&format!("warning: {warning}"));
    }
    if let Some(seq) = result.seq {
        output::note(&format!("{} documents, local transaction {seq}; `sync` sends it", result.mutated.len()));
    }
    Ok(())
}

async fn sync(peer: &Peer, settings: ConnectSettings) -> Result<(), Failure> {
    let before = peer.rejections().await?;
    peer.connect(settings).await?;
    let done = async {
        peer.wait_connected().await?;
        for subscription in peer.status().subscriptions.into_keys() {
            peer.wait_caught_up(subscription).await?;
        }
        peer.wait_pushed().await?;
        peer.wait_uploaded().await
    };
    unless_unreachable(peer, done).await?;
    let now = peer.status();
    peer.disconnect().await;
    let rejected = peer.rejections().await?.split_off(before.len());
    for rejection in &rejected {
        output::note(&told(rejection));
    }
    output::line(&format!(
        "in sync: {} subscriptions caught up, {} local transactions acknowledged",
        now.subscriptions.len(),
        now.acknowledged
    ))?;
    if rejected.is_empty() {
        return Ok(());
    }
    let message = format!("the server rejected {} local transactions; they are undone here", rejected.len());
    Err(Failure { message, code: REJECTED })
}

/// What `done` answers, unless the server can't be reached several times in a row.
async fn unless_unreachable<T>(peer: &Peer, done: impl Future<Output = Result<T, PeerError>>) -> Result<T, Failure> {
    let mut statuses = peer.watch_status();
    let unreachable = async {
        let found = statuses
            .wait_for(|now| matches!(&now.connection, Connection::Connecting { failures, .. } if *failures >= PATIENCE))
            .await;
        match found.map(|now| now.connection.clone()) {
            Ok(Connection::Connecting { last_error: Some(error), .. }) => error,
            Ok(_) | Err(_) => "the connection failed several times".to_owned(),
        }
    };
    tokio::select! {
        biased;
        result = done => Ok(result?),
        error = unreachable => Err(Failure::new(format!("the server cannot be reached: {error}; local writes are kept"))),
    }
}

/// A rejection as a person reads it.
fn told(rejection: &Rejection) -> String {
    let Rejection { seq, code, message, documents, .. } = rejection;
    let ids = documents.iter().take(5).map(|(collection, id)| format!("{collection}/{}", id.to_value().to_json()));
    let ids: Vec<String> = ids.collect();
    format!("transaction {seq} was rejected ({code}): {message}; undone: {}", ids.join(", "))
}

async fn rejections(peer: &Peer, dismiss: bool) -> Result<(), Failure> {
    for rejection in peer.rejections().await? {
        output::line(&rejection_json(&rejection).to_string())?;
        if dismiss {
            peer.dismiss_rejection(rejection.number).await?;
        }
    }
    Ok(())
}

fn rejection_json(rejection: &Rejection) -> serde_json::Value {
    let documents = rejection.documents.iter();
    let documents: Vec<_> =
        documents.map(|(collection, id)| json!({"collection": collection, "_id": id.to_value().to_json()})).collect();
    json!({
        "transaction": rejection.seq,
        "code": rejection.code,
        "message": rejection.message,
        "documents": documents,
    })
}

fn write_status(status: &WriteStatus) -> serde_json::Value {
    match status {
        WriteStatus::Unknown => json!({"write": "unknown"}),
        WriteStatus::Waiting => json!({"write": "waiting"}),
        WriteStatus::Durable { lsn } => json!({"write": "durable", "lsn": lsn.to_string()}),
        WriteStatus::Rejected(rejection) => json!({"write": "rejected", "rejection": rejection_json(rejection)}),
    }
}

fn status(now: &Status) -> serde_json::Value {
    let subscriptions: Vec<_> = now
        .subscriptions
        .iter()
        .map(|(id, subscription)| {
            json!({
                "subscription": id.get(),
                "query": subscription.query,
                "cursor": subscription.cursor.map(|lsn| lsn.to_string()),
            })
        })
        .collect();
    json!({
        "app": now.app,
        "site": now.site,
        "local_transactions": now.committed,
        "unpushed": now.unpushed,
        "acknowledged": now.acknowledged,
        "acknowledged_lsn": now.acknowledged_lsn.map(|lsn| lsn.to_string()),
        "attachments_to_send": now.uploads,
        "rejections": now.rejections,
        "subscriptions": subscriptions,
    })
}
