//! Times that a message or an operator names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweir::mail::send_at::{self, SendAt};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = send_at::parse(text);
    }
    let mut field = SendAt::default();
    let mut lines = bytes.split_inclusive(|b| *b == b'\n');
    if let Some(first) = lines.next() {
        field.begin(first);
    }
    lines.for_each(|line| field.more(line));
    let _ = field.time();
});
