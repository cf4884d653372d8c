//! How a value that was read becomes a field of the configuration, and back.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::dkim::DkimKey;
use super::oauth::{Endpoint, OAuthGrant, OAuthService};
use super::oauth_files::{ClientCertificate, KeyFile, ServiceAccount};
use super::password::StoredPassword;
use super::rule_keys::TreatAs;
use super::users::UserFile;
use super::value::Val;
use super::{
    AliasFile, Aliases, AuthMechanism, Authorities, BeforeStart, ClientCert, Count, CountedRate, Dnssec, Engine,
    FileMode, LimitsPer, ListenAddress, ListenerAuth, ListenerTlsMode, LogFormat, Over, Overflow, ReceivedSays,
    RuleScope, Secret, SignedConversion, Store, TlsMin, TlsMode, TrustAnchor, Warmup, units,
};
use crate::clock::Timestamp;
use crate::smtp::upstream::Stage;

/// A type of field: from and to the value that was read.
pub(super) trait Field: Sized {
    fn from_val(val: Val) -> Option<Self>;
    fn to_val(&self) -> Option<Val>;
}

macro_rules! field {
    ($($type:ty: $pattern:pat => $from:expr, $this:ident => $to:expr;)*) => {$(
        impl Field for $type {
            fn from_val(val: Val) -> Option<Self> {
                match val { $pattern => $from, _ => None }
            }
            fn to_val(&self) -> Option<Val> {
                let $this = self;
                Some($to)
            }
        }
    )*};
}

field! {
    bool: Val::Flag(b) => Some(b), b => Val::Flag(*b);
    u64: Val::Int(n) | Val::Size(n) => Some(n), n => Val::Int(*n);
    u32: Val::Int(n) => n.try_into().ok(), n => Val::Int(u64::from(*n));
    u16: Val::Int(n) => n.try_into().ok(), n => Val::Int(u64::from(*n));
    i8: Val::Signed(n) => n.try_into().ok(), n => Val::Signed(i64::from(*n));
    usize: Val::Int(n) => n.try_into().ok(), n => Val::Int(*n as u64);
    f64: Val::Number(n) => Some(n), n => Val::Number(*n);
    Duration: Val::Span(d) => Some(d), d => Val::Span(*d);
    String: Val::Text(t) => Some(t), t => Val::Text(t.clone());
    SocketAddr: Val::Address(a) => Some(a), a => Val::Address(*a);
    ListenAddress: Val::ListenAddress(a) => Some(a), a => Val::ListenAddress(a.clone());
    FileMode: Val::FileMode(m) => Some(m), m => Val::FileMode(*m);
    (String, u16): Val::HostPort(h, p) => Some((h, p)), hp => Val::HostPort(hp.0.clone(), hp.1);
    PathBuf: Val::Path(p) => Some(p), p => Val::Path(p.clone());
    Authorities: Val::Authorities(a) => Some(a), a => Val::Authorities(a.clone());
    Store: Val::Store(s) => Some(s), s => Val::Store(s.clone());
    Secret: Val::Secret { secret, .. } => Some(secret), s => Val::Secret { secret: s.clone(), literal: false };
    Vec<super::Network>: Val::Networks(v) => Some(v), v => Val::Networks(v.clone());
    Vec<units::Pattern>: Val::Patterns(v) => Some(v), v => Val::Patterns(v.clone());
    units::Pattern: Val::Pattern(p) => Some(p), p => Val::Pattern(p.clone());
    Vec<units::Rate>: Val::Rates(v) => Some(v), v => Val::Rates(v.clone());
    Vec<CountedRate>: Val::CountedRates(v) => Some(v), v => Val::CountedRates(v.clone());
    Vec<super::Nameserver>: Val::Nameservers(v) => Some(v), v => Val::Nameservers(v.clone());
    units::Rate: Val::Rate(r) => Some(r), r => Val::Rate(*r);
    Warmup: Val::Warmup(w) => Some(w), w => Val::Warmup(w.clone());
    Aliases: Val::Aliases(a) => Some(a), a => Val::Aliases(a.clone());
    AliasFile: Val::AliasFile(f) => Some(f), f => Val::AliasFile(f.clone());
    Endpoint: Val::Endpoint(e) => Some(e), e => Val::Endpoint(e.clone());
    Timestamp: Val::Day(day) => Some(day), day => Val::Day(*day);
    ClientCertificate: Val::ClientCertificate(file) => Some(file), file => Val::ClientCertificate(file.clone());
    TrustAnchor: Val::TrustAnchor(file) => Some(file), file => Val::TrustAnchor(file.clone());
    KeyFile: Val::KeyFile(file) => Some(file), file => Val::KeyFile(file.clone());
    DkimKey: Val::DkimKey(file) => Some(file), file => Val::DkimKey(file.clone());
    ServiceAccount: Val::ServiceAccount(file) => Some(file), file => Val::ServiceAccount(file.clone());
    StoredPassword: Val::StoredPassword(s) => Some(s), s => Val::StoredPassword(s.clone());
    UserFile: Val::UserFile(f) => Some(f), f => Val::UserFile(f.clone());
    Vec<super::Source>: Val::Sources(v) => Some(v), v => Val::Sources(v.clone());
}

impl<T: Field> Field for Option<T> {
    fn from_val(val: Val) -> Option<Self> {
        T::from_val(val).map(Some)
    }

    fn to_val(&self) -> Option<Val> {
        self.as_ref().and_then(T::to_val)
    }
}

macro_rules! words {
    ($($type:ident { $($variant:ident = $word:literal),+ })*) => {$(
        impl $type {
            /// The words of the configuration.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $word),+ }
            }
        }
        impl Field for $type {
            fn from_val(val: Val) -> Option<Self> {
                match val { $(Val::Word($word) => Some($type::$variant),)+ _ => None }
            }
            fn to_val(&self) -> Option<Val> {
                Some(Val::Word(self.as_str()))
            }
        }
    )*};
}

words! {
    Engine { Native = "native", Mailin = "mailin" }
    AuthMechanism {
        Plain = "plain", Login = "login", ScramSha256 = "scram-sha-256", CramMd5 = "cram-md5", XOauth2 = "xoauth2",
        OauthBearer = "oauthbearer"
    }
    OAuthService { Microsoft = "microsoft", Google = "google", Other = "other" }
    OAuthGrant {
        ClientCredentials = "client_credentials", RefreshToken = "refresh_token", ServiceAccount = "service_account"
    }
    ListenerAuth { Off = "off", Offered = "offered", Required = "required" }
    ClientCert { Off = "off", Offered = "offered", Required = "required" }
    ListenerTlsMode { StartTls = "starttls", Implicit = "implicit" }
    Count { Messages = "messages", Recipients = "recipients" }
    TlsMode { Off = "off", Opportunistic = "opportunistic", Required = "required", Verified = "verified", Dane = "dane", MtaSts = "mta-sts" }
    Dnssec { Off = "off", TrustAd = "trust-ad", Validate = "validate" }
    TlsMin { V12 = "1.2", V13 = "1.3" }
    SignedConversion { Convert = "convert", Bounce = "bounce" }
    LogFormat { Text = "text", Json = "json" }
    RuleScope { Recipient = "recipient", Connection = "connection", Provider = "provider", Account = "account" }
    ReceivedSays { All = "all", Minimal = "minimal" }
    Over { Wait = "wait", Reject = "reject", Hold = "hold", Lock = "lock" }
    LimitsPer { Provider = "provider", Source = "source" }
    Overflow { Wait = "wait", Source = "source" }
    BeforeStart { DayOne = "day_1", Nothing = "nothing" }
    TreatAs { Temporary = "temporary", Permanent = "permanent" }
}

/// The stages at which a server replies, as they stand in a rule.
const STAGES: [(&str, Stage); 10] = [
    ("greeting", Stage::Greeting),
    ("ehlo", Stage::Ehlo),
    ("starttls", Stage::StartTls),
    ("auth", Stage::Auth),
    ("idle", Stage::Idle),
    ("mail", Stage::Mail),
    ("rcpt", Stage::Rcpt),
    ("data", Stage::Data),
    ("body", Stage::Body),
    ("final", Stage::Final),
];

/// The words for [`STAGES`].
pub(super) const STAGE_WORDS: &[&str] =
    &["greeting", "ehlo", "starttls", "auth", "idle", "mail", "rcpt", "data", "body", "final"];

impl Field for Stage {
    fn from_val(val: Val) -> Option<Stage> {
        match val {
            Val::Word(word) => STAGES.iter().find(|(w, _)| *w == word).map(|(_, stage)| *stage),
            _ => None,
        }
    }

    fn to_val(&self) -> Option<Val> {
        STAGES.iter().find(|(_, stage)| stage == self).map(|(word, _)| Val::Word(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_of_a_rule_has_its_word() {
        assert_eq!(STAGES.map(|(word, _)| word), STAGE_WORDS);
    }
}
