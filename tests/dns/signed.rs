//! Signed zones for tests: made by ldns, served by NSD, with a root whose key is the only one that is trusted; and a
//! proxy in front that forges what passes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::{answers_for, free_port};

/// A zone below the root.
pub struct Zone {
    pub name: &'static str,
    /// Below its SOA and NS; names are relative to it.
    pub records: &'static str,
    pub how: How,
}

/// What is done to it.
#[derive(Clone, Copy, PartialEq)]
pub enum How {
    /// Signed.
    Well,
    /// With hashed names in the proofs.
    Nsec3,
    /// Not signed, and the root says so.
    Unsigned,
    /// The signatures have ended.
    Expired,
    /// This text was replaced by that after it was signed.
    Altered(&'static str, &'static str),
    /// The root says that there is a DS record, and has none.
    WithoutDs,
}

/// NSD with these zones; stopped when dropped.
pub struct Signed {
    pub address: SocketAddr,
    /// The key of the root.
    pub anchor: PathBuf,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Signed {
    pub fn start(zones: &[Zone]) -> Signed {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path();
        let mut root = String::from("@ NS ns\nns A 127.0.0.1\n");
        let mut config = String::new();
        for zone in zones {
            let (name, file) = (zone.name, here.join(zone.name));
            let text = format!(
                "$ORIGIN {name}.\n$TTL 300\n@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n{}\n",
                zone.records
            );
            std::fs::write(&file, text).unwrap();
            root.push_str(&format!("{name} NS ns.{name}\nns.{name} A 127.0.0.1\n"));
            let served = match zone.how {
                How::Unsigned => file,
                how => {
                    let key = key(here, name);
                    root.push_str(&std::fs::read_to_string(here.join(format!("{key}.ds"))).unwrap());
                    sign(here, name, &key, how)
                }
            };
            config.push_str(&format!("zone:\n name: {name}\n zonefile: {}\n", served.display()));
        }
        let text = format!("$ORIGIN .\n$TTL 300\n@ SOA ns h 1 3600 600 86400 60\n{root}");
        std::fs::write(here.join("root"), text).unwrap();
        let key = key(here, ".");
        let served = sign(here, ".", &key, How::Well);
        for zone in zones.iter().filter(|zone| zone.how == How::WithoutDs) {
            let lost = |line: &&str| !line.starts_with(&format!("{}.\t", zone.name)) || !line.contains("\tDS");
            let text = std::fs::read_to_string(&served).unwrap();
            // The signature of it, too.
            std::fs::write(&served, text.lines().filter(lost).map(|line| format!("{line}\n")).collect::<String>())
                .unwrap();
        }
        config.push_str(&format!("zone:\n name: .\n zonefile: {}\n", served.display()));
        let (address, child) = serve(here, &config);
        Signed { address, anchor: here.join(format!("{key}.key")), child, _dir: dir }
    }
}

impl Drop for Signed {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn ldns(dir: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(dir).output();
    let output = output.unwrap_or_else(|e| panic!("{program} is needed for this test: install `ldnsutils` ({e})"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A key for a zone: the name of its files.
fn key(dir: &Path, zone: &str) -> String {
    ldns(dir, "ldns-keygen", &["-a", "ECDSAP256SHA256", "-k", zone])
}

/// The file of the signed zone.
fn sign(dir: &Path, zone: &str, key: &str, how: How) -> PathBuf {
    let file = if zone == "." { "root" } else { zone };
    let signed = format!("{file}.signed");
    let mut arguments = vec!["-o", zone, "-f", &signed];
    match how {
        How::Nsec3 => arguments.push("-n"),
        How::Expired => arguments.extend(["-i", "20200101000000", "-e", "20200201000000"]),
        _ => {}
    }
    arguments.extend([file, key]);
    ldns(dir, "ldns-signzone", &arguments);
    let path = dir.join(&signed);
    if let How::Altered(from, to) = how {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }
    path
}

fn serve(dir: &Path, zones: &str) -> (SocketAddr, Child) {
    // Another process may take a free port before NSD does.
    for _ in 0..5 {
        let (address, here) = (free_port(), dir.display());
        let config = format!(
            "server:\n ip-address: 127.0.0.1@{}\n username: \"\"\n chroot: \"\"\n database: \"\"\n pidfile: \"{here}/pid\"\n \
             xfrdfile: \"{here}/xfrd\"\n zonelistfile: \"{here}/zones\"\n xfrdir: \"{here}\"\n logfile: \"{here}/log\"\n \
             server-count: 1\n rrl-ratelimit: 0\nremote-control:\n control-enable: no\n{zones}",
            address.port()
        );
        let file = dir.join("nsd.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("/usr/sbin/nsd");
        command.arg("-d").arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("nsd is needed for this test: install the package `nsd`");
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            if answers_for(address, ".") {
                return (address, child);
            }
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("nsd does not start")
}

/// What is done to an answer that passes.
pub type Forge = fn(&mut Vec<u8>);

/// A name server in front of another one, which forges its answers.
pub struct Forger {
    pub address: SocketAddr,
    forge: Arc<Mutex<Forge>>,
    task: JoinHandle<()>,
}

impl Forger {
    pub async fn start(server: SocketAddr) -> Forger {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let address = socket.local_addr().unwrap();
        let forge: Arc<Mutex<Forge>> = Arc::new(Mutex::new(|_| {}));
        let shared = forge.clone();
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            loop {
                let (n, client) = socket.recv_from(&mut buffer).await.unwrap();
                let (question, socket, forge) = (buffer[..n].to_vec(), socket.clone(), shared.clone());
                tokio::spawn(async move {
                    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                    upstream.send_to(&question, server).await.unwrap();
                    let mut answer = vec![0; 4096];
                    let n = upstream.recv(&mut answer).await.unwrap();
                    answer.truncate(n);
                    let forge = *forge.lock();
                    forge(&mut answer);
                    socket.send_to(&answer, client).await.unwrap();
                });
            }
        });
        Forger { address, forge, task }
    }

    pub fn set(&self, forge: Forge) {
        *self.forge.lock() = forge;
    }
}

impl Drop for Forger {
    fn drop(&mut self) {
        self.task.abort();
    }
}
