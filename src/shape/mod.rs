//! Never above the limit: rates, quotas, and the permits they give.
//!
//! A permit is the right to make one transaction now. It is asked for as late as possible, on an
//! open connection right before MAIL, because only then does what the receiver sees follow what
//! was allowed. A permit that was not used goes back when it is dropped.
//!
//! - `limiter`: rates (GCRA, governor), in memory; `restart`: what of them outlives the process.
//! - `departures`: what left and when; `quota`, `warmup`: sliding windows and days counted from it, pure;
//!   `reserve` keeps them in the store (`record`), `release` gives up what is not used.
//! - `succession`: whose departures count in a lane besides its own (`inherited`), as limits follow receivers.
//! - `bookings`: when mail comes back that finds no place to wait for a limit.
//! - `cost`: what a transaction takes of limits that count messages, and of those that count recipients.
//! - `usage`: what is shown of them.
//! - `gate`: rates and quotas that hold together; `limits`: which gates a message has to pass; `paced`: those of
//!   senders whose pace was learned.

pub mod adapt;
pub mod bookings;
pub mod cost;
mod departures;
pub mod gate;
mod inherited;
pub mod ledger;
pub mod limiter;
pub mod limits;
pub mod paced;
pub mod quota;
mod record;
mod related;
mod release;
pub mod reserve;
pub mod restart;
pub mod succession;
pub mod usage;
pub mod warmup;

pub use bookings::Bookings;
pub use cost::Cost;
pub use gate::{Gate, Held, Permit, Refused, Spent};
pub use ledger::{Ledger, Memos};
pub use limiter::Limiter;
pub use limits::Limits;
pub use paced::{Gates, Paced};
pub use succession::Succession;
pub use usage::{Holding, Usage};
