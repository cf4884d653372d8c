//! Tokens on paused time, from an endpoint in memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::https::{Answer, Form};
use super::*;
use crate::config::{Endpoint, OAuthService};

/// What an endpoint says next.
enum Says {
    Token(Value),
    Status(u16, Value),
    Nothing,
}

/// Names and values of a form.
type Fields = Vec<(String, String)>;

/// Answers from a list; what it heard is kept.
#[derive(Clone, Default)]
struct Scripted {
    says: Arc<Mutex<VecDeque<Says>>>,
    heard: Arc<Mutex<Vec<Fields>>>,
    asked: Arc<AtomicUsize>,
    /// Answers wait for a permit where there is one of these.
    gate: Option<Arc<Semaphore>>,
}

impl Scripted {
    fn saying(says: impl IntoIterator<Item = Says>) -> Scripted {
        Scripted { says: Arc::new(Mutex::new(says.into_iter().collect())), ..Scripted::default() }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A value of the last form.
    fn last(&self, name: &str) -> Option<String> {
        let heard = self.heard.lock();
        heard.last()?.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }
}

#[async_trait]
impl Post for Scripted {
    async fn post(&self, _: &Endpoint, form: &Form) -> Result<Answer, String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.heard.lock().push(form.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect());
        if let Some(gate) = &self.gate {
            gate.acquire().await.expect("open").forget();
        }
        let says = self.says.lock().pop_front().expect("no more questions were expected");
        let answer = |status, body: Value| {
            let (body, date) = (zeroize::Zeroizing::new(body.to_string().into_bytes()), None);
            Answer { status, retry_after: None, date, body }
        };
        match says {
            Says::Token(body) => Ok(answer(200, body)),
            Says::Status(status, body) => Ok(answer(status, body)),
            Says::Nothing => Err("login.example does not answer".to_owned()),
        }
    }
}

fn token(name: &str, seconds: u64) -> Says {
    Says::Token(json!({ "token_type": "Bearer", "access_token": name, "expires_in": seconds }))
}

fn refuses(error: &str, description: &str) -> Says {
    Says::Status(400, json!({ "error": error, "error_description": description }))
}

/// A configuration of one provider `m` with these keys in `auth`.
fn oauth(keys: &str) -> Arc<OAuth> {
    let text = format!(
        "hostname = 'a.example'\n[provider.m]\nrelay = 'smtp.example:587'\nauth = {{ user = 'jo@shop.example', {keys} }}\n\
         [[route]]\nvia = 'm'\n"
    );
    let config = Config::parse(&text, "test").expect("a good configuration");
    config.provider("m").and_then(|p| p.relay.as_ref()?.oauth.clone()).expect("oauth")
}

const APPLICATION: &str = "oauth = 'microsoft', tenant = 'shop.example', client_id = 'app', secret = 'hush-hush'";

fn files(dir: &tempfile::TempDir, keys: &str, name: &str, several: bool) -> store::Files {
    store::Files::beside(&dir.path().join("q.db"), name, store::mark_of(&oauth(keys)).as_deref(), several)
}

struct Rig {
    client: Arc<Client>,
    post: Scripted,
    dir: tempfile::TempDir,
}

impl Rig {
    fn with(keys: &str, post: Scripted) -> Rig {
        let dir = tempfile::tempdir().expect("a directory");
        let client = Rig::client(&dir, keys, &post);
        Rig { client, post, dir }
    }

    fn client(dir: &tempfile::TempDir, keys: &str, post: &Scripted) -> Arc<Client> {
        Arc::new(Client::new(
            "m",
            oauth(keys),
            Box::new(post.clone()),
            files(dir, keys, "m", false),
            Clock::for_tests(),
        ))
    }

    fn new(says: impl IntoIterator<Item = Says>) -> Rig {
        Rig::with(APPLICATION, Scripted::saying(says))
    }

    async fn get(&self) -> Result<String, String> {
        let token = self.client.clone().get().await;
        token.map(|token| token.secret().reveal().to_owned()).map_err(|fault| fault.text)
    }
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_used_until_four_fifths_of_its_life_and_then_replaced() {
    let rig = Rig::new([token("one", 3600), token("two", 3600)]);
    assert_eq!(rig.get().await.as_deref(), Ok("one"));
    assert_eq!(rig.post.last("scope").as_deref(), Some("https://outlook.office365.com/.default"));
    assert_eq!(rig.post.last("grant_type").as_deref(), Some("client_credentials"));
    assert_eq!(rig.post.last("client_secret").as_deref(), Some("hush-hush"));
    pass(2879).await;
    assert_eq!((rig.get().await.as_deref(), rig.post.asked()), (Ok("one"), 1));
    pass(1).await;
    assert_eq!((rig.get().await.as_deref(), rig.post.asked()), (Ok("two"), 2));
}

#[tokio::test(start_paused = true)]
async fn it_is_fetched_once_however_many_wait_and_whoever_goes_away() {
    let gate = Arc::new(Semaphore::new(0));
    let post = Scripted { gate: Some(gate.clone()), ..Scripted::saying([token("one", 3600)]) };
    let rig = Rig::with(APPLICATION, post);
    // The one that asks goes away before the answer.
    let first = tokio::spawn(rig.client.clone().get());
    while rig.post.asked() == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    let waiting: Vec<_> = (0..50).map(|_| tokio::spawn(rig.client.clone().get())).collect();
    gate.add_permits(1);
    for one in waiting {
        let token = one.await.expect("no panic").expect("a token");
        assert_eq!(token.secret().reveal(), "one");
    }
    assert_eq!(rig.post.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_is_asked_less_and_less_often() {
    let rig = Rig::new((0..9).map(|_| Says::Nothing).chain([token("one", 3600)]));
    let mut waits = Vec::new();
    for n in 1..=9 {
        assert_eq!(rig.get().await, Err("login.example does not answer".to_owned()));
        assert_eq!((rig.get().await.is_err(), rig.post.asked()), (true, n), "left alone");
        let mut seconds = 0;
        // The last answer of the script is for after the last wait.
        while rig.client.turn.lock().await.failed.as_ref().is_some_and(|failed| failed.until > Instant::now()) {
            pass(1).await;
            seconds += 1;
        }
        waits.push(seconds);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(rig.get().await.as_deref(), Ok("one"));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_holds_is_used_while_the_endpoint_is_away_but_not_to_its_last_moment() {
    let rig = Rig::new([token("one", 1000), Says::Nothing, Says::Nothing]);
    assert_eq!(rig.get().await.as_deref(), Ok("one"));
    pass(900).await;
    assert_eq!((rig.get().await.as_deref(), rig.post.asked()), (Ok("one"), 2));
    assert_eq!((rig.get().await.as_deref(), rig.post.asked()), (Ok("one"), 2), "and the endpoint is left alone");
    pass(95).await;
    assert_eq!(rig.get().await, Err("login.example does not answer".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_a_host_refuses_is_renewed_once() {
    let rig = Rig::new([token("one", 3600), token("two", 3600), token("three", 3600)]);
    let one = rig.client.clone().get().await.expect("a token");
    let renewed = rig.client.clone().renew(&one).await.expect("asked").expect("another");
    assert_eq!(renewed.secret().reveal(), "two");
    // Another connection was refused the same one, and this one too.
    let again = rig.client.clone().renew(&one).await.expect("asked").expect("another");
    assert!(Arc::ptr_eq(&again, &renewed));
    assert!(rig.client.clone().renew(&renewed).await.expect("not asked").is_none());
    assert_eq!(rig.post.asked(), 2);
    pass(300).await;
    let third = rig.client.clone().renew(&renewed).await.expect("asked").expect("another");
    assert_eq!(third.secret().reveal(), "three");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_tells_what_to_do_and_nothing_that_is_secret() {
    let expired = "AADSTS7000222: The provided client secret keys for app 'app' are expired. hush-hush \
                   Trace ID: 1 Correlation ID: 2";
    let rig = Rig::new([
        refuses("invalid_client", expired),
        refuses("unauthorized_client", "AADSTS700016: Application with identifier 'app' was not found"),
        Says::Status(302, json!(null)),
        Says::Status(503, json!("hush-hush")),
        Says::Token(json!({ "access_token": "a b" })),
        Says::Token(json!({ "access_token": "a\r\nQUIT" })),
        Says::Token(json!({ "access_token": "x", "token_type": "pop" })),
        Says::Token(json!({ "token_type": "Bearer" })),
    ]);
    let mut told = Vec::new();
    for _ in 0..8 {
        told.push(rig.get().await.expect_err("refused"));
        pass(600).await;
    }
    let host = "login.microsoftonline.com";
    for (told, start) in told.iter().zip([
        "refuses: invalid_client: AADSTS7000222: The provided client secret keys for app 'app' are expired. *** (the client \
         secret has expired: ",
        "refuses: unauthorized_client: AADSTS700016: Application with identifier 'app' was not found (the application is not \
         known in that tenant",
        "wants to be asked elsewhere (HTTP 302)",
        "answers with HTTP 503",
        "answers with an access_token that cannot be sent on",
        "answers with an access_token that cannot be sent on",
        "answers with a token that is no bearer token",
        "answers with no access_token",
    ]) {
        assert!(told.starts_with(&format!("{host} {start}")), "{told}\n{start}");
        assert!(!told.contains("hush"), "{told}");
    }
}

const DELEGATED: &str = "oauth = { token_url = 'https://login.example/token', device_url = 'https://login.example/code', scope = 's offline', \
     client_id = 'app', refresh_token = 'first-refresh' }";

fn refreshed(token: &str, refresh: &str) -> Says {
    Says::Token(json!({ "access_token": token, "expires_in": "100", "refresh_token": refresh }))
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_changes_is_kept_for_the_next_process() {
    let rig = Rig::with(DELEGATED, Scripted::saying([refreshed("one", "second"), refreshed("two", "third")]));
    assert_eq!(rig.get().await.as_deref(), Ok("one"));
    assert_eq!(rig.post.last("refresh_token").as_deref(), Some("first-refresh"));
    let file = rig.dir.path().join("q.db.oauth-m");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("stored").permissions());
    assert_eq!(mode & 0o777, 0o600);
    pass(90).await;
    assert_eq!(rig.get().await.as_deref(), Ok("two"));
    assert_eq!(rig.post.last("refresh_token").as_deref(), Some("second"));

    // The next process begins with the last one; a new one in the configuration has the say.
    let next = Scripted::saying([refreshed("three", "third"), refreshed("four", "new-second")]);
    let client = Rig::client(&rig.dir, DELEGATED, &next);
    client.get().await.expect("a token");
    assert_eq!(next.last("refresh_token").as_deref(), Some("third"));
    let changed = DELEGATED.replace("first-refresh", "new-first");
    Rig::client(&rig.dir, &changed, &next).get().await.expect("a token");
    assert_eq!(next.last("refresh_token").as_deref(), Some("new-first"));

    std::fs::write(&file, "{").expect("written");
    let told = Rig::client(&rig.dir, DELEGATED, &next).get().await.err().expect("no token").text;
    assert!(told.ends_with("has no refresh token: remove it, then `mailweir auth login`"), "{told}");
}

/// Two providers have the same one: the second to ask sends what the first one got for it, also where the number of them
/// changes between processes.
#[tokio::test(start_paused = true)]
async fn a_refresh_token_of_two_providers_is_spent_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let answers = ["second", "third", "fourth", "fifth"].map(|next| refreshed("t", next));
    let post = Scripted::saying(answers);
    let client = |name: &str, several| {
        let files = files(&dir, DELEGATED, name, several);
        Arc::new(Client::new(name, oauth(DELEGATED), Box::new(post.clone()), files, Clock::for_tests()))
    };
    for (name, several, sent) in
        [("m", false, "first-refresh"), ("m", true, "second"), ("n", true, "third"), ("n", false, "fourth")]
    {
        client(name, several).get().await.expect("a token");
        assert_eq!(post.last("refresh_token").as_deref(), Some(sent), "{name}");
        // Files that are written in the same moment are told apart by nothing.
        for file in std::fs::read_dir(dir.path()).expect("a directory").flatten() {
            let meta = file.metadata().expect("there");
            let older = meta.modified().expect("a time") - Duration::from_secs(10);
            std::fs::File::open(file.path()).and_then(|file| file.set_modified(older)).expect("older");
        }
    }
}

/// They ask one after the other.
#[test]
fn providers_with_the_same_refresh_token_have_one_turn() {
    let provider = |name: &str, keys: &str| {
        format!(
            "[provider.{name}]\nrelay = 'mx.example:587'\nauth = {{ user = 'a@shop.example', {keys} }}\n\
             [[route]]\nrecipient = '*@{name}.example'\nvia = '{name}'\n"
        )
    };
    let other = DELEGATED.replace("first-refresh", "another");
    let providers = [("a", DELEGATED), ("b", DELEGATED), ("c", &other), ("d", APPLICATION)];
    let text: String = providers.into_iter().map(|(name, keys)| provider(name, keys)).collect();
    let text = format!("hostname = 'relay.example'\n[queue]\nstore = 'sqlite:/nonexistent/q.db'\n{text}");
    let config = Config::parse(&text, "test").expect("a good configuration");
    let names: Arc<dyn Names> = Arc::new(Nowhere);
    let tokens = Tokens::new(&config, &TlsSettings::load(), &names, Clock::for_tests());
    let turn = |name: &str| &tokens.clients[name].turn;
    assert!(Arc::ptr_eq(turn("a"), turn("b")));
    assert!(!Arc::ptr_eq(turn("a"), turn("c")) && !Arc::ptr_eq(turn("a"), turn("d")));
    assert_eq!(tokens.clients["a"].files.to_write(), tokens.clients["b"].files.to_write());
    assert_ne!(tokens.clients["a"].files.to_write(), tokens.clients["c"].files.to_write());
}

struct Nowhere;

#[async_trait::async_trait]
impl Names for Nowhere {
    async fn addresses(&self, _: &str) -> Result<Vec<std::net::IpAddr>, String> {
        Err("nowhere".to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_cannot_be_stored_is_used_all_the_same() {
    let rig = Rig::with(DELEGATED, Scripted::saying([refreshed("one", "second"), refreshed("two", "third")]));
    // In the way of the file that is written first.
    std::fs::create_dir_all(rig.dir.path().join("q.db.oauth-m.new/x")).expect("made");
    assert_eq!(rig.get().await.as_deref(), Ok("one"));
    pass(90).await;
    std::fs::remove_dir_all(rig.dir.path().join("q.db.oauth-m.new")).expect("gone");
    assert_eq!(rig.get().await.as_deref(), Ok("two"));
    assert_eq!(rig.post.last("refresh_token").as_deref(), Some("second"));
    assert!(std::fs::read_to_string(rig.dir.path().join("q.db.oauth-m")).expect("stored").contains("third"));
}

#[tokio::test(start_paused = true)]
async fn a_person_logs_in_by_a_code() {
    let begun = json!({
        "device_code": "dev", "user_code": "ABCD-EFGH", "verification_uri": "https://login.example/go", "interval": 5,
        "expires_in": 900,
    });
    let keys = DELEGATED.replace(", refresh_token = 'first-refresh'", "");
    let post = Scripted::saying([
        Says::Token(begun.clone()),
        refuses("authorization_pending", ""),
        refuses("slow_down", ""),
        Says::Nothing,
        refreshed("one", "first"),
        refreshed("two", "second"),
        Says::Token(begun),
        refuses("access_denied", "the user said no"),
    ]);
    let rig = Rig::with(&keys, post);
    let none = "nobody has logged in yet: `mailweir auth login NAME` gets the first refresh token";
    assert_eq!((rig.get().await, rig.post.asked()), (Err(none.to_owned()), 0));
    let began = Instant::now();
    let mut told = None;
    rig.client.log_in(|code| told = Some((code.address.clone(), code.code.clone()))).await.expect("logged in");
    assert_eq!(told, Some(("https://login.example/go".to_owned(), "ABCD-EFGH".to_owned())));
    assert_eq!(began.elapsed().as_secs(), 5 + 5 + 10 + 20, "more slowly each time it has to");
    assert_eq!(rig.post.last("device_code").as_deref(), Some("dev"));
    pass(600).await;
    assert_eq!(rig.get().await.as_deref(), Ok("two"));
    assert_eq!(rig.post.last("refresh_token").as_deref(), Some("first"));
    let told = rig.client.log_in(|_| ()).await.expect_err("refused").to_string();
    assert_eq!(told, "login.example refuses: access_denied: the user said no");
    let application = Rig::new([]);
    assert!(matches!(application.client.log_in(|_| ()).await, Err(LoginFault::Config(_))));
}

/// Verified by another implementation than the one that signs.
#[tokio::test(start_paused = true)]
async fn assertions_are_signed_as_microsoft_and_google_want_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["app.example".to_owned()]).expect("names");
    let certificate = certificate.self_signed(&key).expect("signed");
    let (pem, account) = (dir.path().join("app.pem"), dir.path().join("google.json"));
    std::fs::write(&pem, certificate.pem() + &key.serialize_pem()).expect("written");
    let json = json!({
        "type": "service_account", "client_email": "robot@project.example", "private_key": key.serialize_pem(),
        "private_key_id": "k1", "token_uri": "https://oauth2.googleapis.com/token",
    });
    std::fs::write(&account, json.to_string()).expect("written");
    let decoded = |assertion: &str, part: usize| -> Value {
        use base64::Engine as _;
        let part = assertion.split('.').nth(part).expect("three parts");
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).expect("base64");
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let verified = |assertion: &str, how: &'static dyn aws_lc_rs::signature::VerificationAlgorithm| {
        use base64::Engine as _;
        let (text, signature) = assertion.rsplit_once('.').expect("three parts");
        let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).expect("base64");
        let public = aws_lc_rs::signature::UnparsedPublicKey::new(how, key.public_key_raw());
        public.verify(text.as_bytes(), &signature).is_ok()
    };

    let keys = format!("oauth = 'microsoft', tenant = 't', client_id = 'app', certificate = '{}'", pem.display());
    let rig = Rig::with(&keys, Scripted::saying([token("one", 100)]));
    rig.get().await.expect("a token");
    let assertion = rig.post.last("client_assertion").expect("an assertion");
    let (header, claims) = (decoded(&assertion, 0), decoded(&assertion, 1));
    assert_eq!(
        (header["alg"].as_str(), claims["iss"].as_str(), claims["sub"].as_str()),
        (Some("PS256"), Some("app"), Some("app"))
    );
    assert_eq!(claims["aud"], "https://login.microsoftonline.com/t/oauth2/v2.0/token");
    assert_eq!(header["x5t#S256"].as_str().map(str::len), Some(43));
    assert!(verified(&assertion, &aws_lc_rs::signature::RSA_PSS_2048_8192_SHA256));
    assert_eq!(rig.post.last("client_secret"), None);

    let keys = format!("oauth = 'google', service_account = '{}'", account.display());
    assert_eq!(oauth(&keys).service, OAuthService::Google);
    let rig = Rig::with(&keys, Scripted::saying([token("one", 100)]));
    rig.get().await.expect("a token");
    let assertion = rig.post.last("assertion").expect("an assertion");
    let (header, claims) = (decoded(&assertion, 0), decoded(&assertion, 1));
    assert_eq!((header["alg"].as_str(), header["kid"].as_str()), (Some("RS256"), Some("k1")));
    assert_eq!(
        (claims["iss"].as_str(), claims["sub"].as_str()),
        (Some("robot@project.example"), Some("jo@shop.example"))
    );
    assert_eq!(
        (claims["scope"].as_str(), claims["aud"].as_str()),
        (Some("https://mail.google.com/"), Some("https://oauth2.googleapis.com/token"))
    );
    assert_eq!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(exp, iat)| exp - iat), Some(3600));
    assert!(verified(&assertion, &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256));
    assert!(told(&assertion).iter().any(|(name, value)| *name == "aud" && value.ends_with("/token")));
}
