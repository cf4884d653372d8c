//! What the DNS says of SPF, DKIM and DMARC, as `mailweir doctor` reads it.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use mailweir::doctor::spf::macros::{self, Values};
use mailweir::doctor::spf::record::{self, Record};

fuzz_target!(|input: (bool, &str)| {
    let (v6, text) = input;
    let ip: IpAddr = if v6 { "2001:db8::7".parse().expect("an address") } else { [192, 0, 2, 7].into() };
    let _ = (record::is_record(text), record::is_meant_as_record(text), macros::check(text));
    match Record::parse(text) {
        Ok(read) => {
            let _ = read.all();
            // Each as it was written, but for its length, so that what is told of it can be found.
            let found = |told: &str| text.contains(told.trim_end_matches('…'));
            assert!(read.directives.iter().all(|directive| found(&directive.text)));
        }
        Err(faults) => assert!(!faults.is_empty(), "refused without a reason"),
    }
    let values = Values { ip, sender: "a.b@shop.example", domain: "shop.example", helo: "relay.example" };
    if let Ok(name) = macros::expand(text, &values) {
        assert!(name.len() <= 8192 && !name.ends_with('.'), "it grows without bound");
    }
    if macros::check(text).is_ok() {
        // Only its length may forbid it.
        assert!(text.len() > 200 || macros::expand(text, &values).is_ok(), "a checked macro-string has a name");
    }
});
