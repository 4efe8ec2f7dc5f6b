//! `Decoder`: what a client sends, unmasked and put together to messages (RFC 6455). Without I/O. Bytes are hostile: a frame's
//! length is checked before anything is kept of it, and memory grows with what has come, not with what was announced.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Longest header: two bytes, eight of the length, four of the mask.
const MAX_HEADER: usize = 14;
/// Most bytes of a control frame.
const MAX_CONTROL: usize = 125;
/// Memory that is taken for a message before its bytes are there.
const FIRST_CAPACITY: usize = 64 << 10;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A binary message, whole.
    Message(Bytes),
    /// Its payload comes back in a Pong.
    Ping(Bytes),
    Pong,
    /// Nothing follows.
    Close,
}

/// Why no more can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A message has so many bytes, or more.
    TooLarge { bytes: u64, max: usize },
    /// It is not what RFC 6455 or the protocol allows.
    Frame(&'static str),
}

/// A frame whose payload is not complete.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    is_last: bool,
    mask: [u8; 4],
    /// Bytes that are still to come.
    left: usize,
}

/// Bytes in, messages out.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    head: [u8; MAX_HEADER],
    /// Bytes of `head` that are there.
    have: usize,
    frame: Option<Frame>,
    /// A message that has begun.
    message: Option<BytesMut>,
    /// The payload of a control frame.
    control: Vec<u8>,
}

impl Decoder {
    /// Takes what was read, all of it; `max` bounds a message, in bytes. After a violation nothing may follow.
    ///
    /// # Errors
    /// The violation. What was complete before it has been put into `out`.
    pub(crate) fn decode(
        &mut self,
        mut input: &[u8],
        max: usize,
        out: &mut VecDeque<Incoming>,
    ) -> Result<(), Violation> {
        while !input.is_empty() {
            match self.frame {
                None => {
                    self.header(&mut input, max)?;
                    // A frame without a payload is complete with its header.
                    if self.frame.is_some_and(|frame| frame.left == 0) {
                        self.payload(&mut input, out);
                    }
                }
                Some(_) => self.payload(&mut input, out),
            }
        }
        Ok(())
    }

    fn header(&mut self, input: &mut &[u8], max: usize) -> Result<(), Violation> {
        while let Some((byte, rest)) = input.split_first() {
            *input = rest;
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            let [first, second, ..] = self.head;
            if self.have == 2 {
                self.check(first, second)?;
            }
            let length_bytes = match second & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            if self.have < 2 || self.have < 2 + length_bytes + 4 {
                continue;
            }
            let long = self.head.get(2..2 + length_bytes).unwrap_or_default();
            let length = match length_bytes {
                0 => u64::from(second & 0x7f),
                _ => long.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
            };
            let mut mask = [0; 4];
            mask.copy_from_slice(self.head.get(2 + length_bytes..2 + length_bytes + 4).unwrap_or(&[0; 4]));
            self.have = 0;
            let opcode = first & 0x0f;
            if opcode < CLOSE {
                let begun = self.message.as_ref().map_or(0, BytesMut::len);
                let bytes = length.saturating_add(begun as u64);
                if bytes > max as u64 {
                    return Err(Violation::TooLarge { bytes, max });
                }
            }
            // At most `max`, or a control frame's.
            let left = usize::try_from(length).unwrap_or(usize::MAX);
            if opcode < CLOSE && self.message.is_none() {
                self.message = Some(BytesMut::with_capacity(left.min(FIRST_CAPACITY)));
            }
            self.frame = Some(Frame { opcode, is_last: first & 0x80 != 0, mask, left });
            return Ok(());
        }
        Ok(())
    }

    /// What the first two bytes of a frame say.
    fn check(&self, first: u8, second: u8) -> Result<(), Violation> {
        let (is_last, opcode, begun) = (first & 0x80 != 0, first & 0x0f, self.message.is_some());
        let wrong = match opcode {
            _ if first & 0x70 != 0 => Some("a WebSocket extension that was not agreed on"),
            _ if second & 0x80 == 0 => Some("a WebSocket frame that is not masked"),
            CONTINUATION if !begun => Some("a WebSocket message without a beginning"),
            TEXT => Some("frames are binary messages"),
            BINARY if begun => Some("a WebSocket message within another"),
            CONTINUATION | BINARY => None,
            CLOSE | PING | PONG if !is_last || usize::from(second & 0x7f) > MAX_CONTROL => {
                Some("a WebSocket control frame that is too long, or not whole")
            }
            CLOSE | PING | PONG => None,
            _ => Some("an unknown WebSocket frame"),
        };
        wrong.map_or(Ok(()), |wrong| Err(Violation::Frame(wrong)))
    }

    /// Takes what has come of the frame's payload.
    fn payload(&mut self, input: &mut &[u8], out: &mut VecDeque<Incoming>) {
        let Some(mut frame) = self.frame.take() else { return };
        let (part, rest) = input.split_at(frame.left.min(input.len()));
        *input = rest;
        let is_control = frame.opcode >= CLOSE;
        if is_control {
            let from = self.control.len();
            self.control.extend_from_slice(part);
            unmask(self.control.get_mut(from..).unwrap_or_default(), frame.mask);
        } else if let Some(message) = &mut self.message {
            let from = message.len();
            message.extend_from_slice(part);
            unmask(message.get_mut(from..).unwrap_or_default(), frame.mask);
        }
        frame.left -= part.len();
        if frame.left > 0 {
            // The mask goes on where it stopped.
            frame.mask.rotate_left(part.len() % 4);
            self.frame = Some(frame);
            return;
        }
        if is_control {
            let payload = std::mem::take(&mut self.control);
            out.push_back(match frame.opcode {
                PING => Incoming::Ping(payload.into()),
                PONG => Incoming::Pong,
                _ => Incoming::Close,
            });
        } else if frame.is_last {
            let message = self.message.take().unwrap_or_default();
            out.push_back(Incoming::Message(message.freeze()));
        }
    }
}

/// Eight bytes at a time: a multiple of the mask.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as a client writes it.
    fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            short @ 0..=125 => out.push(0x80 | u8::try_from(short).unwrap()),
            long @ 126..=65535 => {
                out.push(0x80 | 126);
                out.extend(u16::try_from(long).unwrap().to_be_bytes());
            }
            longer => {
                out.push(0x80 | 127);
                out.extend((longer as u64).to_be_bytes());
            }
        }
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    /// What comes of bytes that arrive in pieces of this size.
    fn decoded(bytes: &[u8], piece: usize, max: usize) -> Result<Vec<Incoming>, Violation> {
        let (mut decoder, mut out) = (Decoder::default(), VecDeque::new());
        for piece in bytes.chunks(piece) {
            decoder.decode(piece, max, &mut out)?;
        }
        assert_eq!((decoder.have, decoder.control.capacity()), (0, 0), "nothing stays");
        Ok(out.into())
    }

    proptest! {
        #[test]
        fn messages_arrive_whole_however_they_are_cut(
            messages in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..70_000), 1_usize..4, any::<[u8; 4]>()), 1..4),
            piece in 1_usize..20_000,
        ) {
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            for (message, fragments, mask) in &messages {
                let size = message.len().div_ceil(*fragments).max(1);
                let parts: Vec<&[u8]> = if message.is_empty() { vec![&[]] } else { message.chunks(size).collect() };
                for (number, part) in parts.iter().enumerate() {
                    let first = if number == 0 { BINARY } else { CONTINUATION };
                    let last = if number + 1 == parts.len() { 0x80 } else { 0 };
                    bytes.extend(frame(first | last, part, *mask));
                    // Control frames may come in between.
                    bytes.extend(frame(0x80 | PING, b"are you there", *mask));
                    expected.push(Incoming::Ping(Bytes::from_static(b"are you there")));
                }
                let at = expected.len() - 1;
                expected.insert(at, Incoming::Message(Bytes::from(message.clone())));
            }
            bytes.extend(frame(0x80 | CLOSE, &[3, 232], [1, 2, 3, 4]));
            expected.push(Incoming::Close);
            prop_assert_eq!(decoded(&bytes, piece, 100_000), Ok(expected));
        }

        #[test]
        fn garbage_never_panics_and_never_takes_more_than_it_brings(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            piece in 1_usize..40,
        ) {
            let (mut decoder, mut out) = (Decoder::default(), VecDeque::new());
            for piece in bytes.chunks(piece) {
                if decoder.decode(piece, 1 << 20, &mut out).is_err() {
                    break;
                }
            }
            prop_assert!(decoder.message.is_none_or(|message| message.capacity() <= FIRST_CAPACITY + bytes.len()));
        }
    }

    #[test]
    fn what_is_not_allowed_is_said() {
        let mask = [9, 8, 7, 6];
        let wrong = |bytes: &[u8]| match decoded(bytes, 3, 1000) {
            Err(Violation::Frame(what)) => what,
            other => panic!("{other:?}"),
        };
        assert!(wrong(&frame(0xc0 | BINARY, b"x", mask)).contains("extension"));
        assert!(wrong(&[0x80 | BINARY, 1, 0, 0, 0, 0, 0]).contains("not masked"));
        assert!(wrong(&frame(0x80 | TEXT, b"x", mask)).contains("binary"));
        assert!(wrong(&frame(0x80 | 3, b"x", mask)).contains("unknown"));
        assert!(wrong(&frame(0x80 | CONTINUATION, b"x", mask)).contains("beginning"));
        assert!(wrong(&frame(PING, b"x", mask)).contains("not whole"));
        assert!(wrong(&frame(0x80 | PING, &[0; 126], mask)).contains("too long"));
        let within = [frame(BINARY, b"x", mask), frame(0x80 | BINARY, b"y", mask)].concat();
        assert!(wrong(&within).contains("within"));
    }

    #[test]
    fn a_message_is_too_large_before_it_is_there_and_in_parts_too() {
        let whole = frame(0x80 | BINARY, &[0; 1001], [1; 4]);
        assert_eq!(decoded(&whole[..8], 1, 1000), Err(Violation::TooLarge { bytes: 1001, max: 1000 }));
        let parts = [frame(BINARY, &[0; 600], [1; 4]), frame(0x80 | CONTINUATION, &[0; 600], [1; 4])].concat();
        assert_eq!(decoded(&parts, 64, 1000), Err(Violation::TooLarge { bytes: 1200, max: 1000 }));
        let endless = [0x80 | BINARY, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0];
        assert_eq!(decoded(&endless, 14, 1000), Err(Violation::TooLarge { bytes: u64::MAX, max: 1000 }));
    }
}
