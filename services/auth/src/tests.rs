//! Login and refresh over a log in memory.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use bigpeer_chassis::{ApiKeySpec, Name, Permissions};
use bigpeer_log::MemoryLog;
use bigpeer_types::{ManualClock, RandomIds};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::*;

struct World {
    clock: Arc<ManualClock>,
    catalogue: Arc<Catalogue>,
    app: AppId,
    key: String,
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
    let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms: None, limits: Default::default() };
    let (_, secret) = catalogue.put_api_key(&app, &name("k"), spec).await.unwrap();
    World { clock, catalogue, app, key: secret.unwrap().expose().to_owned() }
}

impl World {
    async fn post(&self, app: &str, what: &str, credential: &str) -> (StatusCode, Value) {
        let router = router(AuthContext { catalogue: Arc::clone(&self.catalogue), token_ttl_secs: 60 });
        let request = Request::post(format!("/{app}/auth/{what}"));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        (status, serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap())
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
    assert!(world.catalogue.authenticate_token(&world.app, text(&refreshed, "access_token")).is_ok());
    assert!(world.catalogue.authenticate_token(&world.app, text(&first, "access_token")).is_err());
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
