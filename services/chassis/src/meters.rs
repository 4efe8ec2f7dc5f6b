//! `Meter`: what an app uses in this process, held against its quota. One for each app that is used.
//!
//! # Consistency
//! Each process counts for itself: an app on three processes may make three times as many requests a second. What is refused is
//! not spent. A quota that becomes less ends nothing that is under way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bigpeer_types::{AppId, Clock};

use crate::bucket::Bucket;
use crate::catalogue::View;
use crate::error::whole_secs;
use crate::{Account, ApiError, Catalogue, ErrorCode, Principal, Quota, Recent, Usage, metrics, traffic};

/// Keys and users of an app whose rates are remembered, twice.
const MAX_KEYS: usize = 1024;
/// Who has sent more than may come in is read more slowly; who is behind by more than this is refused.
const MAX_BEHIND: Duration = Duration::from_secs(1);
/// When it makes sense to write again after there was no room.
const FULL_RETRY_SECS: u32 = 60;

/// The meters of a process.
#[derive(Debug, Default)]
pub(crate) struct Meters(Mutex<BTreeMap<AppId, Arc<Meter>>>);

/// What an app uses.
#[derive(Debug)]
pub struct Meter {
    clock: Arc<dyn Clock>,
    quota: RwLock<Arc<Quota>>,
    rates: Mutex<Rates>,
    keys: Recent<Account, Arc<Mutex<Bucket>>>,
    sessions: AtomicU32,
    subscriptions: AtomicU32,
    /// Bytes of attachments, as of when somebody looked.
    attachment_bytes: AtomicU64,
    /// Not written yet.
    used: Mutex<Usage>,
}

#[derive(Debug, Default)]
struct Rates {
    requests: Option<Bucket>,
    bytes_in: Option<Bucket>,
}

/// One of what an app may have so many of; until it is dropped.
#[derive(Debug)]
pub struct Held {
    meter: Arc<Meter>,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Session,
    Subscription,
}

impl Meters {
    fn all(&self) -> MutexGuard<'_, BTreeMap<AppId, Arc<Meter>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The catalogue is another one.
    pub(crate) fn changed(&self, view: &View) {
        let mut all = self.all();
        all.retain(|app, _| view.apps.contains_key(app));
        for (app, meter) in all.iter() {
            meter.allow(view.quotas.get(app).cloned().unwrap_or_default());
        }
    }

    /// The apps that were used, with what is not written yet of that.
    pub(crate) fn used(&self) -> Vec<(AppId, Arc<Meter>)> {
        let all = self.all();
        all.iter()
            .filter(|(_, meter)| !meter.usage().is_zero())
            .map(|(app, meter)| (app.clone(), Arc::clone(meter)))
            .collect()
    }
}

impl Catalogue {
    /// What the app uses in this process.
    #[must_use]
    pub fn meter(&self, app: &AppId) -> Arc<Meter> {
        let mut all = self.meters().all();
        if let Some(meter) = all.get(app) {
            return Arc::clone(meter);
        }
        let meter = Arc::new(Meter::new(Arc::clone(self.clock()), self.quota(app)));
        // Of what is no app nothing is kept.
        if self.app(app).is_some() {
            all.insert(app.clone(), Arc::clone(&meter));
        }
        meter
    }

    /// A request to `app` of somebody who was authenticated: counts it, if the quota allows it. What the request's body and its
    /// answer weigh is counted from now on.
    ///
    /// # Errors
    /// `quota_exceeded`, with a time to wait.
    pub fn admit(&self, app: &AppId, principal: &Principal) -> Result<(), ApiError> {
        let meter = self.meter(app);
        let account = principal.account();
        let limits = match &account {
            Account::Key(name) => {
                self.view().keys.get(&(app.clone(), name.clone())).map(|key| key.limits).unwrap_or_default()
            }
            Account::User { .. } => crate::KeyLimits::default(),
        };
        let of_key = meter.quota().within(limits).requests_per_second;
        let admitted = meter.request(of_key.map(|rate| (&account, rate)));
        traffic::is_of(meter);
        admitted
    }
}

fn over(message: String, wait: Duration) -> ApiError {
    ApiError::new(ErrorCode::QuotaExceeded, message).retry_after(whole_secs(wait))
}

impl Meter {
    pub(crate) fn new(clock: Arc<dyn Clock>, quota: Arc<Quota>) -> Self {
        let meter = Self {
            clock,
            quota: RwLock::default(),
            rates: Mutex::default(),
            keys: Recent::default(),
            sessions: AtomicU32::new(0),
            subscriptions: AtomicU32::new(0),
            attachment_bytes: AtomicU64::new(0),
            used: Mutex::default(),
        };
        meter.allow(quota);
        meter
    }

    /// What the app may use.
    #[must_use]
    pub fn quota(&self) -> Arc<Quota> {
        Arc::clone(&self.quota.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The quota from now on.
    fn allow(&self, quota: Arc<Quota>) {
        let now = self.clock.monotonic();
        let mut rates = self.rates();
        let requests = quota.requests_per_second.map(|rate| (rate.into(), quota.request_burst.unwrap_or(rate).into()));
        set(&mut rates.requests, requests, now);
        set(&mut rates.bytes_in, quota.bytes_in_per_second.map(|rate| (rate, rate)), now);
        drop(rates);
        *self.quota.write().unwrap_or_else(PoisonError::into_inner) = quota;
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut Usage)) {
        change(&mut self.used.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What was used and is not written yet.
    pub(crate) fn usage(&self) -> Usage {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes that away, to write it.
    pub(crate) fn take_usage(&self) -> Usage {
        std::mem::take(&mut self.used.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It was not written after all.
    pub(crate) fn put_back(&self, usage: Usage) {
        self.count(|used| used.add(usage));
    }

    /// One more request, of a key or user that may make so many a second.
    fn request(&self, of_key: Option<(&Account, u32)>) -> Result<(), ApiError> {
        let admitted = self.may_request(of_key);
        self.count(|used| match admitted {
            Ok(()) => used.requests += 1,
            Err(_) => used.requests_refused += 1,
        });
        admitted
    }

    fn may_request(&self, of_key: Option<(&Account, u32)>) -> Result<(), ApiError> {
        let now = self.clock.monotonic();
        let behind = self.rates().bytes_in.as_mut().map(|bucket| bucket.wait(now)).unwrap_or_default();
        if behind > MAX_BEHIND {
            metrics::over_quota("bytes_in_per_second");
            let message = "this app sends more bytes than its quota allows in a second (bytes_in_per_second); nothing was done; send less";
            return Err(over(message.to_owned(), behind));
        }
        // The key first: one that asks too often is not to take from what the others have.
        if let Some((account, rate)) = of_key {
            let bucket = self.keys.get(account).unwrap_or_else(|| {
                let new = Arc::new(Mutex::new(Bucket::new(rate.into(), rate.into(), now)));
                self.keys.add(account.clone(), Arc::clone(&new), MAX_KEYS);
                new
            });
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.set(rate.into(), rate.into());
            bucket.take(1, now).map_err(|wait| {
                metrics::over_quota("key_requests_per_second");
                let message = format!("this key may make {rate} requests a second; nothing was done; ask less often");
                over(message, wait)
            })?;
        }
        match self.rates().requests.as_mut().map_or(Ok(()), |bucket| bucket.take(1, now)) {
            Ok(()) => Ok(()),
            Err(wait) => {
                metrics::over_quota("requests_per_second");
                let message = "this app makes as many requests as its quota allows in a second (requests_per_second); nothing was done; \
                               ask less often";
                Err(over(message.to_owned(), wait))
            }
        }
    }

    /// So many bytes came in. Answers for how long no more should be read.
    pub fn bytes_in(&self, bytes: u64) -> Duration {
        self.count(|used| used.bytes_in = used.bytes_in.saturating_add(bytes));
        let now = self.clock.monotonic();
        self.rates().bytes_in.as_mut().map(|bucket| bucket.spend(bytes, now)).unwrap_or_default()
    }

    /// So many bytes went out.
    pub fn bytes_out(&self, bytes: u64) {
        self.count(|used| used.bytes_out = used.bytes_out.saturating_add(bytes));
    }

    /// A SQL query ran for so long.
    pub fn sql(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.count(|used| used.sql_ms = used.sql_ms.saturating_add(ms));
    }

    /// A session, if there may be one more. One that takes the place of another always may.
    #[must_use]
    pub fn session(self: &Arc<Self>, replaces: bool) -> Option<Held> {
        let most = if replaces { None } else { self.quota().sessions };
        self.hold(What::Session, most)
    }

    /// A subscription, if there may be one more.
    #[must_use]
    pub fn subscription(self: &Arc<Self>) -> Option<Held> {
        self.hold(What::Subscription, self.quota().subscriptions)
    }

    fn held(&self, what: What) -> &AtomicU32 {
        match what {
            What::Session => &self.sessions,
            What::Subscription => &self.subscriptions,
        }
    }

    fn hold(self: &Arc<Self>, what: What, most: Option<u32>) -> Option<Held> {
        let one_more = |held: u32| (held < most.unwrap_or(u32::MAX)).then(|| held + 1);
        if self.held(what).fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_err() {
            metrics::over_quota(match what {
                What::Session => "sessions",
                What::Subscription => "subscriptions",
            });
            return None;
        }
        Some(Held { meter: Arc::clone(self), what })
    }

    /// Sessions and subscriptions that are open.
    #[must_use]
    pub fn open(&self) -> (u32, u32) {
        (self.sessions.load(Ordering::Acquire), self.subscriptions.load(Ordering::Acquire))
    }

    /// The app's attachments have so many bytes.
    pub fn set_attachment_bytes(&self, bytes: u64) {
        self.attachment_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Another attachment is there.
    pub fn add_attachment_bytes(&self, bytes: u64) {
        self.attachment_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of the app's attachments, as far as this process knows.
    #[must_use]
    pub fn attachment_bytes(&self) -> u64 {
        self.attachment_bytes.load(Ordering::Relaxed)
    }

    /// Whether something may be stored in an app whose documents have so many bytes.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub fn may_store(&self, document_bytes: u64) -> Result<(), ApiError> {
        let Some(most) = self.quota().storage_bytes else { return Ok(()) };
        let stored = document_bytes.saturating_add(self.attachment_bytes());
        if stored < most {
            return Ok(());
        }
        metrics::over_quota("storage_bytes");
        let message = format!(
            "this app stores {stored} bytes, and its quota is {most} (storage_bytes); nothing was written; delete something, which is \
             always allowed"
        );
        Err(ApiError::new(ErrorCode::QuotaExceeded, message).retry_after(FULL_RETRY_SECS))
    }
}

fn set(bucket: &mut Option<Bucket>, limit: Option<(u64, u64)>, now: Duration) {
    match (bucket.as_mut(), limit) {
        (Some(bucket), Some((per_second, at_once))) => bucket.set(per_second, at_once),
        (None, Some((per_second, at_once))) => *bucket = Some(Bucket::new(per_second, at_once, now)),
        (_, None) => *bucket = None,
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.held(self.what).fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
