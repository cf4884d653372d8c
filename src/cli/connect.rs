//! Where a command goes: to the running relay over its control socket, or, if none runs, to the
//! queue itself. The commands are the same code in both cases.
//!
//! A relay that runs needs no file to be talked to: a [`Lead`] is found in whatever can be read of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::UnixStream;

use super::screen;
use super::whose::{file_of_another, must_be_ours, must_have_no_other_queue, nobody};
use super::{Code, Failed};
use crate::admin::control::{ask, socket_path};
use crate::admin::requests::{Done, Failure, Reply, Request, Sink, handle};
use crate::admin::{Controls, LaneStatus, Status, Withdrawn};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, ConfigError, Elsewhere, Loaded, Store};
use crate::mail::{LaneName, RecipientKey};
use crate::queue::opening::{self, OutOfReach};
use crate::queue::{Queue, QueueError};

/// What leads a command to the relay: the configuration as far as it can be read, and the control socket.
pub struct Lead {
    /// The file; where it cannot be taken, the built-in values with its queue, if that can be read.
    pub loaded: Loaded,
    /// Why it cannot be taken.
    pub broken: Option<ConfigError>,
    /// The file, whatever values are taken.
    pub(super) own: Option<PathBuf>,
    pub(super) socket: PathBuf,
    /// The socket was named: that relay is meant, and nothing else.
    pub(super) named: bool,
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
        Lead { own: loaded.file.clone(), loaded, broken, socket, named, notes: true }
    }

    /// To the relay of this queue, which `file` names, without a word about that.
    pub(super) fn to(store: &Store, file: Option<&Path>) -> Lead {
        let mut loaded = Loaded::without_file();
        loaded.config.queue.store = store.clone();
        Lead {
            loaded,
            broken: None,
            own: file.map(Path::to_owned),
            socket: socket_path(store),
            named: false,
            notes: false,
        }
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
    let store = &lead.config().queue.store;
    let reach = opening::within_reach(store, true);
    if let Err(OutOfReach::Missing(path)) = &reach {
        let message = nobody(lead, &format!("there is no queue at {}", path.display())).await;
        return Err(Failed::new(Code::Unavailable, message));
    }
    must_have_no_other_queue(lead, "nothing was done").await?;
    if let Err(OutOfReach::Forbidden(path)) = &reach {
        let (user, path) = (rustix::process::geteuid().as_raw(), path.display());
        let message = format!(
            "mailweir is not running, and user {user} may not open its queue, {path}: run this as the user that mailweir runs \
             as, or as root"
        );
        return Err(Failed::new(Code::Unavailable, message));
    }
    let queue = opening::open_for_command(store).map_err(|e| match e {
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

/// What is to be known of a queue at which no relay is.
pub(super) const NOBODY_SENDS: &str = "mailweir is not running: nothing of this leaves before it is started";

/// The relay that runs, for commands that show what the configuration says where there is none; `None`: there is none,
/// and the configuration is good.
///
/// # Errors
/// It may not be talked to, the relay of this file listens elsewhere, or there is none and the file cannot be taken.
pub(super) async fn running_or_none(lead: &Lead) -> Result<Option<Target>, Failed> {
    if let Some(target) = running(lead).await? {
        return Ok(Some(target));
    }
    let elsewhere = must_have_no_other_queue(lead, "nothing is shown").await;
    match (&lead.broken, elsewhere) {
        (Some(error), Err(elsewhere)) => Err(Failed::new(Code::Config, format!("{error:#}\n{}", elsewhere.message))),
        (_, elsewhere) => elsewhere.and_then(|()| lead.must_be_good()).map(|()| None),
    }
}

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

/// With the values that are in force where the file tells others: it cannot be taken, has changed, or is not the one
/// that the relay runs with.
pub(super) async fn with_values_in_force(lead: Lead) -> Lead {
    if UnixStream::connect(&lead.socket).await.is_err() {
        return lead;
    }
    let target = Target::Running(lead.socket.clone());
    let differs = file_differs(&lead).await;
    // What is in a file that lies here by chance is nothing about that relay.
    if let Some(file) = file_of_another(&lead, &target).await {
        let lead = Lead { loaded: Loaded::without_file(), broken: None, ..lead };
        let its_own = Some(file).filter(|file| file.is_absolute() && !differs);
        return match its_own.and_then(|file| Loaded::read_with(Some(&file), Elsewhere::Ignored).ok()) {
            Some(loaded) => Lead { loaded, ..lead },
            None => in_force(lead, "the built-in ones").await,
        };
    }
    if lead.broken.is_none() && !differs {
        return lead;
    }
    let shown = if lead.broken.is_some() { "the built-in ones" } else { "those of the file" };
    in_force(lead, shown).await
}

/// With the values that the relay tells; if it does not, those that `lead` has are `shown`, which is said.
async fn in_force(lead: Lead, shown: &str) -> Lead {
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
    pub(super) async fn answer<F>(&self, request: Request, each: F) -> Result<Result<Done, Failure>, Failed>
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
