//! Where log lines go: gathered for a moment and written together.
//!
//! A relay writes two lines a message; one system call for each, made by the thread that serves
//! all sessions, would cost several per cent of its time and stop everything while standard error
//! blocks. So a thread of its own writes what came within [`GATHER`] at once.
//!
//! Invariants: lines keep their order and are never cut; at most [`MOST`] bytes wait; what has no
//! room is counted and the count is written as soon as the log takes lines again, because a log that
//! is stuck must not stop mail. A `kill -9` loses the lines of the last moment; the queue, not the log,
//! is the record of what became of a message. Nothing is lost at an orderly end.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// How long the first line waits for others.
const GATHER: Duration = Duration::from_millis(5);
/// That much is written without waiting any longer.
const FLIGHT: usize = 64 * 1024;
/// Bytes that wait at most.
const MOST: usize = 4 * 1024 * 1024;

/// Takes lines; clones write to the same place.
#[derive(Clone, Debug)]
pub(super) struct LogWriter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    /// Lines that had no room.
    lost: u64,
    /// No thread will take anything any more: lines are written where they come up.
    ended: bool,
}

/// Writes what is left when it is dropped.
#[must_use = "the log ends when this is dropped"]
#[derive(Debug)]
pub struct LogGuard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the thread that writes to `out`.
///
/// # Errors
/// The thread cannot be started.
pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<(LogWriter, LogGuard)> {
    let shared = Arc::new(Shared::default());
    let thread = std::thread::Builder::new().name("log".into()).spawn({
        let shared = shared.clone();
        move || shared.run(out)
    })?;
    Ok((LogWriter(shared.clone()), LogGuard { shared, thread: Some(thread) }))
}

impl Shared {
    fn run(&self, mut out: impl Write) {
        let mut flight = Vec::new();
        loop {
            let (lost, ended) = {
                let mut state = self.state.lock();
                while state.pending.is_empty() && state.lost == 0 && !state.ended {
                    self.changed.wait(&mut state);
                }
                if !state.ended && state.pending.len() < FLIGHT {
                    self.changed.wait_for(&mut state, GATHER);
                }
                std::mem::swap(&mut state.pending, &mut flight);
                (std::mem::take(&mut state.lost), state.ended)
            };
            // Nobody can be told that the log cannot be written; the mail goes on.
            let _ = out.write_all(&flight);
            if lost > 0 {
                let _ = writeln!(out, "mailweir: {lost} log lines were lost: standard error did not take them");
            }
            let _ = out.flush();
            flight.clear();
            flight.shrink_to(FLIGHT * 2);
            if ended {
                return;
            }
        }
    }
}

impl Write for &LogWriter {
    /// Takes a whole line; never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        if state.ended {
            drop(state);
            return io::stderr().write_all(line).map(|()| line.len());
        }
        if state.pending.len() + line.len() > MOST {
            state.lost += 1;
            return Ok(line.len());
        }
        let before = state.pending.len();
        state.pending.extend_from_slice(line);
        // The first line starts the wait, and a full flight ends it.
        if before == 0 || (before < FLIGHT && state.pending.len() >= FLIGHT) {
            self.0.changed.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a LogWriter;

    fn make_writer(&'a self) -> &'a LogWriter {
        self
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Keeps each write apart; blocks until `go` says so, if there is one.
    struct Out {
        writes: Sender<Vec<u8>>,
        go: Option<Receiver<()>>,
    }

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(go) = &self.go {
                let _ = go.recv();
            }
            let _ = self.writes.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_keep_their_order_and_none_is_lost_at_the_end() {
        let (writes, seen) = channel();
        let (log, guard) = start(Out { writes, go: None }).expect("starts");
        let lines: Vec<String> = (0..5000).map(|i| format!("line {i}\n")).collect();
        for line in &lines {
            (&log).write_all(line.as_bytes()).expect("is taken");
        }
        drop(guard);
        let written: Vec<Vec<u8>> = seen.iter().collect();
        assert_eq!(String::from_utf8(written.concat()).expect("text"), lines.concat());
    }

    #[test]
    fn a_stuck_log_stops_nobody_and_tells_what_was_lost() {
        let (writes, seen) = channel();
        let (go, wait) = channel();
        let (log, guard) = start(Out { writes, go: Some(wait) }).expect("starts");
        let line = vec![b'x'; 1024 * 1024 - 1];
        (&log).write_all(b"first\n").expect("is taken");
        // The first flight may have been taken out already: then one line more finds room.
        for _ in 0..10 {
            (&log).write_all(&line).expect("is taken");
        }
        drop(go);
        drop(guard);
        let written = seen.iter().collect::<Vec<_>>().concat();
        let taken = written.iter().filter(|b| **b == b'x').count() / line.len();
        let text = String::from_utf8_lossy(&written);
        let told: usize =
            text.lines().filter_map(|l| l.split("mailweir: ").nth(1)?.split(' ').next()?.parse::<usize>().ok()).sum();
        assert!((3..=8).contains(&taken), "{taken} lines were taken");
        assert_eq!(taken + told, 10, "every line is written or counted");
    }
}
