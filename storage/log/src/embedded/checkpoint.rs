//! Checkpoints: what the log must remember when the segments that said it are freed.
//!
//! # Layout
//! ```text
//! checkpoint = magic "bpgckp" 0x00 format(1)  body bytes u64  crc u32 of the body  body
//! body       = sequence u64, log id (16), first segment u64, state (LogState::encode)
//! ```
//! # Crash safety
//! Two files take turns, the sequence number says whose. A write that a crash tears leaves the other one valid, and
//! segments are freed only after the newer one is durable. The files are overwritten in place, in space reserved before,
//! so that a full disk does not keep a trim from giving space back.

use std::io;
use std::sync::Arc;

use crc32c::{crc32c, crc32c_append};

use super::disk::Disk;
use super::format::Reader;
use super::state::LogState;

const MAGIC: [u8; 8] = *b"bpgckp\x00\x01";
const HEADER_BYTES: usize = 20;
/// What is reserved at first, and in multiples of what.
const RESERVE_BYTES: u64 = 64 * 1024;

/// A checkpoint that was read.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) sequence: u64,
    pub(crate) log_id: [u8; 16],
    /// The oldest segment that the log still needs.
    pub(crate) first_segment: u64,
    pub(crate) state: LogState,
    /// The stored form, header included.
    pub(crate) bytes: Vec<u8>,
}

/// What a checkpoint says, all but its sequence number.
pub(crate) fn encode_content(log_id: [u8; 16], first_segment: u64, state: &LogState) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&log_id);
    out.extend_from_slice(&first_segment.to_le_bytes());
    state.encode(&mut out);
    out
}

/// The stored form of a checkpoint.
pub(crate) fn frame(sequence: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + 8 + content.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(content.len() as u64 + 8).to_le_bytes());
    let sequence = sequence.to_le_bytes();
    out.extend_from_slice(&crc32c_append(crc32c(&sequence), content).to_le_bytes());
    out.extend_from_slice(&sequence);
    out.extend_from_slice(content);
    out
}

/// Reads the stored form; `None`: it is torn, or of another format.
pub(crate) fn decode(bytes: &[u8], conflict_keys: usize) -> Option<Checkpoint> {
    let mut reader = Reader(bytes);
    if reader.array::<8>()? != MAGIC {
        return None;
    }
    let length = usize::try_from(reader.u64()?).ok()?;
    let crc = reader.u32()?;
    let body = reader.take(length)?;
    if crc32c(body) != crc {
        return None;
    }
    let mut reader = Reader(body);
    Some(Checkpoint {
        sequence: reader.u64()?,
        log_id: reader.array()?,
        first_segment: reader.u64()?,
        state: LogState::decode(reader.0, conflict_keys)?,
        bytes: bytes[..HEADER_BYTES + length].to_vec(),
    })
}

/// The file of a sequence number.
pub(crate) fn file_name(sequence: u64) -> &'static str {
    if sequence.is_multiple_of(2) { "checkpoint-0" } else { "checkpoint-1" }
}

/// Makes a checkpoint durable.
pub(crate) fn write(disk: &dyn Disk, sequence: u64, bytes: &[u8]) -> io::Result<()> {
    let name = file_name(sequence);
    let (file, is_new) = match disk.open(name) {
        Ok(file) => (file, false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (disk.create(name)?, true),
        Err(error) => return Err(error),
    };
    let needed = (bytes.len() as u64).next_multiple_of(RESERVE_BYTES);
    if file.length()? < needed {
        // Some room to grow, to be had while there is space.
        file.reserve(needed + RESERVE_BYTES)?;
    }
    file.write_at(bytes, 0)?;
    file.sync()?;
    if is_new { disk.sync_names() } else { Ok(()) }
}

/// The newest valid checkpoint, if there is one.
pub(crate) fn load(disk: &Arc<dyn Disk>, conflict_keys: usize) -> io::Result<Option<Checkpoint>> {
    let mut newest: Option<Checkpoint> = None;
    for name in [file_name(0), file_name(1)] {
        let file = match disk.open(name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let length = usize::try_from(file.length()?).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        file.read_at(&mut bytes, 0)?;
        if let Some(found) = decode(&bytes, conflict_keys)
            && newest.as_ref().is_none_or(|newest| newest.sequence < found.sequence)
        {
            newest = Some(found);
        }
    }
    Ok(newest)
}
