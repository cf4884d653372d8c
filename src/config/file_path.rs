//! The path of a file, as the configuration has it, and what people write in its place: its content, a type that other
//! programs have before it, what only shells replace.

/// The name of a file, which may be a key by mistake: it is not repeated then.
pub(super) fn file_name(text: &str) -> Result<&str, String> {
    let is_content = text.contains(['\n', '\r', '{']) || text.contains("-----BEGIN") || text.len() > 1024;
    match is_content {
        true => Err("expected the path of a file, found what seems to be the content of one: put it into a file that only mailweir may read, and name that".into()),
        false => plain_path(text).map_or(Ok(text), Err),
    }
}

/// Types of tables that Postfix has before a path.
const TABLES: [&str; 12] =
    ["hash", "btree", "lmdb", "cdb", "dbm", "texthash", "regexp", "pcre", "cidr", "inline", "file", "file+hash"];

/// What is wrong with a path in which something stands that nobody replaces or takes away here.
pub(super) fn plain_path(text: &str) -> Option<String> {
    if let Some((table, path)) =
        text.split_once(':').filter(|(table, path)| TABLES.contains(table) && path.contains('/'))
    {
        let path = path.trim_start_matches("//");
        return Some(format!("a path has no type before it here: expected \"{path}\" without `{table}:`"));
    }
    let shell = text.starts_with("~/") || text.split('/').any(|part| part.starts_with('$') && part.len() > 1);
    shell.then(|| "~ and $NAME are for shells, nothing takes their place here: expected the whole path".to_owned())
}

/// The same for `{ file = "hunter2" }`: what looks like a path is shown.
pub(super) fn shown_file(path: &str) -> String {
    let like_a_path = ["/", "./", "../"].iter().any(|start| path.starts_with(start));
    if like_a_path { format!("the file {path}") } else { "the file of that name".to_owned() }
}
