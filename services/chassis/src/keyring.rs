//! Secrets at rest: sealed with AES-256-GCM under a master key that is not stored beside them. Several master keys can be in
//! use while one replaces another: the first seals, all of them open.
//!
//! # Layout
//! `v1:KEY:BASE64`: the id of the master key, then nonce (12 bytes), ciphertext and tag (16). The place where it is stored is
//! authenticated with it: a sealed secret cannot be moved to another record. `plain:BASE64` is what a catalogue without a
//! master key keeps.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bigpeer_types::IdGenerator;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

const KEY_BYTES: usize = 32;
/// Most master keys at once: more than a rotation needs.
const MAX_KEYS: usize = 8;

/// Why master keys, or what they sealed, cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyringError {
    /// Not a list of master keys. The text is not shown: it holds secrets.
    #[error(
        "line {line} of the master keys is not 32 bytes as 64 hexadecimal digits or base64; `openssl rand -hex 32` makes one"
    )]
    Malformed {
        /// The line, from 1.
        line: usize,
    },
    /// No key, or more than are allowed.
    #[error("there must be 1 to {MAX_KEYS} master keys, one a line, the newest first")]
    Count,
    /// Sealed with a key that was not given.
    #[error("it was sealed with the master key {key}, which is not among those given; add it behind the newest")]
    Unknown {
        /// Its id.
        key: String,
    },
    /// Not what was sealed here, or changed since.
    #[error("it is not what was sealed in this place")]
    Broken,
}

/// A secret at rest. Says nothing of it when printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl Sealed {
    /// The id of the master key that sealed it; none when none did.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.0.strip_prefix("v1:").and_then(|rest| rest.split_once(':')).map(|(key, _)| key)
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({})", self.key().unwrap_or("plain"))
    }
}

struct MasterKey {
    id: String,
    key: LessSafeKey,
}

/// The master keys, the newest first. Cheap to clone.
#[derive(Clone, Default)]
pub struct Keyring(Arc<[MasterKey]>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.ids()).finish()
    }
}

impl Keyring {
    /// No master key: secrets are stored as they are. For tests and tools that keep nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads master keys, one a line, the newest first; lines that are empty or begin with `#` are left out.
    ///
    /// # Errors
    /// [`KeyringError::Malformed`], [`KeyringError::Count`].
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut keys = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let malformed = || KeyringError::Malformed { line: at + 1 };
            keys.push(master_key(&key_bytes(line).ok_or_else(malformed)?).ok_or_else(malformed)?);
        }
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(KeyringError::Count);
        }
        Ok(Self(keys.into()))
    }

    /// A new master key as a line for [`Self::parse`].
    #[must_use]
    pub fn generate(ids: &dyn IdGenerator) -> String {
        let mut bytes = [0; KEY_BYTES];
        ids.fill(&mut bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Ids of the keys, the newest first: no secrets.
    #[must_use]
    pub fn ids(&self) -> Vec<&str> {
        self.0.iter().map(|key| key.id.as_str()).collect()
    }

    /// Seals `secret` for `place` with the newest key.
    ///
    /// # Errors
    /// [`KeyringError::Broken`] for a secret beyond what the cipher takes.
    pub fn seal(&self, place: &str, secret: &[u8], ids: &dyn IdGenerator) -> Result<Sealed, KeyringError> {
        let Some(master) = self.0.first() else {
            return Ok(Sealed(format!("plain:{}", URL_SAFE_NO_PAD.encode(secret))));
        };
        let mut nonce = [0; NONCE_LEN];
        ids.fill(&mut nonce);
        let mut sealed = secret.to_vec();
        master
            .key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place.as_bytes()), &mut sealed)
            .map_err(|_| KeyringError::Broken)?;
        let mut all = nonce.to_vec();
        all.append(&mut sealed);
        Ok(Sealed(format!("v1:{}:{}", master.id, URL_SAFE_NO_PAD.encode(all))))
    }

    /// The secret that was sealed for `place`.
    ///
    /// # Errors
    /// [`KeyringError::Unknown`], [`KeyringError::Broken`].
    pub fn open(&self, place: &str, sealed: &Sealed) -> Result<Vec<u8>, KeyringError> {
        let broken = |_| KeyringError::Broken;
        if let Some(plain) = sealed.0.strip_prefix("plain:") {
            return URL_SAFE_NO_PAD.decode(plain).map_err(|_| KeyringError::Broken);
        }
        let rest = sealed.0.strip_prefix("v1:").ok_or(KeyringError::Broken)?;
        let (id, text) = rest.split_once(':').ok_or(KeyringError::Broken)?;
        let master = self.0.iter().find(|key| key.id == id);
        let master = master.ok_or_else(|| KeyringError::Unknown { key: id.chars().take(16).collect() })?;
        let all = URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyringError::Broken)?;
        let (nonce, sealed) = all.split_at_checked(NONCE_LEN).ok_or(KeyringError::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(broken)?;
        let mut opened = sealed.to_vec();
        let length = master.key.open_in_place(nonce, Aad::from(place.as_bytes()), &mut opened).map_err(broken)?.len();
        opened.truncate(length);
        Ok(opened)
    }

    /// Whether the newest key sealed it: otherwise it should be sealed anew.
    #[must_use]
    pub fn is_current(&self, sealed: &Sealed) -> bool {
        self.0.first().is_none_or(|newest| sealed.key() == Some(newest.id.as_str()))
    }

    /// The same secret, sealed with the newest key.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn reseal(&self, place: &str, sealed: &Sealed, ids: &dyn IdGenerator) -> Result<Sealed, KeyringError> {
        self.seal(place, &self.open(place, sealed)?, ids)
    }

    /// Refuses what cannot be opened because its key is not here.
    ///
    /// # Errors
    /// [`KeyringError::Unknown`].
    pub fn knows(&self, sealed: &Sealed) -> Result<(), KeyringError> {
        match sealed.key() {
            Some(key) if !self.0.iter().any(|known| known.id == key) => {
                Err(KeyringError::Unknown { key: key.chars().take(16).collect() })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn key_bytes(text: &str) -> Option<[u8; KEY_BYTES]> {
    if text.len() == 2 * KEY_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let mut out = [0; KEY_BYTES];
        for (place, at) in out.iter_mut().zip((0..).step_by(2)) {
            *place = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
        }
        return Some(out);
    }
    STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok()?.try_into().ok()
}

fn master_key(bytes: &[u8; KEY_BYTES]) -> Option<MasterKey> {
    let digest = Sha256::new().chain_update(b"bigpeer master key").chain_update(bytes).finalize();
    let id = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Some(MasterKey { id, key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_types::SeededIds;
    use proptest::prelude::*;

    fn keys(lines: &[&str]) -> Keyring {
        Keyring::parse(&lines.join("\n")).unwrap()
    }

    fn line(seed: u64) -> String {
        Keyring::generate(&SeededIds::new(seed))
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_in_its_place_only(secret in prop::collection::vec(any::<u8>(), 0..200), flip in any::<prop::sample::Index>()) {
            let (ids, ring) = (SeededIds::new(7), keys(&[&line(1)]));
            let sealed = ring.seal("here", &secret, &ids).unwrap();
            prop_assert_eq!(ring.open("here", &sealed).unwrap(), secret.clone());
            prop_assert_eq!(ring.open("there", &sealed), Err(KeyringError::Broken));
            prop_assert!(sealed != ring.seal("here", &secret, &ids).unwrap(), "every sealing has a nonce of its own");
            let text = sealed.0.split(':').nth(2).unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            let at = flip.index(bytes.len());
            bytes[at] ^= 1;
            let broken = Sealed(format!("v1:{}:{}", ring.ids()[0], URL_SAFE_NO_PAD.encode(bytes)));
            prop_assert_eq!(ring.open("here", &broken), Err(KeyringError::Broken));
        }
    }

    #[test]
    fn a_new_master_key_seals_and_old_ones_still_open() {
        let ids = SeededIds::new(7);
        let (old, new) = (line(1), line(2));
        let sealed = keys(&[&old]).seal("x", b"secret", &ids).unwrap();
        let both = keys(&["# newest first", &new, "", &old]);
        assert!(!both.is_current(&sealed));
        let again = both.reseal("x", &sealed, &ids).unwrap();
        assert!(both.is_current(&again));
        assert_eq!(keys(&[&new]).open("x", &again).unwrap(), b"secret");
        let error = keys(&[&new]).open("x", &sealed).unwrap_err();
        assert!(matches!(&error, KeyringError::Unknown { key } if keys(&[&old]).ids() == [key.as_str()]), "{error}");
        assert_eq!(keys(&[&new]).knows(&sealed), Err(error));
        let plain = Keyring::none().seal("x", b"secret", &ids).unwrap();
        assert_eq!(both.open("x", &plain).unwrap(), b"secret");
        assert!(!both.is_current(&plain) && Keyring::none().is_current(&plain));
    }

    #[test]
    fn keys_are_read_in_two_spellings_and_never_shown() {
        let hex = line(3);
        let base64 = STANDARD.encode(key_bytes(&hex).unwrap());
        assert_eq!(keys(&[&hex]).ids(), keys(&[&base64]).ids());
        let ring = keys(&[&hex]);
        let sealed = ring.seal("x", b"secret", &SeededIds::new(1)).unwrap();
        let shown = format!("{ring:?} {sealed:?}");
        assert!(!shown.contains(&hex) && !shown.contains(&sealed.0[12..]), "{shown}");
        for bad in ["abc", &hex[1..], "not base64 at all", &format!("{hex}00")] {
            let error = Keyring::parse(&format!("\n{bad}")).unwrap_err();
            assert_eq!(error, KeyringError::Malformed { line: 2 });
            assert!(!error.to_string().contains(bad));
        }
        assert_eq!(Keyring::parse("# nothing\n").unwrap_err(), KeyringError::Count);
    }
}
