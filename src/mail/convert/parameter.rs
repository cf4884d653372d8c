//! Parameters of Content-Type and Content-Disposition without 8-bit bytes (RFC 2231).

use super::header::{Out, is_blank, quoted_end, unquote};

/// `value; name=value; …` with 8-bit values as extended parameters (RFC 2231 §4).
pub(super) fn parameters(value: &[u8], out: &mut Out) {
    for (n, piece) in split_parameters(value).into_iter().enumerate() {
        if n > 0 {
            out.raw(b";");
        }
        if piece.is_ascii() || n == 0 {
            let ascii: Vec<u8> = piece.iter().map(|b| if b.is_ascii() { *b } else { b'?' }).collect();
            let blanks = ascii.iter().take_while(|b| is_blank(**b)).count();
            out.raw(&ascii[..blanks]);
            out.token(&ascii[blanks..]);
            continue;
        }
        let (name, raw) = match piece.iter().position(|b| *b == b'=') {
            Some(at) => (piece[..at].trim_ascii(), piece[at + 1..].trim_ascii()),
            None => (&b"x-unnamed"[..], piece.trim_ascii()),
        };
        let name: String = name.iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '?' }).collect();
        let data = if raw.starts_with(b"\"") { unquote(raw) } else { raw.to_vec() };
        extended(&name, &data, out);
    }
}

/// One parameter in the extended syntax, in segments where it is long (RFC 2231 §3).
fn extended(name: &str, data: &[u8], out: &mut Out) {
    const SEGMENT: usize = 54;
    let (base, index, was_extended) = match name.strip_suffix('*') {
        Some(base) => (base, None, true),
        None => match name.rsplit_once('*') {
            Some((base, n)) => (base, n.parse::<u32>().ok(), false),
            None => (name, None, false),
        },
    };
    let charset = if std::str::from_utf8(data).is_ok() { "utf-8''" } else { "unknown-8bit''" };
    let mut escaped: Vec<String> = Vec::with_capacity(data.len());
    for &b in data {
        // What was percent-encoded before stays so.
        let plain = b.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&b);
        let kept = was_extended && matches!(b, b'%' | b'\'');
        escaped.push(if plain || kept { char::from(b).to_string() } else { format!("%{b:02X}") });
    }
    let start = if was_extended || index.is_some_and(|n| n > 0) { "" } else { charset };
    let total: usize = escaped.iter().map(String::len).sum();
    let mut segments: Vec<String> = vec![start.to_owned()];
    for piece in escaped {
        // Segments only for a parameter that has no number of its own yet.
        if total > SEGMENT
            && index.is_none()
            && !was_extended
            && segments.last().is_some_and(|s| s.len() + piece.len() > SEGMENT)
        {
            segments.push(String::new());
        }
        if let Some(last) = segments.last_mut() {
            last.push_str(&piece);
        }
    }
    let many = segments.len() > 1;
    for (n, segment) in segments.into_iter().enumerate() {
        let number = match index {
            Some(i) => format!("*{i}"),
            None if many => format!("*{n}"),
            None => String::new(),
        };
        if n > 0 {
            out.raw(b";");
        }
        out.newline();
        out.raw(b" ");
        out.raw(format!("{base}{number}*={segment}").as_bytes());
    }
}

/// Splits at `;` outside of quoted strings.
fn split_parameters(value: &[u8]) -> Vec<&[u8]> {
    let (mut pieces, mut start, mut i) = (Vec::new(), 0, 0);
    while i < value.len() {
        match value[i] {
            b'"' => {
                i = quoted_end(value, i);
                continue;
            }
            b';' => {
                pieces.push(&value[start..i]);
                start = i + 1;
            }
            _ => {}
        }
        i += 1;
    }
    pieces.push(&value[start..]);
    pieces
}
