//! What other people publish: MTA-STS records and policies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweir::clock::Timestamp;
use mailweir::route::sts::{Policy, id_of};

fuzz_target!(|bytes: &[u8]| {
    let _ = id_of([bytes].into_iter());
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(policy) = Policy::parse(text, "x.example", "1", Timestamp(0))
    {
        assert!((300_000..=31_557_600_000).contains(&policy.expires().0), "for how long it holds");
        assert!(!policy.names("mx.x.example") || !policy.hosts().is_empty());
        assert!(!policy.hosts().contains(char::is_control), "it goes to logs");
    }
});
