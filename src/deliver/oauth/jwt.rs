//! JSON Web Tokens (RFC 7519): assertions that are signed here, and what a token says of itself, for people.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::config::{JwtAlgorithm, OAuth, Proof, ServiceAccount};

/// How long an assertion of a client holds, in seconds: it is used at once.
const CLIENT_LIFE: i64 = 600;
/// How long one of a service account holds; Google takes no more.
const ACCOUNT_LIFE: i64 = 3600;
/// Its time begins a little early: clocks differ.
const EARLY: i64 = 60;
/// Bytes of a claim that are shown.
const MAX_CLAIM: usize = 200;

/// `client_assertion` (RFC 7523 §3), if the application shows itself by a certificate.
pub(super) fn client_assertion(oauth: &OAuth, now: Timestamp) -> Option<Result<Zeroizing<String>, String>> {
    let Proof::Certificate { certificate, key, algorithm } = &oauth.proof else { return None };
    let seconds = now.0.div_euclid(1000);
    let header = json!({ "alg": algorithm.as_str(), "typ": "JWT", "x5t#S256": certificate.thumbprint() });
    let mut random = [0; 16];
    if aws_lc_rs::rand::fill(&mut random).is_err() {
        return Some(Err("the system has no random numbers".to_owned()));
    }
    let claims = json!({
        "aud": oauth.token_url.to_string(), "iss": oauth.client_id, "sub": oauth.client_id,
        "jti": URL_SAFE_NO_PAD.encode(random), "iat": seconds, "nbf": seconds - EARLY, "exp": seconds + CLIENT_LIFE,
    });
    Some(signed(&header, &claims, |text| key.sign(*algorithm, text)))
}

/// `assertion` of a service account that acts for the user (RFC 7523 §2.1).
pub(super) fn account_assertion(
    oauth: &OAuth,
    account: &ServiceAccount,
    now: Timestamp,
) -> Result<Zeroizing<String>, String> {
    let seconds = now.0.div_euclid(1000);
    let mut header = json!({ "alg": JwtAlgorithm::Rs256.as_str(), "typ": "JWT" });
    if let Some(id) = &account.key_id {
        header["kid"] = json!(id);
    }
    let claims = json!({
        "iss": account.email, "sub": oauth.user, "scope": oauth.scope, "aud": oauth.token_url.to_string(),
        "iat": seconds, "exp": seconds + ACCOUNT_LIFE,
    });
    signed(&header, &claims, |text| account.key.sign(JwtAlgorithm::Rs256, text))
}

fn signed(
    header: &Value,
    claims: &Value,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
) -> Result<Zeroizing<String>, String> {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let text = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(sign(text.as_bytes())?);
    Ok(Zeroizing::new(format!("{text}.{signature}")))
}

/// What an access token says that helps to find out why it is refused, a line each; empty if it is no JWT.
pub fn told(token: &str) -> Vec<(&'static str, String)> {
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    let claims: Option<Value> = claims.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some(claims) = claims.filter(|_| token.split('.').count() == 3) else { return Vec::new() };
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => Some(items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    };
    let claim = |name: &'static str| {
        let text: String = text(claims.get(name)?)?.chars().filter(|c| !c.is_control()).take(MAX_CLAIM).collect();
        let text = match (name, text.parse::<i64>()) {
            ("exp", Ok(seconds)) => Timestamp(seconds.saturating_mul(1000)).to_string(),
            _ => text,
        };
        Some((name, text))
    };
    ["aud", "roles", "scp", "appid", "oid", "tid", "upn", "exp"].into_iter().filter_map(claim).collect()
}
