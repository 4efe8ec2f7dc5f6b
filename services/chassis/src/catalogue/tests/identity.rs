//! Users of providers: what they may, by whom it is said, and until when.

use serde_json::json;

use super::*;
use crate::{Holder, LoginTimes, ProviderKind, ProviderSpec, Revoked, Rule, User, provider_place};

const TIMES: LoginTimes = LoginTimes { token_ttl_secs: 3600, refresh_ttl_secs: 86_400 };

fn rules(conditions: &[&str]) -> Permissions {
    serde_json::from_value(json!({"qlVersion": 1, "read": {"queriesByCollection": {"cars": conditions}}})).unwrap()
}

impl World {
    async fn provider(&self, roles: &[&str], permissions: Option<Permissions>) {
        let place = provider_place(&self.app.id, &name("idp"));
        let shared_token = self.catalogue.keyring().seal(&place, b"shared", &RandomIds).unwrap();
        let kind = ProviderKind::Anonymous { shared_token };
        let roles = roles.iter().map(|role| name(role)).collect();
        let spec = ProviderSpec { kind, roles, permissions, session_secs: 86_400 };
        self.catalogue.put_provider::<CatalogueError>(&self.app.id, &name("idp"), |_| Ok(spec)).await.unwrap();
    }

    async fn user(&self, id: &str, roles: &[&str], claims: serde_json::Value) -> (SiteId, String) {
        let user = User {
            provider: name("idp"),
            id: id.to_owned(),
            roles: roles.iter().map(|role| name(role)).collect(),
            permissions: None,
            claims: claims.as_object().unwrap().clone(),
        };
        let site = self.catalogue.allocate_site(&self.app.id).await.unwrap();
        let holder = Holder::User(Box::new(user));
        let granted = self.catalogue.log_in(&self.app.id, site, holder, None, TIMES).await.unwrap();
        (site, granted.access_token)
    }

    fn read(&self, token: &str) -> Option<Vec<String>> {
        let permissions = self.catalogue.authenticate_token(&self.app.id, Door::Sync, token).ok()?.permissions();
        let cars = bigpeer_types::CollectionName::new("cars").unwrap();
        Some(match permissions.read.on(&cars) {
            Rule::Everything => vec!["everything".to_owned()],
            Rule::Nothing => Vec::new(),
            Rule::AnyOf(all) => all.to_vec(),
        })
    }
}

#[tokio::test]
async fn a_user_may_what_roles_and_provider_say_with_the_users_claims() {
    let world = world().await;
    world.provider(&["all"], Some(rules(&["open"]))).await;
    let (_, anna) = world.user("anna", &["clerk", "unknown"], json!({"store": "s1", "userID": "somebody else"})).await;
    assert_eq!(world.read(&anna), Some(vec!["open".to_owned()]), "roles that are not there allow nothing");
    for (role, rule) in
        [("clerk", "store = :claims.store"), ("all", "owner = :claims.userID AND level < :claims.level")]
    {
        world.catalogue.put_role(&world.app.id, &name(role), rules(&[rule])).await.unwrap();
    }
    let expected = vec!["open", "(owner = 'anna') AND (level < MISSING)", "store = 's1'"];
    assert_eq!(world.read(&anna).unwrap(), expected);
    let (_, bert) = world.user("bert", &[], json!({"store": "s2", "level": 3})).await;
    assert_eq!(world.read(&bert).unwrap(), ["open", "(owner = 'bert') AND (level < 3)"]);
    world.catalogue.delete_role(&world.app.id, &name("all")).await.unwrap();
    assert_eq!(world.read(&bert).unwrap(), ["open"]);
    world.catalogue.delete_provider(&world.app.id, &name("idp")).await.unwrap();
    assert_eq!((world.read(&anna), world.read(&bert)), (None, None));
}

#[tokio::test]
async fn who_is_revoked_is_out_until_the_next_login_and_others_stay() {
    let world = world().await;
    world.provider(&[], Some(rules(&["true"]))).await;
    let (key, _) = world.key("phones", None).await;
    let (site, anna) = world.user("anna", &[], json!({"team": "red"})).await;
    let (_, bert) = world.user("bert", &[], json!({"team": "blue"})).await;
    let (phone, _) = world.catalogue.issue_token(&world.app.id, SiteId::new(99), &key, 60).unwrap();
    let let_in = || [&anna, &bert, &phone].map(|token| world.read(token).is_some());
    for (what, expected) in [
        (Revoked::User("nobody".to_owned()), [true, true, true]),
        (Revoked::Condition("team = 'green'".to_owned()), [true, true, true]),
        (Revoked::Condition("team = 'blue' AND userID = 'bert' AND provider = 'idp'".to_owned()), [true, false, true]),
        (Revoked::Key(name("phones")), [true, false, false]),
        (Revoked::Site(site), [false, false, false]),
    ] {
        world.catalogue.revoke(&world.app.id, what.clone()).await.unwrap();
        assert_eq!(let_in(), expected, "{what:?}");
    }
    world.clock.advance(1);
    let (_, again) = world.user("anna", &[], json!({"team": "red"})).await;
    assert!(world.read(&again).is_some());
    world.catalogue.revoke(&world.app.id, Revoked::User("anna".to_owned())).await.unwrap();
    assert_eq!(world.read(&again), None);
    let refused = world.catalogue.revoke(&world.app.id, Revoked::Condition("team =".to_owned())).await.unwrap_err();
    assert!(matches!(refused, CatalogueError::Rejected { .. }));
    assert_eq!(world.catalogue.revocations(&world.app.id).len(), 6);
    let other = open(&world.log, &world.clock).await;
    assert_eq!(other.revocations(&world.app.id), world.catalogue.revocations(&world.app.id));
    assert!(other.authenticate_token(&world.app.id, Door::Sync, &anna).is_err());
}

#[tokio::test]
async fn what_does_not_fit_in_a_token_is_refused_when_it_is_made() {
    let world = world().await;
    world.provider(&[], None).await;
    let user = User {
        provider: name("idp"),
        id: "u".to_owned(),
        roles: Vec::new(),
        permissions: None,
        claims: json!({"long": "x".repeat(9000)}).as_object().unwrap().clone(),
    };
    let holder = Holder::User(Box::new(user));
    let refused = world.catalogue.log_in(&world.app.id, SiteId::new(1), holder, None, TIMES).await.unwrap_err();
    assert!(refused.to_string().contains("name roles instead"), "{refused}");
}

#[tokio::test]
async fn ten_thousand_wrong_credentials_open_nothing_and_a_good_one_still_does() {
    let world = world().await;
    world.provider(&[], Some(rules(&["true"]))).await;
    let (_, key) = world.key("ci", None).await;
    let (_, token) = world.user("anna", &[], json!({})).await;
    let good = [key.expose().to_owned(), token];
    for n in 0..10_000_usize {
        let of = &good[n % 2];
        // One character of it is another one, or it ends somewhere, or goes on.
        let (at, mut wrong) = (n / 2 % of.len(), of.clone().into_bytes());
        match n / 2 / of.len() % 3 {
            0 => wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' },
            1 => wrong.truncate(at),
            _ => wrong.insert(at, b'A'),
        }
        let wrong = String::from_utf8(wrong).unwrap();
        let refused = world.catalogue.authenticate_credential(&world.app.id, Door::Data, &wrong);
        assert_eq!(refused, Err(ApiError::unauthorized()), "{wrong}");
    }
    for good in &good {
        assert!(world.catalogue.authenticate_credential(&world.app.id, Door::Data, good).is_ok());
    }
}
