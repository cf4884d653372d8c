//! Messages that come without a session, from the spool: the same policy, the same names, the same
//! way into the queue as a session's.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::sync::Arc;

use super::Intake;
use super::submit::{Client, Shared, Transaction};
use crate::config::{Config, Listener, ListenerAuth, local_networks};
use crate::mail::{Caller, Envelope, QueueId};
use crate::smtp::{LineEnds, Reply};
use crate::spool::{Entry, MAX_RECIPIENTS, Taken};

/// Bytes read at once.
const READ: usize = 64 * 1024;

/// Why a message was not queued.
#[derive(Debug)]
pub enum NotQueued {
    /// What a client would have heard.
    Reply(Reply),
    /// Its file could not be read to its end: perhaps its owner is still at it. It says nothing of the
    /// queue, nor of other messages.
    Unreadable(std::io::Error),
}

impl From<Reply> for NotQueued {
    fn from(reply: Reply) -> NotQueued {
        NotQueued::Reply(reply)
    }
}

/// Takes messages for the queue that users of this machine have left in files.
pub struct Local {
    shared: Arc<Shared>,
}

impl Local {
    /// With the limits of the most generous listener.
    pub fn new(config: &Config, intake: Arc<dyn Intake>) -> Local {
        let first = config.listeners.first().map_or_else(Listener::default, |listener| (**listener).clone());
        let largest = config.listeners.iter().map(|l| l.max_message_size).max();
        let listener = Listener {
            // Whoever may write to the spool may relay.
            allow: local_networks(),
            auth: ListenerAuth::Off,
            max_message_size: largest.unwrap_or(first.max_message_size),
            max_recipients: MAX_RECIPIENTS,
            // It came in by none.
            name: "".into(),
            names: config.names.clone(),
            dedupe: std::time::Duration::ZERO,
            ..first
        };
        Local { shared: Arc::new(Shared::new(Arc::new(listener), &config.hostname, intake)) }
    }

    /// Most bytes of a message.
    pub fn max_message_size(&self) -> u64 {
        self.shared.listener.max_message_size
    }

    /// Queues a message; when it returns, the disk has it.
    ///
    /// # Errors
    /// See [`NotQueued`].
    pub async fn submit(&self, taken: &Taken) -> Result<QueueId, NotQueued> {
        let helo = format!("uid {}", taken.user);
        let caller = Caller::Spool { uid: taken.user };
        let client = Client { helo: helo.into(), esmtp: true, ..Client::new(caller) };
        let tx = self.transaction(caller.ip(), &taken.entry)?;
        let mut file = taken.content.try_clone().map_err(NotQueued::Unreadable)?;
        let (mut draft, mut ends) = (self.shared.draft(&client, &tx), LineEnds::new());
        let (mut failed, mut left) = (None, taken.entry.size);
        while left > 0 && failed.is_none() {
            let most = left.min(READ as u64);
            let read = tokio::task::spawn_blocking(move || read(file, most)).await;
            let (bytes, same) = match read.unwrap_or_else(|ended| Err(std::io::Error::other(ended))) {
                Ok(read) => read,
                Err(error) => {
                    draft.abandon(self.shared.queue()).await;
                    return Err(NotQueued::Unreadable(error));
                }
            };
            file = same;
            left -= bytes.len() as u64;
            ends.feed(&bytes, |run| draft.push(run));
            failed = draft.spill(self.shared.queue()).await.err();
        }
        ends.finish(|run| draft.push(run));
        Ok(self.shared.submit(&client, tx, draft, failed).await?.0)
    }

    fn transaction(&self, ip: IpAddr, entry: &Entry) -> Result<Transaction, Reply> {
        let policy = &self.shared.policy;
        let paths = || entry.recipients.iter().chain([&entry.sender]);
        let smtputf8 = paths().any(|path| !path.is_ascii());
        let reverse_path = policy.sender(&entry.sender, smtputf8)?;
        let (ret, envid) = (entry.ret, entry.envid.clone());
        let envelope = Envelope { reverse_path, smtputf8, ret, envid, ..Envelope::default() };
        let now = self.shared.intake.clock().now();
        let rewritten = policy.rewritten(None, envelope.reverse_path.as_ref(), now);
        let mut tx = Transaction::new(envelope, entry.size, self.shared.intake.memory().envelope()).sent_as(rewritten);
        for path in &entry.recipients {
            let forward = policy.recipient(policy.may_relay(ip, None), tx.recipients.len(), path, smtputf8, now);
            // Tried again it would be too many again.
            let forward = forward.map_err(|reply| match reply.is_transient() {
                true => Reply::new(554, "5.5.3", "Too many recipients"),
                false => reply,
            })?;
            tx.add(&forward, entry.notify, None)?;
        }
        Ok(tx)
    }
}

/// The next bytes, at least one: the file may have become shorter.
fn read(mut file: File, most: u64) -> std::io::Result<(Vec<u8>, File)> {
    let mut bytes = Vec::new();
    (&mut file).take(most).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok((bytes, file))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::sample;
    use crate::listener::draft::tests::NoIntake;
    use crate::mail::local::Target;
    use crate::mail::{Address, LocalNames};

    fn local(aliases: impl IntoIterator<Item = (String, Vec<Target>)>) -> Local {
        let mut config = sample::config();
        let names = LocalNames::new("relay.example", "corp.example").with_aliases(&aliases.into_iter().collect());
        config.names = Arc::new(names.expect("good aliases"));
        Local::new(&config, NoIntake::with_memory(256 << 20))
    }

    fn transaction(local: &Local, sender: &str, recipients: &[&str]) -> Result<Transaction, Reply> {
        let recipients = recipients.iter().map(|r| (*r).to_owned()).collect();
        let entry = Entry { sender: sender.into(), recipients, ..Entry::default() };
        local.transaction(Ipv4Addr::LOCALHOST.into(), &entry)
    }

    #[test]
    fn an_entry_of_the_spool_is_treated_as_a_client_is() {
        let local = local([("root".to_owned(), vec![Target::parse("jo@x.example").expect("a target")])]);
        let tx = transaction(&local, "app", &["root", "ann", "ann@CORP.example"]).expect("good");
        assert_eq!(tx.envelope.sender(), "app@corp.example");
        let to: Vec<&str> = tx.recipients.iter().map(|r| r.address.as_str()).collect();
        assert_eq!((to, tx.aliases.as_str()), (vec!["jo@x.example", "ann@corp.example"], "root"));
        assert!(transaction(&local, "", &["j\u{f6}@x.example"]).is_ok_and(|tx| tx.envelope.smtputf8));
        let code = |r: Result<Transaction, Reply>| r.map(|_| 0).map_err(|reply| reply.code);
        assert_eq!(code(transaction(&local, "a b", &["root"])), Err(501));
        assert_eq!(code(transaction(&local, "", &["a b"])), Err(501));
    }

    /// A refusal for now would stop everybody's mail behind it, minute after minute.
    #[test]
    fn too_many_recipients_are_refused_for_good() {
        let address = |alias: usize, i: usize| Address::parse(&format!("u{i}@d{alias}.example")).expect("an address");
        let targets = |alias| (0..1000).map(|i| Target::Address(address(alias, i))).collect();
        let local = local((0..101).map(|alias| (format!("n{alias}"), targets(alias))));
        let names: Vec<String> = (0..101).map(|alias| format!("n{alias}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(transaction(&local, "", &names[..100]).map(|tx| tx.recipients.len()), Ok(MAX_RECIPIENTS));
        assert_eq!(transaction(&local, "", &names).map(|_| 0).map_err(|reply| reply.code), Err(554));
        // The same again is not more.
        let tx = transaction(&local, "", &[names[0]; 5000]).expect("one alias");
        assert_eq!((tx.recipients.len(), tx.aliases.as_str()), (1000, "n0"));
    }
}
