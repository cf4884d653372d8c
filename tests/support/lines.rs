//! What the code under test writes to the log.

use std::io;
use std::sync::Arc;

/// Log lines of this thread.
#[derive(Clone, Default)]
pub struct Lines(Arc<parking_lot::Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Collects those of level info and above until the guard is dropped.
    pub fn collect() -> (Lines, tracing::subscriber::DefaultGuard) {
        Lines::collect_from(tracing::Level::INFO)
    }

    /// Collects those of that level and above until the guard is dropped.
    pub fn collect_from(level: tracing::Level) -> (Lines, tracing::subscriber::DefaultGuard) {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// All of them so far.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).expect("text")
    }
}
