//! The tour of the README is typed into a shell, block after block, with ports that are free instead of those that it
//! names, and what it shows is what came out.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use super::pages::{Fence, Page, ROOT, read};
use super::runnable::path_with_mailweir;

/// The blocks between the heading of the tour and the next one.
fn tour() -> Vec<Fence> {
    let text = read(&Path::new(ROOT).join("README.md"));
    let (_, tour) = text.split_once("\n## A tour of five minutes\n").expect("a tour");
    let (tour, _) = tour.split_once("\n## ").expect("the section behind it");
    Page { path: "tour".into(), text: tour.into() }.fences()
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_tour_of_the_readme_does_what_it_says() {
    let blocks = tour();
    let sockets: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let ports: Vec<String> = sockets.iter().map(|s| s.local_addr().expect("bound").port().to_string()).collect();
    drop(sockets);
    let elsewhere =
        |text: &str| text.replace(":2600", &format!(":{}", ports[0])).replace(":2601", &format!(":{}", ports[1]));

    let directory = tempfile::tempdir().expect("a directory");
    let config = blocks.iter().find(|block| block.language == "toml").expect("a configuration");
    let listener = format!("\n[[listener]]\naddress = \"127.0.0.1:{}\"\n", ports[2]);
    std::fs::write(directory.path().join("config.toml"), elsewhere(&config.text) + &listener).expect("written");

    let mut script = String::from("set -eu\n");
    for line in blocks.iter().filter(|block| block.language == "sh").flat_map(|block| block.text.lines()) {
        if line.starts_with("cargo build") {
            continue;
        }
        // A reader is slower than the relay; a script has to wait for what it is about to look at.
        if line == "mailweir queue list --state failed" {
            script += "until mailweir queue list --state failed | grep -q nobody; do sleep 0.1; done\n";
        }
        if line.starts_with("kill %3") {
            script += "until [ $(ls taken | grep -c eml) -ge 9 ]; do sleep 0.1; done\n";
        }
        script += &elsewhere(line);
        script.push('\n');
    }
    let mut shell = Command::new("timeout");
    shell.args(["60", "bash", "-c", &script]).current_dir(directory.path()).env("PATH", path_with_mailweir());
    let done = shell.stdin(Stdio::null()).output().expect("bash starts");
    let (said, log) = (String::from_utf8_lossy(&done.stdout), read(&directory.path().join("relay.log")));
    let all = format!("{said}\n{}\n{log}", String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{}: {all}", done.status);

    let printed: Vec<String> = said.lines().map(words).collect();
    for shown in blocks.iter().filter(|block| block.language.is_empty()).flat_map(|block| block.text.lines()) {
        let heading = shown.starts_with("ID ") || shown.starts_with("NAME ");
        assert!(!heading || printed.contains(&words(shown)), "the README shows {shown}: {all}");
    }
    assert_eq!(said.matches("waits: paused by an operator").count(), 6, "{all}");
    assert!(printed.iter().any(|line| line == "messages 9"), "the hello, six that waited, two reports: {all}");
    assert_eq!(log.matches(" bounced ").count(), 2, "{all}");
}
