//! What a request's body and its answer weigh: counted as they pass, for the app that the request turned out to be of. Bodies of
//! an app that sends more than its quota allows are read more slowly.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::Meter;

tokio::task_local! {
    static TRAFFIC: Arc<Traffic>;
}

/// The bytes of one request.
#[derive(Debug, Default)]
struct Traffic {
    meter: OnceLock<Arc<Meter>>,
    /// Bytes that came in before it was known for whom.
    early: AtomicU64,
}

impl Traffic {
    fn came(&self, bytes: u64) -> Duration {
        match self.meter.get() {
            Some(meter) => meter.bytes_in(bytes),
            None => {
                self.early.fetch_add(bytes, Ordering::Relaxed);
                Duration::ZERO
            }
        }
    }

    fn went(&self, bytes: u64) {
        if let Some(meter) = self.meter.get() {
            meter.bytes_out(bytes);
        }
    }
}

/// The current request is of the app with this meter.
pub(crate) fn is_of(meter: Arc<Meter>) {
    let _outside_of_http = TRAFFIC.try_with(|traffic| {
        if traffic.meter.set(Arc::clone(&meter)).is_ok() {
            let early = traffic.early.swap(0, Ordering::Relaxed);
            // It is here already; others wait for it.
            meter.bytes_in(early);
        }
    });
}

/// Answers `request`, and counts.
pub(crate) async fn counted<F: Future<Output = Response>>(
    request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Response {
    let traffic = Arc::new(Traffic::default());
    let (seen, sent) = (Arc::clone(&traffic), Arc::clone(&traffic));
    let request = request.map(|body| Body::new(Counted { body, traffic: seen, comes: true, pause: None }));
    let response = TRAFFIC.scope(traffic, async { answer(request).await }).await;
    if sent.meter.get().is_none() {
        // Nobody's.
        return response;
    }
    response.map(|body| Body::new(Counted { body, traffic: sent, comes: false, pause: None }))
}

/// A body whose bytes are counted.
struct Counted {
    body: Body,
    traffic: Arc<Traffic>,
    comes: bool,
    /// Nothing is read before it is over.
    pause: Option<Pin<Box<Sleep>>>,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len) as u64;
        if !this.comes {
            this.traffic.went(bytes);
        } else if bytes > 0 {
            let wait = this.traffic.came(bytes);
            this.pause = (!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
