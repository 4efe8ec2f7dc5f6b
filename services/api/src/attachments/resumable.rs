//! Uploads that survive broken connections: begin one, append to it, ask where it stands, go on.
//!
//! `POST /{app}/api/v1/attachments/uploads` with `{"id", "len"}` begins; `PATCH` with `Upload-Offset` appends; `HEAD` tells
//! the offset; `DELETE` gives up. The upload is complete when everything has come and is what the id says.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::{ApiError, ErrorCode, Json};
use bigpeer_crdt::Attachment;
use bigpeer_tables::paths::ObjectPath;
use bytes::Bytes;
use object_store::{Error, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use ulid::Ulid;

use super::pieces::{Piece, Pieces};
use super::receive::{body, parse_id, turn};
use super::staging::Staging;
use super::{Caller, bad, not_the_bytes, storage, too_large};
use crate::{Api, metrics};

const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");

/// Least bytes of a piece that is not the last: an upload of many small ones would be many objects.
const LEAST_PIECE: usize = 256 << 10;

/// Version of what is stored of an upload.
const VERSION: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    id: String,
    len: u64,
}

/// What is stored of an upload, as JSON behind 16 digits of its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// The digest that the bytes must have.
    id: String,
    len: u64,
    /// Who began it.
    owner: String,
    expires_ms: u64,
    complete: bool,
}

impl Record {
    fn encode(&self) -> Result<Bytes, ApiError> {
        let json = serde_json::to_string(self).map_err(|error| ApiError::internal(&error))?;
        Ok(Bytes::from(format!("{}{json}", checksum(&json))))
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let (sum, json) = text.split_at_checked(16).ok_or("it is too short")?;
        if checksum(json) != sum {
            return Err("its checksum is wrong".to_owned());
        }
        let record: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if record.version != VERSION {
            return Err(format!("it has version {}, this server reads {VERSION}", record.version));
        }
        Ok(record)
    }
}

fn checksum(json: &str) -> String {
    Sha256::digest(json.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// An upload under way, its pieces and who asks.
struct Upload {
    caller: Caller,
    staging: Staging,
    record: Record,
    sha256: [u8; 32],
}

impl Upload {
    async fn find(api: &Api, app: &str, name: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let caller = Caller::who_writes(api, app, headers)?;
        let unknown =
            || ApiError::new(ErrorCode::NotFound, "there is no such upload, or it has expired; begin another");
        let upload = Ulid::from_string(name).map_err(|_| unknown())?;
        let path = ObjectPath::Upload(caller.app.clone(), upload).to_path();
        let bytes = match caller.objects.get(&path).await {
            Ok(found) => found.bytes().await.map_err(|error| storage(&error))?,
            Err(Error::NotFound { .. }) => return Err(unknown()),
            Err(error) => return Err(storage(&error)),
        };
        let record =
            Record::decode(&bytes).map_err(|error| ApiError::internal(&format!("an upload's record: {error}")))?;
        if record.owner != caller.name() || record.expires_ms <= api.context.clock.now_ms() {
            return Err(unknown());
        }
        let sha256 = parse_id(&record.id)?;
        let staging = Staging::of(&caller.objects, &caller.app, upload);
        Ok(Self { caller, staging, record, sha256 })
    }

    async fn offset(&self) -> Result<u64, ApiError> {
        if self.record.complete {
            return Ok(self.record.len);
        }
        Ok(self.staging.extents().await.map_err(|error| storage(&error))?.1)
    }

    async fn store_record(&self) -> Result<(), ApiError> {
        let path = ObjectPath::Upload(self.caller.app.clone(), self.staging.name()).to_path();
        let put = self.caller.objects.put(&path, self.record.encode()?.into()).await;
        put.map(drop).map_err(|error| storage(&error))
    }

    /// Appends a body at `offset`, where the upload stands. What has come before it breaks off is kept.
    async fn receive(&mut self, offset: u64, body: super::pieces::Incoming) -> Result<u64, ApiError> {
        let len = self.record.len;
        let (mut end, mut came) = (offset, offset);
        let mut seen = |bytes: &[u8]| {
            came += bytes.len() as u64;
            if came > len { Err(bad(format!("the upload has {len} bytes, and more came"))) } else { Ok(()) }
        };
        let mut pieces = Pieces::new(body);
        loop {
            let (piece, broken) = match pieces.next(&mut seen).await {
                Piece::Full(piece) => (piece, None),
                Piece::Last(piece) => {
                    let last = end + piece.len() as u64 == len;
                    if !last && !piece.is_empty() && piece.len() < LEAST_PIECE {
                        return Err(bad(format!("append {LEAST_PIECE} bytes at least, or all that is left")));
                    }
                    self.put(&mut end, piece).await?;
                    return Ok(end);
                }
                Piece::Broken(piece, error) => (piece, Some(error)),
            };
            if broken.is_none() || piece.len() >= LEAST_PIECE {
                self.put(&mut end, piece).await?;
            }
            if let Some(error) = broken {
                return Err(error);
            }
        }
    }

    async fn put(&self, end: &mut u64, piece: Bytes) -> Result<(), ApiError> {
        let bytes = piece.len() as u64;
        if bytes > 0 && !self.staging.put(*end, piece).await.map_err(|error| storage(&error))? {
            return Err(ApiError::new(ErrorCode::Conflict, "something else was appended here; ask where it stands"));
        }
        *end += bytes;
        Ok(())
    }

    /// Everything has come: makes it the attachment, or forgets it when it is something else.
    async fn complete(&mut self) -> Result<(), ApiError> {
        let (extents, _) = self.staging.extents().await.map_err(|error| storage(&error))?;
        if !self.staging.assemble(&extents, self.sha256).await.map_err(|error| storage(&error))? {
            self.staging.remove(true).await;
            return Err(not_the_bytes(&self.record.id));
        }
        // Who did not hear the answer asks again, and must not be told to begin anew.
        self.record.complete = true;
        self.store_record().await?;
        self.staging.remove(false).await;
        metrics::attachment_received(self.record.len);
        Ok(())
    }
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Path(app): Path<String>,
    headers: HeaderMap,
    body: Result<Json<Wanted>, ApiError>,
) -> Result<Response, ApiError> {
    let caller = Caller::who_writes(&api, &app, &headers)?;
    let Json(wanted) = body?;
    caller.may_store(&api)?;
    let (settings, context) = (&api.context.settings.attachments, &api.context);
    let sha256 = parse_id(&wanted.id)?;
    if wanted.len > settings.max_bytes {
        return Err(too_large(settings.max_bytes));
    }
    let staging = Staging::begin(&caller.objects, &caller.app, context.clock.as_ref(), context.ids.as_ref());
    let ttl_ms = u64::try_from(settings.upload_ttl.as_millis()).unwrap_or(u64::MAX);
    let record = Record {
        version: VERSION,
        id: Attachment { sha256, length: wanted.len, metadata: bigpeer_crdt::Object::new() }.id(),
        len: wanted.len,
        owner: caller.name(),
        expires_ms: staging.name().timestamp_ms().saturating_add(ttl_ms),
        complete: false,
    };
    let upload = Upload { caller, staging, record, sha256 };
    upload.store_record().await?;
    let name = upload.staging.name().to_string();
    let location = format!("/{}/api/v1/attachments/uploads/{name}", upload.caller.app);
    let answer = json!({"upload": name, "offset": 0, "expires_at": upload.record.expires_ms});
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(answer)).into_response())
}

/// Where an upload stands.
pub(super) async fn tell(
    State(api): State<Arc<Api>>,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let upload = Upload::find(&api, &app, &name, &headers).await?;
    Ok(upload.stands(upload.offset().await?).into_response())
}

pub(super) async fn append(
    State(api): State<Arc<Api>>,
    Path((app, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut upload = Upload::find(&api, &app, &name, request.headers()).await?;
    let from = request.headers().get(UPLOAD_OFFSET).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    let from = from.ok_or_else(|| bad("say in Upload-Offset, a whole number, where the bytes belong"))?;
    let offset = upload.offset().await?;
    if from != offset {
        let error = ApiError::new(ErrorCode::Conflict, format!("the upload stands at {offset}, not at {from}"));
        return Ok((upload.stands(offset), error).into_response());
    }
    if upload.record.complete {
        return Ok((upload.stands(offset), axum::Json(upload.answer(offset))).into_response());
    }
    let permit = turn(&api, &upload.caller).await?;
    let received = tokio::spawn(async move {
        let _permit = permit;
        let end = upload.receive(offset, body(request.into_body())).await?;
        if end == upload.record.len {
            upload.complete().await?;
            api.context.catalogue.meter(&upload.caller.app).add_attachment_bytes(end);
        }
        Ok::<_, ApiError>((upload, end))
    });
    let (upload, end) = received.await.map_err(|error| ApiError::internal(&error))??;
    Ok((upload.stands(end), axum::Json(upload.answer(end))).into_response())
}

pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let upload = Upload::find(&api, &app, &name, &headers).await?;
    upload.staging.remove(true).await;
    Ok(StatusCode::NO_CONTENT)
}

impl Upload {
    fn stands(&self, offset: u64) -> [(HeaderName, HeaderValue); 4] {
        let complete = HeaderValue::from_static(if self.record.complete { "?1" } else { "?0" });
        [
            (UPLOAD_OFFSET, offset.into()),
            (UPLOAD_LENGTH, self.record.len.into()),
            (UPLOAD_COMPLETE, complete),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ]
    }

    fn answer(&self, offset: u64) -> serde_json::Value {
        json!({"id": self.record.id, "len": self.record.len, "offset": offset, "complete": self.record.complete})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_broken_one_is_refused() {
        let record = Record {
            version: VERSION,
            id: "ab".repeat(32),
            len: 7,
            owner: "key dev".to_owned(),
            expires_ms: 9,
            complete: false,
        };
        let bytes = record.encode().unwrap();
        assert_eq!(Record::decode(&bytes), Ok(record.clone()));
        for at in 0..bytes.len() {
            let mut broken = bytes.to_vec();
            broken[at] ^= 1;
            assert!(Record::decode(&broken).is_err(), "byte {at}");
        }
        assert!(Record::decode(&bytes[..10]).is_err() && Record::decode(b"").is_err());
        let newer = Record { version: VERSION + 1, ..record };
        assert!(Record::decode(&newer.encode().unwrap()).unwrap_err().contains("version 2"));
    }
}
