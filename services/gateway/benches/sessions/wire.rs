//! What the two processes say to each other: a line of JSON each.

use serde_json::{Value, json};

/// What the peers are to do.
pub(crate) enum Command {
    /// Connect so many peers, whose sites count up from the first; each opens `each` subscriptions, in which `{}` stands for
    /// the site and the number of the subscription.
    Connect { sites: (u64, usize), query: String, each: usize },
    /// Count changes that come in from now on.
    Expect { changes: u64 },
    /// Cut every connection.
    Drop,
    /// Connect again from the stored cursors.
    Reconnect,
    /// The second writes, the first waits for it, so many times.
    PingPong { times: usize },
    /// All push for so many milliseconds.
    Push { ms: u64 },
}

impl Command {
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Connect { sites, query, each } => {
                json!({"do": "connect", "first": sites.0, "count": sites.1, "query": query, "each": each})
            }
            Self::Expect { changes } => json!({"do": "expect", "changes": changes}),
            Self::Drop => json!({"do": "drop"}),
            Self::Reconnect => json!({"do": "reconnect"}),
            Self::PingPong { times } => json!({"do": "ping_pong", "times": times}),
            Self::Push { ms } => json!({"do": "push", "ms": ms}),
        }
    }
}

/// Nanoseconds since the epoch: the clock that both processes share.
pub(crate) fn now_ns() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
}
