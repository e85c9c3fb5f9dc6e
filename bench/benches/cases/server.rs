//! What lies between the two: the mesh between shards, the outbox of a connection that is behind, and the ring by
//! which a proxy picks a server.

use std::hint::black_box;
use std::io::IoSlice;

use corecached::net::{ConnId, Outbox};
use corecached::proxy::hash::{Distribution, KeyHash, Points, Ring, RingServer, RingSpec};
use corecached::shard::mesh;
use corecached::shard::message::{Message, Piece, ReplyTo, Request};
use corecached_protocol::{Command, Limits, Parsed, Parser};

use super::Case;

const BATCH: usize = 16;
const REPLY: &[u8; 140] = &[b'r'; 140];

pub const CASES: &[Case] = &[
    Case {
        name: "server/mesh, a request and its reply, by 16",
        operations: BATCH as u64,
        prepare: mesh_by_16,
    },
    Case { name: "server/outbox, 140 B in and out, by 16", operations: BATCH as u64, prepare: outbox },
    Case {
        name: "server/ring, Ch3 of 10 servers",
        operations: BATCH as u64,
        prepare: || ring(Distribution::Ch3),
    },
    Case {
        name: "server/ring, rendezvous of 10 servers",
        operations: BATCH as u64,
        prepare: || ring(Distribution::Rendezvous),
    },
    Case { name: "server/ring, ketama of 10 servers", operations: BATCH as u64, prepare: || ring(ketama()) },
];

/// Sixteen gets from shard 0 to shard 1, published together, and their replies.
fn mesh_by_16() -> Box<dyn FnMut()> {
    let (mut meshes, _presence) = mesh::connect(2);
    let (Some(mut owner), Some(mut asker)) = (meshes.pop(), meshes.pop()) else { panic!("two shards") };
    let to = ReplyTo { conn: ConnId { index: 3, generation: 1 }, sequence: 0 };
    let parsed = Parser::new().parse(b"get corecached:benchmark\r\n", &Limits::default());
    let Ok(Parsed::Complete { value: command @ Command::Retrieve(_), .. }) = parsed else { panic!("a get") };
    Box::new(move || {
        for hash in 0..BATCH as u64 {
            asker.requests(1).push_request(to, &Request::Execute { command, hash, data: &[] });
        }
        asker.publish(|_| ());
        let Some((from, mut batch)) = owner.take_requests() else { panic!("published") };
        batch.drain(|message| {
            if let Message::Request { to, request } = message {
                black_box(request);
                owner.replies(from).push_reply(to, Piece::Last, |out| {
                    out.extend_from_slice(REPLY);
                    None
                });
            }
        });
        owner.recycle(batch);
        owner.publish(|_| ());
        let Some((_, mut batch)) = asker.take_replies() else { panic!("answered") };
        batch.drain(|message| {
            black_box(message);
        });
        asker.recycle(batch);
    })
}

fn ketama() -> Distribution {
    Distribution::Points { points: Points::Ketama, key_hash: KeyHash::Md5 }
}

/// Sixteen keys of 20 bytes, and the server of each.
fn ring(distribution: Distribution) -> Box<dyn FnMut()> {
    let servers: Vec<RingServer> =
        (0..10).map(|number| RingServer::new(&format!("cache-{number}.cache"), 11211)).collect();
    let ring = Ring::build(&RingSpec { distribution, ..RingSpec::ch3() }, &servers).expect("a ring");
    let keys: Vec<String> = (0..BATCH).map(|number| format!("corecached-key-{number:05}")).collect();
    Box::new(move || {
        for key in &keys {
            black_box(ring.pick(black_box(key.as_bytes())));
        }
    })
}

/// Sixteen replies pushed to a connection that is behind, gathered and sent.
fn outbox() -> Box<dyn FnMut()> {
    let mut outbox = Outbox::default();
    Box::new(move || {
        (0..BATCH).for_each(|_| outbox.push_bytes(black_box(REPLY)));
        let mut pieces: Vec<IoSlice<'_>> = Vec::new();
        outbox.gather(&mut pieces);
        let count = pieces.iter().map(|piece| piece.len()).sum();
        black_box(&pieces);
        drop(pieces);
        outbox.advance(count, |_| ());
        assert!(outbox.is_empty());
    })
}
