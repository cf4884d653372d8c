//! A host that takes mail of one sender up to the dot and says nothing then.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::tests::{Faulty, World};
use super::*;
use crate::deliver::Timeouts;

/// How many transactions wait at the host, and how many at most have.
#[derive(Default)]
struct Hanging {
    now: AtomicUsize,
    most: AtomicUsize,
}

async fn serve(mut stream: TcpStream, hanging: &Hanging) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 host\r\n").await?;
    let (mut data, mut bad) = (false, false);
    while let Some(line) = lines.next_line().await? {
        bad = if line.starts_with("MAIL") { line.contains("bad@") } else { bad };
        if data && line == "." && bad {
            let now = hanging.now.fetch_add(1, Ordering::SeqCst) + 1;
            hanging.most.fetch_max(now, Ordering::SeqCst);
            // Until we give up.
            let ended = lines.next_line().await;
            hanging.now.fetch_sub(1, Ordering::SeqCst);
            ended?;
            return Ok(());
        }
        let reply: &[u8] = match (data, line.as_str()) {
            (true, ".") => b"250 ok\r\n",
            (true, _) => continue,
            (false, "DATA") => b"354 go\r\n",
            (false, _) => b"250 ok\r\n",
        };
        data = reply.starts_with(b"354");
        write.write_all(reply).await?;
    }
    Ok(())
}

#[tokio::test]
async fn who_is_left_without_an_answer_leaves_half_of_the_connections_to_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let hanging = Arc::new(Hanging::default());
    tokio::spawn({
        let hanging = hanging.clone();
        async move {
            while let Ok((stream, _)) = listener.accept().await {
                let hanging = hanging.clone();
                tokio::spawn(async move { serve(stream, &hanging).await });
            }
        }
    });
    let queue = Faulty::new(&dir);
    let timeouts = Timeouts { last: Duration::from_millis(50), ..Timeouts::default() };
    let connector = Connector::new("relay.example").expect("a connector").with_timeouts(timeouts);
    let world = World::to(address, "connections = 4\nrate = []", "1h", connector, (dir, queue)).await;
    for _ in 0..2 {
        world.accept_from("bad@s.example", 1, Duration::ZERO).await;
    }
    world.deferred(2).await;
    hanging.most.store(0, Ordering::SeqCst);
    for n in 0..20 {
        world.accept_from("bad@s.example", 1, Duration::ZERO).await;
        if n % 2 == 0 {
            world.accept_from("good@g.example", 1, Duration::ZERO).await;
        }
    }
    world.delivered(10).await;
    world.deferred(22).await;
    assert_eq!(hanging.most.load(Ordering::SeqCst), 2, "of four connections");
    world.end().await;
}
