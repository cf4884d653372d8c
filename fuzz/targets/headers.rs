//! Header sections as they come in and are made good.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mailweir::clock::Timestamp;
use mailweir::listener::draft::Draft;
use mailweir::mail::{Caller, QueueId, Trace};
use mailweir::smtp::LineEnds;

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (at, minimal, bytes) = input;
    let cut = usize::from(at).min(bytes.len());
    let hostname: Arc<str> = "relay.example".into();
    let trace = Trace {
        helo: "app.example",
        caller: Caller::Ip([192, 0, 2, 7].into()),
        hostname: &hostname,
        esmtp: true,
        tls: false,
        authenticated: false,
        smtputf8: false,
        sender: None,
        minimal,
        recipient: None,
    };
    let draft = Draft::new(QueueId(1), Timestamp(1_795_250_940_123), &trace, 1 << 20, 0, None);
    let mut draft = draft.with_send_at(std::time::Duration::from_secs(86_400), false);
    let mut ends = LineEnds::new();
    ends.feed(&bytes[..cut], |run| draft.push(run));
    ends.feed(&bytes[cut..], |run| draft.push(run));
    ends.finish(|run| draft.push(run));
    draft.push(b"\r\n\r\n");
});
