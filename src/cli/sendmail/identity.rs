//! Who calls: the user of the process, from the user database (files, LDAP, whatever the system
//! asks), not from variables that anybody can set.

use nix::unistd::{Uid, User};

use crate::mail::local::check_local;

/// The user that a message is from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    /// The local part of the address: the login name, in quotes where it needs them.
    pub local_part: String,
    /// From the GECOS field; empty if there is none.
    pub full_name: String,
}

impl Identity {
    /// Of this process. A user that no database knows, as in a container, is `uid1000`.
    pub(super) fn of_process() -> Identity {
        let uid = Uid::current();
        match User::from_uid(uid) {
            Ok(Some(user)) => Identity::new(&user.name, &user.gecos.to_string_lossy()),
            Ok(None) | Err(_) => Identity::new(&format!("uid{uid}"), ""),
        }
    }

    fn new(login: &str, gecos: &str) -> Identity {
        Identity { local_part: quoted(login), full_name: full_name(login, gecos) }
    }
}

/// A login name as a local part: domains of Windows have a backslash, and some names a space.
fn quoted(login: &str) -> String {
    if check_local(login).is_ok() {
        return login.to_owned();
    }
    let mut text = String::from('"');
    for c in login.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

/// The name in a GECOS field: up to the first comma, `&` for the login name with a capital letter.
fn full_name(login: &str, gecos: &str) -> String {
    let name = gecos.split(',').next().unwrap_or_default().trim();
    let mut letters = login.chars();
    let capitalised: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    name.replace('&', &capitalised).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gecos_and_login_names() {
        for (login, gecos, local_part, name) in [
            ("jo", "Jo Smith,Room 1,555", "jo", "Jo Smith"),
            ("root", "root", "root", "root"),
            ("daemon", "The &", "daemon", "The Daemon"),
            ("www-data", "", "www-data", ""),
            ("CORP\\jo", "J\u{f6}", "\"CORP\\\\jo\"", "J\u{f6}"),
            ("jo smith", "x\ny", "\"jo smith\"", "xy"),
        ] {
            let wanted = Identity { local_part: local_part.into(), full_name: name.into() };
            assert_eq!(Identity::new(login, gecos), wanted);
            assert!(check_local(local_part).is_ok());
        }
    }

    #[test]
    fn the_process_has_one_whatever_its_environment_says() {
        let identity = Identity::of_process();
        assert!(check_local(&identity.local_part).is_ok(), "{identity:?}");
    }
}
