//! Patterns that can match nobody, and what was meant by them: a limit or a route that never holds is found when
//! somebody misses it, which is late.
//!
//! Pure text: what other keys say (another provider that takes the domain) is a matter of `shaping`.

/// Why a pattern of mailbox addresses matches none, and what to write; `None`: it may match some.
pub(super) fn of_mailbox(text: &str) -> Option<String> {
    let (local, domain) = text.rsplit_once('@')?;
    if let Some(plain) = without_regex(text) {
        return Some(format!("this is no regular expression, and * alone stands for anything: expected \"{plain}\""));
    }
    // A final dot is nothing, as in DNS.
    let domain = domain.trim_end_matches('.');
    if domain.is_empty() {
        return Some(format!("it has no domain: expected \"{local}@\" and one, or \"{local}@*\""));
    }
    if local.is_empty() {
        return Some(format!("nothing stands before the @: expected \"*@{domain}\" for all of that domain"));
    }
    if local.contains('@') && !local.contains('"') {
        return Some(format!("an address has one @: expected a pattern such as \"*@{domain}\""));
    }
    if let Some(inside) = domain.strip_prefix('[') {
        return (!inside.ends_with(']')).then(|| "the bracket of its domain does not close".to_owned());
    }
    if let Some(rest) = domain.strip_prefix('.') {
        return Some(format!("no domain begins with a dot: expected \"{local}@*.{rest}\" for what is below {rest}"));
    }
    if domain.contains("..") {
        return Some("its domain has two dots in a row".into());
    }
    // What is not ASCII may be a part of a name in Unicode (RFC 5890).
    let strange = domain.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.*".contains(*c) || is_letter(*c)));
    strange.map(|c| format!("no domain has {c:?} in it"))
}

/// What was meant by a text that is no pattern of host names, if that can be told.
pub(super) fn meant_by_host(text: &str, fits: impl Fn(&str) -> bool) -> Option<String> {
    let behind = |mark: &str| text.rsplit_once(mark).map(|(_, rest)| rest);
    let bare = text.trim().trim_end_matches('/');
    let port = bare.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map(|(host, _)| host);
    let regex = without_regex(text);
    let candidates = [
        regex,
        behind("@").map(str::to_owned),
        behind("://").map(|rest| rest.trim_end_matches('/').to_owned()),
        port.map(str::to_owned),
        text.strip_prefix('.').map(|rest| format!("*.{rest}")),
        Some(bare.to_owned()),
    ];
    candidates.into_iter().flatten().find(|candidate| candidate != text && fits(candidate))
}

/// A letter or digit of any script, or a mark that belongs to one.
fn is_letter(c: char) -> bool {
    !c.is_ascii() && (c.is_alphanumeric() || unicode_mark(c))
}

/// Combining marks of the scripts in which domains are registered; the full stops of East Asian scripts are none.
fn unicode_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}' | '\u{900}'..='\u{dff}'
        | '\u{e31}'..='\u{e4e}' | '\u{200c}' | '\u{200d}' | '\u{b7}' | '\u{30fb}')
}

/// What a regular expression seems to mean; `None`: it does not look like one.
fn without_regex(text: &str) -> Option<String> {
    // Between slashes, as Postfix and others have them.
    let inner = text.strip_prefix('/').and_then(|rest| rest.trim_end_matches('i').strip_suffix('/'));
    let text = inner.unwrap_or(text);
    let looks =
        inner.is_some() || text.starts_with('^') || text.ends_with('$') || text.contains('\\') || text.contains(".*@");
    let looks = looks && !text.contains('"');
    looks.then(|| {
        let plain = text.trim_start_matches('^').trim_end_matches('$').replace('\\', "");
        let plain = plain.replace(".*", "*").replace(".+", "*");
        let plain: String = plain.chars().filter(|c| !"()[]{}|?+^$".contains(*c)).collect();
        if plain.is_empty() { "*".into() } else { plain }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_match_nobody_are_told_with_what_was_meant() {
        for (text, told) in [
            ("@shop.example", "expected \"*@shop.example\""),
            ("*@*@x", "an address has one @"),
            ("*@", "it has no domain"),
            ("*@.", "it has no domain"),
            ("news@.shop.example", "expected \"news@*.shop.example\""),
            ("*@shop..example", "two dots"),
            ("*@shop/example", "no domain has '/'"),
            ("*@shop?example", "no domain has '?'"),
            ("*@shop\u{3002}example", "no domain has '\u{3002}'"),
            ("*@[192.0.2.1", "does not close"),
            ("^.*@shop\\.example$", "expected \"*@shop.example\""),
            (".*@shop.example", "expected \"*@shop.example\""),
            (".+@shop\\.example", "expected \"*@shop.example\""),
            ("/.*@shop\\.example/i", "expected \"*@shop.example\""),
        ] {
            let why = of_mailbox(text).unwrap_or_else(|| panic!("{text}"));
            assert!(why.contains(told), "{text}: {why}");
        }
        for good in [
            "*",
            "*.example",
            "*@*",
            "*@shop.example",
            "*@shop.example.",
            "*@*.Example",
            "a.b+c@x",
            "*@[192.0.2.1]",
            "*@[IPv6:2001:db8::1]",
            "\"a@b\"@x.example",
            "*@b\u{fc}cher.example",
            "*@xn--bcher-kva.example",
            "o'hara=x@shop_1.example",
        ] {
            assert_eq!(of_mailbox(good), None, "{good}");
        }
    }

    #[test]
    fn what_was_meant_by_a_host() {
        let fits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-.*".contains(c));
        for (text, meant) in [
            ("@shop.example", Some("shop.example")),
            ("*@shop.example", Some("shop.example")),
            ("https://mx.example/", Some("mx.example")),
            ("mx.example:25", Some("mx.example")),
            (" mx.example ", Some("mx.example")),
            ("^.*\\.example\\.com$", Some("*.example.com")),
            ("a b", None),
        ] {
            assert_eq!(meant_by_host(text, fits).as_deref(), meant, "{text}");
        }
    }
}
