//! `provider resume`: ends what holds a lane, and has what was put off because of it tried now.

use std::collections::BTreeSet;
use std::io;

use super::Controls;
use super::requests::{Done, Failure, Reply, Sink, operate, unknown_lane};
use crate::clock::Clock;
use crate::pipeline::put_off_by;
use crate::queue::{Operation, QueueError};

/// It is done, and the store does not know.
pub(super) fn only_for_now(name: &str, state: &str, error: QueueError) -> Failure {
    let mut failure = Failure::of_queue(error, Done::default());
    failure.message = format!("`{name}` is {state}, but only until mailweir ends: {}", failure.message);
    failure
}

/// The lanes go on, and what waited for its retry still does.
fn not_due(name: &str, mut failure: Failure) -> Failure {
    failure.message = format!(
        "`{name}` is resumed, but what its hosts put off keeps its times: {}; `mailweir queue retry --provider {name}` has it tried",
        failure.message
    );
    failure
}

/// Ends what holds a lane; what was put off, tried or not, because of its host, its TLS or its login is due now.
pub(super) async fn resume(
    controls: &dyn Controls,
    clock: Clock,
    name: &str,
    sink: &mut dyn Sink,
) -> io::Result<Result<Done, Failure>> {
    let lanes = match controls.resume(name).await {
        Ok(Some(lanes)) => lanes,
        Ok(None) => return Ok(Err(unknown_lane(name))),
        Err(e) => return Ok(Err(only_for_now(name, "resumed", e))),
    };
    let mut done = Done::default();
    for lane in lanes {
        // Whatever it was, somebody says that it is mended. What was said about a message or a recipient has its own times.
        let filter = put_off_by("", lane.name.clone());
        match operate(controls, clock, Operation::Retry, filter, &mut BTreeSet::new()).await {
            Ok(more) => {
                done.matched += more.matched;
                done.changed += more.changed;
            }
            Err(failure) => return Ok(Err(not_due(name, failure))),
        }
        sink.put(Reply::Resumed(Box::new(lane)), &[]).await?;
    }
    Ok(Ok(done))
}
