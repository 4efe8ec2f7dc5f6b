//! `GET` and `HEAD /{app}/api/v4/attachments/{id}`: the bytes, or a part of them, or where to get them.

use std::io::SeekFrom;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bigpeer_chassis::ApiError;
use bigpeer_tables::Attachments;
use object_store::{Error, GetOptions, GetRange, GetResultPayload, ObjectStore};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::access::{FetchQuery, check, not_there};
use super::range::{Wanted, wanted};
use super::receive::parse_id;
use super::{Caller, bad, storage};
use crate::{Api, metrics};

/// Bytes of a file that are read at once.
const READ_BYTES: usize = 128 << 10;

pub(super) async fn fetch(
    State(api): State<Arc<Api>>,
    Path((app, id)): Path<(String, String)>,
    query: Result<Query<FetchQuery>, QueryRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&api, &app, &headers)?;
    let Query(query) = query.map_err(|rejection| bad(rejection.body_text()))?;
    let sha256 = parse_id(&id)?;
    if let Some(version) = crate::execute::transaction_id(&headers)? {
        crate::execute::wait(&api, &caller.store, version).await?;
    }
    check(&api, &caller, sha256, &query).await?;
    let (path, length) = locate(&caller, sha256).await?;
    let about = about(sha256);
    if has_already(&headers, sha256) {
        return Ok((StatusCode::NOT_MODIFIED, about).into_response());
    }
    if let Some(signer) = api.context.settings.attachments.signer.as_ref().filter(|_| query.redirect)
        && method == Method::GET
    {
        let ttl = api.context.settings.attachments.signed_url_ttl;
        let url = signer.signed_url(Method::GET, &path, ttl).await.map_err(|error| storage(&error))?;
        let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok((StatusCode::TEMPORARY_REDIRECT, [no_store], [(header::LOCATION, url.to_string())]).into_response());
    }
    let range = headers.get(header::RANGE).filter(|_| same_as_before(&headers, sha256));
    let range = match wanted(range.and_then(|value| value.to_str().ok()), length) {
        Wanted::Whole => None,
        Wanted::Part(range) => Some(range),
        Wanted::Nowhere => {
            let mut answer = bad(format!("the range is not within the attachment's {length} bytes")).into_response();
            *answer.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            let whole = HeaderValue::try_from(format!("bytes */{length}"));
            answer.headers_mut().extend(whole.ok().map(|whole| (header::CONTENT_RANGE, whole)));
            return Ok(answer);
        }
    };
    let bytes = range.clone().unwrap_or(0..length);
    let body = match method {
        Method::HEAD => Body::empty(),
        _ => match read(&caller.objects, &path, bytes.clone()).await? {
            Some(body) => body,
            // It went meanwhile. If it was uploaded again, then under another name.
            None => {
                let (path, _) = locate(&caller, sha256).await?;
                read(&caller.objects, &path, bytes.clone()).await?.ok_or_else(not_there)?
            }
        },
    };
    let size = (header::CONTENT_LENGTH, HeaderValue::from(bytes.end - bytes.start));
    Ok(match range {
        None => (about, [size], body).into_response(),
        Some(range) => {
            let range = format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1));
            (StatusCode::PARTIAL_CONTENT, about, [(header::CONTENT_RANGE, range)], [size], body).into_response()
        }
    })
}

/// Where the bytes are, and how many: in the app, or in one that it is a clone of.
async fn locate(caller: &Caller, sha256: [u8; 32]) -> Result<(object_store::path::Path, u64), ApiError> {
    for home in caller.store.attachment_homes() {
        let attachments = Attachments::new(home, Arc::clone(&caller.objects));
        if let Some(found) = attachments.find(sha256).await.map_err(|error| storage(&error))? {
            return Ok((found.location, found.size));
        }
    }
    Err(not_there())
}

fn tag(sha256: [u8; 32]) -> String {
    let id = bigpeer_crdt::Attachment { sha256, length: 0, metadata: bigpeer_crdt::Object::new() }.id();
    format!("\"{id}\"")
}

/// What is said about any attachment. Its bytes are somebody's: a browser is to save them, not to run them.
fn about(sha256: [u8; 32]) -> [(header::HeaderName, String); 7] {
    [
        (header::ETAG, tag(sha256)),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, "attachment".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        // Asked for again, whether it still may be seen.
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
        (header::HeaderName::from_static("repr-digest"), format!("sha-256=:{}:", STANDARD.encode(sha256))),
    ]
}

/// Whether the caller has these bytes, by `If-None-Match`.
fn has_already(headers: &HeaderMap, sha256: [u8; 32]) -> bool {
    let ours = tag(sha256);
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|list| {
        list.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == ours)
    })
}

/// Whether a range continues what the caller has: `If-Range` names these bytes, or nothing.
fn same_as_before(headers: &HeaderMap, sha256: [u8; 32]) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|value| value.to_str().is_ok_and(|tag| tag.trim() == self::tag(sha256)))
}

/// The bytes; none if the object has gone.
async fn read(
    objects: &Arc<dyn ObjectStore>,
    path: &object_store::path::Path,
    bytes: Range<u64>,
) -> Result<Option<Body>, ApiError> {
    if bytes.is_empty() {
        return Ok(Some(Body::empty()));
    }
    let length = bytes.end - bytes.start;
    let options = GetOptions { range: Some(GetRange::Bounded(bytes.clone())), ..GetOptions::default() };
    let found = match objects.get_opts(path, options).await {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(storage(&error)),
    };
    metrics::attachment_sent(length);
    let body = match found.payload {
        // In larger pieces than object_store reads by itself.
        GetResultPayload::File(file, _) => {
            let mut file = tokio::fs::File::from_std(file);
            let sought = file.seek(SeekFrom::Start(bytes.start)).await;
            sought.map_err(|error| ApiError::internal(&error))?;
            Body::from_stream(ReaderStream::with_capacity(file.take(length), READ_BYTES))
        }
        GetResultPayload::Stream(stream) => Body::from_stream(stream),
    };
    Ok(Some(body))
}
