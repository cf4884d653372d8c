//! The command line, as a user meets it: the program itself, against a control socket behind which
//! a small queue in memory stands. No daemon.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use mailweir::admin::Controls;
use mailweir::admin::control::{ControlServer, socket_path};
use mailweir::clock::Clock;
use mailweir::config::{Config, Store};
use mailweir::queue::Upkeep;
use serde_json::Value as Json;

mod cli_support;
use cli_support::Fake;

/// A directory with a configuration whose queue is in it.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new(more: &str) -> Site {
        let dir = tempfile::tempdir().expect("a directory");
        let store = dir.path().join("q.db");
        let text = format!("hostname = 'relay.example'\n{more}\n[queue]\nstore = 'sqlite:{}'\n", store.display());
        std::fs::write(dir.path().join("my.toml"), text).expect("written");
        Site { dir }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailweir"));
        command.current_dir(self.dir.path()).args(["--config", "my.toml"]).args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        Done::from(self.command(args).output().expect("the program starts"))
    }

    fn socket(&self) -> PathBuf {
        socket_path(&Store::Sqlite(self.dir.path().join("q.db")))
    }

    /// Serves the control socket until the value is dropped.
    fn serve(&self, fake: &Arc<Fake>) -> Serving {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let socket = self.socket();
        let controls: Arc<dyn Controls> = Arc::clone(fake) as Arc<dyn Controls>;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = {
            let _guard = runtime.enter();
            ControlServer::bind(&socket).expect("bound")
        };
        let task = runtime.spawn(server.run(controls, Clock::System, async move {
            let _ = stopped.await;
        }));
        Serving { runtime: Some(runtime), stop: Some(stop), task: Some(task) }
    }
}

struct Serving {
    runtime: Option<tokio::runtime::Runtime>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let (Some(runtime), Some(task)) = (self.runtime.take(), self.task.take()) {
            let _ = runtime.block_on(task);
        }
    }
}

struct Done {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Done {
    fn from(o: Output) -> Done {
        Done {
            code: o.status.code().expect("it was not killed"),
            out: String::from_utf8(o.stdout).expect("UTF-8"),
            err: String::from_utf8(o.stderr).expect("UTF-8"),
        }
    }
}

impl Done {
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    #[track_caller]
    fn fails(self, code: i32, message: &str) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(self.err.contains(message), "{message} in {}", self.err);
    }
}

fn json_lines(text: &str) -> Vec<Json> {
    text.lines().map(|l| serde_json::from_str(l).expect("a line of JSON")).collect()
}

#[test]
fn wrong_usage_exits_64_with_usage() {
    let site = Site::new("");
    for args in [
        &["frobnicate"][..],
        &["check", "--jsn"],
        &["check", "--socket", "x.sock"],
        &["check", "--all", "--json"],
        &["queue"],
        &["queue", "list", "--limit", "many"],
        &["queue", "list", "--state", "gone"],
        &["queue", "list", "--older-than", "5"],
        &["queue", "show"],
        &["queue", "show", "not-an-id"],
        &["provider", "pause"],
    ] {
        let done = site.run(args);
        assert!(done.err.contains("Usage") || done.err.contains("--help"), "{args:?}: {}", done.err);
        assert_eq!((done.code, done.out.as_str()), (64, ""), "{args:?}: {}", done.err);
    }
    for op in ["retry", "hold", "release", "cancel"] {
        site.run(&["queue", op]).fails(64, "which recipients?");
    }
    site.run(&["queue", "show", "uuuuuuuuuuuuu"]).fails(64, "is not a queue id: expected 13 letters and digits");
    assert!(site.run(&["--help"]).ok().contains("Usage: mailweir"));
    assert!(site.run(&["--version"]).ok().starts_with("mailweir "));
}

#[test]
fn a_bad_configuration_exits_78_whatever_the_command() {
    let site = Site::new("[default]\nrate = '0/s'\nconections = 3\n");
    for args in [&["check"][..], &["run"], &[], &["queue", "list"], &["status"]] {
        let done = site.run(args);
        assert!(done.err.contains("mailweir: my.toml:3:8: default.rate:"), "{}", done.err);
        done.fails(78, "mailweir: my.toml:4:1: default.conections: unknown key: did you mean `connections`?");
    }
    let done = site.run(&["check", "--json"]);
    assert_eq!(done.code, 78);
    let answer: Json = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!((answer["ok"].as_bool(), answer["problems"][1]["line"].as_u64()), (Some(false), Some(4)));
    assert_eq!(answer["problems"][1]["key"], "default.conections");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailweir"));
    let done = command.args(["check", "--config", "/nonexistent/c.toml"]).output().expect("it starts");
    Done::from(done).fails(78, "/nonexistent/c.toml: cannot read it: No such file");
}

#[test]
fn check_prints_what_holds_and_where_it_came_from() {
    let site = Site::new(
        "[provider.ses]\nrelay = 'h.example:587'\nauth = { user = 'u', password = 'hunter2' }\n[[route]]\nvia = 'ses'\n",
    );
    let done = site.run(&["check", "--all"]);
    assert!(
        done.err.contains("warning: my.toml:4:33: provider.ses.auth.password: the secret stands in the file"),
        "{}",
        done.err
    );
    let out = done.ok();
    for line in [
        "hostname = \"relay.example\"  # my.toml:1",
        "address = \"localhost:2525\"  # default",
        "[provider.ses]",
        "relay = \"h.example:587\"  # my.toml:3",
        "auth.password = \"<secret>\"  # my.toml:4",
        "tls = \"verified\"  # default",
        "via = \"ses\"  # my.toml:6",
    ] {
        assert!(out.lines().any(|l| l == line), "{line} in\n{out}");
    }
    assert!(!out.contains("hunter2"));
    let answer: Json = serde_json::from_str(&site.run(&["check", "--json"]).ok()).expect("JSON");
    assert_eq!((answer["ok"].as_bool(), answer["file"].as_str()), (Some(true), Some("my.toml")));
    let settings = answer["settings"].as_array().expect("settings");
    let memory = settings.iter().find(|s| s["table"] == "[queue]" && s["key"] == "memory").expect("a setting");
    assert_eq!((memory["value"].as_str(), memory["from"].as_str()), (Some("256MiB"), Some("default")));
    assert_eq!(answer["warnings"][0]["key"], "provider.ses.auth.password");
    assert!(!answer.to_string().contains("hunter2"));
}

/// What people want to see of a file: what they changed, and that it is good.
#[test]
fn check_tells_what_the_file_says_itself_and_that_it_is_good() {
    let site = Site::new(
        "drain = '30s'\n[provider.ses]\nrelay = 'h.example:587'\nauth = { user = 'u', password = 'hunter2' }\n\
         [provider.gmail]\nrate = '9/s'\n[[route]]\nvia = 'ses'\n",
    );
    let done = site.run(&["check"]);
    assert!(done.err.contains("warning: my.toml:5:33: provider.ses.auth.password: the secret"), "{}", done.err);
    let out = done.ok();
    let store = site.dir.path().join("q.db");
    let expected = format!(
        "hostname = \"relay.example\"  # my.toml:1\n\n[queue]\nstore = \"sqlite:{}\"  # my.toml:12\n\n\
         [provider.ses]\nrelay = \"h.example:587\"  # my.toml:4\nauth.user = \"u\"  # my.toml:5\n\
         auth.password = \"<secret>\"  # my.toml:5\n\n[provider.gmail]\nrate = [\"9/s\"]  # my.toml:7\n\n\
         [[route]]\nvia = \"ses\"  # my.toml:9\n\n",
        store.display()
    );
    let rest = out.strip_prefix(&expected).unwrap_or_else(|| panic!("{expected}\n--- is not\n{out}"));
    assert!(rest.starts_with("my.toml: OK: 2 providers, "), "{rest}");
    assert!(rest.contains(", 1 listener, 1 route; 7 values of its own, "), "{rest}");
    assert!(rest.trim_end().ends_with("; 1 warning") && rest.lines().count() == 1, "{rest}");
    assert!(site.run(&["check", "--all"]).ok().lines().count() > 300);
    let answer: Json = serde_json::from_str(&site.run(&["check", "--json"]).ok()).expect("JSON");
    let own = answer["settings"].as_array().expect("settings").iter().filter(|s| s["own"] == true).count();
    assert_eq!((own, answer["certificates"].as_array().map(Vec::len)), (7, Some(0)));
}

/// The line of the file stands below each fault, for people; a log line and JSON have the place.
#[test]
fn check_shows_the_line_of_each_fault() {
    let site = Site::new("[default]\nrate = '0/s'\nconections = 3\n");
    let done = site.run(&["check"]);
    let shown = "\n  3 | rate = '0/s'\n    |        ^^^^^\nmailweir: my.toml:4:1: default.conections: unknown key: did you \
                 mean `connections`?\n  4 | conections = 3\n    | ^^^^^^^^^^\n";
    assert!(done.code == 78 && done.err.ends_with(shown), "{}", done.err);
    let answer: Json = serde_json::from_str(&site.run(&["check", "--json"]).out).expect("JSON");
    assert_eq!(answer["problems"][0]["excerpt"], "  3 | rate = '0/s'\n    |        ^^^^^");
}

/// The relay runs with what it read before, whatever became of the file.
#[test]
fn commands_reach_a_relay_whatever_became_of_its_file() {
    let (site, fake) = (Site::new(""), Fake::new());
    let _serving = site.serve(&fake);
    let file = site.dir.path().join("my.toml");
    let good = std::fs::read_to_string(&file).expect("read");
    for broken in [
        format!("{good}drain = 30s\n"),
        good.replace("hostname = '", "hostname = "),
        good.replace("store = '", "store = \u{2018}"),
        format!("{good}[default\n"),
        format!("{good}[default]\nrate = 5\n"),
    ] {
        assert_ne!(broken, good);
        std::fs::write(&file, &broken).expect("written");
        assert!(site.run(&["status"]).ok().starts_with("mailweir 9.9 on relay.example"), "{broken}");
        assert_eq!(json_lines(&site.run(&["queue", "list", "--json"]).ok()).len(), 6);
        let lanes = json_lines(&site.run(&["provider", "list", "--all", "--json"]).ok());
        assert!(lanes.iter().any(|lane| lane["name"] == "gmail" && lane["waiting"] == 7), "{lanes:?}");
        site.run(&["provider", "pause", "gmail"]).ok();
        site.run(&["provider", "resume", "gmail"]).ok();
        assert_eq!(site.run(&["check"]).code, 78);
    }
    // Another queue: nothing answers there, and where somebody does is told.
    std::fs::write(site.dir.path().join("q.db"), b"SQLite format 3\0").expect("written");
    std::fs::write(&file, good.replace("q.db", "other.db")).expect("written");
    let socket = site.socket().display().to_string();
    let done = site.run(&["status"]);
    let listed = format!("a mailweir listens at {socket}");
    assert!(done.err.contains("nothing answers at ") && done.err.contains(&listed), "{}", done.err);
    assert!(done.err.contains("--socket PATH talks to one"), "{}", done.err);
    assert_eq!(done.code, 69);
    assert!(site.run(&["--socket", &socket, "status"]).ok().starts_with("mailweir 9.9"));
    assert!(site.run(&["status", "--socket", &socket]).ok().starts_with("mailweir 9.9"));
    // Without a relay a file that cannot be taken is what there is to say.
    std::fs::write(&file, format!("{}drain = 30s\n", good.replace("q.db", "other.db"))).expect("written");
    for command in
        [&["status"][..], &["queue", "list"], &["provider", "list"], &["explain", "a@b.example"], &["backup", "x"]]
    {
        site.run(command).fails(78, "is not TOML: text stands in quotes");
    }
}

#[test]
fn without_a_file_config_toml_of_the_working_directory_holds_if_there_is_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailweir"));
        Done::from(command.args(["check", "--all"]).current_dir(dir.path()).output().expect("it starts")).ok()
    };
    assert!(check().contains("drain = \"30s\"  # default"));
    std::fs::write(dir.path().join("config.toml"), "drain = '9s'\n").expect("written");
    assert!(check().contains("drain = \"9s\"  # config.toml:1"));
}

#[test]
fn without_a_relay_commands_say_so() {
    let site = Site::new("");
    for args in [&["status"][..], &["provider", "resume", "gmail"], &["provider", "forget", "gmail"]] {
        site.run(args).fails(69, "mailweir is not running: nothing answers at ");
    }
    site.run(&["queue", "list"]).fails(69, "mailweir is not running: there is no queue at ");
    assert!(!site.dir.path().join("q.db").exists(), "looking makes no queue");
}

/// What nobody will do is not claimed: neither by the queue's file, nor by that of another queue.
#[test]
fn a_queue_at_which_nobody_is_says_so_and_a_named_socket_means_that_relay() {
    let site = Site::new("");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let queue = mailweir::queue::sqlite::SqliteQueue::open(&site.dir.path().join("q.db"), Clock::System).expect("made");
    runtime.block_on(queue.close());
    let note = "mailweir: note: mailweir is not running: nothing of this leaves before it is started\n";
    let done = site.run(&["queue", "retry", "--all"]);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "0 of 0 recipients due now\n", note));
    let answer = json_lines(&site.run(&["queue", "retry", "--all", "--json"]).out);
    assert_eq!(answer[0]["running"], false);
    for command in [&["queue", "list"][..], &["queue", "release", "--all"], &["queue", "hold", "--all"]] {
        let done = site.run(command);
        assert_eq!((done.code, done.err.as_str()), (0, note), "{command:?}");
    }
    let another = site.dir.path().join("another.sock").display().to_string();
    for command in [&["queue", "retry", "--all"][..], &["queue", "list"], &["provider", "list"], &["status"]] {
        let done = site.run(&[&["--socket", &another], command].concat());
        done.fails(69, &format!("mailweir is not running: nothing answers at {another}"));
    }
    drop(std::os::unix::net::UnixListener::bind(&another).expect("bound"));
    site.run(&["--socket", &another, "status"]).fails(69, &format!("nothing answers at {another}: no process has it"));
}

/// Whoever listens there and is no relay, or ends in the middle: no command takes that for success.
#[test]
fn a_socket_that_closes_or_talks_of_something_else_is_a_failure() {
    let site = Site::new("");
    let socket = site.dir.path().join("odd.sock");
    let path = socket.display().to_string();
    for (says, told) in [
        (&b""[..], "closed the control connection before it had answered"),
        (b"220 smtp.example ESMTP\r\n", "another program listens there"),
        (b"{\"note\":\"half", "closed the control connection before it had answered"),
    ] {
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        let commands = [&["provider", "pause", "gmail"][..], &["queue", "list"], &["reload"], &["status"]];
        let serving = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(says);
                if said_stop(&mut stream) {
                    return;
                }
            }
        });
        for command in commands {
            site.run(&[&["--socket", &path], command].concat()).fails(75, told);
        }
        let mut last = std::os::unix::net::UnixStream::connect(&socket).expect("connected");
        last.write_all(b"stop\n").expect("written");
        serving.join().expect("ended");
        std::fs::remove_file(&socket).expect("removed");
    }
}

/// Hears at most a line; what was asked is read, or not.
fn said_stop(stream: &mut std::os::unix::net::UnixStream) -> bool {
    let mut line = [0; 5];
    stream.set_read_timeout(Some(std::time::Duration::from_millis(50))).expect("set");
    stream.read_exact(&mut line).is_ok() && &line == b"stop\n"
}

#[test]
fn providers_can_be_looked_at_without_a_relay() {
    let site =
        Site::new("[provider.gmail]\nconnections = 3\n[[provider.gmail.on_reply]]\ntext = 'slow'\ndelay = '1h'\n");
    let text = site.run(&["provider", "list", "--all"]).ok();
    assert!(text.lines().any(|l| l.starts_with("gmail ") && l.contains("-/3") && l.contains("my.toml")), "{text}");
    assert!(text.lines().any(|l| l.starts_with("qq ") && l.contains("-/4") && l.contains("built-in")), "{text}");
    let shown = site.run(&["provider", "show", "gmail"]).ok();
    for line in [
        "connections = 3  # my.toml:",
        "messages_per_connection = 50  # built-in gmail: shaping rules",
        "burst = 0  # default",
        "  1. \"slow\" → recipient: delay 1h  # my.toml:",
        "  2. 4.7.28 → provider: slow_to 10/m for 30m  # built-in gmail: postmaster page",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    let json: Json = serde_json::from_str(&site.run(&["provider", "show", "gmail", "--json"]).ok()).expect("JSON");
    assert_eq!((json["name"].as_str(), json["running"].as_bool()), (Some("gmail"), Some(false)));
    assert!(
        json["rules"].as_array().is_some_and(|r| r.len() > 5)
            && json["values"].as_array().is_some_and(|v| v.len() > 20)
    );
    let profile = site.run(&["provider", "show", "ses"]).ok();
    assert!(
        profile.contains("no provider uses now")
            && profile.contains("count = \"recipients\"  # built-in ses: vendor page")
    );
    site.run(&["provider", "show", "gmial"]).fails(69, "there is no provider or lane `gmial`");
}

#[test]
fn queue_list_gives_a_line_for_each_recipient() {
    let (site, fake) = (Site::new(""), Fake::new());
    let _serving = site.serve(&fake);
    let rows = json_lines(&site.run(&["queue", "list", "--json"]).ok());
    assert_eq!(rows.len(), 6);
    let mut fields: Vec<&String> = rows[0].as_object().expect("an object").keys().collect();
    fields.sort();
    let mut want = [
        "id",
        "index",
        "sender",
        "recipient",
        "provider",
        "lane",
        "state",
        "priority",
        "attempts",
        "due",
        "size",
        "received",
        "reason",
        "release",
        "waits",
        "report_due",
        "user",
    ];
    want.sort_unstable();
    assert_eq!(fields, want);
    assert_eq!(rows[0]["recipient"], "a@x.example");

    let recipients = |args: &[&str]| -> Vec<String> {
        let args: Vec<&str> = ["queue", "list", "--json"].iter().chain(args).copied().collect();
        json_lines(&site.run(&args).ok())
            .iter()
            .map(|r| r["recipient"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(recipients(&["--state", "failed"]), ["f@y.example"]);
    assert_eq!(recipients(&["--domain", "y.example", "--state", "queued"]), ["d@y.example"]);
    assert_eq!(recipients(&["--recipient", "a@*"]), ["a@x.example"]);
    assert_eq!(recipients(&["--older-than", "2h"]), ["a@x.example", "b@x.example", "c@x.example"]);
    assert_eq!(recipients(&["--reason", "*try later*"]), ["b@x.example"]);
    assert_eq!(recipients(&["--sender", "<>"]), ["d@y.example", "e@y.example", "f@y.example"]);
    assert_eq!(recipients(&[&fake.ids()[1], "--id", &fake.ids()[0], "--limit", "4"]).len(), 4);

    let done = site.run(&["queue", "list", "--limit", "2"]);
    assert!(done.err.contains("there are more than 2: see --limit"), "{}", done.err);
    let text = done.ok();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("ID ") && lines[0].ends_with(" REASON"), "{text}");
    assert!(lines[2].ends_with("b@x.example  451 4.3.0 try later\\x0aplease"), "{text}");
    let column = |name| lines[0].find(name).expect("a column");
    assert!(lines[1][column("DUE")..].contains("Z (") && lines[1][column("STATE")..].starts_with("queued"), "{text}");
    // Whoever stops reading is no error.
    let mut head = site.command(&["queue", "list", "--json"]).stdout(Stdio::piped()).spawn().expect("it starts");
    drop(head.stdout.take());
    assert_eq!(head.wait().expect("it ends").code(), Some(0));
}

#[test]
fn queue_show_tells_about_a_message() {
    let (site, fake) = (Site::new(""), Fake::new());
    let _serving = site.serve(&fake);
    let id = &fake.ids()[0];
    let text = site.run(&["queue", "show", id]).ok();
    for part in
        [&format!("message     {id}\n"), "sender      s@shop.example\n", "recipients  3\n", "b@x.example", "(3h ago)"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("Subject") && !text.contains("report  "), "{text}");
    let owing = site.run(&["queue", "show", &fake.ids()[1]]).ok();
    let line = owing.lines().find(|line| line.starts_with("report  ")).expect("a line about the report");
    assert!(
        line.starts_with("report      owed to the sender on 1 of them, goes by ") && line.contains("(in "),
        "{line}"
    );
    let text = site.run(&["queue", "show", id, "--headers"]).ok();
    assert!(text.contains("Subject: hello\r\n") && !text.contains("the body"), "{text}");
    let text = site.run(&["queue", "show", id, "--body"]).ok();
    assert!(text.ends_with("\nSubject: hello\r\n\r\nthe body\r\n"), "{text}");
    let rows = json_lines(&site.run(&["queue", "show", id, "--json", "--headers"]).ok());
    assert_eq!((rows.len(), rows[3]["headers"].as_str()), (4, Some("Subject: hello\r\n")));
    site.run(&["queue", "show", "0000000000001"]).fails(69, "there is no message 0000000000001 in the queue");
}

#[test]
fn operations_change_what_matches_and_leave_alone_what_is_in_flight() {
    let (site, fake) = (Site::new(""), Fake::new());
    let serving = site.serve(&fake);
    // c waits in memory and is taken from the scheduler; e is in a transaction.
    let out = site.run(&["queue", "hold", "--all", "--json"]).ok();
    let done = &json_lines(&out)[0];
    assert_eq!(
        (done["operation"].as_str(), done["matched"].as_u64(), done["changed"].as_u64(), done["in_flight"].as_u64()),
        (Some("hold"), Some(6), Some(4), Some(1))
    );
    assert_eq!(fake.states(), ["held", "held", "held", "held", "leased", "failed"]);
    assert!(fake.woken().is_empty(), "nothing is due");
    assert_eq!(site.run(&["queue", "release", "--recipient", "a@*"]).ok(), "1 of 1 recipients released\n");
    assert_eq!(fake.woken(), ["gmail"]);
    assert_eq!(
        site.run(&["queue", "retry", &fake.ids()[1]]).ok(),
        "1 of 3 recipients to be tried now; 1 in flight were left alone\n"
    );
    assert_eq!(fake.states(), ["queued", "held", "held", "held", "leased", "queued"]);
    assert_eq!(site.run(&["queue", "cancel", "--state", "held"]).ok(), "3 of 3 recipients removed\n");
    assert_eq!(fake.states(), ["queued", "leased", "queued"]);
    assert_eq!(site.run(&["queue", "cancel", "--sender", "nobody@*"]).ok(), "0 of 0 recipients removed\n");
    // What was named and is not there: a script is to know.
    for operation in ["cancel", "hold", "release", "retry"] {
        let done = site.run(&["queue", operation, "1aaaaaaaaaaaa", "1aaaaaaaaaaab"]);
        let told = "nothing that matches in the queue: 1aaaaaaaaaaaa and 1 more (it may have left: the log has its id)";
        assert!(
            done.code == 69 && done.out.starts_with("0 of 0 recipients ") && done.err.contains(told),
            "{} {}",
            done.code,
            done.err
        );
    }
    assert!(site.socket().exists());
    drop(serving);
    assert!(!site.socket().exists(), "the socket goes with its server");
}

#[test]
fn a_queue_in_trouble_is_a_temporary_failure_and_what_was_taken_goes_back() {
    let (site, fake) = (Site::new(""), Fake::new());
    let _serving = site.serve(&fake);
    fake.fail_operations(true);
    site.run(&["queue", "hold", "--all"])
        .fails(75, "the queue is not available: disk trouble (after 2 recipients were changed)");
    // The page with what waits in memory failed; the one before it was done. What was taken from the
    // scheduler is with it again, without a word to the store that is in trouble.
    assert_eq!(fake.states(), ["held", "held", "leased", "queued", "leased", "failed"]);
    assert_eq!(fake.in_memory().len(), 1);
    fake.fail_operations(false);
    assert!(site.run(&["queue", "hold", "--all"]).ok().starts_with("2 of 6 recipients"));
    assert_eq!(fake.states(), ["held", "held", "held", "held", "leased", "failed"]);
    assert_eq!(fake.in_memory(), []);
}

#[test]
fn providers_and_status() {
    let (site, fake) = (Site::new(""), Fake::new());
    let _serving = site.serve(&fake);
    let of_interest = json_lines(&site.run(&["provider", "list", "--json"]).ok());
    let names: Vec<&str> = of_interest.iter().filter_map(|l| l["name"].as_str()).collect();
    assert_eq!(names, ["@y.example", "gmail"], "what has mail, and no profile besides");
    let lanes = json_lines(&site.run(&["provider", "list", "--all", "--json"]).ok());
    let names: Vec<&str> = lanes.iter().filter_map(|l| l["name"].as_str()).collect();
    assert!(names.is_sorted() && names.contains(&"@y.example") && names.contains(&"yahoo"), "{names:?}");
    let gmail = lanes.iter().find(|l| l["name"] == "gmail").expect("a lane");
    assert_eq!((gmail["waiting"].as_u64(), gmail["messages_per_connection"].as_u64()), (Some(7), Some(50)));
    assert_eq!((gmail["running"].as_bool(), gmail["from"].as_str()), (Some(true), Some("built-in")));
    let text = site.run(&["provider", "list"]).ok();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("gmail       7        2          2/10         20/s  50 "), "{text}");
    assert_eq!(
        site.run(&["provider", "pause", "gmail"]).ok(),
        "gmail is paused; what is in a transaction now still ends\n"
    );
    assert!(site.run(&["provider", "show", "gmail"]).ok().contains("state        paused by an operator\n"));
    assert_eq!(site.run(&["provider", "resume", "gmail"]).ok(), "gmail goes on\n");
    // A host that hangs is nobody's wish, and no limit of the configuration.
    for (name, why) in [
        ("hangs", "what holds it is no pause, and ends when what causes it does"),
        ("used-up", "what holds it is the configuration's own"),
    ] {
        let said = site.run(&["provider", "resume", name]).ok();
        assert!(said.ends_with(&format!("nothing leaves {name} yet: {why}\n")), "{said}");
    }
    site.run(&["provider", "pause", "gmial"]).fails(69, "there is no provider or lane `gmial`");
    site.run(&["provider", "show", "gmial"]).fails(69, "there is no provider or lane `gmial`");
    let status: Json = serde_json::from_str(&site.run(&["status", "--json"]).ok()).expect("JSON");
    assert_eq!((status["version"].as_str(), status["queue"]["queued"].as_u64()), (Some("9.9"), Some(3)));
    assert!(site.run(&["status"]).ok().contains("mailweir 9.9 on relay.example, process 7\n"));
}

#[test]
fn a_socket_left_by_a_killed_process_is_replaced_and_a_live_one_is_not() {
    use std::os::unix::fs::PermissionsExt;
    let (site, fake) = (Site::new(""), Fake::new());
    drop(std::os::unix::net::UnixListener::bind(site.socket()).expect("bound"));
    assert!(site.socket().exists());
    let _serving = site.serve(&fake);
    let mode = std::fs::metadata(site.socket()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(json_lines(&site.run(&["queue", "list", "--json"]).ok()).len(), 6);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _guard = runtime.enter();
    let e = ControlServer::bind(&site.socket()).expect_err("it is taken");
    assert_eq!(e.kind(), std::io::ErrorKind::AddrInUse);
    let long = site.dir.path().join("x".repeat(120));
    let e = ControlServer::bind(&long).expect_err("too long").to_string();
    assert!(e.contains("the path of the control socket") && e.contains("where a socket can have 107"), "{e}");
}

#[test]
fn junk_on_the_socket_gets_an_error_and_harms_nothing() {
    let (site, fake) = (Site::new(""), Fake::new());
    let _serving = site.serve(&fake);
    for junk in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"{\"do\":\"explode\"}\n",
        b"{\"do\":\"list\",\"filter\":{\"id\":\"x\"},\"limit\":1}\n",
        b"\xff\xfe\n",
        b"{}",
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(site.socket()).expect("connected");
        stream.write_all(junk).expect("written");
        stream.shutdown(std::net::Shutdown::Write).expect("shut");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("{\"error\":{\"message\":\"") && answer.ends_with("}\n"), "{answer}");
    }
    let mut stream = std::os::unix::net::UnixStream::connect(site.socket()).expect("connected");
    let long = vec![b'x'; 300_000];
    // The server stops reading at its limit, so writing may fail: the answer is what counts.
    let _ = stream.write_all(&long);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || String::from_utf8_lossy(&answer).contains("the line is too long"));
    assert_eq!(json_lines(&site.run(&["queue", "list", "--json"]).ok()).len(), 6);
}

#[test]
fn the_defaults_need_no_file() {
    let config = Config::default();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].address.to_string(), "localhost:2525");
    assert_eq!(config.queue.store, Store::Sqlite(Path::new("var/mailweir.db").to_owned()));
    assert!(config.providers.iter().all(|p| p.relay.is_none()) && config.routes.is_empty() && config.admin.is_none());
}
