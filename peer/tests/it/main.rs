//! The peer from outside: its store on disk, and its sessions with a small gateway in this process. The real server is
//! met in tests/e2e.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod attachments;
mod convergence;
mod crash;
mod fake;
mod fake_blobs;
mod offline;
mod older;
mod sync;
mod uploader;
mod versions;
mod written;

use std::path::Path;

use bigpeer_peer::{Params, Peer, PeerSettings, QueryResult, Value};

async fn open(dir: &Path) -> Peer {
    Peer::open(PeerSettings::new(dir)).await.expect("the store opens")
}

fn params<const N: usize>(pairs: [(&str, Value); N]) -> Params {
    pairs.into_iter().collect()
}

async fn run(peer: &Peer, statement: &str) -> QueryResult {
    peer.execute(statement, Params::new()).await.unwrap_or_else(|error| panic!("{statement}: {error}"))
}

/// The rows of a query as JSON text, sorted: for comparing.
async fn rows(peer: &Peer, query: &str) -> Vec<String> {
    let mut rows: Vec<String> = run(peer, query).await.items.iter().map(|row| row.to_json().to_string()).collect();
    rows.sort();
    rows
}
