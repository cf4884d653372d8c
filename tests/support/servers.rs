//! Real servers with small configurations: NSD as the DNS, smtp-sink as an upstream.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Port, SOON, TestDir, program, wait_for};

/// A child that is killed when dropped.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// NSD, authoritative for `test.`, and for `broken.`, whose zone file is missing so that every
/// question about it is answered with SERVFAIL.
pub struct Nsd {
    pub address: SocketAddr,
    _port: Port,
    child: Child,
}

impl Nsd {
    /// `records` are the lines of the zone `test.` below its SOA and NS; names may be relative to it.
    pub fn start(dir: &TestDir, records: &str) -> Nsd {
        Nsd::start_with(dir, records, &[])
    }

    /// With further zones: names without the dot at the end, and records.
    pub fn start_with(dir: &TestDir, records: &str, zones: &[(&str, &str)]) -> Nsd {
        let port = Port::reserve();
        let address = port.at(1);
        let home = dir.subdir("nsd");
        write_zone(&home, "test", 1, records);
        let home_text = home.display();
        let mut config = format!(
            "server:\n  ip-address: {}@{}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{home_text}\"\n  \
             pidfile: \"{home_text}/nsd.pid\"\n  xfrdfile: \"{home_text}/xfrd.state\"\n  xfrdir: \"{home_text}\"\n  \
             zonelistfile: \"{home_text}/zone.list\"\n  database: \"\"\n  server-count: 1\n  rrl-ratelimit: 0\n\
             remote-control:\n  control-enable: no\n\
             zone:\n  name: \"test.\"\n  zonefile: \"test.zone\"\n\
             zone:\n  name: \"broken.\"\n  zonefile: \"missing.zone\"\n",
            address.ip(),
            address.port()
        );
        for (name, records) in zones {
            write_zone(&home, name, 1, records);
            config.push_str(&format!("zone:\n  name: \"{name}.\"\n  zonefile: \"{name}.zone\"\n"));
        }
        let config_path = home.join("nsd.conf");
        std::fs::write(&config_path, config).expect("write nsd.conf");
        let log = std::fs::File::create(home.join("nsd.log")).expect("nsd.log");
        let child = Command::new(program("nsd"))
            .args(["-d", "-c"])
            .arg(&config_path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("start nsd");
        let nsd = Nsd { address, _port: port, child };
        wait_for("an answer of nsd (see nsd.log: is the zone valid?)", SOON, || answers(address).then_some(()));
        nsd
    }
}

impl Nsd {
    /// Other records from now on.
    pub fn change(&self, dir: &TestDir, records: &str) {
        write_zone(&dir.subdir("nsd"), "test", 2, records);
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("tell nsd");
    }
}

fn write_zone(home: &Path, name: &str, serial: u32, records: &str) {
    let head = format!("$ORIGIN {name}.\n$TTL 60\n@ SOA ns.test. root.test. {serial} 60 60 600 60\n@ NS ns.test.");
    std::fs::write(home.join(format!("{name}.zone")), format!("{head}\n{records}\n")).expect("write the zone");
}

impl Drop for Nsd {
    /// NSD is a parent with children: SIGTERM ends all of them, SIGKILL only the first.
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Asks for the SOA of `test.`; true if the answer is NOERROR.
fn answers(server: SocketAddr) -> bool {
    let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04test\x00\x00\x06\x00\x01";
    let ask = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        socket.send_to(query, server)?;
        let mut answer = [0; 512];
        let n = socket.recv(&mut answer)?;
        Ok(n > 12 && answer[3] & 15 == 0)
    };
    ask().unwrap_or(false)
}

/// Postfix's smtp-sink, which writes each message to a file of its own.
pub struct SmtpSink {
    pub address: SocketAddr,
    dump: PathBuf,
    _child: Guard,
}

impl SmtpSink {
    /// `flags` as of smtp-sink(1): `-r RCPT`, `-Q DATA`, `-8`, `-p` and so on.
    pub fn start(dir: &TestDir, address: SocketAddr, flags: &[&str]) -> SmtpSink {
        let dump = dir.subdir(&format!("smtp-sink-{}", address.port()));
        let mut command = Command::new(program("smtp-sink"));
        if rustix::process::geteuid().is_root() {
            // It insists on another user, who then writes the files.
            command.args(["-u", "nobody"]);
            std::fs::set_permissions(&dump, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("permissions");
        }
        let child = command
            .arg("-R")
            .arg(&dump)
            .args(["-d", "message.%M."])
            .args(flags)
            .arg(address.to_string())
            .arg("100")
            .current_dir(&dump)
            .stdin(Stdio::null())
            .spawn()
            .expect("start smtp-sink");
        wait_for("smtp-sink", SOON, || TcpStream::connect(address).ok());
        SmtpSink { address, dump, _child: Guard(child) }
    }

    /// The files so far: `X-` lines about the envelope, a `Received:` of its own, and the message
    /// with line feeds as line ends.
    pub fn files(&self) -> Vec<Vec<u8>> {
        std::fs::read_dir(&self.dump)
            .expect("read the directory of smtp-sink")
            .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("read a message"))
            .collect()
    }

    /// How many messages it has.
    pub fn count(&self) -> usize {
        std::fs::read_dir(&self.dump).expect("read the directory of smtp-sink").count()
    }
}
