//! Replays a trace against a server in windows: a multiget, and in the next window the sets for its misses.
//!
//! Blocking sockets suffice: a window is written with its gets at the end, and their line is short. So a
//! server that stops reading in order to send replies has already read all the sets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use corecached_protocol::number::put_decimal;

use super::{Replay, ReplayCounts, ReplayReport};
use crate::load::{Progress, Target};
use crate::payload::{is_key, put_key};
use crate::rng::mix;
use crate::wire::{self, ReplyLine};
use crate::{Failure, process};

/// Time without a reply after which the replay fails.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// Initial size of the read buffer in bytes; it grows for larger values.
const READ_BYTES: usize = 256 << 10;

/// Replays against `target`, whose process id is `pid`.
pub(super) fn run(
    replay: &Replay,
    target: &Target,
    connections: usize,
    window: usize,
    pid: Option<u32>,
) -> Result<ReplayReport, Failure> {
    let mut lanes = (0..connections).map(|_| Lane::open(target)).collect::<Result<Vec<_>, _>>()?;
    let progress = Progress::for_requests("replaying", replay.requests as u64);
    let mut counts = ReplayCounts::default();
    // The window in which each object was last requested.
    let mut asked_in = vec![0u32; replay.trace.objects() as usize];
    let (began, cpu_began) = (Instant::now(), pid.map(process::cpu_ns));
    let ids = &replay.trace.ids()[..replay.requests];
    let (mut at, mut windows) = (0, 0u32);
    while at < ids.len() {
        windows += 1;
        let from = at;
        while at < ids.len()
            && (at == from || (at - from + 1) * replay.copies as usize <= window)
            && asked_in[ids[at] as usize] != windows
        {
            asked_in[ids[at] as usize] = windows;
            for copy in 0..replay.copies {
                let number = replay.number(ids[at], copy);
                let lane = mix(u64::from(number)) as usize % lanes.len();
                lanes[lane].asked.push(number);
            }
            at += 1;
        }
        for lane in &mut lanes {
            lane.send_requests(replay)?;
        }
        for lane in &mut lanes {
            lane.read_replies(replay, &mut counts)?;
        }
        if windows.is_multiple_of(1024) {
            progress.advance(at as u64, 0);
        }
    }
    for lane in &mut lanes {
        lane.send_requests(replay)?;
        lane.read_replies(replay, &mut counts)?;
    }
    progress.done();
    let seconds = began.elapsed().as_secs_f64();
    let mut report = replay.report(target.to_string(), counts, seconds);
    if let (Some(pid), Some(cpu_began)) = (pid, cpu_began) {
        let cpu_ns = process::cpu_ns(pid).saturating_sub(cpu_began);
        report.cpu_us = Some(cpu_ns as f64 / 1000.0 / replay.total().max(1) as f64);
        report.rss_bytes = process::rss_bytes(pid);
    }
    Ok(report)
}

/// A TCP or Unix stream.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// One connection and its share of the window.
struct Lane {
    stream: Box<dyn Stream>,
    /// Numbers of the objects requested in this window, in order.
    asked: Vec<u32>,
    /// Numbers of the objects that were missed in the last window.
    missed: Vec<u32>,
    /// Number of sets sent in this window.
    sets: usize,
    out: Vec<u8>,
    input: Vec<u8>,
    /// `input[taken..filled]` is received and not yet parsed.
    taken: usize,
    filled: usize,
}

impl Lane {
    fn open(target: &Target) -> Result<Self, Failure> {
        let failed = |error| Failure::from(error).during(format_args!("cannot connect to {target}"));
        let stream: Box<dyn Stream> = match target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address).map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                stream.set_read_timeout(Some(SILENCE_LIMIT)).map_err(failed)?;
                Box::new(stream)
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path).map_err(failed)?;
                stream.set_read_timeout(Some(SILENCE_LIMIT)).map_err(failed)?;
                Box::new(stream)
            }
        };
        Ok(Self {
            stream,
            asked: Vec::new(),
            missed: Vec::new(),
            sets: 0,
            out: Vec::new(),
            input: vec![0; READ_BYTES],
            taken: 0,
            filled: 0,
        })
    }

    /// Sends the sets for the misses of the last window, then the gets of this window.
    fn send_requests(&mut self, replay: &Replay) -> Result<(), Failure> {
        self.out.clear();
        self.sets = self.missed.len();
        for number in self.missed.drain(..) {
            let (key_len, value_len) = replay.split(number);
            self.out.extend_from_slice(b"set ");
            put_key(&mut self.out, number, key_len);
            self.out.extend_from_slice(b" 0 ");
            put_decimal(&mut self.out, u64::from(replay.ttl.ttl_s(mix(u64::from(number)))));
            self.out.push(b' ');
            put_decimal(&mut self.out, value_len as u64);
            self.out.extend_from_slice(b"\r\n");
            self.out.extend_from_slice(replay.values.unstamped(number, value_len));
            self.out.extend_from_slice(b"\r\n");
        }
        if !self.asked.is_empty() {
            self.out.extend_from_slice(b"get");
            for &number in &self.asked {
                self.out.push(b' ');
                put_key(&mut self.out, number, replay.split(number).0);
            }
            self.out.extend_from_slice(b"\r\n");
        }
        Ok(self.stream.write_all(&self.out)?)
    }

    /// Reads the replies to the sets and gets.
    fn read_replies(&mut self, replay: &Replay, counts: &mut ReplayCounts) -> Result<(), Failure> {
        for _ in 0..self.sets {
            let line = self.line()?;
            match wire::line(&self.input[line.0..line.1]) {
                ReplyLine::Stored => {}
                ReplyLine::NotStored | ReplyLine::ServerError => counts.refused += 1,
                _ => return Err(self.unexpected(line)),
            }
        }
        let mut next = 0;
        while !self.asked.is_empty() {
            let line = self.line()?;
            match wire::line(&self.input[line.0..line.1]) {
                ReplyLine::Value { key: Some(key), len } => {
                    let found = (next..self.asked.len()).find(|&index| {
                        let number = self.asked[index];
                        is_key(key, number, replay.split(number).0)
                    });
                    let Some(index) = found else { return Err(self.unexpected(line)) };
                    self.missed.extend_from_slice(&self.asked[next..index]);
                    next = index + 1;
                    let start = self.value(len)?;
                    let number = self.asked[index];
                    let right = len == replay.split(number).1
                        && replay.values.unstamped(number, len) == &self.input[start..start + len];
                    counts.wrong += u64::from(!right);
                }
                ReplyLine::End => {
                    self.missed.extend_from_slice(&self.asked[next..]);
                    self.asked.clear();
                }
                _ => return Err(self.unexpected(line)),
            }
        }
        counts.misses += self.missed.len() as u64;
        Ok(())
    }

    /// Returns the range of the next line in `input`, without its line end. It is valid until the next line
    /// or value.
    fn line(&mut self) -> Result<(usize, usize), Failure> {
        let mut searched = self.taken;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input[searched..self.filled]) {
                let (start, end) = (self.taken, searched + end);
                self.taken = end + 1;
                let end = if self.input[start..end].ends_with(b"\r") { end - 1 } else { end };
                return Ok((start, end));
            }
            let unsearched = self.filled - self.taken;
            self.read()?;
            searched = self.taken + unsearched;
        }
    }

    /// Returns the offset of the next `len` bytes in `input`, and skips them and the line end after them.
    fn value(&mut self, len: usize) -> Result<usize, Failure> {
        while self.filled - self.taken < len + 2 {
            self.read()?;
        }
        let start = self.taken;
        self.taken += len + 2;
        Ok(start)
    }

    /// Reads more bytes after those that are not parsed, which may be moved to the start of `input`.
    fn read(&mut self) -> Result<(), Failure> {
        self.input.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        if self.filled == self.input.len() {
            self.input.resize(self.filled * 2, 0);
        }
        match self.stream.read(&mut self.input[self.filled..])? {
            0 => Err(Failure::new("the server closed the connection")),
            count => {
                self.filled += count;
                Ok(())
            }
        }
    }

    #[cold]
    fn unexpected(&self, line: (usize, usize)) -> Failure {
        Failure::new(format!("the server answered {}", self.input[line.0..line.1].escape_ascii()))
    }
}
