//! Where log lines go: gathered for a moment and written together.
//!
//! A relay writes two lines a message; one system call for each, made by the thread that serves
//! all sessions, would cost several per cent of its time and stop everything while standard error
//! blocks. So a thread of its own writes what came within [`GATHER`] at once.
//!
//! Invariants: lines keep their order and are never cut; at most [`MOST`] bytes wait; what has no
//! room is counted and the count is written as soon as the log takes lines again, because a log that
//! is stuck must not stop mail. A `kill -9` loses the lines of the last moment; the queue, not the log,
//! is the record of what became of a message. Nothing is lost at an orderly end, except to a log that
//! takes nothing for [`STUCK`] or is not done after [`LONGEST`]: it does not keep the process.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

use super::visible::{self, Form};

/// How long the first line waits for others.
const GATHER: Duration = Duration::from_millis(5);
/// That much is written without waiting any longer.
const FLIGHT: usize = 64 * 1024;
/// Bytes that wait at most.
const MOST: usize = 4 * 1024 * 1024;
/// How long the end waits for a log that takes nothing at all.
const STUCK: Duration = Duration::from_secs(3);
/// How long it waits for one that takes something now and then.
const LONGEST: Duration = Duration::from_secs(10);
/// Until a log that takes nothing without blocking is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// Takes lines; clones write to the same place.
#[derive(Clone, Debug)]
pub(super) struct LogWriter(Arc<Shared>, Form);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Something was written, or the thread has ended.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    /// Lines that had no room.
    lost: u64,
    /// Nothing will be taken any more.
    ended: bool,
    /// Flights, or parts of one, that are out.
    flights: u64,
    /// The thread is done.
    done: bool,
}

/// Writes what is left when it is dropped.
#[must_use = "the log ends when this is dropped"]
#[derive(Debug)]
pub struct LogGuard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    patience: Duration,
}

/// Starts the thread that writes to `out`.
///
/// # Errors
/// The thread cannot be started.
pub(super) fn start(out: impl Write + Send + 'static, form: Form) -> io::Result<(LogWriter, LogGuard)> {
    let shared = Arc::new(Shared::default());
    let thread = std::thread::Builder::new().name("log".into()).spawn({
        let shared = shared.clone();
        move || {
            shared.run(out);
            shared.state.lock().done = true;
            shared.written.notify_all();
        }
    })?;
    Ok((LogWriter(shared.clone(), form), LogGuard { shared, thread: Some(thread), patience: STUCK }))
}

impl Shared {
    fn run(&self, mut out: impl Write) {
        let (mut flight, mut unwritten) = (Vec::new(), 0);
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
            // Nobody can be told yet that the log cannot be written; the mail goes on.
            unwritten += lost + self.write(&mut out, &flight);
            if unwritten > 0 {
                let told = format!("mailweir: {unwritten} log lines were lost: standard error did not take them\n");
                if self.write(&mut out, told.as_bytes()) == 0 {
                    unwritten = 0;
                }
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

impl Shared {
    /// Writes whole lines; returns how many are not, or not wholly, out.
    fn write(&self, out: &mut impl Write, lines: &[u8]) -> u64 {
        let mut rest = lines;
        while !rest.is_empty() {
            match out.write(rest.get(..FLIGHT).unwrap_or(rest)) {
                Ok(n) if n > 0 => rest = rest.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                // Somebody who shares it wants it so; to us it is a pipe that is full.
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(AGAIN);
                    continue;
                }
                _ => return rest.iter().filter(|b| **b == b'\n').count() as u64,
            }
            self.state.lock().flights += 1;
            self.written.notify_all();
        }
        0
    }
}

impl Write for &LogWriter {
    /// Takes a whole line; never fails.
    fn write(&mut self, written: &[u8]) -> io::Result<usize> {
        let line = visible::line(written, self.1);
        let mut state = self.0.state.lock();
        if state.ended {
            return Ok(written.len());
        }
        if state.pending.len() + line.len() > MOST {
            state.lost += 1;
            return Ok(written.len());
        }
        let before = state.pending.len();
        state.pending.extend_from_slice(&line);
        // The first line starts the wait, and a full flight ends it.
        if before == 0 || (before < FLIGHT && state.pending.len() >= FLIGHT) {
            self.0.changed.notify_one();
        }
        Ok(written.len())
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
        let Some(thread) = self.thread.take() else { return };
        let mut state = self.shared.state.lock();
        state.ended = true;
        self.shared.changed.notify_one();
        let last = Instant::now() + LONGEST;
        while !state.done {
            let flights = state.flights;
            let until = (Instant::now() + self.patience).min(last);
            let waited = self.shared.written.wait_while_until(&mut state, |s| !s.done && s.flights == flights, until);
            if waited.timed_out() {
                // It waits in a write, perhaps for ever: the end of the process is its end.
                return;
            }
        }
        drop(state);
        let _ = thread.join();
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
        let (log, guard) = start(Out { writes, go: None }, Form::Json).expect("starts");
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
        let (log, guard) = start(Out { writes, go: Some(wait) }, Form::Json).expect("starts");
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

    /// Nobody reads: the end leaves it alone, and what still wants to log does not wait either.
    #[test]
    fn a_log_that_takes_nothing_does_not_keep_the_end() {
        let (writes, _seen) = channel();
        let (go, wait) = channel();
        let (log, mut guard) = start(Out { writes, go: Some(wait) }, Form::Json).expect("starts");
        guard.patience = Duration::ZERO;
        (&log).write_all(b"never taken\n").expect("is taken");
        let shared = guard.shared.clone();
        drop(guard);
        assert!(!shared.state.lock().done, "it is still in its write");
        (&log).write_all(b"after the end\n").expect("does not wait");
        drop(go);
    }

    /// A full disk, and then room: what was lost meanwhile is counted. A pipe that does not block is
    /// tried until it takes everything.
    #[test]
    fn what_a_log_refuses_is_counted_and_told_later() {
        struct Moody(Sender<Vec<u8>>, Vec<Result<usize, ErrorKind>>);
        impl Write for Moody {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let n = self.1.pop().unwrap_or(Ok(usize::MAX)).map_err(io::Error::from)?.min(bytes.len());
                let _ = self.0.send(bytes[..n].to_vec());
                Ok(n)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (writes, seen) = channel();
        // From the end: a pipe that is full twice, a part, a disk that is full for the rest, and for telling.
        let moods = vec![
            Err(ErrorKind::StorageFull),
            Err(ErrorKind::StorageFull),
            Ok(4),
            Err(ErrorKind::WouldBlock),
            Err(ErrorKind::WouldBlock),
        ];
        let shared = Shared::default();
        let mut out = Moody(writes, moods);
        assert_eq!(shared.write(&mut out, b"one\ntwo\nthree\n"), 2);
        assert_eq!(shared.write(&mut out, b"told\n"), 1);
        assert_eq!(shared.write(&mut out, b"four\n"), 0);
        drop(out);
        assert_eq!(seen.iter().collect::<Vec<_>>().concat(), b"one\nfour\n");
    }
}
