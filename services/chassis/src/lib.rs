//! What each role needs before its own work: settings, the catalogue of tenants, apps and keys, authentication of
//! requests, the one shape of errors, health, metrics, request ids and logs, shutdown.

mod authenticate;
pub mod catalogue;
mod certificate;
mod conflict;
mod error;
mod health;
mod http;
mod keyring;
mod listener;
mod logs;
mod metrics;
mod outbound;
mod permissions;
mod recent;
mod secret;
mod settings;
mod shutdown;
mod system;
mod tls;
mod token;

pub use authenticate::{Account, Principal, TokenAge, bearer};
pub use catalogue::{
    AUTHORITY_PUBLISHED_BEFORE_MS, Algorithm, ApiKey, ApiKeySpec, App, Catalogue, CatalogueError, Granted,
    IssuedCertificate, KeyLimits, LoginTimes, MAX_CERTIFICATE_TTL_SECS, MAX_TOKEN_TTL_SECS, Name, NameError, Oidc,
    PUBLISHED_BEFORE_MS, Provider, ProviderKind, ProviderSpec, PublishedAuthority, PublishedKey, ROTATE_AFTER_MS,
    Revocation, Revoked, Role, Tenant, is_refresh_token, provider_place,
};
pub use certificate::{CertificateError, CertificateRequest, ClientCertificate, PeerCertificate, RequestError};
pub use conflict::{collection_key, conflict_key};
pub use error::{ApiError, ErrorCode, Position};
pub use health::Health;
pub use http::{Json, app_of, body_bytes, current_request_id, finish_router};
pub use keyring::{Keyring, KeyringError, Sealed};
pub use listener::{Accepted, ClientAddr, Stream, connections, serve_http};
pub use logs::{LogFormat, LogSettings, init_logs};
pub use metrics::Metrics;
pub use outbound::{bounded_body, outbound_client, outbound_url, said};
pub use permissions::{Access, Permissions, Rule};
pub use recent::Recent;
pub use secret::Secret;
pub use settings::{SettingsError, parse_with_file};
pub use shutdown::{Shutdown, shutdown_on_signals};
pub use system::{Column, ColumnKind, SystemCollection, SystemCollections};
pub use tls::{Acceptor, Tls, TlsError, TlsSettings};
pub use token::{AccessToken, Holder, User};
