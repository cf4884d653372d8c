//! Words that people use for a key of the table they are in: `port` of a listener, `domain` of a route. They come before
//! keys that only look alike (`delay` is not `relay`), and before other tables that have a key of that name.

/// Tables, such words in them, and what to write.
const WORDS: &[(&str, &[&str], &str)] = &[
    (
        "listener",
        &["max_rcpt", "max_rcpts", "max_rcpt_to", "max_recipient", "recipient_limit", "recipients_max", "rcpt_max"],
        "max_recipients = 100",
    ),
    (
        "listener",
        &["max_size", "size", "maxsize", "message_size", "max_message", "max_bytes", "max_length"],
        "max_message_size = \"25MiB\"",
    ),
    (
        "listener",
        &["starttls", "usestarttls", "use_tls", "usetls", "tls_starttls", "ssl", "use_ssl", "tls_mode"],
        "tls = { mode = \"starttls\", cert = \"PATH\", key = \"PATH\" }",
    ),
    ("listener", &["max_clients", "max_sessions", "clients", "concurrency"], "max_connections = 100"),
    (
        "listener",
        &["username", "password", "login"],
        "auth = \"required\", and a [[user]] with `name` and `password` for each who may log in",
    ),
    ("listener", &["port"], "address = \"127.0.0.1:587\", which has the port"),
    ("listener", &["host", "ip"], "address = \"127.0.0.1:2525\""),
    ("user", &["username", "user", "login"], "name = \"shop\""),
    (
        "user",
        &["pass", "hash", "secret", "passwd"],
        "password = { file = \"PATH\" }, with what `mailweir passwd` printed",
    ),
    ("route", &["domain", "domains", "recipient_domain", "rcpt_domain"], "recipient = \"*@example.com\""),
    ("route", &["sender_domain", "from_domain"], "sender = \"*@example.com\""),
    ("route", &["to", "rcpt", "rcpt_to", "recipients"], "recipient = \"*@example.com\""),
    ("route", &["from", "mail_from", "senders"], "sender = \"*@example.com\""),
    (
        "route",
        &["provider", "relay", "host", "transport", "nexthop", "smarthost", "server"],
        "via = \"NAME\", with the [provider.NAME] whose `relay` is the host",
    ),
    ("route", &["ip", "network", "networks", "source_ip", "clients"], "client = [\"192.0.2.0/24\"]"),
    ("limit", &["domain", "from", "sender_domain"], "sender = \"*@example.com\""),
    ("limit", &["max", "limit", "per_hour", "per_day"], "quota = \"500/h\""),
    ("provider", &["delay", "interval", "sleep", "wait", "pause"], "rate = \"30/m\", which is one in two seconds"),
    ("provider", &["domain", "domains_match", "mx_match"], "match = { domains = [\"example.com\"] }"),
    ("retry", &["lifetime", "max_age", "expiry", "give_up", "ttl", "queue_lifetime", "timeout"], "expire = \"5d\""),
    (
        "retry",
        &["intervals", "schedule", "delays", "backoff", "times"],
        "first = \"5m\", factor = 2 and max = \"4h\": each wait is `factor` times the one before",
    ),
    (
        "queue",
        &["directory", "path", "dir", "spool", "file", "database", "db", "location"],
        "store = \"sqlite:PATH\", which is a file",
    ),
    ("dkim", &["private_key", "keyfile", "key_file", "pem"], "key = \"PATH\""),
    ("dkim", &["domains"], "domain = \"example.com\", and a [[dkim]] for each domain"),
    ("admin", &["port", "listen", "bind"], "address = \"127.0.0.1:9090\""),
    (
        "provider",
        &[
            "tls_verify",
            "verify",
            "verify_tls",
            "verify_peer",
            "insecure",
            "insecure_skip_verify",
            "skip_verify",
            "ssl_verify",
            "tls_insecure",
            "check_certificate",
        ],
        "tls = \"required\", which takes whatever certificate the host shows, or tls_ca = \"PATH\" for an authority of your own",
    ),
    (
        "provider",
        &[
            "per_second",
            "per_minute",
            "per_hour",
            "max_per_hour",
            "max_per_minute",
            "hourly",
            "hourly_limit",
            "max_rate",
        ],
        "rate = \"500/h\" for a pace, or quota = \"500/h\" for a number at whatever pace",
    ),
    ("provider", &["per_day", "max_per_day", "daily", "daily_limit", "daily_quota"], "quota = \"5000/d\""),
    (
        "provider",
        &["host", "hostname", "server", "smarthost", "relayhost", "smart_host", "address"],
        "relay = \"smtp.example.com:587\", with the port",
    ),
    (
        "provider",
        &["enabled", "disabled", "active", "enable", "disable"],
        "the table itself where it is meant, and # before its lines where it is not; `mailweir provider pause NAME` keeps its mail back",
    ),
    ("dkim", &["algorithm", "algo", "key_type", "type"], "nothing of the kind: the key says what it signs with"),
    (
        "",
        &["group", "run_as", "setuid", "setgid", "uid", "gid", "chroot", "daemonize", "pidfile", "pid_file", "daemon"],
        "that in what starts it, such as User= of systemd (docs/operations.md)",
    ),
    (
        "on_reply",
        &["action", "actions", "do", "then", "effect"],
        "what is to be done as a key of its own: pause = true with `for`, slow_to, delay, treat_as, or alert = true",
    ),
    (
        "",
        &["include", "includes", "include_dir", "import", "imports", "conf_d"],
        "everything in this one file: no other is read into it",
    ),
    ("", &["on_reply", "rule", "rules"], "[[default.on_reply]] or [[provider.NAME.on_reply]]"),
];

/// What is meant by such a word in `table` (empty: above all tables).
pub(in crate::config) fn other_word(name: &str, table: &str) -> Option<String> {
    let plain = name.to_ascii_lowercase().replace('-', "_");
    let (_, _, meant) = WORDS.iter().find(|(of, words, _)| *of == table && words.contains(&plain.as_str()))?;
    Some(format!("`{name}` is no key here: expected {meant}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::report::key_names;

    /// A word that is a key would make the key useless.
    #[test]
    fn no_key_of_a_table_is_taken_for_another_word() {
        for (table, words, meant) in WORDS {
            for word in *words {
                let whole = if table.is_empty() { (*word).to_owned() } else { format!("{table}.{word}") };
                // Above all tables a table may have the name of one that stands in others.
                let inner = format!("{whole}.");
                let is_key = |known: &String| *known == whole || !table.is_empty() && known.starts_with(&inner);
                assert!(!key_names().iter().any(is_key), "{whole}");
                assert!(other_word(word, table).is_some_and(|told| told.ends_with(meant)));
            }
        }
        assert_eq!(other_word("port", "provider"), None);
        assert!(other_word("Private-Key", "dkim").is_some());
    }
}
