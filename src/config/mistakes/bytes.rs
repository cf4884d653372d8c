//! Files that are no UTF-8 text: which encoding they are probably in, and how to get out of it.

use std::ops::Range;

/// What to say of these bytes, and where it shows first, in characters: line and column from 1, and the line as far
/// as it can be read.
pub(in crate::config) struct NotUtf8 {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The text with what cannot be read as U+FFFD, and the place in it.
    pub text: String,
    pub span: Range<usize>,
    pub message: String,
}

/// `bytes` are no UTF-8 from `valid` on.
pub(in crate::config) fn not_utf8(bytes: &[u8], valid: usize) -> NotUtf8 {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let message = "is not UTF-8 text but UTF-16, as \"Unicode\" of some editors: expected the file saved as UTF-8 \
                       (`iconv -f UTF-16 -t UTF-8 OLD >NEW`)";
        return NotUtf8 { line: 1, column: 1, text: String::new(), span: 0..0, message: message.into() };
    }
    let before = String::from_utf8_lossy(bytes.get(..valid).unwrap_or_default()).into_owned();
    let byte = bytes.get(valid).copied().unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let message = match byte {
        0x91..=0x94 | 0x84 | 0x82 => {
            "is not UTF-8 text: a quotation mark of Windows-1252 stands here, which TOML does not take either: expected a \
             plain \", and the file saved as UTF-8 (`iconv -f WINDOWS-1252 -t UTF-8 OLD >NEW`)"
                .to_owned()
        }
        0xa0..=0xff => format!(
            "is not UTF-8 text: this byte is {} in Latin-1: expected the file saved as UTF-8 (`iconv -f LATIN1 -t UTF-8 OLD >NEW`)",
            char::from(byte)
        ),
        _ => format!("is not UTF-8 text: the byte {byte:#04x} stands here: expected the file saved as UTF-8 (`file -i FILE` guesses what it is)"),
    };
    let start = before.len();
    let text = before + &String::from_utf8_lossy(bytes.get(valid..).unwrap_or_default());
    NotUtf8 { line, column, span: start..start + 3, text, message }
}
