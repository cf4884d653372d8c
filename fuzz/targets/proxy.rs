//! The header of the PROXY protocol: no cut makes a difference, not a byte behind it is read, and nobody becomes
//! a client of the loopback by it.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use mailweir::listener::proxy_header::client_behind;
use tokio::io::AsyncReadExt;

const VERSION_1: &[u8] = b"PROXY ";
const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// Who it is, and how much was read for that.
fn told(pieces: [&[u8]; 2]) -> Result<(IpAddr, usize), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let mut stream = pieces[0].chain(pieces[1]);
        let ip = client_behind(PROXY, &mut stream).await.map_err(|why| why.to_string())?;
        let (first, second) = stream.into_inner();
        Ok((ip, pieces.concat().len() - first.len() - second.len()))
    })
}

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (start, at, rest) = input;
    let bytes = match start % 3 {
        0 => rest.to_vec(),
        1 => [VERSION_1, rest].concat(),
        _ => [VERSION_2, rest].concat(),
    };
    let cut = usize::from(at).min(bytes.len());
    let whole = told([&bytes, b""]);
    assert_eq!(whole, told([&bytes[..cut], &bytes[cut..]]), "a cut makes a difference");
    let Ok((ip, used)) = whole else { return };
    assert!(!ip.is_loopback(), "the loopback of another machine is ours");
    if bytes.starts_with(VERSION_1) {
        let end = memchr::memmem::find(&bytes, b"\r\n").expect("a line");
        assert_eq!(used, end + 2, "it is a line");
        assert!(used <= 107, "longer than a header may be");
    } else {
        let length = u16::from_be_bytes([bytes[14], bytes[15]]);
        assert_eq!(used, 16 + usize::from(length), "its length is what it says");
    }
});
