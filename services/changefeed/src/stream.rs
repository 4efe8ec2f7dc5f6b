//! `GET /{app}/changes`: the change feed as a stream, server-sent events or lines of JSON. The reader keeps its cursor.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::{Access, ApiError, Door, ErrorCode, Principal, Shutdown, app_of};
use bigpeer_feed_spec::{Format, On, Source, Values};
use bigpeer_types::{AppId, Lsn};
use bytes::{Bytes, BytesMut};
use futures::stream;

use crate::ChangefeedContext;
use crate::cursor::Cursor;
use crate::error::FeedError;
use crate::event::{Encoder, Event};
use crate::lens::Lens;
use crate::metrics;
use crate::reader::{Reader, Start};

/// Longest pause between two heartbeats that a reader may ask for, in seconds.
const MAX_HEARTBEAT_SECS: u64 = 300;

/// How long a stream that cannot read the log or the tables waits before it tries again.
const PAUSE: Duration = Duration::from_secs(1);

/// What a request asks for.
#[derive(Debug)]
struct Asked {
    sources: Vec<Source>,
    values: Values,
    format: Format,
    start: Start,
    heartbeat: Duration,
    /// Server-sent events; else lines of JSON.
    sse: bool,
    /// Whether the stream stays open when there is nothing more to tell.
    follow: bool,
}

fn refuse(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

/// The parameters of a query, each at most once.
fn parameters(query: &str) -> Result<BTreeMap<String, String>, ApiError> {
    let mut out = BTreeMap::new();
    let pairs: Vec<(String, String)> =
        pairs(query).ok_or_else(|| refuse("the query string cannot be read; percent-encode its values"))?;
    for (name, value) in pairs {
        if out.insert(name.clone(), value).is_some() {
            return Err(refuse(format!("the parameter '{name}' is there twice")));
        }
    }
    Ok(out)
}

/// Pairs of a query string, decoded.
fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let decode = |text: &str| {
        let mut out = Vec::with_capacity(text.len());
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            out.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let (high, low) = (bytes.next()?, bytes.next()?);
                    let digit = |byte: u8| char::from(byte).to_digit(16);
                    u8::try_from(digit(high)? * 16 + digit(low)?).ok()?
                }
                other => other,
            });
        }
        String::from_utf8(out).ok()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(a, b)| Some((decode(a)?, decode(b)?))).collect()
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

impl Asked {
    fn read(query: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut parameters = parameters(query)?;
        let mut take = |name: &str| parameters.remove(name);
        let collections = take("collections").as_deref().map(list).unwrap_or_default();
        let (where_, on) = (take("where"), take("on"));
        let (paths, fields) = (take("paths"), take("fields"));
        let narrow = where_.is_some() || on.is_some() || paths.is_some() || fields.is_some();
        if narrow && collections.len() != 1 {
            return Err(refuse(
                "'where', 'on', 'paths' and 'fields' are about one collection: name it in 'collections'",
            ));
        }
        let on = match on.as_deref() {
            None | Some("view") => On::View,
            Some("before") => On::Before,
            Some("after") => On::After,
            Some(_) => return Err(refuse("'on' is view, before or after")),
        };
        let mut sources = Vec::with_capacity(collections.len());
        for collection in collections {
            sources.push(Source {
                collection: collection.parse().map_err(|error: bigpeer_types::NameError| refuse(error.to_string()))?,
                query: where_.clone(),
                on,
                paths: paths.as_deref().map(list).unwrap_or_default(),
                fields: fields.as_deref().map(list).unwrap_or_default(),
            });
        }
        let values = match take("values").as_deref() {
            None | Some("untyped") => Values::Untyped,
            Some("typed") => Values::Typed,
            Some(_) => return Err(refuse("'values' is untyped or typed")),
        };
        let format = match take("format").as_deref() {
            None | Some("json") => Format::Json,
            Some("cloudevents") => Format::CloudEvents,
            Some(_) => return Err(refuse("'format' is json or cloudevents")),
        };
        let heartbeat = match take("heartbeat").as_deref().map(str::parse) {
            None => 15,
            Some(Ok(secs @ 1..=MAX_HEARTBEAT_SECS)) => secs,
            Some(_) => return Err(refuse(format!("'heartbeat' is 1 to {MAX_HEARTBEAT_SECS} seconds"))),
        };
        let snapshot = match take("snapshot").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(refuse("'snapshot' is true or false")),
        };
        let follow = match take("follow").as_deref() {
            None | Some("true") => true,
            Some("false") => false,
            Some(_) => return Err(refuse("'follow' is true or false")),
        };
        // What a browser sends when it connects again is newer than what the address says.
        let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let cursor = take("cursor");
        let cursor = last.or(cursor).filter(|text| !text.is_empty());
        let start = match cursor.as_deref().map(str::parse::<Cursor>) {
            Some(cursor) => Start::At(cursor.map_err(|error| refuse(error.to_string()))?),
            None if snapshot => Start::Snapshot,
            None => Start::Now,
        };
        if let Some(name) = parameters.keys().next() {
            return Err(refuse(format!("there is no parameter '{name}'; see docs/changes.md")));
        }
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let sse = accept.contains("text/event-stream");
        Ok(Self { sources, values, format, start, heartbeat: Duration::from_secs(heartbeat), sse, follow })
    }
}

/// How many streams each app has open.
#[derive(Debug, Default)]
pub(crate) struct Open(Mutex<BTreeMap<AppId, usize>>);

/// One open stream.
struct OpenStream {
    open: Arc<Open>,
    app: AppId,
}

impl Open {
    fn enter(self: &Arc<Self>, app: &AppId, max: usize) -> Option<OpenStream> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(app.clone()).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        metrics::streams(1.0);
        Some(OpenStream { open: Arc::clone(self), app: app.clone() })
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.app) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.app);
            }
        }
        metrics::streams(-1.0);
    }
}

fn principal(context: &ChangefeedContext, app: &AppId, headers: &HeaderMap) -> Result<Principal, ApiError> {
    context.catalogue.authenticate(app, Door::Changes, headers)
}

/// What the caller may read now, if its key or token is still good.
fn access(context: &ChangefeedContext, app: &AppId, headers: &HeaderMap) -> Result<Access, ApiError> {
    principal(context, app, headers).map(|principal| principal.permissions().read.clone())
}

/// `GET /{app}/changes`.
pub(crate) async fn changes(
    State(context): State<Arc<ChangefeedContext>>,
    Path(app): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let app = app_of(&app)?;
    let principal = principal(&context, &app, &headers)?;
    context.catalogue.admit(&app, &principal)?;
    let access = principal.permissions().read.clone();
    let asked = Asked::read(&query.unwrap_or_default(), &headers)?;
    let opening = || ApiError::new(ErrorCode::Unavailable, "this app is still being opened; try again");
    let store = context.stores.store(&app).ok_or_else(opening)?;
    let lens = Lens::compile(&asked.sources, access, asked.values).map_err(refuse)?;
    if let Some(collections) = lens.collections()
        && let Some(hidden) = collections.iter().find(|collection| !lens.sees(collection))
    {
        let message = format!("this key may not read the collection '{hidden}'");
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let head = context.log.head(&app).await;
    let head = head.map_err(|_| ApiError::new(ErrorCode::Unavailable, "the log cannot be read right now"))?;
    if let Start::At(cursor) = &asked.start
        && cursor.position.lsn > head
    {
        return Err(refuse(FeedError::Ahead { after: cursor.position.lsn, head }.to_string()));
    }
    let too_many = || {
        let message = format!("this app has {} streams open already", context.settings.max_streams_per_app);
        ApiError::new(ErrorCode::TooManyRequests, message).retry_after(5)
    };
    let open = context.open.enter(&app, context.settings.max_streams_per_app).ok_or_else(too_many)?;
    let encoder = Encoder::new(&app, "changes", asked.format);
    let reader = Reader::new(store, Arc::clone(&context.log), Arc::new(lens), encoder, asked.start);
    let content_type = if asked.sse { "text/event-stream" } else { "application/x-ndjson" };
    let stream = Streaming {
        changed: context.catalogue.changes(),
        shutdown: context.shutdown.clone(),
        context,
        app,
        headers,
        sources: asked.sources,
        values: asked.values,
        reader,
        heartbeat: asked.heartbeat,
        sse: asked.sse,
        until: (!asked.follow).then_some(head),
        greeted: false,
        ended: false,
        _open: open,
    };
    let body = stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<_, Infallible>(bytes), stream))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // Proxies that buffer would hold up events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// A stream under way.
struct Streaming {
    context: Arc<ChangefeedContext>,
    app: AppId,
    headers: HeaderMap,
    sources: Vec<Source>,
    values: Values,
    changed: tokio::sync::watch::Receiver<u64>,
    shutdown: Shutdown,
    reader: Reader,
    heartbeat: Duration,
    sse: bool,
    /// The stream ends when everything up to here was told.
    until: Option<Lsn>,
    greeted: bool,
    ended: bool,
    _open: OpenStream,
}

impl Streaming {
    /// The next bytes; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if !std::mem::replace(&mut self.greeted, true) {
            // So that a reader knows at once that it is connected, and where it stands.
            return Some(self.beat());
        }
        let beat = tokio::time::sleep(self.heartbeat);
        tokio::pin!(beat);
        loop {
            let cursor = self.reader.cursor();
            if self.until.is_some_and(|until| cursor.snapshot.is_none() && cursor.position.whole() >= until) {
                // So that the reader knows from where to ask next time.
                self.ended = true;
                let bytes = self.beat();
                return Some(self.if_allowed(bytes));
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                changed = self.changed.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    if let Err(error) = self.look_again() {
                        self.ended = true;
                        return Some(self.failure(&error));
                    }
                }
                () = &mut beat => {
                    let bytes = self.beat();
                    return Some(self.if_allowed(bytes));
                }
                batch = self.reader.next() => match batch {
                    Ok(batch) if batch.events.is_empty() => {}
                    Ok(batch) => {
                        let bytes = self.write(&batch.events);
                        return Some(self.if_allowed(bytes));
                    }
                    Err(error) if error.is_retryable() => {
                        tracing::warn!(app = %self.app, %error, "a stream of changes cannot go on, will try again");
                        tokio::time::sleep(PAUSE).await;
                    }
                    Err(error) => {
                        self.ended = true;
                        return Some(self.failure(&ApiError::internal(&error)));
                    }
                },
            }
        }
    }

    /// The catalogue has changed: the key may be gone, or open something else.
    fn look_again(&mut self) -> Result<(), ApiError> {
        let access = access(&self.context, &self.app, &self.headers)?;
        let lens = Lens::compile(&self.sources, access, self.values).map_err(refuse)?;
        self.reader.set_lens(Arc::new(lens));
        Ok(())
    }

    /// What is sent, as long as the caller may read: keys and tokens also end by themselves, of which the catalogue tells nothing.
    fn if_allowed(&mut self, bytes: Bytes) -> Bytes {
        match access(&self.context, &self.app, &self.headers) {
            Ok(_) => bytes,
            Err(error) => {
                self.ended = true;
                self.failure(&error)
            }
        }
    }

    fn write(&self, events: &[Event]) -> Bytes {
        metrics::streamed(events.len());
        let mut out = BytesMut::with_capacity(events.iter().map(|event| event.json.len() + 160).sum());
        for event in events {
            self.put(&mut out, Some(&event.cursor), event.kind.name(), &event.json);
        }
        out.freeze()
    }

    fn put(&self, out: &mut BytesMut, cursor: Option<&str>, kind: &str, json: &[u8]) {
        if self.sse {
            if let Some(cursor) = cursor {
                out.extend_from_slice(format!("id: {cursor}\n").as_bytes());
            }
            out.extend_from_slice(format!("event: {kind}\ndata: ").as_bytes());
            out.extend_from_slice(json);
            out.extend_from_slice(b"\n\n");
        } else {
            out.extend_from_slice(json);
            out.extend_from_slice(b"\n");
        }
    }

    /// Says that the stream lives, and how far it has come.
    fn beat(&self) -> Bytes {
        let cursor = self.reader.cursor().to_string();
        let json = serde_json::json!({"type": "heartbeat", "cursor": cursor}).to_string();
        let mut out = BytesMut::new();
        self.put(&mut out, Some(&cursor), "heartbeat", json.as_bytes());
        out.freeze()
    }

    /// Why the stream ends.
    fn failure(&self, error: &ApiError) -> Bytes {
        let json = serde_json::json!({"type": "error", "error": {"code": error.code, "message": error.message}});
        let mut out = BytesMut::new();
        self.put(&mut out, None, "error", json.to_string().as_bytes());
        out.freeze()
    }
}
