//! Measures the use of a memory limit: items held, the share of the limit that is payload, resident memory,
//! and the effect of a change of value sizes.

use std::fmt::Write;
use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::load::{self, Items, Plan, Progress};
use crate::machine::Machine;
use crate::peer::{Peer, Server, Setting};
use crate::sizes::Sizes;
use crate::{Failure, process};

/// Bytes of every key.
const KEY_BYTES: u32 = 20;
/// Bytes of a value in each of the three fills.
const VALUE_BYTES: [u32; 3] = [10, 100, 1000];
/// Payload written, as a multiple of the limit: enough for every server to evict for a long time.
const OVERFILL: f64 = 1.5;
/// Connections that each send part of a value.
const BEGUN_CONNECTIONS: usize = 500;
/// Announced length of these values.
const BEGUN_VALUE_BYTES: usize = 16_000;
/// Time that a server gets to read the parts.
const BEGUN_SETTLES: Duration = Duration::from_millis(500);
/// Memory limit in the size shift, MiB.
const SHIFT_MIB: usize = 64;
/// Number and bytes of the values that the size shift begins with.
const SHIFT_FIRST: (u32, u32) = (1_000_000, 100);
/// Number and bytes of the larger values that follow.
const SHIFT_SECOND: (u32, u32) = (50_000, 1000);
/// How many times the larger values are set.
const SHIFT_ROUNDS: usize = 6;

/// Compare what corecached and memcached hold within one memory limit.
#[derive(Debug, Args)]
pub struct MemoryArgs {
    /// The corecached binary [default: in the folder of this binary]
    #[arg(long)]
    corecached: Option<PathBuf>,
    /// The memcached binary
    #[arg(long, default_value = "memcached")]
    memcached: PathBuf,
    /// Another server, name=path:arguments, with {port}, {threads} and {memory} (MiB) in them; may be
    /// repeated
    #[arg(long)]
    peer: Vec<Peer>,
    /// Memory limit, MiB
    #[arg(long, default_value_t = 256)]
    memory: usize,
    /// Worker threads of each server
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Write DATE-memory.md and .json into this directory
    #[arg(long)]
    out: Option<PathBuf>,
}

/// All results of the subcommand.
#[derive(Clone, Debug, Serialize)]
struct Results {
    machine: Machine,
    limit_mib: usize,
    fills: Vec<Fill>,
    shifts: Vec<Shift>,
}

/// The result of filling a server beyond its limit with items of one size.
#[derive(Clone, Debug, Serialize)]
struct Fill {
    server: String,
    version: String,
    value_bytes: u32,
    /// Items held at the end, as counted by the server.
    items: u64,
    /// Bytes of their keys and values, as a share of the limit.
    payload_share: f64,
    /// Resident memory at the end, as a share of the limit.
    rss_share: f64,
    /// Highest resident memory, as a share of the limit: during the fill, and afterwards with connections
    /// that have each sent part of a value.
    peak_share: f64,
    /// Bytes of the limit that an item takes beyond its key and value.
    overhead_bytes: f64,
    /// Number of sets answered with SERVER_ERROR.
    refused: u64,
}

/// The result of the size shift: a server full of small items is given larger ones several times.
#[derive(Clone, Debug, Serialize)]
struct Shift {
    server: String,
    /// Share of the larger items that were found after each round of setting all of them.
    present: Vec<f64>,
    rss_bytes: u64,
}

/// Runs the subcommand.
///
/// # Errors
/// A server cannot be started or measured, or the results cannot be written.
pub fn main(args: &MemoryArgs) -> Result<ExitCode, Failure> {
    let corecached = match &args.corecached {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("corecached"),
    };
    let mut peers =
        vec![Peer::memcached("memcached", &args.memcached), Peer::corecached(&corecached, "auto")];
    peers[1].name = "corecached".to_owned();
    peers.extend(args.peer.iter().cloned());
    let mut results =
        Results { machine: Machine::read(), limit_mib: args.memory, fills: Vec::new(), shifts: Vec::new() };
    for peer in &peers {
        for value_bytes in VALUE_BYTES {
            results.fills.push(fill(&start(peer, args, args.memory)?, args.memory, value_bytes)?);
        }
        results.shifts.push(shift(&start(peer, args, SHIFT_MIB)?)?);
    }
    let markdown = render(&results);
    println!("{markdown}");
    if let Some(directory) = &args.out {
        fs::create_dir_all(directory)?;
        let json = serde_json::to_string_pretty(&results).map_err(|error| Failure::new(error.to_string()))?;
        for (ending, content) in [("md", &markdown), ("json", &json)] {
            let path = directory.join(format!("{}-memory.{ending}", results.machine.date));
            fs::write(&path, content).map_err(|error| Failure::from(error).during(path.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn start(peer: &Peer, args: &MemoryArgs, memory_mib: usize) -> Result<Server, Failure> {
    peer.start(&Setting { cores: Vec::new(), threads: args.threads, memory_mib, fifo: false, pool: None })
}

fn plan(server: &Server, first_key: u32, keys: u32, value_bytes: u32) -> Result<Plan, Failure> {
    Ok(Plan {
        items: Items {
            first_key,
            keys,
            key_sizes: Sizes::Fixed(KEY_BYTES),
            value_sizes: Sizes::Fixed(value_bytes),
            ..Items::default()
        },
        server_pid: Some(server.pid()),
        ..Plan::new(server.target())
    })
}

fn fill(server: &Server, limit_mib: usize, value_bytes: u32) -> Result<Fill, Failure> {
    let limit_bytes = (limit_mib << 20) as f64;
    let payload_bytes = f64::from(KEY_BYTES + value_bytes);
    let keys = (OVERFILL * limit_bytes / payload_bytes) as u32;
    let plan = plan(server, 0, keys, value_bytes)?;
    let progress =
        Progress::for_requests(&format!("{} values of {value_bytes} B", server.name), u64::from(keys));
    let report = load::run(&plan.filling(), &progress)?;
    progress.done();
    let items = server.stat("curr_items")?;
    let rss_bytes = process::rss_bytes(server.pid()).unwrap_or(0);
    let begun = begin_values(server)?;
    let peak_bytes = process::peak_rss_bytes(server.pid()).unwrap_or(0);
    drop(begun);
    Ok(Fill {
        server: server.name.clone(),
        version: server.version.clone(),
        value_bytes,
        items,
        payload_share: items as f64 * payload_bytes / limit_bytes,
        rss_share: rss_bytes as f64 / limit_bytes,
        peak_share: peak_bytes as f64 / limit_bytes,
        overhead_bytes: limit_bytes / items.max(1) as f64 - payload_bytes,
        refused: report.faults.server_errors,
    })
}

/// Opens connections that each send part of a value, and waits until the server has read the parts.
fn begin_values(server: &Server) -> Result<Vec<TcpStream>, Failure> {
    let address = server.target().to_string();
    let mut connections = Vec::new();
    for number in 0..BEGUN_CONNECTIONS {
        let mut stream = TcpStream::connect(&address)?;
        let line = format!("get nothing\r\nset begun-{number} 0 0 {BEGUN_VALUE_BYTES}\r\n");
        stream.write_all(line.as_bytes())?;
        stream.write_all(&vec![b'x'; BEGUN_VALUE_BYTES / 2])?;
        // The reply to the get shows that the server has read this far; it reads the rest soon.
        stream.read_exact(&mut [0; b"END\r\n".len()])?;
        connections.push(stream);
    }
    std::thread::sleep(BEGUN_SETTLES);
    Ok(connections)
}

fn shift(server: &Server) -> Result<Shift, Failure> {
    let first = plan(server, 0, SHIFT_FIRST.0, SHIFT_FIRST.1)?;
    load::run(&first.filling(), &Progress::hidden())?;
    let second = plan(server, SHIFT_FIRST.0, SHIFT_SECOND.0, SHIFT_SECOND.1)?;
    let mut present = Vec::new();
    for _ in 0..SHIFT_ROUNDS {
        load::run(&second.filling(), &Progress::hidden())?;
        let report = load::run(&second.reading_back(), &Progress::hidden())?;
        present.push(report.lookups.hits as f64 / f64::from(SHIFT_SECOND.0));
    }
    Ok(Shift {
        server: server.name.clone(),
        present,
        rss_bytes: process::rss_bytes(server.pid()).unwrap_or(0),
    })
}

fn render(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# Memory, {}\n\n- machine: {}", results.machine.date, results.machine.line());
    let _ = writeln!(
        text,
        "- each server limited to {} MiB, filled with {OVERFILL} times that in keys of {KEY_BYTES} B and values\n",
        results.limit_mib
    );
    let _ = writeln!(
        text,
        "| server | value | items held | payload, of the limit | bytes beyond payload an item | RSS, of the limit | at most |"
    );
    let _ = writeln!(text, "|---|---|---|---|---|---|---|");
    for fill in &results.fills {
        let refused =
            if fill.refused > 0 { format!(" ({} sets refused)", fill.refused) } else { String::new() };
        let _ = writeln!(
            text,
            "| {} ({}) | {} B | {}{refused} | {:.1} % | {:.1} | {:.1} % | {:.1} % |",
            fill.server,
            fill.version,
            fill.value_bytes,
            fill.items,
            fill.payload_share * 100.0,
            fill.overhead_bytes,
            fill.rss_share * 100.0,
            fill.peak_share * 100.0
        );
    }
    let _ = writeln!(
        text,
        "\nSize shift at {SHIFT_MIB} MiB: {} values of {} B, then the same {} values of {} B set {SHIFT_ROUNDS} times; share \
         of those found after each time.\n",
        SHIFT_FIRST.0, SHIFT_FIRST.1, SHIFT_SECOND.0, SHIFT_SECOND.1
    );
    let _ = writeln!(text, "| server | found | RSS |\n|---|---|---|");
    for shift in &results.shifts {
        let present: Vec<String> =
            shift.present.iter().map(|share| format!("{:.1} %", share * 100.0)).collect();
        let rss_mib = shift.rss_bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(text, "| {} | {} | {rss_mib:.1} MiB |", shift.server, present.join(", "));
    }
    text
}
