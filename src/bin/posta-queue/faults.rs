//! A message's life in posta-queue, with a fault at every call to the disk.
//!
//! One message has a recipient that is served at once, one that is served at the second attempt, and one
//! that never can be, of which the sender is told. True are the opening, the rules, the clerks and the
//! notices; the hands are played. At each call in turn the disk fails, the process dies, or the power goes.
//! Then the spool is opened again on a disk that works.
//!
//! What was acknowledged is served and told of, and nothing stays behind. A process that lives on serves
//! and tells once, whatever failed; after a death or a power cut it may be twice.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use posta::mail::address::ReversePath;
use posta::mail::id::Id;
use posta::mail::status::Status;
use posta::unix::durable::staged::{Fault, Lost, Staged};

use posta::spool::{Entry, Place};

use crate::ingest;
use crate::message::News;
use crate::runner::{Event, FILE_AGAIN, Runner, now};
use crate::stage::{Stage, router};

const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const TO: [&str; 3] = ["done@example.net", "later@example.net", "never@example.net"];
const SENDER: &str = "sender@example.org";
/// As many as any life needs, with a fault in it.
const PASSES: usize = 8;
/// A task that fails at one call is filed at the second try.
const TRIES: usize = 4;

/// How often each address was served.
type Served = BTreeMap<String, u32>;

struct World {
    stage: Stage,
    disk: Arc<Staged>,
    acknowledged: bool,
    served: Served,
}

impl World {
    fn live(plan: Option<(u64, Fault)>) -> World {
        let (stage, disk) = Stage::staged();
        if let Some((at, fault)) = plan {
            disk.plan(at, fault);
        }
        let acknowledged = stage.try_commit(&TO).is_ok();
        let mut world = World { stage, disk, acknowledged, served: Served::new() };
        world.serve(Some(world.disk.clone()));
        world
    }

    /// Starts again on a disk that works.
    fn recover(self) -> World {
        let mut world = World { stage: self.stage.reopened(), ..self };
        world.serve(None);
        world
    }

    /// Passes over the queue until it is empty; a process that has died does nothing more.
    fn serve(&mut self, dies_with: Option<Arc<Staged>>) {
        let is_dead = || dies_with.as_ref().is_some_and(|disk| disk.has_stopped());
        for _ in 0..PASSES {
            for (id, place) in queued(&self.stage) {
                if is_dead() {
                    return;
                }
                self.attempt(id, place, &is_dead);
            }
        }
    }

    /// One attempt of one message.
    fn attempt(&mut self, id: Id, place: Place, is_dead: &dyn Fn() -> bool) {
        let (events, heard) = channel();
        let mut runner: Runner = self.stage.runner(&events);
        // One that can't be opened now is opened at the next pass.
        let Ok(mut message) = ingest::open(&self.stage.spool, &router(), id, place) else { return };
        runner.schedule.add_fresh(id);
        runner.schedule.next_open(now());
        for n in 0..message.targets.len() as u32 {
            if message.targets[n as usize].is_final() {
                continue;
            }
            let address = message.targets[n as usize].leaf.address.to_string();
            let status = match address.split('@').next() {
                Some("later") if message.attempts == 0 => Status::new(4, 0, 0),
                Some("never") => Status::new(5, 1, 1),
                _ => Status::new(2, 0, 0),
            };
            if status.class == 2 {
                check_whole(&message.entry, &address);
                *self.served.entry(address).or_default() += 1;
            }
            message.hear(n, News::ours(status, "as it was written"), now());
        }
        message.jobs = 1;
        runner.messages.insert(id, message);
        runner.job_done(id, now());
        for _ in 0..TRIES {
            let Ok(Event::Filed(filed)) = heard.recv_timeout(Duration::from_secs(60)) else {
                panic!("{id} is not filed")
            };
            let is_well = filed.place.is_ok();
            runner.hear(Event::Filed(filed));
            if is_well || is_dead() {
                return;
            }
            runner.look_at_clock(now() + FILE_AGAIN);
        }
        panic!("{id} is never filed");
    }

    fn check(&self, when: &str, most: u32) {
        let served = |address| self.served.get(address).copied().unwrap_or_default();
        let wanted = [(TO[0], true), (TO[1], true), (TO[2], false), (SENDER, true)];
        for (address, is_served) in wanted {
            let count = served(address);
            if self.acknowledged {
                assert_eq!(count > 0, is_served, "{when}: {address} {count} times");
            }
            // A report may be served again, and be made again besides.
            let most = if address == SENDER && most > 1 { most + 1 } else { most };
            assert!(count <= most, "{when}: {address} {count} times");
        }
        assert_eq!(queued(&self.stage), [], "{when}");
    }
}

/// What is in the queue.
fn queued(stage: &Stage) -> Vec<(Id, Place)> {
    let mut found = Vec::new();
    let new = stage.spool.scan_new_at_start(&mut |id| found.push((id, Place::New)));
    let aside = stage.spool.scan_aside(&mut |aside| found.push((aside.id, aside.place)));
    // What a fault hides is found by the next pass.
    drop((new, aside));
    found
}

/// What is handed out is the message, or the report of its failure, from its first byte to its last.
fn check_whole(entry: &Entry, address: &str) {
    let mut text = vec![0; entry.size as usize];
    entry.file.read_exact_at(&mut text, 0).unwrap();
    let text = String::from_utf8(text).unwrap();
    if entry.envelope.sender == ReversePath::Null {
        assert_eq!(address, SENDER);
        assert!(text.contains("Final-Recipient: rfc822; never@example.net") && text.ends_with("--\r\n"));
        assert!(!text.contains("done@") && !text.contains("later@"), "{text}");
    } else {
        assert_eq!(text, "Subject: x\r\n\r\nbody\r\n");
    }
}

#[test]
fn at_every_call_a_fault_loses_and_repeats_nothing() {
    let world = World::live(None);
    world.check("no fault", 1);
    let calls = world.disk.calls();
    assert!(world.acknowledged && calls > 20, "{calls} calls say nothing");
    for at in 0..calls {
        for fault in [Fault::Fail(EIO), Fault::Fail(EINTR), Fault::Fail(ENOSPC), Fault::Short(ENOSPC)] {
            let world = World::live(Some((at, fault)));
            let when = format!("call {at}: {fault:?}");
            let world = world.recover();
            world.check(&when, 1);
        }
        World::live(Some((at, Fault::Stop))).recover().check(&format!("call {at}: death"), 2);
    }
}

#[test]
fn at_every_call_a_power_cut_loses_nothing() {
    let calls = World::live(None).disk.calls();
    for at in 0..calls {
        for kept in 0.. {
            let lost = [Lost::All, Lost::End, Lost::Start][(at as usize + kept) % 3];
            let world = World::live(Some((at, Fault::Stop)));
            let unsynced = world.disk.unsynced_names();
            world.disk.power_cut(kept, lost).unwrap();
            let when = format!("call {at}: power cut, {kept} of {unsynced} names kept, {lost:?} lost");
            world.recover().check(&when, 2);
            if kept >= unsynced {
                break;
            }
        }
    }
}
