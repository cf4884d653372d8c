//! PIPELINING where it is offered and does not work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_trait::async_trait;
use mailweir::deliver::Io;
use mailweir::deliver::connect::Dialer;

use crate::common::*;
use crate::connecting::{connector, host, route};
use crate::server::play;

/// Plays one script to each connection, in their order.
struct Scripts {
    scripts: Vec<&'static str>,
    dials: AtomicUsize,
}

#[async_trait]
impl Dialer for Scripts {
    async fn dial(&self, _: std::net::SocketAddr) -> std::io::Result<Box<dyn Io>> {
        let script = self.scripts[self.dials.fetch_add(1, SeqCst)];
        let (ours, theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let played = play(theirs, script, None).await;
            assert!(played.is_ok(), "{played:?}");
        });
        Ok(Box::new(ours))
    }
}

/// Some servers offer it, read a command, and throw away what came with it.
#[tokio::test(start_paused = true)]
async fn it_goes_off_where_only_the_first_command_gets_a_reply() {
    let loses = "hello PIPELINING\nC: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nstall";
    let serial = "hello PIPELINING\nC: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\ndata\nS: 250 ok\neof";
    let connector =
        connector().with_dialer(Arc::new(Scripts { scripts: vec![loses, serial], dials: AtomicUsize::new(0) }));
    let route = route(25, vec![host("a.example", 10, &["192.0.2.1"])]);
    for expected in ["RCPT: no answer within 300 s", "end of data: 250 ok"] {
        let mut connection = connector.open(&provider(), &route).await.expect("a session");
        assert_eq!(fates(&hello().send(&mut connection, &["a@x.example"]).await), [expected]);
    }
}
