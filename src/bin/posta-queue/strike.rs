//! What becomes of the jobs that a hand held when it died: one of their messages may have been the reason.

use std::collections::HashSet;

use posta::mail::status::Status;

use posta::spool::Record;

use crate::destination::Hand;
use crate::dispatch::program;
use crate::message::News;
use crate::runner::{Runner, now};
use crate::turns::Ending;

impl Runner {
    /// The connection to a hand has ended: each message that it held gets a strike.
    pub(crate) fn hand_down(&mut self, hand: Hand, connection: u64) {
        if self.lines[hand as usize].as_ref().is_none_or(|line| line.connection != connection) {
            return;
        }
        self.lines[hand as usize] = None;
        let held = self.schedule.hand_down(hand);
        let now = now();
        if !held.is_empty() {
            log::warn!(
                "{} has gone with {} jobs; each of their messages gets a strike",
                program(hand),
                held.len()
            );
        }
        let mut struck = HashSet::new();
        for number in held {
            let Some(job) = self.schedule.job_ended(number, hand, Ending::Lost, "", now) else { continue };
            if let Some(message) = self.messages.get_mut(&job.id) {
                if struck.insert(job.id) {
                    message.strikes += 1;
                    message.struck = true;
                    message.unsaved.push(Record::Strike { at: now });
                }
                let lost = News::ours(
                    Status::new(4, 3, 0),
                    format!("{} died while it held the message", program(hand)),
                );
                for n in &job.targets {
                    message.hear(*n, lost.clone(), now);
                }
            }
            self.job_done(job.id, now);
        }
    }
}
