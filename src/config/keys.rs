//! Every key of the configuration, declared once: name, range, default, documentation, and the
//! field it fills. The parser, `mailweir check --all` and the reference in docs/configuration.md are all made
//! from these declarations, so that they cannot disagree.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::fields::Field;
use super::oauth::{OAuthDraft, OAuthGrant};
use super::profiles::Profile;
use super::rule_keys::RuleDraft;
use super::users::UserFile;
use super::value::{Kind, Val};
use super::{
    AliasFile, Aliases, AuthMechanism, Count, Dns, Dnssec, LimitsPer, Log, LogFormat, Provider, Queue, Retry,
    RouteWhen, Secret, SignedConversion, Store, TlsMin, TlsMode, units,
};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// A key of a table whose values go into a `D`.
pub(super) struct Key<D: 'static> {
    /// Its name within the table; dotted for a key of an inner table (`match.mx`).
    pub name: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// Its default as TOML; empty if there is none.
    pub default: &'static str,
    /// What to show where there is no default.
    pub example: &'static str,
    /// For people.
    pub doc: &'static str,
    /// Stores a value of `kind`.
    pub set: fn(&mut D, Val) -> Result<(), String>,
    pub value: fn(&D) -> Option<Val>,
}

impl<D> Key<D> {
    /// The value in `draft`; `None` if there is none.
    pub(super) fn get(&self, draft: &D) -> Option<Val> {
        match ((self.value)(draft)?, self.kind) {
            (Val::Int(n), Kind::Size(..)) => Some(Val::Size(n)),
            (value, _) => Some(value),
        }
    }
}

/// A table of the file.
pub(super) trait Table: Sized + 'static {
    /// Its name, as in the list of what is not supported.
    const NAME: &'static str;
    /// Its keys in the order of the documentation.
    const KEYS: &'static [Key<Self>];
    /// Keys that only the built-in profiles may have.
    const BUILT_IN_KEYS: &'static [Key<Self>] = &[];

    /// A value whose every field is overwritten by the defaults.
    fn blank() -> Self;

    /// The retry schedule, if the inner table of this name is one.
    fn retry(&mut self, _name: &str) -> Option<&mut Retry> {
        None
    }

    /// The rules, if the inner list of tables of this name are some.
    fn rules(&mut self, _name: &str) -> Option<&mut Vec<RuleDraft>> {
        None
    }

    /// The value that all defaults make.
    fn defaults() -> Self {
        let mut draft = Self::blank();
        for key in Self::KEYS.iter().filter(|k| !k.default.is_empty()) {
            let read = key.default.parse::<toml_edit::Value>().map_err(|e| e.to_string());
            let set = read.and_then(|v| key.kind.read(&v)).and_then(|v| (key.set)(&mut draft, v));
            // A test asserts that no default fails.
            debug_assert!(set.is_ok(), "default of {}: {set:?}", key.name);
        }
        draft
    }
}

/// `/// doc`, `"name" field: kind = default [or example];`
macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $name:literal $($field:ident).+: $kind:expr $(, default $default:literal)? $(, example $example:literal)?;)*) => {
        &[$(Key {
            name: $name,
            kind: $kind,
            default: concat!($($default)?),
            example: concat!($($example)?),
            doc: concat!($($doc, "\n"),+),
            set: |d, v| {
                d.$($field).+ = Field::from_val(v).ok_or("the value does not fit")?;
                Ok(())
            },
            value: |d| Field::to_val(&d.$($field).+),
        }),*]
    };
}
pub(super) use keys;

/// Keys outside any table.
#[derive(Clone)]
pub(super) struct Top {
    /// Empty until the system's name is asked for.
    pub hostname: Option<String>,
    /// Empty: the host name.
    pub default_domain: Option<String>,
    pub aliases: Option<Aliases>,
    pub alias_file: Option<AliasFile>,
    pub users: Option<UserFile>,
    pub drain: Duration,
    pub builtin_profiles: bool,
}

impl Table for Top {
    const NAME: &'static str = "";
    const KEYS: &'static [Key<Top>] = keys! {
        /// Name of this relay: in EHLO, `Received:` and reports. Some providers refuse a name that
        /// does not resolve to the address they see. Default: the system's full host name.
        "hostname" hostname: Kind::HostName, example r#""relay.example.com""#;
        /// Domain of names without one, in MAIL, RCPT and what `sendmail` is given: mail from `root`
        /// is from root@DOMAIN. Default: `hostname`.
        "default_domain" default_domain: Kind::HostName, example r#""example.com""#;
        /// Where mail for local names goes: those without a domain or with `hostname` as theirs. A
        /// name leads to an address, another name, or a list of them; `\name` to the mailbox itself.
        "aliases" aliases: Kind::Aliases, example r#"{ root = "jo@example.com", www = ["root", "web@example.com"] }"#;
        /// A file with more of them, in the form of /etc/aliases. Commands, files and `:include:` in
        /// it are refused: a relay delivers to addresses. Read again by `mailweir reload` and `newaliases`.
        "alias_file" alias_file: Kind::AliasFile, example r#""/etc/aliases""#;
        /// A file of more users than those of `[[user]]`, with NAME:HASH in each line. Nobody but its owner may write to
        /// it, and nobody but its owner and its group may read it. Read again by `mailweir reload`.
        "users" users: Kind::UserFile, example r#""/etc/mailweir/users""#;
        /// At shutdown, how long transactions in progress may take to finish. What is cut off is
        /// sent again after the next start.
        "drain" drain: Kind::Span(0, HOUR), default r#""30s""#;
        /// What mailweir knows of big providers: limits, and what their replies mean. A
        /// [provider.NAME] changes single values of the profile NAME; false switches all off.
        /// `mailweir provider list` and `provider show NAME` print them.
        "builtin_profiles" builtin_profiles: Kind::Flag, default "true";
    };

    fn blank() -> Top {
        Top {
            hostname: None,
            default_domain: None,
            aliases: None,
            alias_file: None,
            users: None,
            drain: Duration::ZERO,
            builtin_profiles: true,
        }
    }
}

impl Table for Queue {
    const NAME: &'static str = "queue";
    const KEYS: &'static [Key<Queue>] = keys! {
        /// Where queued mail is kept. A relative path starts at the working directory; missing
        /// directories are made. The file belongs on a local disk.
        "store" store: Kind::Store, default r#""sqlite:var/mailweir.db""#;
        /// Memory for messages: a quarter for those that come in, the rest for those on their way out.
        "memory" memory: Kind::Size(1 << 20, 1 << 40), default r#""256MiB""#;
        /// How long failed mail is kept, to look at or to send again. "0s": not at all.
        "keep_failed" keep_failed: Kind::Span(0, 366 * DAY), default r#""7d""#;
        /// Room on the store's disk for mail on its way out: a file beside the store holds it, clients
        /// hear 452 before it is touched, and a full queue drains itself. At most a tenth of the file
        /// system. "0KiB": none.
        "min_free" min_free: Kind::Size(0, 1 << 40), default r#""64MiB""#;
    };

    fn blank() -> Queue {
        Queue { store: Store::Sqlite(PathBuf::new()), memory: 0, keep_failed: Duration::ZERO, min_free: 0 }
    }
}

impl Table for Retry {
    const NAME: &'static str = "retry";
    const KEYS: &'static [Key<Retry>] = keys! {
        /// Wait after the first failed attempt.
        "first" first: Kind::Span(10, 7 * DAY), default r#""1m""#;
        /// Each wait is this many times the one before.
        "factor" factor: Kind::Number(1.0, 100.0), default "2.0";
        /// Longest wait.
        "max" max: Kind::Span(10, 7 * DAY), default r#""4h""#;
        /// Each wait is changed at random by up to this share, so that retries do not come in waves.
        "jitter" jitter: Kind::Number(0.0, 1.0), default "0.2";
        /// Age at which a recipient is given up and the sender told.
        "expire" expire: Kind::Span(10, 60 * DAY), default r#""5d""#;
        /// Age at which the sender is told of the delay, once, if he asked for that (NOTIFY=DELAY).
        /// "0s": never.
        "warn" warn: Kind::Span(0, 60 * DAY), default r#""4h""#;
    };

    fn blank() -> Retry {
        let zero = Duration::ZERO;
        Retry { first: zero, factor: 1.0, max: zero, jitter: 0.0, expire: zero, warn: zero }
    }
}

impl Table for Dns {
    const NAME: &'static str = "dns";
    const KEYS: &'static [Key<Dns>] = keys! {
        /// Name servers to ask: "IP", "IP:port", "tls://IP#name" or "https://IP#name". Empty: those of
        /// the system.
        "nameservers" nameservers: Kind::Nameservers, default "[]";
        /// Longest wait for one answer of one server.
        "timeout" timeout: Kind::Span(50, MINUTE), default r#""5s""#;
        /// Times a question is asked.
        "attempts" attempts: Kind::Int(1, 10), default "2";
        /// Who checks the signatures of DNSSEC: `validate`, each answer up to the root here; `trust-ad`, a name server
        /// on this machine, whose AD bit is believed; `off`, nobody. What is forged is not believed, so mail waits. With
        /// either, TLSA records of mail hosts are kept (DANE, RFC 7672), whatever `tls` of the provider but `off`.
        "dnssec" dnssec: Kind::Word(Dnssec::WORDS), default r#""off""#;
        /// A file of DNSKEY records that `validate` trusts instead of the keys of the root.
        "trust_anchor" trust_anchor: Kind::TrustAnchor, example r#""/etc/mailweir/root.key""#;
        /// Answers are kept at least this long, whatever their TTL.
        "ttl_min" ttl_min: Kind::Span(0, HOUR), default r#""30s""#;
        /// Answers are kept at most this long, whatever their TTL.
        "ttl_max" ttl_max: Kind::Span(0, 7 * DAY), default r#""1d""#;
        /// "There is no such name" is kept at most this long.
        "negative_ttl_max" negative_ttl_max: Kind::Span(0, DAY), default r#""5m""#;
        /// Answers kept at most, and at most one for each 8 KiB of [queue] memory.
        "cache_size" cache_size: Kind::Int(1, 10_000_000), default "100000";
    };

    fn blank() -> Dns {
        let zero = Duration::ZERO;
        Dns {
            nameservers: Vec::new(),
            timeout: zero,
            attempts: 1,
            dnssec: Dnssec::Off,
            trust_anchor: None,
            ttl_min: zero,
            ttl_max: zero,
            negative_ttl_max: zero,
            cache_size: 0,
        }
    }
}

/// A provider before `relay`, `auth`, `tls` and `implicit_tls` are put together.
#[derive(Clone)]
pub(super) struct ProviderDraft {
    pub p: Provider,
    pub relay: Option<(String, u16)>,
    pub implicit_tls: Option<bool>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub mechanism: Option<AuthMechanism>,
    pub oauth: OAuthDraft,
    pub tls_client_cert: Option<PathBuf>,
    pub tls_client_key: Option<PathBuf>,
    pub tls: Option<TlsMode>,
    /// Of its own: those of [default] and of profiles come after them.
    pub rules: Vec<RuleDraft>,
    /// `match.relay` of a profile: smart hosts it is about.
    pub match_relay: Vec<units::Pattern>,
    /// The built-in profile that it builds on.
    pub profile: Option<&'static Profile>,
}

impl Table for ProviderDraft {
    const NAME: &'static str = "provider";
    const KEYS: &'static [Key<ProviderDraft>] = keys! {
        /// Recipients belong to this provider if a mail host (MX) of their domain matches one of these.
        "match.mx" p.match_mx: Kind::HostPatterns, default "[]";
        /// Recipients belong to this provider if their domain matches one of these.
        "match.domains" p.match_domains: Kind::HostPatterns, default "[]";
        /// A smart host: everything of this provider goes there, as "host:port", instead of to MX hosts. One that is
        /// a listener of this relay is warned of.
        "relay" relay: Kind::HostPort, example r#""email-smtp.eu-west-1.amazonaws.com:587""#;
        /// TLS from the first byte instead of STARTTLS. Default: only on port 465.
        "implicit_tls" implicit_tls: Kind::Flag, example "false";
        /// User name at the smart host.
        "auth.user" user: Kind::User, example r#""AKIAEXAMPLE""#;
        /// Password at the smart host: `{ env = "NAME" }`, `{ file = "path" }`, or itself (with a warning, as for a file that others may read).
        "auth.password" password: Kind::Secret, example r#"{ env = "SES_PASSWORD" }"#;
        /// The one mechanism to use, for a server that offers more than it takes. Default: the first of PLAIN, LOGIN,
        /// SCRAM-SHA-256 and CRAM-MD5 that is offered; with `oauth` XOAUTH2, else OAUTHBEARER.
        "auth.mechanism" mechanism: Kind::Word(AuthMechanism::WORDS), example r#""login""#;
        /// A token instead of a password: "microsoft", "google", or for any other service a table with `token_url` and
        /// the other keys of `auth` that are for OAuth. Each address and scope that is known can be overridden.
        "auth.oauth" oauth.service: Kind::OAuthService, example r#""microsoft""#;
        /// What the token is given out for: the application itself (`client_credentials`), what a user has consented
        /// to (`refresh_token`), or a `service_account`. Default: what the other keys imply; a `secret` or
        /// `certificate` without a `refresh_token` is for the application itself.
        "auth.grant" oauth.grant: Kind::Word(OAuthGrant::WORDS), example r#""client_credentials""#;
        /// The directory at Microsoft: its name or id.
        "auth.tenant" oauth.tenant: Kind::Label, example r#""shop.onmicrosoft.com""#;
        /// The id of the application that is registered at the service.
        "auth.client_id" oauth.client_id: Kind::Line, example r#""11111111-2222-3333-4444-555555555555""#;
        /// The application's secret there.
        "auth.secret" oauth.secret: Kind::Secret, example r#"{ file = "/etc/mailweir/m365.secret" }"#;
        /// The day on which that secret expires, which nothing but this tells: `mailweir check` and the log warn of it.
        "auth.secret_expires" oauth.secret_expires: Kind::Day, example r#""2028-05-31""#;
        /// PEM file of a certificate that is registered there, instead of `secret`.
        "auth.certificate" oauth.certificate: Kind::ClientCertificate, example r#""/etc/mailweir/m365.pem""#;
        /// PEM file of its private RSA key, if that is not in the same file.
        "auth.key" oauth.key: Kind::KeyFile, example r#""/etc/mailweir/m365.key""#;
        /// JSON file of the key of a service account of Google's. It acts for `auth.user`.
        "auth.service_account" oauth.service_account: Kind::ServiceAccount, example r#""/etc/mailweir/google.json""#;
        /// A refresh token. The one that the service gives out in its place is kept beside the queue. Without this,
        /// `mailweir auth login NAME` gets the first one.
        "auth.refresh_token" oauth.refresh_token: Kind::Secret, example r#"{ file = "/etc/mailweir/refresh.token" }"#;
        /// Where tokens are had. Trusted are the authorities of the system and of `tls_ca`.
        "auth.token_url" oauth.token_url: Kind::Endpoint, example r#""https://login.example.com/token""#;
        /// Where `mailweir auth login` begins (RFC 8628).
        "auth.device_url" oauth.device_url: Kind::Endpoint, example r#""https://login.example.com/devicecode""#;
        /// What the token is to allow, in the words of the service.
        "auth.scope" oauth.scope: Kind::Line, example r#""https://outlook.office365.com/.default""#;
        /// Connections at once.
        "connections" p.connections: Kind::Int(1, 10_000), default "5";
        /// Messages after which a connection is closed.
        "messages_per_connection" p.messages_per_connection: Kind::Int(1, 1_000_000), default "100";
        /// Recipients of one transaction; a message to more is sent in several.
        "recipients_per_message" p.recipients_per_message: Kind::Int(1, 10_000), default "100";
        /// Size of a message that is not even tried: larger ones go back to the sender at once. 0: only
        /// what the host announces (SIZE) counts.
        "max_message_size" p.max_message_size: Kind::Size(0, 2 << 30), default r#""0""#;
        /// Pace, or several that all hold: a count per s, m, h or d, or per span as in 5000/180s, and
        /// what it counts: `messages` (transactions), `recipients` or new `connections`, as in
        /// "30/m messages"; without a unit what `count` says. `[]`: no limit.
        "rate" p.rate: Kind::CountedRates(true), default r#"["10/s"]"#;
        /// How many may leave at once after a pause, of each rate in its own unit. 0: what the rate
        /// brings in 10 ms, at least one.
        "burst" p.burst: Kind::Int(0, 1_000_000), default "0";
        /// Caps that hold in every window of that length, wherever it begins, also across restarts. Of
        /// messages or recipients, as in "10000/d recipients"; without a unit of what `count` says.
        "quota" p.quota: Kind::CountedRates(false), default "[]";
        /// Pace of new connections, as "5/s connections" in `rate` is. Both hold.
        "connection_rate" p.connection_rate: Kind::Rates, default "[]";
        /// What `warmup` counts, and values of `rate` and `quota` without a unit: `messages`
        /// (transactions) or `recipients`.
        "count" p.count: Kind::Word(Count::WORDS), default r#""messages""#;
        /// Slow down by itself on replies that say so, and speed up again.
        "adaptive" p.adaptive: Kind::Flag, default "true";
        /// How much may leave on each day (UTC) from `start`, for source addresses that nobody knows
        /// yet. After the last day, or after the day on which `until` is reached, the other limits
        /// alone hold; with `end`, the last number holds until then. What is over a day's number
        /// waits for the next day, or with overflow = "source" (and limits_per = "source") leaves from
        /// the next source address that has room. Before `start` each day has the number of the first;
        /// with before = "nothing" all waits until then.
        "warmup" p.warmup: Kind::Warmup, example r#"{ start = "2026-12-01", day_1 = "50/d", double_every = "1d", until = "20000/d" }"#;
        /// How long an idle connection is kept for the next message.
        "idle_timeout" p.idle_timeout: Kind::Span(0, HOUR), default r#""10s""#;
        /// Port of MX hosts.
        "port" p.port: Kind::Int(1, 65_535), default "25";
        /// Deliver to loopback and private addresses that DNS gives for an MX.
        "allow_private" p.allow_private: Kind::Flag, default "false";
        /// `off`; `opportunistic` (if offered, whatever the certificate); `required` (never in clear
        /// text, whatever the certificate); `verified` (with a valid certificate for the host's
        /// name); `dane` (only to MX hosts with signed TLSA records, which their certificate matches); `mta-sts` (only
        /// to MX hosts that an enforced MTA-STS policy names, with a valid certificate).
        /// Default: `verified` to a smart host, `opportunistic` to MX hosts. Whatever it says but `off`, what the
        /// domain publishes is kept on top, see `mta_sts` and `dnssec` of [dns].
        "tls" tls: Kind::Word(TlsMode::WORDS), example r#""opportunistic""#;
        /// The oldest version of TLS that is spoken to its hosts.
        "tls_min" p.tls_min: Kind::Word(TlsMin::WORDS), default r#""1.2""#;
        /// Look up the MTA-STS policies (RFC 8461) of the domains of recipients and keep them: a domain that enforces
        /// one gets its mail over TLS with a valid certificate, at the hosts that it names, or not at all. A TXT question
        /// for each domain; nothing for smart hosts.
        "mta_sts" p.mta_sts: Kind::Flag, default "true";
        /// PEM file of certificates to trust besides the system's, for a private CA. It is read with
        /// the configuration; a renewed one is taken up by `mailweir reload`.
        "tls_ca" p.tls_ca: Kind::Authorities, example r#""/etc/mailweir/ca.pem""#;
        /// PEM file of a certificate to show to hosts that ask for one, with those of the authorities between it and a root
        /// behind it. A renewed one is taken up by `mailweir reload`.
        "tls_client_cert" tls_client_cert: Kind::ReadableFile, example r#""/etc/mailweir/client.pem""#;
        /// PEM file of its private key, without a pass phrase, if that is not in the same file.
        "tls_client_key" tls_client_key: Kind::ReadableFile, example r#""/etc/mailweir/client.key""#;
        /// Resume TLS sessions. Off for servers that fail on session tickets.
        "tls_resume" p.tls_resume: Kind::Flag, default "true";
        /// Local addresses to connect from, each with the name to say in EHLO and a weight, if wanted.
        /// Mail of one sender domain stays with one of them while it works. Empty: the system chooses.
        "source" p.source: Kind::Sources, default "[]";
        /// With several source addresses: whether the limits hold for all of them together (`provider`),
        /// or every one has all limits, warm-up and feedback for itself (`source`), as a receiver
        /// counts that looks at addresses. A [[limit]] is a part of the whole in both cases.
        "limits_per" p.limits_per: Kind::Word(LimitsPer::WORDS), default r#""provider""#;
        /// Use PIPELINING where it is offered. Off for hosts behind a middlebox that breaks it.
        "pipelining" p.pipelining: Kind::Flag, default "true";
        /// Use CHUNKING (BDAT), and BINARYMIME, where they are offered. Off for hosts that announce them but break
        /// them.
        "chunking" p.chunking: Kind::Flag, default "true";
        /// A signed message that the next host cannot take as it is: `convert` (the signature
        /// breaks), or `bounce`.
        "signed_conversion" p.signed_conversion: Kind::Word(SignedConversion::WORDS), default r#""convert""#;
    };

    const BUILT_IN_KEYS: &'static [Key<ProviderDraft>] = keys! {
        /// Smart hosts that the profile is about.
        "match.relay" match_relay: Kind::HostPatterns, default "[]";
    };

    fn blank() -> ProviderDraft {
        ProviderDraft {
            p: Provider {
                name: String::new(),
                match_mx: Vec::new(),
                match_domains: Vec::new(),
                relay: None,
                connections: 1,
                messages_per_connection: 1,
                recipients_per_message: 1,
                max_message_size: 0,
                rate: Vec::new(),
                burst: 0,
                count: Count::Messages,
                idle_timeout: Duration::ZERO,
                port: 25,
                allow_private: false,
                tls: TlsMode::Opportunistic,
                tls_min: TlsMin::V12,
                mta_sts: false,
                tls_ca: None,
                tls_client: None,
                tls_resume: true,
                source: Vec::new(),
                limits_per: LimitsPer::Provider,
                pipelining: true,
                chunking: true,
                signed_conversion: SignedConversion::Convert,
                retry: Retry::blank(),
                quota: Vec::new(),
                connection_rate: Vec::new(),
                adaptive: false,
                rules: Vec::new(),
                warmup: None,
            },
            relay: None,
            implicit_tls: None,
            user: None,
            password: None,
            mechanism: None,
            oauth: OAuthDraft::default(),
            tls_client_cert: None,
            tls_client_key: None,
            tls: None,
            rules: Vec::new(),
            match_relay: Vec::new(),
            profile: None,
        }
    }

    fn rules(&mut self, name: &str) -> Option<&mut Vec<RuleDraft>> {
        (name == "on_reply").then_some(&mut self.rules)
    }

    fn retry(&mut self, name: &str) -> Option<&mut Retry> {
        (name == "retry").then_some(&mut self.p.retry)
    }
}

/// A route before `via` is looked up.
pub(super) struct RouteDraft {
    pub when: RouteWhen,
    pub via: String,
    pub priority: Option<i8>,
}

impl Table for RouteDraft {
    const NAME: &'static str = "route";
    const KEYS: &'static [Key<RouteDraft>] = keys! {
        /// Takes messages whose sender matches. "<>" is the null sender of bounces.
        "sender" when.sender: Kind::MailPattern(true), default r#""*""#;
        /// Takes recipients that match.
        "recipient" when.recipient: Kind::MailPattern(false), default r#""*""#;
        /// Takes messages of clients in one of these networks. Empty: of all, and mailweir's own reports.
        "client" when.client: Kind::Networks, default "[]";
        /// Takes messages that came in by the listener of that `name`.
        "listener" when.listener: Kind::Label, example r#""submission""#;
        /// Takes messages of clients that had logged in as this `[[user]]`.
        "user" when.user: Kind::UserName, example r#""shop""#;
        /// The provider they go through. Without it, `priority` must be given, and later routes may
        /// still say the way.
        "via" via: Kind::ProviderName, example r#""ses""#;
        /// Which mail goes first when several wait for one provider: the greater number.
        "priority" priority: Kind::Signed(-9, 9), example "5";
    };

    fn blank() -> RouteDraft {
        RouteDraft {
            when: RouteWhen::matching(units::Pattern::any(), units::Pattern::any()),
            via: String::new(),
            priority: None,
        }
    }
}

/// `[admin]`.
pub(super) struct Admin {
    pub address: Option<SocketAddr>,
}

impl Table for Admin {
    const NAME: &'static str = "admin";
    const KEYS: &'static [Key<Admin>] = keys! {
        /// Where `/healthz` is served over HTTP: 200 while a message could be stored, else 503 and why.
        /// Default: nowhere.
        "address" address: Kind::Address, example r#""127.0.0.1:8025""#;
    };

    fn blank() -> Admin {
        Admin { address: None }
    }
}

impl Table for Log {
    const NAME: &'static str = "log";
    const KEYS: &'static [Key<Log>] = keys! {
        /// `text` for people, or `json`: one object a line.
        "format" format: Kind::Word(LogFormat::WORDS), default r#""text""#;
        /// A level, or a filter such as "info,mailweir::route=debug".
        "level" level: Kind::LogFilter, default r#""info""#;
    };

    fn blank() -> Log {
        Log { format: LogFormat::Text, level: String::new() }
    }
}

/// Keys that are planned but not kept by this version: refused, because nobody may believe in a
/// limit or a protection that is not there. Table, key, what it would do.
pub(super) const UNSUPPORTED: &[(&str, &str, &str)] = &[
    ("", "cluster", "several nodes on one queue"),
    ("", "opentelemetry", "traces by OpenTelemetry"),
    ("listener", "quota", "quotas of clients"),
    ("queue", "dsn", "settings of bounces"),
    ("queue", "quota", "quotas of the queue"),
    ("admin", "token", "authentication of the API"),
    ("log", "file", "log files (redirect standard error)"),
    ("log", "opentelemetry", "traces by OpenTelemetry"),
];
