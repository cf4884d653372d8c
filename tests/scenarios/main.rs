//! The real program against real servers and clients, each situation in a file of its own, named by what goes wrong or
//! what it is about. One program has them all: linking is what made eighty of them slow to build.
//!
//! They share nothing but this process: no environment, no working directory, no limit of the process is changed
//! here; who needs that starts a child. `cargo test --test scenarios dsn::` runs those of one file.

#[path = "../support/ca.rs"]
mod ca;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/web.rs"]
mod web;

mod access;
mod backup;
mod binary;
mod cli_live;
mod clients;
mod control_socket;
mod conversion;
mod core_dump;
mod crash;
mod dane;
mod disk;
mod dkim;
mod dns;
mod doctor;
mod dsn;
mod expiry;
mod explain;
mod fairness;
mod faults;
mod feedback;
mod gateway;
mod head_of_line;
mod holds;
mod later;
mod limits;
mod listening;
mod login;
mod memory;
mod migration;
mod mta_sts;
mod named_files;
mod network;
mod oauth;
mod open_files;
mod postfix_mx;
mod priority;
mod quota;
mod recall;
mod reload;
mod requiretls;
mod restart;
mod room;
mod sandbox;
mod secrets;
mod sendmail;
mod session_limits;
mod shutdown;
mod simulate;
mod sink;
mod smart_host;
mod smuggling;
mod source_limits;
mod sources;
mod srs;
mod store_faults;
mod stuck;
mod tls;
mod tls_report;
mod tools;
mod traps;
