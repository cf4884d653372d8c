//! The mechanisms, with what clients say.

use proptest::prelude::*;

use super::*;
use crate::config::{StoredPassword, User};

fn users(texts: &[(&str, &str)]) -> Arc<Users> {
    let user = |(name, text): &(&str, &str)| User::new(name, StoredPassword::parse(text, true).expect("good"));
    Arc::new(Users::new(texts.iter().map(user)))
}

fn run(mechanism: AuthMechanism, responses: &[Option<&[u8]>]) -> (Vec<String>, Step) {
    let mut exchange = Exchange::new(mechanism, users(&[("jo", "pencil")]), [7; SCRAM_KEY]);
    let mut challenges = Vec::new();
    for response in responses {
        let response = response.map(|bytes| Response(Zeroizing::new(bytes.to_vec())));
        match exchange.take(response.as_ref()) {
            Step::Challenge(text) => challenges.push(text),
            step => return (challenges, step),
        }
    }
    panic!("it does not end: {challenges:?}")
}

fn password(step: Step) -> (String, String) {
    match step {
        Step::Check { attempt: Attempt { user, proof: Proof::Password(password) }, last: None } => {
            (user.to_string(), password.to_string())
        }
        Step::Refuse(reply) => panic!("{reply}"),
        _ => panic!("another step"),
    }
}

fn code(step: Step) -> u16 {
    match step {
        Step::Refuse(reply) => reply.code,
        Step::Check { attempt: Attempt { proof: Proof::Never(reply), .. }, .. } => reply.code,
        _ => 0,
    }
}

#[test]
fn plain_and_login_give_name_and_password_with_or_without_an_initial_response() {
    let jo = ("jo".to_owned(), "pen cil".to_owned());
    let (told, step) = run(AuthMechanism::Plain, &[None, Some(b"\0jo\0pen cil")]);
    assert_eq!((told, password(step)), (vec![String::new()], jo.clone()));
    let (told, step) = run(AuthMechanism::Plain, &[Some(b"JO\0jo\0pen cil")]);
    assert_eq!((told, password(step)), (Vec::new(), jo.clone()));
    let (told, step) = run(AuthMechanism::Login, &[None, Some(b"jo"), Some(b"pen cil")]);
    assert_eq!((told, password(step)), (vec!["VXNlcm5hbWU6".into(), "UGFzc3dvcmQ6".into()], jo.clone()));
    let (told, step) = run(AuthMechanism::Login, &[Some(b"jo"), Some(b"pen cil")]);
    assert_eq!((told, password(step)), (vec!["UGFzc3dvcmQ6".into()], jo));
}

#[test]
fn what_is_no_response_is_refused() {
    for response in [&b""[..], b"jo", b"\0jo", b"\0jo\0a\0b", b"\0\0a", b"\xff\0jo\0a"] {
        assert_eq!(code(run(AuthMechanism::Plain, &[Some(response)]).1), 501, "{}", response.escape_ascii());
    }
    assert_eq!(code(run(AuthMechanism::Plain, &[Some(b"root\0jo\0pencil")]).1), 535);
    for (responses, expected) in [
        ([Some(&b""[..]), Some(b"a")], 501),
        ([Some(b"jo"), Some(b"a\0b")], 501),
        // Wrong like any other password, and counted like one.
        ([Some(b"jo"), Some(b"")], 535),
        ([Some(b"jo"), Some(&[b'x'; MAX_PASSWORD + 1])], 535),
    ] {
        assert_eq!(code(run(AuthMechanism::Login, &responses).1), expected);
    }
    assert_eq!(code(run(AuthMechanism::Plain, &[Some(b"\0jo\0")]).1), 535);
    assert_eq!(code(run(AuthMechanism::CramMd5, &[Some(b"jo x")]).1), 501, "the server speaks first");
    assert_eq!(code(run(AuthMechanism::CramMd5, &[None, Some(b"jo")]).1), 501);
    for (first, expected) in [
        ("n,,n=jo,r=", 501),
        ("n,,n=jo", 501),
        ("n,,m=x,n=jo,r=a", 501),
        ("x,,n=jo,r=a", 501),
        ("n,a=root,n=jo,r=a", 535),
        ("p=tls-unique,,n=jo,r=a", 535),
    ] {
        assert_eq!(code(run(AuthMechanism::ScramSha256, &[Some(first.as_bytes())]).1), expected, "{first}");
    }
    assert_eq!(Response::decode(b"!").map(|_| ()), Err(NOT_BASE64));
    // Padding may be left out, and `=` alone is handled by whoever reads the command.
    assert!(Response::decode(b"AGpvAHg").is_ok_and(|r| *r.0 == b"\0jo\0x") && Response::decode(b"").is_ok());
}

/// With the numbers of RFC 7677 §3, but for the nonce, which is ours.
#[test]
fn scram_takes_who_knows_the_password_and_shows_that_it_does() {
    let keys = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let stored = StoredPassword::parse(keys, false).expect("keys");
    let scram = Scram {
        keys: stored.scram_keys().expect("keys").clone(),
        bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".into(),
        header: "biws".into(),
        nonce: nonce.into(),
        server: format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
    };
    let proof = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    let shown = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    assert_eq!(scram.last(&proof), Ok((true, shown.into())));
    let wrong = proof.replace("p=d", "p=e");
    assert!(scram.last(&wrong).is_ok_and(|(proven, _)| !proven));
    for garbled in [proof.replace("biws", "eSws"), proof.replace("r=r", "r=R"), "p=".into(), String::new()] {
        assert!(scram.last(&garbled).is_err(), "{garbled}");
    }
}

/// A salt of a name that nobody has stays the same, as one of a user does.
#[test]
fn scram_does_not_tell_who_is_known() {
    let users = users(&[("jo", "pencil")]);
    let salt = |name: &str| {
        let mut exchange = Exchange::new(AuthMechanism::ScramSha256, users.clone(), [7; SCRAM_KEY]);
        let first = Response(Zeroizing::new(format!("n,,n={name},r=abc").into_bytes()));
        let Step::Challenge(told) = exchange.take(Some(&first)) else { panic!("{name}") };
        let told = String::from_utf8(STANDARD.decode(told).expect("base64")).expect("text");
        let (nonce, rest) = told.split_once(",s=").expect("a salt");
        assert!(nonce.starts_with("r=abc") && nonce.len() > 20 && rest.ends_with(",i=10000"), "{told}");
        rest.to_owned()
    };
    assert_eq!((salt("jo"), salt("nobody")), (salt("jo"), salt("NOBODY")));
    assert!(salt("nobody") != salt("somebody") && salt("jo").len() == salt("nobody").len());
}

proptest! {
    #[test]
    fn any_responses_end_in_a_check_or_a_refusal(
        which in 0usize..4, responses in proptest::collection::vec(proptest::option::of("[a-z=,\\x00ü]{0,12}|n,,n=jo,r=x"), 1..5)
    ) {
        let mechanisms = [AuthMechanism::Plain, AuthMechanism::Login, AuthMechanism::CramMd5, AuthMechanism::ScramSha256];
        let mut exchange = Exchange::new(mechanisms[which], users(&[("jo", "pencil")]), [7; SCRAM_KEY]);
        for response in responses {
            let response = response.map(|text| Response(Zeroizing::new(text.into_bytes())));
            if let Step::Refuse(reply) = exchange.take(response.as_ref()) {
                prop_assert!(reply.is_error() && !reply.to_string().contains("pencil"));
                break;
            }
        }
    }
}
