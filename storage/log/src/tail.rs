//! Following a log: a stream of batches that waits at the end.

use std::sync::Arc;

use bigpeer_types::{AppId, Lsn};
use futures::stream::{self, Stream};

use crate::{ReadBatch, ReadError, TransactionLog};

/// Most bytes of payload in one batch of a tail.
const TAIL_BATCH_BYTES: usize = 1024 * 1024;

/// Everything of `app` after `after`, in order, in batches of about a megabyte, for ever: at the end of the log it waits.
/// An error is the last item, except that a caller may make a new stream from the last batch's `through`.
pub fn tail(
    log: Arc<dyn TransactionLog>,
    app: AppId,
    after: Lsn,
) -> impl Stream<Item = Result<ReadBatch, ReadError>> + Send + 'static {
    stream::try_unfold((log, app, after), |(log, app, after)| async move {
        loop {
            let batch = log.read(&app, after, TAIL_BATCH_BYTES).await?;
            if batch.entries.is_empty() {
                log.wait_past(&app, batch.through).await?;
            } else {
                let through = batch.through;
                return Ok(Some((batch, (log, app, through))));
            }
        }
    })
}
