//! The gateway from outside: a real server on the loopback, a raw client, a log and an object store in memory.

mod hostile;
mod permissions;
mod push;
mod subscribe;
mod world;
