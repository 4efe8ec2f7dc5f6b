//! Every limit that more than one crate must agree on, in one place, with its reason. Limits of a single role live in
//! that role's settings.

/// Longest app id, in bytes: it is part of every log key and object path.
pub const MAX_APP_ID_BYTES: usize = 63;

/// Longest collection name, in bytes. It is escaped in object paths, where one byte can become three.
pub const MAX_COLLECTION_NAME_BYTES: usize = 128;

/// Longest `_id`, in bytes of its order-preserving key. FoundationDB keys end at 10,000 bytes; this leaves room.
pub const MAX_DOCUMENT_ID_BYTES: usize = 1024;

/// Largest encoded document state or delta, in bytes (Ditto's documented hard limit is 5 MiB).
pub const MAX_DOCUMENT_BYTES: usize = 5 * 1024 * 1024;

/// Deepest nesting of maps, arrays and objects in a document.
pub const MAX_DEPTH: usize = 64;

/// Largest encoded transaction, in bytes.
pub const MAX_TRANSACTION_BYTES: usize = 8 * 1024 * 1024;

/// Most changes in one transaction.
pub const MAX_TRANSACTION_CHANGES: usize = 100_000;

/// Largest WebSocket frame of the sync protocol, in bytes: one whole transaction and its envelope.
pub const MAX_FRAME_BYTES: usize = MAX_TRANSACTION_BYTES + 64 * 1024;

/// Longest DQL or SQL statement, in bytes.
pub const MAX_STATEMENT_BYTES: usize = 256 * 1024;

/// Largest HTTP request body, in bytes.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// How far ahead of the server's clock a stamp may be, in milliseconds, before it is refused: a wrong clock must not
/// win every conflict for years.
pub const MAX_CLOCK_AHEAD_MS: u64 = 5 * 60 * 1000;

// A document must fit into a transaction, a transaction into a frame.
const _: () = assert!(MAX_DOCUMENT_BYTES < MAX_TRANSACTION_BYTES);
const _: () = assert!(MAX_TRANSACTION_BYTES < MAX_FRAME_BYTES);
const _: () = assert!(MAX_FRAME_BYTES < MAX_REQUEST_BYTES);
