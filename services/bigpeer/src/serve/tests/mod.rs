//! The server as `serve` composes it, over a directory of its own, asked without a listener: two tenants, three apps, and everybody
//! who could ask for something about them.

mod doors;
mod upkeep;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use bigpeer_chassis::{AdminScope, AdminTokenSpec, ApiKeySpec, Door, Name, Permissions};
use bigpeer_types::AppId;
use clap::FromArgMatches;
use serde_json::Value;
use tower::ServiceExt;

use super::*;

/// acme has the apps flights and boats, globex has trains.
struct World {
    parts: Parts,
    router: Router,
    flights: AppId,
    /// An operator, who administers acme, who administers globex, and keys that open `admin` of flights, boats and trains.
    callers: [String; 6],
    /// A key of flights that opens everything else.
    data_key: String,
    _dir: tempfile::TempDir,
}

fn named(text: &str) -> Name {
    text.parse().unwrap()
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let matches = command.get_matches_from(["serve", "--no-dev", "--data-dir", data.to_str().unwrap()]);
    let args = ServeArgs::from_arg_matches(&matches).unwrap();
    let parts = open(&args, Shutdown::new()).await.unwrap();
    let router = roles(&parts, &args).unwrap().router;
    let catalogue = &parts.catalogue;
    let root = catalogue.create_admin(&named("root")).await.unwrap().unwrap().expose().to_owned();
    let mut callers = vec![root];
    for tenant in ["acme", "globex"] {
        catalogue.create_tenant(&named(tenant)).await.unwrap();
        let spec = AdminTokenSpec { scope: AdminScope::Tenant(named(tenant)), ..AdminTokenSpec::default() };
        let made = catalogue.put_admin_token(&named(tenant), spec, |_| true).await.unwrap();
        callers.push(made.1.unwrap().expose().to_owned());
    }
    let mut apps = Vec::new();
    for (tenant, app) in [("acme", "flights"), ("acme", "boats"), ("globex", "trains")] {
        let app = catalogue.create_app(&named(tenant), &named(app)).await.unwrap().id;
        parts.stores.open(&app).await.unwrap();
        let scopes = Door::ALL.into_iter().collect();
        let spec = ApiKeySpec { permissions: Permissions::all(), scopes, ..ApiKeySpec::default() };
        let made = catalogue.put_api_key(&app, &named("ops"), spec).await.unwrap();
        callers.push(made.1.unwrap().expose().to_owned());
        apps.push(app);
    }
    let flights = apps.swap_remove(0);
    let spec = ApiKeySpec { permissions: Permissions::all(), ..ApiKeySpec::default() };
    let made = catalogue.put_api_key(&flights, &named("data"), spec).await.unwrap();
    let data_key = made.1.unwrap().expose().to_owned();
    World { router, flights, callers: callers.try_into().unwrap(), data_key, parts, _dir: dir }
}

impl World {
    /// Asks, and answers status and JSON.
    async fn ask(&self, method: &str, path: &str, credential: Option<&str>, body: &Value) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(credential) = credential {
            request = request.header("authorization", format!("Bearer {credential}"));
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 24).await.unwrap();
        (parts.status.as_u16(), serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn end(self) {
        self.parts.stores.stop().await;
        self.parts.log.close().await;
    }
}
