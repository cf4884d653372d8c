//! The parts of the crash harness: which deaths (`plan`), how one comes about (`life`), the load
//! (`ledger`) and what became of it (`account`).

pub mod account;
pub mod ledger;
pub mod life;
pub mod plan;
