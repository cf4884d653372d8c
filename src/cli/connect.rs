//! Where a command goes: to the running relay over its control socket, or, if none runs, to the
//! queue itself. The commands are the same code in both cases.
//!
//! A relay that runs needs no file to be talked to: a [`Lead`] is found in whatever can be read of it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;

use super::screen;
use super::{Code, Failed};
use crate::admin::control::{ask, socket_path};
use crate::admin::requests::{Done, Failure, Reply, Request, Sink, handle};
use crate::admin::{Controls, LaneStatus, Status, Withdrawn};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, ConfigError, Elsewhere, Loaded, Store};
use crate::mail::{LaneName, RecipientKey};
use crate::queue::sqlite::SqliteQueue;
use crate::queue::{Queue, QueueError};

/// What leads a command to the relay: the configuration as far as it can be read, and the control socket.
pub struct Lead {
    /// The file; where it cannot be taken, the built-in values with its queue, if that can be read.
    pub loaded: Loaded,
    /// Why it cannot be taken.
    pub broken: Option<ConfigError>,
    socket: PathBuf,
    /// The socket was named: that relay is meant, and nothing else.
    named: bool,
    /// Whether the relay that runs is asked how its file differs from what is in force.
    notes: bool,
}

impl Lead {
    /// By the file that was `named`, or found at its default place; `socket` says where the relay is whatever the
    /// file says. Never fails: a relay may run that read an earlier version of the file.
    pub(super) fn find(named: Option<&Path>, socket: Option<PathBuf>) -> Lead {
        // What the file names elsewhere may be for the relay alone, and says nothing of what commands show.
        let (loaded, broken) = match Loaded::read_with(named, Elsewhere::Ignored) {
            Ok(loaded) => (loaded, None),
            Err(error) => (Loaded::despite_faults(named), Some(error)),
        };
        let named = socket.is_some();
        let socket = socket.unwrap_or_else(|| socket_path(&loaded.config.queue.store));
        Lead { loaded, broken, socket, named, notes: true }
    }

    /// To the relay of this queue, without a word about its file.
    pub(super) fn to(store: &Store) -> Lead {
        let mut loaded = Loaded::without_file();
        loaded.config.queue.store = store.clone();
        Lead { loaded, broken: None, socket: socket_path(store), named: false, notes: false }
    }

    /// The same without a word about the file.
    pub(super) fn quiet(self) -> Lead {
        Lead { notes: false, ..self }
    }

    /// The configuration, as far as it can be read.
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// What is to be said where nobody answers and a configuration is needed.
    ///
    /// # Errors
    /// The file cannot be taken.
    pub(super) fn must_be_good(&self) -> Result<(), Failed> {
        self.broken.clone().map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Whom a command talks to.
pub enum Target {
    /// The relay that listens on this socket.
    Running(PathBuf),
    /// The queue, with nobody else at it.
    Direct(Direct),
}

/// The relay that runs, else the queue itself.
///
/// # Errors
/// Neither can be reached; the code tells whether that may change by itself.
pub async fn connect(lead: &Lead) -> Result<Target, Failed> {
    if let Some(target) = running(lead).await? {
        return Ok(target);
    }
    lead.must_be_good()?;
    let Store::Sqlite(path) = &lead.config().queue.store;
    if !path.exists() {
        let message = nobody(lead, &format!("there is no queue at {}", path.display())).await;
        return Err(Failed::new(Code::Unavailable, message));
    }
    must_have_no_other_queue(lead).await?;
    let queue: Arc<dyn Queue> = SqliteQueue::open(path, Clock::System).map_err(|e| match e {
        QueueError::InUse(_) => Failed::new(
            Code::Temporary,
            format!("mailweir is running but does not answer at {}: {e}", lead.socket.display()),
        ),
        QueueError::Damaged(_) => Failed::new(Code::Unavailable, e),
        _ => Failed::new(Code::Temporary, e),
    })?;
    if lead.notes {
        screen::say("mailweir", &format!("note: {NOBODY_SENDS}"));
    }
    Ok(Target::Direct(Direct { queue }))
}

/// The mail of a relay that runs with this file is in the queue that it was started with, and not in the one that the
/// file names now.
async fn must_have_no_other_queue(lead: &Lead) -> Result<(), Failed> {
    let other = elsewhere_with_this_file(lead, &elsewhere(&lead.socket), "nothing was done").await;
    other.map_or(Ok(()), |message| Err(Failed::new(Code::Unavailable, message)))
}

/// For commands that go to the queue's file themselves, whether a relay runs or not.
///
/// # Errors
/// The queue that the file names is that of another relay, or the relay of the file has another queue.
pub(super) async fn must_be_its_queue(lead: &Lead) -> Result<(), Failed> {
    match UnixStream::connect(&lead.socket).await {
        Ok(_) => match must_be_ours(lead, &Target::Running(lead.socket.clone())).await {
            Err(failed) if failed.code == Code::Unavailable => Err(failed),
            // What does not answer is no other relay that is known.
            _ => Ok(()),
        },
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(_) => must_have_no_other_queue(lead).await,
    }
}

/// What is to be known of a queue at which no relay is.
pub(super) const NOBODY_SENDS: &str = "mailweir is not running: nothing of this leaves before it is started";

/// The relay that runs; `None` if there is none. Says on standard error how the file of its configuration differs
/// from what is in force.
///
/// # Errors
/// It may not be talked to.
pub async fn running(lead: &Lead) -> Result<Option<Target>, Failed> {
    match reach(lead).await? {
        Ok(target) => Ok(Some(target)),
        // The queue of the file, which may be another one, is no answer to that.
        Err(why) if lead.named => Err(Failed::new(Code::Unavailable, nobody_answers(lead, &why).await)),
        Err(_) => Ok(None),
    }
}

/// The relay, or why there is none. The outer error: it is there, and may not be talked to, or does not talk.
async fn reach(lead: &Lead) -> Result<io::Result<Target>, Failed> {
    let socket = &lead.socket;
    match UnixStream::connect(socket).await {
        Ok(_) => {
            let target = Target::Running(socket.clone());
            must_be_ours(lead, &target).await?;
            if lead.notes {
                note_differences(&target).await?;
            }
            Ok(Ok(target))
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let message = format!("cannot use {}: {e}: run this as the user that mailweir runs as", socket.display());
            Err(Failed::new(Code::Unavailable, message))
        }
        Err(e) => Ok(Err(e)),
    }
}

/// A store without a full path is another one in each directory: what is found there may be the relay of another file,
/// whose mail nobody wants to list or cancel by this one.
async fn must_be_ours(lead: &Lead, target: &Target) -> Result<(), Failed> {
    let Store::Sqlite(store) = &lead.config().queue.store;
    let Some(own) = lead.loaded.file.as_deref().filter(|_| !lead.named && store.is_relative()) else { return Ok(()) };
    let mut file = String::new();
    let keep = |reply, _: &[u8]| {
        if let Reply::Note(text) = reply {
            file = text;
        }
        Ok(())
    };
    // One of an earlier version does not know the question; one without a file has no other.
    let told = target.answer(Request::File, keep).await?.is_ok();
    if !told || file.is_empty() || is_same_file(own, Path::new(&file)) {
        return Ok(());
    }
    let (own, store, socket) = (own.display(), store.display(), lead.socket.display());
    let message = format!(
        "the mailweir that listens at {socket} runs with {file}, and not with {own}, whose [queue] store, {store}, is \
         looked for in the directory that this is called in: call it in the directory that its relay was started in, or \
         add --socket {socket} if the other one is meant"
    );
    Err(Failed::new(Code::Unavailable, message))
}

/// That nobody answers, and where else somebody may.
async fn nobody_answers(lead: &Lead, why: &io::Error) -> String {
    let socket = lead.socket.display();
    let why = match why.kind() {
        // As soon as the first of them is bound it is there.
        io::ErrorKind::NotFound => String::new(),
        io::ErrorKind::ConnectionRefused => ": no process has it any more".to_owned(),
        _ => format!(": {why}"),
    };
    nobody(lead, &format!("nothing answers at {socket}{why}")).await
}

/// The relay that runs, for commands that make no sense without one.
///
/// # Errors
/// There is none.
pub async fn must_run(lead: &Lead) -> Result<Target, Failed> {
    match (reach(lead).await?, &lead.broken) {
        (Ok(target), _) => Ok(target),
        (Err(why), Some(error)) => {
            Err(Failed::new(Code::Config, format!("{error:#}\n{}", nobody_answers(lead, &why).await)))
        }
        (Err(why), None) => Err(Failed::new(Code::Unavailable, nobody_answers(lead, &why).await)),
    }
}

/// The origin of values that the relay told.
const IN_FORCE: &str = "in force";

/// With the values that are in force in place of a file that cannot be taken, if a relay tells them.
pub(super) async fn with_values_in_force(lead: Lead) -> Lead {
    if UnixStream::connect(&lead.socket).await.is_err() || (lead.broken.is_none() && !file_differs(&lead).await) {
        return lead;
    }
    let mut text = None;
    let keep = |reply, _: &[u8]| {
        if let Reply::Note(settings) = reply {
            text = Some(settings);
        }
        Ok(())
    };
    let asked = Target::Running(lead.socket.clone()).request(Request::Settings, keep).await;
    // Files that it names may not be there for this user, or in this directory.
    let loaded = match text.filter(|_| asked.is_ok()) {
        Some(text) => Loaded::parse_alone(&text, IN_FORCE).map_err(|error| error.to_string()),
        None => Err("the relay does not tell them".to_owned()),
    };
    match loaded {
        Ok(loaded) => Lead { loaded: Loaded { file: Some(IN_FORCE.into()), ..loaded }, broken: None, ..lead },
        Err(why) => {
            let shown = if lead.broken.is_some() { "the built-in ones" } else { "those of the file" };
            screen::say("mailweir", &format!("note: the values in force are not known, {shown} are shown: {why}"));
            lead
        }
    }
}

/// Whether what runs was told something else than what is in the file now.
async fn file_differs(lead: &Lead) -> bool {
    let mut differs = false;
    let keep = |reply, _: &[u8]| {
        differs |= matches!(reply, Reply::Note(_));
        Ok(())
    };
    let asked = Target::Running(lead.socket.clone()).request(Request::FileDiffers, keep).await;
    asked.is_ok() && differs
}

/// A relay of an earlier version does not know the question: then there is nothing to say. One that says nothing, or
/// nothing that mailweir would, is not asked a second time.
async fn note_differences(target: &Target) -> Result<(), Failed> {
    let mut told = None;
    let keep = |reply, _: &[u8]| {
        if let Reply::Note(text) = reply {
            told = Some(text);
        }
        Ok(())
    };
    match target.answer(Request::FileDiffers, keep).await? {
        Ok(_) => told.into_iter().for_each(|told| screen::say("mailweir", &format!("note: {told}"))),
        Err(_unknown) => {}
    }
    Ok(())
}

/// What is so where nothing answers at the socket: the relay of this very file may listen at the place that the
/// file named when it started. `what`: what cannot be done, or is not there.
async fn nobody(lead: &Lead, what: &str) -> String {
    let others = elsewhere(&lead.socket);
    if let Some(told) = elsewhere_with_this_file(lead, &others, what).await {
        return told;
    }
    // Any of them may be somebody else's: none is proposed.
    let listed: Vec<&str> = others.iter().take(OTHERS_TOLD).map(String::as_str).collect();
    let more = if others.len() > listed.len() { " and others" } else { "" };
    let other = match listed.as_slice() {
        [] => String::new(),
        listed => format!(
            " (on this machine a mailweir listens at {}{more}, and none says that it runs with this configuration; --socket \
             PATH talks to one)",
            listed.join(", ")
        ),
    };
    format!("mailweir is not running: {what}{other}")
}

/// What is to be said where one of the `others` runs with this very file.
async fn elsewhere_with_this_file(lead: &Lead, others: &[String], what: &str) -> Option<String> {
    let own = lead.loaded.file.as_deref().filter(|_| !lead.named)?;
    for path in others.iter().take(OTHERS) {
        let mut config = String::new();
        let keep = |reply, _: &[u8]| {
            if let Reply::Status(status) = reply {
                config = status.config;
            }
            Ok(())
        };
        let target = Target::Running(PathBuf::from(path));
        // Who may not ask, or gets no answer, learns where it is.
        let _ = tokio::time::timeout(OTHER_ANSWERS, target.request(Request::Status, keep)).await;
        // Relays of an earlier version tell it as they were given it, from a directory that is not known.
        let config = Path::new(&config);
        if config.is_absolute() && is_same_file(own, config) {
            return Some(format!(
                "{what}: the mailweir that runs with {} has the queue that was named there when it started, and listens at \
                 {path}: add --socket {path}; a changed [queue] store holds from its next start on",
                own.display()
            ));
        }
    }
    None
}

/// Relays that listen elsewhere and are asked for their file, and how long each has to answer.
const OTHERS: usize = 16;
/// Those that are named where none of them is meant.
const OTHERS_TOLD: usize = 4;
const OTHER_ANSWERS: Duration = Duration::from_millis(500);

fn is_same_file(a: &Path, b: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    a == b || whole(a) == whole(b)
}

/// Where else on this machine a mailweir listens: the file may have named another queue when it was started.
/// Those beside it come first.
fn elsewhere(socket: &Path) -> Vec<String> {
    let whole = std::path::absolute(socket);
    let socket = whole.as_deref().unwrap_or(socket);
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let listening = sockets.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (flags, path) = (words.nth(3)?, words.nth(3)?);
        // __SO_ACCEPTCON
        (flags == "00010000" && path.starts_with('/')).then_some(path)
    });
    let other = |path: &&str| queue_of(path).is_some_and(|queue| Path::new(&format!("{queue}.sock")) != socket);
    let found = listening.filter(other).filter(|path| {
        queue_of(path).and_then(|queue| std::fs::File::open(queue).ok()).is_some_and(|file| is_database(&file))
    });
    let mut found: Vec<String> = found.filter_map(queue_of).map(|queue| format!("{queue}.sock")).collect();
    found.sort_by_key(|path| Path::new(path).parent() != socket.parent());
    found
}

/// The queue beside which this socket is. The system knows it by the name under which it was made.
fn queue_of(socket: &str) -> Option<&str> {
    [".sock", ".soc+"].iter().find_map(|end| socket.strip_suffix(end))
}

/// Whether it begins as the files of SQLite do.
fn is_database(mut file: &std::fs::File) -> bool {
    let mut begin = [0; 16];
    file.read_exact(&mut begin).is_ok() && begin == *b"SQLite format 3\0"
}

impl Target {
    /// Asks, and gives every part of the answer but the last to `each`; returns the last.
    ///
    /// # Errors
    /// The request failed, or its answer could not be written.
    pub async fn request<F>(&self, request: Request, each: F) -> Result<Done, Failed>
    where
        F: FnMut(Reply, &[u8]) -> io::Result<()> + Send,
    {
        match self.answer(request, each).await? {
            Ok(done) => Ok(done),
            Err(failure) => {
                let code = match failure {
                    _ if failure.config => Code::Config,
                    _ if failure.temporary => Code::Temporary,
                    _ => Code::Unavailable,
                };
                let done = failure.done.changed;
                let sofar = if done > 0 { format!(" (after {done} recipients were changed)") } else { String::new() };
                Err(Failed::new(code, format!("{failure}{sofar}")))
            }
        }
    }

    /// The same; what the relay says of a failure is the inner error.
    async fn answer<F>(&self, request: Request, each: F) -> Result<Result<Done, Failure>, Failed>
    where
        F: FnMut(Reply, &[u8]) -> io::Result<()> + Send,
    {
        let mut sink = Collect { each, last: None };
        match self {
            Target::Running(socket) => ask(UnixStream::connect(socket).await?, &request, &mut sink).await?,
            Target::Direct(direct) => handle(direct, Clock::System, request, &mut sink).await?,
        }
        sink.last.ok_or_else(|| Failed::new(Code::Temporary, "the answer has no end"))
    }

    /// A relay runs, and sends what is due.
    pub(super) fn sends(&self) -> bool {
        matches!(self, Target::Running(_))
    }

    /// Lets the queue go.
    pub async fn close(self) {
        if let Target::Direct(direct) = self {
            direct.queue.close().await;
        }
    }
}

struct Collect<F> {
    each: F,
    last: Option<Result<Done, Failure>>,
}

#[async_trait]
impl<F: FnMut(Reply, &[u8]) -> io::Result<()> + Send> Sink for Collect<F> {
    async fn put(&mut self, reply: Reply, bytes: &[u8]) -> io::Result<()> {
        match reply {
            Reply::Done(done) => self.last = Some(Ok(done)),
            Reply::Error(failure) => self.last = Some(Err(failure)),
            other => (self.each)(other, bytes)?,
        }
        Ok(())
    }
}

/// The queue without a relay: there is no scheduler to ask or to tell.
pub struct Direct {
    queue: Arc<dyn Queue>,
}

#[async_trait]
impl Controls for Direct {
    fn queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.queue)
    }

    fn withdraw(&self, _keys: &[RecipientKey]) -> Withdrawn {
        Withdrawn::nothing()
    }

    fn wake(&self, _lanes: &[LaneName], _due: Timestamp) {}

    fn wake_all(&self, _due: Timestamp) {}

    async fn lanes(&self) -> Vec<LaneStatus> {
        Vec::new()
    }

    async fn pause(&self, _lane_or_provider: &str, _paused: bool) -> Result<bool, QueueError> {
        Ok(false)
    }

    fn status(&self) -> Status {
        Status::default()
    }
}
