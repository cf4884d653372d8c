//! What stops working on a day that is known: secrets whose end the administrator has noted, and passwords at hosts
//! that retire them. `certificates` tells the same of certificates.

use super::file::Reader;
use super::{Config, Provider, Relay};
use crate::clock::Timestamp;

const DAY_MS: i64 = 86_400_000;
/// Days before the end from which on it is told.
const SOON: i64 = 30;

/// A host that retires passwords.
struct Retires {
    host: &'static str,
    /// The day from which on it takes none by default: year, month, day.
    from: (i64, u32, u32),
    /// Who says so, and what else is to be known.
    source: &'static str,
}

const MICROSOFT: &str = "Microsoft, January 2026: off by default at the end of December 2026 (an administrator of the \
                         tenant may switch it on again), for good from a day that is told in the second half of 2027";

const RETIRES: &[Retires] = &[
    Retires { host: "smtp.office365.com", from: (2026, 12, 31), source: MICROSOFT },
    Retires { host: "smtp-mail.outlook.com", from: (2026, 12, 31), source: MICROSOFT },
];

/// What is to be told `now`: the key and the message.
pub(crate) fn troubles(config: &Config, now: Timestamp) -> Vec<(String, String)> {
    let of = |provider: &'_ Provider| {
        let relay = provider.relay.as_ref()?;
        let at = |key: &str| format!("provider.{}.auth.{key}", provider.name);
        let password = retired(relay, now).map(|message| (at("password"), message));
        password.or_else(|| Some((at("secret_expires"), secret(relay, now)?)))
    };
    config.providers.iter().filter_map(|provider| of(provider)).collect()
}

/// Warns of them at their keys.
pub(super) fn warn(reader: &mut Reader<'_>, config: &Config, now: Timestamp) {
    for (key, message) in troubles(config, now) {
        reader.warn(&key, message);
    }
}

fn retired(relay: &Relay, now: Timestamp) -> Option<String> {
    relay.auth.as_ref()?;
    let host = relay.host.trim_end_matches('.');
    let retires = RETIRES.iter().find(|retires| host.eq_ignore_ascii_case(retires.host))?;
    let (year, month, day) = retires.from;
    let over = Timestamp::from_date(year, month, day).is_some_and(|from| from <= now);
    let verb =
        if over { "takes no passwords by default since" } else { "retires passwords: it takes none by default from" };
    Some(format!(
        "{host} {verb} {year:04}-{month:02}-{day:02} ({}): expected `oauth` instead of `password`, see docs/oauth.md",
        retires.source
    ))
}

fn secret(relay: &Relay, now: Timestamp) -> Option<String> {
    let end = relay.oauth.as_ref()?.secret_expires?;
    let what_to_do = "make a new one at the service, put it in `auth.secret`, then `mailweir reload`";
    let day = end.day_text();
    match end.0.saturating_sub(now.0).div_euclid(DAY_MS) {
        ..0 => Some(format!("the secret has expired on {day}: {what_to_do}")),
        0 => Some(format!("the secret expires within a day, on {day}: {what_to_do}")),
        n @ 1..7 => Some(format!("the secret expires in less than 7 days, on {day} (in {n} d): {what_to_do}")),
        n @ 7..=SOON => Some(format!("the secret expires in {n} days, on {day}: {what_to_do}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(relay: &str, auth: &str, day: &str) -> Vec<String> {
        let text = format!(
            "hostname = 'a.example'\n[provider.m]\nrelay = '{relay}'\nauth = {{ user = 'u@x.example', {auth} }}\n[[route]]\n\
             via = 'm'\n"
        );
        let config = Config::parse(&text, "x").expect("a good configuration");
        let now = Timestamp::of_day(day).expect("a day");
        troubles(&config, now).into_iter().map(|(key, message)| format!("{key}: {message}")).collect()
    }

    #[test]
    fn a_password_at_a_host_that_retires_them_is_warned_of_with_date_and_source() {
        let before = told("smtp.office365.com:587", "password = 'p'", "2026-11-30");
        let start = "provider.m.auth.password: smtp.office365.com retires passwords: it takes none by default from \
                     2026-12-31 (Microsoft, January 2026: off by default";
        assert!(before.len() == 1 && before[0].starts_with(start), "{before:?}");
        let after = told("SMTP-mail.outlook.com:587", "password = 'p'", "2027-01-01");
        assert!(after[0].contains("takes no passwords by default since 2026-12-31"), "{after:?}");
        assert_eq!(told("smtp.example:587", "password = 'p'", "2027-01-01"), Vec::<String>::new());
        let oauth = "oauth = 'microsoft', tenant = 't', client_id = 'c', secret = 's'";
        assert_eq!(told("smtp.office365.com:587", oauth, "2027-01-01"), Vec::<String>::new());
    }

    #[test]
    fn a_secret_that_is_about_to_expire_is_warned_of() {
        let oauth = "oauth = 'microsoft', tenant = 't', client_id = 'c', secret = 's', secret_expires = '2027-05-31'";
        for (day, says) in [
            ("2027-04-30", ""),
            ("2027-05-01", "the secret expires in 30 days, on 2027-05-31"),
            ("2027-05-25", "the secret expires in less than 7 days, on 2027-05-31 (in 6 d)"),
            ("2027-05-31", "the secret expires within a day, on 2027-05-31"),
            ("2027-06-01", "the secret has expired on 2027-05-31"),
        ] {
            let told = told("smtp.office365.com:587", oauth, day);
            match says {
                "" => assert!(told.is_empty(), "{told:?}"),
                _ => assert!(told[0].starts_with(&format!("provider.m.auth.secret_expires: {says}")), "{told:?}"),
            }
        }
    }
}
