//! Files of other programs: a whole `main.cf`, YAML, JSON and the like, known by what they begin with, and what
//! the names of their settings are here.

use std::ops::Range;

use super::scan::{Scan, line_around};

/// What a name of another program's configuration is here; the second is for "expected …".
const NAMES: &[(&[&str], &str)] = &[
    (
        &["relayhost", "smarthost", "smart_host", "mailhub", "default_transport", "upstream"],
        "[provider.NAME] relay = \"HOST:587\" and [[route]] via = \"NAME\"",
    ),
    (
        &[
            "myhostname",
            "primary_hostname",
            "server_name",
            "fqdn",
            "helo",
            "helo_name",
            "ehlo",
            "smtp_helo_name",
            "heloname",
        ],
        "hostname = \"relay.example.com\" above all tables",
    ),
    (&["mydomain", "myorigin", "rewritedomain", "qualify_domain"], "default_domain = \"example.com\" above all tables"),
    (
        &[
            "mynetworks",
            "relay_from_hosts",
            "allowed_networks",
            "trusted_networks",
            "allowed_ips",
            "permit",
            "networks",
        ],
        "[[listener]] allow = [\"192.0.2.0/24\"]",
    ),
    (
        &["inet_interfaces", "bind", "bind_address", "listen", "listen_address", "local_interfaces", "interfaces"],
        "[[listener]] address = \"127.0.0.1:2525\"",
    ),
    (
        &[
            "smtp_sasl_password_maps",
            "smtp_sasl_auth_enable",
            "authuser",
            "authpass",
            "username",
            "password",
            "user",
            "login",
        ],
        "auth = { user = \"NAME\", password = { file = \"PATH\" } } in [provider.NAME]",
    ),
    (
        &[
            "default_destination_concurrency_limit",
            "smtp_destination_concurrency_limit",
            "concurrency",
            "max_connections",
            "maxconnections",
            "connection_limit",
            "remote_max_parallel",
        ],
        "connections = 5 in [default] or [provider.NAME]",
    ),
    (
        &[
            "default_destination_rate_delay",
            "smtp_destination_rate_delay",
            "rate_limit",
            "ratelimit",
            "rates",
            "throttle",
            "max_rate",
            "messages_per_minute",
            "messages_per_second",
            "messages_per_hour",
        ],
        "rate = \"20/m\" in [default] or [provider.NAME]",
    ),
    (
        &["default_destination_recipient_limit", "smtp_destination_recipient_limit", "max_rcpt"],
        "recipients_per_message = 50 in [default] or [provider.NAME]",
    ),
    (&["daily_limit", "messages_per_day", "limit_per_day", "hourly_limit"], "quota = \"5000/d\" in [provider.NAME]"),
    (
        &["transport_maps", "sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps", "transport"],
        "[[route]] sender = \"*@shop.example\" (or recipient = …) and via = \"NAME\"",
    ),
    (&["message_size_limit", "size_limit"], "max_message_size = \"25MiB\" in [[listener]]"),
    (
        &["alias_maps", "alias_database", "virtual_alias_maps"],
        "alias_file = \"/etc/aliases\" or aliases = { root = \"jo@example.com\" } above all tables",
    ),
    (&["maximal_queue_lifetime", "bounce_queue_lifetime", "queue_lifetime"], "[retry] expire = \"5d\""),
    (&["minimal_backoff_time", "queue_run_delay", "retry_interval", "retry_delay"], "[retry] first = \"1m\""),
    (&["maximal_backoff_time", "max_retry_delay"], "[retry] max = \"4h\""),
    (&["delay_warning_time", "delay_warning"], "[retry] warn = \"4h\""),
    (
        &[
            "smtp_tls_security_level",
            "smtp_use_tls",
            "usetls",
            "usestarttls",
            "starttls",
            "use_tls",
            "tls_starttls",
            "ssl",
            "use_ssl",
            "smtp_tls_wrappermode",
        ],
        "tls = \"verified\" in [provider.NAME] (port 465 begins with TLS by itself)",
    ),
    (
        &["smtp_tls_cafile", "smtp_tls_capath", "ca_file", "cafile", "tls_trust_file"],
        "tls_ca = \"PATH\" in [provider.NAME]",
    ),
    (
        &[
            "smtpd_tls_cert_file",
            "smtpd_tls_key_file",
            "smtpd_tls_security_level",
            "smtpd_use_tls",
            "tls_cert",
            "tls_key",
            "certificate",
            "ssl_certificate",
        ],
        "tls = { mode = \"starttls\", cert = \"PATH\", key = \"PATH\" } in [[listener]]",
    ),
    (
        &["smtp_bind_address", "smtp_bind_address6", "source_ip", "source_address", "local_address", "outgoing_ip"],
        "source = [\"192.0.2.1\"] in [provider.NAME]",
    ),
    (
        &["queue_directory", "spool_directory", "spool", "database", "db", "queue_dir"],
        "[queue] store = \"sqlite:PATH\"",
    ),
    (&["loglevel", "log_level", "debug", "verbose", "verbosity"], "[log] level = \"debug\""),
    (&["nameserver", "resolver", "dns_servers", "resolvers"], "[dns] nameservers = [\"192.0.2.53\"]"),
];

/// What this is in mailweir, if another program calls it so.
pub(in crate::config) fn meant_by(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    NAMES.iter().find(|(names, _)| names.contains(&name.as_str())).map(|(_, here)| *here)
}

/// Names that only Postfix has.
fn is_of_postfix(name: &str) -> bool {
    let only = [
        "myhostname",
        "mydomain",
        "myorigin",
        "mydestination",
        "mynetworks",
        "mynetworks_style",
        "inet_interfaces",
        "inet_protocols",
        "relayhost",
        "relay_domains",
        "relay_transport",
        "default_transport",
        "transport_maps",
        "alias_maps",
        "alias_database",
        "biff",
        "append_dot_mydomain",
        "readme_directory",
        "compatibility_level",
        "mailbox_size_limit",
        "recipient_delimiter",
        "virtual_alias_maps",
        "sender_dependent_relayhost_maps",
        "queue_directory",
        "message_size_limit",
        "maximal_queue_lifetime",
        "bounce_queue_lifetime",
        "minimal_backoff_time",
        "maximal_backoff_time",
        "header_checks",
        "sender_canonical_maps",
    ];
    let prefixes = ["smtpd_", "smtp_", "lmtp_", "milter_", "default_destination_", "virtual_", "local_recipient"];
    only.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// The name before the first `=` of a line.
pub(super) fn name_of(line: &str) -> &str {
    line.split('=').next().unwrap_or_default().trim()
}

/// If the text is that of another format or program: where that shows, and what to say.
pub(super) fn told(scan: &Scan<'_>, at: usize) -> Option<(Range<usize>, String)> {
    let lines = || {
        let mut start = 0;
        scan.text.split_inclusive('\n').map(move |line| {
            let here = start;
            start += line.len();
            (here, line.trim())
        })
    };
    let written = || lines().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let (first, begins) = written().next()?;
    let whole = |start: usize| line_around(scan.text, start);
    if begins.starts_with('{') && !begins.starts_with("{{") && !begins.starts_with("{%") {
        let message =
            "is JSON: expected TOML, with `name = value` in each line and a table under its header, such as [queue]";
        return Some((whole(first), message.into()));
    }
    if begins.starts_with("<?") || begins.starts_with("<!") || (begins.starts_with('<') && begins.ends_with('>')) {
        return Some((whole(first), "is XML or HTML: expected TOML, with `name = value` in each line".into()));
    }
    let assigns = written().filter(|(_, line)| is_assignment(line)).count();
    let yaml: Vec<usize> = written().filter(|(_, line)| is_yaml(line)).map(|(start, _)| start).collect();
    if let Some(start) = yaml.first().filter(|_| begins.starts_with("---") || (yaml.len() > 1 && assigns == 0)) {
        let at = if begins.starts_with("---") { first } else { *start };
        let message = "is YAML: expected TOML: `name = \"value\"` instead of `name: value`, a header such as [queue] \
                       above the keys of a table, [[listener]] for each entry of a list, and lists as [\"a\", \"b\"]";
        return Some((whole(at), message.into()));
    }
    let postfix: Vec<(usize, &str)> =
        written().filter(|(_, line)| line.contains('=') && is_of_postfix(name_of(line))).collect();
    if let Some((start, line)) = postfix.iter().find(|(start, _)| postfix.len() > 1 || whole(*start).contains(&at)) {
        let what =
            if postfix.len() > 1 { "this is a main.cf of Postfix" } else { "this is a line of Postfix's main.cf" };
        let known = postfix.iter().find_map(|(_, line)| Some((name_of(line), meant_by(name_of(line))?)));
        let own = meant_by(name_of(line)).map(|here| (name_of(line), here));
        let hint = own.or(known).map(|(name, here)| format!("; {name} is here {here}"));
        let message = format!(
            "{what}: expected TOML, in which text stands in quotes and settings have other names{}",
            hint.unwrap_or_default()
        );
        return Some((whole(*start), message));
    }
    let (start, line) =
        lines().find(|(start, line)| whole(*start).contains(&at) || (*start >= at && !line.is_empty()))?;
    program(line).map(|(program, example)| {
        let message = format!("this is {program}: expected TOML, with `name = value` under headers, such as {example}");
        (whole(start), message)
    })
}

fn is_assignment(line: &str) -> bool {
    let name = name_of(line);
    line.contains('=') && !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// `name: value`, `name:`, `- value`.
fn is_yaml(line: &str) -> bool {
    let line = line.strip_prefix("- ").unwrap_or(line);
    let (name, rest) = line.split_once(':').unwrap_or((line, "x"));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    line == "---" || (!name.is_empty() && name.chars().all(plain) && (rest.is_empty() || rest.starts_with(' ')))
}

/// The program whose configuration has such a line, and what is here like it.
fn program(line: &str) -> Option<(&'static str, &'static str)> {
    let mut words = line.split_whitespace();
    let (first, second) = (words.next()?, words.next().unwrap_or_default());
    const SMART: &str = "[provider.NAME] and relay = \"smtp.example.com:587\"";
    const LISTEN: &str = "[[listener]] and address = \"127.0.0.1:2525\"";
    let found = match (first, second) {
        ("begin", "acl" | "routers" | "transports" | "retry" | "rewrite" | "authenticators") => {
            ("a configuration of Exim", SMART)
        }
        ("listen", "on") => ("a configuration of OpenSMTPD", LISTEN),
        ("action" | "match", _) if line.contains("relay") || line.contains(" for ") => {
            ("a configuration of OpenSMTPD", SMART)
        }
        ("defaults", "") | ("account", _) | ("host" | "port" | "tls", _)
            if !second.starts_with('=') && !line.contains('=') =>
        {
            ("a configuration of msmtp", SMART)
        }
        (_, "inet" | "unix" | "fifo") => ("a line of Postfix's master.cf", LISTEN),
        ("server" | "http" | "mail" | "upstream" | "stream", "{") => ("a configuration of nginx", LISTEN),
        ("listen" | "server" | "backend" | "frontend" | "mode", _) if !line.contains('=') => {
            ("a configuration of HAProxy or nginx", LISTEN)
        }
        _ if first.starts_with("define(")
            || first == "dnl"
            || first.starts_with("MAILER(")
            || first.starts_with("FEATURE(") =>
        {
            ("a configuration of Sendmail", SMART)
        }
        _ => {
            let ssmtp = [
                "mailhub",
                "AuthUser",
                "AuthPass",
                "UseTLS",
                "UseSTARTTLS",
                "rewriteDomain",
                "FromLineOverride",
                "AuthMethod",
            ];
            let name = name_of(line);
            (line.contains('=') && ssmtp.contains(&name)).then_some(("a configuration of ssmtp", SMART))?
        }
    };
    Some(found)
}
