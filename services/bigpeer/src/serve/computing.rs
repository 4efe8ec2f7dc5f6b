//! `Computing`: threads for what computes for long, so that it is in no queue with lookups, commits and sessions.

use std::num::NonZero;

use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::runtime::{Builder, Handle, Runtime};

/// Of 0 to 99, where 50 is that of other threads: a niceness of 9, with an eighth of the time of a thread that is as busy. Whoever
/// answers a lookup is not to wait until a scan's slice of time is over.
const PRIORITY: u8 = 25;

/// A runtime with as many threads as there are cores. What still runs when it is dropped ends by itself.
pub(super) struct Computing(Option<Runtime>, Handle);

impl Computing {
    pub(super) fn start() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores)
            .thread_name("computing")
            .on_thread_start(yields_to_others)
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self(Some(runtime), handle))
    }

    pub(super) const fn handle(&self) -> &Handle {
        &self.1
    }
}

fn yields_to_others() {
    let Ok(priority) = ThreadPriorityValue::try_from(PRIORITY) else { return };
    if let Err(error) = set_current_thread_priority(ThreadPriority::Crossplatform(priority)) {
        tracing::debug!(?error, "threads that compute have the priority of the others");
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        // Nothing may be waited for here.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
