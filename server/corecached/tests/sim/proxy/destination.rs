//! Memcacheds on the simulated network. Each records the requests that it receives in the history, and its
//! faults in the blame.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use corecached_protocol::{Command, Delete, Meta, MetaVerb, Retrieve, Store, StoreVerb};
use corecached_testkit::memcached::Memcached;
use corecached_testkit::network::{Link, Network};
use corecached_testkit::wire::{Fault, Faults, ServerConnection};

use super::blame::{Blame, Harm, TIMEOUT_MS};
use super::history::History;

/// Bytes that wait for a proxy that does not read, before nothing more is answered.
const SOCKET_BYTES: usize = 64 * 1024;

/// A reply of this many bytes is large. [`Fault::BreakOff`] mostly cuts these.
const LARGE_BYTES: usize = 1500;

/// What goes wrong in these simulations.
pub(crate) const FAULTS: [Fault; 10] = [
    Fault::Stall,
    Fault::Garbage,
    Fault::WrongValue,
    Fault::ErrorReply,
    Fault::BreakOff,
    Fault::Reset,
    Fault::Leave,
    Fault::Refuse,
    Fault::Hang,
    Fault::Return,
];

/// The destination's end of one link.
#[derive(Debug, Default)]
struct DestinationConnection {
    wire: ServerConnection,
    /// The harm of a wrong reply that the proxy may not have noticed yet.
    unnoticed: Option<Harm>,
    /// It is closed once everything is answered.
    leaves: bool,
}

/// A memcached that the proxy connects to.
pub(crate) struct Destination {
    number: usize,
    memcached: Memcached,
    faults: Faults,
    /// By the number of the link.
    connections: BTreeMap<usize, DestinationConnection>,
    history: Rc<RefCell<History>>,
    blame: Rc<RefCell<Blame>>,
    random: fastrand::Rng,
}

impl Destination {
    pub(crate) fn new(
        number: usize,
        history: &Rc<RefCell<History>>,
        blame: &Rc<RefCell<Blame>>,
        random: fastrand::Rng,
    ) -> Self {
        Self {
            number,
            memcached: Memcached::default(),
            faults: Faults::with_break_off_bytes(LARGE_BYTES),
            connections: BTreeMap::new(),
            history: Rc::clone(history),
            blame: Rc::clone(blame),
            random,
        }
    }

    // --- faults ---

    pub(crate) fn go_wrong(&mut self, fault: Fault, network: &mut Network) {
        let now_ms = self.blame.borrow().now_ms;
        match fault {
            Fault::Reset | Fault::Refuse | Fault::Hang => self.reset_all(network),
            Fault::Leave => self.connections.values_mut().for_each(|connection| connection.leaves = true),
            Fault::Return => self.recover(network),
            _ => {}
        }
        self.faults.begin(fault, now_ms, 4 * TIMEOUT_MS, &mut self.random);
        self.update_endpoint(network);
        self.record_harm();
    }

    /// Ends every fault.
    pub(crate) fn recover(&mut self, network: &mut Network) {
        self.record_harm();
        self.faults.end();
        self.update_endpoint(network);
        network.wake_all();
    }

    fn update_endpoint(&self, network: &mut Network) {
        let endpoint = &mut network.endpoints[self.number];
        (endpoint.refuses, endpoint.hangs) = (self.faults.refuses, self.faults.hangs);
    }

    fn reset_all(&mut self, network: &mut Network) {
        let number = self.number;
        let is_here = |link: &Link| link.destination == Some(number) && link.is_held();
        for at in 0..network.links.len() {
            if is_here(&network.links[at]) && network.links[at].established {
                network.links[at].reset = true;
                network.wake_ends(at);
                self.blame.borrow_mut().record(number, Harm::Break);
            }
        }
    }

    /// Records the harm that is done now.
    pub(crate) fn record_harm(&self) {
        let mut blame = self.blame.borrow_mut();
        let connections = || self.connections.values();
        let leaves = connections().any(|connection| connection.leaves);
        let harms = [
            self.faults.is_silent(blame.now_ms).then_some(Harm::Silence),
            self.faults.refuses.then_some(Harm::Refusal),
            self.faults.hangs.then_some(Harm::Hang),
            leaves.then_some(Harm::Break),
        ];
        let unnoticed = connections().filter_map(|connection| connection.unnoticed);
        harms.into_iter().flatten().chain(unnoticed).for_each(|harm| blame.record(self.number, harm));
    }

    // --- connections ---

    /// The links on which something is left to be read or sent, for messages.
    pub(crate) fn unread(&self, network: &Network) -> Vec<String> {
        let links = network.links.iter().enumerate();
        let open =
            links.filter(|(_, link)| link.destination == Some(self.number) && !link.reset && !link.closed);
        let mut unread = Vec::new();
        for (at, link) in open {
            let wire = self.connections.get(&at).map(|connection| &connection.wire);
            let (input, output) = wire.map_or((0, 0), |wire| (wire.input.len(), wire.output_len()));
            if link.to_server.len() + input + output > 0 {
                let (sent, given_up) = (link.to_server.len(), link.shut);
                unread.push(format!(
                    "destination {}, link {at}: {sent} bytes sent, {input} read, {output} to send, \
                     established {}, given up {given_up}",
                    self.number, link.established
                ));
            }
        }
        unread
    }

    /// Works on one connection. False when there was nothing to do.
    pub(crate) fn step(&mut self, network: &mut Network) -> bool {
        if self.faults.is_silent(self.blame.borrow().now_ms) {
            return false;
        }
        let count = network.links.len();
        let from = self.random.usize(..count.max(1));
        let is_ours = |at: &usize| {
            let link = &network.links[*at];
            link.destination == Some(self.number) && link.established && !link.closed
        };
        let ours: Vec<usize> = (from..count).chain(0..from).filter(is_ours).collect();
        ours.into_iter().any(|link| self.step_on(link, network))
    }

    fn step_on(&mut self, at: usize, network: &mut Network) -> bool {
        let link = &mut network.links[at];
        if link.reset {
            link.closed = true;
            self.connections.remove(&at);
            return true;
        }
        let mut connection = self.connections.remove(&at).unwrap_or_default();
        let wire = &mut connection.wire;
        let mut moved = false;
        let arrived = link.to_server.len();
        if arrived > 0 && wire.output_len() < SOCKET_BYTES && !wire.breaks_off() {
            let len = if self.random.bool() { arrived } else { self.random.usize(1..=arrived) };
            wire.input.extend(link.to_server.drain(..len));
            moved = true;
        }
        let is_given_up = link.shut;
        moved |= self.work(&mut connection, is_given_up);
        let wire = &mut connection.wire;
        let room = SOCKET_BYTES.saturating_sub(link.to_client.len()).min(wire.sendable().len());
        if is_given_up {
            wire.clear_output();
        } else if room > 0 {
            let len = if self.random.bool() { room } else { self.random.usize(1..=room) };
            link.to_client.extend(&wire.sendable()[..len]);
            wire.sent(len);
            moved = true;
        }
        let has_answered = wire.output_len() + wire.input.len() + link.to_server.len() == 0;
        // The rest of a command does not come from a proxy that gave up.
        let is_alone = is_given_up && (link.to_server.is_empty() || wire.breaks_off());
        let is_over = wire.has_broken_off() || is_alone || (has_answered && connection.leaves);
        if is_over {
            link.closed = true;
            self.blame.borrow_mut().record(self.number, Harm::Break);
        } else {
            let is_read = wire.output_len() == 0 && link.to_client.is_empty();
            if is_read && connection.unnoticed == Some(Harm::Error) {
                connection.unnoticed = None;
            }
            self.connections.insert(at, connection);
        }
        if moved || is_over {
            network.wake_ends(at);
        }
        moved || is_over
    }

    /// Reads commands and answers them. False when none came whole.
    fn work(&mut self, connection: &mut DestinationConnection, is_given_up: bool) -> bool {
        let Self { number, memcached, faults, history, blame, random, .. } = self;
        let now_ms = blame.borrow().now_ms;
        let worked = connection.wire.work(faults, random, |command, data| {
            record_request(&mut history.borrow_mut(), *number, command, is_given_up);
            memcached.execute(command, data, now_ms)
        });
        if let Some(wrong) = worked.wrong {
            let harm = if wrong.ends_connection { Harm::Break } else { Harm::Error };
            connection.unnoticed = Some(harm);
            blame.borrow_mut().record(*number, harm);
            if wrong.is_error {
                blame.borrow_mut().record(*number, Harm::Error);
            }
        }
        worked.commands > 0
    }
}

/// Records that destination `number` received `command`, on a connection that the proxy may have given up
/// meanwhile. Panics at a command that the proxy sends for none of the clients' commands.
fn record_request(history: &mut History, number: usize, command: &Command<'_>, is_given_up: bool) {
    // The client flags of a write, which number it; `None` deletes.
    let (key, write) = match *command {
        Command::Version => return,
        Command::Retrieve(Retrieve { key, touch: None, .. })
        | Command::Meta(Meta { verb: MetaVerb::Get | MetaVerb::Arithmetic, key, .. }) => (key, None),
        Command::Store(Store { verb: StoreVerb::Set, key, client_flags, .. }) => {
            (key, Some(Some(client_flags)))
        }
        Command::Meta(Meta { verb: MetaVerb::Set, key, flags, .. }) => (key, Some(Some(flags.client_flags))),
        Command::Delete(Delete { key, .. }) | Command::Meta(Meta { verb: MetaVerb::Delete, key, .. }) => {
            (key, Some(None))
        }
        ref other => panic!("a destination was sent {other:?}"),
    };
    history.requested(key, number);
    if let Some(write) = write.filter(|_| is_given_up) {
        history.written_late(key, write);
    }
}
