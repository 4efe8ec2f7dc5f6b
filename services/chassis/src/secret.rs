//! Secrets that people carry: API keys and admin tokens. Shown once; what is stored is a prefix to find them by and the
//! SHA-256 of the whole (they are 256 random bits, so a slow hash would add nothing).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bigpeer_types::IdGenerator;
use sha2::{Digest, Sha256};

const FIND_BYTES: usize = 9;
const SECRET_BYTES: usize = 32;

/// A secret in the clear. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A new one: `{kind}_{12 characters to find it by}_{43 random characters}`.
    pub(crate) fn generate(kind: &str, ids: &dyn IdGenerator) -> Self {
        let mut find = [0; FIND_BYTES];
        ids.fill(&mut find);
        Self::generate_as(kind, &URL_SAFE_NO_PAD.encode(find).replace('_', "-"), ids)
    }

    /// A new one that is found by `find`.
    pub(crate) fn generate_as(kind: &str, find: &str, ids: &dyn IdGenerator) -> Self {
        let mut secret = [0; SECRET_BYTES];
        ids.fill(&mut secret);
        Self(format!("{kind}_{find}_{}", URL_SAFE_NO_PAD.encode(secret)))
    }

    /// The text, to be shown once.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The part of `text` by which a secret is found: everything before its second `_`.
pub(crate) fn prefix_of(text: &str) -> Option<&str> {
    let first = text.find('_')?;
    let second = text.get(first + 1..)?.find('_')?;
    text.get(..first + 1 + second)
}

/// The hash at rest.
pub(crate) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Whether two byte strings are equal, in a time that depends on their lengths only.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0_u8, |sum, (x, y)| std::hint::black_box(sum | (x ^ y)));
    a.len() == b.len() && std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_types::{RandomIds, SeededIds};

    #[test]
    fn a_secret_is_found_by_its_prefix_and_never_printed() {
        let secret = Secret::generate("bpk", &SeededIds::new(1));
        let prefix = prefix_of(secret.expose()).unwrap();
        assert_eq!(prefix.len(), "bpk_".len() + 12);
        assert!(secret.expose().starts_with(prefix));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_ne!(Secret::generate("bpk", &RandomIds), Secret::generate("bpk", &RandomIds));
        for text in ["", "_", "bpk_abc", "bpk"] {
            assert_eq!(prefix_of(text), None, "{text}");
        }
    }

    #[test]
    fn equality_is_equality() {
        assert!(equal(b"abc", b"abc") && equal(b"", b""));
        assert!(!equal(b"abc", b"abd") && !equal(b"abc", b"ab") && !equal(b"", b"a"));
    }
}
