//! What differs between two configurations: keys and values, wherever they stand in the file.
//!
//! A table of which there may be several is known by what it says, so one that is put before others changes none
//! of them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use crate::config::report::{OwnValues, Setting};
use crate::config::{Config, Credentials, Loaded, Provider, Relay, Secret, User, has_text};

/// Changes that are told one by one.
const TOLD: usize = 50;
/// Tables with one and the same change of which each is told.
const MANY: usize = 3;
/// Comparisons of entries made at most to find those that are the same; more are compared in their order.
const COMPARED: usize = 1 << 20;

/// How the file differs from what was read of it (`mark`) and is in force, for people; `None` if it does not.
pub(super) fn file_differs(file: &Path, mark: u64, settings: &[Setting], config: &Config) -> Option<String> {
    if has_text(file, mark) {
        return None;
    }
    let shown = file.display();
    let loaded = match Loaded::read(Some(file)) {
        Ok(loaded) => loaded,
        Err(error) => {
            return Some(format!(
                "{shown} cannot be taken as it is now; what was read of it before stays in force\n{error:#}"
            ));
        }
    };
    if has_lost_all(&loaded.settings, settings) {
        return Some(format!(
            "{shown} has no values at all: a reload is refused, and what was read of it before stays in force"
        ));
    }
    let mut told = changes(settings, &loaded.settings);
    if told.is_empty() && secrets(config) != secrets(&loaded.config) {
        told.push("a secret".into());
    }
    let first = told.first()?;
    let what_does = match told.iter().any(|change| change.starts_with("[queue] store")) {
        true => "another store needs a restart",
        false => "`mailweir reload` takes them up",
    };
    let more = if told.len() > 1 { format!(", and {} more", told.len() - 1) } else { String::new() };
    Some(format!("{shown} has changes that are not in force ({first}{more}): {what_does}"))
}

/// What a full disk or an editor leaves: no value, where there were some.
pub(super) fn has_lost_all(now: &[Setting], before: &[Setting]) -> bool {
    OwnValues(now).count() == 0 && OwnValues(before).count() > 0
}

/// Passwords and what else is secret, provider by provider, and those of users.
fn secrets(config: &Config) -> Vec<Vec<&str>> {
    let relays = config.providers.iter().map(|provider| provider.relay.as_ref());
    let of_relays =
        relays.map(|relay| relay.into_iter().flat_map(|relay| relay.secrets()).map(Secret::reveal).collect());
    // They come in no order.
    let mut users: Vec<&str> = config.users.iter().flat_map(|u| [&*u.name, u.password.text().reveal()]).collect();
    users.sort_unstable();
    of_relays.chain([users]).collect()
}

/// What differs, a line for each value, or for each table that is new or gone; secrets are not shown by
/// [`Setting`].
pub(super) fn changes(old: &[Setting], new: &[Setting]) -> Vec<String> {
    let (before, after) = (tables(old), tables(new));
    let mut told = Vec::new();
    // What is gone comes first: it is what hurts most if nobody meant it, and must not be among the `more`.
    for (table, entries) in before.iter().filter(|(name, _)| !after.iter().any(|(table, _)| table == name)) {
        told.extend(entries.iter().enumerate().map(|(n, entry)| entry.whole(table, n, entries.len(), "gone")));
    }
    for (table, entries) in &after {
        match before.iter().find(|(name, _)| name == table) {
            Some((_, was)) => compare(table, was, entries, &mut told),
            None => {
                told.extend(entries.iter().enumerate().map(|(n, entry)| entry.whole(table, n, entries.len(), "new")))
            }
        }
    }
    let mut told = told_once(told);
    if told.len() > TOLD {
        let more = told.len() - TOLD;
        told.truncate(TOLD);
        told.push(format!("and {more} more; see mailweir check --all"));
    }
    told
}

/// A value that others take over from its table is told where it was changed, with how many have it.
fn told_once(all: Vec<String>) -> Vec<String> {
    let what = |line: &str| {
        let (title, rest) = line.strip_prefix('[')?.split_once("] ")?;
        let from = ["provider.", "retry", "default"].iter().any(|table| title.starts_with(table));
        (from && rest.contains(" → ")).then(|| rest.strip_prefix("retry.").unwrap_or(rest).to_owned())
    };
    let mut counts: HashMap<String, usize> = HashMap::new();
    for line in &all {
        if let Some(what) = what(line) {
            *counts.entry(what).or_default() += 1;
        }
    }
    let mut told = Vec::new();
    for line in all {
        match what(&line).and_then(|what| counts.get_mut(&what)) {
            // Told already.
            Some(0) => {}
            Some(count) if *count > MANY => {
                told.push(format!("{line} (the same in {} more tables)", *count - 1));
                *count = 0;
            }
            _ => told.push(line),
        }
    }
    told
}

/// A table, or one of those of the same name: its keys in order, with their values and whether they are the
/// built-in ones.
#[derive(Debug)]
struct Entry<'a> {
    values: Vec<(&'a str, String, bool)>,
}

impl Entry<'_> {
    fn same(&self, other: &Entry<'_>) -> bool {
        let plain = |entry: &Entry<'_>| {
            entry.values.iter().map(|(key, value, _)| (key.to_string(), value.clone())).collect::<Vec<_>>()
        };
        plain(self) == plain(other)
    }

    /// In one line what was written there.
    fn whole(&self, table: &str, nth: usize, of: usize, word: &str) -> String {
        let mut line = format!("{}:", title(table, nth, of));
        let said = self.values.iter().filter(|(_, _, default)| !default);
        for (n, (key, value, _)) in said.enumerate() {
            let _ = write!(line, "{} {key} = {value}", if n > 0 { "," } else { "" });
        }
        format!("{line} ({word})")
    }
}

fn title(table: &str, nth: usize, of: usize) -> String {
    if of > 1 { format!("{table} (no. {})", nth + 1) } else { table.to_owned() }
}

/// The entries of each table, in the order of the settings.
fn tables(settings: &[Setting]) -> Vec<(&str, Vec<Entry<'_>>)> {
    let mut tables: Vec<(&str, Vec<Entry<'_>>)> = Vec::new();
    let mut index: HashMap<&str, usize> = HashMap::new();
    for setting in settings {
        let at = *index.entry(&setting.table).or_insert_with(|| {
            tables.push((&setting.table, Vec::new()));
            tables.len() - 1
        });
        let Some((_, entries)) = tables.get_mut(at) else { continue };
        // Each entry of a list of tables begins with the first key of its table again.
        let begins =
            entries.last().is_none_or(|entry| entry.values.first().is_some_and(|(key, ..)| *key == setting.key));
        if begins {
            entries.push(Entry { values: Vec::new() });
        }
        let value = setting.value.as_ref().map_or("none".into(), |value| value.to_string().trim().to_owned());
        let default = setting.value.is_none() || setting.from == "default";
        if let Some(entry) = entries.last_mut() {
            entry.values.push((&setting.key, value, default));
        }
    }
    tables
}

/// Tells what differs between the entries of one table.
fn compare(table: &str, old: &[Entry<'_>], new: &[Entry<'_>], told: &mut Vec<String>) {
    let kept = kept(old, new);
    let (mut at, mut left_old, mut left_new) = ((0, 0), Vec::new(), Vec::new());
    // Between two entries that stay, what was there and what is there now belong together.
    for (i, j) in kept.into_iter().chain([(old.len(), new.len())]) {
        let (was, is) = (at.0..i, at.1..j);
        let both = was.len().min(is.len());
        for (i, j) in was.clone().zip(is.clone()).take(both) {
            left_old.push((i, Some(j)));
        }
        left_old.extend(was.skip(both).map(|i| (i, None)));
        left_new.extend(is.skip(both));
        at = (i + 1, j + 1);
    }
    // What only moved is told as that.
    let mut moved: BTreeMap<usize, usize> = BTreeMap::new();
    for (i, _) in left_old.iter().filter(|(_, pair)| pair.is_none()) {
        let same = |j: &&usize| {
            !moved.values().any(|m| m == *j) && old.get(*i).zip(new.get(**j)).is_some_and(|(a, b)| a.same(b))
        };
        if let Some(j) = left_new.iter().find(same) {
            moved.insert(*i, *j);
        }
    }
    for (i, pair) in left_old {
        match (pair.and_then(|j| Some((j, new.get(j)?))), old.get(i)) {
            (Some((j, is)), Some(was)) => values(&title(table, j, new.len()), was, is, told),
            (None, Some(was)) => match moved.get(&i) {
                Some(j) => told.push(format!("{table}: no. {} is now no. {}", i + 1, j + 1)),
                None => told.push(was.whole(table, i, old.len(), "gone")),
            },
            _ => {}
        }
    }
    for j in left_new.into_iter().filter(|j| !moved.values().any(|m| m == j)) {
        told.extend(new.get(j).map(|entry| entry.whole(table, j, new.len(), "new")));
    }
}

/// Pairs of entries that say the same, in order: as many as there are.
fn kept(old: &[Entry<'_>], new: &[Entry<'_>]) -> Vec<(usize, usize)> {
    let first = old.iter().zip(new).take_while(|(a, b)| a.same(b)).count();
    let (rest_old, rest_new) = (old.get(first..).unwrap_or_default(), new.get(first..).unwrap_or_default());
    let last = rest_old.iter().rev().zip(rest_new.iter().rev()).take_while(|(a, b)| a.same(b)).count();
    let (n, m) = (rest_old.len() - last, rest_new.len() - last);
    let mut pairs: Vec<(usize, usize)> = (0..first).map(|i| (i, i)).collect();
    if n.saturating_mul(m) <= COMPARED {
        // The longest common subsequence, from the end.
        let mut length = vec![vec![0u32; m + 1]; n + 1];
        let same = |i: usize, j: usize| rest_old.get(i).zip(rest_new.get(j)).is_some_and(|(a, b)| a.same(b));
        let get =
            |length: &[Vec<u32>], i: usize, j: usize| length.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0);
        for i in (0..n).rev() {
            for j in (0..m).rev() {
                let best = match same(i, j) {
                    true => get(&length, i + 1, j + 1) + 1,
                    false => get(&length, i + 1, j).max(get(&length, i, j + 1)),
                };
                if let Some(cell) = length.get_mut(i).and_then(|row| row.get_mut(j)) {
                    *cell = best;
                }
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < n && j < m {
            if same(i, j) {
                pairs.push((first + i, first + j));
                (i, j) = (i + 1, j + 1);
            } else if get(&length, i + 1, j) >= get(&length, i, j + 1) {
                i += 1;
            } else {
                j += 1;
            }
        }
    }
    pairs.extend((0..last).map(|k| (old.len() - last + k, new.len() - last + k)));
    pairs
}

/// The values of one table that differ.
fn values(title: &str, old: &Entry<'_>, new: &Entry<'_>, told: &mut Vec<String>) {
    let name = |key: &str| if title.is_empty() { key.to_owned() } else { format!("{title} {key}") };
    for (key, value, _) in &new.values {
        match old.values.iter().find(|(was, ..)| was == key) {
            Some((_, was, _)) if was == value => {}
            Some((_, was, _)) => told.push(format!("{}: {was} → {value}", name(key))),
            None => told.push(format!("{}: {value} (new)", name(key))),
        }
    }
    let gone = old.values.iter().filter(|(key, ..)| !new.values.iter().any(|(is, ..)| is == key));
    told.extend(gone.map(|(key, value, _)| format!("{}: {value} (gone)", name(key))));
}

/// Names that are told one by one.
const NAMED: usize = 5;

/// Who may log in since `before`, and who no longer, of those that no `[[user]]` of the settings tells.
pub(super) fn users(before: &Config, after: &Config) -> Vec<String> {
    let tables = |config: &Config, name: &str| config.users.find(name).is_some_and(|user| user.in_table);
    let mut told = Vec::new();
    for (this, that, word) in [(after, before, "may log in now"), (before, after, "may not log in any more")] {
        let names = this.users.iter().filter(|user| that.users.find(&user.name).is_none());
        let mut names: Vec<&str> = names.filter(|user| !tables(this, &user.name)).map(|user| &*user.name).collect();
        names.sort_unstable();
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        if !names.is_empty() {
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            told.push(format!("users: {}{more} {word}", names.join(", ")));
        }
    }
    let other = |user: &&Arc<User>| {
        before.users.find(&user.name).is_some_and(|was| was.password.text() != user.password.text())
    };
    let other = after.users.iter().filter(other).count();
    told.extend((other > 0).then(|| format!("users: {other} with another password")));
    told
}

/// The providers whose hosts are reached in another way than before: by another smart host, login, port or TLS.
pub(super) fn reached_otherwise(before: &Config, after: &Config) -> Vec<String> {
    let all = after.providers.iter().chain([&after.default]);
    let pairs = all.filter_map(|now| {
        let of_name = || before.providers.iter().find(|provider| provider.name == now.name);
        let then = if now.name == after.default.name { Some(&before.default) } else { of_name() };
        then.map(|then| (then, now))
    });
    pairs.filter(|(then, now)| differ(then, now)).map(|(_, now)| now.name.clone()).collect()
}

fn differ(a: &Provider, b: &Provider) -> bool {
    let relay = |p: &Provider| {
        let login = |auth: &Credentials| (auth.user.clone(), auth.mechanism);
        p.relay.as_ref().map(|relay| {
            let oauth = relay.oauth.as_ref().map(|oauth| format!("{oauth:?}"));
            (relay.host.clone(), relay.port, relay.implicit_tls, relay.auth.as_ref().map(login), oauth)
        })
    };
    let secrets = |p: &Provider| p.relay.iter().flat_map(Relay::secrets).cloned().collect::<Vec<_>>();
    relay(a) != relay(b)
        || secrets(a) != secrets(b)
        || (a.port, a.tls, a.tls_min, a.mta_sts) != (b.port, b.tls, b.tls_min, b.mta_sts)
        || a.tls_ca != b.tls_ca
        || a.tls_client != b.tls_client
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
