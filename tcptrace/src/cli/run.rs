//! What the commands share that follow the live kernel until something ends them.

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

pub(super) fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the event loop")
}

/// The signals that end a run in order: the ring buffer is drained and the closing line printed.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// From now on the signals do not kill the process.
    pub(super) fn new() -> Result<Self> {
        Ok(Self { interrupt: handler(SignalKind::interrupt())?, terminate: handler(SignalKind::terminate())? })
    }

    /// Waits for any of them.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for the one that is for us alone. The other one, Ctrl-C, passes by: the terminal sends it to the processes that
    /// we have started as well.
    pub(super) async fn terminated(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => return,
            }
        }
    }
}

pub(super) fn handler(kind: SignalKind) -> Result<Signal> {
    signal(kind).with_context(|| format!("cannot handle signal {}", kind.as_raw_value()))
}

/// Waits for this moment; forever, if there is none.
pub(super) async fn reached(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
