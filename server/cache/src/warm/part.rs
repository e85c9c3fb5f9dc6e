//! A part: a file with the items of one shard, in blocks whose checksum is checked before any item of them is
//! used.
//!
//! ```text
//! file    "ccwarm1\n" block...
//! block   content_len u32 | XXH3 of the content u64 | item...
//! item    key_len u8 | flags u8 | frequency u8 | 0 u8 | client_flags u32 | expires u32 | cas u64 | value_len u32
//!         | key | value
//! ```
//!
//! Numbers are little endian. `flags` are the bits of [`flag`]. `expires` is in unix seconds, or all ones for
//! never.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use corecached_engine::{Carried, KEY_BYTES_MAX, Seconds, Value};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"ccwarm1\n";
/// A block is written when it has so many bytes.
const BLOCK_BYTES: usize = 1 << 20;
/// Longest block that is read: the largest item, and the bytes that may come before it.
const BLOCK_BYTES_MAX: usize = (1 << 30) + 2 * BLOCK_BYTES;
const HEAD_BYTES: usize = 12;
const ITEM_BYTES: usize = 24;
const NEVER: u32 = u32::MAX;

/// Bits of `flags`.
mod flag {
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
        let mut file = super::private().write(true).create(true).truncate(true).open(path)?;
        file.write_all(MAGIC)?;
        Ok(Self { file, block: vec![0; HEAD_BYTES], items: 0 })
    }

    pub(super) fn put(&mut self, key: &[u8], carried: &Carried, value: Value<'_>) -> io::Result<()> {
        let flags = [
            (carried.stale, flag::STALE),
            (carried.token_sent, flag::TOKEN_SENT),
            (carried.fetched, flag::FETCHED),
            (carried.binary_key, flag::BINARY_KEY),
            (carried.kept, flag::KEPT),
            (carried.cas.is_some(), flag::CAS),
        ];
        let flags = flags.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag);
        debug_assert!((1..=KEY_BYTES_MAX).contains(&key.len()));
        let block = &mut self.block;
        block.extend([key.len() as u8, flags, carried.frequency, 0]);
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

    /// Writes what is left. Returns the number of items in the part.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        if self.block.len() > HEAD_BYTES {
            self.end_block()?;
        }
        Ok(self.items)
    }
}

/// Whether the file at `path` is a part, of this version or of another one.
pub(super) fn is_part(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic.starts_with(b"ccwarm")
}

/// Gives every item of a part to `visit`, up to the first block that is damaged.
///
/// # Errors
/// When the file cannot be read, is of another version, or has a damaged block. No item of that block or
/// after it is given to `visit`.
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

/// Takes the item at the front of `rest`. `None` when it is not complete.
fn split<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Carried, &'a [u8])> {
    let (head, after) = rest.split_at_checked(ITEM_BYTES)?;
    let (key_len, flags) = (usize::from(head[0]), head[1]);
    let (key, after) = after.split_at_checked(key_len)?;
    let (value, after) = after.split_at_checked(u32_at(head, 20) as usize)?;
    let carried = Carried {
        client_flags: u32_at(head, 4),
        expires: Some(u32_at(head, 8)).filter(|&at| at != NEVER).map(Seconds),
        cas: (flags & flag::CAS != 0).then(|| u64_at(head, 12)),
        stale: flags & flag::STALE != 0,
        token_sent: flags & flag::TOKEN_SENT != 0,
        fetched: flags & flag::FETCHED != 0,
        binary_key: flags & flag::BINARY_KEY != 0,
        kept: flags & flag::KEPT != 0,
        frequency: head[2],
    };
    *rest = after;
    (1..=KEY_BYTES_MAX).contains(&key_len).then_some((key, carried, value))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
