//! Counters and latency histograms of a load thread.

use hdrhistogram::Histogram;

use crate::Failure;

/// Longest latency of the histograms, in nanoseconds; longer ones count as this.
const LATENCY_NS_MAX: u64 = 100_000_000_000;
/// Significant digits of a recorded latency.
const LATENCY_DIGITS: u8 = 3;
/// Number of faults that are described in words.
const EXAMPLES_MAX: usize = 5;

/// Counters and histograms of one thread.
#[derive(Debug)]
pub(super) struct Tally {
    /// Latency of gets: nanoseconds from when a get was due to the last byte of its reply.
    pub get_ns: Histogram<u64>,
    /// Latency of sets, in nanoseconds.
    pub set_ns: Histogram<u64>,
    /// Counters.
    pub counts: LoadCounts,
    /// For each interval of the measured time: number of answered requests, longest latency in nanoseconds.
    pub intervals: Vec<(u64, u64)>,
    /// 99th percentile of each finished tenth of a second of an open loop, in nanoseconds.
    pub tenths_p99_ns: Vec<u64>,
    /// Number of the current tenth of a second, and its latencies.
    tenth: u64,
    tenth_ns: Histogram<u64>,
    /// Descriptions of the first few faults.
    pub examples: Vec<String>,
}

/// Counters of one thread. Requests are counted when they are answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LoadCounts {
    /// Gets of one or more keys.
    pub gets: u64,
    /// Sets.
    pub sets: u64,
    /// Keys that were found.
    pub hits: u64,
    /// Keys that were not found.
    pub misses: u64,
    /// Sets answered with NOT_STORED.
    pub not_stored: u64,
    /// Requests answered with SERVER_ERROR.
    pub server_errors: u64,
    /// Wrong values: of another key, torn, of a wrong length, or never written.
    pub wrong: u64,
    /// Stale values: overwritten before the read was sent.
    pub stale: u64,
    /// Connections that broke: a reply made no sense, or the server closed the connection.
    pub broken: u64,
    /// Requests without a reply when their connection or the run ended.
    pub unanswered: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

impl Tally {
    /// Creates counters that are all zero.
    ///
    /// # Errors
    /// A histogram cannot be created.
    pub(super) fn new() -> Result<Self, Failure> {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
                .map_err(|error| Failure::new(format!("histogram: {error}")))
        };
        Ok(Self {
            get_ns: histogram()?,
            set_ns: histogram()?,
            counts: LoadCounts::default(),
            intervals: Vec::new(),
            tenths_p99_ns: Vec::new(),
            tenth: 0,
            tenth_ns: histogram()?,
            examples: Vec::new(),
        })
    }

    /// Resets counters and histograms, except wrong values, stale values, broken connections and descriptions
    /// of faults.
    pub(super) fn restart(&mut self) {
        self.get_ns.reset();
        self.set_ns.reset();
        self.intervals.clear();
        self.tenths_p99_ns.clear();
        self.tenth_ns.reset();
        let was = std::mem::take(&mut self.counts);
        self.counts.wrong = was.wrong;
        self.counts.stale = was.stale;
        self.counts.broken = was.broken;
    }

    /// Counts answered gets and sets that all took `latency_ns`.
    #[inline]
    pub(super) fn answered(&mut self, gets: u64, sets: u64, latency_ns: u64) {
        self.counts.gets += gets;
        self.counts.sets += sets;
        if gets > 0 {
            self.get_ns.saturating_record_n(latency_ns.max(1), gets);
        }
        if sets > 0 {
            self.set_ns.saturating_record_n(latency_ns.max(1), sets);
        }
    }

    /// Adds answered requests to an interval of the measured time.
    #[inline]
    pub(super) fn in_interval(&mut self, index: usize, requests: u64, latency_ns: u64) {
        if index >= self.intervals.len() {
            self.intervals.resize(index + 1, (0, 0));
        }
        let interval = &mut self.intervals[index];
        interval.0 += requests;
        interval.1 = interval.1.max(latency_ns);
    }

    /// Adds answered requests to a tenth of a second of the measured time. A request whose tenth has ended
    /// counts in the current one.
    #[inline]
    pub(super) fn in_tenth(&mut self, index: u64, requests: u64, latency_ns: u64) {
        if index > self.tenth {
            self.end_tenth();
            self.tenth = index;
        }
        self.tenth_ns.saturating_record_n(latency_ns.max(1), requests);
    }

    /// Ends the current tenth of a second and records its 99th percentile.
    pub(super) fn end_tenth(&mut self) {
        if !self.tenth_ns.is_empty() {
            self.tenths_p99_ns.push(self.tenth_ns.value_at_quantile(0.99));
            self.tenth_ns.reset();
        }
    }

    /// Keeps the description of a fault, unless there are enough.
    #[cold]
    pub(super) fn example(&mut self, words: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(words());
        }
    }
}
