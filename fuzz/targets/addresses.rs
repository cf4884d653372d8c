//! Addresses in commands and in fields.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweir::mail::{Address, address_list, in_ascii, rewriting};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(address) = Address::parse(text)
    {
        let again = Address::parse(address.as_str()).expect("what was an address is one");
        assert_eq!(again, address);
        assert!(!address.as_str().contains(['\r', '\n', '\0', ' ']) || address.local().starts_with('"'));
        let _ = in_ascii(&address);
    }
    if let Ok(found) = address_list::parse(bytes) {
        assert!(found.iter().all(|listed| listed.span.start <= listed.span.end && listed.span.end <= bytes.len()));
    }
    let field = [b"From:", bytes].concat();
    let mut asked = 0;
    let new = rewriting::rewrite(&field, |_| {
        asked += 1;
        Some("x@y.example".to_owned())
    });
    assert_eq!(new.is_some(), asked > 0);
});
