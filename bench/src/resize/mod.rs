//! Measures a pool that grows and shrinks under look-aside clients with a simulated database: the requests
//! that reach the database, the latency of reads, and whether deleted values are read again. It compares
//! corecached as a proxy with and without warm resize, and twemproxy, which is restarted with each new list
//! of servers.

mod client;
mod database;
mod proxy;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use crate::machine::{Machine, today};
use crate::peer::{Peer, Server, Setting};
use crate::{Failure, scheduling};
use client::{Client, Tally};
use database::Database;
use proxy::{Proxy, ProxyKind};
use report::{Row, StepOutcome};

/// Number of servers in the pool in each step.
const STEPS: [usize; 4] = [3, 4, 6, 3];

/// Resize a pool 3 -> 4 -> 6 -> 3 under look-aside load with deletes and a simulated database.
///
/// Each key belongs to one client: a value that this client reads again after it was deleted is certainly
/// stale.
#[derive(Debug, Args)]
pub struct ResizeArgs {
    /// The corecached binary [default: in the folder of this binary]
    #[arg(long)]
    corecached: Option<PathBuf>,
    /// The memcached binary, for the caches
    #[arg(long, default_value = "memcached")]
    memcached: PathBuf,
    /// The twemproxy binary
    #[arg(long, default_value = "nutcracker")]
    twemproxy: PathBuf,
    /// Number of keys
    #[arg(long, default_value_t = 40_000)]
    keys: usize,
    /// Number of clients, each with a connection and a thread
    #[arg(long, default_value_t = 48)]
    clients: usize,
    /// Requests a second of all clients together, at Poisson instants
    #[arg(long, default_value_t = 4000.0)]
    rate: f64,
    /// Share of requests that write to the database and delete the key, 0 to 1
    #[arg(long, default_value_t = 0.02)]
    writes: f64,
    /// Milliseconds that the database takes for a request
    #[arg(long, default_value_t = 5)]
    database_ms: u64,
    /// Number of requests that the database handles at a time; others wait
    #[arg(long, default_value_t = 8)]
    database_width: usize,
    /// Seconds with each size of the pool
    #[arg(long, default_value_t = 10)]
    step_s: u64,
    /// window_ms of warm resize: milliseconds after a change in which keys follow
    #[arg(long, default_value_t = 60_000)]
    window_ms: u64,
    /// grace_ms of warm resize: milliseconds after a change in which the old server stays in use
    #[arg(long, default_value_t = 1000)]
    grace_ms: u64,
    /// Seconds that caches keep running after they left the pool
    #[arg(long, default_value_t = 8)]
    linger_s: u64,
    /// Write DATE-resize.md and .json into this directory
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs the subcommand. The exit code is 0 if no read was stale with warm resize.
///
/// # Errors
/// The options are not valid, a cache or a proxy cannot be started, or the results cannot be written.
pub fn main(args: &ResizeArgs) -> Result<ExitCode, Failure> {
    if args.clients == 0 || args.keys < args.clients || args.rate <= 0.0 || args.database_width == 0 {
        return Err(Failure::new(
            "--clients, --rate and --database-width must be above 0, and --keys at least --clients",
        ));
    }
    scheduling::allow_many_files();
    let machine = Machine::read();
    let corecached = match &args.corecached {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("corecached"),
    };
    let kinds = [
        ProxyKind::Warm { program: corecached.clone(), window_ms: args.window_ms, grace_ms: args.grace_ms },
        ProxyKind::Cold { program: corecached },
        ProxyKind::Twemproxy { program: args.twemproxy.clone() },
    ];
    let mut rows = Vec::new();
    for kind in kinds {
        rows.extend(run(args, kind)?);
    }
    let clean = rows.iter().filter(|row| row.warm).all(|row| row.outcome.stale == 0);
    let command: Vec<String> = std::env::args().skip(1).collect();
    let text = report::markdown(&rows, &machine, &command.join(" "));
    println!("{text}");
    if let Some(folder) = &args.out {
        let base = folder.join(format!("{}-resize", today()));
        std::fs::write(base.with_extension("md"), text)?;
        let json = serde_json::to_string_pretty(&rows).map_err(|error| Failure::new(error.to_string()))?;
        std::fs::write(base.with_extension("json"), json + "\n")?;
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn caches(args: &ResizeArgs) -> Result<Vec<Option<Server>>, Failure> {
    let setting = Setting { cores: Vec::new(), threads: 1, memory_mib: 256, fifo: false, pool: None };
    let peer = Peer::memcached("memcached", &args.memcached);
    let most = STEPS.into_iter().max().unwrap_or(0);
    (0..most).map(|_| peer.start(&setting).map(Some)).collect()
}

/// Runs all steps with one kind of proxy.
fn run(args: &ResizeArgs, kind: ProxyKind) -> Result<Vec<Row>, Failure> {
    let mut caches = caches(args)?;
    let addresses: Vec<_> = caches.iter().flatten().map(Server::address).collect();
    let (name, warm) = (kind.name(), kind.is_warm());
    let mut proxy = Proxy::start(kind, &addresses[..STEPS[0]])?;
    let database = Database::new(args.database_width, Duration::from_millis(args.database_ms));
    let (step, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut tallies: Vec<Tally> = Vec::new();
    let mut changing: Result<(), Failure> = Ok(());
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..args.clients)
            .map(|number| {
                let keys = args.keys / args.clients;
                let rate = args.rate / args.clients as f64;
                let client = Client::new(number, keys, rate, args.writes, proxy.address(), &database);
                let (step, stop) = (&step, &stop);
                scope.spawn(move || client.run(step, stop, STEPS.len()))
            })
            .collect();
        database.wait_for_clients(args.clients);
        changing = (|| {
            for (number, &size) in STEPS.iter().enumerate() {
                if number > 0 {
                    eprintln!("{name}: {size} servers");
                    proxy.set_caches(&addresses[..size])?;
                }
                step.store(number, Ordering::Relaxed);
                database.begin_step();
                let began = Instant::now();
                let whole = Duration::from_secs(args.step_s);
                if number + 1 == STEPS.len() {
                    std::thread::sleep(whole.min(Duration::from_secs(args.linger_s)));
                    caches.iter_mut().skip(size).for_each(|cache| *cache = None);
                }
                std::thread::sleep(whole.saturating_sub(began.elapsed()));
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        tallies.extend(clients.into_iter().filter_map(|client| client.join().ok()));
    });
    changing?;
    if tallies.len() < args.clients {
        return Err(Failure::new("a client thread panicked"));
    }
    let seconds = args.step_s;
    let rows = STEPS.iter().enumerate().map(|(number, &size)| {
        let outcome = StepOutcome::from_tallies(&tallies, number, database.per_second(number), seconds);
        Row { proxy: name.to_owned(), warm, servers: size, outcome }
    });
    Ok(rows.collect())
}
