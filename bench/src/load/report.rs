//! The report of a run, as text and as JSON.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::tally::LoadCounts;
use super::worker::ThreadOutcome;
use super::{Dataset, Pace, Plan};

/// Latency in microseconds, from when a request was due (open loop) or sent (closed loop) to the last byte of
/// its reply.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// 99.99th percentile.
    pub p9999_us: f64,
    /// Longest latency.
    pub max_us: f64,
}

impl Latency {
    fn from_histogram(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Some(Self {
            mean_us: histogram.mean() / 1000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: histogram.max() as f64 / 1000.0,
        })
    }
}

/// One interval of the measured time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Interval {
    /// Start of the interval, in seconds since the start of the measured time.
    pub at_s: f64,
    /// Number of requests answered.
    pub requests: u64,
    /// Longest latency of these requests, microseconds.
    pub max_us: f64,
}

/// Replies and values that a correct server does not give, and requests without a reply.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Faults {
    /// Values that differ from what was written.
    pub wrong: u64,
    /// Values that had been overwritten before the read was sent.
    pub stale: u64,
    /// Connections that broke: a reply made no sense, or the server closed the connection.
    pub broken_connections: u64,
    /// Requests answered with SERVER_ERROR.
    pub server_errors: u64,
    /// Requests without a reply at the end.
    pub unanswered: u64,
    /// Descriptions of the first few faults.
    pub examples: Vec<String>,
}

/// The requests of a run. Rates are per second of the measured time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Throughput {
    /// Number of requests answered; a get of several keys is one request.
    pub requests: u64,
    /// Number of gets among them.
    pub gets: u64,
    /// Number of sets among them.
    pub sets: u64,
    /// Requests answered a second.
    pub requests_per_s: f64,
    /// Keys a second: those of gets, and one for each set.
    pub keys_per_s: f64,
    /// The requested rate of an open loop, in requests a second.
    pub asked_per_s: Option<f64>,
    /// Whether more than 2 % of the requests of an open loop were due and not sent when it ended.
    pub saturated: bool,
}

/// The keys that gets found.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Lookups {
    /// Number of keys found.
    pub hits: u64,
    /// Number of keys not found.
    pub misses: u64,
    /// Hits divided by hits and misses; `None` without gets.
    pub hit_ratio: Option<f64>,
}

/// The latencies of a run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latencies {
    /// Latency of all requests.
    #[serde(rename = "latency")]
    pub all: Latency,
    /// Open loop: the 99th percentile of the median tenth of a second, microseconds. Rare pauses, of the
    /// machine or of the server, do not affect it; steady delays do.
    pub steady_p99_us: Option<f64>,
    /// Latency of gets, if there were any.
    #[serde(rename = "get_latency")]
    pub gets: Option<Latency>,
    /// Latency of sets, if there were any.
    #[serde(rename = "set_latency")]
    pub sets: Option<Latency>,
}

/// The bytes that the generator received and sent in a second of the measured time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bandwidth {
    /// Bytes received a second.
    pub in_bytes_per_s: f64,
    /// Bytes sent a second.
    pub out_bytes_per_s: f64,
}

/// The CPU time and memory that a run took. Those of the server are `None` if its process id is not known.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Resources {
    /// CPU time of all threads of the server, microseconds a request.
    pub server_cpu_us: Option<f64>,
    /// Number of cores that the server kept busy.
    pub server_cores: Option<f64>,
    /// Resident memory of the server at the end, bytes.
    pub server_rss_bytes: Option<u64>,
    /// CPU time of this generator, microseconds a request. An open loop that polls uses its core completely.
    pub own_cpu_us: f64,
    /// Number of cores that this generator kept busy.
    pub own_cores: f64,
}

/// The result of a run.
///
/// In JSON it is one flat object, in the order of the fields; only the latencies, faults and intervals are
/// objects in it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Address of the server, as host:port or unix:PATH.
    pub target: String,
    /// Description of the workload.
    pub workload: String,
    /// Measured time, seconds.
    pub seconds: f64,
    /// Requests and their rates.
    #[serde(flatten)]
    pub throughput: Throughput,
    /// Keys found and not found.
    #[serde(flatten)]
    pub lookups: Lookups,
    /// Sets answered with NOT_STORED.
    pub not_stored: u64,
    /// Faults of the server.
    pub faults: Faults,
    /// Latencies of all requests, of gets and of sets.
    #[serde(flatten)]
    pub latencies: Latencies,
    /// Bytes a second.
    #[serde(flatten)]
    pub bandwidth: Bandwidth,
    /// CPU time and memory.
    #[serde(flatten)]
    pub resources: Resources,
    /// Throughput over time.
    pub intervals: Vec<Interval>,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        dataset: &Dataset,
        outcomes: &[ThreadOutcome],
        rss_bytes: Option<u64>,
    ) -> Self {
        let mut gets: Option<Histogram<u64>> = None;
        let mut sets: Option<Histogram<u64>> = None;
        let mut counts = LoadCounts::default();
        let mut intervals: Vec<(u64, u64)> = Vec::new();
        let mut examples = Vec::new();
        for ThreadOutcome { tally, .. } in outcomes {
            merge(&mut gets, &tally.get_ns);
            merge(&mut sets, &tally.set_ns);
            counts.add(&tally.counts);
            intervals.resize(intervals.len().max(tally.intervals.len()), (0, 0));
            for (all, one) in intervals.iter_mut().zip(&tally.intervals) {
                *all = (all.0 + one.0, all.1.max(one.1));
            }
            examples.extend(tally.examples.iter().cloned());
        }
        let mut all = gets.clone();
        if let Some(sets) = &sets {
            merge(&mut all, sets);
        }
        let longest = outcomes.iter().map(|outcome| outcome.measured).max().unwrap_or_default();
        let seconds = longest.as_secs_f64().max(1e-9);
        let requests = counts.gets + counts.sets;
        let own_cpu: f64 = outcomes.iter().map(|outcome| outcome.own_cpu.as_secs_f64()).sum();
        let server_cpu = outcomes.iter().find_map(|outcome| outcome.server_cpu);
        let per_request = |seconds: f64| seconds * 1e6 / requests.max(1) as f64;
        let keys = counts.gets * plan.traffic.keys_per_get as u64 + counts.sets;
        let asked_per_s = match plan.pace {
            Pace::Open { rate_per_s, .. } => Some(rate_per_s),
            Pace::Closed => None,
        };
        let unsent: u64 = outcomes.iter().map(|outcome| outcome.unsent).sum();
        Self {
            target: plan.target.to_string(),
            workload: workload(plan, dataset),
            seconds,
            throughput: Throughput {
                requests,
                gets: counts.gets,
                sets: counts.sets,
                requests_per_s: requests as f64 / seconds,
                keys_per_s: keys as f64 / seconds,
                asked_per_s,
                saturated: asked_per_s.is_some() && unsent * 50 > requests,
            },
            lookups: Lookups {
                hits: counts.hits,
                misses: counts.misses,
                hit_ratio: (counts.hits + counts.misses > 0)
                    .then(|| counts.hits as f64 / (counts.hits + counts.misses) as f64),
            },
            not_stored: counts.not_stored,
            faults: Faults {
                wrong: counts.wrong,
                stale: counts.stale,
                broken_connections: counts.broken,
                server_errors: counts.server_errors,
                unanswered: counts.unanswered,
                examples,
            },
            latencies: Latencies {
                all: all.as_ref().and_then(Latency::from_histogram).unwrap_or_default(),
                steady_p99_us: steady(outcomes),
                gets: gets.as_ref().and_then(Latency::from_histogram),
                sets: sets.as_ref().and_then(Latency::from_histogram),
            },
            bandwidth: Bandwidth {
                in_bytes_per_s: counts.bytes_in as f64 / seconds,
                out_bytes_per_s: counts.bytes_out as f64 / seconds,
            },
            resources: Resources {
                server_cpu_us: server_cpu.map(|cpu| per_request(cpu.as_secs_f64())),
                server_cores: server_cpu.map(|cpu| cpu.as_secs_f64() / seconds),
                server_rss_bytes: rss_bytes,
                own_cpu_us: per_request(own_cpu),
                own_cores: own_cpu / seconds,
            },
            intervals: intervals
                .iter()
                .enumerate()
                .map(|(index, &(requests, max_ns))| Interval {
                    at_s: index as f64 * plan.length.interval.as_secs_f64(),
                    requests,
                    max_us: max_ns as f64 / 1000.0,
                })
                .collect(),
        }
    }

    /// Tells whether every reply was one that a correct server may give.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let faults = &self.faults;
        faults.wrong + faults.stale + faults.broken_connections + faults.server_errors + faults.unanswered
            == 0
    }
}

impl LoadCounts {
    fn add(&mut self, other: &Self) {
        self.gets += other.gets;
        self.sets += other.sets;
        self.hits += other.hits;
        self.misses += other.misses;
        self.not_stored += other.not_stored;
        self.server_errors += other.server_errors;
        self.wrong += other.wrong;
        self.stale += other.stale;
        self.broken += other.broken;
        self.unanswered += other.unanswered;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

fn steady(outcomes: &[ThreadOutcome]) -> Option<f64> {
    let mut tenths: Vec<u64> =
        outcomes.iter().flat_map(|outcome| outcome.tally.tenths_p99_ns.iter().copied()).collect();
    tenths.sort_unstable();
    tenths.get(tenths.len() / 2).map(|&ns| ns as f64 / 1000.0)
}

/// Adds a histogram. This cannot fail, because the histograms of all threads have the same bounds.
fn merge(into: &mut Option<Histogram<u64>>, other: &Histogram<u64>) {
    match into {
        Some(histogram) => drop(histogram.add(other)),
        None => *into = Some(other.clone()),
    }
}

fn workload(plan: &Plan, dataset: &Dataset) -> String {
    let pace = match plan.pace {
        Pace::Closed => "closed loop".to_owned(),
        Pace::Open { rate_per_s, .. } => format!("open loop at {rate_per_s:.0}/s"),
    };
    format!(
        "{:?}, {:?}, {pace}, {} connections, pipeline {}, {} keys a get, {:.0} % sets, {} keys {:?}, \
         key bytes {:?}, value bytes {:?} (mean {:.0}){}{}",
        plan.traffic.work,
        plan.traffic.protocol,
        plan.connections.count,
        plan.connections.depth,
        plan.traffic.keys_per_get,
        plan.traffic.set_share * 100.0,
        plan.items.keys,
        plan.items.popularity,
        plan.items.key_sizes,
        plan.items.value_sizes,
        dataset.values.mean_len(),
        if plan.verify { ", verified" } else { "" },
        plan.connections.requests_per_connection.map(|count| format!(", churn {count}")).unwrap_or_default(),
    )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.target, self.workload)?;
        write!(
            f,
            "  {:.0} requests/s, {:.0} keys/s",
            self.throughput.requests_per_s, self.throughput.keys_per_s
        )?;
        if let Some(ratio) = self.lookups.hit_ratio {
            write!(f, ", hit ratio {ratio:.4}")?;
        }
        if self.throughput.saturated {
            write!(f, ", SATURATED")?;
        }
        writeln!(f, ", {:.1} s", self.seconds)?;
        let kinds =
            [("all", Some(self.latencies.all)), ("get", self.latencies.gets), ("set", self.latencies.sets)];
        for (name, latency) in kinds {
            let Some(latency) = latency else { continue };
            writeln!(
                f,
                "  {name} us: p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  p99.99 {:.0}  max {:.0}",
                latency.p50_us,
                latency.p90_us,
                latency.p99_us,
                latency.p999_us,
                latency.p9999_us,
                latency.max_us
            )?;
        }
        if let Some(steady_us) = self.latencies.steady_p99_us {
            writeln!(f, "  p99 of the median tenth of a second: {steady_us:.0} us")?;
        }
        if let (Some(cpu_us), Some(cores)) = (self.resources.server_cpu_us, self.resources.server_cores) {
            let rss = self.resources.server_rss_bytes.unwrap_or(0) as f64 / f64::from(1 << 20);
            writeln!(f, "  server: {cpu_us:.2} us CPU/request, {cores:.2} cores, RSS {rss:.1} MiB")?;
        }
        write!(
            f,
            "  generator: {:.2} us CPU/request, {:.2} cores",
            self.resources.own_cpu_us, self.resources.own_cores
        )?;
        if !self.is_clean() {
            let faults = &self.faults;
            write!(
                f,
                "\n  FAULTS: {} wrong, {} stale, {} broken connections, {} server errors, {} unanswered",
                faults.wrong,
                faults.stale,
                faults.broken_connections,
                faults.server_errors,
                faults.unanswered
            )?;
            for example in &faults.examples {
                write!(f, "\n    {example}")?;
            }
        }
        Ok(())
    }
}
