//! The attachments of the gateway in this process: HTTP by hand, with what can go wrong on demand.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Uploads and blobs, and what is to go wrong next.
#[derive(Default)]
pub(crate) struct FakeBlobs {
    state: Mutex<State>,
    told: tokio::sync::Notify,
}

#[derive(Default)]
struct State {
    uploads: BTreeMap<String, Upload>,
    blobs: BTreeMap<String, Vec<u8>>,
    faults: Faults,
    requests: Vec<String>,
}

#[derive(Default)]
struct Upload {
    id: String,
    len: usize,
    bytes: Vec<u8>,
    complete: bool,
}

/// Each happens once, unless it says otherwise.
#[derive(Default)]
pub(crate) struct Faults {
    /// An append breaks off after so many bytes, which are kept.
    pub(crate) cut_append_after: Option<usize>,
    /// The answer to the append that completes an upload is lost.
    pub(crate) lose_completion: bool,
    /// The append that completes an upload finds other bytes than were sent.
    pub(crate) spoil_upload: bool,
    /// A blob breaks off after so many bytes.
    pub(crate) cut_blob_after: Option<usize>,
    /// A byte of a blob is another one.
    pub(crate) spoil_blob: bool,
    /// A blob goes on after its end.
    pub(crate) endless_blob: bool,
    /// Ranges are not served.
    pub(crate) whole_blobs_only: bool,
    /// Whoever can be sent elsewhere for a blob is, always.
    pub(crate) redirect_to: Option<String>,
    /// The next request is answered so.
    pub(crate) answer: Option<u16>,
}

impl FakeBlobs {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds this")
    }

    pub(crate) fn faults(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut self.lock().faults);
    }

    pub(crate) fn put(&self, bytes: &[u8]) -> String {
        let id = hex(bytes);
        self.lock().blobs.insert(id.clone(), bytes.to_vec());
        id
    }

    pub(crate) fn blob(&self, id: &str) -> Option<Vec<u8>> {
        self.lock().blobs.get(id).cloned()
    }

    /// Forgets what was begun.
    pub(crate) fn forget_uploads(&self) {
        self.lock().uploads.clear();
    }

    /// The requests so far: method, path and what is told of offsets.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    /// Waits until there was a request of which `which` is true.
    pub(crate) async fn asked(&self, which: impl Fn(&str) -> bool) {
        loop {
            let told = self.told.notified();
            if self.requests().iter().any(|request| which(request)) {
                return;
            }
            told.await;
        }
    }

    /// Answers the one request of a connection, or cuts it.
    pub(crate) async fn serve(&self, mut stream: TcpStream) {
        let Some(head) = read_head(&mut stream).await else { return };
        let Some(answer) = self.answer(&head, &mut stream).await else { return };
        if stream.write_all(&answer).await.is_ok() {
            let _gone = stream.shutdown().await;
        }
    }

    /// The answer; none when the connection is to be cut.
    async fn answer(&self, head: &Head, stream: &mut TcpStream) -> Option<Vec<u8>> {
        let path = head.path.split('?').next().unwrap_or_default();
        let (_, path) = path.split_once("/api/").expect("an API path");
        let place = head.header("upload-offset").or_else(|| head.header("range")).unwrap_or_default();
        self.lock().requests.push(format!("{} {path} {place}", head.method).trim().to_owned());
        self.told.notify_waiters();
        let denied = self.lock().faults.answer.take();
        if let Some(status) = denied {
            let body = br#"{"error":{"code":"x","message":"the test does not allow it"}}"#;
            return Some(response(status, &[], body));
        }
        let elsewhere = self.lock().faults.redirect_to.clone();
        if let Some(to) = elsewhere.filter(|_| head.path.contains("redirect=true")) {
            return Some(response(307, &[("location", &to)], b""));
        }
        match (head.method.as_str(), path.split('/').collect::<Vec<_>>().as_slice()) {
            ("POST", ["v1", "attachments", "uploads"]) => {
                let mut body = Vec::new();
                read_body(head, stream, usize::MAX, &mut body).await?;
                let begin: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
                let mut state = self.lock();
                let name = format!("UPLOAD{}", state.requests.len());
                let id = begin["id"].as_str().expect("an id").to_owned();
                let len = usize::try_from(begin["len"].as_u64().expect("a length")).expect("small");
                state.uploads.insert(name.clone(), Upload { id, len, ..Upload::default() });
                Some(response(201, &[], format!(r#"{{"upload":"{name}","offset":0}}"#).as_bytes()))
            }
            ("HEAD", ["v1", "attachments", "uploads", name]) => {
                let state = self.lock();
                let Some(upload) = state.uploads.get(*name) else { return Some(response(404, &[], b"")) };
                let offset = upload.bytes.len().to_string();
                let complete = if upload.complete { "?1" } else { "?0" };
                Some(response(200, &[("upload-offset", &offset), ("upload-complete", complete)], b""))
            }
            ("PATCH", ["v1", "attachments", "uploads", name]) => self.append(head, stream, name).await,
            ("GET", ["v4", "attachments", id]) => {
                assert!(head.path.contains("collection=") && head.path.contains("document="), "{}", head.path);
                let mut state = self.lock();
                let Some(blob) = state.blobs.get(*id).cloned() else { return Some(response(404, &[], b"{}")) };
                Some(blob_answer(head, blob, &mut state.faults))
            }
            (method, path) => panic!("{method} {path:?}"),
        }
    }

    async fn append(&self, head: &Head, stream: &mut TcpStream, name: &str) -> Option<Vec<u8>> {
        let most = self.lock().faults.cut_append_after.take();
        let mut body = Vec::new();
        let whole = read_body(head, stream, most.unwrap_or(usize::MAX), &mut body).await;
        let mut state = self.lock();
        let State { uploads, blobs, faults, .. } = &mut *state;
        let Some(upload) = uploads.get_mut(name) else { return Some(response(404, &[], b"{}")) };
        let offset: usize = head.header("upload-offset").and_then(|text| text.parse().ok()).expect("an offset");
        if offset != upload.bytes.len() {
            return Some(response(409, &[], b"{}"));
        }
        upload.bytes.extend_from_slice(&body);
        whole?;
        if upload.bytes.len() == upload.len {
            if hex(&upload.bytes) != upload.id || std::mem::take(&mut faults.spoil_upload) {
                uploads.remove(name);
                return Some(response(400, &[], b"{}"));
            }
            upload.complete = true;
            blobs.insert(upload.id.clone(), upload.bytes.clone());
            if std::mem::take(&mut faults.lose_completion) {
                return None;
            }
        }
        let (offset, complete) = (upload.bytes.len(), upload.complete);
        Some(response(200, &[], format!(r#"{{"offset":{offset},"complete":{complete}}}"#).as_bytes()))
    }
}

fn blob_answer(head: &Head, mut blob: Vec<u8>, faults: &mut Faults) -> Vec<u8> {
    if std::mem::take(&mut faults.spoil_blob) {
        blob[0] ^= 1;
    }
    let length = blob.len();
    let from = head.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from = from.filter(|_| !faults.whole_blobs_only).unwrap_or(0);
    let range = format!("bytes {from}-{}/{length}", length.saturating_sub(1));
    let mut body = blob.split_off(from);
    if std::mem::take(&mut faults.endless_blob) {
        body.extend_from_slice(&[0; 10]);
    }
    let mut answer = match from {
        0 => response(200, &[], &body),
        _ => response(206, &[("content-range", &range)], &body),
    };
    if let Some(most) = faults.cut_blob_after.take() {
        answer.truncate(answer.len() - body.len() + most.min(body.len()));
    }
    answer
}

struct Head {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

impl Head {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<Head> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(bytes).expect("text");
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Some(Head { method, path, headers })
}

/// Reads a body, `most` bytes of it; none when it was more, or the connection ended.
async fn read_body(head: &Head, stream: &mut TcpStream, most: usize, body: &mut Vec<u8>) -> Option<()> {
    let mut left = match head.header("content-length") {
        Some(length) => length.parse().expect("a length"),
        None => 0_usize,
    };
    let chunked = head.header("transfer-encoding") == Some("chunked");
    loop {
        if chunked && left == 0 {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(stream.read_u8().await.ok()?);
            }
            let line = String::from_utf8(line).expect("text");
            left = usize::from_str_radix(line.trim(), 16).expect("a chunk's size");
            if left == 0 {
                stream.read_u16().await.ok()?;
                return Some(());
            }
        }
        if left == 0 {
            return Some(());
        }
        let mut piece = vec![0; left.min(64 << 10)];
        stream.read_exact(&mut piece).await.ok()?;
        left -= piece.len();
        body.extend_from_slice(&piece);
        if chunked && left == 0 {
            stream.read_u16().await.ok()?;
        }
        if body.len() >= most {
            body.truncate(most);
            return None;
        }
    }
}

fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut answer = format!("{head}\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
