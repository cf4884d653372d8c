//! Built-in profiles: which hosts they are about, that every rule takes the replies it is for, and
//! that no rule is dead or filed under a provider that matches nothing.

use std::collections::BTreeSet;

use mailweir::config::report::AsToml;
use mailweir::config::{Config, Loaded, ReplyRule, profiles};
use mailweir::deliver::{Reply, Stage};
use proptest::prelude::*;

const HOSTS: &str = include_str!("providers.txt");
const REPLIES: &str = include_str!("provider_replies.txt");

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'))
}

#[test]
fn a_route_may_ask_for_the_client_and_the_listener() {
    let config = Config::parse(
        "[[listener]]\nname = 'inside'\naddress = '127.0.0.1:2526'\n[[listener]]\naddress = '127.0.0.1:2527'\n\
         [provider.a]\nrelay = 'a.example:25'\n[provider.b]\nrelay = 'b.example:25'\n[provider.c]\nrelay = 'c.example:25'\n\
         [[route]]\nclient = ['10.0.0.0/8']\nlistener = 'inside'\nvia = 'a'\n\
         [[route]]\nclient = ['10.0.0.0/8', '2001:db8::/32']\nvia = 'b'\npriority = 4\n\
         [[route]]\nlistener = 'inside'\nvia = 'c'\n",
        "config.toml",
    );
    let config = config.expect("a good configuration");
    let to = mailweir::mail::Address::parse("x@y.example").expect("an address");
    let via = |client: Option<&str>, listener: &str| {
        let client = client.map(|ip| ip.parse().expect("an address"));
        let from =
            mailweir::mail::Incoming { sender: None, client, listener, user: "", tls: mailweir::mail::TlsWish::Usual };
        (config.route_for(from, &to).map(|route| route.via.name.as_str()), config.priority_for(from, &to))
    };
    assert_eq!(via(Some("10.1.1.1"), "inside"), (Some("a"), Some(4)));
    assert_eq!(via(Some("10.1.1.1"), ""), (Some("b"), Some(4)));
    assert_eq!(via(Some("2001:db8::1"), "other"), (Some("b"), Some(4)));
    assert_eq!(via(Some("192.0.2.1"), "inside"), (Some("c"), None));
    assert_eq!(via(Some("192.0.2.1"), ""), (None, None));
    // What mailweir writes itself came from no client and by no listener.
    assert_eq!(via(None, ""), (None, None));
}

#[test]
fn the_built_in_file_has_no_fault() {
    assert!(profiles::fault().is_none(), "{:?}", profiles::fault());
    assert!(profiles::all().len() >= 29);
}

#[test]
fn hosts_belong_to_the_expected_providers_and_look_alikes_to_none() {
    let config = Config::default();
    let (mut found, mut refused, mut seen) = (0, 0, BTreeSet::new());
    for line in lines(HOSTS) {
        let [kind, host, expected] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let got = match kind {
            "mx" => config.provider_for_mx(host).map(|p| p.name.as_str()),
            "relay" => profiles::of_relay(host).map(profiles::Profile::name),
            other => panic!("{other}"),
        };
        assert_eq!(got.unwrap_or("-"), expected, "{line}");
        if expected == "-" {
            refused += 1;
        } else {
            seen.insert(expected);
            found += 1;
        }
    }
    assert!(found >= 60 && refused >= 15, "{found} hosts, {refused} look-alikes");
    for profile in profiles::all() {
        assert!(seen.contains(profile.name()), "no host in the table belongs to {}", profile.name());
    }
}

#[test]
fn every_profile_matches_something_and_each_number_has_a_kind_of_source() {
    for profile in profiles::all() {
        assert!(!profile.patterns().is_empty(), "{}", profile.name());
        let settings = mailweir::config::report::profile_settings(profile);
        for (what, from) in settings
            .iter()
            .map(|s| (s.key.clone(), s.from.clone()))
            .chain(profile.reply_rules().iter().map(|r| (r.to_string(), r.origin.clone())))
        {
            let kind = from.strip_prefix(&format!("built-in {}: ", profile.name())).unwrap_or(&from);
            assert!(profiles::SOURCES.contains(&kind), "{what} of {}: {from}", profile.name());
        }
    }
    for rule in profiles::generic_reply_rules() {
        let kind = rule.origin.strip_prefix("built-in rules: ").unwrap_or_default();
        assert!(profiles::SOURCES.contains(&kind), "{rule}: {}", rule.origin);
    }
}

fn stage(word: &str) -> Stage {
    match word {
        "greeting" => Stage::Greeting,
        "auth" => Stage::Auth,
        "mail" => Stage::Mail,
        "rcpt" => Stage::Rcpt,
        "final" => Stage::Final,
        other => panic!("{other}"),
    }
}

/// As the session would hand it on.
fn reply(line: &str) -> Reply {
    let (code, rest) = line.split_once(' ').expect("a code and words");
    let code: u16 = code.parse().expect("a code");
    let (first, words) = rest.split_once(' ').unwrap_or((rest, ""));
    let numbers: Vec<u16> = first.split('.').filter_map(|n| n.parse().ok()).collect();
    match numbers[..] {
        [class, subject, detail] if class == code / 100 => {
            Reply { code, enhanced: Some((class as u8, subject, detail)), text: words.into() }
        }
        _ => Reply { code, enhanced: None, text: rest.into() },
    }
}

#[test]
fn every_rule_takes_the_replies_it_is_for_and_none_is_dead() {
    let mut used: BTreeSet<(String, usize)> = BTreeSet::new();
    let of = |name: &str| -> Vec<ReplyRule> {
        match profiles::all().iter().find(|p| p.name() == name) {
            Some(profile) => profile.reply_rules(),
            None if name == "everybody" => profiles::generic_reply_rules(),
            None => panic!("there is no profile {name}"),
        }
    };
    for line in lines(REPLIES) {
        let mut words = line.splitn(4, ' ');
        let mut next = || words.next().expect("four parts");
        let (name, at, number, said) = (next(), next(), next(), next());
        let first = of(name).iter().position(|rule| rule.matches(stage(at), &reply(said))).map_or(0, |i| i + 1);
        assert_eq!(first.to_string(), number, "{line}");
        // Case never matters.
        let loud = Reply { text: reply(said).text.to_uppercase(), ..reply(said) };
        assert_eq!(of(name).iter().position(|r| r.matches(stage(at), &loud)).map_or(0, |i| i + 1), first, "{line}");
        used.insert((name.to_owned(), first));
    }
    for name in profiles::all().iter().map(profiles::Profile::name).chain(["everybody"]) {
        for (i, rule) in of(name).iter().enumerate() {
            assert!(
                used.contains(&(name.to_owned(), i + 1)),
                "nothing is known to reach rule {} of {name}: {rule}",
                i + 1
            );
        }
    }
}

#[test]
fn a_table_of_the_file_changes_single_keys_and_another_name_comes_first() {
    let text = "[provider.mine]\nmatch.mx = ['aspmx.l.google.com']\n[provider.gmail]\nconnections = 2\n\
                [[provider.gmail.on_reply]]\ncode = 421\ndelay = '1h'\n[default]\nrate = '3/s'\n";
    let config = Config::parse(text, "my.toml").expect("good");
    let name = |host: &str| config.provider_for_mx(host).map_or("-", |p| p.name.as_str()).to_owned();
    assert_eq!((name("aspmx.l.google.com"), name("alt1.aspmx.l.google.com")), ("mine".into(), "gmail".into()));
    let gmail = config.provider("gmail").expect("a provider");
    assert_eq!((gmail.connections, gmail.messages_per_connection), (2, 50));
    assert_eq!(
        gmail.rules.iter().map(|r| r.origin.as_str()).take(2).collect::<Vec<_>>(),
        ["my.toml:5", "built-in gmail: postmaster page"]
    );
    assert_eq!(config.origins.of("gmail", "connections"), "my.toml:4");
    assert_eq!(config.origins.of("gmail", "tls"), "built-in gmail: postmaster page");
    assert_eq!(config.origins.of("qq", "rate"), "[default], my.toml:9");
    assert_eq!(config.origins.of("qq", "burst"), "default");
    let mine = config.provider("mine").expect("a provider");
    assert!(mine.rules.iter().all(|r| r.origin.starts_with("built-in rules")));
    let none = Config::parse("builtin_profiles = false", "x").expect("good");
    assert!(none.providers.is_empty() && none.default.rules.is_empty());
}

#[test]
fn a_smart_host_builds_on_the_profile_of_its_host_or_name() {
    let text = "[provider.mailer]\nrelay = 'Email-SMTP.eu-west-1.amazonaws.com:587'\nrate = '14/s'\n\
                [provider.office365]\nrelay = 'smtp.partner.example:587'\n[[route]]\nsender = '*@a.example'\nvia = 'mailer'\n\
                [[route]]\nvia = 'office365'\n";
    let config = Config::parse(text, "x").expect("good");
    let ses = config.provider("mailer").expect("a provider");
    assert_eq!((ses.recipients_per_message, ses.count.as_str()), (50, "recipients"));
    assert_eq!(ses.rate.iter().map(ToString::to_string).collect::<Vec<_>>(), ["14/s"]);
    assert_eq!(config.origins.of("mailer", "count"), "built-in ses: vendor page");
    let office = config.provider("office365").expect("a provider");
    assert_eq!(
        (office.connections, office.quota.first().map(ToString::to_string)),
        (3, Some("10000/d recipients".into()))
    );
    assert!(office.rules.iter().any(|r| r.scope.as_str() == "account"));
}

#[test]
fn who_asks_for_valid_certificates_everywhere_gets_no_less() {
    let config = Config::parse("[default]\ntls = 'verified'\n", "x").expect("good");
    assert!(config.providers.iter().all(|p| p.tls.as_str() == "verified"));
    let plain = Config::parse("[default]\ntls = 'opportunistic'\n", "x").expect("good");
    assert_eq!(plain.provider("gmail").map(|p| p.tls.as_str()), Some("required"));
}

#[test]
fn priorities_come_from_the_first_route_that_has_one() {
    let text = "[[route]]\nsender = '<>'\npriority = -9\n[[route]]\nrecipient = '*@vip.example'\nvia = 'gmail'\npriority = 9\n";
    let config = Config::parse(text, "x").expect("good");
    let address = |text: &str| text.parse().expect("an address");
    let (a, vip) = (address("a@b.example"), address("x@vip.example"));
    assert_eq!(config.priority_for(None, &vip), Some(-9));
    assert_eq!(config.priority_for(Some(&a), &vip), Some(9));
    assert_eq!(config.priority_for(Some(&a), &a), None);
    assert_eq!(config.route_for(Some(&a), &vip).map(|r| r.via.name.as_str()), Some("gmail"));
}

/// Rules without their origins.
fn rules(config: &Config, provider: &str) -> Vec<ReplyRule> {
    let provider = config.provider(provider).expect("a provider");
    provider.rules.iter().map(|r| ReplyRule { origin: String::new(), ..r.clone() }).collect()
}

#[test]
fn the_profiles_print_as_a_configuration_that_means_the_same() {
    let loaded = Loaded::parse("", "none").expect("good");
    let printed = AsToml(&loaded.settings).to_string();
    // Also where no profile helps: everything is said.
    for head in ["", "builtin_profiles = false\n"] {
        let text = format!("{head}{}", printed.replace("builtin_profiles = true  # default\n", ""));
        let again = Config::parse(&text, "again").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(again.providers.len(), loaded.config.providers.len());
        for (a, b) in again.providers.iter().zip(&loaded.config.providers) {
            assert_eq!((&a.name, a.connections, &a.rate, a.tls), (&b.name, b.connections, &b.rate, b.tls));
            assert_eq!((&a.match_mx, &a.quota), (&b.match_mx, &b.quota));
            assert_eq!(rules(&again, &a.name), rules(&loaded.config, &b.name), "{}", a.name);
        }
    }
}

#[test]
fn the_documentation_has_the_table_of_profiles() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/profiles.md");
    let text = std::fs::read_to_string(path).expect("the page is there");
    let (head, rest) = text.split_once("<!-- profiles -->\n").expect("the table begins");
    let (table, tail) = rest.split_once("<!-- end -->").expect("the table ends");
    if std::env::var_os("MAILWEIR_WRITE_CONFIG").is_some() {
        let text = format!("{head}<!-- profiles -->\n{}<!-- end -->{tail}", profiles::markdown());
        std::fs::write(path, text).expect("written");
        return;
    }
    assert!(table == profiles::markdown(), "docs/profiles.md differs: run this test with MAILWEIR_WRITE_CONFIG=1");
}

proptest! {
    #[test]
    fn a_rule_that_prints_parses_to_the_same(
        code in proptest::option::of(400u16..600),
        text in "[a-z\\[\\]\"#:']{1,12}( \\*)?[a-z]{0,5}",
        pace in proptest::option::of((1u32..1000, 1u64..100_000)),
        connections in proptest::option::of(1u32..100),
        alert: bool,
        seconds in 1u64..2_000_000,
        after in proptest::option::of(1u32..50),
    ) {
        let mut rule = format!("text = {}\nfor = '{seconds}s'\nmessages_per_connection = 7\nalert = {alert}\n", toml(&text));
        if let Some(code) = code { rule += &format!("code = {code}\n"); }
        if let Some((n, s)) = pace { rule += &format!("slow_to = '{n}/{s}s'\n"); }
        if let Some(n) = connections { rule += &format!("connections = {n}\n"); }
        if let Some(n) = after { rule += &format!("after = '{n}/10m'\n"); }
        let first = Loaded::parse(&format!("builtin_profiles = false\n[provider.p]\nmatch.domains = ['x.example']\n[[provider.p.on_reply]]\n{rule}"), "x").expect("good");
        let printed = AsToml(&first.settings).to_string();
        let again = Config::parse(&printed, "again").unwrap_or_else(|e| panic!("{e}\n{printed}"));
        prop_assert_eq!(rules(&again, "p"), rules(&first.config, "p"));
    }
}

fn toml(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\\\""))
}

#[test]
fn a_pattern_that_also_matches_others_is_a_warning() {
    let text = "hostname = 'a.example'\n[provider.p]\nmatch.mx = ['*example.com']\n";
    let warnings = Loaded::parse(text, "x").expect("good").warnings;
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["x:3:12: provider.p.match.mx: \"*example.com\" also matches other people's names such as notexample.com: \
         \"*.example.com\" does not"]
    );
}
