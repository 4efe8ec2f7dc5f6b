//! Manifests: any bytes are a manifest or refused; a manifest that is read is written as it was.
#![no_main]

use bigpeer_tables::manifest::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = decode(data);
    // Behind a right header and checksum, so that the fuzzer need not guess them.
    let Some((split, body)) = data.split_first() else { return };
    let length = body.len() * usize::from(*split) / 255;
    let mut framed = b"bpmanif\x01\0\0\0\0".to_vec();
    framed.extend_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
    framed.extend_from_slice(body);
    let crc = crc32c::crc32c(&framed[12..]);
    framed[8..12].copy_from_slice(&crc.to_le_bytes());
    let Ok(manifest) = decode(&framed) else { return };
    assert_eq!(decode(&encode(&manifest).unwrap()).unwrap(), manifest);
});
