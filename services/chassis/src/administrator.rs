//! Who asks the admin API: somebody with an admin token, or with an API key that opens the admin API of its app; and how far
//! their hands reach.

use axum::http::HeaderMap;

use crate::authenticate::bearer;
use crate::catalogue::{AdminScope, App, AuditCaller, Catalogue, Name};
use crate::secret;
use crate::{ApiError, ApiKey};

/// Who administers something, after it was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Administrator {
    /// What they showed.
    pub credential: Credential,
    /// What its secret begins with.
    pub prefix: String,
    /// What they administer.
    pub reach: Reach,
    /// When it ends, in milliseconds since the epoch; never, without.
    pub expires_at_ms: Option<u64>,
}

/// What an administrator showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The admin token of this name.
    Token(Name),
    /// The API key of this name in its app.
    Key(Name),
}

/// What an administrator administers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The whole server.
    Operator,
    /// A tenant, its apps and all below them.
    Tenant(Name),
    /// An app and all below it.
    App(Box<App>),
}

impl Reach {
    /// Whether all of `tenant` is within it.
    #[must_use]
    pub fn covers_tenant(&self, tenant: &Name) -> bool {
        match self {
            Self::Operator => true,
            Self::Tenant(own) => own == tenant,
            Self::App(_) => false,
        }
    }

    /// Whether `app` is within it.
    #[must_use]
    pub fn covers(&self, app: &App) -> bool {
        match self {
            Self::Operator => true,
            Self::Tenant(own) => *own == app.tenant,
            Self::App(own) => own.id == app.id,
        }
    }

    /// The tenant that it is of, or within.
    #[must_use]
    pub const fn tenant(&self) -> Option<&Name> {
        match self {
            Self::Operator => None,
            Self::Tenant(own) => Some(own),
            Self::App(own) => Some(&own.tenant),
        }
    }
}

impl Administrator {
    /// As the audit log names them.
    #[must_use]
    pub fn audited(&self) -> AuditCaller {
        match (&self.credential, &self.reach) {
            (Credential::Key(name), Reach::App(app)) => AuditCaller::Key { app: app.id.clone(), name: name.clone() },
            (Credential::Token(name) | Credential::Key(name), _) => AuditCaller::Token(name.clone()),
        }
    }
}

impl Catalogue {
    /// Who asks the admin API. What they may do there is for [`crate::admin`] to say.
    ///
    /// # Errors
    /// `unauthorized`, whatever the reason.
    pub fn authenticate_admin(&self, headers: &HeaderMap) -> Result<Administrator, ApiError> {
        let credential = bearer(headers).unwrap_or_default();
        self.may_try(credential)?;
        let found = self.find_administrator(credential);
        match &found {
            Ok(_) => self.was_right(credential),
            Err(_) if credential.is_empty() => {}
            Err(_) => self.was_wrong(),
        }
        found
    }

    fn find_administrator(&self, credential: &str) -> Result<Administrator, ApiError> {
        let view = self.view();
        let now_ms = self.clock().now_ms();
        let prefix = secret::prefix_of(credential);
        let token = prefix.and_then(|prefix| view.admins_by_prefix.get(prefix));
        let token = token.and_then(|name| Some((name, view.admins.get(name)?)));
        let key = prefix.and_then(|prefix| view.admin_keys.get(prefix));
        let key: Option<(&App, &ApiKey)> = key.and_then(|of| Some((view.apps.get(&of.0)?, view.keys.get(of)?)));
        // The same work for a token that is there and one that is not.
        let expected = token.map(|(_, token)| token.hash).or(key.map(|(_, key)| key.hash));
        let matches = secret::equal(&expected.unwrap_or([0; 32]), &secret::hash(credential));
        let refused = || {
            let mut refusal = ApiError::unauthorized();
            refusal.message = "no valid admin token; send one as 'Authorization: Bearer TOKEN'".to_owned();
            refusal
        };
        match (token, key) {
            (Some((name, token)), _) if matches && token.is_active(now_ms) => {
                let reach = match &token.scope {
                    AdminScope::Operator => Reach::Operator,
                    // A tenant that is gone has nothing to be administered.
                    AdminScope::Tenant(tenant) if !view.tenants.contains_key(tenant) => return Err(refused()),
                    AdminScope::Tenant(tenant) => Reach::Tenant(tenant.clone()),
                };
                if let Some(used) = view.admin_uses.get(name) {
                    used.note(now_ms);
                }
                Ok(Administrator {
                    credential: Credential::Token(name.clone()),
                    prefix: token.prefix.clone(),
                    reach,
                    expires_at_ms: token.expires_at_ms,
                })
            }
            (None, Some((app, key))) if matches && key.is_active(now_ms) => {
                if let Some(used) = view.key_uses.get(&(app.id.clone(), key.name.clone())) {
                    used.note(now_ms);
                }
                Ok(Administrator {
                    credential: Credential::Key(key.name.clone()),
                    prefix: key.prefix.clone(),
                    reach: Reach::App(Box::new(app.clone())),
                    expires_at_ms: key.expires_at_ms,
                })
            }
            (Some(_) | None, _) => Err(refused()),
        }
    }
}
