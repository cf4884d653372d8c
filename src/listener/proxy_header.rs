//! The header of the PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): by it a proxy that passes
//! bytes on says whose connection it is, before everything else, TLS included.
//!
//! Invariants:
//! - It is read from the proxies of `proxy_from` alone, and asked of all of them: a client that connects around the
//!   proxy, or through one that is set up wrongly, is nobody.
//! - Not a byte behind the header is read: that is the client's, perhaps its half of a TLS handshake.
//! - It has [`PATIENCE`] and [`LONGEST`] bytes.
//! - An address that only its sender knows how to reach lets nobody relay: where none was told (`UNKNOWN`, a Unix
//!   socket), and where a proxy elsewhere tells of its own loopback, the client is nobody in particular.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::config::canonical;

/// Longest wait for the header. Proxies send it with their first packet.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest header in bytes. TLVs of version 2 may bring a certificate; more than this is no header.
const LONGEST: usize = 16 * 1024;

const VERSION_1: &[u8] = b"PROXY ";
const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The shortest of each: so many bytes belong to it whatever it is (`PROXY UNKNOWN` and a line end).
const SHORTEST: usize = 15;
/// Bytes of version 2 up to its length.
const FIXED: usize = 16;
/// The connection is the proxy's own, to see whether somebody is there.
const LOCAL: u8 = 0x20;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum NoHeader {
    /// The client of a proxy, or the proxy, went away.
    #[error("the connection ended within the header")]
    Ended(#[from] io::Error),
    /// Not in time.
    #[error("no PROXY header within {} s", PATIENCE.as_secs())]
    Late,
    /// Something else came.
    #[error("no PROXY header: expected one of version 1 or 2 from an address of proxy_from")]
    Other,
    /// It was one that is none.
    #[error("a PROXY header that is malformed or too long")]
    Bad,
}

/// Who is at the other end of a connection that `proxy` made.
///
/// # Errors
/// It has not said that in time or in form.
pub async fn client_behind(proxy: IpAddr, stream: &mut (impl AsyncRead + Unpin)) -> Result<IpAddr, NoHeader> {
    timeout(PATIENCE, read(proxy, stream)).await.unwrap_or(Err(NoHeader::Late))
}

async fn read(proxy: IpAddr, stream: &mut (impl AsyncRead + Unpin)) -> Result<IpAddr, NoHeader> {
    let mut header = Vec::with_capacity(128);
    loop {
        match parse(proxy, &header)? {
            Parsed::Client(ip) => return Ok(ip),
            Parsed::Needs(more) => {
                let had = header.len();
                header.resize(had + more, 0);
                let read = stream.read(header.get_mut(had..).unwrap_or_default()).await?;
                if read == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                header.truncate(had + read);
            }
        }
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Parsed {
    Client(IpAddr),
    /// So many bytes at least are still of the header.
    Needs(usize),
}

/// Reads what there is of the header.
fn parse(proxy: IpAddr, header: &[u8]) -> Result<Parsed, NoHeader> {
    let begins = |with: &[u8]| header.iter().zip(with).all(|(a, b)| a == b);
    if !begins(VERSION_1) && !begins(VERSION_2) {
        return Err(NoHeader::Other);
    }
    if header.len() < SHORTEST {
        return Ok(Parsed::Needs(SHORTEST - header.len()));
    }
    match ProxyHeader::parse(header, ParseConfig { include_tlvs: false, ..ParseConfig::default() }) {
        // Its end is in what was asked for, so there is nothing behind it.
        Ok((told, _)) => Ok(Parsed::Client(client(proxy, header, &told)?)),
        Err(Error::BufferTooShort) => match needs(header) {
            Some(more) => Ok(Parsed::Needs(more)),
            None => Err(NoHeader::Bad),
        },
        Err(_) => Err(NoHeader::Bad),
    }
}

/// How many bytes of an unfinished header can be read without one that is behind it; `None`: too many are missing.
fn needs(header: &[u8]) -> Option<usize> {
    if header.starts_with(VERSION_1) {
        // The line ends in CR LF; behind its CR only the LF is missing.
        return Some(1);
    }
    let length = match (header.get(FIXED - 2), header.get(FIXED - 1)) {
        (Some(high), Some(low)) => usize::from(u16::from_be_bytes([*high, *low])),
        _ => return Some(FIXED - header.len()),
    };
    let whole = FIXED + length;
    // Whole, and still too short for the addresses that it says it has: what follows is the client's.
    (whole <= LONGEST && whole > header.len()).then(|| whole - header.len())
}

fn client(proxy: IpAddr, header: &[u8], told: &ProxyHeader<'_>) -> Result<IpAddr, NoHeader> {
    let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let Some(address) = told.proxied_address() else {
        let local = header.starts_with(VERSION_2) && header.get(VERSION_2.len()) == Some(&LOCAL);
        return Ok(if local { proxy } else { nobody });
    };
    if address.protocol != Protocol::Stream {
        return Err(NoHeader::Bad);
    }
    let ip = canonical(address.source.ip());
    let elsewhere = ip.is_loopback() && !proxy.is_loopback();
    Ok(if elsewhere { nobody } else { ip })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;

    use super::*;

    const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    /// A header of version 2 with this command, family and rest.
    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [VERSION_2, &[command, family], &length, rest].concat()
    }

    fn ipv4(a: [u8; 4]) -> Vec<u8> {
        [&a[..], &[198, 51, 100, 1], &[0x12, 0x34], &[0, 25]].concat()
    }

    /// What is told by a header that comes in pieces of this size, and what is left behind it.
    async fn told(header: &[u8], piece: usize) -> Result<(IpAddr, Vec<u8>), String> {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let mut ours = TcpStream::connect(socket.local_addr().expect("an address")).await.expect("connected");
        ours.set_nodelay(true).expect("an option");
        let (mut theirs, _) = socket.accept().await.expect("a connection");
        let bytes = [header, b"EHLO x\r\n"].concat();
        let sending = tokio::spawn(async move {
            for part in bytes.chunks(piece) {
                // Whoever refuses the start hangs up.
                if ours.write_all(part).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            let _ = ours.shutdown().await;
        });
        let client = client_behind(PROXY, &mut theirs).await.map_err(|e| e.to_string())?;
        sending.await.expect("no panic");
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).await.expect("the rest");
        Ok((client, rest))
    }

    #[tokio::test]
    async fn both_versions_are_read_to_their_end_and_no_further_however_they_come() {
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 16], &[1, 2, 3, 4]].concat();
        let tlvs = [&ipv4([203, 0, 113, 9])[..], &[4, 0, 200], &[b'x'; 200]].concat();
        let unix = [b'/'; 216];
        for (header, client) in [
            (b"PROXY TCP4 203.0.113.9 198.51.100.1 4660 25\r\n".to_vec(), "203.0.113.9"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 4660 25\r\n".to_vec(), "2001:db8::7"),
            (b"PROXY TCP6 ::ffff:203.0.113.9 2001:db8::1 4660 25\r\n".to_vec(), "203.0.113.9"),
            (b"PROXY UNKNOWN\r\n".to_vec(), "0.0.0.0"),
            (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec(), "0.0.0.0"),
            (version_2(0x21, 0x11, &ipv4([203, 0, 113, 9])), "203.0.113.9"),
            (version_2(0x21, 0x21, &six), "2001:db8::7"),
            (version_2(0x21, 0x11, &tlvs), "203.0.113.9"),
            (version_2(0x21, 0x31, &unix), "0.0.0.0"),
            (version_2(0x21, 0x00, b""), "0.0.0.0"),
            (version_2(0x20, 0x00, b""), "192.0.2.1"),
            (version_2(0x20, 0x11, &ipv4([203, 0, 113, 9])), "192.0.2.1"),
            // Its own loopback is not ours.
            (version_2(0x21, 0x11, &ipv4([127, 0, 0, 1])), "0.0.0.0"),
            (b"PROXY TCP6 ::1 ::1 4660 25\r\n".to_vec(), "0.0.0.0"),
        ] {
            for piece in [1, 7, 4096] {
                let (ip, rest) = told(&header, piece).await.expect("a header");
                assert_eq!((ip.to_string().as_str(), rest.as_slice()), (client, &b"EHLO x\r\n"[..]), "{header:?}");
            }
        }
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let header = version_2(0x21, 0x11, &ipv4([127, 0, 0, 9]));
        assert!(matches!(parse(here, &header), Ok(Parsed::Client(ip)) if ip.is_loopback()));
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for (header, why) in [
            (b"EHLO app.example\r\n".to_vec(), "expected one"),
            (b"\r\n\r\nEHLO app.example\r\n".to_vec(), "expected one"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), "expected one"),
            (b"PROXY TCP4 203.0.113.9 198.51.100.1 4660 99999\r\n".to_vec(), "malformed"),
            (b"PROXY TCP4 203.0.113.999 198.51.100.1 4660 25\r\n".to_vec(), "malformed"),
            (b"PROXY TCP5 203.0.113.9 198.51.100.1 4660 25\r\n".to_vec(), "malformed"),
            ([b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat(), "malformed"),
            (version_2(0x31, 0x11, &ipv4([203, 0, 113, 9])), "malformed"),
            (version_2(0x21, 0x11, &[1, 2, 3]), "malformed"),
            (version_2(0x21, 0x12, &ipv4([203, 0, 113, 9])), "malformed"),
            (version_2(0x21, 0x11, &[0; 17 * 1024]), "malformed"),
        ] {
            let told = told(&header, 4096).await.expect_err("no header");
            assert!(told.contains(why), "{told}: {}", header.escape_ascii());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_does_not_come_is_not_waited_for() {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let _ours = TcpStream::connect(socket.local_addr().expect("an address")).await.expect("connected");
        let (mut theirs, _) = socket.accept().await.expect("a connection");
        let told = client_behind(PROXY, &mut theirs).await;
        assert!(matches!(told, Err(NoHeader::Late)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_none(
            start in prop_oneof![Just(VERSION_1.to_vec()), Just(VERSION_2.to_vec()), Just(b"PROXY TCP4 ".to_vec())],
            rest in prop::collection::vec(any::<u8>(), 0..300)
        ) {
            let bytes = [start, rest].concat();
            let mut given = 0;
            // As it is read: never past the end of what was asked for.
            while let Ok(Parsed::Needs(more)) = parse(PROXY, &bytes[..given]) {
                prop_assert!(more > 0);
                given += more;
                if given > bytes.len() {
                    break;
                }
            }
        }
    }
}
