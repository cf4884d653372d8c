//! Those who use the relay: applications that hand in mail over the real listener, and an operator.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mailweir::admin::Controls;
use mailweir::admin::requests::{Reply, Request, Sink, handle};
use mailweir::clock::Clock;
use mailweir::listener::Server;
use mailweir::mail::QueueId;
use mailweir::queue::{Filter, Operation};
use tokio::sync::watch;

use super::net::{Cut, How, Lines, pair};
use super::plan::{CALM_DOMAIN, HOUR, MINUTE, SECOND};
use super::world::World;

/// Hands in mail until the world heals.
pub async fn applications(world: Arc<World>, server: Arc<Server>, stopping: watch::Receiver<bool>) {
    loop {
        tokio::time::sleep(world.wait(world.plan.pause)).await;
        if world.now() >= world.plan.heal {
            return;
        }
        let burst = if world.chance(0.05) { world.random(2..=25) } else { 1 };
        for _ in 0..burst {
            let letter = Letter::new(&world);
            tokio::spawn(letter.submit(world.clone(), server.clone(), stopping.clone()));
        }
    }
}

struct Letter {
    sender: String,
    recipients: Vec<String>,
    lines: u64,
}

impl Letter {
    fn new(world: &World) -> Letter {
        let names: Vec<&str> = world.plan.domains.iter().map(|domain| domain.name.as_str()).collect();
        let count = if world.chance(0.7) { 1 } else { world.random(2..=8) };
        let recipients = (0..count)
            .map(|n| {
                let who = world.pick(&["user", "user", "user", "user", "user", "grey", "nobody", "later"]);
                let notify = world.pick(&[
                    "",
                    "",
                    "",
                    " NOTIFY=NEVER",
                    " NOTIFY=FAILURE",
                    " NOTIFY=SUCCESS",
                    " NOTIFY=SUCCESS,FAILURE,DELAY",
                    " NOTIFY=DELAY",
                ]);
                format!("<{who}{n}@{}>{notify}", world.pick(&names))
            })
            .collect();
        let sender = match world.random(0..=9) {
            0 => String::new(),
            1..=3 => format!("user@{}", world.pick(&names)),
            _ => format!("user@{CALM_DOMAIN}"),
        };
        Letter { sender, recipients, lines: world.random(1..=40) }
    }

    /// As applications do: again, if it did not work, and then no more.
    async fn submit(self, world: Arc<World>, server: Arc<Server>, stopping: watch::Receiver<bool>) {
        for _ in 0..4 {
            let cut = world.chance(0.04).then(|| Cut {
                to_remote: world.chance(0.5),
                after: world.random(0..=1200) as usize,
                how: world.pick(&[How::Reset, How::Hole]),
            });
            let (stream, remote) = pair(&world, (0, 2), cut, None);
            let (server, stopping) = (server.clone(), stopping.clone());
            tokio::spawn(async move { server.serve(stream, [127, 0, 0, 1].into(), stopping, 10 * SECOND).await });
            if let Ok(Some(id)) = tokio::time::timeout(20 * MINUTE, self.hand_in(&world, Lines::new(remote))).await {
                world.note(format_args!("acknowledged {id}"));
                world.model(|model| model.acknowledged(id, self.recipients.len()));
                return;
            }
            tokio::time::sleep(world.wait(5 * MINUTE)).await;
        }
    }

    /// One session; the queue id if it was taken.
    async fn hand_in(&self, world: &World, mut lines: Lines) -> Option<QueueId> {
        expect(&mut lines, "220").await?;
        lines.remote.say(b"EHLO app.example\r\n");
        expect(&mut lines, "250").await?;
        // Flights or one by one.
        let together = world.chance(0.5);
        let mut commands = vec![format!("MAIL FROM:<{}>\r\n", self.sender)];
        commands.extend(self.recipients.iter().map(|recipient| format!("RCPT TO:{recipient}\r\n")));
        if together {
            lines.remote.say(commands.concat().as_bytes());
        }
        for command in &commands {
            if !together {
                lines.remote.say(command.as_bytes());
            }
            expect(&mut lines, "250").await?;
        }
        lines.remote.say(b"DATA\r\n");
        expect(&mut lines, "354").await?;
        let mut body = String::from("Subject: simulated\r\n\r\n");
        for n in 0..self.lines {
            body.push_str(if n % 7 == 3 { ".a line that begins with a dot\r\n" } else { "a line of text\r\n" });
        }
        body.push_str(".\r\n");
        lines.remote.say(body.as_bytes());
        let taken = expect(&mut lines, "250").await?;
        lines.remote.say(b"QUIT\r\n");
        taken.rsplit(' ').next()?.parse().ok()
    }
}

/// The last line of a reply, if it has this code.
async fn expect(lines: &mut Lines, code: &str) -> Option<String> {
    loop {
        let (line, _) = lines.next().await?;
        if line.as_bytes().get(3) != Some(&b'-') {
            return line.starts_with(code).then_some(line);
        }
    }
}

/// Somebody with opinions, who leaves the calm provider alone.
pub async fn operator(world: Arc<World>, controls: Arc<dyn Controls>, clock: Clock) {
    while world.now() < world.plan.heal && !world.plan.no_operator {
        tokio::time::sleep(world.wait(5 * HOUR)).await;
        let lanes: Vec<&str> = world.plan.groups.iter().skip(1).map(|group| group.lane.as_str()).collect();
        let name = world.pick(&lanes).to_owned();
        let filter = Filter { provider: Some(name.clone()), ..Filter::default() };
        let op = |op, filter| Request::Operate { op, filter };
        let request = match world.random(0..=9) {
            0 | 1 => Request::Pause { name: name.clone() },
            2 | 3 => Request::Resume { name: name.clone() },
            4 => op(Operation::Hold, filter),
            5 | 6 => op(Operation::Release, filter),
            7 => op(Operation::Retry, filter),
            8 => op(Operation::Retry, Filter { state: Some("failed".into()), ..filter }),
            _ => op(Operation::Cancel, filter),
        };
        world.note(format_args!("operator {name} {request:?}"));
        ask(&*controls, clock, request).await;
    }
    // Then all is let go, again and again, since the disk may be in the way.
    for _ in 0..3 {
        let left = world.plan.heal.saturating_sub(world.now()) + MINUTE;
        tokio::time::sleep(left).await;
        for group in &world.plan.groups {
            ask(&*controls, clock, Request::Resume { name: group.lane.clone() }).await;
        }
        ask(&*controls, clock, Request::Operate { op: Operation::Release, filter: Filter::default() }).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
}

async fn ask(controls: &dyn Controls, clock: Clock, request: Request) {
    // A broken disk is an answer, too.
    let _ = handle(controls, clock, request, &mut Nowhere).await;
}

/// An operator who does not read.
struct Nowhere;

#[async_trait]
impl Sink for Nowhere {
    async fn put(&mut self, _: Reply, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}
