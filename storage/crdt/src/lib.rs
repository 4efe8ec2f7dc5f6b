//! Documents as CRDTs: values, states, deltas, merge and encodings; no I/O, no async.
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
