//! The gateway from outside: a real server on the loopback, a raw client, a log and an object store in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails where it finds something wrong"
)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks at the messages that it is about")]
#![allow(clippy::cast_possible_truncation, reason = "bytes out of numbers")]

mod certificates;
mod cold;
mod devices;
mod hostile;
mod midway;
mod older;
mod permissions;
mod push;
mod quotas;
mod resume;
mod subscribe;
mod users;
mod world;
