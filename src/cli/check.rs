//! `mailweir check`: what the file says of its own, certificates, warnings, and whether it is good; or all that is
//! wrong with it. With `--all` every value that holds, and what its key means.

use std::io::Write;

use serde_json::{Value as Json, json};
use toml_edit::Value;

use super::screen::{self, shown};
use super::text::Table;
use super::{Code, Failed, Outcome};
use crate::clock::{Clock, Timestamp};
use crate::config::certificates::{self, Certificate};
use crate::config::report::{Annotated, OwnValues};
use crate::config::{ConfigError, Loaded};
use crate::queue::opening;

pub(super) fn check(loaded: Result<Loaded, ConfigError>, all: bool, json: bool) -> Outcome {
    let mut out = screen::stdout();
    let now = Clock::System.now();
    if json {
        writeln!(out, "{}", as_json(&loaded, now))?;
        return loaded.map(drop).map_err(|_| Failed::new(Code::Config, ""));
    }
    let loaded = loaded?;
    let disk = of_disk(&loaded);
    for warning in &loaded.warnings {
        writeln!(screen::stderr(), "mailweir: warning: {warning}")?;
    }
    if let Some(warning) = &disk {
        writeln!(screen::stderr(), "mailweir: warning: {warning}")?;
    }
    if all {
        write!(out, "{}", Annotated(&loaded.settings))?;
        return Ok(());
    }
    let own = OwnValues(&loaded.settings);
    if own.count() > 0 {
        writeln!(out, "{own}")?;
    }
    write_certificates(&mut out, &certificates::all(&loaded.config, now))?;
    let warnings = loaded.warnings.len() + usize::from(disk.is_some());
    writeln!(out, "{}", verdict(&loaded, warnings))?;
    Ok(())
}

fn write_certificates(out: &mut impl Write, all: &[Certificate]) -> std::io::Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["CERTIFICATE OF", "FILE", "UNTIL", ""]);
    for certificate in all {
        let day = certificate.until.split('T').next().unwrap_or_default().to_owned();
        let left = match certificate.days {
            _ if certificate.until.is_empty() => "cannot be read".to_owned(),
            -1 => "expired within the last day".to_owned(),
            // Whole days since then: those until then are rounded down.
            days @ ..-1 => format!("expired {} d ago", -days - 1),
            days => format!("in {days} d"),
        };
        table.row([shown(&certificate.name), certificate.file.display().to_string(), day, left]);
    }
    table.write(out)?;
    writeln!(out)
}

/// `my.toml: OK: 2 providers, 1 listener; …`.
fn verdict(loaded: &Loaded, warnings: usize) -> String {
    let (config, settings) = (&loaded.config, &loaded.settings);
    let counted = |n: usize, what: &str| match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    };
    let built_in = |name: &str| settings.iter().any(|s| s.provider.as_deref() == Some(name) && s.built_in);
    let of_profiles = config.providers.iter().filter(|provider| built_in(&provider.name)).count();
    let own = config.providers.len() - of_profiles;
    let mut parts = vec![counted(own, "provider")];
    parts.extend((of_profiles > 0).then(|| format!("{of_profiles} more built in")));
    parts.push(counted(config.listeners.len(), "listener"));
    let routes = settings.iter().filter(|s| s.table == "[[route]]" && s.key == "via").count();
    parts.extend((routes > 0).then(|| counted(routes, "route")));
    let limits = || format!("{} (at each provider and domain apart)", counted(config.limits.len(), "limit"));
    parts.extend((!config.limits.is_empty()).then(limits));
    let file = loaded.file.as_ref().map_or("no file, built-in values".into(), |file| file.display().to_string());
    let values = counted(OwnValues(settings).count(), "value");
    let all = settings.iter().filter(|s| s.value.is_some()).count();
    let told = if warnings > 0 { format!("; {}", counted(warnings, "warning")) } else { String::new() };
    format!("{file}: OK: {}; {values} of its own, {all} in all (--all){told}", parts.join(", "))
}

/// What this machine does not let be as it is configured.
fn of_disk(loaded: &Loaded) -> Option<String> {
    opening::aside(&loaded.config.queue).warning()
}

fn as_json(loaded: &Result<Loaded, ConfigError>, now: Timestamp) -> Json {
    match loaded {
        Ok(loaded) => {
            let setting = |s: &crate::config::report::Setting| json!({ "table": s.table, "key": s.key, "value": s.value.as_ref().map(plain), "from": s.from, "own": s.own });
            let settings: Vec<Json> = loaded.settings.iter().map(setting).collect();
            let mut warnings: Vec<Json> = loaded.warnings.iter().map(|w| json!(&w.problem)).collect();
            if let Some(message) = of_disk(loaded) {
                warnings.push(json!({ "line": 0, "column": 0, "key": "queue.min_free", "message": message }));
            }
            let certificates = certificates::all(&loaded.config, now);
            json!({
                "ok": true, "file": loaded.file, "settings": settings, "certificates": certificates, "warnings": warnings,
                "problems": [],
            })
        }
        Err(e) => json!({
            "ok": false, "file": e.origin, "settings": [], "certificates": [], "warnings": [], "problems": e.problems,
        }),
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
