//! Greeting, EHLO, AUTH, idle time, and leaving.

use mailweir::config::Relay;
use mailweir::deliver::Connection;

use crate::common::*;

#[tokio::test(start_paused = true)]
async fn a_554_greeting_is_a_fact_and_answered_with_quit() {
    let (failed, server) = over_pipe(&provider(), 4096, "S: 554 5.7.1 no service\nC: QUIT").await;
    let fact = failed.err().expect("refused").fact;
    assert_eq!(fact.to_string(), "mx.example[127.0.0.1] greeting: 554 5.7.1 no service");
    server.done().await;
}

#[tokio::test(start_paused = true)]
async fn a_421_greeting_a_closed_and_a_silent_one() {
    let p = provider();
    assert_eq!(failure_of(&p, "S: 421 4.3.2 too many").await, "greeting: 421 4.3.2 too many");
    assert_eq!(failure_of(&p, "close").await, "greeting: the server closed the connection");
    assert_eq!(failure_of(&p, "stall").await, "greeting: no answer within 300 s");
    assert_eq!(failure_of(&p, "raw: 220-\nstall").await, "greeting: no answer within 300 s");
    assert_eq!(failure_of(&p, "S: 220 x\nC: EHLO relay.example\nstall").await, "EHLO: no answer within 300 s");
}

#[tokio::test(start_paused = true)]
async fn a_server_of_another_protocol_is_unintelligible() {
    for script in
        ["S: SSH-2.0-OpenSSH_9.2", "raw: \\x16\\x03\\x01\\x00\\x00\\n", "S: HTTP/1.1 400 Bad Request", "S: 354 go on"]
    {
        let failure = failure_of(&provider(), script).await;
        assert!(failure.starts_with("greeting: unintelligible server: "), "{failure}");
    }
}

#[tokio::test(start_paused = true)]
async fn ehlo_refused_with_5xx_goes_on_with_helo() {
    let (connection, server) = session(
        "S: 220 old\nC: EHLO relay.example\nS: 502 what\nC: HELO relay.example\nS: 250 hi\n\
         C: MAIL FROM:<from@example.org>\nS: 250 ok\nC: RCPT TO:<a@x.example>\nS: 250 ok\nC: DATA\nS: 354 go\ndata\nS: 250 ok",
    )
    .await;
    let mut connection = connection;
    assert_eq!(connection.capabilities(), Default::default());
    let report = hello().send(&mut connection, &["a@x.example"]).await;
    assert_eq!(fates(&report), ["end of data: 250 ok"]);
    server.done().await;
    let temporary = "S: 220 x\nC: EHLO relay.example\nS: 451 4.3.0 later";
    assert_eq!(failure_of(&provider(), temporary).await, "EHLO: 451 4.3.0 later");
}

#[tokio::test(start_paused = true)]
async fn a_closed_or_talking_server_is_noticed_before_reuse() {
    let (mut connection, server) = session("hello PIPELINING\nclose").await;
    server.done().await;
    assert!(!connection.is_alive());
    let report = hello().send(&mut connection, &["a@x.example"]).await;
    assert_eq!(fates(&report), ["MAIL: the server closed the connection"]);

    let (mut connection, server) = session("hello PIPELINING\nS: 421 4.4.2 idle too long\nclose").await;
    server.done().await;
    let report = hello().send(&mut connection, &["a@x.example"]).await;
    assert_eq!(fates(&report), ["MAIL: 421 4.4.2 idle too long"]);
    assert!(!connection.is_usable() && !connection.is_alive());

    let (mut connection, _server) = session("hello PIPELINING\nstall").await;
    assert!(connection.is_alive());
}

#[tokio::test(start_paused = true)]
async fn quit_waits_for_its_reply_but_not_for_ever() {
    let (connection, server) = session("hello\nC: QUIT\nS: 221 bye\neof").await;
    connection.quit().await;
    server.done().await;
    let (connection, _server) = session("hello\nC: QUIT\nstall").await;
    let before = tokio::time::Instant::now();
    connection.quit().await;
    assert_eq!(before.elapsed().as_secs(), 5);
}

fn with_password() -> mailweir::config::Provider {
    let mut p = provider();
    p.relay = Some(Relay::new("mx.example", 587, false, Some(credentials("pass"))));
    p
}

#[tokio::test(start_paused = true)]
async fn auth_plain_is_preferred_with_an_initial_response() {
    let script = "hello AUTH LOGIN PLAIN\nC: AUTH PLAIN AHVzZXIAcGFzcw==\nS: 235 2.7.0 ok\neof";
    let (connection, server) = over_pipe(&with_password(), 4096, script).await;
    drop(connection.expect("logged in"));
    server.done().await;
}

#[tokio::test(start_paused = true)]
async fn auth_login_whatever_the_prompts_say() {
    let script =
        "hello AUTH=LOGIN\nC: AUTH LOGIN\nS: 334 QmVudXR6ZXI6\nC: dXNlcg==\nS: 334\nC: cGFzcw==\nS: 235 ok\neof";
    let (connection, server) = over_pipe(&with_password(), 4096, script).await;
    drop(connection.expect("logged in"));
    server.done().await;
}

#[tokio::test(start_paused = true)]
async fn a_535_is_a_fact_of_auth() {
    let p = with_password();
    let plain = "hello AUTH PLAIN\nC: AUTH PLAIN *\nS: 535 5.7.8 wrong\nC: QUIT";
    assert_eq!(failure_of(&p, plain).await, "AUTH: 535 5.7.8 wrong");
    let login = "hello AUTH LOGIN\nC: AUTH LOGIN\nS: 334 x\nC: dXNlcg==\nS: 535 5.7.8 no such user\nC: QUIT";
    assert_eq!(failure_of(&p, login).await, "AUTH: 535 5.7.8 no such user");
    for (offers, told) in [
        ("AUTH GSSAPI XOAUTH2", "XOAUTH2, GSSAPI"),
        ("AUTH X-OWN", "no mechanism that is known here"),
        ("SIZE", "no mechanism that is known here"),
    ] {
        let expected =
            format!("AUTH: the server does not offer AUTH PLAIN, LOGIN, SCRAM-SHA-256 or CRAM-MD5 (it offers {told})");
        assert_eq!(failure_of(&p, &format!("hello {offers}\nC: QUIT")).await, expected);
    }
}

/// A refusal of the mechanism is not one of the password.
#[tokio::test(start_paused = true)]
async fn the_next_mechanism_follows_a_refusal_of_the_first() {
    let login = "C: AUTH LOGIN\nS: 334 x\nC: dXNlcg==\nS: 334 x\nC: cGFzcw==\n";
    for refused in ["504 5.5.4 no", "500 what", "501 5.5.2 what", "535 5.7.4 not this one"] {
        let script = format!("hello AUTH PLAIN LOGIN\nC: AUTH PLAIN *\nS: {refused}\n{login}S: 235 ok\neof");
        let (connection, server) = over_pipe(&with_password(), 4096, &script).await;
        drop(connection.expect(refused));
        server.done().await;
    }
    let both = format!("hello AUTH PLAIN LOGIN\nC: AUTH PLAIN *\nS: 504 no\n{login}S: 535 5.7.8 wrong\nC: QUIT");
    assert_eq!(failure_of(&with_password(), &both).await, "AUTH: 535 5.7.8 wrong");
    let neither = "hello AUTH PLAIN LOGIN\nC: AUTH PLAIN *\nS: 504 no\nC: AUTH LOGIN\nS: 504 5.5.4 no\nC: QUIT";
    assert_eq!(failure_of(&with_password(), neither).await, "AUTH: 504 5.5.4 no");
}

#[tokio::test(start_paused = true)]
async fn a_mechanism_can_be_chosen() {
    let mut p = provider();
    let chosen = mailweir::config::AuthMechanism::Login;
    let credentials = mailweir::config::Credentials { mechanism: Some(chosen), ..credentials("pass") };
    p.relay = Some(Relay::new("mx.example", 587, false, Some(credentials)));
    let script = "hello AUTH PLAIN LOGIN\nC: AUTH LOGIN\nS: 334 x\nC: dXNlcg==\nS: 334 x\nC: cGFzcw==\nS: 235 ok\neof";
    let (connection, server) = over_pipe(&p, 4096, script).await;
    drop(connection.expect("logged in"));
    server.done().await;
    let told = "AUTH: the server does not offer AUTH LOGIN (it offers PLAIN)";
    assert_eq!(failure_of(&p, "hello AUTH PLAIN\nC: QUIT").await, told);
}

/// RFC 2195 has the digest; nothing better is offered.
#[tokio::test(start_paused = true)]
async fn what_is_harder_to_keep_for_servers_is_used_where_nothing_else_is_offered() {
    let mut p = provider();
    let tim = mailweir::config::Credentials { user: "tim".into(), ..credentials("tanstaaftanstaaf") };
    p.relay = Some(Relay::new("mx.example", 587, false, Some(tim)));
    let cram = "C: AUTH CRAM-MD5\nS: 334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+\n\
                C: dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw\n";
    let script = format!("hello AUTH CRAM-MD5 NTLM\n{cram}S: 235 ok\neof");
    let (connection, server) = over_pipe(&p, 4096, &script).await;
    drop(connection.expect("logged in"));
    server.done().await;
    let refused = format!("hello AUTH CRAM-MD5\n{cram}S: 535 5.7.8 no\nC: QUIT");
    assert_eq!(failure_of(&p, &refused).await, "AUTH: 535 5.7.8 no");
    // Many servers that offer these do not keep what they need for it.
    let scram = "hello AUTH CRAM-MD5 SCRAM-SHA-256\nC: AUTH SCRAM-SHA-256 biwsbj10aW0s*\n";
    assert_eq!(failure_of(&p, &format!("{scram}S: 535 5.7.8 no\nC: QUIT")).await, "AUTH: 535 5.7.8 no");
    let not_proven = "AUTH: unintelligible server: AUTH: the server did not show that it knows the password (SCRAM)";
    assert_eq!(failure_of(&p, &format!("{scram}S: 235 2.7.0 welcome\neof")).await, not_proven);
    let strange = "AUTH: unintelligible server: AUTH: the challenge is none of SCRAM";
    assert_eq!(failure_of(&p, &format!("{scram}S: 334 QUFB\neof")).await, strange);
}

/// RFC 4954 §4: a line of more than 512 octets is no command; and some servers ask for what they were told.
#[tokio::test(start_paused = true)]
async fn a_response_follows_a_334() {
    let asked = "hello AUTH PLAIN\nC: AUTH PLAIN AHVzZXIAcGFzcw==\nS: 334\nC: AHVzZXIAcGFzcw==\nS: 235 ok\neof";
    let (connection, server) = over_pipe(&with_password(), 4096, asked).await;
    drop(connection.expect("logged in"));
    server.done().await;
    for (length, first) in [(365, "C: AUTH PLAIN AHVzZXIA*\n"), (370, "C: AUTH PLAIN\nS: 334 \nC: AHVzZXIA*\n")] {
        let mut p = provider();
        p.relay = Some(Relay::new("mx.example", 587, false, Some(credentials(&"x".repeat(length)))));
        let (connection, server) = over_pipe(&p, 4096, &format!("hello AUTH PLAIN\n{first}S: 235 ok\neof")).await;
        drop(connection.unwrap_or_else(|failed| panic!("{length}: {}", failed.fact)));
        server.done().await;
    }
}

/// A server may say back what it was sent: nobody gets to see that, in whatever reply it is.
#[tokio::test(start_paused = true)]
async fn what_a_reply_repeats_of_the_password_is_masked() {
    let mut p = provider();
    p.relay = Some(Relay::new("mx.example", 587, false, Some(credentials("hunter2-S3cr3t"))));
    let sent = "AHVzZXIAaHVudGVyMi1TM2NyM3Q=";
    let auth = format!("hello AUTH PLAIN\nC: AUTH PLAIN {sent}\n");
    let split = format!("{auth}S: 535-5.7.8 no: {}\nS: 535 5.7.8 {}, sorry\nC: QUIT", &sent[..11], &sent[11..]);
    assert_eq!(failure_of(&p, &split).await, "AUTH: 535 5.7.8 no: ***, sorry");
    let garbled = format!("{auth}S: hunter2-S3cr3t says {sent}{}\neof", "x".repeat(100));
    assert_eq!(
        failure_of(&p, &garbled).await,
        "AUTH: unintelligible server: a reply line without a code: \"*** says ***\""
    );
    let goes_on = format!("{auth}S: 334 go on\nC: {sent}\nS: 334 %68unter2-S3cr3t\neof");
    assert_eq!(failure_of(&p, &goes_on).await, "AUTH: unintelligible server: AUTH goes on where it should end: 334");
    let later = format!(
        "hello AUTH PLAIN|PIPELINING\nC: AUTH PLAIN {sent}\nS: 235 ok\nC: MAIL*\nC: RCPT*\nC: DATA\n\
         S: 250 ok\nS: 550 user had hunter2-s3cr3t\nS: 503 no\neof"
    );
    let (connection, _server) = over_pipe(&p, 4096, &later).await;
    let report = hello().send(&mut connection.expect("logged in"), &["a@x.example"]).await;
    assert_eq!(fates(&report), ["RCPT: 550 user had ***"]);
    // One that has heard it before.
    assert_eq!(failure_of(&p, "S: 554 I know hunter2-S3cr3t\nC: QUIT").await, "greeting: 554 I know ***");
}

#[tokio::test(start_paused = true)]
async fn a_password_is_not_sent_in_clear_text_off_loopback() {
    let (near, far) = tokio::io::duplex(4096);
    let server = Server::spawn(far, "hello AUTH PLAIN\nC: QUIT\neof");
    let p = with_password();
    let failed = Connection::establish(near, setup(&p, "192.0.2.1")).await;
    let fact = failed.err().expect("refused").fact;
    assert_eq!(
        fact.to_string(),
        "mx.example[192.0.2.1] AUTH: TLS: the password is not sent in clear text: the connection has no TLS"
    );
    server.done().await;
}
