//! `Fetch`: getting a blob from the server, when somebody asks for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bigpeer_crdt::{Attachment, DocId};
use bigpeer_types::Lsn;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::http::{Moved, Server, is_passing, message, unreachable};
use super::{Attachments, blobs};
use crate::PeerError;
use crate::session::Backoff;
use crate::store::{Durability, blocking};

/// Attempts in a row that may bring nothing.
const MOST_FAILURES: u32 = 5;

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchProgress {
    /// Bytes that are here.
    pub received: u64,
    /// Bytes of the whole attachment.
    pub total: u64,
}

/// An attachment on its way. Dropped before its end, it stops; the next fetch of the same attachment goes on from there.
#[derive(Debug)]
pub struct Fetch {
    progress: watch::Receiver<FetchProgress>,
    task: JoinHandle<Result<PathBuf, PeerError>>,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fetch {
    pub(super) fn start(attachments: Attachments, collection: String, id: DocId, attachment: Attachment) -> Self {
        let (sender, progress) = watch::channel(FetchProgress { received: 0, total: attachment.length });
        let job = Job { attachments, collection, id, attachment, progress: sender };
        Self { progress, task: tokio::spawn(job.run()) }
    }

    /// How far it is, and word of every change.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<FetchProgress> {
        self.progress.clone()
    }

    /// The file that holds the attachment, digest checked, once it is here. Open it soon and do not write to it: blobs that
    /// are not used go when the cache is full (one that is open stays readable).
    ///
    /// # Errors
    /// [`PeerError::NotConnected`] when it is not here and the peer is not connected; [`PeerError::NoAttachment`] when the
    /// server does not have it, or not for this document; [`PeerError::Unreachable`] when the connection broke again and
    /// again; [`PeerError::Protocol`] when what came is something else.
    pub async fn finish(mut self) -> Result<PathBuf, PeerError> {
        (&mut self.task).await.map_err(|_| PeerError::Closed)?
    }
}

/// What a fetch works with.
struct Job {
    attachments: Attachments,
    collection: String,
    id: DocId,
    attachment: Attachment,
    progress: watch::Sender<FetchProgress>,
}

impl Job {
    async fn run(self) -> Result<PathBuf, PeerError> {
        let sha256 = self.attachment.sha256;
        let turn = self.attachments.turn(sha256);
        let _turn = turn.lock().await;
        if let Some(path) = self.attachments.local(sha256).await? {
            self.received(self.attachment.length);
            return Ok(path);
        }
        let settings = self.attachments.connect_settings().ok_or(PeerError::NotConnected)?;
        let server = Server::new(&self.attachments.core.store, &settings)?;
        let mut backoff = Backoff::new(settings.backoff_min, settings.backoff_max);
        let part = self.attachments.core.blobs.part(sha256);
        // Object storage may hand out the bytes itself. If that does not work from here, the server does.
        let mut redirect = true;
        while self.here(&part).await? < self.attachment.length || self.attachment.length == 0 {
            let before = self.here(&part).await?;
            match self.attempt(&server, &part, before, redirect).await {
                Ok(()) => break,
                Err(error) if !error.is_retryable() || matches!(error, PeerError::NoAttachment(_)) => {
                    return Err(error);
                }
                Err(error) => {
                    redirect = self.here(&part).await? > before;
                    if redirect {
                        backoff.reset();
                    }
                    if backoff.failures() >= MOST_FAILURES {
                        return Err(error);
                    }
                    tokio::time::sleep(backoff.next(&*self.attachments.core.ids)).await;
                }
            }
        }
        self.keep().await
    }

    /// Bytes of the file that is being fetched.
    async fn here(&self, part: &Path) -> Result<u64, PeerError> {
        match tokio::fs::metadata(part).await {
            Ok(found) => Ok(found.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(blobs::failed(part, error)),
        }
    }

    fn received(&self, received: u64) {
        self.progress.send_replace(FetchProgress { received, total: self.attachment.length });
    }

    /// One request: from where the file ends to the end of the blob, or to the end of the connection.
    async fn attempt(&self, server: &Server, part: &Path, from: u64, redirect: bool) -> Result<(), PeerError> {
        let moved = Moved::default();
        let path = format!("v4/attachments/{}", self.attachment.id());
        let (mut request, _) = server.request(Method::GET, &path).await?;
        let document = self.id.to_value().to_json().to_string();
        request = request.query(&[("collection", &*self.collection), ("document", &document)]);
        if redirect {
            request = request.query(&[("redirect", "true")]);
        }
        if from > 0 {
            // The bytes of a digest never change, and all of them are looked at in the end: no If-Range, which object storage
            // would not understand.
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        // The server may be another one than that which sent the document.
        let seen =
            self.attachments.core.signals.status.borrow().subscriptions.values().filter_map(|one| one.cursor).max();
        if let Some(seen) = seen.filter(|seen| *seen > Lsn::ZERO) {
            request = request.header("X-DITTO-TXN-ID", seen.version);
        }
        let response = server.send(request, &moved).await?;
        let at = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => start_of(&response).filter(|at| *at == from).ok_or_else(strange)?,
            status if !server.is_at(response.url()) => {
                return Err(PeerError::Unreachable(format!("object storage answers {status}")));
            }
            StatusCode::NOT_FOUND => return Err(PeerError::NoAttachment(message(response).await)),
            // A token that has just ended is renewed by the session.
            StatusCode::UNAUTHORIZED => return Err(PeerError::Unreachable(message(response).await)),
            status if is_passing(status) => return Err(PeerError::Unreachable(message(response).await)),
            _ => return Err(PeerError::Refused(message(response).await)),
        };
        let mut options = blobs::private();
        options.truncate(at == 0);
        let (path, opened) = (part.to_owned(), part.to_owned());
        let open = move || options.open(&path).map_err(|error| blobs::failed(&path, error));
        let file = File::from_std(blocking(open).await??);
        server.while_moving(&moved, self.copy(response, file, (&opened, at), &moved)).await
    }

    async fn copy(
        &self,
        mut response: Response,
        mut file: File,
        (path, mut at): (&Path, u64),
        moved: &Moved,
    ) -> Result<(), PeerError> {
        let failed = |error| blobs::failed(path, error);
        tokio::io::AsyncSeekExt::seek(&mut file, std::io::SeekFrom::Start(at)).await.map_err(failed)?;
        loop {
            let chunk = response.chunk().await.map_err(|error| unreachable(&error));
            let chunk = match chunk {
                Ok(Some(chunk)) => chunk,
                ended => {
                    // What has come so far counts.
                    file.flush().await.map_err(failed)?;
                    return match ended {
                        Err(error) => Err(error),
                        Ok(_) if at < self.attachment.length => {
                            Err(PeerError::Unreachable("the attachment broke off".to_owned()))
                        }
                        Ok(_) => Ok(()),
                    };
                }
            };
            moved.add(chunk.len());
            at += chunk.len() as u64;
            if at > self.attachment.length {
                file.set_len(0).await.map_err(failed)?;
                return Err(strange());
            }
            file.write_all(&chunk).await.map_err(failed)?;
            self.received(at);
        }
    }

    /// Everything is here: looks whether it is what it should be.
    async fn keep(&self) -> Result<PathBuf, PeerError> {
        let (blobs, sha256) = (Arc::clone(&self.attachments.core.blobs), self.attachment.sha256);
        if !blocking(move || blobs.keep(sha256)).await?? {
            return Err(PeerError::Protocol("the attachment that came is not the one that was asked for".to_owned()));
        }
        let (length, now_ms) = (self.attachment.length, self.attachments.core.clock.now_ms());
        let change = move |work: &mut crate::store::Work<'_>| work.put_attachment(sha256, length, false, now_ms);
        self.attachments.core.store.write(Durability::Process, change).await?;
        self.attachments.evict(self.attachments.core.cache_bytes, Some(sha256)).await?;
        Ok(self.attachments.core.blobs.whole(sha256))
    }
}

fn strange() -> PeerError {
    PeerError::Protocol("the attachment came with other bytes than were asked for".to_owned())
}

/// Where a part begins.
fn start_of(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
