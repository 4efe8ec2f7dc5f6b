//! What it costs to find out who carries a token: `cargo bench -p bigpeer-chassis`. Prints `name value unit`. A token is cold
//! when its signature was never checked; after a change of the catalogue only its holder is looked up anew.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, reason = "a benchmark")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bigpeer_chassis::{ApiKeySpec, Catalogue, CatalogueError, Holder, LoginTimes, Name, Permissions, ProviderKind};
use bigpeer_chassis::{ProviderSpec, User, provider_place};
use bigpeer_log::MemoryLog;
use bigpeer_types::{AppId, RandomIds, SiteId, SystemClock};

const TOKENS: u64 = 4000;
const ROUNDS: u64 = 50;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

struct World {
    catalogue: Arc<Catalogue>,
    app: AppId,
}

impl World {
    async fn new() -> Self {
        let log = Arc::new(MemoryLog::new());
        let catalogue = Catalogue::open(log, Arc::new(SystemClock), Arc::new(RandomIds)).await.unwrap();
        catalogue.create_tenant(&name("t")).await.unwrap();
        let app = catalogue.create_app(&name("t"), &name("a")).await.unwrap().id;
        let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms: None, ..Default::default() };
        catalogue.put_api_key(&app, &name("k"), spec).await.unwrap();
        let rule = r#"{"qlVersion": 1, "read": {"queriesByCollection": {"orders": ["store = :claims.store"]}}}"#;
        catalogue.put_role(&app, &name("clerk"), serde_json::from_str(rule).unwrap()).await.unwrap();
        let place = provider_place(&app, &name("idp"));
        let shared_token = catalogue.keyring().seal(&place, b"shared", &RandomIds).unwrap();
        let kind = ProviderKind::Anonymous { shared_token };
        let spec = ProviderSpec { kind, roles: vec![name("clerk")], permissions: None, session_secs: 3600 };
        catalogue.put_provider::<CatalogueError>(&app, &name("idp"), |_| Ok(spec)).await.unwrap();
        Self { catalogue, app }
    }

    async fn tokens(&self, of_users: bool) -> Vec<String> {
        let key = self.catalogue.api_key(&self.app, &name("k")).unwrap();
        let times = LoginTimes { token_ttl_secs: 3600, refresh_ttl_secs: 3600 };
        let mut tokens = Vec::new();
        for n in 0..TOKENS {
            let site = SiteId::new(n + 1);
            if !of_users {
                tokens.push(self.catalogue.issue_token(&self.app, site, &key, 3600).unwrap().0);
                continue;
            }
            let claims = [("store".to_owned(), format!("s{n}").into())].into_iter().collect();
            let (provider, id) = (name("idp"), format!("user-{n}"));
            let user = User { provider, id, roles: Vec::new(), permissions: None, claims };
            let holder = Holder::User(Box::new(user));
            tokens.push(self.catalogue.log_in(&self.app, site, holder, None, times).await.unwrap().access_token);
        }
        tokens
    }

    fn check(&self, what: &str, tokens: &[String], rounds: u64) {
        let started = Instant::now();
        for _ in 0..rounds {
            for token in tokens {
                black_box(
                    self.catalogue
                        .authenticate_token(&self.app, bigpeer_chassis::Door::Sync, black_box(token))
                        .unwrap(),
                );
            }
        }
        let checks = (tokens.len() as u64 * rounds) as f64;
        println!("{what}\t{:.3}\tµs", started.elapsed().as_secs_f64() * 1e6 / checks);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let world = World::new().await;
    for (whose, of_users) in [("a key's", false), ("a user's", true)] {
        let tokens = world.tokens(of_users).await;
        world.check(&format!("token check, {whose}, cold"), &tokens, 1);
        world.check(&format!("token check, {whose}, cached"), &tokens, ROUNDS);
        world.catalogue.create_tenant(&name(if of_users { "u" } else { "v" })).await.unwrap();
        world.check(&format!("token check, {whose}, after a change of the catalogue"), &tokens, 1);
    }
    let started = Instant::now();
    let tokens = world.tokens(true).await;
    println!("logins\t{:.0}\t1/s", tokens.len() as f64 / started.elapsed().as_secs_f64());
}
