//! How urgent a message says it is, in its header fields. Pure.
//!
//! Only asked where MAIL had no MT-PRIORITY (RFC 6710). A field that says "bulk" beats one that says
//! "urgent": newsletters call themselves urgent, password resets do not call themselves bulk. Of
//! several that agree, the strongest counts. Only the first line of a folded field is read.
//!
//! | field | value | priority |
//! | --- | --- | --- |
//! | `X-Priority` | 1, 2, 3, 4, 5 (text may follow) | 4, 2, 0, -2, -4 |
//! | `Importance` (RFC 2156 §5.3.4) | high, normal, low | 2, 0, -2 |
//! | `Precedence` (RFC 2076 §3.9) | bulk, list, junk | -4, -4, -6 |
//! | `List-Unsubscribe` (RFC 2369) | anything | -4 |
//!
//! `List-Unsubscribe` counts since the great providers ask bulk senders for it, so that it is on
//! nearly every newsletter of today while `Precedence` is on few.

/// What the fields said so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Urgency {
    lowest: Option<i8>,
    highest: Option<i8>,
}

impl Urgency {
    /// Takes note of a header field; `line` is its first line, with the name.
    pub fn field(&mut self, name: &[u8], line: &[u8]) {
        let Some(priority) = priority_of(name, line) else { return };
        self.lowest = Some(self.lowest.map_or(priority, |p| p.min(priority)));
        self.highest = Some(self.highest.map_or(priority, |p| p.max(priority)));
    }

    /// From -6 to 4; `None` if no field said anything.
    pub fn priority(self) -> Option<i8> {
        self.lowest.filter(|lowest| *lowest < 0).or(self.highest)
    }
}

fn priority_of(name: &[u8], line: &[u8]) -> Option<i8> {
    let is = |field: &str| name.eq_ignore_ascii_case(field.as_bytes());
    if is("list-unsubscribe") {
        return Some(-4);
    }
    let kind = ["x-priority", "importance", "precedence"].into_iter().find(|field| is(field))?;
    let colon = memchr::memchr(b':', line)?;
    let value = line.get(colon + 1..)?.trim_ascii_start();
    let end = value.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(value.len());
    let word = value.get(..end)?.to_ascii_lowercase();
    match (kind, word.as_slice()) {
        ("x-priority", b"1") => Some(4),
        ("x-priority", b"2") | ("importance", b"high") => Some(2),
        ("x-priority", b"3") | ("importance", b"normal") => Some(0),
        ("x-priority", b"4") | ("importance", b"low") => Some(-2),
        ("x-priority", b"5") | ("precedence", b"bulk" | b"list") => Some(-4),
        ("precedence", b"junk") => Some(-6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_table_and_nothing_else() {
        for (line, expected) in [
            ("X-Priority: 1 (Highest)", Some(4)),
            ("x-priority:2", Some(2)),
            ("X-PRIORITY :3", Some(0)),
            ("X-Priority: 4", Some(-2)),
            ("X-Priority: 5 (Lowest)", Some(-4)),
            ("X-Priority: 10", None),
            ("X-Priority: 0", None),
            ("X-Priority: urgent", None),
            ("X-Priority:", None),
            ("Importance: High", Some(2)),
            ("Importance: normal", Some(0)),
            ("Importance:  low", Some(-2)),
            ("Precedence: bulk", Some(-4)),
            ("precedence: LIST", Some(-4)),
            ("Precedence: junk", Some(-6)),
            ("Precedence: first-class", None),
            ("Precedence: bulky", None),
            ("List-Unsubscribe: <mailto:u@a.example>", Some(-4)),
            ("List-Id: <l.example>", None),
            ("Subject: Precedence: bulk", None),
        ] {
            let mut urgency = Urgency::default();
            urgency.field(line.split(':').next().unwrap().trim_end().as_bytes(), format!("{line}\r\n").as_bytes());
            assert_eq!(urgency.priority(), expected, "{line}");
        }
    }

    #[test]
    fn bulk_beats_urgent_and_the_strongest_counts() {
        let of = |lines: &[&str]| {
            let mut urgency = Urgency::default();
            lines.iter().for_each(|l| urgency.field(l.split(':').next().unwrap().as_bytes(), l.as_bytes()));
            urgency.priority()
        };
        assert_eq!(of(&["X-Priority: 1", "List-Unsubscribe: <https://a.example>"]), Some(-4));
        assert_eq!(of(&["Precedence: junk", "Precedence: bulk"]), Some(-6));
        assert_eq!(of(&["X-Priority: 1", "Importance: normal"]), Some(4));
        assert_eq!(of(&["X-Priority: 3", "Importance: high"]), Some(2));
        assert_eq!(of(&[]), None);
    }
}
