//! `stats conns`: every shard lists its connections, and the shard of the client that asked puts the lists
//! together.

use std::io::Write;
use std::net::SocketAddr;

use corecached_protocol::{Command, Parsed, line};

use corecached_net::ConnId;
use corecached_shard::session::PeerAddress;
use corecached_shard::{Core, Service, Session, State};

use crate::task::CacheTask;

/// Connection numbers are unique over all shards: each shard has so many slots for connections.
const SLOTS_PER_SHARD: usize = 1 << 20;

/// The number of a connection, unique over all shards. memcached shows the number of the socket in its place.
pub(crate) const fn conn_number(shard: usize, conn: ConnId) -> usize {
    debug_assert!((conn.index as usize) < SLOTS_PER_SHARD);
    shard * SLOTS_PER_SHARD + conn.index as usize
}

/// The lines of the connections of this shard. `asks` is the one whose client asked for them, if it is one of
/// them.
pub(crate) fn list<'a, S: Service<Task = CacheTask>>(
    core: &Core<S>,
    asks: Option<ConnId>,
    sessions: impl Iterator<Item = &'a Session<S>>,
) -> Vec<u8> {
    let (listens, now_s) = (&core.context.network.addresses, core.now.0);
    let mut lines = Vec::new();
    for session in sessions {
        let number = conn_number(core.me, session.conn);
        let address = address_text(&session.peer);
        let state = if asks == Some(session.conn) { "conn_parse_cmd" } else { state_of(core, session) };
        let idle_s = now_s.saturating_sub(session.last_s);
        let _ = write!(lines, "STAT {number}:addr {address}\r\n");
        // Those that carry datagrams have none.
        if let Some(listen) = listens.get(usize::from(session.listener)) {
            let _ = write!(lines, "STAT {number}:listen_addr {listen}\r\n");
        }
        let _ =
            write!(lines, "STAT {number}:state {state}\r\nSTAT {number}:secs_since_last_cmd {idle_s}\r\n");
    }
    lines
}

/// The name that memcached has for the state of a connection.
fn state_of<S: Service<Task = CacheTask>>(core: &Core<S>, session: &Session<S>) -> &'static str {
    match &session.state {
        State::Task(CacheTask::Authenticate) => "conn_read",
        // What has arrived is not a whole command yet.
        State::Command => match { session.parser }.parse(session.waiting_input(), &core.limits) {
            Ok(Parsed::Complete { value: Command::Store(_) | Command::Meta(_), .. }) => "conn_nread",
            Ok(Parsed::Complete { value: Command::Binary(_), .. } | Parsed::NeedMore) => "conn_read",
            _ => "conn_parse_cmd",
        },
        State::Swallow(_) => "conn_swallow",
        State::Task(CacheTask::Upload(_)) => "conn_nread",
        State::Barrier(_) | State::Gather(_) => "conn_parse_cmd",
        State::Task(CacheTask::Dump(_)) => "conn_mwrite",
        State::Task(CacheTask::Watch) => "conn_watch",
        State::Closing => "conn_closing",
    }
}

/// Appends the answer: the listening sockets, those of datagrams, and then the connections of every shard.
pub(crate) fn render(parts: &[Vec<u8>], listens: &[String], datagrams: &[SocketAddr], out: &mut Vec<u8>) {
    let mut number = parts.len() * SLOTS_PER_SHARD;
    for listen in listens {
        let _ = write!(
            out,
            "STAT {number}:addr {listen}\r\nSTAT {number}:state conn_listening\r\n\
             STAT {number}:secs_since_last_cmd 0\r\n"
        );
        number += 1;
    }
    for address in datagrams {
        let kind = if address.is_ipv4() { "udp" } else { "udp6" };
        let _ = write!(
            out,
            "STAT {number}:UDP UDP\r\nSTAT {number}:addr {kind}:{address}\r\nSTAT {number}:state conn_read\r\n\
             STAT {number}:secs_since_last_cmd 0\r\n"
        );
        number += 1;
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(line::END);
}

/// The address of a listening TCP socket, as `stats conns` shows it.
#[must_use]
pub fn listen_address_text(address: &SocketAddr) -> String {
    address_text(&Some(*address).into())
}

fn address_text(peer: &PeerAddress) -> String {
    match peer {
        PeerAddress::Unix => "unix".to_owned(),
        PeerAddress::V4(peer) => format!("tcp:{peer}"),
        PeerAddress::V6(peer) => format!("tcp6:{peer}"),
    }
}
