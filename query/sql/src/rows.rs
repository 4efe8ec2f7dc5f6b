//! The answer to a query in one of the formats, piece by piece: pulled by the client, one batch at a time. An answer that
//! cannot be finished is broken off, never ended as if it were whole.

use bigpeer_chassis::ApiError;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use crate::answer::Answer;
use crate::error::api_error;
use crate::metrics;
use crate::output::Encoder;

/// A query that runs, encoded.
pub(crate) struct Rows {
    answer: Answer,
    encoder: Box<dyn Encoder>,
    ended: bool,
}

impl Rows {
    pub(crate) fn new(answer: Answer, encoder: Box<dyn Encoder>) -> Self {
        Self { answer, encoder, ended: false }
    }

    /// The next piece, never empty; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        while !self.ended {
            let encoded = match self.answer.next().await? {
                Some(batch) => self.encoder.write(&batch),
                None => {
                    self.ended = true;
                    self.encoder.finish()
                }
            };
            let bytes = match encoded.map_err(|error| api_error(&error.into())) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.ended = true;
                    self.answer.fail(&error).await;
                    return Err(error);
                }
            };
            if !bytes.is_empty() {
                metrics::sent_bytes(bytes.len());
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
        f.debug_struct("Rows").field("answer", &self.answer).finish_non_exhaustive()
    }
}
