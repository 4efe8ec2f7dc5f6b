//! The tail: reads the log behind the manifest and applies it to the overlay, batch by batch.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_log::{ReadBatch, ReadError};
use futures::FutureExt;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::error::TablesError;
use crate::feed::{AppliedBatch, AppliedTransaction};
use crate::metrics;
use crate::overlay;
use crate::snapshot::View;
use crate::store::Shared;

/// How long to wait before the log is asked again after it failed, and for other writers' manifests when there is no
/// room in the overlay.
const PAUSE: Duration = Duration::from_millis(250);

/// How often manifests of other processes are looked for at least. Those that they replace, and with them the files that
/// this process reads, are kept for longer (`TablesSettings::keep_for`).
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Runs until the store is stopped or cannot go on.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let end = tokio::select! {
        _ = stop.wait_for(|stop| *stop) => TablesError::Stopped,
        error = follow(&shared) => error,
    };
    if !matches!(end, TablesError::Stopped) {
        tracing::error!(app = %shared.app, error = %end, "the store has stopped applying");
    }
    shared.published.send_modify(|published| published.failed = Some(end));
}

/// Follows the log until something is wrong that waiting does not cure.
async fn follow(shared: &Shared) -> TablesError {
    let mut look = tokio::time::interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if look.tick().now_or_never().is_some() {
            take_up(shared).await;
        }
        match step(shared, &mut look).await {
            Ok(()) => {}
            Err(TablesError::Log(ReadError::Trimmed { kept_after })) => {
                // Another process has flushed and trimmed: its manifest holds what the log has no more.
                match shared.refresh().await {
                    Ok(true) => {}
                    Ok(false) => return TablesError::Log(ReadError::Trimmed { kept_after }),
                    Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
                    Err(error) => return error,
                }
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(app = %shared.app, %error, "cannot read the log, will try again");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return error,
        }
    }
}

/// Takes up a newer manifest of another process, if there is one. An error shows again when something is read.
async fn take_up(shared: &Shared) {
    if let Err(error) = shared.refresh().await {
        tracing::warn!(app = %shared.app, %error, "cannot look for newer manifests, will try again");
    }
}

/// Applies one batch, or waits.
async fn step(shared: &Shared, look: &mut Interval) -> Result<(), TablesError> {
    let view = shared.view();
    if overlay::bytes(&view.overlays) > shared.settings.max_overlay_bytes {
        wait_for_room(shared).await;
        return Ok(());
    }
    let after = view.lsn;
    drop(view);
    let batch = shared.log.read(&shared.app, after, shared.settings.read_bytes).await?;
    if batch.entries.is_empty() {
        tokio::select! {
            waited = shared.log.wait_past(&shared.app, after) => waited?,
            _ = look.tick() => take_up(shared).await,
        }
        return Ok(());
    }
    apply(shared, batch).await
}

async fn wait_for_room(shared: &Shared) {
    let room = shared.room.notified();
    metrics::overlay_full(&shared.app);
    tokio::select! {
        () = room => {}
        () = tokio::time::sleep(PAUSE) => {
            // Where another process flushes, its manifests make the room.
            take_up(shared).await;
        }
    }
}

/// Makes a batch visible, as a whole.
async fn apply(shared: &Shared, batch: ReadBatch) -> Result<(), TablesError> {
    let _update = shared.update.lock().await;
    let view = shared.view();
    let mut overlays = view.overlays.clone();
    let mut transactions = Vec::with_capacity(batch.entries.len());
    let (mut bytes, mut written) = (0, view.written);
    for entry in batch.entries {
        // A manifest that was taken up meanwhile may hold the beginning of the batch.
        if entry.lsn <= view.lsn {
            continue;
        }
        let (lsn, payload) = (entry.lsn, entry.payload.len());
        bytes += payload + 256;
        let transaction = overlay::apply_entry(&mut overlays, lsn, entry.payload)?;
        written.add(transaction.changes().len(), payload);
        transactions.push(AppliedTransaction { lsn, site: entry.site, seq: entry.seq, transaction });
    }
    let lsn = view.lsn.max(batch.through);
    metrics::applied(&shared.app, transactions.len());
    let after = Arc::new(View { lsn, version: Arc::clone(&view.version), overlays, written });
    let batch = AppliedBatch {
        transactions,
        before: shared.snapshot(view),
        after: shared.snapshot(Arc::clone(&after)),
        through: lsn,
    };
    shared.ring.push(Arc::new(batch), bytes, shared.settings.clock.monotonic());
    shared.publish(after);
    Ok(())
}
