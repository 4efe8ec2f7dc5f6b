//! A body, in pieces of the size in which object storage takes them. At most one piece is in memory.

use bigpeer_chassis::ApiError;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::bad;

/// Bytes of a piece, but for the last: the least that S3 takes as a part of an upload.
pub(super) const PIECE_BYTES: usize = 5 << 20;

/// A body as it comes in.
pub(super) type Incoming = BoxStream<'static, Result<Bytes, String>>;

/// Cuts a body into pieces.
pub(super) struct Pieces {
    incoming: Incoming,
    buffer: BytesMut,
    ended: bool,
}

/// What [`Pieces::next`] came to.
#[derive(Debug)]
pub(super) enum Piece {
    /// A whole piece.
    Full(Bytes),
    /// The rest, which may be empty: the body is complete.
    Last(Bytes),
    /// The body broke off, and this had come of the next piece.
    Broken(Bytes, ApiError),
}

impl Pieces {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self { incoming, buffer: BytesMut::new(), ended: false }
    }

    /// The next piece. `seen` is told of the bytes as they come.
    pub(super) async fn next(&mut self, mut seen: impl FnMut(&[u8]) -> Result<(), ApiError> + Send) -> Piece {
        while self.buffer.len() < PIECE_BYTES && !self.ended {
            let broken = match self.incoming.next().await {
                Some(Ok(bytes)) => match seen(&bytes) {
                    Ok(()) => {
                        self.buffer.extend_from_slice(&bytes);
                        continue;
                    }
                    Err(error) => error,
                },
                None => {
                    self.ended = true;
                    continue;
                }
                Some(Err(error)) => bad(format!("the body broke off: {error}")),
            };
            self.ended = true;
            return Piece::Broken(self.buffer.split().freeze(), broken);
        }
        if self.buffer.len() >= PIECE_BYTES {
            return Piece::Full(self.buffer.split_to(PIECE_BYTES).freeze());
        }
        Piece::Last(self.buffer.split().freeze())
    }
}
