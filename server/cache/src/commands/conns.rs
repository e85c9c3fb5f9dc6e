//! `stats conns`: every shard describes its connections, and the asking one renders them all.

use std::net::SocketAddr;

use corecached_protocol::line;

use corecached_net::ConnId;
use corecached_shard::State;
use corecached_shard::session::Peer;

use crate::cache::CacheSession;
use crate::task::CacheTask;

/// Place names are unique over shards: this many places each.
const PLACES_PER_SHARD: usize = 1 << 20;

/// What stands for the number of a connection's socket: unique over all shards.
#[must_use]
pub const fn number(shard: usize, conn: ConnId) -> usize {
    shard * PLACES_PER_SHARD + conn.index as usize
}

/// The lines of one shard's connections.
pub fn describe<'a>(
    shard: usize,
    sessions: impl Iterator<Item = &'a CacheSession>,
    listens: &[String],
    now_s: u32,
) -> Vec<u8> {
    use std::io::Write;
    let mut lines = Vec::new();
    for session in sessions {
        let name = number(shard, session.conn);
        let address = spell(&session.peer);
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
        let _ = write!(lines, "STAT {name}:addr {address}\r\n");
        // As in memcached, which does not say it of file system sockets.
        if let Some(listen) = listens.get(usize::from(session.listener))
            && !matches!(session.peer, Peer::Unix)
        {
            let _ = write!(lines, "STAT {name}:listen_addr {listen}\r\n");
        }
        let _ = write!(lines, "STAT {name}:state {state}\r\nSTAT {name}:secs_since_last_cmd {idle_s}\r\n");
    }
    lines
}

/// The answer: the listening sockets, and every shard's part.
pub fn render(parts: &[Vec<u8>], listens: &[String], out: &mut Vec<u8>) {
    use std::io::Write;
    for (number, listen) in listens.iter().enumerate() {
        let name = parts.len() * PLACES_PER_SHARD + number;
        let _ = write!(
            out,
            "STAT {name}:addr {listen}\r\nSTAT {name}:state conn_listening\r\n\
             STAT {name}:secs_since_last_cmd 0\r\n"
        );
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(line::END);
}

/// An address that is listened on.
#[must_use]
pub fn spell_listen(address: &SocketAddr) -> String {
    spell(&Some(*address).into())
}

fn spell(peer: &Peer) -> String {
    match peer {
        Peer::Unix => "unix".to_owned(),
        Peer::V4(peer) => format!("tcp:{peer}"),
        Peer::V6(peer) => format!("tcp6:{peer}"),
    }
}
