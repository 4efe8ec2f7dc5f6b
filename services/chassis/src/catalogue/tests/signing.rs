//! The keys of access tokens: rotation, what it leaves good, and what is stored of them.

use super::*;

const DAY_MS: u64 = 24 * 3600 * 1000;

impl World {
    async fn token(&self, of: &Catalogue, ttl_secs: u64) -> String {
        let key = match of.api_key(&self.app.id, &name("phones")) {
            Some(key) => key,
            None => self.key("phones", None).await.0,
        };
        of.issue_token(&self.app.id, SiteId::new(1), &key, ttl_secs).unwrap().0
    }

    fn opens(&self, token: &str) -> bool {
        self.catalogue.authenticate_token(&self.app.id, Door::Sync, token).is_ok()
    }

    /// The key that a token says it was signed with.
    fn kid(token: &str) -> String {
        use base64::Engine as _;
        let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        serde_json::from_slice::<serde_json::Value>(&head).unwrap()["kid"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_new_key_is_published_before_it_signs_and_the_old_one_verifies_until_its_tokens_ended() {
    let world = world().await;
    let old = world.token(&world.catalogue, MAX_TOKEN_TTL_SECS).await;
    world.catalogue.rotate_signing_keys(&world.app.id, false).await.unwrap();
    let keys = world.catalogue.published_keys(&world.app.id);
    assert_eq!(keys.len(), 2);
    assert_eq!(World::kid(&world.token(&world.catalogue, 60).await), keys[0].kid);
    world.clock.advance(PUBLISHED_BEFORE_MS);
    let new = world.token(&world.catalogue, 60).await;
    assert_eq!(World::kid(&new), keys[1].kid);
    assert!(world.opens(&old) && world.opens(&new));
    world.clock.advance(MAX_TOKEN_TTL_SECS * 1000 - PUBLISHED_BEFORE_MS - 1000);
    assert!(world.opens(&old) && world.catalogue.published_keys(&world.app.id).len() == 2);
    world.clock.advance(2 * PUBLISHED_BEFORE_MS);
    let published = world.catalogue.published_keys(&world.app.id);
    assert_eq!(published.iter().map(|key| &key.kid).collect::<Vec<_>>(), [&keys[1].kid]);
    assert!(!world.opens(&old));
}

#[tokio::test]
async fn tokens_are_good_at_every_process_while_keys_are_rotated() {
    let world = world().await;
    let _key = world.key("phones", None).await;
    let other = open(&world.log, &world.clock).await;
    let mut all = Vec::new();
    let mut kids = BTreeSet::new();
    for round in 0..40_u64 {
        // One process rotates; the other hears of it in its own time, but well before the new key signs.
        if round % 4 == 0 {
            world.catalogue.rotate_signing_keys(&world.app.id, false).await.unwrap();
        }
        let token = world.token(if round % 2 == 0 { &world.catalogue } else { &other }, 3600).await;
        kids.insert(World::kid(&token));
        all.push(token);
        let newest = world.catalogue.published_keys(&world.app.id).last().cloned();
        let mut changes = other.changes();
        while other.published_keys(&world.app.id).last() != newest.as_ref() {
            changes.changed().await.unwrap();
        }
        for token in &all {
            assert!(world.opens(token) && other.authenticate_token(&world.app.id, Door::Sync, token).is_ok());
        }
        world.clock.advance(60_000);
    }
    assert!(kids.len() >= 6, "{kids:?}");
}

#[tokio::test]
async fn keys_are_replaced_by_age_once_and_forgotten_in_the_end() {
    let world = world().await;
    let first = world.catalogue.published_keys(&world.app.id)[0].kid.clone();
    world.catalogue.rotate_if_due(&world.app.id).await.unwrap();
    assert_eq!(world.catalogue.published_keys(&world.app.id).len(), 1);
    world.clock.advance(ROTATE_AFTER_MS);
    for _ in 0..3 {
        world.catalogue.rotate_if_due(&world.app.id).await.unwrap();
    }
    assert_eq!(world.catalogue.published_keys(&world.app.id).len(), 2);
    for _ in 0..10 {
        world.clock.advance(ROTATE_AFTER_MS + DAY_MS);
        world.catalogue.rotate_if_due(&world.app.id).await.unwrap();
    }
    let stored = world.log.metadata().get(&Key::SigningKeys(world.app.id.clone()).encode()).await.unwrap().unwrap();
    let record: serde_json::Value = serde_json::from_slice(&stored.value).unwrap();
    let keys = record["keys"].as_array().unwrap();
    assert!(keys.len() <= 7 && !keys.iter().any(|key| key["kid"] == first.as_str()), "{record}");
    assert_eq!(keys.iter().filter(|key| !key["seed"].is_null()).count(), 2, "only what signs, and will, is kept");
}

#[tokio::test]
async fn rotation_at_once_ends_every_token_and_rotations_without_end_are_refused() {
    let world = world().await;
    let old = world.token(&world.catalogue, 3600).await;
    assert!(world.opens(&old));
    world.catalogue.rotate_signing_keys(&world.app.id, true).await.unwrap();
    assert!(!world.opens(&old));
    assert!(world.catalogue.verify_token(&world.app.id, &old, TokenAge::MayHaveEnded).is_err());
    let new = world.token(&world.catalogue, 3600).await;
    assert!(world.opens(&new));
    let mut refused = None;
    for _ in 0..20 {
        refused = world.catalogue.rotate_signing_keys(&world.app.id, false).await.err();
    }
    assert!(matches!(refused, Some(CatalogueError::Rejected { .. })), "{refused:?}");
    assert!(world.opens(&new) && world.opens(&world.token(&world.catalogue, 60).await));
    let nobody = AppId::new("nobody").unwrap();
    assert!(matches!(
        world.catalogue.rotate_signing_keys(&nobody, false).await,
        Err(CatalogueError::NotFound { what: "app", .. })
    ));
}

#[tokio::test]
async fn a_token_is_remembered_for_its_app_and_not_beyond_its_key() {
    let world = world().await;
    let other = world.catalogue.create_app(&name("acme"), &name("other")).await.unwrap();
    let token = world.token(&world.catalogue, 60).await;
    for _ in 0..2 {
        assert!(world.opens(&token));
        assert!(world.catalogue.authenticate_token(&other.id, Door::Sync, &token).is_err());
    }
    let spec =
        |permissions: Permissions, expires_at_ms| ApiKeySpec { permissions, expires_at_ms, ..Default::default() };
    let phones = name("phones");
    let put = |spec| world.catalogue.put_api_key(&world.app.id, &phones, spec);
    put(spec(Permissions::read_only(), Some(1_030_000))).await.unwrap();
    let principal = world.catalogue.authenticate_token(&world.app.id, Door::Sync, &token).unwrap();
    assert_eq!(*principal.permissions(), Permissions::read_only());
    world.clock.set(1_030_000);
    assert!(!world.opens(&token), "the key has ended, whatever the token says");
    assert!(world.catalogue.verify_token(&world.app.id, &token, TokenAge::MayHaveEnded).is_err());
    put(spec(Permissions::all(), None)).await.unwrap();
    assert!(world.opens(&token));
    world.clock.set(1_060_000);
    assert!(!world.opens(&token), "the token has");
}

#[tokio::test]
async fn an_app_of_before_gets_a_key_when_it_needs_one() {
    let world = world().await;
    let (key, _) = world.key("phones", None).await;
    let app = &world.app.id;
    let before = vec![
        MetaOp::Delete { key: Key::SigningKeys(app.clone()).encode() },
        MetaOp::Put { key: Key::TokenKey(app.clone()).encode(), value: br#"{"version":1,"secret":"00"}"#[..].into() },
    ];
    world.log.metadata().commit(before).await.unwrap();
    let again = open(&world.log, &world.clock).await;
    assert!(again.issue_token(app, SiteId::new(1), &key, 60).is_err());
    again.rotate_if_due(app).await.unwrap();
    let (token, _) = again.issue_token(app, SiteId::new(1), &key, 60).unwrap();
    assert!(again.authenticate_token(app, Door::Sync, &token).is_ok());
}

#[tokio::test]
async fn secrets_at_rest_are_sealed_and_follow_the_master_key() {
    let (old, new) = (Keyring::generate(&RandomIds), Keyring::generate(&RandomIds));
    let ring = |lines: &[&str]| Keyring::parse(&lines.join("\n")).unwrap();
    let (log, clock) = (Arc::new(MemoryLog::new()), Arc::new(ManualClock::new(1_000_000)));
    let open = |ring: Keyring| {
        Catalogue::open_sealed(Arc::clone(&log) as _, Arc::clone(&clock) as _, Arc::new(RandomIds), ring)
    };

    // Without a master key secrets are stored as they are; the first one seals them.
    let plain = open(Keyring::none()).await.unwrap();
    plain.create_tenant(&name("t")).await.unwrap();
    let app = plain.create_app(&name("t"), &name("a")).await.unwrap().id;
    let spec = |of: &Catalogue| {
        let place = provider_place(&app, &name("dev"));
        let shared_token = of.keyring().seal(&place, b"the shared token", &RandomIds).unwrap();
        let kind = ProviderKind::Anonymous { shared_token };
        ProviderSpec { kind, roles: Vec::new(), permissions: None, session_secs: 60 }
    };
    let made = spec(&plain);
    plain.put_provider::<CatalogueError>(&app, &name("dev"), |_| Ok(made)).await.unwrap();
    let holder = || {
        crate::Holder::User(Box::new(crate::User {
            provider: name("dev"),
            id: "u".to_owned(),
            roles: Vec::new(),
            permissions: None,
            claims: Default::default(),
        }))
    };
    let times = LoginTimes { token_ttl_secs: 60, refresh_ttl_secs: 60 };
    let granted = plain.log_in(&app, SiteId::new(1), holder(), None, times).await.unwrap();

    let sealed = open(ring(&[&old])).await.unwrap();
    assert_eq!(sealed.reseal().await.unwrap(), 2);
    assert_eq!(sealed.reseal().await.unwrap(), 0);
    let stored = log.metadata().range(b"", None, 1000).await.unwrap();
    assert!(!stored.iter().any(|(_, value)| String::from_utf8_lossy(&value.value).contains("plain:")));

    // A process that does not have the key does not start; one with both goes over to the new one.
    let refused = open(ring(&[&new])).await.unwrap_err().to_string();
    assert!(refused.contains("master key") && !refused.contains(&old) && !refused.contains(&new), "{refused}");
    let both = open(ring(&[&new, &old])).await.unwrap();
    assert!(both.authenticate_token(&app, Door::Sync, &granted.access_token).is_ok());
    assert_eq!(both.reseal().await.unwrap(), 2);
    let last = open(ring(&[&new])).await.unwrap();
    assert!(last.authenticate_token(&app, Door::Sync, &granted.access_token).is_ok());
    let again = last.log_in(&app, SiteId::new(1), holder(), None, times).await.unwrap();
    assert!(last.authenticate_token(&app, Door::Sync, &again.access_token).is_ok());
    let provider = last.provider(&app, &name("dev")).unwrap();
    let ProviderKind::Anonymous { shared_token } = &provider.spec.kind else { panic!("{provider:?}") };
    let place = provider_place(&app, &name("dev"));
    assert_eq!(last.keyring().open(&place, shared_token).unwrap(), b"the shared token");
}
