//! Serves the data API over a log in memory, until it is killed: `cargo run -p bigpeer-api --example memory -- 127.0.0.1:8090`.
//! Prints the app's URL and a key. For trying clients and scripts/contract.py without a release build.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a tool for developers")]

#[path = "../benches/memory.rs"]
mod memory;

use std::sync::Arc;

use memory::Memory;

fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8090".to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let memory = Arc::new(Memory::new().await);
        let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
        println!("http://{}/{} {}", listener.local_addr().unwrap(), memory.app, memory.key);
        axum::serve(listener, memory.router.clone()).await.unwrap();
    });
}
