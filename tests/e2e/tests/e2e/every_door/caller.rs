//! Who comes to the doors: an API key and a user with claims, each with rules that change; and what the naive model says that
//! they may see.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::history::{Documents, History, Stored, mark_of};
use super::rules::{Chance, Grant, claims, drawn};
use super::world::{App, World};

/// What somebody may read of the documents, at one time.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// Any of them is enough. Each with a number of its own, which its text says.
    grants: Vec<(Grant, u64)>,
    claims: Json,
    /// Grows with every change.
    serial: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) is_user: bool,
    pub(super) credential: String,
    /// What a peer of this caller writes as.
    pub(super) site: u64,
    /// Of a peer; a user's is the credential.
    pub(super) access_token: String,
    pub(super) view: View,
}

impl View {
    pub(super) fn allows(&self, document: &Json) -> bool {
        self.grants.iter().any(|(grant, _)| grant.allows(document, &self.claims))
    }

    /// Whether it allows some versions of documents, and not others.
    fn splits(&self, history: &History) -> bool {
        history.is_split(|version| self.allows(version))
    }

    /// Whether there is no rule for the collection.
    pub(super) fn is_nothing(&self) -> bool {
        self.grants.iter().all(|(grant, _)| matches!(grant, Grant::Nothing))
    }

    /// Whether it is the whole collection, whatever is in it.
    pub(super) fn is_whole(&self) -> bool {
        self.grants.iter().any(|(grant, _)| grant.is_whole(&self.claims))
    }

    /// Equal for what a session takes for the same rules.
    pub(super) fn scope(&self) -> String {
        match (self.is_whole(), self.is_nothing()) {
            (true, _) => "everything".to_owned(),
            (_, true) => "nothing".to_owned(),
            _ => self.describe(),
        }
    }

    /// Those of `documents` that may be seen.
    pub(super) fn of<'a>(&'a self, documents: &'a Documents) -> Vec<&'a Stored> {
        documents.values().filter(|stored| self.allows(&stored.json)).collect()
    }

    /// The marks of all versions that may be seen, if they are there.
    pub(super) fn marks(&self, history: &History) -> BTreeSet<String> {
        history.versions.values().filter(|version| self.allows(version)).map(mark_of).collect()
    }

    pub(super) fn describe(&self) -> String {
        let texts: Vec<_> = self.grants.iter().map(|(grant, serial)| grant.texts(*serial)).collect();
        format!("rules {texts:?}\n  claims {}", self.claims)
    }
}

/// Permissions for a grant on the documents.
fn permissions((grant, serial): &(Grant, u64)) -> Json {
    let mut queries = json!({"beat": ["true"], "system:collections": ["true"]});
    if let Some(texts) = grant.texts(*serial) {
        queries["docs"] = json!(texts);
    }
    json!({"read": {"queriesByCollection": queries}, "write": {"everything": true}})
}

impl Caller {
    pub(super) async fn key(world: &World, app: &App, chance: &Chance, history: &History) -> Self {
        let draw = || View { grants: vec![(Grant::random(chance, false), 1)], claims: json!({}), serial: 1 };
        let view = drawn(chance, draw, |view| view.splits(history));
        let key = world.put_key(&app.id, "part", &permissions(&view.grants[0])).await.expect("a new key");
        let (site, access_token) = world.log_in_with_key(app, &key).await;
        Self { is_user: false, credential: key, site, access_token, view }
    }

    pub(super) async fn user(world: &World, app: &App, chance: &Chance, history: &History) -> Self {
        let grants = || vec![(Grant::random(chance, true), 1), (Grant::random(chance, true), 1)];
        let draw = || View { grants: grants(), claims: known(claims(chance, 1)), serial: 1 };
        let view = drawn(chance, draw, |view| view.splits(history));
        for (role, grant) in ["r0", "r1"].into_iter().zip(&view.grants) {
            world.put_role(app, role, &permissions(grant)).await;
        }
        let (site, token) = world.log_in(app, &view.claims, &["r0", "r1"], None).await;
        Self { is_user: true, credential: token.clone(), site, access_token: token, view }
    }

    /// What the rules are to be next, and the role that says so.
    pub(super) fn next_rules(&self, chance: &Chance, history: &History) -> (View, usize) {
        let draw = || {
            let mut view = self.view.clone();
            view.serial += 1;
            let which = chance.below(view.grants.len());
            view.grants[which] = (Grant::random(chance, self.is_user), view.serial);
            (view, which)
        };
        drawn(chance, draw, |(view, _)| view.splits(history))
    }

    /// Puts rules in force.
    pub(super) async fn put_rules(&mut self, world: &World, app: &App, (view, which): (View, usize)) {
        let permissions = permissions(&view.grants[which]);
        if self.is_user {
            world.put_role(app, &format!("r{which}"), &permissions).await;
        } else {
            world.put_key(&app.id, "part", &permissions).await;
        }
        self.view = view;
    }

    /// What a user's claims are to be next.
    pub(super) fn next_claims(&self, chance: &Chance, history: &History) -> View {
        let serial = self.view.serial + 1;
        let draw = || View { claims: known(claims(chance, serial)), serial, ..self.view.clone() };
        drawn(chance, draw, |view| view.splits(history))
    }

    /// Logs in again with other claims, as the same site.
    pub(super) async fn put_claims(&mut self, world: &World, app: &App, view: View) {
        let (site, token) = world.log_in(app, &view.claims, &["r0", "r1"], Some(&self.access_token)).await;
        assert_eq!(site, self.site, "who logs in again keeps the site");
        (self.credential, self.access_token) = (token.clone(), token);
        self.view = view;
    }
}

/// Claims as rules know them: with the user's id.
fn known(mut claims: Json) -> Json {
    claims["userID"] = json!("u");
    claims
}
