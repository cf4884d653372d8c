//! `source`: how local addresses are written, what is refused in them, and how they print.
//!
//! An address alone, or `{ address, name, weight, warmup }`. What prints parses to the same.

use std::net::IpAddr;

use toml_edit::{Array, InlineTable, Value};

use super::value::{Kind, MAX_LIST, Val, describe, is_mistyped, nearest};
use super::{Source, warmup};

/// Heaviest weight of a source.
const MAX_WEIGHT: i64 = 1000;
const KEYS: [&str; 4] = ["address", "name", "weight", "warmup"];

/// What is expected, for messages and documentation.
pub(super) const EXPECTED: &str = "a list of addresses such as [\"192.0.2.10\"] or \
     [{ address = \"192.0.2.10\", name = \"out1.example.com\", weight = 3 }]";

/// Reads addresses, or tables with `address` and what else is known of it.
pub(super) fn read(value: &Value) -> Result<Vec<Source>, String> {
    let wrong_type = || format!("expected {EXPECTED}, found {}", describe(value));
    let array = value.as_array().ok_or_else(wrong_type)?;
    if array.len() > MAX_LIST {
        return Err(format!("the list has {} entries, more than {MAX_LIST}", array.len()));
    }
    let mut sources: Vec<Source> = Vec::new();
    for item in array {
        let source = match (item.as_str(), item.as_inline_table()) {
            (Some(text), _) => Source::new(address(text)?),
            (None, Some(table)) => one(table)?,
            (None, None) => return Err(wrong_type()),
        };
        if sources.iter().any(|s| s.address == source.address) {
            return Err(format!("{} is there twice", source.address));
        }
        sources.push(source);
    }
    Ok(sources)
}

fn one(table: &InlineTable) -> Result<Source, String> {
    let text = table.get("address").ok_or("`address` is missing: { address = \"192.0.2.10\", … }")?;
    let text = text.as_str().ok_or_else(|| format!("`address`: expected a text, found {}", describe(text)))?;
    let mut source = Source::new(address(text)?);
    for (key, value) in table.iter() {
        match key {
            "address" => {}
            "name" => match Kind::HostName.read(value).map_err(|e| format!("`name`: {e}"))? {
                Val::Text(name) => source.name = Some(name),
                _ => return Err("`name`: expected a text".into()),
            },
            "weight" => {
                let weight = value.as_integer().filter(|n| (1..=MAX_WEIGHT).contains(n));
                let weight = weight.and_then(|n| u32::try_from(n).ok());
                source.weight = weight.ok_or_else(|| {
                    format!("`weight`: expected a whole number from 1 to {MAX_WEIGHT}, found {}", describe(value))
                })?;
            }
            "warmup" => source.warmup = Some(warmup::read(value).map_err(|e| format!("`warmup`: {e}"))?),
            other => {
                let hint = nearest(other, KEYS).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
                let named = if is_mistyped(other, KEYS) { format!("`{other}`") } else { "a key".to_owned() };
                return Err(format!("{named} is not known: expected address, name, weight or warmup{hint}"));
            }
        }
    }
    Ok(source)
}

fn address(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| {
        format!("\"{text}\" is not an IP address: expected one that this machine has, such as \"192.0.2.10\"")
    })?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(format!("{ip} is not an address to connect from"));
    }
    Ok(ip)
}

/// As they stand in a configuration.
pub(super) fn to_toml(sources: &[Source]) -> Value {
    Value::Array(sources.iter().map(one_to_toml).collect::<Array>())
}

/// An address alone where nothing else is said.
fn one_to_toml(source: &Source) -> Value {
    if *source == Source::new(source.address) {
        return source.address.to_string().into();
    }
    let mut table = InlineTable::new();
    table.insert("address", source.address.to_string().into());
    if let Some(name) = &source.name {
        table.insert("name", name.into());
    }
    table.insert("weight", i64::from(source.weight).into());
    if let Some(plan) = &source.warmup {
        table.insert("warmup", plan.to_toml());
    }
    Value::InlineTable(table)
}
