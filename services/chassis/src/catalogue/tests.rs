//! The catalogue over a log in memory: what is stored, races, expiry, watching, and who gets in.

use std::collections::BTreeSet;

use axum::http::{HeaderMap, HeaderValue, header};
use bigpeer_log::MemoryLog;
use bigpeer_types::{ManualClock, RandomIds};

use super::*;
use crate::{Door, Permissions, Principal, Secret, TokenAge};

mod authorities;
mod identity;
mod quota;
mod signing;
mod tenancy;

struct World {
    log: Arc<MemoryLog>,
    clock: Arc<ManualClock>,
    catalogue: Arc<Catalogue>,
    app: App,
}

async fn open(log: &Arc<MemoryLog>, clock: &Arc<ManualClock>) -> Arc<Catalogue> {
    Catalogue::open(Arc::clone(log) as _, Arc::clone(clock) as _, Arc::new(RandomIds)).await.unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn world() -> World {
    let (log, clock) = (Arc::new(MemoryLog::new()), Arc::new(ManualClock::new(1_000_000)));
    let catalogue = open(&log, &clock).await;
    catalogue.create_tenant(&name("acme")).await.unwrap();
    let app = catalogue.create_app(&name("acme"), &name("flights")).await.unwrap();
    World { log, clock, catalogue, app }
}

impl World {
    async fn key(&self, text: &str, expires_at_ms: Option<u64>) -> (ApiKey, Secret) {
        let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms, ..Default::default() };
        let (key, secret) = self.catalogue.put_api_key(&self.app.id, &name(text), spec).await.unwrap();
        (key, secret.unwrap())
    }
}

fn headers(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    headers
}

#[tokio::test]
async fn only_hashes_are_stored_and_a_secret_is_shown_once() {
    let world = world().await;
    let (key, secret) = world.key("ci", None).await;
    let admin = world.catalogue.create_admin(&name("root")).await.unwrap().unwrap();
    let spec =
        ApiKeySpec { permissions: Permissions::read_only(), expires_at_ms: Some(2_000_000), ..Default::default() };
    let (again, second) = world.catalogue.put_api_key(&world.app.id, &name("ci"), spec).await.unwrap();
    assert_eq!((second, again.prefix, again.expires_at_ms), (None, key.prefix, Some(2_000_000)));
    assert_eq!(again.permissions, Permissions::read_only());
    assert_eq!(world.catalogue.create_admin(&name("root")).await.unwrap(), None);
    let stored = world.log.metadata().range(b"", None, 1000).await.unwrap();
    for (key, value) in &stored {
        for secret in [&secret, &admin] {
            let hidden = &secret.expose()[17..];
            assert!(!String::from_utf8_lossy(&value.value).contains(hidden), "{key:?}");
        }
        assert!(value.value.starts_with(b"{\"version\":1,"), "{key:?}");
    }
    assert!(stored.len() >= 5);
}

#[tokio::test]
async fn creating_is_idempotent_and_survives_a_new_process() {
    let world = world().await;
    assert_eq!(world.catalogue.create_app(&name("acme"), &name("flights")).await.unwrap(), world.app);
    let other = world.catalogue.create_app(&name("acme"), &name("trains")).await.unwrap();
    assert_ne!(other.id, world.app.id);
    let missing = world.catalogue.create_app(&name("nobody"), &name("x")).await.unwrap_err();
    assert_eq!(missing, CatalogueError::NotFound { what: "tenant", name: "nobody".to_owned() });
    let again = open(&world.log, &world.clock).await;
    assert_eq!(again.app(&world.app.id), Some(world.app.clone()));
    assert_eq!(again.app_named(&name("acme"), &name("trains")), Some(other));
    assert_eq!((again.apps().len(), again.tenants().len()), (2, 1));
}

#[tokio::test]
async fn racing_creations_make_one() {
    let world = world().await;
    let others = [open(&world.log, &world.clock).await, open(&world.log, &world.clock).await];
    let (a, b) = (name("acme"), name("race"));
    let (x, y, z) =
        tokio::join!(others[0].create_app(&a, &b), others[1].create_app(&a, &b), world.catalogue.create_app(&a, &b));
    let (x, y, z) = (x.unwrap(), y.unwrap(), z.unwrap());
    assert_eq!((&x, &x), (&y, &z));
    assert_eq!(world.catalogue.apps().len(), 2);
}

#[tokio::test]
async fn no_site_is_given_twice() {
    let world = world().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (catalogue, app) = (open(&world.log, &world.clock).await, world.app.id.clone());
        tasks.spawn(async move {
            let mut sites = Vec::new();
            for _ in 0..25 {
                sites.push(catalogue.allocate_site(&app).await.unwrap());
            }
            sites
        });
    }
    let sites: Vec<SiteId> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(sites.iter().collect::<BTreeSet<_>>().len(), 100);
    let nobody = AppId::new("nobody").unwrap();
    assert!(matches!(world.catalogue.allocate_site(&nobody).await, Err(CatalogueError::NotFound { .. })));
}

#[tokio::test]
async fn another_process_sees_a_change_without_asking() {
    let world = world().await;
    let other = open(&world.log, &world.clock).await;
    let mut changes = other.changes();
    let (key, secret) = world.key("ci", None).await;
    while other.api_key(&world.app.id, &key.name).is_none() {
        changes.changed().await.unwrap();
    }
    assert!(other.authenticate_credential(&world.app.id, Door::Data, secret.expose()).is_ok());
    world.catalogue.delete_api_key(&world.app.id, &key.name).await.unwrap();
    assert!(world.catalogue.authenticate_credential(&world.app.id, Door::Data, secret.expose()).is_err());
    while other.api_key(&world.app.id, &key.name).is_some() {
        changes.changed().await.unwrap();
    }
    assert_eq!(other.is_fresh(), Ok(()));
}

#[tokio::test]
async fn everyone_who_may_not_enter_gets_the_same_answer() {
    let world = world().await;
    let other = world.catalogue.create_app(&name("acme"), &name("other")).await.unwrap();
    let (_, secret) = world.key("ci", None).await;
    let (_, ending) = world.key("ending", Some(1_000_500)).await;
    let good = secret.expose().to_owned();
    let admin = world.catalogue.create_admin(&name("root")).await.unwrap().unwrap();
    for value in [format!("Bearer {good}"), format!("bearer {good}"), format!("BEARER   {good} "), good.clone()] {
        let principal = world.catalogue.authenticate(&world.app.id, Door::Data, &headers(&value)).unwrap();
        assert!(matches!(principal, Principal::ApiKey { name, .. } if name.to_string() == "ci"), "{value}");
    }
    assert!(world.catalogue.authenticate(&world.app.id, Door::Data, &headers(ending.expose())).is_ok());
    world.clock.advance(500);
    let expected = Err(ApiError::unauthorized());
    let unknown = AppId::new("unknown").unwrap();
    for (app, value) in [
        (&world.app.id, String::new()),
        (&world.app.id, "Bearer".to_owned()),
        (&world.app.id, format!("Basic {good}")),
        (&world.app.id, format!("Bearer {good}x")),
        (&world.app.id, format!("Bearer {}", &good[..good.len() - 1])),
        (&world.app.id, "Bearer bpk_abc_def".to_owned()),
        (&world.app.id, format!("Bearer {}", ending.expose())),
        (&world.app.id, format!("Bearer {}", admin.expose())),
        (&other.id, format!("Bearer {good}")),
        (&unknown, format!("Bearer {good}")),
    ] {
        assert_eq!(world.catalogue.authenticate(app, Door::Data, &headers(&value)), expected, "{value}");
    }
    assert_eq!(world.catalogue.authenticate(&world.app.id, Door::Data, &HeaderMap::new()), expected);
    assert_eq!(
        world.catalogue.authenticate_admin(&headers(admin.expose())).map(|admin| admin.reach),
        Ok(crate::Reach::Operator)
    );
    assert!(world.catalogue.authenticate_admin(&headers(&good)).is_err());
    assert!(world.catalogue.authenticate_admin(&HeaderMap::new()).is_err());
}

#[tokio::test]
async fn a_token_opens_its_app_as_its_site_until_it_or_its_key_ends() {
    let world = world().await;
    let other = world.catalogue.create_app(&name("acme"), &name("other")).await.unwrap();
    let (key, _) = world.key("phones", None).await;
    let site = world.catalogue.allocate_site(&world.app.id).await.unwrap();
    let (token, ends) = world.catalogue.issue_token(&world.app.id, site, &key, 60).unwrap();
    let principal =
        world.catalogue.authenticate(&world.app.id, Door::Data, &headers(&format!("Bearer {token}"))).unwrap();
    assert!(
        matches!(&principal, Principal::Peer { site: its, expires_at_ms, .. } if *its == site && *expires_at_ms == ends)
    );
    assert_eq!(*principal.permissions(), Permissions::all());
    assert!(world.catalogue.authenticate_token(&other.id, Door::Sync, &token).is_err());
    world.clock.set(ends);
    assert!(world.catalogue.authenticate_token(&world.app.id, Door::Sync, &token).is_err());
    assert!(world.catalogue.verify_token(&world.app.id, &token, TokenAge::MayHaveEnded).is_ok());
    world.catalogue.delete_api_key(&world.app.id, &key.name).await.unwrap();
    assert!(world.catalogue.verify_token(&world.app.id, &token, TokenAge::MayHaveEnded).is_err());
}

#[tokio::test]
async fn a_token_never_outlives_its_key() {
    let world = world().await;
    let (key, _) = world.key("short", Some(1_010_000)).await;
    let (_, ends) = world.catalogue.issue_token(&world.app.id, SiteId::new(1), &key, 3600).unwrap();
    assert_eq!(ends, 1_010_000);
}

#[tokio::test]
async fn a_clone_gives_away_none_of_the_origins_sites() {
    let world = world().await;
    let last = world.catalogue.allocate_site(&world.app.id).await.unwrap();
    let id = world.catalogue.new_app_id().unwrap();
    let clone = world.catalogue.create_clone(id.clone(), &world.app, &name("copy")).await.unwrap();
    assert_eq!((&clone.id, &clone.tenant), (&id, &world.app.tenant));
    assert!(world.catalogue.allocate_site(&id).await.unwrap() > last);
    let taken = world.catalogue.create_clone(world.catalogue.new_app_id().unwrap(), &world.app, &name("copy")).await;
    assert_eq!(taken.unwrap_err(), CatalogueError::Busy);
}

#[tokio::test]
async fn an_app_that_was_given_up_is_never_made_and_one_that_is_there_is_not_given_up() {
    let world = world().await;
    let (catalogue, id) = (&world.catalogue, world.catalogue.new_app_id().unwrap());
    assert!(!catalogue.is_there(&id).await.unwrap());
    assert!(catalogue.give_up_app(&id).await.unwrap() && catalogue.give_up_app(&id).await.unwrap());
    let late = catalogue.create_clone(id.clone(), &world.app, &name("copy")).await.unwrap_err();
    assert!(matches!(&late, CatalogueError::Rejected { reason } if reason.contains("begin anew")), "{late}");
    assert_eq!(catalogue.app_named(&world.app.tenant, &name("copy")), None);

    let id = catalogue.new_app_id().unwrap();
    let clone = catalogue.create_clone(id.clone(), &world.app, &name("copy")).await.unwrap();
    assert!(!catalogue.give_up_app(&id).await.unwrap());
    assert!(catalogue.is_there(&id).await.unwrap());
    assert_eq!(catalogue.app(&id), Some(clone.clone()));

    // One that was deleted is gone, and nothing is cloned of it by whoever has not heard of that.
    catalogue.put_app(&clone.tenant, &clone.name, false).await.unwrap();
    catalogue.delete_app(&clone.tenant, &clone.name).await.unwrap();
    assert!(catalogue.give_up_app(&id).await.unwrap());
    let of_nothing = catalogue.create_clone(catalogue.new_app_id().unwrap(), &clone, &name("copy-2")).await;
    assert!(matches!(of_nothing, Err(CatalogueError::NotFound { what: "app", .. })), "{of_nothing:?}");
}

#[tokio::test]
async fn of_making_an_app_and_giving_it_up_at_once_one_has_its_way() {
    let world = world().await;
    let catalogue = &world.catalogue;
    for n in 0..20 {
        let id = catalogue.new_app_id().unwrap();
        let copy = name(&format!("copy-{n}"));
        let (made, given_up) =
            tokio::join!(catalogue.create_clone(id.clone(), &world.app, &copy), catalogue.give_up_app(&id));
        assert_eq!(made.is_ok(), !given_up.unwrap(), "{made:?}");
        assert_eq!(catalogue.is_there(&id).await.unwrap(), made.is_ok());
    }
}

#[tokio::test]
async fn many_who_ask_for_a_site_at_once_all_get_one_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let log = bigpeer_log::EmbeddedLog::open(dir.path(), bigpeer_log::EmbeddedSettings::default()).unwrap();
    let catalogue = Catalogue::open(Arc::new(log), Arc::new(ManualClock::new(1)), Arc::new(RandomIds));
    let catalogue = catalogue.await.unwrap();
    catalogue.create_tenant(&"t".parse().unwrap()).await.unwrap();
    let app = catalogue.create_app(&"t".parse().unwrap(), &"a".parse().unwrap()).await.unwrap().id;
    let all = futures::future::join_all((0..500).map(|_| catalogue.allocate_site(&app))).await;
    let all: BTreeSet<u64> = all.into_iter().map(|site| site.unwrap().get()).collect();
    assert_eq!(all, (1..=500).collect());
}
