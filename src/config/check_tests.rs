//! Tests of what shows when values are compared. What is refused is in `tests/bad_config`.

use super::super::collide;
use super::*;

#[test]
fn the_host_name_is_always_a_full_one() {
    let hosts = "127.0.0.1 localhost\n192.0.2.1\tbox.example.com box # box2\n";
    assert_eq!(full_name("mail.Example.com.", ""), ("mail.example.com".into(), true));
    assert_eq!(full_name("box", hosts), ("box.example.com".into(), true));
    assert_eq!(full_name("box2", hosts), ("box2.localdomain".into(), false));
    assert_eq!(full_name("localhost", hosts), ("localhost.localdomain".into(), false));
    for bad in ["", "a b", "192.0.2.1", "-x", "a..b"] {
        assert_eq!(full_name(bad, hosts), ("localhost.localdomain".into(), false), "{bad}");
    }
}

#[test]
fn providers_take_limits_from_default_but_a_smart_host_keeps_its_tls() {
    let text = "builtin_profiles = false\nretry.max = '3h'\n[default]\ntls = 'off'\nrate = '3/s'\nretry.first = '2s'\n[provider.mx]\n\
                    match.domains = ['x.example']\nretry.factor = 3\n[provider.s]\nrelay = 'H.example.:465'\nrate = []\n[[route]]\nvia = 's'\n";
    let config = Config::parse(text, "x").unwrap();
    let [mx, s] = config.providers.as_slice() else { panic!("{:?}", config.providers) };
    assert_eq!((config.default.tls, mx.tls, s.tls), (TlsMode::Off, TlsMode::Off, TlsMode::Verified));
    assert_eq!((mx.rate.len(), s.rate.len()), (1, 0));
    let (secs, hours) = (Duration::from_secs(2), Duration::from_secs(3 * 3600));
    assert_eq!((mx.retry.first, mx.retry.factor, mx.retry.max), (secs, 3.0, hours));
    assert_eq!((s.retry.first, s.retry.factor, s.retry.max), (secs, 2.0, hours));
    let relay = s.relay.as_ref().unwrap();
    assert_eq!((&*relay.host, relay.implicit_tls), ("h.example", true));
    assert_eq!(config.routes[0].via.name, "s");
    assert_eq!(config.default.name, "default");
}

#[test]
fn a_priority_holds_for_a_domain_in_either_form() {
    let text = "hostname = 'a.example'\n[[route]]\nrecipient = '*@müller.example'\npriority = 5\n\
                    [[route]]\nsender = '*@xn--bcher-kva.example'\npriority = -5\n";
    let config = Config::parse(text, "x").unwrap();
    let address = |text: &str| crate::mail::Address::parse(text).unwrap();
    let priority = |sender: &str, to: &str| config.priority_for(Some(&address(sender)), &address(to));
    for (sender, to, expected) in [
        ("a@x.example", "b@müller.example", Some(5)),
        ("a@x.example", "b@xn--mller-kva.example", Some(5)),
        ("a@bücher.example", "b@x.example", Some(-5)),
        ("a@xn--bcher-kva.example", "b@x.example", Some(-5)),
        ("a@x.example", "b@x.example", None),
    ] {
        assert_eq!(priority(sender, to), expected, "{sender} {to}");
    }
    assert_eq!(config.priority_for(None, &address("b@XN--MLLER-KVA.example")), Some(5));
}

#[test]
fn sources_are_addresses_or_tables_and_print_as_they_were_meant() {
    let text = "hostname = 'a.example'\n[provider.p]\nmatch.domains = ['x.example']\n\
                    source = ['192.0.2.1', { address = '2001:db8::1', name = 'out.example', weight = 3 }]\n";
    let loaded = super::super::Loaded::parse(text, "x").unwrap();
    let [first, second] = loaded.config.providers[0].source.as_slice() else { panic!() };
    assert_eq!((first.address.to_string().as_str(), &first.name, first.weight), ("192.0.2.1", &None, 1));
    let second = (second.address.to_string(), second.name.as_deref(), second.weight);
    assert_eq!(second, ("2001:db8::1".into(), Some("out.example"), 3));
    let again = Config::parse(&report::AsToml(&loaded.settings).to_string(), "again").unwrap();
    assert_eq!(again.providers[0].source, loaded.config.providers[0].source);
}

#[test]
fn each_source_is_a_provider_with_its_own_warm_up_and_prints_so() {
    let text = "hostname = 'a.example'\n[provider.p]\nmatch.domains = ['x.example']\nlimits_per = 'source'\n\
                    warmup = { start = '2026-12-01', days = [50] }\nsource = ['192.0.2.1', { address = '192.0.2.2', \
                    warmup = { start = '2026-12-01', days = [7, 9], overflow = 'source' } }]\n";
    let loaded = super::super::Loaded::parse(text, "x").unwrap();
    let provider = &loaded.config.providers[0];
    let each = super::super::sources::each(provider);
    let days = |p: &Provider| p.warmup.as_ref().map(|plan| (plan.days.clone(), plan.overflow));
    assert_eq!(each.len(), 2);
    assert_eq!(days(&each[0]), Some((vec![50], super::super::Overflow::Wait)));
    assert_eq!(days(&each[1]), Some((vec![7, 9], super::super::Overflow::Source)));
    assert!(each.iter().zip(&provider.source).all(|(p, source)| p.source == std::slice::from_ref(source)));
    let again = Config::parse(&report::AsToml(&loaded.settings).to_string(), "again").unwrap();
    assert_eq!(again.providers[0].source, provider.source);
    assert_eq!(again.providers[0].limits_per, provider.limits_per);
}

#[test]
fn what_is_odd_but_possible_is_a_warning() {
    let made = rcgen::generate_simple_self_signed(vec!["ca.example".to_owned()]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), made.cert.pem()).unwrap();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "S3cr3t\n").unwrap();
    let (ca, password) = (file.path().display(), secret.path().display());
    let text = format!(
        "hostname = 'a.example'\nretry.warn = '9d'\nadmin.address = '192.0.2.1:80'\n[provider.s]\nrelay = 'h.example:25'\n\
             auth = {{ user = 'u', password = {{ file = '{password}' }} }}\ntls = 'opportunistic'\ntls_ca = '{ca}'\n[[route]]\nvia = 's'\n"
    );
    let loaded = super::super::Loaded::parse(&text, "x").unwrap();
    let mut keys: Vec<&str> = loaded.warnings.iter().map(|w| w.problem.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["admin.address", "provider.s.tls", "provider.s.tls_ca", "retry.warn"]);
    assert!(loaded.warnings.iter().all(|w| w.problem.line > 0));
}

#[test]
fn a_password_for_a_host_whose_certificate_is_not_checked_is_a_warning() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "S3cr3t\n").unwrap();
    let secret = file.path().display();
    for (host, tls, told) in [
        ("h.example", "tls = 'off'\n", Some("the password may travel in clear text: expected \"verified\"")),
        ("h.example", "tls = 'opportunistic'\n", Some("the password may travel in clear text: expected \"verified\"")),
        ("h.example", "tls = 'required'\n", Some("the password goes to whoever answers, since the certificate")),
        ("h.example", "tls = 'verified'\n", None),
        ("h.example", "", None),
        ("127.0.0.1", "tls = 'required'\n", None),
        // Of a profile for MX hosts, which says tls = "required".
        ("mail.gmx.net", "", None),
    ] {
        let text = format!(
            "hostname = 'a.example'\n[provider.gmx]\nrelay = '{host}:587'\nauth = {{ user = 'u', password = {{ file = \
                 '{secret}' }} }}\n{tls}[[route]]\nvia = 'gmx'\n"
        );
        let warnings = super::super::Loaded::parse(&text, "x").unwrap().warnings;
        let said: Vec<&str> = warnings.iter().map(|warning| warning.problem.message.as_str()).collect();
        match told {
            None => assert!(said.is_empty(), "{host} {tls}: {said:?}"),
            Some(told) => {
                assert!(matches!(said.as_slice(), [said] if said.starts_with(told)), "{host} {tls}: {said:?}");
                assert_eq!((&*warnings[0].problem.key, warnings[0].problem.line), ("provider.gmx.tls", 5));
            }
        }
    }
}

#[test]
fn a_password_so_short_that_masking_it_hides_replies_is_warned_of() {
    for (password, warns) in [("x", true), ("abc", true), ("abcd", false)] {
        let text = format!(
            "hostname = 'a.example'\n[provider.s]\nrelay = '127.0.0.1:587'\nauth = {{ user = 'u', password = '{password}' }}\n\
             [[route]]\nvia = 's'\n"
        );
        let warnings = super::super::Loaded::parse(&text, "x").unwrap().warnings;
        let told = warnings.iter().any(|warning| {
            warning.problem.key == "provider.s.auth.password"
                && warning.problem.message.contains("fewer than 4 characters")
        });
        assert_eq!(told, warns, "{warnings:?}");
        assert!(!format!("{warnings:?}").contains("abc"), "it is not repeated");
    }
}

#[test]
fn addresses_that_cannot_both_be_bound() {
    let hit = |a: &str, b: &str| collide(a.parse().unwrap(), b.parse().unwrap());
    assert!(hit("127.0.0.1:25", "127.0.0.1:25") && hit("0.0.0.0:25", "127.0.0.1:25") && hit("[::]:25", "0.0.0.0:25"));
    assert!(
        !hit("127.0.0.1:25", "127.0.0.1:26")
            && !hit("127.0.0.1:0", "127.0.0.1:0")
            && !hit("127.0.0.2:25", "127.0.0.1:25")
    );
    assert!(!hit("0.0.0.0:25", "[::1]:25"));
}

/// A password whose key was forgotten stands where a key is expected: no message repeats it.
#[test]
fn a_secret_in_the_place_of_a_key_is_not_repeated() {
    const SECRET: &str = "hunter2-S3cr3t";
    for text in [
        "SECRET = 'x'\n",
        "[SECRET]\nx = 1\n",
        "[provider.p]\nmatch.domains = ['x.example']\nSECRET = 'x'\n",
        "[provider.p]\nmatch.domains = ['x.example']\nSECRET.x = 'x'\n",
        "[provider.p]\nmatch = { SECRET = 'x' }\n",
        "[provider.p]\nrelay = 'h.example:465'\nauth = { user = 'u', SECRET = 'x' }\n[[route]]\nvia = 'p'\n",
        "[provider.p]\nrelay = 'h.example:465'\nauth = { user = 'u', password = { SECRET = 'x' } }\n[[route]]\nvia = 'p'\n",
        "[provider.p]\nmatch.domains = ['x.example']\nwarmup = { start = '2026-12-01', SECRET = [3] }\n",
        "[provider.p]\nmatch.domains = ['x.example']\nsource = [{ address = '192.0.2.1', SECRET = 2 }]\n",
        "[[provider.p.on_reply]]\nSECRET = 1\n",
        "[[listener]]\ntls = { mode = 'starttls', SECRET = 'x' }\n",
        "[queue]\nSECRET = 1\nSECRET = 2\n",
        "[queue]\nSECRET\n",
        "[queue]\nSECRET x = 1\n",
    ] {
        let text = format!("hostname = 'a.example'\n{}", text.replace("SECRET", SECRET));
        let told = Config::parse(&text, "x").expect_err(&text).to_string();
        assert!(!told.contains(SECRET), "{told}");
        assert!(told.starts_with("x:"), "the place is told: {told}");
    }
    // What looks like a key is named, with the key that was meant.
    let told = Config::parse("[provider.p]\nmatch.domains = ['x.example']\nconectoins = 3\n", "x");
    let told = told.expect_err("unknown keys").to_string();
    assert!(told.contains("provider.p.conectoins: unknown key: did you mean `connections`?"), "{told}");
}

#[test]
fn a_provider_that_may_be_meant_to_be_a_built_in_one_is_a_warning() {
    for (name, meant) in [
        ("gmial", Some("gmail")),
        ("outlok", Some("outlook")),
        ("yahooo", Some("yahoo")),
        ("gmail", None),
        ("mail", None),
        ("acme", None),
        ("newsletter", None),
    ] {
        let text = |more: &str| {
            format!("hostname = 'a.example'\n{more}[provider.{name}]\nmatch.domains = ['x.example']\nrate = '5/s'\n")
        };
        let warnings = |text: &str| {
            let loaded = super::super::Loaded::parse(text, "x").unwrap();
            loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let told: Vec<String> = meant
            .map(|meant| {
                format!(
                    "x:2:11: provider.{name}: did you mean [provider.{meant}]? This is another provider, and what is \
                     built in for {meant} does not hold in it"
                )
            })
            .into_iter()
            .collect();
        assert_eq!(warnings(&text("")), told);
        assert!(warnings(&text("builtin_profiles = false\n")).is_empty());
    }
}

#[test]
fn limits_say_what_they_count_and_print_as_they_were_meant() {
    let text = "hostname = 'a.example'\n[default]\nrate = ['10/s', '5/s connections']\nconnection_rate = '60/m'\n\
                [provider.p]\nmatch.domains = ['x.example']\ncount = 'recipients'\n\
                rate = '30/m messages'\nquota = ['10000/d', '50/h messages']\n\
                [[limit]]\nsender = '*@a.example'\nrate = '5/m recipients'\nquota = '9/h'\n";
    let loaded = super::super::Loaded::parse(text, "x").unwrap();
    let config = &loaded.config;
    let [p] = config.providers.iter().filter(|p| p.name == "p").collect::<Vec<_>>()[..] else { panic!() };
    let counts =
        |rates: &[super::super::CountedRate], count| rates.iter().map(|rate| rate.count(count)).collect::<Vec<_>>();
    use super::super::Count::{Messages, Recipients};
    assert_eq!(counts(&p.rate, p.count), [Some(Messages)]);
    assert_eq!(counts(&p.quota, p.count), [Some(Recipients), Some(Messages)]);
    assert_eq!(counts(&config.limits[0].rate, config.limits[0].count), [Some(Recipients)]);
    assert_eq!(counts(&config.limits[0].quota, config.limits[0].count), [Some(Messages)]);
    // A rate of connections is one like `connection_rate`, and goes with the others when `rate` is written anew.
    let connections = |p: &Provider| p.connection_rates().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        (connections(&config.default), connections(p)),
        (vec!["60/m".into(), "5/s".into()], vec!["60/m".into()])
    );
    let printed: Vec<String> = p.quota.iter().map(ToString::to_string).collect();
    assert_eq!(printed, ["10000/d", "50/h messages"]);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn a_limit_that_another_one_makes_pointless_is_told() {
    let told = |limits: &str| {
        let text = format!("hostname = 'a.example'\n[provider.p]\nmatch.domains = ['x.example']\n{limits}\n");
        let loaded = super::super::Loaded::parse(&text, "x").unwrap();
        loaded
            .warnings
            .iter()
            .map(|w| format!("{}: {}", w.problem.key, w.problem.message))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let never = "provider.p.rate: \"1000/s\" is never reached: \"10/d\" allows fewer in a longer time";
    // A pace does its work beside a quota.
    let paced = "provider.p.rate: the total of \"20/h\" is never reached: \"10/d\" allows fewer in a longer time; \
                 the pace between two messages holds all the same";
    assert_eq!(told("rate = '20/h'\nquota = '10/d'"), paced);
    assert!(told("rate = ['1000/s', '10/d']").contains(never));
    let quotas = told("rate = []\nquota = ['500/h recipients', '300/d recipients']");
    assert!(quotas.contains("provider.p.quota: \"500/h recipients\" is never reached"), "{quotas}");
    let unlike = told("rate = []\nquota = ['500/h messages', '300/d recipients']");
    assert!(unlike.contains("\"500/h messages\" is never reached"), "a message has a recipient: {unlike}");
    for fine in [
        "rate = ['20/s', '600/m']",
        "rate = '20/s'\nquota = '10000/d'",
        "rate = '500/m recipients'\nquota = '300/d messages'",
        "rate = '100/s connections'\nquota = '50/d'",
        // The rate of [default] is nobody's contradiction.
        "quota = '5/d'",
    ] {
        assert_eq!(told(fine), "", "{fine}");
    }
    let limit = told("[[limit]]\nsender = '*@a.example'\nrate = '1000/s'\nquota = '10/d'");
    assert!(limit.contains("limit[1].rate: the total of \"1000/s\" is never reached"), "{limit}");
}

#[test]
fn a_warm_up_that_begins_later_is_told_where_it_is_written() {
    let text = |before: &str| {
        format!(
            "hostname = 'a.example'\n[default]\nwarmup = {{ start = '2026-12-01', days = [50, 100]{before} }}\n\
             [provider.p]\nmatch.domains = ['x.example']\nlimits_per = 'source'\n\
             source = [{{ address = '127.0.0.1', warmup = {{ start = '2026-12-05', days = [7] }} }}]\n"
        )
    };
    let told = |text: &str, day: &str| {
        let now = crate::clock::Timestamp::of_day(day);
        let loaded = super::super::Loaded::parse_at(text, "x", now).unwrap();
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        told(&text(""), "2026-11-29"),
        [
            "x:7:10: provider.p.source: warm-up begins on 2026-12-05 (in 6 days), as on day 1 until then: 7/d",
            "x:3:10: default.warmup: warm-up begins on 2026-12-01 (in 2 days), as on day 1 until then: 50/d",
        ]
    );
    let nothing = told(&text(", before = 'nothing'"), "2026-11-30");
    assert_eq!(
        nothing[1],
        "x:3:10: default.warmup: warm-up begins on 2026-12-01 (tomorrow): nothing leaves until then"
    );
    assert_eq!(told(&text(""), "2026-12-01").len(), 1);
    let over = ["x:3:10: default.warmup: warm-up ended on 2026-12-02: only `rate` and `quota` hold"];
    assert_eq!(told(&text(""), "2026-12-05"), over);
}

#[test]
fn a_number_over_a_profile_that_counts_something_else_wants_a_unit() {
    let told = |rate: &str| {
        let text = format!(
            "hostname = 'a.example'\n[provider.o]\nrelay = 'smtp.office365.com:587'\nrate = '{rate}'\n[[route]]\nvia = 'o'\n"
        );
        let loaded = super::super::Loaded::parse(&text, "x").unwrap();
        loaded
            .warnings
            .iter()
            .map(|w| format!("{}: {}", w.problem.key, w.problem.message))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(told("25/m").contains("\"25/m\" counts recipients, as `count` of the profile says"), "{}", told("25/m"));
    assert_eq!(told("25/m messages"), "");
}

#[test]
fn what_can_hold_for_nobody_is_told_where_it_is_written() {
    let told = |text: &str| {
        let loaded = super::super::Loaded::parse(&format!("hostname = 'a.example'\n{text}"), "x");
        match loaded {
            Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            Err(error) => error.to_string(),
        }
    };
    let provider = "[provider.p]\nmatch = { domains = ['shop.example'] }\n";
    for (text, expected) in [
        (
            "[[limit]]\nsender = '@shop.example'\nrate = '1/s'",
            "limit[1].sender: \"@shop.example\" would match no address: nothing stands before the @: expected \"*@shop.example\"",
        ),
        (
            "[[route]]\nrecipient = '*@*@x'\npriority = 1",
            "route[1].recipient: \"*@*@x\" would match no address: an address has one @",
        ),
        (
            "[[route]]\nsender = '*@shop .example'\npriority = 1",
            "route[1].sender: \"*@shop .example\" is not an address pattern",
        ),
        ("[provider.q]\nmatch = { domains = ['*@shop.example'] }", "did you mean \"shop.example\"?"),
        ("[provider.q]\nmatch = { mx = ['google'] }", "did you mean \"*.google.com\"?"),
        (
            "[provider.q]\nmatch = { domains = ['local'] }",
            "did you mean \"*.local\" (all names below it), or a whole name",
        ),
        ("[provider.q]\ndomains = ['a.example']", "`domains` stands in `match`: expected match = { domains = … }"),
        ("[default]\nmx = ['a.example']", "`mx` stands in `match`"),
        ("[[limit]]\nsender = 'root'\nrate = '1/s'", "expected a pattern such as \"root@*\""),
        ("[[limit]]\nsender = 'a.example'\nrate = '1/s'", "expected a pattern such as \"*@a.example\""),
        ("[[listener]]\nmax_rcpt = 5", "is no key here: expected max_recipients = 100"),
        ("[[listener]]\nmax_size = 5", "is no key here: expected max_message_size = \"25MiB\""),
        ("[[listener]]\nstarttls = true", "is no key here: expected tls = { mode = \"starttls\""),
        ("[[listener]]\naddress = 'unix:/nonexistent/x/s.sock'", "there is no directory /nonexistent/x"),
        ("[default]\nrate = '20 per second'", "`20 per second` is not a rate: did you mean \"20/s\"?"),
        ("[default]\nquota = '100/w'", "`100/w` is not a rate: did you mean \"100/7d\"?"),
        ("[default]\nidle_timeout = '5 minutes'", "`5 minutes` is not a span of time: did you mean \"5m\"?"),
        (
            "[[route]]\nsender = '*@a.example'\npriority = 1\n[[route]]\nsender = 'x@a.example'\npriority = 2",
            "route[2].priority: `priority` is never asked: route[1] comes before it",
        ),
        (
            "[provider.q]\nmatch = { domains = ['q.example'] }\n[[provider.q.on_reply]]\ncode = 421\ntext = '5.7.1'\ndelay = '1h'",
            "hardly stands in a reply 421: its enhanced code is of class 5",
        ),
        (
            "[provider.q]\nmatch = { domains = ['q.example'] }\n[[provider.q.on_reply]]\ntext = 'slow|busy'\ndelay = '1h'",
            "is looked for as it stands, with its |",
        ),
        (
            "[[limit]]\nprovider = '@shop.example'\nrate = '1/s'",
            "mail to shop.example goes through provider.p (`match.domains`): expected \"p\"",
        ),
        (
            "[[listener]]\naddress = 'unix:/run/x.sock'\nmode = '0666'\nxclient_from = ['127.0.0.1']",
            "listener[1].xclient_from: every user of this machine may connect here",
        ),
        (
            "[[listener]]\naddress = 'unix:/run/x.sock'\nxclient_from = ['192.0.2.1']",
            "listener[1].xclient_from: has no effect: whoever comes by a Unix socket counts as 127.0.0.1",
        ),
    ] {
        let said = told(&format!("{provider}{text}\n"));
        assert!(said.contains(expected), "{text}: {said}");
    }
    let said = told(&format!(
        "{provider}[[listener]]\naddress = 'unix:/run/x.sock'\nxclient_from = ['127.0.0.1']\n\
         [[limit]]\nsender = '*@Shop.Example.'\nprovider = '@*'\nrate = '1/s'\n"
    ));
    assert_eq!(said, "");
    let long = told(&format!("[provider.q]\nmatch = {{ domains = ['{}!'] }}\n", "x".repeat(5000)));
    assert!(long.len() < 500 && long.contains("characters)"), "{long}");
}

/// It takes the mail of one user, and leaves that of all others.
#[test]
fn a_route_of_a_user_leaves_others_to_the_next() {
    let hash = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let text = |first: &str, second: &str| {
        format!(
            "[[user]]\nname = 'dev'\npassword = '{hash}'\n[provider.a]\nrelay = 'a.example:25'\n[provider.b]\nrelay = 'b.example:25'\n\
             [[route]]\n{first}\nvia = 'b'\n[[route]]\n{second}\nvia = 'a'\n"
        )
    };
    let never = |first: &str, second: &str| {
        let loaded = crate::config::Loaded::parse(&text(first, second), "config.toml").expect("a good configuration");
        loaded.warnings.iter().any(|warning| warning.to_string().contains("is never asked"))
    };
    assert!(never("sender = '*@a.example'", "sender = 'x@a.example'\nuser = 'dev'"));
    assert!(!never("user = 'dev'", ""));
    assert!(!never("sender = '*@a.example'\nuser = 'dev'", "sender = 'x@a.example'"));
}

/// What a provider says against what it demands was a rule that nobody saw: `mta_sts = false` had no effect.
#[test]
fn policies_that_are_demanded_cannot_be_switched_off_beside_it() {
    for (text, key) in [
        ("[default]\ntls = 'mta-sts'\nmta_sts = false", Some("default.mta_sts")),
        (
            "[default]\ntls = 'mta-sts'\n[provider.p]\nmatch.domains = ['x.example']\nmta_sts = false",
            Some("provider.p.mta_sts"),
        ),
        ("[provider.p]\nmatch.domains = ['x.example']\ntls = 'mta-sts'\nmta_sts = false", Some("provider.p.mta_sts")),
        ("[default]\nmta_sts = false\n[provider.p]\nmatch.domains = ['x.example']\ntls = 'mta-sts'", None),
        (
            "[default]\ntls = 'mta-sts'\n[provider.p]\nmatch.domains = ['x.example']\ntls = 'verified'\nmta_sts = false",
            None,
        ),
        ("[default]\nmta_sts = false", None),
    ] {
        let told = Config::parse(&format!("hostname = 'a.example'\n{text}\n"), "x").err();
        let told: Vec<String> = told.into_iter().flat_map(|e| e.problems).map(|p| p.key).collect();
        assert_eq!(told, key.into_iter().collect::<Vec<_>>(), "{text}");
    }
}

/// A password that every user of the machine may read works, and is told.
#[test]
fn a_file_with_a_password_that_others_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "hunter22\n").unwrap();
    let text = format!(
        "hostname = 'a.example'\n[provider.s]\nrelay = 'h.example:587'\nauth = {{ user = 'u', password = {{ file = '{}' }} }}\n\
         [[route]]\nvia = 's'\n",
        file.display()
    );
    for (mode, warned) in [(0o644, true), (0o604, true), (0o660, true), (0o640, false), (0o600, false)] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let warnings = super::super::Loaded::parse(&text, "x").unwrap().warnings;
        let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), usize::from(warned), "{mode:o}: {told:?}");
        let says =
            |t: &String| t.contains("provider.s.auth.password: others may read or change") && t.contains("chmod 600");
        assert!(told.iter().all(says), "{told:?}");
    }
}
