//! What is to be done with a collection besides keeping it: how it is published, and when its documents expire. Part of the
//! manifest, so that whoever compacts finds it there, and of every backup.

use serde::{Deserialize, Serialize};

/// Shortest time between two versions of a compatible table, in seconds.
pub const MIN_INTERVAL_SECS: u64 = 10;

/// Shortest time to live, in seconds.
pub const MIN_EXPIRY_SECS: u64 = 60;

/// A collection's settings. The default: it is kept, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectionSettings {
    /// Whether and how it is published as a Delta Lake table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publication: Option<Publication>,
    /// Whether its documents are deleted some time after their last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Expiry>,
}

/// How a collection is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// For which readers.
    pub mode: PublicationMode,
    /// Least time between two versions, in seconds; of compatible tables only.
    #[serde(default = "default_interval_secs")]
    pub interval_secs: u64,
}

/// For which readers a collection is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublicationMode {
    /// Every reader of Delta Lake: files with rows that do not count are written anew before a version is published.
    Compatible,
    /// Readers that know deletion vectors: nothing is written anew for it, and every manifest is a version.
    DeletionVectors,
}

/// When documents expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expiry {
    /// How long after its last change reached the server a document is deleted, in seconds.
    pub after_secs: u64,
}

const fn default_interval_secs() -> u64 {
    300
}

impl CollectionSettings {
    /// Whether the settings are within their limits.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), String> {
        if self.publication.is_some_and(|publication| publication.interval_secs < MIN_INTERVAL_SECS) {
            return Err(format!("interval_secs must be at least {MIN_INTERVAL_SECS}"));
        }
        if self.expiry.is_some_and(|expiry| expiry.after_secs < MIN_EXPIRY_SECS) {
            return Err(format!("after_secs must be at least {MIN_EXPIRY_SECS}"));
        }
        Ok(())
    }

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
