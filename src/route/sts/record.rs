//! The TXT record at `_mta-sts.DOMAIN`, which says that there is a policy, and by its `id` whether that has changed
//! (RFC 8461 §3.1).

use std::sync::Arc;

/// What DNS says of a domain's policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// There is one, with this id.
    Id(Arc<str>),
    /// There is none: no record, several, or one that is malformed.
    None,
    /// The name servers gave no answer.
    Failed,
}

/// The id in the texts of all TXT records of the name, each already put together from its strings. Exactly one of
/// them has to be of MTA-STS.
pub fn id_of<'t>(texts: impl Iterator<Item = &'t [u8]>) -> Option<Arc<str>> {
    let mut ours = texts.filter_map(fields);
    let only = ours.next().filter(|_| ours.next().is_none())?;
    // Of a field that is there twice the first counts; those that are not known may be anything.
    let id = only.split(';').skip(1).find_map(|field| field.trim_matches([' ', '\t']).strip_prefix("id="))?;
    let fits = (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    fits.then(|| Arc::from(id))
}

/// The text of a record that is of this version: others are passed over before they are counted.
fn fields(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?;
    let behind = text.strip_prefix("v=STSv1")?.trim_start_matches([' ', '\t']);
    behind.starts_with(';').then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(texts: &[&str]) -> Option<String> {
        id_of(texts.iter().map(|text| text.as_bytes())).map(|id| id.to_string())
    }

    #[test]
    fn one_record_of_this_version_with_an_id_of_letters_and_digits() {
        for (texts, expected) in [
            (&["v=STSv1; id=20160831085700Z;"] as &[&str], Some("20160831085700Z")),
            (&["v=STSv1;id=1"], Some("1")),
            (&["v=STSv1 ; id=a1 ; ext=x y"], Some("a1")),
            (&["v=STSv1; ext=1; id=b; id=c"], Some("b")),
            (&["v=spf1 -all", "v=STSv1; id=1;", "v=STSv10; id=7"], Some("1")),
            (&["v=STSv1; id=1;", "v=STSv1; id=1;"], None),
            (&["v=STSv1"], None),
            (&["v=STSv1;"], None),
            (&["v=STSv1; id=;"], None),
            (&["v=STSv1; id=a-b;"], None),
            (&["v=STSv1; id=123456789012345678901234567890123;"], None),
            (&["V=STSv1; id=1;"], None),
            (&["id=1; v=STSv1;"], None),
            (&["v=STSv2; id=1;"], None),
            (&[], None),
        ] {
            assert_eq!(id(texts).as_deref(), expected, "{texts:?}");
        }
        assert_eq!(id_of([b"v=STSv1; id=\xff;".as_slice()].into_iter()), None);
    }
}
