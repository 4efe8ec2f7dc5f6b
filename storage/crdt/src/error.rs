//! `DecodeError`: where bytes stopped being an encoding, and why.

use thiserror::Error;

/// Bytes that are not the canonical encoding of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("at byte {offset}: {kind}")]
pub struct DecodeError {
    /// Where reading stopped, from the start of the bytes that were given.
    pub offset: usize,
    /// What is wrong there.
    pub kind: DecodeErrorKind,
}

/// What is wrong with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// They end too early.
    #[error("the bytes end too early")]
    Truncated,
    /// Something follows the end.
    #[error("there are bytes after the end")]
    TrailingBytes,
    /// A format version that this program does not know.
    #[error("format version {0} is not known")]
    UnknownVersion(u8),
    /// A tag or a set of flags that means nothing.
    #[error("tag {0:#04x} means nothing here")]
    BadTag(u8),
    /// A number that is out of range.
    #[error("a number is out of range")]
    OutOfRange,
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// Nested deeper than allowed.
    #[error("nested deeper than {} levels", bigpeer_types::limits::MAX_DEPTH)]
    TooDeep,
    /// Larger than allowed.
    #[error("larger than the allowed {0} bytes")]
    TooLarge(usize),
    /// More parts than allowed.
    #[error("more than the allowed {0} parts")]
    TooMany(usize),
    /// The same thing could be said in the one canonical way, and is not; the text says what.
    #[error("not canonical: {0}")]
    NotCanonical(&'static str),
    /// A collection name that is not allowed.
    #[error("not a collection name")]
    BadCollectionName,
}
