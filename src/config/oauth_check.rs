//! What is wrong with `auth` of a provider: keys that contradict one another, or that are missing.

use super::AuthMechanism;
use super::file::Reader;
use super::keys::ProviderDraft;
use super::oauth::{OAuthDraft, OAuthGrant, OAuthService};

/// Keys that only `oauth` has.
const KEYS: [&str; 11] = [
    "grant",
    "tenant",
    "client_id",
    "secret",
    "secret_expires",
    "certificate",
    "key",
    "service_account",
    "refresh_token",
    "token_url",
    "device_url",
];

/// Notes what is wrong with `auth` at `path` (`provider.NAME`).
pub(super) fn check(reader: &mut Reader<'_>, path: &str, draft: &ProviderDraft) {
    let at = |key: &str| format!("{path}.auth.{key}");
    let token = draft.mechanism.is_some_and(AuthMechanism::takes_token);
    let Some(service) = draft.oauth.service else {
        // A value that could not be read is told already.
        if reader.has(&at("oauth")) {
            return;
        }
        if let Some(key) = KEYS.into_iter().chain(["scope"]).find(|key| reader.has(&at(key))) {
            let message = "is for OAuth, and `oauth` is missing: expected oauth = \"microsoft\", \"google\" or a table \
                           with token_url";
            reader.fault(&at(key), message.into());
        } else if token {
            reader.fault(&at("mechanism"), "takes a token and no password: expected `oauth` beside it".into());
        }
        return;
    };
    if draft.user.is_none() && !reader.has(&at("user")) {
        reader.fault(&format!("{path}.auth"), "`user` is missing: the mailbox to log in to".into());
    }
    if draft.password.is_some() {
        reader.fault(&at("password"), "contradicts `oauth`, which logs in with a token".into());
    }
    if draft.mechanism.is_some() && !token {
        let message = "takes a password and no token: expected \"xoauth2\" or \"oauthbearer\" with `oauth`";
        reader.fault(&at("mechanism"), message.into());
    }
    for (key, message) in faults(&draft.oauth, service) {
        // What could not be read is there.
        let told = KEYS.iter().any(|key| reader.lacks(&at(key)));
        if !told {
            let place = if reader.has(&at(key)) { at(key) } else { at("oauth") };
            reader.fault(&place, message);
        }
    }
}

/// Which key is to blame, and why.
fn faults(draft: &OAuthDraft, service: OAuthService) -> Vec<(&'static str, String)> {
    let mut faults: Vec<(&str, String)> = Vec::new();
    let mut fault = |key, message: &str| faults.push((key, message.to_owned()));
    let grant = draft.effective_grant();
    let proven = draft.secret.is_some() || draft.certificate.is_some();
    match service {
        OAuthService::Microsoft if draft.tenant.is_none() && draft.token_url.is_none() => {
            fault("tenant", "`tenant` is missing: the directory, such as \"shop.onmicrosoft.com\" or its id");
        }
        OAuthService::Other if draft.token_url.is_none() => {
            fault("token_url", "`token_url` is missing: where tokens are had, \"https://…\"");
        }
        _ => {}
    }
    if draft.tenant.is_some() && service != OAuthService::Microsoft {
        fault("tenant", "is a word of Microsoft's: expected oauth = \"microsoft\" with it");
    }
    if draft.service_account.is_some() && service != OAuthService::Google {
        fault("service_account", "is a file of Google's: expected oauth = \"google\" with it");
    }
    if draft.client_id.is_none() && grant != OAuthGrant::ServiceAccount {
        fault(
            "client_id",
            match service {
                OAuthService::Google => {
                    "`service_account` is missing, or `client_id`, `secret` and `refresh_token` of an application"
                }
                _ => "`client_id` is missing: the id of the application that is registered there",
            },
        );
    }
    match grant {
        OAuthGrant::ClientCredentials if service == OAuthService::Google => {
            fault("grant", "Google knows service accounts instead: expected `service_account`");
        }
        OAuthGrant::ClientCredentials if !proven => {
            fault("grant", "`secret` or `certificate` is missing, by which the application shows that it is itself");
        }
        OAuthGrant::ClientCredentials if draft.refresh_token.is_some() => {
            fault("refresh_token", "contradicts grant = \"client_credentials\"");
        }
        OAuthGrant::ServiceAccount if draft.service_account.is_none() => {
            fault("grant", "`service_account` is missing");
        }
        _ => {}
    }
    if draft.secret.is_some() && draft.certificate.is_some() {
        fault("certificate", "contradicts `secret`: expected one of them");
    }
    match (&draft.certificate, &draft.key) {
        (None, Some(_)) => fault("key", "is that of `certificate`, which is missing"),
        (Some(certificate), None) if certificate.key.is_none() => {
            fault("certificate", "has no private key in its file: expected `key` beside it");
        }
        (Some(certificate), key) => {
            let key = key.as_ref().map(|file| &file.key).or(certificate.key.as_ref());
            if key.is_some_and(|key| !certificate.belongs_to(key)) {
                let blame = if draft.key.is_some() { "key" } else { "certificate" };
                fault(blame, "is not the key of the first certificate: expected the one that this was made for");
            }
        }
        _ => {}
    }
    if draft.secret_expires.is_some() && draft.secret.is_none() {
        fault("secret_expires", "is about `secret`, which is missing");
    }
    faults
}
