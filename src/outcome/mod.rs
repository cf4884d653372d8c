//! What a delivery attempt means: facts in, fates out.
//!
//! `classify` holds all failure policy in one table. `settle` turns judgements into settlements for
//! the queue, `retry` says when what is deferred is due again. `bounce` writes delivery status notifications.

pub mod bounce;
pub mod classify;
pub mod retry;
pub mod settle;

pub use classify::{Fate, Judgement, Scope, judge, judge_unreached};
