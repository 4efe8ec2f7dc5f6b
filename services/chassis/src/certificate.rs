//! What a peer's certificate says: who logged in, as which site of which app, and a digest of what they were allowed.
//!
//! # Layout
//! Four alternative names, URIs, in this order. The first three are for people and for other programs; the last is the login
//! as an access token says it, without permissions.
//! - `bigpeer://{app}/site/{site}`
//! - `bigpeer://{app}/user/{provider}/{id}` (escaped), or `bigpeer://{app}/key/{name}`
//! - `bigpeer://{app}/permissions/sha256/{hex}`: of the permissions as they stand in the sync protocol's Welcome
//! - `bigpeer://{app}/login/{base64url of JSON}`

mod request;

use std::fmt::{self, Write as _};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use webpki::EndEntityCert;

pub use request::{CertificateRequest, RequestError};

use crate::authenticate::Account;
use crate::token::{AccessToken, Holder};
use crate::{ApiError, ErrorCode, Permissions};

/// Names in a certificate.
const NAMES: usize = 4;

/// Why a certificate is not believed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CertificateError {
    /// It is not one that this server gives to peers.
    #[error("it is no certificate of a peer")]
    Unreadable,
    /// No authority of the app that it names vouches for it.
    #[error("no authority of its app vouches for it")]
    Foreign,
    /// It is too late, or too early, for it.
    #[error("it has expired, or is not valid yet")]
    Expired,
}

/// A peer's certificate, as it was shown. It says who that is; whether it is good has to be asked of the catalogue.
#[derive(Clone)]
pub struct PeerCertificate {
    /// The login that it was given for; it ends when the certificate does.
    pub login: AccessToken,
    /// SHA-256 of what the login allowed when it was given, in hexadecimal digits.
    pub permissions: String,
    /// The authority that vouched for it, once that was looked at.
    pub(crate) authority: Option<String>,
    pub(crate) der: CertificateDer<'static>,
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (app, site) = (&self.login.app, self.login.site);
        f.debug_struct("PeerCertificate").field("app", app).field("site", &site).finish_non_exhaustive()
    }
}

/// The certificate of the other end of a request's connection, where it showed one. An extension of every such request.
#[derive(Clone, Debug)]
pub struct ClientCertificate(pub Arc<PeerCertificate>);

impl PeerCertificate {
    /// Reads what a certificate says. Nothing is verified.
    ///
    /// # Errors
    /// [`CertificateError::Unreadable`].
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let parsed = EndEntityCert::try_from(der).map_err(|_| CertificateError::Unreadable)?;
        let (login, permissions) = read_names(parsed.valid_uri_names()).ok_or(CertificateError::Unreadable)?;
        Ok(Self { login, permissions, authority: None, der: der.clone().into_owned() })
    }

    /// Reads the first certificate of a chain in PEM. Nothing is verified.
    ///
    /// # Errors
    /// [`CertificateError::Unreadable`].
    pub fn read_pem(chain: &str) -> Result<Self, CertificateError> {
        let first = CertificateDer::pem_slice_iter(chain.as_bytes()).next();
        Self::read(&first.and_then(Result::ok).ok_or(CertificateError::Unreadable)?)
    }

    /// Whose it is.
    #[must_use]
    pub fn account(&self) -> Account {
        Account::of(&self.login.holder)
    }

    /// When it ends, in milliseconds since the epoch.
    #[must_use]
    pub const fn expires_at_ms(&self) -> u64 {
        self.login.expires_at_secs.saturating_mul(1000)
    }

    /// Its bytes.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

/// The digest of permissions that certificates hold.
pub(crate) fn digest(permissions: &Permissions) -> Result<String, serde_json::Error> {
    let digest = Sha256::digest(serde_json::to_vec(permissions)?);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The names of a certificate for `login`.
pub(crate) fn names(login: &AccessToken, permissions: &str) -> Result<[String; NAMES], serde_json::Error> {
    let [site, who, allowed] = readable(login, permissions);
    let mut said = login.clone();
    if let Holder::User(user) = &mut said.holder {
        // What is allowed is looked up anew; the certificate would only grow.
        user.permissions = None;
    }
    let said = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&said)?);
    Ok([site, who, allowed, format!("bigpeer://{}/login/{said}", login.app)])
}

fn readable(login: &AccessToken, permissions: &str) -> [String; NAMES - 1] {
    let app = &login.app;
    let who = match &login.holder {
        Holder::Key(name) => format!("key/{name}"),
        Holder::User(user) => format!("user/{}/{}", user.provider, escaped(&user.id)),
    };
    [
        format!("bigpeer://{app}/site/{}", login.site),
        format!("bigpeer://{app}/{who}"),
        format!("bigpeer://{app}/permissions/sha256/{permissions}"),
    ]
}

/// What names say, when they are exactly those of a certificate that was made here.
fn read_names<'n>(names: impl Iterator<Item = &'n str>) -> Option<(AccessToken, String)> {
    let names: Vec<&str> = names.take(NAMES + 1).collect();
    let [.., allowed, said] = names.as_slice() else { return None };
    let (_, said) = said.strip_prefix("bigpeer://")?.split_once("/login/")?;
    let login: AccessToken = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(said).ok()?).ok()?;
    let (_, permissions) = allowed.rsplit_once('/')?;
    let expected = readable(&login, permissions);
    let is_ours = names.len() == NAMES && expected.iter().zip(&names).all(|(expected, name)| expected == name);
    is_ours.then(|| (login, permissions.to_owned()))
}

/// Everything that may not stand in a part of a URI as `%` and two digits.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte.into());
        } else {
            // Writing to a text does not fail.
            let _written = write!(out, "%{byte:02X}");
        }
    }
    out
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        Self::new(ErrorCode::BadRequest, format!("'csr' cannot be used: {error}"))
    }
}

#[cfg(test)]
mod tests;
