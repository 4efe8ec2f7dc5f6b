//! `Patience`: how long the other end of a connection is waited for, until bytes have moved; and `Paced`, a request's body that
//! has to come within it. Not how long everything takes is limited: a large body over a slow connection may take hours.
//!
//! Only time in which the other end was waited for counts. What the server takes for its own work, and the pauses that it makes
//! because of an app's quota, do not.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Uri};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::{ApiError, ErrorCode, metrics};

/// How long nothing may come of a body.
const SILENCE: Duration = Duration::from_secs(30);
/// For how long a body is waited for, all in all, without regard to how much has come.
const GRACE: Duration = Duration::from_secs(60);
/// Beyond that, as many bytes have to move a second of waiting: fewer than the slowest satellite brings.
const LEAST_PER_SECOND: u64 = 256;

/// How long bytes are waited for: so long without any, and so long all in all as goes with how many there were.
#[derive(Debug)]
pub(crate) struct Patience {
    silence: Duration,
    grace: Duration,
    moved: u64,
    waited: Duration,
    /// Since when more is waited for.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The other end was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow {
    bytes: u64,
    waited: Duration,
    /// What was too long: nothing for this long, or else too little in all.
    silence: Option<Duration>,
    grace: Duration,
}

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, waited, silence, grace } = self;
        match silence {
            Some(silence) => write!(f, "after {bytes} bytes there was nothing more for {} seconds", silence.as_secs()),
            None => write!(
                f,
                "there were {bytes} bytes in {} seconds, and after the first {} it has to be {LEAST_PER_SECOND} a second on average",
                waited.as_secs(),
                grace.as_secs()
            ),
        }
    }
}

impl Error for TooSlow {}

impl TooSlow {
    /// Whether it is what `error` came of.
    pub(crate) fn among_causes(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(slow) = error.downcast_ref() {
                return Some(*slow);
            }
            cause = error.source();
        }
        None
    }

    /// What a request is answered whose body was it.
    pub(crate) fn refusal(self, method: &Method, uri: &Uri) -> ApiError {
        let path: String = uri.path().chars().take(200).collect();
        let message = format!(
            "the body of {method} {path} came too slowly: {self}; send it again without pauses, or over a slow connection in \
             several smaller requests (attachments in parts, see docs/http-api.md)"
        );
        ApiError::new(ErrorCode::Timeout, message)
    }
}

impl Patience {
    pub(crate) const fn new(silence: Duration, grace: Duration) -> Self {
        Self { silence, grace, moved: 0, waited: Duration::ZERO, since: None, timer: None }
    }

    /// So many bytes moved: it need not be waited any more.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
        if let Some(since) = self.since.take() {
            self.waited = self.waited.saturating_add(since.elapsed());
        }
    }

    /// Nothing moves now. Ready when that has been so for too long.
    pub(crate) fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let earned = Duration::from_secs(self.moved / LEAST_PER_SECOND);
        let left = self.grace.saturating_add(earned).saturating_sub(self.waited);
        let deadline = since + left.min(self.silence);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(TooSlow {
            bytes: self.moved,
            waited: self.waited.saturating_add(since.elapsed()),
            silence: (left >= self.silence).then_some(self.silence),
            grace: self.grace,
        })
    }
}

/// Where it is noted that a body was too slow.
pub(crate) type Noted = Arc<OnceLock<TooSlow>>;

/// A body that breaks off with [`TooSlow`] when it does not come on.
#[derive(Debug)]
pub struct Paced<B> {
    body: B,
    patience: Patience,
    noted: Noted,
}

impl<B> Paced<B> {
    /// That body.
    pub fn new(body: B) -> Self {
        Self::noting(body, Noted::default())
    }

    /// That body; it notes when it was too slow.
    pub(crate) fn noting(body: B, noted: Noted) -> Self {
        Self { body, patience: Patience::new(SILENCE, GRACE), noted }
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.noted.get().is_some() {
            // It broke off, and that was said.
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            let slow = ready!(this.patience.poll_too_slow(cx));
            metrics::slow_body();
            return Poll::Ready(Some(Err(this.noted.get_or_init(|| slow).to_owned().into())));
        };
        // Frames with nothing in them are no reason to wait longer.
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        if bytes > 0 {
            this.patience.moved(bytes);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.noted.get().is_some() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
