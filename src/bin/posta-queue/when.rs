//! What waits for what, and until when: one line for each destination that something waits for.

use std::collections::HashMap;

use posta::courier::wait::Wait as Told;

use crate::destination::{Destination, hash};
use crate::schedule::{SECOND, Schedule};

/// One destination.
#[derive(Debug, PartialEq, Eq)]
pub struct Wait {
    name: String,
    /// Deferred messages, and when the first of them is due.
    deferred: Deferred,
    /// Jobs queued, and under way.
    jobs: [usize; 2],
    paused: bool,
    /// Until when it rests, and why.
    rests: Option<(u64, String)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Deferred {
    count: usize,
    next: u64,
}

impl Schedule {
    /// Every destination that something waits for, those that most waits for first.
    pub fn when(&self) -> Vec<Wait> {
        let mut deferred: HashMap<u32, Deferred> = HashMap::new();
        for (due, _, destination) in &self.waiting {
            // In the order of their time: the first of each is its next.
            let of_it = deferred.entry(*destination).or_insert(Deferred { count: 0, next: *due });
            of_it.count += 1;
        }
        let mut waits: Vec<Wait> = self
            .destinations
            .iter()
            .map(|known| self.wait(known, deferred.remove(&hash(&known.name)).unwrap_or_default()))
            .filter(Wait::is_worth_a_line)
            .collect();
        for name in self.resting.paused() {
            if !waits.iter().any(|wait| wait.name == name) {
                let deferred = deferred.remove(&hash(name)).unwrap_or_default();
                waits.push(Wait { name: name.into(), deferred, jobs: [0; 2], paused: true, rests: None });
            }
        }
        waits.extend(rest_of(deferred.into_values()));
        waits.sort_by(|a, b| (b.deferred.count, &a.name).cmp(&(a.deferred.count, &b.name)));
        waits
    }

    fn wait(&self, known: &Destination, deferred: Deferred) -> Wait {
        Wait {
            name: known.name.clone(),
            deferred,
            jobs: [known.queue.len(), known.running],
            paused: self.resting.is_paused(&known.name),
            rests: known.last_rest().map(|(until, why)| (until, why.to_string())),
        }
    }
}

/// Of what waits since before the start only the hash of the destination is known, or of what waits
/// for several not even that.
fn rest_of(others: impl Iterator<Item = Deferred>) -> Option<Wait> {
    let sum = others.reduce(|a, b| Deferred { count: a.count + b.count, next: a.next.min(b.next) })?;
    let name = "(several, or not tried since the start)".to_string();
    Some(Wait { name, deferred: sum, jobs: [0; 2], paused: false, rests: None })
}

impl Wait {
    fn is_worth_a_line(&self) -> bool {
        self.deferred.count > 0 || self.jobs != [0; 2] || self.paused
    }

    /// For who has asked.
    pub fn told(&self, now: u64) -> Told {
        let Wait { name, deferred, jobs: [queued, running], .. } = self;
        let rests = self.rests.as_ref().filter(|(until, _)| now < *until);
        Told {
            destination: name.clone(),
            deferred: deferred.count as u64,
            next: (deferred.count > 0).then_some(deferred.next / SECOND),
            queued: *queued as u64,
            running: *running as u64,
            paused: self.paused,
            rests: rests.map(|(until, why)| (until / SECOND, why.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use posta::mail::id::Id;

    use crate::schedule::Settings;

    use super::*;

    const NOW: u64 = 1_795_550_000 * SECOND;

    #[test]
    fn each_destination_has_a_line_with_what_waits_for_it() {
        let settings = Settings {
            slots: 40,
            windows: [250, 20],
            rest: 60 * SECOND,
            patience: 3600 * SECOND,
            spacings: Default::default(),
        };
        let mut s = Schedule::new(settings.clone());
        let id = |n: usize| Id::parse(&format!("{n:015}")).unwrap();
        let dead = s.destinations.index(crate::destination::Hand::Remote, "dead.example", &settings);
        s.destinations[dead].unreachable(1, NOW + 60 * SECOND, "connection refused");
        s.resting.pause("slow.example");
        (0..3).for_each(|n| s.found_waiting(id(n), NOW + n as u64 * SECOND, hash("dead.example")));
        s.found_waiting(id(7), NOW, hash("slow.example"));
        s.found_waiting(id(8), NOW, hash("never seen"));
        s.found_waiting(id(9), NOW, 0);
        let waits: Vec<Told> = s.when().iter().map(|wait| wait.told(NOW)).collect();
        assert_eq!(waits.len(), 3, "{waits:?}");
        let found = |n: usize| (waits[n].destination.as_str(), waits[n].deferred, waits[n].paused);
        assert_eq!(found(0), ("dead.example", 3, false));
        assert_eq!(waits[0].next, Some(NOW / SECOND));
        assert_eq!(waits[0].rests.as_ref().map(|(_, why)| why.as_str()), Some("connection refused"));
        assert_eq!(found(1), ("(several, or not tried since the start)", 2, false));
        assert!(waits[2].destination.contains("slow.example") && waits[2].paused, "{waits:?}");
        assert_eq!((waits[2].deferred, s.when()[0].told(NOW + 61 * SECOND).rests), (1, None));
    }
}
