//! The rounds of a login, and what it changes: a client that has logged in is one of those who may relay, with
//! their time and a place among them.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};
use zeroize::{Zeroize as _, Zeroizing};

use super::{End, Session, Wait};
use crate::config::AuthMechanism;
use crate::listener::dialog::{Login, Next};
use crate::listener::login::sasl::{
    self, Attempt, CANCELLED, Exchange, FOR_ANOTHER, NOT_BASE64, Proof, Response, Step, WRONG,
};
use crate::listener::login::{Admission, Checked, FAILURE, LONGEST, Logins, Turn};
use crate::listener::policy::{CLOSING, TIMEOUT, TOO_MANY_SESSIONS};
use crate::smtp::{Line, Reply};

/// Longest line of a login, in bytes with its line end (RFC 4954 §4).
pub(super) const MAX_LINE: usize = 12_288;
/// Failures in one session before it ends: clients try each mechanism in turn.
const MAX_FAILURES: u32 = 5;

const GOOD: Reply = Reply::new(235, "2.7.0", "Authentication successful");
/// RFC 5248 §3.8.
const LOCKED_LOGIN: Reply = Reply::new(525, "5.7.13", "This user is locked, ask the administrator");
const TOO_MANY_FAILURES: Reply = Reply::new(421, "4.7.0", "Too many failed logins, closing connection");
const NOT_NOW: Reply = Reply::new(421, "4.7.0", "Too many failed logins from this address, try again later");
const LINE_TOO_LONG: Reply = Reply::new(500, "5.5.6", "Authentication exchange line is too long");
const BARE_LF: Reply = Reply::new(501, "5.5.2", "Line with a bare LF");

impl<S> Session<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Goes through a login to its end, good or not.
    pub(super) async fn log_in(&mut self, login: Login) -> Result<(), End> {
        let Login { mechanism, initial } = login;
        let began = Instant::now();
        let (users, key) = (self.shared.listener.users.clone(), *self.shared.logins.key());
        let mut exchange = Exchange::new(mechanism, users, key);
        let mut response = initial;
        let (attempt, last) = loop {
            match exchange.take(response.as_ref()) {
                Step::Challenge(text) => match self.ask(&text).await? {
                    Ok(answer) => response = Some(answer),
                    Err(reply) => return self.no_login(Some(mechanism), None, &reply),
                },
                Step::Check { attempt, last } => break (attempt, last),
                Step::Refuse(reply) => return self.no_login(Some(mechanism), None, &reply),
            }
            self.seat.moved();
        };
        if self.shared.listener.accept_any {
            self.dialog.log_in(None);
            GOOD.write_to(&mut self.output);
            return Ok(());
        }
        let wrong = match &attempt.proof {
            Proof::Never(reply) => reply.clone(),
            _ => WRONG,
        };
        let user = match self.check(attempt, mechanism, began).await? {
            Checked::User(user) => user,
            Checked::Nobody { .. } => return self.count_failure(&wrong),
        };
        if let Some(text) = last
            && let Err(reply) = self.ask(&text).await?
        {
            return self.no_login(Some(mechanism), Some(&user.name), &reply);
        }
        if self.shared.arrivals.is_locked(&user.name) {
            info!(client = %self.dialog.client.caller, user = &*user.name, "the user is locked: `mailweir user unlock` ends it");
            return self.count_failure(&LOCKED_LOGIN);
        }
        if !self.seat.promote() {
            return Err(End::Because(TOO_MANY_SESSIONS));
        }
        self.dialog.log_in(Some(user));
        self.stay();
        GOOD.write_to(&mut self.output);
        Ok(())
    }

    /// From now on it has the time of those who may relay.
    pub(super) fn stay(&mut self) {
        if !self.stopping {
            self.deadline = self.began + self.shared.listener.session_timeout;
        }
    }

    /// A login by the certificate that the client has shown (RFC 4422, appendix A): the response says for whom it
    /// acts, which can only be the user whose certificate that is.
    pub(super) async fn external(&mut self, initial: Option<Response>) -> Result<(), End> {
        let response = match initial {
            Some(response) => response,
            None => match self.ask("").await? {
                Ok(response) => response,
                Err(reply) => return self.no_login(None, None, &reply),
            },
        };
        let Some(user) = self.dialog.client.user.clone() else { return self.no_login(None, None, &WRONG) };
        if !response.0.is_empty() && !response.0.eq_ignore_ascii_case(user.name.as_bytes()) {
            return self.no_login(None, Some(&user.name), &FOR_ANOTHER);
        }
        self.dialog.log_in(Some(user));
        GOOD.write_to(&mut self.output);
        Ok(())
    }

    /// Waits until the client may be told, and looks whose login it is.
    async fn check(&mut self, attempt: Attempt, mechanism: AuthMechanism, began: Instant) -> Result<Checked, End> {
        let (client, mechanism) = (self.dialog.client.caller, sasl::name(mechanism));
        let logins = self.shared.logins.clone();
        let users = self.shared.listener.users.clone();
        let turn = self.turn(&logins, &attempt.user).await?;
        let admission = match &turn {
            Some(_) => logins.admit(client.ip(), &attempt.user),
            None => Admission::Refused,
        };
        match admission {
            Admission::At(at) => self.wait_until(at).await?,
            Admission::Refused => {
                let user = users.find(&attempt.user).map(|user| &*user.name);
                info!(%client, user, mechanism, reply = %NOT_NOW, "login refused");
                return Err(End::Because(NOT_NOW));
            }
        }
        let checked = logins.check(&users, client.ip(), attempt).await;
        drop(turn);
        self.seat.moved();
        match &checked {
            Checked::User(user) => {
                info!(%client, user = &*user.name, mechanism, tls = self.dialog.client.tls, "logged in")
            }
            Checked::Nobody { user, banned } => {
                // Read by fail2ban: packaging/fail2ban/filter.d/mailweir.conf.
                warn!(%client, user = user.as_ref().map(|user| &*user.name), mechanism, "login failed");
                if *banned {
                    warn!(%client, "too many failed logins, none of this address is looked at for now");
                }
                self.wait_until(began + FAILURE).await?;
            }
        }
        Ok(checked)
    }

    /// Waits for its turn, but not longer than for its failures; `None`: it would have to.
    async fn turn(&mut self, logins: &Logins, name: &str) -> Result<Option<Turn>, End> {
        let limit = Instant::now() + LONGEST;
        tokio::select! {
            biased;
            () = self.stop.asked(), if !self.stopping => Err(End::Because(CLOSING)),
            turn = logins.turn(self.dialog.client.caller.ip(), name) => Ok(Some(turn)),
            () = sleep_until(limit.min(self.deadline)) => match limit <= self.deadline {
                true => Ok(None),
                false => Err(End::Because(if self.stopping { CLOSING } else { TIMEOUT })),
            },
        }
    }

    async fn wait_until(&mut self, at: Instant) -> Result<(), End> {
        if at <= Instant::now() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.stop.asked(), if !self.stopping => Err(End::Because(CLOSING)),
            () = sleep_until(at.min(self.deadline)) => match at <= self.deadline {
                true => Ok(()),
                false => Err(End::Because(if self.stopping { CLOSING } else { TIMEOUT })),
            },
        }
    }

    /// Says a challenge and reads the response, or what the client hears instead of a next step.
    async fn ask(&mut self, challenge: &str) -> Result<Result<Response, Reply>, End> {
        self.output.extend_from_slice(b"334 ");
        self.output.extend_from_slice(challenge.as_bytes());
        self.output.extend_from_slice(b"\r\n");
        let patience = Instant::now() + self.shared.listener.command_timeout;
        loop {
            // A client may not send its response before it has heard the challenge, but some do.
            let waiting = &self.input[self.start..];
            match self.lines.next(waiting, MAX_LINE) {
                Line::Complete { len, used, crlf } => {
                    let line = Zeroizing::new(waiting[..len].to_vec());
                    self.input[self.start..self.start + used].zeroize();
                    self.start += used;
                    return Ok(match &line[..] {
                        _ if !crlf && !self.shared.listener.lf_only => Err(BARE_LF),
                        b"*" => Err(CANCELLED),
                        text => Response::decode(text).map_err(|_| NOT_BASE64),
                    });
                }
                Line::TooLong { used } => {
                    self.start += used;
                    return Ok(Err(LINE_TOO_LONG));
                }
                Line::Incomplete { discard } => {
                    self.start += discard;
                    self.fill(Wait::Command(patience)).await?;
                }
            }
        }
    }

    /// A login that came to no password: it is told and counted as one that failed, but it is no guess, and makes
    /// nobody wait.
    pub(super) fn no_login(
        &mut self,
        mechanism: Option<AuthMechanism>,
        user: Option<&str>,
        reply: &Reply,
    ) -> Result<(), End> {
        // Read by fail2ban, too.
        warn!(client = %self.dialog.client.caller, user, mechanism = mechanism.map(sasl::name), %reply, "login failed");
        self.count_failure(reply)
    }

    fn count_failure(&mut self, reply: &Reply) -> Result<(), End> {
        self.failures += 1;
        if self.dialog.refuse(reply, &mut self.output) == Next::Close {
            return Err(End::Over);
        }
        if self.failures >= MAX_FAILURES {
            return Err(End::Because(TOO_MANY_FAILURES));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::sync::watch;

    use super::*;
    use crate::config::{Listener, ListenerAuth, StoredPassword, User, Users};
    use crate::listener::draft::tests::NoIntake;
    use crate::listener::seat::Seat;
    use crate::listener::session::{Stop, run};
    use crate::listener::submit::Shared;
    use crate::listener::tests_config;
    use crate::mail::Caller;

    /// A session of a listener with the user `jo`, whose password is `pencil`, and what ends it.
    async fn session(stored: &str) -> (DuplexStream, watch::Sender<bool>) {
        let user = User::new("jo", StoredPassword::parse(stored, true).unwrap());
        let listener = Listener {
            auth: ListenerAuth::Required,
            users: Arc::new(Users::new([user])),
            allow: vec!["127.0.0.1".parse().unwrap()],
            ..tests_config()
        };
        let shared = Arc::new(Shared::new(Arc::new(listener), "relay.example", NoIntake::shared()));
        let (ours, theirs) = tokio::io::duplex(4096);
        let (stop, signal) = watch::channel(false);
        let stopping = Stop { signal, drain: Duration::from_secs(5) };
        tokio::spawn(run(theirs, Caller::Ip([127, 0, 0, 1].into()), shared, stopping, Seat::default()));
        let mut client = ours;
        assert!(says(&mut client).await.starts_with("220 "));
        (client, stop)
    }

    async fn says(client: &mut DuplexStream) -> String {
        let mut buffer = [0; 4096];
        let n = client.read(&mut buffer).await.unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    /// The reply to a login with this name and a wrong password, and after which virtual time it came.
    async fn fails(stored: &str, name: &str) -> (String, Duration) {
        let (mut client, _stop) = session(stored).await;
        let began = Instant::now();
        client.write_all(format!("AUTH LOGIN {name}\r\n").as_bytes()).await.unwrap();
        assert_eq!(says(&mut client).await, "334 UGFzc3dvcmQ6\r\n");
        client.write_all(b"d3Jvbmc=\r\n").await.unwrap();
        (says(&mut client).await, began.elapsed())
    }

    /// Time is virtual: it stands still while a hash is computed, and passes where the session waits.
    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_after_the_same_time_whether_the_name_is_known_or_not() {
        let hash = StoredPassword::hash("pencil").unwrap();
        for stored in [&*hash, "pencil"] {
            let known = fails(stored, "am8=").await;
            assert_eq!((&*known.0, known.1), ("535 5.7.8 Authentication credentials invalid\r\n", FAILURE));
            assert_eq!(known, fails(stored, "bm9ib2R5").await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_waits_for_its_login_ends_when_it_is_told_to() {
        let (mut client, stop) = session("pencil").await;
        client.write_all(b"AUTH PLAIN AGpvAHdyb25n\r\n").await.unwrap();
        assert!(says(&mut client).await.starts_with("535 "));
        let began = Instant::now();
        client.write_all(b"AUTH PLAIN AGpvAHdyb25nZXI=\r\n").await.unwrap();
        stop.send_replace(true);
        assert!(says(&mut client).await.starts_with("421 4.3.2 "));
        assert!(began.elapsed() < FAILURE);
    }

    /// One who shares the address of a user and knows his name has one guess, and not as many as there are connections,
    /// before the name counts as one that fails there.
    #[tokio::test(start_paused = true)]
    async fn guesses_for_a_name_that_is_known_at_the_address_are_no_more_at_the_same_time() {
        let user = User::new("jo", StoredPassword::parse("pencil", true).unwrap());
        let listener =
            Listener { auth: ListenerAuth::Required, users: Arc::new(Users::new([user])), tls: None, ..tests_config() };
        let shared = Arc::new(Shared::new(Arc::new(listener), "relay.example", NoIntake::shared()));
        let users = shared.listener.users.clone();
        let ip = [127, 0, 0, 1].into();
        let attempt = |password: &str| Attempt {
            user: Zeroizing::new("jo".to_owned()),
            proof: Proof::Password(Zeroizing::new(password.to_owned())),
        };
        // He logs in well there, several times at once.
        let both = tokio::join!(shared.logins.check(&users, ip, attempt("pencil")), shared.logins.turn(ip, "ann"));
        assert!(matches!(both.0, Checked::User(_)));
        drop(both);
        let mut guesses = tokio::task::JoinSet::new();
        let began = Instant::now();
        for n in 0..40u8 {
            let (logins, users) = (shared.logins.clone(), users.clone());
            guesses.spawn(async move {
                let turn = tokio::time::timeout(LONGEST, logins.turn(ip, "jo")).await.ok()?;
                let Admission::At(at) = logins.admit(ip, "jo") else { return None };
                sleep_until(at).await;
                let checked = logins.check(&users, ip, attempt(&format!("guess {n}"))).await;
                drop(turn);
                matches!(checked, Checked::Nobody { .. }).then(|| began.elapsed().as_secs())
            });
        }
        let mut looked_at: Vec<u64> = guesses.join_all().await.into_iter().flatten().collect();
        looked_at.sort_unstable();
        assert_eq!(looked_at, [0, 1, 3, 7, 15, 31]);
    }

    /// Guesses that come at the same time over many connections are looked at one behind the other, each later than
    /// the one before, until there are enough for a ban.
    #[tokio::test(start_paused = true)]
    async fn guesses_at_the_same_time_are_no_more_than_one_after_another() {
        let user = User::new("jo", StoredPassword::parse("pencil", true).unwrap());
        let listener =
            Listener { auth: ListenerAuth::Required, users: Arc::new(Users::new([user])), tls: None, ..tests_config() };
        let shared = Arc::new(Shared::new(Arc::new(listener), "relay.example", NoIntake::shared()));
        let (_stop, signal) = watch::channel(false);
        let mut guesses = tokio::task::JoinSet::new();
        let began = Instant::now();
        for n in 0..40u8 {
            let (mut client, theirs) = tokio::io::duplex(4096);
            let stopping = Stop { signal: signal.clone(), drain: Duration::from_secs(5) };
            // Each from another address of this machine, which counts as one.
            let caller = Caller::Ip([127, 0, 1, n].into());
            tokio::spawn(run(theirs, caller, shared.clone(), stopping, Seat::default()));
            guesses.spawn(async move {
                says(&mut client).await;
                client
                    .write_all(format!("AUTH LOGIN am8=\r\n{}\r\n", STANDARD.encode(format!("guess {n}"))).as_bytes())
                    .await
                    .unwrap();
                let mut heard = says(&mut client).await;
                if heard.starts_with("334 ") && !heard.contains("\r\n5") && !heard.contains("\r\n4") {
                    heard = says(&mut client).await;
                }
                (
                    heard.lines().last().unwrap_or_default().chars().take(3).collect::<String>(),
                    began.elapsed().as_secs(),
                )
            });
        }
        let mut heard = guesses.join_all().await;
        heard.sort();
        let looked_at: Vec<u64> = heard.iter().filter(|(code, _)| code == "535").map(|(_, at)| *at).collect();
        // The first one is told after a second, the others when it was their turn; the rest has waited for 20 s.
        assert_eq!(looked_at, [1, 1, 3, 7, 15, 31], "{heard:?}");
        assert!(heard.iter().filter(|(code, _)| code == "421").count() == 34, "{heard:?}");
    }
}
