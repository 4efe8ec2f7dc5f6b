//! The sync protocol: messages, and both ends as state machines without I/O
