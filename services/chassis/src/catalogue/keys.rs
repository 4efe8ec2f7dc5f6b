//! Every key that the catalogue has in the log's metadata space, with layout and lifetime. Keys are text; the parts that
//! vary cannot hold `/`, so every key reads back in one way only.

use std::fmt;
use std::str::FromStr;

use bigpeer_types::AppId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::CatalogueError;

const MAX_NAME_BYTES: usize = 63;

/// A name that a client chose for a tenant, an app or a key: 1 to 63 of `a-z A-Z 0-9 . _ -`, not starting with `.` or `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A text that is not a [`Name`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "'{0}' is not a name; use 1 to {MAX_NAME_BYTES} of a-z, A-Z, 0-9, '.', '_' and '-', not starting with '.' or '-'"
)]
pub struct NameError(String);

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = (1..=MAX_NAME_BYTES).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError(text.chars().take(80).flat_map(char::escape_default).collect()))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key of the metadata space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `catalogue/tenants/{tenant}`: a customer. Until it is deleted.
    Tenant(Name),
    /// `catalogue/names/{tenant}/{name}`: the id of the tenant's app of that name. As long as the app.
    AppName(Name, Name),
    /// `catalogue/apps/{app}`: an app. Until it is deleted.
    App(AppId),
    /// `catalogue/keys/{app}/{name}`: an API key's hash, permissions and end. Until it is deleted, also after its end.
    ApiKey(AppId, Name),
    /// `catalogue/token-keys/{app}`: what access tokens were signed with before they had keys of two halves. Read by nobody;
    /// until an app of that time has a new key.
    TokenKey(AppId),
    /// `catalogue/signing-keys/{app}`: the keys of the app's access tokens. As long as the app.
    SigningKeys(AppId),
    /// `catalogue/authorities/{app}`: the authorities that vouch for the app's peers by certificates. From when the first peer
    /// asked for one, as long as the app.
    Authorities(AppId),
    /// `catalogue/providers/{app}/{name}`: what vouches for users. Until it is deleted.
    Provider(AppId, Name),
    /// `catalogue/roles/{app}/{name}`: what a role allows. Until it is deleted.
    Role(AppId, Name),
    /// `catalogue/revocations/{app}/{id}`: logins that are good no more; ids are in order of time. Longer than a login lives.
    Revocation(AppId, Name),
    /// `catalogue/quotas/{app}`: what the app may use; none: whatever there is. Until it is deleted.
    Quota(AppId),
    /// `catalogue/admins/{name}`: an admin token's hash. Until it is deleted.
    Admin(Name),
    /// `sites/{app}`: the greatest site given away. For ever, or sites would be given twice. Outside `catalogue/`: a login
    /// changes it, and nobody needs to know.
    Sites(AppId),
    /// `logins/{app}/{id}`: hashes of the refresh tokens of a login, and whose it is. Until it ends. Outside `catalogue/`: every
    /// use of a token changes one, and only its device asks.
    Login(AppId, String),
    /// `usage/{app}`: what the app has used, as far as it is written. As long as the app. Outside `catalogue/`: it changes all the time.
    Usage(AppId),
    /// `deleted/{app}`: an app that is no more. For ever: its id is given to no other.
    Deleted(AppId),
    /// `given-up/{app}`: an app that was being made and never will be. For ever, so that its making fails however late.
    GivenUp(AppId),
    /// `used/keys/{app}/{name}`: when an API key was used last. As long as the key. Outside `catalogue/`, as it changes all the
    /// time.
    KeyUse(AppId, Name),
    /// `used/admins/{name}`: when an admin token was used last. As long as the token.
    AdminUse(Name),
    /// `audit/{time:013}-{random}`: what was asked of the admin API. For 90 days, or until there are too many.
    Audit(String),
}

impl Key {
    /// What every key that is cached and watched starts with.
    pub const WATCHED: &'static str = "catalogue/";
    /// What the keys of logins start with.
    pub const LOGINS: &'static str = "logins/";
    /// What the keys of apps that are no more start with.
    pub const DELETED: &'static str = "deleted/";
    /// What the keys of uses of admin tokens start with.
    pub const ADMIN_USES: &'static str = "used/admins/";
    /// What the keys of the audit log start with.
    pub const AUDIT: &'static str = "audit/";

    /// What the keys of everything that is below an app start with, and of nothing else: all that goes with it.
    #[must_use]
    pub fn below(app: &AppId) -> [String; 6] {
        ["catalogue/keys", "catalogue/providers", "catalogue/roles", "catalogue/revocations", "logins", "used/keys"]
            .map(|place| format!("{place}/{app}/"))
    }

    /// The key's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let text = match self {
            Self::Tenant(tenant) => format!("catalogue/tenants/{tenant}"),
            Self::AppName(tenant, name) => format!("catalogue/names/{tenant}/{name}"),
            Self::App(app) => format!("catalogue/apps/{app}"),
            Self::ApiKey(app, name) => format!("catalogue/keys/{app}/{name}"),
            Self::TokenKey(app) => format!("catalogue/token-keys/{app}"),
            Self::SigningKeys(app) => format!("catalogue/signing-keys/{app}"),
            Self::Authorities(app) => format!("catalogue/authorities/{app}"),
            Self::Provider(app, name) => format!("catalogue/providers/{app}/{name}"),
            Self::Role(app, name) => format!("catalogue/roles/{app}/{name}"),
            Self::Revocation(app, id) => format!("catalogue/revocations/{app}/{id}"),
            Self::Quota(app) => format!("catalogue/quotas/{app}"),
            Self::Usage(app) => format!("usage/{app}"),
            Self::Admin(name) => format!("catalogue/admins/{name}"),
            Self::Sites(app) => format!("sites/{app}"),
            Self::Login(app, id) => format!("logins/{app}/{id}"),
            Self::Deleted(app) => format!("deleted/{app}"),
            Self::GivenUp(app) => format!("given-up/{app}"),
            Self::KeyUse(app, name) => format!("used/keys/{app}/{name}"),
            Self::AdminUse(name) => format!("used/admins/{name}"),
            Self::Audit(id) => format!("audit/{id}"),
        };
        text.into()
    }

    /// That nothing stands here.
    pub(crate) fn missing(&self) -> CatalogueError {
        let (what, name) = if let Self::Tenant(name) = self {
            ("tenant", name.to_string())
        } else if let Self::App(app) = self {
            ("app", app.to_string())
        } else {
            ("entry", String::from_utf8_lossy(&self.encode()).into_owned())
        };
        CatalogueError::NotFound { what, name }
    }

    /// Reads a key; none for bytes that are no key of the catalogue.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let parts: Vec<&str> = std::str::from_utf8(bytes).ok()?.split('/').collect();
        Some(match parts.as_slice() {
            ["catalogue", "tenants", tenant] => Self::Tenant(tenant.parse().ok()?),
            ["catalogue", "names", tenant, name] => Self::AppName(tenant.parse().ok()?, name.parse().ok()?),
            ["catalogue", "apps", app] => Self::App(app.parse().ok()?),
            ["catalogue", "keys", app, name] => Self::ApiKey(app.parse().ok()?, name.parse().ok()?),
            ["catalogue", "token-keys", app] => Self::TokenKey(app.parse().ok()?),
            ["catalogue", "signing-keys", app] => Self::SigningKeys(app.parse().ok()?),
            ["catalogue", "quotas", app] => Self::Quota(app.parse().ok()?),
            ["usage", app] => Self::Usage(app.parse().ok()?),
            ["catalogue", "authorities", app] => Self::Authorities(app.parse().ok()?),
            ["catalogue", "admins", name] => Self::Admin(name.parse().ok()?),
            ["catalogue", "providers", app, name] => Self::Provider(app.parse().ok()?, name.parse().ok()?),
            ["catalogue", "roles", app, name] => Self::Role(app.parse().ok()?, name.parse().ok()?),
            ["catalogue", "revocations", app, id] => Self::Revocation(app.parse().ok()?, id.parse().ok()?),
            ["logins", app, id] if !id.is_empty() => Self::Login(app.parse().ok()?, (*id).to_owned()),
            ["deleted", app] => Self::Deleted(app.parse().ok()?),
            ["given-up", app] => Self::GivenUp(app.parse().ok()?),
            ["used", "keys", app, name] => Self::KeyUse(app.parse().ok()?, name.parse().ok()?),
            ["used", "admins", name] => Self::AdminUse(name.parse().ok()?),
            ["audit", id] if !id.is_empty() => Self::Audit((*id).to_owned()),
            ["sites", app] => Self::Sites(app.parse().ok()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Strategy<Value = Key> {
        let name = || "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,62}".prop_map(|text| text.parse::<Name>().unwrap());
        let app = || "[a-z0-9][a-z0-9-]{0,62}".prop_map(|text| AppId::new(&text).unwrap());
        prop_oneof![
            name().prop_map(Key::Tenant),
            (name(), name()).prop_map(|(tenant, name)| Key::AppName(tenant, name)),
            app().prop_map(Key::App),
            (app(), name()).prop_map(|(app, name)| Key::ApiKey(app, name)),
            app().prop_map(Key::TokenKey),
            app().prop_map(Key::SigningKeys),
            app().prop_map(Key::Authorities),
            name().prop_map(Key::Admin),
            app().prop_map(Key::Sites),
            app().prop_map(Key::Quota),
            app().prop_map(Key::Usage),
            (app(), name()).prop_map(|(app, name)| Key::Provider(app, name)),
            (app(), name()).prop_map(|(app, name)| Key::Role(app, name)),
            (app(), name()).prop_map(|(app, name)| Key::Revocation(app, name)),
            (app(), "[a-zA-Z0-9-]{1,20}").prop_map(|(app, id)| Key::Login(app, id)),
            app().prop_map(Key::Deleted),
            app().prop_map(Key::GivenUp),
            (app(), name()).prop_map(|(app, name)| Key::KeyUse(app, name)),
            name().prop_map(Key::AdminUse),
            "[0-9a-f-]{1,30}".prop_map(Key::Audit),
        ]
    }

    proptest! {
        #[test]
        fn keys_round_trip_and_never_meet(a in keys(), b in keys()) {
            prop_assert_eq!(Key::decode(&a.encode()), Some(a.clone()));
            prop_assert_eq!(a.encode() == b.encode(), a == b);
        }

        #[test]
        fn foreign_bytes_are_no_key(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(key) = Key::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }
    }

    #[test]
    fn names_cannot_leave_their_place() {
        for bad in ["", "a/b", "..", ".", "-a", "a b", "ä", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
