//! The `load` subcommand: its options, and the plan made from them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use corecached_net::endpoints::IoBackend;
use corecached_net::tls::{Trust, TrustOptions};

use super::{ConnectionPlan, Items, Pace, Plan, Progress, RunLength, Target, ThreadPlan, Traffic, Work, run};
use crate::popularity::Popularity;
use crate::sizes::Sizes;
use crate::ttl::TtlMix;
use crate::wire::Protocol;
use crate::{Failure, process, scheduling};

/// Drive one server and report throughput, latency, hit ratio and CPU.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The server: host:port or unix:PATH
    #[arg(long, default_value = "127.0.0.1:11211")]
    target: Target,
    /// Commands to use: get and set, or mg and ms
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocol,
    /// Number of connections
    #[arg(short, long, default_value_t = 50)]
    connections: usize,
    /// Requests sent together on a connection
    #[arg(short, long, default_value_t = 1)]
    pipeline: usize,
    /// Number of keys in one get
    #[arg(short, long, default_value_t = 1)]
    multiget: usize,
    /// Share of requests that are sets, 0 to 1
    #[arg(long, default_value_t = 0.1)]
    sets: f64,
    /// Number of keys
    #[arg(short, long, default_value_t = 1_000_000)]
    keys: u32,
    /// Number of the first key; runs with disjoint ranges of numbers have no key in common
    #[arg(long, default_value_t = 0)]
    first_key: u32,
    /// uniform, zipf:ALPHA, gauss, gauss:SHARE or file:PATH (CacheLib popularity histogram, plain or xz)
    #[arg(long, default_value = "uniform")]
    popularity: Popularity,
    /// Size of keys in bytes, 8 to 250: N, MIN-MAX, N:WEIGHT,..., etc-key or file:PATH
    #[arg(long, default_value = "20")]
    key_size: Sizes,
    /// Size of values in bytes: N, MIN-MAX, N:WEIGHT,..., etc-value or file:PATH (CacheLib size histogram,
    /// plain or xz)
    #[arg(long, default_value = "100")]
    value_size: Sizes,
    /// Draw a new size from the distribution for each set of a key
    #[arg(long)]
    resize: bool,
    /// TTLs: 300, 12h, never, or a mix such as 1d:65,14d:27,12h:8
    #[arg(long, default_value = "never")]
    ttl: TtlMix,
    /// Open loop at this many requests a second, at Poisson instants; without it, closed loop
    #[arg(long)]
    rate: Option<f64>,
    /// Open loop: sleep until the next instant instead of polling, to leave the core to others; implied by
    /// --fifo
    #[arg(long)]
    sleep: bool,
    /// Close and reopen a connection after this many requests
    #[arg(long)]
    churn: Option<u64>,
    /// Verify every byte and the version of every value against what was written
    #[arg(long)]
    verify: bool,
    /// Measured seconds; with --fill, 0 only fills
    #[arg(short, long, default_value_t = 5.0)]
    seconds: f64,
    /// Send this many requests instead, however long that takes
    #[arg(long)]
    requests: Option<u64>,
    /// Seconds of warm-up before the measured time
    #[arg(long, default_value_t = 0.4)]
    warmup: f64,
    /// Seconds of one interval in the report of throughput over time
    #[arg(long, default_value_t = 1.0)]
    interval: f64,
    /// Set every key once before the run
    #[arg(long)]
    fill: bool,
    /// Number of generator threads; connections are divided among them
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Cores that threads are pinned to in turn, such as 1 or 2,3
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    /// Run generator threads before ordinary ones (SCHED_FIFO; needs the privilege)
    #[arg(long)]
    fifo: bool,
    /// Network backend: auto, io_uring or epoll
    #[arg(long, value_name = "NAME", default_value = "auto")]
    io_backend: IoBackend,
    /// Use TLS and trust the certificates in this file (PEM); that of the server must name `localhost`
    #[arg(long, value_name = "FILE")]
    tls: Option<PathBuf>,
    /// Process id of the server; found by its port when it runs on this machine
    #[arg(long)]
    server_pid: Option<u32>,
    /// Seed of random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the report to this file as JSON; "-" is standard output
    #[arg(long)]
    json: Option<PathBuf>,
}

impl LoadArgs {
    fn plan(&self) -> Result<Plan, Failure> {
        let seconds = |value: f64, what: &str| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| Failure::new(format!("{what}: {value} is not a number of seconds")))
        };
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Plan {
            target: self.target.clone(),
            traffic: Traffic {
                protocol: self.protocol,
                work: Work::Mix,
                keys_per_get: self.multiget,
                set_share: self.sets,
            },
            items: Items {
                keys: self.keys,
                first_key: self.first_key,
                popularity: self.popularity.clone(),
                key_sizes: self.key_size.clone(),
                value_sizes: self.value_size.clone(),
                resize: self.resize,
                ttl: self.ttl.clone(),
            },
            connections: ConnectionPlan {
                count: self.connections,
                depth: self.pipeline,
                requests_per_connection: self.churn,
                tls: self.tls.as_deref().map(trusting).transpose()?,
            },
            pace: match self.rate {
                // The kernel takes 50 ms of each second from a thread that polls under SCHED_FIFO.
                Some(rate_per_s) => Pace::Open { rate_per_s, sleep: self.sleep || self.fifo },
                None => Pace::Closed,
            },
            length: RunLength {
                duration: seconds(self.seconds, "--seconds")?,
                warmup: seconds(self.warmup, "--warmup")?,
                requests: self.requests,
                interval: seconds(self.interval.max(0.001), "--interval")?,
            },
            threads: ThreadPlan {
                count: self.threads,
                cores: self.cores.clone(),
                fifo: self.fifo,
                io_backend: self.io_backend,
            },
            verify: self.verify,
            seed: self.seed,
            run: started.as_nanos() as u32 ^ std::process::id(),
            server_pid: self.server_pid.or_else(|| self.target.local_port().and_then(process::listening_on)),
        })
    }
}

/// Runs the subcommand. The exit code is 0 if every reply was one that a correct server may give.
///
/// # Errors
/// The plan is not valid, the server cannot be reached, or the report cannot be written.
pub fn main(args: &LoadArgs) -> Result<ExitCode, Failure> {
    scheduling::allow_many_files();
    let plan = args.plan()?;
    let mut clean = true;
    if args.fill {
        let filling = plan.filling();
        let progress = Progress::for_requests("filling", u64::from(plan.items.keys));
        let report = run(&filling, &progress)?;
        progress.done();
        clean = report.is_clean();
        if plan.length.duration.is_zero() || !clean {
            return finish(args, &report, clean);
        }
        eprintln!("filled {} keys at {:.0}/s", report.throughput.sets, report.throughput.requests_per_s);
    }
    let progress = match plan.length.requests {
        Some(requests) => Progress::for_requests("running", requests),
        None => Progress::for_duration("running", plan.length.warmup + plan.length.duration),
    };
    let report = run(&plan, &progress)?;
    progress.done();
    clean &= report.is_clean();
    finish(args, &report, clean)
}

fn finish(args: &LoadArgs, report: &super::Report, clean: bool) -> Result<ExitCode, Failure> {
    let json = serde_json::to_string_pretty(report).map_err(|error| Failure::new(error.to_string()))?;
    match &args.json {
        Some(path) if path.as_os_str() == "-" => println!("{json}"),
        Some(path) => {
            println!("{report}");
            std::fs::write(path, json).map_err(|error| Failure::from(error).during(path.display()))?;
        }
        None => println!("{report}"),
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Loads the certificates in `file`; servers whose certificates they have signed are trusted.
fn trusting(file: &Path) -> Result<Arc<Trust>, Failure> {
    let options = TrustOptions { authorities: file.to_owned(), flag: "--tls", identity: None, name: None };
    Trust::load(&options).map(Arc::new).map_err(|error| Failure::new(error.to_string()))
}
