//! `mailweir check`: the effective configuration, or all that is wrong with it.

use std::io::Write;

use serde_json::{Value as Json, json};
use toml_edit::Value;

use super::screen;
use super::{Code, Failed, Outcome};
use crate::config::report::AsToml;
use crate::config::{ConfigError, Loaded, Store};
use crate::queue::sqlite::Aside;

pub(super) fn check(loaded: Result<Loaded, ConfigError>, json: bool) -> Outcome {
    let mut out = screen::stdout();
    if json {
        writeln!(out, "{}", as_json(&loaded))?;
        return loaded.map(drop).map_err(|_| Failed::new(Code::Config, ""));
    }
    let loaded = loaded?;
    for warning in &loaded.warnings {
        writeln!(screen::stderr(), "mailweir: warning: {warning}")?;
    }
    if let Some(warning) = of_disk(&loaded) {
        writeln!(screen::stderr(), "mailweir: warning: {warning}")?;
    }
    write!(out, "{}", AsToml(&loaded.settings))?;
    Ok(())
}

/// What this machine does not let be as it is configured.
fn of_disk(loaded: &Loaded) -> Option<String> {
    let Store::Sqlite(store) = &loaded.config.queue.store;
    Aside::of(store, loaded.config.queue.min_free).warning()
}

fn as_json(loaded: &Result<Loaded, ConfigError>) -> Json {
    match loaded {
        Ok(loaded) => {
            let settings: Vec<Json> = loaded
                .settings
                .iter()
                .map(
                    |s| json!({ "table": s.table, "key": s.key, "value": s.value.as_ref().map(plain), "from": s.from }),
                )
                .collect();
            let mut warnings: Vec<Json> = loaded.warnings.iter().map(|w| json!(&w.problem)).collect();
            if let Some(message) = of_disk(loaded) {
                warnings.push(json!({ "line": 0, "column": 0, "key": "queue.min_free", "message": message }));
            }
            json!({ "ok": true, "file": loaded.file, "settings": settings, "warnings": warnings, "problems": [] })
        }
        Err(e) => json!({ "ok": false, "file": e.origin, "settings": [], "warnings": [], "problems": e.problems }),
    }
}

/// A TOML value as JSON.
pub(super) fn plain(value: &Value) -> Json {
    match value {
        Value::String(s) => json!(s.value()),
        Value::Integer(n) => json!(n.value()),
        Value::Float(n) => json!(n.value()),
        Value::Boolean(b) => json!(b.value()),
        Value::InlineTable(table) => table.iter().map(|(key, value)| (key.to_owned(), plain(value))).collect(),
        Value::Array(items) => items.iter().map(plain).collect(),
        // No key has a value of another type.
        other => json!(other.to_string()),
    }
}
