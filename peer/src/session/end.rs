//! What to do after a session ended.

use std::time::Duration;

use bigpeer_protocol::pb::{self, CloseCode};

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Connect again, no sooner than this.
    Reconnect(Duration),
    /// Connect again with a new token.
    NewToken,
    /// Connect again as another site.
    NewSite,
    /// Stop: trying again would only be refused again.
    Stop,
}

/// A code that a later version of the protocol may add is unspecified here.
pub(crate) fn after_close(close: &pb::Close) -> After {
    match close.code() {
        CloseCode::CloseUnspecified
        | CloseCode::CloseDone
        | CloseCode::CloseGoingAway
        | CloseCode::CloseUnavailable
        | CloseCode::CloseSeqGap
        | CloseCode::CloseTimeout
        | CloseCode::CloseInternal => After::Reconnect(Duration::from_millis(close.retry_after_ms)),
        // A bug or a limit, on one side or the other. A device that is out of reach must find its way back when it is
        // mended, but slowly.
        CloseCode::CloseProtocolError | CloseCode::CloseLimitExceeded => {
            After::Reconnect(Duration::from_millis(close.retry_after_ms).max(Duration::from_secs(30)))
        }
        CloseCode::CloseUnauthenticated | CloseCode::CloseTokenExpired => After::NewToken,
        CloseCode::CloseStaleSite => After::NewSite,
        CloseCode::CloseUnsupportedVersion
        | CloseCode::CloseAccessRevoked
        | CloseCode::CloseForeignSite
        | CloseCode::CloseReplaced => After::Stop,
    }
}
