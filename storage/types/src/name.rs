//! Names that come from outside: app ids and collection names, checked once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{MAX_APP_ID_BYTES, MAX_COLLECTION_NAME_BYTES};

/// Why a name was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// An app id with other characters, or too long or short.
    #[error("'{0}' is not an app id; use 1 to {MAX_APP_ID_BYTES} of a-z, 0-9 and '-', not starting with '-'")]
    App(String),
    /// A collection name that is empty, too long or holds control characters.
    #[error("'{0}' is not a collection name; use 1 to {MAX_COLLECTION_NAME_BYTES} bytes without control characters")]
    Collection(String),
}

fn shortened(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

macro_rules! name_type {
    ($name:ident, $check:ident, $error:path) => {
        impl $name {
            /// Checks `text`.
            ///
            /// # Errors
            /// When it breaks the rules of this kind of name.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if $check(text) { Ok(Self(Arc::from(text))) } else { Err($error(shortened(text))) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// An app's id: one database, isolated in every way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppId(Arc<str>);
name_type!(AppId, is_app_id, NameError::App);

fn is_app_id(text: &str) -> bool {
    (1..=MAX_APP_ID_BYTES).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// A collection's name. Names that start with `__` are the system's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CollectionName(Arc<str>);
name_type!(CollectionName, is_collection_name, NameError::Collection);

fn is_collection_name(text: &str) -> bool {
    (1..=MAX_COLLECTION_NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl CollectionName {
    /// Whether the name is reserved for collections that bigpeer fills itself.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with("__")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_ids_are_checked() {
        for good in ["a", "flights-2013", "0", &"x".repeat(MAX_APP_ID_BYTES)] {
            assert_eq!(AppId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "A", "a/b", "a.b", "ü", "a\0", &"x".repeat(MAX_APP_ID_BYTES + 1)] {
            assert!(AppId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn collection_names_are_checked() {
        for good in ["flights", "Größe", "a b", "__devices", "a/../b"] {
            assert_eq!(CollectionName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a\nb", "\u{7f}", &"x".repeat(MAX_COLLECTION_NAME_BYTES + 1)] {
            assert!(CollectionName::new(bad).is_err(), "{bad:?}");
        }
        assert!(CollectionName::new("__devices").unwrap().is_system());
        assert!(!CollectionName::new("devices").unwrap().is_system());
    }

    #[test]
    fn an_error_never_echoes_control_characters() {
        assert!(!AppId::new("a\u{1b}[31m").unwrap_err().to_string().contains('\u{1b}'));
    }
}
