//! `bigpeer backup` and `bigpeer app clone`: states that are kept under a name, and apps that are made of one.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Admin, AdminArgs};
use crate::doctor;
use crate::failure::Failure;
use crate::output;

/// Flags of `bigpeer backup`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer backup create monday --keep-days 90
  bigpeer backup verify monday              reads every file, document and attachment of it
  bigpeer backup restore monday copy        makes an app 'copy' of the same tenant; the first one stays as it is
A backup takes no time and no space at first: it keeps files that would be deleted. It is in the same object storage;
against the loss of that use its own versions or replication.")]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Keep the app as it is now
    Create {
        /// 1 to 80 of a-z, 0-9, '-' and '_'
        name: String,
        /// For how many days
        #[arg(long, default_value_t = 30, value_name = "DAYS")]
        keep_days: u64,
    },
    /// The backups that there are, as JSON, one a line
    List,
    /// Look whether everything of a backup is there and what was written
    Verify {
        /// Which
        name: String,
    },
    /// Make a new app of a backup
    Restore {
        /// Which
        name: String,
        /// What the new app is called; of the same tenant
        app_name: String,
    },
    /// Keep a backup no longer
    Delete {
        /// Which
        name: String,
    },
}

/// Flags of `bigpeer app`.
#[derive(Args, Debug)]
pub(crate) struct AppArgs {
    #[command(subcommand)]
    action: AppAction,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
enum AppAction {
    /// Make another app of the same tenant of this one, without copying its data
    #[command(after_help = "Examples:
  bigpeer app clone test               as it is now
  bigpeer app clone before --at 4711   as it was when transaction 4711 was applied
How far back is what `serve --keep-history-secs` says; for earlier times make backups.")]
    Clone {
        /// What the new app is called
        app_name: String,
        /// As of this transaction id, which every write answers
        #[arg(long, value_name = "TRANSACTION")]
        at: Option<u64>,
    },
}

/// `bigpeer backup`.
pub(crate) async fn run(args: BackupArgs) -> Result<(), Failure> {
    let admin = args.admin.resolve()?;
    match args.action {
        Action::Create { name, keep_days } => {
            let body = json!({"keep_days": keep_days});
            let made = admin.ask(Method::PUT, &format!("backups/{}", checked(&name)?), Some(&body)).await?;
            output::line(&made.to_string())
        }
        Action::List => {
            let all = admin.list("backups", "backups").await?;
            all.iter().try_for_each(|backup| output::line(&backup.to_string()))
        }
        Action::Verify { name } => {
            let seen =
                admin.ask(Method::POST, &format!("backups/{}/verify", checked(&name)?), Some(&json!({}))).await?;
            doctor::tell(&seen)
        }
        Action::Restore { name, app_name } => clone(&admin, &app_name, &json!({"backup": name})).await,
        Action::Delete { name } => {
            admin.ask(Method::DELETE, &format!("backups/{}", checked(&name)?), None).await?;
            Ok(())
        }
    }
}

/// `bigpeer app`.
pub(crate) async fn app(args: AppArgs) -> Result<(), Failure> {
    let admin = args.admin.resolve()?;
    let AppAction::Clone { app_name, at } = args.action;
    let body = at.map_or_else(|| json!({}), |at| json!({"transaction_id": at}));
    clone(&admin, &app_name, &body).await
}

async fn clone(admin: &Admin, app_name: &str, body: &Value) -> Result<(), Failure> {
    let made = admin.ask(Method::PUT, &format!("clones/{}", checked(app_name)?), Some(body)).await?;
    output::line(&made.to_string())
}

/// A name that can stand in a path.
fn checked(name: &str) -> Result<&str, Failure> {
    let good = !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if good { Ok(name) } else { Err(Failure::new(format!("'{name}' is not a name: use a-z, 0-9, '-' and '_'"))) }
}
