//! A pool that grows and shrinks under look-aside clients with a simulated database behind them: how many requests
//! reach the database, how long reads take, and whether anything deleted is read again. Corecached as a proxy with
//! warm resize and without it, and twemproxy, restarted with each new list of servers.

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
use crate::{Failure, place};
use client::{Client, Tally};
use database::Database;
use proxy::{Kind, Proxy};
use report::{Outcome, Row};

/// How many servers the pool has, one step after the other.
const STEPS: [usize; 4] = [3, 4, 6, 3];

/// Resize a pool 3 -> 4 -> 6 -> 3 under look-aside load with deletes, with a simulated database behind the clients.
///
/// Each key has one client: what it deleted and then reads again is stale beyond doubt.
#[derive(Debug, Args)]
pub struct ResizeArgs {
    /// The corecached binary [default: beside this one]
    #[arg(long)]
    corecached: Option<PathBuf>,
    /// The memcached binary: the caches
    #[arg(long, default_value = "memcached")]
    memcached: PathBuf,
    /// The twemproxy binary
    #[arg(long, default_value = "nutcracker")]
    twemproxy: PathBuf,
    /// Keys
    #[arg(long, default_value_t = 40_000)]
    keys: usize,
    /// Clients, each with a connection and a thread
    #[arg(long, default_value_t = 48)]
    clients: usize,
    /// Requests a second at Poisson instants, all clients together
    #[arg(long, default_value_t = 4000.0)]
    rate: f64,
    /// Share of requests that write to the database and delete the key, 0 to 1
    #[arg(long, default_value_t = 0.02)]
    writes: f64,
    /// Milliseconds that a request takes the database
    #[arg(long, default_value_t = 5)]
    database_ms: u64,
    /// Requests that the database works on at a time; others wait
    #[arg(long, default_value_t = 8)]
    database_width: usize,
    /// Seconds with each size of the pool
    #[arg(long, default_value_t = 10)]
    step_s: u64,
    /// Milliseconds of the window and of the grace
    #[arg(long, default_value_t = 60_000)]
    window_ms: u64,
    /// Milliseconds of the grace
    #[arg(long, default_value_t = 1000)]
    grace_ms: u64,
    /// Seconds for which caches that left the pool go on
    #[arg(long, default_value_t = 8)]
    linger_s: u64,
    /// Write DATE-resize.md and .json into this directory
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Do what the options say; the exit code tells whether nothing was stale with warm resize.
///
/// # Errors
/// What kept it from being done.
pub fn main(args: &ResizeArgs) -> Result<ExitCode, Failure> {
    if args.clients == 0 || args.keys < args.clients || args.rate <= 0.0 || args.database_width == 0 {
        return Err(Failure::new(
            "--clients, --rate and --database-width must be above 0, --keys not below --clients",
        ));
    }
    place::allow_many_files();
    let machine = Machine::read();
    let corecached = match &args.corecached {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("corecached"),
    };
    let kinds = [
        Kind::Warm { program: corecached.clone(), window_ms: args.window_ms, grace_ms: args.grace_ms },
        Kind::Cold { program: corecached },
        Kind::Twemproxy { program: args.twemproxy.clone() },
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

/// All steps with one kind of proxy.
fn run(args: &ResizeArgs, kind: Kind) -> Result<Vec<Row>, Failure> {
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
                    proxy.tell(&addresses[..size])?;
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
        return Err(Failure::new("a client ended before its time"));
    }
    let seconds = args.step_s;
    let rows = STEPS.iter().enumerate().map(|(number, &size)| {
        let outcome = Outcome::of(&tallies, number, database.per_second(number), seconds);
        Row { proxy: name.to_owned(), warm, servers: size, outcome }
    });
    Ok(rows.collect())
}
