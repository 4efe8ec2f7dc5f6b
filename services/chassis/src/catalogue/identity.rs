//! Who may come in besides API keys, and with what: providers that vouch for users, roles, and what was revoked.

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_crdt::{Object, Value};
use bigpeer_dql::Condition;
use bigpeer_log::MetaOp;
use bigpeer_types::{AppId, SiteId};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::keys::{Key, Name};
use super::{Catalogue, CatalogueError};
use crate::Permissions;
use crate::keyring::Sealed;
use crate::token::{AccessToken, Holder, User};

/// Most revocations of one app.
const MAX_REVOCATIONS: usize = 10_000;
/// How long a revocation is kept: longer than any login lives. In milliseconds.
const REVOKED_FOR_MS: u64 = 400 * 24 * 3600 * 1000;

/// A provider at rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provider {
    /// What it is.
    pub spec: ProviderSpec,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: u64,
}

/// What vouches for users, and what those may do whatever it says of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProviderSpec {
    /// How it vouches.
    pub kind: ProviderKind,
    /// Roles of all of its users.
    pub roles: Vec<Name>,
    /// What all of its users may do.
    pub permissions: Option<Permissions>,
    /// How long a login lasts at most before the provider is asked again, in seconds.
    pub session_secs: u64,
}

/// The kinds of providers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum ProviderKind {
    /// Somebody's server is asked.
    Webhook {
        /// Where.
        url: String,
        /// What requests are signed with; two while one is changed, the new one first.
        secrets: Vec<Sealed>,
    },
    /// Tokens of an OpenID Connect issuer.
    Oidc(Oidc),
    /// Everybody who has a token that all share: for development.
    Anonymous {
        /// That token.
        shared_token: Sealed,
    },
}

/// What is asked of a token of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oidc {
    /// What tokens must name as `iss`; where its keys are is found from here.
    pub issuer: String,
    /// One of these must be in `aud`.
    pub audiences: Vec<String>,
    /// The algorithms that are believed.
    pub algorithms: Vec<Algorithm>,
    /// The claim that names the user.
    pub user_claim: String,
    /// What conditions know as `:claims.KEY`, by the claim of the token.
    pub claims: BTreeMap<String, String>,
    /// The claim that names roles.
    pub roles_claim: Option<String>,
    /// The claim that holds permissions.
    pub permissions_claim: Option<String>,
}

/// Signatures of issuers that are believed. None with a shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSA, PKCS#1 v1.5, SHA-256.
    RS256,
    /// The same, SHA-384.
    RS384,
    /// The same, SHA-512.
    RS512,
    /// RSA, PSS, SHA-256.
    PS256,
    /// ECDSA on P-256.
    ES256,
    /// ECDSA on P-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

/// What a secret is sealed for.
#[must_use]
pub fn provider_place(app: &AppId, name: &Name) -> String {
    format!("provider/{app}/{name}")
}

impl Provider {
    pub(super) fn sealed(&mut self) -> Vec<&mut Sealed> {
        match &mut self.spec.kind {
            ProviderKind::Webhook { secrets, .. } => secrets.iter_mut().collect(),
            ProviderKind::Anonymous { shared_token } => vec![shared_token],
            ProviderKind::Oidc(_) => Vec::new(),
        }
    }
}

/// A role at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// What it allows.
    pub permissions: Permissions,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: u64,
}

/// Logins that are good no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Whose.
    #[serde(flatten)]
    pub what: Revoked,
    /// Logins up to this moment, in milliseconds since the epoch.
    pub before_ms: u64,
}

/// Whose logins are good no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Revoked {
    /// Of a user, whoever vouched for them.
    User(String),
    /// Of a device.
    Site(SiteId),
    /// Those made with an API key.
    Key(Name),
    /// Those whose claims this condition is true of.
    Condition(String),
    /// One.
    Login(String),
}

/// Revocations of an app, ready to be asked.
#[derive(Debug, Default)]
pub(crate) struct Revocations(Vec<(Revocation, Option<Condition>)>);

impl Revocations {
    pub(super) fn add(&mut self, revocation: Revocation) {
        let condition = match &revocation.what {
            Revoked::Condition(text) => Condition::parse(text).ok(),
            Revoked::User(_) | Revoked::Site(_) | Revoked::Key(_) | Revoked::Login(_) => None,
        };
        self.0.push((revocation, condition));
    }

    /// Whether one of them is about `token`. One that cannot be decided is.
    pub(crate) fn revoke(&self, token: &AccessToken) -> bool {
        let mut claims = None;
        self.0.iter().any(|(revocation, condition)| {
            token.logged_in_ms <= revocation.before_ms
                && match &revocation.what {
                    Revoked::User(id) => matches!(&token.holder, Holder::User(user) if user.id == *id),
                    Revoked::Site(site) => token.site == *site,
                    Revoked::Key(name) => matches!(&token.holder, Holder::Key(key) if key == name),
                    Revoked::Login(login) => token.login.as_ref() == Some(login),
                    Revoked::Condition(_) => {
                        let claims = claims.get_or_insert_with(|| object(&about(token)));
                        condition.as_ref().and_then(|condition| condition.holds(claims)).unwrap_or(true)
                    }
                }
        })
    }
}

/// What a condition of a revocation can name: the claims, and who they are of.
fn about(token: &AccessToken) -> Map<String, serde_json::Value> {
    let mut all = match &token.holder {
        Holder::User(user) => {
            let mut all = user.all_claims();
            all.insert("provider".to_owned(), user.provider.to_string().into());
            all.insert("roles".to_owned(), user.roles.iter().map(ToString::to_string).collect());
            all
        }
        Holder::Key(name) => Map::from_iter([("key".to_owned(), name.to_string().into())]),
    };
    all.insert("site".to_owned(), token.site.to_string().into());
    all
}

fn object(json: &Map<String, serde_json::Value>) -> Object {
    match Value::from_json(serde_json::Value::Object(json.clone())) {
        Ok(Value::Object(object)) => object,
        Ok(_) | Err(_) => Object::default(),
    }
}

impl User {
    /// What conditions know as `:claims`: what the provider said, and the user's id as `userID`.
    #[must_use]
    pub fn all_claims(&self) -> Map<String, serde_json::Value> {
        let mut claims = self.claims.clone();
        claims.insert("userID".to_owned(), self.id.clone().into());
        claims
    }
}

impl Catalogue {
    /// The app's provider of that name.
    #[must_use]
    pub fn provider(&self, app: &AppId, name: &Name) -> Option<Arc<Provider>> {
        self.view().providers.get(&(app.clone(), name.clone())).cloned()
    }

    /// The app's providers, in order of their names.
    #[must_use]
    pub fn providers(&self, app: &AppId) -> Vec<(Name, Arc<Provider>)> {
        of_app(&self.view().providers, app)
    }

    /// Makes the app's provider of that name what `make` makes of the one that is there. Its users go on.
    ///
    /// # Errors
    /// When there is no such app, `make` refuses, or the log does not take it.
    pub async fn put_provider<E: From<CatalogueError>>(
        &self,
        app: &AppId,
        name: &Name,
        make: impl FnOnce(Option<&Provider>) -> Result<ProviderSpec, E> + Send,
    ) -> Result<(Provider, bool), E> {
        self.known(app)?;
        let key = Key::Provider(app.clone(), name.clone());
        let old = self.get::<Provider>(&key).await?;
        let spec = make(old.as_ref())?;
        let now_ms = self.clock.now_ms();
        let new = |old: Option<&Provider>| Provider {
            spec: spec.clone(),
            created_ms: old.map_or(now_ms, |old| old.created_ms),
        };
        let stored = self.change(&key, Some(&Key::App(app.clone())), Vec::new(), new).await?;
        Ok((stored, old.is_none()))
    }

    /// Removes a provider: its users are let in no more, and neither are their tokens.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn delete_provider(&self, app: &AppId, name: &Name) -> Result<(), CatalogueError> {
        self.remove([Key::Provider(app.clone(), name.clone())]).await
    }

    /// The app's role of that name.
    #[must_use]
    pub fn role(&self, app: &AppId, name: &Name) -> Option<Arc<Role>> {
        self.view().roles.get(&(app.clone(), name.clone())).cloned()
    }

    /// The app's roles, in order of their names.
    #[must_use]
    pub fn roles(&self, app: &AppId) -> Vec<(Name, Arc<Role>)> {
        of_app(&self.view().roles, app)
    }

    /// Makes the app's role of that name, or changes what it allows: at once, also in open sessions. Says whether it is new.
    ///
    /// # Errors
    /// When there is no such app, or the log does not take it.
    pub async fn put_role(
        &self,
        app: &AppId,
        name: &Name,
        permissions: Permissions,
    ) -> Result<(Role, bool), CatalogueError> {
        self.known(app)?;
        let is_new = self.role(app, name).is_none();
        let now_ms = self.clock.now_ms();
        let new = |old: Option<&Role>| Role {
            permissions: permissions.clone(),
            created_ms: old.map_or(now_ms, |old| old.created_ms),
        };
        let within = Key::App(app.clone());
        let stored = self.change(&Key::Role(app.clone(), name.clone()), Some(&within), Vec::new(), new).await?;
        Ok((stored, is_new))
    }

    /// Removes a role: it allows nothing any more.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn delete_role(&self, app: &AppId, name: &Name) -> Result<(), CatalogueError> {
        self.remove([Key::Role(app.clone(), name.clone())]).await
    }

    /// The app's revocations by their ids.
    #[must_use]
    pub fn revocations(&self, app: &AppId) -> Vec<(Name, Revocation)> {
        let view = self.view();
        let of =
            view.revocations.get(app).map(|(ids, all)| ids.iter().cloned().zip(all.0.iter().map(|one| one.0.clone())));
        of.into_iter().flatten().collect()
    }

    /// Revokes every login that `what` is about and that was made until now: in open sessions, too. Cannot be taken back; who
    /// logs in again is let in again. Answers the revocation's id.
    ///
    /// # Errors
    /// [`CatalogueError::Rejected`] for a condition that cannot be understood, or too many; when there is no such app, or the
    /// log does not take it.
    pub async fn revoke(&self, app: &AppId, what: Revoked) -> Result<(Name, Revocation), CatalogueError> {
        self.known(app)?;
        let rejected = |reason: String| CatalogueError::Rejected { reason };
        if let Revoked::Condition(text) = &what {
            Condition::parse(text)
                .map_err(|error| rejected(format!("'{text}' is not a condition: {}", error.message)))?;
        }
        let now_ms = self.clock.now_ms();
        let over: Vec<MetaOp> = self
            .revocations(app)
            .into_iter()
            .filter(|(_, old)| old.before_ms.saturating_add(REVOKED_FOR_MS) < now_ms)
            .map(|(id, _)| MetaOp::Delete { key: Key::Revocation(app.clone(), id).encode() })
            .collect();
        if self.revocations(app).len() - over.len() >= MAX_REVOCATIONS {
            return Err(rejected(format!("an app has {MAX_REVOCATIONS} revocations at most; revoke by a condition")));
        }
        // In order of time.
        let id = format!("{now_ms:013}-{:08x}", self.ids.next_u64() >> 32);
        let id: Name = id.parse().map_err(|_| CatalogueError::Busy)?;
        let revocation = Revocation { what, before_ms: now_ms };
        self.create(&Key::Revocation(app.clone(), id.clone()), revocation.clone(), over).await?;
        Ok((id, revocation))
    }

    pub(super) fn known(&self, app: &AppId) -> Result<(), CatalogueError> {
        let missing = || CatalogueError::NotFound { what: "app", name: app.to_string() };
        self.app(app).map(drop).ok_or_else(missing)
    }
}

fn of_app<T>(all: &BTreeMap<(AppId, Name), Arc<T>>, app: &AppId) -> Vec<(Name, Arc<T>)> {
    all.iter().filter(|((of, _), _)| of == app).map(|((_, name), one)| (name.clone(), Arc::clone(one))).collect()
}
