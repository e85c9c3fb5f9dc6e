//! Measures gets while one of three servers becomes slow, with two copies of each key: their latency and the
//! number of requests, with neither hedged gets nor adaptive concurrency, with one of them, and with both.

mod client;
mod report;
mod slow;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Args;

use crate::machine::{Machine, today};
use crate::peer::{Peer, Server, Setting};
use crate::{Failure, scheduling};
use client::{PhaseCounts, ProxyConnection};
use report::Row;
use slow::SlowForwarder;

/// Time that the proxy gets to accept connections after its start.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Number of servers in the pool.
const SERVERS: usize = 3;
/// Names in the proxy's `stats` that are read at the end of each phase.
const STATS: [&str; 4] = ["request_sent_count", "hedge_sent", "hedge_denied", "adaptive_concurrency_refused"];

/// Settings that are compared: name, JSON keys of the pool, JSON keys of its route.
const SETTINGS: [(&str, &str, &str); 5] = [
    ("nothing", "", ""),
    ("hedge, 5 %", "", r#","hedge":{}"#),
    ("hedge, 40 %", "", r#","hedge":{"budget_percent":40}"#),
    ("adaptive concurrency", r#","adaptive_concurrency":{}"#, ""),
    ("both, 5 %", r#","adaptive_concurrency":{}"#, r#","hedge":{}"#),
];

/// Measure gets while one of three servers is slow, with and without hedged gets and adaptive concurrency.
#[derive(Debug, Args)]
pub struct TailsArgs {
    /// The corecached binary [default: in the folder of this binary]
    #[arg(long)]
    corecached: Option<PathBuf>,
    /// The memcached binary, for the caches
    #[arg(long, default_value = "memcached")]
    memcached: PathBuf,
    /// Number of keys
    #[arg(long, default_value_t = 3000)]
    keys: u64,
    /// Number of clients, each with a connection and a thread
    #[arg(long, default_value_t = 256)]
    clients: u64,
    /// Gets a second of all clients together
    #[arg(long, default_value_t = 3000.0)]
    rate: f64,
    /// Milliseconds by which requests to one server are delayed
    #[arg(long, default_value_t = 50)]
    delay_ms: u64,
    /// Seconds of the phase before the delay, and of the phase that begins 2 s after it
    #[arg(long, default_value_t = 8)]
    phase_s: u64,
    /// Write DATE-tails.md and .json into this directory
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs the subcommand.
///
/// # Errors
/// The options are not valid, a cache or the proxy cannot be started, or the results cannot be written.
pub fn main(args: &TailsArgs) -> Result<ExitCode, Failure> {
    if args.clients == 0 || args.keys == 0 || args.rate <= 0.0 || args.phase_s == 0 {
        return Err(Failure::new("--clients, --keys, --rate and --phase-s must be above 0"));
    }
    scheduling::allow_many_files();
    let machine = Machine::read();
    let corecached = match &args.corecached {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("corecached"),
    };
    let mut rows = Vec::new();
    for setting in SETTINGS {
        eprintln!("{}", setting.0);
        rows.extend(run(args, &corecached, setting)?);
    }
    let command: Vec<String> = std::env::args().skip(1).collect();
    let text = report::markdown(&rows, args.delay_ms, &machine, &command.join(" "));
    println!("{text}");
    if let Some(folder) = &args.out {
        let base = folder.join(format!("{}-tails", today()));
        std::fs::write(base.with_extension("md"), text)?;
        let json = serde_json::to_string_pretty(&rows).map_err(|error| Failure::new(error.to_string()))?;
        std::fs::write(base.with_extension("json"), json + "\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run(args: &TailsArgs, program: &Path, setting: (&str, &str, &str)) -> Result<Vec<Row>, Failure> {
    let (name, of_pool, of_route) = setting;
    let cache = Setting { cores: Vec::new(), threads: 1, memory_mib: 64, fifo: false, pool: None };
    let peer = Peer::memcached("memcached", &args.memcached);
    let caches: Vec<Server> = (0..SERVERS).map(|_| peer.start(&cache)).collect::<Result<_, _>>()?;
    let forwarders: Vec<SlowForwarder> =
        caches.iter().map(|cache| SlowForwarder::start(cache.address())).collect::<Result<_, _>>()?;
    let servers: Vec<String> =
        forwarders.iter().map(|forwarder| format!("\"{}\"", forwarder.address())).collect();
    let config = format!(
        r#"{{"pools":{{"A":{{"servers":[{}]{of_pool}}}}},"route":{{"type":"PoolRoute","pool":"A","replicas":2{of_route}}}}}"#,
        servers.join(",")
    );
    let proxy = Proxy::start(program, &config)?;
    let mut watcher = ProxyConnection::open(proxy.address())?;
    for key in 0..args.keys {
        watcher.set(key)?;
    }
    let lasts_s = [args.phase_s, 2, args.phase_s];
    let mut end = Instant::now();
    let ends = lasts_s.map(|seconds| {
        end += Duration::from_secs(seconds);
        end
    });
    let mut seen = [[0; STATS.len()]; 4];
    seen[0] = watcher.stats(STATS)?;
    let mut tallies: Vec<Vec<PhaseCounts>> = Vec::new();
    std::thread::scope(|scope| {
        let rate = args.rate / args.clients as f64;
        let address = proxy.address();
        let clients: Vec<_> = (0..args.clients)
            .map(|number| scope.spawn(move || client::run(number, address, args.keys, rate, &ends)))
            .collect();
        for (phase, end) in ends.iter().enumerate() {
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
            seen[phase + 1] = watcher.stats(STATS)?;
            if phase == 0 {
                forwarders[0].slow_by(args.delay_ms);
            }
        }
        tallies.extend(clients.into_iter().filter_map(|client| client.join().ok()));
        Ok::<(), Failure>(())
    })?;
    if tallies.len() < args.clients as usize {
        return Err(Failure::new("a client thread panicked"));
    }
    let phases = ["before", "its first 2 s", "from then on"];
    Ok(phases
        .iter()
        .enumerate()
        .map(|(phase, what)| {
            let counts: Vec<&PhaseCounts> = tallies.iter().map(|tally| &tally[phase]).collect();
            let sent = std::array::from_fn(|at| seen[phase + 1][at] - seen[phase][at]);
            Row::from_counts(name, what, &counts, sent, lasts_s[phase] as f64)
        })
        .collect())
}

/// A running corecached proxy. It is stopped when this is dropped.
#[derive(Debug)]
struct Proxy {
    port: u16,
    child: Child,
}

impl Proxy {
    fn start(program: &Path, config: &str) -> Result<Self, Failure> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let fixed = ["proxy", "--listen-addresses", "127.0.0.1", "--num-proxies", "1", "--asynclog-disable"];
        let child = Command::new(program)
            .args(fixed)
            .args(["-p", &port.to_string(), "--config-str", config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Failure::from(error).during(program.display()))?;
        let proxy = Self { port, child };
        let began = Instant::now();
        while ProxyConnection::open(proxy.address()).is_err() {
            if began.elapsed() > START_LIMIT {
                return Err(Failure::new(format!("{}: accepts no connections", program.display())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(proxy)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
