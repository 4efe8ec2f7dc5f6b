//! bigpeer under deterministic simulation: the real gateway, login, compactor, log and peer library, on a network, disks,
//! clocks and chance that follow one seed. What each peer holds is judged all the time by the checkers of `bigpeer-harness`.
//!
//! # Determinism
//! One thread. Each process is a tokio runtime of its own with paused time and a seed ([`node`]); time moves in steps of a few
//! milliseconds, in which every process runs until then, one after the other in an order of the seed ([`world`]). Processes
//! meet only in the [`network`], in the log and in the object store. What the standard library and other crates ask of the
//! operating system's chance is answered from the seed ([`chance`]). Nothing that the simulated crates do runs on another
//! thread (`--cfg bigpeer_sim`), but for the embedded log's writer, which is waited for (`InlineLog` of the harness).

#[cfg(not(all(bigpeer_sim, tokio_unstable)))]
compile_error!(
    "built without the flags of tests/sim/.cargo/config.toml; use `make sim`, or run cargo in tests/sim without RUSTFLAGS"
);

pub mod carrier;
pub mod chance;
pub mod client;
pub mod clock;
pub mod faults;
pub mod grants;
pub mod network;
pub mod node;
pub mod record;
pub mod run;
pub mod server;
pub mod stage;
pub mod tap;
pub mod trace;
pub mod workload;
pub mod world;
