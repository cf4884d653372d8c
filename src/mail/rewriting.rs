//! Addresses in a header field that get another one in their place: names, comments, quotes, groups and folds around
//! them stay as they are, byte for byte. Pure.
//!
//! An address is what `address_list` takes for one. Where a field is no list of addresses (`From: Scanner scan@mfp.lan`)
//! each run of characters with an `@` in it counts, so that what a device writes is not passed over for its form: also one
//! in brackets, behind `mailto:`, or with bytes that are no UTF-8, which are read as Latin-1 then.

use std::ops::Range;

use super::address_list::{self, Listed};

/// The field, which begins with its name, with `other` in the place of each address for which there is one; `None`: it
/// stays as it is. `other` is asked in their order; what it is given may be a name without a domain.
pub fn rewrite(field: &[u8], mut other: impl FnMut(&str) -> Option<String>) -> Option<Vec<u8>> {
    let from = memchr::memchr(b':', field)? + 1;
    let list = field.get(from..)?;
    let found = address_list::parse(list).unwrap_or_else(|_| runs_with_at(list));
    let (mut new, mut done) = (Vec::new(), 0);
    for Listed { text, span } in found.into_iter().map(|listed| bare(list, listed)) {
        let Some(address) = other(&text) else { continue };
        new.extend_from_slice(list.get(done..span.start)?);
        new.extend_from_slice(address.as_bytes());
        done = span.end;
    }
    if done == 0 {
        return None;
    }
    new.extend_from_slice(list.get(done..)?);
    Some([field.get(..from)?, &new].concat())
}

/// The address in `[jo@x.example]` and `mailto:jo@x.example?subject=hi`: what stands around it stays.
fn bare(list: &[u8], listed: Listed) -> Listed {
    let Listed { text, span } = &listed;
    // Without folds or comments in it, so that text and place are the same.
    if list.get(span.clone()) != Some(text.as_bytes()) || !text.contains('@') {
        return listed;
    }
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text).trim();
    let inner = match inner.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("mailto:") => rest.split('?').next().unwrap_or_default(),
        _ => inner,
    };
    let from = span.start + text.find(inner).unwrap_or_default();
    Listed { text: inner.to_owned(), span: from..from + inner.len() }
}

/// What looks like an address in a text that is no list of them.
fn runs_with_at(list: &[u8]) -> Vec<Listed> {
    let apart = |b: &u8| b.is_ascii_whitespace() || b"<>(),;:\"[]".contains(b);
    let mut runs = Vec::new();
    let mut at = 0;
    while let Some(begin) = list.get(at..).and_then(|rest| rest.iter().position(|b| !apart(b))).map(|n| at + n) {
        let end = list[begin..].iter().position(apart).map_or(list.len(), |n| begin + n);
        runs.push(begin..end);
        at = end;
    }
    let listed = |span: Range<usize>| {
        let bytes = list.get(span.clone())?;
        let latin1 = || bytes.iter().map(|byte| char::from(*byte)).collect();
        let text = std::str::from_utf8(bytes).map_or_else(|_| latin1(), str::to_owned);
        text.contains('@').then_some(Listed { text, span })
    };
    runs.into_iter().filter_map(listed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewritten(field: &str) -> String {
        let other = |text: &str| match text.to_ascii_lowercase() {
            text if text.ends_with(".lan") => Some("desk@shop.example".to_owned()),
            text if text == "scanner" => Some("scans@shop.example".to_owned()),
            _ => None,
        };
        match rewrite(field.as_bytes(), other) {
            Some(new) => String::from_utf8(new).expect("UTF-8"),
            None => field.to_owned(),
        }
    }

    #[test]
    fn the_address_is_another_one_and_all_else_stays() {
        for (field, new) in [
            ("From: mfp@copy.lan\r\n", "From: desk@shop.example\r\n"),
            ("From:mfp@copy.lan\r\n", "From:desk@shop.example\r\n"),
            (
                "FROM : \"Copier, 2nd floor\" <mfp@COPY.LAN> (hall)\r\n",
                "FROM : \"Copier, 2nd floor\" <desk@shop.example> (hall)\r\n",
            ),
            (
                "From: =?UTF-8?Q?Fl=C3=BCr@x?=\r\n <mfp@copy.lan>\r\n",
                "From: =?UTF-8?Q?Fl=C3=BCr@x?=\r\n <desk@shop.example>\r\n",
            ),
            ("From: scanner\r\n", "From: scans@shop.example\r\n"),
            ("From: mfp @ copy . lan\r\n", "From: desk@shop.example\r\n"),
            ("From: <@old.example,@b:mfp@copy.lan>\r\n", "From: <desk@shop.example>\r\n"),
            (
                "From: \"a@b.lan\"@copy.lan, jo@x.example, b@c.lan\r\n",
                "From: desk@shop.example, jo@x.example, desk@shop.example\r\n",
            ),
            (
                "Reply-To: All: a@b.lan, c@x.example;, d@e.lan\r\n",
                "Reply-To: All: desk@shop.example, c@x.example;, desk@shop.example\r\n",
            ),
            // No list, but what devices write.
            ("From: Big Scanner mfp@copy.lan\r\n", "From: Big Scanner desk@shop.example\r\n"),
            ("From: \"Scanner <mfp@copy.lan>\r\n", "From: \"Scanner <desk@shop.example>\r\n"),
            ("From: mailto:mfp@copy.lan\r\n", "From: mailto:desk@shop.example\r\n"),
            ("From: <mailto:mfp@copy.lan>\r\n", "From: <mailto:desk@shop.example>\r\n"),
            ("From: Jo <MailTo:mfp@copy.lan?subject=a@b>\r\n", "From: Jo <MailTo:desk@shop.example?subject=a@b>\r\n"),
            ("From: [mfp@copy.lan]\r\n", "From: [desk@shop.example]\r\n"),
            (
                "From: Jo <[ mfp@copy.lan ]>, [mailto:a@b.lan]\r\n",
                "From: Jo <[ desk@shop.example ]>, [mailto:desk@shop.example]\r\n",
            ),
            ("From: jo@[192.0.2.1], [x]\r\n", "From: jo@[192.0.2.1], [x]\r\n"),
            // Nothing to do.
            ("From: jo@x.example\r\n", "From: jo@x.example\r\n"),
            ("From: \"mfp@copy.lan\" <jo@x.example>\r\n", "From: \"mfp@copy.lan\" <jo@x.example>\r\n"),
            ("From: jo@x.example (mfp@copy.lan)\r\n", "From: jo@x.example (mfp@copy.lan)\r\n"),
            ("From:\r\n", "From:\r\n"),
            ("From: <>\r\n", "From: <>\r\n"),
            ("no field\r\n", "no field\r\n"),
        ] {
            assert_eq!(rewritten(field), new);
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_are_read_as_latin1() {
        let mut asked = Vec::new();
        let new = rewrite(b"From: \"J\xf6rg, 2\" <j\xf6rg@copy.lan> (\xfc)\r\n", |text| {
            asked.push(text.to_owned());
            Some("desk@shop.example".to_owned())
        });
        assert_eq!(new.as_deref(), Some(&b"From: \"J\xf6rg, 2\" <desk@shop.example> (\xfc)\r\n"[..]));
        assert_eq!(asked, ["j\u{f6}rg@copy.lan"]);
    }

    proptest! {
        /// Never a panic, and never more than the addresses: without them both texts are the same.
        #[test]
        fn whatever_comes_only_addresses_change(list in "[a-c@.<>\",;:() \\\\\r\n\\[\\]é=?]{0,60}") {
            let field = format!("From:{list}");
            let mut asked = 0;
            let same = rewrite(field.as_bytes(), |_| { asked += 1; None });
            prop_assert!(same.is_none());
            let new = rewrite(field.as_bytes(), |_| Some("NEW".to_owned()));
            prop_assert_eq!(new.is_some(), asked > 0);
            if let Some(new) = new {
                prop_assert!(new.starts_with(b"From:"));
                prop_assert_eq!(new.windows(3).filter(|w| *w == b"NEW").count(), asked);
            }
        }
    }
}
