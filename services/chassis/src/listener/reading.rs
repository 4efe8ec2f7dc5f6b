//! `Reading`: a connection whose client has to read what it is sent. One that reads nothing for minutes, or next to nothing, would
//! keep its answer, and what that holds, for ever.
//!
//! # Limits
//! Only what the system's buffers do not take is noticed, and they are emptied in large steps: hence minutes. Above HTTP/2 a
//! client may take one answer and leave another: see [`super::untaken`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::metrics;
use crate::pace::Patience;

/// How long a client may read nothing, and for how long it is waited for without regard to how much it reads.
const SILENCE: Duration = Duration::from_secs(300);

/// A connection's bytes.
#[derive(Debug)]
pub(super) struct Reading<S> {
    stream: S,
    patience: Patience,
    /// Whether it became something else than HTTP, with limits of its own.
    upgraded: Arc<AtomicBool>,
}

impl<S> Reading<S> {
    pub(super) fn new(stream: S, upgraded: Arc<AtomicBool>) -> Self {
        Self { stream, patience: Patience::new(SILENCE, SILENCE), upgraded }
    }

    /// What came of writing; an error instead of waiting for too long.
    fn wrote<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match &polled {
            Poll::Ready(Ok(done)) => self.patience.moved(bytes(done)),
            Poll::Ready(Err(_)) => {}
            Poll::Pending if self.upgraded.load(Ordering::Relaxed) => {}
            Poll::Pending => {
                if let Poll::Ready(slow) = self.patience.poll_too_slow(cx) {
                    metrics::slow_reader();
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, slow)));
                }
            }
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Reading<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Reading<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(cx, polled, |bytes| *bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.wrote(cx, polled, |bytes| *bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        this.wrote(cx, polled, |()| 0)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.wrote(cx, polled, |()| 0)
    }
}
