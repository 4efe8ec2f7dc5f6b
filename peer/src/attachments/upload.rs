//! Sending blobs: one after the other, in the background, for as long as there is a session.

use std::io::SeekFrom;
use std::sync::Arc;

use bigpeer_crdt::{Attachment, Object};
use bytes::Bytes;
use futures::StreamExt;
use reqwest::{Body, Method, Response, StatusCode};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::watch;

use super::http::{Moved, Server, is_passing, message, unreachable};
use super::{Core, blobs};
use crate::session::{Backoff, told};
use crate::store::{Durability, PendingAttachment, blocking};
use crate::{ConnectSettings, PeerError, PeerEvent, Secret};

/// Bytes that are read of a file at once.
const READ_BYTES: usize = 64 << 10;
/// Uploads of one blob that came to nothing before it is given up: what arrives is not what was sent.
const MOST_STARTS: usize = 3;

/// How an attempt ended, other than with the blob at the server.
enum Missed {
    /// Try again: now there is no way, or the server is busy.
    Later(PeerError),
    /// The token was refused; another one may be on its way.
    Token(Secret),
    /// The server will never take it.
    Never(String),
}

impl From<PeerError> for Missed {
    fn from(error: PeerError) -> Self {
        if let PeerError::Refused(reason) = error { Self::Never(reason) } else { Self::Later(error) }
    }
}

/// Where an upload stands at the server.
struct Stand {
    upload: String,
    offset: u64,
    complete: bool,
}

#[derive(Deserialize)]
struct Begun {
    upload: String,
}

#[derive(Deserialize)]
struct Appended {
    offset: u64,
    complete: bool,
}

/// Sends what waits until told to stop.
pub(super) async fn run(core: Arc<Core>, settings: ConnectSettings, mut stopped: watch::Receiver<bool>) {
    let mut backoff = Backoff::new(settings.backoff_min, settings.backoff_max);
    let sending = async {
        loop {
            wait_for_work(&core).await?;
            let read = core.store.read(|tables| tables.next_pending_attachment()).await?;
            let Some(next) = read else { continue };
            match send(&core, &settings, &next).await {
                Ok(()) => {
                    backoff.reset();
                    core.sent(next.id, None).await?;
                }
                Err(Missed::Never(reason)) => core.sent(next.id, Some(reason)).await?,
                Err(Missed::Token(refused)) => {
                    core.wait_for_token(&refused, backoff.next(&*core.ids)).await?;
                }
                Err(Missed::Later(error)) => {
                    if matches!(error, PeerError::Closed) {
                        return Err::<(), _>(error);
                    }
                    tracing::debug!(%error, "an attachment was not sent; trying again");
                    tokio::time::sleep(backoff.next(&*core.ids)).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = told(&mut stopped) => {}
        ended = sending => {
            if let Err(error) = ended {
                tracing::debug!(%error, "attachments are not sent any more");
            }
        }
    }
}

/// Until there is a session, and something to send.
async fn wait_for_work(core: &Core) -> Result<(), PeerError> {
    let mut status = core.signals.status.subscribe();
    let ready = status.wait_for(|status| status.is_connected() && status.uploads > 0).await;
    ready.map(drop).map_err(|_| PeerError::Closed)
}

impl Core {
    /// The server has the blob, or never will.
    async fn sent(&self, id: [u8; 32], failed: Option<String>) -> Result<(), PeerError> {
        let name = Attachment { sha256: id, length: 0, metadata: Object::new() }.id();
        let change = move |work: &mut crate::store::Work<'_>| {
            work.event(match failed {
                None => PeerEvent::AttachmentUploaded { id: name },
                Some(reason) => PeerEvent::AttachmentFailed { id: name, reason },
            });
            work.end_upload(id)
        };
        self.store.write(Durability::Power, change).await
    }

    /// Until the store has another token, or for a while: the session sees to it that it gets one.
    async fn wait_for_token(&self, refused: &Secret, at_most: std::time::Duration) -> Result<(), PeerError> {
        let token = self.store.read(|tables| tables.token()).await?;
        if token.is_some_and(|token| token.token == *refused) {
            tokio::time::sleep(at_most).await;
        }
        Ok(())
    }

    async fn note_upload(&self, id: [u8; 32], upload: Option<String>) -> Result<(), PeerError> {
        let change = move |work: &mut crate::store::Work<'_>| work.set_upload(id, upload.as_deref());
        self.store.write(Durability::Process, change).await
    }
}

/// Sends one blob, from where it was broken off.
async fn send(core: &Core, settings: &ConnectSettings, blob: &PendingAttachment) -> Result<(), Missed> {
    let server = Server::new(&core.store, settings)?;
    let mut known = blob.upload.clone();
    for _ in 0..MOST_STARTS {
        let stand = match known.take() {
            Some(upload) => where_it_stands(&server, upload).await?,
            None => None,
        };
        let stand = match stand {
            Some(stand) => stand,
            None => {
                let stand = begin(&server, blob).await?;
                core.note_upload(blob.id, Some(stand.upload.clone())).await?;
                stand
            }
        };
        if append(core, &server, blob, stand).await? {
            return Ok(());
        }
        // The server threw away what it had: it was not the blob, or it had expired.
        core.note_upload(blob.id, None).await?;
        let (blobs, id) = (Arc::clone(&core.blobs), blob.id);
        if !blocking(move || blobs.is_sound(id)).await? {
            return Err(Missed::Never("the file in the store is damaged or gone; attach it again".to_owned()));
        }
    }
    Err(Missed::Later(PeerError::Unreachable("what arrived was not what was sent".to_owned())))
}

/// Where an upload that was begun stands; none if the server knows nothing of it.
async fn where_it_stands(server: &Server, upload: String) -> Result<Option<Stand>, Missed> {
    let path = format!("v1/attachments/uploads/{upload}");
    let (request, token) = server.request(Method::HEAD, &path).await?;
    let response = server.send(request, &Moved::default()).await?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    match response.status() {
        StatusCode::OK => {
            let offset = header("upload-offset").and_then(|text| text.parse().ok());
            let complete = header("upload-complete") == Some("?1");
            let offset = offset.ok_or_else(|| PeerError::Protocol("an upload without an offset".to_owned()))?;
            Ok(Some(Stand { upload, offset, complete }))
        }
        StatusCode::NOT_FOUND => Ok(None),
        _ => Err(missed(response, token).await),
    }
}

async fn begin(server: &Server, blob: &PendingAttachment) -> Result<Stand, Missed> {
    let id = Attachment { sha256: blob.id, length: blob.length, metadata: Object::new() }.id();
    let (request, token) = server.request(Method::POST, "v1/attachments/uploads").await?;
    let request = request.json(&serde_json::json!({"id": id, "len": blob.length}));
    let response = server.send(request, &Moved::default()).await?;
    if response.status() != StatusCode::CREATED {
        return Err(missed(response, token).await);
    }
    let begun: Begun = response.json().await.map_err(|error| unreachable(&error))?;
    // It becomes a part of paths.
    if begun.upload.is_empty() || !begun.upload.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Missed::Later(PeerError::Protocol("an upload with a strange name".to_owned())));
    }
    Ok(Stand { upload: begun.upload, offset: 0, complete: false })
}

/// Appends what is missing; false if the server has thrown the upload away.
async fn append(core: &Core, server: &Server, blob: &PendingAttachment, mut stand: Stand) -> Result<bool, Missed> {
    let path = format!("v1/attachments/uploads/{}", stand.upload);
    let whole = core.blobs.whole(blob.id);
    while !stand.complete {
        let moved = Moved::default();
        let (request, token) = server.request(Method::PATCH, &path).await?;
        let body = match content(&whole, stand.offset, moved.clone()).await {
            Ok(body) => body,
            Err(error) => return Err(Missed::Never(blobs::failed(&whole, error).to_string())),
        };
        let request = request.header("Upload-Offset", stand.offset).body(body);
        let response = server.send(request, &moved).await?;
        match response.status() {
            StatusCode::OK => {
                let appended: Appended = response.json().await.map_err(|error| unreachable(&error))?;
                let stuck = appended.offset <= stand.offset && !appended.complete;
                if stuck || appended.offset > blob.length {
                    return Err(Missed::Later(PeerError::Protocol("an upload that does not move".to_owned())));
                }
                stand.offset = appended.offset;
                stand.complete = appended.complete;
            }
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => return Ok(false),
            StatusCode::CONFLICT => match where_it_stands(server, stand.upload).await? {
                Some(now) if now.offset != stand.offset || now.complete => stand = now,
                Some(_) => return Err(Missed::Later(PeerError::Unreachable("the upload is in use".to_owned()))),
                None => return Ok(false),
            },
            _ => return Err(missed(response, token).await),
        }
    }
    Ok(true)
}

/// The file from `offset` on.
async fn content(path: &std::path::Path, offset: u64, moved: Moved) -> std::io::Result<Body> {
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(SeekFrom::Start(offset)).await?;
    let chunks = futures::stream::unfold((file, moved), |(mut file, moved)| async move {
        let mut chunk = vec![0; READ_BYTES];
        match file.read(&mut chunk).await {
            Ok(0) => None,
            Ok(read) => {
                chunk.truncate(read);
                moved.add(read);
                Some((Ok(Bytes::from(chunk)), (file, moved)))
            }
            Err(error) => Some((Err(error), (file, moved))),
        }
    });
    Ok(Body::wrap_stream(chunks.boxed()))
}

/// What an answer means that is not the one hoped for.
async fn missed(response: Response, token: Secret) -> Missed {
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED {
        return Missed::Token(token);
    }
    let text = message(response).await;
    if is_passing(status) { Missed::Later(PeerError::Unreachable(text)) } else { Missed::Never(text) }
}
