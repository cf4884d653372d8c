//! What a configuration names and does not say itself: certificates, keys, users, passwords, in files and in
//! variables of the environment. The relay and `check` need all of it. Commands that show something else read none of
//! it: a key that only the relay may read, or that is gone, says nothing of the limits of a provider.

use toml_edit::Value;

use super::file_path::file_name;
use super::secret::SHOWN;
use super::value::Kind;

/// Which of it is read with the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Elsewhere {
    /// All, and what cannot be read is a fault.
    Read,
    /// Nothing.
    Ignored,
    /// The keys of `[[dkim]]`.
    OnlyDkim,
    /// What providers log in with.
    OnlyLogins,
}

impl Elsewhere {
    /// What to show of a value that is not looked up; `None`: it is read as ever.
    pub(super) fn shown_unread(self, kind: Kind, value: &Value) -> Option<Value> {
        let wanted = match self {
            Elsewhere::Read => true,
            Elsewhere::Ignored => false,
            Elsewhere::OnlyDkim => matches!(kind, Kind::DkimKey),
            Elsewhere::OnlyLogins => matches!(
                kind,
                Kind::Secret | Kind::Authorities | Kind::ClientCertificate | Kind::KeyFile | Kind::ServiceAccount
            ),
        };
        let secret = matches!(kind, Kind::Secret | Kind::StoredPassword);
        if wanted || !(secret || kind.is_a_file()) {
            return None;
        }
        match (secret, value.as_str()) {
            (true, text) => (text.is_some() || value.is_inline_table()).then(|| SHOWN.into()),
            // The content of a key in the place of its name is told of, and never shown.
            (false, text) => text.filter(|text| file_name(text).is_ok()).map(Value::from),
        }
    }
}
