//! What both sides of the relay share of SMTP: framing of lines and of message data, commands and
//! replies. Pure: no sockets, no clock, no policy. Everything that reads is incremental (the same
//! result however the input is cut into slices) and bounded.

pub mod command;
pub mod dot;
pub mod line;
pub mod parameters;
pub mod reply;
pub mod sasl;
pub mod tls;
pub mod upstream;

pub use command::Command;
pub use dot::{DotReader, Fed, LineEnds, is_bare_cr};
pub use line::{Line, LineReader};
pub use reply::Reply;
