//! Compares the CPU time of this load generator with that of memcaslap; both drive the same memcached in
//! turn.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;

use crate::compare::median;
use crate::load::{self, ConnectionPlan, Items, Plan, Progress, RunLength, ThreadPlan, Traffic};
use crate::peer::{Peer, Server, Setting};
use crate::{Failure, process, scheduling};

/// Configuration of memcaslap: keys of 20 bytes, values of 100 bytes, one request in ten is a set.
const CONFIGURATION: &str = "key\n20 20 1\nvalue\n100 100 1\ncmd\n0 0.1\n1 0.9\n";
const CONNECTIONS: usize = 50;
const KEYS: u32 = 100_000;

/// Compare this generator's own CPU time a request with that of memcaslap (Debian package
/// libmemcached-tools).
#[derive(Debug, Args)]
pub struct GeneratorsArgs {
    /// The memcached binary that both drive
    #[arg(long, default_value = "memcached")]
    memcached: PathBuf,
    /// The memcaslap binary
    #[arg(long, default_value = "memcaslap")]
    memcaslap: PathBuf,
    /// Number of rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 3)]
    seconds: u64,
}

/// The result of one run of a generator.
#[derive(Clone, Copy, Debug)]
struct Cost {
    own_us: f64,
    server_us: f64,
    requests_per_s: f64,
}

/// Runs the subcommand.
///
/// # Errors
/// memcached or memcaslap cannot be started, or a run fails.
pub fn main(args: &GeneratorsArgs) -> Result<ExitCode, Failure> {
    let cores = scheduling::cores();
    let setting = Setting { cores: vec![cores[0]], threads: 1, memory_mib: 1024, fifo: false, pool: None };
    let server = Peer::memcached("memcached", &args.memcached).start(&setting)?;
    let own_core = cores[cores.len() - 1];
    let plan = Plan {
        connections: ConnectionPlan { count: CONNECTIONS, ..ConnectionPlan::default() },
        traffic: Traffic { set_share: 0.1, ..Traffic::default() },
        items: Items { keys: KEYS, ..Items::default() },
        threads: ThreadPlan { cores: vec![own_core], ..ThreadPlan::default() },
        length: RunLength { duration: Duration::from_secs(args.seconds), ..RunLength::default() },
        server_pid: Some(server.pid()),
        ..Plan::new(server.target())
    };
    load::run(&plan.filling(), &Progress::hidden())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds.max(1) {
        let report = load::run(&plan, &Progress::hidden())?;
        let (used, requests_per_s) = (report.resources, report.throughput.requests_per_s);
        let server_us = used.server_cpu_us.unwrap_or(0.0);
        ours.push(Cost { own_us: used.own_cpu_us, server_us, requests_per_s });
        theirs.push(memcaslap(args, &server, own_core)?);
    }
    println!(
        "{CONNECTIONS} connections, 90/10 get/set of 100 B, no pipelining, generator on one core, memcached on another; \
         medians of {} rounds:",
        ours.len()
    );
    for (name, costs) in [("corecached-bench", &ours), ("memcaslap", &theirs)] {
        println!(
            "{name}: {:.2} us CPU/request of its own (server {:.2}), {:.0} requests/s",
            median(costs.iter().map(|cost| cost.own_us)),
            median(costs.iter().map(|cost| cost.server_us)),
            median(costs.iter().map(|cost| cost.requests_per_s))
        );
    }
    let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours.own_us / theirs.own_us);
    println!("corecached-bench to memcaslap within rounds: {:.2}", median(ratios));
    Ok(ExitCode::SUCCESS)
}

fn memcaslap(args: &GeneratorsArgs, server: &Server, core: usize) -> Result<Cost, Failure> {
    let failed =
        |words: &dyn std::fmt::Display| Failure::new(format!("{}: {words}", args.memcaslap.display()));
    let configuration = std::env::temp_dir().join(format!("corecached-bench-{}.cfg", std::process::id()));
    std::fs::write(&configuration, CONFIGURATION)?;
    let mut command = Command::new(&args.memcaslap);
    command
        .args(["-s", &server.target().to_string(), "-T", "1", "-c", &CONNECTIONS.to_string(), "-w", "10k"])
        .args(["-t", &format!("{}s", args.seconds), "-F"])
        .arg(&configuration)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let (own_before, server_before) = (ended_children_ns(), process::cpu_ns(server.pid()));
    // A child process inherits the cores of the thread that starts it.
    let output = std::thread::scope(|scope| {
        let run = || -> Result<_, Failure> {
            scheduling::pin(&[core])?;
            command.output().map_err(|error| failed(&error))
        };
        scope.spawn(run).join().unwrap_or_else(|_| Err(failed(&"the starting thread panicked")))
    })?;
    let own_ns = ended_children_ns() - own_before;
    let server_ns = process::cpu_ns(server.pid()).saturating_sub(server_before);
    let _ = std::fs::remove_file(&configuration);
    let said = String::from_utf8_lossy(&output.stdout);
    let requests = requests(&said).ok_or_else(|| failed(&"did not say how many requests it made"))?;
    let each_us = |ns: u64| ns as f64 / 1000.0 / requests.max(1.0);
    let requests_per_s = requests / args.seconds as f64;
    Ok(Cost { own_us: each_us(own_ns), server_us: each_us(server_ns), requests_per_s })
}

/// Parses the number of requests in memcaslap's last line: "Run time: 3.0s Ops: 12345 TPS: ...".
fn requests(output: &str) -> Option<f64> {
    let line = output.lines().rfind(|line| line.starts_with("Run time:"))?;
    let mut words = line.split_ascii_whitespace().skip_while(|word| *word != "Ops:");
    words.nth(1)?.parse().ok()
}

/// Returns the CPU time of child processes that have ended, in nanoseconds.
fn ended_children_ns() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: all zeros are a valid rusage, and the call writes at most one rusage.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
    ns(usage.ru_utime) + ns(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_the_last_line() {
        let output = "Get Statistics\nOps: 7\n\nRun time: 3.0s Ops: 151201 TPS: 50400 Net_rate: 7.5M/s\n";
        assert_eq!(requests(output), Some(151_201.0));
        assert_eq!(requests("nothing"), None);
    }
}
