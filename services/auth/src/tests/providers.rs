//! Providers by the admin API, and logins with them: a webhook in this process, a token that all share.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::Redirect;
use serde_json::json;

use super::*;

/// What a webhook got, and what it is to answer.
#[derive(Default)]
struct Hook {
    got: Mutex<Vec<(HeaderMap, String)>>,
    answer: Mutex<(u16, Value)>,
    failures: AtomicUsize,
}

async fn hook(hook: &Arc<Hook>) -> String {
    let answer = |State(hook): State<Arc<Hook>>, headers: HeaderMap, body: String| async move {
        hook.got.lock().unwrap().push((headers, body));
        if hook.failures.load(Ordering::SeqCst) > 0 {
            hook.failures.fetch_sub(1, Ordering::SeqCst);
            return (StatusCode::BAD_GATEWAY, Json(json!({})));
        }
        let (status, json) = hook.answer.lock().unwrap().clone();
        (StatusCode::from_u16(status).unwrap(), Json(json))
    };
    let router = Router::new()
        .route("/hook", post(answer))
        .route("/elsewhere", post(|| async { Redirect::temporary("/hook") }))
        .route("/endless", post(|| async { "x".repeat(100_000) }))
        .with_state(Arc::clone(hook));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

impl World {
    pub(super) async fn admin(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let token = match self.catalogue.create_admin(&name("root")).await.unwrap() {
            Some(token) => token.expose().to_owned(),
            None => self.admin.lock().unwrap().clone(),
        };
        *self.admin.lock().unwrap() = token.clone();
        let request = Request::builder().method(method).uri(format!("/admin/v1/apps/{}/{path}", self.app));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        answer(admin_router(self.context()).oneshot(request.body(body).unwrap()).await.unwrap()).await
    }

    async fn provider(&self, spec: Value) -> Value {
        let (status, json) = self.admin(Method::PUT, "providers/p", spec).await;
        assert!(status.is_success(), "{json}");
        json
    }

    async fn log_in(&self, token: &str) -> (StatusCode, Value) {
        self.send("login", None, &json!({"provider": "p", "token": token}).to_string()).await
    }

    fn opens(&self, session: &Value) -> bool {
        self.catalogue.authenticate_token(&self.app, bigpeer_chassis::Door::Sync, text(session, "access_token")).is_ok()
    }
}

fn let_in() -> Value {
    json!({"authenticated": true, "userID": "anna", "expirationSeconds": 3600, "clientInfo": {"hello": 1},
        "permissions": {"qlVersion": 1, "read": {"everything": true, "queriesByCollection": {}},
            "write": {"everything": false, "queriesByCollection": {"cars": ["owner = :claims.userID"]}}}})
}

#[tokio::test]
async fn a_webhook_says_who_comes_in_and_its_requests_are_signed() {
    let (world, webhook) = (world().await, Arc::new(Hook::default()));
    let url = hook(&webhook).await;
    let made = world.provider(json!({"type": "webhook", "url": format!("{url}/hook")})).await;
    let secret = text(&made, "secret").to_owned();
    *webhook.answer.lock().unwrap() = (200, let_in());
    let (status, session) = world.log_in("a token").await;
    assert_eq!(
        (status, &session["user"], &session["client_info"]),
        (StatusCode::OK, &json!("anna"), &json!({"hello": 1}))
    );
    let principal = world
        .catalogue
        .authenticate_token(&world.app, bigpeer_chassis::Door::Sync, text(&session, "access_token"))
        .unwrap();
    let write = &principal.permissions().write;
    assert_eq!(write.queries_by_collection["cars"], ["owner = 'anna'"]);
    assert!(principal.permissions().read.everything && !write.everything);

    let (headers, body) = webhook.got.lock().unwrap()[0].clone();
    let sent: Value = serde_json::from_str(&body).unwrap();
    let app = world.app.as_str();
    assert_eq!(sent, json!({"version": "1", "databaseID": app, "appID": app, "provider": "p", "token": "a token"}));
    let signature = headers["ditto-signature"].to_str().unwrap();
    assert_eq!(headers["bigpeer-signature"], signature);
    let secret = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, secret).unwrap();
    assert_eq!(secret.len(), 128);
    let mac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
    let mac = ring::hmac::sign(&mac, format!("5000.{body}").as_bytes());
    let hex: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(signature, format!("t=5000,v1={hex}"));
}

#[tokio::test]
async fn a_webhook_that_refuses_fails_or_talks_nonsense_lets_nobody_in() {
    let (world, webhook) = (world().await, Arc::new(Hook::default()));
    let url = hook(&webhook).await;
    world.provider(json!({"type": "webhookUrl", "webhookUrl": format!("{url}/hook")})).await;
    for (status, json, expected) in [
        (200, json!({"authenticated": false, "clientInfo": "locked"}), 401),
        (200, json!({"authenticate": false}), 401),
        (401, json!({}), 401),
        (403, let_in(), 401),
        (200, json!("yes"), 503),
        (200, json!({"authenticated": true, "userID": "", "expirationSeconds": 5}), 503),
        (200, json!({"authenticated": true, "userID": "a\nb", "expirationSeconds": 5}), 503),
        (200, json!({"authenticated": true, "userID": "a", "expirationSeconds": 0}), 503),
        (404, let_in(), 503),
        (500, let_in(), 503),
    ] {
        *webhook.answer.lock().unwrap() = (status, json.clone());
        let (got, answer) = world.log_in("t").await;
        assert_eq!(got.as_u16(), expected, "{status} {json}: {answer}");
        assert_eq!(answer.get("client_info"), json.get("clientInfo").filter(|_| expected == 401 && status == 200));
    }
    for path in ["elsewhere", "endless"] {
        world.provider(json!({"type": "webhook", "url": format!("{url}/{path}")})).await;
        *webhook.answer.lock().unwrap() = (200, let_in());
        assert_eq!(world.log_in("t").await.0, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    // It is asked again when it fails, not for ever.
    world.provider(json!({"type": "webhook", "url": format!("{url}/hook")})).await;
    for (failures, expected) in [(2, StatusCode::OK), (3, StatusCode::SERVICE_UNAVAILABLE)] {
        webhook.failures.store(failures, Ordering::SeqCst);
        assert_eq!(world.log_in("t").await.0, expected);
    }
}

#[tokio::test]
async fn secrets_of_providers_go_in_and_never_come_out() {
    let world = world().await;
    let secret = "c2VjcmV0IG9mIHNpeHRlZW4gYnl0ZXM=";
    let spec = json!({"type": "webhook", "url": "https://example.com/hook", "secrets": [secret]});
    let mut shown = vec![world.provider(spec).await];
    let newer = "YW5vdGhlciBzZWNyZXQsIGEgbmV3ZXIgb25l";
    shown.push(
        world
            .provider(json!({"type": "webhook", "url": "https://example.com/hook", "secrets": [newer, "(hidden)"]}))
            .await,
    );
    assert_eq!(shown[1]["secrets"], json!(["(hidden)", "(hidden)"]));
    shown.push(world.provider(json!({"type": "webhook", "url": "https://example.com/two"})).await);
    assert_eq!((&shown[2]["secrets"], &shown[2]["url"]), (&shown[1]["secrets"], &json!("https://example.com/two")));
    assert_eq!(shown[2]["created_at"], shown[0]["created_at"]);
    shown.push(world.admin(Method::GET, "providers/p", Value::Null).await.1);
    shown.push(world.admin(Method::GET, "providers", Value::Null).await.1);
    shown.push(world.provider(json!({"type": "anonymous", "shared_token": "a token that all share"})).await);
    for json in &shown {
        let json = json.to_string();
        for secret in [secret, newer, "a token that all share"] {
            assert!(!json.contains(secret), "{json}");
        }
    }
    let (status, session) = world.log_in("a token that all share").await;
    assert!(status.is_success() && world.opens(&session));
    for wrong in ["", "a token that all shar", "(hidden)", "A token that all share"] {
        assert_eq!(world.log_in(wrong).await.0, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    assert_eq!(world.admin(Method::DELETE, "providers/p", Value::Null).await.0, StatusCode::NO_CONTENT);
    assert!(!world.opens(&session));
    assert_eq!(world.log_in("a token that all share").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn providers_that_cannot_work_are_refused_with_a_reason() {
    let world = world().await;
    for (spec, reason) in [
        (json!({"type": "magic"}), "magic"),
        (json!({"type": "webhook"}), "'url' is missing"),
        (json!({"type": "webhook", "url": "ftp://example.com"}), "http"),
        (json!({"type": "webhook", "url": "https://user:pw@example.com"}), "name or password"),
        (json!({"type": "webhook", "url": "https://example.com", "issuer": "x"}), "has no 'issuer'"),
        (json!({"type": "webhook", "url": "https://example.com", "secrets": []}), "one secret"),
        (json!({"type": "webhook", "url": "https://example.com", "secrets": ["c2hvcnQ="]}), "16"),
        (json!({"type": "webhook", "url": "https://example.com", "secrets": ["(hidden)"]}), "none to keep"),
        (json!({"type": "oidc", "issuer": "https://example.com"}), "'audiences'"),
        (json!({"type": "oidc", "issuer": "https://example.com", "audiences": ["a"], "algorithms": ["none"]}), "none"),
        (
            json!({"type": "oidc", "issuer": "https://example.com", "audiences": ["a"], "algorithms": ["HS256"]}),
            "HS256",
        ),
        (json!({"type": "anonymous"}), "'shared_token' is missing"),
        (json!({"type": "anonymous", "shared_token": "short"}), "16"),
        (json!({"type": "anonymous", "shared_token": "long enough, surely", "session_secs": 0}), "session_secs"),
        (
            json!({"type": "anonymous", "shared_token": "long enough, surely", "permissions": {"qlVersion": 1,
            "read": {"queriesByCollection": {"cars": ["x ="]}}}}),
            "not a DQL condition",
        ),
    ] {
        let (status, json) = world.admin(Method::PUT, "providers/p", spec.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{spec}");
        assert!(text(&json["error"], "message").contains(reason), "{spec}: {json}");
    }
    let guarded = AuthContext::new(Arc::clone(&world.catalogue), AuthSettings::default());
    for url in
        ["http://127.0.0.1/hook", "http://169.254.169.254/latest/meta-data", "http://[::1]/", "http://10.0.0.8:80/"]
    {
        let spec: ProviderRequest = serde_json::from_value(json!({"type": "webhook", "url": url})).unwrap();
        let refused = spec.spec(&guarded, &world.app, &name("p"), None).unwrap_err();
        assert!(refused.message.contains("private"), "{url}: {refused}");
    }
}

#[tokio::test]
async fn roles_and_revocations_by_the_admin_api_take_effect_at_once() {
    let world = world().await;
    world.provider(json!({"type": "anonymous", "sharedToken": "a token that all share", "roles": ["clerk"]})).await;
    let (_, session) = world.log_in("a token that all share").await;
    let permissions = || {
        world
            .catalogue
            .authenticate_token(&world.app, bigpeer_chassis::Door::Sync, text(&session, "access_token"))
            .map(|p| p.permissions())
    };
    assert_eq!(permissions().unwrap().read, bigpeer_chassis::Access::default(), "default deny");
    let role = json!({"permissions": {"qlVersion": 1, "read": {"everything": true}}});
    let (status, made) = world.admin(Method::PUT, "roles/clerk", role.clone()).await;
    assert_eq!((status, &made["permissions"]["read"]["everything"]), (StatusCode::CREATED, &json!(true)));
    assert_eq!(world.admin(Method::PUT, "roles/clerk", role).await, (StatusCode::OK, made.clone()));
    assert_eq!(world.admin(Method::GET, "roles/clerk", Value::Null).await.1, made);
    assert_eq!(world.admin(Method::GET, "roles", Value::Null).await.1, json!({"roles": [made], "next": null}));
    assert!(permissions().unwrap().read.everything);
    assert_eq!(world.admin(Method::DELETE, "roles/clerk", Value::Null).await.0, StatusCode::NO_CONTENT);
    assert!(!permissions().unwrap().read.everything);
    let bad = json!({"permissions": {"qlVersion": 1, "read": {"queriesByCollection": {"cars": ["x = :nobody"]}}}});
    assert_eq!(world.admin(Method::PUT, "roles/clerk", bad).await.0, StatusCode::BAD_REQUEST);

    for (what, status) in [
        (json!({"user": "nobody"}), StatusCode::CREATED),
        (json!({"condition": "provider ="}), StatusCode::BAD_REQUEST),
        (json!({"everybody": true}), StatusCode::BAD_REQUEST),
        (json!({"user": "a", "site": "0000000000000001"}), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(world.admin(Method::POST, "revocations", what.clone()).await.0, status, "{what}");
        assert!(permissions().is_ok());
    }
    world.clock.advance(1);
    let (_, revocation) = world.admin(Method::POST, "revocations", json!({"site": session["site"]})).await;
    assert_eq!((&revocation["site"], &revocation["before"]), (&session["site"], &json!(5_000_001)));
    assert!(permissions().is_err());
    let refresh = world.send("refresh", Some(text(&session, "refresh_token")), "").await;
    assert_eq!(refresh.0, StatusCode::UNAUTHORIZED);
    let (_, all) = world.admin(Method::GET, "revocations", Value::Null).await;
    assert_eq!(all["revocations"].as_array().unwrap().len(), 2);
    assert_eq!(all["revocations"][1], revocation);
}

#[tokio::test]
async fn signing_keys_are_published_and_rotated_by_the_admin_api() {
    let world = world().await;
    let published = |app: String| {
        let router = router(world.context());
        async move {
            let request = Request::get(format!("/{app}/.well-known/jwks.json")).body(Body::empty()).unwrap();
            let response = router.oneshot(request).await.unwrap();
            assert!(response.headers()[header::CACHE_CONTROL].to_str().unwrap().starts_with("public, max-age="));
            answer(response).await.1
        }
    };
    let before = published(world.app.to_string()).await;
    let key = &before["keys"][0];
    assert_eq!(
        (&key["kty"], &key["crv"], &key["alg"], &key["use"]),
        (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"), &json!("sig"))
    );
    assert_eq!(published("nobody".to_owned()).await, json!({"keys": []}));
    let (status, rotated) = world.admin(Method::POST, "signing-keys/rotate", Value::Null).await;
    assert_eq!((status, rotated["signing_keys"].as_array().unwrap().len()), (StatusCode::OK, 2));
    assert_eq!(rotated["signing_keys"][1]["signs_from"], 5_000_000 + bigpeer_chassis::PUBLISHED_BEFORE_MS);
    let after = published(world.app.to_string()).await;
    assert_eq!((after["keys"].as_array().unwrap().len(), &after["keys"][0]), (2, key));
    let (_, session) = world.send("login", Some(&world.key), "{}").await;
    let (_, at_once) = world.admin(Method::POST, "signing-keys/rotate", json!({"at_once": true})).await;
    assert_eq!(at_once["signing_keys"].as_array().unwrap().len(), 1);
    assert!(!world.opens(&session));
    let (status, again) = world.send("refresh", Some(text(&session, "refresh_token")), "").await;
    assert!(status.is_success() && world.opens(&again), "whoever has a refresh token goes on");
}

#[tokio::test]
async fn the_admin_api_is_for_administrators() {
    let world = world().await;
    for (method, path) in [
        (Method::GET, "providers"),
        (Method::PUT, "providers/p"),
        (Method::DELETE, "providers/p"),
        (Method::GET, "roles"),
        (Method::PUT, "roles/r"),
        (Method::GET, "revocations"),
        (Method::POST, "revocations"),
        (Method::GET, "signing-keys"),
        (Method::POST, "signing-keys/rotate"),
        (Method::GET, "authorities"),
        (Method::POST, "authorities/rotate"),
    ] {
        for credential in ["", "bpa_abc_def", &world.key] {
            let request = Request::builder().method(&method).uri(format!("/admin/v1/apps/{}/{path}", world.app));
            let request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
            let response = admin_router(world.context()).oneshot(request.body(Body::from("{")).unwrap()).await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        }
    }
}
