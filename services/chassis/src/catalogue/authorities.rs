//! The authorities that vouch for an app's peers by certificates, and their rotation.
//!
//! # Consistency
//! As with the keys of access tokens: a new authority is published long before it issues, so that every process, and every
//! peer that asks now and then, knows it before it meets a certificate of it. One that was replaced verifies until what it
//! issued has ended. An app has its first authority when a peer first asks for a certificate.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bigpeer_types::AppId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::keys::Key;
use super::{Catalogue, CatalogueError, Granted};
use crate::certificate::{self, CertificateError, CertificateRequest, PeerCertificate};
use crate::keyring::Sealed;
use crate::{ApiError, Permissions};

/// Longest life of a peer's certificate, in seconds.
pub const MAX_CERTIFICATE_TTL_SECS: u64 = 7 * 24 * 3600;
/// How long before it issues an authority is published, in milliseconds.
pub const AUTHORITY_PUBLISHED_BEFORE_MS: u64 = DAY_MS;
/// Age at which an authority is replaced by itself, in milliseconds.
const ROTATE_AFTER_MS: u64 = 180 * DAY_MS;
/// How long an authority's own certificate is good for, in milliseconds: longer than one is in use.
const LIFE_MS: u64 = 3 * 365 * DAY_MS;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Most authorities of an app at once.
const MAX_AUTHORITIES: usize = 8;
/// Most secret keys that are kept ready to sign.
const MAX_READY: usize = 1024;
/// How far the clock of whoever looks at a certificate may be behind, in milliseconds.
const CLOCKS_BEHIND_MS: u64 = 5 * 60 * 1000;
const SERIAL_BYTES: usize = 16;
/// What all authorities are called: what tells them apart is their key. So a server asks clients for certificates of this one
/// name, whatever its apps are.
const NAME: &str = "bigpeer peers";
/// The same as it stands in certificates, without the outermost tag and length.
pub(crate) const AUTHORITY_NAME_DER: &[u8] = b"\x31\x16\x30\x14\x06\x03\x55\x04\x03\x0c\x0dbigpeer peers";

/// The authorities of an app, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Authorities {
    authorities: Vec<Authority>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Authority {
    /// Its key's identifier, as it stands in certificates, in hexadecimal digits.
    id: String,
    /// Its own certificate: base64 of DER.
    certificate: String,
    /// Its secret key (PKCS#8), until it was replaced.
    key: Option<Sealed>,
    /// From when on it issues, in milliseconds since the epoch.
    issues_from_ms: u64,
    /// When its own certificate ends, in milliseconds since the epoch.
    ends_ms: u64,
}

/// An authority as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedAuthority {
    /// Its key's identifier.
    pub id: String,
    /// Its own certificate, in PEM.
    pub certificate: String,
    /// From when on it issues, in milliseconds since the epoch.
    pub issues_from_ms: u64,
    /// Until when what it issued is good; none as long as it is not replaced.
    pub verifies_until_ms: Option<u64>,
}

/// A certificate that was just made.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    /// It and its authority's, in PEM.
    pub chain: String,
    /// When it ends, in milliseconds since the epoch.
    pub expires_at_ms: u64,
}

impl Authorities {
    /// Each, and until when what it issued is good.
    fn with_ends(&self) -> impl Iterator<Item = (&Authority, Option<u64>)> {
        let next = self.authorities.iter().skip(1).map(|next| Some(next.issues_from_ms)).chain([None]);
        let ends = next.map(|next| next.map(|next| next.saturating_add(MAX_CERTIFICATE_TTL_SECS * 1000)));
        self.authorities.iter().zip(ends)
    }

    /// Those that certificates are verified with.
    fn verifying(&self, now_ms: u64) -> impl Iterator<Item = (&Authority, Option<u64>)> {
        self.with_ends().filter(move |(_, end)| end.is_none_or(|end| now_ms < end))
    }

    /// With one more, which issues soon, and without those that are over.
    fn rotated(&self, new: Authority, now_ms: u64) -> Self {
        let mut authorities: Vec<Authority> = self.verifying(now_ms).map(|(authority, _)| authority.clone()).collect();
        // Of those that issue already only the last still does.
        let last = authorities.iter().rposition(|one| one.issues_from_ms <= now_ms).unwrap_or_default();
        authorities.iter_mut().take(last).for_each(|one| one.key = None);
        authorities.push(new);
        Self { authorities }
    }

    fn issuer(&self, now_ms: u64) -> Option<&Authority> {
        self.authorities.iter().rev().find(|one| one.issues_from_ms <= now_ms && one.key.is_some())
    }

    /// All that is sealed, with its place.
    pub(super) fn sealed(&mut self, app: &AppId) -> impl Iterator<Item = (String, &mut Sealed)> {
        let place = move |id: &str| Authority::place(app, id);
        self.authorities.iter_mut().filter_map(move |one| one.key.as_mut().map(|key| (place(&one.id), key)))
    }
}

impl Authority {
    fn place(app: &AppId, id: &str) -> String {
        format!("authority/{app}/{id}")
    }

    fn der(&self) -> Result<CertificateDer<'static>, CatalogueError> {
        let unreadable = |_| broken(&self.id, "its certificate is no base64");
        STANDARD.decode(&self.certificate).map(CertificateDer::from).map_err(unreadable)
    }

    fn pem(&self) -> String {
        pem(&self.certificate)
    }
}

/// What all authorities issue under.
fn issuing() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn pem(base64: &str) -> String {
    let lines = base64.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

fn unusable(error: impl std::fmt::Display) -> CatalogueError {
    CatalogueError::Rejected { reason: format!("the certificate cannot be made: {error}") }
}

fn broken(id: &str, reason: impl ToString) -> CatalogueError {
    CatalogueError::Corrupt { key: format!("authority {id}"), reason: reason.to_string() }
}

fn time_of(ms: u64) -> Result<OffsetDateTime, CatalogueError> {
    let secs = i64::try_from(ms / 1000).map_err(unusable)?;
    OffsetDateTime::from_unix_timestamp(secs).map_err(unusable)
}

fn uri(text: String) -> Result<SanType, CatalogueError> {
    Ok(SanType::URI(text.try_into().map_err(unusable)?))
}

impl Catalogue {
    /// The authorities that vouch for the app's peers, the oldest first: those of which good certificates may exist, and the
    /// next.
    #[must_use]
    pub fn published_authorities(&self, app: &AppId) -> Vec<PublishedAuthority> {
        let (view, now_ms) = (self.view(), self.clock.now_ms());
        let all = view.authorities.get(app).into_iter().flat_map(|all| all.verifying(now_ms));
        all.map(|(one, verifies_until_ms)| PublishedAuthority {
            id: one.id.clone(),
            certificate: one.pem(),
            issues_from_ms: one.issues_from_ms,
            verifies_until_ms,
        })
        .collect()
    }

    /// Gives the app a new authority, which issues from [`AUTHORITY_PUBLISHED_BEFORE_MS`] on; certificates of before stay good.
    /// With `at_once` it is the only one from now on: no certificate that was given before is good any more.
    ///
    /// # Errors
    /// [`CatalogueError::Rejected`] when there were too many rotations lately; when the log does not take it.
    pub async fn rotate_authority(&self, app: &AppId, at_once: bool) -> Result<(), CatalogueError> {
        let now_ms = self.clock.now_ms();
        if self.app(app).is_none() {
            return Err(CatalogueError::NotFound { what: "app", name: app.to_string() });
        }
        let from_ms = if at_once { now_ms } else { now_ms.saturating_add(AUTHORITY_PUBLISHED_BEFORE_MS) };
        let new = self.new_authority(app, from_ms)?;
        let id = new.id.clone();
        let place = Key::Authorities(app.clone());
        let within = Key::App(app.clone());
        let changed = self.change(&place, Some(&within), Vec::new(), |old: Option<&Authorities>| match old {
            Some(old) if !at_once => {
                let rotated = old.rotated(new.clone(), now_ms);
                // Too many: nothing changes, and the caller sees that its authority is not there.
                if rotated.authorities.len() > MAX_AUTHORITIES { old.clone() } else { rotated }
            }
            Some(_) | None => Authorities { authorities: vec![new.clone()] },
        });
        if changed.await?.authorities.iter().any(|one| one.id == id) {
            tracing::info!(%app, authority = id, at_once, "an app has a new authority for certificates");
            return Ok(());
        }
        let reason = format!(
            "the app has {MAX_AUTHORITIES} authorities already; the oldest go when their certificates have ended"
        );
        Err(CatalogueError::Rejected { reason })
    }

    /// Replaces the app's authority when it is old; makes one where there is none.
    ///
    /// # Errors
    /// As [`Self::rotate_authority`].
    pub async fn authority_if_due(&self, app: &AppId) -> Result<(), CatalogueError> {
        let (view, now_ms) = (self.view(), self.clock.now_ms());
        let newest = view.authorities.get(app).and_then(|all| all.authorities.last());
        match newest {
            // Nobody asked for years: what it would issue ended with it.
            Some(newest) if newest.ends_ms <= now_ms.saturating_add(MAX_CERTIFICATE_TTL_SECS * 1000) => {
                self.rotate_authority(app, true).await
            }
            Some(newest) if newest.issues_from_ms.saturating_add(ROTATE_AFTER_MS) <= now_ms => {
                match self.rotate_authority(app, false).await {
                    // It goes on with the old one.
                    Err(CatalogueError::Rejected { .. }) => Ok(()),
                    other => other,
                }
            }
            Some(_) => Ok(()),
            None => {
                // Of two processes that do so at once one wins, and both go on with its authority.
                let first = Authorities { authorities: vec![self.new_authority(app, now_ms)?] };
                self.known(app)?;
                self.create(&Key::Authorities(app.clone()), first, Vec::new()).await.map(drop)
            }
        }
    }

    fn new_authority(&self, app: &AppId, issues_from_ms: u64) -> Result<Authority, CatalogueError> {
        let now_ms = self.clock.now_ms();
        let ends_ms = issues_from_ms.saturating_add(LIFE_MS);
        let mut params = issuing();
        params.not_before = time_of(now_ms.saturating_sub(CLOCKS_BEHIND_MS))?;
        params.not_after = time_of(ends_ms)?;
        params.serial_number = Some(self.serial());
        params.subject_alt_names = vec![uri(format!("bigpeer://{app}"))?];
        let pair = KeyPair::generate().map_err(unusable)?;
        let made = params.self_signed(&pair).map_err(unusable)?;
        let id: String = params.key_identifier(&pair).iter().map(|byte| format!("{byte:02x}")).collect();
        let key = self.keyring.seal(&Authority::place(app, &id), pair.serialized_der(), self.ids.as_ref());
        let certificate = STANDARD.encode(made.der());
        Ok(Authority { key: Some(key.map_err(unusable)?), id, certificate, issues_from_ms, ends_ms })
    }

    /// Random, positive, and of one length.
    fn serial(&self) -> SerialNumber {
        let mut serial = [0; SERIAL_BYTES];
        self.ids.fill(&mut serial);
        serial[0] = (serial[0] & 0x7f) | 0x40;
        SerialNumber::from_slice(&serial)
    }

    /// A certificate for the key of `request`, for whoever was just given `granted` and may do what `permissions` says. It ends
    /// after `ttl_secs`, and never after the login.
    ///
    /// # Errors
    /// When the app has no authority ([`Self::authority_if_due`] makes one), or the certificate cannot be made.
    pub fn issue_certificate(
        &self,
        granted: &Granted,
        request: &CertificateRequest,
        permissions: &Permissions,
        ttl_secs: u64,
    ) -> Result<IssuedCertificate, CatalogueError> {
        let now_ms = self.clock.now_ms();
        let mut login = granted.token.clone();
        let missing = || CatalogueError::NotFound { what: "app", name: login.app.to_string() };
        let view = self.view();
        let authority = view.authorities.get(&login.app).and_then(|all| all.issuer(now_ms)).ok_or_else(missing)?;
        let pair = self.authority_key(&login.app, authority)?;
        let longest_ms = ttl_secs.min(MAX_CERTIFICATE_TTL_SECS).saturating_mul(1000);
        let ends = now_ms.saturating_add(longest_ms).min(granted.refresh_expires_at_ms).min(authority.ends_ms);
        (login.issued_at_secs, login.expires_at_secs) = (now_ms / 1000, ends / 1000);
        let digest = certificate::digest(permissions).map_err(unusable)?;

        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, login.site.to_string());
        params.subject_alt_names =
            certificate::names(&login, &digest).map_err(unusable)?.into_iter().map(uri).collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // In the mesh either end may be the one that connects.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(self.serial());
        params.not_before = time_of(now_ms.saturating_sub(CLOCKS_BEHIND_MS))?;
        // The last second that is good: an end is the first moment that is not.
        params.not_after = time_of((ends / 1000 * 1000).saturating_sub(1))?;
        let issuer = Issuer::new(issuing(), pair.as_ref());
        let made = params.signed_by(request, &issuer).map_err(unusable)?;
        let chain = pem(&STANDARD.encode(made.der())) + &authority.pem();
        Ok(IssuedCertificate { chain, expires_at_ms: ends / 1000 * 1000 })
    }

    fn authority_key(&self, app: &AppId, authority: &Authority) -> Result<Arc<KeyPair>, CatalogueError> {
        if let Some(ready) = self.authority_keys.get(&authority.id) {
            return Ok(ready);
        }
        let sealed = authority.key.as_ref().ok_or_else(|| broken(&authority.id, "its key is gone"))?;
        let der = self.keyring.open(&Authority::place(app, &authority.id), sealed);
        let der = der.map_err(|error| broken(&authority.id, error))?;
        let pair = KeyPair::try_from(der.as_slice()).map_err(|error| broken(&authority.id, error))?;
        let pair = Arc::new(pair);
        self.authority_keys.add(authority.id.clone(), Arc::clone(&pair), MAX_READY);
        Ok(pair)
    }

    /// Whose certificate `der` is, when an authority of the app that it names vouches for it now. Whether whoever it was given
    /// to is still let in, [`Self::certificate_holds`] says.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify_certificate(&self, der: &CertificateDer<'_>) -> Result<PeerCertificate, CertificateError> {
        let read = PeerCertificate::read(der)?;
        let parsed = EndEntityCert::try_from(der).map_err(|_| CertificateError::Unreadable)?;
        let (view, now_ms) = (self.view(), self.clock.now_ms());
        let algorithms = ring::default_provider().signature_verification_algorithms.all;
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now_ms));
        let authorities = view.authorities.get(&read.login.app).ok_or(CertificateError::Foreign)?;
        let mut refusal = CertificateError::Foreign;
        for (authority, _) in authorities.verifying(now_ms) {
            let Ok(trusted) = authority.der() else { continue };
            let Ok(anchor) = anchor_from_trusted_cert(&trusted) else { continue };
            let usage = KeyUsage::client_auth();
            match parsed.verify_for_usage(algorithms, &[anchor], &[], now, usage, None, None) {
                Ok(_) => return Ok(PeerCertificate { authority: Some(authority.id.clone()), ..read }),
                Err(error) => refusal = refusal_of(&error),
            }
        }
        Err(refusal)
    }

    /// Whether a certificate that was verified when it was shown is still good: nobody revoked the login that it was given for,
    /// and its authority was not replaced at once. An end that came since does not matter.
    ///
    /// # Errors
    /// [`ApiError::unauthorized`], whatever the reason.
    pub fn certificate_holds(&self, certificate: &PeerCertificate) -> Result<(), ApiError> {
        let (login, now_ms) = (&certificate.login, self.clock.now_ms());
        self.judge(&login.app, login)?;
        let view = self.view();
        let known = view.authorities.get(&login.app).is_some_and(|all| {
            all.authorities.iter().any(|one| certificate.authority.as_ref().is_some_and(|id| *id == one.id))
        });
        if known || certificate.expires_at_ms() <= now_ms { Ok(()) } else { Err(ApiError::unauthorized()) }
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "an open list of another crate; only the time is special")]
fn refusal_of(error: &webpki::Error) -> CertificateError {
    match error {
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => CertificateError::Expired,
        _ => CertificateError::Foreign,
    }
}
