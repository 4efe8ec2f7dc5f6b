//! `POST /{app}/api/v4/attachments/upload`: a blob in one request, as the field `file` of a form or as the body itself.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::{ApiError, Asker, ErrorCode, Turn};
use bigpeer_crdt::Attachment;
use bigpeer_tables::Attachments;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::pieces::{Incoming, PIECE_BYTES, Piece, Pieces};
use super::staging::Staging;
use super::{Caller, bad, not_the_bytes, storage, too_large};
use crate::{Api, metrics};

/// What a form may have beside the file: boundaries, headers, small fields.
const FORM_BYTES: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadQuery {
    /// What the digest must come to.
    id: Option<String>,
}

pub(super) async fn upload(
    State(api): State<Arc<Api>>,
    Path(app): Path<String>,
    query: Result<Query<UploadQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let caller = Caller::who_writes(&api, &app, request.headers())?;
    let Query(query) = query.map_err(|rejection| bad(rejection.body_text()))?;
    let expected = query.id.as_deref().map(parse_id).transpose()?;
    let max_bytes = api.context.settings.attachments.max_bytes;
    let incoming = incoming(request, max_bytes).await?;
    let permit = turn(&api, &caller).await?;
    let received = tokio::spawn(async move {
        let _permit = permit;
        receive(&api, &caller, incoming, expected).await
    });
    let attachment = received.await.map_err(|error| ApiError::internal(&error))??;
    Ok(axum::Json(json!({"id": attachment.id(), "len": attachment.length})).into_response())
}

/// The digest that an id names.
pub(super) fn parse_id(id: &str) -> Result<[u8; 32], ApiError> {
    Attachment::parse_id(id)
        .ok_or_else(|| bad("an attachment's id is the SHA-256 of its content, 64 hexadecimal digits"))
}

/// One of the uploads that the process receives at once, if the app may store more.
pub(super) async fn turn(api: &Api, caller: &Caller) -> Result<Turn, ApiError> {
    caller.may_store(api)?;
    api.uploads.take(Asker::new(caller.app.clone())).await.map_err(|_| {
        let most = api.context.settings.attachments.max_concurrent_uploads;
        let message =
            format!("{most} attachments are being uploaded, or most of them of this app: more is not done at once");
        ApiError::new(ErrorCode::TooManyRequests, message).retry_after(1)
    })
}

/// The bytes of the request's file.
async fn incoming(request: Request, max_bytes: u64) -> Result<Incoming, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let form = content_type.filter(|text| text.to_ascii_lowercase().starts_with("multipart/form-data"));
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > max_bytes.saturating_add(FORM_BYTES)) {
        return Err(too_large(max_bytes));
    }
    let Some(form) = form else { return Ok(body(request.into_body())) };
    let boundary = multer::parse_boundary(form).map_err(|error| bad(format!("the form cannot be read: {error}")))?;
    let limits = multer::SizeLimit::new().whole_stream(max_bytes.saturating_add(FORM_BYTES));
    let limits = multer::Constraints::new().size_limit(limits);
    let mut form = multer::Multipart::with_constraints(request.into_body().into_data_stream(), boundary, limits);
    loop {
        let field = form.next_field().await.map_err(|error| bad(format!("the form cannot be read: {error}")))?;
        let field = field.ok_or_else(|| bad("the form has no field 'file'"))?;
        if field.name() == Some("file") {
            // The form must outlive its field.
            let bytes = futures::stream::unfold((field, form), |(mut field, form)| async move {
                let chunk = field.chunk().await.transpose()?;
                Some((chunk.map_err(|error| error.to_string()), (field, form)))
            });
            return Ok(bytes.boxed());
        }
    }
}

/// A request's body as it comes.
pub(super) fn body(body: Body) -> Incoming {
    body.into_data_stream().map(|bytes| bytes.map_err(|error| error.to_string())).boxed()
}

/// Stores what comes in, and answers what it was. Nothing is left of what breaks off or is not what was expected.
async fn receive(
    api: &Api,
    caller: &Caller,
    incoming: Incoming,
    expected: Option<[u8; 32]>,
) -> Result<Attachment, ApiError> {
    let context = &api.context;
    let staging = Staging::begin(&caller.objects, &caller.app, context.clock.as_ref(), context.ids.as_ref());
    let mut staged = false;
    let result = stage(api, caller, &staging, &mut staged, incoming, expected).await;
    if staged {
        staging.remove(true).await;
    }
    result
}

async fn stage(
    api: &Api,
    caller: &Caller,
    staging: &Staging,
    staged: &mut bool,
    incoming: Incoming,
    expected: Option<[u8; 32]>,
) -> Result<Attachment, ApiError> {
    let settings = &api.context.settings.attachments;
    let (mut hash, mut length) = (Sha256::new(), 0_u64);
    let (mut extents, mut offset) = (Vec::new(), 0_u64);
    let mut pieces = Pieces::new(incoming);
    let mut seen = |bytes: &[u8]| {
        length += bytes.len() as u64;
        if length > settings.max_bytes {
            return Err(too_large(settings.max_bytes));
        }
        hash.update(bytes);
        Ok(())
    };
    let last = loop {
        match pieces.next(&mut seen).await {
            Piece::Full(piece) => {
                *staged = true;
                let bytes = PIECE_BYTES as u64;
                staging.put(offset, piece).await.map_err(|error| storage(&error))?;
                extents.push((offset, bytes));
                offset += bytes;
            }
            Piece::Last(last) => break last,
            Piece::Broken(_, error) => return Err(error),
        }
    };
    let sha256: [u8; 32] = hash.finalize().into();
    let attachment = Attachment { sha256, length, metadata: bigpeer_crdt::Object::new() };
    if expected.is_some_and(|expected| expected != sha256) {
        let expected = Attachment { sha256: expected.unwrap_or_default(), ..attachment };
        return Err(not_the_bytes(&expected.id()));
    }
    if extents.is_empty() {
        let attachments = Attachments::new(caller.app.clone(), Arc::clone(&caller.objects));
        attachments.put(sha256, last).await.map_err(|error| storage(&error))?;
    } else {
        if !last.is_empty() {
            let bytes = last.len() as u64;
            staging.put(offset, last).await.map_err(|error| storage(&error))?;
            extents.push((offset, bytes));
        }
        if !staging.assemble(&extents, sha256).await.map_err(|error| storage(&error))? {
            // What was read back is not what was put: object storage's fault, and a new attempt's chance.
            tracing::error!(app = %caller.app, "an attachment changed between being stored and being read back");
            return Err(ApiError::new(
                ErrorCode::Unavailable,
                "the attachment was not stored as it was sent; try again",
            ));
        }
    }
    api.context.catalogue.meter(&caller.app).add_attachment_bytes(length);
    metrics::attachment_received(length);
    Ok(attachment)
}
