//! `bigpeer peer watch`: stays connected and tells what changes, for a person or for a program.

use std::io::IsTerminal;

use bigpeer_crdt::{Object, Value};
use bigpeer_peer::{ConnectSettings, Connection, LiveQuery, LiveResult, Params, Peer, PeerEvent, Status};
use bigpeer_types::{Clock, SystemClock};
use clap::{Args, ValueEnum};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::broadcast;

use crate::failure::Failure;
use crate::output;

/// Documents that are shown of one change; of more, the number.
const MOST_ROWS: usize = 20;
/// Characters that are shown of a value or a document.
const MOST_TEXT: usize = 120;

/// Flags of `bigpeer peer watch`.
#[derive(Args, Debug)]
pub(super) struct WatchArgs {
    /// What to watch, a SELECT; without it everything that is subscribed to
    query: Option<String>,
    /// Its :parameters, as a JSON object
    #[arg(long, value_name = "JSON", requires = "query")]
    args: Option<String>,
    /// How to tell: lines for people, or JSON, one change a line [default: text on a terminal, json elsewhere]
    #[arg(long, value_enum)]
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) async fn watch(peer: &Peer, settings: ConnectSettings, args: WatchArgs) -> Result<(), Failure> {
    let format = args.format.unwrap_or(if std::io::stdout().is_terminal() { Format::Text } else { Format::Json });
    let queries: Vec<(String, Params)> = match args.query {
        Some(query) => vec![(query, super::params(args.args.as_deref())?)],
        None => peer.subscribed().await?,
    };
    if queries.is_empty() {
        return Err(Failure::new("nothing is subscribed to; name a query, or `subscribe` first"));
    }
    let mut live = Vec::new();
    for (query, params) in queries {
        live.push((query.clone(), peer.observe(&query, params)?));
    }
    let (mut events, mut statuses) = (peer.events(), peer.watch_status());
    let mut shown = Shown::of(&peer.status());
    peer.connect(settings).await?;
    let step = |(query, mut live): (String, LiveQuery)| async move {
        let result = live.next().await;
        (query, live, result)
    };
    let mut waiting: FuturesUnordered<_> = live.into_iter().map(step).collect();
    loop {
        tokio::select! {
            changed = waiting.next() => {
                let Some((query, live, result)) = changed else { return Ok(()) };
                let text = match format {
                    Format::Json => as_json(&query, &result?),
                    Format::Text => as_text(&query, &result?),
                };
                output::raw(text.as_bytes())?;
                waiting.push(step((query, live)));
            }
            event = events.recv() => tell(&event)?,
            changed = statuses.changed(), if format == Format::Text => {
                if changed.is_err() {
                    return Ok(());
                }
                let now = Shown::of(&statuses.borrow_and_update());
                if now != shown {
                    output::note(&format!("{}  {}", now_text(), now.line()));
                    shown = now;
                }
            }
            interrupted = tokio::signal::ctrl_c() => {
                return interrupted.map_err(|error| Failure::new(error.to_string()));
            }
        }
    }
}

/// What the line about the store's standing says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    connected: bool,
    unpushed: u64,
    acknowledged: u64,
    uploads: u64,
    rejections: u64,
    caught_up: usize,
    subscriptions: usize,
}

impl Shown {
    fn of(status: &Status) -> Self {
        Self {
            connected: status.connection == Connection::Connected,
            unpushed: status.unpushed,
            acknowledged: status.acknowledged,
            uploads: status.uploads,
            rejections: status.rejections,
            caught_up: status.subscriptions.values().filter(|subscription| subscription.caught_up).count(),
            subscriptions: status.subscriptions.len(),
        }
    }

    fn line(&self) -> String {
        let connection = if self.connected { "online" } else { "offline" };
        let mut line = format!(
            "= {connection}, {} of {} subscriptions caught up, {} writes acknowledged",
            self.caught_up, self.subscriptions, self.acknowledged
        );
        for (number, what) in [
            (self.unpushed, "writes to push"),
            (self.uploads, "attachments to send"),
            (self.rejections, "rejections to look at"),
        ] {
            if number > 0 {
                line.push_str(&format!(", {number} {what}"));
            }
        }
        line
    }
}

fn as_json(query: &str, result: &LiveResult) -> String {
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
    text
}

fn as_text(query: &str, result: &LiveResult) -> String {
    let mut lines = Vec::new();
    for row in result.inserted.iter().filter_map(|at| result.items.get(*at)) {
        lines.push(format!("+ {}", named(row, &shortened(&without_id(row)))));
    }
    for (at, before) in &result.updated {
        if let Some(row) = result.items.get(*at) {
            lines.push(format!("~ {}", named(row, &differences(before, row))));
        }
    }
    for row in &result.removed {
        lines.push(format!("- {}", named(row, "")));
    }
    let (time, more) = (now_text(), lines.len().saturating_sub(MOST_ROWS));
    let mut text = format!("{time}  {query}: {} rows\n", result.items.len());
    for line in lines.iter().take(MOST_ROWS) {
        text.push_str(&format!("          {line}\n"));
    }
    if more > 0 {
        text.push_str(&format!("          … and {more} more changes\n"));
    }
    text
}

fn named(row: &Value, text: &str) -> String {
    let id = row.as_object().and_then(|fields| fields.get("_id")).map(|id| id.to_json().to_string());
    format!("{}  {text}", id.unwrap_or_default()).trim().to_owned()
}

fn without_id(row: &Value) -> String {
    match row.as_object() {
        Some(fields) => {
            let fields = fields.iter().filter(|(name, _)| *name != "_id");
            let fields: Object = fields.map(|(name, value)| (name.to_owned(), value.clone())).collect();
            fields.to_json().to_string()
        }
        None => row.to_json().to_string(),
    }
}

/// Which fields are other than before, with both values.
fn differences(before: &Value, row: &Value) -> String {
    let (Some(before), Some(after)) = (before.as_object(), row.as_object()) else {
        return shortened(&row.to_json().to_string());
    };
    let text =
        |value: Option<&Value>| value.map_or("nothing".to_owned(), |value| shortened(&value.to_json().to_string()));
    let gone = before.iter().map(|(name, _)| name).filter(|name| after.get(name).is_none());
    let names = after.iter().map(|(name, _)| name).chain(gone);
    let changed = names.filter(|name| before.get(name) != after.get(name));
    let changed: Vec<String> =
        changed.map(|name| format!("{name}: {} → {}", text(before.get(name)), text(after.get(name)))).collect();
    changed.join(", ")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MOST_TEXT) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The time of day, UTC.
fn now_text() -> String {
    let seconds = SystemClock.now_ms() / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
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
            output::note(&format!("subscription {subscription} is caught up"));
        }
        Ok(PeerEvent::Resync { subscription }) => output::note(&format!("subscription {subscription} starts over")),
        Ok(PeerEvent::SubscriptionRefused { subscription, reason }) => {
            output::note(&format!("subscription {subscription} was refused: {reason}"));
        }
        Ok(PeerEvent::AttachmentUploaded { id }) => output::note(&format!("attachment {id} is at the server")),
        Ok(PeerEvent::AttachmentFailed { id, reason }) => {
            output::note(&format!("attachment {id} will not be sent: {reason}"));
        }
        Err(broadcast::error::RecvError::Lagged(missed)) => output::note(&format!("{missed} events were missed")),
        Err(broadcast::error::RecvError::Closed) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(json: serde_json::Value) -> Value {
        Value::from_json(json).unwrap()
    }

    #[test]
    fn a_person_sees_what_is_new_other_and_gone() {
        let result = LiveResult {
            items: vec![row(json!({"_id": 1, "gate": "B7", "late": true})), row(json!({"_id": 2, "gate": "A1"}))],
            inserted: vec![1],
            updated: vec![(0, row(json!({"_id": 1, "gate": "B6", "crew": 4})))],
            removed: vec![row(json!({"_id": "x"}))],
        };
        let text = as_text("SELECT * FROM flights", &result);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert!(lines[0].ends_with("SELECT * FROM flights: 2 rows"), "{text}");
        assert_eq!(
            lines[1..],
            [r#"+ 2  {"gate":"A1"}"#, r#"~ 1  gate: "B6" → "B7", late: nothing → true, crew: 4 → nothing"#, r#"- "x""#,]
        );
        let many = LiveResult {
            items: (0..100).map(|n| row(json!({"_id": n}))).collect(),
            inserted: (0..100).collect(),
            ..LiveResult::default()
        };
        assert!(as_text("q", &many).ends_with("… and 80 more changes\n"));
    }
}
