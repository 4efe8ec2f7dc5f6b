//! The keys that an app's access tokens are signed with, and their rotation.
//!
//! # Consistency
//! A new key is published some time before it signs, so that every process (and whoever caches the published keys) knows it
//! before it meets a token of it. A key that was replaced verifies until what it signed has ended, and is then forgotten; its
//! secret half is forgotten with the next rotation.

use std::sync::Arc;

use bigpeer_log::MetaOp;
use bigpeer_types::{AppId, IdGenerator};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};

use super::keys::Key;
use super::records::{self, hex};
use super::{Catalogue, CatalogueError};
use crate::keyring::{Keyring, Sealed};

/// How long before it signs a key is published, in milliseconds.
pub const PUBLISHED_BEFORE_MS: u64 = 5 * 60 * 1000;
/// Age at which a key is replaced by itself, in milliseconds.
pub const ROTATE_AFTER_MS: u64 = 30 * DAY_MS;
/// Longest life of an access token, in seconds.
pub const MAX_TOKEN_TTL_SECS: u64 = 30 * 24 * 3600;
/// How long after its last token a replaced key is kept: ended tokens of older peers are exchanged for new ones.
const KEPT_MS: u64 = 90 * DAY_MS;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Most keys of an app at once.
const MAX_KEYS: usize = 16;
/// Most secret halves that are kept ready to sign.
pub(super) const MAX_READY: usize = 1024;

/// The keys of an app, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SigningKeys {
    keys: Vec<SigningKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SigningKey {
    /// 16 hexadecimal digits.
    kid: String,
    #[serde(with = "hex")]
    public: [u8; 32],
    /// The secret half, until the key was replaced.
    seed: Option<Sealed>,
    /// From when on it signs, in milliseconds since the epoch.
    signs_from_ms: u64,
}

/// A key as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedKey {
    /// Its id.
    pub kid: String,
    /// The public half.
    pub public: [u8; 32],
    /// From when on it signs, in milliseconds since the epoch.
    pub signs_from_ms: u64,
    /// Until when what it signed is good; none as long as it is not replaced.
    pub verifies_until_ms: Option<u64>,
}

impl SigningKeys {
    /// One new key, which signs at once.
    pub(super) fn first(
        app: &AppId,
        now_ms: u64,
        keyring: &Keyring,
        ids: &dyn IdGenerator,
    ) -> Result<Self, CatalogueError> {
        Ok(Self { keys: vec![SigningKey::generate(app, now_ms, keyring, ids)?] })
    }

    /// With one more key, which signs soon, and without those that are over.
    fn rotated(&self, new: SigningKey, now_ms: u64) -> Self {
        let mut keys: Vec<_> = self.published().zip(&self.keys).collect();
        keys.retain(|(known, _)| known.verifies_until_ms.is_none_or(|end| now_ms < end.saturating_add(KEPT_MS)));
        let mut keys: Vec<SigningKey> = keys.into_iter().map(|(_, key)| key.clone()).collect();
        // Of those that sign already only the last still does.
        let last = keys.iter().rposition(|key| key.signs_from_ms <= now_ms).unwrap_or_default();
        keys.iter_mut().take(last).for_each(|key| key.seed = None);
        keys.push(new);
        Self { keys }
    }

    pub(super) fn published(&self) -> impl Iterator<Item = PublishedKey> + '_ {
        let next = self.keys.iter().skip(1).map(|next| Some(next.signs_from_ms)).chain([None]);
        self.keys.iter().zip(next).map(|(key, next)| PublishedKey {
            kid: key.kid.clone(),
            public: key.public,
            signs_from_ms: key.signs_from_ms,
            verifies_until_ms: next.map(|next| next.saturating_add(MAX_TOKEN_TTL_SECS * 1000)),
        })
    }

    /// Key ids and public halves of all that verify.
    pub(crate) fn verifiers(&self) -> impl Iterator<Item = (&str, &[u8; 32])> {
        self.keys.iter().map(|key| (key.kid.as_str(), &key.public))
    }

    fn signer(&self, now_ms: u64) -> Option<&SigningKey> {
        self.keys.iter().rev().find(|key| key.signs_from_ms <= now_ms && key.seed.is_some())
    }

    /// Whether the newest key is old enough to be replaced.
    fn is_due(&self, now_ms: u64) -> bool {
        self.keys.last().is_none_or(|newest| newest.signs_from_ms.saturating_add(ROTATE_AFTER_MS) <= now_ms)
    }

    /// All that is sealed, with its place.
    pub(super) fn sealed(&mut self, app: &AppId) -> impl Iterator<Item = (String, &mut Sealed)> {
        let place = move |kid: &str| SigningKey::place(app, kid);
        self.keys.iter_mut().filter_map(move |key| key.seed.as_mut().map(|seed| (place(&key.kid), seed)))
    }
}

impl SigningKey {
    fn generate(
        app: &AppId,
        signs_from_ms: u64,
        keyring: &Keyring,
        ids: &dyn IdGenerator,
    ) -> Result<Self, CatalogueError> {
        let mut seed = [0; 32];
        ids.fill(&mut seed);
        let kid = format!("{:016x}", ids.next_u64());
        let unusable = |reason: String| CatalogueError::Rejected { reason };
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| unusable(error.to_string()))?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| unusable("no public key".to_owned()))?;
        let sealed = keyring.seal(&Self::place(app, &kid), &seed, ids);
        Ok(Self { seed: Some(sealed.map_err(|error| unusable(error.to_string()))?), kid, public, signs_from_ms })
    }

    fn place(app: &AppId, kid: &str) -> String {
        format!("signing-key/{app}/{kid}")
    }
}

impl Catalogue {
    /// The keys that the app's tokens are verified with, the oldest first: those of which good tokens may exist, and the next.
    #[must_use]
    pub fn published_keys(&self, app: &AppId) -> Vec<PublishedKey> {
        let (view, now_ms) = (self.view(), self.clock.now_ms());
        let keys = view.signing.get(app).into_iter().flat_map(|keys| keys.published());
        keys.filter(|key| key.verifies_until_ms.is_none_or(|end| now_ms < end)).collect()
    }

    /// Gives the app a new key, which signs from [`PUBLISHED_BEFORE_MS`] on; what was signed before stays good. With
    /// `at_once` it is the only key from now on: no token that was given before is good any more.
    ///
    /// # Errors
    /// [`CatalogueError::Rejected`] when there were too many rotations lately; when the log does not take it.
    pub async fn rotate_signing_keys(&self, app: &AppId, at_once: bool) -> Result<(), CatalogueError> {
        let now_ms = self.clock.now_ms();
        if self.app(app).is_none() {
            return Err(CatalogueError::NotFound { what: "app", name: app.to_string() });
        }
        let from_ms = if at_once { now_ms } else { now_ms.saturating_add(PUBLISHED_BEFORE_MS) };
        let new = SigningKey::generate(app, from_ms, &self.keyring, self.ids.as_ref())?;
        let kid = new.kid.clone();
        let place = Key::SigningKeys(app.clone());
        let within = Key::App(app.clone());
        let changed = self.change(&place, Some(&within), Vec::new(), |old: Option<&SigningKeys>| match old {
            Some(old) if !at_once => {
                let rotated = old.rotated(new.clone(), now_ms);
                // Too many: nothing changes, and the caller sees that its key is not there.
                if rotated.keys.len() > MAX_KEYS { old.clone() } else { rotated }
            }
            Some(_) | None => SigningKeys { keys: vec![new.clone()] },
        });
        if changed.await?.keys.iter().any(|key| key.kid == kid) {
            tracing::info!(%app, kid, at_once, "an app has a new key for its tokens");
            return Ok(());
        }
        let reason = format!("the app has {MAX_KEYS} keys already; the oldest go when their tokens have ended");
        Err(CatalogueError::Rejected { reason })
    }

    /// Replaces the app's key when it is old; makes one where there is none.
    ///
    /// # Errors
    /// As [`Self::rotate_signing_keys`].
    pub async fn rotate_if_due(&self, app: &AppId) -> Result<(), CatalogueError> {
        let (view, now_ms) = (self.view(), self.clock.now_ms());
        match view.signing.get(app) {
            Some(keys) if !keys.is_due(now_ms) => Ok(()),
            Some(_) => match self.rotate_signing_keys(app, false).await {
                // It goes on with the old one.
                Err(CatalogueError::Rejected { .. }) => Ok(()),
                other => other,
            },
            None if view.apps.contains_key(app) => {
                let first = SigningKeys::first(app, now_ms, &self.keyring, self.ids.as_ref())?;
                self.create(&Key::SigningKeys(app.clone()), first, Vec::new()).await.map(drop)
            }
            None => Ok(()),
        }
    }

    /// The pair that signs now, with its id.
    pub(crate) fn signer(&self, app: &AppId) -> Result<(String, Arc<Ed25519KeyPair>), CatalogueError> {
        let missing = || CatalogueError::NotFound { what: "app", name: app.to_string() };
        let view = self.view();
        let key = view.signing.get(app).and_then(|keys| keys.signer(self.clock.now_ms())).ok_or_else(missing)?;
        if let Some(ready) = self.ready.get(&key.kid) {
            return Ok((key.kid.clone(), ready));
        }
        let corrupt = |reason: String| CatalogueError::Corrupt { key: format!("signing-keys/{app}"), reason };
        let sealed = key.seed.as_ref().ok_or_else(missing)?;
        let seed =
            self.keyring.open(&SigningKey::place(app, &key.kid), sealed).map_err(|error| corrupt(error.to_string()))?;
        let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, &key.public);
        let pair = Arc::new(pair.map_err(|error| corrupt(error.to_string()))?);
        self.ready.add(key.kid.clone(), Arc::clone(&pair), MAX_READY);
        Ok((key.kid.clone(), pair))
    }

    /// What makes an app's first key, for the commit that makes the app.
    pub(super) fn first_signing_key(&self, app: &AppId) -> Result<MetaOp, CatalogueError> {
        let keys = SigningKeys::first(app, self.clock.now_ms(), &self.keyring, self.ids.as_ref())?;
        Ok(MetaOp::Put { key: Key::SigningKeys(app.clone()).encode(), value: records::encode(&keys)? })
    }
}
