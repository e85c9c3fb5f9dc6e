//! Renders a comparison as Markdown.

use std::fmt::Write;

use super::table::{Added, Cell, Comparison, Spread};

/// Renders the comparison: machine, method, ratios, figures and, for proxies, added latency.
#[must_use]
pub(super) fn render(comparison: &Comparison) -> String {
    let mut text = String::new();
    let machine = &comparison.machine;
    let names: Vec<&str> = comparison.servers.iter().map(|server| server.name.as_str()).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# Comparison of {}\n", machine.date);
    let _ = writeln!(text, "- machine: {}\n- command: `{}`", machine.line(), comparison.command);
    let _ = writeln!(text, "- method: {}", comparison.method);
    for server in &comparison.servers {
        let _ = writeln!(text, "- {}: {}, `{}`", server.name, server.version, server.arguments);
    }
    let _ = writeln!(text, "\n## Ratios to {}\n", names[0]);
    let _ = writeln!(
        text,
        "Median of the ratios within a round [least-greatest]: CPU a request (below 1 is better), requests a second \
         (above 1 is better), 99th percentile (below 1 is better; in open loops that of the median tenth of a second).\n"
    );
    let _ = writeln!(text, "| workload | figure | {} |", names[1..].join(" | "));
    let _ = writeln!(text, "|---|---|{}", "---|".repeat(names.len() - 1));
    for row in &comparison.rows {
        for (index, name) in ["CPU", "throughput", "p99"].into_iter().enumerate() {
            let ratios = |cell: &Cell| [cell.cpu_ratio, cell.throughput_ratio, cell.p99_ratio];
            let cells: Vec<String> =
                row.cells[1..].iter().map(|cell| ratio(cell, ratios(cell)[index])).collect();
            let _ = writeln!(text, "| {} | {name} | {} |", row.workload, cells.join(" | "));
        }
    }
    let _ = writeln!(text, "\n## Figures\n");
    let _ = writeln!(
        text,
        "Medians over rounds: server CPU us/request (thousand requests/s; p50 / p99 / p99.9 us; generator CPU us/request).\n"
    );
    let _ = writeln!(text, "| workload | {} |", names.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(names.len()));
    for row in &comparison.rows {
        let cells: Vec<String> = row.cells.iter().map(figures).collect();
        let _ = writeln!(text, "| {}: {} | {} |", row.workload, row.what, cells.join(" | "));
    }
    if !comparison.added.is_empty() {
        text.push_str(&added(&comparison.added));
    }
    text
}

fn added(proxies: &[Added]) -> String {
    let mut text = "\n## Added latency\n\nMedian of the differences within a round [least-greatest] to one of the \
                    caches asked directly, us, in `open`.\n\n| proxy | p50 | p99 of the median tenth of a second |\n\
                    |---|---|---|\n"
        .to_owned();
    let spread = |spread: Spread| format!("{:+.0} [{:+.0} to {:+.0}]", spread.median, spread.min, spread.max);
    for proxy in proxies {
        let _ = writeln!(text, "| {} | {} | {} |", proxy.name, spread(proxy.p50_us), spread(proxy.p99_us));
    }
    text
}

fn ratio(cell: &Cell, ratio: Spread) -> String {
    match cell.failure {
        Some(_) => "-".to_owned(),
        // There is no figure: the CPU time of this process was not read.
        None if ratio.median == 0.0 => "-".to_owned(),
        None => format!("{:.2} [{:.2}-{:.2}]", ratio.median, ratio.min, ratio.max),
    }
}

fn figures(cell: &Cell) -> String {
    if let Some(failure) = &cell.failure {
        return format!("- ({failure})");
    }
    let cpu = if cell.cpu_us > 0.0 { format!("{:.2}", cell.cpu_us) } else { "-".to_owned() };
    let mut text = format!(
        "{cpu} ({:.1} k/s; {:.0} / {:.0} / {:.0}; {:.2})",
        cell.requests_per_s / 1000.0,
        cell.p50_us,
        cell.p99_us,
        cell.p999_us,
        cell.generator_cpu_us
    );
    if let Some(steady_us) = cell.steady_p99_us {
        let _ = write!(text, " steady p99 {steady_us:.0}");
    }
    if cell.saturated {
        text.push_str(" saturated");
    }
    if cell.faults > 0 {
        let _ = write!(text, " **{} faults**", cell.faults);
    }
    text
}
