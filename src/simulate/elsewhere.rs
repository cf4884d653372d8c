//! Mail that a source has no room for today and that is to leave from another (`overflow = "source"`),
//! as `pipeline::moves` does it: to the next source that takes it, into memory while that has room,
//! else into its store.

use std::sync::Arc;

use super::store::Waiting;
use super::{Site, World, attend};
use crate::schedule::{Job, WINDOW};

impl World {
    /// What waits in the lane of a source without room goes to one that has some.
    pub(super) async fn move_on(self: &Arc<World>, at: &Arc<Site>) {
        if at.siblings.len() < 2 || !at.lane.overflows_now().await {
            return;
        }
        if self.elsewhere(at).is_none() {
            return;
        }
        // What is stored comes into memory on its way, a window at a time.
        loop {
            let mut waiting = at.lane.drain().into_iter();
            if waiting.len() == 0 {
                return;
            }
            while let Some(job) = waiting.next() {
                let Some(to) = self.elsewhere(at) else {
                    let wake = at.lane.push(std::iter::once(job).chain(waiting));
                    return self.wake(at, wake);
                };
                self.hand_over(to, job);
            }
            attend(self, at);
        }
    }

    /// The next source that takes mail now.
    fn elsewhere(&self, from: &Site) -> Option<&Arc<Site>> {
        let sources = self.sites.get(from.siblings.clone())?;
        let own = sources.iter().position(|site| std::ptr::eq(&**site, from))?;
        let (before, behind) = sources.split_at(own);
        behind.iter().skip(1).chain(before).find(|site| !site.lane.overflows())
    }

    fn hand_over(self: &Arc<World>, to: &Arc<Site>, job: Job) {
        if to.lane.in_memory() + job.recipients.len() <= WINDOW {
            let wake = to.lane.push([job]);
            self.wake(to, wake);
            return;
        }
        let due = self.now();
        for held in &job.recipients {
            to.store.lock().put_off(Waiting { due, index: held.index, attempts: held.attempts });
        }
        to.lane.note_stored(due);
        to.changed.notify_one();
    }
}
