//! Frames: one byte of flags, then a protobuf message, compressed or not. Decoding takes hostile bytes: what it may
//! allocate is bounded before anything is allocated.

use std::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use thiserror::Error;

use crate::limits::{COMPRESS_FROM_BYTES, MAX_FRAME_FIELDS};
use crate::messages::pb;

/// The flags of a frame that is not compressed.
pub(crate) const RAW: u8 = 0;
/// The flags of a frame whose rest is one zstd frame with its content size.
const ZSTD: u8 = 1;
/// Fast, and nearly as small as the slower levels for a few hundred kB of similar documents.
const ZSTD_LEVEL: i32 = 1;

/// Bytes that are not a frame of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Not even flags.
    #[error("the frame is empty")]
    Empty,
    /// Flags that this version does not know.
    #[error("the frame's flags {0:#04x} are unknown")]
    UnknownFlags(u8),
    /// Larger than allowed, before or after decompression.
    #[error("the frame has {bytes} bytes, more than the allowed {max}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: usize,
    },
    /// Compressed data that cannot be decompressed, or do not say their size.
    #[error("the frame cannot be decompressed")]
    Compressed,
    /// More fields than any sensible message has.
    #[error("the frame has more than {MAX_FRAME_FIELDS} fields")]
    TooManyFields,
    /// Not the protobuf message that was expected.
    #[error("the frame is not a message: {0}")]
    Malformed(String),
    /// A message that this version does not know.
    #[error("the frame holds no message that is known here")]
    NoMessage,
}

/// A message and its cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Framed<M> {
    /// The message.
    pub message: M,
    /// The frame's size before compression, flags included, in bytes: what Credit counts.
    pub bytes: usize,
}

/// Reads a frame that a peer sent; `max` bounds its size before and after decompression, in bytes.
///
/// # Errors
/// When it is not a frame of a known message.
pub fn decode_peer_frame(frame: Bytes, max: usize) -> Result<Framed<pb::FromPeer>, FrameError> {
    let body = body(frame, max)?;
    count_fields(body.clone())?;
    let bytes = body.len() + 1;
    let envelope = pb::PeerMessage::decode(body).map_err(|error| FrameError::Malformed(error.to_string()))?;
    Ok(Framed { message: envelope.message.ok_or(FrameError::NoMessage)?, bytes })
}

/// Reads a frame that a gateway sent; `max` bounds its size before and after decompression, in bytes.
///
/// # Errors
/// When it is not a frame of a known message.
pub fn decode_gateway_frame(frame: Bytes, max: usize) -> Result<Framed<pb::FromGateway>, FrameError> {
    let body = body(frame, max)?;
    let bytes = body.len() + 1;
    let envelope = pb::GatewayMessage::decode(body).map_err(|error| FrameError::Malformed(error.to_string()))?;
    Ok(Framed { message: envelope.message.ok_or(FrameError::NoMessage)?, bytes })
}

/// Writes a `PeerMessage` or `GatewayMessage` as a frame. Answers the frame, and its size before compression.
#[must_use]
pub fn encode_frame(envelope: &impl Message, compression: pb::Compression) -> Framed<Bytes> {
    let bytes = envelope.encoded_len() + 1;
    let mut frame = BytesMut::with_capacity(bytes);
    frame.put_u8(RAW);
    envelope.encode_raw(&mut frame);
    Framed { message: compressed(frame.freeze(), compression), bytes }
}

/// The raw frame compressed, if that was agreed on and pays.
pub(crate) fn compressed(raw: Bytes, compression: pb::Compression) -> Bytes {
    if compression != pb::Compression::Zstd || raw.len() < COMPRESS_FROM_BYTES {
        return raw;
    }
    thread_local! {
        // One compressor per thread, not per session: it holds hundreds of kB.
        static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    }
    let body = raw.get(1..).unwrap_or_default();
    let packed = COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        slot.as_mut()?.compress(body).ok()
    });
    match packed {
        Some(packed) if packed.len() < body.len() => {
            let mut frame = BytesMut::with_capacity(packed.len() + 1);
            frame.put_u8(ZSTD);
            frame.extend_from_slice(&packed);
            frame.freeze()
        }
        Some(_) | None => raw,
    }
}

/// The protobuf bytes of a frame.
fn body(frame: Bytes, max: usize) -> Result<Bytes, FrameError> {
    if frame.len() > max {
        return Err(FrameError::TooLarge { bytes: frame.len() as u64, max });
    }
    match frame.first() {
        None => Err(FrameError::Empty),
        Some(&RAW) => Ok(frame.slice(1..)),
        Some(&ZSTD) => decompressed(&frame.slice(1..), max),
        Some(&flags) => Err(FrameError::UnknownFlags(flags)),
    }
}

fn decompressed(packed: &[u8], max: usize) -> Result<Bytes, FrameError> {
    let size = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten().ok_or(FrameError::Compressed)?;
    let capacity = usize::try_from(size).unwrap_or(usize::MAX);
    if capacity >= max {
        return Err(FrameError::TooLarge { bytes: size, max });
    }
    let body = zstd::bulk::decompress(packed, capacity).map_err(|_| FrameError::Compressed)?;
    if body.len() == capacity { Ok(body.into()) } else { Err(FrameError::Compressed) }
}

/// Refuses a message with absurdly many fields in its outer two levels, where the repeated ones are, before they are
/// decoded into structs.
fn count_fields(mut body: Bytes) -> Result<(), FrameError> {
    let malformed = |error: prost::DecodeError| FrameError::Malformed(error.to_string());
    let mut left = MAX_FRAME_FIELDS;
    let mut spend = || {
        left = left.checked_sub(1).ok_or(FrameError::TooManyFields)?;
        Ok(())
    };
    while !body.is_empty() {
        spend()?;
        let (tag, wire) = decode_key(&mut body).map_err(malformed)?;
        if wire != WireType::LengthDelimited {
            skip_field(wire, tag, &mut body, DecodeContext::default()).map_err(malformed)?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut body).map_err(malformed)?).unwrap_or(usize::MAX);
        if length > body.len() {
            return Err(FrameError::Malformed("a field ends behind the message".to_owned()));
        }
        let mut inner = body.split_to(length);
        while !inner.is_empty() {
            spend()?;
            let (tag, wire) = decode_key(&mut inner).map_err(malformed)?;
            skip_field(wire, tag, &mut inner, DecodeContext::default()).map_err(malformed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
