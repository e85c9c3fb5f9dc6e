//! The result table, with a row for each setting and phase.

use std::fmt::Write;

use serde::Serialize;

use super::client::PhaseCounts;
use crate::machine::Machine;

/// The result of one phase with one setting.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// Name of the setting.
    pub setting: String,
    /// Name of the phase: before the delay, its first 2 s, or later.
    pub phase: String,
    /// Gets a second.
    pub gets_per_s: f64,
    /// Median latency in milliseconds, from when a get was due.
    pub p50_ms: f64,
    /// 99th percentile of latency, milliseconds.
    pub p99_ms: f64,
    /// 99.9th percentile of latency, milliseconds.
    pub p999_ms: f64,
    /// Gets that were not answered with their value.
    pub errors: u64,
    /// Requests to caches divided by gets.
    pub requests_per_get: f64,
    /// Percentage of gets that were sent twice.
    pub hedged_percent: f64,
    /// Hedges that the budget denied, as a percentage of gets.
    pub denied_percent: f64,
    /// Percentage of gets that adaptive concurrency sent to another copy at once.
    pub refused_percent: f64,
}

impl Row {
    /// Combines the counters of all clients in a phase of `seconds`. `sent` has the requests that the proxy
    /// sent, hedged, denied and refused in the phase.
    #[must_use]
    pub(super) fn from_counts(
        setting: &str,
        phase: &str,
        counts: &[&PhaseCounts],
        sent: [u64; 4],
        seconds: f64,
    ) -> Self {
        let mut get_us: Vec<u32> = counts.iter().flat_map(|counts| counts.get_us.iter().copied()).collect();
        get_us.sort_unstable();
        let part = |of: f64| match get_us.len() {
            0 => 0.0,
            len => f64::from(get_us[((len as f64 * of) as usize).min(len - 1)]) / 1000.0,
        };
        let gets = get_us.len().max(1) as f64;
        let [requests, hedged, denied, refused] = sent.map(|count| count as f64 / gets);
        Self {
            setting: setting.to_owned(),
            phase: phase.to_owned(),
            gets_per_s: get_us.len() as f64 / seconds,
            p50_ms: part(0.5),
            p99_ms: part(0.99),
            p999_ms: part(0.999),
            errors: counts.iter().map(|counts| counts.errors).sum(),
            requests_per_get: requests,
            hedged_percent: hedged * 100.0,
            denied_percent: denied * 100.0,
            refused_percent: refused * 100.0,
        }
    }
}

/// Renders the results as Markdown.
#[must_use]
pub(super) fn markdown(rows: &[Row], delay_ms: u64, machine: &Machine, command: &str) -> String {
    let mut text = format!(
        "# One of three servers becomes {delay_ms} ms slower\n\n`corecached-bench {command}`, {}\n\n{}\n\n\
         Three caches with two copies of each key behind one proxy of one core; gets at Poisson instants, each timed from \
         when it was due. `before` is without a slow server. Requests are those of the proxy to the caches.\n\n\
         | pool | phase | gets/s | p50 ms | p99 ms | p99.9 ms | errors | requests/get | hedged | denied by the budget | \
         refused, to the other copy |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
        machine.date,
        machine.line()
    );
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.2} | {:.1} | {:.1} | {} | {:.3} | {:.1} % | {:.1} % | {:.1} % |",
            row.setting,
            row.phase,
            row.gets_per_s,
            row.p50_ms,
            row.p99_ms,
            row.p999_ms,
            row.errors,
            row.requests_per_get,
            row.hedged_percent,
            row.denied_percent,
            row.refused_percent
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_counted_is_added_up() {
        let counts = |us: u32| PhaseCounts { get_us: vec![us; 50], errors: 1 };
        let row = Row::from_counts("s", "p", &[&counts(1000), &counts(9000)], [150, 50, 1, 0], 2.0);
        assert_eq!((row.gets_per_s, row.errors, row.requests_per_get), (50.0, 2, 1.5));
        assert_eq!((row.p50_ms, row.p99_ms, row.hedged_percent, row.denied_percent), (9.0, 9.0, 50.0, 1.0));
    }
}
