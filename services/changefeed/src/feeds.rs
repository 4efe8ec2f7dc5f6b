//! `Feeds`: which feeds this process works on, and how far each is behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bigpeer_chassis::Name;
use bigpeer_types::AppId;
use tokio::task::JoinSet;

use crate::ChangefeedContext;
use crate::error::FeedError;
use crate::metrics;
use crate::odometer::{Lag, Odometer};
use crate::owner::Owner;
use crate::registry::{Checkpoint, Registry};
use crate::status::Status;

/// How often feeds that nobody works on are tried, and lags are measured.
const TICK: Duration = Duration::from_secs(1);

type Key = (AppId, Name);

/// The feeds of all apps, as this process sees them.
#[derive(Debug)]
pub(crate) struct Feeds {
    pub(crate) registry: Registry,
    /// Of those that this process works on, or tries to.
    local: Mutex<BTreeMap<Key, Arc<Status>>>,
    /// Those whose lag it tells.
    told: Mutex<BTreeSet<Key>>,
    odometers: tokio::sync::Mutex<BTreeMap<AppId, Odometer>>,
}

impl Feeds {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry, local: Mutex::default(), told: Mutex::default(), odometers: tokio::sync::Mutex::default() }
    }

    fn local(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Status>>> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this process knows of a feed, if it works on it.
    pub(crate) fn status(&self, app: &AppId, name: &Name) -> Option<Arc<Status>> {
        self.local().get(&(app.clone(), name.clone())).filter(|status| status.is_owned()).cloned()
    }

    /// How far a feed is behind.
    pub(crate) async fn lag(
        &self,
        context: &ChangefeedContext,
        app: &AppId,
        checkpoint: &Checkpoint,
    ) -> Result<Lag, FeedError> {
        let at = checkpoint.cursor()?.position.whole();
        let mut odometers = self.odometers.lock().await;
        let odometer = odometers.entry(app.clone()).or_default();
        odometer.advance(context.log.as_ref(), app, at).await.map_err(FeedError::Log)?;
        Ok(odometer.lag(at, checkpoint, context.clock.now_ms()))
    }

    /// Measures all that this process works on, and those that stand still: of these every process tells the same.
    async fn measure(&self, context: &ChangefeedContext, paused: Vec<Key>) -> Result<(), FeedError> {
        let mut keys: BTreeSet<Key> = paused.into_iter().collect();
        keys.extend(self.local().iter().filter(|(_, status)| status.is_owned()).map(|(key, _)| key.clone()));
        let told = std::mem::replace(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner), keys.clone());
        for (app, name) in told.difference(&keys) {
            metrics::no_lag(app, name);
        }
        let mut needed: BTreeMap<AppId, bigpeer_types::Lsn> = BTreeMap::new();
        for (app, name) in keys {
            let Some(stored) = self.registry.checkpoint(&app, &name).await? else { continue };
            let lag = self.lag(context, &app, &stored.record).await?;
            metrics::lag(&app, &name, &lag);
            if let Some(at_ms) = stored.record.delivered_ms {
                metrics::last_delivery(&app, &name, at_ms);
            }
            let at = stored.record.cursor()?.position.whole();
            needed.entry(app).and_modify(|needed| *needed = at.min(*needed)).or_insert(at);
        }
        let mut odometers = self.odometers.lock().await;
        odometers.retain(|app, _| needed.contains_key(app));
        for (app, at) in needed {
            if let Some(odometer) = odometers.get_mut(&app) {
                odometer.forget(at);
            }
        }
        Ok(())
    }

    /// Begins to work on every feed that may need it. Answers those that stand still.
    async fn begin(
        &self,
        context: &ChangefeedContext,
        process: &str,
        tasks: &mut JoinSet<Key>,
    ) -> Result<Vec<Key>, FeedError> {
        let mut paused = Vec::new();
        for (app, name, entry) in self.registry.list(None).await? {
            let key = (app.clone(), name.clone());
            if entry.paused.is_some() {
                paused.push(key);
                continue;
            }
            if self.local().contains_key(&key) {
                continue;
            }
            let Some(store) = context.stores.store(&app).filter(|_| context.catalogue.app(&app).is_some()) else {
                continue;
            };
            let status = Arc::new(Status::new(&app, &name));
            self.local().insert(key.clone(), Arc::clone(&status));
            let (registry, process, context) = (self.registry.clone(), process.to_owned(), context.clone());
            let owner = Owner { context, registry, process, app, name, store, status };
            tasks.spawn(async move {
                owner.run().await;
                key
            });
        }
        Ok(paused)
    }
}

/// Works on feeds until shutdown: on those that no other process works on.
pub async fn run_feeds(context: ChangefeedContext) {
    let feeds = Arc::clone(&context.feeds);
    let process = context.settings.process.clone().unwrap_or_else(|| context.ids.uuid());
    let mut changes = feeds.registry.watch();
    let mut tasks: JoinSet<Key> = JoinSet::new();
    loop {
        let done = match feeds.begin(&context, &process, &mut tasks).await {
            Ok(paused) => feeds.measure(&context, paused).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "feeds cannot be looked after, will try again");
        }
        tokio::select! {
            () = context.shutdown.cancelled() => break,
            // A log that is closed is at its end, and so is the process.
            _ = changes.changed() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        while let Some(ended) = tasks.try_join_next() {
            match ended {
                Ok(key) => _ = feeds.local().remove(&key),
                Err(error) => tracing::error!(%error, "work on a feed broke off"),
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}
