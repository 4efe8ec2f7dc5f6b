//! The generated messages, and what makes them handy: conversions of LSNs, and messages into their envelopes.

use bigpeer_types::Lsn;

/// The messages of `sync.proto`.
#[allow(missing_docs, reason = "generated; the documentation is in sync.proto")]
#[allow(clippy::all, clippy::wildcard_enum_match_arm, reason = "generated")]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/bigpeer.sync.v1.rs"));

    pub use gateway_message::Message as FromGateway;
    pub use peer_message::Message as FromPeer;
}

impl From<Lsn> for pb::Lsn {
    fn from(lsn: Lsn) -> Self {
        Self { version: lsn.version, order: lsn.order }
    }
}

impl From<pb::Lsn> for Lsn {
    fn from(lsn: pb::Lsn) -> Self {
        Self { version: lsn.version, order: lsn.order }
    }
}

macro_rules! enveloped {
    ($($message:ident => $envelope:ident),+ $(,)?) => {
        $(impl From<pb::$message> for pb::$envelope {
            fn from(message: pb::$message) -> Self {
                Self { message: Some(message.into()) }
            }
        })+
    };
}

macro_rules! chosen {
    ($($message:ident => $choice:ident),+ $(,)?) => {
        $(impl From<pb::$message> for pb::$choice {
            fn from(message: pb::$message) -> Self {
                Self::$message(message)
            }
        })+
    };
}

chosen! {
    Hello => FromPeer, Push => FromPeer, Subscribe => FromPeer, Unsubscribe => FromPeer, Credit => FromPeer,
    Renew => FromPeer, Held => FromPeer, Close => FromPeer,
}
chosen! {
    Welcome => FromGateway, Accepted => FromGateway, Rejected => FromGateway, Subscribed => FromGateway,
    Changes => FromGateway, Left => FromGateway, CaughtUp => FromGateway, Resync => FromGateway,
    Refused => FromGateway, AskHeld => FromGateway, Close => FromGateway,
}
enveloped! {
    Hello => PeerMessage, Push => PeerMessage, Subscribe => PeerMessage,
    Unsubscribe => PeerMessage, Credit => PeerMessage, Renew => PeerMessage,
    Held => PeerMessage, Close => PeerMessage,
    Welcome => GatewayMessage, Accepted => GatewayMessage, Rejected => GatewayMessage,
    Subscribed => GatewayMessage, Changes => GatewayMessage, Left => GatewayMessage,
    CaughtUp => GatewayMessage, Resync => GatewayMessage, Refused => GatewayMessage,
    AskHeld => GatewayMessage, Close => GatewayMessage,
}

impl pb::Close {
    /// A Close with this code, and a message that says what to do.
    #[must_use]
    pub fn new(code: pb::CloseCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        let mut end = message.len().min(crate::limits::MAX_MESSAGE_TEXT_BYTES);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        Self { code: code.into(), message, retry_after_ms: 0 }
    }
}

impl pb::CloseCode {
    /// Whether the peer can expect a new session to do better with what it has.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::CloseDone
            | Self::CloseGoingAway
            | Self::CloseUnavailable
            | Self::CloseTokenExpired
            | Self::CloseTimeout
            | Self::CloseInternal
            | Self::CloseSeqGap
            | Self::CloseUnspecified => true,
            Self::CloseProtocolError
            | Self::CloseUnsupportedVersion
            | Self::CloseUnauthenticated
            | Self::CloseAccessRevoked
            | Self::CloseForeignSite
            | Self::CloseStaleSite
            | Self::CloseLimitExceeded
            | Self::CloseReplaced => false,
        }
    }
}
