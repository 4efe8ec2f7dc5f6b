//! Refresh tokens: each is good once, answers may be lost, and thieves end what they stole.

use std::sync::Arc;

use bigpeer_log::{MemoryLog, TransactionLog};
use bigpeer_types::{ManualClock, RandomIds, SiteId};

use super::*;
use crate::{ApiKeySpec, Permissions, TokenAge};

const TIMES: LoginTimes = LoginTimes { token_ttl_secs: 60, refresh_ttl_secs: 1000 };

struct World {
    log: Arc<MemoryLog>,
    clock: Arc<ManualClock>,
    catalogue: Arc<Catalogue>,
    app: AppId,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn world() -> World {
    let (log, clock) = (Arc::new(MemoryLog::new()), Arc::new(ManualClock::new(1_000_000)));
    let catalogue = Catalogue::open(Arc::clone(&log) as _, Arc::clone(&clock) as _, Arc::new(RandomIds)).await.unwrap();
    catalogue.create_tenant(&name("t")).await.unwrap();
    let app = catalogue.create_app(&name("t"), &name("a")).await.unwrap().id;
    let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms: None, ..Default::default() };
    catalogue.put_api_key(&app, &name("k"), spec).await.unwrap();
    World { log, clock, catalogue, app }
}

impl World {
    async fn log_in(&self) -> Granted {
        let holder = Holder::Key(name("k"));
        self.catalogue.log_in(&self.app, SiteId::new(1), holder, None, TIMES).await.unwrap()
    }

    async fn refresh(&self, of: &Granted) -> Result<Granted, ApiError> {
        self.clock.advance(1000);
        self.catalogue.refresh(&self.app, of.refresh_token.expose(), TIMES).await
    }

    fn opens(&self, granted: &Granted) -> bool {
        self.catalogue.verify_token(&self.app, &granted.access_token, TokenAge::MayHaveEnded).is_ok()
    }

    async fn stored(&self) -> String {
        let all = self.log.metadata().range(b"", None, 1000).await.unwrap();
        all.into_iter().map(|(_, value)| String::from_utf8_lossy(&value.value).into_owned()).collect()
    }
}

#[tokio::test]
async fn each_use_gives_the_next_and_keeps_the_site() {
    let world = world().await;
    let mut last = world.log_in().await;
    for _ in 0..100 {
        let next = world.refresh(&last).await.unwrap();
        assert_ne!(next.refresh_token, last.refresh_token);
        assert_eq!((next.token.site, next.token.logged_in_ms), (SiteId::new(1), 1_000_000));
        assert!(world.catalogue.authenticate_token(&world.app, crate::Door::Sync, &next.access_token).is_ok());
        last = next;
    }
    let stored = world.stored().await;
    assert!(!stored.contains(last.refresh_token.expose().splitn(3, '_').nth(2).unwrap()));
}

#[tokio::test]
async fn an_answer_that_was_lost_can_be_asked_for_again() {
    let world = world().await;
    let first = world.log_in().await;
    let _lost = world.refresh(&first).await.unwrap();
    let _lost_too = world.refresh(&first).await.unwrap();
    let got = world.refresh(&first).await.unwrap();
    let next = world.refresh(&got).await.unwrap();
    assert!(world.opens(&next));
}

#[tokio::test]
async fn whoever_comes_second_with_a_replaced_token_ends_the_login_for_both() {
    for thief_first in [true, false] {
        let world = world().await;
        let stolen = world.log_in().await;
        let other = world.log_in().await;
        // One of the two uses it, and goes on; then the other one comes.
        let ahead = world.refresh(&stolen).await.unwrap();
        let ahead = if thief_first { ahead } else { world.refresh(&ahead).await.unwrap() };
        let behind = world.refresh(&stolen).await;
        let mut ended = vec![stolen, ahead];
        if let Ok(behind) = behind {
            assert!(thief_first, "the successor was used already");
            // Nobody can tell the two apart from a lost answer, until one of them comes again.
            assert!(world.refresh(&ended[1]).await.is_err());
            ended.push(behind);
        }
        for granted in &ended {
            assert!(!world.opens(granted));
            assert_eq!(world.refresh(granted).await.unwrap_err(), ApiError::unauthorized());
        }
        assert!(world.opens(&other) && world.refresh(&other).await.is_ok(), "a login of its own");
    }
}

#[tokio::test]
async fn of_two_uses_at_once_none_is_lost_and_no_two_are_good() {
    let world = world().await;
    let first = world.log_in().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (catalogue, app, token) = (Arc::clone(&world.catalogue), world.app.clone(), first.refresh_token.clone());
        tasks.spawn(async move { catalogue.refresh(&app, token.expose(), TIMES).await.unwrap() });
    }
    let all = tasks.join_all().await;
    let mut good = 0;
    for granted in &all {
        good += usize::from(world.refresh(granted).await.is_ok());
    }
    assert!(good <= 1, "{good} of them could be used");
}

#[tokio::test]
async fn logins_end_when_they_are_not_used_when_their_time_is_up_and_with_their_key() {
    let world = world().await;
    let idle = world.log_in().await;
    assert_eq!(idle.refresh_expires_at_ms, 2_000_000);
    world.clock.set(2_000_000);
    assert!(world.refresh(&idle).await.is_err());

    let holder = Holder::Key(name("k"));
    let limited = world.catalogue.log_in(&world.app, SiteId::new(2), holder, Some(100), TIMES).await.unwrap();
    assert_eq!(limited.refresh_expires_at_ms, 2_101_000);
    world.clock.advance(90_000);
    let last = world.refresh(&limited).await.unwrap();
    assert!(last.expires_at_ms <= limited.refresh_expires_at_ms, "a token does not outlive its login");
    world.clock.advance(10_000);
    assert!(world.refresh(&last).await.is_err());

    let with_key = world.log_in().await;
    assert_eq!(world.catalogue.forget_ended_logins().await.unwrap(), 2);
    world.catalogue.delete_api_key(&world.app, &name("k")).await.unwrap();
    assert!(world.refresh(&with_key).await.is_err() && !world.opens(&with_key));
}

#[tokio::test]
async fn what_is_no_token_of_the_app_is_refused_and_harms_nobody() {
    let world = world().await;
    let granted = world.log_in().await;
    let other = world.catalogue.create_app(&name("t"), &name("b")).await.unwrap().id;
    let good = granted.refresh_token.expose().to_owned();
    let (head, _) = good.rsplit_once('_').unwrap();
    let guess = format!("{head}_{}", "A".repeat(43));
    let long = format!("bpr_{}_x", "a".repeat(5000));
    for (app, text) in [
        (&other, good.as_str()),
        (&world.app, &guess),
        (&world.app, &good[..good.len() - 1]),
        (&world.app, "bpr__"),
        (&world.app, "bpr_../../catalogue/apps_x"),
        (&world.app, "bpk_abc_def"),
        (&world.app, &long),
        (&world.app, ""),
    ] {
        let refused = world.catalogue.refresh(app, text, TIMES).await.unwrap_err();
        assert_eq!(refused, ApiError::unauthorized(), "{text}");
    }
    assert!(world.refresh(&granted).await.is_ok(), "a guess does not end somebody's login");
}

#[tokio::test]
async fn logging_out_ends_a_login_at_once() {
    let world = world().await;
    let granted = world.log_in().await;
    assert!(world.opens(&granted));
    world.catalogue.log_out(&world.app, granted.refresh_token.expose()).await.unwrap();
    assert!(!world.opens(&granted) && world.refresh(&granted).await.is_err());
    assert!(world.catalogue.log_out(&world.app, granted.refresh_token.expose()).await.is_err());
}
