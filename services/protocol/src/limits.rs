//! Limits of the protocol that both ends hold to, beside those of `bigpeer_types::limits`.

/// Largest frame before the Welcome, in bytes: only a Hello is expected, and nobody has been authenticated.
pub const MAX_HELLO_BYTES: usize = 64 * 1024;

/// Most protobuf fields in the outer two levels of a frame. Bounds the memory that decoding can take: a field costs as
/// little as two bytes on the wire and a hundred in memory.
pub const MAX_FRAME_FIELDS: usize = 20_000;

/// Most transactions in one Push.
pub const MAX_PUSH_TRANSACTIONS: usize = 4096;

/// Longest text that either side puts into a message, in bytes.
pub const MAX_MESSAGE_TEXT_BYTES: usize = 1024;

/// Frames from this size on are compressed where both sides agreed to, if that makes them smaller.
pub const COMPRESS_FROM_BYTES: usize = 1024;

/// What a sender of pages and of live changes aims at, in bytes of one frame.
pub const TARGET_FRAME_BYTES: usize = 256 * 1024;

/// The longest access token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Most fingerprints in one Held: a megabyte.
pub const MAX_HELD: usize = 128 * 1024;

/// Most places in which a Subscribe is ahead of its cursor.
pub const MAX_REACHED: usize = 4;

/// A transaction larger than this is pushed in parts of this size, so that what else a session has to say gets its turn.
pub const PART_BYTES: usize = 1024 * 1024;
