//! `bigpeer feed dead-letters` and `bigpeer feed deliveries`: what a webhook's receiver would not take, and how it answered.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{ask, show};
use crate::client::AdminArgs;
use crate::failure::Failure;
use crate::output;

/// Flags of `bigpeer feed dead-letters`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer feed dead-letters list hook                    one a line, the oldest first: id, when, events, attempts, why
  bigpeer feed dead-letters show hook 1764151200000-00f3 with what was to be sent
  bigpeer feed dead-letters redeliver hook --all         when the receiver has been mended; stops where it fails again
  bigpeer feed dead-letters drop hook 1764151200000-00f3
A dead letter is what a receiver refused too often. The feed went on behind it: what is delivered again now may be older than
what the receiver has of the same document. A feed that has 1000 of them waits.
Feeds to Kafka have none here: they tell the topic TOPIC.dead-letters.")]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The dead letters of a feed, one a line, the oldest first
    List {
        /// The feed
        feed: String,
        /// All that is known of them, as JSON
        #[arg(long)]
        json: bool,
    },
    /// One dead letter, with what was to be sent, as JSON
    Show {
        /// The feed
        feed: String,
        /// The dead letter
        id: String,
    },
    /// Deliver dead letters once more, now; those that are taken are forgotten
    #[command(after_help = "Examples:
  bigpeer feed dead-letters redeliver hook 1764151200000-00f3
  bigpeer feed dead-letters redeliver hook --all
Each goes out as it was, with the event id that it had. It stops at the first that is refused again; that one stays.")]
    Redeliver(Chosen),
    /// Forget dead letters without delivering them
    #[command(after_help = "Examples:
  bigpeer feed dead-letters drop hook 1764151200000-00f3
  bigpeer feed dead-letters drop hook --all")]
    Drop(Chosen),
}

#[derive(Args, Debug)]
struct Chosen {
    /// The feed
    feed: String,
    /// The dead letters
    #[arg(required_unless_present = "all")]
    ids: Vec<String>,
    /// All that there are, the oldest first
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

/// Flags of `bigpeer feed deliveries`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer feed deliveries hook                     when, status, latency, attempt and event, the newest first
  bigpeer feed deliveries hook --limit 2000        all that are kept
  bigpeer feed deliveries hook --json | jq '.deliveries[] | select(.error)'
The last 2000 attempts of a webhook are kept, for a week, whichever process made them. Of a feed that makes more than 250 in
half a second those that failed are kept, and the latest others.")]
pub(super) struct DeliveriesArgs {
    /// The feed
    feed: String,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// All that is known of them, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// `bigpeer feed dead-letters`.
pub(super) async fn dead_letters(args: &DeadLettersArgs) -> Result<(), Failure> {
    let admin = &args.admin;
    match &args.action {
        Action::List { feed, json: false } => letters(admin, feed).await?.iter().try_for_each(letter),
        Action::List { feed, json: true } => show(&json!({ "deadLetters": letters(admin, feed).await? })),
        Action::Show { feed, id } => show(&ask(admin, Method::GET, feed, &path(id)?, None).await?),
        Action::Redeliver(chosen) => {
            let mut events = 0;
            for id in chosen.ids(admin).await? {
                let answer = ask(admin, Method::POST, &chosen.feed, &format!("{}/deliver", path(&id)?), None).await;
                match answer {
                    Ok(answer) => events += answer["delivered"].as_u64().unwrap_or(0),
                    Err(failure) => {
                        let message = format!("{id}: {failure} ({events} events were delivered before it)");
                        return Err(Failure { message, ..failure });
                    }
                }
            }
            output::line(&format!("delivered {events} events"))
        }
        Action::Drop(chosen) => {
            let ids = chosen.ids(admin).await?;
            for id in &ids {
                ask(admin, Method::DELETE, &chosen.feed, &path(id)?, None).await?;
            }
            output::line(&format!("dropped {} dead letters", ids.len()))
        }
    }
}

impl Chosen {
    async fn ids(&self, admin: &AdminArgs) -> Result<Vec<String>, Failure> {
        if !self.all {
            return Ok(self.ids.clone());
        }
        let letters = letters(admin, &self.feed).await?;
        Ok(letters.iter().map(|letter| text(&letter["id"])).collect())
    }
}

/// Where a dead letter is, below its feed.
fn path(id: &str) -> Result<String, Failure> {
    let good = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if good {
        Ok(format!("/dead-letters/{id}"))
    } else {
        Err(Failure::new(format!("'{id}' is no dead letter; `bigpeer feed dead-letters list` shows their ids")))
    }
}

/// All dead letters of a feed.
async fn letters(admin: &AdminArgs, feed: &str) -> Result<Vec<Value>, Failure> {
    let (mut out, mut query) = (Vec::new(), String::new());
    loop {
        let mut page = ask(admin, Method::GET, feed, &format!("/dead-letters{query}"), None).await?;
        if let Value::Array(letters) = page["deadLetters"].take() {
            out.extend(letters);
        }
        match page["next"].as_str() {
            Some(next) => query = format!("?after={next}"),
            None => return Ok(out),
        }
    }
}

/// `bigpeer feed deliveries`.
pub(super) async fn deliveries(args: &DeliveriesArgs) -> Result<(), Failure> {
    let (mut all, mut omitted, mut query) = (Vec::new(), 0, String::new());
    while all.len() < args.limit {
        let mut page = ask(&args.admin, Method::GET, &args.feed, &format!("/deliveries{query}"), None).await?;
        if let Value::Array(deliveries) = page["deliveries"].take() {
            all.extend(deliveries);
        }
        omitted += page["omitted"].as_u64().unwrap_or(0);
        match page["next"].as_u64() {
            Some(next) => query = format!("?before={next}"),
            None => break,
        }
    }
    all.truncate(args.limit);
    if args.json {
        return show(&json!({ "deliveries": all, "omitted": omitted }));
    }
    all.iter().try_for_each(delivery)?;
    if omitted > 0 {
        output::note(&format!("between these were {omitted} more, which are not kept"));
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Milliseconds since the epoch, for people.
fn time(value: &Value) -> String {
    let time = value.as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map(|time| format!("{time:.3}")).unwrap_or_default()
}

/// A dead letter in a line.
fn letter(letter: &Value) -> Result<(), Failure> {
    let parts = [
        text(&letter["id"]),
        time(&letter["atMs"]),
        format!("{} events", letter["count"]),
        format!("{} attempts", letter["attempts"]),
        text(&letter["reason"]),
        text(&letter["eventId"]),
    ];
    output::line(&parts.join("\t"))
}

/// An attempt in a line.
fn delivery(delivery: &Value) -> Result<(), Failure> {
    let parts = [
        time(&delivery["atMs"]),
        delivery["status"].as_u64().map_or_else(|| "-".to_owned(), |status| status.to_string()),
        format!("{} ms", delivery["latencyMs"]),
        format!("attempt {}", delivery["attempt"]),
        format!("{} events", delivery["events"]),
        text(&delivery["id"]),
        text(&delivery["error"]),
    ];
    output::line(parts.join("\t").trim_end())
}
