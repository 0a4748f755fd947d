//! Who waits: sessions, and new clients that have not been greeted.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use crate::net::seats::{Full, Seat};

use super::happening::{Arrival, Happening, Turned, TurnedAway, Why};

/// A session, as the acceptor sees it while it is parked.
pub trait Guest: AsFd {
    /// Its seat, if it has one.
    fn seat(&self) -> Option<&Seat>;

    /// Whether it has shown no right to anything. When the house is full, the strangers who are
    /// idle for longest have to go for new clients; others never.
    fn is_stranger(&self) -> bool;

    /// Since when it has been idle. That its client says something is not enough to be busy: an octet now
    /// and then would keep its seat for ever.
    fn idle_since(&self) -> Instant;
}

/// Who is parked.
#[derive(Debug)]
pub(super) enum Waiting<S> {
    Session(S),
    /// Waits for its greeting.
    Newcomer(Arrival),
}

impl<S: Guest> Waiting<S> {
    /// What it means that this one is woken.
    pub(super) fn wake(self, why: Why) -> Happening<S> {
        match (self, why) {
            (Waiting::Session(session), why) => Happening::Awake(session, why),
            (Waiting::Newcomer(arrival), Why::Readable) => turned_away(arrival, Turned::TalkedFirst),
            (Waiting::Newcomer(arrival), Why::Shed) => turned_away(arrival, Turned::Full(Full::House)),
            (Waiting::Newcomer(arrival), Why::Gone) => Happening::Left(arrival.address),
            // The session that it becomes will see whether the house is closing.
            (Waiting::Newcomer(arrival), Why::Overdue | Why::Rested | Why::Closing) => {
                Happening::Patient(arrival)
            }
        }
    }

    pub(super) fn is_newcomer(&self) -> bool {
        matches!(self, Waiting::Newcomer(_))
    }

    pub(super) fn seat(&self) -> Option<&Seat> {
        match self {
            Waiting::Session(session) => session.seat(),
            Waiting::Newcomer(arrival) => Some(&arrival.seat),
        }
    }

    pub(super) fn idle_since(&self) -> Instant {
        match self {
            Waiting::Session(session) => session.idle_since(),
            // It is to be silent, and may be so from now on.
            Waiting::Newcomer(_) => Instant::now(),
        }
    }

    pub(super) fn is_stranger(&self) -> bool {
        match self {
            Waiting::Session(session) => session.is_stranger(),
            Waiting::Newcomer(_) => true,
        }
    }
}

fn turned_away<S>(arrival: Arrival, why: Turned) -> Happening<S> {
    let Arrival { stream, address, listener, .. } = arrival;
    Happening::TurnedAway(TurnedAway { address, listener, why, stream })
}

impl<S: Guest> AsFd for Waiting<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Waiting::Session(session) => session.as_fd(),
            Waiting::Newcomer(arrival) => arrival.as_fd(),
        }
    }
}

impl AsFd for Arrival {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
