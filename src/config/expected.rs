//! What a kind of value expects, in words, and what to do where something else is there.

use std::time::Duration;

use toml_edit::Value;

use super::names::enhanced_pattern;
use super::units::{Size, Span};
use super::value::Kind;
use super::{password, source_keys, users, warmup};

impl Kind {
    /// What is expected, for messages and documentation: "a span of time from 1s to 1d, …".
    pub(super) fn expected(self) -> String {
        let span = |ms: u64| Span(Duration::from_millis(ms));
        match self {
            Kind::Flag => "true or false".into(),
            Kind::Word(words) => {
                let quoted: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
                format!("one of {}", quoted.join(", "))
            }
            Kind::Int(min, max) => format!("a whole number from {min} to {max}"),
            Kind::Signed(min, max) => format!("a whole number from {min} to {max}"),
            Kind::Number(min, max) => format!("a number from {min} to {max}"),
            Kind::Span(min, max) => format!("a span of time from {} to {}, such as \"30s\" or \"4h\"", span(min), span(max)),
            Kind::Size(min, max) => format!("a size from {} to {}, such as \"25MiB\"", Size(min), Size(max)),
            Kind::HostName => "a fully qualified host name such as \"relay.example.com\"".into(),
            Kind::Address => "an IP address and port such as \"127.0.0.1:2525\" or \"[::1]:2525\"".into(),
            Kind::ListenAddress => {
                "an address and port such as \"localhost:2525\", \"127.0.0.1:2525\" or \"[::1]:2525\", or \"unix:\" and a path".into()
            }
            Kind::Label => "at most 64 letters, digits, dots, - and _".into(),
            Kind::FileMode => "octal digits in quotes, such as \"0660\"".into(),
            Kind::Group => "the name or number of a group".into(),
            Kind::HostPort => "a host and port such as \"smtp.example.com:587\"".into(),
            Kind::ProviderName => "the name of a provider".into(),
            Kind::User => "a user name".into(),
            Kind::ReadableFile => "the path of a PEM file that can be read".into(),
            Kind::Authorities => "the path of a PEM file of certificates".into(),
            Kind::Store => "\"sqlite:\" and the path of a file, such as \"sqlite:var/mailweir.db\"".into(),
            Kind::LogFilter => {
                "a level (\"error\", \"warn\", \"info\", \"debug\", \"trace\", \"off\"), which `,target=level` may refine".into()
            }
            Kind::Secret => "{ env = \"NAME\" }, { file = \"path\" } or a text".into(),
            Kind::Networks => "a list of addresses and networks such as [\"127.0.0.0/8\", \"::1\"]".into(),
            Kind::HostPatterns => "a list of names in which * stands for anything, such as [\"*.google.com\"]".into(),
            Kind::MailPattern(true) => "an address pattern such as \"*@shop.example\", or \"<>\" for the null sender".into(),
            Kind::MailAddress => "one address, such as \"postmaster@shop.example\"".into(),
            Kind::MailPattern(false) => "an address pattern such as \"*@shop.example\"".into(),
            Kind::Rates => "a rate or a list of rates, such as \"20/s\" or [\"20/s\", \"500/h\"]".into(),
            Kind::CountedRates(connections) => {
                let more = if connections { " or connections" } else { "" };
                format!("a rate or a list of rates, such as \"20/s\" or [\"20/s\", \"500/h recipients\"], of messages, recipients{more}")
            }
            Kind::Nameservers => {
                "a list of servers such as [\"192.0.2.53\", \"192.0.2.53:5353\", \"tls://192.0.2.53#dns.example\"]".into()
            }
            Kind::Rate => "a rate, such as \"10/m\" or \"3/h\"".into(),
            Kind::Warmup => warmup::EXPECTED.into(),
            Kind::Enhanced => "an enhanced code, such as \"4.7.28\" or \"4.7.*\"".into(),
            Kind::ReplyText => "words of the reply, with * for any run of characters, such as \"unusual rate\"".into(),
            Kind::LanePattern => "a name of a provider, or \"@domain\", with * for anything, such as \"gmail\"".into(),
            Kind::Sources => source_keys::EXPECTED.into(),
            Kind::Aliases => "a table of names, such as { root = \"jo@example.com\" }".into(),
            Kind::AliasFile => "the path of a file in the form of /etc/aliases".into(),
            Kind::Directory => "the full path of a directory".into(),
            Kind::OAuthService => {
                "\"microsoft\", \"google\", or a table such as { token_url = \"https://…\", scope = \"…\", client_id = \"…\" }".into()
            }
            Kind::Line => "one line of text".into(),
            Kind::Endpoint => "an address such as \"https://login.example.com/token\"".into(),
            Kind::Day => "a day (UTC) such as \"2027-05-31\"".into(),
            Kind::ClientCertificate => "the path of a PEM file with a certificate, and perhaps its key".into(),
            Kind::TrustAnchor => "the path of a file with DNSKEY records".into(),
            Kind::KeyFile => "the path of a PEM file with a private RSA key".into(),
            Kind::ServiceAccount => "the path of a JSON file of a service account".into(),
            Kind::UserName => format!("a name of at most {} bytes without spaces and colons", users::MAX_NAME),
            Kind::StoredPassword => password::EXPECTED.into(),
            Kind::MailPatterns => "a list of address patterns such as [\"*@shop.example\"], \"<>\" for the null sender".into(),
            Kind::UserFile => "the path of a file of lines NAME:HASH, with hashes of `mailweir passwd`".into(),
            Kind::DkimKey => "the path of a PEM file with a private RSA or Ed25519 key, of mode 0600 or 0640".into(),
            Kind::Selector => "a selector of letters, digits, - and dots".into(),
        }
    }

    /// What to do where a value of another type is there; empty: `expected` says it.
    pub(super) fn remedy(self, value: &Value) -> String {
        match (self, value) {
            (Kind::MailPattern(_) | Kind::MailAddress, Value::Array(_)) => {
                "; for several, a table for each, with the same header".into()
            }
            (Kind::ListenAddress, Value::Array(_)) => "; for several, a [[listener]] for each".into(),
            (Kind::HostPort, Value::Array(_)) => {
                "; there is one: all addresses that its name has in DNS are tried, and another host is another provider"
                    .into()
            }
            (Kind::Int(400, 599), Value::Array(_)) => {
                "; for several, a [[provider.NAME.on_reply]] for each, or `enhanced` with * in it".into()
            }
            (Kind::ProviderName, Value::Array(_)) => {
                "; there is one: where its hosts fail mail waits, and no other takes their place".into()
            }
            (kind, Value::Array(_)) if !kind.is_a_list() => "; there can be one only, without brackets".into(),
            (Kind::Signed(..), Value::String(_)) => "; the greater number goes first".into(),
            // A provider's pace, which people think of by the second.
            (Kind::CountedRates(true), Value::Integer(n)) => {
                format!("; {0} a second is \"{0}/s\", {0} a minute is \"{0}/m\"", n.value())
            }
            (Kind::CountedRates(false), Value::Integer(n)) => {
                format!("; {0} a day is \"{0}/d\", {0} an hour is \"{0}/h\", {0} a second is \"{0}/s\"", n.value())
            }
            (Kind::UserFile, Value::Array(_) | Value::InlineTable(_)) => {
                "; users that stand in the configuration itself are [[user]], each with `name` and `password`".into()
            }
            (Kind::Int(400, 599), Value::String(code)) if enhanced_pattern(code.value()).is_ok() => {
                format!("; did you mean enhanced = \"{}\"?", code.value())
            }
            _ => String::new(),
        }
    }

    /// It may have several values.
    pub(super) fn is_a_list(self) -> bool {
        use Kind::{
            Aliases, CountedRates, HostPatterns, MailPatterns, Nameservers, Networks, Rates, Sources, UserFile, Warmup,
        };
        matches!(
            self,
            Rates
                | CountedRates(_)
                | Networks
                | HostPatterns
                | MailPatterns
                | Nameservers
                | Sources
                | Warmup
                | Aliases
                | UserFile
        )
    }
}
