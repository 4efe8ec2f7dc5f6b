//! Login and refresh over a log in memory.

mod certificates;
mod providers;

use std::sync::Mutex;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use bigpeer_chassis::{ApiKeySpec, Name, Permissions};
use bigpeer_log::MemoryLog;
use bigpeer_types::{AppId, ManualClock, RandomIds};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;

struct World {
    clock: Arc<ManualClock>,
    catalogue: Arc<Catalogue>,
    app: AppId,
    key: String,
    admin: Mutex<String>,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn world() -> World {
    let clock = Arc::new(ManualClock::new(5_000_000));
    let catalogue =
        Catalogue::open(Arc::new(MemoryLog::new()), Arc::clone(&clock) as _, Arc::new(RandomIds)).await.unwrap();
    catalogue.create_tenant(&name("t")).await.unwrap();
    let app = catalogue.create_app(&name("t"), &name("a")).await.unwrap().id;
    let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms: None, ..Default::default() };
    let (_, secret) = catalogue.put_api_key(&app, &name("k"), spec).await.unwrap();
    World { clock, catalogue, app, key: secret.unwrap().expose().to_owned(), admin: Mutex::default() }
}

async fn answer(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

impl World {
    fn context(&self) -> AuthContext {
        let settings = AuthSettings {
            token_ttl_secs: 60,
            refresh_ttl_secs: 86_400,
            certificate_ttl_secs: 3600,
            allow_private_providers: true,
        };
        AuthContext::new(Arc::clone(&self.catalogue), settings)
    }

    /// As older peers ask: without a body.
    async fn post(&self, app: &str, what: &str, credential: &str) -> (StatusCode, Value) {
        let request = Request::post(format!("/{app}/auth/{what}"));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
        answer(router(self.context()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await
    }

    async fn send(&self, what: &str, credential: Option<&str>, body: &str) -> (StatusCode, Value) {
        let mut request = Request::post(format!("/{}/auth/{what}", self.app));
        if let Some(credential) = credential {
            request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
        }
        answer(router(self.context()).oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap()).await
    }
}

fn text<'a>(json: &'a Value, field: &str) -> &'a str {
    json[field].as_str().unwrap()
}

#[tokio::test]
async fn each_login_gets_its_own_site_and_a_refresh_keeps_it() {
    let world = world().await;
    let app = world.app.as_str();
    let (status, first) = world.post(app, "login", &world.key).await;
    let (_, second) = world.post(app, "login", &world.key).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(text(&first, "site").len(), 16);
    assert_ne!(first["site"], second["site"]);
    assert_eq!(first["expires_at"], 5_060_000);
    world.clock.advance(3_600_000);
    let (status, refreshed) = world.post(app, "refresh", text(&first, "access_token")).await;
    assert_eq!((status, &refreshed["site"]), (StatusCode::OK, &first["site"]));
    assert!(
        world
            .catalogue
            .authenticate_token(&world.app, bigpeer_chassis::Door::Sync, text(&refreshed, "access_token"))
            .is_ok()
    );
    assert!(
        world
            .catalogue
            .authenticate_token(&world.app, bigpeer_chassis::Door::Sync, text(&first, "access_token"))
            .is_err()
    );
}

#[tokio::test]
async fn what_does_not_open_the_app_is_refused_in_one_way() {
    let world = world().await;
    let other = world.catalogue.create_app(&name("t"), &name("b")).await.unwrap().id;
    let (_, session) = world.post(world.app.as_str(), "login", &world.key).await;
    let token = text(&session, "access_token");
    let mut answers = Vec::new();
    for (app, what, credential) in [
        (world.app.as_str(), "login", "wrong"),
        (world.app.as_str(), "login", token),
        (world.app.as_str(), "refresh", world.key.as_str()),
        (world.app.as_str(), "refresh", "a.b.c"),
        (other.as_str(), "login", world.key.as_str()),
        (other.as_str(), "refresh", token),
        ("nothing", "login", world.key.as_str()),
        ("NOT-AN-APP", "login", world.key.as_str()),
    ] {
        let (status, answer) = world.post(app, what, credential).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{app} {what}");
        answers.push(answer);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    world.catalogue.delete_api_key(&world.app, &name("k")).await.unwrap();
    assert_eq!(world.post(world.app.as_str(), "refresh", token).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_login_with_a_body_has_a_refresh_token_and_no_other_way() {
    let world = world().await;
    let (status, first) = world.send("login", Some(&world.key), "{}").await;
    assert_eq!((status, &first["refresh_expires_at"]), (StatusCode::OK, &json!(5_000_000 + 86_400_000)));
    let (status, second) = world.send("refresh", Some(text(&first, "refresh_token")), "").await;
    assert_eq!((status, &second["site"]), (StatusCode::OK, &first["site"]));
    assert!(
        world
            .catalogue
            .authenticate_token(&world.app, bigpeer_chassis::Door::Sync, text(&second, "access_token"))
            .is_ok()
    );
    for session in [&first, &second] {
        let (status, _) = world.send("refresh", Some(text(session, "access_token")), "").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "a stolen access token does not live for ever");
    }
    let (_, third) = world.send("refresh", Some(text(&second, "refresh_token")), "").await;
    let (status, _) = world.send("refresh", Some(text(&first, "refresh_token")), "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = world.send("refresh", Some(text(&third, "refresh_token")), "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "the login is over after a replay");
    assert!(
        world
            .catalogue
            .authenticate_token(&world.app, bigpeer_chassis::Door::Sync, text(&third, "access_token"))
            .is_err()
    );
    let (_, other) = world.send("login", Some(&world.key), "{}").await;
    assert_eq!(world.send("logout", Some(text(&other, "refresh_token")), "").await.0, StatusCode::NO_CONTENT);
    assert!(
        world
            .catalogue
            .authenticate_token(&world.app, bigpeer_chassis::Door::Sync, text(&other, "access_token"))
            .is_err()
    );
}

#[tokio::test]
async fn who_logs_in_again_keeps_the_site_and_nobody_gets_anothers() {
    let world = world().await;
    let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms: None, ..Default::default() };
    let (_, other) = world.catalogue.put_api_key(&world.app, &name("other"), spec).await.unwrap();
    let other = other.unwrap().expose().to_owned();
    let (_, first) = world.send("login", Some(&world.key), "{}").await;
    world.clock.advance(3_600_000);
    let again = json!({"previous": first["access_token"]}).to_string();
    assert_eq!(world.send("login", Some(&world.key), &again).await.1["site"], first["site"]);
    assert_ne!(world.send("login", Some(&other), &again).await.1["site"], first["site"]);
    let forged = json!({"previous": format!("{}A", text(&first, "access_token"))}).to_string();
    assert_ne!(world.send("login", Some(&world.key), &forged).await.1["site"], first["site"]);
}

#[tokio::test]
async fn strangers_hear_nothing_but_that_they_are_strangers() {
    let world = world().await;
    let ask = |body: &str| {
        let body = body.to_owned();
        let world = &world;
        async move { world.send("login", None, &body).await }
    };
    for body in
        [r#"{"provider": "nobody", "token": "x"}"#, r#"{"provider": "../x", "token": "x"}"#, "{}", r#"{"token": "x"}"#]
    {
        let (status, answer) = ask(body).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")), "{body}");
    }
    let large = format!(r#"{{"provider": "p", "token": "{}"}}"#, "x".repeat(MAX_BODY_BYTES));
    assert_eq!(ask(&large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        ask(&format!(r#"{{"provider": "p", "token": "{}"}}"#, "x".repeat(20_000))).await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(ask("{").await.0, StatusCode::BAD_REQUEST);
}
