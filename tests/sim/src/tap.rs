//! `Tap`: listens to what gateways say to peers, on the wire.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bigpeer_protocol::decode_gateway_frame;
use bigpeer_protocol::pb::FromGateway;
use bigpeer_types::limits::MAX_FRAME_BYTES;
use bytes::{Buf, Bytes, BytesMut};

use crate::network::Host;

/// Clones are the same tap.
#[derive(Clone, Default)]
pub struct Tap(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    wires: BTreeMap<u64, Wire>,
    heard: Vec<(Host, FromGateway)>,
}

/// One direction of a connection.
#[derive(Default)]
struct Wire {
    bytes: BytesMut,
    phase: Phase,
}

#[derive(Default, PartialEq, Eq)]
enum Phase {
    /// The head of an HTTP answer is not complete.
    #[default]
    Head,
    /// It became a WebSocket.
    Frames,
    /// It did not.
    Other,
}

impl Tap {
    /// A server has sent bytes to `to`.
    pub fn sent(&self, wire: u64, to: Host, bytes: &[u8]) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        let wire = inner.wires.entry(wire).or_default();
        if wire.phase == Phase::Other {
            return;
        }
        wire.bytes.extend_from_slice(bytes);
        if wire.phase == Phase::Head {
            let Some(end) = wire.bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return };
            wire.phase = if wire.bytes.starts_with(b"HTTP/1.1 101") { Phase::Frames } else { Phase::Other };
            wire.bytes.advance(end + 4);
        }
        while wire.phase == Phase::Frames {
            let Some((opcode, payload)) = frame(&mut wire.bytes) else { break };
            if opcode == 2
                && let Ok(framed) = decode_gateway_frame(payload, MAX_FRAME_BYTES)
            {
                inner.heard.push((to, framed.message));
            }
        }
    }

    /// What was said since the last call.
    pub fn take(&self) -> Vec<(Host, FromGateway)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).heard)
    }
}

/// A WebSocket frame of a server (not masked), if it is there.
fn frame(bytes: &mut BytesMut) -> Option<(u8, Bytes)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (head, length) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    let length = usize::try_from(length).ok()?;
    if bytes.len() < head + length {
        return None;
    }
    bytes.advance(head);
    Some((first & 0x0f, bytes.split_to(length).freeze()))
}
