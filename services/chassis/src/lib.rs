//! What each role needs before its own work: settings, the catalogue of tenants, apps and keys, authentication of
//! requests, the one shape of errors, health, metrics, request ids and logs, shutdown.

mod authenticate;
pub mod catalogue;
mod conflict;
mod error;
mod health;
mod http;
mod listener;
mod logs;
mod metrics;
mod permissions;
mod secret;
mod settings;
mod shutdown;
mod system;
mod tls;
mod token;

pub use authenticate::{Principal, TokenAge, bearer};
pub use catalogue::{ApiKey, ApiKeySpec, App, Catalogue, CatalogueError, KeyLimits, Name, NameError, Tenant};
pub use conflict::{collection_key, conflict_key};
pub use error::{ApiError, ErrorCode, Position};
pub use health::Health;
pub use http::{Json, app_of, body_bytes, current_request_id, finish_router};
pub use listener::{Accepted, ClientAddr, Stream, connections, serve_http};
pub use logs::{LogFormat, LogSettings, init_logs};
pub use metrics::Metrics;
pub use permissions::{Access, Permissions, Rule};
pub use secret::Secret;
pub use settings::{SettingsError, parse_with_file};
pub use shutdown::{Shutdown, shutdown_on_signals};
pub use system::{Column, ColumnKind, SystemCollection, SystemCollections};
pub use tls::{Acceptor, Tls, TlsError, TlsSettings};
pub use token::AccessToken;
