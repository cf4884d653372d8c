//! Real programs that send mail: each sends one message, given as content with CRLF line ends, from
//! `FROM` to `TO`, to whoever listens at an address. What a program makes of the content is its own
//! affair; a test records that by sending to a [`super::sink::Sink`] directly.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{TestDir, program, run_ok};

/// The reverse-path of all senders.
pub const FROM: &str = "sender@sender.test";
/// The forward-path of all senders.
pub const TO: &str = "somebody@example.test";

const DEADLINE: Duration = Duration::from_secs(120);

/// Sends one message.
pub type Sender = fn(&TestDir, SocketAddr, &[u8]);

/// swaks, which stuffs dots and normalises line ends by itself.
pub fn swaks(dir: &TestDir, server: SocketAddr, content: &[u8]) {
    let data = dir.write("swaks.eml", content);
    let mut command = Command::new(program("swaks"));
    command
        .args(["--server", &server.ip().to_string(), "--port", &server.port().to_string()])
        .args(["--ehlo", "client.test", "--from", FROM, "--to", TO, "--silent", "1", "--data"])
        .arg(format!("@{}", data.display()));
    run_ok(&mut command, b"", DEADLINE);
}

/// Python's smtplib.
pub fn smtplib(_: &TestDir, server: SocketAddr, content: &[u8]) {
    let script = "import smtplib, sys\n\
                  with smtplib.SMTP(sys.argv[1], int(sys.argv[2]), 'client.test') as smtp:\n    \
                  smtp.sendmail(sys.argv[3], [sys.argv[4]], sys.stdin.buffer.read(), ['BODY=8BITMIME'])\n";
    let mut command = Command::new(program("python3"));
    command.args(["-c", script, &server.ip().to_string(), &server.port().to_string(), FROM, TO]);
    run_ok(&mut command, content, DEADLINE);
}

/// nodemailer, as installed by tests/run.
pub fn nodemailer(dir: &TestDir, server: SocketAddr, content: &[u8]) {
    let script = "const { createTransport } = require(process.argv[2]);\n\
        const [host, port, from, to] = process.argv.slice(3);\n\
        const raw = require('fs').readFileSync(0);\n\
        createTransport({ host, port: Number(port), secure: false, ignoreTLS: true, name: 'client.test' })\n  \
        .sendMail({ envelope: { from, to }, raw })\n  \
        .catch((error) => { console.error(error); process.exitCode = 1; });\n";
    let script = dir.write("nodemailer.js", script);
    let mut command = Command::new(program("node"));
    command.arg(script).arg(nodemailer_module());
    command.args([&server.ip().to_string(), &server.port().to_string(), FROM, TO]);
    run_ok(&mut command, content, DEADLINE);
}

/// Where nodemailer is.
pub fn nodemailer_module() -> PathBuf {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/node_modules/nodemailer");
    assert!(module.is_dir(), "nodemailer is not in target/test-tools: run tests/run, which installs it");
    module
}

/// msmtp, which takes a message as a Unix program writes it: with line feeds.
pub fn msmtp(_: &TestDir, server: SocketAddr, content: &[u8]) {
    let text: Vec<u8> = content.iter().copied().filter(|b| *b != b'\r').collect();
    let mut command = Command::new(program("msmtp"));
    command
        .args(["--file=/dev/null", "--host", &server.ip().to_string(), "--port", &server.port().to_string()])
        .args(["--domain=client.test", "--from", FROM, TO]);
    run_ok(&mut command, &text, DEADLINE);
}
