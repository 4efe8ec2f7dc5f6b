//! A query that runs for a session: its rows are sent as they are made, until there are no more, as many as were asked for
//! were sent, the client cancels, or the client is gone.

use arrow::datatypes::SchemaRef;
use bigpeer_sql::{Answer, plain_batch, plain_schema};
use tokio::sync::watch;

use crate::backend;
use crate::column::{Column, columns};
use crate::errors::PgError;
use crate::io::{Ended, Io};

/// Why a statement is not answered.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed; the session goes on.
    Error(PgError),
    /// The session ends.
    Ended(Ended),
}

impl From<PgError> for Stop {
    fn from(error: PgError) -> Self {
        Self::Error(error)
    }
}

impl From<Ended> for Stop {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

/// Waits for `work`, unless the client cancels it or goes away.
pub(crate) async fn unless_stopped<T>(
    io: &mut Io,
    cancelled: &mut watch::Receiver<u64>,
    work: impl Future<Output = T>,
) -> Result<T, Stop> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        Ok(()) = cancelled.changed() => Err(PgError::cancelled().into()),
        () = io.gone() => Err(Ended::Gone.into()),
    }
}

/// A query that runs.
pub(crate) struct Running {
    answer: Answer,
    /// The columns as they are sent.
    plain: SchemaRef,
    formats: Vec<bool>,
    text: String,
    /// Rows that were made and not sent: the columns, how many rows, the next of them.
    pending: Option<(Vec<Column>, usize, usize)>,
    /// Rows that were sent.
    pub(crate) sent: u64,
}

impl Running {
    pub(crate) fn new(answer: Answer, formats: Vec<bool>, text: String) -> Self {
        let plain = plain_schema(answer.schema());
        Self { answer, plain, formats, text, pending: None, sent: 0 }
    }

    /// The columns.
    pub(crate) const fn schema(&self) -> &SchemaRef {
        self.answer.schema()
    }

    /// The transaction that the answer is true at.
    pub(crate) const fn transaction(&self) -> u64 {
        self.answer.transaction().version
    }

    /// Sends rows, at most `most` of them (0: all). Whether those were the last.
    pub(crate) async fn send(
        &mut self,
        io: &mut Io,
        cancelled: &mut watch::Receiver<u64>,
        most: u32,
    ) -> Result<bool, Stop> {
        let mut left = if most == 0 { u64::MAX } else { u64::from(most) };
        loop {
            let (columns, rows, mut next) = match self.pending.take() {
                Some(pending) => pending,
                None => match self.batch(io, cancelled).await? {
                    Some(batch) => batch,
                    None => return Ok(true),
                },
            };
            while next < rows {
                if left == 0 {
                    self.pending = Some((columns, rows, next));
                    return Ok(false);
                }
                backend::row(&mut io.out, columns.len(), |index, out| {
                    columns.get(index).is_some_and(|column| column.write(next, out))
                });
                next += 1;
                left -= 1;
                self.sent += 1;
                io.send_if_full().await?;
            }
        }
    }

    async fn batch(
        &mut self,
        io: &mut Io,
        cancelled: &mut watch::Receiver<u64>,
    ) -> Result<Option<(Vec<Column>, usize, usize)>, Stop> {
        let batch = unless_stopped(io, cancelled, self.answer.next()).await?;
        let Some(batch) = batch.map_err(|error| PgError::of(&error, &self.text))? else { return Ok(None) };
        let made = plain_batch(&batch, &self.plain).and_then(|batch| columns(&self.plain, &batch, &self.formats));
        let made = made.map_err(|error| {
            tracing::error!(%error, "rows cannot be written for a client of PostgreSQL");
            PgError::new("XX000", "the server failed")
        })?;
        Ok(Some((made, batch.num_rows(), 0)))
    }
}
