//! Frames of the sync protocol: any bytes are a frame or refused, and a frame is never larger than it may be.
#![no_main]

use bigpeer_protocol::{decode_gateway_frame, decode_peer_frame};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

/// What a frame may become when it is decompressed.
const MAX: usize = 256 * 1024;

fuzz_target!(|data: &[u8]| {
    let frame = Bytes::copy_from_slice(data);
    if let Ok(framed) = decode_peer_frame(frame.clone(), MAX) {
        assert!(framed.bytes <= MAX + 1);
    }
    if let Ok(framed) = decode_gateway_frame(frame, MAX) {
        assert!(framed.bytes <= MAX + 1);
    }
});
