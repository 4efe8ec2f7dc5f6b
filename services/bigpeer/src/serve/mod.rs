//! `bigpeer serve`: every role in one process, on an embedded log and a local disk. Composition only.
//!
//! # Layout
//! `DIR/log/` the transaction log, `DIR/objects/` segments and manifests, `DIR/sql-spill/` what queries hold beyond memory,
//! `DIR/dev-credentials.json` for development, `DIR/master-key` what secrets are sealed with unless another is given.
//!
//! # Crash safety
//! The process keeps nothing that is not in the first two. It may be killed at any instant.

pub(crate) mod admin_token;
mod apps;
mod columns;
mod computing;
mod dev;
mod feeds;
mod log;
mod master_key;
mod objects;
mod process;
mod sql;
mod stores;
mod upkeep;
mod usage;
mod welcome;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bigpeer_api::{ApiContext, ApiSettings, AttachmentSettings};
use bigpeer_auth::{AuthContext, AuthSettings};
use bigpeer_changefeed::{ChangefeedContext, Registry};
use bigpeer_chassis::admin::Described;
use bigpeer_chassis::{
    Catalogue, Health, LogSettings, Metrics, Shutdown, SystemCollections, Tls, TlsSettings, finish_router, init_logs,
    serve_http, shutdown_on_signals,
};
use bigpeer_compactor::CompactorSettings;
use bigpeer_control::ControlContext;
use bigpeer_gateway::{GatewayContext, GatewaySettings};
use bigpeer_log::TransactionLog;
use bigpeer_sql::SqlContext;
use bigpeer_tables::{Objects, Stores};
use bigpeer_types::{Clock, IdGenerator, RandomIds, SystemClock};
use clap::Args;
use object_store::signer::Signer;
use tokio::net::TcpListener;

use crate::failure::Failure;
use columns::SqlColumns;
use computing::Computing;
use log::LogChoice;
use master_key::MasterKeyArgs;
use objects::ObjectsArgs;
use process::ThisProcess;
use sql::{Doors, SqlArgs};
use stores::AppStores;
use upkeep::UpkeepContext;

/// How long requests and sessions get to end after a shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(10);

/// Flags of `bigpeer serve`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  bigpeer serve                                data in ./data, on http://127.0.0.1:8080
  bigpeer serve --data-dir /srv/bigpeer --no-dev
  bigpeer serve --listen 127.0.0.1:0           on any free port; it is printed
  bigpeer serve --objects s3://my-bucket/prod  segments and attachments in S3, the log in ./data
  bigpeer serve --listen-pg 127.0.0.1:5432 --listen-flight 127.0.0.1:32010
                                               SQL for PostgreSQL's clients and over Arrow Flight, too
  bigpeer serve --tls-cert cert.pem --tls-key key.pem
                                               TLS on every listener; `bigpeer dev-cert` makes a certificate
  bigpeer serve --config bigpeer.toml          flags from a file, such as:
                                                 [serve]
                                                 listen = \"0.0.0.0:8080\"
A flag wins over the environment, the environment over the file.")]
pub(crate) struct ServeArgs {
    /// Where everything is kept; made if it does not exist
    #[arg(long, env = "BIGPEER_DATA_DIR", default_value = "data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, env = "BIGPEER_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDR:PORT")]
    listen: String,
    /// The transaction log: 'embedded', below the data directory and for one process, or 'fdb:' and the path of the cluster
    /// file of a FoundationDB cluster
    #[arg(long, env = "BIGPEER_LOG", default_value = "embedded", value_name = "LOG")]
    log: LogChoice,
    /// Do not make a tenant, an app, an API key and an admin token for development
    #[arg(long, env = "BIGPEER_NO_DEV", value_parser = clap::builder::BoolishValueParser::new())]
    no_dev: bool,
    /// How long an access token of a peer is good for, in seconds
    #[arg(long, env = "BIGPEER_TOKEN_TTL_SECS", default_value_t = bigpeer_auth::DEFAULT_TOKEN_TTL_SECS, value_name = "SECS")]
    token_ttl_secs: u64,
    /// How long a peer may be away before it has to log in again, in seconds
    #[arg(long, env = "BIGPEER_REFRESH_TTL_SECS", default_value_t = bigpeer_auth::DEFAULT_REFRESH_TTL_SECS, value_name = "SECS")]
    refresh_ttl_secs: u64,
    /// How long a peer's certificate is good for, in seconds; a minute at least, a week at most
    #[arg(long, env = "BIGPEER_CERTIFICATE_TTL_SECS", default_value_t = bigpeer_auth::DEFAULT_CERTIFICATE_TTL_SECS, value_name = "SECS", value_parser = clap::value_parser!(u64).range(60..=bigpeer_chassis::MAX_CERTIFICATE_TTL_SECS))]
    certificate_ttl_secs: u64,
    /// Give sync sessions only to peers that show a certificate of their app in the TLS handshake
    #[arg(long, env = "BIGPEER_REQUIRE_CLIENT_CERTIFICATES", value_parser = clap::builder::BoolishValueParser::new())]
    require_client_certificates: bool,
    #[command(flatten)]
    master_key: MasterKeyArgs,
    /// Let authentication providers (webhooks, issuers) have private addresses: of this machine, of its network
    #[arg(long, env = "BIGPEER_ALLOW_PRIVATE_PROVIDERS", value_parser = clap::builder::BoolishValueParser::new())]
    allow_private_providers: bool,
    /// Largest attachment, in bytes
    #[arg(long, env = "BIGPEER_MAX_ATTACHMENT_BYTES", default_value_t = AttachmentSettings::default().max_bytes, value_name = "BYTES")]
    max_attachment_bytes: u64,
    /// Send whoever asks for it to S3 for attachments, with URLs that are good for five minutes, so that their bytes need not go
    /// through this process. Clients must be able to reach the bucket where this process finds it
    #[arg(long, env = "BIGPEER_PRESIGN_ATTACHMENTS", value_parser = clap::builder::BoolishValueParser::new())]
    presign_attachments: bool,
    /// How long changes stay in memory before they are written to Parquet, in seconds; sooner when there are many
    #[arg(long, env = "BIGPEER_FLUSH_AFTER_SECS", default_value_t = CompactorSettings::default().flush_after.as_secs(), value_name = "SECS")]
    flush_after_secs: u64,
    /// Let webhooks of change feeds go to private addresses: of this machine, of its network
    #[arg(long, env = "BIGPEER_ALLOW_PRIVATE_RECEIVERS", value_parser = clap::builder::BoolishValueParser::new())]
    allow_private_receivers: bool,
    /// How long the past can be read and restored without a backup, in seconds: so long the log and replaced files are kept
    #[arg(long, env = "BIGPEER_KEEP_HISTORY_SECS", default_value_t = 600, value_name = "SECS")]
    keep_history_secs: u64,
    #[command(flatten)]
    sql: SqlArgs,
    #[command(flatten)]
    objects: ObjectsArgs,
    #[command(flatten)]
    tls: TlsSettings,
    #[command(flatten)]
    logs: LogSettings,
}

/// What all roles share.
struct Parts {
    log: Arc<dyn TransactionLog>,
    catalogue: Arc<Catalogue>,
    stores: Arc<AppStores>,
    /// Signs URLs of attachments, where that is wanted.
    signer: Option<Arc<dyn Signer>>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGenerator>,
    metrics: Metrics,
    shutdown: Shutdown,
    /// What roles show of themselves.
    system: SystemCollections,
    /// Where what computes for long does so.
    computing: Computing,
}

/// Serves until a signal asks for the end.
pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    init_logs(&args.logs)?;
    let shutdown = Shutdown::new();
    shutdown_on_signals(shutdown.clone()).map_err(|error| Failure::new(format!("no signal handling: {error}")))?;
    let tls = Tls::open(&args.tls).map_err(|error| cannot_tls(&error))?;
    if args.require_client_certificates && tls.is_none() {
        let message = "--require-client-certificates needs TLS: give --tls-cert and --tls-key, too";
        return Err(Failure::new(message.to_owned()));
    }
    let parts = open(&args, shutdown.clone()).await?;
    let tls = tls.map(|tls| tls.with_peers(Arc::clone(&parts.catalogue)));
    let listener = TcpListener::bind(&args.listen).await;
    let listener = listener.map_err(|error| {
        Failure::new(format!("cannot listen on {}: {error}; choose another with --listen", args.listen))
    })?;
    let address = listener.local_addr().map_err(|error| Failure::new(format!("no address: {error}")))?;
    let url = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
    let doors = Doors::open(&args.sql).await?;
    let dev = if args.no_dev { None } else { Some(dev::prepare(&parts.catalogue, &args.data_dir, &url).await?) };

    let opening = tokio::spawn(Arc::clone(&parts.stores).follow(shutdown.clone()));
    let upkeep = tokio::spawn(parts.metrics.clone().upkeep());
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.follow(shutdown.clone()));
    }
    let Roles { router, sql, api, changes, control } = roles(&parts, &args)?;
    let expiry = tokio::spawn(bigpeer_api::expire_uploads(api, shutdown.clone()));
    let feeding = tokio::spawn(bigpeer_changefeed::run_feeds(changes));
    let upkeep_of_control = tokio::spawn(bigpeer_control::upkeep(control, shutdown.clone()));
    let forgetting = tokio::spawn(bigpeer_auth::forget_logins(Arc::clone(&parts.catalogue), shutdown.clone()));
    let counting = tokio::spawn(usage::keep(Arc::clone(&parts.catalogue), Arc::clone(&parts.stores), shutdown.clone()));
    welcome::print(&url, &args.data_dir, dev.as_ref())?;
    doors.print(tls.is_some())?;
    tracing::info!(%address, data_dir = %args.data_dir.display(), "serving");
    let doors = doors.serve(&sql, &parts, tls.as_ref())?;
    serve(listener, tls.as_ref(), router, &shutdown).await?;
    doors.ended(DRAIN).await;

    if tokio::time::timeout(DRAIN, feeding).await.is_err() {
        tracing::warn!("some feeds did not end in time; whoever goes on with them may repeat what they sent last");
    }
    // It writes which keys were used last.
    if tokio::time::timeout(DRAIN, upkeep_of_control).await.is_err() {
        tracing::warn!("the last uses of keys could not be written in time");
    }
    expiry.abort();
    forgetting.abort();
    opening.abort();
    upkeep.abort();
    parts.stores.stop().await;
    usage::write_the_rest(&parts.catalogue, counting).await;
    parts.log.close().await;
    tracing::info!("stopped");
    Ok(())
}

async fn open(args: &ServeArgs, shutdown: Shutdown) -> Result<Parts, Failure> {
    let metrics = Metrics::install();
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn IdGenerator>) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let log = log::open(&args.log, &args.data_dir.join("log")).await?;
    // After the log: whoever holds the lock of an embedded one is the one process that uses these objects.
    let objects = Arc::new(args.objects.open(&args.data_dir).await?);
    let signer = if args.presign_attachments { Some(signer_of(&objects)?) } else { None };
    let log_is_shared = args.log != LogChoice::Embedded;
    let keyring = args.master_key.open(&args.data_dir, log_is_shared, ids.as_ref()).await?;
    let catalogue = Catalogue::open_sealed(Arc::clone(&log), Arc::clone(&clock), Arc::clone(&ids), keyring).await;
    let catalogue = catalogue.map_err(|error| Failure::new(error.to_string()))?;
    // What was stored without a master key, or under an older one.
    catalogue.reseal().await.map_err(|error| Failure::new(format!("secrets could not be sealed: {error}")))?;
    let feeds = Registry::new(Arc::clone(&log), Arc::clone(&clock), Arc::clone(&ids));
    let feeds = feeds.with_keyring(catalogue.keyring().clone());
    feeds.reseal().await.map_err(|error| Failure::new(format!("secrets of feeds could not be sealed: {error}")))?;
    let computing = Computing::start().map_err(|error| Failure::new(format!("no threads to compute on: {error}")))?;
    let keep_history = Duration::from_secs(args.keep_history_secs);
    let compaction = CompactorSettings {
        flush_after: Duration::from_secs(args.flush_after_secs),
        keep_tail: keep_history,
        keep_tail_flushes: stores::flushes_within(keep_history),
        readers: Some(Arc::new(feeds::FeedReaders { feeds, catalogue: Arc::clone(&catalogue) })),
        ..CompactorSettings::default()
    };
    let stores = AppStores::new(Arc::clone(&catalogue), Arc::clone(&log), objects, compaction);
    Ok(Parts {
        log,
        catalogue,
        stores,
        signer,
        clock,
        ids,
        metrics,
        shutdown,
        system: SystemCollections::default(),
        computing,
    })
}

fn signer_of(objects: &Objects) -> Result<Arc<dyn Signer>, Failure> {
    let cannot =
        || Failure::new("--presign-attachments: only S3 hands out attachments itself; see --objects".to_owned());
    objects.signer().ok_or_else(cannot)
}

fn private_dir(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| format!("cannot make {}: {error}", path.display()))
}

fn api(parts: &Parts, args: &ServeArgs, sql: &SqlContext) -> ApiContext {
    let attachments = AttachmentSettings {
        max_bytes: args.max_attachment_bytes,
        signer: parts.signer.clone(),
        ..AttachmentSettings::default()
    };
    ApiContext {
        catalogue: Arc::clone(&parts.catalogue),
        log: Arc::clone(&parts.log),
        stores: Arc::clone(&parts.stores) as _,
        clock: Arc::clone(&parts.clock),
        ids: Arc::clone(&parts.ids),
        columns: Some(Arc::new(SqlColumns(sql.dql()))),
        threads: parts.computing.handle().clone(),
        settings: ApiSettings { attachments, ..ApiSettings::default() },
        system: parts.system.clone(),
    }
}

fn auth(parts: &Parts, args: &ServeArgs) -> AuthContext {
    let settings = AuthSettings {
        token_ttl_secs: args.token_ttl_secs,
        refresh_ttl_secs: args.refresh_ttl_secs,
        certificate_ttl_secs: args.certificate_ttl_secs,
        allow_private_providers: args.allow_private_providers,
    };
    AuthContext::new(Arc::clone(&parts.catalogue), settings)
}

fn control(parts: &Parts, changes: &ChangefeedContext) -> ControlContext {
    let process = ThisProcess {
        stores: Arc::clone(&parts.stores),
        feeds: changes.registry().clone(),
        log: Arc::clone(&parts.log),
    };
    let mut others: Vec<Described> =
        bigpeer_auth::admin_routes().iter().map(|route| route.described().clone()).collect();
    others.extend(bigpeer_changefeed::admin_routes().iter().map(|route| route.described().clone()));
    others.extend(upkeep::routes().iter().map(|route| route.described().clone()));
    ControlContext { catalogue: Arc::clone(&parts.catalogue), process: Arc::new(process), others: Arc::new(others) }
}

/// Everything that answers over HTTP, and what works beside it.
struct Roles {
    router: Router,
    sql: SqlContext,
    api: ApiContext,
    changes: ChangefeedContext,
    control: ControlContext,
}

fn roles(parts: &Parts, args: &ServeArgs) -> Result<Roles, Failure> {
    let sql = sql::context(parts, &args.sql, &args.data_dir)?;
    let api = api(parts, args, &sql);
    let changes = feeds::context(parts, args.allow_private_receivers, args.log == LogChoice::Embedded);
    let control = control(parts, &changes);
    let gateway =
        GatewaySettings { require_certificate: args.require_client_certificates, ..GatewaySettings::default() };
    let router = router(parts, api.clone(), sql.clone(), auth(parts, args), gateway)
        .merge(bigpeer_changefeed::router(changes.clone()))
        .merge(bigpeer_control::router(control.clone()));
    let router = finish_router(router, Arc::clone(&parts.clock), Arc::clone(&parts.ids));
    Ok(Roles { router, sql, api, changes, control })
}

fn router(parts: &Parts, api: ApiContext, sql: SqlContext, auth: AuthContext, gateway: GatewaySettings) -> Router {
    let log = Arc::clone(&parts.log);
    let stores: Arc<dyn Stores> = Arc::clone(&parts.stores) as _;
    let (catalogue, clock, ids) = (&parts.catalogue, &parts.clock, &parts.ids);
    let health = Health::new();
    let (seen, apps, ending) = (Arc::clone(catalogue), Arc::clone(&parts.stores), parts.shutdown.clone());
    health.register("catalogue", move || seen.is_fresh());
    health.register("apps", move || apps.is_ready());
    health.register("process", move || if ending.is_cancelled() { Err("shutting down".to_owned()) } else { Ok(()) });
    let admin = UpkeepContext { catalogue: Arc::clone(catalogue), stores: Arc::clone(&parts.stores) };
    Router::new()
        .merge(health.router())
        .merge(parts.metrics.router())
        .merge(upkeep::router(admin))
        .merge(bigpeer_auth::admin_router(auth.clone()))
        .merge(bigpeer_auth::router(auth))
        .merge(bigpeer_api::router(api))
        .merge(bigpeer_sql::router(sql))
        .merge(bigpeer_gateway::router(GatewayContext {
            catalogue: Arc::clone(catalogue),
            log,
            stores,
            clock: Arc::clone(clock),
            ids: Arc::clone(ids),
            shutdown: parts.shutdown.clone(),
            settings: gateway,
            system: parts.system.clone(),
        }))
}

/// Serves until shutdown, and then until what is under way has ended, for [`DRAIN`] at most.
async fn serve(listener: TcpListener, tls: Option<&Tls>, router: Router, shutdown: &Shutdown) -> Result<(), Failure> {
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = serve_http(listener, tls, router, shutdown) => served.map_err(|error| cannot_tls(&error)),
        () = drained => {
            tracing::warn!(seconds = DRAIN.as_secs(), "some requests did not end in time and are cut off");
            Ok(())
        }
    }
}

fn cannot_tls(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("TLS cannot be set up: {error}"))
}

#[cfg(test)]
mod tests;
