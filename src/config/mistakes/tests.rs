use super::super::Loaded;
use super::*;

use proptest::prelude::*;

/// What is told of a text, with its lines.
fn told(text: &str) -> String {
    format!("{:#}", Loaded::parse(text, "x").unwrap_err())
}

#[test]
fn the_place_is_marked_in_its_line() {
    let long = format!("drain = \"{}\" x\n", "a".repeat(200));
    let shown = told(&long);
    let lines: Vec<&str> = shown.lines().collect();
    let (line, mark) = (lines[1], lines[2]);
    assert!(line.chars().count() <= 110, "{shown}");
    assert_eq!(line.chars().nth(mark.chars().count() - 1), Some('x'), "{shown}");
    // A tab and a hidden character are one column each.
    assert!(told("\t[queue]\n\tmemory\t= 5x\n").ends_with("\n  2 |  memory = 5x\n    |           ^^"));
    assert!(told("[queue]\n\u{202e}memory = 5\n").contains("\n  2 | \u{fffd}memory = 5\n    | ^"));
    // At the end of the text, and in an empty one.
    assert!(told("a = [").ends_with("\n  1 | a = [\n    |     ^") || told("a = [").lines().count() == 1);
    assert_eq!(Excerpts::new("").of(&(0..0)), "");
}

#[test]
fn a_line_that_may_have_a_secret_is_not_repeated() {
    let shows = |text: &str, part: &str| Excerpts::new(text).of(&(text.find(part).unwrap()..text.len()));
    assert_eq!(shows("password = 'x'\n", "'x'"), "  1 | password = ***\n    |            ^^^");
    assert_eq!(shows("relay = 'u:x@h'\n", "'u"), "");
    assert_eq!(shows("hunter2 = 'password'\n", "="), "");
    assert_eq!(shows("[provider.s.auth]\nx = 'y'\n", "'y'"), "");
    assert_eq!(
        shows("sender = '*@shop.example'\n", "'*"),
        "  1 | sender = '*@shop.example'\n    |          ^^^^^^^^^^^^^^^^"
    );
}

/// A text of many brackets or headers costs no more than its length.
#[test]
fn a_long_text_is_looked_through_once() {
    for line in ["[", "a = [\n", "[a]\n", "x\n", "\"", "'''", "#\n"] {
        let text = line.repeat(super::LONGEST / line.len());
        let scan = Scan::new(&text);
        assert_eq!(scan.plain.len(), text.len());
        let _ = (scan.open_before(text.len()).len(), scan.header_before(text.len()), scan.first_header());
    }
    let beyond = format!("{}x", "#\n".repeat(super::LONGEST));
    assert!(told(&beyond).contains("is not TOML: ") && told(&beyond).lines().count() == 1);
}

proptest! {
    #[test]
    fn whatever_is_written_is_told_without_a_panic_at_a_place_in_the_text(
        lines in proptest::collection::vec(
            ("[ \t\u{a0}\u{feff}]{0,2}", "(\\[|\\[\\[|\\+|;|//|export )?",
             "(hostname|queue|provider|auth|password|allow|rate|store|relayhost|[a-zé“]{1,4})(\\.[a-z\"]{1,3})?", "[ ]?(=|:|==|:=|=>|\\]|\\]\\]|)[ ]?",
             "(\"|'|\"\"\"|“|\\[|\\{|)(\\PC{0,9}|[0-9]{1,4}[a-zA-Z%,/]{0,2}|yes|True|\\$X)(\"|'|”|\\]|\\}|,|;|\\\\|)(\r|)"),
            0..8,
        )
    ) {
        let text: String = lines.into_iter().map(|(a, b, c, d, e)| format!("{a}{b}{c}{d}{e}\n")).collect();
        if let Err(error) = Loaded::parse(&text, "x") {
            let count = text.lines().count().max(1);
            for problem in &error.problems {
                prop_assert!(problem.line <= count + 1, "{:?} of {count}", problem);
                prop_assert!(problem.excerpt.is_empty() || problem.excerpt.lines().count() == 2, "{:?}", problem);
            }
        }
    }

    #[test]
    fn bytes_of_any_kind_are_told(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Err(error) = std::str::from_utf8(&bytes) {
            let found = not_utf8(&bytes, error.valid_up_to());
            prop_assert!(found.message.contains("is not UTF-8 text"));
            let _ = Excerpts::new(&found.text).of(&found.span);
        }
    }
}
