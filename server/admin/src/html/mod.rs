//! The page for people: `/` of the admin server. It is one document without scripts that fetches nothing;
//! every text in it is escaped. `stats` and `/metrics` show the same numbers.

mod cache;
mod proxy;

use std::fmt::Display;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use corecached_shard::VERSION;
use corecached_shard::counters::Cells;

use crate::view::{AdminView, Role};

/// Longest time between two loads that `?refresh=` may ask for, seconds.
const REFRESH_MAX_S: u32 = 3600;
/// The content security policy of the page: nothing is fetched or run, even if a name that the page shows
/// tries to.
pub(crate) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

const STYLE: &str = "
:root { color-scheme: light dark; --line: #d0d4da; --quiet: #5c6570; --bad: #b3261e; --good: #1a7f37; --band: #f4f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a414a; --quiet: #9aa4af; --bad: #ff8a80; --good: #6fdd8b; --band: #22272e; }
  body { background: #16191d; color: #e4e7eb; }
}
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; } h2 { font-size: 1.1rem; margin: 1.75rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; min-width: 50%; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: right; white-space: nowrap; }
th { color: var(--quiet); font-weight: 600; } tbody tr:nth-child(even) { background: var(--band); }
th:first-child, td:first-child, .text { text-align: left; }
td.long { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 10rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
.quiet { color: var(--quiet); } .bad { color: var(--bad); } .good { color: var(--good); }
";

/// Renders the page. `query` is the part of its address after the `?`. The caller refreshes the view before.
#[must_use]
pub(crate) fn render(view: &AdminView, query: Option<&str>) -> String {
    let role = view.role.name();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @if let Some(seconds) = query.and_then(refresh) { meta http-equiv="refresh" content=(seconds); }
                title { "corecached " (role) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "corecached " (role) }
                (facts(view))
                @match &view.role {
                    Role::Proxy(proxy) => (proxy::sections(proxy)),
                    Role::Cache(cache) => (cache::sections(&view.server, cache)),
                }
                (cores(view))
            }
        }
    };
    page.into_string()
}

/// The seconds of `refresh=SECONDS` in the query; `None` without it or when they are out of bounds.
fn refresh(query: &str) -> Option<u32> {
    let value = query.split('&').find_map(|part| part.strip_prefix("refresh="))?;
    value.parse().ok().filter(|seconds| (1..=REFRESH_MAX_S).contains(seconds))
}

fn facts(view: &AdminView) -> Markup {
    let clients = format!(
        "{} connected, {} since the start, at most {}",
        view.server.network.admission.open(),
        view.server.network.admission.accepted(),
        view.connections_max
    );
    let unready = view.server.lifecycle.unready();
    html! {
        dl {
            dt { "version" } dd { (VERSION) }
            dt { "up" } dd { (duration(view.server.clock.uptime_s())) }
            dt { "now" } dd { (time(view.server.clock.now_s())) }
            dt { "ready" } dd class=(if unready.is_none() { "good" } else { "bad" }) {
                @match unready { None => { "yes" } Some(reason) => { "no: " (reason) } }
            }
            dt { "backend" } dd { (view.server.network.backend) }
            dt { "cores" } dd { (view.server.cells.len()) }
            dt { "clients" } dd { (clients) }
        }
    }
}

/// The table of `stats cores`, with one row for each core.
fn cores(view: &AdminView) -> Markup {
    // A proxy stores nothing.
    let left_out = if matches!(view.role, Role::Proxy(_)) { 3 } else { 0 };
    let rows: Vec<_> = view.server.cells.iter().map(Cells::core_numbers).collect();
    let names = rows.first().into_iter().flatten().skip(left_out).map(|(name, _)| *name);
    let heads: Vec<&str> = std::iter::once("core").chain(names).collect();
    let row = |(core, numbers): (usize, &[(&str, u64); 12])| {
        html! { tr { td { (core) } @for (_, number) in &numbers[left_out..] { td { (number) } } } }
    };
    html! { h2 { "Cores" } (table(&heads, rows.iter().enumerate().map(row))) }
}

/// A table, which scrolls sideways on a narrow screen.
fn table(heads: &[&str], rows: impl IntoIterator<Item = Markup>) -> Markup {
    html! {
        div.wide {
            table {
                thead { tr { @for head in heads { th { (head) } } } }
                tbody { @for row in rows { (row) } }
            }
        }
    }
}

fn none(text: &str) -> Markup {
    html! { p.quiet { (text) } }
}

/// A Unix time in seconds, spelled out in UTC.
fn time(at_s: u32) -> impl Display {
    Timestamp::from_second(at_s.into()).unwrap_or_default().strftime("%F %T UTC").to_string()
}

fn duration(seconds: u32) -> String {
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", seconds % 60),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_is_a_number_of_seconds_within_bounds() {
        assert_eq!(refresh("refresh=5"), Some(5));
        assert_eq!(refresh("a=b&refresh=3600&c"), Some(3600));
        for query in [
            "",
            "refresh",
            "refresh=",
            "refresh=0",
            "refresh=3601",
            "refresh=-1",
            "refresh=1;url=x",
            "xrefresh=5",
        ] {
            assert_eq!(refresh(query), None, "{query}");
        }
    }

    #[test]
    fn times_are_spelled_out() {
        assert_eq!(time(0).to_string(), "1970-01-01 00:00:00 UTC");
        for (seconds, text) in [(61, "1 min 1 s"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
