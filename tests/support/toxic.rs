//! In front of a receiver, what a bad network does to connections.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// What happens to what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// Nothing.
    Pass,
    /// Closed without a word in the middle of a body.
    Cut,
    /// The same by a reset, which also takes away what was under way.
    Reset,
    /// A byte at a time, each 2 ms after the one before, both ways.
    Trickle,
    /// Everything comes 300 ms late, both ways.
    Late,
    /// Takes connections and lets nothing through; ends when the mood does.
    BlackHole,
}

/// Bytes towards the server after which a connection is cut.
const CUT_AFTER: usize = 1500;

/// A proxy.
pub struct Toxic {
    pub address: SocketAddr,
    mood: Arc<AtomicU8>,
    seen: Arc<AtomicUsize>,
}

impl Toxic {
    pub fn start(address: SocketAddr, server: SocketAddr) -> Toxic {
        let listener = TcpListener::bind(address).expect("the address of the proxy");
        let (mood, seen) = (Arc::new(AtomicU8::new(Mood::Pass as u8)), Arc::new(AtomicUsize::new(0)));
        let (of_thread, count) = (mood.clone(), seen.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let mood = of_thread.clone();
                thread::spawn(move || {
                    let Ok(server) = TcpStream::connect(server) else { return };
                    let back = (server.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
                    let mood_back = mood.clone();
                    thread::spawn(move || pump(back.0, back.1, &mood_back, usize::MAX));
                    pump(client, server, &mood, CUT_AFTER);
                });
            }
        });
        Toxic { address, mood, seen }
    }

    pub fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// Connections so far.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, mood: &AtomicU8, cut_after: usize) {
    let is = |wanted: Mood| mood.load(Ordering::SeqCst) == wanted as u8;
    let mut passed = 0;
    let mut buffer = [0; 1024];
    loop {
        let size = if is(Mood::Trickle) { 1 } else { buffer.len() };
        let Ok(n @ 1..) = from.read(&mut buffer[..size]) else { break };
        while is(Mood::BlackHole) {
            thread::sleep(Duration::from_millis(5));
        }
        passed += n;
        if passed > cut_after && is(Mood::Cut) {
            break;
        }
        if passed > cut_after && is(Mood::Reset) {
            // Closing the last handle then sends a reset. The other direction has one too, and ends
            // with the server's side.
            let _ = socket2::SockRef::from(&from).set_linger(Some(Duration::ZERO));
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
        match () {
            () if is(Mood::Trickle) => thread::sleep(Duration::from_millis(2)),
            () if is(Mood::Late) => thread::sleep(Duration::from_millis(300)),
            () => {}
        }
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    if is(Mood::Reset) {
        return;
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
