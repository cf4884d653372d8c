//! What the measuring programs share: load, receiver, the relay under test, meters, tables.
//!
//! ```text
//! load (sessions on one thread) ─► relay (its own process) ─► sink (sessions on one thread)
//!                                    ▲ usage: CPU, PSS, what the rest of the machine did
//! ```
//!
//! Load and sink run on a thread each, with an event loop, so that they take little of a machine
//! that they share with what they measure. Everything is on loopback. Nothing here judges: the
//! programs print what was counted, and a run that was disturbed says by how much.

// Each program uses a part.
#![allow(dead_code)]

pub mod args;
pub mod chart;
pub mod dns;
pub mod figures;
pub mod load;
pub mod measure;
pub mod page;
pub mod relay;
pub mod sink;
pub mod tls;
pub mod usage;

use std::sync::OnceLock;
use std::time::Instant;

/// Nanoseconds since the program first asked: one clock for load and sink.
pub fn now_nanos() -> u64 {
    static BASE: OnceLock<Instant> = OnceLock::new();
    u64::try_from(BASE.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}
