//! What might be taken for the end of a message, and who takes it for one: sequences around such an end, servers that
//! read more leniently than RFC 5321 §4.1.1.4, as rules, and a recorder that keeps what it gets byte by byte.
//!
//! The rules are written after the programs' sources, as they were before SMTP smuggling was known of (December 2023).

// Each test program uses a part of this.
#![allow(dead_code)]

/// Every sequence of at most so many of CR, LF, NUL and dot, shorter ones first.
pub fn sequences(most: usize) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = vec![Vec::new()];
    for from in 0.. {
        let Some(start) = all.get(from).filter(|s| s.len() < most).cloned() else { break };
        all.extend(b"\r\n\0.".map(|byte| [start.as_slice(), &[byte]].concat()));
    }
    let expected: usize = (0..=most as u32).map(|length| 4usize.pow(length)).sum();
    assert_eq!(all.len(), expected);
    all
}

/// Where the data that begins here ends: how many bytes of it a server reads before its next command.
pub type Ends = fn(&[u8]) -> Option<usize>;

/// RFC 5321 §4.1.1.4: CRLF `.` CRLF, where the line of DATA brings the first CRLF.
pub fn strict(data: &[u8]) -> Option<usize> {
    if data.starts_with(b".\r\n") {
        return Some(3);
    }
    data.windows(5).position(|five| five == b"\r\n.\r\n").map(|at| at + 5)
}

/// Lines end at LF, and each CR before it belongs to that: Postfix before 3.9 (`smtp_get_noexcept` in
/// src/global/smtp_stream.c, `data_cmd` in src/smtpd/smtpd.c).
pub fn postfix(data: &[u8]) -> Option<usize> {
    lone_dot(data, |line| {
        let end = line.iter().rposition(|byte| *byte != b'\r').map_or(0, |at| at + 1);
        &line[..end]
    })
}

/// Lines end at LF, one CR before it belongs to that, and a NUL ends the text of a line: OpenSMTPD before 7.4.0p1
/// (`smtp_io` in usr.sbin/smtpd/smtp_session.c compares with `strcmp`).
pub fn opensmtpd(data: &[u8]) -> Option<usize> {
    lone_dot(data, |line| {
        let line = without_cr(line);
        line.split(|byte| *byte == 0).next().unwrap_or(line)
    })
}

/// CR, LF and CRLF all end a line: nobody in particular, and each that takes CR for a line end (as Cisco's gateway did).
pub fn any_line_end(data: &[u8]) -> Option<usize> {
    let mut start = 0;
    for (at, byte) in data.iter().enumerate() {
        if !matches!(byte, b'\r' | b'\n') {
            continue;
        }
        if &data[start..at] == b"." {
            let pair = *byte == b'\r' && data.get(at + 1) == Some(&b'\n');
            return Some(at + 1 + usize::from(pair));
        }
        start = at + 1;
    }
    None
}

/// The end of the first line that is `.` once it is trimmed.
fn lone_dot(data: &[u8], trimmed: fn(&[u8]) -> &[u8]) -> Option<usize> {
    let mut read = 0;
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        read += line.len();
        if line.strip_suffix(b"\n").is_some_and(|line| trimmed(line) == b".") {
            return Some(read);
        }
    }
    None
}

/// Exim before 4.97.1 (`read_message_data_smtp` in src/src/receive.c): LF or CRLF on either side of the dot. A CR alone
/// is a line end too, but no dot behind it counts.
pub fn exim(data: &[u8]) -> Option<usize> {
    lone_dot(data, without_cr)
}

/// Sendmail before 8.18 (`collect` in sendmail/collect.c): the same ends, and CRs by themselves are text.
pub fn sendmail(data: &[u8]) -> Option<usize> {
    lone_dot(data, without_cr)
}

/// A line without the one CR that is part of its end.
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Everybody who is lenient.
pub const LENIENT: [(&str, Ends); 5] = [
    ("Postfix before 3.9", postfix),
    ("Exim before 4.97.1", exim),
    ("Sendmail before 8.18", sendmail),
    ("OpenSMTPD before 7.4.0p1", opensmtpd),
    ("a server to whom every CR and LF is a line end", any_line_end),
];

/// The lines of commands that a server finds which reads ends of data like that.
pub fn commands(stream: &[u8], ends: Ends) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), stream);
    while let Some(lf) = rest.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&rest[..lf]).trim_end_matches('\r').to_owned();
        rest = &rest[lf + 1..];
        let skip = match line.strip_prefix("BDAT ") {
            Some(size) => size.split(' ').next().and_then(|n| n.parse().ok()),
            None if line == "DATA" => ends(rest),
            None => Some(0),
        };
        found.push(line);
        match skip.and_then(|skip: usize| rest.get(skip..)) {
            Some(after) => rest = after,
            None => break,
        }
    }
    found
}

/// A server that keeps what it gets, and reads it by the letter.
pub struct Recorder {
    offers: &'static [&'static str],
    /// Everything that came.
    pub raw: Vec<u8>,
    read: usize,
    in_data: bool,
    /// Messages that were complete.
    pub messages: usize,
}

impl Recorder {
    pub fn new(offers: &'static [&'static str]) -> Recorder {
        Recorder { offers, raw: Vec::new(), read: 0, in_data: false, messages: 0 }
    }

    /// What it answers to this.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.raw.extend_from_slice(bytes);
        let mut said = Vec::new();
        while let Some(reply) = self.next() {
            said.extend_from_slice(reply.as_bytes());
        }
        said
    }

    fn next(&mut self) -> Option<String> {
        let rest = self.raw.get(self.read..)?;
        if self.in_data {
            self.read += strict(rest)?;
            self.in_data = false;
            self.messages += 1;
            return Some("250 2.0.0 taken\r\n".into());
        }
        let length = rest.windows(2).position(|two| two == b"\r\n")? + 2;
        let line = String::from_utf8_lossy(&rest[..length - 2]).into_owned();
        let mut read = self.read + length;
        let reply = match line.split(' ').next().unwrap_or_default() {
            "EHLO" => {
                let offers: String = self.offers.iter().map(|word| format!("250-{word}\r\n")).collect();
                format!("250-recorder.test\r\n{offers}250 HELP\r\n")
            }
            "DATA" => {
                self.in_data = true;
                "354 go\r\n".into()
            }
            "BDAT" => {
                read += line.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok()).expect("a size");
                if self.raw.len() < read {
                    return None;
                }
                self.messages += usize::from(line.ends_with(" LAST"));
                "250 2.0.0 taken\r\n".into()
            }
            "QUIT" => "221 2.0.0 bye\r\n".into(),
            "MAIL" | "RCPT" | "RSET" | "NOOP" => "250 2.0.0 ok\r\n".into(),
            _ => "500 5.5.2 what?\r\n".into(),
        };
        self.read = read;
        Some(reply)
    }
}
