//! `Status`: what the owner of a feed knows of it: soft state, of this process.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bigpeer_chassis::Name;
use bigpeer_types::AppId;
use serde::Serialize;

use crate::metrics;

/// How many deliveries are remembered.
const DELIVERIES: usize = 200;

/// One attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delivery {
    /// The event, or the first and last of several.
    pub(crate) id: String,
    /// How many events.
    pub(crate) events: usize,
    /// The how-many-th attempt it was.
    pub(crate) attempt: u32,
    /// When it ended, in milliseconds since the epoch.
    pub(crate) at_ms: u64,
    /// How long it took.
    pub(crate) latency_ms: u64,
    /// What the receiver answered.
    pub(crate) status: Option<u16>,
    /// Why it failed, if it did.
    pub(crate) error: Option<String>,
}

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
    deliveries: VecDeque<Delivery>,
    #[serde(skip)]
    counted: Option<(u64, u64)>,
}

/// What the owner of a feed knows of it.
#[derive(Debug)]
pub(crate) struct Status {
    app: AppId,
    name: Name,
    known: Mutex<Known>,
}

impl Status {
    pub(crate) fn new(app: &AppId, name: &Name) -> Self {
        Self { app: app.clone(), name: name.clone(), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an attempt.
    pub(crate) fn delivery(&self, delivery: Delivery) {
        metrics::delivery(delivery.status, delivery.latency_ms);
        if let Some(error) = delivery.error.clone() {
            self.failed(&error);
        }
        let mut known = self.known();
        if known.deliveries.len() == DELIVERIES {
            known.deliveries.pop_front();
        }
        known.deliveries.push_back(delivery);
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

    /// The last attempts, the newest first.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.known().deliveries.iter().rev().cloned().collect()
    }
}
