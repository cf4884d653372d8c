//! Commands and options that a page names are those of the program: every `mailweir …` of a fenced
//! block or a code span is walked down the tree of commands that clap parses with. What follows `send`
//! is sendmail's grammar, so the program itself is asked.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command as Process, Stdio};

use clap::{Arg, Command, CommandFactory};

use super::pages::{Page, ROOT, pages, read};

/// Whether a program of this repository that measures or tests has the option.
fn is_of_a_bench(option: &str) -> bool {
    let mut files = Vec::new();
    for extension in ["rs", "py", "sh"] {
        super::sources(&Path::new(ROOT).join("bench"), extension, &mut files);
        super::sources(&Path::new(ROOT).join("tests"), extension, &mut files);
    }
    let quoted = [format!("\"{option}\""), format!("'{option}'"), format!("{option})")];
    files.iter().any(|file| quoted.iter().any(|option| read(file).contains(option)))
}

fn tree() -> Command {
    let mut tree = mailweir::cli::Cli::command();
    tree.build();
    tree
}

/// What a line of shell has as commands, without the words before `mailweir` and with that left out.
fn invocations(line: &str) -> Vec<Vec<String>> {
    let line = line.split(" #").next().unwrap_or_default();
    let mut found = Vec::new();
    for part in line.replace("$(", ";").split([';', '|', '&', '>', '<']) {
        let words: Vec<&str> = part.split_whitespace().collect();
        let program = words.iter().position(|w| *w == "mailweir" || w.ends_with("bin/mailweir"));
        // Before it: `sudo -u mailweir`, variables; anything else has mailweir as an argument.
        let Some(mut at) = program else { continue };
        if words[..at].contains(&"-u") {
            match words[at + 1..].iter().position(|w| *w == "mailweir") {
                Some(next) => at += 1 + next,
                None => continue,
            }
        }
        let before =
            words[..at].iter().all(|w| ["sudo", "-u", "mailweir", "exec", "time"].contains(w) || w.contains('='));
        if before {
            found.push(words[at + 1..].iter().map(|w| (*w).to_owned()).collect());
        }
    }
    found
}

/// The commands of a page, each with its place and its words.
fn commands(page: &Page) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for fence in page.fences() {
        if !["", "sh", "ini"].contains(&fence.language.as_str()) {
            continue;
        }
        // In a session with prompts, the other lines are what was printed.
        let prompts = fence.text.lines().any(|line| line.starts_with("$ "));
        for line in fence.text.replace("\\\n", " ").lines() {
            let typed = if prompts { line.strip_prefix("$ ").unwrap_or_default() } else { line };
            let typed = typed.strip_prefix("ExecStart=").unwrap_or(typed);
            found
                .extend(invocations(typed).into_iter().map(|words| (format!("{}:{}", page.name(), fence.line), words)));
        }
    }
    let tree = tree();
    for span in page.spans() {
        let place = format!("{}:{}", page.name(), span.line);
        let mut words: Vec<String> = span.text.split_whitespace().map(str::to_owned).collect();
        // Behind a pipe is another program, but `[--headers | --body]` is a choice.
        let pipe = words.windows(2).position(|pair| pair[0] == "|" && !pair[1].starts_with('-'));
        words.truncate(pipe.unwrap_or(words.len()));
        let (Some(first), second) = (words.first(), words.get(1)) else { continue };
        let known = tree.find_subcommand(first);
        let group = known.is_some_and(|c| c.has_subcommands());
        let means_one = |word: &String| {
            word.starts_with('-') || (group && word.chars().all(|c| c.is_ascii_lowercase() || c == '|'))
        };
        if first == "mailweir" {
            found.push((place, words[1..].to_vec()));
        } else if known.is_some() && second.is_some_and(means_one) {
            found.push((place, words));
        }
    }
    found
}

fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| "[](){},.:;…'\"".contains(c))
}

fn option<'c>(command: &'c Command, word: &str) -> Option<&'c Arg> {
    let word = word.split('=').next().unwrap_or_default();
    command.get_arguments().find(|arg| match word.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => word.len() == 2 && arg.get_short() == word.chars().nth(1),
    })
}

/// Walks the words down the tree; the error says which word nothing knows. `send` ends the walk: what follows it is
/// added to `to_send`.
fn walk(tree: &Command, words: &[String], to_send: &mut BTreeSet<Vec<String>>) -> Result<(), String> {
    let mut command = tree;
    let mut words = words.iter().map(|word| bare(word)).filter(|word| !word.is_empty() && *word != "|").peekable();
    while let Some(word) = words.next() {
        if command.get_name() == "send" {
            to_send.insert(std::iter::once(word).chain(words).map(str::to_owned).collect());
            return Ok(());
        }
        if word.starts_with('-') && word.len() > 1 {
            let Some(arg) = option(command, word) else {
                return Err(format!("`{}` has no option `{word}`", command.get_name()));
            };
            if arg.get_action().takes_values() && !word.contains('=') {
                words.next();
            }
            continue;
        }
        if command.has_subcommands() {
            // `queue list|show` names several; NAME is nobody's name.
            let names: Vec<&str> = word.split('|').collect();
            if names.iter().all(|name| name.chars().all(|c| !c.is_ascii_lowercase())) {
                return Ok(());
            }
            let mut next = command;
            for name in names {
                match command.find_subcommand(name) {
                    Some(found) => next = found,
                    None => return Err(format!("`{}` has no command `{name}`", command.get_name())),
                }
            }
            command = next;
        }
    }
    Ok(())
}

#[test]
fn every_command_and_option_that_a_page_names_is_one_of_the_program() {
    let tree = tree();
    let (mut wrong, mut to_send, mut seen) = (Vec::new(), BTreeSet::new(), 0);
    for page in pages() {
        for (place, words) in commands(&page) {
            seen += 1;
            if let Err(why) = walk(&tree, &words, &mut to_send) {
                wrong.push(format!("{place}: mailweir {}: {why}", words.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "no such commands:\n{}", wrong.join("\n"));
    assert!(seen > 80, "only {seen} commands");
    for arguments in to_send {
        // With --help nothing is sent, and an option that nobody knows is refused before that.
        let options = arguments.iter().filter(|word| !word.starts_with('$'));
        let mut send = Process::new(env!("CARGO_BIN_EXE_mailweir"));
        let said = send.arg("send").args(options).arg("--help").stdin(Stdio::null()).output().expect("it starts");
        let error = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "mailweir send {}: {error}", arguments.join(" "));
    }
}

#[test]
fn every_option_that_stands_alone_is_one_of_some_command() {
    fn options(command: &Command, all: &mut BTreeSet<String>) {
        all.extend(command.get_arguments().filter_map(|arg| arg.get_long().map(|long| format!("--{long}"))));
        command.get_subcommands().for_each(|sub| options(sub, all));
    }
    // Of `send`, which is no business of clap's.
    let mut known = BTreeSet::from(["--file".to_owned()]);
    options(&tree(), &mut known);
    let mut wrong = Vec::new();
    for page in pages() {
        for span in page.spans().into_iter().filter(|span| span.text.starts_with("--")) {
            let name = span.text.split([' ', '=']).next().unwrap_or_default();
            if name.len() > 2 && !known.contains(name) && !is_of_a_bench(name) {
                wrong.push(format!("{}:{}: {}", page.name(), span.line, span.text));
            }
        }
    }
    assert!(wrong.is_empty(), "nobody's options:\n{}", wrong.join("\n"));
}

#[test]
fn every_command_and_option_of_the_program_is_on_a_page() {
    fn missing(command: &Command, path: &str, texts: &str, commands: &str, missing_ones: &mut Vec<String>) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
            let name = format!("{path}{}", sub.get_name());
            let spellings = [format!("`{name}"), format!("`mailweir {name}"), format!("`{}", sub.get_name())];
            if !spellings.iter().any(|spelling| commands.contains(spelling)) {
                missing_ones.push(format!("{name}: docs/operations.md, ## Commands"));
            }
            missing(sub, &format!("{name} "), texts, commands, missing_ones);
        }
        let long = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(Arg::get_long);
        for long in long.filter(|long| !["help", "version"].contains(long)) {
            if !texts.contains(&format!("--{long}")) {
                missing_ones.push(format!("{path}--{long}"));
            }
        }
    }
    let operations = read(&Path::new(ROOT).join("docs/operations.md"));
    let (_, commands) = operations.split_once("\n## Commands\n").expect("a section");
    let (commands, _) = commands.split_once("\n## ").expect("the next section");
    let texts: String = pages().into_iter().map(|page| page.text).collect();
    let mut missing_ones = Vec::new();
    missing(&tree(), "", &texts, commands, &mut missing_ones);
    assert!(missing_ones.is_empty(), "no page tells of:\n{}", missing_ones.join("\n"));
}

#[test]
fn what_the_program_lacks_is_found() {
    let tree = tree();
    let mut sent = BTreeSet::new();
    let mut fault = |line: &str| {
        let words: Vec<String> = invocations(line).into_iter().next().expect("a command");
        walk(&tree, &words, &mut sent).err().unwrap_or_default()
    };
    assert_eq!(fault("mailweir -c a.toml queue list --limit 20 | head"), "");
    assert_eq!(fault("sudo -u mailweir mailweir provider pause NAME # stops it"), "");
    assert_eq!(fault("mailweir queue purge"), "`queue` has no command `purge`");
    assert_eq!(fault("mailweir status --colour"), "`status` has no option `--colour`");
    assert_eq!(fault("mailweir relod"), "`mailweir` has no command `relod`");
    assert_eq!(fault("echo x | mailweir send -f a@b c@d"), "");
    assert!(sent.contains(&["-f", "a@b", "c@d"].map(str::to_owned)[..]));
    // The user of that name, a directory, a package: no commands.
    assert!(invocations("install -d -g mailweir /etc/mailweir").is_empty());
    assert!(invocations("systemctl reload mailweir").is_empty());
}
