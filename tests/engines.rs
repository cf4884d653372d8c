//! The same dialogs on both engines. What the second one does otherwise is written to
//! `docs/engines.md`; the test fails when that file is not what the engines do.
//! `UPDATE_DOCS=1 cargo test --test engines` writes it anew.

#[path = "support/listener.rs"]
mod support;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;

use mailweir::config::Engine;
use support::{Compare, Dialog, Mismatch};

/// Dialogs at a time: each has its own listener, and some wait for a reply that never comes.
const AT_ONCE: usize = 12;

const INTRODUCTION: &str = "\
# The two engines of a listener

`engine = \"native\"` (the default) is mailweir's own, on tokio. `engine = \"mailin\"` is mailin-embedded
behind the same admission policy, body handling and queue. It is there for those who want a second,
independent implementation of the protocol; it knows less of it. What it cannot do right it refuses,
and where a session could get out of step it ends the session.

In short, mailin takes neither `MAIL FROM:<>` nor parameters of MAIL and RCPT (but `BODY=`), has no
CHUNKING, DSN, SIZE or SMTPUTF8, uses a thread for each session (256 at most), and takes no clients that
speak LF only. A line may have 64 KiB. Messages with a bare LF are refused, since mailin would let them
end at LF `.` CR LF. After a refused message the connection is closed. `Received:` always says `SMTP`.
Time-outs, connection limits and shutdown are those of the native engine: a gate in front of mailin
sees to them.

There is no TLS with mailin: `tls` of such a listener is refused. Its own would run from end to end through
the gate, which could then neither bound lines nor say why it closes.

This table is made by `tests/engines.rs`, which plays every dialog of `tests/dialogs` on both engines and
compares the codes of the replies and what was queued. Dialogs on simulated time are not compared.

| dialog | native | mailin |
| --- | --- | --- |
";

fn cell(text: &str) -> String {
    let text: String = text.chars().take(90).collect();
    text.replace('|', "\\|")
}

#[test]
fn the_differences_between_the_engines_are_documented() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dialogs: Vec<Dialog> =
        Dialog::load(&folder.join("tests/dialogs")).into_iter().filter(|d| !d.needs_paused_time()).collect();
    assert!(dialogs.len() >= 50, "only {} dialogs found", dialogs.len());

    let waiting: Mutex<VecDeque<usize>> = Mutex::new((0..dialogs.len()).collect());
    let results: Mutex<Vec<Option<Result<(), Mismatch>>>> = Mutex::new(dialogs.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(i) = waiting.lock().expect("no panic").pop_front() else { return };
                    let result = dialogs[i].play(Engine::Mailin, Compare::Code);
                    results.lock().expect("no panic")[i] = Some(result);
                }
            });
        }
    });

    let mut page = INTRODUCTION.to_owned();
    let mut same = Vec::new();
    for (dialog, result) in dialogs.iter().zip(results.into_inner().expect("no panic")) {
        match result.expect("every dialog was played") {
            Ok(()) => same.push(dialog.title.as_str()),
            Err(Mismatch { after, expected, got, .. }) => {
                let (title, after) = (cell(&dialog.title), cell(&after));
                let _ = writeln!(page, "| {title} | after `{after}`: {} | {} |", cell(&expected), cell(&got));
            }
        }
    }
    assert!(same.len() >= 20, "mailin does only {} dialogs right", same.len());
    page.push_str("\nThe same on both:\n\n");
    for title in same {
        let _ = writeln!(page, "- {title}");
    }

    let file = folder.join("docs/engines.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &page).expect("docs/engines.md");
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    for (documented, now) in written.lines().zip(page.lines()) {
        assert_eq!(documented, now, "docs/engines.md is stale: run UPDATE_DOCS=1 cargo test --test engines");
    }
    assert_eq!(written, page, "docs/engines.md is stale: run UPDATE_DOCS=1 cargo test --test engines");
}
