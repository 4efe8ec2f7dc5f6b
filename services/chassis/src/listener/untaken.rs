//! Answers above HTTP/2 that are not taken. There a client that reads the connection may leave an answer where it is for ever, and
//! with it what that holds; at the connection ([`super::reading`]) nothing of it is seen.
//!
//! An answer is given to the connection in small pieces, and notes since when one was not asked for that comes after it. Which
//! answers a connection has is looked through now and then.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

/// How long a piece may lie there.
const UNTAKEN_FOR: Duration = Duration::from_secs(300);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Bytes of a piece: it lies outside of the answer when it is the last.
const PIECE: usize = 64 * 1024;

/// Since when the piece that was given last lies there; none: more was asked for.
type Since = Mutex<Option<Instant>>;

/// The answers of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers(Arc<Mutex<Vec<Weak<Since>>>>);

impl Answers {
    /// That answer's body, as one of these.
    pub(super) fn watch(&self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let since = Arc::new(Since::default());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Before it grows, those that have ended: there are no more than a connection may have at once.
        if all.len() == all.capacity() {
            all.retain(|answer| answer.strong_count() > 0);
        }
        all.push(Arc::downgrade(&since));
        drop(all);
        Body::new(Watched { body, rest: Bytes::new(), since })
    }

    /// Waits until one of them was not taken for too long.
    pub(super) async fn one_is_not_taken(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut is_late = false;
            all.retain(|answer| {
                let Some(since) = answer.upgrade() else { return false };
                let since = *since.lock().unwrap_or_else(PoisonError::into_inner);
                is_late |= since.is_some_and(|since| since.elapsed() >= UNTAKEN_FOR);
                true
            });
            if is_late {
                return;
            }
        }
    }
}

/// An answer's body in pieces.
#[derive(Debug)]
struct Watched {
    body: Body,
    /// What is left of what it gave last.
    rest: Bytes,
    since: Arc<Since>,
}

impl Watched {
    fn set(&self, since: Option<Instant>) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        this.set(None);
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        this.set(Some(Instant::now()));
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
