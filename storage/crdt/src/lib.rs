//! Documents as CRDTs: values, states, deltas, merge and encodings. No I/O, no async.
//!
//! A [`Document`] is a state; a delta is a small state; applying is joining. An [`Editor`] makes deltas; a [`Transaction`]
//! carries them as bytes; [`Document::join_encoded`] joins those bytes without building anything on the way.
//!
//! # Semantics
//! - Every write has a stamp; the greater stamp wins. On equal stamps (a broken clock, a hostile writer) the greater encoding
//!   of the value wins, so that replicas still agree.
//! - What is removed is `cleared` at its node up to a stamp: everything in and below the node with a stamp up to that is dead,
//!   whenever it arrives. Later writes survive, also those below.
//! - A change of type (a map becomes text, text becomes a counter) clears what its writer saw, and nothing newer.
//! - Deleting a document clears nothing: content that is newer brings back all of it. Inserting over a deletion that the writer
//!   saw clears up to it.
//! - A counter is the sum of contributions, one for each site and age of the counter. A restart clears the ages before it, and
//!   with them the increments that the restarting site had not seen.
//! - A map says that it exists by the register `{}`, so an empty map and an empty document are seen.
//!
//! # Layout
//! [`Document::encode`] is documented in `codec/mod.rs` (the tree), `codec/stamps.rs` (the table of stamps) and
//! `codec/value.rs` (values); transactions in `transaction/mod.rs`; keys of ids in `id/mod.rs`. Each begins with a version,
//! but keys, whose order is their use. There is one encoding of each state, and every decoder refuses all others: equal
//! states are equal bytes, and bytes can be compared and hashed for states.
//!
//! # Hostile bytes
//! Decoders return an error with its offset. They recurse at most `MAX_DEPTH` levels, trust no count beyond the bytes that are
//! there, and hold at most 64 bytes for each byte that they were given.
#![warn(missing_docs)]

mod attachment;
mod codec;
mod condition;
mod document;
mod editor;
mod error;
mod id;
mod json;
mod node;
mod transaction;
mod value;
mod visible;
mod wire;

pub use attachment::Attachment;
pub use condition::{ConditionOp, FieldCondition};
pub use document::{Document, Header, Writers};
pub use editor::{EditError, Editor, ObjectMode};
pub use error::{DecodeError, DecodeErrorKind};
pub use id::{DocId, DocIdError};
pub use json::ValueError;
pub use transaction::{Change, Transaction, TransactionBuilder, TransactionTooLarge};
pub use value::{Object, Value};
pub use visible::{MapView, Visible};
