//! What is known of a dialog in which mailweir is the client: how far it came, and what the server says.

use std::fmt;

/// The stage of a delivery at which something happened, in the order of the dialog; `Idle` comes
/// before MAIL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    /// Finding hosts in DNS.
    Route,
    /// TCP connect.
    Connect,
    /// The 220 greeting.
    Greeting,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS command and handshake.
    StartTls,
    /// AUTH.
    Auth,
    /// RSET or QUIT between messages.
    Idle,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA command up to the 354.
    Data,
    /// Sending the body.
    Body,
    /// The reply to the final dot or last BDAT.
    Final,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Route => "route",
            Stage::Connect => "connect",
            Stage::Greeting => "greeting",
            Stage::Ehlo => "EHLO",
            Stage::StartTls => "STARTTLS",
            Stage::Auth => "AUTH",
            Stage::Mail => "MAIL",
            Stage::Rcpt => "RCPT",
            Stage::Data => "DATA",
            Stage::Body => "body",
            Stage::Final => "end of data",
            Stage::Idle => "idle",
        })
    }
}

/// A reply of a server, decoded lossily and cut to a bounded length.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Basic code, 200 to 599.
    pub code: u16,
    /// Enhanced code; `None` if absent or of another class than the basic code (the basic digit wins).
    pub enhanced: Option<(u8, u16, u16)>,
    /// Text of all lines, joined with spaces, without the enhanced code; printable, at most 1,000 bytes.
    pub text: String,
}

impl Reply {
    /// 2yz.
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 4yz.
    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// 5yz.
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((a, b, c)) = self.enhanced {
            write!(f, " {a}.{b}.{c}")?;
        }
        if !self.text.is_empty() {
            write!(f, " {}", self.text)?;
        }
        Ok(())
    }
}
