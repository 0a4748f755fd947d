//! Serves `run/auth` (sasl/dialogue): one thread that never waits for a peer or a hash. Each connection
//! is one exchange, with a deadline; what is slow goes to the clerks.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use posta::unix::pass::{PacketListener, Packets};
use posta::unix::random;
use posta::unix::wait::{Watch, wait_ready};

use posta::sasl::Fault;
use posta::sasl::dialogue::{Answer, Begin, MAX_PACKET, Refusal, Request};
use posta::sasl::exchange::{Action, Exchange};
use posta::sasl::mechanism::{Mechanism, offered};
use posta::sasl::scram::Channel;

use posta::net::seats::client_of;

use crate::clerks::Clerks;
use crate::guard::Guard;
use crate::sources::{Account, Found, Sources, Verdict, Why};

/// Dialogues at once.
const MOST: usize = 1024;
/// Of one client.
const MOST_OF_CLIENT: usize = 32;
/// How long an exchange may take, from its first word to its last.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a clerk has found out.
enum Finding {
    Checked(Verdict),
    Keys(Result<Found, String>),
}

/// The desk.
pub struct Desk {
    listener: PacketListener,
    /// User ids of who may ask.
    peers: Vec<u32>,
    sources: Arc<Sources>,
    mechanisms: Vec<Mechanism>,
    guard: Guard,
    clerks: Clerks<Finding>,
    dialogues: HashMap<u64, Dialogue>,
    next: u64,
}

/// One connection.
struct Dialogue {
    packets: Packets,
    deadline: Instant,
    /// None: the client has not chosen yet.
    chosen: Option<Chosen>,
}

/// A client that has chosen a mechanism.
struct Chosen {
    mechanism: Mechanism,
    exchange: Exchange,
    address: Option<IpAddr>,
    /// As [`client_of`] has it.
    client: Option<IpAddr>,
    secure: bool,
    /// Who it says to be, once it has said so.
    account: Option<Account>,
    /// SCRAM: why its keys are decoys.
    decoy: Option<Why>,
    /// A clerk is at it: the client has nothing to say.
    is_waiting: bool,
}

impl Desk {
    /// Serves `listener` for these users.
    pub fn new(
        listener: PacketListener,
        peers: Vec<u32>,
        sources: Arc<Sources>,
        guard: Guard,
    ) -> io::Result<Desk> {
        listener.set_nonblocking(true)?;
        Ok(Desk {
            listener,
            peers,
            sources,
            mechanisms: Vec::new(),
            guard,
            clerks: Clerks::start()?,
            dialogues: HashMap::new(),
            next: 0,
        })
    }

    /// From now on asks these sources. Exchanges under way go on.
    pub fn change(&mut self, sources: Arc<Sources>, lock_out_after: u32, lock_out: Duration) {
        self.sources = sources;
        self.guard.change(lock_out_after, lock_out);
    }

    /// From now on takes these mechanisms.
    pub fn take_mechanisms(&mut self, mechanisms: Vec<Mechanism>) {
        self.mechanisms = mechanisms;
    }

    /// Waits at most `limit` for something to do, or until `signals` has something to read, and does it.
    pub fn turn(&mut self, signals: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
        let numbers: Vec<u64> = self.dialogues.keys().copied().collect();
        let mut watched = vec![
            Watch::Read(signals),
            Watch::Read(self.listener.as_fd()),
            Watch::Read(self.clerks.bell().as_fd()),
        ];
        watched.extend(numbers.iter().map(|number| Watch::Read(self.dialogues[number].packets.as_fd())));
        let ready = wait_ready(&watched, Some(limit))?;
        if ready[2] {
            for (number, finding) in self.clerks.take_done() {
                self.go_on(number, |desk, dialogue| desk.found(dialogue, finding));
            }
        }
        for (number, _) in numbers.iter().zip(&ready[3..]).filter(|(_, ready)| **ready) {
            self.go_on(*number, |desk, dialogue| desk.hear(*number, dialogue));
        }
        if ready[1] {
            self.accept()?;
        }
        let now = Instant::now();
        self.dialogues.retain(|_, dialogue| dialogue.deadline > now);
        Ok(())
    }

    /// Does the next step of a dialogue, which gives the answer, if there is one yet. An answer that ends
    /// the exchange ends the dialogue, and so does a peer that has gone or doesn't read.
    fn go_on(
        &mut self,
        number: u64,
        step: impl FnOnce(&mut Desk, &mut Dialogue) -> io::Result<Option<Answer>>,
    ) {
        // One that has ended in the meantime needs nothing any more.
        let Some(mut dialogue) = self.dialogues.remove(&number) else { return };
        let goes_on = step(self, &mut dialogue).and_then(|answer| match answer {
            None => Ok(true),
            Some(answer) => {
                say(&dialogue.packets, &answer)?;
                Ok(matches!(answer, Answer::Challenge(_)))
            }
        });
        match goes_on {
            Ok(true) => {
                self.dialogues.insert(number, dialogue);
            }
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => log::debug!("run/auth: {error}"),
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let packets = match self.listener.accept() {
                Ok(packets) => packets,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    // As where there are no descriptors left: those that are open will end.
                    log::error!("run/auth: {error}");
                    std::thread::sleep(Duration::from_millis(100));
                    return Ok(());
                }
            };
            packets.set_nonblocking(true)?;
            let peer = packets.peer()?;
            if !self.peers.contains(&peer.uid) {
                log::warn!("run/auth: process {} of uid {} may not ask", peer.pid, peer.uid);
            } else if self.dialogues.len() >= MOST {
                log::warn!("run/auth: {MOST} logins are under way; one more has to come again later");
                // Who asked sees the end of the connection in any case.
                let _ = say(&packets, &Answer::Later);
            } else {
                let dialogue = Dialogue { packets, deadline: Instant::now() + PATIENCE, chosen: None };
                self.dialogues.insert(self.next, dialogue);
                self.next += 1;
            }
        }
    }

    /// Reads what the client says.
    fn hear(&mut self, number: u64, dialogue: &mut Dialogue) -> io::Result<Option<Answer>> {
        let mut buffer = [0; MAX_PACKET];
        let length = match dialogue.packets.receive(&mut buffer) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((length, _)) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let action =
            match (Request::decode(&buffer[..length]).map_err(io::Error::other)?, &mut dialogue.chosen) {
                (Request::Begin(begin), None) => {
                    let Some((chosen, action)) = self.begin(begin) else {
                        return Ok(Some(Answer::Refused { why: Refusal::Mechanism, wait: Duration::ZERO }));
                    };
                    dialogue.chosen = Some(chosen);
                    action
                }
                (Request::Response(response), Some(chosen)) if !chosen.is_waiting => {
                    chosen.exchange.respond(&response)
                }
                _ => return Err(io::Error::other("a packet out of turn")),
            };
        let Some(chosen) = &mut dialogue.chosen else { return Ok(None) };
        if self.is_crowded(chosen.client) {
            return Ok(Some(Answer::Later));
        }
        self.act(number, chosen, action)
    }

    /// A client's choice; none if it can't have that.
    fn begin(&self, begin: Begin) -> Option<(Chosen, Action)> {
        let offer = offered(&self.mechanisms, begin.secure, !begin.bindings.is_empty());
        let mechanism = Mechanism::parse(&begin.mechanism).filter(|mechanism| offer.contains(mechanism))?;
        let plus_offered = offer.contains(&Mechanism::ScramSha256Plus);
        let channel = Channel { bindings: begin.bindings, plus_offered };
        let (exchange, action) = Exchange::begin(mechanism, begin.initial.as_deref(), channel);
        let chosen = Chosen {
            mechanism,
            exchange,
            address: begin.client,
            client: begin.client.map(client_of),
            secure: begin.secure,
            account: None,
            decoy: None,
            is_waiting: false,
        };
        Some((chosen, action))
    }

    /// Whether this client has as many dialogues, beside the one at hand, as one may have.
    fn is_crowded(&self, client: Option<IpAddr>) -> bool {
        let of_client =
            |dialogue: &&Dialogue| dialogue.chosen.as_ref().is_some_and(|chosen| chosen.client == client);
        client.is_some() && self.dialogues.values().filter(of_client).count() >= MOST_OF_CLIENT
    }

    /// Does what the exchange says.
    fn act(&mut self, number: u64, chosen: &mut Chosen, action: Action) -> io::Result<Option<Answer>> {
        let login = match &action {
            Action::Challenge(challenge) => return Ok(Some(Answer::Challenge(challenge.clone()))),
            Action::Accept(_) => return Ok(Some(self.accepted(chosen, None))),
            Action::Refuse(fault) => return Ok(Some(self.refused(chosen, *fault))),
            Action::Check(credentials) => &credentials.login,
            Action::FindKeys(login) => login,
        };
        let account = self.sources.account(login);
        chosen.account = Some(account.clone());
        let now = Instant::now();
        if let Some(wait) = self.guard.is_locked_out(chosen.client, &account.full, now) {
            log(chosen, None, "locked out: too many wrong passwords");
            return Ok(Some(Answer::Refused { why: Refusal::LockedOut, wait }));
        }
        let (sources, address, secure) = (Arc::clone(&self.sources), chosen.address, chosen.secure);
        let is_known = self.guard.is_at_home(chosen.client, &account.full, now);
        let taken = self.clerks.give(number, chosen.client, is_known, move || match action {
            Action::Check(credentials) => {
                Finding::Checked(sources.check(&account, &credentials, address, secure))
            }
            _ => Finding::Keys(sources.keys(&account, address)),
        });
        chosen.is_waiting = taken;
        if !taken {
            log(chosen, None, "put off: too many logins at once");
        }
        Ok((!taken).then_some(Answer::Later))
    }

    /// Goes on with what a clerk has found out.
    fn found(&mut self, dialogue: &mut Dialogue, finding: Option<Finding>) -> io::Result<Option<Answer>> {
        let Some(chosen) = &mut dialogue.chosen else { return Ok(None) };
        chosen.is_waiting = false;
        let answer = match finding {
            Some(Finding::Checked(Verdict::Right(user))) => self.accepted(chosen, Some(user)),
            Some(Finding::Checked(Verdict::Wrong(why))) => self.wrong(chosen, why),
            Some(Finding::Keys(Ok(found))) => {
                chosen.decoy = found.decoy;
                match chosen.exchange.keys(found.keys, &nonce()?) {
                    Action::Challenge(challenge) => Answer::Challenge(challenge),
                    _ => Answer::Later,
                }
            }
            Some(Finding::Checked(Verdict::Unable(why)) | Finding::Keys(Err(why))) => {
                log::error!("{why}");
                Answer::Later
            }
            None => {
                log::error!("a login could not be checked: the thread that did it broke down");
                Answer::Later
            }
        };
        Ok(Some(answer))
    }

    /// `user`: as the source has the name, where that may differ.
    fn accepted(&mut self, chosen: &Chosen, user: Option<String>) -> Answer {
        let user = match (user, &chosen.account, chosen.decoy) {
            (Some(user), _, _) => user,
            (None, Some(account), None) => account.full.clone(),
            // A decoy has no password that could be right.
            _ => return self.wrong(chosen, chosen.decoy.unwrap_or(Why::Unknown)),
        };
        let counted = chosen.account.as_ref().map_or(&user, |account| &account.full);
        self.guard.right(chosen.client, counted, Instant::now());
        let (client, mechanism) = (text_of(chosen.address), chosen.mechanism);
        log::info!("login={user}, client={client}, mechanism={mechanism}, status=accepted");
        Answer::Done(user)
    }

    fn wrong(&mut self, chosen: &Chosen, why: Why) -> Answer {
        let user = chosen.account.as_ref().map_or("", |account| &account.full);
        let wait = self.guard.wrong(chosen.client, user, Instant::now());
        log(chosen, Some(why), why.text());
        Answer::Refused { why: Refusal::Credentials, wait }
    }

    /// The client's words were wrong by themselves.
    fn refused(&mut self, chosen: &Chosen, fault: Fault) -> Answer {
        match fault {
            Fault::Proof => self.wrong(chosen, chosen.decoy.unwrap_or(Why::Password)),
            Fault::Library => {
                log::error!("{fault}");
                Answer::Later
            }
            Fault::Malformed(_) => {
                log(chosen, None, &fault.to_string());
                Answer::Refused { why: Refusal::Malformed, wait: Duration::ZERO }
            }
            Fault::Authzid | Fault::Binding(_) => {
                log(chosen, None, &fault.to_string());
                let wait = self.guard.wrong(chosen.client, "", Instant::now());
                Answer::Refused { why: Refusal::Credentials, wait }
            }
        }
    }
}

/// A line about a login that came to nothing. A name that nobody has is blotted: it may be a password,
/// typed into the wrong field.
fn log(chosen: &Chosen, why: Option<Why>, reason: &str) {
    let user = match (&chosen.account, why) {
        (Some(account), Some(why)) if why != Why::Unknown => &account.full,
        _ => "?",
    };
    let (client, mechanism) = (text_of(chosen.address), chosen.mechanism);
    log::warn!("login={user}, client={client}, mechanism={mechanism}, status=refused ({reason})");
}

fn text_of(address: Option<IpAddr>) -> String {
    address.map_or("local".to_string(), |address| address.to_canonical().to_string())
}

/// RFC 5802 5.1: unpredictable, printable, without commas.
fn nonce() -> io::Result<String> {
    let octets = random::octets::<18>()?;
    Ok(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, octets))
}

fn say(packets: &Packets, answer: &Answer) -> io::Result<()> {
    packets.try_send(&answer.encode().map_err(io::Error::other)?, None)
}
