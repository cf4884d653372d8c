//! `auth.oauth`: how a token for a smart host is had instead of a password, checked and with defaults filled in.
//!
//! [`OAuth`] is what `deliver::oauth` takes. The endpoints and scopes of Microsoft and Google are written down
//! here and nowhere else; each can be overridden, for national clouds and for tests.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::Scheme;

use super::oauth_files::{ClientCertificate, JwtAlgorithm, RsaKey, ServiceAccount};
use super::{AuthMechanism, Secret};
use crate::clock::Timestamp;

/// Bytes that an address may have.
const MAX_URL: usize = 1024;

/// Where Microsoft gives tokens out, before the tenant.
const MICROSOFT: &str = "https://login.microsoftonline.com";
/// What an application may do by itself there.
const MICROSOFT_APPLICATION: &str = "https://outlook.office365.com/.default";
/// What it may do for a user.
const MICROSOFT_DELEGATED: &str = "https://outlook.office.com/SMTP.Send offline_access";
const GOOGLE_TOKEN: &str = "https://oauth2.googleapis.com/token";
/// The only scope that Google takes for SMTP.
const GOOGLE_SCOPE: &str = "https://mail.google.com/";

/// `auth.oauth`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OAuthService {
    /// Microsoft 365.
    Microsoft,
    /// Google Workspace and Gmail.
    Google,
    /// Whoever `token_url` names.
    Other,
}

/// `auth.grant`: what a token is given out for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OAuthGrant {
    /// For the application itself (RFC 6749 §4.4).
    ClientCredentials,
    /// For what a user has consented to (RFC 6749 §6).
    RefreshToken,
    /// For a service account that acts for a user (RFC 7523 §2.1).
    ServiceAccount,
}

/// An address of HTTPS.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
}

impl Endpoint {
    /// The host's name or address, without brackets.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default().trim_matches(['[', ']'])
    }

    /// The port, 443 if none is said.
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(443)
    }

    /// All of it.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Endpoint, String> {
        let expected = "expected an address such as \"https://login.example.com/token\"";
        let uri: Uri = text.parse().map_err(|_| format!("that is no address: {expected}"))?;
        if text.len() > MAX_URL || uri.host().is_none_or(str::is_empty) {
            return Err(format!("that is no address: {expected}"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(format!("a user or password has no place in it: {expected}"));
        }
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(format!("secrets are sent there, so it has to be https: {expected}"));
        }
        Ok(Endpoint { uri })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

/// How the application shows that it is itself.
#[derive(Clone, Debug)]
pub enum Proof {
    /// Not at all: a public client.
    None,
    /// By a secret.
    Secret(Secret),
    /// By an assertion (RFC 7523 §2.2) that is signed with the key of a certificate.
    Certificate {
        /// The certificate that the service knows.
        certificate: Box<ClientCertificate>,
        /// Its key.
        key: RsaKey,
        /// How it signs.
        algorithm: JwtAlgorithm,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct OAuth {
    /// Whose tokens.
    pub service: OAuthService,
    /// The mailbox that is logged in to.
    pub user: String,
    /// The mechanism to use; `None`: XOAUTH2, else OAUTHBEARER.
    pub mechanism: Option<AuthMechanism>,
    /// The application; empty with a service account.
    pub client_id: String,
    /// How it shows that.
    pub proof: Proof,
    /// What the token is given out for.
    pub grant: OAuthGrant,
    /// The refresh token of the configuration, which one that came later replaces.
    pub refresh_token: Option<Secret>,
    /// The service account.
    pub service_account: Option<Box<ServiceAccount>>,
    /// Where tokens are had.
    pub token_url: Endpoint,
    /// Where a login by device code begins (RFC 8628); `None`: there is none.
    pub device_url: Option<Endpoint>,
    /// What the token is to allow; empty: what the service thinks.
    pub scope: String,
    /// When the secret expires, as the administrator has noted it.
    pub secret_expires: Option<Timestamp>,
}

impl OAuth {
    /// All secrets that the token endpoint may have heard from the configuration.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let of_proof = match &self.proof {
            Proof::Secret(secret) => Some(secret),
            _ => None,
        };
        of_proof.into_iter().chain(&self.refresh_token)
    }
}

/// What the file says, before it is put together. Everything is what its key in `keys` says.
#[derive(Clone, Default)]
pub(super) struct OAuthDraft {
    pub service: Option<OAuthService>,
    pub grant: Option<OAuthGrant>,
    pub tenant: Option<String>,
    pub client_id: Option<String>,
    pub secret: Option<Secret>,
    pub secret_expires: Option<Timestamp>,
    pub certificate: Option<ClientCertificate>,
    pub key: Option<super::oauth_files::KeyFile>,
    pub service_account: Option<ServiceAccount>,
    pub refresh_token: Option<Secret>,
    pub token_url: Option<Endpoint>,
    pub device_url: Option<Endpoint>,
    pub scope: Option<String>,
}

impl OAuthDraft {
    /// The grant, or the one that the other keys imply.
    pub fn effective_grant(&self) -> OAuthGrant {
        let proven = self.secret.is_some() || self.certificate.is_some();
        self.grant.unwrap_or(if self.service_account.is_some() {
            OAuthGrant::ServiceAccount
        } else if self.refresh_token.is_some() || !proven || self.service == Some(OAuthService::Google) {
            OAuthGrant::RefreshToken
        } else {
            OAuthGrant::ClientCredentials
        })
    }

    fn token_url(&self, service: OAuthService) -> Option<Endpoint> {
        let of_account = || self.service_account.as_ref()?.token_url.as_ref()?.parse().ok();
        let built_in = || match service {
            OAuthService::Microsoft => self.microsoft("token"),
            OAuthService::Google => of_account().or_else(|| GOOGLE_TOKEN.parse().ok()),
            OAuthService::Other => None,
        };
        self.token_url.clone().or_else(built_in)
    }

    fn microsoft(&self, what: &str) -> Option<Endpoint> {
        let tenant = self.tenant.as_ref()?;
        format!("{MICROSOFT}/{tenant}/oauth2/v2.0/{what}").parse().ok()
    }

    /// Put together; `None`: no `oauth`, or something of it is missing, which `oauth_check` has told.
    pub fn assemble(self, user: Option<&str>, mechanism: Option<AuthMechanism>) -> Option<OAuth> {
        let service = self.service?;
        let grant = self.effective_grant();
        let token_url = self.token_url(service)?;
        let device_url = self.device_url.clone().or_else(|| match service {
            OAuthService::Microsoft => self.microsoft("devicecode"),
            _ => None,
        });
        let scope = self.scope.clone().unwrap_or_else(|| {
            let built_in = match (service, grant) {
                (OAuthService::Microsoft, OAuthGrant::ClientCredentials) => MICROSOFT_APPLICATION,
                (OAuthService::Microsoft, _) => MICROSOFT_DELEGATED,
                (OAuthService::Google, _) => GOOGLE_SCOPE,
                (OAuthService::Other, _) => "",
            };
            built_in.to_owned()
        });
        // Microsoft wants PSS, and looks for the thumbprint of SHA-256 then; others know RS256 at least.
        let algorithm = match service {
            OAuthService::Microsoft => JwtAlgorithm::Ps256,
            _ => JwtAlgorithm::Rs256,
        };
        let proof = match (self.secret, self.certificate) {
            (Some(secret), _) => Proof::Secret(secret),
            (None, Some(certificate)) => {
                let key = self.key.map(|file| file.key).or_else(|| certificate.key.clone())?;
                Proof::Certificate { certificate: Box::new(certificate), key, algorithm }
            }
            (None, None) => Proof::None,
        };
        Some(OAuth {
            service,
            user: user?.to_owned(),
            mechanism,
            client_id: self.client_id.unwrap_or_default(),
            proof,
            grant,
            refresh_token: self.refresh_token,
            service_account: self.service_account.map(Box::new),
            token_url,
            device_url,
            scope,
            secret_expires: self.secret_expires,
        })
    }
}
