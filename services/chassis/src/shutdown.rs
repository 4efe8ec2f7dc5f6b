//! Ending in order: one token that everything watches, cancelled by the first SIGTERM or SIGINT.

pub use tokio_util::sync::CancellationToken as Shutdown;

/// Cancels `shutdown` at the first SIGTERM or SIGINT; at the second the process ends at once with status 130.
///
/// # Errors
/// When the signals cannot be listened for.
pub fn shutdown_on_signals(shutdown: Shutdown) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        let mut asked = false;
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            };
            if asked {
                std::process::exit(130);
            }
            asked = true;
            tracing::info!(signal = name, "shutting down; a second signal ends at once");
            shutdown.cancel();
        }
    });
    Ok(())
}
