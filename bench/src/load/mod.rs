//! A run of load against one server.
//!
//! [`run`] carries out a [`Plan`] on one or more threads, each with a share of the connections, and returns a
//! [`Report`]. Nothing is allocated, formatted or logged per request: each turn of a thread processes all
//! data that has been received, and sends the next requests on connections that became free.

mod args;
mod connection;
mod plan;
mod progress;
mod report;
mod requests;
mod tally;
mod target;
mod versions;
mod worker;

pub use args::{LoadArgs, main};
pub use plan::{ConnectionPlan, Items, Pace, Plan, RunLength, ThreadPlan, Traffic, Work};
pub use progress::Progress;
pub use report::{Bandwidth, Faults, Interval, Latencies, Latency, Lookups, Report, Resources, Throughput};
pub use target::Target;

use crate::payload::{Keys, Values};
use crate::{Failure, process};

/// The keys and values of a run.
#[derive(Debug)]
struct Dataset {
    keys: Keys,
    values: Values,
}

/// Carries out a plan.
///
/// # Errors
/// The plan is not valid, the server cannot be reached, or its replies make no sense. Wrong values are not
/// errors: the report counts them.
pub fn run(plan: &Plan, progress: &Progress) -> Result<Report, Failure> {
    plan.check()?;
    let dataset = plan.dataset()?;
    let outcomes: Vec<Result<worker::ThreadOutcome, Failure>> = std::thread::scope(|scope| {
        let spawn = |number| {
            let dataset = &dataset;
            std::thread::Builder::new()
                .name(format!("load-{number}"))
                .spawn_scoped(scope, move || worker::run(plan, dataset, number, progress))
        };
        let started: Vec<_> = (0..plan.threads.count).map(spawn).collect();
        let wait = |handle: std::thread::ScopedJoinHandle<'_, _>| {
            handle.join().unwrap_or_else(|_| Err(Failure::new("a load thread panicked")))
        };
        started.into_iter().map(|handle| handle.map_err(Failure::from).and_then(wait)).collect()
    });
    let outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
    let rss_bytes = plan.server_pid.and_then(process::rss_bytes);
    Ok(Report::new(plan, &dataset, &outcomes, rss_bytes))
}
