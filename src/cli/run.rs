//! `mailweir run`: the relay itself.

use std::io::{self, Write};

use super::{Code, Failed, Outcome};
use crate::app::StartError;
use crate::config::Loaded;

pub(super) fn run(loaded: Loaded) -> Outcome {
    for warning in &loaded.warnings {
        let _ = writeln!(io::stderr(), "mailweir: warning: {warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(crate::app::run(loaded.config, loaded.settings, loaded.file));
    // Blocking work that is still in progress (a name lookup, a read) must not keep the process.
    runtime.shutdown_background();
    result.map_err(|e| Failed::new(code(&e), format!("{e:#}")))
}

/// A supervisor may start again what is only busy; the rest needs somebody to look at it.
fn code(error: &anyhow::Error) -> Code {
    match error.downcast_ref::<StartError>() {
        Some(StartError::Temporary(_)) => Code::Temporary,
        Some(StartError::Config(_)) => Code::Config,
        Some(StartError::Unavailable(_)) | None => Code::Unavailable,
    }
}
