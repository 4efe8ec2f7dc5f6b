//! `bigpeer peer`: a Small Peer on the command line. Its store is a directory; what needs no server works without one.

use std::future::Future;
use std::path::PathBuf;

use bigpeer_crdt::Value;
use bigpeer_peer::{
    ConnectSettings, Connection, LiveResult, Params, Peer, PeerError, PeerEvent, PeerSettings, Status, SubscriptionId,
};
use clap::{Args, Subcommand};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::broadcast;

use crate::client::ClientArgs;
use crate::failure::Failure;
use crate::output;
use crate::query::arguments;

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
    /// Stay connected, and print what changes as JSON, one change a line, until interrupted
    Watch {
        /// What to watch, a SELECT; without it everything that is subscribed to
        query: Option<String>,
        /// Its :parameters, as a JSON object
        #[arg(long, value_name = "JSON", requires = "query")]
        args: Option<String>,
    },
    /// Print where the store stands, as JSON. Works offline
    Status,
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
        Action::Watch { query, args } => watch(peer, settings(client)?, query, params(args.as_deref())?).await,
        Action::Status => output::line(&status(&peer.status()).to_string()),
    }
}

fn settings(client: &ClientArgs) -> Result<ConnectSettings, Failure> {
    let client = client.resolve()?;
    let mut settings = ConnectSettings::new(client.url, client.app, client.api_key);
    settings.device = concat!("bigpeer ", env!("CARGO_PKG_VERSION")).to_owned();
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
    let mut events = peer.events();
    peer.connect(settings).await?;
    let done = async {
        peer.wait_connected().await?;
        for subscription in peer.status().subscriptions.into_keys() {
            peer.wait_caught_up(subscription).await?;
        }
        peer.wait_pushed().await
    };
    unless_unreachable(peer, done).await?;
    let now = peer.status();
    peer.disconnect().await;
    let rejected = rejections(&mut events);
    for text in &rejected {
        output::note(text);
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

fn rejections(events: &mut broadcast::Receiver<PeerEvent>) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        match events.try_recv() {
            Ok(PeerEvent::WriteRejected { seq, code, message, documents }) => {
                let ids: Vec<String> = documents
                    .iter()
                    .take(5)
                    .map(|(collection, id)| format!("{collection}/{}", id.to_value().to_json()))
                    .collect();
                texts.push(format!("transaction {seq} was rejected ({code}): {message}; undone: {}", ids.join(", ")));
            }
            Ok(_) | Err(broadcast::error::TryRecvError::Lagged(_)) => {}
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => return texts,
        }
    }
}

async fn watch(peer: &Peer, settings: ConnectSettings, query: Option<String>, params: Params) -> Result<(), Failure> {
    let mut live = Vec::new();
    match query {
        Some(query) => live.push((query.clone(), peer.observe(&query, params)?)),
        None => {
            for subscription in peer.status().subscriptions.into_values() {
                let query = subscription.query;
                live.push((query.clone(), peer.observe(&query, Params::new())?));
            }
        }
    }
    if live.is_empty() {
        return Err(Failure::new("nothing is subscribed to; name a query, or `subscribe` first"));
    }
    let mut events = peer.events();
    peer.connect(settings).await?;
    let step = |(query, mut live): (String, bigpeer_peer::LiveQuery)| async move {
        let result = live.next().await;
        (query, live, result)
    };
    let mut waiting: FuturesUnordered<_> = live.into_iter().map(step).collect();
    loop {
        tokio::select! {
            changed = waiting.next() => {
                let Some((query, live, result)) = changed else { return Ok(()) };
                print_changes(&query, &result?)?;
                waiting.push(step((query, live)));
            }
            event = events.recv() => tell(&event)?,
            interrupted = tokio::signal::ctrl_c() => {
                return interrupted.map_err(|error| Failure::new(error.to_string()));
            }
        }
    }
}

fn print_changes(query: &str, result: &LiveResult) -> Result<(), Failure> {
    let mut text = String::new();
    let mut add = |change: &str, row: Option<&Value>, before: Option<&Value>| {
        let mut line = json!({"change": change, "query": query});
        if let Some(row) = row {
            line["document"] = row.to_json();
        }
        if let Some(before) = before {
            line["before"] = before.to_json();
        }
        text.push_str(&format!("{line}\n"));
    };
    for at in &result.inserted {
        add("inserted", result.items.get(*at), None);
    }
    for (at, before) in &result.updated {
        add("updated", result.items.get(*at), Some(before));
    }
    for before in &result.removed {
        add("removed", None, Some(before));
    }
    output::raw(text.as_bytes())
}

/// Tells of the connection on standard error; a refusal ends the watch.
fn tell(event: &Result<PeerEvent, broadcast::error::RecvError>) -> Result<(), Failure> {
    match event {
        Ok(PeerEvent::Connected) => output::note("connected"),
        Ok(PeerEvent::Disconnected { reason }) => output::note(&format!("disconnected ({reason}); reconnecting")),
        Ok(PeerEvent::Refused { reason }) => return Err(Failure::new(format!("the server refused: {reason}"))),
        Ok(PeerEvent::WriteRejected { seq, code, message, .. }) => {
            output::note(&format!("transaction {seq} was rejected ({code}): {message}; it is undone here"));
        }
        Ok(PeerEvent::CaughtUp { subscription, .. }) => {
            output::note(&format!("subscription {subscription} is caught up"))
        }
        Ok(PeerEvent::Resync { subscription }) => output::note(&format!("subscription {subscription} starts over")),
        Ok(PeerEvent::SubscriptionRefused { subscription, reason }) => {
            output::note(&format!("subscription {subscription} was refused: {reason}"));
        }
        Err(broadcast::error::RecvError::Lagged(missed)) => output::note(&format!("{missed} events were missed")),
        Err(broadcast::error::RecvError::Closed) => {}
    }
    Ok(())
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
        "subscriptions": subscriptions,
    })
}
