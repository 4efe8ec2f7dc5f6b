//! `bigpeer feed`: the change feeds of an app, and their events.

mod kept;
mod spec;
mod tail;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::AdminArgs;
use crate::failure::Failure;
use crate::output;
use kept::{DeadLettersArgs, DeliveriesArgs};
use spec::CreateArgs;
use tail::TailArgs;

/// Flags of `bigpeer feed`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer feed tail --collection cars                                  what changes from now on
  bigpeer feed create cars --collection cars --snapshot --kafka localhost:9092 --topic cars --create-topic
  bigpeer feed create hook --webhook https://example.com/hook --secret-file hook.secret
  bigpeer feed list
  bigpeer feed rewind cars 1234.0
  bigpeer feed deliveries hook                                         how a webhook's receiver answered
  bigpeer feed dead-letters redeliver hook --all                       what it refused, once more")]
pub(crate) struct FeedArgs {
    #[command(subcommand)]
    command: FeedCommand,
}

#[derive(Debug, Subcommand)]
enum FeedCommand {
    /// Make a feed, or change one
    Create(Box<CreateArgs>),
    /// The feeds of the app, one a line
    List(ListArgs),
    /// One feed, whole, as JSON
    Show(ShowArgs),
    /// Let a feed stand still
    Pause(PauseArgs),
    /// Let a feed go on
    Resume(ResumeArgs),
    /// Let a feed go on from a cursor, earlier or later
    Rewind(RewindArgs),
    /// Let a feed read collections anew, between changes
    Snapshot(SnapshotArgs),
    /// Delete a feed
    Delete(DeleteArgs),
    /// How a webhook's receiver answered, the newest attempts first
    Deliveries(DeliveriesArgs),
    /// What a webhook's receiver would not take: list it, deliver it again, or drop it
    DeadLetters(DeadLettersArgs),
    /// Show, or change, how much of the app's past is kept for feeds that lag
    Retention(RetentionArgs),
    /// Follow the changes of the app, one event a line, without a feed
    Tail(TailArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer feed list
  bigpeer feed list --json | jq '.feeds[] | select(.state == \"paused\")'")]
struct ListArgs {
    /// All that is known of them, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer feed show cars")]
struct ShowArgs {
    /// The feed
    name: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer feed pause cars          what it still needs is kept as long as any feed's")]
struct PauseArgs {
    /// The feed
    name: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer feed resume cars")]
struct ResumeArgs {
    /// The feed
    name: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer feed rewind cars 1234.0  from behind that transaction; every event carries its cursor
  bigpeer feed rewind cars 0.0     from the beginning, or a snapshot if that is no longer kept")]
struct RewindArgs {
    /// The feed
    name: String,
    /// Where it goes on from
    cursor: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer feed snapshot all cars drivers")]
struct SnapshotArgs {
    /// The feed
    name: String,
    /// The collections
    #[arg(required = true)]
    collections: Vec<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer feed delete cars         with its dead letters; what it delivered stays where it is")]
struct DeleteArgs {
    /// The feed
    name: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer feed retention                               what is kept at most
  bigpeer feed retention --secs 604800                 for a week
  bigpeer feed retention --bytes 107374182400          for 100 GiB of changes
A feed that lags more reads its collections anew.")]
struct RetentionArgs {
    /// How long changes are kept, in seconds
    #[arg(long, value_name = "SECS")]
    secs: Option<u64>,
    /// How many changes are kept, in bytes
    #[arg(long, value_name = "BYTES")]
    bytes: Option<u64>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// `bigpeer feed`.
pub(crate) async fn run(args: FeedArgs) -> Result<(), Failure> {
    match args.command {
        FeedCommand::Create(args) => show(&create(&args).await?),
        FeedCommand::List(args) => list(&args).await,
        FeedCommand::Show(ShowArgs { name, admin }) => show(&ask(&admin, Method::GET, &name, "", None).await?),
        FeedCommand::Pause(PauseArgs { name, admin }) => line(&ask(&admin, Method::POST, &name, "/pause", None).await?),
        FeedCommand::Resume(ResumeArgs { name, admin }) => {
            line(&ask(&admin, Method::POST, &name, "/resume", None).await?)
        }
        FeedCommand::Rewind(RewindArgs { name, cursor, admin }) => {
            let body = json!({ "cursor": cursor });
            line(&ask(&admin, Method::POST, &name, "/rewind", Some(&body)).await?)
        }
        FeedCommand::Snapshot(SnapshotArgs { name, collections, admin }) => {
            let body = json!({ "collections": collections });
            line(&ask(&admin, Method::POST, &name, "/snapshot", Some(&body)).await?)
        }
        FeedCommand::Delete(DeleteArgs { name, admin }) => ask(&admin, Method::DELETE, &name, "", None).await.map(drop),
        FeedCommand::Deliveries(args) => kept::deliveries(&args).await,
        FeedCommand::DeadLetters(args) => kept::dead_letters(&args).await,
        FeedCommand::Retention(args) => retention(&args).await,
        FeedCommand::Tail(args) => tail::run(args).await,
    }
}

/// Asks the admin API about one feed.
async fn ask(
    admin: &AdminArgs,
    method: Method,
    name: &str,
    rest: &str,
    body: Option<&Value>,
) -> Result<Value, Failure> {
    if let Err(error) = name.parse::<bigpeer_chassis::Name>() {
        return Err(Failure::new(format!("'{name}' is no name of a feed: {error}")));
    }
    admin.resolve()?.ask(method, &format!("feeds/{name}{rest}"), body).await
}

async fn create(args: &CreateArgs) -> Result<Value, Failure> {
    let spec = args.spec()?;
    ask(&args.admin, Method::PUT, &args.name, "", Some(&spec)).await
}

async fn retention(args: &RetentionArgs) -> Result<(), Failure> {
    const PATH: &str = "feed-retention";
    let admin = args.admin.resolve()?;
    let mut kept = admin.ask(Method::GET, PATH, None).await?;
    for (what, asked) in [("secs", args.secs), ("bytes", args.bytes)] {
        if let Some(asked) = asked {
            kept[what] = json!(asked);
        }
    }
    if args.secs.is_some() || args.bytes.is_some() {
        kept = admin.ask(Method::PUT, PATH, Some(&kept)).await?;
    }
    output::line(&format!("{} s\t{} bytes", kept["secs"], kept["bytes"]))
}

fn show(feed: &Value) -> Result<(), Failure> {
    output::line(&serde_json::to_string_pretty(feed).unwrap_or_default())
}

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let feeds = args.admin.resolve()?.list("feeds", "feeds").await?;
    if args.json {
        return show(&json!({ "feeds": feeds }));
    }
    feeds.iter().try_for_each(line)
}

/// A feed in a line.
fn line(feed: &Value) -> Result<(), Failure> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let why = text(&feed["pausedReason"]);
    let (lag, error) = (&feed["lag"], text(&feed["process"]["lastError"]));
    let mut parts = vec![
        text(&feed["name"]),
        text(&feed["spec"]["sink"]["type"]),
        if why.is_empty() { text(&feed["state"]) } else { format!("{}: {why}", text(&feed["state"])) },
        format!("cursor {}", text(&feed["cursor"])),
        format!("lag {} transactions, {} s", lag["transactions"], lag["seconds"]),
        format!("delivered {}", feed["delivered"]),
    ];
    if !feed["pending"].is_null() {
        parts.push(format!("asked for {}", feed["pending"]));
    }
    if !error.is_empty() {
        parts.push(format!("last error: {error}"));
    }
    output::line(&parts.join("\t"))
}
