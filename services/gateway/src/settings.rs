//! `GatewaySettings`: limits of the gateway, with defaults that are production's.

use std::time::Duration;

use bigpeer_protocol::pb;
use bigpeer_types::limits::{MAX_CLOCK_AHEAD_MS, MAX_FRAME_BYTES, MAX_TRANSACTION_BYTES};

/// How sessions are bounded.
#[derive(Clone, Copy, Debug)]
pub struct GatewaySettings {
    /// Most sessions at once; more are answered 503.
    pub max_sessions: usize,
    /// Most Hellos that are answered at once; more wait in line.
    pub max_admissions: usize,
    /// Most sessions that read from a snapshot at once, each up to a few megabytes ahead; more wait in line.
    pub max_catch_ups: usize,
    /// Messages of a session in a second; one that sends more is read from more slowly. A Subscribe counts as 20.
    pub max_messages_per_second: u32,
    /// Bytes of a session's messages in a second, decompressed, likewise.
    pub max_bytes_per_second: u32,
    /// From the connection to the Welcome.
    pub handshake_timeout: Duration,
    /// A session from which nothing came for so long is closed; half of it without anything is answered with a ping.
    pub idle_timeout: Duration,
    /// How often a quiet session is told that its cursor has moved.
    pub cursor_interval: Duration,
    /// Most subscriptions of a session.
    pub max_subscriptions: u32,
    /// Most transactions of a session that have no outcome yet.
    pub max_pushes_in_flight: u32,
    /// Most bytes of them.
    pub max_push_bytes_in_flight: u64,
    /// Most bytes of live changes that wait for one session; beyond, it catches up from a snapshot instead.
    pub queue_bytes: usize,
    /// Most bytes of documents that wait for all sessions together; beyond, those that wait for most catch up from a snapshot
    /// instead.
    pub max_waiting_bytes: usize,
    /// How far ahead of this clock a stamp may be, in milliseconds.
    pub max_clock_ahead_ms: u64,
    /// Whether frames are compressed for peers that understand it.
    pub compress: bool,
    /// Whether only peers with a client certificate get a session.
    pub require_certificate: bool,
    /// How long a session may take to hand out its last outcomes when the gateway shuts down.
    pub drain_timeout: Duration,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            max_sessions: 20_000,
            max_admissions: 32,
            max_catch_ups: 64,
            max_messages_per_second: 5000,
            max_bytes_per_second: 64 << 20,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            cursor_interval: Duration::from_secs(5),
            max_subscriptions: 1000,
            max_pushes_in_flight: 1024,
            max_push_bytes_in_flight: 2 * MAX_TRANSACTION_BYTES as u64,
            queue_bytes: 4 << 20,
            max_waiting_bytes: 512 << 20,
            max_clock_ahead_ms: MAX_CLOCK_AHEAD_MS,
            compress: true,
            require_certificate: false,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

impl GatewaySettings {
    /// As they stand in a Welcome.
    pub(crate) fn limits(&self) -> pb::Limits {
        pb::Limits {
            max_frame_bytes: MAX_FRAME_BYTES as u64,
            max_transaction_bytes: MAX_TRANSACTION_BYTES as u64,
            max_pushes_in_flight: self.max_pushes_in_flight,
            max_push_bytes_in_flight: self.max_push_bytes_in_flight,
            max_subscriptions: self.max_subscriptions,
            max_clock_ahead_ms: self.max_clock_ahead_ms,
            idle_timeout_ms: u64::try_from(self.idle_timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
