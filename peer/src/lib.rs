//! The Small Peer: a local store that works offline, and its session with a bigpeer
