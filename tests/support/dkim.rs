//! A verifier of DKIM signatures (RFC 6376 §6.1) that has nothing from the program: whole messages in memory, line by
//! line, and keys from lines of a zone.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Published keys: the text of a TXT record by its name.
#[derive(Clone, Default, Debug)]
pub struct Published(pub HashMap<String, String>);

impl Published {
    /// From lines such as `s._domainkey.shop.example. IN TXT ( "…" "…" )`; others are passed over.
    pub fn parse(zone: &str) -> Published {
        let record = |line: &str| {
            let (name, strings) = line.split_once(". IN TXT ")?;
            Some((name.to_owned(), strings.split('"').skip(1).step_by(2).collect::<String>()))
        };
        Published(zone.lines().filter_map(record).collect())
    }
}

fn tag(text: &str, name: &str) -> Option<String> {
    text.split(';').find_map(|part| {
        let (tag, value) = part.split_once('=')?;
        (tag.trim() == name).then(|| value.split_whitespace().collect())
    })
}

/// The fields of the header section and the body.
fn split(message: &[u8]) -> (Vec<Vec<u8>>, &[u8]) {
    let head = message.windows(4).position(|w| w == b"\r\n\r\n").map_or(message.len(), |at| at + 2);
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for line in message[..head].split_inclusive(|b| *b == b'\n') {
        match line.first() {
            Some(b' ' | b'\t') => fields.last_mut().expect("a field to continue").extend_from_slice(line),
            _ => fields.push(line.to_vec()),
        }
    }
    (fields, message.get(head + 2..).unwrap_or_default())
}

fn name_of(field: &[u8]) -> String {
    String::from_utf8_lossy(field.split(|b| *b == b':').next().unwrap_or_default()).trim().to_ascii_lowercase()
}

/// Runs of white space become one blank, and those at the end go.
fn squeezed(text: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for b in text {
        match b {
            b' ' | b'\t' if out.last() == Some(&b' ') => {}
            b' ' | b'\t' => out.push(b' '),
            b => out.push(*b),
        }
    }
    if out.last() == Some(&b' ') {
        out.pop();
    }
    out
}

fn relaxed_field(field: &[u8]) -> Vec<u8> {
    let bytes: Vec<u8> = field.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    let colon = bytes.iter().position(|b| *b == b':').expect("a colon");
    let value = squeezed(&bytes[colon + 1..]);
    let value = value.strip_prefix(b" ").unwrap_or(&value);
    [name_of(&bytes).as_bytes(), b":", value].concat()
}

fn relaxed_body(body: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = Vec::new();
    let mut rest = body;
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    let mut lines: Vec<Vec<u8>> = lines.into_iter().map(squeezed).collect();
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    lines.iter().flat_map(|line| [line.as_slice(), b"\r\n"].concat()).collect()
}

/// The signatures of a message that hold, from the top, as `selector@domain`.
///
/// # Errors
/// One does not, and why.
pub fn verified(message: &[u8], published: &Published) -> Result<Vec<String>, String> {
    let (fields, body) = split(message);
    let mut found = Vec::new();
    for (at, field) in fields.iter().enumerate().filter(|(_, field)| name_of(field) == "dkim-signature") {
        let text = std::str::from_utf8(field).map_err(|e| e.to_string())?;
        let (_, value) = text.split_once(':').ok_or("no colon")?;
        let tag = |name: &str| tag(value, name).ok_or(format!("no {name}= in {text}"));
        if (tag("v")?, tag("c")?) != ("1".into(), "relaxed/relaxed".into()) {
            return Err(format!("another version or canonicalization: {text}"));
        }
        let name = format!("{}._domainkey.{}", tag("s")?, tag("d")?);
        let record = published.0.get(&name).ok_or(format!("{name} is not published"))?;
        let key = self::tag(record, "p").ok_or("no p=")?;
        let key = STANDARD.decode(key).map_err(|e| e.to_string())?;
        if STANDARD.encode(digest(&SHA256, &relaxed_body(body))) != tag("bh")? {
            return Err(format!("the body was changed after {name} signed it"));
        }
        let mut left: Vec<(usize, &Vec<u8>)> = fields.iter().enumerate().filter(|(n, _)| *n != at).collect();
        let mut signed = Vec::new();
        for wanted in tag("h")?.split(':') {
            if let Some(last) = left.iter().rposition(|(_, field)| name_of(field) == wanted.to_ascii_lowercase()) {
                signed.extend(relaxed_field(left.remove(last).1));
                signed.extend_from_slice(b"\r\n");
            }
        }
        let bare = &text[..text.rfind("b=").ok_or("no b=")? + 2];
        signed.extend(relaxed_field(bare.as_bytes()));
        let signature = STANDARD.decode(tag("b")?).map_err(|e| e.to_string())?;
        let holds = match (tag("a")?.as_str(), self::tag(record, "k").as_deref()) {
            ("rsa-sha256", Some("rsa")) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(&signed, &signature)
            }
            ("ed25519-sha256", Some("ed25519")) => {
                UnparsedPublicKey::new(&ED25519, key).verify(digest(&SHA256, &signed).as_ref(), &signature)
            }
            (algorithm, kind) => return Err(format!("a={algorithm} with k={kind:?}")),
        };
        holds.map_err(|_| format!("the header was changed after {name} signed it"))?;
        found.push(format!("{}@{}", tag("s")?, tag("d")?));
    }
    Ok(found)
}
