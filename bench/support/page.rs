//! Tables in a page of the documentation, and what machine they were made on.
//!
//! A page has places for what is measured: `<!-- begin NAME -->` and `<!-- end NAME -->`. What is
//! between them is made by a command and replaced as a whole; the rest is written by people.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use super::figures::Figures;

/// The page with all results.
pub fn performance() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md")
}

/// Where results go that are not part of the documentation.
pub fn target() -> io::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// Puts `text` into the place `name` of a page.
///
/// # Errors
/// The page cannot be read or written, or has no such place.
pub fn put(page: &Path, name: &str, text: &str) -> io::Result<()> {
    let old = fs::read_to_string(page)?;
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let missing = || io::Error::other(format!("{} has no place for {name}", page.display()));
    let (before, rest) = old.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
    fs::write(page, format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

/// The machine in one sentence: processors, memory, kernel, and what syncing costs in `directory`.
pub fn machine(directory: &Path) -> io::Result<String> {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = field("/proc/meminfo", "MemTotal");
    let memory =
        memory.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0 / 1024.0;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(format!(
        "{processors} processors ({}), {memory:.0} GiB of memory, Linux {}, fdatasync of 4 KiB in {:.2} ms (median)",
        field("/proc/cpuinfo", "model name"),
        kernel.trim().split('-').next().unwrap_or_default(),
        sync_cost(directory)? * 1000.0
    ))
}

/// Seconds of one write and fdatasync of 4 KiB at the end of a file.
fn sync_cost(directory: &Path) -> io::Result<f64> {
    let mut file = tempfile::tempfile_in(directory)?;
    let mut times = Figures::default();
    for _ in 0..200 {
        let began = Instant::now();
        file.write_all(&[0x55; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64());
    }
    Ok(times.median().unwrap_or(0.0))
}

/// The version of the program that is measured.
pub fn version(program: &Path) -> String {
    let output = std::process::Command::new(program).arg("--version").output();
    output.map_or("mailweir".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
