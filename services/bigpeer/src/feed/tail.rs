//! `bigpeer feed tail`: the changes of an app as they happen, one event a line.

use clap::Args;
use futures::StreamExt;

use crate::client::ClientArgs;
use crate::failure::Failure;
use crate::output;

/// Flags of `bigpeer feed tail`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer feed tail                                      everything that the API key may read, from now on
  bigpeer feed tail --collection cars --snapshot         all cars, then what changes
  bigpeer feed tail --collection cars --where \"color = 'blue'\"
  bigpeer feed tail --cursor 1234.0 | jq -c .change      from behind a transaction")]
pub(super) struct TailArgs {
    /// A collection; several times for several; without, all
    #[arg(long = "collection", value_name = "NAME")]
    collections: Vec<String>,
    /// A DQL condition on the documents of the one collection
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Start with all documents that there are
    #[arg(long, conflicts_with = "cursor")]
    snapshot: bool,
    /// Start from a cursor
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Also heartbeats, which carry the cursor
    #[arg(long)]
    heartbeats: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Follows until the stream ends.
pub(super) async fn run(args: TailArgs) -> Result<(), Failure> {
    let client = args.client.resolve()?;
    let mut query = Vec::new();
    if !args.collections.is_empty() {
        query.push(("collections", args.collections.join(",")));
    }
    query.extend(args.condition.map(|condition| ("where", condition)));
    query.extend(args.snapshot.then(|| ("snapshot", "true".to_owned())));
    query.extend(args.cursor.map(|cursor| ("cursor", cursor)));
    let mut events = client.get("changes", &query).await?.bytes_stream();
    let mut lines = Vec::new();
    while let Some(part) = events.next().await {
        let part = part.map_err(|error| Failure::new(format!("the stream broke off: {error}")))?;
        lines.extend_from_slice(&part);
        let Some(end) = lines.iter().rposition(|byte| *byte == b'\n') else { continue };
        let rest = lines.split_off(end + 1);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if args.heartbeats || !is_heartbeat(line) {
                output::raw(line)?;
            }
        }
        lines = rest;
    }
    Err(Failure::new("the stream ended; the last event's cursor goes on with it"))
}

fn is_heartbeat(line: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Typed {
        #[serde(rename = "type")]
        kind: String,
    }
    // Heartbeats are short; events may be long.
    line.len() < 400_000 && serde_json::from_slice::<Typed>(line).is_ok_and(|typed| typed.kind == "heartbeat")
}
