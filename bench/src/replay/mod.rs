//! Replays a recorded trace look-aside: every request is a get, and every miss is followed by a set of the
//! object.
//!
//! Several copies of the trace, each with keys of its own, can be interleaved request by request: k copies
//! need k times the memory for the same hit ratio.

mod engine;
mod socket;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::load::Target;
use crate::payload::Values;
use crate::sizes::{SizeTable, Sizes};
use crate::trace::Trace;
use crate::ttl::TtlMix;
use crate::{Failure, process};

/// Replay a CTR1 trace (plain or xz) look-aside: get, and set on a miss.
///
/// Over a socket, up to --window requests are pending together, fewer when a key occurs again: a get is not
/// sent before the set that an earlier get of the same key caused, on the same connection. So the requests of
/// each key keep their order; sets reach the server up to a window late, and requests for different keys of a
/// window may change order. TTLs run on the clock of the server, not on the time of the trace; --engine keeps
/// the time of the trace to the second.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The trace file
    trace: PathBuf,
    /// The server: host:port or unix:PATH
    #[arg(long, required_unless_present = "engine")]
    target: Option<Target>,
    /// Replay into the engine alone, with exactly this much memory: bytes, or with k, m, g; several separated
    /// by commas
    #[arg(long, conflicts_with = "target", value_delimiter = ',', value_parser = memory_bytes)]
    engine: Vec<usize>,
    /// Interleave this many copies of the trace, each with keys of its own
    #[arg(long, default_value_t = 1)]
    copies: u32,
    /// Give objects TTLs: 300, or a mix such as 1d:65,14d:27,12h:8
    #[arg(long, default_value = "never")]
    ttl_mix: TtlMix,
    /// Replay only this many requests of the trace
    #[arg(long)]
    requests: Option<usize>,
    /// Number of connections; keys are divided among them
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Largest number of requests that are pending together
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Process id of the server, to read its CPU time and memory; found by its port when it runs on this
    /// machine
    #[arg(long)]
    server_pid: Option<u32>,
    /// Write the results to this file as JSON; "-" is standard output
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A trace with the options of its replay.
#[derive(Debug)]
struct Replay {
    trace: Trace,
    /// Number of requests of the trace that are replayed.
    requests: usize,
    copies: u32,
    ttl: TtlMix,
    values: Values,
}

/// The result of a replay.
#[derive(Clone, Debug, Serialize)]
pub struct ReplayReport {
    /// Address of the server, or the engine and its memory.
    pub target: String,
    /// Number of requests of all copies.
    pub requests: u64,
    /// Number of gets that found nothing.
    pub misses: u64,
    /// Misses divided by requests.
    pub miss_ratio: f64,
    /// Share of requests that are the first for their object. No cache has a lower miss ratio.
    pub first_touch_ratio: f64,
    /// Share of requests that missed and could have been hits: the difference of the two ratios.
    pub avoidable_miss_ratio: f64,
    /// Number of sets that were not stored.
    pub refused_sets: u64,
    /// Number of values that differ from what was stored.
    pub wrong: u64,
    /// Elapsed seconds.
    pub seconds: f64,
    /// CPU time of the server, or of the engine and the loop that calls it, in microseconds a request.
    pub cpu_us: Option<f64>,
    /// Resident memory of the server at the end of the trace, bytes.
    pub rss_bytes: Option<u64>,
    /// Number of items in the engine at the end of the trace.
    pub items: Option<u64>,
}

/// Counters of a replay.
#[derive(Clone, Copy, Debug, Default)]
struct ReplayCounts {
    misses: u64,
    refused: u64,
    wrong: u64,
}

impl Replay {
    fn new(args: &ReplayArgs) -> Result<Self, Failure> {
        let trace = Trace::read(&args.trace)?;
        if args.copies == 0 || args.window == 0 || args.connections == 0 {
            return Err(Failure::new("--copies, --window and --connections must be at least 1"));
        }
        if trace.objects().checked_mul(args.copies).is_none() {
            return Err(Failure::new(format!(
                "{} copies have too many objects: they are numbered with 32 bits; give fewer --copies",
                args.copies
            )));
        }
        let largest = (0..trace.objects()).map(|id| trace.split(id).1).max().unwrap_or(0) as u32;
        let values = Values::new(SizeTable::new(&Sizes::Fixed(largest), 0, largest)?, false);
        let requests = args.requests.unwrap_or(usize::MAX).min(trace.ids().len());
        Ok(Self { trace, requests, copies: args.copies, ttl: args.ttl_mix.clone(), values })
    }

    /// Returns the number of requests of all copies.
    fn total(&self) -> u64 {
        self.requests as u64 * u64::from(self.copies)
    }

    /// Returns the number that the key of object `id` in a copy is made of.
    fn number(&self, id: u32, copy: u32) -> u32 {
        copy * self.trace.objects() + id
    }

    /// Returns the bytes of key and value of the object with this number.
    fn split(&self, number: u32) -> (usize, usize) {
        self.trace.split(number % self.trace.objects())
    }

    fn report(&self, target: String, counts: ReplayCounts, seconds: f64) -> ReplayReport {
        let miss_ratio = counts.misses as f64 / self.total().max(1) as f64;
        let first_touch_ratio = self.trace.first_touch_ratio(self.requests);
        ReplayReport {
            target,
            requests: self.total(),
            misses: counts.misses,
            miss_ratio,
            first_touch_ratio,
            avoidable_miss_ratio: miss_ratio - first_touch_ratio,
            refused_sets: counts.refused,
            wrong: counts.wrong,
            seconds,
            cpu_us: None,
            rss_bytes: None,
            items: None,
        }
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} requests, miss ratio {:.4} (avoidable {:.4}), {:.1} s",
            self.target, self.requests, self.miss_ratio, self.avoidable_miss_ratio, self.seconds
        )?;
        if let Some(cpu_us) = self.cpu_us {
            write!(f, ", {cpu_us:.3} us CPU/request")?;
        }
        if let Some(rss_bytes) = self.rss_bytes {
            write!(f, ", RSS {:.1} MiB", rss_bytes as f64 / f64::from(1 << 20))?;
        }
        if let Some(items) = self.items {
            write!(f, ", {items} items")?;
        }
        if self.refused_sets > 0 {
            write!(f, ", {} sets REFUSED", self.refused_sets)?;
        }
        if self.wrong > 0 {
            write!(f, ", {} values WRONG", self.wrong)?;
        }
        Ok(())
    }
}

fn memory_bytes(text: &str) -> Result<usize, Failure> {
    let bad = || Failure::new(format!("{text}: not an amount of memory: write bytes, or 64k, 8m, 1g"));
    let (digits, shift) = match text.to_ascii_lowercase().strip_suffix(['k', 'm', 'g']) {
        None => (text.to_owned(), 0),
        Some(digits) => {
            let shift = match text.as_bytes()[digits.len()].to_ascii_lowercase() {
                b'k' => 10,
                b'm' => 20,
                _ => 30,
            };
            (digits.to_owned(), shift)
        }
    };
    let number: usize = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// Runs the subcommand. The exit code is 0 if every value was correct.
///
/// # Errors
/// The trace cannot be read, the options are not valid, the server fails, or the results cannot be written.
pub fn main(args: &ReplayArgs) -> Result<ExitCode, Failure> {
    let replay = Replay::new(args)?;
    let mut reports = Vec::new();
    let mut show = |report: ReplayReport| {
        if args.json.as_ref().is_none_or(|path| path.as_os_str() != "-") {
            println!("{report}");
        }
        reports.push(report);
    };
    if let Some(target) = &args.target {
        let pid = args.server_pid.or_else(|| target.local_port().and_then(process::listening_on));
        show(socket::run(&replay, target, args.connections, args.window, pid)?);
    }
    for &bytes in &args.engine {
        show(engine::run(&replay, bytes)?);
    }
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&reports).map_err(|error| Failure::new(error.to_string()))?;
        match path.as_os_str() == "-" {
            true => println!("{json}"),
            false => {
                std::fs::write(path, json).map_err(|error| Failure::from(error).during(path.display()))?
            }
        }
    }
    let right = reports.iter().all(|report| report.wrong == 0);
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
