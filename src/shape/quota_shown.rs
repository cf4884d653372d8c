//! What operators and planners ask of an account: how much of each quota and of a warm-up's day is used, and
//! when some of it is free again. Takes nothing. Pure.

use std::time::Duration;

use super::{Account, At};
use crate::clock::Timestamp;
use crate::config::Count;

impl Account {
    /// Of a cap: cells that are used and cells there are, and how long until the first of those used is free.
    pub fn usage(&mut self, cap: usize, at: At) -> Option<(u32, u32, Duration)> {
        self.advance(at);
        let cap = self.caps.get(cap)?;
        let room = self.room_of(cap);
        let used = cap.most() - room;
        let back = if used == 0 { Duration::ZERO } else { self.wait_of(cap, room.saturating_add(1).min(cap.most())) };
        Some((used, cap.most(), back))
    }

    /// Of the plan: which day of how many counts now, cells that are used and cells there are, and how
    /// long until the next day, or the first one; `None`: there is none, or it is over.
    pub fn day_usage(&mut self, at: At) -> Option<((u32, u32), u32, u32, Duration)> {
        self.advance(at);
        let (most, of) = self.allowance()?;
        let (plan, _) = self.plan.as_ref()?;
        let (day, length) = (plan.day(self.day.midnight()).max(1), plan.length);
        let used = self.used_today(of).min(most);
        let back = if used == 0 && most > 0 { Duration::ZERO } else { self.day_wait(u32::MAX, at.clock) };
        Some(((day, length), used, most, back))
    }

    /// When the plan begins, before it has.
    pub fn begins(&mut self, at: At) -> Option<Timestamp> {
        self.advance(at);
        let (plan, _) = self.plan.as_ref()?;
        (plan.day(self.day.midnight()) == 0).then_some(plan.start)
    }

    /// What the plan is called in reports, see [`Warmup::status`]; empty when there is none, or it is over.
    pub fn plan_text(&self) -> String {
        self.plan.as_ref().map(|(plan, _)| plan.status(self.day.midnight())).unwrap_or_default()
    }

    /// Whether nothing more may leave today by the plan.
    pub fn day_is_used_up(&mut self, at: At) -> bool {
        self.advance(at);
        self.allowance().is_some_and(|(most, of)| self.day_room(most, of) == 0)
    }

    /// The most recipients that could be taken in `wait`, if nobody takes any meanwhile; `u32::MAX`:
    /// nothing counts them.
    pub fn room_for_recipients(&mut self, wait: Duration, at: At) -> u32 {
        let now = self.advance(at);
        let then = now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        let of_recipients = |of: Count| of == Count::Recipients;
        let caps = self.caps.iter().filter(|cap| of_recipients(cap.of)).map(|cap| {
            let out = u64::from(self.out.recipients);
            let used = self.left_in(cap, then) + out;
            u32::try_from(u64::from(cap.most()).saturating_sub(used)).unwrap_or(u32::MAX)
        });
        let day = self.allowance().filter(|(_, of)| of_recipients(*of)).map(|(most, of)| {
            let then = at.clock.after(wait);
            let plan = self.plan.as_ref().filter(|_| then >= self.day.tomorrow());
            plan.map_or_else(|| self.day_room(most, of), |(plan, _)| plan.allowance(then).unwrap_or(u32::MAX))
        });
        caps.chain(day).min().unwrap_or(u32::MAX)
    }
}
