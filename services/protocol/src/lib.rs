//! The sync protocol `bigpeer.sync.v1`: messages, frames, and both ends of a session as state machines without I/O.
//! docs/sync-protocol.md tells the rules; `sync.proto` is the reference for the shape of messages.

#![warn(missing_docs)]

mod changes;
mod frame;
mod gateway;
mod held;
pub mod limits;
mod messages;
mod page;
mod peer;

pub use changes::{encode_changes, encode_transaction};
pub use frame::{FrameError, Framed, decode_gateway_frame, decode_peer_frame, encode_frame};
pub use gateway::{Admission, GatewayEffect, GatewaySession, SubscriptionPhase};
pub use held::fingerprint;
pub use messages::pb;
pub use page::{PageWriter, Progress};
pub use peer::{Misuse, PeerEffect, PeerSession, PushWindow};

/// The WebSocket subprotocol's name.
pub const SUBPROTOCOL: &str = "bigpeer.sync.v1";

/// The version of the protocol that this crate's peer asks for.
pub const VERSION: u32 = 1;

/// The versions that this crate's gateway speaks.
pub const VERSIONS: [u32; 1] = [1];
