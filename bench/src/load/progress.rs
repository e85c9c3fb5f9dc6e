//! The progress bar of a run: one line on a terminal, nothing when standard error is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Number of times a second that the bar is drawn at most.
const DRAWS_PER_S: u8 = 5;

/// A progress bar that load threads advance.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar that is never shown.
    #[must_use]
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    /// A bar for a run of `duration`, labelled `what`.
    #[must_use]
    pub fn for_duration(what: &str, duration: Duration) -> Self {
        Self::shown(what, duration.as_millis() as u64, "{msg} {wide_bar} {percent} % {prefix}")
    }

    /// A bar for a run of `count` requests, labelled `what`.
    #[must_use]
    pub fn for_requests(what: &str, count: u64) -> Self {
        Self::shown(what, count, "{msg} {wide_bar} {percent} % {prefix}")
    }

    fn shown(what: &str, length: u64, template: &str) -> Self {
        let bar =
            ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(DRAWS_PER_S));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self { bar }
    }

    /// Moves the bar to `position`, in milliseconds or requests, and shows the rate that follows from
    /// `requests` answered so far. Draws at most a few times a second.
    pub fn advance(&self, position: u64, requests: u64) {
        if self.bar.is_hidden() {
            return;
        }
        let rate = requests as f64 / self.bar.elapsed().as_secs_f64().max(0.001);
        self.bar.set_prefix(format!("{:.0} k/s", rate / 1000.0));
        self.bar.set_position(position);
    }

    /// Removes the bar from the terminal.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}
