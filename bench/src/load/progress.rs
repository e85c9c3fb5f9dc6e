//! What a run shows while it goes on: one line on a terminal, nothing elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the line is drawn again, a second.
const DRAWS_PER_S: u8 = 5;

/// A line that load threads move on.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    requests: AtomicU64,
}

impl Progress {
    /// Nothing is shown.
    #[must_use]
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), requests: AtomicU64::new(0) }
    }

    /// A bar for a run of `duration`, of which `what` says what it is.
    #[must_use]
    pub fn of_time(what: &str, duration: Duration) -> Self {
        Self::shown(what, duration.as_millis() as u64, "{msg} {wide_bar} {percent} % {prefix}")
    }

    /// A bar for `count` requests.
    #[must_use]
    pub fn of_requests(what: &str, count: u64) -> Self {
        Self::shown(what, count, "{msg} {wide_bar} {percent} % {prefix}")
    }

    fn shown(what: &str, length: u64, template: &str) -> Self {
        let bar =
            ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(DRAWS_PER_S));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self { bar, requests: AtomicU64::new(0) }
    }

    /// `position` in the unit of the bar; `requests` more were answered. Draws at most a few times a second.
    pub fn advance(&self, position: u64, requests: u64) {
        self.requests.fetch_add(requests, Ordering::Relaxed);
        if self.bar.is_hidden() {
            return;
        }
        let rate = self.requests.load(Ordering::Relaxed) as f64 / self.bar.elapsed().as_secs_f64().max(0.001);
        self.bar.set_prefix(format!("{:.0} k/s", rate / 1000.0));
        self.bar.set_position(position);
    }

    /// Take the line away.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}
