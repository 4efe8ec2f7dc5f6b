//! Room for statements: so many run at once, so many wait, not for ever. Who finds no room is told to come back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bigpeer_chassis::{ApiError, ErrorCode};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::settings::ApiSettings;

/// A statement's place.
pub(crate) type Slot<'a> = SemaphorePermit<'a>;

/// The places.
#[derive(Debug)]
pub(crate) struct Slots {
    running: Semaphore,
    waiting: AtomicUsize,
    most: usize,
    max_waiting: usize,
    patience: Duration,
}

/// Counts one that waits, also when it is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slots {
    pub(crate) fn new(settings: &ApiSettings) -> Self {
        Self {
            running: Semaphore::new(settings.max_concurrent_statements),
            waiting: AtomicUsize::new(0),
            most: settings.max_concurrent_statements,
            max_waiting: settings.max_waiting_statements,
            patience: settings.turn_wait,
        }
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// `too_many_requests`, with a time after which to try again.
    pub(crate) async fn take(&self) -> Result<Slot<'_>, ApiError> {
        if let Ok(slot) = self.running.try_acquire() {
            return Ok(slot);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.max_waiting {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(self.busy());
        }
        let _waiting = Waiting(&self.waiting);
        match tokio::time::timeout(self.patience, self.running.acquire()).await {
            Ok(slot) => slot.map_err(|error| ApiError::internal(&error)),
            Err(_) => Err(self.busy()),
        }
    }

    fn busy(&self) -> ApiError {
        let message =
            format!("{} statements are running, and others wait already; nothing was done; try again", self.most);
        ApiError::new(ErrorCode::TooManyRequests, message).retry_after(1)
    }
}
