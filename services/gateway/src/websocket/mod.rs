//! `WebSocket`: the server's end of a WebSocket (RFC 6455), binary messages only. A connection that is quiet holds no buffer:
//! what is read goes through one buffer per thread, and what is written is not copied together first.
//!
//! # Cancellation
//! Everything is polled; what has been read or taken for sending is never lost between two polls.

mod decoder;
mod handshake;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::{Read, ReadBuf, Write};
use hyper::upgrade::Upgraded;

pub(crate) use decoder::{Incoming, Violation};
pub(crate) use handshake::Upgrade;

use decoder::Decoder;

/// Most bytes read at once.
const READ_BYTES: usize = 16 << 10;
/// Bytes that may wait for the connection before no more are taken.
const WAITING_BYTES: usize = 16 << 10;
/// Most frames written at once, with header and payload each.
const WRITE_FRAMES: usize = 16;

const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// "Done": 1000.
const CLOSE_NORMAL: [u8; 2] = 1000_u16.to_be_bytes();
/// Longest reason in a close frame, in bytes.
const MAX_REASON: usize = 123;

/// What is to live as long as a frame has not been written.
pub(crate) type Hold = Option<Arc<dyn Send + Sync>>;

/// A connection after its handshake.
pub(crate) struct WebSocket {
    io: Upgraded,
    decoder: Decoder,
    inbox: VecDeque<Incoming>,
    violation: Option<Violation>,
    /// Nothing more can be read.
    ended: bool,
    out: VecDeque<Outgoing>,
    /// Bytes of the first of `out` that are written.
    written: usize,
    /// Bytes of `out` that are not written.
    waiting: usize,
    /// Bytes written so far.
    total: u64,
    /// To be sent before the next frame: the answer to the newest ping.
    pong: Option<Bytes>,
    /// The client has said that nothing follows.
    said_close: bool,
}

/// A frame that waits for the connection.
struct Outgoing {
    header: [u8; 10],
    header_len: u8,
    payload: Bytes,
    _hold: Hold,
}

impl Outgoing {
    fn new(first: u8, payload: Bytes, hold: Hold) -> Self {
        let mut header = [0; 10];
        let length = payload.len() as u64;
        let bytes = length.to_be_bytes();
        let (second, long): (u8, &[u8]) = match length {
            0..=125 => (u8::try_from(length).unwrap_or(0), &[]),
            126..=0xffff => (126, bytes.get(6..).unwrap_or_default()),
            _ => (127, &bytes),
        };
        let written = [first, second].into_iter().chain(long.iter().copied());
        let mut header_len = 0;
        for (place, byte) in header.iter_mut().zip(written) {
            *place = byte;
            header_len += 1;
        }
        Self { header, header_len, payload, _hold: hold }
    }

    fn header(&self) -> &[u8] {
        self.header.get(..usize::from(self.header_len)).unwrap_or_default()
    }

    fn len(&self) -> usize {
        usize::from(self.header_len) + self.payload.len()
    }
}

impl WebSocket {
    fn new(io: Upgraded) -> Self {
        Self {
            io,
            decoder: Decoder::default(),
            inbox: VecDeque::new(),
            violation: None,
            ended: false,
            out: VecDeque::new(),
            written: 0,
            waiting: 0,
            total: 0,
            pong: None,
            said_close: false,
        }
    }

    /// What the client says next, with messages of `max` bytes at most; none: the connection has ended. A ping is answered with
    /// the next flush.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Option<Result<Incoming, Violation>>> {
        loop {
            if let Some(incoming) = self.inbox.pop_front() {
                if self.inbox.is_empty() {
                    self.inbox = VecDeque::new();
                }
                match &incoming {
                    Incoming::Ping(payload) => self.pong = Some(payload.clone()),
                    Incoming::Close => (self.said_close, self.ended) = (true, true),
                    Incoming::Message(_) | Incoming::Pong => {}
                }
                return Poll::Ready(Some(Ok(incoming)));
            }
            if let Some(violation) = self.violation.take() {
                return Poll::Ready(Some(Err(violation)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let read = ready!(read(&mut self.io, cx, |bytes| {
                self.violation = self.decoder.decode(bytes, max, &mut self.inbox).err();
                bytes.len()
            }));
            self.ended = self.violation.is_some() || !matches!(read, Ok(1..));
        }
    }

    /// Waits for [`Self::poll_receive`].
    pub(crate) async fn receive(&mut self, max: usize) -> Option<Result<Incoming, Violation>> {
        poll_fn(|cx| self.poll_receive(cx, max)).await
    }

    /// Whether another frame is taken now.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.waiting >= WAITING_BYTES {
            ready!(self.poll_write(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes a binary message. It leaves with the next flush at the latest.
    pub(crate) fn send(&mut self, message: Bytes, hold: Hold) {
        self.push(Outgoing::new(BINARY, message, hold));
    }

    /// Takes a ping.
    pub(crate) fn send_ping(&mut self) {
        self.push(Outgoing::new(PING, Bytes::new(), None));
    }

    /// Writes everything that was taken.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() || self.pong.is_some() {
            ready!(self.poll_write(cx))?;
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Whether something waits to be written, and the bytes that were: a client that takes nothing is seen by both.
    pub(crate) fn progress(&self) -> (bool, u64) {
        (!self.out.is_empty(), self.total)
    }

    /// Sends `last`, says that nothing follows, and reads what is still under way until the client has closed, too: a
    /// connection that is dropped with unread bytes is reset, and the reset can overtake what was sent.
    pub(crate) async fn finish(mut self, last: Bytes, reason: &str) -> io::Result<()> {
        if !self.said_close {
            self.send(last, None);
        }
        let reason = reason.as_bytes().get(..reason.len().min(MAX_REASON)).unwrap_or_default();
        self.push(Outgoing::new(CLOSE, [&CLOSE_NORMAL, reason].concat().into(), None));
        poll_fn(|cx| self.poll_flush(cx)).await?;
        poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await?;
        while poll_fn(|cx| read(&mut self.io, cx, <[u8]>::len)).await? > 0 {}
        Ok(())
    }

    fn push(&mut self, frame: Outgoing) {
        self.waiting += frame.len();
        self.out.push_back(frame);
    }

    /// Writes some of what waits.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(pong) = self.pong.take() {
            let pong = Outgoing::new(PONG, pong, None);
            self.waiting += pong.len();
            // Not within a frame that was begun.
            self.out.insert(usize::from(self.written > 0), pong);
        }
        let mut slices = [IoSlice::new(&[]); 2 * WRITE_FRAMES];
        let (mut used, mut skip) = (0, self.written);
        let parts = self.out.iter().take(WRITE_FRAMES).flat_map(|frame| [frame.header(), &*frame.payload]);
        for part in parts {
            let rest = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            if let Some(slice) = slices.get_mut(used).filter(|_| !rest.is_empty()) {
                *slice = IoSlice::new(rest);
                used += 1;
            }
        }
        let slices = slices.get(..used).unwrap_or_default();
        let Some(first) = slices.first() else { return Poll::Ready(Ok(())) };
        let io = Pin::new(&mut self.io);
        let wrote = match io.is_write_vectored() {
            true => ready!(io.poll_write_vectored(cx, slices))?,
            false => ready!(io.poll_write(cx, first))?,
        };
        if wrote == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.waiting = self.waiting.saturating_sub(wrote);
        self.total += wrote as u64;
        self.written += wrote;
        while let Some(frame) = self.out.pop_front_if(|frame| frame.len() <= self.written) {
            self.written -= frame.len();
        }
        if self.out.is_empty() {
            self.out = VecDeque::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads what there is and shows it; nothing: the connection has ended.
fn read<T>(io: &mut Upgraded, cx: &mut Context<'_>, show: impl FnOnce(&[u8]) -> T) -> Poll<io::Result<T>> {
    thread_local! {
        // One per thread, not per connection.
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    }
    BUFFER.with_borrow_mut(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(io).poll_read(cx, buffer.unfilled()))?;
        Poll::Ready(Ok(show(buffer.filled())))
    })
}
