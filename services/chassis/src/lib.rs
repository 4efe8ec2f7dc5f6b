//! What each role needs before its own work: settings, the catalogue of tenants, apps and keys, authentication of
//! requests, the one shape of errors, health, metrics, request ids and logs, shutdown.

pub mod admin;
mod administrator;
mod authenticate;
mod bucket;
pub mod catalogue;
mod certificate;
mod client;
mod conflict;
mod doors;
mod error;
mod guesses;
mod health;
mod http;
mod keyring;
mod listener;
mod logs;
mod meters;
mod metrics;
mod outbound;
mod pace;
mod permissions;
mod recent;
mod secret;
mod settings;
mod shutdown;
mod strict;
mod system;
mod tls;
mod token;
mod traffic;
mod turns;

pub use administrator::{Administrator, Credential, Reach};
pub use authenticate::{Account, Principal, TokenAge, bearer};
pub use bucket::Bucket;
pub use catalogue::{
    AUTHORITY_PUBLISHED_BEFORE_MS, AdminScope, AdminToken, AdminTokenSpec, Algorithm, ApiKey, ApiKeySpec, App,
    AuditCaller, AuditEntry, AuditQuery, Catalogue, CatalogueError, DeletedApp, Granted, IssuedCertificate, KeyLimits,
    LoginTimes, MAX_CERTIFICATE_TTL_SECS, MAX_TOKEN_TTL_SECS, Name, NameError, Oidc, PUBLISHED_BEFORE_MS, Provider,
    ProviderKind, ProviderSpec, PublishedAuthority, PublishedKey, Quota, ROTATE_AFTER_MS, Revocation, Revoked, Role,
    Tenant, Usage, is_refresh_token, provider_place,
};
pub use certificate::{CertificateError, CertificateRequest, ClientCertificate, PeerCertificate, RequestError};
pub use client::{as_client, as_client_now, current_client};
pub use conflict::{collection_key, conflict_key};
pub use doors::{Door, Doors};
pub use error::{ApiError, ErrorCode, Position};
pub use health::Health;
pub use http::{Json, app_of, body_bytes, current_request_id, finish_router};
pub use keyring::{Keyring, KeyringError, Sealed};
pub use listener::{Accepted, ClientAddr, Stream, connections, serve_http};
pub use logs::{LogFormat, LogSettings, init_logs};
pub use meters::{Held, Meter};
pub use metrics::Metrics;
pub use outbound::{SIGNATURE, Signer, bounded_body, outbound_client, outbound_url, said};
pub use pace::{Paced, TooSlow};
pub use permissions::{Access, Permissions, Rule};
pub use recent::Recent;
pub use secret::Secret;
pub use settings::{SettingsError, parse_with_file};
pub use shutdown::{Shutdown, shutdown_on_signals};
pub use system::{Column, ColumnKind, SystemCollection, SystemCollections};
pub use tls::{Acceptor, Tls, TlsError, TlsSettings};
pub use token::{AccessToken, Holder, User};
pub use turns::{Asker, NoTurn, Turn, TurnLimits, Turns};
