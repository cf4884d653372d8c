//! The fields of a log line in plain text, as `tracing_subscriber` writes them, byte for byte.
//!
//! Its own visitor has every piece of every field pass through the formatting machinery, name and `=` each with a style
//! that is empty where there are no colours. With two lines of some twenty fields a message that took a twentieth of
//! our own CPU time. Nearly all fields are text without anything to escape, or numbers.
//!
//! Invariant: whatever is not plain text is written by what `tracing_subscriber` and the standard library have for it,
//! escapes included.

use std::error::Error;
use std::fmt;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

/// The field that has the words of a line.
const MESSAGE: &str = "message";

/// Writes fields without colours.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PlainFields;

impl<'w> FormatFields<'w> for PlainFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'w> {
    writer: Writer<'w>,
    is_empty: bool,
    result: fmt::Result,
}

impl Line<'_> {
    /// Writes a field, unless one before it failed.
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.result.is_err() {
            return;
        }
        let space = if std::mem::take(&mut self.is_empty) { "" } else { " " };
        let name = field.name();
        let writer = &mut self.writer;
        self.result = [space, name.strip_prefix("r#").unwrap_or(name), "="]
            .into_iter()
            .try_for_each(|text| writer.write_str(text))
            .and_then(|()| value(writer));
    }

    /// Has it written by the library.
    fn usual(&mut self, record: impl FnOnce(&mut DefaultVisitor<'_>)) {
        if self.result.is_err() {
            return;
        }
        let mut visitor = DefaultVisitor::new(self.writer.by_ref(), std::mem::take(&mut self.is_empty));
        record(&mut visitor);
        self.result = visitor.finish();
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            return self.usual(|visitor| visitor.record_str(field, value));
        }
        self.field(field, |out| {
            if !is_plain(value) {
                return write!(out, "{value:?}");
            }
            ["\"", value, "\""].into_iter().try_for_each(|text| out.write_str(text))
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |out| write!(out, "{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.usual(|visitor| visitor.record_error(field, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            return self.usual(|visitor| visitor.record_debug(field, value));
        }
        self.field(field, |out| write!(out, "{value:?}"));
    }
}

/// Nothing of it is written otherwise between quotation marks.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, b| plain & matches!(b, b' '..=b'~') & (b != b'"') & (b != b'\\'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::fmt::format::DefaultFields;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What `log` writes with these fields, without the time.
    fn written<F>(fields: F, log: impl FnOnce()) -> String
    where
        F: for<'w> FormatFields<'w> + Send + Sync + 'static,
    {
        let lines = Lines::default();
        let to = lines.clone();
        let builder = tracing_subscriber::fmt().with_writer(move || to.clone()).without_time().with_target(false);
        let subscriber = builder.with_ansi(false).with_max_level(tracing::Level::TRACE).fmt_fields(fields).finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = lines.0.lock().clone();
        String::from_utf8(bytes).expect("text")
    }

    fn log() {
        let texts = [
            "",
            "plain text",
            "it's",
            "a \"quotation\"",
            "back\\slash",
            "line\r\nend\t",
            "\u{1b}[31mred",
            "jörg 日本 \u{301}\u{202e}",
        ];
        for text in texts {
            tracing::info!(text, n = 7_u64, "words");
            tracing::info!(text, shown = %text, "with {text}");
            tracing::warn!(text = ?text, some = ?Some(text), none = ?None::<u8>);
            let error = std::io::Error::other(text);
            tracing::error!(%error, error = &error as &(dyn Error + 'static), "failed");
        }
        let absent: Option<&str> = None;
        tracing::debug!(
            absent,
            there = Some("x"),
            yes = true,
            below = -3_i64,
            part = 0.5,
            big = u128::MAX,
            "all kinds"
        );
        let kept = tracing::info_span!("outside", of = "a span", count = 1);
        let _entered = kept.enter();
        tracing::trace!(r#type = "t", "in it");
        tracing::trace!(only = "a field");
    }

    #[test]
    fn lines_are_those_of_the_library() {
        let (own, usual) = (written(PlainFields, log), written(DefaultFields::new(), log));
        assert_eq!(own.lines().count(), usual.lines().count());
        for (own, usual) in own.lines().zip(usual.lines()) {
            assert_eq!(own, usual);
        }
        assert!(usual.contains("text=\"it's\" n=7") && usual.contains("type=\"t\""), "{usual}");
    }
}
