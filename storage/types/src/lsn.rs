//! `Lsn`: where a transaction stands in its app's log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Log sequence number. Strictly increasing within an app, never reused, **not dense**: only compare, never count.
///
/// 12 big-endian bytes, so that byte order is log order (FoundationDB's versionstamp is 10 of them).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lsn {
    /// The commit that holds the transaction; what HTTP calls the transaction id.
    pub version: u64,
    /// The position within that commit.
    pub order: u32,
}

impl Lsn {
    /// Before every transaction: a cursor that has seen nothing.
    pub const ZERO: Self = Self { version: 0, order: 0 };
    /// After every transaction.
    pub const MAX: Self = Self { version: u64::MAX, order: u32::MAX };
    /// Length of the byte form.
    pub const BYTES: usize = 12;

    /// The position `order` of commit `version`.
    #[must_use]
    pub const fn new(version: u64, order: u32) -> Self {
        Self { version, order }
    }

    /// Byte form; byte order is log order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.version.to_be_bytes());
        out[8..].copy_from_slice(&self.order.to_be_bytes());
        out
    }

    /// Reads the byte form.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self { version: u64::from_be_bytes([a, b, c, d, e, f, g, h]), order: u32::from_be_bytes([i, j, k, l]) }
    }
}

/// `version.order`, the form of logs and cursors in JSON.
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.version, self.order)
    }
}

/// Text that is not an LSN.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not a log sequence number; expected VERSION.ORDER, two unsigned integers")]
pub struct LsnParseError(String);

impl FromStr for Lsn {
    type Err = LsnParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (version, order) = text.split_once('.')?;
            Some(Self { version: version.parse().ok()?, order: order.parse().ok()? })
        };
        parse().ok_or_else(|| LsnParseError(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_and_text_round_trip_and_keep_order(a: (u64, u32), b: (u64, u32)) {
            let (a, b) = (Lsn::new(a.0, a.1), Lsn::new(b.0, b.1));
            prop_assert_eq!(Lsn::from_bytes(a.to_bytes()), a);
            prop_assert_eq!(a.to_string().parse::<Lsn>().unwrap(), a);
            prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
        }
    }

    #[test]
    fn text_that_is_not_an_lsn_is_refused() {
        for text in ["", "1", "1.", ".1", "-1.0", "1.2.3", "1.4294967296"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
