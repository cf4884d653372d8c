//! Name servers for a measurement: every domain below `bench.example` has the mail host
//! `mx.bench.example`, every one below `cold.example` has `mx.cold.example`; both are 127.0.0.1.
//!
//! [`Server::nsd`] is a real one. [`Server::own`] can be as slow as name servers of the Internet
//! are, and leave some questions without an answer.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, MX, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

const TTL: u32 = 3600;

/// A name server that runs.
pub struct Server {
    /// Where it answers.
    pub address: SocketAddr,
    /// Questions that came, if it counts them.
    pub asked: Option<Arc<AtomicU64>>,
    child: Option<Child>,
    _files: Option<tempfile::TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // SIGTERM, so that it ends its children too.
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let _ = child.wait();
        }
    }
}

impl Server {
    /// NSD, if it is installed.
    pub fn nsd() -> io::Result<Option<Server>> {
        let files = tempfile::tempdir()?;
        let here = files.path().display().to_string();
        let address = free_port()?;
        let zone = format!(
            "$ORIGIN bench.example.\n$TTL {TTL}\n@ SOA ns hostmaster 1 3600 600 86400 300\n@ NS ns\nns A 127.0.0.1\n\
             mx A 127.0.0.1\n* MX 10 mx\n"
        );
        std::fs::write(files.path().join("bench.example.zone"), zone)?;
        let config = format!(
            "server:\n  ip-address: 127.0.0.1@{}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{here}\"\n  database: \"\"\n  \
             pidfile: \"{here}/pid\"\n  xfrdfile: \"{here}/xfrd\"\n  zonelistfile: \"{here}/list\"\n  xfrdir: \"{here}\"\n  \
             logfile: \"{here}/log\"\n  rrl-ratelimit: 0\nremote-control:\n  control-enable: no\n\
             zone:\n  name: bench.example\n  zonefile: bench.example.zone\n",
            address.port()
        );
        let file = files.path().join("nsd.conf");
        std::fs::write(&file, config)?;
        let spawned = ["nsd", "/usr/sbin/nsd"].into_iter().find_map(|program| {
            let mut command = Command::new(program);
            command.arg("-d").arg("-c").arg(&file);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
        });
        let Some(child) = spawned else { return Ok(None) };
        let server = Server { address, asked: None, child: Some(child), _files: Some(files) };
        let began = Instant::now();
        while !answers(address)? {
            if began.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::other("nsd does not answer"));
            }
        }
        Ok(Some(server))
    }

    /// A thread of this program. Answers come after `delay`; of the domains `dN.…` those whose N is
    /// a multiple of `silent` get none (0: all get one).
    pub fn own(delay: Duration, silent: u64) -> io::Result<Server> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let asked = Arc::new(AtomicU64::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let counter = asked.clone();
        thread::spawn(move || {
            runtime.block_on(async move {
                let socket = Arc::new(tokio::net::UdpSocket::from_std(socket)?);
                let mut buffer = vec![0; 4096];
                loop {
                    let Ok((n, client)) = socket.recv_from(&mut buffer).await else { continue };
                    counter.fetch_add(1, Ordering::Relaxed);
                    let Some(reply) = buffer.get(..n).and_then(|question| answer(question, silent)) else { continue };
                    let socket = socket.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(delay).await;
                        let _ = socket.send_to(&reply, client).await;
                    });
                }
                #[allow(unreachable_code)]
                io::Result::Ok(())
            })
        });
        Ok(Server { address, asked: Some(asked), child: None, _files: None })
    }
}

/// A port that is free for UDP and for TCP, of which the load before may have left few.
fn free_port() -> io::Result<SocketAddr> {
    let mut last = io::Error::other("no port is free");
    for _ in 0..100 {
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether a server answers for `bench.example`; waits at most 50 ms.
fn answers(server: SocketAddr) -> io::Result<bool> {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(name("bench.example.")?, RecordType::SOA));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    socket.send_to(&query.to_vec().map_err(io::Error::other)?, server)?;
    let mut buffer = [0; 512];
    let answered = socket.recv(&mut buffer).is_ok();
    if !answered {
        // A closed port answers at once.
        thread::sleep(Duration::from_millis(10));
    }
    Ok(answered)
}

fn name(text: &str) -> io::Result<Name> {
    Name::from_str(text).map_err(io::Error::other)
}

fn answer(question: &[u8], silent: u64) -> Option<Vec<u8>> {
    let message = Message::from_vec(question).ok()?;
    let query = message.queries.first()?.clone();
    let asked = query.name().to_lowercase();
    let text = asked.to_ascii();
    let number = text.strip_prefix('d').and_then(|rest| rest.split('.').next()).and_then(|n| n.parse::<u64>().ok());
    if silent > 0 && number.is_some_and(|n| n % silent == 0) {
        return None;
    }
    let zone = if text.ends_with("cold.example.") { "cold.example." } else { "bench.example." };
    let is_host = text.starts_with("mx.");
    let mut reply = Message::response(message.metadata.id, OpCode::Query);
    reply.metadata.authoritative = true;
    reply.metadata.response_code = ResponseCode::NoError;
    reply.add_query(query.clone());
    let data = match query.query_type() {
        RecordType::MX if !is_host => Some(RData::MX(MX::new(10, name(&format!("mx.{zone}")).ok()?))),
        RecordType::A if is_host => Some(RData::A(A::from(Ipv4Addr::LOCALHOST))),
        _ => None,
    };
    match data {
        Some(data) => _ = reply.add_answer(Record::from_rdata(query.name().clone(), TTL, data)),
        None => {
            let zone = name(zone).ok()?;
            let soa = SOA::new(zone.clone(), zone.clone(), 1, 3600, 600, 86_400, 300);
            reply.add_authority(Record::from_rdata(zone, TTL, RData::SOA(soa)));
        }
    }
    reply.to_vec().ok()
}
