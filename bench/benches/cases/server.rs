//! Parts of the server: the mesh between shards, and the outbox of a connection that reads slowly.

use std::hint::black_box;
use std::io::IoSlice;

use corecached_net::ConnId;
use corecached_net::outbox::Outbox;
use corecached_protocol::{CommandHead, Limits, Parsed, Parser};
use corecached_shard::mesh;
use corecached_shard::mesh::message::{Message, Piece, ReplyTo, Request};
use corecached_shard::types::{NoTask, ServiceTypes};

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
];

/// A service whose shards ask each other for commands alone.
struct CommandsOnly;

impl ServiceTypes for CommandsOnly {
    type Task = NoTask;
    type Barrier = ();
    type Then = ();
    type Ask = CommandHead;
    type Broadcast = ();
    type Answer = ();

    fn answer_bytes((): &()) -> usize {
        0
    }
}

/// Sends sixteen gets from shard 0 to shard 1 in one batch, and their replies back.
fn mesh_by_16() -> Box<dyn FnMut()> {
    let (mut meshes, _presence) = mesh::connect::<CommandsOnly>(2);
    let (Some(mut owner), Some(mut asker)) = (meshes.pop(), meshes.pop()) else { panic!("two shards") };
    let to = ReplyTo { conn: ConnId { index: 3, generation: 1 }, sequence: 0 };
    let parsed = Parser::new().parse(b"get corecached:benchmark\r\n", &Limits::default());
    let Ok(Parsed::Complete { value: command, .. }) = parsed else { panic!("a get") };
    Box::new(move || {
        for hash in 0..BATCH as u64 {
            let Some(parts) = command.parts() else { panic!("it names a key") };
            let (ask, key, tokens) = (parts.head, parts.key, parts.tokens);
            asker.requests(1).push_request(to, &Request { ask, hash, key, tokens, data: &[] });
        }
        asker.publish(|_| ());
        let Some((from, mut batch)) = owner.take_requests() else { panic!("published") };
        batch.drain(|message| {
            if let Message::Request { to, request } = message {
                black_box(request.ask.with_bytes(request.key, request.tokens));
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
            if let Message::Reply(reply) = message {
                black_box(reply);
            }
        });
        asker.recycle(batch);
    })
}

/// Pushes sixteen replies to the outbox of a connection that reads slowly, gathers them and marks them as
/// sent.
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
