//! Signatures as two other implementations see them: dkimpy and OpenDKIM, which share nothing with mailweir or with
//! one another.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mailweir::deliver::encode::Encoder;
use mailweir::dkim::{Algorithm, Signature, Signer, SigningKey};

use super::case::folder;
use super::support::{TestDir, program, run, run_ok};

const MESSAGES: usize = 10_000;
/// Files that OpenDKIM is given at once.
const AT_ONCE: usize = 500;
const LONG: Duration = Duration::from_secs(600);

/// What is fetched for this, under the directory of all cases.
fn fetched(name: &str, kind: &str, packages: &[&str]) -> PathBuf {
    let cache = std::env::var_os("INTEROP_CACHE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/interop"), PathBuf::from);
    let root = cache.join(name);
    std::fs::create_dir_all(&root).expect("a directory");
    run_ok(Command::new(folder().join("fetch.sh")).arg(&root).arg(kind).args(packages), b"", LONG);
    root
}

/// One of these, with what likes to break signatures.
fn message(random: &mut fastrand::Rng) -> Vec<u8> {
    const FIELDS: [&[u8]; 18] = [
        b"To: a@b.example,\r\n\tc@d.example\r\n",
        b"To:\tUndisclosed  recipients:;\r\n",
        // Not `Cc :`, which dkimpy takes for no field at all.
        b"Cc:somebody@x.example\r\n",
        b"Subject:  two  words \t\r\n",
        b"Subject:\r\n folded at once\r\n  and again  \r\n",
        b"Subject: \r\n",
        b"Subject: Gr\xc3\xbc\xc3\x9fe\r\n",
        b"SUBJECT: Latin \xe9t\xe9\r\n",
        b"Date: Mon, 30 Nov 2026 09:00:00 +0000 (UTC)\r\n",
        b"Message-ID: <1@x.example>\r\n",
        b"MIME-Version: 1.0\r\nContent-Type: text/plain;\r\n\tcharset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n",
        b"List-Unsubscribe: <https://x.example/u?a=b;c=d>,\r\n <mailto:u@x.example>\r\n",
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
        b"Reply-To: \"A, B\" <r@x.example>\r\n",
        b"X-Unsigned: whatever \r\n",
        b"Received: from a\r\n\tby b; today\r\n",
        b"References: <a@b> <c@d>\r\n <e@f>\r\n",
        b"DKIM-Signature: v=1; a=rsa-sha256; d=other.example; s=x; h=from; bh=; b=\r\n",
    ];
    const PARTS: [&[u8]; 16] = [
        b"\r\n",
        b"\r\n\r\n\r\n",
        b" \r\n",
        b"\t \t\r\n",
        b"word",
        b" ",
        b"  ",
        b"\t",
        b".\r\n",
        b"..\r\n",
        b"\xff\xfe",
        "Grüße\r\n".as_bytes(),
        b"From here\r\n",
        b"=20=\r\n",
        b"\r",
        b"\n",
    ];
    let mut out = Vec::new();
    let from = random.usize(0..8);
    for n in 0..8 {
        match n == from {
            true => out.extend_from_slice(b"From: \"Jo  S\" \r\n <jo@shop.example>\r\n"),
            // The last is of a foreign signer, which verifiers would fetch a key for.
            false => out.extend_from_slice(FIELDS[random.usize(0..FIELDS.len() - 1)]),
        }
    }
    if random.u8(0..20) == 0 {
        return out;
    }
    out.extend_from_slice(b"\r\n");
    for _ in 0..random.usize(0..40) {
        match random.u8(0..40) {
            0 => out.extend_from_slice(&b"long line ".repeat(random.usize(50..400))),
            1 => out.extend_from_slice(&"ü".repeat(random.usize(400..700)).into_bytes()),
            _ => out.extend_from_slice(PARTS[random.usize(0..PARTS.len())]),
        }
    }
    out
}

/// The message as it goes over the wire, and its two signature fields.
fn signed(message: &[u8], keys: &[SigningKey; 2], at: u64, piece: usize) -> ([Vec<u8>; 2], Vec<u8>) {
    let (mut encoder, mut signer, mut wire) = (Encoder::for_signing(), Signer::new(), Vec::new());
    for piece in message.chunks(piece) {
        wire.extend_from_slice(&encoder.encode(Bytes::copy_from_slice(piece)));
    }
    wire.extend_from_slice(&encoder.finish());
    wire.chunks(piece).for_each(|piece| signer.push(piece).expect("a small header section"));
    signer.end_header().expect("a small header section");
    let [rsa, ed25519] = keys;
    let signature = |key, selector| Signature { domain: "shop.example", selector, key, at, until: Some(at + 86_400) };
    let fields = signer.finish(&[signature(rsa, "r"), signature(ed25519, "e")]).expect("two signatures");
    let second = fields.windows(16).rposition(|w| w == b"DKIM-Signature: ").expect("a second field");
    ([fields[..second].to_vec(), fields[second..].to_vec()], wire)
}

#[test]
#[ignore = "fetches dkimpy and OpenDKIM, and takes minutes"]
fn ten_thousand_messages_verify_with_dkimpy_and_with_opendkim() {
    let dkimpy = fetched("dkimpy", "pip", &["dkimpy==1.1.8", "pynacl==1.6.2", "dnspython==2.8.0"]);
    let opendkim = fetched("opendkim", "deb", &["opendkim"]);
    let (dir, mut random) = (TestDir::new(), fastrand::Rng::with_seed(6376));
    let keys = [Algorithm::RsaSha256, Algorithm::Ed25519Sha256].map(|a| SigningKey::generate(a).expect("a key").0);
    let record = |n: usize, selector: &str| {
        format!("{selector}._domainkey.shop.example {}\n", keys[n].record().expect("a record"))
    };
    let keys_file = dir.write("keys", record(0, "r") + &record(1, "e"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let mut single = Vec::new();
    for n in 0..MESSAGES {
        let (fields, wire) = signed(&message(&mut random), &keys, now, random.usize(1..300));
        dir.write(&format!("{n:05}.both"), [&fields[0], &fields[1], &wire[..]].concat());
        // Of several signatures OpenDKIM tells one.
        for (field, kind) in fields.iter().zip(["rsa", "ed25519"]) {
            single.push(dir.write(&format!("{n:05}.{kind}"), [&field[..], &wire].concat()));
        }
    }

    let mut python = Command::new(program("python3"));
    python.env("PYTHONPATH", dkimpy.join("python")).arg(folder().join("verify_dkim.py")).arg(dir.path());
    let output = run(&mut python, b"", LONG);
    assert!(output.status.success(), "dkimpy: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), (2 * MESSAGES).to_string());

    let libraries = opendkim.join("usr/lib");
    let multiarch = std::fs::read_dir(&libraries).expect("libraries").filter_map(|entry| Some(entry.ok()?.path()));
    let path: Vec<String> = [libraries.clone()].into_iter().chain(multiarch).map(|p| p.display().to_string()).collect();
    let config = dir.write("opendkim.conf", format!("Mode v\nTestPublicKeys {}\n", keys_file.display()));
    let mut verified = 0;
    for some in single.chunks(AT_ONCE) {
        let files: Vec<String> = some.iter().map(|path| path.display().to_string()).collect();
        let mut filter = Command::new(opendkim.join("usr/sbin/opendkim"));
        filter.env("LD_LIBRARY_PATH", path.join(":")).arg("-x").arg(&config).arg("-t").arg(files.join(","));
        let output = run(&mut filter, b"", LONG);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let good = said.lines().filter(|line| line.contains("verification") && line.ends_with("succeeded")).count();
        let bad = said.lines().find(|line| !line.ends_with("succeeded"));
        assert_eq!(good, some.len(), "OpenDKIM: {}, {bad:?}", output.status);
        verified += good;
    }
    assert_eq!(verified, 2 * MESSAGES);
}
