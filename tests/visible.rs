//! What is written out for people, over all of Unicode, compared with the categories that Python has.

mod support;

use std::process::Command;

use mailweir::observe::{is_hidden, shown};
use support::{SOON, program, run_ok};

/// The categories in which a character is not seen.
const HIDDEN: [&str; 4] = ["Cc", "Cf", "Zl", "Zp"];

#[test]
fn every_control_format_and_separator_character_is_written_out_and_no_other() {
    let mut python = Command::new(program("python3"));
    python.args(["-c", "import unicodedata as u\nprint(' '.join(u.category(chr(c)) for c in range(0x110000)))"]);
    let output = run_ok(&mut python, b"", SOON);
    let said = String::from_utf8(output.stdout).expect("ASCII");
    let categories: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(categories.len(), 0x11_0000);
    let mut compared = 0;
    for (code, category) in (0u32..).zip(categories) {
        let Some(c) = char::from_u32(code) else { continue };
        // Python may know an older Unicode, in which some of ours are not assigned yet.
        if category == "Cn" {
            continue;
        }
        compared += usize::from(HIDDEN.contains(&category));
        assert_eq!(is_hidden(c), HIDDEN.contains(&category), "U+{code:04X} is {category}");
        assert!(!shown(&c.to_string()).chars().any(is_hidden), "U+{code:04X}");
    }
    assert!(compared > 200, "{compared}");
}
