//! `Status`: what the owner of a feed knows of it: soft state, of this process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bigpeer_chassis::Name;
use bigpeer_types::AppId;
use serde::Serialize;

use crate::metrics;
use crate::registry::{Delivery, Fresh};

/// What is known of a feed here.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Known {
    /// Failures since this process owns the feed.
    pub(crate) errors: u64,
    /// The last of them.
    pub(crate) last_error: Option<String>,
    /// Events given up since this process owns the feed.
    pub(crate) dead_letters: u64,
    /// Events a second, of late.
    pub(crate) rate: f64,
    #[serde(skip)]
    counted: Option<(u64, u64)>,
}

/// What the owner of a feed knows of it.
#[derive(Debug)]
pub(crate) struct Status {
    app: AppId,
    name: Name,
    /// Whether this process works on the feed, and does not only try to.
    owned: AtomicBool,
    known: Mutex<Known>,
    /// Attempts that are not kept yet.
    fresh: Mutex<Fresh>,
}

impl Status {
    pub(crate) fn new(app: &AppId, name: &Name) -> Self {
        Self {
            app: app.clone(),
            name: name.clone(),
            owned: AtomicBool::default(),
            known: Mutex::default(),
            fresh: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process works on the feed.
    pub(crate) fn own(&self) {
        self.owned.store(true, Ordering::Release);
    }

    pub(crate) fn is_owned(&self) -> bool {
        self.owned.load(Ordering::Acquire)
    }

    /// Attempts that are not kept yet.
    pub(crate) fn fresh(&self) -> MutexGuard<'_, Fresh> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an attempt.
    pub(crate) fn delivery(&self, delivery: Delivery) {
        metrics::delivery(delivery.status, delivery.latency_ms);
        if let Some(error) = delivery.error.clone() {
            self.failed(&error);
        }
        self.fresh().push(delivery);
    }

    /// Something failed.
    pub(crate) fn failed(&self, why: &str) {
        metrics::failed(&self.app, &self.name);
        let mut known = self.known();
        known.errors += 1;
        known.last_error = Some(why.chars().take(500).collect());
    }

    /// An event was given up.
    pub(crate) fn dead_letter(&self) {
        metrics::dead_letter(&self.app, &self.name);
        self.known().dead_letters += 1;
    }

    /// So many events were delivered, as of now.
    pub(crate) fn count(&self, delivered: u64, now_ms: u64) {
        let mut known = self.known();
        if let Some((before, at_ms)) = known.counted
            && now_ms > at_ms
        {
            #[allow(clippy::cast_precision_loss, reason = "a rate")]
            let rate = delivered.saturating_sub(before) as f64 * 1000.0 / (now_ms - at_ms) as f64;
            known.rate = known.rate.mul_add(0.5, rate * 0.5);
            metrics::delivered(&self.app, &self.name, delivered.saturating_sub(before));
        }
        known.counted = Some((delivered, now_ms));
    }

    /// What is known now.
    pub(crate) fn now(&self) -> Known {
        self.known().clone()
    }
}
