//! One command line of a client: the case of its verb is nothing, and what is said of it is of ours alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweir::smtp::Command;
use mailweir::smtp::command::Bad;

fuzz_target!(|line: &[u8]| {
    let read = Command::parse(line);
    let end = line.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(line.len());
    let mut other = line.to_vec();
    other[..end].iter_mut().filter(|b| b.is_ascii_alphabetic()).for_each(|b| *b ^= 0x20);
    assert_eq!(read, Command::parse(&other), "the case of a verb makes a difference");
    match &read {
        Ok(Command::Mail(path, _) | Command::Rcpt(path, _)) => {
            assert!(!path.chars().any(|c| c.is_control() && c != '\t'), "a path that breaks a line");
        }
        Ok(Command::Auth(_)) => assert!(!format!("{read:?}").contains(' '), "words that may be a password are printed"),
        Ok(_) => {}
        Err(Bad::Refuse(reply) | Bad::Close(reply)) => {
            let mut said = Vec::new();
            reply.write_to(&mut said);
            assert!(reply.is_error() && said.ends_with(b"\r\n") && said.is_ascii());
            let lines = said.strip_suffix(b"\r\n").unwrap_or_default();
            assert!(!lines.iter().any(|b| *b < b' ' || *b == 127) && said.len() <= 512, "a reply is one line");
        }
    }
});
