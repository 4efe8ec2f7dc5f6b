//! `ChangefeedSettings`: limits of the change feed, and what its operator allows.

use std::time::Duration;

/// Limits of the change feed, and what its operator allows.
#[derive(Clone, Debug)]
pub struct ChangefeedSettings {
    /// Most streams of one app that are open at once.
    pub max_streams_per_app: usize,
    /// Whether webhooks may go to private addresses: of this machine, of its network.
    pub allow_private_receivers: bool,
    /// What this process is called among the owners of feeds, the same after a restart, so that it does not wait for itself;
    /// no other process may be called so. None: a name by chance.
    pub process: Option<String>,
    /// How long another process waits before it takes over a feed whose owner is silent.
    pub lease: Duration,
}

impl Default for ChangefeedSettings {
    fn default() -> Self {
        Self {
            max_streams_per_app: 1000,
            allow_private_receivers: false,
            process: None,
            lease: Duration::from_secs(15),
        }
    }
}
