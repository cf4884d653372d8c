//! Never above the limit: rate limiters and the permits they give.
//!
//! A permit is the right to make one transaction now. It is asked for as late as possible, on an
//! open connection right before MAIL, because only then does what the receiver sees follow what
//! the limiter allowed. A permit that was not used goes back when it is dropped.

pub mod adapt;
pub mod limiter;

pub use limiter::{Limiter, Permit};
