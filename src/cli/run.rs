//! `mailweir run`: the relay itself.

use std::path::PathBuf;

use super::{Code, Failed, Outcome};
use crate::app::StartError;
use crate::config::Loaded;

/// `named`: the file of the command line, for a reload.
pub(super) fn run(loaded: Loaded, named: Option<PathBuf>) -> Outcome {
    let runtime = super::runtime(tokio::runtime::Builder::new_multi_thread().worker_threads(threads()))?;
    let result = runtime.block_on(crate::app::run(loaded, named));
    // Blocking work that is still in progress (a name lookup, a read) must not keep the process.
    runtime.shutdown_background();
    result.map_err(|e| Failed::new(code(&e), format!("{e:#}")))
}

/// Threads for sessions on both sides: half of the processors, because the queue's writer, its
/// readers and the kernel's network work want the others; measured on two processors, where one
/// thread relays more than two do. `TOKIO_WORKER_THREADS` overrides it.
fn threads() -> usize {
    let asked = std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let half = || std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2));
    asked.unwrap_or_else(half)
}

/// A supervisor may start again what is only busy; the rest needs somebody to look at it.
fn code(error: &anyhow::Error) -> Code {
    match error.downcast_ref::<StartError>() {
        Some(StartError::Temporary(_)) => Code::Temporary,
        Some(StartError::Config(_)) => Code::Config,
        Some(StartError::Unavailable(_)) | None => Code::Unavailable,
    }
}
