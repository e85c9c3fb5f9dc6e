//! One shard's items in a file, in blocks that are checked before anything of them is used.
//!
//! ```text
//! file    "ccwarm1\n" block...
//! block   content_len u32 | XXH3 of the content u64 | item...
//! item    key_len u8 | marks u8 | frequency u8 | 0 u8 | client_flags u32 | expires u32 | cas u64 | value_len u32
//!         | key | value
//! ```
//!
//! Numbers are little endian, `expires` is in unix seconds, all ones for never.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use corecached_engine::{Carried, KEY_BYTES_MAX, Seconds, Value};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"ccwarm1\n";
/// A block is written once it has so many bytes of content.
const BLOCK_BYTES: usize = 1 << 20;
/// Longest block that is read: the largest item, and what may stand before it.
const BLOCK_BYTES_MAX: usize = (1 << 30) + 2 * BLOCK_BYTES;
const HEAD_BYTES: usize = 12;
const ITEM_BYTES: usize = 24;
const NEVER: u32 = u32::MAX;

/// Bits of `marks`.
mod mark {
    pub(super) const STALE: u8 = 1;
    pub(super) const TOKEN_SENT: u8 = 2;
    pub(super) const FETCHED: u8 = 4;
    pub(super) const BINARY_KEY: u8 = 8;
    pub(super) const KEPT: u8 = 16;
    pub(super) const CAS: u8 = 32;
}

/// Writes a part.
pub(super) struct Writer {
    file: File,
    block: Vec<u8>,
    items: u64,
}

impl Writer {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut file = File::create(path)?;
        file.write_all(MAGIC)?;
        Ok(Self { file, block: vec![0; HEAD_BYTES], items: 0 })
    }

    pub(super) fn put(&mut self, key: &[u8], carried: &Carried, value: Value<'_>) -> io::Result<()> {
        let marks = [
            (carried.stale, mark::STALE),
            (carried.token_sent, mark::TOKEN_SENT),
            (carried.fetched, mark::FETCHED),
            (carried.binary_key, mark::BINARY_KEY),
            (carried.kept, mark::KEPT),
            (carried.cas.is_some(), mark::CAS),
        ];
        let marks = marks.iter().filter(|(is, _)| *is).fold(0, |marks, (_, mark)| marks | mark);
        let block = &mut self.block;
        block.extend([key.len() as u8, marks, carried.frequency, 0]);
        block.extend(carried.client_flags.to_le_bytes());
        block.extend(carried.expires.map_or(NEVER, |at| at.0).to_le_bytes());
        block.extend(carried.cas.unwrap_or(0).to_le_bytes());
        block.extend((value.len() as u32).to_le_bytes());
        block.extend(key);
        value.copy_to(block);
        self.items += 1;
        if block.len() >= BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> io::Result<()> {
        let content = &self.block[HEAD_BYTES..];
        let (len, hash) = (content.len() as u32, xxh3_64(content));
        self.block[..4].copy_from_slice(&len.to_le_bytes());
        self.block[4..HEAD_BYTES].copy_from_slice(&hash.to_le_bytes());
        self.file.write_all(&self.block)?;
        self.block.truncate(HEAD_BYTES);
        self.block.shrink_to(2 * BLOCK_BYTES);
        Ok(())
    }

    /// The items written.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        if self.block.len() > HEAD_BYTES {
            self.end_block()?;
        }
        Ok(self.items)
    }
}

/// Whether `path` is a part, of this version or another.
pub(super) fn is_one(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic.starts_with(b"ccwarm")
}

/// Gives every item of a part to `visit`, up to the first block that is not whole: that is the error, and nothing of it
/// or behind it was given.
pub(super) fn read(path: &Path, mut visit: impl FnMut(&[u8], &Carried, &[u8])) -> io::Result<()> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let file = File::open(path)?;
    let mut left = file.metadata()?.len();
    let mut file = BufReader::with_capacity(BLOCK_BYTES, file);
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(damaged("it is of another version"));
    }
    left -= MAGIC.len() as u64;
    let mut block = Vec::new();
    while left > 0 {
        let mut head = [0; HEAD_BYTES];
        file.read_exact(&mut head)?;
        let len = u32_at(&head, 0) as usize;
        left -= HEAD_BYTES as u64;
        if len > BLOCK_BYTES_MAX || len as u64 > left {
            return Err(damaged("a block is not whole"));
        }
        left -= len as u64;
        block.resize(len, 0);
        file.read_exact(&mut block)?;
        if xxh3_64(&block) != u64_at(&head, 4) {
            return Err(damaged("a block is not what was written"));
        }
        let mut rest = &block[..];
        while !rest.is_empty() {
            let item = split(&mut rest).ok_or_else(|| damaged("an item is not whole"))?;
            visit(item.0, &item.1, item.2);
        }
    }
    Ok(())
}

/// The item at the front of `rest`.
fn split<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Carried, &'a [u8])> {
    let (head, behind) = rest.split_at_checked(ITEM_BYTES)?;
    let (key_len, marks) = (usize::from(head[0]), head[1]);
    let (key, behind) = behind.split_at_checked(key_len)?;
    let (value, behind) = behind.split_at_checked(u32_at(head, 20) as usize)?;
    let carried = Carried {
        client_flags: u32_at(head, 4),
        expires: Some(u32_at(head, 8)).filter(|&at| at != NEVER).map(Seconds),
        cas: (marks & mark::CAS != 0).then(|| u64_at(head, 12)),
        stale: marks & mark::STALE != 0,
        token_sent: marks & mark::TOKEN_SENT != 0,
        fetched: marks & mark::FETCHED != 0,
        binary_key: marks & mark::BINARY_KEY != 0,
        kept: marks & mark::KEPT != 0,
        frequency: head[2],
    };
    *rest = behind;
    (1..=KEY_BYTES_MAX).contains(&key_len).then_some((key, carried, value))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
