//! What a recording waits for: signals and times.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::base::{Error, Result};

/// Completes on Ctrl-C or SIGTERM.
///
/// # Errors
/// When signals cannot be listened for.
pub fn stop_signal() -> Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).map_err(|e| Error::failed("cannot listen for signals").because(e));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Completes then, or never.
pub(super) async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Completes after that time, or never.
pub(super) async fn elapsed(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
