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
