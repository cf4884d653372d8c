//! One-click List-Unsubscribe (RFC 8058) in the header section of a message that is sent in bulk. Pure.

use super::finding::Finding;
use crate::dkim::signer::is_signed;
use crate::mail::address_list;
use crate::mail::convert::header_fields;
use crate::mail::domain::{parse_name, printed};

const CHECK: &str = "List-Unsubscribe";
const UNSUBSCRIBE: &str = "List-Unsubscribe";
const POST: &str = "List-Unsubscribe-Post";
/// What it has to say.
const ONE_CLICK: &str = "List-Unsubscribe=One-Click";

/// Of a message; `signs`: whether this relay signs mail of a domain. `of` is its file.
pub fn examine(message: &[u8], signs: impl Fn(&str) -> bool, of: &str) -> Vec<Finding> {
    let fields: Vec<(String, String)> = header_fields(message).collect();
    let signs = domain_of_from(&fields).is_some_and(|domain| signs(&domain));
    let all = |name: &str| -> Vec<&str> {
        fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    };
    let mut findings = Vec::new();
    let example = "List-Unsubscribe: <https://HOST/unsubscribe?id=…>, with a way in it that needs no login";
    findings.push(match all(UNSUBSCRIBE).as_slice() {
        [] => Finding::failed(CHECK, of, "there is none: big receivers want it of who sends in bulk").with(example),
        [one] => address(one, of, example),
        several => Finding::failed(CHECK, of, format!("{} fields {UNSUBSCRIBE}", several.len())).with("expected one"),
    });
    let post = format!("{POST}: {ONE_CLICK}");
    findings.push(match all(POST).as_slice() {
        [] => {
            Finding::failed(CHECK, of, format!("there is no {POST}: a click opens a page and ends nothing")).with(post)
        }
        [one] if one.trim().eq_ignore_ascii_case(ONE_CLICK) => Finding::ok(CHECK, of, post),
        [one] => Finding::failed(CHECK, of, format!("{POST}: {}", bounded(one))).with(format!("expected {post}")),
        several => Finding::failed(CHECK, of, format!("{} fields {POST}", several.len())).with("expected one"),
    });
    // What is not there is not signed either, and told already.
    if !all(UNSUBSCRIBE).is_empty() && !all(POST).is_empty() {
        findings.push(signed(&all("DKIM-Signature"), signs, of));
    }
    findings
}

fn address(value: &str, of: &str, example: &str) -> Finding {
    let uris: Vec<&str> =
        value.split('<').skip(1).filter_map(|part| part.split_once('>')).map(|(uri, _)| uri.trim()).collect();
    let begins =
        |uri: &&&str, scheme: &str| uri.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme));
    let found = bounded(value);
    match uris.iter().find(|uri| begins(uri, "https://")) {
        Some(uri) if uri.chars().any(|c| c.is_whitespace()) => {
            Finding::failed(CHECK, of, format!("the address has a space in it: {found}")).with(example)
        }
        Some(_) => Finding::ok(CHECK, of, found),
        None if uris.is_empty() => Finding::failed(CHECK, of, format!("no address in <>: {found}")).with(example),
        None => {
            let found = format!("no https address, which one click needs (RFC 8058 §3.1): {found}");
            Finding::failed(CHECK, of, found).with(example)
        }
    }
}

/// Whether both fields are among what a signature covers (RFC 8058 §4).
fn signed(signatures: &[&str], signs: bool, of: &str) -> Finding {
    if signs && [UNSUBSCRIBE, POST].into_iter().all(is_signed) {
        return Finding::ok(CHECK, of, "both fields are signed by DKIM when it leaves");
    }
    let covers = |signature: &&&str| {
        let h = signature.split(';').find_map(|tag| {
            let (name, value) = tag.split_once('=')?;
            (name.trim() == "h").then(|| value.chars().filter(|c| !c.is_whitespace()).collect::<String>())
        });
        let h = h.unwrap_or_default();
        [UNSUBSCRIBE, POST].into_iter().all(|field| h.split(':').any(|name| name.eq_ignore_ascii_case(field)))
    };
    match signatures.iter().any(|signature| covers(&signature)) {
        true => Finding::ok(CHECK, of, "both fields are signed by DKIM (h= of a signature in it)"),
        false => {
            let found = match signatures.is_empty() {
                true => "nobody signs the fields by DKIM",
                false => "its DKIM signature does not cover both fields (h=)",
            };
            Finding::failed(CHECK, of, found)
                .with("receivers pass over fields that are not signed (RFC 8058 §4): sign with [[dkim]]")
        }
    }
}

/// The domain of its one `From`, of the first address where there are several, as [`crate::config::Config::dkim_for`]
/// takes it; `None`: nobody signs for it.
fn domain_of_from(fields: &[(String, String)]) -> Option<String> {
    let mut all = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("From"));
    let (_, value) = all.next().filter(|_| all.next().is_none())?;
    let listed = address_list::parse(value.as_bytes()).ok()?;
    let (_, domain) = listed.first()?.text.rsplit_once('@')?;
    parse_name(domain).map(|name| printed(&name))
}

fn bounded(text: &str) -> String {
    text.chars().take(300).collect()
}
