//! The canonical encoding of a state, and so of a delta.
//!
//! # Layout
//! ```text
//! state   := version:01 flags stamps [index of `deleted`] node
//! flags   := 01 `deleted` follows | 02 one stamp | high four bits: with one stamp, the length of its site
//! node    := 80|tag index value-body                      a lone register
//!          | slots                                        a set of: 01 cleared, 02 register, 04 map, 08 counter, 10 attachment
//!            [index of `cleared`]
//!            [index tag value-body]
//!            [count (length key node)…]                   keys ascending, no node empty
//!            [count (index of `started`, index of `last`, increments, decrements)…]   `started` ascending
//!            [index sha256:32 length metadata]
//! ```
//! An index is a varint into the stamps, left out where there is one stamp. Stamps: see `stamps.rs`; values: see `value.rs`.
//! Only the root may be an empty node; it holds `cleared`, a register `{}` and a map, nothing else.
//!
//! # Canonical
//! Readers refuse every other way to say the same: tables with unused or unordered entries, numbers longer than needed, parts
//! that are dead, empty nodes. So equal states are equal bytes.

mod read;
mod stamps;
mod value;
mod write;

pub(crate) use read::check;
pub(crate) use value::tie_order;
pub(crate) use write::{put_attachment, put_state};

/// The version of this format: the first byte.
const VERSION: u8 = 1;

/// Flags of the head.
const DELETED: u8 = 0x01;
const ONE_STAMP: u8 = 0x02;
const SITE_LEN_SHIFT: u32 = 4;
/// Bits that no flag uses.
const NO_FLAGS: u8 = 0x0c;

/// A node that is a lone register; or the slots that it has.
const LONE: u8 = 0x80;
const CLEARED: u8 = 0x01;
const REGISTER: u8 = 0x02;
const MAP: u8 = 0x04;
const COUNTER: u8 = 0x08;
const ATTACHMENT: u8 = 0x10;
const SLOTS: u8 = CLEARED | REGISTER | MAP | COUNTER | ATTACHMENT;

/// The least bytes that a map's entry takes: the length of its key, and a node.
const LEAST_ENTRY: usize = 2;
/// The least bytes that a contribution takes: its increments and decrements.
const LEAST_CONTRIBUTION: usize = 2;
