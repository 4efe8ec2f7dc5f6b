//! Sessions of users: rules with their claims, roles that change, and revocation of what is open.

use bigpeer_chassis::{
    AccessToken, CatalogueError, Holder, LoginTimes, Permissions, ProviderKind, ProviderSpec, Revoked, User,
    provider_place,
};
use bigpeer_crdt::Value;
use bigpeer_protocol::pb::{CloseCode, FromGateway, RejectCode};
use bigpeer_types::{RandomIds, SiteId};
use serde_json::json;

use crate::world::{Author, Edit, Replica, World, flights, hello, name};

/// Reads and writes flights for which the condition holds.
fn only(condition: &str) -> Permissions {
    let access = json!({"queriesByCollection": {"flights": [condition]}});
    serde_json::from_value(json!({"qlVersion": 1, "read": access, "write": access})).unwrap()
}

/// A user of a provider whose users have the role `pilot`.
async fn user(world: &World, id: &str, carrier: &str) -> (SiteId, String, AccessToken) {
    let shared_token =
        world.catalogue.keyring().seal(&provider_place(&world.app, &name("idp")), b"shared", &RandomIds).unwrap();
    let kind = ProviderKind::Anonymous { shared_token };
    let spec = ProviderSpec { kind, roles: vec![name("pilot")], permissions: None, session_secs: 3600 };
    world.catalogue.put_provider::<CatalogueError>(&world.app, &name("idp"), |_| Ok(spec)).await.unwrap();
    let claims = [("carrier".to_owned(), carrier.into())].into_iter().collect();
    let user = User { provider: name("idp"), id: id.to_owned(), roles: Vec::new(), permissions: None, claims };
    let site = world.catalogue.allocate_site(&world.app).await.unwrap();
    let times = LoginTimes { token_ttl_secs: 3600, refresh_ttl_secs: 3600 };
    let holder = Holder::User(Box::new(user));
    let granted = world.catalogue.log_in(&world.app, site, holder, None, times).await.unwrap();
    (site, granted.access_token, granted.token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_claims_decide_what_is_read_and_written_and_a_changed_role_takes_effect() {
    let world = World::new().await;
    world.catalogue.put_role(&world.app, &name("pilot"), only("carrier = :claims.carrier")).await.unwrap();
    let mut writer = world.client().await;
    let mut author = Author::new(writer.site);
    writer.write(1, author.edit(&flights(), &[("a", Edit::flight("UA")), ("b", Edit::flight("DL"))])).await;
    let (site, token, _) = user(&world, "anna", "UA").await;
    let mut anna = world.session(site, &token, hello(site, &token)).await;
    let mut replica = Replica::default();
    anna.subscribe(1, "SELECT * FROM flights", None).await;
    anna.catch_up(&mut replica).await;
    assert_eq!(replica.ids(), ["a"]);
    let mut of_anna = Author::new(site);
    anna.push(1, of_anna.insert("mine", "UA")).await;
    anna.push(2, of_anna.insert("foreign", "DL")).await;
    let rejected = loop {
        match anna.next().await {
            FromGateway::Rejected(rejected) => break rejected,
            message => replica.apply(&message),
        };
    };
    assert_eq!((rejected.seq, rejected.code()), (2, RejectCode::RejectForbidden));
    // One with another claim, at the same time, under the same rule.
    let (site, token, _) = user(&world, "bert", "DL").await;
    let mut bert = world.session(site, &token, hello(site, &token)).await;
    let mut of_bert = Replica::default();
    bert.subscribe(1, "SELECT * FROM flights", None).await;
    bert.catch_up(&mut of_bert).await;
    assert_eq!(of_bert.ids(), ["b"]);

    world
        .catalogue
        .put_role(&world.app, &name("pilot"), only("carrier = :claims.carrier OR gate = 'A1'"))
        .await
        .unwrap();
    let gate = [("b", Edit::Set("gate", Value::String("A1".into())))];
    writer.write(2, author.edit(&flights(), &gate)).await;
    anna.until(&mut replica, |replica| replica.ids().contains(&"b".to_owned())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_sessions_of_who_is_revoked_are_closed_and_others_stay() {
    let world = World::new().await;
    world.catalogue.put_role(&world.app, &name("pilot"), only("true")).await.unwrap();
    let (site, token, said) = user(&world, "anna", "UA").await;
    let Holder::User(anna_id) = &said.holder else { panic!("{said:?}") };
    for what in [
        Revoked::User(anna_id.id.clone()),
        Revoked::Condition("carrier = 'UA'".to_owned()),
        Revoked::Site(site),
        Revoked::Login(said.login.clone().unwrap()),
    ] {
        // Each in a world of its own: revocations stay.
        let world = World::new().await;
        world.catalogue.put_role(&world.app, &name("pilot"), only("true")).await.unwrap();
        let (site, token, said) = user(&world, "anna", "UA").await;
        let (other_site, other_token, _) = user(&world, "bert", "DL").await;
        let mut anna = world.session(site, &token, hello(site, &token)).await;
        let mut bert = world.session(other_site, &other_token, hello(other_site, &other_token)).await;
        let what = match what {
            Revoked::Login(_) => Revoked::Login(said.login.unwrap()),
            Revoked::Site(_) => Revoked::Site(site),
            other => other,
        };
        world.catalogue.revoke(&world.app, what.clone()).await.unwrap();
        assert_eq!(anna.close().await.code(), CloseCode::CloseAccessRevoked, "{what:?}");
        bert.subscribe(1, "SELECT * FROM flights", None).await;
        let mut refused = world.socket().await;
        refused.send(hello(site, &token)).await;
        assert_eq!(refused.close().await.code(), CloseCode::CloseUnauthenticated, "{what:?}");
    }
    let mut gone = world.session(site, &token, hello(site, &token)).await;
    world.catalogue.delete_provider(&world.app, &name("idp")).await.unwrap();
    assert_eq!(gone.close().await.code(), CloseCode::CloseAccessRevoked);
}
