//! Feedback on virtual time: what a lane of the simulation learns, as in the relay.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Site, World, attend};
use crate::clock::Timestamp;
use crate::deliver::Fact;
use crate::pipeline::lesson::{TICK, Teach};
use crate::schedule::{Lane, Wake};
use crate::shape::adapt::{Effect, Finding};

/// A lane of the simulation.
pub(super) struct OfSite<'a> {
    pub(super) world: &'a Arc<World>,
    pub(super) site: &'a Arc<Site>,
}

impl Teach for OfSite<'_> {
    fn lane(&self) -> &Arc<Lane> {
        &self.site.lane
    }

    fn now(&self) -> Timestamp {
        self.world.now()
    }

    fn taught(&self, changed: bool, wake: Wake) {
        self.world.wake(self.site, wake);
        if changed && !self.site.ticking.swap(true, Ordering::Relaxed) {
            tokio::spawn(pass_time(self.world.clone(), self.site.clone()));
        }
    }

    fn throttled(&self, _: &Fact, _: &str, _: &[Effect]) {}

    fn alert(&self, _: &str, _: &Fact) {}

    fn spent(&self, _: u32) {}

    fn used_up(&self, _: &str) {}

    fn found(&self, _: &Finding) {}
}

/// Lets time pass for what a lane has learned, until it has forgotten all of it.
async fn pass_time(world: Arc<World>, site: Arc<Site>) {
    loop {
        tokio::time::sleep(TICK).await;
        let known = OfSite { world: &world, site: &site }.teach(|adapt, _| !adapt.is_idle());
        // A hold that has ended lets the queue be read again.
        attend(&world, &site);
        if !known {
            site.ticking.store(false, Ordering::Relaxed);
            return;
        }
    }
}
