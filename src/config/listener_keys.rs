//! The keys of `[[listener]]`, and how its `tls` is put together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::client_identity::ClientAuthorities;
use super::fields::Field;
use super::file::Reader;
use super::keys::{DAY, HOUR, Key, Table, keys};
use super::listen_address::group_id;
use super::value::Kind;
use super::{
    Authorities, ClientCert, Engine, FileMode, ListenAddress, Listener, ListenerAuth, ListenerTls, ListenerTlsMode,
    Network, ReceivedSays, Users,
};
use crate::mail::LocalNames;

/// Where clients of this machine come from.
pub(crate) fn local_networks() -> Vec<Network> {
    ["127.0.0.0/8", "::1/128"].iter().filter_map(|network| network.parse().ok()).collect()
}

/// `mode`, if nobody says otherwise.
const MODE: FileMode = FileMode(0o660);

/// A listener before the files of its `tls` are read.
pub(super) struct ListenerDraft {
    pub l: Listener,
    pub tls_mode: Option<ListenerTlsMode>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub tls_required: Option<bool>,
    pub tls_client_ca: Option<Authorities>,
    pub tls_client_cert: Option<ClientCert>,
    pub name: Option<String>,
    pub auth: Option<ListenerAuth>,
    pub mode: Option<FileMode>,
    pub group: Option<String>,
}

impl Table for ListenerDraft {
    const NAME: &'static str = "listener";
    const KEYS: &'static [Key<ListenerDraft>] = keys! {
        /// What `[[route]] listener` calls it.
        "name" name: Kind::Label, example r#""submission""#;
        /// Where applications hand in their mail. `localhost:PORT` stands for 127.0.0.1 and, where the
        /// machine has IPv6, ::1. Port 0 lets the system choose. An address that is not a loopback one
        /// needs `allow`, or `auth = "required"`. `unix:PATH` is a Unix socket: whoever may connect to it may relay.
        "address" l.address: Kind::ListenAddress, default r#""localhost:2525""#;
        /// Who may connect to a Unix socket: the rights of its file. Default: 0660.
        "mode" mode: Kind::FileMode, example r#""0666""#;
        /// The group of a Unix socket's file; mailweir must be a member of it, or root. Default: its own group.
        "group" group: Kind::Group, example r#""www-data""#;
        /// Clients that may relay. "Everybody" (`0.0.0.0/0`, `::/0`) is refused: an open relay. Also
        /// refused: `192.0.2.7/24`, which might mean one address or the range.
        "allow" l.allow: Kind::Networks, default r#"["127.0.0.0/8", "::1/128"]"#;
        /// Whether clients may log in (AUTH) as a `[[user]]`, over TLS or from this machine: `offered` to all, so that those
        /// outside of `allow` can relay too; or `required` of all, those in `allow` included. Default: `offered` if
        /// there are users, else `off`.
        "auth" auth: Kind::Word(ListenerAuth::WORDS), example r#""required""#;
        /// For applications that cannot be told not to log in: any name and password will do. They are not looked at, and
        /// nobody may do more than before. Only on a loopback address or a Unix socket.
        "accept_any" l.accept_any: Kind::Flag, default "false";
        /// Tells of AUTH in the form of old clients, too: `AUTH=PLAIN LOGIN`.
        "auth_old_line" l.auth_old_line: Kind::Flag, default "false";
        /// Proxies and filters in front of this listener, by their addresses: they may say by XCLIENT whose
        /// client they speak for, which then counts for `allow`, limits and the log, and by XFORWARD, which
        /// counts for the log.
        "xclient_from" l.xclient_from: Kind::Networks, default "[]";
        /// Proxies in front that pass connections on, by their addresses: each connection of theirs must begin with a header
        /// of the PROXY protocol (version 1 or 2), before TLS, and the client it names counts for everything. From others
        /// such a header is no command.
        "proxy_from" l.proxy_from: Kind::Networks, default "[]";
        /// Encryption: `starttls` offers it to clients, `implicit` expects it from the first byte (as
        /// on port 465). Default: clear text only. In one line:
        /// tls = { mode = "starttls", cert = "FILE", key = "FILE" }.
        "tls.mode" tls_mode: Kind::Word(ListenerTlsMode::WORDS), example r#""starttls""#;
        /// PEM file of the server's certificate, with those of the authorities between it and a root
        /// behind it. Renewed ones are taken up by `mailweir reload`.
        "tls.cert" tls_cert: Kind::ReadableFile, example r#""/etc/mailweir/fullchain.pem""#;
        /// PEM file of its private key, without a pass phrase.
        "tls.key" tls_key: Kind::ReadableFile, example r#""/etc/mailweir/privkey.pem""#;
        /// Refuse mail of clients that have not said STARTTLS (530). Default: false.
        "tls.required" tls_required: Kind::Flag, example "true";
        /// PEM file of the authorities that vouch for certificates of clients. Whoever shows one of a `[[user]]`
        /// (`certificate`) has logged in as that one.
        "tls.client_ca" tls_client_ca: Kind::Authorities, example r#""/etc/mailweir/clients.pem""#;
        /// Whether clients are asked for a certificate: `offered` takes those without one as before; with `required` they
        /// do not get through the handshake. Default: `offered` where there is a `client_ca`, else `off`.
        "tls.client_cert" tls_client_cert: Kind::Word(ClientCert::WORDS), example r#""required""#;
        /// Largest message, in bytes. Also announced as SIZE. Larger ones get 552.
        "max_message_size" l.max_message_size: Kind::Size(1024, 2 << 30), default r#""25MiB""#;
        /// Recipients of one transaction. Further ones get 452, and clients send those again.
        "max_recipients" l.max_recipients: Kind::Int(1, 100_000), default "1000";
        /// Hops that a message may have made: with more `Received:` fields than that it loops, and gets
        /// 554 5.4.6. RFC 5321 asks for at least 100.
        "max_hops" l.max_hops: Kind::Int(1, 1000), default "100";
        /// Most bytes of a header section. Larger ones get 552; so does a line of more than 128 KiB in it.
        "max_header" l.max_header: Kind::Size(16 << 10, 1 << 20), default r#""1MiB""#;
        /// Sessions at once of clients in `allow`, and of those that have logged in. One more gets 421. Others have a
        /// sixteenth of that, beside it, for 30 s each.
        "max_connections" l.max_connections: Kind::Int(1, 100_000), default "1000";
        /// How many of those places of others one address may have (of IPv6: one /64). Who finds none takes that of
        /// whoever has stood still for longest, and for 5 s at least. Default: a quarter of them.
        "max_strangers_per_network" l.max_strangers_per_network: Kind::Int(1, 100_000), example "30";
        /// `native`, or `mailin` (a thread for each session, fewer extensions).
        "engine" l.engine: Kind::Word(Engine::WORDS), default r#""native""#;
        /// For devices that end lines with a bare LF: also a dot between bare LFs ends a message.
        /// Never where mail of strangers comes in (SMTP smuggling). BINARYMIME is not offered there.
        "lf_only" l.lf_only: Kind::Flag, default "false";
        /// Longest wait for a command.
        "command_timeout" l.command_timeout: Kind::Span(100, HOUR), default r#""5m""#;
        /// Longest wait for more of a message.
        "data_timeout" l.data_timeout: Kind::Span(100, HOUR), default r#""3m""#;
        /// Longest session, however busy. Then 421.
        "session_timeout" l.session_timeout: Kind::Span(100, 7 * DAY), default r#""2h""#;
        /// How far ahead a client may say when its message is to leave: by FUTURERELEASE (RFC 4865: HOLDFOR, HOLDUNTIL) or
        /// in a field `X-Send-At`, which does not go on. Until then it waits in the queue. "0s": not at all; then the field
        /// is one like others.
        "future_release" l.future_release: Kind::Span(0, 366 * DAY), default r#""30d""#;
        /// What the `Received:` field says of a client: `all` is its name, its address, and who it is on this machine;
        /// `minimal` tells none of that to those who get the mail. The log has it all the same.
        "received" l.received: Kind::Word(ReceivedSays::WORDS), default r#""all""#;
        /// A message sent again within this time (same sender, recipients, Message-ID and content)
        /// is not queued twice: the client gets the first queue id. "0s": off.
        "dedupe" l.dedupe: Kind::Span(0, DAY), default r#""0s""#;
    };

    fn blank() -> ListenerDraft {
        ListenerDraft {
            l: Listener {
                name: "".into(),
                address: ListenAddress::from(([127, 0, 0, 1], 0)),
                mode: MODE,
                group: None,
                allow: Vec::new(),
                auth: ListenerAuth::Off,
                accept_any: false,
                auth_old_line: false,
                users: Arc::new(Users::default()),
                xclient_from: Vec::new(),
                proxy_from: Vec::new(),
                tls: None,
                max_message_size: 0,
                max_recipients: 0,
                max_hops: 0,
                max_header: 0,
                max_connections: 0,
                max_strangers_per_network: None,
                engine: Engine::Native,
                lf_only: false,
                command_timeout: Duration::ZERO,
                data_timeout: Duration::ZERO,
                session_timeout: Duration::ZERO,
                future_release: Duration::ZERO,
                dedupe: Duration::ZERO,
                sandbox: None,
                rewrites: Arc::default(),
                copies: Vec::new().into(),
                received: ReceivedSays::All,
                names: Arc::new(LocalNames::new("localhost", "localhost")),
            },
            tls_mode: None,
            tls_cert: None,
            tls_key: None,
            tls_required: None,
            tls_client_ca: None,
            tls_client_cert: None,
            name: None,
            auth: None,
            mode: None,
            group: None,
        }
    }
}

impl ListenerDraft {
    /// Who may log in, and whether.
    pub(super) fn settle_users(&mut self, users: &Arc<Users>) {
        let may = self.l.engine == Engine::Native && (!users.is_empty() || self.l.accept_any);
        let default = if may { ListenerAuth::Offered } else { ListenerAuth::Off };
        self.l.auth = self.auth.unwrap_or(default);
        self.l.users = users.clone();
    }

    /// Puts together what several keys say.
    pub(super) fn settle(&mut self) {
        self.l.name = self.name.as_deref().unwrap_or_default().into();
        self.l.mode = self.mode.unwrap_or(MODE);
        self.l.group = self.group.as_deref().and_then(|group| group_id(group).ok());
        if self.l.address.path().is_some() {
            // Its clients are of this machine, and the file system has let them in. Those behind a proxy are not.
            let behind = std::mem::take(&mut self.l.allow);
            self.l.allow = local_networks();
            if !self.l.xclient_from.is_empty() {
                self.l.allow.extend(behind);
            }
        }
    }

    /// Who vouches for clients.
    fn clients(&self) -> Result<Option<ClientAuthorities>, String> {
        match (&self.tls_client_ca, self.tls_client_cert) {
            (Some(ca), ask) => ClientAuthorities::new(ca, ask.unwrap_or(ClientCert::Offered)),
            (None, None | Some(ClientCert::Off)) => Ok(None),
            (None, Some(_)) => {
                Err("nobody vouches for certificates of clients: expected `client_ca = \"FILE\"` beside it".to_owned())
            }
        }
    }

    /// Reads the certificate and the key that `tls` of the listener at `path` names. Faults go to
    /// `reader`.
    pub(super) fn read_tls(&mut self, reader: &mut Reader<'_>, path: &str) {
        let at = format!("{path}.tls");
        if !reader.has(&at) {
            return;
        }
        if self.l.engine == Engine::Mailin {
            let message = "engine \"mailin\" takes clients in clear text only: expected engine = \"native\" with tls";
            reader.fault(&at, message.into());
            return;
        }
        let keys = ["mode", "cert", "key"].map(|key| (key, reader.has(&format!("{at}.{key}"))));
        let missing: Vec<String> = keys.iter().filter(|(_, there)| !there).map(|(key, _)| format!("`{key}`")).collect();
        if !missing.is_empty() {
            let what = if missing.len() == 1 { "is missing" } else { "are missing" };
            let expected = "expected { mode = \"starttls\" or \"implicit\", cert = \"FILE\", key = \"FILE\" }";
            reader.fault(&at, format!("{} {what}: {expected}", missing.join(" and ")));
            return;
        }
        // What could not be read is reported already.
        let (Some(mode), Some(cert), Some(key)) = (self.tls_mode, &self.tls_cert, &self.tls_key) else { return };
        let clients = match self.clients() {
            Ok(clients) => clients,
            Err(message) => {
                if !reader.has(&format!("{at}.client_ca")) || self.tls_client_ca.is_some() {
                    reader.fault(&format!("{at}.client_cert"), message);
                }
                return;
            }
        };
        match ListenerTls::load_for(mode, self.tls_required.unwrap_or(false), cert, key, clients) {
            Ok(tls) => self.l.tls = Some(tls),
            Err(faults) => {
                faults.into_iter().for_each(|fault| reader.fault(&format!("{at}.{}", fault.key), fault.message))
            }
        }
    }
}
