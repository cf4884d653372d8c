//! The message that every program sends, or is sent, and whether what arrived is it.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::case::{Case, folder};
use super::support::{SOON, TestDir, program, run_ok};

pub const FROM: &str = "sender@sender.test";
pub const FROM_NAME: &str = "Jörg Müller";
pub const SUBJECT: &str = "Grüße aus Köln — 你好";
/// How the Message-ID of [`Letter::octets`] begins.
pub const OCTETS: &str = "octets-";
/// Two recipients, one of a copy and one of a blind copy.
pub const RECIPIENTS: [&str; 4] =
    ["first@example.test", "second@example.test", "copy@example.test", "blind@example.test"];

/// The message as files, for programs of every kind.
pub struct Letter {
    /// The text, with line feeds.
    pub text: String,
    /// The same as a file.
    pub text_file: PathBuf,
    pub attachment_file: PathBuf,
    /// All of it, with its header and line feeds.
    pub message_file: PathBuf,
    pub message: Vec<u8>,
    shows: Vec<String>,
}

impl Letter {
    /// Written into the directory; only with what the case shows.
    pub fn write(dir: &TestDir, case: &Case) -> Letter {
        let has = |sight: &str| case.shows.iter().any(|word| word == sight);
        let mut text = String::from("Grüße! Ein Satz, der ankommt: 日本語, ελληνικά.\n");
        if has("dots") {
            text.push_str(".dot\n..two dots\n.\n...\n");
        }
        if has("from line") {
            text.push_str("From here on\n");
        }
        if has("long line") {
            text.push_str("a long line, which SMTP does not allow ".repeat(50).trim_end());
            text.push('\n');
        }
        text.push_str("the last line\n");
        let attachment: Vec<u8> = (0..20_000_u32).map(|i| (i * i % 251) as u8).collect();
        let message = compose(&text, has("attachment").then_some(&attachment));
        Letter {
            text_file: dir.write("text.txt", &text),
            attachment_file: dir.write("picture.bin", &attachment),
            message_file: dir.write("message.eml", &message),
            message: message.into_bytes(),
            shows: case.shows.clone(),
            text,
        }
    }

    /// The same for BODY=BINARYMIME: text and attachment are octets, the lines of the text end in line feeds.
    pub fn octets(&self) -> Vec<u8> {
        let attachment = std::fs::read(&self.attachment_file).expect("the attachment");
        let message = compose("", Some(&Vec::new()));
        let head = message.split("\n\n").next().unwrap_or_default();
        let head = head.replace("<interop@", &format!("<{OCTETS}interop@")).replace('\n', "\r\n");
        let part =
            |kind: &str| format!("\r\n--=-border\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: binary\r\n");
        let text = part("text/plain; charset=utf-8") + "\r\n" + &self.text;
        let disposition = "Content-Disposition: attachment; filename=\"picture.bin\"\r\n\r\n";
        let file = part("application/octet-stream") + disposition;
        [head.as_bytes(), b"\r\n", text.as_bytes(), file.as_bytes(), &attachment, b"\r\n--=-border--\r\n"].concat()
    }

    /// What is not as it was sent; empty if it arrived whole.
    pub fn faults(&self, content: &[u8]) -> Vec<String> {
        let seen = read(content);
        let said = |key: &str| seen[key].as_str().unwrap_or_default().replace("\r\n", "\n");
        let mut faults = Vec::new();
        let mut must = |sight: &str, right: bool, what: String| {
            if !right && self.shows.iter().any(|word| word == sight) {
                faults.push(format!("{sight}: {what}"));
            }
        };
        must("subject", said("subject") == SUBJECT, said("subject"));
        // Some put a blank into an encoded word where the fold is.
        let from = said("from").split_whitespace().collect::<Vec<_>>().join(" ");
        must("from", from.contains(FROM_NAME) && from.contains(FROM), from.clone());
        must("to", RECIPIENTS[..2].iter().all(|to| said("to").contains(to)), said("to"));
        must("text", said("text").contains(self.text.trim_end()), difference(&said("text"), &self.text));
        let leaks = said("fields").contains(RECIPIENTS[3]) || said("fields").to_lowercase().contains("bcc:");
        must("blind", !leaks, "the blind copy is named in the message".to_owned());
        let sum = run_ok(Command::new(program("sha256sum")).arg(&self.attachment_file), b"", SOON).stdout;
        let sum = String::from_utf8_lossy(&sum);
        let sum = sum.split(' ').next().unwrap_or_default();
        let attached = seen["attachments"].as_array().is_some_and(|all| all.iter().any(|one| one["sha256"] == sum));
        must("attachment", attached, seen["attachments"].to_string());
        faults
    }
}

/// The first line that is not as it was sent, or what there is instead of all of them.
fn difference(arrived: &str, sent: &str) -> String {
    let start = sent.lines().next().unwrap_or_default();
    let arrived: Vec<&str> = arrived.lines().skip_while(|line| *line != start).collect();
    let pair = sent.lines().enumerate().find(|(n, line)| arrived.get(*n) != Some(line));
    pair.map_or_else(String::new, |(n, line)| format!("line {n} is {:?}, not {line:?}", arrived.get(n)))
}

/// What a mail program makes of a message.
pub fn read(content: &[u8]) -> Value {
    let mut python = Command::new(program("python3"));
    python.arg(Path::new(&folder()).join("read.py"));
    serde_json::from_slice(&run_ok(&mut python, content, SOON).stdout).expect("JSON of read.py")
}

fn word(text: &str) -> String {
    format!("=?utf-8?B?{}?=", STANDARD.encode(text))
}

fn compose(text: &str, attachment: Option<&Vec<u8>>) -> String {
    let [to, also, copy, blind] = RECIPIENTS;
    let head = format!(
        "From: {} <{FROM}>\nTo: {to},\n {also}\nCc: {copy}\nBcc: {blind}\nSubject: {}\n\
         Date: Sat, 21 Nov 2026 09:00:00 +0000\nMessage-ID: <interop@sender.test>\nMIME-Version: 1.0\n",
        word(FROM_NAME),
        word(SUBJECT)
    );
    let plain = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n";
    let Some(attachment) = attachment else { return format!("{head}{plain}\n{text}") };
    let encoded = STANDARD.encode(attachment);
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!(
        "{head}Content-Type: multipart/mixed; boundary=\"=-border\"\n\n--=-border\n{plain}\n{text}\n--=-border\n\
         Content-Type: application/octet-stream; name=\"picture.bin\"\nContent-Transfer-Encoding: base64\n\
         Content-Disposition: attachment; filename=\"picture.bin\"\n\n{}\n--=-border--\n",
        lines.join("\n")
    )
}
