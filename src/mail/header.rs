//! Lines of a header section. Pure.

use std::ops::Range;

use memchr::memchr;

/// Makes a field of the line that [`is_mailbox_line`].
pub const MAILBOX_FIELD: [u8; 16] = *b"X-Mailbox-Line: ";

/// The name of a header field (RFC 5322 §3.6.8; white space before the colon is obsolete but
/// seen), or `None` if the line is no field.
pub fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr(b':', line)?;
    let name = line.get(..colon)?.trim_ascii_end();
    (!name.is_empty() && name.iter().all(|b| (33..=126).contains(b))).then_some(name)
}

/// Whether this is the line that stands above each message in a mailbox file (RFC 4155 §A), or one
/// quoted there: `git format-patch`, procmail and old mailers hand it over with the message. Where
/// it is not the first line, it is text.
pub fn is_mailbox_line(line: &[u8]) -> bool {
    let line = line.strip_prefix(b">").unwrap_or(line);
    line.starts_with(b"From ") && field_name(line).is_none()
}

/// Takes ranges out, in one pass however many they are; returns how many bytes went. The ranges
/// are in order, do not overlap and lie inside `buf`.
pub fn cut_out(buf: &mut Vec<u8>, ranges: &[Range<usize>]) -> usize {
    let Some(mut to) = ranges.first().map(|first| first.start) else { return 0 };
    let before = buf.len();
    let kept_until = ranges.iter().skip(1).map(|next| next.start).chain([before]);
    for (range, end) in ranges.iter().zip(kept_until) {
        buf.copy_within(range.end..end, to);
        to += end - range.end;
    }
    buf.truncate(to);
    before - to
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_left_is_what_was_not_cut_out(pieces in prop::collection::vec((0usize..5, any::<bool>()), 0..20)) {
            let (mut buf, mut ranges, mut left) = (Vec::new(), Vec::new(), Vec::new());
            for (i, (len, goes)) in pieces.into_iter().enumerate() {
                let piece = vec![i as u8; len];
                if goes {
                    ranges.push(buf.len()..buf.len() + len);
                } else {
                    left.extend_from_slice(&piece);
                }
                buf.extend_from_slice(&piece);
            }
            let all = buf.len();
            prop_assert_eq!(cut_out(&mut buf, &ranges), all - left.len());
            prop_assert_eq!(buf, left);
        }
    }

    #[test]
    fn a_field_with_white_space_before_its_colon_is_no_line_of_a_mailbox() {
        for line in ["From a@b Mon Sep 17 00:00:00 2001", ">From a@b", "From "] {
            assert!(is_mailbox_line(line.as_bytes()), "{line}");
        }
        for line in ["From : a@b", "From: a@b", "From", ">>From a@b", "from a@b", " From a@b", "Frome a@b"] {
            assert!(!is_mailbox_line(line.as_bytes()), "{line}");
        }
    }
}
