//! The answer to a query, piece by piece: pulled by the client, one batch at a time; stopped when the client goes away, when
//! time is up, or by an error. An answer that cannot be finished is broken off, never ended as if it were whole.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_chassis::{ApiError, ErrorCode};
use bigpeer_types::Clock;
use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::Format;
use crate::error::api_error;
use crate::metrics::{self, Outcome};
use crate::output::Encoder;

/// A query's turn: held while it runs, counted when it ends.
#[derive(Debug)]
pub(crate) struct Turn {
    format: Format,
    clock: Arc<dyn Clock>,
    started: Duration,
    deadline: Instant,
    limit: Duration,
    outcome: Outcome,
    _permit: OwnedSemaphorePermit,
}

impl Turn {
    pub(crate) fn new(permit: OwnedSemaphorePermit, format: Format, clock: Arc<dyn Clock>, limit: Duration) -> Self {
        metrics::running(1.0);
        let (started, deadline) = (clock.monotonic(), Instant::now() + limit);
        Self { format, clock, started, deadline, limit, outcome: Outcome::Abandoned, _permit: permit }
    }

    /// Waits for `work`, at most until this turn's time is up.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        match timeout_at(self.deadline, work).await {
            Ok(result) => result,
            Err(_) => {
                let message =
                    format!("the query took longer than {} s; read fewer rows, or fewer columns", self.limit.as_secs());
                Err(ApiError::new(ErrorCode::Timeout, message))
            }
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.started)
    }

    /// Notes how the query ended, for whoever counts.
    pub(crate) const fn ends(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        metrics::running(-1.0);
        metrics::query_ended(self.format, self.outcome, self.elapsed().as_secs_f64());
    }
}

/// A query that runs.
pub(crate) struct Rows {
    /// None when the last row was encoded.
    batches: Option<SendableRecordBatchStream>,
    encoder: Box<dyn Encoder>,
    turn: Turn,
}

impl Rows {
    pub(crate) fn new(batches: SendableRecordBatchStream, encoder: Box<dyn Encoder>, turn: Turn) -> Self {
        Self { batches: Some(batches), encoder, turn }
    }

    /// The next piece, never empty; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let piece = self.advance().await;
        match &piece {
            Ok(Some(bytes)) => metrics::sent(0, bytes.len()),
            Ok(None) => self.turn.ends(Outcome::Finished),
            Err(error) => {
                self.batches = None;
                self.turn.ends(Outcome::Failed(error.code));
            }
        }
        piece
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, ApiError> {
        let encoding = |error: arrow::error::ArrowError| api_error(&error.into());
        while let Some(batches) = &mut self.batches {
            let next = self.turn.within(async { batches.next().await.transpose().map_err(|error| api_error(&error)) });
            let bytes = match next.await? {
                Some(batch) => {
                    metrics::sent(batch.num_rows(), 0);
                    self.encoder.write(&batch).map_err(encoding)?
                }
                None => {
                    self.batches = None;
                    self.encoder.finish().map_err(encoding)?
                }
            };
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// The rest of the answer, `first` before it. Its error breaks the connection off.
    pub(crate) fn into_stream(self, first: Option<Bytes>) -> impl Stream<Item = Result<Bytes, ApiError>> + Send {
        let rest = stream::unfold(Some(self), |rows| async move {
            let mut rows = rows?;
            match rows.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(rows))),
                Ok(None) => None,
                Err(error) => {
                    tracing::info!(code = error.code.as_str(), "a query failed after its answer had begun");
                    Some((Err(error), None))
                }
            }
        });
        stream::iter(first.map(Ok)).chain(rest)
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("turn", &self.turn).finish_non_exhaustive()
    }
}
