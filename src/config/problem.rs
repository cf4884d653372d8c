//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::Path;

/// Something to know about a place in the file.
#[derive(Clone, PartialEq, Eq, Default, Debug, serde::Serialize)]
pub struct Problem {
    /// Line, from 1; 0 when it is about no line.
    pub line: usize,
    /// Column in characters, from 1; 0 when it is about no line.
    pub column: usize,
    /// The key's full path, such as `provider.gmail.rate`; entries of lists of tables count from
    /// 1: `listener[1].address`. Empty when it is about no key.
    pub key: String,
    /// What is wrong and what was expected.
    pub message: String,
    /// The line with a mark below the place; empty if it is about no line, or the line may have a secret in it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub excerpt: String,
}

/// Why there is no configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file, or what else the text came from.
    pub origin: String,
    /// All that is wrong, in the order of the file; at least one.
    pub problems: Vec<Problem>,
}

/// A fault that does not stop mailweir.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    /// The file, or what else the text came from.
    pub origin: String,
    /// What and where.
    pub problem: Problem,
}

/// Characters of one value, or of a word without a blank, that a message repeats.
const LONGEST_VALUE: usize = 100;
/// Characters of a message.
const LONGEST_MESSAGE: usize = 2000;

/// A message without what is too long to be read in it: a value (in quotes) or a word is cut behind its first
/// [`LONGEST_VALUE`] characters, and says how long it was.
pub(super) fn readable(message: &str) -> String {
    if message.len() <= LONGEST_VALUE {
        return message.to_owned();
    }
    let mut short = String::with_capacity(message.len().min(LONGEST_MESSAGE * 4));
    let mut rest = message;
    while let Some(first) = rest.chars().next() {
        let closes = matches!(first, '"' | '`').then_some(first);
        let end = match closes.and_then(|quote| rest.get(1..)?.find(quote)) {
            // With both quotes.
            Some(at) => at + 2,
            None => {
                let stops =
                    |(at, c): (usize, char)| (at > 0 && (c.is_whitespace() || matches!(c, '"' | '`'))).then_some(at);
                rest.char_indices().find_map(stops).unwrap_or(rest.len())
            }
        };
        let (part, after) = rest.split_at(end);
        let long = part.chars().count();
        if long > LONGEST_VALUE + 20 {
            short.extend(part.chars().take(LONGEST_VALUE));
            short.push_str(&format!("… ({long} characters)"));
            short.extend(closes);
        } else {
            short.push_str(part);
        }
        rest = after;
    }
    if short.chars().count() > LONGEST_MESSAGE {
        short = short.chars().take(LONGEST_MESSAGE).chain("…".chars()).collect();
    }
    short
}

impl Problem {
    fn write(&self, origin: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(origin)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        if f.alternate() && !self.excerpt.is_empty() {
            write!(f, "\n{}", self.excerpt)?;
        }
        Ok(())
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.write(&self.origin, f)
    }
}

/// One line for each problem; with `{:#}` each has the line of the file below it.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.write(&self.origin, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// Something about the whole file.
    pub(super) fn about_file(path: &Path, message: String) -> ConfigError {
        let problem = Problem { message, ..Problem::default() };
        ConfigError { origin: path.display().to_string(), problems: vec![problem] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_and_what_was_expected_stays() {
        let long = "x".repeat(5000);
        for (message, begins) in [
            (format!("\"{long}\" is not a host name: expected labels"), "\"xxx"),
            (format!("`{long}`: expected labels"), "`xxx"),
            (format!("cannot read {long}: expected labels"), "cannot read xxx"),
            (format!("\"{}\" is none: expected labels", "a b ".repeat(500)), "\"a b a b"),
            (format!("\"{}\" is none: expected labels", "\u{e4}".repeat(500)), "\"\u{e4}"),
        ] {
            let short = readable(&message);
            assert!(short.starts_with(begins) && short.ends_with("expected labels"), "{short}");
            assert!(short.chars().count() < 250 && short.contains("characters)"), "{short}");
        }
        let whole = "the value \"relay.example\" is not known: expected one of \"a\", \"b\", \"c\"; ".repeat(5);
        assert_eq!(readable(&whole), whole);
        assert_eq!(readable(&"word ".repeat(5000)).chars().count(), LONGEST_MESSAGE + 1);
        assert_eq!(readable("\""), "\"");
        assert!(readable(&format!("\"{long}")).len() < 300);
    }
}
