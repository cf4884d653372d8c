//! Messages to send, and questions to ask about those that arrived.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

/// A small message with this subject and everything a submission must have, so that mailweir has
/// no reason to add more than `Received:`.
pub fn message(subject: &str) -> Vec<u8> {
    format!(
        "From: <sender@sender.test>\r\nTo: <somebody@example.test>\r\nDate: Sat, 21 Nov 2026 09:00:00 +0000\r\n\
         Message-ID: <{subject}@sender.test>\r\nSubject: {subject}\r\n\r\nThe body of {subject}.\r\n"
    )
    .into_bytes()
}

/// The value of the first header field of that name, unfolded. Looks at the first 64 KB only.
pub fn header(content: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(&content[..content.len().min(64 * 1024)]);
    let head = text.split("\r\n\r\n").next()?;
    let unfolded = head.replace("\r\n\t", " ").replace("\r\n ", " ");
    unfolded.split("\r\n").find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// The subject, which the tests use as the identity of a message.
pub fn subject(content: &[u8]) -> String {
    header(content, "Subject").unwrap_or_default()
}

/// Splits a received message into the one `Received:` field that mailweir put on top, and the rest.
/// Panics if it does not start with one or if there is a second one that was not in `sent`.
pub fn split_received(content: &[u8]) -> (String, &[u8]) {
    assert!(content.starts_with(b"Received: "), "starts with {:?}", String::from_utf8_lossy(&content[..80]));
    let mut end = 0;
    for line in content.split_inclusive(|b| *b == b'\n') {
        if end > 0 && !line.starts_with(b" ") && !line.starts_with(b"\t") {
            break;
        }
        end += line.len();
    }
    (String::from_utf8_lossy(&content[..end]).into_owned(), &content[end..])
}

/// Panics with the first difference, and where it is, unless both are the same. (`assert_eq` would
/// print 20 MB twice.)
pub fn assert_same_bytes(what: &str, arrived: &[u8], sent: &[u8]) {
    let at = arrived.iter().zip(sent).position(|(a, b)| a != b).unwrap_or(arrived.len().min(sent.len()));
    if at == arrived.len() && at == sent.len() {
        return;
    }
    let near = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[at.saturating_sub(40).min(bytes.len())..(at + 60).min(bytes.len())]).into_owned()
    };
    panic!(
        "{what}: {} bytes arrived, {} were sent, different from byte {at} on:\narrived …{:?}…\nsent    …{:?}…",
        arrived.len(),
        sent.len(),
        near(arrived),
        near(sent)
    );
}

/// What Python's `email` makes of a message: its content type and `report-type`, and for each part
/// its type, its header fields and its text. A `message/delivery-status` part comes as the list of
/// its blocks, each a map of its fields (names in lower case).
pub fn parsed_by_python(content: &[u8]) -> Value {
    let mut python = Command::new(super::program("python3"));
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/parse_mail.py"));
    let output = super::run_ok(&mut python, content, Duration::from_secs(30));
    serde_json::from_slice(&output.stdout).expect("JSON from parse_mail.py")
}

/// A delivery status notification as Python's `email` sees it, with its shape (RFC 3462, RFC 3464)
/// already checked.
pub struct Report(Value);

impl Report {
    /// Panics unless `content` is a multipart/report of type delivery-status with a text part
    /// first, the status second, and (some of) the returned message third.
    pub fn parse(content: &[u8]) -> Report {
        let all = parsed_by_python(content);
        assert_eq!(all["type"], "multipart/report", "{all}");
        assert_eq!(all["report_type"], "delivery-status", "{all}");
        assert_eq!(all["defects"].as_array().map(Vec::len), Some(0), "{all}");
        assert_eq!(all["parts"][0]["type"], "text/plain", "{all}");
        assert_eq!(all["parts"][1]["type"], "message/delivery-status", "{all}");
        let returned = all["parts"][2]["type"].as_str().unwrap_or_default();
        assert!(["text/rfc822-headers", "message/rfc822"].contains(&returned), "{all}");
        assert_eq!(all["parts"].as_array().map(Vec::len), Some(3), "{all}");
        Report(all)
    }

    /// A header field of the DSN itself.
    pub fn header(&self, name: &str) -> &str {
        self.0["headers"][name].as_str().unwrap_or_default()
    }

    /// A field of the per-message block.
    pub fn message_field(&self, name: &str) -> &str {
        self.0["parts"][1]["blocks"][0][name].as_str().unwrap_or_default()
    }

    /// A field of the only per-recipient block.
    pub fn recipient_field(&self, name: &str) -> &str {
        let blocks = self.0["parts"][1]["blocks"].as_array().map_or(0, Vec::len);
        assert_eq!(blocks, 2, "one per-message and one per-recipient block: {}", self.0);
        self.0["parts"][1]["blocks"][1][name].as_str().unwrap_or_default()
    }

    /// Whom it tells of: the final recipient of each per-recipient block.
    pub fn recipients(&self) -> Vec<&str> {
        let blocks = self.0["parts"][1]["blocks"].as_array().map_or(&[][..], Vec::as_slice);
        blocks.iter().skip(1).filter_map(|block| block["final-recipient"].as_str()).collect()
    }

    /// The text for people.
    pub fn text(&self) -> &str {
        self.0["parts"][0]["text"].as_str().unwrap_or_default()
    }

    /// The returned message or header section.
    pub fn returned(&self) -> &str {
        self.0["parts"][2]["text"].as_str().unwrap_or_default()
    }

    /// The content type of the returned part.
    pub fn returned_type(&self) -> &str {
        self.0["parts"][2]["type"].as_str().unwrap_or_default()
    }
}
