//! Markdown as far as these tests need it: pages, their fenced blocks, and their code spans.
//!
//! Invariant: what stands in a fence is in no span, and every place is told as `page:line`.

use std::fs;
use std::path::{Path, PathBuf};

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A page of the documentation.
pub struct Page {
    pub path: PathBuf,
    pub text: String,
}

/// A fenced block.
pub struct Fence {
    /// The line of its first ``` (from 1).
    pub line: usize,
    /// `sh`, `toml`, …; empty if it does not say.
    pub language: String,
    /// What else stands behind the language, such as `run` or `file=tour.toml`.
    pub attributes: Vec<String>,
    pub text: String,
}

/// Code in a sentence or a table.
pub struct Span {
    pub line: usize,
    pub text: String,
}

/// README.md, CHANGELOG.md and everything in docs/, in order.
pub fn pages() -> Vec<Page> {
    let root = Path::new(ROOT);
    let mut paths: Vec<PathBuf> = fs::read_dir(root.join("docs"))
        .expect("docs/ is there")
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    paths.sort();
    paths.splice(0..0, [root.join("README.md"), root.join("CHANGELOG.md")]);
    assert!(paths.len() >= 20, "only {} pages", paths.len());
    paths.into_iter().map(|path| Page { text: read(&path), path }).collect()
}

impl Page {
    /// As it stands in a message: `docs/sink.md`.
    pub fn name(&self) -> String {
        self.path.strip_prefix(ROOT).unwrap_or(&self.path).display().to_string()
    }

    pub fn fences(&self) -> Vec<Fence> {
        let mut fences = Vec::new();
        let mut open: Option<Fence> = None;
        for (at, line) in self.text.lines().enumerate() {
            let mark = line.trim_start().strip_prefix("```");
            match (open.as_mut(), mark) {
                (None, Some(info)) => {
                    let mut words = info.split_whitespace().map(str::to_owned);
                    let language = words.next().unwrap_or_default();
                    open = Some(Fence { line: at + 1, language, attributes: words.collect(), text: String::new() });
                }
                (Some(_), Some(_)) => fences.extend(open.take()),
                (Some(fence), None) => {
                    fence.text.push_str(line);
                    fence.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a fence is not closed", self.name());
        fences
    }

    /// Code spans; one that goes on in the next line is one span with a space in it.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut fenced = false;
        let mut paragraph: Vec<(usize, &str)> = Vec::new();
        for (at, line) in self.text.lines().enumerate().chain([(0, "")]) {
            let mark = line.trim_start().starts_with("```");
            let begins = line.is_empty() || line.starts_with(['|', '#']) || line.trim_start().starts_with("- ");
            if mark || begins || fenced {
                spans_of(&paragraph, &mut spans);
                paragraph.clear();
            }
            fenced ^= mark;
            if !fenced && !mark {
                paragraph.push((at + 1, line));
            }
        }
        spans
    }
}

fn spans_of(paragraph: &[(usize, &str)], spans: &mut Vec<Span>) {
    let mut open: Option<Span> = None;
    for (line, text) in paragraph {
        for (at, piece) in text.split('`').enumerate() {
            if at > 0 {
                open = match open.take() {
                    Some(span) => {
                        spans.push(span);
                        None
                    }
                    None => Some(Span { line: *line, text: String::new() }),
                };
            }
            if let Some(span) = open.as_mut() {
                let gap = if at == 0 && !span.text.is_empty() { " " } else { "" };
                span.text = format!("{}{gap}{}", span.text, piece.replace("\\|", "|"));
            }
        }
    }
}

/// The heading's anchor, as GitHub makes it.
pub fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn fences_and_spans_are_found() {
    let text = "A `one` and `two\nhalves`.\n\n```sh run file=x\necho `no`\n```\n| `a \\| b` | c |\n- `last`\n";
    let page = Page { path: PathBuf::from("x.md"), text: text.into() };
    let spans: Vec<(usize, String)> = page.spans().into_iter().map(|span| (span.line, span.text)).collect();
    let expected = [(1, "one"), (1, "two halves"), (7, "a | b"), (8, "last")];
    assert_eq!(spans, expected.map(|(line, text)| (line, text.to_owned())));
    let fences = page.fences();
    assert_eq!(fences.len(), 1);
    assert_eq!((fences[0].line, fences[0].language.as_str(), fences[0].text.as_str()), (4, "sh", "echo `no`\n"));
    assert_eq!(fences[0].attributes, ["run", "file=x"]);
}
