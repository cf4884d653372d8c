//! What the known errors of token endpoints and smart hosts mean for an administrator.

/// Words of an error, and what to do. The first that is found holds.
const KNOWN: &[(&[&str], &str)] = &[
    // --- token endpoints ---
    (
        &["AADSTS7000222"],
        "the client secret has expired: make a new one at the app registration, and put it in `auth.secret`",
    ),
    (&["AADSTS7000215"], "the client secret is wrong: expected its value, not its id"),
    (&["AADSTS700016"], "the application is not known in that tenant: check `client_id` and `tenant`"),
    (&["AADSTS90002"], "there is no such tenant: check `tenant`"),
    (
        &["AADSTS700027"],
        "the certificate is not the one that is registered, or has expired: upload it at the app registration",
    ),
    (&["AADSTS700024"], "the assertion is outside of its time: check the clock of this machine"),
    (
        &["AADSTS65001"],
        "an administrator has to consent to the permission SMTP.SendAsApp (or SMTP.Send) of the application",
    ),
    (&["AADSTS70011", "AADSTS1002012", "invalid_scope"], "check `scope`"),
    (&["AADSTS50076", "AADSTS50079"], "a second factor is asked for: log in again with `mailweir auth login NAME`"),
    (&["AADSTS53003"], "a policy of Conditional Access forbids it: an administrator has to except the application"),
    (
        &["AADSTS7000218"],
        "the application is no public client: give `secret`, or allow public client flows at the app registration",
    ),
    (
        &["unauthorized_client"],
        "the application or service account may not do that: for Google enter its client id and the scope at \"domain-wide delegation\" of the Admin console",
    ),
    (
        &["invalid_grant"],
        "the consent was revoked, the refresh token is over, or the account is none of the service: log in again with `mailweir auth login NAME`, or check `user`",
    ),
    (&["invalid_client"], "check `client_id` and `secret`"),
    // --- smart hosts ---
    (
        &["5.7.139"],
        "SMTP AUTH is switched off, or security defaults forbid it: Set-CASMailbox USER -SmtpClientAuthenticationDisabled $false (and Set-TransportConfig), or except it from the policy",
    ),
    (
        &["5.7.30", "Basic authentication is not supported"],
        "the host takes no passwords any more: expected `auth.oauth`",
    ),
    (&["5.7.57"], "the host wants a login first: expected `auth`"),
    (
        &["5.7.3 "],
        "the service principal has another object id (expected that of the Enterprise application), the permission SMTP.SendAsApp is missing, or `user` is not the mailbox; a change takes up to half an hour",
    ),
    (
        &["SendAsDenied"],
        "the mailbox may not send as that address: Add-RecipientPermission ADDRESS -Trustee OBJECT-ID -AccessRights SendAs",
    ),
    (
        &["STOREDRV"],
        "the mailbox does not let us in: Add-MailboxPermission USER -User OBJECT-ID -AccessRights FullAccess",
    ),
    (
        &["5.7.8"],
        "the host does not accept the token: check `user`, `scope`, and that the account may use SMTP; with a password, check that",
    ),
];

/// What to do about an error, if it is a known one.
pub fn what_to_do(text: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(words, _)| words.iter().any(|word| text.contains(word))).map(|(_, what)| *what)
}

/// Whether an error may come from a clock that is wrong.
pub(super) fn is_about_time(text: &str) -> bool {
    let words =
        ["AADSTS700024", "AADSTS500133", "valid time range", "short-lived", "iat", "exp", "invalid_grant", "clock"];
    words.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_errors_are_told_apart() {
        let starts = |text: &str| what_to_do(text).unwrap_or_default().split(':').next().unwrap_or_default();
        for (text, told) in [
            (
                "invalid_client: AADSTS7000222: The provided client secret keys are expired",
                "the client secret has expired",
            ),
            ("unauthorized_client: AADSTS700016: Application not found", "the application is not known in that tenant"),
            (
                "invalid_grant: Token has been expired or revoked.",
                "the consent was revoked, the refresh token is over, or the account is none of the service",
            ),
            (
                "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
                "SMTP AUTH is switched off, or security defaults forbid it",
            ),
            (
                "535 5.7.3 Authentication unsuccessful",
                "the service principal has another object id (expected that of the Enterprise application), the permission SMTP.SendAsApp is missing, or `user` is not the mailbox; a change takes up to half an hour",
            ),
            ("430 4.2.0 STOREDRV; mailbox logon failure", "the mailbox does not let us in"),
            (
                "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException",
                "the mailbox may not send as that address",
            ),
            ("530 5.7.57 Client not authenticated to send mail.", "the host wants a login first"),
            ("250 ok", ""),
        ] {
            assert_eq!(starts(text), told, "{text}");
        }
    }
}
