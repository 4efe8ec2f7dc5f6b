//! `Node`: a process, as a tokio runtime of its own. Dropping the runtime is the process's death, at whichever await each
//! of its tasks happens to be.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Builder, RngSeed, Runtime, UnhandledPanic};
use tokio::time::Instant;

/// A process that runs.
pub struct Node {
    runtime: Runtime,
    /// When it was started: in milliseconds of the simulation, and by its own clock.
    started: (u64, Instant),
}

impl Node {
    /// Starts a process with nothing in it.
    pub fn start(now: u64, seed: u64) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
            .unhandled_panic(UnhandledPanic::ShutdownRuntime)
            .build()
            .expect("a runtime without I/O");
        let instant = runtime.block_on(async { Instant::now() });
        Self { runtime, started: (now, instant) }
    }

    /// Starts a task in it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Runs the process until it is `now`.
    pub fn step(&self, now: u64) {
        let (since, instant) = self.started;
        let until = instant + Duration::from_millis(now - since);
        self.runtime.block_on(async move {
            tokio::time::sleep_until(until).await;
        });
    }

    /// Asks something that takes no time.
    pub fn ask<T>(&self, question: impl Future<Output = T>) -> T {
        self.runtime.block_on(question)
    }
}
