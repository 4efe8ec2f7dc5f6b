//! Bodies that stop, that trickle, and that are slow and honest; time is simulated.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body as AnyBody, to_bytes};
use axum::http::Request;
use axum::routing::post;
use bigpeer_types::{ManualClock, SeededIds};
use futures::{StreamExt, stream};
use tower::ServiceExt;

use super::*;
use crate::{Json, finish_router};

/// A body of `count` times `bytes`, each after `pause`; and then nothing more, or its end.
fn body(bytes: usize, pause: Duration, count: usize, ends: bool) -> AnyBody {
    let pieces = stream::iter(0..count).then(move |_| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, Infallible>(Bytes::from(vec![b' '; bytes]))
    });
    if ends { AnyBody::from_stream(pieces) } else { AnyBody::from_stream(pieces.chain(stream::pending())) }
}

/// What a server answers that wants JSON, or else counts.
async fn ask(path: &str, body: AnyBody) -> (u16, serde_json::Value, Option<String>) {
    let count = |body: AnyBody| async move {
        // Takes its time for each of them.
        let slowly = body.into_data_stream().then(|bytes| async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            bytes
        });
        let bytes: Vec<_> = slowly.collect().await;
        axum::Json(bytes.into_iter().map(|bytes| bytes.map_or(0, |bytes| bytes.len())).sum::<usize>())
    };
    #[allow(clippy::unused_async, reason = "axum's handlers are futures")]
    async fn take(_: Json<serde_json::Value>) {}
    let router = Router::new().route("/json", post(take)).route("/count", post(count));
    let router = finish_router(router, Arc::new(ManualClock::new(0)), Arc::new(SeededIds::new(1)));
    let request = Request::post(path).body(body).unwrap();
    let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
    let bytes = to_bytes(body, 1 << 20).await.unwrap();
    let close = parts.headers.get("connection").map(|value| value.to_str().unwrap().to_owned());
    (parts.status.as_u16(), serde_json::from_slice(&bytes).unwrap_or_default(), close)
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_or_trickles_is_answered_408_and_the_connection_closed() {
    for (body, expected) in [
        (body(7, Duration::ZERO, 1, false), "after 7 bytes there was nothing more for 30 seconds"),
        (body(1, Duration::from_secs(29), 1_000, true), "there were 2 bytes in 60 seconds"),
        // As fast as it may be for the first minute, and then no more.
        (body(100, Duration::from_secs(1), 100_000, true), "a second on average"),
        // Nothing, again and again.
        (body(0, Duration::from_secs(1), 100_000, true), "after 0 bytes there was nothing more"),
    ] {
        let asked = tokio::time::timeout(Duration::from_secs(3600), ask("/json", body)).await;
        let (status, json, close) = asked.expect("an answer");
        assert_eq!((status, json["error"]["code"].as_str(), close.as_deref()), (408, Some("timeout"), Some("close")));
        let message = json["error"]["message"].as_str().unwrap();
        assert!(
            message.starts_with("the body of POST /json came too slowly: ") && message.contains(expected),
            "{json}"
        );
        assert!(json["request_id"].is_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_body_over_a_slow_connection_may_take_hours() {
    let began = Instant::now();
    // 5 MB at 300 bytes a second, in bursts.
    let (status, json, _) = ask("/count", body(6_000, Duration::from_secs(20), 900, true)).await;
    assert_eq!((status, json), (200, serde_json::json!(5_400_000)));
    assert!(began.elapsed() >= Duration::from_secs(900 * 120));
}
