//! Records of before, doors and scopes, the bounds of the audit log.

use bigpeer_log::MetaOp;
use serde_json::json;

use super::*;
use crate::{AdminScope, AuditCaller, AuditEntry, AuditQuery, Doors};

#[tokio::test]
async fn records_of_before_still_read() {
    let world = world().await;
    let hash = "0".repeat(64);
    let put = |key: &str, value: serde_json::Value| MetaOp::Put {
        key: key.to_owned().into(),
        value: value.to_string().into(),
    };
    let permissions = json!({"qlVersion": 1, "remoteQuery": false, "read": {"everything": true, "queriesByCollection": {}},
        "write": {"everything": false, "queriesByCollection": {}}});
    world
        .log
        .metadata()
        .commit(vec![
            put("catalogue/tenants/old", json!({"version": 1, "name": "old", "created_ms": 1})),
            put("catalogue/names/old/a", json!({"version": 1, "app": "old-app"})),
            put("catalogue/apps/old-app", json!({"version": 1, "id": "old-app", "tenant": "old", "name": "a", "created_ms": 1})),
            put(
                "catalogue/keys/old-app/k",
                json!({"version": 1, "name": "k", "prefix": "bpk_aaaaaaaaaaaa", "hash": hash, "permissions": permissions,
                    "expires_at_ms": null, "created_ms": 1}),
            ),
            put("catalogue/admins/old", json!({"version": 1, "prefix": "bpa_aaaaaaaaaaaa", "hash": hash, "created_ms": 1})),
        ])
        .await
        .unwrap();
    let again = open(&world.log, &world.clock).await;
    assert!(!again.tenant(&name("old")).unwrap().deletion_protection);
    // Apps of before hold data: they are protected.
    let app = again.app_named(&name("old"), &name("a")).unwrap();
    assert!(app.deletion_protection);
    let key = again.api_key(&app.id, &name("k")).unwrap();
    assert_eq!((key.scopes, key.description), (Doors::default(), None));
    let admin = again.admin_token(&name("old")).unwrap();
    assert_eq!((admin.scope, admin.expires_at_ms), (AdminScope::Operator, None));
}

#[tokio::test]
async fn a_key_opens_the_doors_of_its_scopes_and_so_does_its_token() {
    let world = world().await;
    let app = &world.app.id;
    for one in Door::ALL {
        let spec = ApiKeySpec {
            permissions: Permissions::all(),
            scopes: [one].into_iter().collect(),
            ..ApiKeySpec::default()
        };
        let (key, secret) = world.catalogue.put_api_key(app, &name(one.as_str()), spec).await.unwrap();
        let secret = secret.unwrap();
        let (token, _) = world.catalogue.issue_token(app, SiteId::new(1), &key, 60).unwrap();
        for door in Door::ALL {
            for credential in [secret.expose(), &token] {
                let answer = world.catalogue.authenticate_credential(app, door, credential).map(drop);
                match answer {
                    Ok(()) => assert_eq!(one, door),
                    Err(error) => assert!(one != door && error.code == ErrorCode::Forbidden, "{error}"),
                }
            }
            assert_eq!(world.catalogue.permissions_of_key(app, &key.name, door).is_some(), one == door);
        }
        let administers = world.catalogue.authenticate_admin(&headers(secret.expose())).is_ok();
        assert_eq!(administers, one == Door::Admin);
        // An access token never does.
        assert!(world.catalogue.authenticate_admin(&headers(&token)).is_err());
    }
}

#[tokio::test]
async fn a_scope_that_is_taken_away_shuts_the_door_at_once() {
    let world = world().await;
    let (key, secret) = world.key("ci", None).await;
    let (token, _) = world.catalogue.issue_token(&world.app.id, SiteId::new(1), &key, 60).unwrap();
    let opens =
        |credential: &str| world.catalogue.authenticate_credential(&world.app.id, Door::Sync, credential).is_ok();
    assert!(opens(secret.expose()) && opens(&token));
    let scopes = [Door::Data].into_iter().collect();
    let spec = ApiKeySpec { permissions: Permissions::all(), scopes, ..ApiKeySpec::default() };
    world.catalogue.put_api_key(&world.app.id, &key.name, spec).await.unwrap();
    assert!(!opens(secret.expose()) && !opens(&token));
}

fn entry(at: u64, by: Option<&str>, tenant: Option<&str>) -> AuditEntry {
    AuditEntry {
        at,
        by: by.map(|token| AuditCaller::Token(name(token))),
        tenant: tenant.map(name),
        method: "PUT".to_owned(),
        path: "/x".to_owned(),
        ..AuditEntry::default()
    }
}

#[tokio::test]
async fn nobody_drowns_what_others_did() {
    let world = world().await;
    let at = world.clock.now_ms();
    for n in 0..10 {
        world.catalogue.audit(&entry(at + n, Some("root"), None)).await.unwrap();
    }
    for n in 0..40 {
        world.catalogue.audit(&entry(at + 100 + n, Some("a"), Some("acme"))).await.unwrap();
    }
    for n in 0..50 {
        world.catalogue.audit(&entry(at + 200 + n, None, None)).await.unwrap();
    }
    world.catalogue.trim_audit_log(60).await.unwrap();
    let query = AuditQuery { limit: 1000, ..AuditQuery::default() };
    let (entries, more) = world.catalogue.audit_log(&query).await.unwrap();
    let count = |by: Option<&str>| entries.iter().filter(|(_, one)| one.by == entry(0, by, None).by).count();
    assert_eq!((entries.len(), more, count(Some("root")), count(Some("a")), count(None)), (60, false, 10, 25, 25));
    // The oldest went.
    assert!(entries.iter().filter(|(_, one)| one.by.is_none()).all(|(_, one)| one.at >= at + 225));
    world.clock.advance(91 * 24 * 3600 * 1000);
    world.catalogue.trim_audit_log(60).await.unwrap();
    assert!(world.log.metadata().range(b"audit/", None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_tenant_is_not_deleted_under_what_is_made_in_it() {
    let world = world().await;
    let catalogue = &world.catalogue;
    for n in 0..20 {
        let tenant = name(&format!("t{n}"));
        catalogue.create_tenant(&tenant).await.unwrap();
        let token = AdminTokenSpec { scope: AdminScope::Tenant(tenant.clone()), ..Default::default() };
        let (token_name, app_name) = (name(&format!("m{n}")), name("a"));
        let (app, token, deleted) = tokio::join!(
            catalogue.create_app(&tenant, &app_name),
            catalogue.put_admin_token(&token_name, token, |_| true),
            catalogue.delete_tenant(&tenant),
        );
        let there = catalogue.tenant(&tenant).is_some();
        assert_eq!((deleted.is_err(), app.is_ok()), (there, there));
        if !there {
            assert!(catalogue.admin_token(&token_name).is_none(), "{token:?}");
        }
    }
}
