//! The result table, with a row for each proxy and size of the pool.

use std::fmt::Write;

use serde::Serialize;

use super::client::Tally;
use crate::machine::Machine;

/// The result of one step with one proxy.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// Name of the proxy.
    pub proxy: String,
    /// Whether it uses warm resize.
    pub warm: bool,
    /// Number of servers in the pool.
    pub servers: usize,
    /// Figures of the step.
    pub outcome: StepOutcome,
}

/// Figures of a step.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct StepOutcome {
    /// Reads a second.
    pub gets_per_s: f64,
    /// Share of reads that the cache answered.
    pub hit_ratio: f64,
    /// Database requests a second, on average.
    pub database_per_s: f64,
    /// Database requests in the second with the most.
    pub database_peak: u64,
    /// Median time of a read, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the time of a read, milliseconds.
    pub p99_ms: f64,
    /// Stale reads: of a value that had been deleted before.
    pub stale: u64,
    /// Errors and broken connections.
    pub errors: u64,
}

impl StepOutcome {
    /// Combines the counters of all clients in a step of `seconds`. `database` has the requests of each
    /// second.
    #[must_use]
    pub(super) fn from_tallies(tallies: &[Tally], step: usize, database: Vec<u64>, seconds: u64) -> Self {
        let counts = || tallies.iter().map(|tally| &tally[step]);
        let mut get_us: Vec<u32> = counts().flat_map(|counts| counts.get_us.iter().copied()).collect();
        get_us.sort_unstable();
        let part = |of: f64| match get_us.len() {
            0 => 0.0,
            len => f64::from(get_us[((len as f64 * of) as usize).min(len - 1)]) / 1000.0,
        };
        let gets: u64 = counts().map(|counts| counts.gets).sum();
        let hits: u64 = counts().map(|counts| counts.hits).sum();
        Self {
            gets_per_s: gets as f64 / seconds.max(1) as f64,
            hit_ratio: hits as f64 / gets.max(1) as f64,
            database_per_s: database.iter().sum::<u64>() as f64 / seconds.max(1) as f64,
            database_peak: database.into_iter().max().unwrap_or(0),
            p50_ms: part(0.5),
            p99_ms: part(0.99),
            stale: counts().map(|counts| counts.stale).sum(),
            errors: counts().map(|counts| counts.errors).sum(),
        }
    }
}

/// Renders the results as Markdown.
#[must_use]
pub(super) fn markdown(rows: &[Row], machine: &Machine, command: &str) -> String {
    let mut text = format!(
        "# A pool that goes 3 -> 4 -> 6 -> 3\n\n`corecached-bench {command}`, {}\n\n{}\n\n\
         Each row is the time from when the pool got that size; the first is before any change.\n\n\
         | proxy | servers | gets/s | hits | database/s | most in a second | p50 ms | p99 ms | stale | errors |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        machine.date,
        machine.line()
    );
    for Row { proxy, servers, outcome, .. } in rows {
        let StepOutcome {
            gets_per_s,
            hit_ratio,
            database_per_s,
            database_peak,
            p50_ms,
            p99_ms,
            stale,
            errors,
        } = outcome;
        let _ = writeln!(
            text,
            "| {proxy} | {servers} | {gets_per_s:.0} | {:.2} % | {database_per_s:.0} | {database_peak} | \
             {p50_ms:.2} | {p99_ms:.1} | {stale} | {errors} |",
            hit_ratio * 100.0
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::client::StepCounts;
    use super::*;

    #[test]
    fn what_clients_counted_is_added_up_by_step() {
        let counts = |gets, hits, us| StepCounts { gets, hits, get_us: vec![us], stale: 1, errors: 0 };
        let tallies = [
            vec![StepCounts::default(), counts(3, 2, 1000)],
            vec![StepCounts::default(), counts(1, 1, 3000)],
        ];
        let outcome = StepOutcome::from_tallies(&tallies, 1, vec![1, 7], 2);
        assert_eq!((outcome.gets_per_s, outcome.hit_ratio, outcome.stale), (2.0, 0.75, 2));
        assert_eq!((outcome.database_per_s, outcome.database_peak), (4.0, 7));
        assert_eq!((outcome.p50_ms, outcome.p99_ms), (3.0, 3.0));
        assert_eq!(StepOutcome::from_tallies(&tallies, 0, Vec::new(), 2).gets_per_s, 0.0);
    }
}
