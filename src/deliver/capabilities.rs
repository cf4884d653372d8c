//! What a host offers in its EHLO reply.
//!
//! Keywords are recognised by smtp-proto, line by line, so that one odd line costs one keyword and
//! not the whole reply.

use smtp_proto::{
    EXT_8BIT_MIME, EXT_BINARY_MIME, EXT_CHUNKING, EXT_DSN, EXT_PIPELINING, EXT_REQUIRE_TLS, EXT_SIZE, EXT_SMTP_UTF8,
    EXT_START_TLS, EhloResponse,
};

use super::session_limits::SessionLimits;

/// The extensions that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// SIZE (RFC 1870): `Some(0)` is offered without a limit.
    pub size: Option<u64>,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030), which is worth nothing without CHUNKING.
    pub binary_mime: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// Mechanisms of AUTH (RFC 4954), as bits of smtp-proto; those that it does not know are missing.
    pub auth: u64,
    /// LIMITS (RFC 9422).
    pub limits: SessionLimits,
}

impl Capabilities {
    /// From the lines of a 250 reply to EHLO, each without its code; the first is the greeting.
    pub fn from_lines(lines: &[Vec<u8>]) -> Capabilities {
        let mut all = Capabilities::default();
        for line in lines.iter().skip(1) {
            all.add(line);
        }
        all
    }

    fn add(&mut self, line: &[u8]) {
        // smtp-proto does not know it.
        if let Some((word, limits)) = line.split_at_checked(7)
            && word.eq_ignore_ascii_case(b"LIMITS ")
        {
            self.limits = SessionLimits::parse(limits);
            return;
        }
        let mut reply = b"250-x\r\n250 ".to_vec();
        match line.get(..5) {
            // `AUTH=LOGIN PLAIN`, from a draft that old servers follow.
            Some(word) if word.eq_ignore_ascii_case(b"AUTH=") => {
                reply.extend_from_slice(b"AUTH ");
                reply.extend_from_slice(&line[5..]);
            }
            _ => reply.extend_from_slice(line.trim_ascii()),
        }
        reply.extend_from_slice(b"\r\n");
        let Ok(parsed) = EhloResponse::parse(&mut reply.iter()) else { return };
        let has = |bit: u32| parsed.capabilities & bit != 0;
        self.eight_bit_mime |= has(EXT_8BIT_MIME);
        self.smtputf8 |= has(EXT_SMTP_UTF8);
        self.pipelining |= has(EXT_PIPELINING);
        self.chunking |= has(EXT_CHUNKING);
        self.binary_mime |= has(EXT_BINARY_MIME);
        self.dsn |= has(EXT_DSN);
        self.starttls |= has(EXT_START_TLS);
        self.require_tls |= has(EXT_REQUIRE_TLS);
        if has(EXT_SIZE) {
            self.size = Some(parsed.size as u64);
        }
        self.auth |= parsed.auth_mechanisms;
    }
}

#[cfg(test)]
mod tests {
    use smtp_proto::{AUTH_LOGIN, AUTH_PLAIN, AUTH_XOAUTH2};

    use super::*;

    fn offered(lines: &[&str]) -> Capabilities {
        Capabilities::from_lines(&lines.iter().map(|l| l.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn reads_what_servers_offer() {
        let all = offered(&[
            "mx.example hello",
            "PIPELINING",
            "size 35882577",
            "8BITMIME",
            "STARTTLS",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
            "BINARYMIME",
            "DSN",
            "SMTPUTF8",
            "REQUIRETLS",
            "AUTH XOAUTH2 PLAIN LOGIN",
            "limits MAILMAX=10 X-OTHER=1 RCPTMAX=100",
        ]);
        assert_eq!(
            all,
            Capabilities {
                eight_bit_mime: true,
                smtputf8: true,
                size: Some(35_882_577),
                pipelining: true,
                chunking: true,
                binary_mime: true,
                dsn: true,
                starttls: true,
                require_tls: true,
                auth: AUTH_XOAUTH2 | AUTH_PLAIN | AUTH_LOGIN,
                limits: SessionLimits { recipients: Some(100), messages: Some(10), domains: None },
            }
        );
        assert_eq!(offered(&["DSN"]), Capabilities::default(), "the first line is the host's name");
        assert_eq!(offered(&["x", "SIZE", "X-ODD \u{e9}", "", "AUTH=LOGIN"]).size, Some(0));
    }

    #[test]
    fn one_odd_line_costs_nothing_else() {
        let caps = offered(&["x", "SIZE lots", "AUTH", "\u{0}", "AUTH=LOGIN", "PIPELINING "]);
        assert!(caps.pipelining && caps.auth == AUTH_LOGIN);
    }
}
