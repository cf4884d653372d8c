//! The control channel: a Unix socket beside the queue file, for the command line.
//!
//! A connection carries one request, a line of JSON, and its replies, a line of JSON each (after
//! [`Reply::Bytes`] come that many bytes of a message). Who may use it is a matter of the file
//! system: the socket has mode 0600. Lines, connections and waiting times are bounded; a client
//! that does not read loses its connection, never the relay's time. A few descriptors are kept for it
//! (`spare`), so that an operator can ask a relay that has none left what is the matter.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Controls;
use super::requests::{Done, Failure, Reply, Request, Sink, handle};
use super::spare::{Spare, is_out_of_files};
use crate::clock::Clock;
use crate::config::Store;
use crate::mail::CHUNK;
use crate::socket_file::{self, SocketFile};

/// Longest path of a socket, in bytes (`sun_path` of unix(7) without its final zero).
const MAX_PATH: usize = 107;
/// Longest line in either direction, in bytes.
const MAX_LINE: usize = 256 * 1024;
/// Requests at once.
const MAX_CLIENTS: usize = 16;
/// Time for a client to send its request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Time for a client to take a part of the answer; a pager may stand still for a while.
const WRITE_TIME: Duration = Duration::from_secs(300);
/// How long a command waits for (a part of) an answer, and for one that may be long work.
const ANSWER_TIME: Duration = Duration::from_secs(60);
const WORK_TIME: Duration = Duration::from_secs(3600);
/// How often it is looked whether the socket has its name.
const LOOK_TIME: Duration = Duration::from_secs(1);
/// Time for requests in progress when the relay stops.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Where the control socket of a queue is.
pub fn socket_path(store: &Store) -> PathBuf {
    store.beside(".sock")
}

/// The path under which others find the socket in the system's list, wherever they are; as it is, if it would be
/// too long for a socket.
fn whole(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).ok().filter(|path| path.as_os_str().len() <= MAX_PATH);
    whole.unwrap_or_else(|| path.to_owned())
}

/// The listening side. The socket's file goes with it.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
    /// `None`: it could not be looked at when it was bound.
    file: Option<SocketFile>,
}

impl ControlServer {
    /// Binds the socket. To be called while holding the queue's lock: a socket that is there
    /// already is then one that a killed process left, and is replaced.
    ///
    /// # Errors
    /// The path is longer than a socket address (107 bytes), its directory cannot be written, another
    /// process listens there, or something is there that is no socket.
    pub fn bind(path: &Path) -> io::Result<ControlServer> {
        let path = whole(path);
        let listener = listen(&path)?;
        Ok(ControlServer { listener, file: SocketFile::of(&path).ok(), path })
    }

    /// Answers requests until `stop` is ready; then those in progress get a few seconds.
    pub async fn run(mut self, controls: Arc<dyn Controls>, clock: Clock, stop: impl Future<Output = ()>) {
        let permits = Arc::new(Semaphore::new(MAX_CLIENTS));
        let mut clients = JoinSet::new();
        let mut spare = Spare::default();
        spare.keep();
        let mut look = tokio::time::interval(LOOK_TIME);
        tokio::pin!(stop);
        loop {
            let stream = tokio::select! {
                () = &mut stop => break,
                _ = look.tick() => {
                    self.stay_reachable();
                    continue;
                }
                Some(ended) = clients.join_next() => {
                    if let Ok(Some(descriptor)) = ended {
                        spare.take(descriptor);
                    }
                    spare.keep();
                    continue;
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(e) if is_out_of_files(&e) && spare.give() => continue,
                    Err(e) => {
                        tracing::warn!("control socket: {e}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        spare.keep();
                        continue;
                    }
                },
            };
            let controls = Arc::clone(&controls);
            match Arc::clone(&permits).try_acquire_owned() {
                Ok(permit) => {
                    clients.spawn(async move {
                        let _permit = permit;
                        serve(stream, &*controls, clock).await
                    });
                }
                Err(_) => {
                    let message = format!("{MAX_CLIENTS} requests are in progress already");
                    // A short line fits in the socket's buffer, so a client cannot make this wait.
                    let line = line_of(&failure(message, true)).unwrap_or_default();
                    let _ = stream.try_write(&line);
                }
            }
        }
        let drained = timeout(DRAIN_TIME, async { while clients.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::debug!("control socket: requests in progress were cut off");
        }
    }
}

/// Binds a socket that only this user can connect to, and gives it its name.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let length = path.as_os_str().len();
    if length > MAX_PATH {
        let message = format!(
            "the path of the control socket, {}, has {length} bytes, where a socket can have {MAX_PATH}: give \
             [queue] store a shorter one, such as one that begins in the working directory",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let bound = socket_file::bind(path, 0o600, None).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => e,
        io::ErrorKind::AddrInUse => {
            let message = "another process listens there, though nobody has the queue's lock: end it";
            io::Error::new(e.kind(), message)
        }
        kind => io::Error::new(kind, format!("cannot make the control socket {}: {e}", path.display())),
    });
    UnixListener::from_std(bound?)
}

impl ControlServer {
    /// Listens anew if the socket's name was taken away (with the whole directory, or by whoever cleans
    /// up), or is that of a socket that nobody has: it is the way to what is still open.
    fn stay_reachable(&mut self) {
        if self.file.as_ref().is_some_and(SocketFile::is_there) {
            return;
        }
        // Without its directory it cannot, nor where something else is; then at the next look.
        let Ok(listener) = listen(&self.path) else { return };
        self.listener = listener;
        self.file = SocketFile::of(&self.path).ok();
        tracing::warn!("the control socket {} was removed: it was made again", self.path.display());
    }
}

fn failure(message: String, temporary: bool) -> Reply {
    Reply::Error(Failure { message, temporary, config: false, done: Done::default() })
}

/// Serves one connection; returns its descriptor, with nobody at the other end any more.
async fn serve(stream: UnixStream, controls: &dyn Controls, clock: Clock) -> Option<OwnedFd> {
    let (read, write) = stream.into_split();
    let (mut reader, mut sink) = (BufReader::new(read), SocketSink { out: BufWriter::new(write) });
    if let Err(e) = answer(&mut reader, &mut sink, controls, clock).await {
        tracing::debug!("control socket: {e}");
    }
    let stream = reader.into_inner().reunite(sink.out.into_inner()).ok()?.into_std().ok()?;
    // The other side may be gone already.
    let _ = stream.shutdown(std::net::Shutdown::Both);
    Some(stream.into())
}

async fn answer(
    reader: &mut BufReader<OwnedReadHalf>,
    sink: &mut SocketSink,
    controls: &dyn Controls,
    clock: Clock,
) -> io::Result<()> {
    let line = timeout(REQUEST_TIME, read_line(reader)).await.map_err(|_| timed_out())?;
    let request = match line {
        Ok(Some(line)) => serde_json::from_slice::<Request>(&line).map_err(|e| format!("not a request: {e}")),
        Ok(None) => return Ok(()),
        Err(e) => Err(e.to_string()),
    };
    match request {
        Ok(request) => handle(controls, clock, request, sink).await?,
        Err(message) => sink.put(failure(message, false), &[]).await?,
    }
    timeout(WRITE_TIME, sink.out.shutdown()).await.map_err(|_| timed_out())?
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other side takes too long")
}

/// Reads a line without its end; `None` at the end of the stream.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let n = reader.take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line).await?;
    if n == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(match n > MAX_LINE {
            true => io::Error::new(io::ErrorKind::InvalidData, "the line is too long"),
            false => io::Error::new(io::ErrorKind::UnexpectedEof, "the line is cut off"),
        });
    }
    Ok(Some(line))
}

fn line_of<T: serde::Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

struct SocketSink {
    out: BufWriter<OwnedWriteHalf>,
}

#[async_trait]
impl Sink for SocketSink {
    async fn put(&mut self, reply: Reply, bytes: &[u8]) -> io::Result<()> {
        let line = line_of(&reply)?;
        let out = &mut self.out;
        let write = async {
            out.write_all(&line).await?;
            out.write_all(bytes).await
        };
        timeout(WRITE_TIME, write).await.map_err(|_| timed_out())?
    }
}

/// Asks a running mailweir: sends the request and gives every reply, the last one too, to `sink`.
///
/// # Errors
/// The connection breaks, no answer comes in time, the answer is not one, or the sink fails.
pub async fn ask(stream: UnixStream, request: &Request, sink: &mut dyn Sink) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let time = match request {
        Request::Operate { .. } | Request::Resume { .. } | Request::Reload | Request::Save { .. } => WORK_TIME,
        _ => ANSWER_TIME,
    };
    // Whoever does not want it may have said why before it closed.
    match timeout(time, write.write_all(&line_of(request)?)).await {
        Ok(Err(e)) if !is_gone(&e) => return Err(e),
        Ok(_) => {}
        Err(_) => return Err(silent(time)),
    }
    loop {
        let line = timeout(time, read_line(&mut reader)).await.map_err(|_| silent(time))?;
        let line = match line {
            Ok(Some(line)) => line,
            Ok(None) => return Err(closed()),
            Err(e) if is_gone(&e) => return Err(closed()),
            Err(e) => return Err(e),
        };
        let reply: Reply = serde_json::from_slice(&line).map_err(|_| not_ours())?;
        let mut bytes = Vec::new();
        if let Reply::Bytes(n) = reply {
            if n > CHUNK {
                return Err(not_ours());
            }
            bytes.resize(n, 0);
            timeout(time, reader.read_exact(&mut bytes)).await.map_err(|_| timed_out())?.map_err(|_| closed())?;
        }
        let last = matches!(reply, Reply::Done(_) | Reply::Error(_));
        sink.put(reply, &bytes).await?;
        if last {
            return Ok(());
        }
    }
}

/// The other side is not there any more.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Never [`io::ErrorKind::BrokenPipe`]: that is the reader of a command's output, whose end is no failure.
fn closed() -> io::Error {
    let message = "mailweir closed the control connection before it had answered: what was asked may have been done, \
                   or not";
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}

fn silent(time: Duration) -> io::Error {
    let message = format!("mailweir has the request and does not answer within {} s", time.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, message)
}

fn not_ours() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is not one of mailweir: another program listens there")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Takes nothing.
    struct Nobody;

    #[async_trait]
    impl Sink for Nobody {
        async fn put(&mut self, _: Reply, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }

    /// A relay that stands still (stopped, or without a descriptor for one more) keeps no command for ever.
    #[tokio::test(start_paused = true)]
    async fn a_relay_that_does_not_answer_is_given_up() {
        for (request, seconds) in [(Request::Status, 60), (Request::Reload, 3600)] {
            let (ours, _theirs) = UnixStream::pair().expect("a pair");
            let error = ask(ours, &request, &mut Nobody).await.expect_err("nobody answers");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(error.to_string().contains(&format!("does not answer within {seconds} s")), "{error}");
        }
    }

    /// A command whose relay is gone has failed: only the end of its own reader is none.
    #[tokio::test]
    async fn a_relay_that_closes_is_a_failure_and_what_it_said_before_is_heard() {
        let last = |said: &'static [u8]| async move {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            theirs.try_write(said).expect("there is room");
            drop(theirs);
            ask(ours, &Request::Status, &mut Nobody).await.map_err(|e| (e.kind(), e.to_string()))
        };
        let refusal = line_of(&failure("16 requests are in progress already".into(), true)).expect("JSON");
        assert_eq!(last(refusal.leak()).await, Ok(()), "that is an answer");
        for (said, kind, words) in [
            (&b""[..], io::ErrorKind::UnexpectedEof, "closed the control connection before"),
            (b"220 smtp.example\n", io::ErrorKind::InvalidData, "another program listens there"),
        ] {
            let (found, told) = last(said).await.expect_err("no answer");
            assert!(found == kind && told.contains(words), "{found:?} {told}");
        }
    }

    /// Not only where its name is gone: a program that was killed may have left a socket in its place.
    #[tokio::test]
    async fn it_comes_back_where_nobody_listens_and_leaves_alone_what_is_anothers() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("queue.db.sock");
        let reached = || std::os::unix::net::UnixStream::connect(&path).is_ok();
        let mut server = ControlServer::bind(&path).expect("bound");
        std::fs::remove_file(&path).expect("removed");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("another's"));
        assert!(!reached());
        server.stay_reachable();
        assert!(reached());
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "mine").expect("written");
        server.stay_reachable();
        drop(server);
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "mine");
    }

    #[test]
    fn a_relative_path_is_made_whole_unless_it_becomes_too_long() {
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(whole(Path::new("queue.db.sock")), here.join("queue.db.sock"));
        assert_eq!(whole(Path::new("/run/queue.db.sock")), Path::new("/run/queue.db.sock"));
        let long = "q".repeat(MAX_PATH);
        assert_eq!(whole(Path::new(&long)), Path::new(&long));
    }

    #[tokio::test]
    async fn a_path_may_be_as_long_as_a_socket_takes() {
        for (length, fits) in [(106, true), (107, true), (108, false)] {
            let dir = tempfile::tempdir().expect("a directory");
            let stem = "q".repeat(length - dir.path().as_os_str().len() - "/.sock".len());
            let path = socket_path(&Store::Sqlite(dir.path().join(stem)));
            assert_eq!(path.as_os_str().len(), length);
            let bound = ControlServer::bind(&path);
            match bound {
                Ok(server) => {
                    assert!(fits, "{length}");
                    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
                    assert_eq!(mode & 0o777, 0o600);
                    std::os::unix::net::UnixStream::connect(&path).expect("it answers");
                    drop(server);
                }
                Err(error) => {
                    let said = error.to_string();
                    assert!(!fits && said.contains("has 108 bytes, where a socket can have 107"), "{length}: {said}");
                }
            }
            assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0, "{length}: nothing is left");
        }
    }
}
