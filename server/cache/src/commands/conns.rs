//! `stats conns`: every shard lists its connections, and the shard of the client that asked puts the lists
//! together.

use std::net::SocketAddr;

use corecached_protocol::line;

use corecached_net::ConnId;
use corecached_shard::session::PeerAddress;
use corecached_shard::{ServiceTypes, Session, State};

use crate::task::CacheTask;

/// Connection numbers are unique over all shards: each shard has so many slots for connections.
const SLOTS_PER_SHARD: usize = 1 << 20;

/// The number of a connection, unique over all shards. memcached shows the number of the socket in its place.
pub(crate) const fn conn_number(shard: usize, conn: ConnId) -> usize {
    debug_assert!((conn.index as usize) < SLOTS_PER_SHARD);
    shard * SLOTS_PER_SHARD + conn.index as usize
}

/// The lines of the connections of one shard.
pub(crate) fn list<'a, S: ServiceTypes<Task = CacheTask>>(
    shard: usize,
    sessions: impl Iterator<Item = &'a Session<S>>,
    listens: &[String],
    now_s: u32,
) -> Vec<u8> {
    use std::io::Write;
    let mut lines = Vec::new();
    for session in sessions {
        let number = conn_number(shard, session.conn);
        let address = address_text(&session.peer);
        let state = match session.state {
            State::Command | State::Task(CacheTask::Authenticate) if session.unparsed() == 0 => "conn_read",
            State::Command | State::Task(CacheTask::Authenticate) => "conn_parse_cmd",
            State::Swallow(_) => "conn_swallow",
            State::Task(CacheTask::Upload(_)) => "conn_nread",
            State::Barrier(_) | State::Gather(_) => "conn_parse_cmd",
            State::Task(CacheTask::Dump(_)) => "conn_mwrite",
            State::Task(CacheTask::Watch) => "conn_watch",
            State::Closing => "conn_closing",
        };
        let idle_s = now_s.saturating_sub(session.last_s);
        let _ = write!(lines, "STAT {number}:addr {address}\r\n");
        // As in memcached, which does not show it for Unix sockets.
        if let Some(listen) = listens.get(usize::from(session.listener))
            && !matches!(session.peer, PeerAddress::Unix)
        {
            let _ = write!(lines, "STAT {number}:listen_addr {listen}\r\n");
        }
        let _ =
            write!(lines, "STAT {number}:state {state}\r\nSTAT {number}:secs_since_last_cmd {idle_s}\r\n");
    }
    lines
}

/// Appends the answer: the listening sockets, and then the connections of every shard.
pub(crate) fn render(parts: &[Vec<u8>], listens: &[String], out: &mut Vec<u8>) {
    use std::io::Write;
    for (index, listen) in listens.iter().enumerate() {
        let number = parts.len() * SLOTS_PER_SHARD + index;
        let _ = write!(
            out,
            "STAT {number}:addr {listen}\r\nSTAT {number}:state conn_listening\r\n\
             STAT {number}:secs_since_last_cmd 0\r\n"
        );
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
