//! Configurations as people write them: each is read, or refused with where and why.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweir::config::Config;

fuzz_target!(|text: &str| {
    // What names a file of this machine is not about the text.
    if ["file", "path", "spool", "ca", "key", "cert", "env", "anchor", "users", "store"]
        .iter()
        .any(|word| text.contains(word))
    {
        return;
    }
    if let Err(error) = Config::parse(text, "fuzz.toml") {
        assert!(error.to_string().contains("fuzz.toml"), "{error}");
    }
});
