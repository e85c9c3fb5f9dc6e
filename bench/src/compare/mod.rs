//! Compares servers: starts them, pins them to the same cores, and drives each in turn within every round.
//!
//! The speed of a shared machine varies by more than servers differ. So the result is the ratio of two
//! servers within one round, and the median of these ratios over rounds. Proxies are compared in the same
//! way, in front of the same caches. To compare servers that are started in another way, call [`measure`]
//! with their addresses and process ids.

mod caches;
mod markdown;
mod plot;
mod table;
mod workloads;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

pub use caches::ProxiedCaches;
pub use table::{Added, Cell, Comparison, Row, ServerLine, Spread, median};
pub use workloads::{ALL, Data, OPEN, PROXIED, PROXIED_QUICK, QUICK, Rate, Spoken, Workload};

use crate::load::{self, Plan, Progress, Report, RunLength, Target, ThreadPlan};
use crate::machine::Machine;
use crate::peer::{Peer, Server, Setting};
use crate::{Failure, scheduling};

/// Compare corecached with memcached, or as a proxy with twemproxy, and with others, under the workloads of
/// the README.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The corecached binary [default: in the folder of this binary]
    #[arg(long)]
    corecached: Option<PathBuf>,
    /// Backends of corecached to compare; "none" leaves corecached out
    #[arg(long, value_delimiter = ',', default_value = "io_uring,epoll")]
    backends: Vec<String>,
    /// Compare proxies, each in front of the same three caches
    #[arg(long)]
    proxy: bool,
    /// The memcached binary: the reference, or with --proxy the caches. Given again, further ones are compared
    /// with the first
    #[arg(long, default_value = "memcached")]
    memcached: Vec<PathBuf>,
    /// The twemproxy binary, the reference of --proxy
    #[arg(long, default_value = "nutcracker", requires = "proxy")]
    twemproxy: PathBuf,
    /// Another server, name=path:arguments, with {port}, {threads} and {memory} (MiB) in them, and with
    /// --proxy {config}, {json}, {yaml} or {servers}; may be repeated
    #[arg(long)]
    peer: Vec<Peer>,
    /// Workloads by name [default: all, or with --quick w1,w2,w3,w6,w7,half; with --proxy
    /// p1,p2,p3,p4,p5,open]
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Take less than three minutes: fewer workloads, shorter rounds
    #[arg(long)]
    quick: bool,
    /// Number of rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measured seconds for each round, workload and server [default: 2, or with --quick 1]
    #[arg(long)]
    seconds: Option<f64>,
    /// Cores and threads of each server. If a core is left, the generator runs on the last one; with --proxy
    /// it shares that core with the caches unless more cores are left
    #[arg(long, default_value_t = 1)]
    server_cores: usize,
    /// Memory limit of each server, MiB
    #[arg(long, default_value_t = 2048)]
    memory: usize,
    /// Run server workers and the generator before ordinary threads (SCHED_FIFO), for machines that do other
    /// work. Has no effect when servers use every core
    #[arg(long)]
    fifo: bool,
    /// Requests a second in the workload `half` [default: half of what the reference reaches in w1]
    #[arg(long, conflicts_with = "proxy")]
    half_rate: Option<f64>,
    /// Compare every byte of every value
    #[arg(long)]
    verify: bool,
    /// Write DATE-compare.md, .json and .svg into this directory, or with --proxy DATE-compare-proxy
    #[arg(long)]
    out: Option<PathBuf>,
}

/// The method of a comparison.
#[derive(Debug)]
pub struct Method {
    /// Settings that all runs have in common.
    pub base: Plan,
    /// Workloads in order.
    pub workloads: Vec<Workload>,
    /// Number of rounds.
    pub rounds: usize,
    /// Requests a second of [`Rate::HalfOfReference`]; `None`: measured before the first round.
    pub half_rate_per_s: Option<f64>,
    /// Whether open loops sleep between requests instead of polling: set when servers share the core of the
    /// generator, or when the generator runs under SCHED_FIFO, where the kernel takes 50 ms of each second
    /// from a thread that polls.
    pub sleep: bool,
}

/// A running server that is measured.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Name in tables.
    pub name: String,
    /// Address that it listens on.
    pub target: Target,
    /// Process id; `None`: its CPU time is not read.
    pub pid: Option<u32>,
    /// Name of the one workload that it is measured under; `None`: all workloads.
    pub only: Option<&'static str>,
}

impl Subject {
    fn takes(&self, workload: &Workload) -> bool {
        self.only.is_none_or(|name| name == workload.name)
    }
}

/// Runs the subcommand. The exit code is 0 if all replies were correct.
///
/// # Errors
/// A server cannot be started or filled, the reference fails, or the results cannot be written.
pub fn main(args: &CompareArgs) -> Result<ExitCode, Failure> {
    scheduling::allow_many_files();
    let machine = Machine::read();
    let (mut setting, method, peers) = (args.setting()?, args.method()?, args.peers()?);
    let caches = match args.proxy {
        true => Some(ProxiedCaches::start(&args.memcached[0], &args.cache_setting())?),
        false => None,
    };
    setting.pool = caches.as_ref().map(ProxiedCaches::pool);
    let servers = peers.iter().map(|peer| peer.start(&setting)).collect::<Result<Vec<_>, _>>()?;
    let lines = servers.iter().map(line).chain(caches.as_ref().map(ProxiedCaches::line)).collect();
    let subjects: Vec<Subject> =
        servers.iter().map(subject).chain(caches.as_ref().map(ProxiedCaches::direct)).collect();
    let rows = measure(&subjects, &method)?;
    drop((servers, caches));
    let names: Vec<String> = subjects.into_iter().map(|subject| subject.name).collect();
    let open = rows.iter().find(|row| row.workload == OPEN);
    let comparison = Comparison {
        added: open.map(|row| row.added(&names)).unwrap_or_default(),
        machine,
        command: std::env::args().map(|word| without_folder(&word)).collect::<Vec<_>>().join(" "),
        method: args.words(&setting, &method),
        servers: lines,
        rows,
    };
    let markdown = markdown::render(&comparison);
    println!("{markdown}");
    if let Some(directory) = &args.out {
        let kind = if args.proxy { "compare-proxy" } else { "compare" };
        write(directory, kind, &comparison, &markdown)?;
    }
    let cells = || comparison.rows.iter().flat_map(|row| &row.cells);
    Ok(if cells().any(|cell| cell.faults > 0) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns a word of the command line without the folders of a path in it: they are of no use in a report.
fn without_folder(word: &str) -> String {
    let short = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    match word.split_once('=') {
        Some((name, rest)) => match rest.split_once(':') {
            Some((program, arguments)) => format!("'{name}={}:{arguments}'", short(program)),
            None => format!("{name}={}", short(rest)),
        },
        None => short(word),
    }
}

fn subject(server: &Server) -> Subject {
    Subject { name: server.name.clone(), target: server.target(), pid: Some(server.pid()), only: None }
}

fn line(server: &Server) -> ServerLine {
    ServerLine {
        name: server.name.clone(),
        version: server.version.clone(),
        arguments: server.arguments.join(" "),
    }
}

impl CompareArgs {
    fn peers(&self) -> Result<Vec<Peer>, Failure> {
        let corecached = match &self.corecached {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("corecached"),
        };
        let backends: &[String] = if self.backends == ["none"] { &[] } else { &self.backends };
        if !corecached.exists() && !backends.is_empty() {
            let path = corecached.display();
            return Err(Failure::new(format!(
                "{path}: no such file: build corecached, or give its path with --corecached PATH"
            )));
        }
        if let Some(peer) = self.peer.iter().find(|peer| peer.is_proxy() != self.proxy) {
            let words = if self.proxy {
                "is told of no caches: add {config}, {json}, {yaml} or {servers} to its arguments"
            } else {
                "is a proxy: say --proxy, or leave {config}, {json}, {yaml} and {servers} out of its arguments"
            };
            return Err(Failure::new(format!("--peer {}: {words}", peer.name)));
        }
        let ours = if self.proxy { Peer::corecached_proxy } else { Peer::corecached };
        let mut peers = vec![match self.proxy {
            true => Peer::twemproxy(&self.twemproxy),
            false => Peer::memcached("memcached", &self.memcached[0]),
        }];
        peers.extend(backends.iter().map(|backend| ours(&corecached, backend)));
        if !self.proxy {
            let further = self.memcached[1..].iter().zip(2..);
            peers.extend(further.map(|(program, at)| Peer::memcached(&format!("memcached ({at})"), program)));
        }
        peers.extend(self.peer.iter().cloned());
        Ok(peers)
    }

    fn setting(&self) -> Result<Setting, Failure> {
        let cores = scheduling::cores();
        if self.server_cores == 0 || self.server_cores > cores.len() {
            return Err(Failure::new(format!("--server-cores must be 1 to {}", cores.len())));
        }
        let shared = self.server_cores == cores.len();
        Ok(Setting {
            cores: if shared { Vec::new() } else { cores[..self.server_cores].to_vec() },
            threads: self.server_cores,
            memory_mib: self.memory,
            fifo: self.fifo && !shared,
            pool: None,
        })
    }

    /// Returns the setting of the caches behind proxies. They do not run on a core of the proxies, and share
    /// the core of the generator only when no other is left.
    fn cache_setting(&self) -> Setting {
        let cores = scheduling::cores();
        Setting {
            cores: cache_cores(&cores, self.server_cores).to_vec(),
            threads: 1,
            memory_mib: self.memory,
            // Without it, ordinary threads that delay the caches would decide how fast the proxies are.
            fifo: self.fifo && self.server_cores < cores.len(),
            pool: None,
        }
    }

    fn method(&self) -> Result<Method, Failure> {
        let cores = scheduling::cores();
        let shared_cores = self.server_cores == cores.len();
        let seconds = self.seconds.unwrap_or(if self.quick { 1.0 } else { 2.0 });
        let duration =
            Duration::try_from_secs_f64(seconds).map_err(|_| Failure::new("--seconds: not a time"))?;
        let base = Plan {
            threads: ThreadPlan {
                cores: if shared_cores { Vec::new() } else { cores[cores.len() - 1..].to_vec() },
                fifo: self.fifo && !shared_cores,
                ..ThreadPlan::default()
            },
            length: RunLength {
                duration,
                warmup: Duration::from_millis(if self.quick { 200 } else { 400 }),
                ..RunLength::default()
            },
            verify: self.verify,
            ..Plan::new("127.0.0.1:1".parse()?)
        };
        let (table, quick) =
            if self.proxy { (&PROXIED[..], &PROXIED_QUICK[..]) } else { (&ALL[..], &QUICK[..]) };
        let all: Vec<&str> = table.iter().map(|workload| workload.name).collect();
        let names: Vec<&str> = match self.workloads.is_empty() {
            false => self.workloads.iter().map(String::as_str).collect(),
            true if self.quick => quick.to_vec(),
            true => all.clone(),
        };
        if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
            return Err(Failure::new(format!("no workload {unknown}: there are {}", all.join(", "))));
        }
        let workloads = table.iter().filter(|workload| names.contains(&workload.name)).copied().collect();
        let beside_caches = self.proxy && self.cache_setting().cores == base.threads.cores;
        let sleep = shared_cores || beside_caches || base.threads.fifo;
        Ok(Method { base, workloads, rounds: self.rounds.max(1), half_rate_per_s: self.half_rate, sleep })
    }

    fn words(&self, setting: &Setting, method: &Method) -> String {
        format!(
            "{} rounds of {:?} ({:?} warm-up), servers in turn within a round; loopback; {} server thread(s) on cores \
             {}, generator on {}{}{}{}",
            method.rounds,
            method.base.length.duration,
            method.base.length.warmup,
            setting.threads,
            if setting.cores.is_empty() {
                "shared with the generator".to_owned()
            } else {
                on(&setting.cores)
            },
            on(&method.base.threads.cores),
            if self.proxy {
                format!(", caches on {}", on(&self.cache_setting().cores))
            } else {
                String::new()
            },
            if setting.fifo { "; SCHED_FIFO for server workers and generator" } else { "" },
            if self.verify { "; every value verified" } else { "" },
        )
    }
}

fn on(cores: &[usize]) -> String {
    if cores.is_empty() { "any".to_owned() } else { format!("{cores:?}") }
}

fn write(directory: &Path, kind: &str, comparison: &Comparison, markdown: &str) -> Result<(), Failure> {
    fs::create_dir_all(directory)?;
    let stem = format!("{}-{kind}", comparison.machine.date);
    let json = serde_json::to_string(comparison).map_err(|error| Failure::new(error.to_string()))?;
    let svg = plot::render(comparison)?;
    let linked = format!("{markdown}\n![bars of the ratios and latencies]({stem}.svg)\n");
    for (ending, content) in [("md", &linked), ("json", &json), ("svg", &svg)] {
        let path = directory.join(format!("{stem}.{ending}"));
        fs::write(&path, content).map_err(|error| Failure::from(error).during(path.display()))?;
    }
    Ok(())
}

/// Measures servers; the first is the reference. A workload that another server fails under, for example
/// because it does not speak the protocol, becomes a cell with a failure.
///
/// # Errors
/// A server cannot be filled, or the reference fails.
pub fn measure(subjects: &[Subject], method: &Method) -> Result<Vec<Row>, Failure> {
    fill(subjects, method)?;
    let half_rate_per_s = half_rate(subjects, method)?;
    let steps = method.rounds * method.workloads.len() * subjects.len();
    let progress = Progress::for_requests("measuring", steps as u64);
    let mut reports: Vec<Vec<Result<Vec<Report>, Failure>>> =
        method.workloads.iter().map(|_| subjects.iter().map(|_| Ok(Vec::new())).collect()).collect();
    let mut step = 0;
    for round in 0..method.rounds {
        for (workload, reports) in method.workloads.iter().zip(&mut reports) {
            // A different server goes first in each round, so that no server always follows the same one.
            for turn in 0..subjects.len() {
                let server = (turn + round) % subjects.len();
                step += 1;
                if !subjects[server].takes(workload) {
                    reports[server] = Err(Failure::new("not asked"));
                    continue;
                }
                let plan = workload.plan(&method.base, server == 0, half_rate_per_s, method.sleep);
                let plan = aimed(plan, &subjects[server], (round * subjects.len() + server) as u64);
                if let Ok(rounds) = &mut reports[server] {
                    match load::run(&plan, &Progress::hidden()) {
                        Ok(report) => rounds.push(report),
                        Err(failure) => reports[server] = Err(failure),
                    }
                }
                progress.advance(step, 0);
            }
        }
    }
    progress.done();
    method.workloads.iter().zip(reports).map(|(workload, reports)| row(workload, &reports)).collect()
}

fn row(workload: &Workload, reports: &[Result<Vec<Report>, Failure>]) -> Result<Row, Failure> {
    let reference = reports[0].as_ref().map_err(|failure| failure.clone().during(workload.name))?;
    let cell = |reports: &Result<Vec<Report>, Failure>| match reports {
        Ok(rounds) => Cell::new(rounds, reference),
        Err(failure) => Cell { failure: Some(failure.to_string()), ..Cell::default() },
    };
    Ok(Row {
        workload: workload.name.to_owned(),
        what: workload.what.to_owned(),
        cells: reports.iter().map(cell).collect(),
    })
}

/// Returns the cores for the caches: those between the cores of the proxies and that of the generator, or
/// that of the generator if there are none between, or no restriction (empty) when the proxies have all
/// cores.
fn cache_cores(cores: &[usize], proxy_cores: usize) -> &[usize] {
    match cores.len().saturating_sub(proxy_cores) {
        0 => &[],
        1 => &cores[proxy_cores..],
        left => &cores[proxy_cores..proxy_cores + left - 1],
    }
}

/// Returns the plan for one run against one server. `number` makes its values differ from those of all other
/// runs.
fn aimed(plan: Plan, subject: &Subject, number: u64) -> Plan {
    let run = plan.run.wrapping_add(number as u32 + 1);
    Plan { target: subject.target.clone(), server_pid: subject.pid, seed: number + 1, run, ..plan }
}

fn fill(subjects: &[Subject], method: &Method) -> Result<(), Failure> {
    let mut filled: Vec<Data> = Vec::new();
    for workload in &method.workloads {
        if filled.contains(&workload.data) {
            continue;
        }
        filled.push(workload.data);
        for subject in subjects {
            if !method.workloads.iter().any(|other| other.data == workload.data && subject.takes(other)) {
                continue;
            }
            let plan = aimed(workload.plan(&method.base, false, 1.0, false), subject, 0).filling();
            let progress =
                Progress::for_requests(&format!("filling {}", subject.name), u64::from(plan.items.keys));
            let report = load::run(&plan, &progress).map_err(|failure| failure.during(&subject.name))?;
            progress.done();
            if !report.is_clean() {
                let faults = report.faults.examples.join("; ");
                return Err(Failure::new(format!("{} cannot be filled: {faults}", subject.name)));
            }
        }
    }
    Ok(())
}

fn half_rate(subjects: &[Subject], method: &Method) -> Result<f64, Failure> {
    if let Some(rate_per_s) = method.half_rate_per_s {
        return Ok(rate_per_s);
    }
    if !method.workloads.iter().any(|workload| workload.rate == Rate::HalfOfReference) {
        return Ok(1.0);
    }
    let plan = ALL[0].plan(&method.base, true, 1.0, false);
    Ok(load::run(&aimed(plan, &subjects[0], 0), &Progress::hidden())?.throughput.requests_per_s / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_keep_off_the_cores_of_proxies() {
        assert_eq!(cache_cores(&[0, 1], 1), [1]);
        assert_eq!(cache_cores(&[0, 1, 2, 3], 1), [1, 2]);
        assert_eq!(cache_cores(&[0, 1, 2, 3], 2), [2]);
        assert_eq!(cache_cores(&[0, 1], 2), [0; 0]);
    }
}
