//! `bigpeer admin-token create`: an operator's token without one. Whoever may read and write the log and has the master key
//! administers the server anyway; this says so in a token, and in the audit log.

use std::path::PathBuf;
use std::sync::Arc;

use bigpeer_chassis::{AuditEntry, Catalogue, Name, NameError, Secret};
use bigpeer_types::{Clock, IdGenerator, RandomIds, SystemClock};
use clap::{Args, Subcommand};

use super::log::{self, LogChoice};
use super::master_key::MasterKeyArgs;
use crate::failure::Failure;
use crate::output;

/// Flags of `bigpeer admin-token`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer admin-token create ops --data-dir /srv/bigpeer
                                 before the first start of a server with --no-dev, or while it is stopped
  bigpeer admin-token create ops --log fdb:/etc/foundationdb/fdb.cluster --master-key-file /etc/bigpeer/master-key
                                 also while servers run on that log; they know it within a second
The token is printed to standard output, this once, and nothing else is. More tokens, also for tenants, are made with it:
docs/admin.md.")]
pub(crate) struct AdminTokenArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make an operator's token, on what a server is or will be started with
    Create(CreateArgs),
}

#[derive(Args, Debug)]
struct CreateArgs {
    /// What it is called, among all admin tokens of the server
    name: String,
    /// The server's data directory; made if it does not exist
    #[arg(long, env = "BIGPEER_DATA_DIR", default_value = "data", value_name = "DIR")]
    data_dir: PathBuf,
    /// The server's transaction log: 'embedded' or 'fdb:FILE'
    #[arg(long, env = "BIGPEER_LOG", default_value = "embedded", value_name = "LOG")]
    log: LogChoice,
    #[command(flatten)]
    master_key: MasterKeyArgs,
}

/// Does what the flags say.
pub(crate) async fn run(args: AdminTokenArgs) -> Result<(), Failure> {
    let Action::Create(args) = args.action;
    let name: Name = args.name.parse().map_err(|error: NameError| Failure::new(error.to_string()))?;
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn IdGenerator>) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let log = log::open(&args.log, &args.data_dir.join("log")).await?;
    let log_is_shared = args.log != LogChoice::Embedded;
    let keyring = args.master_key.open(&args.data_dir, log_is_shared, ids.as_ref()).await?;
    let catalogue = Catalogue::open_sealed(Arc::clone(&log), clock, ids, keyring).await;
    let catalogue = catalogue.map_err(|error| Failure::new(error.to_string()))?;
    // As every start does: it fails for who has not the master key that secrets are sealed with.
    catalogue.reseal().await.map_err(|error| Failure::new(format!("no token was made: {error}")))?;
    let made = create(&catalogue, &name).await;
    log.close().await;
    let secret = made?;
    output::note(&format!("admin token '{name}' of an operator, shown this once:"));
    output::line(secret.expose())
}

/// Makes the token; in the audit log by nobody, from nowhere.
async fn create(catalogue: &Catalogue, name: &Name) -> Result<Secret, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("no token was made: {error}"));
    if catalogue.admin_token(name).is_some() {
        return Err(taken(name));
    }
    let path = format!("/admin/v1/admin-tokens/{name}");
    let mut entry =
        AuditEntry { at: catalogue.clock().now_ms(), method: "PUT".to_owned(), path, ..AuditEntry::default() };
    let id = catalogue.audit(&entry).await.map_err(|error| failed(&error))?;
    let made = catalogue.create_admin(name).await.map_err(|error| failed(&error))?;
    entry.status = Some(if made.is_some() { 201 } else { 409 });
    catalogue.audit_as(&id, &entry).await.map_err(|error| failed(&error))?;
    made.ok_or_else(|| taken(name))
}

fn taken(name: &Name) -> Failure {
    Failure::new(format!("there is an admin token '{name}' already, and its secret is not kept; choose another name"))
}
