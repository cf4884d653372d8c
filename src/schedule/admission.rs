//! What goes straight to memory of a message that is about to be queued, and what waits in the queue.
//!
//! A lane takes all recipients of a message or none of them, as far as its window and the memory
//! budget go.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::{Held, Job, Lane, RECIPIENT_COST, Scheduler, Shared, WINDOW, destination, sender_key};
use crate::clock::Timestamp;
use crate::mail::{LaneName, Message, NewRecipient};

/// Recipients of one sender that go straight to memory while the queue holds more for the lane.
const SHARE: usize = 16;

/// What was decided about a message that is about to be queued.
pub struct Admission {
    /// For the queue, with `leased` decided.
    pub recipients: Vec<NewRecipient>,
    /// For the lanes, once the queue has it: [`Scheduler::submit`].
    pub admitted: Admitted,
}

impl Admission {
    /// Of a message that is stored as held: nothing of it is for the lanes.
    pub fn of_held(recipients: Vec<NewRecipient>, received: Timestamp) -> Admission {
        Admission { recipients, admitted: Admitted { jobs: Vec::new(), stored: Vec::new(), received, release: None } }
    }

    /// Of a message that waits for its time: its lanes hear when that is.
    pub fn of_later(recipients: Vec<NewRecipient>, received: Timestamp, release: Timestamp) -> Admission {
        let lanes: BTreeSet<&LaneName> = recipients.iter().map(|new| &new.lane).collect();
        let stored = lanes.into_iter().cloned().collect();
        Admission { recipients, admitted: Admitted { jobs: Vec::new(), stored, received, release: Some(release) } }
    }
}

/// What was decided about a message, for its lanes.
pub struct Admitted {
    /// What goes straight to memory.
    pub jobs: Vec<(Arc<Lane>, Job)>,
    /// Lanes of recipients that stay in the queue.
    pub stored: Vec<LaneName>,
    /// When the message was accepted: what stays is due since then.
    pub received: Timestamp,
    /// When what stays is due instead: it waits for that.
    pub release: Option<Timestamp>,
}

/// The part of a message that belongs to one lane.
#[derive(Default)]
struct Part {
    recipients: usize,
    /// Once it was asked: the lane, if they go straight to memory.
    lane: Option<Option<Arc<Lane>>>,
}

impl Scheduler {
    /// Decides for a message about to be queued which recipients go straight to memory.
    pub fn admit(&self, message: &Arc<Message>, recipients: Vec<NewRecipient>, head: &Bytes) -> Admission {
        let sender = sender_key(message.envelope.sender());
        let overhead = RECIPIENT_COST * (1 + recipients.len() as u64);
        let (head, ticket) = self.afford(overhead, Some(head));
        let affordable = ticket.is_some();
        let shared = Arc::new(Shared { message: message.clone(), head, ticket });

        let received = message.received;
        let mut admission = Admission {
            recipients,
            admitted: Admitted { jobs: Vec::new(), stored: Vec::new(), received, release: None },
        };
        let Admitted { jobs, stored, .. } = &mut admission.admitted;
        let several = admission.recipients.len() > 1;
        // Empty, and so without memory of their own, for most messages: those to one recipient.
        let mut lanes: HashMap<LaneName, Part> = HashMap::new();
        let mut by_destination: HashMap<(LaneName, Arc<str>), usize> = HashMap::new();
        for NewRecipient { lane, .. } in admission.recipients.iter().filter(|_| several) {
            lanes.entry(lane.clone()).or_default().recipients += 1;
        }
        // What is held is for no lane.
        for (index, new) in admission.recipients.iter_mut().enumerate().filter(|(_, new)| new.held.is_none()) {
            let NewRecipient { recipient, lane: name, leased, .. } = new;
            let mut part = lanes.get_mut(name);
            let lane = match part.as_ref().and_then(|part| part.lane.clone()) {
                Some(known) => known,
                None => {
                    let wanted = part.as_ref().map_or(1, |part| part.recipients);
                    let priority = message.envelope.priority;
                    let has_room = |lane: &Arc<Lane>| {
                        !lane.is_absent(sender, priority)
                            && (lane.has_room(sender, wanted, WINDOW, SHARE)
                                || lane.has_room_before(priority, wanted, WINDOW)
                                || lane.has_room_for_a_few(sender, priority, wanted, WINDOW))
                    };
                    let lane =
                        affordable.then(|| self.admitting(name, message.envelope.sender())).flatten().filter(has_room);
                    if lane.is_none() {
                        if let Some(lane) = self.known(name) {
                            lane.note_absent(sender, priority, wanted);
                        }
                        stored.push(name.clone());
                    }
                    if let Some(part) = &mut part {
                        part.lane = Some(lane.clone());
                    }
                    lane
                }
            };
            *leased = lane.is_some();
            if let Some(lane) = lane {
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                let held = Held::fresh(index, recipient.clone());
                let destination = destination(&lane.provider, message, &recipient.address);
                let place = (name.clone(), destination.clone());
                match by_destination.get(&place) {
                    Some(job) => jobs[*job].1.recipients.push(held),
                    None => {
                        let mut job = Job::new(shared.clone(), destination);
                        job.recipients.push(held);
                        if several {
                            by_destination.insert(place, jobs.len());
                        }
                        jobs.push((lane, job));
                    }
                }
            }
        }
        admission
    }
}
