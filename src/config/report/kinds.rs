//! What keys accept, asked by their names: for messages about a file that cannot be read as a whole.

use super::super::Limit;
use super::super::dkim::DkimDraft;
use super::super::keys::{ProviderDraft, RouteDraft, Table, Top};
use super::super::listener_keys::ListenerDraft;
use super::super::rewrite::{CopyDraft, RewriteDraft};
use super::super::rule_keys::RuleDraft;
use super::super::sandbox::SandboxDraft;
use super::super::srs::SrsDraft;
use super::super::tls_report::TlsReportDraft;
use super::super::users::UserDraft;
use super::super::value::Kind;
use super::super::{Dns, Log, Queue, Retry, Sendmail};

/// What the key accepts that has this name in some table.
fn kind_of(name: &str) -> Option<Kind> {
    fn of<T: Table>(name: &str) -> Option<Kind> {
        T::KEYS.iter().find(|key| key.name == name).map(|key| key.kind)
    }
    of::<Top>(name)
        .or_else(|| of::<ListenerDraft>(name))
        .or_else(|| of::<UserDraft>(name))
        .or_else(|| of::<Queue>(name))
        .or_else(|| of::<Retry>(name))
        .or_else(|| of::<Dns>(name))
        .or_else(|| of::<ProviderDraft>(name))
        .or_else(|| of::<RuleDraft>(name))
        .or_else(|| of::<RouteDraft>(name))
        .or_else(|| of::<Limit>(name))
        .or_else(|| of::<RewriteDraft>(name))
        .or_else(|| of::<CopyDraft>(name))
        .or_else(|| of::<DkimDraft>(name))
        .or_else(|| of::<SandboxDraft>(name))
        .or_else(|| of::<SrsDraft>(name))
        .or_else(|| of::<TlsReportDraft>(name))
        .or_else(|| of::<Sendmail>(name))
        .or_else(|| of::<Log>(name))
}

/// Whether a key of this name is true or false.
pub(in crate::config) fn is_flag(name: &str) -> bool {
    matches!(kind_of(name), Some(Kind::Flag))
}

/// Why `text` is none of the words that a key of this name has; `None` if it is, or the key has no such.
pub(in crate::config) fn unlike(name: &str, text: &str) -> Option<String> {
    let kind = kind_of(name).filter(|kind| matches!(kind, Kind::Word(_) | Kind::LogFilter))?;
    kind.read(&text.into()).err()
}
