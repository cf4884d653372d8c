//! `[tls_report]`: who reports to other domains on TLS with their mail hosts (TLS-RPT, RFC 8460).

use std::sync::Arc;

use super::Config;
use super::fields::Field;
use super::file::Reader;
use super::keys::{Key, Table, keys};
use super::units::Pattern;
use super::value::Kind;
use crate::mail::Address;
use crate::mail::domain::{parse_name, printed};

/// What the file says of it.
#[derive(Clone, Debug)]
pub(super) struct TlsReportDraft {
    pub from: Option<Pattern>,
    pub organization: Option<String>,
    pub contact: Option<Pattern>,
}

impl Table for TlsReportDraft {
    const NAME: &'static str = "tls_report";
    const KEYS: &'static [Key<TlsReportDraft>] = keys! {
        /// The address from which reports are mailed. Its domain is the one that reports; it needs a [[dkim]], since
        /// receivers pass over reports without a signature. Bounces do not go there: reports have the null sender.
        "from" from: Kind::MailAddress, example r#""tls-reports@shop.example""#;
        /// Who reports, in words. Default: `hostname`.
        "organization" organization: Kind::Line, example r#""Shop Ltd""#;
        /// The address of somebody who can say more. Default: `from`.
        "contact" contact: Kind::MailAddress, example r#""postmaster@shop.example""#;
    };

    fn blank() -> TlsReportDraft {
        TlsReportDraft { from: None, organization: None, contact: None }
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsReport {
    /// Whose mail reports are.
    pub from: Address,
    /// `organization-name`.
    pub organization: String,
    /// `contact-info`.
    pub contact: Address,
}

impl TlsReport {
    /// What the file says. `config` has all the rest.
    pub(super) fn assemble(reader: &mut Reader<'_>, draft: &TlsReportDraft, config: &Config) -> Option<Arc<TlsReport>> {
        if !reader.has("tls_report") {
            return None;
        }
        if draft.from.is_none() && !reader.has("tls_report.from") {
            reader.fault("tls_report", "`from` is missing: expected from = \"tls-reports@shop.example\"".into());
        }
        let from = address(reader, "tls_report.from", draft.from.as_ref());
        let contact = address(reader, "tls_report.contact", draft.contact.as_ref());
        let from = from?;
        if let Some(sandbox) = &config.sandbox {
            reader.warn("tls_report", format!("has no effect: no reports leave a sandbox ({sandbox})"));
            return None;
        }
        let domain = parse_name(from.domain()).map(|name| printed(&name)).unwrap_or_default();
        if config.dkim_for(&domain).is_empty() {
            let message =
                format!("no [[dkim]] signs for {domain}: receivers have to pass over reports without a signature");
            reader.warn("tls_report.from", message);
        }
        let organization = draft.organization.clone().unwrap_or_else(|| config.hostname.clone());
        let contact = contact.unwrap_or_else(|| from.clone());
        Some(Arc::new(TlsReport { from, organization, contact }))
    }
}

/// One address that any host takes.
fn address(reader: &mut Reader<'_>, key: &str, text: Option<&Pattern>) -> Option<Address> {
    let text = text?;
    match Address::parse(text.as_str()) {
        Ok(address) if !text.as_str().contains('*') && address.is_ascii() => Some(address),
        _ => {
            let message =
                format!("expected one address in ASCII, such as \"tls-reports@shop.example\", found \"{text}\"");
            reader.fault(key, message);
            None
        }
    }
}
