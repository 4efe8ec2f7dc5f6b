//! `Answer`: a query that runs, batch by batch, at the pace of whoever reads it. Dropping it stops the query and frees what
//! it holds. So does the end of its time, also when nobody reads: a client that stalls holds no turn for ever.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bigpeer_chassis::ApiError;
use bigpeer_types::Lsn;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::engine::{Limits, Planned};
use crate::metrics::{self, Outcome};
use crate::turns::Turn;

/// The rows of a query.
pub struct Answer {
    schema: SchemaRef,
    lsn: Lsn,
    running: Arc<Mutex<State>>,
    /// Ends the query when its time is up.
    watchdog: JoinHandle<()>,
}

enum State {
    Running(Box<Running>),
    /// The last row was read, or an error told.
    Ended,
    /// Nobody read in time; the error is still to be told.
    TimedOut(ApiError),
}

struct Running {
    batches: SendableRecordBatchStream,
    limits: Limits,
    turn: Turn,
}

impl Answer {
    /// Starts `planned`, within `turn`.
    pub(crate) fn start(planned: Planned, mut turn: Turn) -> Result<Self, ApiError> {
        let (schema, lsn, limits) = (planned.schema.clone(), planned.lsn, planned.limits.clone());
        let batches = planned.run().map_err(|error| limits.api_error(&error));
        let batches = batches.inspect_err(|error| turn.ends(Outcome::Failed(error.code)))?;
        let deadline = turn.deadline();
        let running = Arc::new(Mutex::new(State::Running(Box::new(Running { batches, limits, turn }))));
        let watched = Arc::downgrade(&running);
        let watchdog = tokio::spawn(async move {
            tokio::time::sleep_until(deadline).await;
            let Some(state) = watched.upgrade() else { return };
            let mut state = state.lock().await;
            if let State::Running(running) = &mut *state {
                let error = running.turn.timed_out();
                running.turn.ends(Outcome::Failed(error.code));
                *state = State::TimedOut(error);
            }
        });
        Ok(Self { schema, lsn, running, watchdog })
    }

    /// The columns, JSON text marked by [`bigpeer_tables::columns::JSON_MARK`].
    #[must_use]
    pub const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The transaction up to which the answer is true.
    #[must_use]
    pub const fn transaction(&self) -> Lsn {
        self.lsn
    }

    /// The next rows; none at the end, and after an error. Cancel safe.
    ///
    /// # Errors
    /// When the query fails, or meets a limit.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, ApiError> {
        let mut state = self.running.lock().await;
        let running = match &mut *state {
            State::Running(running) => running,
            State::Ended => return Ok(None),
            State::TimedOut(_) => {
                return match std::mem::replace(&mut *state, State::Ended) {
                    State::TimedOut(error) => Err(error),
                    State::Running(_) | State::Ended => Ok(None),
                };
            }
        };
        let Running { batches, limits, turn } = running.as_mut();
        let next = turn.within(async { batches.next().await.transpose().map_err(|error| limits.api_error(&error)) });
        let next = next.await;
        match &next {
            Ok(Some(batch)) => metrics::sent(batch.num_rows()),
            Ok(None) => turn.ends(Outcome::Finished),
            Err(error) => turn.ends(Outcome::Failed(error.code)),
        }
        if !matches!(next, Ok(Some(_))) {
            *state = State::Ended;
        }
        next
    }

    /// Stops the query: its rows could not be handed over.
    pub(crate) async fn fail(&mut self, error: &ApiError) {
        let mut state = self.running.lock().await;
        if let State::Running(running) = &mut *state {
            running.turn.ends(Outcome::Failed(error.code));
        }
        *state = State::Ended;
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.watchdog.abort();
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("lsn", &self.lsn).finish_non_exhaustive()
    }
}
