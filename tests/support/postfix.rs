//! A private Postfix: own configuration, queue, data and mailboxes in the test's directory, only the
//! services a test needs, nothing chrooted, on one loopback address.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{SOON, TestDir, as_root, program, run_ok, wait_for};

/// The name it gives itself, and the realm of its users.
pub const NAME: &str = "postfix.test";

/// A running Postfix that stores mail for some domains in one Maildir.
pub struct Postfix {
    pub address: SocketAddr,
    home: PathBuf,
    child: Child,
}

/// How the instance is set up.
pub struct Options<'a> {
    /// Domains it stores mail for.
    pub domains: &'a [&'a str],
    /// Further lines of main.cf.
    pub main: &'a str,
    /// User (without realm) and password that may relay; makes TLS and AUTH obligatory.
    pub submission: Option<Submission<'a>>,
}

/// What a submission service needs.
pub struct Submission<'a> {
    pub user: &'a str,
    pub password: &'a str,
    /// PEM files.
    pub certificate: &'a Path,
    pub key: &'a Path,
}

impl Postfix {
    pub fn start(dir: &TestDir, name: &str, address: SocketAddr, options: &Options<'_>) -> Postfix {
        let home = dir.subdir(name);
        for sub in ["etc", "etc/sasl", "spool", "data", "mail"] {
            dir.subdir(&format!("{name}/{sub}"));
        }
        let root = rustix::process::geteuid().is_root();
        // Mailboxes belong to a user that this test can read: itself, or anybody if it is root.
        let owner = if root { 65_534 } else { rustix::process::getuid().as_raw() };
        let mut main = base_config(&home, owner, options);
        if let Some(submission) = &options.submission {
            main.push_str(&submission_config(&home, submission));
        }
        std::fs::write(home.join("etc/main.cf"), main).expect("write main.cf");
        std::fs::write(home.join("etc/master.cf"), services(address)).expect("write master.cf");
        let chown = |owner: &str, what: &str| {
            run_ok(as_root("chown").arg(owner).arg(home.join(what)), b"", SOON);
        };
        chown("postfix", "data");
        chown("root", "spool");
        chown(&owner.to_string(), "mail");
        let child = as_root("postfix")
            .arg("-c")
            .arg(home.join("etc"))
            .arg("start-fg")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(home.join("start.log")).expect("start.log"))
            .spawn()
            .expect("start postfix");
        let postfix = Postfix { address, home, child };
        wait_for(&format!("Postfix on {address}"), SOON, || TcpStream::connect(address).ok());
        postfix
    }

    /// Takes back what [`Options::main`] named as `texthash:` table or other file changes.
    pub fn reload(&self) {
        run_ok(as_root("postfix").arg("-c").arg(self.home.join("etc")).arg("reload"), b"", SOON);
    }

    /// Writes a file next to main.cf, to be named in [`Options::main`] by [`Postfix::file`].
    pub fn write(&self, name: &str, content: &str) {
        std::fs::write(self.home.join("etc").join(name), content).expect("write a table");
    }

    /// The messages stored so far, in the order of their arrival, with line feeds as line ends.
    pub fn mailbox(&self) -> Vec<Vec<u8>> {
        let Ok(entries) = std::fs::read_dir(self.home.join("mail/all/new")) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).expect("read a message")).collect()
    }

    /// Waits until at least `n` messages are stored.
    pub fn wait(&self, n: usize) -> Vec<Vec<u8>> {
        wait_for(&format!("{n} messages in the mailbox of Postfix"), SOON, || {
            let mailbox = self.mailbox();
            (mailbox.len() >= n).then_some(mailbox)
        })
    }

    /// What it said at start and its log so far.
    pub fn log(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.home.join(name)).unwrap_or_default();
        format!("{}{}", read("start.log"), read("maillog"))
    }
}

/// Where a table of an instance that will be started as `name` lies.
pub fn table(dir: &TestDir, name: &str, file: &str, content: &str) -> PathBuf {
    let path = dir.subdir(&format!("{name}/etc")).join(file);
    std::fs::write(&path, content).expect("write a table");
    path
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of {}:\n{}", self.home.display(), self.log());
        }
        let stopped = as_root("postfix")
            .arg("-c")
            .arg(self.home.join("etc"))
            .arg("stop")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if stopped.is_ok_and(|status| status.success()) {
            let _ = self.child.wait();
        }
    }
}

/// `inet_interfaces` must name an address that an interface has, which of 127.0.0.0/8 is only the
/// first; where it listens is said in master.cf.
fn base_config(home: &Path, owner: u32, options: &Options<'_>) -> String {
    let home = home.display();
    let mut main = format!(
        "compatibility_level = 3.6
queue_directory = {home}/spool
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = {NAME}
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
maillog_file = {home}/maillog
maillog_file_prefixes = {home}
virtual_mailbox_domains = {}
virtual_mailbox_base = {home}/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:{owner}
virtual_gid_maps = static:{owner}
virtual_minimum_uid = 1
message_size_limit = 60000000
virtual_mailbox_limit = 0
mailbox_size_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_error_sleep_time = 0
",
        options.domains.join(", ")
    );
    let _ = writeln!(main, "{}", options.main);
    main
}

fn submission_config(home: &Path, submission: &Submission<'_>) -> String {
    let sasl = home.join("etc/sasl");
    let users = sasl.join("sasldb2");
    let mut command = Command::new(program("saslpasswd2"));
    command.args(["-p", "-c", "-f"]).arg(&users).args(["-u", NAME, submission.user]);
    run_ok(&mut command, submission.password.as_bytes(), SOON);
    // smtpd reads it as the user postfix.
    std::fs::set_permissions(&users, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("permissions");
    let config = format!(
        "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {}\nmech_list: PLAIN LOGIN\n",
        users.display()
    );
    std::fs::write(sasl.join("smtpd.conf"), config).expect("write smtpd.conf");
    format!(
        "smtpd_tls_cert_file = {}
smtpd_tls_key_file = {}
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = {}
smtpd_sasl_local_domain = {NAME}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
",
        submission.certificate.display(),
        submission.key.display(),
        sasl.display()
    )
}

fn services(address: SocketAddr) -> String {
    let mut master = format!("{address} inet n - n - - smtpd\n");
    for service in [
        "cleanup unix n - n - 0 cleanup",
        "qmgr unix n - n 300 1 qmgr",
        "rewrite unix - - n - - trivial-rewrite",
        "bounce unix - - n - 0 bounce",
        "defer unix - - n - 0 bounce",
        "trace unix - - n - 0 bounce",
        "proxymap unix - - n - - proxymap",
        "error unix - - n - - error",
        "retry unix - - n - - error",
        "discard unix - - n - - discard",
        "virtual unix - n n - - virtual",
        "smtp unix - - n - - smtp",
        "anvil unix - - n - 1 anvil",
        "scache unix - - n - 1 scache",
        "tlsmgr unix - - n 1000? 1 tlsmgr",
        "postlog unix-dgram n - n - 1 postlogd",
    ] {
        master.push_str(service);
        master.push('\n');
    }
    master
}
