//! Every growing thing of the running relay is in docs/memory.md with its bound.

use std::collections::BTreeSet;
use std::path::Path;

#[path = "support/files.rs"]
mod files;

/// Types of fields that grow.
const GROWING: [&str; 9] =
    ["VecDeque<", "HashMap<", "BTreeMap<", "BTreeSet<", "HashSet<", "Vec<u8>", "BytesMut", "Mutex<Vec<", "RwLock<Vec<"];

/// What makes a channel or a cache.
const MADE_BY: [&str; 5] =
    ["mpsc::channel(", "unbounded_channel(", "broadcast::channel(", "sync_channel(", "Cache::builder()"];

/// Not in the running relay, or only read from its configuration.
const ELSEWHERE: [&str; 6] = ["src/config", "src/simulate", "src/model", "src/sink", "src/cli", "src/doctor"];

type Buffers = BTreeSet<(String, String)>;

fn word(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    text.get(..end).filter(|word| !word.is_empty())
}

/// The name and the type of a field, if this line is one.
fn field(line: &str) -> Option<(&str, &str)> {
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.strip_prefix(' ')?,
        None => line,
    };
    let name = word(line)?;
    let kind = line.get(name.len()..)?.strip_prefix(": ")?.strip_suffix(',')?;
    // A parameter, or a value.
    (!kind.starts_with('&') && !kind.contains("::new") && !kind.contains('.')).then_some((name, kind))
}

/// What the result of a call is named on its line; else the function that it is in.
fn named<'a>(line: &'a str, call: &str, function: &'a str) -> &'a str {
    let before = line.split(call).next().unwrap_or_default().trim_end_matches("moka::sync::").trim_end();
    if let Some(pair) = line.strip_prefix("let (") {
        let mut names = pair.split(", ").filter_map(|name| word(name.strip_prefix("mut ").unwrap_or(name)));
        return names.find(|name| *name != "_").unwrap_or(function);
    }
    let before = before.trim_end_matches(['=', ':']).trim_end();
    let start = before.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
    before.get(start..).filter(|name| !name.is_empty()).unwrap_or(function)
}

fn in_the_source() -> Buffers {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut buffers) = (Vec::new(), Buffers::new());
    files::sources(&root.join("src"), "rs", &mut files);
    for path in files {
        let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
        if name.ends_with("tests.rs")
            || name.ends_with("_worlds.rs")
            || name.contains("tests/")
            || ELSEWHERE.iter().any(|elsewhere| name.starts_with(elsewhere))
        {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a file");
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let mut function = "";
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            if let Some((_, behind)) = line.split_once("fn ") {
                function = word(behind).unwrap_or(function);
            }
            if let Some((field, _)) = field(line).filter(|(_, kind)| GROWING.iter().any(|g| kind.contains(g))) {
                buffers.insert((name.clone(), field.to_owned()));
            } else if let Some(call) = MADE_BY.iter().find(|call| line.contains(**call)) {
                buffers.insert((name.clone(), named(line, call, function).to_owned()));
            }
        }
    }
    buffers
}

fn in_the_list() -> Buffers {
    let text = include_str!("../docs/memory.md");
    let mut buffers = Buffers::new();
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [file, names, bound] = cells.as_slice() else { panic!("not a row of three: {row}") };
        assert!(bound.len() > 2, "no bound: {row}");
        for name in names.split(", ") {
            buffers.insert((file.trim_matches('`').to_owned(), name.trim_matches('`').to_owned()));
        }
    }
    buffers
}

#[test]
fn every_buffer_of_the_relay_is_listed_with_its_bound() {
    let (source, list) = (in_the_source(), in_the_list());
    assert!(source.len() > 50, "the search finds only {}", source.len());
    let unlisted: Vec<_> = source.difference(&list).collect();
    assert!(unlisted.is_empty(), "add these to docs/memory.md, with what bounds them: {unlisted:?}");
    let gone: Vec<_> = list.difference(&source).collect();
    assert!(gone.is_empty(), "take these out of docs/memory.md, they are gone: {gone:?}");
}

#[test]
fn a_new_buffer_is_seen_in_each_of_its_forms() {
    let is_growing = |line| field(line).is_some_and(|(_, kind)| GROWING.iter().any(|g| kind.contains(g)));
    for line in [
        "waiting: VecDeque<Job>,",
        "pub(super) seen: Mutex<HashMap<String, u32>>,",
        "pub body: Vec<u8>,",
        "list: Arc<Mutex<Vec<Key>>>,",
    ] {
        assert!(is_growing(line), "{line}");
    }
    for line in ["count: usize,", "names: &mut VecDeque<u8>,", "open: VecDeque::new(),", "rows: Vec<Row>,"] {
        assert!(!is_growing(line), "{line}");
    }
    assert_eq!(named("let (jobs, receiver) = mpsc::channel(PENDING);", "mpsc::channel(", "open"), "jobs");
    assert_eq!(named("Memo { cache: Cache::builder().build() }", "Cache::builder()", "new"), "cache");
    assert_eq!(named("let seen = Cache::builder()", "Cache::builder()", "new"), "seen");
    assert_eq!(named("moka::sync::Cache::builder().build()", "Cache::builder()", "cache_of"), "cache_of");
}
