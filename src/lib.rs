//! mailweir: an SMTP relay proxy that shapes what leaves.
//!
//! # The map
//!
//! ```text
//!  app ─SMTP─► listener ─► queue (durable) ─250─► app
//!                             │ claim what is due
//!                             ▼
//!                         schedule ─► route ─► shape ─► deliver ─► outcome ─┐
//!                         (lanes)     (MX,      (permit)  (pooled    (classify,
//!                             ▲        provider)           session)   settle, DSN)
//!                             └──────────── due again / feedback ────────────┘
//! ```
//!
//! `pipeline` shows that journey on one screen; stages share values, not work.
//!
//! # Who may use whom
//!
//! A module uses modules of earlier lines only, so whoever changes one has to think of later lines alone.
//! (`tests/direction.rs` reads this; tests of a module may use any.)
//!
//! ```text
//!  time         clock
//!  values       observe  smtp  dkim
//!  system       core_dump  crash  socket_file
//!  mail         mail  https
//!  settings     config  spool
//!  resources    descriptors  queue  model  tls_report
//!  peers        sink  listener  route
//!  dialog       deliver
//!  pace         shape
//!  judgement    outcome
//!  order        schedule
//!  journey      pipeline
//!  operation    admin  doctor  simulate
//!  process      app
//!  commands     cli
//! ```
//!
//! # Invariants
//!
//! 1. **Durable before 250.** Message, envelope and all recipients are fsynced before the final `250`.
//! 2. **One fate each.** A recipient leaves the queue only by upstream acceptance, a permanent
//!    failure, expiry, or an operator's command; the DSN is queued in the same transaction.
//! 3. **Never above the limit.** No provider sees more than its rate, connections, messages per
//!    connection or recipients per message.
//! 4. **No head-of-line blocking.** A provider that is slow or paused delays nobody else.
//! 5. **Bounded.** Memory is bounded by configuration; start-up time does not grow with the backlog.
//! 6. **`kill -9` at any instant** loses nothing acknowledged; a duplicate is possible only for a
//!    transaction whose final reply was in flight.
//! 7. **Not an open relay.** Loopback by default; any other address needs an allow list.
//! 8. **Every message can be explained** by `queue show` and the log.
//! 9. **Nothing illegal leaves.** No bare CR or LF, no unstuffed dot, no 8-bit, binary data or SMTPUTF8
//!    to a host that did not offer it.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
mod core_dump;
mod crash;
pub mod deliver;
pub mod descriptors;
pub mod dkim;
pub mod doctor;
mod https;
pub mod listener;
pub mod mail;
pub mod model;
pub mod observe;
pub mod outcome;
pub mod pipeline;
pub mod queue;
pub mod route;
pub mod schedule;
pub mod shape;
pub mod simulate;
pub mod sink;
pub mod smtp;
mod socket_file;
pub mod spool;
pub mod tls_report;
