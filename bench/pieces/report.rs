//! The table of the pieces, from the files that criterion leaves.
//!
//! Criterion writes `new/benchmark.json` (what was measured) and `new/estimates.json` (nanoseconds
//! of an iteration) into a directory for each piece. Those of earlier runs stay there, so that only
//! what was written since this run began counts.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;

use crate::support::figures::{Table, number};
use crate::support::page;

/// Writes the table of what was measured since `began` into the documentation.
///
/// # Errors
/// There is nothing, or a file cannot be read or written.
pub fn write(results: &Path, began: SystemTime) -> io::Result<()> {
    let mut rows = Vec::new();
    collect(results, began, &mut rows)?;
    if rows.is_empty() {
        return Err(io::Error::other("nothing was measured: `cargo bench --bench pieces` measures"));
    }
    rows.sort();
    let mut table = Table::new(["piece", "ns", "ns for one element", "throughput"]);
    rows.into_iter().for_each(|row| table.row(row));
    let made = page::machine(results)?;
    page::put(&page::performance(), "pieces", &format!("{made}.\n\n{}", table.markdown()))
}

fn collect(directory: &Path, began: SystemTime, rows: &mut Vec<[String; 4]>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let what = path.join("benchmark.json");
        if path.file_name().is_some_and(|name| name == "new") && what.exists() {
            if fs::metadata(&what)?.modified()? >= began {
                let load = |file: &Path| io::Result::Ok(serde_json::from_slice(&fs::read(file)?)?);
                rows.push(row(&load(&what)?, &load(&path.join("estimates.json"))?)?);
            }
        } else if path.is_dir() {
            collect(&path, began, rows)?;
        }
    }
    Ok(())
}

fn row(what: &Value, estimates: &Value) -> io::Result<[String; 4]> {
    let wrong = || io::Error::other("not a file of criterion");
    let name = what["full_id"].as_str().ok_or_else(wrong)?;
    let ns = estimates["median"]["point_estimate"].as_f64().ok_or_else(wrong)?;
    let throughput = |kind: &str| what["throughput"][kind].as_f64();
    let (each, rate) = match (throughput("Elements"), throughput("Bytes")) {
        (Some(n), _) => (number(ns / n, 1), format!("{}/s", number(n * 1e9 / ns, 0))),
        (_, Some(n)) => ("–".into(), format!("{} MB/s", number(n * 1e3 / ns, 0))),
        _ => ("–".into(), format!("{}/s", number(1e9 / ns, 0))),
    };
    Ok([name.to_owned(), number(ns, 1), each, rate])
}
