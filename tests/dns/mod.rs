//! DNS for tests: a real authoritative server (NSD) over `tests/zones`, and in front of it a proxy
//! that counts questions and can fail the way broken name servers do.

#![allow(dead_code, clippy::unwrap_used)]

pub mod signed;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, CNAME, MX, NS};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// The zones served from `tests/zones`; `broken` has no file, so the server says SERVFAIL for it.
const ZONES: [&str; 4] = ["example", "com", "other", "broken"];

/// A running NSD on loopback; stopped when dropped.
pub struct Nsd {
    child: Child,
    pub address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Nsd {
    /// Starts the server and waits until it answers.
    pub fn start() -> Nsd {
        // Another process may take a free port before NSD does.
        for _ in 0..5 {
            if let Some(nsd) = Nsd::try_start() {
                return nsd;
            }
        }
        panic!("nsd does not start");
    }

    fn try_start() -> Option<Nsd> {
        let dir = tempfile::tempdir().unwrap();
        let address = free_port();
        let here = dir.path().display();
        let zones = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/zones");
        let mut config = format!(
            "server:\n ip-address: 127.0.0.1@{}\n username: \"\"\n chroot: \"\"\n zonesdir: \"{zones}\"\n database: \"\"\n \
             pidfile: \"{here}/pid\"\n xfrdfile: \"{here}/xfrd\"\n zonelistfile: \"{here}/zones\"\n xfrdir: \"{here}\"\n \
             logfile: \"{here}/log\"\n server-count: 1\n rrl-ratelimit: 0\nremote-control:\n control-enable: no\n",
            address.port()
        );
        for zone in ZONES {
            config.push_str(&format!("zone:\n name: {zone}\n zonefile: {zone}.zone\n"));
        }
        let file = dir.path().join("nsd.conf");
        std::fs::write(&file, config).unwrap();
        let mut child = ["nsd", "/usr/sbin/nsd"]
            .into_iter()
            .find_map(|nsd| {
                let mut command = Command::new(nsd);
                command.arg("-d").arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                command.spawn().ok()
            })
            .expect("nsd is needed for this test: install the package `nsd`");
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            if answers(address) {
                return Some(Nsd { child, address, _dir: dir });
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        None
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // SIGTERM, so that its child processes end too.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Whether the server answers for the zone `example`; waits at most 50 ms.
fn answers(server: SocketAddr) -> bool {
    answers_for(server, "example.")
}

/// Whether the server answers for this zone; waits at most 50 ms.
fn answers_for(server: SocketAddr, zone: &str) -> bool {
    let mut query = Message::new(7, hickory_resolver::proto::op::MessageType::Query, OpCode::Query);
    query.add_query(hickory_resolver::proto::op::Query::query(Name::from_ascii(zone).unwrap(), RecordType::SOA));
    let socket = StdUdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = [0; 512];
    let received = socket
        .send_to(&query.to_vec().unwrap(), server)
        .and_then(|_| socket.recv(&mut buffer))
        .ok()
        .and_then(|n| Message::from_vec(&buffer[..n]).ok());
    if received.is_none() {
        // A closed port answers at once.
        std::thread::sleep(Duration::from_millis(5));
    }
    received.is_some_and(|m| !m.answers.is_empty())
}

/// A loopback port that is free for UDP and TCP.
fn free_port() -> SocketAddr {
    loop {
        let udp = StdUdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = udp.local_addr().unwrap();
        if StdTcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// How a [`Front`] behaves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mood {
    /// Asks the real server.
    Forward,
    /// Says nothing.
    Silent,
    /// Answers with this code.
    Code(ResponseCode),
    /// Answers every question with records of other names.
    Lie,
    /// Answers every question with a CNAME that was followed before.
    Circle,
    /// Answers with name servers to ask instead.
    Refer,
    /// Like a server older than EDNS: FORMERR to a question with OPT, else asks the real server.
    NoEdns,
    /// Says SERVFAIL to questions for this type, forwards the others.
    Broken(RecordType),
}

/// A name server of its own address that counts, and forwards or misbehaves.
pub struct Front {
    pub address: SocketAddr,
    state: Arc<State>,
    tasks: Vec<JoinHandle<()>>,
}

struct State {
    mood: Mutex<Mood>,
    asked: Mutex<HashMap<(String, RecordType), usize>>,
    tcp: Mutex<usize>,
}

impl Front {
    /// Starts it before `server`.
    pub async fn start(server: SocketAddr) -> Front {
        let state = Arc::new(State { mood: Mutex::new(Mood::Forward), asked: Mutex::default(), tcp: Mutex::default() });
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (Arc::new(udp), tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let shared = state.clone();
        let on_udp = tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            loop {
                let (n, client) = udp.recv_from(&mut buffer).await.unwrap();
                let question = buffer[..n].to_vec();
                let (udp, state) = (udp.clone(), shared.clone());
                tokio::spawn(async move {
                    if let Some(answer) = answer(&state, question, server).await {
                        udp.send_to(&answer, client).await.unwrap();
                    }
                });
            }
        });
        let shared = state.clone();
        let on_tcp = tokio::spawn(async move {
            loop {
                let (mut client, _) = tcp.accept().await.unwrap();
                *shared.tcp.lock() += 1;
                tokio::spawn(async move {
                    let mut upstream = TcpStream::connect(server).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
                });
            }
        });
        Front { address, state, tasks: vec![on_udp, on_tcp] }
    }

    pub fn set(&self, mood: Mood) {
        *self.state.mood.lock() = mood;
    }

    /// How often this was asked since the last [`Front::forget`], over UDP.
    pub fn asked(&self, name: &str, kind: RecordType) -> usize {
        self.state.asked.lock().get(&(name.to_owned(), kind)).copied().unwrap_or(0)
    }

    /// Questions of any kind since the last [`Front::forget`], over UDP.
    pub fn total(&self) -> usize {
        self.state.asked.lock().values().sum()
    }

    /// Names that were asked for since the last [`Front::forget`].
    pub fn names(&self) -> Vec<String> {
        self.state.asked.lock().keys().map(|(name, _)| name.clone()).collect()
    }

    /// TCP connections so far.
    pub fn tcp_connections(&self) -> usize {
        *self.state.tcp.lock()
    }

    pub fn forget(&self) {
        self.state.asked.lock().clear();
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn answer(state: &State, question: Vec<u8>, server: SocketAddr) -> Option<Vec<u8>> {
    let message = Message::from_vec(&question).unwrap();
    let query = message.queries.first().unwrap().clone();
    *state.asked.lock().entry((query.name().to_string(), query.query_type())).or_default() += 1;
    let mood = *state.mood.lock();
    let mut reply = Message::response(message.metadata.id, OpCode::Query);
    reply.add_query(query.clone());
    let stranger = Name::from_ascii("stranger.example.").unwrap();
    match mood {
        Mood::Silent => return None,
        Mood::Code(code) => reply.metadata.response_code = code,
        Mood::NoEdns if message.edns.is_some() => reply.metadata.response_code = ResponseCode::FormErr,
        Mood::Broken(kind) if query.query_type() == kind => {
            reply.metadata.response_code = ResponseCode::ServFail;
        }
        Mood::Lie => {
            let data = match query.query_type() {
                RecordType::MX => RData::MX(MX::new(1, stranger.clone())),
                _ => RData::A(A::new(192, 0, 2, 99)),
            };
            reply.add_answer(Record::from_rdata(stranger, 300, data));
        }
        Mood::Circle => {
            // `first.example` leads to `second.example`, and so says every answer.
            let [first, second] = ["first.example.", "second.example."].map(|n| Name::from_ascii(n).unwrap());
            reply.add_answer(Record::from_rdata(first, 300, RData::CNAME(CNAME(second))));
        }
        Mood::Refer => {
            reply.add_authority(Record::from_rdata(query.name().clone(), 300, RData::NS(NS(stranger))));
        }
        Mood::Forward | Mood::NoEdns | Mood::Broken(_) => {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            socket.send_to(&question, server).await.unwrap();
            let mut buffer = vec![0; 4096];
            let n = socket.recv(&mut buffer).await.unwrap();
            buffer.truncate(n);
            return Some(buffer);
        }
    }
    Some(reply.to_vec().unwrap())
}
